"""ProcessMonitor: children that are kept running (twisted.runner.procmon).

A process that ends, however it ends, is started again: at once when it had lived for `threshold`
seconds, else after a wait that doubles with each such short life. Its lines are logged.

    startProcess --processExited--> draining --processEnded--> waiting --delay--> startProcess
          '---------------- refused by the kernel -----------------^

Rules:

- The child's exit decides what its life was worth; the end of its pipes decides when the next one
  begins. A grandchild may hold the pipes for ever, so after `drainTime` seconds they are closed,
  with a warning, and the restart comes. (Twisted waits for the grandchild.)
- A start that the kernel refuses counts as a short life, whatever the threshold: its error is
  logged, and it is tried again. Misuse (TypeError, ValueError) is the caller's, and passes.
- A line of any length is logged: above `LineLogger.MAX_LENGTH` bytes in pieces, of which all but
  the last have ``partial`` set. Nothing is lost, no character is cut, and no more than a piece and
  a chunk is held. (Twisted closes the pipe.)
- Every record goes to the standard library's logger ``procreactor.procmon`` and has the fields
  ``tag`` (the name of the process), ``line``, ``stream`` and ``partial``, so that one formatter
  serves all. What the monitor itself has to say has the stream ``monitor``; lines have the level
  INFO, which logging does not show unless it is told to.

Beyond Twisted, `ProcessMonitor.stopService` returns a Deferred of the end of all children; a signal
that is refused is logged, and does not keep other processes from being stopped; a removed process
leaves no restart behind; a life that is the last one, because the service stops, does not make the
next wait longer. Absent: pickling, and what Twisted itself deprecates (``toTuple``,
``connectionLost``).

There is no twisted.application here, so a `Service` has no parent. A MultiService of the real one
takes it with ``addService``. Without one, the whole of it is::

    monitor.startService()
    reactor.addSystemEventTrigger("before", "shutdown", monitor.stopService)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from procreactor import internet
from procreactor.internet.defer import Deferred, gatherResults
from procreactor.internet.error import ProcessExitedAlready
from procreactor.internet.protocol import ProcessProtocol
from procreactor.python.failure import Failure
from procreactor.streams.lines import LineSplitter

__all__ = ["LineLogger", "LoggingProtocol", "ProcessMonitor", "Service"]

_Text = str | bytes


class _DelayedCall(Protocol):
    def active(self) -> bool: ...
    def cancel(self) -> None: ...


class _Reactor(Protocol):
    """What is asked of a reactor: ours, one of the real Twisted, or a test's."""

    def seconds(self) -> float: ...

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object
    ) -> _DelayedCall: ...

    def spawnProcess(
        self,
        processProtocol: ProcessProtocol,
        executable: _Text,
        args: Sequence[_Text],
        env: Mapping[str, str] | None,
        path: _Text | None,
        uid: int | None,
        gid: int | None,
    ) -> object: ...


class Service:
    """What a program starts and stops (twisted.application.service.Service), without a parent."""

    name: str | None = None
    running = False

    def setName(self, name: str) -> None:
        """Give the service a name, by which a collection of services can find it."""
        self.name = name

    def privilegedStartService(self) -> None:
        """Do what needs privileges that the program is about to give up: nothing here."""

    def startService(self) -> None:
        """The service runs."""
        self.running = True

    def stopService(self) -> Deferred[None] | None:
        """The service does not run, or will not when the Deferred that is returned fires."""
        self.running = False
        return None


# --- What a process writes ------------------------------------------------------------------------


