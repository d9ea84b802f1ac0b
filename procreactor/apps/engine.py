"""Many commands, a few at a time, each seen to its end: what run, run_many and the command share.

`Engine.run` is a loop of its own, in whatever thread. It takes commands from its source only when
one may start, so an endless source runs in bounded memory; how they are spawned, read and reaped is
transport/pool.py's affair, what belongs to them beyond the first process, transport/trees.py's.

The life of a task:

    taken -> submitted -> (live) -> ended -+-> told
               ^                           |
               +------- retry, later ------+

*Live* is what has run for some milliseconds: only then is there somebody to be timed out, or to be
told to stop. A command that comes and goes between two ticks of the pool is never live, and costs
nothing of all that.

Stopping a command goes through the steps of its policy (TERM, some seconds, KILL), each for the
whole tree; after the last one the tree is looked at until it is empty, for a bounded time. What
has ended by itself is left as it is, and so are the processes that it has left behind. Where there
is no fd to be had to find a tree, that is logged, and the run goes on: its first process is killed
all the same, and when that has ended the rest is looked for once more.

Reading ahead: up to `MOST_AHEAD` commands more than may run are taken while many end in each turn,
so that the threads which start them never wait for us. Not where it could be noticed: while the end
of one command may be a reason not to start the next (halt), or a start has to be waited for.

Where there is no room for as many at once as were asked for (open files, processes), no command is
failed for it as long as another one runs: it waits for the end of that. From then on as many run as
there was room for, and one more now and then.

Signal handlers may call `stop_starting`, `terminate` and `kill` through `call_soon`.
"""

from __future__ import annotations

import errno
import heapq
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from procreactor.apps.commands import Command
from procreactor.apps.planning import Plan, Planner
from procreactor.errors import report_callback_error
from procreactor.loop.eventloop import READ, EventLoop, Watch
from procreactor.loop.timers import Timer, TimerState
from procreactor.transport.collected import CollectedChild, Sink
from procreactor.transport.pool import ChildPool, Ended, thread_count
from procreactor.transport.trees import Forest, Tree
from procreactor.typed import Any, Generic, NamedTuple, TypeVar, new_tuple

__all__ = ["MOST_AHEAD", "Done", "Engine", "Policy", "Task"]

MOST_AHEAD = 16
"""Each has a tree by then: with 64, a run of some hundred commands took a fifth longer."""

_CHECK_S = 0.5
"""How often time-outs that change while commands run are looked at."""

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)

_ENDS_UNTIL_MORE = 8
"""So many times as many as may run have ended, and one more may: each that finds no room costs."""

_CANCELLED = "cancelled before it began"
"""The stage of a start that was called off before it had begun (csrc/text.c)."""

S = TypeVar("S", bound=Sink)


class Policy(NamedTuple):
    """What holds for all commands of a run."""

    jobs: int
    """How many may run at once, from 1 on."""

    timeout_s: float | Callable[[], float | None] | None = None
    """For commands without one of their own. A function is asked again and again."""

    stop: Sequence[tuple[int, float]] = ((signal.SIGTERM, 5.0),)
    """How a command is ended: signal, and seconds until the next one. After the last comes KILL."""

    retries: int = 0
    """How often a command that failed is started again."""

    retry_delay_s: float = 0.0
    reads_ahead: bool = True
    wait_s: Callable[[], float] | None = None
    """How long the next start has to wait from now; 0: not at all."""

    drain_s: float = 1.0
    """How long after a command's exit its streams may be held open by others."""


class Task:
    """One command on its way."""

    __slots__ = (
        "attempts",
        "begun_s",
        "child",
        "command",
        "has_company",
        "index",
        "is_called_off",
        "is_crowded",
        "is_put_back",
        "is_stopping",
        "last",
        "plan",
        "slot",
        "timed_out",
        "timer",
        "tree",
    )

    def __init__(self, index: int, command: Command) -> None:
        self.index = index
        self.command = command
        self.attempts = 0
        self.slot = 0
        """From 1: which of the places of commands that run at once it has, or had last."""

        self.timed_out = False
        self.is_stopping = False
        self.is_put_back = False
        self.is_crowded = False
        """Whether there was no room for it when it was started last."""

        self.is_called_off = False
        """Whether it was over by our will, between two attempts."""

        self.has_company = False
        """Whether others may run beside it, or do, when it is started."""

        self.plan: Plan | None = None
        self.tree: Tree | None = None
        self.child: CollectedChild[Any] | None = None
        """While it is live."""

        self.last: tuple[Done[Any], bool] | None = None
        """How the attempt before went, and whether it was timed out, while the next one waits."""

        self.begun_s = 0.0
        self.timer: Timer | None = None


