"""The transports of child processes, by Twisted's names (twisted.internet.process).

A facade: `Process` and `PTYProcess` translate names and arguments, tell the user's protocol what
happens, and leave the work to transport/process.py. Differences from Twisted, all decided in
CONTRIBUTING.md, Decisions, or additions:

- A start that fails raises SpawnError from spawnProcess, on every path; nothing is left open.
- processExited is never called inside spawnProcess, but from the loop.
- Data before a hang-up is never lost.
- Signals may have any name ("USR1", "SIGTERM"), data may be any bytes-like object, and
  writeSequence takes any iterable.
- Beyond Twisted: `pidfd`, `rusage`, `signalTree`, and the keyword arguments of spawnProcess after
  childFDs.

Exceptions of the user's protocol are caught here, in `ChildTransport._tell`, `Process.on_data` and
`Process.on_pipe_lost`, and nowhere else. They are logged; after one from childDataReceived that
pipe is closed, as in Twisted. Methods are looked up at each call, because programs assign them on
instances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from procreactor.errors import report_callback_error
from procreactor.internet.consumer import ProducerGate
from procreactor.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from procreactor.kernel.ptys import PtyPair
from procreactor.loop.eventloop import EventLoop
from procreactor.model import ExitStatus, ResourceUsage, SpawnSpec
from procreactor.python.failure import Failure
from procreactor.transport.outbox import BytesLike
from procreactor.transport.process import ChildProcess, TerminalChild
from procreactor.transport.request import plan_signal
from procreactor.transport.writer import StreamWriter

__all__ = ["ChildTransport", "PTYProcess", "Process"]


class ChildTransport:
    """What a child on pipes and a child on a terminal have in common."""

    status = -1
    """-1 while the child runs (and when other code took its status), then that of wait(2)."""

    rusage: ResourceUsage | None = None
    """What the child used; None until it is reaped."""

    proto: Any
    """The user's protocol; None once processEnded has been called."""

    _child: ChildProcess | TerminalChild

    exited_already: type[Exception] = ProcessExitedAlready
    """What `signalProcess` raises too late."""

    def __init__(self, proto: Any, on_over: Callable[[ChildTransport], object]) -> None:
        self.proto = proto
        self._on_over = on_over
        self._gate: ProducerGate | None = None  # made for the first producer
        self._exit_reason: Any = None

    def connect(self) -> None:
        """Give the user's protocol this transport: connectionMade has been called."""
        self._tell("makeConnection", self)

    @property
    def pid(self) -> int | None:
        """The child's process id; None from processExited on."""
        return self._child.pid

    @property
    def pidfd(self) -> int | None:
        """The child's pidfd, which stays ours; None once it is reaped, or without pidfds."""
        return self._child.pidfd

    def signalProcess(self, signalID: str | int) -> None:
        """Send a signal: a number, or a name like "TERM", "KILL", "HUP", "INT", "STOP".

        Raises ProcessExitedAlready once the child is reaped, OSError for a number that is none.
        """
        number = plan_signal(signalID, "signalID")
        try:
            self._child.send_signal(number)
        except ProcessLookupError:
            raise self.exited_already from None

    def signalTree(self, signalID: str | int) -> None:
        """Send a signal to the child, its children, theirs, and all that is in its ``cgroup``.

        Raises ProcessExitedAlready when nobody is left: where no ``cgroup`` was given, once the
        child is reaped. With "KILL" it returns when all have ended, or after two seconds.
        """
        number = plan_signal(signalID, "signalID")
        try:
            self._child.send_signal_to_tree(number)
        except ProcessLookupError:
            raise self.exited_already from None

    def getHost(self) -> None:
        """A process has no address."""
        raise NotImplementedError

    def getPeer(self) -> None:
        """A process has no address."""
        raise NotImplementedError

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let *producer* feed the child's standard input; stopped at once when there is none."""
        if self._gate is None:
            writer = self._standard_input()
            if writer is None:
                producer.stopProducing()
                return
            self._gate = ProducerGate(writer)
        self._gate.register(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer has no more."""
        if self._gate is not None:
            self._gate.unregister()

    def _standard_input(self) -> StreamWriter | None:
        raise NotImplementedError

    def _stop_producer(self) -> None:
        if self._gate is not None:
            try:
                self._gate.stop()
            except BaseException:
                report_callback_error("stopProducing")

    def disconnectAll(self) -> None:
        """Close our ends at once and watch the child no longer; it is not signalled or reaped."""
        self._child.let_go()
        self._on_over(self)

    # What the child tells (transport.process.Observer).

    def on_exit(self, status: ExitStatus) -> None:
        """The child was reaped."""
        self.status = -1 if status.raw is None else status.raw
        self.rusage = status.usage
        self._exit_reason = self._reason(status)
        self._tell("processExited", self._exit_reason)

    def on_end(self, status: ExitStatus) -> None:
        """All is over."""
        reason = self._exit_reason
        if reason is None:  # an interrupt came when the exit was being told
            reason = self._reason(status)
        try:
            self._tell("processEnded", reason)
        finally:
            self.proto = None
            self._on_over(self)

    def _reason(self, status: ExitStatus) -> Any:
        """Return the Failure that tells how the child ended."""
        if status.ok:
            return Failure(ProcessDone(status.raw))
        return Failure(ProcessTerminated(status.code, status.signal, status.raw))

    def _tell(self, method: str, *args: object) -> None:
        if self.proto is None:
            return
        try:
            getattr(self.proto, method)(*args)
        except BaseException:
            report_callback_error(f"{type(self.proto).__name__}.{method}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self.pid} status={self.status}>"


class Process(ChildTransport):
    """The transport of a child on pipes; what spawnProcess returns (IProcessTransport)."""

    def __init__(
        self, loop: EventLoop, proto: Any, on_over: Callable[[ChildTransport], object]
    ) -> None:
        super().__init__(proto, on_over)
        self._child: ChildProcess = ChildProcess(loop, self)

    def start(self, spec: SpawnSpec) -> None:
        """Run the program of *spec*; SpawnError leaves nothing behind."""
        self._child.start(spec)

    def _standard_input(self) -> StreamWriter | None:
        return self._child.writer(0)

    @property
    def pipes(self) -> Mapping[int, Any]:
        """Our open ends by child fd; each has a fileno()."""
        return self._child.pipes

    # Into the child.

    def write(self, data: BytesLike) -> None:
        """Send *data* to the child's standard input; dropped when that is closed."""
        writer = self._child.writer(0)
        if writer is not None:
            writer.write(_bytes_like(data))

    def writeSequence(self, iovec: Iterable[BytesLike]) -> None:
        """Send all pieces to the child's standard input; dropped when that is closed."""
        pieces = [_bytes_like(piece) for piece in iovec]
        writer = self._child.writer(0)
        if writer is not None:
            writer.write_all(pieces)

    def writeToChild(self, childFD: int, data: BytesLike) -> None:
        """Send *data* to *childFD*; KeyError when that is no open pipe into the child."""
        self._child.write(childFD, _bytes_like(data))

    # Closing; never synchronous: childConnectionLost comes in a later turn.

    def closeChildFD(self, childFD: int) -> None:
        """Close our end of *childFD*; one into the child when all is written."""
        self._child.close_pipe(childFD)

    def closeStdin(self) -> None:
        """Close the child's standard input when all is written to it."""
        self._child.close_pipe(0)

    def closeStdout(self) -> None:
        """Close our end of the child's standard output; what it writes then gets it SIGPIPE."""
        self._child.close_pipe(1)

    def closeStderr(self) -> None:
        """Close our end of the child's standard error; what it writes then gets it SIGPIPE."""
        self._child.close_pipe(2)

    def loseConnection(self) -> None:
        """Close standard input (when all is written), error and output; other pipes stay."""
        self.closeStdin()
        self.closeStderr()
        self.closeStdout()

    # Flow control.

    def pauseProducing(self) -> None:
        """Read from none of the child's pipes until `resumeProducing`; nothing is lost."""
        self._child.pause_reading()

    def resumeProducing(self) -> None:
        """Read again."""
        self._child.resume_reading()

    # What the child tells.

    def on_data(self, child_fd: int, data: bytes) -> None:
        """The child wrote."""
        try:
            self.proto.childDataReceived(child_fd, data)
        except BaseException:
            report_callback_error(f"{type(self.proto).__name__}.childDataReceived")
            self._child.close_pipe(child_fd)

    def on_pipe_lost(self, child_fd: int) -> None:
        """A pipe is closed."""
        if child_fd == 0 and self._gate is not None:
            self._stop_producer()
        if self.proto is not None:
            try:
                self.proto.childConnectionLost(child_fd)
            except BaseException:
                report_callback_error(f"{type(self.proto).__name__}.childConnectionLost")


class PTYProcess(ChildTransport):
    """The transport of a child on a pseudo terminal.

    All output comes as childDataReceived(1); childConnectionLost is never called, as in Twisted.
    """

    def __init__(
        self, loop: EventLoop, proto: Any, on_over: Callable[[ChildTransport], object]
    ) -> None:
        super().__init__(proto, on_over)
        self._child: TerminalChild = TerminalChild(loop, self)

    def start(self, spec: SpawnSpec, pty: PtyPair) -> None:
        """Run the program of *spec* on *pty*, which is taken over on success only."""
        self._child.start(spec, pty)

    def _standard_input(self) -> StreamWriter | None:
        return self._child.writer

    def fileno(self) -> int:
        """Our end of the terminal; -1 once it is closed."""
        reader = self._child.reader
        return reader.fileno() if reader is not None and not reader.finished else -1

    def write(self, data: BytesLike) -> None:
        """Type *data* into the terminal."""
        if self._child.writer is not None:
            self._child.writer.write(_bytes_like(data))

    def writeSequence(self, iovec: Iterable[BytesLike]) -> None:
        """Type all pieces into the terminal."""
        pieces = [_bytes_like(piece) for piece in iovec]
        if self._child.writer is not None:
            self._child.writer.write_all(pieces)

    def writeToChild(self, childFD: int, data: BytesLike) -> None:
        """A terminal has one stream: NotImplementedError."""
        raise NotImplementedError("a child on a terminal has one stream; use write")

    def closeChildFD(self, descriptor: int) -> None:
        """A terminal has one stream: NotImplementedError."""
        raise NotImplementedError("a child on a terminal has one stream; use loseConnection")

    def closeStdin(self) -> None:
        """Nothing: a terminal cannot be closed in one direction."""

    def closeStdout(self) -> None:
        """Nothing: a terminal cannot be closed in one direction."""

    def closeStderr(self) -> None:
        """Nothing: a terminal cannot be closed in one direction."""

    def loseConnection(self) -> None:
        """Hang up when all is written; the child gets SIGHUP."""
        self._child.close()

    def pauseProducing(self) -> None:
        """Read nothing until `resumeProducing`."""
        if self._child.reader is not None:
            self._child.reader.pause()

    def resumeProducing(self) -> None:
        """Read again."""
        if self._child.reader is not None:
            self._child.reader.resume()

    def stopProducing(self) -> None:
        """Hang up."""
        self.loseConnection()

    def on_data(self, child_fd: int, data: bytes) -> None:
        """The child wrote."""
        try:
            self.proto.childDataReceived(child_fd, data)
        except BaseException:
            report_callback_error(f"{type(self.proto).__name__}.childDataReceived")
            self._child.close()

    def on_pipe_lost(self, child_fd: int) -> None:
        """The terminal is closed; the protocol has no method for that."""
        self._stop_producer()


_BYTES_LIKE = (bytes, bytearray, memoryview)  # a union would be made anew for each write


def _bytes_like(data: object) -> BytesLike:
    if not isinstance(data, _BYTES_LIKE):
        raise TypeError(f"Data must be bytes, not {type(data).__name__}")
    return data
