"""limit/spawn.c in this process, which may have grown: the bare system calls of the same work."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from benchmarks.build import limit_library
from benchmarks.model import NotPossible

__all__ = ["spawn_many"]

_WITH_PIPES = 1
_ISOLATED = 1
"""Flat in open fds, and with few of them as fast as without; so always."""


def spawn_many(argv: Sequence[str], count: int, at_once: int, threads: int) -> float:
    """Return the seconds; children are shared out among *threads*, and so is *at_once*."""
    if at_once < threads:
        raise NotPossible("fewer children at once than threads")
    if len(argv) != 1:
        raise NotPossible("a program without arguments only")
    limit_spawn = ctypes.CDLL(limit_library("spawn")).limit_spawn
    limit_spawn.argtypes = [ctypes.c_char_p] + [ctypes.c_int] * 5
    limit_spawn.restype = ctypes.c_double
    return float(limit_spawn(argv[0].encode(), count, at_once, threads, _WITH_PIPES, _ISOLATED))
