"""Performs scenarios in one world and prints their records.

    python -m contracts.driver [--modules scenarios_*] [--timeout-s 40] WORLD [NAME ...]

One line of JSON per scenario, ``[name, record]``, in the order in which they end; all scenarios of
the modules, when no NAME is given.

The library is imported once, then each scenario runs in a fork of its own: as fresh as a new
process, and it costs milliseconds. A fork leads a session of its own, so that it and all that it
started can be killed when it is over. It writes its record into a memory file, which can be read
when its process has ended, however that was. Nothing here starts a thread or a reactor: that would
be shared by the forks.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator

from contracts import catalogue
from contracts.scenario import Record, Scenario, perform
from contracts.world import World

__all__ = ["main", "run_scenarios"]

_JOBS = 4
"""Scenarios at a time: most of one is waiting for a child."""

_TIMEOUT_S = 40.0
"""How long a scenario may take; nothing waits for it when all is well."""

_GRACE_S = 2.0
"""For one that is past its own timeout and does not even say so."""

_LOOK_S = 0.5
"""Between two looks for scenarios that are late."""

_TOLD_BY = {signal.SIGCHLD}
"""What says that one may have ended: waited for, and so blocked; pidfds are not to be had in every
world (tests/worlds)."""


class _Fork:
    """One scenario in its process."""

    def __init__(self, one: Scenario, world: World, timeout_s: float) -> None:
        self.name = one.name
        self._deadline_s = time.monotonic() + timeout_s + _GRACE_S
        self._was_late = False
        self._memory_fd = os.memfd_create("record")
        self._pid = os.fork()
        if self._pid == 0:
            _be_the_fork(one, world, timeout_s, self._memory_fd)

    def has_ended(self) -> bool:
        """Whether it is to be finished."""
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill_if_late(self) -> None:
        """End it when its time is over; it is then finished as any other."""
        if time.monotonic() > self._deadline_s:
            self._was_late = True
            self._kill()

    def finish(self) -> Record:
        """Reap it, when it has ended, and return its record."""
        self._kill()  # what it started; before the reaping, as long as the number is its own
        _, status = os.waitpid(self._pid, 0)
        with open(self._memory_fd, "rb") as memory:
            memory.seek(0)
            text = memory.read()
        if text:
            record: Record = json.loads(text)
            return record
        if self._was_late:
            return {"timed out": "and had to be killed"}
        return {"crashed": f"without a record, wait status {status}"}

    def _kill(self) -> None:
        for kill in (os.killpg, os.kill):  # it may not have made its group yet
            try:
                kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _be_the_fork(one: Scenario, world: World, timeout_s: float, memory_fd: int) -> None:
    """Play, write the record, and never return."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD_BY)
        with open(os.devnull, "r+b") as nothing:
            for standard_fd in (0, 1, 2):
                os.dup2(nothing.fileno(), standard_fd)
        # Ctrl-C works again, also where we are a shell's background job and born with it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        world.enter()
        record = perform(one, world, timeout_s)
    except BaseException:
        record = {"crashed": traceback.format_exc()}
    with open(memory_fd, "w") as memory:
        json.dump(record, memory, default=repr)
    os._exit(0)


def run_scenarios(
    scenarios: Iterable[Scenario], world: World, timeout_s: float = _TIMEOUT_S
) -> Iterator[tuple[str, Record]]:
    """Perform all of *scenarios* and yield (name, record) as they end."""
    waiting = deque(scenarios)
    running: list[_Fork] = []
    signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD_BY)
    while waiting or running:
        while waiting and len(running) < _JOBS:
            running.append(_Fork(waiting.popleft(), world, timeout_s))
        signal.sigtimedwait(_TOLD_BY, _LOOK_S)
        for fork in [fork for fork in running if fork.has_ended()]:
            running.remove(fork)
            yield fork.name, fork.finish()
        for fork in running:
            fork.kill_if_late()


def main() -> None:
    """Perform what the command line says."""
    parser = argparse.ArgumentParser(prog="contracts.driver", allow_abbrev=False)
    parser.add_argument("--modules", default=catalogue.OF_THE_CONTRACT)
    parser.add_argument("--timeout-s", type=float, default=_TIMEOUT_S)
    parser.add_argument("world")
    parser.add_argument("names", nargs="*")
    told = parser.parse_args()
    scenarios = catalogue.load(told.modules)
    chosen = [scenarios[name] for name in told.names] or scenarios.values()
    for name, record in run_scenarios(chosen, World(told.world), told.timeout_s):
        print(json.dumps([name, record]), flush=True)


if __name__ == "__main__":
    main()
