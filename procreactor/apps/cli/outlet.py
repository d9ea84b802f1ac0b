"""A standard stream as a place to write to that never blocks: waiting is an act of its own.

Facts, and what follows:

- O_NONBLOCK belongs to the open file (open(2)), which we share with who gave it to us: to set it
  would change theirs. A pipe or a terminal that is opened anew, through /proc/self/fd, is an open
  file of our own.
- A socket cannot be opened anew (ENXIO), nor what another user owns, nor anything without /proc.
  There poll is asked before each write, which then is a small one: a pipe that has room has room
  for PIPE_BUF bytes (pipe(7)), and a socket for more.
- Nobody waits for a file. Of what is wrong with an fd poll says that it is ready, and the write
  what it is.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Sequence

__all__ = ["Outlet"]

_FLAGS = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Outlet:
    """What is written to *fd*, which stays its owner's. `close` it.

    BlockingIOError of a write: there is no room now. Its other OSErrors are those of the kernel.
    """

    __slots__ = ("_is_ours", "asks", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        """Where to write to: *fd*, or one of our own that leads there."""

        self.asks = False
        """Whether it has to be asked for room before each write."""

        self._is_ours = False
        try:
            mode = os.fstat(fd).st_mode
            self.asks = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
            if self.asks:
                self.fd = os.open(f"/proc/self/fd/{fd}", _FLAGS)
                self._is_ours = True
                self.asks = False
        except OSError:
            pass  # as it was given then

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> int:
        """Write as much of *pieces* as there is room for; return how many bytes that was."""
        if not self.asks:
            return os.writev(self.fd, pieces)
        self._ask()
        return os.write(self.fd, memoryview(pieces[0])[: select.PIPE_BUF])

    def send(self, fd: int, offset: int, most_bytes: int) -> int:
        """Write what the file *fd* has at *offset*; return how many bytes that was."""
        if self.asks:
            self._ask()
            most_bytes = min(most_bytes, select.PIPE_BUF)
        return os.sendfile(self.fd, fd, offset, most_bytes)

    def wait(self) -> None:
        """Return once there is room, or something is wrong."""
        self._poll(None)

    def close(self) -> None:
        """Close what is ours. Idempotent."""
        if self._is_ours:
            self._is_ours = False
            os.close(self.fd)

    def _ask(self) -> None:
        if not self._poll(0):
            raise BlockingIOError

    def _poll(self, timeout_ms: int | None) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return poll.poll(timeout_ms)
