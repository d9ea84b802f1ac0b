"""The workloads of bytes: each runs, in miniature, and takes no wrong count for a figure."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmarks.adapters.pipes import WrongResult
from benchmarks.model import NotPossible

LIBRARIES = ("procreactor", "blocking", "limit", "limit_big")
TINY: Mapping[str, Mapping[str, int]] = {
    "pipe_read": {"total_bytes": 200_001},
    "pipe_write": {"total_bytes": 200_001, "chunk_bytes": 65536},
    "lines": {"lines": 12_345},
    "ping_pong": {"rounds": 5},
    "streams": {"children": 4, "bytes_each": 100_000},
}


def workload(name: str) -> Any:
    return importlib.import_module(f"benchmarks.workloads.{name}")


def adapter(name: str) -> Any:
    return importlib.import_module(f"benchmarks.adapters.pipes.{name}")


def able_pairs() -> list[tuple[str, str]]:
    """Every workload with every adapter that can do it."""
    pairs = [(name, library) for name in TINY for library in LIBRARIES]
    return [pair for pair in pairs if hasattr(adapter(pair[1]), workload(pair[0]).NEEDS)]


@pytest.mark.parametrize(("name", "library"), able_pairs())
def test_it_runs_and_gives_the_figures_that_it_names(name: str, library: str) -> None:
    module = workload(name)
    figures = module.run(adapter(library), **TINY[name])
    assert figures.keys() == module.UNITS.keys()
    assert all(math.isfinite(figure) and figure > 0 for figure in figures.values())


@pytest.mark.parametrize("name", TINY)
def test_its_points_have_the_parameters_that_it_takes(name: str) -> None:
    module = workload(name)
    assert module.KIND == "pipes"
    assert set(module.SHOWN) <= module.UNITS.keys()
    takes = set(module.run.__annotations__) - {"adapter", "return"}
    for point in module.PARAMS:
        assert point.params.keys() == takes
        assert point.quick is None or point.quick.keys() <= takes
    assert any(point.quick is not None for point in module.PARAMS), "a taste of each"


class Miscounting:
    """Reads with the blocking loops, and tells one more or one less than came."""

    def __init__(self, error: int) -> None:
        self.error = error

    def _wrong(self, figures: tuple[float, int]) -> tuple[float, int]:
        return figures[0], figures[1] + self.error

    def read_all(self, argv: Sequence[str]) -> tuple[float, int]:
        return self._wrong(adapter("blocking").read_all(argv))

    def read_lines(self, argv: Sequence[str]) -> tuple[float, int]:
        return self._wrong(adapter("blocking").read_lines(argv))

    def read_streams(self, argv: Sequence[str], count: int) -> tuple[float, int]:
        return self._wrong(adapter("blocking").read_streams(argv, count))


@pytest.mark.parametrize("error", [1, -1])
@pytest.mark.parametrize("name", ["pipe_read", "lines", "streams"])
def test_a_count_that_is_one_off_is_refused(name: str, error: int) -> None:
    with pytest.raises(WrongResult):
        workload(name).run(Miscounting(error), **TINY[name])


class Seen:
    """Plays nothing, and notes where it was asked to."""

    def __init__(self) -> None:
        self.cpus: set[int] = set()
        self.argv: Sequence[str] = ()

    def ping_pong(self, argv: Sequence[str], rounds: int) -> float:
        self.cpus = os.sched_getaffinity(0)
        self.argv = argv
        return 1.0


def test_ping_pong_on_one_cpu_holds_both_sides_there() -> None:
    before, seen = os.sched_getaffinity(0), Seen()
    workload("ping_pong").run(seen, rounds=1, cpus=1)
    assert seen.cpus == {min(before)}
    assert seen.argv == ["cat"]
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_ping_pong_on_two_cpus_sends_the_child_to_the_other() -> None:
    before, seen = os.sched_getaffinity(0), Seen()
    workload("ping_pong").run(seen, rounds=1, cpus=2)
    assert seen.cpus == {min(before)}
    assert seen.argv == ["taskset", "-c", str(sorted(before)[1]), "cat"]
    assert os.sched_getaffinity(0) == before


def test_ping_pong_on_more_cpus_than_there_are_is_not_possible() -> None:
    with pytest.raises(NotPossible):
        workload("ping_pong").run(Seen(), rounds=1, cpus=len(os.sched_getaffinity(0)) + 1)
