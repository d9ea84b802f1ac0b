"""Deferred, beside Twisted's: each scenario runs on both, unless its name says what is ours."""

# mypy: disable-error-code="untyped-decorator"
# (whichever module a test runs on, its inlineCallbacks is Any)

from __future__ import annotations

import contextvars
import gc
import importlib
import logging
import warnings
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import defer as twisted_defer
from twisted.internet.task import Clock

from procreactor.internet import defer as our_defer
from procreactor.internet.defer import Deferred, DeferredList
from procreactor.internet.error import ProcessTerminated
from procreactor.python.failure import Failure


@pytest.fixture(params=["procreactor", "twisted"])
def defer(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(f"{request.param}.internet.defer")


class OddError(Exception):
    pass


def boom(*_: object) -> None:
    raise OddError("boom")


def outcome(d: Any) -> Any:
    """Return what *d* comes to, and take it: a value, or an exception, or "pending"."""
    results: list[Any] = []
    d.addCallbacks(results.append, lambda f: results.append(f.value))
    return results[0] if results else "pending"


def chain_of(defer: Any, length: int) -> list[Any]:
    """Return Deferreds of which each waits for the next; the last has not fired."""
    chain = [defer.Deferred() for _ in range(length)]
    for outer, inner in pairwise(chain):
        outer.addCallback(lambda _, inner=inner: inner)
    for outer in chain[:-1]:
        outer.callback(None)
    return chain


def ignore_errors(d: Any) -> None:
    d.addErrback(lambda _: None)


# Callbacks and errbacks


def test_each_callback_gets_what_the_one_before_returned(defer: Any) -> None:
    d = defer.Deferred()
    d.addCallback(lambda n: n + 1).addCallback(lambda n: n * 2)
    d.callback(1)
    assert d.result == 4


def test_callbacks_get_their_own_arguments_after_the_result(defer: Any) -> None:
    d = defer.succeed(1)
    d.addCallback(lambda *args, **kw: (args, kw), 2, k=3)
    assert d.result == ((1, 2), {"k": 3})


def test_errbacks_get_their_own_arguments_after_the_failure(defer: Any) -> None:
    d = defer.fail(OddError())
    d.addErrback(lambda f, *args, **kw: (f.type, args, kw), 2, k=3)
    assert d.result == (OddError, (2,), {"k": 3})


@pytest.mark.parametrize(("fire", "expected"), [("callback", "c"), ("errback", "e")])
def test_each_side_of_add_callbacks_gets_its_arguments(
    defer: Any, fire: str, expected: str
) -> None:
    d = defer.Deferred()
    d.addCallbacks(
        lambda _, *args, **kw: (args, kw),
        lambda _, *args, **kw: (args, kw),
        callbackArgs=("c",),
        callbackKeywords={"k": "c"},
        errbackArgs=("e",),
        errbackKeywords={"k": "e"},
    )
    getattr(d, fire)(OddError())
    assert d.result == ((expected,), {"k": expected})


def test_add_callbacks_needs_no_errback(defer: Any) -> None:
    d = defer.fail(OddError())
    d.addCallbacks(lambda _: "unused")
    assert outcome(d).__class__ is OddError


def test_an_exception_goes_to_the_next_errback_past_the_callbacks(defer: Any) -> None:
    called: list[str] = []
    d = defer.Deferred()
    d.addCallback(boom)
    d.addCallback(lambda _: called.append("callback"))
    d.addErrback(lambda f: f.trap(OddError).__name__)
    d.addErrback(lambda _: called.append("errback"))
    d.callback(None)
    assert (d.result, called) == ("OddError", [])


def test_an_exception_raised_by_an_errback_replaces_the_failure(defer: Any) -> None:
    d = defer.fail(ValueError())
    d.addErrback(boom)
    assert outcome(d).__class__ is OddError


def test_a_failure_returned_by_a_callback_goes_to_the_errbacks(defer: Any) -> None:
    d = defer.succeed(None)
    d.addCallback(lambda _: defer.Failure(OddError("returned")))
    assert outcome(d).args == ("returned",)


def test_a_failure_raised_by_an_errback_is_the_same_error(defer: Any) -> None:
    def raise_failure(f: BaseException) -> None:
        raise f

    error = OddError()
    d = defer.fail(error).addErrback(raise_failure)
    assert outcome(d) is error


def test_add_both_gets_results_and_failures(defer: Any) -> None:
    good, bad = defer.succeed(1), defer.fail(OddError())
    for d in good, bad:
        d.addBoth(lambda r, more: (type(r).__name__, more), "more")
    assert (good.result, bad.result) == (("int", "more"), ("Failure", "more"))


def test_each_adding_method_returns_the_deferred(defer: Any) -> None:
    d = defer.Deferred()
    assert d.addCallback(id) is d
    assert d.addErrback(id) is d
    assert d.addBoth(id) is d
    assert d.addCallbacks(id, id) is d
    assert d.chainDeferred(defer.Deferred()) is d


def test_a_callback_added_after_firing_is_called_at_once(defer: Any) -> None:
    seen: list[int] = []
    defer.succeed(1).addCallback(seen.append)
    assert seen == [1]


def test_there_is_no_result_before_it_has_fired(defer: Any) -> None:
    d = defer.Deferred()
    assert not hasattr(d, "result")
    assert not d.called
    d.callback(None)
    assert d.called


def test_a_callback_added_by_a_callback_is_called_after_those_before_it(defer: Any) -> None:
    order: list[str] = []
    d = defer.Deferred()

    def first(_: object) -> None:
        order.append("first begins")
        d.addCallback(lambda _: order.append("third"))
        order.append("first ends")

    d.addCallback(first)
    d.addCallback(lambda _: order.append("second"))
    d.callback(None)
    assert order == ["first begins", "first ends", "second", "third"]


def test_even_keyboard_interrupt_becomes_a_failure(defer: Any) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    assert isinstance(outcome(defer.succeed(None).addCallback(interrupt)), KeyboardInterrupt)


# Firing


def test_errback_takes_an_exception(defer: Any) -> None:
    error, d = OddError(), defer.Deferred()
    d.errback(error)
    assert d.result.value is error
    ignore_errors(d)


def test_errback_takes_a_failure_as_it_is(defer: Any) -> None:
    failure, d = defer.Failure(OddError()), defer.Deferred()
    d.errback(failure)
    assert d.result is failure
    ignore_errors(d)


def test_errback_takes_the_exception_being_handled(defer: Any) -> None:
    d = defer.Deferred()
    try:
        boom()
    except OddError as error:
        caught = error
        d.errback()
    assert d.result.value is caught
    assert d.result.tb is not None
    ignore_errors(d)


def test_errback_of_nothing_is_refused_and_does_not_fire(defer: Any) -> None:
    no_exception = importlib.import_module(defer.Failure.__module__).NoCurrentExceptionError
    d = defer.Deferred()
    with pytest.raises(no_exception):
        d.errback()
    assert not d.called


def test_a_callback_with_a_failure_is_an_errback(defer: Any) -> None:
    d = defer.Deferred()
    d.callback(defer.Failure(OddError()))
    assert isinstance(outcome(d), OddError)


def test_a_failure_of_a_tuple_passes_through_as_it_is(defer: Any) -> None:
    d = defer.fail(defer.Failure((b"out", b"err", 9)))
    d.addCallback(boom)
    assert outcome(d) == (b"out", b"err", 9)


@pytest.mark.parametrize("first", ["callback", "errback"])
@pytest.mark.parametrize("second", ["callback", "errback"])
def test_firing_twice_is_refused(defer: Any, first: str, second: str) -> None:
    d = defer.Deferred()
    getattr(d, first)(OddError("first"))
    with pytest.raises(defer.AlreadyCalledError):
        getattr(d, second)(OddError("second"))
    assert "first" in repr(d.result)
    ignore_errors(d)


def test_succeed_and_fail_have_fired(defer: Any) -> None:
    assert outcome(defer.succeed(1)) == 1
    assert isinstance(outcome(defer.fail(OddError())), OddError)


def test_fail_takes_the_exception_being_handled(defer: Any) -> None:
    try:
        boom()
    except OddError:
        d = defer.fail()
    assert isinstance(outcome(d), OddError)


def test_execute_gives_what_a_function_returns_or_raises(defer: Any) -> None:
    assert outcome(defer.execute(divmod, 7, 2)) == (3, 1)
    assert isinstance(outcome(defer.execute(boom)), OddError)


def test_passthru_changes_nothing(defer: Any) -> None:
    assert defer.passthru(3) == 3


# maybeDeferred


def test_maybe_deferred_of_a_value_is_a_deferred(defer: Any) -> None:
    assert outcome(defer.maybeDeferred(divmod, 7, 2)) == (3, 1)


def test_maybe_deferred_of_a_deferred_is_that_deferred(defer: Any) -> None:
    d = defer.Deferred()
    assert defer.maybeDeferred(lambda: d) is d


def test_maybe_deferred_of_an_error_fails(defer: Any) -> None:
    assert isinstance(outcome(defer.maybeDeferred(boom)), OddError)


def test_maybe_deferred_of_a_failure_fails(defer: Any) -> None:
    d = defer.maybeDeferred(lambda: defer.Failure(OddError()))
    assert isinstance(outcome(d), OddError)


def test_maybe_deferred_of_a_coroutine_runs_it(defer: Any) -> None:
    async def add(n: int) -> int:
        return n + int(await defer.succeed(1))

    assert outcome(defer.maybeDeferred(add, 1)) == 2


def test_maybe_deferred_of_a_generator_is_the_generator(defer: Any) -> None:
    steps = iter(())
    assert outcome(defer.maybeDeferred(lambda: steps)) is steps


# One Deferred in another


def test_a_returned_deferred_is_waited_for(defer: Any) -> None:
    inner, outer = defer.Deferred(), defer.succeed(None)
    outer.addCallback(lambda _: inner).addCallback(lambda r: r + 1)
    assert outer.paused
    inner.callback(1)
    assert (outer.result, inner.result, outer.paused) == (2, None, 0)


def test_the_result_of_a_returned_deferred_that_has_fired_is_taken(defer: Any) -> None:
    inner = defer.succeed(1)
    outer = defer.succeed(None).addCallback(lambda _: inner)
    assert (outer.result, inner.result) == (1, None)


def test_the_failure_of_a_returned_deferred_goes_to_the_errbacks(defer: Any) -> None:
    inner = defer.Deferred()
    outer = defer.succeed(None).addCallback(lambda _: inner)
    inner.errback(OddError())
    assert isinstance(outcome(outer), OddError)
    assert inner.result is None


def test_functions_added_after_the_handing_over_of_the_result_get_none(defer: Any) -> None:
    seen: list[object] = []
    inner, outer = defer.Deferred(), defer.succeed(None)
    inner.addCallback(lambda r: f"inner {r}")
    outer.addCallback(lambda _: inner)
    outer.addCallback(lambda r: seen.append(f"outer {r}"))
    inner.addCallback(seen.append)
    inner.callback(1)
    assert seen == ["outer inner 1", None]


def test_a_returned_deferred_that_is_paused_is_waited_for(defer: Any) -> None:
    inner = defer.succeed(1)
    inner.pause()
    outer = defer.succeed(None).addCallback(lambda _: inner)
    assert outcome(outer) == "pending"
    inner.unpause()
    assert inner.result is None
    assert not outer.paused


def test_a_returned_deferred_that_waits_itself_is_waited_for(defer: Any) -> None:
    innermost = defer.Deferred()
    inner = defer.succeed(None).addCallback(lambda _: innermost)
    outer = defer.succeed(None).addCallback(lambda _: inner)
    innermost.callback(1)
    assert (outer.result, inner.result, innermost.result) == (1, None, None)


def test_a_deferred_may_be_fired_while_it_is_paused(defer: Any) -> None:
    d = defer.Deferred().addCallback(lambda n: n + 1)
    d.pause()
    d.pause()
    d.callback(1)
    d.unpause()
    assert d.result == 1
    d.unpause()
    assert d.result == 2


def test_chain_deferred_fires_the_other_with_the_result(defer: Any) -> None:
    first, second = defer.Deferred(), defer.Deferred()
    first.chainDeferred(second)
    first.callback(1)
    assert (first.result, second.result) == (None, 1)


def test_chain_deferred_fires_the_other_with_the_failure(defer: Any) -> None:
    first, second = defer.Deferred(), defer.Deferred()
    first.chainDeferred(second)
    first.errback(OddError())
    assert isinstance(outcome(second), OddError)
    assert first.result is None


@pytest.mark.needs("threads")
def test_a_long_chain_fired_at_its_end_needs_no_stack(defer: Any) -> None:
    chain = chain_of(defer, 5_000)
    chain[-1].callback("end")
    assert chain[0].result == "end"


def test_a_long_chain_of_fired_deferreds_needs_no_stack(defer: Any) -> None:
    chain = [defer.succeed("end")]
    for _ in range(5_000):
        inner = chain[-1]
        chain.append(defer.succeed(None).addCallback(lambda _, inner=inner: inner))
    assert chain[-1].result == "end"


def test_a_deferred_with_very_many_callbacks_needs_no_stack(defer: Any) -> None:
    d = defer.Deferred()
    for _ in range(5_000):
        d.addCallback(lambda n: n + 1)
    d.callback(0)
    assert d.result == 5_000


def test_a_callback_that_returns_its_own_deferred_causes_a_warning(defer: Any) -> None:
    d = defer.Deferred()
    d.addCallback(lambda _: d)
    with pytest.warns((DeprecationWarning, RuntimeWarning), match="returned"):
        d.callback(None)
    ignore_errors(d)


def test_our_deferred_fails_when_it_would_wait_for_itself() -> None:
    d: Deferred[object] = Deferred()
    d.addCallback(lambda _: d)
    with pytest.warns(RuntimeWarning, match=r"<lambda>.* returned"):
        d.callback(None)
    assert isinstance(outcome(d), RuntimeError)


def test_our_deferreds_fail_when_they_would_wait_for_each_other() -> None:
    ring: list[Deferred[object]] = [Deferred() for _ in range(3)]
    ring[0].addCallback(lambda _: ring[1])
    ring[1].addCallback(lambda _: ring[2])
    ring[2].addCallback(lambda _: ring[0])
    ring[0].callback(None)
    ring[1].callback(None)
    with pytest.warns(RuntimeWarning, match="returned"):
        ring[2].callback(None)
    assert isinstance(outcome(ring[0]), RuntimeError)
    assert [d.paused for d in ring] == [0, 0, 0]


def test_our_deferred_is_held_back_at_once_by_its_own_callback() -> None:
    seen: list[int] = []
    d: Deferred[int] = Deferred()
    d.addCallback(lambda _: d.pause()).addCallback(lambda _: seen.append(1))
    d.callback(1)
    assert seen == []
    d.unpause()
    assert seen == [1]


def test_our_waiting_deferred_does_not_hold_up_the_one_it_waited_for() -> None:
    seen: list[object] = []
    inner: Deferred[int] = Deferred()
    outer: Deferred[Any] = our_defer.succeed(None).addCallback(lambda _: inner)
    outer.pause()
    inner.addCallback(seen.append)
    inner.callback(1)
    assert seen == [None]
    outer.unpause()
    assert outer.result == 1


def test_a_deferred_shows_its_state(defer: Any) -> None:
    inner, outer = defer.Deferred(), defer.Deferred()
    assert repr(inner) == str(inner) == f"<Deferred at {id(inner):#x}>"
    outer.addCallback(lambda _: inner)
    outer.callback(None)
    assert repr(outer) == f"<Deferred at {id(outer):#x} waiting on Deferred at {id(inner):#x}>"
    inner.callback("x")
    assert repr(outer) == f"<Deferred at {id(outer):#x} current result: 'x'>"


# Cancelling


def test_cancelling_fails_with_cancelled_error(defer: Any) -> None:
    d = defer.Deferred()
    d.cancel()
    assert isinstance(outcome(d), defer.CancelledError)


def test_without_a_canceller_one_late_result_is_swallowed(defer: Any) -> None:
    d = defer.Deferred()
    d.cancel()
    ignore_errors(d)
    d.callback("late")
    assert d.result is None
    with pytest.raises(defer.AlreadyCalledError):
        d.callback("too late")


def test_the_canceller_is_given_the_deferred(defer: Any) -> None:
    seen: list[object] = []
    d = defer.Deferred(seen.append)
    d.cancel()
    assert seen == [d]
    assert isinstance(outcome(d), defer.CancelledError)


def test_the_canceller_may_fire_the_deferred(defer: Any) -> None:
    d = defer.Deferred(lambda d: d.callback("partial"))
    d.cancel()
    assert outcome(d) == "partial"


def test_with_a_canceller_a_late_result_is_refused(defer: Any) -> None:
    d = defer.Deferred(lambda _: None)
    d.cancel()
    ignore_errors(d)
    with pytest.raises(defer.AlreadyCalledError):
        d.callback("late")


def test_a_fired_deferred_lets_its_canceller_go(defer: Any) -> None:
    def cancel(d: object) -> None:
        pass

    canceller = weakref.ref(cancel)
    d = defer.Deferred(cancel)
    del cancel
    assert canceller() is not None
    d.callback(None)
    assert canceller() is None


def test_an_error_of_the_canceller_goes_to_who_cancels(defer: Any) -> None:
    d = defer.Deferred(boom)
    with pytest.raises(OddError):
        d.cancel()
    assert not d.called


def test_cancelling_what_has_fired_does_nothing(defer: Any) -> None:
    d = defer.Deferred(boom)
    d.callback(1)
    d.cancel()
    assert outcome(d) == 1


def test_cancelling_what_waits_cancels_what_it_waits_for(defer: Any) -> None:
    inner = defer.Deferred()
    outer = defer.succeed(None).addCallback(lambda _: inner)
    outer.cancel()
    assert isinstance(outcome(outer), defer.CancelledError)
    assert inner.called


def test_our_long_chain_is_cancelled_without_a_stack() -> None:
    chain = chain_of(our_defer, 5_000)
    chain[0].cancel()
    assert chain[-1].called
    assert isinstance(outcome(chain[0]), our_defer.CancelledError)


# addTimeout


def test_a_timeout_fails_with_timeout_error(defer: Any) -> None:
    clock, d = Clock(), defer.Deferred()
    d.addTimeout(10, clock)
    clock.advance(9)
    assert not d.called
    clock.advance(1)
    error = outcome(d)
    assert isinstance(error, defer.TimeoutError)
    assert error.args == (10, "Deferred")


@pytest.mark.parametrize("fire", ["callback", "errback", "cancel"])
def test_a_result_in_time_stops_the_clock(defer: Any, fire: str) -> None:
    clock, d = Clock(), defer.Deferred()
    d.addTimeout(10, clock)
    getattr(d, fire)(*([] if fire == "cancel" else [OddError()]))
    assert clock.getDelayedCalls() == []
    expected = defer.CancelledError if fire == "cancel" else OddError
    assert isinstance(outcome(d), expected)


def test_a_timeout_is_for_the_functions_added_before_it(defer: Any) -> None:
    clock, slow = Clock(), defer.Deferred()
    d = defer.succeed(1).addTimeout(10, clock)
    d.addCallback(lambda _: slow)
    assert clock.getDelayedCalls() == []
    slow.callback("slow")
    assert outcome(d) == "slow"


def test_a_timeout_keeps_what_the_canceller_fired_with(defer: Any) -> None:
    clock, d = Clock(), defer.Deferred(lambda d: d.callback("partial"))
    d.addTimeout(10, clock)
    clock.advance(10)
    assert outcome(d) == "partial"


def test_a_timeout_keeps_another_error_of_the_canceller(defer: Any) -> None:
    clock, d = Clock(), defer.Deferred(lambda d: d.errback(OddError()))
    d.addTimeout(10, clock)
    clock.advance(10)
    assert isinstance(outcome(d), OddError)


def test_a_timeout_may_be_translated_otherwise(defer: Any) -> None:
    clock, d = Clock(), defer.Deferred()
    d.addTimeout(10, clock, lambda result, timeout: (result.type, timeout))
    clock.advance(10)
    assert outcome(d) == (defer.CancelledError, 10)


def test_a_cancelled_deferred_with_a_timeout_is_not_said_to_be_late(defer: Any) -> None:
    clock, d = Clock(), defer.Deferred()
    d.addTimeout(10, clock, lambda result, timeout: "late")
    d.cancel()
    assert isinstance(outcome(d), defer.CancelledError)


# DeferredList and gatherResults


def test_a_deferred_list_has_a_pair_for_each(defer: Any) -> None:
    a, b = defer.Deferred(), defer.Deferred()
    both = defer.DeferredList([a, b])
    b.callback("b")
    assert not both.called
    a.callback("a")
    assert both.result == [(defer.SUCCESS, "a"), (defer.SUCCESS, "b")]


def test_a_deferred_list_lets_the_results_by(defer: Any) -> None:
    a = defer.succeed("a")
    defer.DeferredList([a])
    assert a.result == "a"


def test_a_deferred_list_takes_failures_for_results(defer: Any) -> None:
    a, b = defer.succeed("a"), defer.fail(OddError())
    _, (ok, failure) = defer.DeferredList([a, b]).result
    assert ok is defer.FAILURE
    assert isinstance(failure.value, OddError)
    assert isinstance(outcome(b), OddError)


def test_a_deferred_list_may_consume_errors(defer: Any) -> None:
    bad = defer.fail(OddError())
    assert defer.DeferredList([bad], consumeErrors=True).result[0][0] is defer.FAILURE
    assert bad.result is None


def test_an_empty_deferred_list_fires_at_once(defer: Any) -> None:
    assert defer.DeferredList([]).result == []


def test_an_empty_deferred_list_never_has_a_first_result(defer: Any) -> None:
    assert not defer.DeferredList([], fireOnOneCallback=True).called


def test_a_deferred_list_may_fire_on_the_first_result(defer: Any) -> None:
    waited = [defer.Deferred() for _ in range(3)]
    first = defer.DeferredList(waited, fireOnOneCallback=True, consumeErrors=True)
    waited[0].errback(OddError())
    waited[2].callback("c")
    waited[1].callback("b")
    assert first.result == ("c", 2)


def test_a_deferred_list_without_a_first_result_has_the_failures(defer: Any) -> None:
    bad = defer.fail(OddError())
    first = defer.DeferredList([bad], fireOnOneCallback=True, consumeErrors=True)
    assert first.result[0][0] is defer.FAILURE


def test_a_deferred_list_may_fail_on_the_first_failure(defer: Any) -> None:
    waited = [defer.Deferred() for _ in range(3)]
    first = defer.DeferredList(waited, fireOnOneErrback=True, consumeErrors=True)
    waited[0].callback("a")
    waited[2].errback(OddError("c"))
    waited[1].errback(OddError("b"))
    error = outcome(first)
    assert isinstance(error, defer.FirstError)
    assert (error.index, error.subFailure.value.args) == (2, ("c",))
    assert repr(error) == "FirstError[#2, OddError('c')]"
    assert str(error) == f"FirstError[#2, {error.subFailure}]"


def test_cancelling_a_deferred_list_cancels_each(defer: Any) -> None:
    a, b = defer.Deferred(), defer.Deferred()
    both = defer.DeferredList([a, b], consumeErrors=True)
    both.cancel()
    assert [f.type for _, f in both.result] == [defer.CancelledError] * 2


def test_cancelling_a_deferred_list_that_has_fired_cancels_nothing(defer: Any) -> None:
    a, b = defer.succeed("a"), defer.Deferred()
    first = defer.DeferredList([a, b], fireOnOneCallback=True)
    first.cancel()
    assert not b.called


def test_our_deferred_list_logs_an_error_of_a_canceller(caplog: pytest.LogCaptureFixture) -> None:
    bad: Deferred[None] = Deferred(boom)
    good: Deferred[None] = Deferred()
    both = DeferredList([bad, good], consumeErrors=True)
    both.cancel()
    assert good.called
    assert [record.message for record in caplog.records] == ["a canceller raised"]


def test_our_deferred_list_that_waits_again_can_be_cancelled_again() -> None:
    later: Deferred[None] = Deferred()
    both = DeferredList([]).addCallback(lambda _: later)
    both.cancel()
    assert isinstance(outcome(both), our_defer.CancelledError)


def test_gathered_results_come_in_the_order_of_the_list(defer: Any) -> None:
    a, b = defer.Deferred(), defer.Deferred()
    both = defer.gatherResults([a, b])
    b.callback("b")
    a.callback("a")
    assert outcome(both) == ["a", "b"]


def test_gathering_fails_with_the_first_error(defer: Any) -> None:
    a, b = defer.Deferred(), defer.Deferred()
    both = defer.gatherResults([a, b], consumeErrors=True)
    b.errback(OddError())
    error = outcome(both)
    assert isinstance(error, defer.FirstError)
    assert error.index == 1
    assert not a.called


def test_cancelling_gathered_results_cancels_each(defer: Any) -> None:
    a, b = defer.Deferred(), defer.Deferred()
    both = defer.gatherResults([a, b], consumeErrors=True)
    both.cancel()
    assert isinstance(outcome(both), defer.FirstError)
    assert a.called
    assert b.called


# Coroutines


def test_await_gives_the_result_of_a_pending_deferred(defer: Any) -> None:
    pending = defer.Deferred()

    async def wait() -> str:
        return f"got {await pending}"

    d = defer.ensureDeferred(wait())
    assert not d.called
    pending.callback("it")
    assert outcome(d) == "got it"


def test_await_gives_the_result_of_a_fired_deferred_and_leaves_it(defer: Any) -> None:
    fired = defer.succeed("it")

    async def wait() -> tuple[Any, Any]:
        return await fired, await fired

    assert outcome(defer.ensureDeferred(wait())) == ("it", "it")


@pytest.mark.parametrize("pending", [True, False])
def test_await_raises_what_a_deferred_failed_with(defer: Any, pending: bool) -> None:
    failing = defer.Deferred()

    async def wait() -> str:
        try:
            await failing
        except OddError as error:
            return f"caught {error}"
        return "nothing raised"

    if pending:
        d = defer.ensureDeferred(wait())
        failing.errback(OddError("it"))
    else:
        failing.errback(OddError("it"))
        d = defer.ensureDeferred(wait())
    assert outcome(d) == "caught it"


def test_await_waits_for_a_paused_deferred(defer: Any) -> None:
    paused = defer.succeed(1)
    paused.pause()

    async def wait() -> Any:
        return await paused

    d = defer.ensureDeferred(wait())
    assert not d.called
    paused.unpause()
    assert outcome(d) == 1


def test_an_error_of_a_coroutine_is_its_failure(defer: Any) -> None:
    async def fails() -> None:
        boom()

    assert isinstance(outcome(defer.ensureDeferred(fails())), OddError)


def test_from_coroutine_runs_a_coroutine(defer: Any) -> None:
    async def answer() -> int:
        return 42

    assert outcome(defer.Deferred.fromCoroutine(answer())) == 42


def test_from_coroutine_runs_a_generator(defer: Any) -> None:
    def steps() -> Generator[Any, Any, int]:
        first: int = yield from defer.succeed(1)
        second: int = yield defer.succeed(2)
        return first + second

    assert outcome(defer.Deferred.fromCoroutine(steps())) == 3


def test_ensure_deferred_of_a_deferred_is_that_deferred(defer: Any) -> None:
    d = defer.Deferred()
    assert defer.ensureDeferred(d) is d


@pytest.mark.parametrize("value", [None, 1, lambda: None])
def test_nothing_else_can_be_run(defer: Any, value: object) -> None:
    with pytest.raises(defer.NotACoroutineError):
        defer.ensureDeferred(value)
    with pytest.raises(TypeError):
        defer.Deferred.fromCoroutine(value)


def test_a_coroutine_keeps_the_context_it_was_started_in(defer: Any) -> None:
    variable = contextvars.ContextVar("variable", default="default")
    pending = defer.Deferred()

    async def look() -> tuple[str, str]:
        before = variable.get()
        await pending
        return before, variable.get()

    token = variable.set("started")
    d = defer.ensureDeferred(look())
    variable.reset(token)
    pending.callback(None)
    assert outcome(d) == ("started", "started")


def test_awaiting_many_fired_deferreds_needs_no_stack(defer: Any) -> None:
    pending = defer.Deferred()

    @defer.inlineCallbacks
    def count() -> Generator[Any, int, int]:
        total = yield pending
        for _ in range(5_000):
            total += yield defer.succeed(1)
        return total

    d = count()
    pending.callback(0)
    assert outcome(d) == 5_000


def test_our_await_says_so_when_something_else_runs_the_coroutine() -> None:
    pending: Deferred[None] = Deferred()

    async def wait() -> None:
        await pending

    error = outcome(twisted_defer.ensureDeferred(wait()))
    assert isinstance(error, RuntimeError)
    assert "ensureDeferred" in str(error)


def test_our_await_of_a_failure_that_cannot_be_raised_keeps_its_value() -> None:
    failing: Deferred[None] = Deferred()

    async def wait() -> None:
        await failing

    waiting = our_defer.ensureDeferred(wait())
    failing.errback(Failure((b"out", b"err", 9)))
    assert outcome(waiting) == (b"out", b"err", 9)


# inlineCallbacks


def test_yield_gives_results_and_hands_other_values_back(defer: Any) -> None:
    @defer.inlineCallbacks
    def steps(start: int) -> Generator[Any, Any, list[Any]]:
        first = yield start
        second = yield defer.succeed(2)
        third = yield None
        return [first, second, third]

    assert outcome(steps(1)) == [1, 2, None]


def test_yield_waits_for_a_pending_deferred(defer: Any) -> None:
    pending = defer.Deferred()

    @defer.inlineCallbacks
    def steps() -> Generator[Any, Any, Any]:
        return (yield pending)

    d = steps()
    assert not d.called
    pending.callback("it")
    assert outcome(d) == "it"


def test_yield_raises_what_a_deferred_failed_with(defer: Any) -> None:
    @defer.inlineCallbacks
    def steps() -> Generator[Any, Any, str]:
        try:
            yield defer.fail(OddError("it"))
        except OddError as error:
            return f"caught {error}"
        return "nothing raised"

    assert outcome(steps()) == "caught it"


def test_yield_runs_a_coroutine(defer: Any) -> None:
    async def double(n: int) -> int:
        return int(await defer.succeed(n)) * 2

    @defer.inlineCallbacks
    def steps() -> Generator[Any, Any, Any]:
        return (yield double(2))

    assert outcome(steps()) == 4


def test_an_error_of_a_generator_is_its_failure_with_its_traceback(defer: Any) -> None:
    @defer.inlineCallbacks
    def steps() -> Generator[Any, Any, None]:
        yield None
        boom()

    d = steps()
    assert d.result.frames[-1][0] == "boom"
    assert isinstance(outcome(d), OddError)


def test_return_value_ends_a_generator(defer: Any) -> None:
    @defer.inlineCallbacks
    def steps() -> Generator[Any, Any, None]:
        value = yield defer.succeed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            defer.returnValue(value + 1)

    assert outcome(steps()) == 2


def test_return_value_in_a_plain_function_is_refused(defer: Any) -> None:
    @defer.inlineCallbacks
    def plain() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            defer.returnValue(1)

    with pytest.raises(TypeError, match="plain"):
        plain()


def test_a_function_that_makes_no_generator_is_refused(defer: Any) -> None:
    @defer.inlineCallbacks
    def plain() -> int:
        return 1

    with pytest.raises(TypeError, match="plain"):
        plain()


def test_inline_callbacks_keeps_name_and_docstring(defer: Any) -> None:
    @defer.inlineCallbacks
    def steps() -> Generator[Any, Any, None]:
        """What it does."""
        yield None

    assert (steps.__name__, steps.__doc__) == ("steps", "What it does.")


def test_generators_may_wait_for_generators(defer: Any) -> None:
    pending = defer.Deferred()

    @defer.inlineCallbacks
    def inner() -> Generator[Any, Any, Any]:
        return (yield pending) + 1

    @defer.inlineCallbacks
    def outer() -> Generator[Any, Any, Any]:
        return (yield inner()) * 2

    d = outer()
    pending.callback(1)
    assert outcome(d) == 4


# Cancelling generators and coroutines


def test_cancelling_a_coroutine_cancels_what_it_waits_for(defer: Any) -> None:
    cancelled: list[object] = []
    pending = defer.Deferred(cancelled.append)

    async def wait() -> None:
        await pending

    d = defer.ensureDeferred(wait())
    d.cancel()
    assert cancelled == [pending]
    assert isinstance(outcome(d), defer.CancelledError)


def test_a_coroutine_may_answer_a_cancellation(defer: Any) -> None:
    async def wait() -> str:
        try:
            await defer.Deferred()
        except defer.CancelledError:
            return "tidied up"
        return "not cancelled"

    d = defer.ensureDeferred(wait())
    d.cancel()
    assert outcome(d) == "tidied up"


def test_a_coroutine_that_goes_on_waiting_can_be_cancelled_again(defer: Any) -> None:
    first, second = defer.Deferred(), defer.Deferred()

    @defer.inlineCallbacks
    def stubborn() -> Generator[Any, Any, None]:
        try:
            yield first
        except defer.CancelledError:
            yield second

    d = stubborn()
    d.cancel()
    assert first.called
    assert not second.called
    d.cancel()
    assert second.called
    assert isinstance(outcome(d), defer.CancelledError)


def test_cancelling_goes_through_generators_that_wait_for_generators(defer: Any) -> None:
    pending = defer.Deferred()

    @defer.inlineCallbacks
    def inner() -> Generator[Any, Any, None]:
        yield pending

    @defer.inlineCallbacks
    def outer() -> Generator[Any, Any, None]:
        yield inner()

    d = outer()
    d.cancel()
    assert pending.called
    assert isinstance(outcome(d), defer.CancelledError)


def test_cancelling_what_a_finished_generator_waits_for_afterwards(defer: Any) -> None:
    later = defer.Deferred()

    @defer.inlineCallbacks
    def steps() -> Generator[Any, Any, int]:
        yield None
        return 1

    d = steps().addCallback(lambda _: later)
    d.cancel()
    assert later.called
    assert isinstance(outcome(d), defer.CancelledError)


def test_our_running_coroutine_is_not_disturbed_by_cancelling_it() -> None:
    pending: Deferred[None] = Deferred()

    async def cancels_itself() -> str:
        await pending
        d.cancel()
        return "done"

    d = our_defer.ensureDeferred(cancels_itself())
    pending.callback(None)
    assert outcome(d) == "done"


# Taking turns


@pytest.fixture(params=["lock", "semaphore"])
def turns(request: pytest.FixtureRequest, defer: Any) -> Any:
    return defer.DeferredLock() if request.param == "lock" else defer.DeferredSemaphore(1)


def test_turns_are_taken_in_the_order_of_asking(turns: Any) -> None:
    order: list[int] = []
    for n in range(3):
        turns.acquire().addCallback(lambda _, n=n: order.append(n))
    assert order == [0]
    turns.release()
    turns.release()
    assert order == [0, 1, 2]


def test_who_gets_a_turn_is_given_what_it_is_a_turn_of(turns: Any) -> None:
    assert outcome(turns.acquire()) is turns


def test_who_does_not_want_to_wait_longer_is_passed_over(defer: Any, turns: Any) -> None:
    turns.acquire()
    second, third = turns.acquire(), turns.acquire()
    second.cancel()
    assert isinstance(outcome(second), defer.CancelledError)
    turns.release()
    assert outcome(third) is turns


def test_a_function_is_run_in_its_turn_until_its_deferred_fires(defer: Any, turns: Any) -> None:
    slow = defer.Deferred()
    first = turns.run(lambda: slow)
    second = turns.run(divmod, 7, 2)
    assert not second.called or second.paused
    slow.callback("slow")
    assert (outcome(first), outcome(second)) == ("slow", (3, 1))


def test_a_turn_ends_when_its_function_fails(turns: Any) -> None:
    assert isinstance(outcome(turns.run(boom)), OddError)
    assert outcome(turns.run(divmod, 7, 2)) == (3, 1)


def test_a_turn_may_be_a_with_block(defer: Any, turns: Any) -> None:
    pending = defer.Deferred()

    async def work() -> str:
        async with turns as entered:
            assert entered is turns
            return str(await pending)

    first, second = defer.ensureDeferred(work()), turns.acquire()
    assert not second.called
    pending.errback(OddError())
    assert isinstance(outcome(first), OddError)
    assert outcome(second) is turns


def test_a_turn_that_nobody_has_cannot_end(turns: Any) -> None:
    with pytest.raises(AssertionError):
        turns.release()


def test_a_lock_says_whether_it_is_locked(defer: Any) -> None:
    lock = defer.DeferredLock()
    assert not lock.locked
    lock.acquire()
    assert lock.locked
    lock.release()
    assert not lock.locked


def test_a_semaphore_has_as_many_turns_as_tokens(defer: Any) -> None:
    semaphore = defer.DeferredSemaphore(2)
    asked = [semaphore.acquire() for _ in range(3)]
    assert [d.called for d in asked] == [True, True, False]
    assert (semaphore.tokens, semaphore.limit) == (0, 2)


def test_a_semaphore_needs_a_token(defer: Any) -> None:
    with pytest.raises(ValueError, match="tokens"):
        defer.DeferredSemaphore(0)


# Failures that nobody handles (ours: Twisted logs elsewhere)


Unhandled = Callable[[], list[type[Any]]]


@pytest.fixture
def unhandled(caplog: pytest.LogCaptureFixture) -> Unhandled:
    """Give a function that returns the types of the errors logged as unhandled so far."""

    def collect() -> list[type[Any]]:
        gc.collect()
        assert {record.name for record in caplog.records} <= {"procreactor"}
        errors = [record.exc_info for record in caplog.records if record.exc_info]
        return [kind for kind, _, _ in errors if kind is not None]

    gc.collect()
    caplog.clear()
    return collect


def test_our_unhandled_failure_is_logged_once_with_its_traceback(
    unhandled: Unhandled, caplog: pytest.LogCaptureFixture
) -> None:
    our_defer.succeed(None).addCallback(boom)
    assert unhandled() == [OddError]
    assert unhandled() == [OddError]
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.CRITICAL, "Unhandled error in Deferred:")
    assert "in boom" in caplog.text
    assert "OddError: boom" in caplog.text


