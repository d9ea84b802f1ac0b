"""TCP, the listening side (twisted.internet.tcp): ports, and the connections made to them.

Rules:

- A connection ends once, and says how: `ConnectionDone` after an end of file or a close of ours,
  `ConnectionLost` after an error, `ConnectionAborted` after an abort, and the exception itself
  when dataReceived or connectionMade raised it. Never out of a call to the transport: always from
  the loop.
- After loseConnection nothing is read any more, while what is queued is still written; what was
  sent to us and not read is lost. A peer that ends its direction ends the connection, and what is
  queued for it is dropped. Both as in Twisted.
- What the peer sent before the connection broke is told before the break is: a write that fails
  leaves the end to the reader, unless that is paused. Twisted gives the reader one last read.

Done or lost? `StreamReader` tells no error from an end, because a pipe has no use for it, and the
socket cannot be asked afterwards: a read that fails takes SO_ERROR with it, and a peer that ended
first and reset then is a clean end to the read, though the socket is dead. So connections read
through a reader of their own, which keeps what the read said; the pipes' path stays as it is. The
writer's end is asked for afterwards, when it matters: a TCP connection that broke is in state
CLOSE, and one that waits for our close is not (tcp(7), TCP_INFO).

The nasty case in accepting: no fd is left (EMFILE, ENFILE), or no memory. The listener stays
readable, so a loop that goes on watching it spins. It is left alone for a moment; those who wait
keep their place in the backlog, and what the program closes meanwhile makes room (Twisted accepts
and drops them). Other errors of accept(2) are those of one connection, which died while it waited.

A socket is shut down before it is closed, because a child that is just being started holds copies
of our fds for a moment: close alone would end nothing until it is gone, and the port would stay
taken.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

from procreactor.errors import report_callback_error
from procreactor.internet.address import IPv4Address, IPv6Address
from procreactor.internet.consumer import ProducerGate
from procreactor.internet.defer import Deferred, succeed
from procreactor.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from procreactor.kernel.pipes import READ_SIZE_BYTES
from procreactor.kernel.poller import READ
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.loop.sharing import SharedFd
from procreactor.loop.timers import Timer
from procreactor.python.failure import Failure
from procreactor.transport.outbox import BytesLike
from procreactor.transport.reader import StreamReader
from procreactor.transport.request import plan_int
from procreactor.transport.writer import StreamWriter

__all__ = ["Connection", "Port"]

_log = logging.getLogger("procreactor")

_ACCEPTS_PER_TURN = 64
"""A flood of connections must not keep the loop from those that it has."""

_ACCEPT_RETRY_S = 0.1
"""How long a listener is left alone when the kernel has nothing to make a connection of."""

_DIED_WAITING = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,  # a firewall's refusal
        # accept(2): Linux passes on what the network had already said about the new connection.
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
    }
)

_TCP_CLOSE = 7  # include/net/tcp_states.h: nothing is left of the connection

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger of socket(7): on, for 0 seconds

_DISCARDS = 16
"""How often a close reads on: more than the peer sends by mistake, less than a flood."""

_KEY = 0
"""Readers and writers say whose data they bring; a connection has one of each."""


class _SocketReader(StreamReader):
    """Reads a socket, and knows afterwards whether it failed or ended."""

    __slots__ = ("failed",)

    def __init__(
        self,
        loop: SharedFd,
        fd: int,
        on_data: Callable[[int, bytes], object],
        on_end: Callable[[int], object],
    ) -> None:
        self.failed = False
        super().__init__(loop, fd, _KEY, on_data, on_end)

    @property
    def listens(self) -> bool:
        """Whether an end would be noticed."""
        return self.watch is not None

    def on_ready(self, events: int) -> None:
        """Read once, and tell."""
        try:
            data = os.read(self._fd, READ_SIZE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.failed = True
            data = b""
        if data:
            self._on_data(self._key, data)
        else:
            self.stop()
            self._on_end(self._key)


class Connection:
    """The server's end of one connection: its protocol's transport (ITCPTransport)."""

    connected = True
    """Until connectionLost."""

    disconnecting = False
    """From loseConnection on."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        protocol: Any,
        client: tuple[Any, ...],
        name: str,
        on_over: Callable[[Connection], object],
    ) -> None:
        self.socket = sock
        self.protocol = protocol
        self.client = client
        self._name = name
        self._loop = loop
        self._on_over = on_over
        self._aborting = False
        self._half_closing = self._half_closed = False
        shared = SharedFd(loop, sock.fileno())
        self._reader = _SocketReader(shared, sock.fileno(), self._on_data, self._on_read_end)
        self._writer = StreamWriter(shared, sock.fileno(), _KEY, self._on_write_end)
        self._gate = ProducerGate(self._writer, self.loseConnection)

    def __repr__(self) -> str:
        return self._name

    # Out.

    def write(self, data: BytesLike) -> None:
        """Send *data*; dropped when the connection is gone."""
        self._writer.write(data)

    def writeSequence(self, iovec: Iterable[BytesLike]) -> None:
        """Send all pieces; dropped when the connection is gone."""
        self._writer.write_all(iovec)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let *producer* feed the connection."""
        self._gate.register(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer has no more; a close that waited for it goes on."""
        self._gate.unregister()

    # In.

    def pauseProducing(self) -> None:
        """Read nothing until `resumeProducing`; nothing is lost."""
        self._reader.pause()

    def resumeProducing(self) -> None:
        """Read again; nothing once the connection is being closed."""
        self._reader.resume()

    def stopProducing(self) -> None:
        """Close, as loseConnection does."""
        self.loseConnection()

    # Closing.

    def loseConnection(self) -> None:
        """Read nothing more; close, in a later turn, when all is written and no producer waits."""
        if not self.connected or self.disconnecting:
            return
        self.disconnecting = True
        self._reader.stop()
        if self._writer.finished:
            self._loop.call_soon(self._on_write_end, _KEY)
        else:
            self._writer.close_when_flushed()

    def loseWriteConnection(self) -> None:
        """End our direction when all is written; the peer's goes on until it ends that."""
        self._half_closing = True
        self._writer.close_when_flushed()

    def abortConnection(self) -> None:
        """Reset the connection in the next turn; what is queued is dropped."""
        if self.connected and not self._aborting:
            self._aborting = True
            self._reader.stop()
            self._writer.stop()
            self._loop.call_soon(self._lose, Failure(ConnectionAborted()))

    def disconnectAll(self) -> None:
        """Close at once; the reactor has stopped."""
        self._lose(Failure(ConnectionLost()))

    # Who and how.

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address of our end."""
        return _address(self.socket.getsockname())

    def getPeer(self) -> IPv4Address | IPv6Address:
        """Return the address of the peer."""
        return _address(self.client)

    def getHandle(self) -> socket.socket:
        """Return the socket, which stays ours."""
        return self.socket

    def fileno(self) -> int:
        """Return the socket's fd; -1 once it is closed."""
        return self.socket.fileno()

    def getTcpNoDelay(self) -> bool:
        """Return whether small writes are sent at once (TCP_NODELAY)."""
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Send small writes at once, or gather them while an answer is due (the default)."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, bool(enabled))

    def getTcpKeepAlive(self) -> bool:
        """Return whether an idle peer is probed (SO_KEEPALIVE)."""
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Probe an idle peer, so that one that vanished is noticed; or do not (the default)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bool(enabled))

    # What the socket and the protocol say.

    def start(self) -> None:
        """Hand the connection to its protocol, which may be told things from the next turn on."""
        try:
            self.protocol.makeConnection(self)
        except BaseException:
            self._give_up("makeConnection")

    def _on_data(self, key: int, data: bytes) -> None:
        try:
            self.protocol.dataReceived(data)
        except BaseException:
            self._give_up("dataReceived")

    def _give_up(self, method: str) -> None:
        """The protocol's *method* raised; call in ``except``."""
        report_callback_error(f"{type(self.protocol).__name__}.{method}")
        self._lose(Failure())

    def _on_read_end(self, key: int) -> None:
        self._lose(Failure(ConnectionLost() if self._reader.failed else ConnectionDone()))

    def _on_write_end(self, key: int) -> None:
        """All is written and a close was wanted; or nothing can be written any more."""
        if not self.connected or self._aborting:
            return
        is_broken = self._is_broken()
        if self._half_closing and not is_broken and not self.disconnecting:
            self._half_closed = True
            _shut_down(self.socket, socket.SHUT_WR)
        elif self.disconnecting:
            self._lose(Failure(ConnectionLost() if is_broken else ConnectionDone()))
        elif not self._reader.listens:
            self._lose(Failure(ConnectionLost()))
        else:
            self._reader.failed |= is_broken  # the write took the error; the read will see an end

    def _is_broken(self) -> bool:
        if self._half_closed:
            return False  # when the peer ends too, that is CLOSE as well, and in order
        state = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state == _TCP_CLOSE

    def _lose(self, reason: Failure) -> None:
        """Close, and tell, unless that has been done."""
        if not self.connected:
            return
        self.connected = False
        self._reader.stop()
        self._writer.stop()
        try:
            self._gate.stop()
        except BaseException:
            report_callback_error("stopProducing")
        self._close()
        self._on_over(self)
        try:
            self.protocol.connectionLost(reason)
        except BaseException:
            report_callback_error(f"{type(self.protocol).__name__}.connectionLost")

    def _close(self) -> None:
        if self._aborting:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        else:
            _discard_unread(self.socket)
            _shut_down(self.socket)
        self.socket.close()


