"""Bytes through a non-blocking fd: a pipe, a pseudo terminal, a stream socket.

Facts (read(2), write(2), pipe(7), tty_ioctl(4)):

- A read of 0 bytes is the end. On the master of a pseudo terminal the end is EIO instead, once no
  process holds the slave any more and all output has been read.
- A write to a pipe without readers is EPIPE (SIGPIPE is ignored by CPython itself); to a socket
  whose peer is gone, EPIPE or ECONNRESET; to a hung-up terminal, EIO.
- EINTR is retried by Python (PEP 475).

So three outcomes each, all values: data moved, `WOULD_BLOCK`, `END`. Anything else is an OSError
and a bug of ours or a broken file system's doing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Literal

from procreactor.model import END, WOULD_BLOCK, NoData

__all__ = ["READ_SIZE_BYTES", "try_read", "try_write"]

READ_SIZE_BYTES = 65536
"""A whole pipe of the default size in one read."""

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
