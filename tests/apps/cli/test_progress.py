"""Counts, rates and the lines made of them: whatever the numbers, a line fits."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli.progress import ProgressState
from procreactor.apps.cli.rendering import (
    Renderer,
    render_bar,
    render_eta,
    render_line,
    render_progress,
    spell_duration,
)

counts = st.integers(0, 10**9)
states = st.builds(
    ProgressState,
    started_s=st.floats(0, 1e6),
    total=st.none() | counts,
    running=counts,
    succeeded=counts,
    failed=counts,
    skipped=counts,
)


@pytest.mark.parametrize("render", [render_line, render_eta, render_progress, render_bar])
@given(state=states, passed_s=st.floats(0, 1e7), width=st.integers(1, 200))
def test_a_line_fits_whatever_it_has_to_say(
    render: Renderer, state: ProgressState, passed_s: float, width: int
) -> None:
    text = render(state, state.started_s + passed_s, width)
    plain = re.sub(r"\x1b\[7?m", "", text)
    assert len(plain) <= width
    assert plain.isascii()
    assert plain.isprintable()


@given(states, st.floats(0, 1e7))
def test_numbers_are_in_their_ranges(state: ProgressState, passed_s: float) -> None:
    now_s = state.started_s + passed_s
    share, eta_s, left = state.share(), state.eta_s(now_s), state.left()
    assert share is None or 0 <= share <= 1
    assert eta_s is None or eta_s >= 0
    assert (left is None) == (state.total is None) == (share is None)


def half_way() -> ProgressState:
    state = ProgressState(started_s=100.0, total=20, skipped=4)
    for ok in (True, True, False, True, True, True):
        state.on_start()
        state.on_end(ok)
    state.on_start()
    return state


def test_the_rate_is_that_of_this_run_and_the_eta_follows_from_it() -> None:
    state = half_way()
    assert (state.done, state.ended, state.left(), state.share()) == (10, 6, 10, 0.5)
    assert state.rate(103.0) == 2.0
    assert state.eta_s(103.0) == 5.0


def test_nobody_knows_the_end_without_a_total_or_a_rate() -> None:
    assert ProgressState(started_s=0.0, succeeded=5).eta_s(10.0) is None
    assert ProgressState(started_s=0.0, total=5).eta_s(10.0) is None
    assert ProgressState(started_s=0.0, total=5, succeeded=5).eta_s(10.0) == 0.0


def test_a_job_that_is_put_back_has_not_ended() -> None:
    state = ProgressState(started_s=0.0)
    state.on_start()
    state.on_put_back()
    assert (state.running, state.done) == (0, 0)


def test_the_lines_say_what_there_is_to_say() -> None:
    state = half_way()
    assert render_line(state, 103.0, 80) == "10/20 done, 1 running, 1 failed, 2.0/s, ETA 5s"
    assert render_line(state, 103.0, 30) == "10/20 done, 1 running"
    assert render_eta(state, 103.0, 80) == "ETA: 5s Left: 10 AVG: 0.50s local:1/10/90%/0.5s"
    assert render_progress(state, 103.0, 80) == "local:1/10/90%/0.5s"
    assert render_bar(state, 103.0, 30) == "\x1b[7m50% 10:10 ETA 5\x1b[ms 1 failed     "


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m"), (349200, "4d01h")],
)
def test_durations_are_spelt_for_people(seconds: float, text: str) -> None:
    assert spell_duration(seconds) == text
