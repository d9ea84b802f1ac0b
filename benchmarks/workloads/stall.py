"""How long a spawn keeps the loop from everything else.

Also with a program whose file system is slow: whoever waits for the child's exec inside the loop
blocks it as long as the file takes to open.
"""

from __future__ import annotations

import statistics
from contextlib import nullcontext

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import target
from benchmarks.model import Point
from benchmarks.slowfs import slow_copy

KIND = "spawn"
NEEDS = "stall"
UNITS = {"median_us": "us", "longest_us": "us"}
SHOWN = ("median_us", "longest_us")
ABOUT = "The longest turn of the loop from a spawn to the child's end: median and worst spawn."
PARAMS = (
    Point("stall", "tiny", {"delay_ms": 0, "count": 500}, quick={"count": 100}, repeats=3),
    Point("stall", "20 ms to open", {"delay_ms": 20, "count": 25}, quick={"count": 8}, repeats=3),
)


def run(adapter: Adapter, delay_ms: int, count: int) -> dict[str, float]:
    """Return the stalls of *count* spawns, one after the other."""
    program = target("tiny")
    # Mounted before the first spawn: the threads that a library starts there have these mounts too.
    with slow_copy(program, delay_ms / 1000) if delay_ms else nullcontext(program) as path:
        adapter.stall([path], 3)
        stalls_s = adapter.stall([path], count)
    return {
        "median_us": statistics.median(stalls_s) * 1e6,
        "longest_us": max(stalls_s) * 1e6,
    }
