"""Bytes through a non-blocking fd: a pipe, a pseudo terminal, a stream socket.

Facts (read(2), write(2), pipe(7), tty_ioctl(4)):

- A read of 0 bytes is the end. On the master of a pseudo terminal the end is EIO instead, once no
  process holds the slave any more and all output has been read.
- A write to a pipe without readers is EPIPE (SIGPIPE is ignored by CPython itself); to a socket
  whose peer is gone, EPIPE or ECONNRESET; to a hung-up terminal, EIO.
- EINTR is retried by Python (PEP 475).

So three outcomes each, all values: data moved, `WOULD_BLOCK`, `END`. Anything else is an OSError
and a bug of ours or a broken file system's doing.

A pipe can be grown (fcntl(2), F_SETPIPE_SZ; pipe(7), /proc files):

- It belongs to the pipe, not to the fd: either end will do, and it goes when both ends are closed.
- All pipes of a user share fs.pipe-user-pages-soft (64 MiB by default). Above it an unprivileged
  user's pipes cannot be grown (EPERM), and, which is worse, each new pipe of his has two pages: a
  program that grows all its pipes slows down every other program. Nobody stops root, whose programs
  without privileges suffer all the same. Hence a share of our own: an eighth of the limit for all
  the pipes of this process, and only pipes that were found to be hot (transport/) may ask.
- Both ends may ask, so the child may have grown it further already: never shrunk.
- 256 KiB do what 1 MiB, the most that an unprivileged user may ask for, does: the two sides sleep
  less often, and beyond that the memory only leaves the cache. Reading 64 KiB writes of a C program
  on one CPU, GB/s: 5.0 of a pipe of 64 KiB, 7.4 of 256 KiB, 7.0 of 1 MiB.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from functools import cache

from procreactor.model import END, WOULD_BLOCK, NoData
from procreactor.typed import Literal

__all__ = ["GROWN_BYTES", "READ_SIZE_BYTES", "forget_grown", "try_grow", "try_read", "try_write"]

READ_SIZE_BYTES = 65536
"""A whole pipe of the default size in one read."""

GROWN_BYTES = 262144
"""What `try_grow` makes of a pipe, unless fs.pipe-max-size is less."""

_SHARE = 8
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# By number, so that one that was closed without a word is counted once at most. Adding and
# discarding are atomic; two threads that look at the size at once may go one pipe too far.
_grown: set[int] = set()
os.register_at_fork(after_in_child=_grown.clear)  # the copy's loops start without any pipe

_PEER_GONE = frozenset(
    {
        errno.EPIPE,
        errno.ECONNRESET,
        errno.EIO,
        errno.ENOTCONN,
        # What TCP gives up for, and what an administrator's "ss -K" leaves.
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ECONNABORTED,
    }
)


def try_read(
    fd: int, size_bytes: int = READ_SIZE_BYTES
) -> bytes | Literal[NoData.WOULD_BLOCK, NoData.END]:
    """Return up to *size_bytes* bytes, `WOULD_BLOCK`, or `END`."""
    try:
        return os.read(fd, size_bytes) or END
    except BlockingIOError:
        return WOULD_BLOCK
    except OSError as error:
        if error.errno in _PEER_GONE:
            return END
        raise


def try_write(
    fd: int, buffers: Sequence[bytes | memoryview]
) -> int | Literal[NoData.WOULD_BLOCK, NoData.END]:
    """Return how many bytes of *buffers* the kernel took, `WOULD_BLOCK`, or `END`: no reader."""
    try:
        return os.write(fd, buffers[0]) if len(buffers) == 1 else os.writev(fd, buffers)
    except BlockingIOError:
        return WOULD_BLOCK
    except OSError as error:
        if error.errno in _PEER_GONE:
            return END
        raise


def try_grow(fd: int) -> int | None:
    """Make the pipe of *fd* hold `GROWN_BYTES` at least, and return how many bytes it holds now.

    None when it is as it was: this process's share is used up, the user's is, or it is no pipe.
    Whoever closes *fd* calls `forget_grown`.
    """
    try:
        size_bytes = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        if size_bytes >= _target_bytes():
            return size_bytes
        if len(_grown) >= _most_grown():
            return None
        size_bytes = fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _target_bytes())
    except OSError:
        return None  # EPERM: the user's limit; EBADF: no pipe; ENOMEM; EBUSY: max-size was lowered
    _grown.add(fd)
    return size_bytes


def forget_grown(fd: int) -> None:
    """Return the share of *fd*, which is being closed; nothing if it has none."""
    _grown.discard(fd)


@cache
def _most_grown() -> int:
    """How many pipes of `GROWN_BYTES` are this process's share."""
    soft_pages = _read_limit("pipe-user-pages-soft", 16384) or 16384  # 0: no limit
    return soft_pages // _SHARE * _PAGE_BYTES // GROWN_BYTES


@cache
def _target_bytes() -> int:
    return min(GROWN_BYTES, _read_limit("pipe-max-size", GROWN_BYTES))


def _read_limit(name: str, default: int) -> int:
    try:
        # As bytes: a codec is a module to import, which who has given up rights may not read now.
        with open(f"/proc/sys/fs/{name}", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return default  # /proc is not there: what the kernel starts with
