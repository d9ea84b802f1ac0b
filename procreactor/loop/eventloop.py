"""The engine: which fd is ready, what time it is, who is to be told.

Knows fds and clocks, never a process. One loop belongs to the thread that runs it; only
`call_soon_threadsafe` and `wake` may be called from elsewhere (and from signal handlers). Several
loops in several threads share nothing.

One turn (`run_once`): calls that were asked for before the turn, timers that are due, fds that are
ready.

The nasty case: an early callback of a turn closes fd 7 and opens another fd 7, for which a later
event of the same turn was not meant. So all events of a turn are resolved to their `Watch` first,
and each watch is asked whether it is still active before it is told. Together with the rule that
an fd leaves the poller before it is closed (kernel/poller.py) no event can reach a stranger.

A callback that raises is logged, and the loop lives. KeyboardInterrupt and SystemExit leave the
turn, and nothing of the others is lost by it: fds are level-triggered and are reported again, calls
and timers stay queued until each is claimed, and one that was struck before it began is put back.

Hosted by another loop: `fileno` is the epoll fd, which is readable while there is something to do
(epoll nests); the host then calls ``run_once(0)``. From the first `fileno` on, a timerfd in the
same set stands for the timers, and the wake-up pipe for calls.

After os.fork in the host program the copy's loops start afresh, without watches, calls and timers:
its epoll fd would be the original's, and taking events or watches from that would rob it.

Waiting is rounded up to milliseconds by epoll_wait; a timer is never early.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType

from procreactor.core import binding
from procreactor.errors import report_callback_error
from procreactor.kernel import dispositions
from procreactor.kernel.fds import close_fd
from procreactor.kernel.poller import READ, Poller
from procreactor.kernel.timerfd import TimerFd
from procreactor.kernel.wakeup import Wakeup
from procreactor.loop.timers import Timer, TimerQueue

__all__ = ["READ", "EventLoop", "Watch"]

Callback = Callable[..., object]


def _tell_nobody(events: int) -> None:
    """The callback of a watch that is over."""


_RESUME = _tell_nobody.__code__.co_code[0]
"""The first instruction of a function. To ask `opcode` is a hundredth of the command's start."""


class Watch:
    """One fd and who is told, with the events, when it is ready. Made by `EventLoop.watch`."""

    __slots__ = ("active", "events", "fd", "on_ready")

    def __init__(self, fd: int, on_ready: Callable[[int], object], events: int) -> None:
        self.fd = fd
        self.on_ready = on_ready
        self.events = events
        self.active = True

    def retire(self) -> None:
        """Be told no more. The callback is let go of: it mostly belongs to who holds this watch,
        and a circle of the two would be left to the collector, one for each pipe of each child."""
        self.active = False
        self.on_ready = _tell_nobody


_NOBODY = Watch(-1, _tell_nobody, 0)
_NOBODY.retire()


