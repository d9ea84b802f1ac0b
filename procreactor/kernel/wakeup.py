"""A fd that any thread, or a signal, can make readable.

A pipe and not an eventfd: the same fd serves `signal.set_wakeup_fd`, which writes one byte, and an
eventfd takes eight. Both ends are non-blocking: a full pipe is awake already.
"""

from __future__ import annotations

import os

__all__ = ["Wakeup"]


class Wakeup:
    """A self-pipe; ``fileno`` is readable from `wake` until `drain`."""

    _read_fd = write_fd = -1

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The fd to watch for reading."""
        return self._read_fd

    def wake(self) -> None:
        """Make the fd readable; callable from any thread and from signal handlers."""
        try:
            os.write(self.write_fd, b"\0")
        except BlockingIOError:
            pass

    def drain(self) -> None:
        """Make the fd unreadable until the next `wake`."""
        try:
            while len(os.read(self._read_fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close both ends. Idempotent."""
        read_fd, write_fd = self._read_fd, self.write_fd
        self._read_fd = self.write_fd = -1
        for fd in (read_fd, write_fd):
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()
