"""What changed between two runs, from samples that were made up."""

from __future__ import annotations

from made_up_reports import MACHINE, rate, report, result

from benchmarks.compare import changes, render
from benchmarks.model import Report


def pipe(*samples: float) -> Report:
    return report(result("pipe_read", "a point", "trio", {"rate": samples}, unit="GB/s"))


def test_a_run_against_itself_has_no_change() -> None:
    run = report(rate("trio", 1.0, 2.0, 3.0))
    assert [change.is_clear for change in changes(run, run)] == [False]
    assert not [line for line in render(run, run) if "WORSE" in line or "better" in line]


def test_a_time_that_falls_and_a_rate_that_rises_are_better() -> None:
    (time,) = changes(report(rate("trio", 10.0)), report(rate("trio", 5.0)))
    (pace,) = changes(pipe(1.0), pipe(2.0))
    assert time.is_clear
    assert time.is_better
    assert pace.is_clear
    assert pace.is_better
    assert [line for line in render(pipe(2.0), pipe(1.0)) if "WORSE" in line]


def test_a_change_within_the_spread_is_not_clear() -> None:
    (change,) = changes(
        report(rate("trio", 10.0, 20.0, 30.0)), report(rate("trio", 14.0, 24.0, 34.0))
    )
    assert not change.is_clear


def test_a_change_of_some_percent_is_not_worth_telling() -> None:
    (change,) = changes(report(rate("trio", 100.0)), report(rate("trio", 105.0)))
    assert not change.is_clear


def test_a_figure_that_only_one_run_has_is_no_change() -> None:
    assert changes(report(rate("trio", 1.0)), report(rate("asyncio", 1.0))) == []


def test_another_machine_and_a_quick_run_are_told() -> None:
    old = report(rate("trio", 1.0))
    new = report(rate("trio", 1.0), machine={**MACHINE, "kernel": "7.0"}, quick=True)
    text = "\n".join(render(old, new))
    assert "6.1 -> 7.0" in text
    assert "quick" in text


def test_a_goal_that_is_lost_is_marked() -> None:
    old = report(rate("twisted", 400.0), rate("procreactor", 100.0))
    new = report(rate("twisted", 400.0), rate("procreactor", 200.0))
    assert [line for line in render(old, new) if "NOT met  was met" in line]


def test_something_from_nothing_is_a_change() -> None:
    (change,) = changes(report(rate("trio", 0.0)), report(rate("trio", 5.0)))
    assert change.is_clear
    assert not change.is_better
