"""DelayedCall: what Twisted's does, on both; then what ours adds."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Protocol

import pytest
from twisted.internet import error as twisted_error
from twisted.internet import task as twisted_task

from procreactor.internet import error
from procreactor.internet.delayed import DelayedCall, delayed_calls
from procreactor.loop.timers import TimerQueue


class Call(Protocol):
    """What the scenarios use of either DelayedCall."""

    called: int
    cancelled: int
    func: Callable[..., object]
    args: tuple[object, ...]
    kw: dict[str, object]

    def getTime(self) -> float: ...
    def active(self) -> bool: ...
    def cancel(self) -> None: ...
    def reset(self, secondsFromNow: float) -> None: ...
    def delay(self, secondsLater: float) -> None: ...
    def __lt__(self, other: object) -> bool: ...
    def __le__(self, other: object) -> bool: ...


class World(Protocol):
    """A clock with DelayedCalls, and the names of its exceptions."""

    AlreadyCalled: type[Exception]
    AlreadyCancelled: type[Exception]

    def later(self, delay: float, func: Callable[..., object], *a: object, **kw: object) -> Call:
        """A pending call."""

    def advance(self, amount: float) -> None:
        """Let time pass, and make the calls."""


class Ours:
    """DelayedCall on a bare TimerQueue, with a hand for a clock."""

    AlreadyCalled = error.AlreadyCalled
    AlreadyCancelled = error.AlreadyCancelled

    def __init__(self) -> None:
        self.queue = TimerQueue()
        self.now = 100.0
        self.changes = 0

    def seconds(self) -> float:
        return self.now

    def on_change(self) -> None:
        self.changes += 1

    def later(
        self, delay: float, func: Callable[..., object], *a: object, **kw: object
    ) -> DelayedCall:
        return DelayedCall(self.now + delay, func, a, kw, self.queue, self.seconds, self.on_change)

    def advance(self, amount: float) -> None:
        self.now += amount
        for timer in self.queue.pop_due(self.now):
            if self.queue.claim(timer):
                timer.callback(*timer.args, **timer.kwargs)


class Theirs:
    """Twisted's DelayedCall, as its Clock makes it."""

    AlreadyCalled = twisted_error.AlreadyCalled
    AlreadyCancelled = twisted_error.AlreadyCancelled

    def __init__(self) -> None:
        self.clock = twisted_task.Clock()
        self.clock.rightNow = 100.0

    def later(self, delay: float, func: Callable[..., object], *a: object, **kw: object) -> Call:
        call: Call = self.clock.callLater(delay, func, *a, **kw)
        return call

    def advance(self, amount: float) -> None:
        self.clock.advance(amount)


def take(*args: object, **kwargs: object) -> None:
    """A function that takes everything and does nothing."""


@pytest.fixture(params=[Ours, Theirs], ids=["ours", "twisted"])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.param()
    return made


@pytest.fixture
def ours() -> Ours:
    return Ours()


def test_a_call_is_made_once_at_its_time_with_its_arguments(world: World) -> None:
    made: list[object] = []
    call = world.later(2, lambda *a, **kw: made.append((a, kw)), 1, 2, key=3)
    world.advance(1.5)
    assert not made
    assert call.active()
    world.advance(0.5)
    world.advance(10)
    assert made == [((1, 2), {"key": 3})]
    assert not call.active()


def test_a_call_tells_its_time_function_and_arguments(world: World) -> None:
    call = world.later(2, print, 1, key=3)
    assert call.getTime() == 102.0
    assert call.func is print
    assert call.args == (1,)
    assert call.kw == {"key": 3}
    assert (call.called, call.cancelled) == (0, 0)


def test_a_cancelled_call_is_not_made(world: World) -> None:
    made: list[object] = []
    call = world.later(1, made.append, 1)
    call.cancel()
    world.advance(2)
    assert not made
    assert not call.active()
    assert (call.called, call.cancelled) == (0, 1)


def test_a_cancelled_call_lets_its_function_and_arguments_go(world: World) -> None:
    call = world.later(1, print, 1)
    call.cancel()
    for name in ("func", "args", "kw"):
        assert not hasattr(call, name)


def test_a_cancelled_call_refuses_everything(world: World) -> None:
    call = world.later(1, print)
    call.cancel()
    with pytest.raises(world.AlreadyCancelled, match="already-cancelled"):
        call.cancel()
    with pytest.raises(world.AlreadyCancelled):
        call.reset(1)
    with pytest.raises(world.AlreadyCancelled):
        call.delay(1)


def test_a_call_that_was_made_refuses_everything(world: World) -> None:
    call = world.later(1, list)
    world.advance(1)
    assert (call.called, call.cancelled) == (1, 0)
    with pytest.raises(world.AlreadyCalled, match="already-called"):
        call.cancel()
    with pytest.raises(world.AlreadyCalled):
        call.reset(1)
    with pytest.raises(world.AlreadyCalled):
        call.delay(1)


def test_a_call_is_already_called_while_it_is_being_made(world: World) -> None:
    refused: list[bool] = []

    def try_to_cancel() -> None:
        with pytest.raises(world.AlreadyCalled):
            call.cancel()
        refused.append(call.active())

    call = world.later(1, try_to_cancel)
    world.advance(1)
    assert refused == [False]