class LineLogger:
    """Logs one stream of one process, line by line."""

    MAX_LENGTH = 16384
    """The length, in bytes, of the longest line that is logged in one piece; at least 4."""

    def __init__(self, service: ProcessMonitor, tag: str, stream: str) -> None:
        self.service = service
        self.tag = tag
        self.stream = stream
        self._splitter = LineSplitter(b"\n")

    def dataReceived(self, data: bytes) -> None:
        """Log the lines that *data* completes, and what is too long of the one it leaves open."""
        for line in self._splitter.feed(data):
            self._log_pieces(_cut(line, self.MAX_LENGTH))
        if self._splitter.tail_bytes > self.MAX_LENGTH:
            *pieces, rest = _cut(self._splitter.take_raw(), self.MAX_LENGTH)
            for piece in pieces:
                self.lineReceived(piece, partial=True)
            self._splitter.feed(rest)

    def flush(self) -> None:
        """Log the line that the end of the stream left open, if there is one."""
        if self._splitter.tail_bytes:
            self.lineReceived(self._splitter.take_raw())

    def lineReceived(self, line: bytes, partial: bool = False) -> None:
        """Log *line*, as text if it is UTF-8, else as its repr."""
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = repr(line)
        self.service._report(logging.INFO, self.tag, text, self.stream, partial)

    def _log_pieces(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces[:-1]:
            self.lineReceived(piece, partial=True)
        self.lineReceived(pieces[-1])


def _cut(line: bytes, limit: int) -> list[bytes]:
    """Return *line* in pieces, at least one, of at most *limit* (>= 4) bytes.

    Where the cuts are does not depend on how the line ends; they are between UTF-8 characters.
    """
    pieces = []
    start = 0
    while len(line) - start > limit:
        end = _character_start(line, start + limit)
        pieces.append(line[start:end])
        start = end
    pieces.append(line[start:])
    return pieces


def _character_start(line: bytes, index: int) -> int:
    """Return where the UTF-8 character of byte *index* begins; *index* if there is none."""
    for start in range(index, index - 4, -1):
        if line[start] & 0b1100_0000 != 0b1000_0000:
            return start
    return index


class LoggingProtocol(ProcessProtocol):
    """One life of one process: logs what it writes, and tells *service* how far it is."""

    def __init__(self, service: ProcessMonitor, name: str, startedAt: float) -> None:
        self.service = service
        self.name = name
        self.startedAt = startedAt
        self.exitedAt: float | None = None
        """When the child was reaped; there is nothing to signal from then on."""
        self.draining: _DelayedCall | None = None
        self.output = LineLogger(service, name, "stdout")
        self.error = LineLogger(service, name, "stderr")
        self._waiting: list[Deferred[None]] = []

    def whenEnded(self) -> Deferred[None]:
        """Return a Deferred that fires when the child and its pipes are gone, and all is logged."""
        ended: Deferred[None] = Deferred()
        self._waiting.append(ended)
        return ended

    def outReceived(self, data: bytes) -> None:
        """Log the standard output."""
        self.output.dataReceived(data)

    def errReceived(self, data: bytes) -> None:
        """Log the standard error."""
        self.error.dataReceived(data)

    def processExited(self, reason: Failure) -> None:
        """The child is gone; what it wrote may still be on its way."""
        self.service._on_exit(self)

    def processEnded(self, reason: Failure) -> None:
        """Nothing more will come."""
        self.output.flush()
        self.error.flush()
        self.service._on_end(self)
        for ended in self._waiting:
            ended.callback(None)


# --- Who is kept running --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Process:
    """What `ProcessMonitor.addProcess` was told."""

    args: Sequence[_Text]
    uid: int | None
    gid: int | None
    env: Mapping[str, str] | None
    cwd: _Text | None

    @property
    def ids(self) -> str:
        """The ids as ``(uid:gid)``; "" when there are none."""
        uid = "" if self.uid is None else str(self.uid)
        gid = "" if self.gid is None else f":{self.gid}"
        return f"({uid}{gid})" if uid or gid else ""


class ProcessMonitor(Service):
    """Runs processes, each with a name, and restarts those that end, for as long as it runs.

    *reactor* is ``procreactor.internet.reactor``, at the time of use, unless given. The class
    attributes are defaults, to be set on the instance.
    """

    threshold: float = 1
    """Seconds: a process that ends sooner waits before it is restarted."""

    killTime: float = 5
    """Seconds from a TERM to the KILL of a process that is still there."""

    minRestartDelay: float = 1
    """Seconds to wait after the first short life."""

    maxRestartDelay: float = 3600
    """Seconds beyond which the wait does not grow."""

    drainTime: float = 1
    """Seconds from the exit until pipes that another process still holds are closed."""

    log = logging.getLogger("procreactor.procmon")

    def __init__(self, reactor: _Reactor | None = None) -> None:
        self._given_reactor = reactor
        self._processes: dict[str, _Process] = {}
        self.protocols: dict[str, LoggingProtocol] = {}
        """The lives that are not over, by name; those of removed processes too."""

        self.timeStarted: dict[str, float] = {}
        """When each process was last started, in the seconds of the reactor."""

        self.delay: dict[str, float] = {}
        """How long each process will wait after its next short life."""

        self.murder: dict[str, _DelayedCall] = {}
        """The KILL of each process that was sent TERM and has not ended."""

        self.restart: dict[str, _DelayedCall] = {}
        """The last restart that was planned for each process; it may be over, or called off."""

    @property
    def _reactor(self) -> _Reactor:
        return internet.reactor if self._given_reactor is None else self._given_reactor

    @property
    def processes(
        self,
    ) -> dict[str, tuple[Sequence[_Text], int | None, int | None, Mapping[str, str] | None]]:
        """What was added, by name: (args, uid, gid, env). A copy."""
        return {name: (p.args, p.uid, p.gid, p.env) for name, p in self._processes.items()}

    # Who is monitored

    def addProcess(
        self,
        name: str,
        args: Sequence[_Text],
        uid: int | None = None,
        gid: int | None = None,
        env: Mapping[str, str] | None = {},  # Twisted's default, never written to
        cwd: _Text | None = None,
    ) -> None:
        """Monitor a process; it is started if the service runs.

        *args* is the argument vector and ``args[0]`` the program, as for spawnProcess; so are *env*
        (by default empty; None is this process's), *uid* and *gid*. *cwd* is the directory to start
        in. KeyError when there is a process of that *name*.
        """
        if name in self._processes:
            raise KeyError(f"remove {name} first")
        if not args:
            raise ValueError(f"args must have at least one item, the program, not {args!r}")
        self._processes[name] = _Process(args, uid, gid, env, cwd)
        self.delay[name] = self.minRestartDelay
        if self.running:
            self.startProcess(name)

    def removeProcess(self, name: str) -> None:
        """Stop the process, and monitor it no more. KeyError when there is none of that *name*."""
        self.stopProcess(name)
        self._call_off(self.restart.pop(name, None))
        self.timeStarted.pop(name, None)
        del self.delay[name]
        del self._processes[name]

    # The service

    def startService(self) -> None:
        """Start all processes; from now on, those that end are restarted."""
        super().startService()
        for name in list(self._processes):
            self.startProcess(name)

    def stopService(self) -> Deferred[None]:
        """Stop all processes, and restart none.

        Returns a Deferred that fires when all children have ended, removed ones included. The
        reactor must run until then.
        """
        super().stopService()
        for call in self.restart.values():
            self._call_off(call)
        endings = [life.whenEnded() for life in self.protocols.values()]
        for name in list(self._processes):
            self.stopProcess(name)
        return gatherResults(endings).addCallback(lambda _: None)

    # One process

    def startProcess(self, name: str) -> None:
        """Start the process now, unless a life of it is not over. KeyError for an unknown *name*.

        A start that the kernel refuses is logged and, if the service runs, tried again later.
        """
        process = self._known(name)
        if name in self.protocols:
            return
        self._call_off(self.restart.get(name))
        self.timeStarted[name] = now = self._reactor.seconds()
        self.protocols[name] = life = LoggingProtocol(self, name, now)
        try:
            self._spawn(process, life)
        except OSError as error:
            del self.protocols[name]
            self._on_refusal(name, error)
        except BaseException:
            del self.protocols[name]
            raise

    def stopProcess(self, name: str) -> None:
        """Send TERM to the process and, if it is there `killTime` seconds later, KILL.

        The service, if it runs, restarts it then. KeyError for an unknown *name*.
        """
        self._known(name)
        life = self.protocols.get(name)
        # A second TERM does not put off the KILL.
        if life is not None and self._signal(life, "TERM") and name not in self.murder:
            self.murder[name] = self._reactor.callLater(self.killTime, self._signal, life, "KILL")

    def restartAll(self) -> None:
        """Stop all processes, so that the service restarts them."""
        for name in list(self._processes):
            self.stopProcess(name)

    def _report(
        self, level: int, tag: str, line: str, stream: str = "monitor", partial: bool = False
    ) -> None:
        """Log one *line* about the process *tag*."""
        fields = {"tag": tag, "line": line, "stream": stream, "partial": partial}
        self.log.log(level, "[%s] %s", tag, line, extra=fields)

    def _known(self, name: str) -> _Process:
        if name not in self._processes:
            raise KeyError(f"Unrecognized process name: {name}")
        return self._processes[name]

    def _spawn(self, process: _Process, life: LoggingProtocol) -> None:
        self._reactor.spawnProcess(
            life,
            process.args[0],
            process.args,
            env=process.env,
            path=process.cwd,
            uid=process.uid,
            gid=process.gid,
        )

    def _signal(self, life: LoggingProtocol, signal: str) -> bool:
        """Whether *signal* was sent."""
        if life.exitedAt is not None:
            return False
        try:
            life.transport.signalProcess(signal)
        except ProcessExitedAlready:
            return False  # reaped by other code, which we are yet to hear of
        except OSError as error:
            self._report(logging.ERROR, life.name, f"cannot send {signal}: {error}")
            return False
        return True

    # What happens to it

    def _on_exit(self, life: LoggingProtocol) -> None:
        life.exitedAt = self._reactor.seconds()
        life.draining = self._reactor.callLater(self.drainTime, self._end_draining, life)

    def _end_draining(self, life: LoggingProtocol) -> None:
        text = f"has exited, but {self.drainTime} s later another process holds its pipes; closed"
        self._report(logging.WARNING, life.name, text)
        life.transport.loseConnection()

    def _on_end(self, life: LoggingProtocol) -> None:
        self._call_off(life.draining)
        self._call_off(self.murder.pop(life.name, None))
        del self.protocols[life.name]
        end = self._reactor.seconds() if life.exitedAt is None else life.exitedAt
        self._plan_restart(life.name, was_short=end - life.startedAt < self.threshold)

    def _on_refusal(self, name: str, error: OSError) -> None:
        wait_s = self._plan_restart(name, was_short=True)
        plan = "not tried again" if wait_s is None else f"tried again in {wait_s} s"
        self._report(logging.ERROR, name, f"{error}; {plan}")

    def _plan_restart(self, name: str, was_short: bool) -> float | None:
        """Return how many seconds it will be until the next start, or None if there is none."""
        if not self.running or name not in self._processes:
            return None
        if was_short:
            wait_s = self.delay[name]
            self.delay[name] = min(wait_s * 2, self.maxRestartDelay)
        else:
            wait_s = 0
            self.delay[name] = self.minRestartDelay
        self.restart[name] = self._reactor.callLater(wait_s, self.startProcess, name)
        return wait_s

    def _call_off(self, call: _DelayedCall | None) -> None:
        if call is not None and call.active():
            call.cancel()

    def __repr__(self) -> str:
        processes = [f"{name!r}{p.ids}: {p.args!r}" for name, p in self._processes.items()]
        return f"<{type(self).__name__} {' '.join(processes)}>"
