"""What callLater returns: Twisted's IDelayedCall, on one timer of a `TimerQueue`.

* The timer's callback is the DelayedCall itself, which then calls its *func*. So a queue can be
  asked for its DelayedCalls (`delayed_calls`), programs may exchange *func* until the last moment,
  as they may in Twisted, and a log that names the callback names the user's function.
* The two refer to each other only while the call is pending: each end of its life lets one of the
  references go, so that a fired or cancelled call is freed at once, without the cycle collector.
* A cancelled call has no *func*, *args* and *kw* any more, as in Twisted.

Beyond Twisted, ``<`` and ``<=`` compare the times that `DelayedCall.getTime` tells; Twisted
compares times before they were put off.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable

from procreactor.internet.error import AlreadyCalled, AlreadyCancelled
from procreactor.loop.timers import Timer, TimerQueue

__all__ = ["DelayedCall", "delayed_calls", "name_of"]


class DelayedCall:
    """*func*, to be called with *args* and *kw* when *seconds* says *time*; see IDelayedCall.

    *on_change* is called, without arguments, whenever the earliest deadline of *queue* may have
    changed by what was done to this call: its making too.
    """

    called = 0
    """1 from the moment that *func* is called."""

    cancelled = 0

    func: Callable[..., object]
    args: tuple[object, ...]
    kw: dict[str, object]

    def __init__(
        self,
        time: float,
        func: Callable[..., object],
        args: tuple[object, ...],
        kw: dict[str, object],
        queue: TimerQueue,
        seconds: Callable[[], float],
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.func = func
        self.args = args
        self.kw = kw
        self._time = time
        self._queue = queue
        self._seconds = seconds
        self._on_change = on_change
        self._timer: Timer | None = queue.add(time, self)
        self._tell_change()

    def __call__(self) -> None:
        """Make the call; for whoever runs the queue, once the timer is claimed."""
        self._timer = None
        self.called = 1
        self.func(*self.args, **self.kw)

    def getTime(self) -> float:
        """Return when the call is to be made, or was; in the seconds of the clock."""
        return self._time

    def active(self) -> bool:
        """Whether the call is still to be made."""
        return self._timer is not None

    def cancel(self) -> None:
        """Never make the call. Raises AlreadyCalled or AlreadyCancelled when it is not pending."""
        self._queue.cancel(self._pending_timer())
        self._timer = None
        self.cancelled = 1
        del self.func, self.args, self.kw
        self._tell_change()

    def reset(self, secondsFromNow: float) -> None:
        """Make the call *secondsFromNow* from now instead; raises as `cancel` does."""
        self._move(self._pending_timer(), self._seconds() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        """Make the call *secondsLater* than planned, or sooner if negative; raises as `cancel`."""
        self._move(self._pending_timer(), self._time + secondsLater)

    def _move(self, timer: Timer, time: float) -> None:
        self._queue.move(timer, time)
        self._time = time
        self._tell_change()

    def _pending_timer(self) -> Timer:
        if self._timer is None:
            raise AlreadyCancelled if self.cancelled else AlreadyCalled
        return self._timer

    def _tell_change(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def __lt__(self, other: DelayedCall) -> bool:
        return self._time < other._time

    def __le__(self, other: DelayedCall) -> bool:
        return self._time <= other._time

    def __repr__(self) -> str:
        wait_s = self._time - self._seconds()
        call = "" if self.cancelled else f" {name_of(self.func)}({self._arguments()})"
        state = f"called={self.called} cancelled={self.cancelled}"
        return f"<DelayedCall {id(self):#x} [{wait_s}s] {state}{call}>"

    def _arguments(self) -> str:
        # reprlib, because a log must survive an argument whose repr is endless, or raises.
        positional = [reprlib.repr(value) for value in self.args]
        keywords = [f"{key}={reprlib.repr(value)}" for key, value in self.kw.items()]
        return ", ".join(positional + keywords)


def delayed_calls(queue: TimerQueue) -> list[DelayedCall]:
    """Return the DelayedCalls of *queue* that are still to be made, in order."""
    callbacks = (timer.callback for timer in queue.pending())
    return [callback for callback in callbacks if isinstance(callback, DelayedCall)]


def name_of(func: Callable[..., object]) -> str:
    """Return the name to print for *func*: its qualified name, or else its repr."""
    name = getattr(func, "__qualname__", None) or getattr(func, "__name__", None)
    return name if isinstance(name, str) else reprlib.repr(func)
