"""What a Twisted program holds of a child: the house's transports, with Twisted's values.

Beyond what the transports of procreactor/internet/process.py do, programs written for Twisted find:

- Failure, ProcessDone, ProcessTerminated and ProcessExitedAlready of Twisted itself;
- ``pipes``, a dict of objects with `doRead` and `fileno`, emptied as they close;
- ``lostProcess``, and `maybeCallProcessEnded`, through which alone processEnded is told, so that a
  program that replaces it on the instance decides when;
- `reapProcess`, which whoever walks ``reapProcessHandlers`` calls;
- `connectionLost`, for who takes a reactor apart and finds the child among its selectables.

What a protocol raises is logged, SystemExit and KeyboardInterrupt too, as Twisted does: its reactor
ends by a signal's handler or by `stop`, and by no exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IConsumer, IProcessTransport, IPushProducer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from procreactor.hosts.twisted import reaping
from procreactor.internet.process import ChildTransport, Process, PTYProcess
from procreactor.kernel.pipes import try_read
from procreactor.model import END, WOULD_BLOCK, ExitStatus, SpawnSpec
from procreactor.transport.outbox import BytesLike
from procreactor.transport.reader import StreamReader
from procreactor.transport.writer import StreamWriter

__all__ = ["ChildPipe", "HostedPTYProcess", "HostedProcess", "HostedTransport"]


class ChildPipe:
    """One of our ends, as ``transport.pipes`` shows it; once it is closed, nothing works."""

    __slots__ = ("_stream", "name", "proc")

    def __init__(self, proc: HostedProcess, name: int, stream: StreamReader | StreamWriter) -> None:
        self.proc = proc
        """The transport of the child."""

        self.name = name
        """The child's fd."""

        self._stream = stream

    @property
    def connected(self) -> bool:
        """Whether it is open."""
        return not self._stream.finished

    def fileno(self) -> int:
        """Our end; -1 once it is closed."""
        return -1 if self._stream.finished else self._stream.fileno()

    def doRead(self) -> Exception | None:
        """Read once, now, and tell the protocol; CONNECTION_DONE at the end, which the loop tells.

        CONNECTION_LOST when it is closed, and for a pipe into the child.
        """
        stream = self._stream
        if stream.finished or not isinstance(stream, StreamReader):
            return CONNECTION_LOST
        data = try_read(stream.fileno())
        if data is END:
            return CONNECTION_DONE
        if data is not WOULD_BLOCK:
            self.proc.on_data(self.name, data)
        return None

    def stopReading(self) -> None:
        """Tell no data of this pipe until `startReading`."""
        if isinstance(self._stream, StreamReader):
            self._stream.pause()

    def startReading(self) -> None:
        """Go on after `stopReading`."""
        if isinstance(self._stream, StreamReader):
            self._stream.resume()

    def write(self, data: BytesLike) -> None:
        """Send *data*; dropped when this is no pipe into the child, or closed."""
        if isinstance(self._stream, StreamWriter):
            self._stream.write(data)

    def writeSequence(self, iovec: Iterable[BytesLike]) -> None:
        """Send all pieces."""
        if isinstance(self._stream, StreamWriter):
            self._stream.write_all(list(iovec))

    def loseConnection(self) -> None:
        """Close it in a later turn; a pipe into the child when all is written."""
        self.proc.closeChildFD(self.name)

    def logPrefix(self) -> str:
        """Whom log lines are about."""
        return f"{self.proc.twisteds_name} {self.name}"


def _call_logged(proto: Any, method: str, *args: object) -> None:
    try:
        getattr(proto, method)(*args)
    except BaseException:
        log.err(None, f"while calling {method}:")


