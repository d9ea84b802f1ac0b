"""Twisted's exception names (twisted.internet.error), as far as process programs meet them.

The texts are Twisted's, because programs log and sometimes match them; `ProcessTerminated` carries
the wait status and, beyond Twisted, says when the status was lost to other code.
"""

from __future__ import annotations

from collections.abc import Iterator
from signal import Signals

__all__ = [
    "AlreadyCalled",
    "AlreadyCancelled",
    "CannotListenError",
    "ConnectionAborted",
    "ConnectionClosed",
    "ConnectionDone",
    "ConnectionLost",
    "NoProtocol",
    "ProcessDone",
    "ProcessExitedAlready",
    "ProcessSignalled",
    "ProcessTerminated",
    "ReactorAlreadyInstalledError",
    "ReactorAlreadyRunning",
    "ReactorNotRestartable",
    "ReactorNotRunning",
]


class _Sentence(Exception):
    """An exception whose text is its class's sentence, then its arguments."""

    sentence = ""

    def __str__(self) -> str:
        detail = " ".join(str(arg) for arg in self.args)
        return f"{self.sentence}: {detail}." if detail else f"{self.sentence}."


class ConnectionClosed(Exception):
    """Connection was closed, whether cleanly or not."""


class ConnectionLost(_Sentence, ConnectionClosed):
    """Connection to the other side was lost in a non-clean fashion."""

    sentence = "Connection to the other side was lost in a non-clean fashion"


class ConnectionAborted(ConnectionLost):
    """Connection was aborted locally, using abortConnection."""

    sentence = "Connection was aborted locally using abortConnection"


class ConnectionDone(_Sentence, ConnectionClosed):
    """Connection was closed cleanly."""

    sentence = "Connection was closed cleanly"


class ProcessDone(ConnectionDone):
    """The child ended by itself with exit code 0."""

    sentence = "A process has ended without apparent errors"
    exitCode = 0
    signal = None

    def __init__(self, status: int | None) -> None:
        super().__init__("process finished with exit code 0")
        self.status = status


class ProcessTerminated(ConnectionLost):
    """The child ended with a non-zero exit code or by a signal.

    All three of *exitCode*, *signal* and *status* are None when other code reaped the child and the
    kernel no longer tells how it ended.
    """

    sentence = "A process has ended with a probable error condition"

    def __init__(
        self,
        exitCode: int | None = None,
        signal: int | None = None,
        status: int | None = None,
    ) -> None:
        self.exitCode = exitCode
        self.signal = signal
        self.status = status
        text = "process ended"
        if exitCode is not None:
            text += f" with exit code {exitCode}"
        if signal is not None:
            text += f" by signal {signal}"
        super().__init__(text)


class ProcessSignalled(ProcessTerminated):
    """A signal ended the child whose output was being gathered: *out* and *err*, so far.

    Ours: where Twisted fails with the tuple ``(out, err, signal)``, which can be neither raised nor
    awaited, this is raised, and still unpacks, counts and is indexed as that tuple.
    """

    signal: int

    def __init__(self, out: bytes, err: bytes, signal: int, status: int | None = None) -> None:
        super().__init__(None, signal, status)
        self.out = out
        self.err = err

    def _as_tuple(self) -> tuple[bytes, bytes, int]:
        return self.out, self.err, self.signal

    def __iter__(self) -> Iterator[bytes | int]:
        return iter(self._as_tuple())

    def __getitem__(self, index: int) -> bytes | int:
        return self._as_tuple()[index]

    def __len__(self) -> int:
        return len(self._as_tuple())

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self._as_tuple(), self.status)

    def __str__(self) -> str:
        text = f"{self.sentence}: process ended by {_name_of_signal(self.signal)}"
        last_words = self.err.strip()[-_LAST_WORDS_BYTES:].decode(errors="backslashreplace")
        return f"{text}; its standard error ended in {last_words!r}." if last_words else f"{text}."


_LAST_WORDS_BYTES = 200


def _name_of_signal(number: int) -> str:
    try:
        return f"signal {number} ({Signals(number).name})"
    except ValueError:  # a real-time signal between the first and the last
        return f"signal {number}"


class ProcessExitedAlready(Exception):
    """The child has already been reaped, so there is nothing to signal."""


class AlreadyCalled(_Sentence, ValueError):
    """Tried to cancel a call that has already been made."""

    sentence = "Tried to cancel an already-called event"


class AlreadyCancelled(_Sentence, ValueError):
    """Tried to cancel a call that has already been cancelled."""

    sentence = "Tried to cancel an already-cancelled event"


class ReactorNotRunning(RuntimeError):
    """The reactor was asked to stop while it does not run."""


class ReactorAlreadyRunning(RuntimeError):
    """The reactor was asked to run while it runs."""


class ReactorNotRestartable(RuntimeError):
    """A reactor that was stopped cannot run again."""


class ReactorAlreadyInstalledError(AssertionError):
    """A reactor is installed already, and it can not be replaced."""


class CannotListenError(OSError):
    """The address could not be listened on."""

    def __init__(self, interface: str, port: int, socketError: OSError) -> None:
        super().__init__(interface, port, socketError)
        self.interface = interface
        self.port = port
        self.socketError = socketError

    def __str__(self) -> str:
        return f"Couldn't listen on {self.interface or 'any'}:{self.port}: {self.socketError}."


class NoProtocol(Exception):
    """The protocol factory given to an endpoint returned None instead of a protocol."""
