"""Programs that run others: how long they are measured, and that no byte is missing."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.adapters import library_of, module_of
from benchmarks.adapters.spawn._tools import read_lines
from benchmarks.build import HERE, target
from benchmarks.plan import libraries
from benchmarks.workloads import _pace, command_start, ordered_output

START_S, CHILD_S = 0.125, 0.0009765625
"""Of a program that nobody runs: powers of two, whose sums are exact."""


class Pretender:
    """Runs nothing, and tells what a program would have taken that starts slowly."""

    WAYS = frozenset({"plain"})

    def __init__(self, *, anew: bool) -> None:
        self.STARTS_ANEW = anew
        self.counts: list[int] = []

    def spawn_many(self, argv: Sequence[str], count: int, at_once: int, way: str) -> float:
        self.counts.append(count)
        return START_S + count * CHILD_S


def test_a_start_is_no_part_of_how_many_children_fill_the_time() -> None:
    adapter: Any = Pretender(anew=True)
    count = _pace.warm_up(adapter, ["x"], 16, "plain", 0.5)
    assert count == 0.5 * _pace.ANEW_TIMES / CHILD_S
    assert adapter.counts == [16, 24, 192]  # of which most of the time is the children's


def test_a_library_is_measured_as_long_as_it_was_asked_to() -> None:
    adapter: Any = Pretender(anew=False)
    count = _pace.warm_up(adapter, ["x"], 16, "plain", 0.5)
    assert count == int(0.5 / (START_S / 24 + CHILD_S))
    assert adapter.counts == [16, 24]


def test_a_program_whose_children_take_no_time_is_asked_for_no_more_than_the_most() -> None:
    class Instant(Pretender):
        def spawn_many(self, argv: Sequence[str], count: int, at_once: int, way: str) -> float:
            return START_S

    adapter: Any = Instant(anew=True)
    assert _pace.warm_up(adapter, ["x"], 16, "plain", 0.5) == _pace.MOST


@pytest.mark.parametrize("name", ["command", "ungrouped", "xargs"])
def test_each_line_is_one_child(name: str) -> None:
    adapter = importlib.import_module(f"benchmarks.adapters.spawn.{name}")
    line = [*adapter.command_line(2), "echo", "item"]
    _, came_bytes = read_lines(line, b"1\n2\n3\n", None)
    assert came_bytes == len(b"item 1\n") * 3


def test_a_program_that_fails_gives_no_bytes() -> None:
    with pytest.raises(RuntimeError, match="sh ended with 3"):
        read_lines(["sh", "-c", "cat; exit 3"], b"1\n", None)


def test_the_output_of_all_lines_comes_through_one_pipe() -> None:
    adapter = importlib.import_module("benchmarks.adapters.spawn.command")
    _, came_bytes = adapter.run_ordered([target("flood")], b"70000\n1\n300000\n", 2)
    assert came_bytes == 370_001


def test_a_count_that_is_one_off_is_refused() -> None:
    class Miscounting:
        def run_ordered(self, argv: Sequence[str], lines: bytes, at_once: int) -> Any:
            return 1.0, sum(map(int, lines.split())) - 1

    adapter: Any = Miscounting()
    with pytest.raises(RuntimeError, match="not 131072"):
        ordered_output.run(adapter, 4, 4096)


@pytest.mark.needs("threads")
def test_a_start_that_fails_is_no_measurement() -> None:
    class Failing:
        def command_line(self, at_once: int, *options: str) -> list[str]:
            return ["/bin/false"]

    adapter: Any = Failing()
    with pytest.raises(RuntimeError, match="ended with"):
        command_start.run(adapter, 1)


def test_a_library_and_its_module_find_each_other() -> None:
    for kind, library in libraries():
        assert (HERE / "adapters" / kind / f"{module_of(library)}.py").exists()
        assert library_of(module_of(library)) == library
    assert library_of("command") == "procreactor run"
