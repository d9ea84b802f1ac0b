"""Helpers for tests with real children and real reactors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.protocol import ProcessProtocol

DEADLINE_S = 30
"""How long a condition may take before the test fails; nothing waits for it when all is well."""

PYTHON = sys.executable

PROC = os.environ.get("PROCREACTOR_TESTS_PROC", "/proc")
"""Where a test finds proc(5), also in a world where the product does not."""


def _lacking() -> Iterator[str]:
    yield from filter(None, os.environ.get("PROCREACTOR_TESTS_LACK", "").split(","))
    if not _can_have_a_cgroup():
        yield "cgroup"


def _can_have_a_cgroup() -> bool:
    """Whether a cgroup v2 can be made below that of this process; asked without the product."""
    name = Path(PROC, "self/cgroup").read_text().rpartition("0::")[2].strip()
    for line in Path(PROC, "self/mounts").read_text().splitlines():
        _, mounted_at, kind, *_ = line.split()
        group = Path(mounted_at, name.lstrip("/"), f"tests-{os.getpid()}-{os.urandom(4).hex()}")
        if kind == "cgroup2":
            try:
                group.mkdir()
                group.rmdir()
            except OSError:
                continue
            return True
    return False


LACKS = frozenset(_lacking())
"""What is not to be had in the world that the tests are in (tests/worlds), or on this machine."""

LACKS_ALONE = frozenset[str]() if "bare processor" in LACKS else LACKS
"""What a process of its own lacks (alone.py): valgrind stays with this one."""


def let_waiting_threads_end() -> None:
    """Return once the threads that waited for children which have ended are gone, with their fds.

    Without pidfds there is one for each child, until a moment after its end.
    """
    for thread in threading.enumerate():
        what, _, pid = thread.name.rpartition("-")
        if what == "procreactor-wait" and _has_ended(int(pid)):
            thread.join(DEADLINE_S)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


class Recorder(ProcessProtocol):
    """Writes down every call, in order; stops its reactor at the end."""

    def __init__(self, reactor: Any = None) -> None:
        self.reactor = reactor
        self.calls: list[tuple[Any, ...]] = []
        self.data: dict[int, bytes] = {}
        self.reason: Any = None
        self.ended = False

    def connectionMade(self) -> None:
        self.calls.append(("connectionMade",))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.calls.append(("childDataReceived", childFD, data))
        self.data[childFD] = self.data.get(childFD, b"") + data

    def childConnectionLost(self, childFD: int) -> None:
        self.calls.append(("childConnectionLost", childFD))

    def processExited(self, reason: Any) -> None:
        self.calls.append(("processExited", reason.value))

    def processEnded(self, reason: Any) -> None:
        self.calls.append(("processEnded", reason.value))
        self.reason = reason
        self.ended = True

    @property
    def names(self) -> list[str]:
        """The names of the calls, in order."""
        return [call[0] for call in self.calls]

    @property
    def out(self) -> bytes:
        """All that came from the child's fd 1."""
        return self.data.get(1, b"")

    @property
    def err(self) -> bytes:
        """All that came from the child's fd 2."""
        return self.data.get(2, b"")


@contextmanager
def make_reactor() -> Iterator[EPollReactor]:
    """A reactor of the test's own, whose fds are closed at the end."""
    reactor = EPollReactor()
    try:
        yield reactor
    finally:
        reactor.disconnectAll()
        reactor._loop.close()


def run_until(
    reactor: Any, condition: Callable[[], object], deadline_s: float = DEADLINE_S
) -> None:
    """Run turns until *condition* holds; fails the test after *deadline_s*."""
    end = reactor.seconds() + deadline_s
    while not condition():
        left_s = end - reactor.seconds()
        assert left_s > 0, f"not within {deadline_s} s: {condition}"
        reactor.iterate(left_s)


def spawn_and_finish(reactor: Any, *args: Any, protocol: Any = None, **kwargs: Any) -> Any:
    """Spawn, run until processEnded, and return the protocol (a `Recorder` unless given)."""
    protocol = protocol if protocol is not None else Recorder()
    reactor.spawnProcess(protocol, *args, **kwargs)
    run_until(reactor, lambda: protocol.ended)
    return protocol


def run_python(reactor: Any, code: str, *args: str, **kwargs: Any) -> Any:
    """Run *code* in a child Python and return the `Recorder`, finished."""
    return spawn_and_finish(
        reactor, PYTHON, [PYTHON, "-I", "-S", "-c", code, *args], **{"env": None, **kwargs}
    )
