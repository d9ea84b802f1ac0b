"""Calls in the future and calls over and over: Clock, deferLater and LoopingCall, as in Twisted.

Facts about LoopingCall
-----------------------
* Its beat is counted from the start, not from one call to the next, so lateness does not add up.
  A beat that passes while a call is under way, or while the loop was busy, is skipped: the next
  call comes at the next beat that is still in the future.
* Multiples of an interval are seldom floats: the sum of eight tenths is less than 0.8. Taken by the
  letter, a call made "at 0.8" by such a clock comes a hair too early, and the beat at 0.8 would
  still be in the future: a second call, at once. So a call that misses its beat by less than
  `_slack_s`, on either side, is on time, and the next one comes exactly one interval later.
* Misuse raises AssertionError, because programs written for Twisted catch that; it is raised, not
  asserted, so ``python -O`` does not take it away.

Beyond Twisted: `LoopingCall.clock` is None, not the reactor, until someone sets it (the reactor is
looked up when it is first needed, so that making a LoopingCall installs none); a LoopingCall that
is stopped and started again counts afresh, and what is left of the earlier run, a call whose
Deferred has not fired, ends that run alone.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, Self, TypeVar, overload

from procreactor import internet
from procreactor.internet.defer import Deferred, maybeDeferred
from procreactor.internet.delayed import DelayedCall, delayed_calls, name_of
from procreactor.loop.timers import TimerQueue
from procreactor.python.failure import Failure

__all__ = ["Clock", "LoopingCall", "deferLater"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


class _TimeSource(Protocol):
    """What is asked of a clock: the reactor, a `Clock`, or one of the real Twisted."""

    def seconds(self) -> float: ...

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> _Cancellable: ...


class Clock:
    """A clock that stands still until told to advance, and then makes the calls that are due.

    For tests: what a program does with the reactor's time happens at once, and always the same.
    """

    rightNow = 0.0

    def __init__(self) -> None:
        self._timers = TimerQueue()

    def seconds(self) -> float:
        """Return the time of this clock, 0 at first."""
        return self.rightNow

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> DelayedCall:
        """Return the pending call of *callable*, *delay* seconds of this clock from now."""
        when = self.seconds() + delay
        return DelayedCall(when, callable, args, kw, self._timers, self.seconds)

    def getDelayedCalls(self) -> list[DelayedCall]:
        """Return the calls still to be made, the earliest first."""
        return delayed_calls(self._timers)

    @property
    def calls(self) -> list[DelayedCall]:
        """What `getDelayedCalls` returns."""
        return self.getDelayedCalls()

    def advance(self, amount: float) -> None:
        """Let *amount* seconds pass, and make the calls that are due then, in order.

        Calls see the time at the end of the step, and those that they add for no later than that
        are made in the same step. An exception passes; the calls after it wait for the next step.
        """
        self.rightNow += amount
        while due := self._timers.pop_due(self.seconds()):
            for timer in due:
                if self._timers.claim(timer):
                    timer.callback(*timer.args, **timer.kwargs)

    def pump(self, timings: Iterable[float]) -> None:
        """Advance by each of *timings* in turn."""
        for amount in timings:
            self.advance(amount)


@overload
def deferLater(clock: _TimeSource, delay: float, callable: None = None) -> Deferred[None]: ...


@overload
def deferLater(
    clock: _TimeSource,
    delay: float,
    callable: Callable[_P, Deferred[_T]],
    *args: _P.args,
    **kw: _P.kwargs,
) -> Deferred[_T]: ...


@overload
def deferLater(
    clock: _TimeSource,
    delay: float,
    callable: Callable[_P, _T],
    *args: _P.args,
    **kw: _P.kwargs,
) -> Deferred[_T]: ...


def deferLater(
    clock: _TimeSource,
    delay: float,
    callable: Callable[..., object] | None = None,
    *args: object,
    **kw: object,
) -> Deferred[Any]:
    """Return a Deferred of what *callable* returns, *delay* seconds from now; of None without it.

    Cancelling it cancels the call.
    """
    deferred: Deferred[Any] = Deferred(lambda _: delayed.cancel())
    if callable is not None:
        deferred.addCallback(lambda _: callable(*args, **kw))
    delayed: _Cancellable = clock.callLater(delay, deferred.callback, None)
    return deferred


class LoopingCall:
    """*f*, to be called with *a* and *kw* again and again, on the beat of *interval* seconds.

    A call that returns a Deferred lasts until that fires. A call that fails ends the loop.
    """

    clock: _TimeSource | None = None
    """Whose time counts; the reactor's while it is None. To be set before `start`."""

    running = False
    """Whether the loop goes on: from `start` until `stop`, or until a call fails."""

    interval: float | None = None
    """Seconds from beat to beat, and 0 for no pause; may be changed while the loop runs."""

    starttime: float | None = None
    """The beat from which the others are counted: the last `start` or `reset`."""

    call: _Cancellable | None = None
    """The next call, on the clock; None while *f* is being called, and when the loop ended."""

    _run: Deferred[LoopingCall]
    """What the last `start` returned; it also tells that run from those before."""

    _counted_s: float | None = None
    """Up to when `withCount` has counted the beats; None stands for `starttime`."""

    def __init__(self, f: Callable[..., object], *a: object, **kw: object) -> None:
        self.f = f
        self.a = a
        self.kw = kw

    @classmethod
    def withCount(cls, countCallable: Callable[[int], object]) -> Self:
        """Return a LoopingCall of *countCallable* with the number of beats since its last call.

        That is 1, and more when beats were skipped; with interval 0 it is always 1.
        """

        def counter() -> object:
            beats = loop._count_beats()
            return countCallable(beats) if beats > 0 else None

        loop = cls(counter)
        return loop

    def start(self, interval: float, now: bool = True) -> Deferred[LoopingCall]:
        """Call *f* on every beat from now on; on this one only if *now*.

        Returns a Deferred that fires with this LoopingCall after `stop`, or fails as *f* does.
        Raises ValueError for a negative interval.
        """
        if self.running:
            raise AssertionError("Tried to start an already running LoopingCall.")
        if not interval >= 0:  # NaN is not less than 0 either
            raise ValueError(f"interval must be >= 0, not {interval!r}")
        self.starttime = self._time().seconds()
        self.interval = interval
        self._counted_s = self.starttime - interval if now else None
        self.running = True
        run: Deferred[LoopingCall] = Deferred()
        self._run = run
        if now:
            self()
        else:
            self._schedule()
        return run

    def stop(self) -> None:
        """End the loop; the Deferred of `start` fires when the call under way, if any, is over."""
        self._check_running("stop")
        self.running = False
        if self._cancel_call():
            self._run.callback(self)

    def reset(self) -> None:
        """Count the beats from now, so that the next call comes one interval from now.

        Nothing changes while a call is under way.
        """
        self._check_running("reset")
        if self._cancel_call():
            self.starttime = self._time().seconds()
            self._schedule()

    def __call__(self) -> None:
        """Make one call, and plan the next one for when it is over."""
        if self.starttime is None:
            raise AssertionError("Tried to call a LoopingCall that was never started.")
        self.call = None
        call = maybeDeferred(self.f, *self.a, **self.kw)
        call.addCallback(self._go_on, self._run).addErrback(self._fail, self._run)

    def _go_on(self, _: object, run: Deferred[LoopingCall]) -> None:
        if self.running and run is self._run:
            self._schedule()
        else:
            run.callback(self)

    def _fail(self, failure: Failure, run: Deferred[LoopingCall]) -> None:
        if run is self._run:
            self.running = False
        run.errback(failure)

    def _schedule(self) -> None:
        time = self._time()
        self.call = time.callLater(self._wait_s(time.seconds()), self)

    def _cancel_call(self) -> bool:
        """Whether a call was planned, which is so no more; if not, one is under way."""
        call, self.call = self.call, None
        if call is None:
            return False
        call.cancel()
        return True

    def _wait_s(self, now: float) -> float:
        """Return how long it is until the first beat after *now*."""
        start, interval = self._beat()
        if interval == 0:
            return 0
        next_beat = self._beats_until(now) + 1
        wait_s = start + next_beat * interval - now
        return interval if abs(wait_s - interval) <= _slack_s(now, interval) else wait_s

    def _beats_until(self, when: float) -> int:
        """Return how many beats from the first one it is to *when*; the first counts as 0.

        Rounded toward the first: a call shortly before `reset` missed no beat of the new count.
        """
        start, interval = self._beat()
        beats = (when - start) / interval
        nearest = round(beats)
        is_on_it = abs(beats - nearest) * interval <= _slack_s(when, interval)
        return nearest if is_on_it else math.trunc(beats)

    def _count_beats(self) -> int:
        """Return the number of beats since it was last asked for."""
        start, interval = self._beat()
        last = start if self._counted_s is None else self._counted_s
        now = self._counted_s = self._time().seconds()
        return 1 if interval == 0 else self._beats_until(now) - self._beats_until(last)

    def _beat(self) -> tuple[float, float]:
        assert self.starttime is not None
        assert self.interval is not None
        return self.starttime, self.interval

    def _time(self) -> _TimeSource:
        return internet.reactor if self.clock is None else self.clock

    def _check_running(self, verb: str) -> None:
        if not self.running:
            raise AssertionError(f"Tried to {verb} a LoopingCall that was not running.")

    def __repr__(self) -> str:
        arguments = f"*{reprlib.repr(self.a)}, **{reprlib.repr(self.kw)}"
        return f"LoopingCall<{self.interval!r}>({name_of(self.f)}, {arguments})"


def _slack_s(when: float, interval: float) -> float:
    """Return how far from a beat still is on it: far more than rounding, far less than lateness."""
    return max(interval * 1e-9, 4 * math.ulp(when))
