"""Deferred: a result that is not there yet, and the functions that wait for it (Twisted's names).

The rules of this room:

* A Deferred fires once. Its result then passes through its links, pairs of functions: what one
  returns is the result that the next is given. A Failure (returned or, as an exception, raised)
  goes to the next errback, anything else to the next callback.
* A function may return another Deferred. Then this one waits: it is paused, and it stands itself,
  as a link, among the links of the other, which hands its result over when that link's turn comes
  and keeps None. One loop (`Deferred._run`) goes from Deferred to Deferred, so a chain of any
  length needs no stack; nor does cancelling one.
* No Deferred ever waits for itself, directly or through others: the function that asked for it is
  named in a warning, as in Twisted, and fails. (Twisted lets the Deferred wait for ever.)
* A failure that nobody handled is logged once, when the Deferred is collected. What is watched is
  `_Unhandled`, a small object that only failed Deferreds have: the others pay nothing, and as it
  refers to the failure alone, it can speak wherever it stands in a cycle of references.
* Everything is synchronous and belongs to one thread; nothing here knows a loop. The clock of
  `Deferred.addTimeout` is given by the caller.

Beyond Twisted, pausing a Deferred from one of its own functions holds back the next one at once,
and a waiting Deferred that is also paused by hand does not hold up the functions that the other
Deferred has left.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from contextvars import copy_context
from inspect import iscoroutine, isgenerator
from types import CoroutineType, GeneratorType, TracebackType
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    overload,
)

from procreactor.python.failure import Failure

__all__ = [
    "FAILURE",
    "SUCCESS",
    "AlreadyCalledError",
    "CancelledError",
    "Deferred",
    "DeferredList",
    "DeferredLock",
    "DeferredSemaphore",
    "FirstError",
    "NotACoroutineError",
    "TimeoutError",
    "ensureDeferred",
    "execute",
    "fail",
    "gatherResults",
    "inlineCallbacks",
    "logError",
    "maybeDeferred",
    "passthru",
    "returnValue",
    "succeed",
]

_log = logging.getLogger("procreactor")

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

SUCCESS = True
"""The first of each pair in the result of a DeferredList, when the second is a result."""
FAILURE = False
"""The same, when the second is a Failure."""


class AlreadyCalledError(Exception):
    """callback or errback was called on a Deferred that has fired."""


class CancelledError(Exception):
    """The Deferred was cancelled."""


class TimeoutError(Exception):
    """The Deferred did not fire in time; the arguments are the seconds and ``"Deferred"``."""


class NotACoroutineError(TypeError):
    """A coroutine was expected."""


class FirstError(Exception):
    """One Deferred of a DeferredList failed: number *index*, with *subFailure*."""

    def __init__(self, failure: Failure, index: int) -> None:
        super().__init__(failure, index)
        self.subFailure = failure
        self.index = index

    def __str__(self) -> str:
        return f"FirstError[#{self.index}, {self.subFailure}]"

    def __repr__(self) -> str:
        return f"FirstError[#{self.index}, {self.subFailure.value!r}]"


def _log_failure(what: str, failure: Failure) -> None:
    if isinstance(failure.value, BaseException):
        _log.critical(what, exc_info=(failure.type, failure.value, failure.tb))
    else:
        _log.critical("%s\n%s", what, failure.getTraceback())


class _Unhandled:
    """The failure that some Deferred ended with: logged if it still is when that one goes."""

    __slots__ = ("failure",)

    def __init__(self) -> None:
        self.failure: Failure | None = None

    def __del__(self) -> None:
        if self.failure is not None:
            _log_failure("Unhandled error in Deferred:", self.failure)


class _DelayedCall(Protocol):
    def active(self) -> bool: ...
    def cancel(self) -> None: ...


class _Clock(Protocol):
    def callLater(self, delay: float, callable: Callable[[], object], /) -> _DelayedCall: ...


_Call: TypeAlias = tuple[Callable[..., object], tuple[Any, ...], Mapping[str, Any]]
_Link: TypeAlias = "tuple[_Call | None, _Call | None] | Deferred[Any]"
"""What a result meets next: (callback, errback), None letting it pass; or a waiting Deferred."""


class Deferred(Generic[T]):
    """A result that is not there yet.

    *canceller*, if given, is called with the Deferred by `cancel`; it should stop the work, and may
    fire the Deferred itself.

    ``called`` says whether it has fired; from then on ``result`` is the present result, which is
    the other Deferred while it waits for one. ``paused`` counts what holds it back.
    """

    called = False
    paused = 0
    result: object  # not set until it has fired: programs ask hasattr(d, "result")

    _running = False
    _swallow_next = False  # cancelled without a canceller: the work will still deliver, once
    _waits_for: Deferred[Any] | None = None
    _unhandled: _Unhandled | None = None

    def __init__(self, canceller: Callable[[Deferred[T]], object] | None = None) -> None:
        self._canceller = canceller
        self._links: list[_Link] = []

    # Who is to get the result

    @overload
    def addCallbacks(
        self,
        callback: Callable[..., Deferred[R]],
        errback: Callable[..., Deferred[R] | R | Failure] | None = None,
        callbackArgs: tuple[Any, ...] | None = None,
        callbackKeywords: Mapping[str, Any] | None = None,
        errbackArgs: tuple[Any, ...] | None = None,
        errbackKeywords: Mapping[str, Any] | None = None,
    ) -> Deferred[R]: ...

    @overload
    def addCallbacks(
        self,
        callback: Callable[..., R],
        errback: Callable[..., Deferred[R] | R | Failure] | None = None,
        callbackArgs: tuple[Any, ...] | None = None,
        callbackKeywords: Mapping[str, Any] | None = None,
        errbackArgs: tuple[Any, ...] | None = None,
        errbackKeywords: Mapping[str, Any] | None = None,
    ) -> Deferred[R]: ...

    def addCallbacks(
        self,
        callback: Callable[..., object],
        errback: Callable[..., object] | None = None,
        callbackArgs: tuple[Any, ...] | None = None,
        callbackKeywords: Mapping[str, Any] | None = None,
        errbackArgs: tuple[Any, ...] | None = None,
        errbackKeywords: Mapping[str, Any] | None = None,
    ) -> Deferred[Any]:
        """Give a result to *callback*, or a Failure to *errback*; return this Deferred.

        Each is called with the result, then its Args and Keywords. A Deferred that has its result
        already calls at once, here.
        """
        on_failure = None
        if errback is not None:
            on_failure = (errback, errbackArgs or (), errbackKeywords or {})
        return self._add((callback, callbackArgs or (), callbackKeywords or {}), on_failure)

    @overload
    def addCallback(
        self, callback: Callable[Concatenate[T, P], Deferred[R]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]: ...

    @overload
    def addCallback(
        self, callback: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]: ...

    def addCallback(self, callback: Callable[..., object], *args: Any, **kw: Any) -> Deferred[Any]:
        """Give a result to *callback*, with *args* and *kw*; return this Deferred."""
        return self._add((callback, args, kw), None)

    @overload
    def addErrback(
        self,
        errback: Callable[Concatenate[Failure, P], Deferred[R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[T | R]: ...

    @overload
    def addErrback(
        self, errback: Callable[Concatenate[Failure, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T | R]: ...

    def addErrback(self, errback: Callable[..., object], *args: Any, **kw: Any) -> Deferred[Any]:
        """Give a Failure to *errback*, with *args* and *kw*; return this Deferred."""
        return self._add(None, (errback, args, kw))

    @overload
    def addBoth(
        self,
        callback: Callable[Concatenate[T | Failure, P], Deferred[R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[R]: ...

    @overload
    def addBoth(
        self,
        callback: Callable[Concatenate[T | Failure, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[R]: ...

    def addBoth(self, callback: Callable[..., object], *args: Any, **kw: Any) -> Deferred[Any]:
        """Give a result or a Failure to *callback*, with *args* and *kw*; return this Deferred."""
        call = (callback, args, kw)
        return self._add(call, call)

    def chainDeferred(self, d: Deferred[T]) -> Deferred[None]:
        """Fire *d* with what this Deferred comes to; return this Deferred."""
        return self.addCallbacks(d.callback, d.errback)

    def addTimeout(
        self,
        timeout: float,
        clock: _Clock,
        onTimeoutCancel: Callable[[T | Failure, float], R | Failure] | None = None,
    ) -> Deferred[T | R]:
        """Cancel this Deferred after *timeout* seconds of *clock*; return this Deferred.

        The time counts for the functions added so far. After it, the result is what
        *onTimeoutCancel* makes of the result and *timeout*; by default a TimeoutError in place of a
        CancelledError.
        """
        timed_out = False

        def time_out() -> None:
            nonlocal timed_out
            timed_out = True
            self.cancel()

        def translate(result: T | Failure) -> object:
            if call.active():
                call.cancel()
            if timed_out:
                return (onTimeoutCancel or _cancelled_to_timed_out)(result, timeout)
            return result

        call = clock.callLater(timeout, time_out)
        return self._add((translate, (), {}), (translate, (), {}))

    def _add(self, on_success: _Call | None, on_failure: _Call | None) -> Deferred[Any]:
        self._links.append((on_success, on_failure))
        if self.called:
            self._run()
        return self

    # What the result is

    def callback(self, result: T | Failure) -> None:
        """Fire with *result*. Raises AlreadyCalledError if this Deferred has fired."""
        self._fire(result)

    def errback(self, fail: object = None) -> None:
        """Fire with *fail*: a Failure, or an exception, or None for the one being handled.

        Raises AlreadyCalledError if this Deferred has fired.
        """
        self._fire(fail if isinstance(fail, Failure) else Failure(fail))

    def cancel(self) -> None:
        """Fire with a CancelledError, if the canceller does not fire otherwise.

        A Deferred that waits for another cancels that one; one that has its result stays as it is.
        """
        if self.called:
            self._cancel_awaited()
            return
        if self._canceller is None:
            self._swallow_next = True
        else:
            self._canceller(self)
        if not self.called:
            self._fire(Failure(CancelledError()))

    def pause(self) -> None:
        """Call nothing more until `unpause` has been called as often."""
        self.paused += 1

    def unpause(self) -> None:
        """Undo one `pause`."""
        self.paused -= 1
        if self.called:
            self._run()

    def _fire(self, result: object) -> None:
        if self.called:
            if not self._swallow_next:
                raise AlreadyCalledError("callback or errback was called before on this Deferred")
            self._swallow_next = False
            return
        self.called = True
        self._canceller = None  # it often refers to what refers to this Deferred
        self.result = result
        self._run()

    def _cancel_awaited(self) -> None:
        last: Deferred[Any] = self
        while last._waits_for is not None:
            last = last._waits_for
        if last is not self:
            last.cancel()

    # The loop

    def _run(self) -> None:
        """Call what can be called now: here, and in the Deferreds that wait for this one."""
        if self._running:
            return  # from one of our own functions: the loop that called it goes on after it
        chain: list[Deferred[Any]] = [self]
        while chain:
            current = chain[-1]
            waiter = current._run_links()
            if waiter is not None:
                chain.append(waiter)
            else:
                current._watch_failure()
                chain.pop()

    def _run_links(self) -> Deferred[Any] | None:
        """Pass the result through the links; stop at a waiting Deferred, and return it."""
        while self._links and not self.paused:
            link = self._links.pop(0)
            if isinstance(link, Deferred):
                self._hand_over(link)
                return link
            call = link[isinstance(self.result, Failure)]
            if call is not None:
                self._call(*call)
        return None

    def _call(
        self, function: Callable[..., object], args: tuple[Any, ...], kw: Mapping[str, Any]
    ) -> None:
        self._running = True
        try:
            result = function(self.result, *args, **kw)
            if isinstance(result, Deferred):
                self._follow(result, function)
            else:
                self.result = result
        except BaseException:
            self.result = Failure()
        finally:
            self._running = False

    def _follow(self, other: Deferred[Any], function: Callable[..., object]) -> None:
        """Take the result of *other*, or wait for it."""
        if self._would_wait_for_itself(other):
            message = f"{function!r} returned a Deferred that has to wait for its return"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            raise RuntimeError(message)
        if other.called and not other.paused:
            self.result = other._release()
        else:
            self.result = self._waits_for = other
            self.paused += 1
            other._links.append(self)

    def _would_wait_for_itself(self, other: Deferred[Any]) -> bool:
        if other is self:
            return True
        # Looking along the chain takes time, and only one that others wait for can close a circle.
        if other._waits_for is None or not any(isinstance(link, Deferred) for link in self._links):
            return False
        last: Deferred[Any] | None = other
        while last is not None and last is not self:
            last = last._waits_for
        return last is self

    def _hand_over(self, waiter: Deferred[Any]) -> None:
        waiter.result = self._release()
        waiter._waits_for = None
        waiter.paused -= 1

    def _release(self) -> object:
        """Return the result, which somebody else is in charge of from now on."""
        result, self.result = self.result, None
        if self._unhandled is not None:
            self._unhandled.failure = None
        return result

    def _watch_failure(self) -> None:
        """Have the present result logged, if it is a Failure and nobody comes for it."""
        if isinstance(self.result, Failure):
            if self._unhandled is None:
                self._unhandled = _Unhandled()
            self._unhandled.failure = self.result
        elif self._unhandled is not None:
            self._unhandled.failure = None

    # In coroutines

    def __await__(self) -> Generator[Deferred[T], object, T]:
        """Wait, in a coroutine run by `ensureDeferred`, for the result."""
        if not self.called or self.paused:
            result = yield self
            if result is self:
                raise RuntimeError(
                    "await on a Deferred of procreactor in a coroutine that is run by something "
                    "else; run it by procreactor.internet.defer.ensureDeferred"
                )
            return result  # type: ignore[return-value]
        if isinstance(self.result, Failure):
            if self._unhandled is not None:
                self._unhandled.failure = None
            self.result.raiseException()
        return self.result  # type: ignore[return-value]

    __iter__ = __await__

    @classmethod
    def fromCoroutine(cls, coro: Coroutine[Any, Any, R] | Generator[Any, Any, R]) -> Deferred[R]:
        """Run *coro* and return the Deferred of its result; see `inlineCallbacks`.

        Raises NotACoroutineError, a TypeError, for anything else than a coroutine or generator.
        """
        if not (iscoroutine(coro) or isgenerator(coro)):
            raise NotACoroutineError(f"{coro!r} is not a coroutine or generator")
        return _start(coro)

    def __repr__(self) -> str:
        state = ""
        if self._waits_for is not None:
            state = f" waiting on Deferred at {id(self._waits_for):#x}"
        elif self.called:
            state = f" current result: {self.result!r}"
        return f"<{type(self).__name__} at {id(self):#x}{state}>"


def _cancelled_to_timed_out(result: T | Failure, timeout: float) -> T:
    if isinstance(result, Failure):
        result.trap(CancelledError)
        raise TimeoutError(timeout, "Deferred")
    return result


# Deferreds of what is known already


def succeed(result: T) -> Deferred[T]:
    """Return a Deferred that has fired with *result*."""
    d: Deferred[T] = Deferred()
    d._fire(result)
    return d


def fail(result: object = None) -> Deferred[Any]:
    """Return a Deferred that has failed with *result*: what `Deferred.errback` takes."""
    d: Deferred[Any] = Deferred()
    d.errback(result)
    return d


def execute(callable: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """Return a Deferred that has fired with what *callable* returned or raised."""
    try:
        return succeed(callable(*args, **kwargs))
    except BaseException:
        return fail()


@overload
def maybeDeferred(
    f: Callable[P, Deferred[T]], *args: P.args, **kwargs: P.kwargs
) -> Deferred[T]: ...


@overload
def maybeDeferred(
    f: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
) -> Deferred[T]: ...


@overload
def maybeDeferred(f: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...


def maybeDeferred(f: Callable[..., object], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """Return the Deferred of what *f* returns (maybe a Deferred or coroutine itself) or raises."""
    try:
        result = f(*args, **kwargs)
    except BaseException:
        return fail()
    if isinstance(result, Deferred):
        return result
    # Only what `async def` returns: a generator may well be a result.
    if isinstance(result, CoroutineType):
        return _start(result)
    return succeed(result)


def passthru(arg: T) -> T:
    """Return *arg*: the callback that changes nothing."""
    return arg


def logError(err: Failure) -> Failure:
    """Log *err* and return it: the errback that makes a failure known and handles nothing."""
    _log_failure("Error in Deferred:", err)
    return err


# Several Deferreds at once


class DeferredList(Deferred[Any]):
    """Fires when all of *deferredList* have, with a (SUCCESS or FAILURE, result) pair for each.

    With *fireOnOneCallback* it fires at the first result already, with (result, index); with
    *fireOnOneErrback* it fails at the first failure already, with a `FirstError`.
    With *consumeErrors* the Deferreds that failed have the result None afterwards, so that their
    failures are not logged as unhandled.
    """

    def __init__(
        self,
        deferredList: Iterable[Deferred[Any]],
        fireOnOneCallback: bool = False,
        fireOnOneErrback: bool = False,
        consumeErrors: bool = False,
    ) -> None:
        super().__init__()
        self._deferreds = list(deferredList)
        self.fireOnOneCallback = fireOnOneCallback
        self.fireOnOneErrback = fireOnOneErrback
        self.consumeErrors = consumeErrors
        self.finishedCount = 0
        self.resultList: list[tuple[bool, Any] | None] = [None] * len(self._deferreds)
        if not self._deferreds and not fireOnOneCallback:
            self.callback([])
        for index, d in enumerate(self._deferreds):
            d.addCallbacks(self._one_done, self._one_done, (index, SUCCESS), None, (index, FAILURE))

    def _one_done(self, result: object, index: int, succeeded: bool) -> object:
        self.resultList[index] = (succeeded, result)
        self.finishedCount += 1
        if not self.called:
            self._fire_if_enough(result, index, succeeded)
        return None if self.consumeErrors and not succeeded else result

    def _fire_if_enough(self, result: Any, index: int, succeeded: bool) -> None:
        one_is_enough = self.fireOnOneCallback if succeeded else self.fireOnOneErrback
        if one_is_enough:
            self._fire((result, index) if succeeded else Failure(FirstError(result, index)))
        elif self.finishedCount == len(self.resultList):
            self._fire(self.resultList)

    def cancel(self) -> None:
        """Cancel all the Deferreds of the list, unless this one has fired."""
        if self.called:
            super().cancel()
            return
        for d in self._deferreds:
            try:
                d.cancel()
            except BaseException:
                _log.exception("a canceller raised")


def gatherResults(
    deferredList: Iterable[Deferred[T]], consumeErrors: bool = False
) -> Deferred[list[T]]:
    """Return a Deferred of all the results of *deferredList*, which fails as soon as one fails.

    It fails with a `FirstError`; *consumeErrors* is that of `DeferredList`.
    """
    d = DeferredList(deferredList, fireOnOneErrback=True, consumeErrors=consumeErrors)
    return d.addCallback(lambda pairs: [result for _, result in pairs])


# Generators and coroutines


class _Return(BaseException):
    """Carries a value from `returnValue` out of its generator."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


