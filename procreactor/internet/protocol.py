"""What users subclass (twisted.internet.protocol): ProcessProtocol, Protocol, Factory.

The base-class methods do nothing, so a subclass overrides what it cares about and never needs to
call up. `ProcessProtocol` dispatches by child fd exactly as Twisted does: data of fds other than 1
and 2, and the loss of fds above 2, go nowhere unless the child* methods are overridden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from procreactor.internet.error import ConnectionDone
from procreactor.python.failure import Failure

__all__ = [
    "BaseProtocol",
    "ClientFactory",
    "Factory",
    "ProcessProtocol",
    "Protocol",
    "ServerFactory",
    "connectionDone",
]

connectionDone = Failure(ConnectionDone())
"""The default reason of `Protocol.connectionLost`."""


class BaseProtocol:
    """What all protocols have: a transport, and the moment when it is there."""

    connected = 0
    transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        """Take *transport* and call `connectionMade`."""
        self.connected = 1
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """The transport is there: a good place to write to it."""


class ProcessProtocol(BaseProtocol):
    """How a user hears of one child; given to `spawnProcess`."""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """The child wrote *data* to *childFD*; 1 and 2 go to `outReceived` and `errReceived`."""
        if childFD == 1:
            self.outReceived(data)
        elif childFD == 2:
            self.errReceived(data)

    def outReceived(self, data: bytes) -> None:
        """The child wrote *data* to its standard output."""

    def errReceived(self, data: bytes) -> None:
        """The child wrote *data* to its standard error."""

    def childConnectionLost(self, childFD: int) -> None:
        """The pipe of *childFD* is closed; 0, 1 and 2 go to in-, out- and errConnectionLost."""
        if childFD == 0:
            self.inConnectionLost()
        elif childFD == 1:
            self.outConnectionLost()
        elif childFD == 2:
            self.errConnectionLost()

    def inConnectionLost(self) -> None:
        """The child's standard input is closed."""

    def outConnectionLost(self) -> None:
        """The child's standard output is closed."""

    def errConnectionLost(self) -> None:
        """The child's standard error is closed."""

    def processExited(self, reason: Failure) -> None:
        """The child has been reaped; pipes may still be open (a grandchild may hold them).

        ``reason.value`` is `ProcessDone` or `ProcessTerminated`.
        """

    def processEnded(self, reason: Failure) -> None:
        """The child has been reaped and all pipes are closed: the last call of all."""


class Protocol(BaseProtocol):
    """How a user hears of one network connection; made by a `Factory`."""

    factory: Any = None

    def dataReceived(self, data: bytes) -> object:
        """The peer sent *data*; what is returned is ignored."""
        return None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed; ``reason.value`` says how."""

    def logPrefix(self) -> str:
        """A name for logs."""
        return type(self).__name__


class Factory:
    """Makes a protocol for each connection of a port."""

    protocol: Any = None
    """What makes the protocols: a class, usually; set here or on the instance."""

    numPorts = 0
    noisy = True

    @classmethod
    def forProtocol(cls, protocol: Callable[[], Any], *args: Any, **kwargs: Any) -> Self:
        """Return a factory, made with the further arguments, whose connections get *protocol*."""
        factory = cls(*args, **kwargs)
        factory.protocol = protocol
        return factory

    def buildProtocol(self, addr: Any) -> Any:
        """Return the protocol for a connection from *addr*; None refuses the connection."""
        if self.protocol is None:
            raise TypeError(f"{type(self).__name__}.protocol is not set")
        protocol = self.protocol()
        protocol.factory = self
        return protocol

    def doStart(self) -> None:
        """Count a port that began to use this factory; the first one starts it."""
        if self.numPorts == 0:
            self.startFactory()
        self.numPorts += 1

    def doStop(self) -> None:
        """Count a port that let go of this factory; the last one stops it."""
        if self.numPorts == 0:
            return
        self.numPorts -= 1
        if self.numPorts == 0:
            self.stopFactory()

    def startFactory(self) -> None:
        """The first port is about to listen."""

    def stopFactory(self) -> None:
        """The last port no longer listens."""

    def logPrefix(self) -> str:
        """A name for logs."""
        return type(self).__name__


class ServerFactory(Factory):
    """A factory for listening ports."""


class ClientFactory(Factory):
    """A factory for outgoing connections; here for its name, since nothing here connects out."""
