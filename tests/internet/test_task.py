"""Clock, deferLater and LoopingCall: the same scenarios on ours and on the real Twisted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer as twisted_defer
from twisted.internet import error as twisted_error
from twisted.internet import task as twisted_task

from procreactor import internet
from procreactor.internet import defer, error, task

T = TypeVar("T")


@dataclass(frozen=True)
class Library:
    """One implementation of the API."""

    task: ModuleType
    defer: ModuleType
    error: ModuleType


OURS = Library(task, defer, error)
TWISTED = Library(twisted_task, twisted_defer, twisted_error)


@pytest.fixture(params=[OURS, TWISTED], ids=["ours", "twisted"])
def lib(request: pytest.FixtureRequest) -> Library:
    library: Library = request.param
    return library


def outcome_of(deferred: defer.Deferred[T]) -> list[object]:
    """Return a list that will hold what *deferred* fires with; the exception when it fails."""
    outcome: list[object] = []
    deferred.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
    return outcome


def looping(
    lib: Library, f: Callable[..., object], *a: object, **kw: object
) -> tuple[task.Clock, task.LoopingCall]:
    """Return a Clock and a LoopingCall of *f* on it."""
    clock, loop = lib.task.Clock(), lib.task.LoopingCall(f, *a, **kw)
    loop.clock = clock
    return clock, loop


def counting(lib: Library, f: Callable[[int], object]) -> tuple[task.Clock, task.LoopingCall]:
    """Return a Clock and a LoopingCall.withCount of *f* on it."""
    clock, loop = lib.task.Clock(), lib.task.LoopingCall.withCount(f)
    loop.clock = clock
    return clock, loop


# Clock


def test_a_clock_starts_at_zero_and_advances_as_told(lib: Library) -> None:
    clock = lib.task.Clock()
    assert clock.seconds() == clock.rightNow == 0
    clock.advance(1.5)
    clock.pump([1, 0.25])
    assert clock.seconds() == clock.rightNow == 2.75


def test_a_clock_can_be_set(lib: Library) -> None:
    clock = lib.task.Clock()
    clock.rightNow = 1000.0
    assert clock.callLater(1, list).getTime() == 1001.0


def test_calls_are_made_in_the_order_of_their_times(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    for delay in (3, 1, 2, 1.5):
        clock.callLater(delay, made.append, delay)
    clock.advance(2.5)
    assert made == [1, 1.5, 2]
    clock.advance(0.5)
    assert made == [1, 1.5, 2, 3]


def test_calls_of_the_same_time_are_made_in_the_order_they_were_asked_for(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    for name in "abc":
        clock.callLater(1, made.append, name)
    clock.advance(1)
    assert made == ["a", "b", "c"]


def test_a_call_gets_its_arguments(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    clock.callLater(1, lambda *a, **kw: made.append((a, kw)), 1, 2, name=3)
    clock.advance(1)
    assert made == [((1, 2), {"name": 3})]


def test_call_later_takes_its_arguments_by_name(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    clock.callLater(delay=1, callable=lambda: made.append(1))
    clock.advance(1)
    assert made == [1]


def test_calls_see_the_time_at_the_end_of_the_step(lib: Library) -> None:
    clock = lib.task.Clock()
    times: list[float] = []
    clock.callLater(1, lambda: times.append(clock.seconds()))
    clock.advance(5)
    assert times == [5]


def test_pump_makes_calls_at_each_of_its_steps(lib: Library) -> None:
    clock = lib.task.Clock()
    times: list[float] = []
    clock.callLater(1, lambda: clock.callLater(1, lambda: times.append(clock.seconds())))
    clock.pump([1, 1, 1])
    assert times == [2]


def test_a_call_that_is_due_at_once_waits_for_an_advance(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    clock.callLater(0, made.append, 1)
    assert not made
    clock.advance(0)
    assert made == [1]


def test_a_call_added_by_a_call_for_the_same_time_is_made_in_the_same_step(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    clock.callLater(1, lambda: clock.callLater(0, made.append, "added"))
    clock.callLater(1, made.append, "there before")
    clock.advance(1)
    assert made == ["there before", "added"]


def test_a_call_may_advance_the_clock_that_makes_it(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    clock.callLater(1, clock.advance, 5)
    clock.callLater(1, made.append, "due as well")
    clock.callLater(6, made.append, "due by the inner advance")
    clock.advance(1)
    assert made == ["due as well", "due by the inner advance"]
    assert clock.seconds() == 6


def test_calls_after_one_that_raises_wait_for_the_next_step(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    clock.callLater(1, lambda: 1 / 0)
    clock.callLater(1, made.append, "survivor")
    with pytest.raises(ZeroDivisionError):
        clock.advance(1)
    assert not made
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(0)
    assert made == ["survivor"]


def test_the_delayed_calls_are_those_still_to_be_made_in_order(lib: Library) -> None:
    clock = lib.task.Clock()
    assert list(clock.getDelayedCalls()) == []
    late, early, cancelled = (clock.callLater(delay, list) for delay in (2, 1, 3))
    cancelled.cancel()
    assert list(clock.getDelayedCalls()) == clock.calls == [early, late]
    clock.advance(1)
    assert clock.calls == [late]


def test_a_call_put_off_takes_its_new_place(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    first = clock.callLater(1, made.append, "first")
    clock.callLater(2, made.append, "second")
    first.reset(3)
    clock.pump([1, 1, 1])
    assert made == ["second", "first"]


def test_cancelling_a_call_of_the_clock_twice_raises(lib: Library) -> None:
    call = lib.task.Clock().callLater(1, list)
    call.cancel()
    with pytest.raises(lib.error.AlreadyCancelled):
        call.cancel()


def test_an_idle_clock_may_run_backwards(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    clock.callLater(1, made.append, 1)
    clock.advance(-5)
    clock.advance(5)
    assert not made
    clock.advance(1)
    assert made == [1]


def test_a_clock_times_a_deferred_out(lib: Library) -> None:
    clock = lib.task.Clock()
    outcome = outcome_of(lib.defer.Deferred().addTimeout(2, clock))
    clock.pump([1, 1])
    assert [type(error) for error in outcome] == [lib.defer.TimeoutError]


# deferLater


def test_defer_later_fires_with_what_the_function_returns(lib: Library) -> None:
    clock = lib.task.Clock()
    outcome = outcome_of(lib.task.deferLater(clock, 2, lambda a, b: (a, b), 1, b=3))
    clock.advance(1.5)
    assert not outcome
    clock.advance(0.5)
    assert outcome == [(1, 3)]


def test_defer_later_without_a_function_fires_with_none(lib: Library) -> None:
    clock = lib.task.Clock()
    outcome = outcome_of(lib.task.deferLater(clock, 2))
    clock.advance(2)
    assert outcome == [None]


def test_defer_later_with_no_delay_still_waits_for_the_clock(lib: Library) -> None:
    clock = lib.task.Clock()
    outcome = outcome_of(lib.task.deferLater(clock, 0, lambda: 1))
    assert not outcome
    clock.advance(0)
    assert outcome == [1]


def test_defer_later_fails_as_the_function_does(lib: Library) -> None:
    clock = lib.task.Clock()
    outcome = outcome_of(lib.task.deferLater(clock, 1, lambda: 1 / 0))
    clock.advance(1)
    assert [type(error) for error in outcome] == [ZeroDivisionError]


def test_defer_later_waits_for_the_deferred_of_the_function(lib: Library) -> None:
    clock = lib.task.Clock()
    inner = lib.defer.Deferred()
    outcome = outcome_of(lib.task.deferLater(clock, 1, lambda: inner))
    clock.advance(1)
    assert not outcome
    inner.callback("late")
    assert outcome == ["late"]


def test_cancelling_defer_later_cancels_the_call(lib: Library) -> None:
    clock = lib.task.Clock()
    made: list[object] = []
    deferred = lib.task.deferLater(clock, 1, made.append, 1)
    outcome = outcome_of(deferred)
    deferred.cancel()
    assert [type(error) for error in outcome] == [lib.defer.CancelledError]
    assert clock.calls == []
    clock.advance(1)
    assert not made


def test_cancelling_defer_later_after_the_call_changes_nothing(lib: Library) -> None:
    clock = lib.task.Clock()
    deferred = lib.task.deferLater(clock, 1, lambda: 1)
    outcome = outcome_of(deferred)
    clock.advance(1)
    deferred.cancel()
    assert outcome == [1]


def test_cancelling_defer_later_reaches_the_deferred_that_it_waits_for(lib: Library) -> None:
    clock = lib.task.Clock()
    cancelled: list[object] = []
    inner = lib.defer.Deferred(cancelled.append)
    deferred = lib.task.deferLater(clock, 1, lambda: inner)
    outcome = outcome_of(deferred)
    clock.advance(1)
    deferred.cancel()
    assert cancelled == [inner]
    assert [type(error) for error in outcome] == [lib.defer.CancelledError]


# LoopingCall


def test_a_loop_calls_at_once_and_then_on_every_beat(lib: Library) -> None:
    clock, loop = looping(lib, lambda: times.append(clock.seconds()))
    times: list[float] = []
    loop.start(2)
    assert times == [0]
    clock.pump([1] * 6)
    assert times == [0, 2, 4, 6]


def test_a_loop_not_started_now_waits_one_interval(lib: Library) -> None:
    clock, loop = looping(lib, lambda: times.append(clock.seconds()))
    times: list[float] = []
    loop.start(2, now=False)
    assert not times
    clock.pump([1] * 4)
    assert times == [2, 4]


def test_a_loop_passes_its_arguments_every_time(lib: Library) -> None:
    calls: list[object] = []
    clock, loop = looping(lib, lambda *a, **kw: calls.append((a, kw)), 1, key=2)
    loop.start(1)
    clock.advance(1)
    assert calls == [((1,), {"key": 2})] * 2
    assert (loop.a, loop.kw) == ((1,), {"key": 2})


def test_a_loop_is_running_from_start_to_stop(lib: Library) -> None:
    _, loop = looping(lib, list)
    states = [(loop.running, loop.interval)]
    loop.start(3)
    states.append((loop.running, loop.interval))
    loop.stop()
    states.append((loop.running, loop.interval))
    assert states == [(False, None), (True, 3), (False, 3)]


def test_stop_fires_the_deferred_with_the_loop_and_leaves_nothing_on_the_clock(
    lib: Library,
) -> None:
    clock, loop = looping(lib, list)
    outcome = outcome_of(loop.start(1))
    clock.advance(1)
    assert not outcome
    loop.stop()
    assert outcome == [loop]
    assert clock.calls == []


@pytest.mark.parametrize("interval", [0, 10])
def test_a_loop_stopped_before_its_first_call_never_calls(lib: Library, interval: float) -> None:
    calls: list[object] = []
    clock, loop = looping(lib, calls.append, 1)
    outcome = outcome_of(loop.start(interval, now=False))
    loop.stop()
    clock.advance(20)
    assert not calls
    assert outcome == [loop]


def test_a_function_may_stop_its_own_loop(lib: Library) -> None:
    clock, loop = looping(lib, lambda: loop.stop())
    outcome = outcome_of(loop.start(1))
    assert outcome == [loop]
    assert not loop.running
    assert clock.calls == []


def test_the_deferred_of_a_loop_that_stops_itself_fires_after_the_call(lib: Library) -> None:
    events: list[object] = []

    def stop_and_go_on() -> None:
        loop.stop()
        events.append("call over")

    clock, loop = looping(lib, stop_and_go_on)
    loop.start(1, now=False).addCallback(lambda _: events.append("fired"))
    clock.advance(1)
    assert events == ["call over", "fired"]


def test_a_loop_may_be_started_again(lib: Library) -> None:
    times: list[float] = []
    clock, loop = looping(lib, lambda: times.append(clock.seconds()))
    loop.start(2)
    loop.stop()
    clock.advance(5)
    outcome = outcome_of(loop.start(3))
    clock.advance(3)
    assert times == [0, 5, 8]
    assert not outcome


def test_a_failing_call_ends_the_loop_and_fails_its_deferred(lib: Library) -> None:
    clock, loop = looping(lib, lambda: 1 / 0)
    outcome = outcome_of(loop.start(1, now=False))
    clock.advance(1)
    assert [type(error) for error in outcome] == [ZeroDivisionError]
    assert not loop.running
    assert clock.calls == []


def test_a_call_that_fails_at_the_start_fails_the_deferred_that_start_returns(
    lib: Library,
) -> None:
    _, loop = looping(lib, lambda: 1 / 0)
    outcome = outcome_of(loop.start(1))
    assert [type(error) for error in outcome] == [ZeroDivisionError]
    assert not loop.running


def test_a_call_that_stops_its_loop_and_fails_fails_the_deferred(lib: Library) -> None:
    def stop_and_fail() -> None:
        loop.stop()
        raise ZeroDivisionError

    _, loop = looping(lib, stop_and_fail)
    outcome = outcome_of(loop.start(1))
    assert [type(error) for error in outcome] == [ZeroDivisionError]


def test_a_loop_is_not_running_any_more_when_its_deferred_fires(lib: Library) -> None:
    clock, loop = looping(lib, list)
    states: list[bool] = []
    loop.start(1).addBoth(lambda _: states.append(loop.running))
    loop.stop()
    loop.f = lambda: 1 / 0
    loop.start(1).addBoth(lambda _: states.append(loop.running))
    assert states == [False, False]
    assert clock.calls == []


def test_the_next_call_waits_for_the_deferred_of_the_last(lib: Library) -> None:
    pending: list[defer.Deferred[object]] = []

    def wait() -> object:
        pending.append(lib.defer.Deferred())
        return pending[-1]

    clock, loop = looping(lib, wait)
    loop.start(2)
    clock.advance(5)
    assert len(pending) == 1
    assert clock.calls == []
    pending[0].callback("ignored")
    assert [call.getTime() for call in clock.calls] == [6]
    clock.advance(1)
    assert len(pending) == 2


def test_stop_waits_for_the_deferred_of_the_call_under_way(lib: Library) -> None:
    pending = lib.defer.Deferred()
    clock, loop = looping(lib, lambda: pending)
    outcome = outcome_of(loop.start(1))
    loop.stop()
    assert not loop.running
    assert not outcome
    pending.callback(None)
    assert outcome == [loop]
    assert clock.calls == []


def test_a_deferred_that_fails_ends_the_loop(lib: Library) -> None:
    pending = lib.defer.Deferred()
    clock, loop = looping(lib, lambda: pending)
    outcome = outcome_of(loop.start(1))
    pending.errback(KeyError("why"))
    assert [type(error) for error in outcome] == [KeyError]
    assert not loop.running
    assert clock.calls == []


def test_beats_missed_by_a_busy_clock_are_skipped_and_not_piled_up(lib: Library) -> None:
    times: list[float] = []
    clock, loop = looping(lib, lambda: times.append(clock.seconds()))
    loop.start(0.5)
    clock.advance(2)
    assert times == [0, 2]
    clock.advance(0.25)
    clock.advance(0.25)
    assert times == [0, 2, 2.5]


def test_beats_missed_by_a_long_call_are_skipped_and_so_is_the_present_one(lib: Library) -> None:
    times: list[float] = []

    def last_long() -> None:
        times.append(clock.seconds())
        clock.advance(2)

    clock, loop = looping(lib, last_long)
    loop.start(0.5)
    clock.advance(0)
    assert times == [0]
    clock.advance(0.5)
    assert times == [0, 2.5]


def test_lateness_does_not_add_up(lib: Library) -> None:
    times: list[float] = []
    clock, loop = looping(lib, lambda: times.append(clock.seconds()))
    loop.start(1)
    clock.pump([1.25, 0.75, 1.5, 0.5])
    assert times == [0, 1.25, 2, 3.5, 4]


def test_beats_are_counted_from_the_start_wherever_the_clock_stands(lib: Library) -> None:
    times: list[float] = []
    clock, loop = looping(lib, lambda: times.append(clock.seconds()))
    clock.advance(0.75)
    loop.start(1)
    clock.pump([1.25, 0.75])
    assert times == [0.75, 2, 2.75]


def test_an_interval_of_zero_calls_again_as_soon_as_the_clock_moves(lib: Library) -> None:
    calls: list[int] = []

    def five_times() -> None:
        calls.append(1)
        if len(calls) == 5:
            loop.stop()

    clock, loop = looping(lib, five_times)
    outcome = outcome_of(loop.start(0))
    assert calls == [1]
    clock.advance(0)
    assert calls == [1] * 5
    assert outcome == [loop]


def test_reset_starts_the_interval_again(lib: Library) -> None:
    times: list[float] = []
    clock, loop = looping(lib, lambda: times.append(clock.seconds()))
    loop.start(2, now=False)
    clock.advance(1)
    loop.reset()
    clock.pump([1, 1, 1, 1])
    assert times == [3, 5]


def test_reset_while_a_call_is_under_way_changes_nothing(lib: Library) -> None:
    pending = lib.defer.Deferred()
    clock, loop = looping(lib, lambda: pending)
    loop.start(2)
    clock.advance(1)
    loop.reset()
    assert clock.calls == []
    pending.callback(None)
    assert [call.getTime() for call in clock.calls] == [2]


def test_starting_twice_is_refused(lib: Library) -> None:
    _, loop = looping(lib, list)
    loop.start(1)
    with pytest.raises(AssertionError, match="already running"):
        loop.start(1)


@pytest.mark.parametrize("verb", ["stop", "reset"])
def test_stop_and_reset_of_a_loop_that_does_not_run_are_refused(lib: Library, verb: str) -> None:
    _, loop = looping(lib, list)
    with pytest.raises(AssertionError, match="not running"):
        getattr(loop, verb)()


def test_a_negative_interval_is_refused_and_nothing_runs(lib: Library) -> None:
    clock, loop = looping(lib, list)
    with pytest.raises(ValueError, match="interval"):
        loop.start(-1)
    assert not loop.running
    assert clock.calls == []


def test_the_next_call_is_on_the_loop_for_all_to_see(lib: Library) -> None:
    clock, loop = looping(lib, list)
    assert loop.call is None
    loop.start(1)
    assert [loop.call] == clock.calls
    loop.stop()
    assert loop.call is None


def test_the_repr_of_a_loop_names_interval_function_and_arguments(lib: Library) -> None:
    _, loop = looping(lib, outcome_of, 1, key=2)
    assert repr(loop) == "LoopingCall<None>(outcome_of, *(1,), **{'key': 2})"
    _, loop = looping(lib, Library.__init__)
    loop.interval = 0.5
    assert repr(loop) == "LoopingCall<0.5>(Library.__init__, *(), **{})"


# LoopingCall.withCount


def test_with_count_counts_one_on_every_beat_in_time(lib: Library) -> None:
    counts: list[int] = []
    clock, loop = counting(lib, counts.append)
    loop.start(1)
    clock.pump([1.0, 1.25, 1.0, 0.75])
    assert counts == [1, 1, 1, 1, 1]


def test_with_count_counts_the_beats_that_were_skipped(lib: Library) -> None:
    counts: list[int] = []
    clock, loop = counting(lib, counts.append)
    loop.start(0.5)
    clock.advance(0.5)
    clock.advance(1.75)
    clock.advance(0.25)
    assert counts == [1, 1, 3, 1]


def test_with_count_not_started_now_counts_from_the_start(lib: Library) -> None:
    counts: list[int] = []
    clock, loop = counting(lib, counts.append)
    loop.start(1, now=False)
    clock.advance(3)
    assert counts == [3]


def test_with_count_counts_the_beats_that_a_deferred_held_up(lib: Library) -> None:
    counts: list[int] = []
    pending = lib.defer.Deferred()

    def hold_up_the_second(count: int) -> object:
        counts.append(count)
        return pending if len(counts) == 2 else None

    clock, loop = counting(lib, hold_up_the_second)
    loop.start(1)
    clock.pump([1] * 4)
    pending.callback(None)
    clock.advance(1)
    assert counts == [1, 1, 4]


def test_with_count_is_always_one_with_an_interval_of_zero(lib: Library) -> None:
    counts: list[int] = []

    def three_times(count: int) -> None:
        counts.append(count)
        if len(counts) == 3:
            loop.stop()

    clock, loop = counting(lib, three_times)
    loop.start(0)
    clock.advance(7)
    assert counts == [1, 1, 1]


def test_with_count_follows_an_interval_that_changes_while_a_call_is_under_way(
    lib: Library,
) -> None:
    counts: list[int] = []
    pending = lib.defer.Deferred()

    def hold_up_the_second(count: int) -> object:
        counts.append(count)
        return pending if len(counts) == 2 else None

    clock, loop = counting(lib, hold_up_the_second)
    loop.start(1)
    clock.pump([1, 6])
    loop.interval = 2
    pending.callback(None)
    clock.advance(9)
    clock.advance(2)
    assert counts == [1, 1, 8, 1]


def test_with_count_fails_as_its_function_does(lib: Library) -> None:
    _, loop = counting(lib, lambda count: 1 // 0)
    outcome = outcome_of(loop.start(1))
    assert [type(error) for error in outcome] == [ZeroDivisionError]


# Ours and Twisted side by side, on what floats can hold exactly

eighths = st.integers(min_value=0, max_value=40).map(lambda n: n / 8)
steps = st.lists(st.one_of(eighths, st.just("reset")), max_size=30)


def history(
    lib: Library, interval: float, now: bool, start: float, call_s: float, steps: list[float | str]
) -> list[object]:
    """Return when a loop called, and with which count, in a life of advances and resets."""
    seen: list[object] = []

    def last_a_while(count: int) -> None:
        seen.append((clock.seconds(), count))
        clock.advance(call_s)

    clock, loop = counting(lib, last_a_while)
    clock.advance(start)
    loop.start(interval, now)
    for step in steps:
        if isinstance(step, str):
            loop.reset()
        else:
            clock.advance(step)
    seen.append([call.getTime() for call in clock.calls])
    return seen


@given(
    interval=eighths.filter(bool),
    now=st.booleans(),
    start=eighths,
    call_s=eighths,
    steps=steps,
)
def test_ours_calls_and_counts_at_the_same_times_as_twisted(
    interval: float, now: bool, start: float, call_s: float, steps: list[float | str]
) -> None:
    ours = history(OURS, interval, now, start, call_s, steps)
    assert ours == history(TWISTED, interval, now, start, call_s, steps)


# Ours alone


@given(
    interval=st.floats(min_value=0.1, max_value=1e4),
    start=st.floats(min_value=0, max_value=1e4),
    beats=st.integers(min_value=1, max_value=60),
)
def test_ours_calls_exactly_once_a_beat_although_floats_are_rounded(
    interval: float, start: float, beats: int
) -> None:
    counts: list[int] = []
    clock, loop = counting(OURS, counts.append)
    clock.rightNow = start
    loop.start(interval, now=False)
    clock.pump([interval] * beats)
    assert counts == [1] * beats


def test_ours_uses_the_reactor_unless_a_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = task.Clock()
    calls: list[object] = []
    monkeypatch.setitem(vars(internet), "reactor", clock)
    loop = task.LoopingCall(calls.append, 1)
    assert loop.clock is None
    loop.start(1)
    clock.advance(1)
    assert calls == [1, 1]
    loop.stop()


def test_ours_counts_afresh_when_started_again() -> None:
    counts: list[int] = []
    clock, loop = counting(OURS, counts.append)
    loop.start(1)
    loop.stop()
    clock.advance(50)
    loop.start(1)
    clock.advance(1)
    assert counts == [1, 1, 1]


def test_ours_started_again_during_a_call_runs_one_loop_and_ends_the_first() -> None:
    pending: list[defer.Deferred[object]] = []

    def wait() -> object:
        pending.append(defer.Deferred())
        return pending[-1]

    clock, loop = looping(OURS, wait)
    first = outcome_of(loop.start(1))
    loop.stop()
    second = outcome_of(loop.start(1))
    pending[1].callback(None)
    assert len(clock.calls) == 1
    pending[0].callback(None)
    assert (first, second) == ([loop], [])
    assert loop.running
    assert len(clock.calls) == 1


def test_ours_started_again_survives_the_failure_of_a_call_of_the_first_run() -> None:
    pending: defer.Deferred[object] = defer.Deferred()
    _, loop = looping(OURS, lambda: pending)
    first = outcome_of(loop.start(1))
    loop.stop()
    loop.f = list
    second = outcome_of(loop.start(1))
    pending.errback(KeyError("why"))
    assert [type(error) for error in first] == [KeyError]
    assert not second
    assert loop.running


def test_ours_refuses_to_be_called_before_it_was_ever_started() -> None:
    outcome: list[object] = []
    clock, loop = counting(OURS, outcome.append)
    with pytest.raises(AssertionError, match="never started"):
        loop()
    assert not outcome
    assert clock.calls == []


def test_ours_works_on_a_clock_of_the_real_twisted() -> None:
    clock = twisted_task.Clock()
    times: list[float] = []
    loop = task.LoopingCall(lambda: times.append(clock.seconds()))
    loop.clock = clock
    outcome = outcome_of(loop.start(1))
    clock.pump([1, 1])
    loop.stop()
    assert times == [0, 1, 2]
    assert outcome == [loop]
