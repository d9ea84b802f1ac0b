"""Failure: an error as a value, to be passed to callbacks that nobody waits in (Twisted's names).

* One Failure is made per child that ends, so making one is cheap: it stores three references and
  looks at no frame. What a traceback says is read when somebody asks for it.
* The value may be anything. One that is not an exception (a tuple, say) cannot be raised, so then
  the Failure itself is raised, and a Failure made while handling it is the same error again:
  nothing is lost on the way. Twisted raises an AttributeError about ``with_traceback`` here.
* A Failure is a BaseException, as in Twisted: ``raise reason`` in a callback passes it on, and no
  ``except Exception`` on the way takes it for an error of its own.
* `Failure.check` compares classes by identity, along the method resolution order, and names by
  ``module.name``. Twisted compares names only, so that two classes of one name pass for each other.
"""

from __future__ import annotations

import io
import linecache
import logging
import sys
import traceback
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Literal, NoReturn, TextIO, TypeAlias, TypeVar

__all__ = ["Failure", "NoCurrentExceptionError"]

_log = logging.getLogger("procreactor")

_Class: TypeAlias = type[Any]  # in Failure's body, `type` is the attribute
_Wanted = TypeVar("_Wanted", bound=type[Any] | str)
_Detail: TypeAlias = Literal["brief", "default"]
_Frame: TypeAlias = tuple[str, str, int, tuple[()], tuple[()]]


class NoCurrentExceptionError(Exception):
    """A Failure was to be made of the exception being handled, and none is."""


