"""Twisted's interfaces (twisted.internet.interfaces) that process programs name, as Protocols.

They are here to be read, to be used as types, and for ``IReactorProcess.providedBy(reactor)``.
zope.interface is not needed, and so:

* An object provides an interface by having its members, not by declaring it: ``@implementer`` has
  no meaning here. `InterfaceClass.providedBy` looks for the names, and whether methods can be
  called; parameters are the type checker's affair.
* An object whose class derives from an interface provides it in any case. For one without members
  (`IAddress`) that is the only way: by its members alone, everything would be an address.
* An interface cannot be called to adapt an object: ``IReactorProcess(reactor, None)`` is a
  TypeError.
* What Twisted's reactors have and this one does not (resolve, connectTCP, getThreadPool) is left
  out, so that the reactor provides what is written here. Twisted's own reactors do so too.

Methods that we call and users write take their arguments by position, so that users may name them
as they like, and may return what they like where nobody looks at it; those that users call have
Twisted's names. Attributes are properties here, which
means: there to be read, however the object keeps them.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Protocol

from procreactor.internet.defer import Deferred
from procreactor.python.failure import Failure

__all__ = [
    "IAddress",
    "IConsumer",
    "IDelayedCall",
    "IFileDescriptor",
    "IListeningPort",
    "ILoggingContext",
    "IProcessProtocol",
    "IProcessTransport",
    "IProducer",
    "IProtocol",
    "IProtocolFactory",
    "IPullProducer",
    "IPushProducer",
    "IReactorCore",
    "IReactorFDSet",
    "IReactorFromThreads",
    "IReactorInThreads",
    "IReactorProcess",
    "IReactorTCP",
    "IReactorThreads",
    "IReactorTime",
    "IReadDescriptor",
    "IReadWriteDescriptor",
    "IStreamClientEndpoint",
    "ITransport",
    "IWriteDescriptor",
    "Interface",
    "InterfaceClass",
]

if TYPE_CHECKING:
    _ProtocolMeta = ABCMeta
else:
    # typing exports it under no name; type checkers know it as what it derives from.
    _ProtocolMeta = type(Protocol)


class InterfaceClass(_ProtocolMeta):
    """What an interface itself can do.

    In a metaclass, because a method of a Protocol would be asked of the objects that provide it.
    """

    def providedBy(self, obj: object) -> bool:
        """Whether *obj* has all members of this interface, or its class derives from it."""
        if self in type(obj).__mro__:
            return True
        members = self._members()
        return bool(members) and all(_has(obj, *member) for member in members.items())

    def _members(self) -> dict[str, object]:
        return {
            name: member
            for base in self.__mro__
            if isinstance(base, InterfaceClass)
            for name, member in vars(base).items()
            if not name.startswith("_")
        }


def _has(obj: object, name: str, member: object) -> bool:
    return callable(getattr(obj, name, None)) if isfunction(member) else hasattr(obj, name)


class Interface(Protocol, metaclass=InterfaceClass):
    """What all interfaces are."""


# --- Streams --------------------------------------------------------------------------------------


class IAddress(Interface, Protocol):
    """Where one end of a stream is; what there is to know of it differs from kind to kind."""


class ITransport(Interface, Protocol):
    """A stream of bytes, as a protocol sees it."""

    def write(self, data: bytes, /) -> None:
        """*data* is sent or queued; nothing blocks, and nothing calls back."""

    def writeSequence(self, data: Iterable[bytes], /) -> None:
        """All pieces are sent or queued, in order."""

    def loseConnection(self) -> None:
        """The stream closes once all that was queued is sent; connectionLost comes later."""

    def getPeer(self) -> object:
        """Return the address of the other end."""

    def getHost(self) -> object:
        """Return the address of this end."""


class IProducer(Interface, Protocol):
    """Feeds a consumer."""

    def stopProducing(self) -> None:
        """The consumer takes no more, ever."""


class IPushProducer(IProducer, Protocol):
    """Writes when it likes, until it is told to pause."""

    def pauseProducing(self) -> None:
        """Nothing is produced until `resumeProducing`."""

    def resumeProducing(self) -> None:
        """It may produce again."""


class IPullProducer(IProducer, Protocol):
    """Writes once, each time that it is asked."""

    def resumeProducing(self) -> None:
        """One piece has been written to the consumer, or it has unregistered."""


class IConsumer(Interface, Protocol):
    """Takes the bytes of one producer at a time."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """*producer* is paused, resumed and stopped from now on.

        It is an `IPushProducer` when *streaming*, else an `IPullProducer`. RuntimeError while there
        is another one.
        """

    def unregisterProducer(self) -> None:
        """There is no producer; a close that waited for it goes on."""

    def write(self, data: bytes, /) -> None:
        """*data* is sent or queued."""


class IProtocol(Interface, Protocol):
    """How a user hears of one stream."""

    def makeConnection(self, transport: Any, /) -> object:
        """*transport* is known to the protocol, and connectionMade has been called."""

    def connectionMade(self) -> object:
        """The stream is open."""

    def dataReceived(self, data: bytes, /) -> object:
        """*data* (never empty) has come."""

    def connectionLost(self, reason: Failure, /) -> object:
        """The stream is closed, for *reason*; nothing is called after this."""


class IProtocolFactory(Interface, Protocol):
    """Makes a protocol for each stream."""

    def buildProtocol(self, addr: Any, /) -> IProtocol | None:
        """Return the protocol for the stream at *addr*; None when there shall be none."""

    def doStart(self) -> None:
        """One more port uses the factory."""

    def doStop(self) -> None:
        """One port less uses it."""


class IListeningPort(Interface, Protocol):
    """A port that takes connections."""

    def startListening(self) -> None:
        """The port takes connections. CannotListenError."""

    def stopListening(self) -> Deferred[None] | None:
        """The port takes none any more, or will not once the Deferred has fired."""

    def getHost(self) -> IAddress:
        """Return the address that the port listens on."""


class IStreamClientEndpoint(Interface, Protocol):
    """Something that can be connected to, time and again."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Return the Deferred of the connected protocol, which *protocolFactory* has made.

        It fails when there is no connection.
        """


# --- Processes ------------------------------------------------------------------------------------


class IProcessTransport(ITransport, Protocol):
    """One child, as its protocol sees it. `write` goes to its standard input."""

    @property
    def pid(self) -> int | None:
        """The child's process id, until it is reaped; None from then on."""

    def closeStdin(self) -> None:
        """The child's standard input closes once all that was queued is written."""

    def closeStdout(self) -> None:
        """Our end of its standard output closes; the child gets SIGPIPE for writing to it."""

    def closeStderr(self) -> None:
        """Our end of its standard error closes, likewise."""

    def closeChildFD(self, descriptor: int, /) -> None:
        """Our end of the child's fd *descriptor* closes; nothing if it is not open."""

    def writeToChild(self, childFD: int, data: bytes, /) -> None:
        """*data* is sent or queued to *childFD*. KeyError when that is no open pipe."""

    def signalProcess(self, signalID: str | int, /) -> None:
        """The signal, a number or a name like ``"TERM"``, is sent. ProcessExitedAlready.

        Those of reactor.spawnProcess have signalTree as well, for the child and all it started.
        """


