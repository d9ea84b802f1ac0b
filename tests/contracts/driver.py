"""Performs scenarios in one world and prints their records: ``python -m contracts.driver``.

    python -m contracts.driver WORLD [NAME ...] < /dev/null

One line of JSON per scenario, ``[name, record]``, in the order in which they end; all scenarios
without a NAME.

The library is imported once, then each scenario runs in a fork of its own: as fresh as a new
process, and it costs milliseconds. A fork leads a session of its own, so that it and all that it
started can be killed when it is over. It writes its record into a memory file, which can be read
when its process has ended, however that was. Nothing here starts a thread, or a reactor, before the
fork.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator

from contracts import catalogue
from contracts.scenario import TIMEOUT_S, Record, Scenario, perform
from contracts.world import World

__all__ = ["main", "run_scenarios"]

_JOBS = 4
"""Scenarios at a time: most of one is waiting for a child."""

_GRACE_S = 10.0
"""For one that is past its own timeout and does not even say so."""


class _Fork:
    """One scenario in its process."""

    def __init__(self, one: Scenario, world: World) -> None:
        self.name = one.name
        self.deadline_s = time.monotonic() + TIMEOUT_S + _GRACE_S
        self._memory_fd = os.memfd_create("record")
        self._pid = os.fork()
        if self._pid == 0:
            _be_the_fork(one, world, self._memory_fd)
        self.pidfd = os.pidfd_open(self._pid)

    def kill(self) -> None:
        """End it, and what it started, if there is still anything to end."""
        for kill in (os.killpg, os.kill):  # the group first: it may not have been made yet
            try:
                kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def finish(self) -> Record:
        """Reap it and return its record."""
        status = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        self.kill()  # before the reaping, as long as the number is its own
        os.waitpid(self._pid, 0)
        os.close(self.pidfd)
        with open(self._memory_fd, "rb") as memory:
            memory.seek(0)
            text = memory.read()
        if not text:
            return {"crashed": f"waitid says {status.si_code if status else None}: no record"}
        record: Record = json.loads(text)
        return record


def _be_the_fork(one: Scenario, world: World, memory_fd: int) -> None:
    """Play, write the record, and never return."""
    try:
        os.setsid()
        with open(os.devnull, "r+b") as nothing:
            for standard_fd in (0, 1, 2):
                os.dup2(nothing.fileno(), standard_fd)
        record = perform(one, world)
    except BaseException:
        record = {"crashed": traceback.format_exc()}
    os.write(memory_fd, json.dumps(record, default=repr).encode())
    os._exit(0)


def run_scenarios(scenarios: Iterable[Scenario], world: World) -> Iterator[tuple[str, Record]]:
    """Perform all of *scenarios* and yield (name, record) as they end."""
    waiting = deque(scenarios)
    running: dict[int, _Fork] = {}
    while waiting or running:
        while waiting and len(running) < _JOBS:
            fork = _Fork(waiting.popleft(), world)
            running[fork.pidfd] = fork
        ended, _, _ = select.select(list(running), [], [], 1.0)
        for pidfd in ended:
            fork = running.pop(pidfd)
            yield fork.name, fork.finish()
        for fork in running.values():
            if time.monotonic() > fork.deadline_s:
                fork.kill()


def main(package: str, names: list[str]) -> None:
    """Print the record of each scenario of *names*."""
    scenarios = catalogue.load()
    chosen = [scenarios[name] for name in names] or scenarios.values()
    for name, record in run_scenarios(chosen, World(package)):
        print(json.dumps([name, record]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
