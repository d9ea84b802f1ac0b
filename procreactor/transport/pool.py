"""Many children on one loop: started by native threads, their output collected, each told once.

Where threads can be had, the loop never waits for an exec, and hears nothing of a child that ends
soon but its result: threads start it, reap it and read its streams (kernel/spawners.py). What is
submitted is started in the order of its submission. A start that fails is told like every other
end, with an ``error``: one command of a thousand that is missing is not the end of the others.

A timer claims the children that have lived from one of its ticks to the next: from then on the loop
reads what they write, as they write it (collected.py), and reaps them. A child that fills a pipe
before waits for that, so the ticks become short while such children come, and long again when none
does.

A child with something to be written into it is the loop's from its start on. The timer goes on for
it until then, though there is nothing to be claimed: should the host have closed the fd by which
the threads tell, what they have to tell is found all the same.

An exception of a signal handler may come between any two lines: a loop that goes on after it tells
all ends but the one that it was just telling; `close` then leaves nothing.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Sequence

from procreactor.errors import SpawnError, report_callback_error, spawn_error
from procreactor.kernel.children import Child
from procreactor.kernel.poller import READ
from procreactor.kernel.spawners import MOST_THREADS, Finish, JobState, Spawner
from procreactor.loop.eventloop import EventLoop
from procreactor.loop.timers import Timer, TimerState
from procreactor.model import ExitStatus, PipeEnd, Redirect, SpawnSpec
from procreactor.transport.collected import CollectedChild, Collecting, Sink, append_pieces
from procreactor.typed import Generic, NamedTuple, TypeVar, new_tuple

__all__ = ["MOST_THREADS", "ChildPool", "Ended", "thread_count"]

_MOST_THREADS_UNASKED = 8

_TICK_S = 0.01
"""How often what was started is looked at; a small program has come and gone by then."""

_SHORTEST_TICK_S = 0.001
_LONGEST_TICK_S = 0.1

_FULL_BYTES = 32768
"""A child of which so much is read at once has waited for us, or was about to: a pipe has 16 pages,
and is full with half as many bytes when no two writes fit into one."""

_NO_SPAN = (-1, 0, 0)

_CLOSED_BY_OTHERS = "other code of this process has closed an fd of ours"

S = TypeVar("S", bound=Sink)
K = TypeVar("K")


class Ended(NamedTuple, Generic[S]):
    """How one child went. *status* is None when it could not be started: *error* says why."""

    number: int
    """Which it was: they are counted from 0 in the order of their submission."""

    spec: SpawnSpec
    status: ExitStatus | None
    error: SpawnError | None
    sinks: tuple[S, S] | None
    """What stdout and stderr brought; None when neither brought anything."""

    pid: int
    """The number that it had; -1 when it could not be started."""

    begun_s: float
    """When its start was begun, on the clock of time.monotonic; 0: it never was."""

    duration_s: float
    """From there to its end, not counting for how long others held its streams."""


class _Job(Generic[S]):
    """A command between its submission and its outcome."""

    __slots__ = ("data", "number", "one", "span", "spec")

    def __init__(self, number: int, spec: SpawnSpec, data: bytes) -> None:
        self.number = number
        self.spec = spec
        self.data = data
        self.span = _NO_SPAN
        self.one: CollectedChild[S] | None = None
        """The child, once it is the loop's."""