def test_our_unhandled_failure_without_traceback_is_logged_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    our_defer.fail(ProcessTerminated(exitCode=3))
    assert "process ended with exit code 3" in caplog.text


def test_our_unhandled_failure_of_a_tuple_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    our_defer.fail(Failure((b"out", b"err", 9)))
    assert "Unhandled error in Deferred:" in caplog.text
    assert "(b'out', b'err', 9)" in caplog.text


def test_our_unhandled_failure_is_logged_when_the_deferred_is_in_a_cycle(
    unhandled: Unhandled,
) -> None:
    d = our_defer.fail(OddError())
    vars(d)["itself"] = d
    del d
    assert unhandled() == [OddError]


def test_our_failure_is_not_logged_while_the_deferred_lives(unhandled: Unhandled) -> None:
    d = our_defer.fail(OddError())
    assert unhandled() == []
    ignore_errors(d)
    del d
    assert unhandled() == []


def test_our_failure_handed_to_another_deferred_is_logged_once(unhandled: Unhandled) -> None:
    outer = chain_of(our_defer, 2).pop(0)
    assert unhandled() == []
    outer.cancel()
    assert unhandled() == []
    del outer
    assert unhandled() == [our_defer.CancelledError]


def test_our_failure_taken_from_a_fired_deferred_is_logged_once(unhandled: Unhandled) -> None:
    our_defer.succeed(None).addCallback(lambda _: our_defer.fail(OddError()))
    assert unhandled() == [OddError]