class Port:
    """A listening port, which makes a protocol for each connection (IListeningPort)."""

    connected = False
    """Whether it listens."""

    disconnecting = False
    """From stopListening to the end of listening."""

    def __init__(
        self,
        loop: EventLoop,
        port: int,
        factory: Any,
        backlog: int,
        interface: str,
        on_start: Callable[[Any], object],
        on_over: Callable[[Any], object],
    ) -> None:
        self.port = plan_int(port, "port", 0, 65535)
        self.factory = factory
        self.backlog = backlog
        self.interface = interface
        self._number = 0  # what the kernel chose, if that was left to it
        self._sessions = 0
        self.socket: socket.socket | None = None
        self._loop = loop
        self._on_start = on_start
        self._on_over = on_over
        self._watch: Watch | None = None
        self._retry: Timer | None = None
        self._short_of: int | None = None  # the errno that was logged; None when all goes well
        self._stopped: list[Deferred[None]] = []

    def __repr__(self) -> str:
        where = f"on {self._number}" if self.connected else "(not listening)"
        return f"<{type(self)} of {type(self.factory)} {where}>"

    # Life.

    def startListening(self) -> None:
        """Listen, and start the factory. CannotListenError; ValueError when it listens already."""
        if self.connected:
            raise ValueError(f"{self!r} listens already")
        try:
            sock = _open_listener(self.interface, self.port, self.backlog)
        except OSError as error:
            raise CannotListenError(self.interface, self.port, error) from error
        try:
            self._watch = self._loop.watch(sock.fileno(), self._on_ready, READ)
            self.factory.doStart()
        except BaseException:
            self._pause()
            sock.close()
            raise
        self.socket = sock
        self.connected = True
        self._number = sock.getsockname()[1]
        self._on_start(self)

    def stopListening(self) -> Deferred[None]:
        """Accept nothing more; the Deferred fires, in a later turn, when the port is closed.

        Connections go on.
        """
        if not self.connected:
            return succeed(None)
        if not self.disconnecting:
            self.disconnecting = True
            self._pause()
            self._loop.call_soon(self._close_as_asked)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped

    loseConnection = stopListening

    def disconnectAll(self) -> None:
        """Close at once; the reactor has stopped."""
        self._close()

    def _close_as_asked(self) -> None:
        if self.disconnecting:  # the reactor may have been faster, and the port listen again
            self._close()

    def _close(self) -> None:
        if self.socket is None:
            return
        self._pause()
        _shut_down(self.socket)
        self.socket.close()
        self.socket = None
        self.connected = self.disconnecting = False
        self._on_over(self)
        self._tell_stopped(self._stop_factory())

    def _stop_factory(self) -> Failure | None:
        try:
            self.factory.doStop()
        except BaseException:
            report_callback_error(f"{type(self.factory).__name__}.doStop")
            return Failure()
        return None

    def _tell_stopped(self, outcome: Failure | None) -> None:
        waiting, self._stopped = self._stopped, []
        for stopped in waiting:
            stopped.callback(outcome)

    # Where.

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address that is listened on. ValueError when none is."""
        if self.socket is None:
            raise ValueError(f"{self!r} has no address")
        return _address(self.socket.getsockname())

    def fileno(self) -> int:
        """Return the listening socket's fd; -1 when there is none."""
        return -1 if self.socket is None else self.socket.fileno()

    # Accepting.

    def _on_ready(self, events: int) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            # Asked each time: a protocol may stop the port that it was made for.
            if self.socket is None or self.disconnecting:
                return
            try:
                sock, client = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _DIED_WAITING:
                    continue
                self._back_off(error)
                return
            self._short_of = None
            self._serve(sock, client)

    def _serve(self, sock: socket.socket, client: tuple[Any, ...]) -> None:
        try:
            sock.setblocking(False)
            protocol = self._build_protocol(client)
            if protocol is None:
                sock.close()
                return
            name = f"<{type(protocol).__name__} #{self._sessions} on {self._number}>"
            connection = Connection(self._loop, sock, protocol, client, name, self._on_over)
        except BaseException:
            sock.close()
            raise
        self._sessions += 1
        self._on_start(connection)
        connection.start()

    def _build_protocol(self, client: tuple[Any, ...]) -> Any:
        try:
            return self.factory.buildProtocol(_address(client))
        except BaseException:
            report_callback_error(f"{type(self.factory).__name__}.buildProtocol")
            return None

    def _back_off(self, error: OSError) -> None:
        """Accept nothing for a moment; said once, however long it takes."""
        if error.errno != self._short_of:
            self._short_of = error.errno
            _log.warning(
                "cannot accept connections on %r: %s; trying every %s s",
                self,
                error,
                _ACCEPT_RETRY_S,
            )
        self._pause()
        self._retry = self._loop.call_later(_ACCEPT_RETRY_S, self._resume)

    def _pause(self) -> None:
        if self._watch is not None:
            self._loop.unwatch(self._watch)
            self._watch = None
        if self._retry is not None:
            self._loop.timers.cancel(self._retry)
            self._retry = None

    def _resume(self) -> None:
        self._retry = None
        if self.socket is not None:
            self._watch = self._loop.watch(self.socket.fileno(), self._on_ready, READ)


