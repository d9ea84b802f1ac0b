"""Goals: ratios of medians of one run, judged from samples that were made up."""

from __future__ import annotations

import pytest
from made_up_reports import rate, report, result

from benchmarks.goals import GOALS, Bound, Goal, Outcome, Ref, judge
from benchmarks.plan import libraries, workloads
from benchmarks.workloads import growth


def ref(library: str) -> Ref:
    return Ref("spawn_rate", "tiny, 16 at once", library, "us_per_child")


def goal(side: Bound, bound: float) -> Goal:
    return Goal(
        "a measure", "twisted / procreactor", ref("twisted"), ref("procreactor"), side, bound
    )


RUN = report(rate("twisted", 30.0, 1000.0, 20.0), rate("procreactor", 9.0, 10.0, 500.0))


@pytest.mark.parametrize(
    ("side", "bound", "outcome"),
    [
        (Bound.AT_LEAST, 3.0, Outcome.MET),
        (Bound.AT_LEAST, 3.01, Outcome.NOT_MET),
        (Bound.AT_MOST, 3.0, Outcome.MET),
        (Bound.AT_MOST, 2.99, Outcome.NOT_MET),
    ],
)
def test_a_goal_is_a_ratio_of_medians(side: Bound, bound: float, outcome: Outcome) -> None:
    (reached,) = judge(RUN, [goal(side, bound)])
    assert (reached.value, reached.outcome) == (3, outcome)


def test_a_goal_without_a_second_figure_takes_the_first_as_it_is() -> None:
    alone = Goal("a measure", "figure", ref("procreactor"), None, Bound.AT_MOST, 10)
    (reached,) = judge(RUN, [alone])
    assert (reached.value, reached.outcome) == (10, Outcome.MET)


def test_a_goal_whose_cases_were_not_run_says_which() -> None:
    (reached,) = judge(report(rate("twisted", 1.0)), [goal(Bound.AT_LEAST, 1)])
    assert (reached.value, reached.outcome) == (None, Outcome.NOT_RUN)
    assert reached.lacking == (ref("procreactor"),)


def test_nothing_is_divided_by_zero() -> None:
    run = report(rate("twisted", 1.0), rate("procreactor", 0.0))
    (reached,) = judge(run, [goal(Bound.AT_LEAST, 1)])
    assert (reached.value, reached.outcome) == (None, Outcome.NOT_RUN)


def test_zero_wakeups_are_met_and_one_is_not() -> None:
    (idle,) = [one for one in GOALS if one.top.workload == "idle"]
    for wakeups, outcome in ((0.0, Outcome.MET), (0.5, Outcome.NOT_MET)):
        samples = {idle.top.figure: [wakeups]}
        run = report(result("idle", idle.top.point, "procreactor", samples))
        assert judge(run, [idle])[0].outcome is outcome


def test_every_goal_names_a_figure_that_the_suite_can_measure() -> None:
    modules, known = workloads(), set(libraries())
    for one in GOALS:
        for name in filter(None, (one.top, one.bottom)):
            module = modules[name.workload]
            assert name.figure in module.UNITS, name
            assert name.point in {point.name for point in module.PARAMS}, name
            assert (module.KIND, name.library) in known, name


def test_what_goals_say_of_growth_is_measured_in_more_rounds() -> None:
    named = {(ref.workload, ref.point) for one in GOALS for ref in (one.top, one.bottom) if ref}
    points = [point for point in growth.PARAMS if ("growth", point.name) in named]
    assert len(points) >= 12
    assert {point.params["rounds"] for point in points} == {growth.ROUNDS_JUDGED}


def test_no_goal_is_there_twice() -> None:
    names = [(one.measure, one.compared) for one in GOALS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("hosted_us", "outcome"), [(200.0, Outcome.MET), (201.0, Outcome.NOT_MET)])
def test_a_hosted_program_is_half_as_fast_again_as_on_twisteds_own_reactor(
    hosted_us: float, outcome: Outcome
) -> None:
    (one,) = [one for one in GOALS if one.bottom == ref("hosted")]
    run = report(rate("twisted", 300.0), rate("hosted", hosted_us))
    assert judge(run, [one])[0].outcome is outcome


@pytest.mark.parametrize("way", ["path", "pty"])
def test_a_hosted_program_is_three_times_as_fast_where_twisted_forks(way: str) -> None:
    point = f"fds, {way}, 10,000 fds"
    (one,) = [one for one in GOALS if one.bottom == Ref("growth", point, "hosted", "empty_us")]
    for theirs_us, outcome in ((600.0, Outcome.MET), (599.0, Outcome.NOT_MET)):
        run = report(
            result("growth", point, "twisted", {"empty_us": [theirs_us]}),
            result("growth", point, "hosted", {"empty_us": [200.0]}),
        )
        assert judge(run, [one])[0].outcome is outcome


def test_hosted_and_procreactor_are_held_to_the_same_flatness() -> None:
    flat: dict[str, dict[str, float]] = {"procreactor": {}, "hosted": {}}
    for one in GOALS:
        if one.top.workload == "growth" and one.bottom is None:
            assert (one.top.figure, one.side) == ("ratio", Bound.AT_MOST)
            flat[one.top.library][one.top.point] = one.bound
    plain_and_path = {
        point: bound
        for point, bound in flat["procreactor"].items()
        if point.split(", ")[1] in ("plain", "path")
    }
    assert len(plain_and_path) == 6
    assert flat["hosted"] == plain_and_path


def test_as_fast_as_means_their_time_over_ours() -> None:
    slow, fast = (
        report(rate("procreactor", ours), rate("twisted", 400.0)) for ours in (200.0, 100.0)
    )
    (one,) = [one for one in GOALS if one.compared == "twisted / procreactor"][:1]
    assert judge(slow, [one])[0].outcome is Outcome.NOT_MET
    assert judge(fast, [one])[0].outcome is Outcome.MET


@pytest.mark.parametrize(("ms", "outcome"), [(60.0, Outcome.MET), (60.5, Outcome.NOT_MET)])
def test_a_start_up_is_held_to_its_milliseconds(ms: float, outcome: Outcome) -> None:
    (one,) = [one for one in GOALS if one.top.workload == "command_start"]
    run = report(result("command_start", one.top.point, "procreactor run", {"ms": [ms]}))
    assert judge(run, [one])[0].outcome is outcome


@pytest.mark.parametrize(("theirs", "bound"), [("xargs", 2.5), ("parallel", 20.0)])
@pytest.mark.parametrize("ours", ["run_many", "procreactor run"])
def test_commands_are_run_so_many_times_as_fast(ours: str, theirs: str, bound: float) -> None:
    (one,) = [one for one in GOALS if (one.top, one.bottom) == (ref(theirs), ref(ours))]
    for slower_by, outcome in ((bound, Outcome.MET), (bound - 0.5, Outcome.NOT_MET)):
        run = report(rate(theirs, 100.0 * slower_by), rate(ours, 100.0))
        assert judge(run, [one])[0].outcome is outcome
