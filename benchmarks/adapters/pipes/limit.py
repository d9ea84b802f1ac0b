"""The limit: a C program with blocking reads and writes of 64 KiB, on pipes as they are made."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.adapters.pipes import READ_BYTES
from benchmarks.adapters.pipes._limit import run_limit

_UNGROWN = 0


def read_all(argv: Sequence[str]) -> tuple[float, int]:
    """read(2)."""
    return run_limit("read", _UNGROWN, READ_BYTES, 0, argv)


def read_lines(argv: Sequence[str]) -> tuple[float, int]:
    """read(2) and memchr(3); no line becomes an object."""
    return run_limit("lines", _UNGROWN, READ_BYTES, 0, argv)


def read_streams(argv: Sequence[str], count: int) -> tuple[float, int]:
    """epoll(7), one read(2) per event."""
    return run_limit("streams", _UNGROWN, READ_BYTES, count, argv)


def write_all(argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
    """write(2)."""
    return run_limit("write", _UNGROWN, chunk_bytes, total_bytes, argv)[0]


def ping_pong(argv: Sequence[str], rounds: int) -> float:
    """write(2) and read(2)."""
    return run_limit("pingpong", _UNGROWN, READ_BYTES, rounds, argv)[0]
