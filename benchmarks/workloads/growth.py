"""What a spawn costs in a parent that has grown: in memory, in open fds, in live children.

Empty and grown are measured in turn in the same process, so their ratio is of one parent at almost
one moment. A fork copies page tables and fd tables; who forks, or closes fds one by one, shows it.
"""

from __future__ import annotations

import mmap
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import target
from benchmarks.model import NotPossible, Point
from benchmarks.workloads._pace import (
    measure_us,
    public_target,
    raise_open_files,
    require_open_files,
    warm_up,
)

KIND = "spawn"
NEEDS = "spawn_many"
UNITS = {"empty_us": "us", "grown_us": "us", "ratio": ""}
SHOWN = ("grown_us", "ratio")
ABOUT = "8 at once; ratio: of the grown to the empty parent, both in one process, in turn."
CURVE = ("empty_us", "grown_us", "size")
"""For plots: where a curve begins, where it goes on, and over which parameter."""

AT_ONCE = 8
SECONDS = 0.25
ROUNDS = 3
ROUNDS_JUDGED = 7
"""Where a goal compares one point with another: a busy second must not be the median of it."""

SLOW_US = 1000
"""A spawn this slow has shown what it is in one round; more would take the suite minutes."""

_SIZES: dict[str, dict[str, float]] = {
    "memory": {"0.5 GiB": 0.5, "1 GiB": 1, "2 GiB": 2, "4 GiB": 4},
    "fds": {"1,000 fds": 1000, "10,000 fds": 10_000, "18,000 fds": 18_000},
    # 4,500 children with three pipes and a pidfd each are what 20,000 fds have room for.
    "live children": {"1,000 live": 1000, "4,000 live": 4000, "4,500 live": 4500},
}

_FEW = {"2 GiB", "4 GiB", "10,000 fds", "18,000 fds", "1,000 live", "4,000 live"}
"""Of the ways identity and pty: enough to see that they grow as path does, or do not."""

_JUDGED = {"2 GiB", "10,000 fds", "4,000 live"}
"""Of which goals.py speaks."""

_QUICK = {
    ("plain", "2 GiB"),
    ("plain", "10,000 fds"),
    ("path", "10,000 fds"),
    ("pty", "10,000 fds"),
}
"""A taste: what costs a forking peer seconds is for the full run."""


def _points() -> tuple[Point, ...]:
    return tuple(
        Point(
            group=f"{what}, {way}",
            label=label,
            params={
                "what": what,
                "size": size,
                "way": way,
                "seconds": SECONDS,
                "rounds": ROUNDS_JUDGED if label in _JUDGED else ROUNDS,
            },
            quick={"seconds": 0.1, "rounds": 1} if (way, label) in _QUICK else None,
            repeats=1,  # it has rounds of its own
        )
        for what, sizes in _SIZES.items()
        for way in ("plain", "path", "identity", "pty")
        for label, size in sizes.items()
        if way in ("plain", "path") or label in _FEW
    )


PARAMS = _points()


def run(
    adapter: Adapter, what: str, size: float, way: str, seconds: float, rounds: int
) -> dict[str, float]:
    """Return the costs in the empty and in the grown parent, and their ratio."""
    raise_open_files()
    grow = _GROW[what]
    empty_us, grown_us = [], []
    with public_target("tiny") as program:
        argv = [program]
        for _ in range(rounds):
            empty_us.append(_measure(adapter, argv, way, seconds))
            with grow(adapter, size):
                grown_us.append(_measure(adapter, argv, way, seconds))
            if grown_us[0] > SLOW_US:
                break
    empty, grown = statistics.median(empty_us), statistics.median(grown_us)
    return {"empty_us": empty, "grown_us": grown, "ratio": grown / empty}


def _measure(adapter: Adapter, argv: Sequence[str], way: str, seconds: float) -> float:
    # Warm again in each parent: the first spawn after growing pays for what grew.
    count = warm_up(adapter, argv, AT_ONCE, way, seconds)
    return measure_us(adapter, argv, count, AT_ONCE, way)


@contextmanager
def _memory(adapter: Adapter, size: float) -> Iterator[None]:
    """So many GiB resident, in pages of 4 KiB: what a heap of small objects consists of.

    Huge pages would have a 512th of the page table, which is what a fork copies.
    """
    length = int(size * (1 << 30))
    if _available_bytes() < length + (1 << 30):
        raise NotPossible(f"less than {size + 1:g} GiB of memory is available")
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as ballast:
        ballast.madvise(mmap.MADV_NOHUGEPAGE)
        ballast[:: mmap.PAGESIZE] = b"\1" * (length // mmap.PAGESIZE)
        yield


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise NotPossible("/proc/meminfo does not tell how much memory is available")


@contextmanager
def _fds(adapter: Adapter, size: float) -> Iterator[None]:
    require_open_files(int(size))
    fds = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(int(size))]
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


@contextmanager
def _live_children(adapter: Adapter, size: float) -> Iterator[None]:
    require_open_files(4 * int(size))
    held = adapter.hold([target("hold")], int(size))
    try:
        yield
    finally:
        held.end_all()


_GROW: dict[str, Callable[[Adapter, float], AbstractContextManager[None]]] = {
    "memory": _memory,
    "fds": _fds,
    "live children": _live_children,
}
