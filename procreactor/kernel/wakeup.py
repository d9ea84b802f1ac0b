"""A fd that any thread, or a signal, can make readable.

A pipe and not an eventfd: the same fd serves `signal.set_wakeup_fd`, which writes one byte, and an
eventfd takes eight. Both ends are non-blocking: a full pipe is awake already.
"""

from __future__ import annotations

import os
from itertools import chain

from procreactor.kernel.fds import close_fd

__all__ = ["Wakeup"]


class Wakeup:
    """A self-pipe; ``fileno`` is readable from `wake` until `drain`."""

    _read_fd = write_fd = -1

    def __init__(self) -> None:
        self._open: list[int] = []
        # One call of C, from the system call to the list: an interrupt after it loses no fd.
        self._open.extend(chain.from_iterable(map(os.pipe2, (os.O_NONBLOCK | os.O_CLOEXEC,))))
        self._read_fd, self.write_fd = self._open

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
        self._read_fd = self.write_fd = -1
        while self._open:
            fd = self._open[-1]
            del self._open[-1]  # not pop, after which an interrupt may strike
            close_fd(fd)

    def __del__(self) -> None:
        if hasattr(self, "_open"):  # an interrupt may leave the object half made
            self.close()
