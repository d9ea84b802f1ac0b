"""What is to happen when: a queue of deadlines. Pure: it reads no clock and calls nobody.

The rules of the room
---------------------
* Time is what the caller says it is: seconds on any one clock, as floats.
* Order is by deadline, and among equal deadlines by the order in which they were set: a timer that
  was moved stands behind those that had its new deadline before.
* `TimerQueue.pop_due` hands out what is due, and `TimerQueue.claim` asks, just before each
  callback, whether that timer is still to be called. The two steps are apart because callbacks
  change their neighbours: one of a batch may cancel or postpone the next, which must then not run.
  A timer that was handed out and never claimed (the turn ended in KeyboardInterrupt, or a callback
  runs a turn of its own) is handed out again by the next `pop_due`; so none is lost, none runs
  twice::

      for timer in queue.pop_due(now_s):
          if queue.claim(timer):
              timer.callback(*timer.args, **timer.kwargs)

* An exception of a signal handler may come after any call. So between two changes that belong
  together there is none: where the heap is to change, that is the last of them.
* A timer added while a batch runs waits for the next batch, however early its deadline: a callback
  that always adds another one due at once must not keep the loop from its files.

How, and at what price
----------------------
A binary heap of ``(deadline_s, serial, timer)``: tuples of numbers compare in C, and serials are
unique, so two timers are never compared. The heap cannot delete from its middle; instead **an entry
is live if, and only if, its timer points back at it**. Most timers are timeouts, and most timeouts
never happen: they are cancelled, or put off at every sign of life. So those are the cheap cases:

    add               one push, O(log n)
    cancel            the timer forgets its entry, O(1)
    move, to later    the timer takes the new deadline, O(1); the entry stays where it is, and is
                      pushed again, at the right place, when it comes to the top
    move, to earlier  the timer forgets its entry and gets a new one, O(log n)

Forgotten entries are swept out when they are more than half of the heap, which costs O(1) for each
when shared among them. A cancelled timer drops its callback and arguments at once, so that no
object lives on for the sake of a forgotten entry.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

from procreactor.typed import TypeAlias

__all__ = ["Timer", "TimerQueue", "TimerState"]

_SWEEP_FLOOR = 16
"""Up to so many forgotten entries are not worth a sweep, whatever their share of the heap."""


class TimerState(enum.Enum):
    """Where a timer is in its life: still to happen, claimed, or let go. The last two are final."""

    ACTIVE = "active"
    FIRED = "fired"
    CANCELLED = "cancelled"


_ACTIVE = TimerState.ACTIVE
_FIRED = TimerState.FIRED
_CANCELLED = TimerState.CANCELLED


class Timer:
    """One callback and its deadline; made by `TimerQueue.add`, and changed by that queue alone.

    Once cancelled, its callback does nothing and takes no arguments: they have been let go.
    """

    __slots__ = ("_entry", "_serial", "args", "callback", "deadline_s", "kwargs", "state")

    deadline_s: float
    callback: Callable[..., object]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    state: TimerState
    _serial: int
    """Its place among timers of the same deadline."""

    _entry: _Entry | None
    """Its live heap entry, which may lie before its deadline; None once out of the heap."""

    def __init__(
        self,
        deadline_s: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> None:
        self.deadline_s = deadline_s
        self.callback = callback
        self.args = args
        self.kwargs = kwargs
        self.state = _ACTIVE
        self._serial = -1
        self._entry = None

    def __repr__(self) -> str:
        return f"<Timer {self.state.value} deadline_s={self.deadline_s} {self.callback!r}>"


_Entry: TypeAlias = tuple[float, int, Timer]

_NO_KWARGS: Mapping[str, object] = {}


class TimerQueue:
    """The timers of one clock. Its length is the number of those still to happen.

    For one thread at a time. A timer belongs to the queue that made it.
    """

    __slots__ = ("_due", "_forgotten", "_heap", "_serials")

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._forgotten = 0
        self._due: dict[Timer, None] = {}
        self._serials = count()

    def add(
        self,
        deadline_s: float,
        callback: Callable[..., object],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Timer:
        """Return a new timer for *deadline_s*, which may be past, or infinite for "never".

        Raises ValueError for NaN, which no order can hold.
        """
        _check_deadline(deadline_s)
        timer = Timer(deadline_s, callback, args, _NO_KWARGS if kwargs is None else kwargs)
        timer._serial = next(self._serials)
        self._push(timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Make *timer* never happen, be it due already; ValueError unless it is active."""
        _check_active(timer)
        timer.state = _CANCELLED
        timer.callback, timer.args, timer.kwargs = _nothing, (), _NO_KWARGS
        if timer._entry is None:
            del self._due[timer]
        else:
            timer._entry = None
            self._forgotten += 1
            self._sweep_if_many()

    def move(self, timer: Timer, deadline_s: float) -> None:
        """Give *timer* another deadline, earlier or later; ValueError unless it is active.

        One that was handed out as due goes back into the queue, even if it is due again at once.
        """
        _check_active(timer)
        _check_deadline(deadline_s)
        serial = next(self._serials)
        entry = timer._entry
        timer.deadline_s = deadline_s
        timer._serial = serial
        if entry is None or deadline_s < entry[0]:
            timer._entry = (deadline_s, serial, timer)
            if entry is None:
                del self._due[timer]
            else:
                self._forgotten += 1
            heappush(self._heap, timer._entry)
            self._sweep_if_many()

    def next_deadline(self) -> float | None:
        """Return the deadline of the first timer of `pending`; None when there is none."""
        if self._due:
            return next(iter(self._due)).deadline_s
        head = self._head()
        return None if head is None else head.deadline_s

    def pop_due(self, now_s: float) -> list[Timer]:
        """Return the timers whose deadline is not after *now_s*, in order, each to be claimed.

        Those handed out before and still unclaimed come first.
        """
        heap = self._heap
        due = self._due
        if not due:
            # A dict keeps the slots of deleted keys, and walks over them: a burst must not tax
            # every turn that comes after it.
            due.clear()
        while heap and heap[0][0] <= now_s:
            timer = self._head()
            if timer is None or timer.deadline_s > now_s:
                break
            timer._entry = None
            due[timer] = None
            heappop(heap)
        return list(due)

    def claim(self, timer: Timer) -> bool:
        """Whether *timer* is to be called now; if so it is fired, and the caller calls it.

        False when, since it was handed out, it was claimed, cancelled or moved.
        """
        if timer not in self._due:
            return False
        del self._due[timer]
        timer.state = _FIRED
        return True

    def give_back(self, timer: Timer) -> None:
        """Undo a `claim`: *timer* was not called, and is the first that is due."""
        timer.state = _ACTIVE
        self._due = {timer: None, **self._due}

    def pending(self) -> list[Timer]:
        """Return the timers still to happen: the unclaimed, then the others, each in order.

        It sorts, so it is not for every turn.
        """
        queued = [entry[2] for entry in self._heap if entry[2]._entry is entry]
        queued.sort(key=lambda timer: (timer.deadline_s, timer._serial))
        return [*self._due, *queued]

    def __len__(self) -> int:
        return len(self._heap) - self._forgotten + len(self._due)

    def _push(self, timer: Timer) -> None:
        entry = timer._entry = (timer.deadline_s, timer._serial, timer)
        heappush(self._heap, entry)

    def _sweep_if_many(self) -> None:
        """Leave only live entries in the heap, if too many are not."""
        if self._forgotten <= _SWEEP_FLOOR or self._forgotten <= len(self._heap) // 2:
            return
        self._heap = [entry for entry in self._heap if entry[2]._entry is entry]
        self._forgotten = 0
        heapify(self._heap)

    def _head(self) -> Timer | None:
        """Return the earliest timer, whose entry is now the first of the heap; None if empty."""
        heap = self._heap
        while heap:
            entry = heap[0]
            timer = entry[2]
            if timer._entry is not entry:
                self._forgotten -= 1
                heappop(heap)
            elif timer._serial != entry[1]:
                timer._entry = (timer.deadline_s, timer._serial, timer)
                heapreplace(heap, timer._entry)
            else:
                return timer
        return None


def _check_active(timer: Timer) -> None:
    if timer.state is not _ACTIVE:
        raise ValueError(f"timer is {timer.state.value}, expected an active one: {timer!r}")


def _check_deadline(deadline_s: float) -> None:
    if deadline_s != deadline_s:
        raise ValueError("deadline_s is not a number, expected seconds or infinity")


def _nothing() -> None:
    """Stand in for the callback of a cancelled timer."""
