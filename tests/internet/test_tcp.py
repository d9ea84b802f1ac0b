"""Listening ports and their connections; what both libraries do, both are asked for.

Clients are plain sockets of the test's own thread: the kernel completes a connection before it is
accepted, so a client never has to wait for the reactor, only to turn it.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import logging
import os
import resource
import select
import socket
import struct
import termios
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest
from support import DEADLINE_S, PROC, make_reactor
from twisted.internet import address as twisted_address
from twisted.internet import epollreactor as twisted_epollreactor
from twisted.internet import error as twisted_error
from twisted.internet import tcp as twisted_tcp

from procreactor.internet import address, error, tcp
from procreactor.internet.protocol import Factory, Protocol

# Twisted opens it with its first port, and keeps it for good.
_reserved_fd: Any = twisted_tcp._reservedFD
_reserved_fd.reserve()

TwistedReactor: Any = twisted_epollreactor.EPollReactor

MEGABYTE = 1 << 20


class Recorder(Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.received = b""
        self.reasons: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.reasons.append(reason.value)

    @property
    def outcome(self) -> list[str]:
        """By what names the end was told, each time that it was."""
        return [type(reason).__name__ for reason in self.reasons]


class Echo(Recorder):
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)


class Server(Factory):
    """Makes protocols of one kind and keeps them."""

    def __init__(self, kind: Callable[[], Any] = Recorder) -> None:
        self.kind = kind
        self.made: list[Any] = []
        self.addresses: list[Any] = []
        self.starts = self.stops = 0

    def startFactory(self) -> None:
        self.starts += 1

    def stopFactory(self) -> None:
        self.stops += 1

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        protocol = self.kind()
        self.made.append(protocol)
        return protocol


class World:
    """One library: a reactor of the test's own, and clients."""

    def __init__(self, reactor: Any, errors: Any, addresses: Any, stack: ExitStack) -> None:
        self.reactor = reactor
        self.error = errors
        self.address = addresses
        self._stack = stack

    def listen(self, factory: Any, interface: str = "127.0.0.1", **options: Any) -> Any:
        return self.reactor.listenTCP(0, factory, interface=interface, **options)

    def connect(self, port: Any) -> socket.socket:
        where = port.getHost()
        client = self._stack.enter_context(
            closing(socket.create_connection((where.host, where.port)))
        )
        client.settimeout(DEADLINE_S)
        return client

    def until(self, condition: Callable[[], object]) -> None:
        """Run turns until *condition* holds."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"not within {DEADLINE_S} s"
            # Short waits, because a condition may be about the client, of which the reactor
            # knows nothing, and because Twisted's iterate does not look at its timers.
            self.reactor.iterate(0.005)

    def turn(self, times: int = 5) -> None:
        """Run some turns, for what must not happen in them."""
        for _ in range(times):
            self.reactor.iterate(0)

    def accepted(self, kind: Callable[[], Any] = Recorder) -> tuple[socket.socket, Any]:
        """A client, and the protocol at the other end."""
        server = Server(kind)
        client = self.connect(self.listen(server))
        self.until(lambda: server.made and server.made[0].transport)
        return client, server.made[0]

    def read(self, client: socket.socket, size: int | None = None) -> bytes:
        """What the client receives: *size* bytes, or all until the end."""
        got = bytearray()

        def is_complete() -> bool:
            try:
                data = client.recv(MEGABYTE)
            except BlockingIOError:
                return False
            got.extend(data)
            return not data or len(got) == size

        client.setblocking(False)
        self.until(is_complete)
        return bytes(got)


@contextmanager
def make_twisted_reactor() -> Iterator[Any]:
    reactor = TwistedReactor()
    try:
        yield reactor
    finally:
        reactor.disconnectAll()
        for waker in list(reactor._internalReaders):
            waker.connectionLost(None)
        reactor._poller.close()


@pytest.fixture
def ours() -> Iterator[World]:
    """This library alone."""
    with ExitStack() as stack:
        yield World(stack.enter_context(make_reactor()), error, address, stack)


@pytest.fixture(params=["ours", "twisted"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """This library, then Twisted."""
    if request.param == "ours":
        yield request.getfixturevalue("ours")
        return
    with ExitStack() as stack:
        reactor = stack.enter_context(make_twisted_reactor())
        yield World(reactor, twisted_error, twisted_address, stack)


def reset(client: socket.socket) -> None:
    """Close with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def fired(deferred: Any) -> list[Any]:
    """A list that gets the Deferred's result."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


def is_refused(where: Any) -> bool:
    try:
        socket.create_connection((where.host, where.port)).close()
    except ConnectionRefusedError:
        return True
    return False


# --- Addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [address, twisted_address], ids=["ours", "twisted"])
def test_an_address_is_a_value(module: Any) -> None:
    four = module.IPv4Address("TCP", "127.0.0.1", 80)
    six = module.IPv6Address("TCP", "::1", 80)
    assert repr(four) == "IPv4Address(type='TCP', host='127.0.0.1', port=80)"
    assert repr(six) == "IPv6Address(type='TCP', host='::1', port=80, flowInfo=0, scopeID=0)"
    assert four == module.IPv4Address("TCP", "127.0.0.1", 80)
    assert four != module.IPv4Address("TCP", "127.0.0.1", 81)
    assert four != six
    assert len({four, module.IPv4Address("TCP", "127.0.0.1", 80), six}) == 2
    assert four < module.IPv4Address("TCP", "127.0.0.1", 81)


@pytest.mark.parametrize("module", [address, twisted_address], ids=["ours", "twisted"])
@pytest.mark.parametrize("kind", ["IPv4Address", "IPv6Address"])
def test_an_address_is_of_TCP_or_UDP(module: Any, kind: str) -> None:
    with pytest.raises(ValueError, match="type"):
        getattr(module, kind)("SCTP", "127.0.0.1", 80)


# --- Ports ----------------------------------------------------------------------------------------


def test_a_port_left_to_the_kernel_tells_its_number(world: World) -> None:
    port = world.listen(Server())
    host = port.getHost()
    assert host == world.address.IPv4Address("TCP", "127.0.0.1", host.port)
    assert host.port > 0
    assert port.fileno() >= 0
    assert port.connected


def test_both_ends_have_the_addresses_of_the_sockets(world: World) -> None:
    client, protocol = world.accepted()
    ipv4 = world.address.IPv4Address
    assert protocol.transport.getPeer() == ipv4("TCP", *client.getsockname())
    assert protocol.transport.getHost() == ipv4("TCP", *client.getpeername())
    assert protocol.transport.client == client.getsockname()


def test_an_interface_with_colons_is_IPv6(world: World) -> None:
    server = Server()
    port = world.listen(server, "::1")
    client = world.connect(port)
    world.until(lambda: server.made)
    ipv6 = world.address.IPv6Address
    assert port.getHost() == ipv6("TCP", "::1", port.getHost().port)
    assert server.addresses == [ipv6("TCP", *client.getsockname())]
    assert server.made[0].transport.getPeer() == server.addresses[0]
    assert server.made[0].transport.getHost() == port.getHost()


def test_no_interface_is_every_IPv4_interface(world: World) -> None:
    port = world.listen(Server(), "")
    assert port.getHost().host == "0.0.0.0"


def test_a_scope_is_named_in_the_host_and_numbered_beside_it() -> None:
    loopback = socket.if_nametoindex("lo")
    assert tcp._address(("fe80::1", 80, 0, loopback)) == address.IPv6Address(
        "TCP", "fe80::1%lo", 80, 0, loopback
    )
    assert tcp._ipv6_sockaddr("fe80::1%lo", 80) == ("fe80::1", 80, 0, loopback)


def test_a_port_that_is_taken_cannot_be_listened_on(world: World) -> None:
    taken = world.listen(Server()).getHost().port
    server = Server()
    with pytest.raises(world.error.CannotListenError) as caught:
        world.reactor.listenTCP(taken, server, interface="127.0.0.1")
    assert caught.value.interface == "127.0.0.1"
    assert caught.value.port == taken
    assert caught.value.socketError.errno == errno.EADDRINUSE
    assert server.starts == 0


@pytest.mark.parametrize("interface", ["203.0.113.1", "::bad::"])
def test_an_interface_that_is_none_of_ours_cannot_be_listened_on(
    world: World, interface: str
) -> None:
    with pytest.raises(world.error.CannotListenError):
        world.listen(Server(), interface)


@pytest.mark.parametrize(
    ("number", "kind"), [(-1, ValueError), (65536, ValueError), ("80", TypeError)]
)
def test_a_port_out_of_range_is_misuse(ours: World, number: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"port must be .*from 0 to 65535"):
        ours.reactor.listenTCP(number, Server())


def test_a_stopped_port_refuses_and_its_connections_go_on(world: World) -> None:
    server = Server(Echo)
    port = world.listen(server)
    where = port.getHost()
    client = world.connect(port)
    world.until(lambda: server.made)
    stopped = fired(port.stopListening())
    assert stopped == []
    world.until(lambda: stopped)
    assert stopped == [None]
    assert (server.starts, server.stops) == (1, 1)
    assert not port.connected
    assert is_refused(where)
    client.sendall(b"still there")
    assert world.read(client, 11) == b"still there"


def test_loseConnection_of_a_port_stops_it_too(world: World) -> None:
    server = Server()
    stopped = fired(world.listen(server).loseConnection())
    world.until(lambda: stopped)
    assert server.stops == 1


def test_a_stopped_port_can_listen_again(world: World) -> None:
    server = Server()
    port = world.listen(server)
    stopped = fired(port.stopListening())
    world.until(lambda: stopped)
    port.startListening()
    world.connect(port)
    world.until(lambda: server.made)
    assert (server.starts, server.stops) == (2, 1)


def test_stopping_twice_tells_both_and_stopping_what_is_stopped_is_done(ours: World) -> None:
    server = Server()
    port = ours.listen(server)
    results = [fired(port.stopListening()), fired(port.stopListening())]
    ours.turn()
    assert results == [[None], [None]]
    assert server.stops == 1
    assert fired(port.stopListening()) == [None]
    assert port.fileno() == -1
    with pytest.raises(ValueError, match="not listening"):
        port.getHost()


def test_a_port_that_listens_cannot_be_started(ours: World) -> None:
    port = ours.listen(Server())
    with pytest.raises(ValueError, match="listens already"):
        port.startListening()


def test_a_factory_that_cannot_start_leaves_nothing_open(ours: World) -> None:
    class Broken(Server):
        def startFactory(self) -> None:
            raise RuntimeError("no database")

    before = len(os.listdir(f"{PROC}/self/fd"))
    with pytest.raises(RuntimeError, match="no database"):
        ours.listen(Broken())
    assert len(os.listdir(f"{PROC}/self/fd")) == before


def test_a_factory_that_cannot_stop_fails_the_deferred_of_its_stopped_port(world: World) -> None:
    class Broken(Server):
        def stopFactory(self) -> None:
            raise RuntimeError("no way out")

    port = world.listen(Broken())
    where = port.getHost()
    stopped = fired(port.stopListening())
    world.until(lambda: stopped)
    assert stopped[0].check(RuntimeError)
    assert is_refused(where)


def test_a_protocol_may_stop_the_port_that_it_was_made_for(world: World) -> None:
    class OnlyOne(Echo):
        def connectionMade(self) -> None:
            stopped.append(fired(port.stopListening()))

    stopped: list[Any] = []
    port = world.listen(Server(OnlyOne))
    client = world.connect(port)
    world.until(lambda: stopped and stopped[0])
    client.sendall(b"x")
    assert world.read(client, 1) == b"x"


def test_both_are_called_by_protocol_and_port(ours: World) -> None:
    server = Server()
    port = ours.listen(server)
    number = port.getHost().port
    assert repr(port) == f"<{tcp.Port} of {Server} on {number}>"
    ours.connect(port)
    ours.connect(port)
    ours.until(lambda: len(server.made) == 2)
    names = [repr(protocol.transport) for protocol in server.made]
    assert names == [f"<Recorder #0 on {number}>", f"<Recorder #1 on {number}>"]
    port.stopListening()
    ours.turn()
    assert repr(port) == f"<{tcp.Port} of {Server} (not listening)>"


# --- Accepting ------------------------------------------------------------------------------------


def test_a_factory_that_makes_no_protocol_refuses_the_connection(world: World) -> None:
    client = world.connect(world.listen(Server(lambda: None)))
    assert world.read(client) == b""


def test_a_factory_that_raises_loses_that_connection_only(
    ours: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Moody(Server):
        def buildProtocol(self, addr: Any) -> Any:
            if not self.addresses:
                self.addresses.append(addr)
                raise RuntimeError("not in the morning")
            return super().buildProtocol(addr)

    server = Moody(Echo)
    port = ours.listen(server)
    first, second = ours.connect(port), ours.connect(port)
    assert ours.read(first) == b""
    second.sendall(b"hello")
    assert ours.read(second, 5) == b"hello"
    assert "Moody.buildProtocol raised" in caplog.text


def test_a_protocol_that_raises_in_connectionMade_loses_its_connection(
    ours: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recorder):
        def connectionMade(self) -> None:
            raise RuntimeError("bad start")

    client, protocol = ours.accepted(Broken)
    assert ours.read(client) == b""
    assert protocol.outcome == ["RuntimeError"]
    assert "Broken.makeConnection raised" in caplog.text


def test_a_flood_of_connections_is_accepted_in_several_turns(ours: World) -> None:
    flood = 2 * tcp._ACCEPTS_PER_TURN + 1
    server = Server()
    port = ours.listen(server, backlog=flood)
    for _ in range(flood):
        ours.connect(port)
    seen = []
    while len(server.made) < flood:
        ours.reactor.iterate(DEADLINE_S)
        seen.append(len(server.made))
    assert seen == [tcp._ACCEPTS_PER_TURN, 2 * tcp._ACCEPTS_PER_TURN, flood]


@contextmanager
def no_fd_left() -> Iterator[list[int]]:
    """Let no fd be opened; closing one of those that the list has makes room for one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    fillers: list[int] = []
    try:
        while True:
            try:
                fillers.append(os.dup(0))
            except OSError:
                break
        yield fillers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


