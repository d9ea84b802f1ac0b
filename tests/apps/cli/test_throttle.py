"""Who writes fast, or to a slow reader, has the others wait; who computes has not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli.throttle import Throttle


def play(bytes_per_s: float, waits: float, seconds: float) -> list[bool]:
    """Whether it was on, in turns of 1 ms, while one wrote so fast, and waited for such a share."""
    throttle, turn_s = Throttle(), 0.001
    was_on = []
    for turn in range(int(seconds / turn_s)):
        throttle.new_bytes += int(bytes_per_s * turn_s)
        throttle.waited_s += waits * turn_s
        throttle.look(100 + turn * turn_s)
        was_on.append(throttle.is_on)
    return was_on


def runs_of(values: list[bool], value: bool) -> list[int]:
    """How long each run of *value* in *values* is."""
    text = "".join("x" if one is value else " " for one in values)
    return [len(run) for run in text.split()]


@pytest.mark.parametrize(
    ("bytes_per_s", "waits", "share"),
    [
        (1e6, 0.0, 0.0),  # says a word now and then
        (1e8, 0.0, 0.05),  # decompresses: tried once in twenty
        (1e8, 0.4, 0.05),
        (2e9, 0.0, 0.98),  # copies
        (1e8, 0.9, 1.0),  # would do more, if only the reader did
    ],
)
def test_the_others_wait_so_much_of_the_time(
    bytes_per_s: float, waits: float, share: float
) -> None:
    was_on = play(bytes_per_s, waits, 10)
    assert sum(was_on) / len(was_on) == pytest.approx(share, abs=0.015)


def test_while_they_wait_they_all_have_a_turn_now_and_then() -> None:
    was_on = play(2e9, 0, 10)
    assert max(runs_of(was_on, True)) <= 110
    assert max(runs_of(was_on, False)) <= 5


def test_where_it_does_not_help_it_is_not_tried_again_at_once() -> None:
    was_on = play(1e8, 0, 10)
    assert max(runs_of(was_on, True)) <= 5
    assert min(runs_of(was_on, False)[1:-1]) >= 99


def test_in_long_turns_that_a_slow_reader_makes_they_wait_as_well() -> None:
    throttle, was_on = Throttle(), []
    for turn in range(100):
        throttle.new_bytes += 1 << 20
        throttle.waited_s += 0.118
        throttle.look(100 + turn * 0.12)
        was_on.append(throttle.is_on)
    assert sum(was_on) >= 95


def test_who_becomes_slow_has_nobody_wait_any_more() -> None:
    throttle = Throttle()
    throttle.new_bytes = 1 << 20
    assert (throttle.look(100.0), throttle.is_on) == (False, True)
    throttle.new_bytes = 1 << 22
    assert (throttle.look(100.001), throttle.is_on) == (False, True), "the moment is not over"
    assert (throttle.look(100.006), throttle.is_on) == (False, True)
    assert (throttle.look(100.012), throttle.is_on) == (True, False), "nothing came"
    assert throttle.look(100.02) is False


@given(st.lists(st.tuples(st.integers(0, 1 << 24), st.floats(0, 1), st.floats(0, 0.5))))
def test_the_end_of_each_wait_is_told_once(turns: list[tuple[int, float, float]]) -> None:
    throttle, now_s = Throttle(), 100.0
    for new_bytes, waits, passed_s in turns:
        throttle.new_bytes += new_bytes
        throttle.waited_s += waits * passed_s
        now_s += passed_s
        was_on = throttle.is_on
        went_on = throttle.look(now_s)
        assert went_on is (was_on and not throttle.is_on)
        assert not throttle.is_on or now_s < throttle.until_s <= now_s + 0.005001