def test_our_awaited_failure_is_not_logged(unhandled: Unhandled) -> None:
    async def handles() -> None:
        with pytest.raises(OddError):
            await our_defer.fail(OddError())

    our_defer.ensureDeferred(handles())
    assert unhandled() == []


def test_our_unhandled_failure_of_a_coroutine_is_logged(unhandled: Unhandled) -> None:
    async def fails() -> None:
        await our_defer.fail(OddError())

    our_defer.ensureDeferred(fails())
    assert unhandled() == [OddError]


def test_our_failure_is_logged_even_if_the_deferred_was_paused(unhandled: Unhandled) -> None:
    d: Deferred[None] = Deferred()
    d.pause()
    d.errback(OddError())
    del d
    assert unhandled() == [OddError]


def test_our_consumed_failures_are_not_logged(unhandled: Unhandled) -> None:
    DeferredList([our_defer.fail(OddError())], consumeErrors=True)
    assert unhandled() == []


def test_our_log_error_logs_and_passes_on(unhandled: Unhandled) -> None:
    d = our_defer.fail(OddError()).addErrback(our_defer.logError)
    assert unhandled() == [OddError]
    assert isinstance(outcome(d), OddError)


# Any program at all


COUNT = 4


@dataclass
class World:
    """Some Deferreds of one of the two modules, and all that happened to them."""

    defer: Any
    deferreds: list[Any] = field(init=False)
    events: list[Any] = field(default_factory=list)
    names: int = 0

    def __post_init__(self) -> None:
        self.deferreds = [self.make(n) for n in range(COUNT)]

    def make(self, n: int) -> Any:
        """Return a Deferred; the odd ones have a canceller, and number 3's fires."""

        def cancel(d: Any) -> None:
            self.events.append(("canceller", n))
            if n == 3:
                d.callback("from the canceller")

        return self.defer.Deferred(cancel if n % 2 else None)

    def describe(self, value: Any) -> Any:
        if isinstance(value, self.defer.Failure):
            return ("failure", value.type.__name__, value.value.args)
        if isinstance(value, self.defer.Deferred):
            return ("deferred", self.deferreds.index(value))
        return value

    def do(self, step: tuple[Any, ...]) -> None:
        kind, n, *rest = step
        d = self.deferreds[n]
        if kind == "add":
            self.add(d, n, *rest)
        elif kind == "pause" and not d.called:
            d.pause()
        elif kind == "unpause" and d.paused and not self.waits(d):
            d.unpause()
        elif kind in ("callback", "errback", "cancel"):
            self.fire(d, step)

    def waits(self, d: Any) -> bool:
        return isinstance(getattr(d, "result", None), self.defer.Deferred)

    def fire(self, d: Any, step: tuple[Any, ...]) -> None:
        try:
            if step[0] == "callback":
                d.callback("fired")
            elif step[0] == "errback":
                d.errback(OddError("fired"))
            else:
                d.cancel()
        except self.defer.AlreadyCalledError:
            self.events.append(("refused", step))

    def add(self, d: Any, n: int, method: str, behaviour: tuple[Any, ...]) -> None:
        self.names += 1
        name = self.names

        def function(result: Any) -> Any:
            self.events.append((name, n, self.describe(result)))
            returned = self.behave(n, behaviour, result)
            self.events.append((name, "returns", self.describe(returned)))
            return returned

        if method == "addCallbacks":
            d.addCallbacks(function, function)
        else:
            getattr(d, method)(function)

    def behave(self, n: int, behaviour: tuple[Any, ...], result: Any) -> Any:
        kind, *rest = behaviour
        if kind == "raise":
            raise OddError(n)
        if kind == "fail":
            return self.defer.Failure(OddError(n))
        if kind == "do":
            self.do(rest[0])
        if kind == "return a deferred":
            # A later one: those that wait for themselves differ on purpose.
            later = n + 1 + rest[0]
            return self.deferreds[later] if later < COUNT else None
        return result if kind == "pass" else kind

    def run(self, steps: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        for step in steps:
            self.do(step)
        ends = [
            (d.called, d.paused, self.describe(getattr(d, "result", "none")))
            for d in self.deferreds
        ]
        for d in self.deferreds:
            ignore_errors(d)
        return self.events, ends


numbers = st.integers(0, COUNT - 1)
simple_steps = st.tuples(
    st.sampled_from(["callback", "errback", "cancel", "pause", "unpause"]), numbers
)
methods = st.sampled_from(["addCallback", "addErrback", "addBoth", "addCallbacks"])


def behaviours(steps: st.SearchStrategy[tuple[Any, ...]]) -> st.SearchStrategy[tuple[Any, ...]]:
    return (
        st.sampled_from([("pass",), ("value",), ("raise",), ("fail",)])
        | st.tuples(st.just("return a deferred"), st.integers(0, COUNT - 2))
        | st.tuples(st.just("do"), steps)
    )


def additions(steps: st.SearchStrategy[tuple[Any, ...]]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just("add"), numbers, methods, behaviours(steps))


any_steps = simple_steps | st.recursive(additions(simple_steps), additions, max_leaves=3)


@settings(deadline=None)
@given(st.lists(any_steps, max_size=40))
def test_any_program_sees_the_same_with_our_deferreds_as_with_twisteds(
    steps: list[tuple[Any, ...]],
) -> None:
    assert World(our_defer).run(steps) == World(twisted_defer).run(steps)


@settings(deadline=None)  # a loaded machine is no failure
@given(
    st.lists(
        st.tuples(st.sampled_from(["succeed", "fail", "pending", "plain"]), st.booleans()),
        max_size=12,
    )
)
def test_any_coroutine_sees_the_same_with_our_deferreds_as_with_twisteds(
    waits: list[tuple[str, bool]],
) -> None:
    def run(defer: Any) -> tuple[list[Any], Any]:
        seen: list[Any] = []
        pending: list[Any] = []

        def awaited(kind: str, n: int) -> Any:
            if kind == "plain":
                return n
            if kind == "pending":
                pending.append(defer.Deferred())
                return pending[-1]
            return defer.succeed(n) if kind == "succeed" else defer.fail(OddError(n))

        @defer.inlineCallbacks
        def steps() -> Generator[Any, Any, str]:
            for n, (kind, catches) in enumerate(waits):
                try:
                    seen.append((yield awaited(kind, n)))
                except OddError as error:
                    seen.append(error.args)
                    if not catches:
                        raise
            return "end"

        d = steps()
        while pending:
            pending.pop().callback("late")
        return seen, repr(outcome(d))

    assert run(our_defer) == run(twisted_defer)