@pytest.mark.needs("file limits")
def test_without_an_fd_left_a_connection_waits_and_the_loop_does_not_spin(
    ours: World, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(Echo)
    client = ours.connect(ours.listen(server))
    with no_fd_left() as fillers:
        turns, end = 0, time.monotonic() + 2.5 * tcp._ACCEPT_RETRY_S
        while time.monotonic() < end:
            ours.reactor.iterate(end - time.monotonic())
            turns += 1
        assert turns < 10
        assert server.made == []
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "Too many open files" in caplog.text
        os.close(fillers.pop())
        client.sendall(b"at last")
        assert ours.read(client, 7) == b"at last"


def test_a_port_that_waits_for_an_fd_can_be_stopped(ours: World) -> None:
    server = Server()
    port = ours.listen(server)
    where = port.getHost()
    ours.connect(port)
    with no_fd_left():
        ours.turn()
        stopped = fired(port.stopListening())
        ours.until(lambda: stopped)
        assert not ours.reactor._loop.timers
    assert is_refused(where)
    assert server.made == []


class Unlucky:
    """A listening socket whose accept fails first; the kernel's moods cannot be had for asking."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self._socket = sock
        self._number = number
        self.failures = 3

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(self._number, os.strerror(self._number))
        return self._socket.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


@pytest.mark.parametrize("name", ["ECONNABORTED", "EPERM", "EPROTO", "ENETDOWN"])
def test_a_connection_that_died_waiting_is_skipped(
    ours: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    port = ours.listen(server)
    port.socket = Unlucky(port.socket, getattr(errno, name))
    ours.connect(port)
    ours.reactor.iterate(DEADLINE_S)
    assert port.socket.failures == 0
    assert len(server.made) == 1
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EINVAL"])
def test_what_the_kernel_is_short_of_is_said_once_and_tried_again(
    ours: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    port = ours.listen(server)
    port.socket = Unlucky(port.socket, getattr(errno, name))
    ours.connect(port)
    began = time.monotonic()
    ours.until(lambda: server.made)
    assert time.monotonic() - began >= 3 * tcp._ACCEPT_RETRY_S
    assert len(caplog.records) == 1


# --- Data -----------------------------------------------------------------------------------------


def test_data_goes_both_ways(world: World) -> None:
    client, protocol = world.accepted(Echo)
    client.sendall(b"ping")
    assert world.read(client, 4) == b"ping"
    assert protocol.received == b"ping"


def test_all_of_a_sequence_is_written_in_order(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.writeSequence([b"a", b"", b"bc", b"d" * 100_000])
    protocol.transport.write(b"e")
    assert world.read(client, 100_004) == b"abc" + b"d" * 100_000 + b"e"


def test_a_sequence_may_be_a_generator_and_data_any_bytes(ours: World) -> None:
    client, protocol = ours.accepted()
    protocol.transport.writeSequence(bytes([n]) for n in b"abc")
    protocol.transport.write(bytearray(b"d"))
    protocol.transport.write(memoryview(b"e"))
    assert ours.read(client, 5) == b"abcde"


def test_text_is_no_data(world: World) -> None:
    _, protocol = world.accepted()
    with pytest.raises(TypeError, match="bytes"):
        protocol.transport.write("text")


def test_a_paused_connection_receives_nothing_until_it_is_resumed(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.pauseProducing()
    client.sendall(b"later")
    world.turn()
    assert protocol.received == b""
    protocol.transport.resumeProducing()
    world.until(lambda: protocol.received == b"later")


def test_socket_options_are_set_and_told(world: World) -> None:
    _, protocol = world.accepted()
    transport = protocol.transport
    for enabled in (True, False):
        transport.setTcpNoDelay(enabled)
        transport.setTcpKeepAlive(enabled)
        assert transport.getTcpNoDelay() is enabled
        assert transport.getTcpKeepAlive() is enabled
    handle = transport.getHandle()
    assert isinstance(handle, socket.socket)
    assert handle.fileno() == transport.fileno()


# --- Producers ------------------------------------------------------------------------------------


class Producer:
    """Writes down what it is told; pulled, it writes a piece until it has no more."""

    def __init__(self, transport: Any, pieces: int = 0) -> None:
        self.transport = transport
        self.pieces = pieces
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def stopProducing(self) -> None:
        self.calls.append("stop")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        if self.pieces:
            self.pieces -= 1
            self.transport.write(b"piece")
        else:
            self.transport.unregisterProducer()


def test_a_streaming_producer_pauses_while_the_peer_does_not_read(world: World) -> None:
    client, protocol = world.accepted()
    producer = Producer(protocol.transport)
    protocol.transport.registerProducer(producer, True)
    protocol.transport.write(b"x" * 16 * MEGABYTE)
    assert producer.calls == ["pause"]
    assert len(world.read(client, 16 * MEGABYTE)) == 16 * MEGABYTE
    world.until(lambda: producer.calls == ["pause", "resume"])


def test_a_close_waits_for_a_pulled_producer(world: World) -> None:
    client, protocol = world.accepted()
    producer = Producer(protocol.transport, pieces=3)
    protocol.transport.registerProducer(producer, False)
    protocol.transport.loseConnection()
    assert world.read(client) == b"piecepiecepiece"
    assert producer.calls == ["resume"] * 4
    world.until(lambda: protocol.outcome == ["ConnectionDone"])


def test_a_producer_is_stopped_when_the_connection_is_lost(world: World) -> None:
    client, protocol = world.accepted()
    producer = Producer(protocol.transport)
    protocol.transport.registerProducer(producer, True)
    client.close()
    world.until(lambda: protocol.reasons)
    assert producer.calls == ["stop"]
    late = Producer(protocol.transport)
    protocol.transport.registerProducer(late, True)
    assert late.calls == ["stop"]


def test_a_second_producer_is_refused(world: World) -> None:
    _, protocol = world.accepted()
    protocol.transport.registerProducer(Producer(protocol.transport), True)
    with pytest.raises(RuntimeError, match="never unregistered"):
        protocol.transport.registerProducer(Producer(protocol.transport), True)


def test_a_producer_that_raises_when_stopped_does_not_keep_the_connection(
    ours: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Producer):
        def stopProducing(self) -> None:
            raise RuntimeError("never")

    client, protocol = ours.accepted()
    protocol.transport.registerProducer(Stubborn(protocol.transport), True)
    client.close()
    ours.until(lambda: protocol.outcome == ["ConnectionDone"])
    assert "stopProducing raised" in caplog.text


def test_a_pull_producer_that_raises_ends_the_connection_and_is_stopped(
    ours: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Producer):
        def resumeProducing(self) -> None:
            if not self.pieces:
                raise RuntimeError("nothing more")
            super().resumeProducing()

    client, protocol = ours.accepted()
    producer = Broken(protocol.transport, pieces=2)
    protocol.transport.registerProducer(producer, False)
    assert ours.read(client) == b"piecepiece"
    ours.until(lambda: protocol.outcome == ["ConnectionDone"])
    assert producer.calls == ["resume", "resume", "stop"]
    assert "Broken.resumeProducing raised" in caplog.text


# --- How a connection ends ------------------------------------------------------------------------


def test_a_peer_that_closes_is_a_clean_end(world: World) -> None:
    client, protocol = world.accepted()
    assert protocol.transport.connected
    client.sendall(b"bye")
    client.close()
    world.until(lambda: protocol.reasons)
    world.turn()
    assert protocol.received == b"bye"
    assert protocol.outcome == ["ConnectionDone"]
    assert not protocol.transport.connected


def test_a_peer_that_ends_its_direction_ends_the_connection(world: World) -> None:
    client, protocol = world.accepted()
    client.shutdown(socket.SHUT_WR)
    assert world.read(client) == b""
    assert protocol.outcome == ["ConnectionDone"]


def test_a_reset_is_a_lost_connection(world: World) -> None:
    client, protocol = world.accepted()
    reset(client)
    world.until(lambda: protocol.reasons)
    world.turn()
    assert protocol.outcome == ["ConnectionLost"]


def test_an_end_and_then_a_reset_is_a_clean_end(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.pauseProducing()
    protocol.transport.write(b"never read")
    world.until(lambda: select.select([client], [], [], 0)[0])
    client.shutdown(socket.SHUT_WR)
    client.close()  # resets, since something is unread
    protocol.transport.resumeProducing()
    world.until(lambda: protocol.reasons)
    assert protocol.outcome == ["ConnectionDone"]


def test_a_close_flushes_first_and_what_is_written_after_it_counts(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.write(b"x" * 8 * MEGABYTE)
    protocol.transport.loseConnection()
    protocol.transport.write(b"and the end")
    assert protocol.transport.disconnecting
    assert world.read(client) == b"x" * 8 * MEGABYTE + b"and the end"
    world.until(lambda: protocol.reasons)
    world.turn()
    assert protocol.outcome == ["ConnectionDone"]


@pytest.mark.parametrize("method", ["loseConnection", "stopProducing", "abortConnection"])
def test_no_call_to_the_transport_tells_the_end_itself(world: World, method: str) -> None:
    _, protocol = world.accepted()
    getattr(protocol.transport, method)()
    getattr(protocol.transport, method)()
    assert protocol.reasons == []
    assert protocol.transport.connected
    world.until(lambda: protocol.reasons)
    world.turn()
    assert len(protocol.reasons) == 1


def test_nothing_is_received_after_a_close_was_asked_for(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.write(b"x" * 8 * MEGABYTE)
    protocol.transport.loseConnection()
    client.sendall(b"too late")
    world.turn()
    protocol.transport.resumeProducing()
    with suppress(ConnectionResetError):  # Twisted's answer to what it left unread
        world.read(client)
    world.until(lambda: protocol.reasons)
    assert protocol.received == b""
    assert protocol.outcome == ["ConnectionDone"]


def test_what_the_peer_sent_in_vain_costs_it_nothing_of_what_we_wrote(ours: World) -> None:
    client, protocol = ours.accepted()
    protocol.transport.write(b"x" * 8 * MEGABYTE)
    protocol.transport.loseConnection()
    client.sendall(b"too late")
    assert len(ours.read(client)) == 8 * MEGABYTE


def test_a_peer_that_resets_while_we_flush_is_a_lost_connection(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.write(b"x" * 8 * MEGABYTE)
    protocol.transport.loseConnection()
    world.turn()
    assert protocol.reasons == []
    reset(client)
    world.until(lambda: protocol.reasons)
    assert protocol.outcome == ["ConnectionLost"]


def test_a_reset_is_noticed_by_a_write_when_nothing_is_read(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.pauseProducing()
    reset(client)
    world.turn()
    assert protocol.reasons == []
    protocol.transport.write(b"anybody there?")
    assert protocol.reasons == []
    world.until(lambda: protocol.reasons)
    assert protocol.outcome == ["ConnectionLost"]


def test_an_abort_resets_and_drops_what_is_queued(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.write(b"x" * 8 * MEGABYTE)
    protocol.transport.abortConnection()
    protocol.transport.write(b"dropped")
    protocol.transport.loseConnection()
    world.until(lambda: protocol.reasons)
    world.turn()
    assert protocol.outcome == ["ConnectionAborted"]
    with pytest.raises(ConnectionResetError):
        world.read(client)


def test_an_abort_overtakes_a_close_that_waits(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.write(b"x" * 8 * MEGABYTE)
    protocol.transport.loseConnection()
    world.turn()
    protocol.transport.abortConnection()
    world.until(lambda: protocol.reasons)
    assert protocol.outcome == ["ConnectionAborted"]
    with pytest.raises(ConnectionResetError):
        world.read(client)


def test_our_direction_can_be_ended_alone(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.write(b"x" * 8 * MEGABYTE)
    protocol.transport.loseWriteConnection()
    assert len(world.read(client)) == 8 * MEGABYTE
    protocol.transport.write(b"dropped")
    client.sendall(b"thanks")
    world.until(lambda: protocol.received == b"thanks")
    assert protocol.reasons == []
    client.close()
    world.until(lambda: protocol.reasons)
    assert protocol.outcome == ["ConnectionDone"]


def test_a_connection_half_ended_can_be_closed(world: World) -> None:
    client, protocol = world.accepted()
    protocol.transport.loseWriteConnection()
    assert world.read(client) == b""
    protocol.transport.pauseProducing()
    client.close()
    protocol.transport.loseConnection()
    world.until(lambda: protocol.reasons)
    world.turn()
    assert protocol.outcome == ["ConnectionDone"]


def broken_after(world: World, size: int) -> Any:
    """A protocol whose peer has sent *size* bytes and reset; it has failed to write already."""
    server = Server()
    port = world.listen(server)
    port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * size)
    client = world.connect(port)
    world.until(lambda: server.made)
    protocol = server.made[0]
    protocol.transport.pauseProducing()
    client.sendall(b"x" * size)
    world.until(lambda: fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)) == bytes(4))
    reset(client)
    protocol.transport.resumeProducing()
    protocol.transport.write(b"fails")
    return protocol


def test_what_came_before_a_break_is_received_though_writes_fail(ours: World) -> None:
    protocol = broken_after(ours, 150_000)
    ours.until(lambda: protocol.reasons)
    assert len(protocol.received) == 150_000
    assert protocol.outcome == ["ConnectionLost"]


def test_a_close_after_a_write_that_failed_still_ends_the_connection(ours: World) -> None:
    protocol = broken_after(ours, 150_000)
    ours.reactor.iterate(0)
    protocol.transport.loseConnection()
    assert 0 < len(protocol.received) < 150_000
    assert protocol.reasons == []
    ours.until(lambda: protocol.reasons)
    ours.turn()
    assert protocol.outcome == ["ConnectionLost"]


def test_a_protocol_that_raises_in_dataReceived_loses_its_connection(world: World) -> None:
    class Broken(Recorder):
        def dataReceived(self, data: bytes) -> None:
            raise RuntimeError("what is that?")

    client, protocol = world.accepted(Broken)
    client.sendall(b"?")
    assert world.read(client) == b""
    assert protocol.outcome == ["RuntimeError"]


def test_a_protocol_that_raises_in_connectionLost_is_logged(
    ours: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recorder):
        def connectionLost(self, reason: Any = None) -> None:
            super().connectionLost(reason)
            raise RuntimeError("what now?")

    client, protocol = ours.accepted(Broken)
    client.close()
    ours.until(lambda: protocol.reasons)
    assert "Broken.connectionLost raised" in caplog.text
    assert protocol.transport.fileno() == -1


def test_a_lost_connection_takes_every_call_and_drops_what_is_written(world: World) -> None:
    client, protocol = world.accepted()
    peer = protocol.transport.getPeer()
    client.close()
    world.until(lambda: protocol.reasons)
    transport = protocol.transport
    transport.write(b"dropped")
    transport.writeSequence([b"dropped"])
    transport.loseConnection()
    transport.abortConnection()
    transport.stopProducing()
    transport.resumeProducing()
    transport.unregisterProducer()
    world.turn()
    assert transport.getPeer() == peer
    assert transport.fileno() == -1
    assert len(protocol.reasons) == 1


# --- The reactor's end ----------------------------------------------------------------------------


def run_and_stop(world: World, is_ready: Callable[[], object]) -> None:
    """Run the reactor until *is_ready*, and stop it."""

    def look() -> None:
        if is_ready():
            world.reactor.stop()
        else:
            world.reactor.callLater(0.005, look)

    timeout = world.reactor.callLater(DEADLINE_S, world.reactor.crash)
    world.reactor.callLater(0, look)
    world.reactor.run(installSignalHandlers=False)
    assert timeout.active(), f"not ready within {DEADLINE_S} s"
    timeout.cancel()


def test_when_the_reactor_stops_ports_and_connections_are_closed(world: World) -> None:
    server = Server()
    port = world.listen(server)
    where = port.getHost()
    client = world.connect(port)
    run_and_stop(world, lambda: server.made)
    assert server.made[0].outcome == ["ConnectionLost"]
    assert server.stops == 1
    assert client.recv(1) == b""
    assert is_refused(where)


def test_a_port_being_stopped_when_the_reactor_stops_tells_so(ours: World) -> None:
    server = Server()
    stopped: list[Any] = []
    port = ours.listen(server)
    ours.reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: stopped.append(fired(port.stopListening()))
    )
    run_and_stop(ours, lambda: True)
    assert stopped == [[None]]
    assert server.stops == 1


def test_a_lost_connection_is_freed_and_forgotten(ours: World) -> None:
    server = Server()
    client = ours.connect(ours.listen(server))
    ours.until(lambda: server.made)
    transport = weakref.ref(server.made[0].transport)
    assert transport() in ours.reactor._disconnectable
    client.close()
    ours.until(lambda: server.made[0].reasons)
    assert transport() not in ours.reactor._disconnectable
    server.made.clear()
    gc.collect()
    assert transport() is None


def test_nothing_is_logged_when_all_goes_well(
    ours: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client, protocol = ours.accepted(Echo)
    client.sendall(b"x")
    assert ours.read(client, 1) == b"x"
    protocol.transport.loseConnection()
    assert ours.read(client) == b""
    assert caplog.text == ""