class EventLoop:
    """Readiness and time for one thread."""

    def __init__(self) -> None:
        binding.reserve()  # before the program's own fds take the low numbers
        dispositions.learn()
        self._watches: dict[int, Watch] = {}
        self._open()
        _open_loops.add(self)

    def _open(self) -> None:
        self._poller = Poller()
        self._drop = self._poller.drop
        self.epoll_fd = self._poller.fileno()
        """The set into which others may put fds that they then `adopt`; -1 once closed."""

        self._wakeup = Wakeup()
        self._soon: deque[tuple[Callback, tuple[object, ...]]] = deque()
        self._timer_fd: TimerFd | None = None
        self.timers = TimerQueue()
        self.watch(self._wakeup.fileno(), self._on_wakeup, READ)

    # -- fds ------------------------------------------------------------------------------------

    def watch(self, fd: int, on_ready: Callable[[int], object], events: int) -> Watch:
        """Tell *on_ready* the events whenever *fd* is ready for *events*, until `unwatch`.

        Hang-up and error are told too. FileExistsError when *fd* is watched already.
        """
        self._poller.add(fd, events)
        watches = self._watches
        if fd in watches:
            # Its file was closed unasked, or the number could not have been added: who unwatches it
            # later must not take this one out.
            watches[fd].retire()
        watch = watches[fd] = Watch(fd, on_ready, events)
        return watch

    def adopt(self, fd: int, on_ready: Callable[[int], object], events: int) -> Watch:
        """Do as `watch` does, for an *fd* that is in the set of `epoll_fd` already."""
        watches = self._watches
        if fd in watches:
            watches[fd].retire()  # stale, as in `watch`
        watch = watches[fd] = Watch(fd, on_ready, events)
        return watch

    def forget(self, fd: int) -> None:
        """Tell the watch of *fd* no more; others see to the fd and the set.

        Idempotent, for owners who clean up after an exception that came between two lines.
        """
        watch = self._watches.pop(fd, None)
        if watch is not None:
            watch.retire()

    def disown(self, fd: int) -> None:
        """Have *fd* neither watched nor in the set, whoever put it there, and leave it open.

        Idempotent, for owners who clean up after an exception that came between two lines.
        """
        self.forget(fd)
        self._poller.remove(fd)

    def forget_all(self, watches: Iterable[Watch]) -> None:
        """Tell none of *watches* any more; others see to their fds and the set. Idempotent."""
        by_fd = self._watches
        for watch in watches:
            if watch.active:
                fd = watch.fd  # closed, perhaps; a signal handler that spawns takes its number
                if fd in by_fd and by_fd[fd] is watch:  # no call: none comes in between
                    del by_fd[fd]
                watch.on_ready = _tell_nobody
                watch.active = False

    def drop(self, fd: int) -> None:
        """Close *fd*, which is the caller's, and tell its watch, if it has one, no more.

        OSError (EBADF) for one that is neither watched nor open: it has been dropped before. One
        that somebody closed while it was watched is let go, so that its owner's end is told.
        """
        watch = self._watches.pop(fd, None)
        if watch is None:
            if close_fd(fd):
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        else:
            watch.retire()
            self._drop(fd)

    def rewatch(self, watch: Watch, events: int) -> None:
        """Watch for *events* from now on; nothing when they are what they were."""
        if watch.active and events != watch.events:
            self._poller.change(watch.fd, events)
            watch.events = events

    def unwatch(self, watch: Watch) -> None:
        """Never tell *watch* again; to be called before its fd is closed. Idempotent."""
        if watch.active:
            watch.retire()
            del self._watches[watch.fd]
            self._poller.remove(watch.fd)

    # -- calls ----------------------------------------------------------------------------------

    def call_soon(self, callback: Callback, *args: object) -> None:
        """Call *callback* in the next turn, in order; for the loop's own thread."""
        self._soon.append((callback, args))
        if self._timer_fd is not None:
            self._wakeup.wake()  # the host must see that there is something to do

    def call_soon_threadsafe(self, callback: Callback, *args: object) -> None:
        """Call *callback* in the next turn and wake the loop; from any thread or signal handler."""
        self._soon.append((callback, args))
        self._wakeup.wake()  # in the loop's own thread too: a handler may run out of the wait

    def call_later(self, delay_s: float, callback: Callback, *args: object) -> Timer:
        """Call *callback* after *delay_s* seconds, unless the timer is cancelled before."""
        timer = self.timers.add(time.monotonic() + delay_s, callback, args)
        self.on_timers_changed()
        return timer

    def on_timers_changed(self) -> None:
        """Take notice that `timers` was changed from outside; only a hosted loop has to act."""
        if self._timer_fd is not None:
            self._timer_fd.set(self.timers.next_deadline())

    # -- turns ----------------------------------------------------------------------------------

    def run_once(self, timeout_s: float | None = None) -> None:
        """Run one turn, waiting at most *timeout_s* for something to do; None waits for ever.

        A turn that made a call does not wait: the call may be what the caller waited for.
        """
        called = self._run_calls() if self._soon else False
        if self.timers and self._run_timers():
            called = True
        ready = self._poller.wait(0 if called else self._wait_s(timeout_s))
        watches = self._watches
        if len(ready) == 1:
            # Most turns: no other event to be resolved before this one is told.
            [(fd, events)] = ready
            watch = watches.get(fd) or self._stranger(fd)
            if watch.active:
                self._tell(watch, events)
            return
        for watch, events in [
            (watches.get(fd) or self._stranger(fd), events) for fd, events in ready
        ]:
            if watch.active:
                self._tell(watch, events)

    def _tell(self, watch: Watch, events: int) -> None:
        on_ready = watch.on_ready
        try:
            on_ready(events)
        except BaseException:
            report_callback_error(_name(on_ready))

    def _stranger(self, fd: int) -> Watch:
        """An event of an fd that nobody watches: its owner closed and reopened it unasked."""
        self._poller.remove(fd)
        return _NOBODY

    def _wait_s(self, timeout_s: float | None) -> float:
        if self._soon:
            return 0
        wait_s = -1.0 if timeout_s is None else max(0.0, timeout_s)
        if not self.timers:
            return wait_s
        deadline_s = self.timers.next_deadline()
        if deadline_s is None:
            return wait_s
        until_s = max(0.0, deadline_s - time.monotonic())
        return until_s if wait_s < 0 else min(wait_s, until_s)

    def _run_calls(self) -> bool:
        # Only those of before: a call that asks for another must not keep the loop from its fds.
        soon = self._soon
        for _ in range(len(soon)):
            if not soon:
                break  # a callback ran a turn of its own, and so these calls
            callback, args = soon[0]
            del soon[0]  # not popleft: after a call an interrupt may strike, and lose what it gave
            try:
                callback(*args)
            except BaseException:
                if not _has_begun(callback):
                    soon.appendleft((callback, args))
                report_callback_error(_name(callback))
        return True

    def _run_timers(self) -> bool:
        called = False
        for timer in self.timers.pop_due(time.monotonic()):
            if self.timers.claim(timer):
                called = True
                try:
                    timer.callback(*timer.args, **timer.kwargs)
                except BaseException:
                    if not _has_begun(timer.callback):
                        self.timers.give_back(timer)
                    report_callback_error(_name(timer.callback))
        self.on_timers_changed()
        return called

    # -- waking and hosting ---------------------------------------------------------------------

    def wake(self) -> None:
        """End a wait that is going on, or the next one; from any thread or signal handler."""
        self._wakeup.wake()

    @property
    def signal_fd(self) -> int:
        """The fd for `signal.set_wakeup_fd`, so that a signal ends a wait in any case."""
        return self._wakeup.write_fd

    def fileno(self) -> int:
        """Return the fd that is readable while `run_once(0)` has something to do."""
        if self._timer_fd is None:
            self._timer_fd = TimerFd()
            self.watch(self._timer_fd.fileno(), self._on_timer_fd, READ)
            self.on_timers_changed()
            if self._soon:
                self._wakeup.wake()
        return self._poller.fileno()

    def _on_wakeup(self, events: int) -> None:
        self._wakeup.drain()
        if self._soon and self._timer_fd is not None:
            # Asked for since this turn made its calls; the host must not miss it. Looked at after
            # the draining: a thread that asks later also wakes later.
            self._wakeup.wake()

    def _on_timer_fd(self, events: int) -> None:
        # The turn that waited for it found no timer due yet when it began; this one will.
        self._run_timers()

    def close(self) -> None:
        """Close the loop's own fds. The fds of others are only let go. Idempotent."""
        _open_loops.discard(self)
        for watch in list(self._watches.values()):
            self.unwatch(watch)
        self._close_own()

    def _close_own(self) -> None:
        if self._timer_fd is not None:
            self._timer_fd.close()
            self._timer_fd = None
        self._wakeup.close()
        self._poller.close()
        self.epoll_fd = -1

    def _start_afresh(self) -> None:
        """Be a new loop, in a forked copy of the process, which shares the epoll set with it.

        Nothing is taken out of that set: its watches are those of the original.
        """
        for watch in self._watches.values():
            watch.retire()
        self._watches.clear()
        self._close_own()
        self._open()


def _has_begun(callback: Callback) -> bool:
    """Whether *callback*, out of which the exception being handled came, has run at all.

    A signal handler may raise right at its beginning, and then it is still to be called. That can
    be told of a function in Python: it is where its code has RESUME (Python's dis).
    """
    raised = sys.exception()
    ours = raised.__traceback__ if raised is not None else None
    its = ours.tb_next if ours is not None else None
    while isinstance(callback, partial):
        callback = callback.func
    function = getattr(callback, "__func__", callback)
    if its is None or not isinstance(function, FunctionType):
        return True
    code = its.tb_frame.f_code
    if code is not function.__code__:
        return True
    bytecode = code.co_code
    beginning = next((at for at in range(0, len(bytecode), 2) if bytecode[at] == _RESUME), 0)
    return its.tb_lasti > beginning


_open_loops: weakref.WeakSet[EventLoop] = weakref.WeakSet()


def _start_all_afresh() -> None:
    for loop in list(_open_loops):
        loop._start_afresh()


os.register_at_fork(after_in_child=_start_all_afresh)


def _name(callback: Callback) -> str:
    if isinstance(callback, partial):
        callback = callback.func
    return getattr(callback, "__qualname__", None) or repr(callback)
