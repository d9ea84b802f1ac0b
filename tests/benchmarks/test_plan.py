"""The plan: who does what, and what is left out with a word."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.model import Description, Point
from benchmarks.plan import libraries, plan, workloads

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