class ChildPool(Generic[S]):
    """Children of *loop*, started by *threads* native threads, with their output in sinks.

    At most *at_once* of them live at once, None: any number; the others wait their turn.
    *new_sinks* makes the sinks for stdout and stderr of the child with a given number; *on_end* is
    told of each child when it is over, in the order of the ends; *on_live*, with its number and the
    time at which its start was begun, of each that the loop has had to take over: it lives, and can
    be signalled, until its end is told. *must_wait*, *pass_on* and *held_up_s* are those of
    `Collecting`, *signals_stay* is the `Spawner`'s. `close` it in any case.
    """

    def __init__(
        self,
        loop: EventLoop,
        new_sinks: Callable[[int], tuple[S, S]],
        on_end: Callable[[Ended[S]], object],
        *,
        on_live: Callable[[int, CollectedChild[S], float], object] | None = None,
        must_wait: Callable[[tuple[S, S], Callable[[bool], object]], bool] | None = None,
        pass_on: Callable[[S, int], int] | None = None,
        held_up_s: Callable[[], float] = float,
        at_once: int | None = None,
        threads: int | None = None,
        signals_stay: bool = False,
        drain_s: float,
    ) -> None:
        self._on_end = on_end
        self._on_live = on_live
        self._loop = loop
        self._submitted = 0
        self._starting: dict[Child, _Job[S]] = {}
        """With the threads, or just back from them."""

        self._running: dict[CollectedChild[S], _Job[S]] = {}
        self._young: deque[tuple[int, Child]] = deque()  # submitted, and waiting at the last tick
        self._old: deque[tuple[int, Child]] = deque()  # begun by then, and with the threads
        self._taken: deque[Finish] = deque()  # and not told
        self._tick: Timer | None = None
        self._tick_s = self._usual_tick_s = _TICK_S
        self._pid = os.getpid()
        self._is_open = True
        self._shared = Collecting(loop, drain_s, new_sinks, must_wait, pass_on, held_up_s)
        self._checked: object = None
        threads = thread_count() if threads is None else threads
        self._spawner = Spawner(threads, at_once, signals_stay=signals_stay)
        try:
            self._watch = loop.watch(self._spawner.fileno(), self._on_finished, READ)
        except OSError:
            self._spawner.close(self._taken)
            raise

    def __len__(self) -> int:
        """How many commands are submitted and have not ended."""
        return len(self._starting) + len(self._running)

    def check_owner(self) -> None:
        """Raise ValueError once closed, ChildProcessError in a forked copy of the process.

        SpawnError (EBADF) where other code has closed the fd by which the threads tell.
        """
        if not self._is_open:
            raise ValueError("the pool is closed")
        if not self._watch.active:
            if self._pid != os.getpid():
                raise ChildProcessError(errno.ECHILD, "the pool's children are another process's")
            if self._loop.epoll_fd >= 0:  # the number of the threads' eventfd is another's
                raise spawn_error(errno.EBADF, "watch", None, _CLOSED_BY_OTHERS)
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
        child = self._spawner.submit(spec, not data, self._young)[1]
        if self._tick_s > self._usual_tick_s:
            self._hurry()
        if self._tick is None:
            self._tick_s = self._usual_tick_s
            self._tick = self._loop.call_later(self._tick_s, self._on_tick)
        number = self._submitted
        self._submitted = number + 1
        self._starting[child] = _Job(number, spec, data)
        return number

    def cancel_waiting(self) -> None:
        """Have those that no thread has begun end with an error, ECANCELED."""
        self.check_owner()
        self._spawner.cancel()

    def claim_all(self) -> None:
        """Have the loop take over the children that live now: *on_live* is told of each.

        Of one whose exec is under way it is told soon afterwards.
        """
        self._note_begun()
        self._claim_old()

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
            self._spawner.close(self._taken)
            return
        self._loop.unwatch(self._watch)
        self._on_end = _tell_nobody
        self._on_live = None
        self._stop_tick()
        # Each is struck off when it is done with: after an interrupt a second call goes on.
        self._spawner.close(self._taken)
        while self._taken:
            if not self._has_adopted(self._taken[0].child):
                self._taken[0].child.abandon()
            self._taken.popleft()
        for child, job in list(self._starting.items()):
            if job.one is None:
                child.abandon()
            else:
                self._running[job.one] = job
            del self._starting[child]
        for one in list(self._running):
            one.kill()
            del self._running[one]
        self._young.clear()
        self._old.clear()

    def _on_finished(self, events: int) -> None:
        try:
            self._spawner.take(self._taken)
            self._see_to_taken()
        except BaseException:
            self._loop.call_soon(self._on_finished, READ)  # their fd does not tell twice
            raise

    def _see_to_taken(self) -> None:
        taken = self._taken
        try:
            while taken:
                finish = taken[0]
                self._on_finish(finish)
                if taken and taken[0] is finish:  # else a callback has run a turn, or closed us
                    taken.popleft()
        finally:
            if taken:  # an interrupt: the others are seen to in the next turn
                self._loop.call_soon(self._see_to_taken)

    def _on_finish(self, finish: Finish) -> None:
        job = self._starting.get(finish.child)
        if job is None:
            self._undo(finish)
        elif finish.is_over:
            sinks = None
            job.span = finish.span
            try:
                if finish.data is not None:
                    sinks = self._fill(job.number, finish.data)
            finally:  # what a sink raises must not hide an end
                if finish.child in self._starting:  # else it has closed the pool
                    self._tell(self._starting, finish.child, finish.status, finish.error, sinks)
        else:
            self._begin(finish, job)

    def _undo(self, finish: Finish) -> None:
        """Of a child whose submission did not return, or which was told before an interrupt."""
        if not finish.is_over and not self._has_adopted(finish.child):
            finish.child.abandon()
            self._spawner.release(finish.child)

    def _has_adopted(self, child: Child) -> bool:
        """Whether it is a collected child's by now; an interrupt may have kept it from the rest."""
        job = self._starting.get(child)
        if job is not None:
            return job.one is not None
        return any(one.child is child for one in self._running)

    def _fill(self, number: int, data: tuple[bytes, bytes]) -> tuple[S, S] | None:
        sinks = None
        try:
            sinks = self._shared.new_sinks(number)
            append_pieces(sinks, data)
        except BaseException:
            report_callback_error(repr(self._shared.new_sinks))
        return sinks

    def _begin(self, finish: Finish, job: _Job[S]) -> None:
        """What is left of the child is the loop's from now on."""
        # In `_starting` until all is done: an exception may come between any two lines.
        one = job.one = job.one or CollectedChild(
            self._shared, finish.child, job.spec, self._on_over, job.number
        )
        job.span = finish.span
        self._running[one] = job
        finish.child.ours = []
        try:
            one.feed(job.data)
            one.resume(finish.told, finish.status)
            del self._starting[finish.child]
        except OSError as refusal:  # the set is full: as if the child had not been started
            self._refuse(finish.child, one, refusal)
        except BaseException:
            self._refuse(finish.child, one, InterruptedError(errno.EINTR, "interrupted"))
            raise
        else:
            if finish.data is not None:
                one.append(finish.data)
            if self._on_live is not None and one in self._running:
                # In a turn of its own: what it does may end the child, or close the pool.
                self._loop.call_soon(self._tell_live, job.number, one, job.span[1] / 1e9)

    def _tell_live(self, number: int, one: CollectedChild[S], begun_s: float) -> None:
        if self._on_live is not None and one in self._running:
            self._on_live(number, one, begun_s)

    def _refuse(self, child: Child, one: CollectedChild[S], refusal: OSError) -> None:
        self._starting.pop(child, None)
        one.kill()
        self._spawner.release(child)
        name = self._running[one].spec.candidates[0]
        error = spawn_error(refusal.errno or 0, "watch", name)
        self._tell(self._running, one, None, error, None)

    # -- the tick -------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        """Claim the children that have lived since the last tick."""
        # The next one first: an exception on the way must not be the end of the ticking.
        self._tick = self._loop.call_later(self._tick_s, self._on_tick)
        self._on_finished(READ)  # the threads may be waiting for more to tell
        claimed, full = self._claim_old()
        self._note_begun()
        if not self._young and not self._old:
            self._stop_tick()
        if full:
            self._usual_tick_s = max(self._usual_tick_s / 2, _SHORTEST_TICK_S)
        else:
            self._usual_tick_s = min(self._usual_tick_s * 2, _TICK_S)
        if claimed:
            self._tick_s = self._usual_tick_s
        else:  # an exec that hangs, or others that live long: look less often
            self._tick_s = min(2 * self._tick_s, _LONGEST_TICK_S)

    def _note_begun(self) -> None:
        """Move to `_old` what has begun: the threads begin in the order of submission."""
        young, spawner = self._young, self._spawner
        while young:
            token = young[0][0]
            if token in spawner:
                if spawner.state(token) is JobState.WAITING:
                    break
                self._old.append(young[0])  # twice after an interrupt, which does no harm
            young.popleft()

    def _claim_old(self) -> tuple[int, int]:
        """Return how many of the old ones were claimed, and how many of them had a pipe full."""
        claimed = full = 0
        old = self._old
        for _ in range(len(old)):
            if not old:
                break  # closed by a callback
            token, child = old[0]
            state = self._spawner.claim(token, self._taken)
            if token in self._spawner:  # it is begun, or will be taken
                old.rotate(-1)
                continue
            old.popleft()
            if state is JobState.RUNNING:
                job = self._starting.get(child)
                self._see_to_taken()
                claimed += 1
                full += job is not None and self._read_now(job) >= _FULL_BYTES
        return claimed, full

    def _read_now(self, job: _Job[S]) -> int:
        """Return how many bytes a claimed child had written."""
        if job.one is None or job.one not in self._running:
            return 0
        try:
            return job.one.read_now()
        except BaseException:
            report_callback_error(repr(self._shared.new_sinks))
            return 0

    def _hurry(self) -> None:
        """Another may begin: that the ticks had become rare is no reason to look at it late."""
        if self._young and self._tick is not None:
            self._tick_s = self._usual_tick_s
            self._stop_tick()
            self._tick = self._loop.call_later(self._tick_s, self._on_tick)

    def _stop_tick(self) -> None:
        if self._tick is not None and self._tick.state is TimerState.ACTIVE:
            self._loop.timers.cancel(self._tick)
        self._tick = None

    # -- ends -----------------------------------------------------------------------------------

    def _on_over(self, one: CollectedChild[S]) -> None:
        if one not in self._running:
            return  # told before, and an interrupt came out of it
        try:
            self._spawner.release(one.child)
        finally:
            self._tell(self._running, one, one.status, None, one.output())

    def _tell(
        self,
        known: dict[K, _Job[S]],
        key: K,
        status: ExitStatus | None,
        error: SpawnError | None,
        sinks: tuple[S, S] | None,
    ) -> None:
        """Tell the end of the job that is *known* by *key*, and know it no more.

        Until it is being told it is known: who comes again after an interrupt goes on with it.
        """
        job = known[key]
        pid, begun_ns, ended_ns = job.span
        begun_s, ended_s = begun_ns / 1e9, ended_ns / 1e9
        if not ended_ns:
            ended_s = (job.one.ended_s if job.one else 0.0) or time.monotonic()
        duration_s = ended_s - begun_s if begun_ns else 0.0
        ended: Ended[S] = new_tuple(
            Ended, (job.number, job.spec, status, error, sinks, pid, begun_s, duration_s)
        )
        if self._tick_s > self._usual_tick_s:
            self._hurry()
        try:
            del known[key]  # as no call does, so no interrupt comes between this and the telling
            self._on_end(ended)
        except BaseException:
            report_callback_error(repr(self._on_end))


def _tell_nobody(ended: object) -> None:
    """What was stopped by the owner is no news to it."""


def thread_count() -> int:
    """One more than CPUs that we may use, 8 at most.

    A spawn is mostly the kernel's work on the child, and while its thread waits for the exec
    another may begin one.
    """
    return min(_MOST_THREADS_UNASKED, len(os.sched_getaffinity(0)) + 1)
