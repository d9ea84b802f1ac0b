"""One byte to a child and back: what a round trip costs.

Both sides sleep in every round, so where the kernel puts them counts for more than all else: on one
CPU a round of blocking calls took 5 us, on two 50 to 180 us on the same machine, because waking an
idle CPU is dear, above all a virtual one. Left alone, the kernel takes the one or the other, not
always the same for the same program. Hence three points: as a user's program would have it, and
with the placement held still, where a ratio tells of the libraries.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.adapters.pipes import PlaysPingPong
from benchmarks.model import NotPossible, Point

KIND = "pipes"
NEEDS = "ping_pong"
UNITS = {"us_per_round": "us"}
SHOWN = ("us_per_round",)
ABOUT = (
    "One byte to `cat` and back: wherever the kernel puts the two processes, then both on one CPU, "
    "then each on its own. The placement can count for more than the library."
)
_QUICK = {"rounds": 4_000}
PARAMS = (
    Point("ping-pong", "20,000 rounds", {"rounds": 20_000, "cpus": 0}),
    Point("ping-pong", "on one CPU", {"rounds": 20_000, "cpus": 1}, quick=_QUICK),
    Point("ping-pong", "on two CPUs", {"rounds": 20_000, "cpus": 2}, quick=_QUICK),
)

_WARM_UP_ROUNDS = 200


def run(adapter: PlaysPingPong, rounds: int, cpus: int = 0) -> dict[str, float]:
    """Return the time of one round; `WrongResult` unless every byte came back.

    *cpus* is 1 or 2 to hold this process and the child on so many, 0 to leave them alone.
    """
    with _placed(cpus) as argv:
        adapter.ping_pong(argv, min(_WARM_UP_ROUNDS, rounds))
        seconds = adapter.ping_pong(argv, rounds)
    return {"us_per_round": seconds / rounds * 1e6}


@contextmanager
def _placed(cpus: int) -> Iterator[list[str]]:
    """Hold this process, and what it starts, on its first CPU; give the echo's command line."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < cpus:
        raise NotPossible(f"{cpus} CPUs are needed, and this process may use {len(allowed)}")
    first, *others = sorted(allowed)
    argv = ["cat"]
    if cpus == 2:
        # The only way that every library has: the child moves itself before it execs.
        if shutil.which("taskset") is None:
            raise NotPossible("taskset (util-linux) is not installed")
        argv = ["taskset", "-c", str(others[0]), *argv]
    if cpus:
        os.sched_setaffinity(0, {first})
    try:
        yield argv
    finally:
        os.sched_setaffinity(0, allowed)
