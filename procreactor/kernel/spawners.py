"""Spawns that keep nobody waiting: native threads do them, and an fd tells when they are done.

Facts (csrc/spawner.c):

- A spawn blocks its thread until the child has exec'ed: tens of microseconds for a small program on
  an idle machine, milliseconds on a busy one, as long as it takes on a file system that is slow. An
  event loop that hands its spawns over never waits for any of it, and on several CPUs they go side
  by side.
- The threads never run Python and need no GIL. A child that they keep they also see to its end: its
  exit and what it wrote, up to some 64 KiB a stream, come as one result.
- Such a child is nobody else's until it has ended or is claimed: there is no pid to signal, and
  nobody reads what it writes while it lives, so one that fills a pipe waits for the claim.
- The child gets the signal mask of the thread that submitted it; niceness, CPU affinity and
  namespaces are those of the thread that made the `Spawner`, as they were then.
- Where a sandbox lets libc make no threads (clone3 fails with EPERM) the calls here do their work:
  each start blocks the caller, and a child has his niceness, affinity and namespaces as of then.
- A parent death signal is tied to the thread that spawns, so a request with one is refused.
- After os.fork in the host program the copy has no such threads; a `Spawner` of the original is
  only closed there.
"""

from __future__ import annotations

import os
from collections import deque
from enum import IntEnum
from functools import partial

from procreactor.core import binding
from procreactor.core.binding import GATHERED_OVER, Result, Span, SpawnerThreads
from procreactor.errors import SpawnError
from procreactor.kernel import dispositions
from procreactor.kernel.children import Child
from procreactor.model import ExitStatus, SpawnSpec
from procreactor.typed import NamedTuple, new_tuple

__all__ = ["MOST_THREADS", "Finish", "JobState", "Spawner"]


MOST_THREADS = 64
"""csrc/spawner.c takes no more."""


_MOST_AT_ONCE = (1 << 31) - 1  # more than there are pids


class JobState(IntEnum):
    """Where a submitted child is (enum pr_job_state)."""

    NEW = binding.JOB_NEW
    """It never came to the threads: its submission was interrupted."""

    WAITING = binding.JOB_WAITING
    """No thread has begun it."""

    BEGUN = binding.JOB_BEGUN
    """A thread starts it, or reads what it has left."""

    RUNNING = binding.JOB_RUNNING
    FINISHED = binding.JOB_FINISHED
    """`Spawner.take` returns it, or has."""


class Finish(NamedTuple):
    """What the threads have done with one child."""

    child: Child
    """What is left of it: with *told* at `GATHERED_OVER`, or an *error*, nothing."""

    told: int
    """Which ends were seen: a set of the GATHERED bits of core/binding.py."""

    status: ExitStatus | None
    """How it ended, once that was seen."""

    data: tuple[bytes, bytes] | None
    """What its stdout and stderr brought; None for nothing."""

    error: SpawnError | None
    """Why it was not started."""

    span: Span = (-1, 0, 0)
    """Its number, when its start was begun, and when the threads reaped it, as far as they know."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of the child."""
        return self.error is not None or self.told & GATHERED_OVER == GATHERED_OVER