def test_a_call_that_raises_counts_as_made(world: World) -> None:
    call = world.later(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.advance(1)
    assert not call.active()
    with pytest.raises(world.AlreadyCalled):
        call.cancel()


def test_reset_counts_from_now(world: World) -> None:
    made: list[object] = []
    call = world.later(5, made.append, 1)
    world.advance(3)
    call.reset(4)
    assert call.getTime() == 107.0
    world.advance(3.5)
    assert not made
    world.advance(0.5)
    assert made == [1]


def test_reset_can_bring_a_call_forward(world: World) -> None:
    made: list[object] = []
    call = world.later(50, made.append, 1)
    call.reset(2)
    assert call.getTime() == 102.0
    world.advance(2)
    assert made == [1]


def test_delay_counts_from_the_planned_time(world: World) -> None:
    made: list[object] = []
    call = world.later(5, made.append, 1)
    world.advance(3)
    call.delay(4)
    assert call.getTime() == 109.0
    world.advance(5.5)
    assert not made
    world.advance(0.5)
    assert made == [1]


def test_a_negative_delay_brings_a_call_forward(world: World) -> None:
    made: list[object] = []
    call = world.later(5, made.append, 1)
    call.delay(-3)
    assert call.getTime() == 102.0
    world.advance(2)
    assert made == [1]


def test_delays_add_up(world: World) -> None:
    call = world.later(5, print)
    call.delay(2)
    call.delay(2)
    call.delay(-1)
    assert call.getTime() == 108.0


def test_a_call_keeps_its_time_after_it_was_made(world: World) -> None:
    call = world.later(5, list)
    world.advance(7)
    assert call.getTime() == 105.0


def test_calls_compare_by_time(world: World) -> None:
    early, late, as_late = world.later(1, print), world.later(2, print), world.later(2, print)
    assert early < late
    assert not late < early
    assert early <= late
    assert late <= as_late <= late
    assert not late < as_late
    assert late != as_late


def test_a_call_may_cancel_its_neighbour_that_is_due_as_well(world: World) -> None:
    made: list[object] = []
    world.later(1, lambda: second.cancel())
    second = world.later(1, made.append, 2)
    world.advance(1)
    assert not made


def test_a_call_may_put_off_its_neighbour_that_is_due_as_well(world: World) -> None:
    made: list[object] = []
    world.later(1, lambda: second.reset(5))
    second = world.later(1, made.append, 2)
    world.advance(1)
    assert not made
    assert second.active()
    world.advance(5)
    assert made == [2]


def test_the_function_may_be_exchanged_until_the_call_is_made(world: World) -> None:
    made: list[object] = []
    call = world.later(1, print, 1)
    call.func = made.append
    world.advance(1)
    assert made == [1]


def test_the_repr_names_state_function_and_arguments(world: World) -> None:
    call = world.later(1.5, take, 1, "two", key=[3])
    address = f"{id(call):#x}"
    assert repr(call) == (
        f"<DelayedCall {address} [1.5s] called=0 cancelled=0 take(1, 'two', key=[3])>"
    )
    world.advance(2)
    assert "[-0.5s] called=1 cancelled=0 take(" in repr(call)


def test_the_repr_of_a_cancelled_call_names_no_function(world: World) -> None:
    call = world.later(1.5, print, 1)
    call.cancel()
    assert repr(call) == f"<DelayedCall {id(call):#x} [1.5s] called=0 cancelled=1>"


def test_the_repr_survives_arguments_without_one(world: World) -> None:
    class Unspeakable:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    assert "Unspeakable" in repr(world.later(1, print, Unspeakable(), key=Unspeakable()))


def test_ours_says_whenever_the_earliest_deadline_may_have_changed(ours: Ours) -> None:
    call = ours.later(1, list)
    assert ours.changes == 1
    call.reset(5)
    call.delay(-1)
    assert ours.changes == 3
    call.cancel()
    assert ours.changes == 4
    with pytest.raises(error.AlreadyCancelled):
        call.cancel()
    assert ours.changes == 4


def test_ours_has_changed_the_queue_before_it_says_so() -> None:
    queue = TimerQueue()
    seen: list[float | None] = []

    def look() -> None:
        seen.append(queue.next_deadline())

    call = DelayedCall(5.0, list, (), {}, queue, lambda: 0.0, look)
    call.reset(3)
    call.delay(1)
    call.cancel()
    assert seen == [5.0, 3.0, 4.0, None]


def test_ours_needs_no_listener() -> None:
    queue = TimerQueue()
    call = DelayedCall(5.0, list, (), {}, queue, lambda: 0.0)
    call.reset(1)
    call.cancel()
    assert len(queue) == 0


def test_a_queue_tells_its_delayed_calls_in_order_and_nothing_else(ours: Ours) -> None:
    late, early = ours.later(2, list), ours.later(1, list)
    ours.queue.add(101.5, list)
    assert delayed_calls(ours.queue) == [early, late]
    late.cancel()
    ours.advance(1)
    assert delayed_calls(ours.queue) == []


@pytest.mark.parametrize("ending", ["cancel", "call"])
def test_an_ended_call_is_freed_without_the_cycle_collector(ours: Ours, ending: str) -> None:
    gc.collect()
    gc.disable()
    try:
        call = ours.later(1, list)
        gone = weakref.ref(call)
        if ending == "cancel":
            call.cancel()
        else:
            ours.advance(1)
        del call
        assert gone() is None
    finally:
        gc.enable()


def test_a_move_to_no_number_is_refused_and_changes_nothing(ours: Ours) -> None:
    call = ours.later(1, list)
    with pytest.raises(ValueError, match="not a number"):
        call.reset(float("nan"))
    assert call.getTime() == 101.0
    assert call.active()
