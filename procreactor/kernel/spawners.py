"""Spawns that keep nobody waiting: native threads do them, and an fd tells when they are done.

Facts (csrc/spawner.c):

- A spawn blocks its thread until the child has exec'ed: tens of microseconds for a small program on
  an idle machine, milliseconds on a busy one, as long as it takes on a file system that is slow. An
  event loop that hands its spawns over never waits for any of it, and on several CPUs they go side
  by side.
- The threads never run Python and need no GIL.
- The child gets the signal mask of the thread that submitted it; niceness, CPU affinity and
  namespaces are those of the thread that made the `Spawner`, as they were then.
- A parent death signal is tied to the thread that spawns, so a request with one is refused.
- After os.fork in the host program the copy has no such threads; a `Spawner` of the original is
  only closed there.
"""

from __future__ import annotations

import os

from procreactor.core.binding import SpawnerThreads
from procreactor.errors import SpawnError
from procreactor.kernel.children import Child
from procreactor.model import SpawnSpec

__all__ = ["MOST_THREADS", "Spawner", "Start"]

Start = tuple[Child, bool, SpawnError | None]
"""The child, whether its pidfd is watched under the key, and what went wrong, if anything did."""


MOST_THREADS = 64
"""csrc/spawner.c takes no more."""


class Spawner:
    """*threads* threads, from 1 to 64, that start children; OSError (EAGAIN, EMFILE, ENOMEM).

    For one thread. `close` it: until then the threads wait for more.
    """

    def __init__(self, threads: int) -> None:
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"threads must be from 1 to {MOST_THREADS}, not {threads}")
        self._pending: dict[int, tuple[Child, SpawnSpec]] = {}
        self._last_token = 0
        self._pid = os.getpid()
        self._is_open = True
        self._threads = SpawnerThreads(threads)

    def fileno(self) -> int:
        """An fd that is readable while `take` has something to return."""
        return self._threads.fileno()

    def __len__(self) -> int:
        """How many children were submitted and not yet taken."""
        return len(self._pending)

    def submit(self, spec: SpawnSpec, epoll_fd: int = -1, key: int = 0) -> Child:
        """Have a child started; `take` returns it again. SpawnError when refused at once.

        With a *key* (not 0) the set *epoll_fd* watches its pidfd from the start on, with *key* as
        the fd of its events, and `fileno` tells only of a start that failed, or could not be
        watched: the child's end is told by its event, for which it must have been taken.
        """
        if not self._is_open:
            raise ValueError("the spawner is closed")
        child = Child(spec)
        token = self._last_token = self._last_token + 1
        self._pending[token] = (child, spec)
        try:
            child.submit(self._threads, token, spec, epoll_fd, key)
        except Exception:
            if token not in self._threads:  # else a signal handler raised, and it is on its way
                del self._pending[token]
            raise
        return child

    def take(self) -> list[Start]:
        """Return the children whose start is over. Never blocks.

        When an exception of a signal handler passes through, those that it would have returned are
        to be abandoned by whoever has them of `submit`.
        """
        starts: list[Start] = []
        taken = self._threads.take() if self._is_open else []
        while taken:
            for token, watched in taken:
                child, spec = self._pending.pop(token)
                error = None
                try:
                    child.complete(spec)
                except SpawnError as failure:
                    child.abandon()  # it runs, where only the watch of its end failed
                    error = failure
                starts.append((child, watched, error))
            taken = self._threads.take() if len(taken) == SpawnerThreads.CAPACITY else []
        return starts

    def close(self) -> list[Start]:
        """End the threads and return, like `take`, what they had still done. Idempotent.

        Blocks for the starts that were under way; those that had not begun fail with ECANCELED.
        """
        if not self._is_open:
            return []
        rest: list[Start] = []
        if self._pid == os.getpid():
            self._threads.close()
            while starts := self.take():
                rest += starts
            self._threads.free()
            for child, _ in self._pending.values():
                child.abandon()  # taken from the threads, and lost to an exception
        else:
            self._threads.abandon()
        self._is_open = False
        self._pending.clear()
        return rest

    def __del__(self) -> None:
        if hasattr(self, "_threads"):  # an interrupt may leave the object half made
            for child, _, _ in self.close():
                child.abandon()
