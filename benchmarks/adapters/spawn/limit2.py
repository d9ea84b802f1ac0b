"""The bare system calls, in C, in two threads (limit/spawn.c)."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.adapters.spawn import _limits
from benchmarks.adapters.spawn._bare import BareHeld

__all__ = ["WAYS", "hold", "spawn_many"]

WAYS = frozenset({"plain"})


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`."""
    return _limits.spawn_many(argv, count, at_once, threads=2)


hold = BareHeld
