"""Live children that all end at once: how long each end takes, for few and for thousands.

Who looks at all children whenever one ends pays for the square of their number.
"""

from __future__ import annotations

import statistics

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import target
from benchmarks.model import Point
from benchmarks.workloads._pace import require_open_files

KIND = "spawn"
NEEDS = "hold"
UNITS = {"us_per_exit": "us"}
SHOWN = ("us_per_exit",)
ABOUT = "From closing the first stdin to the last end of status and outputs, per child."
PARAMS = (
    # A storm of 100 takes some milliseconds: only the median of many says anything.
    Point(
        "exit storm", "100 children", {"count": 100, "rounds": 20}, quick={"rounds": 5}, repeats=3
    ),
    Point("exit storm", "1,000 children", {"count": 1000, "rounds": 2}, repeats=2),
    Point(
        "exit storm", "4,000 children", {"count": 4000, "rounds": 2}, quick={"rounds": 1}, repeats=3
    ),
)


def run(adapter: Adapter, count: int, rounds: int) -> dict[str, float]:
    """Return the microseconds per end."""
    require_open_files(4 * count)
    argv = [target("hold")]
    adapter.hold(argv, 20).end_all()
    storms_s = [adapter.hold(argv, count).end_all() for _ in range(rounds)]
    return {"us_per_exit": statistics.median(storms_s) / count * 1e6}
