"""Closing an fd, once; and what it means that there is none to be had.

Facts (close(2), NOTES): whatever close returns, Linux has let go of the number by then; EINTR, and
EIO of what was written before, come after that. So it is never tried again, as the number may be
another thread's by now; and who has more to close, or to tell, must not be kept from it. CPython
raises these errors, and does not retry (PEP 475).

EBADF is another matter: nothing was open. Somebody closes what is not his, or twice, and next time
the number may be a stranger's. That is returned, for callers who can tell whose mistake it is.

A signal handler may raise as soon as a function of C has returned, and then what it returned is
lost. So an fd has to be somebody's before its system call comes back to Python: see `Fds`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import deque
from collections.abc import Callable
from functools import partial

from procreactor.core import binding
from procreactor.typed import Any

__all__ = ["Fds", "close_fd", "is_shortage", "read_file"]

_PIECE_BYTES = 16384  # most of what /proc says fits into one

_HIGH = 128
"""Above what a child gets of our table (the cut, csrc/slots.c), in a program that has few fds."""

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

close_fd = partial(binding.drop, -1)
"""``close_fd(fd)``: *fd* is closed, and nothing is raised; -EBADF when it was not open, else 0.

One C call, and no function: an exception of a signal handler comes before it or after it.
"""


class Fds:
    """Fds that ``close()`` closes, each of them from the moment that it is one.

    Once they are closed no more can be opened; to close them again does nothing.
    """

    __slots__ = ("_numbers", "_pid", "close")

    def __init__(self) -> None:
        self._numbers: list[Any] = [None]
        self._pid = os.getpid()
        # One call of C for all, as for each: whichever is no longer in the list is closed.
        self.close: Callable[[], object] = partial(
            deque, map(close_fd, iter(self._numbers.pop, None)), 0
        )

    def open(self, opener: Callable[..., int], *arguments: Any) -> int:
        """Return ``opener(*arguments)``, a new fd; *opener* is a function of C."""
        if not self._numbers:
            raise ValueError("these are closed")
        # One call of C, from the system call to the list: an interrupt comes before it or after it.
        self._numbers.extend(map(opener, *zip(arguments)))
        number: int = self._numbers[-1]
        return number

    def open_high(self, opener: Callable[..., int], *arguments: Any) -> int:
        """As `open`, and the fd has a high number, if there is one to be had.

        For many that are kept for long: each low one is copied for each child, and closed in it.
        """
        low = self.open(opener, *arguments)
        if low >= _HIGH:
            return low
        try:
            high = self.open(fcntl.fcntl, low, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        except OSError:
            return low  # RLIMIT_NOFILE
        deque(map(close_fd, map(self._numbers.pop, (-2,))), 0)  # one call of C
        return high

    def close_forgotten(self) -> None:
        """Close them as their owner's ``__del__``: not in a copy of the process that opened them.

        That may have given their numbers to other files. Not a ``__del__`` of these: where a signal
        handler raises in one, Python drops it, so there should be few.
        """
        if self._pid == os.getpid():
            self.close()


def is_shortage(error: OSError) -> bool:
    """Whether *error* says nothing of a file, but that no fd, or no memory, is to be had now."""
    return error.errno in _SHORTAGES


def read_file(path: str, folder_fd: int | None = None) -> bytes:
    """Return all that the file at *path*, below *folder_fd*, says; OSError of opening, reading."""
    fds = Fds()
    try:
        fd = fds.open(partial(os.open, dir_fd=folder_fd), path, os.O_RDONLY | os.O_CLOEXEC)
        pieces = []
        while piece := os.read(fd, _PIECE_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        fds.close()
