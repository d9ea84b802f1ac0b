"""os.posix_spawn and os.waitid in one thread, without pipes: what Python offers at the bottom."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from benchmarks.adapters.spawn import ENVIRONMENT
from benchmarks.adapters.spawn._bare import BareHeld, reap

__all__ = ["WAYS", "hold", "spawn_many"]

WAYS = frozenset({"plain"})


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`; no pipes.

    It reaps whichever child ends, so no others than its own may end meanwhile.
    """
    program, arguments = argv[0], list(argv)
    begun_s = time.perf_counter()
    started = ended = 0
    while ended < count:
        if started < count and started - ended < at_once:
            os.posix_spawn(program, arguments, ENVIRONMENT)
            started += 1
        else:
            reap(os.P_ALL, 0)
            ended += 1
    return time.perf_counter() - begun_s


hold = BareHeld
