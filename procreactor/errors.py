"""What can go wrong, by kind. Imports nothing of the house.

    misuse (type, range, NUL, ...)          TypeError / ValueError, before any system call
    the kernel refused to start a child     SpawnError, below
    would block / end / peer gone           values (model.NoData)
    the child ended badly                   data (model.ExitStatus)
    a user's callback raised                logged once with the callback's name; the loop lives

`SpawnError` is an OSError, and also an instance of the subclass that Python gives that errno, so
that ``except FileNotFoundError`` and ``except PermissionError`` go on working in programs written
for subprocess. OSError picks its subclass only when called as OSError itself, hence the pairs made
here, once per errno class.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable

__all__ = [
    "SpawnError",
    "report_callback_error",
    "report_denied_waits",
    "report_survivors",
    "spawn_error",
]


class SpawnError(OSError):
    """The kernel refused to start a child; nothing is left open and no zombie remains.

    ``errno`` and ``filename`` are OSError's; ``stage`` names the step that failed (``"exec"``,
    ``"chdir"``, ``"setuid"``, ``"pipe"`` ...) and ``hint`` says what to do about it, or is "".
    """

    stage: str = ""
    hint: str = ""

    def __reduce__(self) -> tuple[object, ...]:
        """The classes of the pairs below have no name to be pickled by."""
        return spawn_error, (self.errno, self.stage, self.filename, self.hint)

    def __str__(self) -> str:
        """What was tried, on what, what the kernel said, what to do."""
        name = "" if self.filename is None else f" {os.fsdecode(self.filename)!r}"
        text = f"cannot start child: {self.stage}{name}: {self.strerror} (errno {self.errno})"
        return f"{text}; {self.hint}" if self.hint else text


_BUILTIN_KINDS = (
    BlockingIOError,
    ChildProcessError,
    FileExistsError,
    FileNotFoundError,
    InterruptedError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ProcessLookupError,
    TimeoutError,
)

_KINDS: dict[type[OSError], type[SpawnError]] = {
    kind: type(f"Spawn{kind.__name__}", (SpawnError, kind), {"__doc__": SpawnError.__doc__})
    for kind in _BUILTIN_KINDS
}

_HINTS = {
    errno.EAGAIN: "a limit on processes is reached (ulimit -u, or pids.max of the cgroup)",
    errno.EMFILE: "this process has as many open files as it may (ulimit -n)",
    errno.ENFILE: "the system has as many open files as it may (fs.file-max)",
    errno.ENOEXEC: "the file has no #! line and is no program for this machine",
    errno.E2BIG: "the arguments and environment together, or one of them alone, are too long",
    errno.ETXTBSY: "some process has the file open for writing",
}


def spawn_error(
    number: int, stage: str, filename: bytes | str | None = None, hint: str = ""
) -> SpawnError:
    """Return the SpawnError for errno *number* at *stage*, of the kind that errno has in Python.

    Without a *hint* it has what can be said of the errno alone.
    """
    kind = _KINDS.get(type(OSError(number, "")), SpawnError)
    name = os.fsdecode(filename) if filename is not None else None
    error = kind(number, os.strerror(number), name)
    error.stage = stage
    error.hint = hint or _HINTS.get(number, "")
    return error


def report_callback_error(callback: str) -> None:
    """Log the exception being handled as raised by the user's *callback*; call in ``except``.

    To be called for BaseException, because a Failure (``raise reason``) and a CancelledError are no
    Exceptions, and end no loop. KeyboardInterrupt and SystemExit, which mean to, are raised again.
    """
    if isinstance(sys.exception(), KeyboardInterrupt | SystemExit):
        raise  # in an except block of the caller
    _log(f"{callback} raised")


_denied_waits: set[int] = set()
"""The errnos of `report_denied_waits` so far."""


def report_denied_waits(number: int) -> None:
    """Log, once for each errno, that children end without a status and stay zombies."""
    if number in _denied_waits:
        return
    _denied_waits.add(number)
    try:
        raise OSError(number, os.strerror(number), "waitid")
    except OSError:
        _log("no wait for children is allowed here: their ends are told without a status")


def report_survivors(pids: Iterable[int]) -> None:
    """Log that *pids* live on, of those who were killed: if there are any."""
    if left := ", ".join(map(str, sorted(pids))):
        _log(f"killed, and alive all the same: {left}")


def _log(text: str) -> None:
    """Log *text*, with the exception being handled, if there is one.

    To import logging takes as long as a tenth of a short run of the command, so it is imported when
    there is something to log; where that fails (no fd is left), stderr has to do.
    """
    try:
        from logging import getLogger
    except (ImportError, OSError):
        sys.stderr.write(f"procreactor: {text}\n")
        if sys.exception() is not None:
            sys.excepthook(*sys.exc_info())
    else:
        getLogger("procreactor").error("%s", text, exc_info=sys.exception())
