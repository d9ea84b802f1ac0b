"""The transports of child processes, by Twisted's names (twisted.internet.process).

A facade: `Process` and `PTYProcess` translate names and arguments, tell the user's protocol what
happens, and leave the work to transport/process.py. Differences from Twisted, all decided in
house.md, section 7, or additions:

- A start that fails raises SpawnError from spawnProcess, on every path; nothing is left open.
- processExited is never called inside spawnProcess, but from the loop.
- Data before a hang-up is never lost.
- Signals may have any name ("USR1", "SIGTERM"), data may be any bytes-like object, and
  writeSequence takes any iterable.
- Beyond Twisted: `pidfd`, `rusage`, and the keyword arguments of `spawn_process` after childFDs.

Exceptions of the user's protocol are caught here, in `_Transport._tell` and `Process.on_data`, and
nowhere else. They are logged; after one from childDataReceived that pipe is closed, as in Twisted.
Methods are looked up at each call, because programs assign them on instances.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from procreactor.errors import report_callback_error, spawn_error
from procreactor.internet.consumer import ProducerGate
from procreactor.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from procreactor.kernel.ptys import PtyPair, open_pty
from procreactor.kernel.users import resolve_identity
from procreactor.loop.eventloop import EventLoop
from procreactor.model import ExitStatus, ResourceUsage, SpawnSpec
from procreactor.python.failure import Failure
from procreactor.transport.outbox import BytesLike
from procreactor.transport.process import ChildProcess, TerminalChild
from procreactor.transport.redirects import plan_redirects
from procreactor.transport.request import (
    encode_argv,
    encode_env,
    encode_path,
    find_candidates,
    plan_int,
    plan_rlimits,
    plan_signal,
    plan_signals,
)

__all__ = ["PTYProcess", "Process", "spawn_process"]

_ID_MAX = (1 << 32) - 2
_FD_MAX = (1 << 31) - 1


def _reason(status: ExitStatus) -> Failure:
    if status.ok:
        return Failure(ProcessDone(status.raw))
    return Failure(ProcessTerminated(status.code, status.signal, status.raw))


class _Transport:
    """What a child on pipes and a child on a terminal have in common."""

    status = -1
    """-1 while the child runs (and when other code took its status), then that of wait(2)."""

    rusage: ResourceUsage | None = None
    """What the child used; None until it is reaped."""

    proto: Any
    """The user's protocol; None once processEnded has been called."""

    _child: ChildProcess | TerminalChild

    def __init__(self, proto: Any, on_over: Callable[[_Transport], object]) -> None:
        self.proto = proto
        self._on_over = on_over

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
            raise ProcessExitedAlready from None

    def getHost(self) -> None:
        """A process has no address."""
        raise NotImplementedError

    def getPeer(self) -> None:
        """A process has no address."""
        raise NotImplementedError

    def disconnectAll(self) -> None:
        """Close our ends at once and watch the child no longer; it is not signalled or reaped."""
        self._child.let_go()
        self._on_over(self)

    # What the child tells (transport.process.Observer).

    def on_exit(self, status: ExitStatus) -> None:
        """The child was reaped."""
        self.status = -1 if status.raw is None else status.raw
        self.rusage = status.usage
        self._exit_reason = _reason(status)
        self._tell("processExited", self._exit_reason)

    def on_end(self, status: ExitStatus) -> None:
        """All is over."""
        self._tell("processEnded", self._exit_reason)
        self.proto = None
        self._on_over(self)

    def _tell(self, method: str, *args: object) -> None:
        if self.proto is None:
            return
        try:
            getattr(self.proto, method)(*args)
        except Exception:
            report_callback_error(f"{type(self.proto).__name__}.{method}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self.pid} status={self.status}>"


class Process(_Transport):
    """The transport of a child on pipes; what spawnProcess returns (IProcessTransport)."""

    def __init__(
        self, loop: EventLoop, proto: Any, on_over: Callable[[_Transport], object]
    ) -> None:
        super().__init__(proto, on_over)
        self._child: ChildProcess = ChildProcess(loop, self)
        self._gate: ProducerGate | None = None

    def start(self, spec: SpawnSpec) -> None:
        """Run the program of *spec*; SpawnError leaves nothing behind."""
        self._child.start(spec)
        writer = self._child.writer(0)
        self._gate = ProducerGate(writer) if writer else None

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

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let *producer* feed the child's standard input; stopped at once when there is none."""
        if self._gate is None:
            producer.stopProducing()
        else:
            self._gate.register(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer has no more."""
        if self._gate is not None:
            self._gate.unregister()

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
        except Exception:
            report_callback_error(f"{type(self.proto).__name__}.childDataReceived")
            self._child.close_pipe(child_fd)

    def on_pipe_lost(self, child_fd: int) -> None:
        """A pipe is closed."""
        if child_fd == 0 and self._gate is not None:
            self._stop_producer(self._gate)
        self._tell("childConnectionLost", child_fd)

    def _stop_producer(self, gate: ProducerGate) -> None:
        try:
            gate.stop()
        except Exception:
            report_callback_error("stopProducing")


class PTYProcess(_Transport):
    """The transport of a child on a pseudo terminal.

    All output comes as childDataReceived(1); childConnectionLost is never called, as in Twisted.
    """

    def __init__(
        self, loop: EventLoop, proto: Any, on_over: Callable[[_Transport], object]
    ) -> None:
        super().__init__(proto, on_over)
        self._child: TerminalChild = TerminalChild(loop, self)
        self._gate: ProducerGate | None = None

    def start(self, spec: SpawnSpec, pty: PtyPair) -> None:
        """Run the program of *spec* on *pty*, which is taken over on success only."""
        self._child.start(spec, pty)
        if self._child.writer is not None:
            self._gate = ProducerGate(self._child.writer)

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

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let *producer* feed the terminal."""
        if self._gate is None:
            producer.stopProducing()
        else:
            self._gate.register(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer has no more."""
        if self._gate is not None:
            self._gate.unregister()

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
        except Exception:
            report_callback_error(f"{type(self.proto).__name__}.childDataReceived")
            self._child.close()

    def on_pipe_lost(self, child_fd: int) -> None:
        """The terminal is closed; the protocol has no method for that."""
        if self._gate is not None:
            try:
                self._gate.stop()
            except Exception:
                report_callback_error("stopProducing")


def _bytes_like(data: object) -> BytesLike:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"Data must be bytes, not {type(data).__name__}")
    return data


# --- spawnProcess: from its arguments to a request ------------------------------------------------


def spawn_process(
    loop: EventLoop,
    on_start: Callable[[_Transport], object],
    on_over: Callable[[_Transport], object],
    processProtocol: Any,
    executable: Any,
    args: Any = (),
    env: Any = {},  # noqa: B006  # Twisted's default, and never written to
    path: Any = None,
    uid: int | None = None,
    gid: int | None = None,
    usePTY: Any = 0,
    childFDs: Any = None,
    **extras: Any,
) -> Process | PTYProcess:
    """Start *executable* and return its transport, after connectionMade.

    The arguments after *on_over* are those of `ReactorBase.spawnProcess`. TypeError and ValueError
    come before any system call; SpawnError leaves no child, no fd and no callback.
    """
    _check_extras(extras)
    redirects = plan_redirects(childFDs, bool(usePTY))
    user_pty = _check_pty(usePTY, extras.get("windowSize"))
    _check_protocol(processProtocol, bool(usePTY) or any(row.is_pipe for row in redirects))
    program = _plan_program(executable, args, env, path, uid, gid)
    spec = SpawnSpec(**program, **_plan_options(extras, bool(usePTY)), redirects=redirects)
    transport: Process | PTYProcess
    with _cgroup(extras.get("cgroup")) as cgroup_fd:
        spec = dataclasses.replace(spec, cgroup_fd=cgroup_fd) if cgroup_fd >= 0 else spec
        if usePTY:
            transport = PTYProcess(loop, processProtocol, on_over)
            _start_on_pty(transport, spec, user_pty, extras.get("windowSize"))
        else:
            transport = Process(loop, processProtocol, on_over)
            transport.start(spec)
    on_start(transport)
    transport._tell("makeConnection", transport)
    return transport


_EXTRAS = (
    "umask",
    "rlimits",
    "processGroup",
    "session",
    "nice",
    "parentDeathSignal",
    "noNewPrivileges",
    "cgroup",
    "signalMask",
    "windowSize",
)


def _check_extras(extras: Mapping[str, object]) -> None:
    for name in extras:
        if name in _EXTRAS:
            continue
        known = [*list(inspect.signature(spawn_process).parameters)[3:-1], *_EXTRAS]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
        raise TypeError(f"spawnProcess() got an unexpected keyword argument {name!r}{hint}")


def _check_pty(usePTY: Any, windowSize: Any) -> PtyPair | None:
    if windowSize is not None:
        if not usePTY or isinstance(usePTY, tuple | list):
            raise ValueError("windowSize needs usePTY=True, whose terminal is made here")
        if not isinstance(windowSize, tuple | list) or len(windowSize) != 2:
            raise ValueError(f"windowSize must be (rows, columns), not {windowSize!r}")
        for size in windowSize:
            plan_int(size, "an item of windowSize", 0, 65535)
    if not isinstance(usePTY, tuple | list):
        return None
    if len(usePTY) != 3:
        raise ValueError(f"usePTY must be true, or (master, slave, name), not {usePTY!r}")
    master, slave, _ = usePTY
    return PtyPair(
        plan_int(master, "usePTY[0]", 0, _FD_MAX), plan_int(slave, "usePTY[1]", 0, _FD_MAX)
    )


def _check_protocol(protocol: object, has_pipes: bool) -> None:
    if protocol is None and has_pipes:
        raise TypeError(
            "processProtocol may be None only when childFDs maps no pipe and there is no terminal"
        )


def _plan_program(
    executable: object, args: object, env: object, path: object, uid: Any, gid: Any
) -> dict[str, Any]:
    parent_env = os.environb
    program = encode_path(executable, "executable")
    argv = encode_argv(args, program, "args")
    child_env = encode_env(env, parent_env, "env")
    cwd = encode_path(path, "path") if path is not None else b""
    for value, what in ((uid, "uid"), (gid, "gid")):
        if value is not None:
            plan_int(value, what, 0, _ID_MAX)
    return {
        "candidates": find_candidates(program, child_env, parent_env),
        "argv": argv,
        "env": [name + b"=" + value for name, value in child_env.items()],
        "cwd": cwd or None,
        "identity": resolve_identity(uid, gid),
    }


def _plan_options(extras: Mapping[str, Any], on_terminal: bool) -> dict[str, Any]:
    given = {name: value for name, value in extras.items() if value is not None}
    options: dict[str, Any] = {}
    if "umask" in given:
        options["umask"] = plan_int(given["umask"], "umask", 0, 0o777)
    if "rlimits" in given:
        options["rlimits"] = plan_rlimits(given["rlimits"], "rlimits")
    if "processGroup" in given:
        options["process_group"] = plan_int(given["processGroup"], "processGroup", 0, _FD_MAX)
        if on_terminal or given.get("session"):
            raise ValueError("a new session has a process group of its own: leave out processGroup")
    options["new_session"] = bool(given.get("session"))
    if "nice" in given:
        options["nice"] = plan_int(given["nice"], "nice", -40, 40)
    if "parentDeathSignal" in given:
        number = plan_signal(given["parentDeathSignal"], "parentDeathSignal")
        options["parent_death_signal"] = plan_int(number, "parentDeathSignal", 1, signal.NSIG - 1)
    if "noNewPrivileges" in given:
        options["no_new_privileges"] = bool(given["noNewPrivileges"])
    if "signalMask" in given:
        options["signal_mask"] = plan_signals(given["signalMask"], "signalMask")
    return options


@contextmanager
def _cgroup(cgroup: Any) -> Iterator[int]:
    """The fd of a cgroup's directory, given as fd or path; one that is opened here is closed."""
    if cgroup is None:
        yield -1
    elif isinstance(cgroup, int):
        yield plan_int(cgroup, "cgroup", 0, _FD_MAX)
    else:
        name = encode_path(cgroup, "cgroup")
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise spawn_error(error.errno or 0, "cgroup", name) from None
        try:
            yield fd
        finally:
            os.close(fd)


def _start_on_pty(
    transport: PTYProcess, spec: SpawnSpec, user_pty: PtyPair | None, windowSize: Any
) -> None:
    if user_pty is not None:
        transport.start(spec, user_pty)
        return
    pty = open_pty(*(windowSize or (0, 0)))
    try:
        transport.start(spec, pty)
    except BaseException:
        os.close(pty.master)
        os.close(pty.slave)
        raise