class IProcessProtocol(Interface, Protocol):
    """How a user hears of one child."""

    def makeConnection(self, process: Any, /) -> object:
        """The child runs; *process*, its `IProcessTransport`, is known to the protocol."""

    def childDataReceived(self, childFD: int, data: bytes, /) -> object:
        """The child has written *data* (never empty) to *childFD*."""

    def childConnectionLost(self, childFD: int, /) -> object:
        """The pipe of *childFD* is closed."""

    def processExited(self, reason: Failure, /) -> object:
        """The child is reaped; data may still come."""

    def processEnded(self, reason: Failure, /) -> object:
        """The child is reaped and all its pipes are closed; nothing is called after this."""


# --- Reactors -------------------------------------------------------------------------------------


class IReactorProcess(Interface, Protocol):
    """A reactor that starts children."""

    def spawnProcess(
        self,
        processProtocol: Any,
        executable: Any,
        args: Any = ...,
        env: Mapping[Any, Any] | None = ...,
        path: Any = ...,
        uid: int | None = ...,
        gid: int | None = ...,
        usePTY: Any = ...,
        childFDs: Mapping[int, Any] | None = ...,
    ) -> IProcessTransport:
        """Return the transport of a child that runs, and whose connectionMade has been called.

        See `procreactor.internet.base.ReactorBase.spawnProcess`.
        """


class IDelayedCall(Interface, Protocol):
    """A call to be made later."""

    def getTime(self) -> float:
        """Return when the call is to be made, or was, in the seconds of its clock."""

    def cancel(self) -> None:
        """The call is never made. AlreadyCalled, AlreadyCancelled."""

    def delay(self, secondsLater: float) -> None:
        """The call is made so much later than planned; raises as `cancel` does."""

    def reset(self, secondsFromNow: float) -> None:
        """The call is made so much later than now; raises as `cancel` does."""

    def active(self) -> bool:
        """Whether the call is still to be made."""


