"""Thousands of live children and nothing to do: how often the parent wakes up, what CPU it takes.

A wake-up is a voluntary context switch of any of its threads (proc(5), status). Of two idle times
the shorter is subtracted from the longer: what begins and ends them is in both.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.adapters.spawn import Adapter, Held
from benchmarks.build import target
from benchmarks.model import Point
from benchmarks.workloads._pace import require_open_files

KIND = "spawn"
NEEDS = "hold"
UNITS = {"wakeups_per_s": "wake-ups per s", "cpu_ms_per_s": "ms per s"}
SHOWN = ("wakeups_per_s", "cpu_ms_per_s")
PARAMS = tuple(
    Point("idle", f"{count:,} children", {"count": count, "seconds": 2.0}, quick=quick, repeats=2)
    for count, quick in ((1000, None), (4000, {"seconds": 1.0}))
)

_SHORT_S = 0.2


def run(adapter: Adapter, count: int, seconds: float) -> dict[str, float]:
    """Return wake-ups and CPU time, per second."""
    require_open_files(4 * count)
    held = adapter.hold([target("hold")], count)
    held.idle(_SHORT_S)  # what spawning has left to do is done
    short_wakeups, short_cpu_s = _cost(held, _SHORT_S)
    long_wakeups, long_cpu_s = _cost(held, _SHORT_S + seconds)
    held.end_all()
    return {
        "wakeups_per_s": max(0, long_wakeups - short_wakeups) / seconds,
        "cpu_ms_per_s": max(0.0, long_cpu_s - short_cpu_s) / seconds * 1000,
    }


def _cost(held: Held, seconds: float) -> tuple[int, float]:
    wakeups, cpu_s = _wakeups(), time.process_time()
    held.idle(seconds)
    return _wakeups() - wakeups, time.process_time() - cpu_s


def _wakeups() -> int:
    """Return how often the threads of this process have waited, so far; of those that live."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        for line in (task / "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total
