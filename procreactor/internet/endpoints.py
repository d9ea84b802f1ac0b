"""A child as the other end of a stream (twisted.internet.endpoints): ProcessEndpoint.

A protocol written for a network connection talks to a program instead: what it writes goes to the
child's standard input, what the child writes to its standard output is what it receives, and its
connection is lost when the child has ended. Other fds of the child are heard of by nobody, except
that standard error is logged.

As in Twisted, the Deferred of `ProcessEndpoint.connect` has fired when it is returned, with the
protocol, connected, or with what spawnProcess raised. Beyond Twisted:

* The transport has what protocols of connections ask of theirs, and Twisted's raises for: getPeer
  and getHost return a `ProcessAddress`, ``disconnecting`` says whether loseConnection was called
  (line receivers look at it), and stopProducing closes the stream.
* A factory that makes no protocol starts no child: the Deferred fails with NoProtocol.
* ProcessEndpoint takes the keyword arguments that spawnProcess takes beyond Twisted's.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from procreactor.internet.defer import Deferred, fail, succeed
from procreactor.internet.error import ConnectionDone, NoProtocol, ProcessDone
from procreactor.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorProcess
from procreactor.internet.process import Process, PTYProcess
from procreactor.internet.protocol import ProcessProtocol
from procreactor.python.failure import Failure

__all__ = ["ProcessAddress", "ProcessEndpoint", "StandardErrorBehavior"]

_log = logging.getLogger("procreactor")


class StandardErrorBehavior(enum.Enum):
    """What becomes of the bytes that the child writes to its standard error."""

    LOG = "log"
    """They are logged, at level INFO."""

    DROP = "drop"
    """They are thrown away."""


@dataclass(frozen=True)
class ProcessAddress(IAddress):
    """The address of a child: the program."""

    executable: str | bytes


class ProcessEndpoint:
    """A child of *reactor* that is started by each `connect`.

    The arguments from *executable* to *childFDs*, and *extras*, are those of
    `ReactorBase.spawnProcess`.
    """

    def __init__(
        self,
        reactor: IReactorProcess,
        executable: Any,
        args: Any = (),
        env: Mapping[Any, Any] | None = {},
        path: Any = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: Any = 0,
        childFDs: Mapping[int, Any] | None = None,
        errFlag: StandardErrorBehavior = StandardErrorBehavior.LOG,
        **extras: Any,
    ) -> None:
        self._reactor = reactor
        self._program = (executable, args, env, path, uid, gid, usePTY, childFDs)
        self._extras = extras
        self._address = ProcessAddress(executable)
        self._errFlag = errFlag

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Return the Deferred, which has fired, of the protocol that talks to a new child.

        It fails with SpawnError, TypeError or ValueError when there is no child, and the protocol
        has then been told nothing. What the factory raises is raised.
        """
        protocol = protocolFactory.buildProtocol(self._address)
        if protocol is None:
            return fail(NoProtocol())
        wrapper = _StreamProtocol(protocol, self._address, self._errFlag)
        try:
            self._reactor.spawnProcess(wrapper, *self._program, **self._extras)
        except Exception:
            return fail()
        return succeed(protocol)


class _StreamProtocol(ProcessProtocol):
    """Tells *protocol* of a child as if it were a connection."""

    def __init__(
        self, protocol: IProtocol, address: ProcessAddress, errFlag: StandardErrorBehavior
    ) -> None:
        self._protocol = protocol
        self._address = address
        self._errFlag = errFlag

    def makeConnection(self, process: Process | PTYProcess) -> None:
        self.transport = _StreamTransport(process, self._address)
        self._protocol.makeConnection(self.transport)

    def outReceived(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def errReceived(self, data: bytes) -> None:
        if self._errFlag is StandardErrorBehavior.LOG:
            program, protocol = self._address.executable, self._protocol
            _log.info("child %r of %r wrote to standard error: %r", program, protocol, data)

    def processEnded(self, reason: Failure) -> None:
        # A stream that is over knows nothing of exit codes: what ended well was closed cleanly.
        done = reason.check(ProcessDone) is not None
        self._protocol.connectionLost(Failure(ConnectionDone()) if done else reason)


class _StreamTransport:
    """What the protocol sees of its child: ITransport, IProcessTransport, IConsumer, IPushProducer.

    Most methods are the process's own, so a write costs no call more; what else the process has is
    not here, so that no protocol comes to depend on it.
    """

    disconnecting = False

    def __init__(self, process: Process | PTYProcess, address: ProcessAddress) -> None:
        self._process = process
        self._address = address
        self.write = process.write
        self.writeSequence = process.writeSequence
        self.writeToChild = process.writeToChild
        self.closeStdin = process.closeStdin
        self.closeStdout = process.closeStdout
        self.closeStderr = process.closeStderr
        self.closeChildFD = process.closeChildFD
        self.signalProcess = process.signalProcess
        self.registerProducer = process.registerProducer
        self.unregisterProducer = process.unregisterProducer
        self.pauseProducing = process.pauseProducing
        self.resumeProducing = process.resumeProducing

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._process.loseConnection()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> ProcessAddress:
        return self._address

    def getHost(self) -> ProcessAddress:
        return self._address