# --- Sockets --------------------------------------------------------------------------------------


def _open_listener(interface: str, port: int, backlog: int) -> socket.socket:
    """Return a non-blocking socket that listens; the caller closes it. OSError."""
    is_ipv6 = ":" in interface
    sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(_ipv6_sockaddr(interface, port) if is_ipv6 else (interface, port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _ipv6_sockaddr(interface: str, port: int) -> tuple[Any, ...]:
    """Return what bind takes; a link-local *interface* names its scope, which becomes a number."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    found = socket.getaddrinfo(interface, port, socket.AF_INET6, socket.SOCK_STREAM, flags=flags)
    return found[0][4]


def _address(sockaddr: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    if len(sockaddr) == 2:
        return IPv4Address("TCP", *sockaddr)
    host, port, flow_info, scope = sockaddr
    if scope:
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        host = socket.getnameinfo(sockaddr, numeric)[0]
    return IPv6Address("TCP", host, port, flow_info, scope)


def _discard_unread(sock: socket.socket) -> None:
    """Take what nobody will read, within reason.

    Closed over it, the connection would be reset (RFC 2525, 2.17), and the peer lose what the
    kernel has still to send.
    """
    try:
        for _ in range(_DISCARDS):
            if not sock.recv(READ_SIZE_BYTES):
                return
    except OSError:
        pass  # nothing there, or nobody


def _shut_down(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # the peer was faster
