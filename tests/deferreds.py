"""Helpers for tests of what returns Deferreds of children, or claims to be what Twisted is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from support import DEADLINE_S, PYTHON, run_until

import procreactor
from procreactor.internet.defer import Deferred
from procreactor.internet.epollreactor import EPollReactor
from procreactor.python.failure import Failure

T = TypeVar("T")


class WatchedReactor(EPollReactor):
    """A reactor that remembers the transports of its children, in `spawned`."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Any] = []

    def spawnProcess(self, *args: Any, **kwargs: Any) -> Any:
        transport = super().spawnProcess(*args, **kwargs)
        self.spawned.append(transport)
        return transport

    def run_out(self) -> None:
        """Run until all children have ended and have been told of."""
        run_until(self, lambda: all(child.proto is None for child in self.spawned))


@contextmanager
def watched_reactor() -> Iterator[WatchedReactor]:
    """A reactor whose children have ended, and whose fds are closed, at the end."""
    reactor = WatchedReactor()
    try:
        yield reactor
        reactor.run_out()
    finally:
        reactor.disconnectAll()
        reactor._loop.close()


def outcome_of(reactor: EPollReactor, deferred: Deferred[Any]) -> Any:
    """Run *reactor* until *deferred* fires; return the result, or the Failure."""
    outcome: list[Any] = []

    def finish(result: Any) -> None:
        outcome.append(result)
        if reactor.running:
            reactor.crash()

    deferred.addBoth(finish)
    if not outcome:
        guard = reactor.callLater(DEADLINE_S, reactor.crash)
        reactor.run(installSignalHandlers=False)
        assert guard.active(), f"not fired, or not stopped, within {DEADLINE_S} s"
        guard.cancel()
    return outcome[0]


def result_of(reactor: EPollReactor, deferred: Deferred[T]) -> T:
    """Run *reactor* until *deferred* fires; return its result, which must be no Failure."""
    result: T = outcome_of(reactor, deferred)
    assert not isinstance(result, Failure), result.getTraceback()
    return result


def error_of(reactor: EPollReactor, deferred: Deferred[Any]) -> Any:
    """Run *reactor* until *deferred* fires; return the value of its Failure."""
    outcome = outcome_of(reactor, deferred)
    assert isinstance(outcome, Failure), outcome
    return outcome.value


def run_program(library: str, program: str) -> str:
    """Run *program* in a Python of its own, where LIBRARY in it is *library*; return its output."""
    root = Path(procreactor.__file__).parents[1]
    done = subprocess.run(
        [PYTHON, "-W", "error", "-c", program.replace("LIBRARY", library)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