class Done(NamedTuple, Generic[S]):
    """A command that is over: *ended* is None when not even its files could be opened."""

    task: Task
    ended: Ended[S] | None
    error: OSError | None

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, in time, with exit code 0."""
        status = self.ended.status if self.ended is not None else None
        return status is not None and status.code == 0 and not self.task.timed_out


class Engine(Generic[S]):
    """Runs the commands of *source*. `close` it in any case, in the thread that ran it.

    *source* returns a command, None while there is none yet (then it wakes the loop when there is),
    or raises StopIteration. *new_sinks* makes the places for stdout and stderr of a task, when it
    has written something. *on_start* is told of each task before its start, of which an OSError out
    of it is one; *on_retry* of one that is over and will be started again, *on_turn* of each turn
    of the loop, before it waits. *must_wait* is asked whether what a command writes is to stay in
    its pipe; *pass_on* moves that straight to where its sink would bring it; *held_up_s* says for
    how long the loop could not go on, ever (collected.py). *signals_stay*: the program ignores no
    more signals than it does now (spawners.py).
    """

    def __init__(
        self,
        source: Callable[[], Command | None],
        planner: Planner,
        policy: Policy,
        new_sinks: Callable[[Task], tuple[S, S]],
        *,
        forest: Forest | None = None,
        on_start: Callable[[Task], object] = lambda task: None,
        on_retry: Callable[[Task], object] = lambda task: None,
        on_turn: Callable[[], object] = lambda: None,
        must_wait: Callable[[tuple[S, S], Callable[[bool], object]], bool] | None = None,
        pass_on: Callable[[S, int], int] | None = None,
        held_up_s: Callable[[], float] = float,
        signals_stay: bool = False,
    ) -> None:
        self._source = source
        self._planner = planner
        self._policy = policy
        self._new_sinks = new_sinks
        self._forest = forest
        self._on_start = on_start
        self._on_retry = on_retry
        self._on_turn = on_turn
        self._tasks: dict[int, Task] = {}
        """What is submitted and not over, by its number in the pool."""

        self._ended: deque[Ended[S]] = deque()
        self._over: deque[Done[S]] = deque()  # and to be yielded
        self._crowded: deque[Task] = deque()
        """Those for which there was no room, until there is."""

        self._retries: list[tuple[float, int, Task]] = []
        self._most = policy.jobs
        """How many may run at once: fewer once more than that have found no room."""

        self._ended_since = 0

        self._free_slots: list[int] = []
        self._slots = 0
        self._taken = 0
        self._ahead = 0
        self._more = True
        self._is_stopped = False
        self._is_killing = False
        self._wait_timer: Timer | None = None
        self._source_watch: Watch | None = None
        self.loop = EventLoop()
        try:
            self._pool: ChildPool[S] = ChildPool(
                self.loop,
                self._sinks_of,
                self._ended.append,
                on_live=self._on_live,
                must_wait=must_wait,
                pass_on=pass_on,
                held_up_s=held_up_s,
                at_once=policy.jobs,
                threads=min(policy.jobs, thread_count()),
                signals_stay=signals_stay,
                drain_s=policy.drain_s,
            )
        except BaseException:
            self.loop.close()
            raise
        if callable(policy.timeout_s):
            self.loop.call_later(_CHECK_S, self._check_timeouts)

    @property
    def running(self) -> int:
        """How many commands run, or are about to."""
        return len(self._tasks)

    @property
    def taken(self) -> int:
        """How many commands were taken from the source."""
        return self._taken

    def run(self) -> Iterator[Done[S]]:
        """Yield each command when it is over, and return when there are no more.

        ChildProcessError in a forked copy of the process.
        """
        ended, over = self._ended, self._over
        while True:
            self._fill()
            if not over:
                if not (self._tasks or self._crowded or self._retries or self._more):
                    return
                self._pool.check_owner()
                self._on_turn()
                self.loop.run_once()
            self._ahead = self._next_ahead(len(ended))
            while ended:
                self._settle(ended[0])
                ended.popleft()
            while over:
                yield over.popleft()

    def drain(self) -> Iterator[Done[S]]:
        """Go on as `run` does, without telling *on_turn*, whose caller has failed."""
        self._on_turn = _do_nothing
        return self.run()

    # -- stopping -------------------------------------------------------------------------------

    def stop_starting(self) -> None:
        """Start nothing more; what runs goes on to its end. Idempotent.

        What was to be started again is over, as its last attempt went.
        """
        self._more = False
        self._is_stopped = True
        while self._crowded:
            self._tell_last(self._crowded.popleft())
        while self._retries:
            self._tell_last(heapq.heappop(self._retries)[2])
        self._pool.cancel_waiting()

    def terminate(self) -> None:
        """Start nothing more, and stop what runs, step by step. Idempotent."""
        self.stop_starting()
        self._pool.claim_all()
        for task in list(self._tasks.values()):
            self._stop(task)

    def kill(self) -> None:
        """Start nothing more, and kill what runs. Idempotent."""
        self._is_killing = True
        self.stop_starting()
        self._pool.claim_all()
        for task in list(self._tasks.values()):
            task.is_stopping = True
            self._kill(task)

    def put_back_youngest(self) -> None:
        """Kill what was started last and start it again later: an attempt that does not count."""
        live = [task for task in self._tasks.values() if task.child and not task.is_stopping]
        if live:
            task = max(live, key=lambda task: task.begun_s)
            task.is_put_back = task.is_stopping = True
            self._kill(task)

    def wind_down(self) -> None:
        """Stop what runs and return when all has ended; a KeyboardInterrupt meanwhile kills it."""
        try:
            self.terminate()
            deque(self.run(), 0)
        except KeyboardInterrupt:
            self.kill()
            deque(self.run(), 0)

    def close(self) -> None:
        """Kill what runs, with all its descendants, and leave nothing behind. Idempotent."""
        try:
            for task in self._tasks.values():
                self._kill_tree(task)
            self._pool.close()
            while self._tasks:
                task = self._tasks.popitem()[1]
                if task.plan is not None:
                    task.plan.close()
        finally:
            self.loop.close()

    def wake_when_readable(self, fd: int) -> None:
        """For a source that has returned None: its next command may be there once *fd* is readable.

        Asked for anew each time; *fd* is to stay open until then, or until `close`.
        """
        if self._source_watch is None:
            self._source_watch = self.loop.watch(fd, self._on_source_ready, READ)

    def _on_source_ready(self, events: int) -> None:
        watch, self._source_watch = self._source_watch, None
        if watch is not None:
            self.loop.unwatch(watch)

    # -- starting -------------------------------------------------------------------------------

    def _fill(self) -> None:
        wait_s = self._policy.wait_s
        # What is over is told before another starts: it may be a reason not to start it.
        while not self._over and self._may_start():
            if wait_s is not None and (left_s := wait_s()) > 0:
                self._wait(left_s)
                return
            task = self._next_task()
            if task is None:
                return
            self._start(task)
            if task.is_crowded and self._tasks:
                return  # until one has ended

    def _may_start(self) -> bool:
        """Whether there is room for one more, and may be one more; asked anew for each."""
        most = self._most
        if self._policy.reads_ahead and most == self._policy.jobs:
            most += self._ahead
        return len(self._tasks) < most and bool(self._more or self._crowded or self._retries)

    def _wait(self, wait_s: float) -> None:
        timer = self._wait_timer
        if timer is None or timer.state is not TimerState.ACTIVE:
            self._wait_timer = self.loop.call_later(wait_s, _do_nothing)

    def _next_task(self) -> Task | None:
        if self._crowded:
            return self._crowded.popleft()
        if self._retries and self._retries[0][0] <= time.monotonic():
            return heapq.heappop(self._retries)[2]
        if not self._more:
            return None
        try:
            command = self._source()
        except StopIteration:
            self._more = False
            return None
        if command is None:
            return None
        self._taken += 1
        return Task(self._taken - 1, command)

    def _start(self, task: Task) -> None:
        task.attempts += 1
        task.timed_out = task.is_stopping = task.is_put_back = False
        task.has_company = self._most > 1 or bool(self._tasks)
        task.slot = self._take_slot()
        try:
            self._on_start(task)
            task.is_crowded = False
            plan = task.plan = self._planner.plan(task.command)
            if self._forest is not None:
                task.tree = self._forest.plant(plan.spec)
        except OSError as error:
            self._clear(task)
            self._pool.check_owner()  # else it is not the command's
            heapq.heappush(self._free_slots, task.slot)
            self._tell_or_retry(Done(task, None, error))
            return
        self._tasks[self._pool.submit(plan.spec, plan.data)] = task

    def _take_slot(self) -> int:
        if self._free_slots:
            return heapq.heappop(self._free_slots)
        self._slots += 1
        return self._slots

    def _sinks_of(self, number: int) -> tuple[S, S]:
        return self._new_sinks(self._tasks[number])

    def _next_ahead(self, ended: int) -> int:
        """How far to read ahead after a turn in which so many have *ended*."""
        wanted = 4 * ended if ended > 1 else 0
        return min(MOST_AHEAD, max(wanted, self._ahead * 7 // 8))

    # -- what is live ---------------------------------------------------------------------------

    def _on_live(self, number: int, child: CollectedChild[S], begun_s: float) -> None:
        task = self._tasks.get(number)
        if task is None:
            return  # an interrupt came out of its start
        task.child = child
        task.begun_s = begun_s
        if self._is_killing:
            self._kill(task)
        elif task.is_stopping:
            self._next_step(task, 0)
        else:
            timeout_s = self._timeout_of(task)
            if timeout_s is not None:
                left_s = max(0.0, begun_s + timeout_s - time.monotonic())
                task.timer = self.loop.call_later(left_s, self._on_timeout, task)

    def _timeout_of(self, task: Task) -> float | None:
        """The time-out that does not change."""
        if task.command.timeout_s is not None:
            return task.command.timeout_s
        timeout_s = self._policy.timeout_s
        return None if callable(timeout_s) else timeout_s

    def _check_timeouts(self) -> None:
        self.loop.call_later(_CHECK_S, self._check_timeouts)
        timeout_s = self._policy.timeout_s() if callable(self._policy.timeout_s) else None
        if timeout_s is None:
            return
        before_s = time.monotonic() - timeout_s
        for task in list(self._tasks.values()):
            is_late = task.child is not None and task.begun_s < before_s
            if is_late and task.command.timeout_s is None and not task.is_stopping:
                self._on_timeout(task)

    def _on_timeout(self, task: Task) -> None:
        task.timed_out = True
        self._stop(task)

    def _stop(self, task: Task) -> None:
        if task.is_stopping:
            return
        task.is_stopping = True
        if task.child is not None:  # else once it is live
            self._cancel_timer(task)
            self._next_step(task, 0)

    def _next_step(self, task: Task, step: int) -> None:
        if step >= len(self._policy.stop):
            self._kill(task)
            return
        number, wait_s = self._policy.stop[step]
        task.timer = self.loop.call_later(wait_s, self._next_step, task, step + 1)
        if number == signal.SIGKILL:
            self._kill_once(task)  # the whole tree: who is signalled singly may fork meanwhile
        else:
            self._signal(task, number)

    def _signal(self, task: Task, number: int) -> None:
        child = task.child
        if child is None:
            return
        try:
            if task.tree is not None:
                task.tree.signal(number, child.pid_while_ours)
            else:
                child.send_signal(number)
        except (ProcessLookupError, PermissionError):
            pass  # it has just ended; or it is another user's by now, who alone may stop it
        except OSError:
            self._report("a signal for a command, which some of it may not have got,")

    def _kill(self, task: Task) -> None:
        self._cancel_timer(task)
        self._kill_once(task)

    def _kill_once(self, task: Task) -> None:
        if not self._kill_tree(task) and task.child is not None:
            try:
                task.child.send_signal(signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # as above

    def _kill_tree(self, task: Task) -> bool:
        """Kill all that has come of *task*, as far as it can be told; return whether that was done.

        One that is not live may be in its exec, which hangs, or frozen since its birth.
        """
        tree, child = task.tree, task.child
        if tree is None or (child is None and not tree.is_cgroup):
            return False
        return self._kill_all_of(tree, child.pid_while_ours if child is not None else None)

    def _kill_all_of(self, tree: Tree, leader_pid: int | None) -> bool:
        """Return whether it could be tried: not, for all its patience, without an fd to look."""
        try:
            if not tree.kill(leader_pid):
                tree.report_survivors(leader_pid)
        except OSError:
            self._report("the kill of a command, of which some may live on,")
            return False
        return True

    def _report(self, what: str) -> None:
        """Log the OSError being handled, unless this is a forked copy, which is told by it."""
        self._pool.check_owner()
        report_callback_error(what)

    def _cancel_timer(self, task: Task) -> None:
        timer, task.timer = task.timer, None
        if timer is not None and timer.state is TimerState.ACTIVE:
            self.loop.timers.cancel(timer)

    # -- ends -----------------------------------------------------------------------------------

    def _settle(self, ended: Ended[S]) -> None:
        task = self._tasks.get(ended.number)
        if task is None:
            return  # an interrupt came out of its start, or out of this
        if task.timer is not None:
            self._cancel_timer(task)
        task.child = None
        self._clear(task)
        heapq.heappush(self._free_slots, task.slot)
        del self._tasks[ended.number]
        if self._most < self._policy.jobs:
            self._try_more()
        if ended.error is not None and ended.error.stage == _CANCELLED:
            self._tell_last(task)
            return
        self._tell_or_retry(new_tuple(Done, (task, ended, ended.error)))

    def _tell_or_retry(self, done: Done[S]) -> None:
        task, _, error = done
        task.is_crowded = error is not None and error.errno in _NO_ROOM and task.has_company
        if task.is_crowded or task.is_put_back:
            task.attempts -= 1  # which it was, through no fault of its own
        if task.is_crowded:
            self._make_room()
            self._on_retry(task)
            if self._is_stopped:
                self._tell_last(task)
            else:
                self._crowded.append(task)
        elif done.ok or self._is_stopped or task.attempts > self._policy.retries:
            self._over.append(done)
        else:
            task.last = done, task.timed_out
            self._retry_later(task)

    def _make_room(self) -> None:
        """Start no more at once than run by now."""
        self._most = max(min(len(self._tasks), self._policy.jobs - 1), 1)  # and none is read ahead
        self._ended_since = 0
        if self._forest is not None:
            self._forest.shed()

    def _try_more(self) -> None:
        """Of what there was no room for, there may be by now: one more, now and then."""
        self._ended_since += 1
        if self._ended_since >= _ENDS_UNTIL_MORE * self._most:
            self._ended_since = 0
            self._most += 1

    def _tell_last(self, task: Task) -> None:
        """Of one that will not be started again: how it went before, if it ever ran."""
        last, task.last = task.last, None
        if last is not None:
            done, task.timed_out = last
            task.is_called_off = True
            self._over.append(done)

    def _clear(self, task: Task) -> None:
        """Let go of what belonged to one attempt."""
        plan = task.plan
        if plan is not None:
            if plan.fds:
                plan.close()
            task.plan = None
        tree, task.tree = task.tree, None
        if tree is not None and self._forest is not None:
            if task.is_stopping:
                self._kill_all_of(tree, None)
            self._forest.harvest(tree)

    def _retry_later(self, task: Task) -> None:
        self._on_retry(task)
        delay_s = self._policy.retry_delay_s
        heapq.heappush(self._retries, (time.monotonic() + delay_s, task.index, task))
        self.loop.call_later(delay_s, _do_nothing)


def _do_nothing() -> None:
    """A turn is all that is wanted."""
