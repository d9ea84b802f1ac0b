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

import logging
import os

__all__ = ["SpawnError", "report_callback_error", "spawn_error"]

_log = logging.getLogger("procreactor")


class SpawnError(OSError):
    """The kernel refused to start a child; nothing is left open and no zombie remains.

    ``errno`` and ``filename`` are OSError's; ``stage`` names the step that failed (``"exec"``,
    ``"chdir"``, ``"setuid"``, ``"pipe"`` ...) and ``hint`` says what to do about it, or is "".
    """

    stage: str = ""
    hint: str = ""

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


def spawn_error(
    number: int, stage: str, filename: bytes | str | None = None, hint: str = ""
) -> SpawnError:
    """Return the SpawnError for errno *number* at *stage*, of the kind that errno has in Python."""
    kind = _KINDS.get(type(OSError(number, "")), SpawnError)
    name = os.fsdecode(filename) if filename is not None else None
    error = kind(number, os.strerror(number), name)
    error.stage = stage
    error.hint = hint
    return error


def report_callback_error(callback: str) -> None:
    """Log the exception being handled as raised by the user's *callback*; call in ``except``."""
    _log.exception("%s raised", callback)