class HostedTransport(ChildTransport):
    """What a child on pipes and one on a terminal have in common."""

    lostProcess = 0
    """How much of the child is over; processEnded waits for all of it."""

    twisteds_name = ""
    """The class that a program takes it for, as `repr` says it."""

    exited_already = ProcessExitedAlready
    registered_pid: int | None = None
    """The number under which it is in ``reapProcessHandlers``."""

    _given_pid: int | None = None
    _pid_is_given = False

    @property
    def pid(self) -> int | None:
        """The child's process id; None from processExited on. A program may set another."""
        return self._given_pid if self._pid_is_given else self._child.pid

    @pid.setter
    def pid(self, pid: int | None) -> None:
        self._given_pid = pid
        self._pid_is_given = True

    @property
    def is_open(self) -> bool:
        """Whether a pipe, or the terminal, is open."""
        raise NotImplementedError

    def _reason(self, status: ExitStatus) -> Failure:
        if status.ok:
            return Failure(ProcessDone(status.raw))
        return Failure(ProcessTerminated(status.code, status.signal, status.raw))

    def on_exit(self, status: ExitStatus) -> None:
        """The child was reaped."""
        self.lostProcess += 1
        self._pid_is_given = False
        reaping.unregister(self)
        super().on_exit(status)
        self._after_loss()

    def on_end(self, status: ExitStatus) -> None:
        """All is over; the protocol knows it already, unless the program holds that back."""
        self._on_over(self)

    def on_data(self, child_fd: int, data: bytes) -> None:
        """The child wrote."""
        try:
            self.proto.childDataReceived(child_fd, data)
        except BaseException:
            log.err(None, "while calling childDataReceived:")
            self._close_stream(child_fd)

    def _close_stream(self, child_fd: int) -> None:
        raise NotImplementedError

    def _tell(self, method: str, *args: object) -> None:
        if self.proto is not None:
            _call_logged(self.proto, method, *args)

    def _after_loss(self) -> None:
        try:
            self.maybeCallProcessEnded()
        except BaseException:
            log.err(None, "while calling maybeCallProcessEnded:")

    def maybeCallProcessEnded(self) -> None:
        """Tell processEnded, once, when the child is reaped and all its pipes are closed."""
        if self.proto is not None and self._is_over():
            proto, self.proto = self.proto, None
            _call_logged(proto, "processEnded", self._reason(self._child.status or ExitStatus()))

    def _is_over(self) -> bool:
        raise NotImplementedError

    def reapProcess(self) -> None:
        """Reap the child if it has ended, and tell so; nothing in a forked copy of the process."""
        try:
            self._child.try_reap()
        except ChildProcessError:
            reaping.unregister(self)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is being taken apart: close our ends."""
        self.disconnectAll()

    def __repr__(self) -> str:
        return f"<{self.twisteds_name} pid={self.pid} status={self.status}>"

    def logPrefix(self) -> str:
        """Whom log lines are about."""
        return type(self.proto).__name__ if self.proto is not None else type(self).__name__


@implementer(IProcessTransport)
class HostedProcess(HostedTransport, Process):
    """A child on pipes."""

    twisteds_name = "Process"
    _pipes: dict[int, ChildPipe]

    def start(self, spec: SpawnSpec) -> None:
        """Run the program of *spec*; SpawnError leaves nothing behind."""
        self._pipes = {}
        super().start(spec)
        for child_fd, stream in self._child.pipes.items():
            self._pipes[child_fd] = ChildPipe(self, child_fd, stream)

    @property
    def pipes(self) -> dict[int, ChildPipe]:
        """Our open ends by child fd; processEnded waits until it is empty. May be replaced."""
        return self._pipes

    @pipes.setter
    def pipes(self, pipes: dict[int, ChildPipe]) -> None:
        self._pipes = pipes

    @property
    def is_open(self) -> bool:
        """Whether a pipe is open."""
        return bool(self._child.pipes)

    def on_pipe_lost(self, child_fd: int) -> None:
        """A pipe is closed."""
        self._pipes.pop(child_fd, None)
        if child_fd == 0:
            self._stop_producer()
        self._tell("childConnectionLost", child_fd)
        if not self._pipes or "maybeCallProcessEnded" in self.__dict__:
            self._after_loss()  # else it has nothing to tell, three times per child

    def maybeCallProcessEnded(self) -> None:
        """Tell processEnded, once, when the child is reaped and all its pipes are closed."""
        if not self._pipes and not self.lostProcess:
            self.reapProcess()
        else:
            super().maybeCallProcessEnded()

    def _is_over(self) -> bool:
        return not self._pipes

    def _close_stream(self, child_fd: int) -> None:
        self._child.close_pipe(child_fd)


@implementer(IProcessTransport, IPushProducer, IConsumer)
class HostedPTYProcess(HostedTransport, PTYProcess):
    """A child on a pseudo terminal."""

    twisteds_name = "PTYProcess"

    @property
    def is_open(self) -> bool:
        """Whether the terminal is open."""
        return self.fileno() >= 0

    def on_pipe_lost(self, child_fd: int) -> None:
        """The terminal is closed; the protocol has no method for that."""
        self.lostProcess += 1
        super().on_pipe_lost(child_fd)
        self._after_loss()

    def _is_over(self) -> bool:
        return self.lostProcess > 1  # the terminal, and the child

    def _close_stream(self, child_fd: int) -> None:
        self._child.close()

    def doRead(self) -> Exception | None:
        """Read once, now, and tell the protocol."""
        reader = self._child.reader
        if reader is None or reader.finished:
            return CONNECTION_LOST
        data = try_read(reader.fileno())
        if data is END:
            return CONNECTION_DONE
        if data is not WOULD_BLOCK:
            self.on_data(1, data)
        return None
