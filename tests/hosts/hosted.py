"""What the tests of Twisted's reactor with our children share.

Each test has a `ProcreactorReactor` of its own, beside the stock reactor of this process, and takes
it apart as Twisted's own ReactorBuilder does. What a program's callback raises is logged and goes
no further, so an assertion in a callback would be lost: `Witness` writes down, the test judges, and
`logged_errors` fails a test that leaves an error in Twisted's log which it did not ask for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import DEADLINE_S
from twisted.internet import process
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from procreactor.hosts.twisted import ProcreactorReactor

__all__ = [
    "HOW",
    "SHELL",
    "Gate",
    "LoggedErrors",
    "Witness",
    "logged_errors",
    "make_hosted",
    "run_to_the_end",
    "shell",
    "signals_kept",
    "take_apart",
    "wait_for_zombie",
]

SHELL = "/bin/sh"

HOW: dict[str, dict[str, Any]] = {"pipes": {}, "terminal": {"usePTY": True}}
"""Arguments of spawnProcess for either kind of transport."""


# --- reactors -------------------------------------------------------------------------------------


def take_apart(reactor: Any) -> None:
    """Close all that *reactor* has of its own: internal readers, threads, epoll set.

    In the order of Twisted's ReactorBuilder, which does without the last two.
    """
    reactor._uninstallHandler()
    for reader in list(reactor._internalReaders):
        reactor.removeReader(reader)
        reader.connectionLost(None)
    reactor._internalReaders.clear()
    reactor.disconnectAll()
    for call in reactor.getDelayedCalls():
        call.cancel()
    if reactor.threadpool is not None:
        reactor._stopThreadPool()
    reactor._poller.close()


@contextmanager
def make_hosted() -> Iterator[ProcreactorReactor]:
    """A reactor of the test's own, taken apart at the end; its children must be reaped by then."""
    before = dict(process.reapProcessHandlers)
    reactor = ProcreactorReactor()
    try:
        yield reactor
        left = process.reapProcessHandlers.keys() - before.keys()
        assert not left, f"left in reapProcessHandlers: {left}"
    finally:
        take_apart(reactor)
        for pid in process.reapProcessHandlers.keys() - before.keys():
            _end(pid)


def _end(pid: int) -> None:
    """Kill and reap a child that a test which fails has left, so that the next does not meet it."""
    transport = process.reapProcessHandlers[pid]
    try:
        os.kill(pid, signal.SIGKILL)
        wait_for_zombie(pid)
        transport.reapProcess()
    except BaseException:
        pass  # other code had it, or its protocol raises, which is what the test is about
    process.reapProcessHandlers.pop(pid, None)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Put back all signal handlers, which Twisted leaves as they were while a reactor ran."""
    numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)


# --- what a program is told -----------------------------------------------------------------------


class Witness(ProcessProtocol):
    """Writes down every call, and then acts: ``Witness(processExited=f)`` calls f(witness)."""

    transport: Any

    def __init__(self, **acts: Callable[[Witness], object]) -> None:
        self.acts = acts
        self.calls: list[tuple[Any, ...]] = []
        self.data: dict[int, bytes] = {}
        self.reason: Any = None
        self.ended = False

    def _note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if name in self.acts:
            self.acts[name](self)

    def connectionMade(self) -> None:
        self._note("connectionMade")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.data[childFD] = self.data.get(childFD, b"") + data
        self._note("childDataReceived", childFD)

    def childConnectionLost(self, childFD: int) -> None:
        self._note("childConnectionLost", childFD)

    def processExited(self, reason: Any) -> None:
        self.reason = reason
        self._note("processExited")

    def processEnded(self, reason: Any) -> None:
        self.reason = reason
        self.ended = True
        self._note("processEnded")

    @property
    def names(self) -> list[str]:
        """The names of the calls, in order."""
        return [call[0] for call in self.calls]

    @property
    def exited(self) -> bool:
        """Whether processExited has been called."""
        return "processExited" in self.names

    @property
    def out(self) -> bytes:
        """All that came from the child's fd 1."""
        return self.data.get(1, b"")

    @property
    def lost(self) -> list[int]:
        """The pipes of which it was told that they are closed, in that order."""
        return [call[1] for call in self.calls if call[0] == "childConnectionLost"]

    @property
    def end(self) -> tuple[int | None, int | None]:
        """Exit code and signal, once both ends were told, once each, and processEnded last."""
        names = self.names
        assert names[0] == "connectionMade"
        assert names.count("processExited") == names.count("processEnded") == 1, names
        assert names[-1] == "processEnded", names
        return self.reason.value.exitCode, self.reason.value.signal


def run_to_the_end(reactor: Any, *witnesses: Witness, signals: bool = False) -> None:
    """Let *reactor* run, as a program does, until all of *witnesses* were told processEnded."""

    def look(witness: Witness | None = None) -> None:
        if all(one.ended for one in witnesses):
            reactor.crash()

    for witness in witnesses:
        assert "processEnded" not in witness.acts
        witness.acts["processEnded"] = look
    reactor.callWhenRunning(look)
    deadline = reactor.callLater(DEADLINE_S, reactor.crash)
    reactor.run(installSignalHandlers=signals)
    assert deadline.active(), f"not within {DEADLINE_S} s: {[one.names for one in witnesses]}"
    deadline.cancel()


# --- children -------------------------------------------------------------------------------------


def shell(reactor: Any, witness: Witness | None, script: str, *args: str, **kwargs: Any) -> Any:
    """Return the transport of a shell that runs *script*, whose $1 and so on are *args*."""
    argv = ["sh", "-c", script, "sh", *args]
    return reactor.spawnProcess(witness, SHELL, argv, **{"env": None, **kwargs})


class Gate:
    """Where a child waits until it is let through: ``read go <PATH`` in a shell.

    A named pipe, so that it is no fd of the child's that the test would have to speak of.
    """

    def __init__(self, folder: Path, name: str = "gate") -> None:
        self.path = str(folder / name)
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)

    def open(self) -> None:
        """Let one through, now or when it comes."""
        os.write(self._fd, b"go\n")

    def close(self) -> None:
        """Close our fd. Who comes later finds no gate; what we wrote for him is gone with us."""
        os.unlink(self.path)
        os.close(self._fd)


def wait_for_zombie(pid: int | None) -> None:
    """Return once *pid*, a child, has ended; it is still to be reaped."""
    assert pid is not None
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


# --- Twisted's log --------------------------------------------------------------------------------


class LoggedErrors:
    """The Failures that were logged and not yet flushed."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure") or event.get("failure")  # the new logger's, or log.err's
        if failure is not None:
            self.failures.append(failure)

    def flush(self, *kinds: type[BaseException]) -> list[BaseException]:
        """Return what was logged of *kinds*, and forget it."""
        found = [failure for failure in self.failures if failure.check(*kinds)]
        self.failures = [failure for failure in self.failures if failure not in found]
        return [failure.value for failure in found]


@contextmanager
def logged_errors() -> Iterator[LoggedErrors]:
    """Collect the errors in Twisted's log; any that is not flushed fails the test."""
    errors = LoggedErrors()
    globalLogPublisher.addObserver(errors)
    try:
        yield errors
    finally:
        globalLogPublisher.removeObserver(errors)
    left = [failure.getTraceback() for failure in errors.failures]
    assert not left, "logged, and not asked for:\n" + "\n".join(left)
