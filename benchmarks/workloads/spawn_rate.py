"""Life cycles: how long a child takes from spawn to end, so many at once, three pipes each."""

from __future__ import annotations

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import target
from benchmarks.model import Point
from benchmarks.workloads._pace import measure_us, warm_up

KIND = "spawn"
NEEDS = "spawn_many"
UNITS = {"us_per_child": "us"}
SHOWN = ("us_per_child",)
ABOUT = (
    "run_many and `procreactor run` have two pipes, `procreactor run -u`, xargs and posix_spawn "
    "none, GNU parallel has a shell and perl. Where a program runs the children, its own start is "
    "part of it."
)

SECONDS = 0.6
"""Of one measurement: some thousands of children for the fast, hundreds for the slow."""

_REPEATS = {("tiny", 16): 15, ("true", 16): 7}


def _points() -> tuple[Point, ...]:
    # 16 at once is what the goals speak of, most of all with tiny: more repeats there, since the
    # machine's pace changes by a third within minutes; and the quick run has no other.
    return tuple(
        Point(
            group=program,
            label=f"{at_once} at once",
            params={"program": program, "at_once": at_once, "way": "plain", "seconds": SECONDS},
            quick={"seconds": 0.15} if at_once == 16 else None,
            repeats=_REPEATS.get((program, at_once), 2),
        )
        for program in ("tiny", "true")
        for at_once in (1, 16, 64)
    )


PARAMS = _points()


def run(adapter: Adapter, program: str, at_once: int, way: str, seconds: float) -> dict[str, float]:
    """Return the microseconds per child."""
    argv = ["/bin/true" if program == "true" else target(program)]
    count = warm_up(adapter, argv, at_once, way, seconds)
    return {"us_per_child": measure_us(adapter, argv, count, at_once, way)}