_NOTHING_YET = object()


class _Routine(Deferred[T]):
    """A generator or coroutine being run, as the Deferred of its result.

    It is resumed in the context (contextvars) in which it was started. Cancelling it cancels what
    it waits for: so it is the routine that decides, by what it does with the CancelledError, what
    becomes of this Deferred.
    """

    _awaited: Deferred[Any] | None = None
    _arrived: object = _NOTHING_YET

    def __init__(self, steps: Generator[Any, Any, T] | Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self._steps = steps
        self._context = copy_context()

    def cancel(self) -> None:
        """Cancel what the routine waits for."""
        if self.called:
            super().cancel()
        elif self._awaited is not None:
            self._awaited.cancel()

    def resume(self, result: object) -> None:
        """Run the routine until it has to wait for a Deferred, or is done."""
        while True:
            try:
                step = self._context.run(self._step, result)
            except StopIteration as stop:
                outcome = stop.value
                break
            except _Return as returned:
                outcome = returned.value
                break
            except BaseException:
                outcome = Failure()
                break
            if iscoroutine(step) or isgenerator(step):
                step = _start(step)
            result = self._await(step) if isinstance(step, Deferred) else step
            if result is _NOTHING_YET:
                return
        self.callback(outcome)  # not in the handlers, lest an error there be chained to theirs

    def _step(self, result: object) -> object:
        if isinstance(result, Failure):
            return result.throwExceptionIntoGenerator(self._steps)
        return self._steps.send(result)

    def _await(self, d: Deferred[Any]) -> object:
        """Return the result of *d*, or _NOTHING_YET: then `resume` will be called with it.

        Results that are there already are returned, not delivered, so that a routine which waits
        for any number of them in a row needs no stack.
        """
        d.addBoth(self._on_result)
        result, self._arrived = self._arrived, _NOTHING_YET
        if result is _NOTHING_YET:
            self._awaited = d
        return result

    def _on_result(self, result: object) -> None:
        if self._awaited is None:
            self._arrived = result
        else:
            self._awaited = None
            self.resume(result)


def _start(steps: Generator[Any, Any, T] | Coroutine[Any, Any, T]) -> Deferred[T]:
    routine = _Routine(steps)
    routine.resume(None)
    return routine


def ensureDeferred(
    coro: Coroutine[Any, Any, T] | Generator[Any, Any, T] | Deferred[T],
) -> Deferred[T]:
    """Return *coro* if it is a Deferred, or else run it and return the Deferred of its result.

    Raises NotACoroutineError, a TypeError, for anything else than a coroutine or generator.
    """
    return coro if isinstance(coro, Deferred) else Deferred.fromCoroutine(coro)


def inlineCallbacks(f: Callable[P, Generator[Any, Any, T]]) -> Callable[P, Deferred[T]]:
    """Make *f*, a generator function, return a Deferred of what its generator returns.

    Each Deferred (or coroutine) that the generator yields is waited for: ``yield`` then has its
    result as a value, or raises its error. Anything else that it yields it gets back at once.
    """

    @functools.wraps(f)
    def run(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        try:
            steps = f(*args, **kwargs)
        except _Return:
            raise TypeError(f"returnValue was called in {f!r}, which is no generator") from None
        if not isinstance(steps, GeneratorType):
            raise TypeError(f"inlineCallbacks needs a generator of {f!r}, which made {steps!r}")
        return _start(steps)

    return run


def returnValue(val: object) -> NoReturn:
    """End the `inlineCallbacks` generator that calls this, with *val*: ``return val`` says it now.

    It raises a BaseException, which a bare ``except:`` would stop.
    """
    raise _Return(val)


# Taking turns


class _TurnTaking:
    """What the lock and the semaphore share: the queue of those who wait, in ``waiting``."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []

    def _take(self) -> bool:
        """Take one place and return True, or False if there is none."""
        raise NotImplementedError

    def _give_back(self) -> None:
        """Give one place back. Raises AssertionError if none is taken."""
        raise NotImplementedError

    def acquire(self) -> Deferred[Self]:
        """Return a Deferred that fires with this object when it is the caller's turn."""
        d: Deferred[Self] = Deferred(self.waiting.remove)
        if self._take():
            d.callback(self)
        else:
            self.waiting.append(d)
        return d

    def release(self) -> None:
        """End the turn that `acquire` gave; the one who waits longest is next, at once."""
        self._give_back()
        if self.waiting:
            self._take()
            self.waiting.pop(0).callback(self)

    @overload
    def run(
        self, f: Callable[P, Deferred[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    @overload
    def run(
        self, f: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    @overload
    def run(self, f: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...

    def run(self, f: Callable[..., object], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call *f* when it is its turn, which lasts until the Deferred it returns has fired."""

        def release(result: object) -> object:
            self.release()
            return result

        return self.acquire().addCallback(
            lambda _: maybeDeferred(f, *args, **kwargs).addBoth(release)
        )

    def __aenter__(self) -> Deferred[Self]:
        return self.acquire()

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Deferred[Literal[False]]:
        self.release()
        return succeed(False)


class DeferredLock(_TurnTaking):
    """A lock that is waited for by Deferreds; ``locked`` says whether somebody has it."""

    locked = False

    def _take(self) -> bool:
        if self.locked:
            return False
        self.locked = True
        return True

    def _give_back(self) -> None:
        if not self.locked:
            raise AssertionError("release of a DeferredLock that nobody has acquired")
        self.locked = False


class DeferredSemaphore(_TurnTaking):
    """A lock for *tokens* users at a time; ``tokens`` are free, of ``limit``."""

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"tokens is {tokens}, and must be 1 or more")
        super().__init__()
        self.tokens = self.limit = tokens

    def _take(self) -> bool:
        if not self.tokens:
            return False
        self.tokens -= 1
        return True

    def _give_back(self) -> None:
        if self.tokens >= self.limit:
            raise AssertionError("release of a DeferredSemaphore that nobody has acquired")
        self.tokens += 1
