"""Children that are spawned by a scenario, and what their protocol was told.

A record must hold in every run, so it has no order of events in it that is not promised. What is
promised of every child's story are the `LAWS`; a story names those that were broken.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from contracts.scenario import Record, happens, until
from contracts.world import World
from support import PROC

__all__ = [
    "CAT",
    "SH",
    "Hooks",
    "Recording",
    "attempt",
    "describe",
    "end_of",
    "has_stopped",
    "open_fds",
    "outcome",
    "python",
    "reason_text",
    "recording",
    "sh",
    "spawn",
    "wait_for_zombie",
]

SH = "/bin/sh"
CAT = "/bin/cat"

Call = tuple[Any, ...]
Hooks = Mapping[str, Callable[..., object]]


class Recording:
    """The protocol of a recorded child: writes each call down, then does what is hooked to it.

    A hook is called as ``hook(recording, *arguments of the call)``, and may raise.
    """

    transport: Any = None

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = dict(hooks)
        self.calls: list[Call] = []
        self.data: dict[int, bytes] = {}

    def connectionMade(self) -> None:
        self._note("connectionMade")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.data[childFD] = self.data.get(childFD, b"") + data
        self._note("childDataReceived", childFD, data)

    def childConnectionLost(self, childFD: int) -> None:
        self._note("childConnectionLost", childFD)

    def processExited(self, reason: Any) -> None:
        self._note("processExited", reason)

    def processEnded(self, reason: Any) -> None:
        self._note("processEnded", reason)

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        name, *arguments = call
        if name in self.hooks:
            self.hooks[name](self, *arguments)

    # What has been told so far.

    @property
    def names(self) -> list[str]:
        """The names of the calls, in order."""
        return [call[0] for call in self.calls]

    def is_over(self) -> bool:
        """Whether processEnded has been called."""
        return "processEnded" in self.names

    def has_exited(self) -> bool:
        """Whether processExited has been called."""
        return "processExited" in self.names

    def has_lost(self, child_fd: int) -> bool:
        """Whether childConnectionLost has been called for *child_fd*."""
        return ("childConnectionLost", child_fd) in self.calls

    def text(self, child_fd: int = 1) -> str:
        """All that came from *child_fd*."""
        return self.data.get(child_fd, b"").decode(errors="backslashreplace")

    def reason(self, name: str = "processEnded") -> Any:
        """The Failure that *name* was called with; None when it was not."""
        return next((call[1] for call in self.calls if call[0] == name), None)

    def story(self) -> Record:
        """All that is promised of this child, and how far it has come."""
        return {
            "broken laws": [law for law, holds in LAWS.items() if not holds(self.calls)],
            "data": {str(child_fd): self.text(child_fd) for child_fd in sorted(self.data)},
            "lost": sorted(call[1] for call in self.calls if call[0] == "childConnectionLost"),
            "exited": reason_text(self.reason("processExited")),
            "ended": reason_text(self.reason("processEnded")),
        }

    def summary(self) -> str:
        """How the child ended and what it said, in one line.

        A child of the real Twisted that could not become the program writes a traceback of our own
        program and ends, somehow.
        """
        for fd in self.data:
            if "Traceback (most recent call last)" in self.text(fd):
                return f"a child that is none, and a traceback on fd {fd}"
        said = (f"{fd}: {self.text(fd)!r}" for fd in sorted(self.data))
        return "; ".join([reason_text(self.reason()), *said])


def reason_text(reason: Any) -> str:
    """A Failure of processExited or processEnded in words; "" for none."""
    if reason is None:
        return ""
    value = reason.value
    return f"{type(value).__name__}({value.exitCode}, {value.signal}, {value.status})"


# -- what is promised of every child ---------------------------------------------------------------


def _is_first(name: str) -> Callable[[list[Call]], bool]:
    return lambda calls: not calls or calls[0][0] == name


def _at_most_once(name: str) -> Callable[[list[Call]], bool]:
    return lambda calls: [call[0] for call in calls].count(name) <= 1


def _nothing_after_the_end(calls: list[Call]) -> bool:
    names = [call[0] for call in calls]
    return "processEnded" not in names or names[-1] == "processEnded"


def _exit_before_end(calls: list[Call]) -> bool:
    names = [call[0] for call in calls]
    if "processEnded" not in names:
        return True
    return "processExited" in names[: names.index("processEnded")]


def _each_pipe_lost_once(calls: list[Call]) -> bool:
    lost = [call[1] for call in calls if call[0] == "childConnectionLost"]
    return len(lost) == len(set(lost))


def _data_before_the_loss_of_its_pipe(calls: list[Call]) -> bool:
    lost = set()
    for name, *arguments in calls:
        if name == "childConnectionLost":
            lost.add(arguments[0])
        if name == "childDataReceived" and arguments[0] in lost:
            return False
    return True


def _no_empty_data(calls: list[Call]) -> bool:
    return all(call[2] for call in calls if call[0] == "childDataReceived")


def _both_reasons_alike(calls: list[Call]) -> bool:
    reasons = [reason_text(call[1]) for call in calls if call[0].startswith("process")]
    return len(set(reasons)) <= 1


LAWS: dict[str, Callable[[list[Call]], bool]] = {
    "connectionMade comes first": _is_first("connectionMade"),
    "connectionMade comes once": _at_most_once("connectionMade"),
    "processExited comes once": _at_most_once("processExited"),
    "processEnded comes once": _at_most_once("processEnded"),
    "nothing comes after processEnded": _nothing_after_the_end,
    "processExited comes before processEnded": _exit_before_end,
    "both are told the same reason": _both_reasons_alike,
    "each pipe is lost once": _each_pipe_lost_once,
    "data comes before the loss of its pipe": _data_before_the_loss_of_its_pipe,
    "data is never empty": _no_empty_data,
}
"""What holds of the calls of every child, over or not, whatever a program does."""


# -- spawning --------------------------------------------------------------------------------------


def recording(world: World, on: Hooks | None = None) -> Any:
    """A `Recording` that is a ProcessProtocol of *world*."""
    protocol = type("Recorded", (Recording, world.protocol.ProcessProtocol), {})
    return protocol(on or {})


def spawn(world: World, *argv: str | bytes, on: Hooks | None = None, **options: Any) -> Any:
    """Spawn *argv* with our environment, and return its `Recording`."""
    child = recording(world, on)
    world.reactor.spawnProcess(child, argv[0], list(argv), **{"env": None, **options})
    return child


def sh(world: World, script: str, *args: str, **options: Any) -> Any:
    """`spawn` a shell script; *args* are its $1 and so on."""
    return spawn(world, SH, "-c", script, "sh", *args, **options)


def python(world: World, code: str, *args: str, **options: Any) -> Any:
    """`spawn` a Python program; *args* are its sys.argv[1:]."""
    return spawn(world, sys.executable, "-I", "-S", "-c", code, *args, **options)


async def end_of(child: Any) -> Record:
    """The story of *child*, once it is over."""
    await until(child.is_over)
    story: Record = child.story()
    return story


def wait_for_zombie(child: Any, *_: object) -> None:
    """Return when *child* has ended; it is not reaped. Nothing else runs meanwhile."""
    os.waitid(os.P_PID, child.transport.pid, os.WEXITED | os.WNOWAIT)


def has_stopped(child: Any) -> bool:
    """Whether *child*, which runs, is stopped by a signal."""
    state = os.waitid(os.P_PID, child.transport.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG)
    return state is not None


# -- what a call does ------------------------------------------------------------------------------


def describe(error: BaseException) -> str:
    """The kind of *error* that programs can catch: its public class, and its errno, if any."""
    if isinstance(error, OSError) and error.errno is not None:
        kind = type(OSError(error.errno, ""))
        return f"{kind.__name__} {errno.errorcode.get(error.errno, error.errno)}"
    return next(kind.__name__ for kind in type(error).__mro__ if not kind.__name__.startswith("_"))


def outcome(call: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """Call, and say what was returned or raised."""
    try:
        return f"returned {call(*args, **kwargs)!r}"
    except Exception as error:
        return f"raised {describe(error)}"


def open_fds() -> list[int]:
    """The open fds of this process."""
    with os.scandir(f"{PROC}/self/fd") as entries:
        fds = [int(entry.name) for entry in entries]
    return sorted(fd for fd in fds if _is_open(fd))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def attempt(world: World, *args: Any, **kwargs: Any) -> Record:
    """What comes of ``spawnProcess(a recording, *args, **kwargs)``.

    A start that fails is told with what it left behind, which should be nothing.
    """
    child = recording(world)
    reactor = world.reactor  # makes fds of its own when it is made
    before = open_fds()
    try:
        reactor.spawnProcess(child, *args, **kwargs)
    except Exception as error:
        await happens(child.is_over, within_s=0.05)
        left = [*child.names, *_fds_since(before), *_children()]
        return {"result": f"raised {describe(error)}" + (f", left {left}" if left else "")}
    await until(child.is_over)
    return {"result": child.summary()}


def _children() -> list[str]:
    """The children of this process that have ended and were not reaped, or that still run."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return [f"zombie {ended.si_pid}" if ended else "a child that runs"]


def _fds_since(before: list[int]) -> list[str]:
    return [f"fd {fd}" for fd in open_fds() if fd not in before]
