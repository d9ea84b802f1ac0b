"""Closing an fd, once; and what it means that there is none to be had.

Facts (close(2), NOTES): whatever close returns, Linux has let go of the number by then; EINTR, and
EIO of what was written before, come after that. So it is never tried again, as the number may be
another thread's by now; and who has more to close, or to tell, must not be kept from it. CPython
raises these errors, and does not retry (PEP 475).

EBADF is another matter: nothing was open. Somebody closes what is not his, or twice, and next time
the number may be a stranger's. That is returned, for callers who can tell whose mistake it is.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from io import FileIO

from procreactor.core import binding

__all__ = ["close_fd", "is_shortage", "read_file"]

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

close_fd = partial(binding.drop, -1)
"""``close_fd(fd)``: *fd* is closed, and nothing is raised; -EBADF when it was not open, else 0.

One C call, and no function: an exception of a signal handler comes before it or after it.
"""


def is_shortage(error: OSError) -> bool:
    """Whether *error* says nothing of a file, but that no fd, or no memory, is to be had now."""
    return error.errno in _SHORTAGES


def read_file(path: str, folder_fd: int | None = None) -> bytes:
    """Return all that the file at *path*, below *folder_fd*, says; OSError of opening, reading.

    An interrupt loses no fd: there is a file that closes itself, and no bare number.
    """
    file = FileIO(path, opener=partial(os.open, dir_fd=folder_fd))
    try:
        return file.readall()
    finally:
        try:
            file.close()
        except OSError:
            pass  # what was read has been read, and it is closed
