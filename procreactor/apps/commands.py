"""The vocabulary of running commands: what is asked for, and what came of it. Data only.

A command is an argument vector and what may differ from one to the next; a result says how it
ended, and has its output. Neither does anything: between the two there is apps/engine.py.

Rules of the room:

* A command that ended badly is data. Only a command that could not be started has an ``error``, and
  only who asks for it (``check=True``) gets an exception.
* Exactly one of ``exit_code`` and ``signal`` is set once it has ended; both are None when it was
  not started, and when other code in this process took the status (model.ExitStatus).
"""

from __future__ import annotations

import os
import signal as signals
from collections.abc import Mapping, Sequence

from procreactor.model import ResourceUsage
from procreactor.typed import Any, Final, Generic, NamedTuple, TypeVar

__all__ = [
    "STDOUT",
    "Argument",
    "Command",
    "CommandError",
    "File",
    "Limits",
    "Result",
    "check_seconds",
]

Argument = str | bytes | os.PathLike[str] | os.PathLike[bytes]

File = int | str | bytes | os.PathLike[str] | os.PathLike[bytes] | None
"""An fd of this process, which stays open, or the name of a file, or None for the default."""

STDOUT: Final = -2
"""As ``stderr``: where stdout goes, through the same pipe. The value is that of subprocess, whose
STDOUT is taken as well."""

T = TypeVar("T", bound=str | bytes)

_LAST_LINES = 8
_LAST_BYTES = 2000


class Limits(NamedTuple):
    """What a command may use, it and all its descendants. None: as much as this process may.

    *rlimits* (``resource.RLIMIT_*`` to a limit, or a pair (soft, hard)) are setrlimit(2)'s and hold
    for each process alone. The others are a cgroup's and hold for all of them together; where no
    cgroup with that controller can be had, asking for them is an error.
    """

    rlimits: Mapping[int, int | tuple[int, int]] | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None
    """Of how many CPUs it gets the time; 0.5 is half of one."""


class Command(NamedTuple):
    """One command. What is None is as the call that runs it says for all.

    *stdin*, *stdout* and *stderr* name a file (an output file is made, or emptied) or an fd; output
    to either does not pass through this process, and is not in the result. *stderr* may also be
    `STDOUT`: the two are one stream then, in the order of the writes, and the result's ``stdout``.
    """

    argv: Sequence[Argument]
    input: bytes | str | None = None
    """Written to its standard input, which is then closed. Without it that is /dev/null."""

    cwd: Argument | None = None
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None
    """The whole environment, in place of this process's."""

    env_extra: Mapping[str, str] | None = None
    """Variables besides those."""

    timeout_s: float | None = None
    stdin: File = None
    stdout: File = None
    stderr: File = None
    tag: object = None
    """The caller's own: handed back in ``result.command``."""

    @property
    def is_merged(self) -> bool:
        """Whether its standard error goes where its standard output goes."""
        return isinstance(self.stderr, int) and self.stderr == STDOUT

    def __str__(self) -> str:
        """As one would type it into a shell."""
        import shlex

        return shlex.join(os.fsdecode(argument) for argument in self.argv)


class Result(NamedTuple, Generic[T]):
    """How one command went. A named tuple because thousands are made per second."""

    command: Command
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """Which it was: commands are counted from 0 as they are taken from the iterable."""

    pid: int | None
    """The number it had; None when it was not started."""

    exit_code: int | None
    signal: int | None
    """The signal that ended it."""

    stdout: T
    stderr: T
    timed_out: bool
    """Whether its time was over; then it was ended, if it did not end by itself."""

    truncated: bool
    """Whether some of the output was not kept: a line in the middle says how much."""

    attempts: int
    """How often it was started, or tried to be."""

    started_at: float
    """When the last attempt began, in seconds since the epoch; 0 when it never did."""

    duration_s: float
    """From there to its exit; not what others, who held its output, took after it."""

    rusage: ResourceUsage | None
    """What it and its waited-for descendants used (user_s, system_s, max_rss_bytes ...)."""

    error: OSError | None
    """Why it was not started (SpawnError), or a file of its could not be opened."""

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, in time, with exit code 0."""
        return self.exit_code == 0 and not self.timed_out

    @property
    def signal_name(self) -> str | None:
        """``"SIGKILL"`` and the like; None when no signal ended it."""
        if self.signal is None:
            return None
        try:
            return signals.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"

    @property
    def outcome(self) -> str:
        """How it went, in a few words."""
        if self.error is not None:
            return str(self.error)
        if self.exit_code is not None:
            text = f"exit code {self.exit_code}"
        elif self.signal is not None:
            text = f"ended by {self.signal_name} ({self.signal})"
        else:
            text = "its status was taken by other code in this process"
        return f"timed out after {self.duration_s:.3g} s, {text}" if self.timed_out else text

    def check(self) -> None:
        """Do nothing if it is `ok`; else raise its error, or `CommandError`."""
        if self.error is not None:
            raise self.error
        if not self.ok:
            raise CommandError(self)


def check_seconds(name: str, value: object) -> None:
    """Do nothing if *value* is a time; else TypeError or ValueError, which says *name*."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be seconds >= 0, not {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must be >= 0, not {value}")


class CommandError(Exception):
    """A command did not end well: ``result`` has all that is known.

    The message has the command, how it ended, and the last lines of its standard error, or of all
    that it wrote where the two are one.
    """

    def __init__(self, result: Result[Any]) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        """What was run, how it ended, its last words."""
        result = self.result
        text = f"{result.command}: {result.outcome}"
        last = _last_lines(result.stdout if result.command.is_merged else result.stderr)
        return f"{text}\n{last}" if last else text


def _last_lines(output: str | bytes) -> str:
    if isinstance(output, bytes):
        output = output[-_LAST_BYTES:].decode("utf-8", "replace")
    lines = output[-_LAST_BYTES:].rstrip().splitlines()[-_LAST_LINES:]
    return "\n".join(f"    {line}" for line in lines)
