"""The limit on pipes that were grown to 256 KiB, which are read and written as much at a time.

That is what procreactor makes of a stream that proves hot (kernel/pipes.py); 1 MiB, which any user
may have by default, was no faster. Not for a thousand streams: all of a user's pipes share 64 MiB
(pipe-user-pages-soft), and what is above gets one page each. Nor for ping-pong, where a byte is a
byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.adapters.pipes._limit import run_limit

_PIPE_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 18


def read_all(argv: Sequence[str]) -> tuple[float, int]:
    """read(2)."""
    return run_limit("read", _PIPE_BYTES, _BUFFER_BYTES, 0, argv)


def read_lines(argv: Sequence[str]) -> tuple[float, int]:
    """read(2) and memchr(3); no line becomes an object."""
    return run_limit("lines", _PIPE_BYTES, _BUFFER_BYTES, 0, argv)


def write_all(argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
    """write(2) of 256 KiB, whatever the chunk."""
    return run_limit("write", _PIPE_BYTES, _BUFFER_BYTES, total_bytes, argv)[0]