class Spawner:
    """*threads* threads, from 1 to 64, that start children; OSError (EAGAIN, EMFILE, ENOMEM).

    At most *at_once* children live at once, None: any number. One that `take` or `claim` gave
    before all of it was over counts until `release`.

    With *signals_stay* the program promises that it ignores no more signals than it does now, until
    `close`; what it ignores all the same, a child that is started later ignores, too.

    For one thread. `close` it: until then the threads wait for more.
    """

    def __init__(
        self, threads: int, at_once: int | None = None, *, signals_stay: bool = False
    ) -> None:
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"threads must be from 1 to {MOST_THREADS}, not {threads}")
        if at_once is not None and at_once < 1:
            raise ValueError(f"at_once must be >= 1 or None, not {at_once}")
        self._pending: dict[int, tuple[Child, SpawnSpec]] = {}
        self._handed_over: set[Child] = set()  # and not over
        self._last_token = 0
        self._pid = os.getpid()
        self._is_open = True
        self._ignored_signals = dispositions.ignored_now() if signals_stay else 0
        self._threads = SpawnerThreads(threads, min(at_once or 0, _MOST_AT_ONCE))

    def fileno(self) -> int:
        """An fd that is readable while `take` has something to return."""
        return self._threads.fileno()

    def __len__(self) -> int:
        """How many children were submitted, and neither taken nor claimed."""
        return len(self._pending)

    def __contains__(self, token: int) -> bool:
        """Whether the child of *token* is neither taken nor claimed."""
        return token in self._pending

    def submit(
        self, spec: SpawnSpec, keeps: bool, note: deque[tuple[int, Child]] | None = None
    ) -> tuple[int, Child]:
        """Have a child started; return its token, and the child that `take` will return.

        With *keeps* that is when it has ended, and its standard input, where it is a pipe, is
        closed as soon as it runs; otherwise, when it runs. SpawnError when it is refused at once.
        What is returned is appended to *note* before anything is started, so that nothing is that
        could not be claimed, whatever comes between two lines.
        """
        if not self._is_open:
            raise ValueError("the spawner is closed")
        child = Child(spec)
        token = self._last_token = self._last_token + 1
        self._pending[token] = (child, spec)
        if note is not None:
            note.append((token, child))
        try:
            child.submit(self._threads, token, spec, keeps, self._ignored_signals)
        except Exception:
            if token not in self._threads:  # else a signal handler raised, and it is on its way
                del self._pending[token]
            raise
        return token, child

    def take(self, into: deque[Finish]) -> None:
        """Append the children that the threads are done with to *into*. Waits for nothing.

        After an exception of a signal handler the next call goes on; until then what was appended
        stays where it is.
        """
        self._threads.take(partial(self._deliver, into))

    def _deliver(self, into: deque[Finish], token: int, result: Result) -> None:
        if token not in self._pending:
            return  # it was, before an interrupt
        child, spec = self._pending[token]
        if not into or into[-1].child is not child:  # else an interrupt came right after it
            told, status, data, span = result
            is_over = told & GATHERED_OVER == GATHERED_OVER
            error = None if is_over else self._hand_over(child, spec)
            into.append(new_tuple(Finish, (child, told, status, data, error, span)))
        del self._pending[token]

    def state(self, token: int) -> JobState:
        """Return where the child of *token* is, or was before it was taken or claimed."""
        if token not in self._threads:
            return JobState.FINISHED
        return JobState(self._threads.state(token))

    def claim(self, token: int, into: deque[Finish]) -> JobState:
        """Have a child that is kept for oneself: if it was RUNNING, it is appended to *into*.

        Then it is told as taken with nothing seen of its end; otherwise nothing has happened.
        """
        if token not in self._pending:
            return JobState.FINISHED
        child, spec = self._pending[token]
        span: Span = (-1, 0, 0)
        if token in self._threads:
            number, span = self._threads.claim(token)
            state = JobState(number)
        elif child.is_started:  # an interrupt came out of the middle of an earlier call
            state = JobState.RUNNING
        else:  # or out of its submission
            state = JobState.NEW
            del self._pending[token]
        if state is JobState.RUNNING:
            if not into or into[-1].child is not child:  # see `_deliver`
                error = self._hand_over(child, spec)
                into.append(Finish(child, 0, None, None, error, span))
            del self._pending[token]
        return state

    def _hand_over(self, child: Child, spec: SpawnSpec) -> SpawnError | None:
        """Make what is left of a child the caller's, for whom it counts until `release`."""
        try:
            child.complete(spec)
        except SpawnError as failure:
            if child.is_started:  # it runs, and only the watch of its end failed
                child.abandon()
                self._threads.release()
            return failure
        self._handed_over.add(child)
        return None

    def cancel(self) -> None:
        """Have those that no thread has begun fail with ECANCELED, to be taken like others."""
        self._threads.cancel()

    def release(self, child: Child) -> None:
        """Tell that a child is over which `take` gave before, or `claim`. Idempotent."""
        if self._is_open and child in self._handed_over:
            self._handed_over.discard(child)
            self._threads.release()

    def close(self, into: deque[Finish]) -> None:
        """End the threads and append, like `take`, what they had still done. Idempotent.

        Blocks for the starts that were under way; those that had not begun fail with ECANCELED,
        and children that run are the caller's.
        """
        if not self._is_open:
            return
        if self._pid == os.getpid():
            self._threads.close()
            self.take(into)
            self._threads.free()
            for child, _ in self._pending.values():
                child.abandon()  # claimed, or never begun, and lost to an exception
        else:
            self._threads.abandon()
        self._is_open = False
        self._pending.clear()
        self._handed_over.clear()

    def __del__(self) -> None:
        if hasattr(self, "_threads"):  # an interrupt may leave the object half made
            rest: deque[Finish] = deque()
            self.close(rest)
            for finish in rest:
                finish.child.abandon()
