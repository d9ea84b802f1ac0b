"""The plan: who does what, and what is left out with a word."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.goals import GOALS
from benchmarks.model import Description, Point
from benchmarks.plan import MEANINGS, ORDER, libraries, plan, workloads

CAN = Description(frozenset({"spawn_many"}), frozenset({"plain"}))
ABLE = {("spawn", "one"): CAN, ("spawn", "other"): CAN}


def workload(*points: Point) -> dict[str, Any]:
    module = SimpleNamespace(KIND="spawn", NEEDS="spawn_many", UNITS={"us": "us"}, PARAMS=points)
    return {"made_up": module}


PLAIN = Point("a", "b", {"count": 10, "way": "plain"}, quick={"count": 1})
PATH = Point("a", "c", {"count": 10, "way": "path"})


def test_every_adapter_with_the_capability_takes_part() -> None:
    (planned,) = plan(workload(PLAIN), ABLE, quick=False)
    assert [case.library for case in planned.cases] == ["one", "other"]
    assert planned.cases[0].params == {"count": 10, "way": "plain"}


def test_a_quick_run_has_fewer_points_and_less_work() -> None:
    (planned,) = plan(workload(PLAIN, PATH), ABLE, quick=True)
    assert planned.cases[0].params == {"count": 1, "way": "plain"}
    assert planned.cases[0].point == PLAIN.name


def test_a_way_that_an_adapter_does_not_know_is_left_out_with_a_word() -> None:
    (planned,) = plan(workload(PATH), ABLE, quick=False)
    assert planned.cases == []
    assert set(planned.left_out) == {"made_up: a, c: one", "made_up: a, c: other"}


@pytest.mark.parametrize("offer", [Description(missing="not there"), Description()])
def test_who_is_not_there_or_can_not_is_no_case(offer: Description) -> None:
    (planned,) = plan(workload(PLAIN), {("spawn", "one"): offer}, quick=False)
    assert (planned.cases, planned.left_out) == ([], {})


def test_other_kinds_and_other_libraries_are_not_asked() -> None:
    offers = {**ABLE, ("pipes", "one"): CAN}
    (planned,) = plan(workload(PLAIN), offers, quick=False, only=["one"])
    assert [(case.kind, case.library) for case in planned.cases] == [("spawn", "one")]


def full_plan() -> set[tuple[str, str, str]]:
    """Workload, point and library of a full run for root, with everything installed."""
    able = Description(
        frozenset(module.NEEDS for module in workloads().values()),
        frozenset({"plain", "path", "identity", "pty"}),
    )
    planned = plan(workloads(), dict.fromkeys(libraries(), able), quick=False)
    cases = [case for one in planned for case in one.cases]
    return {(case.workload, case.point, case.library) for case in cases}


def test_a_full_run_measures_all_that_goals_speak_of() -> None:
    measured = full_plan()
    refs = {ref for goal in GOALS for ref in (goal.top, goal.bottom) if ref is not None}
    assert [ref for ref in refs if (ref.workload, ref.point, ref.library) not in measured] == []


def test_hosted_grows_at_one_size_each_and_is_held_by_thousands() -> None:
    hosted = {(workload, point) for workload, point, name in full_plan() if name == "hosted"}
    assert {point.rpartition(", ")[2] for workload, point in hosted if workload == "growth"} == {
        "2 GiB",
        "10,000 fds",
        "4,000 live",
    }
    for workload in ("exit_storm", "memory", "idle"):
        points = [name for at, name in hosted if at == workload]
        assert any(name.endswith("4,000 children") for name in points), workload


def test_every_library_has_a_place_in_the_tables() -> None:
    names = {library for _, library in libraries()}
    assert names == set(ORDER)
    assert len(names) == len(ORDER)
    assert set(MEANINGS) <= names


@pytest.mark.parametrize(("name", "module"), workloads().items())
def test_a_workload_has_what_the_suite_needs(name: str, module: Any) -> None:
    assert module.KIND in {kind for kind, _ in libraries()}
    assert set(module.SHOWN) <= set(module.UNITS)
    accepted = set(list(inspect.signature(module.run).parameters)[1:])
    names = [point.name for point in module.PARAMS]
    assert len(set(names)) == len(names)
    for point in module.PARAMS:
        assert set(point.params) | set(point.quick or ()) <= accepted
        assert json.loads(json.dumps(dict(point.params))) == dict(point.params)
    assert any(point.quick is not None for point in module.PARAMS)
