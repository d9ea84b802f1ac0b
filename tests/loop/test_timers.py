"""The timer queue against the simplest thing that could be right: a list that is kept sorted."""

from __future__ import annotations

import gc
import math
import sys
from bisect import insort

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from procreactor.loop.timers import Timer, TimerQueue, TimerState

# Few values, so that ties, and moves to where one is already, are common.
deadlines = st.integers(min_value=0, max_value=12).map(float)
choices = st.integers(min_value=0)


def nothing(*args: object, **kwargs: object) -> None:
    """A callback; the queue must never call it."""
    raise AssertionError("the queue called somebody")


def fire_all(queue: TimerQueue, now_s: float) -> list[Timer]:
    """What a loop does in a turn, without the calls."""
    return [timer for timer in queue.pop_due(now_s) if queue.claim(timer)]


class QueueMachine(RuleBasedStateMachine):
    """Every method in every order, on the queue and on the model."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = TimerQueue()
        self.now_s = 0.0
        self.serial = 0
        self.queued: list[tuple[float, int, Timer]] = []
        self.due: list[Timer] = []
        self.finished: list[Timer] = []

    def model_insert(self, timer: Timer, deadline_s: float) -> None:
        self.serial += 1
        insort(self.queued, (deadline_s, self.serial, timer))

    def model_withdraw(self, timer: Timer) -> None:
        self.queued = [entry for entry in self.queued if entry[2] is not timer]
        self.due = [other for other in self.due if other is not timer]

    def choose_active(self, choice: int) -> Timer:
        active = [*self.due, *(entry[2] for entry in self.queued)]
        return active[choice % len(active)]

    @property
    def some_are_active(self) -> bool:
        return bool(self.due or self.queued)

    @rule(deadline_s=deadlines)
    def add(self, deadline_s: float) -> None:
        timer = self.queue.add(deadline_s, nothing, (self.serial,))
        assert timer.state is TimerState.ACTIVE
        self.model_insert(timer, deadline_s)

    @precondition(lambda self: self.some_are_active)
    @rule(choice=choices)
    def cancel(self, choice: int) -> None:
        timer = self.choose_active(choice)
        self.queue.cancel(timer)
        assert timer.state is TimerState.CANCELLED
        self.model_withdraw(timer)
        self.finished.append(timer)

    @precondition(lambda self: self.some_are_active)
    @rule(choice=choices, deadline_s=deadlines)
    def move(self, choice: int, deadline_s: float) -> None:
        timer = self.choose_active(choice)
        self.queue.move(timer, deadline_s)
        assert timer.deadline_s == deadline_s
        self.model_withdraw(timer)
        self.model_insert(timer, deadline_s)

    @rule(step_s=st.integers(min_value=0, max_value=4))
    def pop_due(self, step_s: int) -> None:
        self.now_s = (self.now_s + step_s) % 16
        newly_due = [entry[2] for entry in self.queued if entry[0] <= self.now_s]
        self.queued = [entry for entry in self.queued if entry[0] > self.now_s]
        self.due += newly_due
        assert self.queue.pop_due(self.now_s) == self.due

    @precondition(lambda self: self.due)
    @rule(choice=choices)
    def claim(self, choice: int) -> None:
        timer = self.due.pop(choice % len(self.due))
        assert self.queue.claim(timer)
        assert timer.state is TimerState.FIRED
        self.finished.append(timer)

    @precondition(lambda self: self.queued)
    @rule(choice=choices)
    def claim_one_that_is_not_handed_out(self, choice: int) -> None:
        timer = self.queued[choice % len(self.queued)][2]
        assert not self.queue.claim(timer)
        assert timer.state is TimerState.ACTIVE

    @precondition(lambda self: self.finished)
    @rule(choice=choices)
    def misuse_a_finished_one(self, choice: int) -> None:
        timer = self.finished[choice % len(self.finished)]
        assert not self.queue.claim(timer)
        with pytest.raises(ValueError, match=timer.state.value):
            self.queue.cancel(timer)
        with pytest.raises(ValueError, match=timer.state.value):
            self.queue.move(timer, 0.0)

    @invariant()
    def both_hold_the_same_timers_in_the_same_order(self) -> None:
        pending = [*self.due, *(entry[2] for entry in self.queued)]
        assert self.queue.pending() == pending
        assert len(self.queue) == len(pending)

    @invariant()
    def next_deadline_is_that_of_the_first_pending_timer(self) -> None:
        pending = self.queue.pending()
        assert self.queue.next_deadline() == (pending[0].deadline_s if pending else None)

    @invariant()
    def garbage_is_bounded(self) -> None:
        assert len(self.queue._heap) <= 2 * len(self.queue) + 20


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
test_the_queue_agrees_with_a_sorted_list = QueueMachine.TestCase


def test_timers_fire_in_deadline_order_and_ties_in_insertion_order() -> None:
    queue = TimerQueue()
    late, first, second, early = (queue.add(t, nothing) for t in (3.0, 2.0, 2.0, 1.0))
    assert fire_all(queue, 3.0) == [early, first, second, late]


def test_a_timer_is_due_at_its_deadline_and_not_before() -> None:
    queue = TimerQueue()
    timer = queue.add(5.0, nothing)
    assert queue.pop_due(math.nextafter(5.0, 0.0)) == []
    assert queue.pop_due(5.0) == [timer]


def test_an_empty_queue_has_no_next_deadline_and_nothing_due() -> None:
    queue = TimerQueue()
    assert queue.next_deadline() is None
    assert queue.pop_due(math.inf) == []
    assert queue.pending() == []
    assert len(queue) == 0


def test_callback_and_arguments_are_kept_for_the_caller() -> None:
    queue = TimerQueue()
    timer = queue.add(0.0, nothing, (1, 2), {"key": 3})
    assert (timer.callback, timer.args, timer.kwargs) == (nothing, (1, 2), {"key": 3})


def test_a_timer_added_while_due_ones_run_waits_for_the_next_batch() -> None:
    queue = TimerQueue()
    queue.add(1.0, nothing)
    fired = []
    for timer in queue.pop_due(1.0):
        assert queue.claim(timer)
        fired.append(timer)
        late = queue.add(0.0, nothing)
    assert late not in fired
    assert fire_all(queue, 1.0) == [late]


def test_a_due_timer_that_its_neighbour_cancels_is_not_to_be_called() -> None:
    queue = TimerQueue()
    first, second = queue.add(1.0, nothing), queue.add(1.0, nothing)
    queue.pop_due(1.0)
    assert queue.claim(first)
    queue.cancel(second)
    assert not queue.claim(second)
    assert len(queue) == 0


def test_a_due_timer_that_its_neighbour_postpones_is_called_at_its_new_time_only() -> None:
    queue = TimerQueue()
    first, second = queue.add(1.0, nothing), queue.add(1.0, nothing)
    queue.pop_due(1.0)
    assert queue.claim(first)
    queue.move(second, 9.0)
    assert not queue.claim(second)
    assert queue.next_deadline() == 9.0
    assert fire_all(queue, 9.0) == [second]


def test_timers_left_over_by_an_interrupted_turn_are_handed_out_again_first() -> None:
    queue = TimerQueue()
    first, second, third = (queue.add(t, nothing) for t in (1.0, 2.0, 3.0))
    queue.pop_due(2.0)
    assert queue.claim(first)
    assert queue.next_deadline() == 2.0
    assert queue.pop_due(3.0) == [second, third]


def test_a_turn_inside_a_callback_takes_over_the_rest_of_the_batch_once() -> None:
    queue = TimerQueue()
    timers = [queue.add(1.0, nothing) for _ in range(3)]
    fired: list[Timer] = []
    for timer in queue.pop_due(1.0):
        if queue.claim(timer):
            fired.append(timer)
            fired += fire_all(queue, 1.0)
    assert fired == timers


def test_a_timer_moved_to_a_taken_deadline_stands_behind_those_already_there() -> None:
    queue = TimerQueue()
    later, taken, earlier = (queue.add(t, nothing) for t in (1.0, 2.0, 3.0))
    queue.move(earlier, 2.0)
    queue.move(later, 2.0)
    assert fire_all(queue, 2.0) == [taken, earlier, later]


def test_moving_a_timeout_again_and_again_costs_no_memory() -> None:
    queue = TimerQueue()
    timeout = queue.add(10.0, nothing)
    for now_s in range(1000):
        queue.move(timeout, now_s + 10.0)
    assert len(queue._heap) == 1
    assert queue.next_deadline() == 1009.0


def test_moving_earlier_again_and_again_leaves_bounded_garbage() -> None:
    queue = TimerQueue()
    timer = queue.add(10_000.0, nothing)
    for step in range(1000):
        queue.move(timer, 9_999.0 - step)
    assert len(queue._heap) < 30
    assert fire_all(queue, 9_000.0) == [timer]
    assert len(queue) == 0


def test_cancelled_timeouts_do_not_pile_up_behind_a_distant_one() -> None:
    queue = TimerQueue()
    queue.add(1e9, nothing)
    gc.collect()
    before = sum(isinstance(thing, Timer) for thing in gc.get_objects())
    for step in range(2000):
        queue.cancel(queue.add(1e6 + step, nothing))
    after = sum(isinstance(thing, Timer) for thing in gc.get_objects())
    assert after - before < 30


def test_cancelling_most_of_many_timers_keeps_the_rest_in_order() -> None:
    queue = TimerQueue()
    timers = [queue.add(float(step % 97), nothing) for step in range(3000)]
    for step, timer in enumerate(timers):
        if step % 10:
            queue.cancel(timer)
    kept = sorted(timers[::10], key=lambda timer: timer.deadline_s)
    assert len(queue) == 300
    assert queue.pending() == kept
    assert fire_all(queue, 97.0) == kept


def test_a_cancelled_timer_lets_its_callback_and_arguments_go() -> None:
    queue = TimerQueue()
    timer = queue.add(1.0, nothing, (1,), {"key": 2})
    queue.cancel(timer)
    assert timer.callback is not nothing
    assert not timer.args
    assert not timer.kwargs
    timer.callback(*timer.args, **timer.kwargs)


def test_a_burst_of_timers_does_not_tax_the_turns_after_it() -> None:
    queue = TimerQueue()
    for _ in range(20_000):
        queue.add(1.0, nothing)
    fire_all(queue, 1.0)
    queue.pop_due(1.0)
    assert sys.getsizeof(queue._due) == sys.getsizeof({})


def test_infinity_means_never_and_nan_is_refused() -> None:
    queue = TimerQueue()
    never = queue.add(math.inf, nothing)
    assert queue.next_deadline() == math.inf
    assert queue.pop_due(1e300) == []
    with pytest.raises(ValueError, match="deadline_s"):
        queue.add(math.nan, nothing)
    with pytest.raises(ValueError, match="deadline_s"):
        queue.move(never, math.nan)
    assert queue.pending() == [never]


def test_the_repr_of_a_timer_says_its_state_and_deadline() -> None:
    queue = TimerQueue()
    timer = queue.add(1.5, nothing)
    assert repr(timer).startswith("<Timer active deadline_s=1.5 <function nothing")
    queue.cancel(timer)
    assert "cancelled" in repr(timer)


def test_one_that_is_given_back_is_handed_out_first_again() -> None:
    queue = TimerQueue()
    timers = [queue.add(float(number), nothing) for number in range(3)]
    assert queue.pop_due(2.0) == timers
    assert queue.claim(timers[0])
    queue.give_back(timers[0])
    assert queue.next_deadline() == 0.0
    assert queue.pop_due(2.0) == timers
    assert len(queue) == 3