class IReactorTime(Interface, Protocol):
    """A clock that makes calls."""

    def seconds(self) -> float:
        """Return the time, in seconds since whenever."""

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any
    ) -> IDelayedCall:
        """Return the pending call of *callable*, *delay* seconds from now."""

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """Return the calls that are still to be made."""


class IReactorCore(Interface, Protocol):
    """The life of a reactor."""

    @property
    def running(self) -> bool:
        """True from startup to the end of shutdown."""

    def run(self) -> None:
        """The reactor has run, and was stopped or crashed."""

    def stop(self) -> None:
        """The reactor shuts down in its next turn. ReactorNotRunning."""

    def crash(self) -> None:
        """`run` returns after this turn, and no shutdown event is fired."""

    def iterate(self, delay: float = ...) -> None:
        """One turn has been run, after a wait of at most *delay* seconds."""

    def fireSystemEvent(self, eventType: str) -> None:
        """The triggers of *eventType* have run, or wait for the Deferreds of the first of them."""

    def addSystemEventTrigger(
        self,
        phase: str,
        eventType: str,
        callable: Callable[..., object],
        *args: Any,
        **kw: Any,
    ) -> object:
        """Return the name of a trigger that will be called in *phase* of *eventType*."""

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        """That trigger will not be called. ValueError when it is gone."""

    def callWhenRunning(self, callable: Callable[..., object], *args: Any, **kw: Any) -> object:
        """*callable* has been called, or is called as soon as the reactor runs."""


class IReactorFromThreads(Interface, Protocol):
    """A reactor that other threads can give work."""

    def callFromThread(self, callable: Callable[..., object], *args: Any, **kw: Any) -> None:
        """*callable* is called soon, in the reactor's thread."""


class IReactorInThreads(Interface, Protocol):
    """A reactor that has threads for work that blocks."""

    def callInThread(self, callable: Callable[..., object], *args: Any, **kw: Any) -> None:
        """*callable* is called soon, in a thread of the pool."""


class IReactorThreads(IReactorFromThreads, IReactorInThreads, Protocol):
    """Both, and how many threads there are."""

    def suggestThreadPoolSize(self, size: int) -> None:
        """At most *size* threads run work from now on."""


class ILoggingContext(Interface, Protocol):
    """Something that logs can name."""

    def logPrefix(self) -> str:
        """Return a short name."""


class IFileDescriptor(ILoggingContext, Protocol):
    """An object with an fd."""

    def fileno(self) -> int:
        """Return the fd; -1 when it is closed."""

    def connectionLost(self, reason: Failure, /) -> None:
        """The reactor has let go of the object, for *reason*."""


class IReadDescriptor(IFileDescriptor, Protocol):
    """One that is to be read from."""

    def doRead(self) -> object:
        """What was readable is read; anything but None is why the object ended."""


class IWriteDescriptor(IFileDescriptor, Protocol):
    """One that is to be written to."""

    def doWrite(self) -> object:
        """As much as could be is written; anything but None is why the object ended."""


class IReadWriteDescriptor(IReadDescriptor, IWriteDescriptor, Protocol):
    """Both."""


class IReactorFDSet(Interface, Protocol):
    """A reactor that watches the fds of others."""

    def addReader(self, reader: Any) -> None:
        """*reader*, an `IReadDescriptor`, is told whenever its fd is readable."""

    def addWriter(self, writer: Any) -> None:
        """*writer*, an `IWriteDescriptor`, is told whenever its fd is writable."""

    def removeReader(self, reader: Any) -> None:
        """*reader* is told no more; nothing if it was not."""

    def removeWriter(self, writer: Any) -> None:
        """*writer* is told no more; nothing if it was not."""

    def removeAll(self) -> Sequence[Any]:
        """Return all readers and writers, which are told no more."""

    def getReaders(self) -> Sequence[Any]:
        """Return the readers that are told."""

    def getWriters(self) -> Sequence[Any]:
        """Return the writers that are told."""


class IReactorTCP(Interface, Protocol):
    """A reactor that takes TCP connections."""

    def listenTCP(
        self, port: int, factory: Any, backlog: int = ..., interface: str = ...
    ) -> IListeningPort:
        """Return the port that takes connections on *port*, for *factory*. CannotListenError."""
