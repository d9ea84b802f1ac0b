"""One child and what became of it, as a Deferred (twisted.internet.utils).

What holds for all three functions:

* *args* are the arguments after the program's own name. *env* is the child's whole environment:
  empty by default, None for that of this process. *reactor* is the installed one by default.
* A start that fails raises from the call (SpawnError); so do arguments of a wrong type.
* The Deferred fires when the child is reaped and its pipes are closed, so a grandchild that holds
  them holds it up.
* The child's standard input ends at once, or after *stdinBytes*: Twisted leaves it open, and then
  a child that reads it never ends.
* Cancelling the Deferred leaves the child alone, as in Twisted. It can go on writing, but what it
  writes is thrown away, and nothing is told or logged of how it ends. Beyond Twisted, with
  *cancelSignal* (a number, or a name like "TERM") it is sent that signal.

Two errors are told better than by Twisted: `ProcessSignalled` is an exception where Twisted has a
bare tuple, and `UnexpectedErrorOutput` logs nothing for a program that does not ask how the child
ended after all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from signal import NSIG
from typing import Any, Generic, TypeAlias, TypeVar

from procreactor import internet
from procreactor.errors import report_callback_error
from procreactor.internet.defer import Deferred, fail
from procreactor.internet.error import ProcessExitedAlready, ProcessSignalled
from procreactor.internet.interfaces import IProcessTransport, IReactorProcess
from procreactor.internet.protocol import ProcessProtocol
from procreactor.python.failure import Failure
from procreactor.streams.collect import Collector
from procreactor.transport.outbox import BytesLike
from procreactor.transport.request import plan_int, plan_signal

__all__ = [
    "UnexpectedErrorOutput",
    "getProcessOutput",
    "getProcessOutputAndValue",
    "getProcessValue",
]

_T = TypeVar("_T")
_Text: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def getProcessOutput(
    executable: _Text,
    args: Iterable[_Text] = (),
    env: Mapping[Any, Any] | None = {},
    path: _Text | None = None,
    reactor: IReactorProcess | None = None,
    errortoo: object = 0,
    *,
    cancelSignal: str | int | None = None,
) -> Deferred[bytes]:
    """Return the Deferred of all that the child writes to its standard output.

    With *errortoo*, standard error is part of it; without, the first bytes of that are an
    `UnexpectedErrorOutput`, at once, and the child's output is closed. However the child ends, its
    output is the result.
    """
    getter = _OutputGetter(bool(errortoo), cancelSignal)
    return _start(getter, executable, args, env, path, reactor)


def getProcessValue(
    executable: _Text,
    args: Iterable[_Text] = (),
    env: Mapping[Any, Any] | None = {},
    path: _Text | None = None,
    reactor: IReactorProcess | None = None,
    *,
    cancelSignal: str | int | None = None,
) -> Deferred[int | None]:
    """Return the Deferred of the child's exit code: None when it was ended by a signal.

    What it writes is thrown away.
    """
    return _start(_ValueGetter(cancelSignal), executable, args, env, path, reactor)


def getProcessOutputAndValue(
    executable: _Text,
    args: Iterable[_Text] = (),
    env: Mapping[Any, Any] | None = {},
    path: _Text | None = None,
    reactor: IReactorProcess | None = None,
    stdinBytes: BytesLike | None = None,
    *,
    cancelSignal: str | int | None = None,
) -> Deferred[tuple[bytes, bytes, int | None]]:
    """Return the Deferred of the child's standard output, standard error and exit code.

    It fails with `ProcessSignalled`, which unpacks as (output, error, signal), when a signal ended
    the child. The code is None when other code took the child's status.
    """
    getter = _EverythingGetter(_checked_bytes(stdinBytes), cancelSignal)
    return _start(getter, executable, args, env, path, reactor)


class UnexpectedErrorOutput(OSError):
    """The child wrote to its standard error, where that was not asked for."""

    def __init__(self, text: bytes) -> None:
        super().__init__(f"got stderr: {text!r}")
        self._reason: Failure | None = None

    @cached_property
    def processEnded(self) -> Deferred[Any]:
        """Fails with ProcessDone or ProcessTerminated once the child has ended: never succeeds.

        A failure in any case, as in Twisted, because programs add an errback and no callback. It
        is made when it is asked for: so a failure that nobody handles is one that somebody knew of.
        """
        return Deferred() if self._reason is None else fail(self._reason)

    def end(self, reason: Failure) -> None:
        """The child has ended, for *reason*: `processEnded` fires, now or when it is asked for."""
        self._reason = reason
        if "processEnded" in vars(self):
            self.processEnded.errback(reason)


class _Getter(ProcessProtocol, Generic[_T]):
    """One child on the way to its result, which *deferred* fires with."""

    transport: IProcessTransport

    def __init__(self, stdin: bytes, cancel_signal: str | int | None) -> None:
        self.deferred: Deferred[_T] = Deferred(self._on_cancel)
        self._stdin = stdin
        self._cancel_signal = _checked_signal(cancel_signal)

    def connectionMade(self) -> None:
        self.transport.write(self._stdin)
        self.transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        # After a cancel the pipes are still emptied, or the child would be stuck in its write.
        if not self.deferred.called:
            super().childDataReceived(childFD, data)

    def processEnded(self, reason: Failure) -> None:
        if not self.deferred.called:
            self.deferred.callback(self._result(reason))

    def _result(self, reason: Failure) -> _T | Failure:
        """Return what the Deferred shall fire with."""
        raise NotImplementedError

    def _on_cancel(self, _: Deferred[_T]) -> None:
        if self._cancel_signal is None:
            return
        try:
            self.transport.signalProcess(self._cancel_signal)
        except ProcessExitedAlready:
            pass  # and a grandchild holds its pipes
        except OSError:
            # Of a child that runs as somebody else, like sudo. The Deferred must fire all the same.
            report_callback_error("cancelSignal")


class _OutputGetter(_Getter[bytes]):
    def __init__(self, errortoo: bool, cancel_signal: str | int | None) -> None:
        super().__init__(b"", cancel_signal)
        self._errortoo = errortoo
        self._output = Collector()
        self._error: UnexpectedErrorOutput | None = None

    def outReceived(self, data: bytes) -> None:
        self._output.append(data)

    def errReceived(self, data: bytes) -> None:
        if self._errortoo:
            self._output.append(data)
        else:
            self._error = UnexpectedErrorOutput(data)
            self.transport.loseConnection()
            self.deferred.errback(self._error)

    def processEnded(self, reason: Failure) -> None:
        super().processEnded(reason)
        if self._error is not None:
            self._error.end(reason)

    def _result(self, reason: Failure) -> bytes:
        return self._output.getvalue()


class _ValueGetter(_Getter[int | None]):
    def __init__(self, cancel_signal: str | int | None) -> None:
        super().__init__(b"", cancel_signal)

    def _result(self, reason: Failure) -> int | None:
        code: int | None = reason.value.exitCode
        return code


class _EverythingGetter(_Getter[tuple[bytes, bytes, int | None]]):
    def __init__(self, stdin: bytes, cancel_signal: str | int | None) -> None:
        super().__init__(stdin, cancel_signal)
        self._out = Collector()
        self._err = Collector()

    def outReceived(self, data: bytes) -> None:
        self._out.append(data)

    def errReceived(self, data: bytes) -> None:
        self._err.append(data)

    def _result(self, reason: Failure) -> tuple[bytes, bytes, int | None] | Failure:
        out, err, how = self._out.getvalue(), self._err.getvalue(), reason.value
        if how.signal is not None:
            return Failure(ProcessSignalled(out, err, how.signal, how.status))
        return out, err, how.exitCode


def _start(
    getter: _Getter[_T],
    executable: _Text,
    args: Iterable[_Text],
    env: Mapping[Any, Any] | None,
    path: _Text | None,
    reactor: IReactorProcess | None,
) -> Deferred[_T]:
    if isinstance(args, str | bytes):
        raise TypeError(f"args must be a list or tuple of str or bytes, not {args!r}")
    spawner: IReactorProcess = internet.reactor if reactor is None else reactor
    spawner.spawnProcess(getter, executable, [executable, *args], env, path)
    return getter.deferred


def _checked_bytes(data: object) -> bytes:
    if data is None:
        return b""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"stdinBytes must be bytes, not {type(data).__name__}")
    return bytes(data)


def _checked_signal(signal: str | int | None) -> int | None:
    if signal is None:
        return None
    return plan_int(plan_signal(signal, "cancelSignal"), "cancelSignal", 1, NSIG - 1)
