"""Samples, their summaries, and the file that keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_reports import rate, report

from benchmarks.model import Case, Report, Result, Sample, Summary

CASE = Case("spawn_rate", "spawn", "trio", "tiny, 16 at once", {"at_once": 16}, {"us": "us"})


def test_the_median_of_an_odd_and_an_even_number() -> None:
    assert Summary((3.0, 1.0, 100.0)).median == 3
    assert Summary((4.0, 1.0, 2.0, 100.0)).median == 3


def test_the_quartiles_hold_the_middle_half() -> None:
    assert Summary((1.0, 2.0, 3.0, 4.0, 5.0)).quartiles == (2, 4)
    assert Summary((7.0,)).quartiles == (7, 7)


@given(st.lists(st.floats(0, 1e9), min_size=1))
def test_the_figures_of_a_summary_are_in_order(samples: list[float]) -> None:
    summary = Summary(tuple(samples))
    low, high = summary.quartiles
    slack = 1e-6 * summary.most  # of interpolation
    assert summary.least <= low + slack
    assert low <= summary.median + slack
    assert summary.median <= high + slack
    assert high <= summary.most + slack


def test_a_result_leaves_out_what_failed() -> None:
    samples = [Sample(CASE, {"us": 1.0}), Sample(CASE, {}, failed="x"), Sample(CASE, {"us": 3.0})]
    assert Result.of(samples).figures["us"].samples == (1, 3)


def test_a_report_survives_its_file() -> None:
    kept = report(
        rate("procreactor", 1.0, 2.0),
        rate("trio", 3.5),
        quick=True,
        missing={"rloop": "No module named 'rloop'"},
        left_out={"a case": "a reason"},
        failed={"another": "died"},
        seconds=1.5,
    )
    assert Report.from_json(json.loads(json.dumps(kept.to_json()))).to_json() == kept.to_json()


def damage(path: list[Any], value: Any) -> Any:
    data = json.loads(json.dumps(report(rate("trio", 1.0)).to_json()))
    place = data
    for name in path[:-1]:
        place = place[name]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


SAMPLES = ["results", 0, "figures", "us_per_child", "samples"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 2),
        (["format"], None),
        (["results"], None),
        (["results"], 3),
        (["machine"], None),
        (["seconds"], "long"),
        (["results", 0, "library"], 5),
        (["results", 0, "figures"], {}),
        (SAMPLES, []),
        (SAMPLES, ["1"]),
        (SAMPLES, [float("nan")]),
        (SAMPLES, [True]),
    ],
)
def test_a_file_that_is_none_is_refused(path: list[Any], value: Any) -> None:
    with pytest.raises(ValueError):
        Report.from_json(damage(path, value))


def test_no_json_of_another_kind_is_a_report() -> None:
    with pytest.raises(ValueError):
        Report.from_json([])