class Failure(BaseException):
    """An error and, if it was raised, its traceback.

    *exc_value* is any object; without it, the Failure is of the exception being handled (and
    NoCurrentExceptionError is raised if there is none). A Failure made of a Failure is the same
    error. *exc_type* and *exc_tb* replace what *exc_value* says of itself.
    """

    __slots__ = ("_frames", "tb", "type", "value")

    value: Any
    """What went wrong. Typed Any: programs read ``reason.value.exitCode`` without a cast."""

    type: _Class
    tb: TracebackType | None
    """Where it was raised; None when it never was."""

    def __init__(
        self,
        exc_value: object = None,
        exc_type: _Class | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        if exc_value is None:
            exc_value = sys.exc_info()[1]
            if exc_value is None:
                raise NoCurrentExceptionError("no exception is being handled")
        if isinstance(exc_value, Failure):
            self._copy(exc_value)
            return
        self.value = exc_value
        self.type = exc_type or type(exc_value)
        self.tb = exc_tb or getattr(exc_value, "__traceback__", None)
        self._frames: list[_Frame] | None = None

    def _copy(self, other: Failure) -> None:
        self.value = other.value
        self.type = other.type
        self.tb = other.tb
        self._frames = other._frames

    # What is it?

    def check(self, *errorTypes: _Wanted) -> _Wanted | None:
        """Return the first of *errorTypes* that the error is an instance of, or None.

        An error type is a class, or the ``"module.name"`` of one.
        """
        classes = self.type.__mro__
        for wanted in errorTypes:
            if wanted in classes:
                return wanted
            if isinstance(wanted, str) and wanted in map(_qualified_name, classes):
                return wanted
        return None

    def trap(self, *errorTypes: _Wanted) -> _Wanted:
        """Return as `check` does; raise the error again when it is none of *errorTypes*."""
        found = self.check(*errorTypes)
        if found is None:
            self.raiseException()
        return found

    # Back to exceptions

    def raiseException(self) -> NoReturn:
        """Raise the value, with the traceback it had; or the Failure, if the value cannot be."""
        raise self._exception()

    def throwExceptionIntoGenerator(
        self, g: Generator[Any, Any, Any] | Coroutine[Any, Any, Any]
    ) -> object:
        """Raise the error inside *g*, where it waits; return what *g* yields next."""
        return g.throw(self._exception())

    def _exception(self) -> BaseException:
        if isinstance(self.value, BaseException):
            return self.value.with_traceback(self.tb)
        return self

    # Where did it come from?

    @property
    def frames(self) -> list[_Frame]:
        """The calls the error came through, outermost first.

        Each is (function, file, line, (), ()): Twisted has local and global variables in the empty
        places, on demand; here a debugger finds them in the traceback.
        """
        if self._frames is not None:
            return self._frames
        return [
            (frame.f_code.co_name, frame.f_code.co_filename, line, (), ())
            for frame, line in traceback.walk_tb(self.tb)
        ]

    def getTracebackObject(self) -> TracebackType | None:
        """Return the traceback, or None if there is none (any more: see `cleanFailure`)."""
        return self.tb

    def cleanFailure(self) -> None:
        """Let go of the traceback, and with it of all local variables; the text of it stays."""
        self._frames = self.frames
        self.tb = None
        if isinstance(self.value, BaseException):
            self.value.__traceback__ = None

    def __reduce__(self) -> tuple[object, ...]:
        """Tracebacks can not be pickled: a copy is like a cleaned Failure."""
        return _restored, (self.value, self.type, self.frames)

    # Texts

    def getErrorMessage(self) -> str:
        """Return the value as a text; never raises."""
        return _safe_text(self.value)

    def getTraceback(self, elideFrameworkCode: object = None, detail: _Detail = "default") -> str:
        """Return what `printTraceback` prints."""
        text = io.StringIO()
        self.printTraceback(text, elideFrameworkCode, detail)
        return text.getvalue()

    def getBriefTraceback(self) -> str:
        """Return what `printBriefTraceback` prints."""
        return self.getTraceback(detail="brief")

    def printBriefTraceback(
        self, file: TextIO | None = None, elideFrameworkCode: object = None
    ) -> None:
        """Print the traceback, one short line per call."""
        self.printTraceback(file, detail="brief")

    def printTraceback(
        self,
        file: TextIO | None = None,
        elideFrameworkCode: object = None,
        detail: _Detail = "default",
    ) -> None:
        """Print the error and where it came from to *file*, or else log it as an error.

        *detail* is ``"default"`` or ``"brief"``; *elideFrameworkCode* is ignored, as in Twisted.
        """
        if detail not in ("default", "brief"):
            raise ValueError(f"detail must be 'default' or 'brief', not {detail!r}")
        text = self._brief_text() if detail == "brief" else self._default_text()
        if file is None:
            _log.error("%s", text)
        else:
            file.write(text)

    def _brief_text(self) -> str:
        title = "Traceback" if self.frames else "Traceback (failure with no frames)"
        calls = [f"{file}:{line}:{name}\n" for name, file, line, _, _ in self.frames]
        return f"{title}: {self.type}: {self.getErrorMessage()}\n{''.join(calls)}"

    def _default_text(self) -> str:
        calls = "".join(
            f'  File "{file}", line {line}, in {name}\n'
            f"    {linecache.getline(file, line).strip()}\n"
            for name, file, line, _, _ in self.frames
        )
        error = f"{_qualified_name(self.type)}: {self.getErrorMessage()}\n"
        return f"Traceback (most recent call last):\n{calls or 'Failure: '}{error}"

    def __str__(self) -> str:
        return f"[Failure instance: {self._brief_text()}]"

    def __repr__(self) -> str:
        names = f"{_qualified_name(type(self))} {_qualified_name(self.type)}"
        return f"<{names}: {self.getErrorMessage()}>"


def _restored(value: object, kind: type[Any], frames: list[_Frame]) -> Failure:
    failure = Failure(value, kind)
    failure.tb = None
    failure._frames = frames
    return failure


def _qualified_name(kind: type[Any]) -> str:
    # Twisted's "full name": __name__ even for a class inside another one.
    return f"{kind.__module__}.{kind.__name__}"


def _safe_text(value: object) -> str:
    """Return *value* as a text, whatever it is: bytes as UTF-8, and no error from a bad __str__."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    try:
        return str(value)
    except Exception as error:
        name, problem = type(value).__name__, type(error).__name__
        return f"<{name} instance at {id(value):#x}: its str raised {problem}>"
