"""The running median against statistics.median, and what it means for a limit."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli import stats
from procreactor.apps.cli.stats import RunningMedian

times = st.floats(0, 1e6)


@given(st.lists(times, min_size=3, max_size=50))
def test_the_median_is_that_of_all_while_there_are_few(values: list[float]) -> None:
    running = RunningMedian()
    for value in values:
        running.add(value)
    assert running.median() == statistics.median(values)


@given(st.lists(times, min_size=8, max_size=60))
def test_the_median_is_that_of_the_last_when_there_are_many(values: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "_KEPT", 7)
        running = RunningMedian()
        for value in values:
            running.add(value)
    assert running.median() == statistics.median(values[-7:])


def test_there_is_no_median_before_the_third_and_no_limit_without_one() -> None:
    running = RunningMedian()
    for value in (1.0, 2.0):
        running.add(value)
        assert running.median() is None
        assert running.timeout_s(200) is None
    running.add(9.0)
    assert running.timeout_s(200) == 4.0


def test_memory_is_bounded() -> None:
    running = RunningMedian()
    for value in range(5000):
        running.add(float(value))
    assert len(running._by_age) == len(running._by_size) == 999
    assert running.median() == 4500
