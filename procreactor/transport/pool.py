"""Many children on one loop: started by native threads, their output collected, each told once.

The loop never waits for an exec: threads start the children (kernel/spawners.py), the loop reads
their output and reaps them (collected.py). What is submitted is started in the order of its
submission. A start that fails is told like every other end, with an ``error``: one command of a
thousand that is missing is not the end of the others.

A child's exit wakes the loop, its start does not. A timer takes what has been started, and has the
streams watched of those that live for two of its ticks; the others have ended by then, and what
they wrote was read at the end. So a child that fills a pipe at once waits for a tick or two.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from procreactor.errors import SpawnError, report_callback_error, spawn_error
from procreactor.kernel.children import Child
from procreactor.kernel.poller import READ
from procreactor.kernel.spawners import MOST_THREADS, Spawner, Start
from procreactor.loop.eventloop import EventLoop
from procreactor.loop.timers import Timer, TimerState
from procreactor.model import ExitStatus, PipeEnd, Redirect, SpawnSpec
from procreactor.transport.collected import CollectedChild, Collecting, Sink

__all__ = ["MOST_THREADS", "ChildPool", "Ended", "thread_count"]

_MOST_THREADS_UNASKED = 8

_TICK_S = 0.002
"""How often what was started is looked at; a small program has come and gone by then."""

_LONGEST_TICK_S = 0.1

S = TypeVar("S", bound=Sink)


class Ended(NamedTuple, Generic[S]):
    """How one child went. *status* is None when it could not be started: *error* says why."""

    number: int
    """Which it was: they are counted from 0 in the order of their submission."""

    spec: SpawnSpec
    status: ExitStatus | None
    error: SpawnError | None
    sinks: tuple[S, S] | None
    """What stdout and stderr brought; None when neither brought anything."""

    duration_s: float
    """From the submission to the end."""


class _Job(Generic[S]):
    """A command between its submission and its outcome."""

    __slots__ = ("begun_s", "data", "key", "number", "one", "spec", "take")

    def __init__(
        self, number: int, spec: SpawnSpec, data: bytes, key: int, take: Callable[[], object]
    ) -> None:
        self.number = number
        self.spec = spec
        self.data = data
        self.key = key
        self.take = take
        self.begun_s = time.monotonic()
        self.one: CollectedChild[S] | None = None
        """The child, once its start has been taken."""

    def on_exit_ready(self, events: int) -> None:
        """The child has ended, and its start may not have been taken before."""
        if self.one is None:
            self.take()
        if self.one is not None:  # else its thread is between telling and finishing: next turn
            self.one.on_exit_ready(events)


class ChildPool(Generic[S]):
    """Children of *loop*, started by *threads* native threads, with their output in sinks.

    *on_end* is told of each when it is over, in the order of the ends. `close` it in any case.
    """

    def __init__(
        self,
        loop: EventLoop,
        new_sink: Callable[[], S],
        on_end: Callable[[Ended[S]], object],
        *,
        threads: int | None = None,
        drain_s: float,
    ) -> None:
        self._on_end = on_end
        self._loop = loop
        self._submitted = 0
        self._starting: dict[Child, _Job[S]] = {}
        self._running: dict[CollectedChild[S], _Job[S]] = {}
        self._young: list[CollectedChild[S]] = []  # since the last tick, or the one before
        self._taken: deque[Start] = deque()  # and not begun
        self._tick: Timer | None = None
        self._tick_s = _TICK_S
        self._pid = os.getpid()
        self._is_open = True
        self._shared = Collecting(loop, drain_s, new_sink)
        self._checked: object = None
        self._spawner = Spawner(thread_count() if threads is None else threads)
        try:
            self._watch = loop.watch(self._spawner.fileno(), self._on_started, READ)
        except OSError:
            self._spawner.close()
            raise

    def __len__(self) -> int:
        """How many commands are submitted and have not ended."""
        return len(self._starting) + len(self._running)

    def check_owner(self) -> None:
        """Raise ValueError once closed, ChildProcessError in a forked copy of the process."""
        if not self._is_open:
            raise ValueError("the pool is closed")
        if not self._watch.active:
            if self._pid != os.getpid():
                raise ChildProcessError(errno.ECHILD, "the pool's children are another process's")
            raise ValueError("the pool's loop is closed")

    def submit(self, spec: SpawnSpec, data: bytes = b"") -> int:
        """Have *spec* run, with *data* on its stdin, and return its number; does not wait.

        Its pipes may be child fds 0 (to be written), 1 and 2 (to be read) only, and it may have no
        parent death signal, which is tied to the thread that spawns: ValueError. The fds of ours
        that it names stay open until a thread has started it: at the latest, until its end is told.
        """
        self.check_owner()
        if spec.parent_death_signal:
            raise ValueError("a pool cannot set a parent death signal: its threads end with it")
        if spec.redirects is not self._checked:
            self._check_redirects(spec.redirects)
        loop = self._loop
        key = loop.new_key()
        job: _Job[S] = _Job(self._submitted, spec, data, key, self._take)
        loop.adopt(key, job.on_exit_ready, READ)
        waiting = len(self._spawner)
        try:
            self._starting[self._spawner.submit(spec, loop.epoll_fd, key)] = job
        except Exception:
            if len(self._spawner) == waiting:  # else a signal handler raised, and it is on its way
                loop.forget(key)
            raise
        self._submitted += 1
        self._tick_s = _TICK_S
        if self._tick is None:
            self._tick = loop.call_later(_TICK_S, self._on_tick)
        return job.number

    def _check_redirects(self, redirects: Sequence[Redirect]) -> None:
        for redirect in redirects:
            wanted = PipeEnd.WE_READ if redirect.child_fd else PipeEnd.WE_WRITE
            if redirect.is_pipe and (redirect.child_fd > 2 or redirect.source != wanted):
                raise ValueError(f"a pool writes to 0 and reads at 1 and 2: no pipe at {redirect}")
        if type(redirects) is tuple:
            self._checked = redirects  # most have the same, and one that cannot change

    def close(self) -> None:
        """Kill and reap what still runs, tell nothing of it, and end the threads. Idempotent.

        Blocks for as long as an exec that is under way and the end of the killed ones take.
        """
        self._is_open = False
        if self._pid != os.getpid():
            self._spawner.close()
            return
        self._loop.unwatch(self._watch)
        self._on_end = _tell_nobody
        if self._tick is not None and self._tick.state is TimerState.ACTIVE:
            self._loop.timers.cancel(self._tick)
        # Each is struck off when it is done with: after an interrupt a second call goes on.
        self._taken.extend(self._spawner.close())
        while self._taken:
            child = self._taken[0][0]
            if child not in self._starting:
                self._undo(child)
            self._taken.popleft()
        for child, job in list(self._starting.items()):
            if job.one is None:
                self._undo(child)
                self._loop.forget(job.key)
            else:
                self._running[job.one] = job
            del self._starting[child]
        for one in list(self._running):
            one.kill()
            del self._running[one]
        self._young.clear()

    def _undo(self, child: Child) -> None:
        if child.exit_fd >= 0:
            self._loop.withdraw(child.exit_fd)
        child.abandon()

    def _on_started(self, events: int) -> None:
        self._take()

    def _take(self) -> None:
        taken = self._taken
        taken.extend(self._spawner.take())
        while taken:  # none is lost to an exception: what is left is begun the next time
            child, watched, error = taken.popleft()
            job = self._starting.get(child)
            if job is None:
                self._undo(child)  # closed in this turn, or its submission did not return
            else:
                self._begin(child, job, watched, error)

    def _begin(self, child: Child, job: _Job[S], watched: bool, error: SpawnError | None) -> None:
        # In `_starting` until it is in `_running`: an exception may come between any two lines.
        if not watched:
            self._loop.forget(job.key)
        if error is not None:
            del self._starting[child]
            self._end(job, None, error, None)
            return
        key = job.key if watched else 0
        one = job.one = CollectedChild(self._shared, child, job.spec, key, self._on_over)
        self._running[one] = job
        del self._starting[child]
        self._young.append(one)
        self._feed(one, job.data)
        if not watched:
            self._watch_streams(one)

    def _on_tick(self) -> None:
        """Watch the streams of those that have lived since the last tick."""
        # The next one first: an exception on the way must not be the end of the ticking.
        self._tick = self._loop.call_later(self._tick_s, self._on_tick)
        old = len(self._young)
        self._take()
        for one in self._young[:old]:
            if one in self._running:
                self._watch_streams(one)
        del self._young[:old]
        if not self._starting and not self._young:
            if self._tick.state is TimerState.ACTIVE:
                self._loop.timers.cancel(self._tick)
            self._tick = None
        elif not self._young:  # an exec that hangs: look less often
            self._tick_s = min(2 * self._tick_s, _LONGEST_TICK_S)

    def _watch_streams(self, one: CollectedChild[S]) -> None:
        try:
            one.watch()
        except OSError as refusal:
            self._refuse(one, refusal)

    def _feed(self, one: CollectedChild[S], data: bytes) -> None:
        try:
            one.feed(data)
        except OSError as refusal:
            self._refuse(one, refusal)

    def _refuse(self, one: CollectedChild[S], refusal: OSError) -> None:
        """The set is full: as if the child had not been started."""
        one.kill()
        job = self._running.pop(one)
        error = spawn_error(refusal.errno or 0, "watch", job.spec.candidates[0])
        self._end(job, None, error, None)

    def _on_over(self, one: CollectedChild[S]) -> None:
        self._end(self._running.pop(one), one.status, None, one.output())

    def _end(
        self,
        job: _Job[S],
        status: ExitStatus | None,
        error: SpawnError | None,
        sinks: tuple[S, S] | None,
    ) -> None:
        duration_s = time.monotonic() - job.begun_s
        try:
            self._on_end(Ended(job.number, job.spec, status, error, sinks, duration_s))
        except BaseException:
            report_callback_error(repr(self._on_end))


def _tell_nobody(ended: object) -> None:
    """What was stopped by the owner is no news to it."""


def thread_count() -> int:
    """One per CPU that we may use, 8 at most: a spawn is mostly the kernel's work on the child."""
    return max(1, min(_MOST_THREADS_UNASKED, len(os.sched_getaffinity(0))))
