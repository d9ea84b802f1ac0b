"""ProcessEndpoint, with real children; and the same program on the real Twisted."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deferreds import WatchedReactor, error_of, result_of, run_program, watched_reactor
from support import run_until

from procreactor.errors import SpawnError
from procreactor.internet import error, interfaces
from procreactor.internet.endpoints import ProcessAddress, ProcessEndpoint, StandardErrorBehavior
from procreactor.internet.protocol import Factory, Protocol, connectionDone
from procreactor.protocols.basic import LineOnlyReceiver, LineReceiver
from procreactor.python.failure import Failure

SH = "/bin/sh"


class Stream(Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.data = b""
        self.reason: Any = None

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append("data")
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")
        self.reason = reason.value


Connect = Callable[..., Stream]


@pytest.fixture
def reactor() -> Iterator[WatchedReactor]:
    with watched_reactor() as one:
        yield one


@pytest.fixture
def connect(reactor: WatchedReactor) -> Connect:
    """Return a function that connects a Stream to a shell script and returns it."""

    def connect(script: str, factory: Any = None, **kwargs: Any) -> Stream:
        endpoint = ProcessEndpoint(reactor, SH, [SH, "-c", script], **{"env": None, **kwargs})
        stream: Stream = result_of(
            reactor, endpoint.connect(factory or Factory.forProtocol(Stream))
        )
        return stream

    return connect


def run_until_lost(reactor: WatchedReactor, stream: Stream) -> None:
    run_until(reactor, lambda: stream.reason is not None)


# Connecting


def test_the_protocol_is_connected_when_connect_returns(reactor: WatchedReactor) -> None:
    endpoint = ProcessEndpoint(reactor, "/bin/true")
    deferred = endpoint.connect(Factory.forProtocol(Stream))
    assert deferred.called
    assert deferred.result.events == ["made"]  # type: ignore[attr-defined]


def test_the_protocol_is_that_of_the_factory(reactor: WatchedReactor) -> None:
    factory = Factory.forProtocol(Stream)
    stream = result_of(reactor, ProcessEndpoint(reactor, "/bin/true").connect(factory))
    assert isinstance(stream, Stream)
    assert stream.factory is factory


def test_each_connect_starts_a_child_of_its_own(reactor: WatchedReactor) -> None:
    endpoint = ProcessEndpoint(reactor, "/bin/cat")
    factory = Factory.forProtocol(Stream)
    one, other = (result_of(reactor, endpoint.connect(factory)) for _ in range(2))
    assert one.transport.pid != other.transport.pid
    one.transport.write(b"one")
    other.transport.write(b"other")
    for stream in (one, other):
        stream.transport.closeStdin()
        run_until_lost(reactor, stream)
    assert (one.data, other.data) == (b"one", b"other")


def test_a_program_that_is_not_there_fails_the_deferred_and_nobody_is_told(
    reactor: WatchedReactor,
) -> None:
    stream = Stream()
    endpoint = ProcessEndpoint(reactor, "/nowhere/to/be/found")
    problem = error_of(reactor, endpoint.connect(Factory.forProtocol(lambda: stream)))
    assert isinstance(problem, SpawnError)
    assert isinstance(problem, FileNotFoundError)
    assert problem.errno == errno.ENOENT
    assert stream.events == []
    assert reactor.spawned == []


@pytest.mark.parametrize(
    "wrong", [{"args": "text"}, {"env": 1}, {"nosuch": 1}, {"childFDs": {0: "x"}}]
)
def test_misuse_fails_the_deferred(wrong: dict[str, Any], reactor: WatchedReactor) -> None:
    endpoint = ProcessEndpoint(reactor, "/bin/true", **wrong)
    problem = error_of(reactor, endpoint.connect(Factory.forProtocol(Stream)))
    assert isinstance(problem, TypeError | ValueError)
    assert reactor.spawned == []


def test_a_factory_that_makes_no_protocol_starts_no_child(reactor: WatchedReactor) -> None:
    factory = Factory.forProtocol(Stream)
    vars(factory)["buildProtocol"] = lambda addr: None
    problem = error_of(reactor, ProcessEndpoint(reactor, "/bin/true").connect(factory))
    assert isinstance(problem, error.NoProtocol)
    assert reactor.spawned == []


def test_what_a_factory_raises_is_raised(reactor: WatchedReactor) -> None:
    with pytest.raises(TypeError, match=r"Factory.protocol is not set"):
        ProcessEndpoint(reactor, "/bin/true").connect(Factory())
    assert reactor.spawned == []


def test_an_error_in_connectionMade_is_logged_and_the_stream_goes_on(
    reactor: WatchedReactor, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Stream):
        def connectionMade(self) -> None:
            raise ZeroDivisionError

    stream = connect("echo hello", Factory.forProtocol(Clumsy))
    run_until_lost(reactor, stream)
    assert stream.data == b"hello\n"
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        ZeroDivisionError
    ]


# The arguments


def test_the_arguments_are_those_of_spawnProcess(reactor: WatchedReactor, tmp_path: Path) -> None:
    script = 'printf "%s " "$0" "$A"; pwd; umask; id -u; tty <&3'
    endpoint = ProcessEndpoint(
        reactor,
        SH,
        [SH, "-c", script, "zero"],
        {"A": "b", "PATH": os.environ["PATH"]},
        tmp_path,
        os.getuid(),
        os.getgid(),
        0,
        {1: "r", 2: "r", 3: "w"},
        StandardErrorBehavior.DROP,
        umask=0o71,
    )
    stream = result_of(reactor, endpoint.connect(Factory.forProtocol(Stream)))
    run_until_lost(reactor, stream)
    expected = f"zero b {tmp_path}\n0071\n{os.getuid()}\nnot a tty\n"
    assert stream.data == expected.encode()


def test_without_arguments_the_child_has_its_name_and_no_environment(
    reactor: WatchedReactor,
) -> None:
    endpoint = ProcessEndpoint(reactor, "/usr/bin/env")
    stream = result_of(reactor, endpoint.connect(Factory.forProtocol(Stream)))
    run_until_lost(reactor, stream)
    assert stream.data == b""
    assert type(stream.reason) is error.ConnectionDone


def test_a_stream_may_be_a_terminal(reactor: WatchedReactor, connect: Connect) -> None:
    stream = connect("tty; echo also >&2", usePTY=True)
    run_until_lost(reactor, stream)
    device, also = stream.data.split(b"\r\n")[:2]
    assert device.startswith(b"/dev/pts/")
    assert also == b"also"


# The stream


def test_what_is_written_is_read_by_the_child_and_what_it_writes_is_received(
    reactor: WatchedReactor, connect: Connect
) -> None:
    stream = connect("exec cat")
    stream.transport.write(b"one ")
    stream.transport.writeSequence([b"two ", b"three"])
    run_until(reactor, lambda: stream.data == b"one two three")
    stream.transport.closeStdin()
    run_until_lost(reactor, stream)


def test_a_protocol_of_lines_talks_to_a_child(reactor: WatchedReactor, connect: Connect) -> None:
    class Asker(LineReceiver):
        delimiter = b"\n"
        reason: Any = None

        def connectionMade(self) -> None:
            self.answers: list[bytes] = []
            self.sendLine(b"1+1")

        def lineReceived(self, line: bytes) -> None:
            self.answers.append(line)
            if len(self.answers) == 1:
                self.sendLine(line + b"*21")
            else:
                self.transport.loseConnection()

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            self.reason = reason.value

    script = "while read line; do echo $(($line)); done"
    asker: Any = connect(script, Factory.forProtocol(Asker))
    run_until_lost(reactor, asker)
    assert asker.answers == [b"2", b"42"]


def test_lines_after_the_one_that_hung_up_are_not_received(
    reactor: WatchedReactor, connect: Connect
) -> None:
    class Short(LineOnlyReceiver):
        delimiter = b"\n"
        reason: Any = None

        def lineReceived(self, line: bytes) -> None:
            self.line = line  # the last of those received
            self.transport.loseConnection()

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            self.reason = reason.value

    short: Any = connect("printf 'one\ntwo\n'", Factory.forProtocol(Short))
    run_until_lost(reactor, short)
    assert short.line == b"one"


def test_data_comes_before_the_loss_and_nothing_after_it(
    reactor: WatchedReactor, connect: Connect
) -> None:
    stream = connect("head -c 300000 /dev/zero")
    run_until_lost(reactor, stream)
    reactor.iterate(0)
    assert len(stream.data) == 300_000
    assert stream.events[0] == "made"
    assert stream.events.index("lost") == len(stream.events) - 1


def test_only_standard_output_is_received(
    reactor: WatchedReactor, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    script = "echo one; echo two >&2; echo three >&3"
    stream = connect(script, childFDs={0: "w", 1: "r", 2: "r", 3: "r"})
    run_until_lost(reactor, stream)
    assert stream.data == b"one\n"


def test_loseConnection_ends_the_childs_input_and_so_the_stream(
    reactor: WatchedReactor, connect: Connect
) -> None:
    stream = connect("cat > /dev/null")
    assert not stream.transport.disconnecting
    stream.transport.loseConnection()
    assert stream.transport.disconnecting
    run_until_lost(reactor, stream)
    assert type(stream.reason) is error.ConnectionDone


def test_stopProducing_ends_the_stream_too(reactor: WatchedReactor, connect: Connect) -> None:
    stream = connect("cat > /dev/null")
    stream.transport.stopProducing()
    run_until_lost(reactor, stream)


def test_an_error_in_dataReceived_is_logged_and_the_stream_ends(
    reactor: WatchedReactor, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Stream):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError

    stream = connect("while echo x; do :; done", Factory.forProtocol(Clumsy))
    run_until_lost(reactor, stream)
    assert stream.reason.signal == signal.SIGPIPE
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        ZeroDivisionError
    ]


# How it ends


def test_a_child_that_ends_well_is_a_connection_closed_cleanly(
    reactor: WatchedReactor, connect: Connect
) -> None:
    stream = connect("exit 0")
    run_until_lost(reactor, stream)
    assert type(stream.reason) is error.ConnectionDone


def test_a_child_that_ends_with_a_code_is_a_lost_connection_with_that_code(
    reactor: WatchedReactor, connect: Connect
) -> None:
    stream = connect("exit 3")
    run_until_lost(reactor, stream)
    assert isinstance(stream.reason, error.ProcessTerminated)
    assert isinstance(stream.reason, error.ConnectionLost)
    assert stream.reason.exitCode == 3


def test_a_child_that_is_killed_is_a_lost_connection_with_that_signal(
    reactor: WatchedReactor, connect: Connect
) -> None:
    stream = connect("exec sleep 1000")
    stream.transport.signalProcess("KILL")
    run_until_lost(reactor, stream)
    assert (stream.reason.exitCode, stream.reason.signal) == (None, signal.SIGKILL)
    assert stream.transport.pid is None


# Standard error


def test_standard_error_is_logged(
    reactor: WatchedReactor, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "procreactor"):
        run_until_lost(reactor, connect("echo a problem >&2"))
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert "'/bin/sh'" in record.getMessage()
    assert "Stream" in record.getMessage()
    assert r"b'a problem\n'" in record.getMessage()


def test_standard_error_can_be_dropped(
    reactor: WatchedReactor, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "procreactor"):
        run_until_lost(reactor, connect("echo a problem >&2", errFlag=StandardErrorBehavior.DROP))
    assert caplog.records == []


def test_the_behaviors_are_log_and_drop() -> None:
    assert [one.name for one in StandardErrorBehavior] == ["LOG", "DROP"]


# The transport


def test_both_ends_of_the_stream_are_the_address_that_the_factory_got(
    reactor: WatchedReactor, connect: Connect
) -> None:
    addresses = []

    class Curious(Factory):
        def buildProtocol(self, addr: Any) -> Stream:
            addresses.append(addr)
            return Stream()

    stream = connect("exit 0", Curious())
    [address] = addresses
    assert stream.transport.getPeer() is address
    assert stream.transport.getHost() is address
    assert address == ProcessAddress(SH)
    assert repr(address) == "ProcessAddress(executable='/bin/sh')"
    assert interfaces.IAddress.providedBy(address)


@pytest.mark.parametrize("usePTY", [False, True])
@pytest.mark.parametrize(
    "interface",
    [
        interfaces.ITransport,
        interfaces.IProcessTransport,
        interfaces.IConsumer,
        interfaces.IPushProducer,
    ],
)
def test_the_transport_provides(
    interface: interfaces.InterfaceClass, usePTY: bool, connect: Connect
) -> None:
    assert interface.providedBy(connect("exit 0", usePTY=usePTY).transport)


@pytest.mark.parametrize("name", ["pipes", "pidfd", "status", "proto", "disconnectAll"])
def test_the_transport_hides_what_belongs_to_no_interface(name: str, connect: Connect) -> None:
    stream = connect("exit 0")
    assert not hasattr(stream.transport, name)


def test_further_fds_can_be_written_to_and_closed(
    reactor: WatchedReactor, connect: Connect
) -> None:
    stream = connect("cat <&3", childFDs={1: "r", 3: "w"})
    stream.transport.writeToChild(3, b"by the side door")
    stream.transport.closeChildFD(3)
    run_until_lost(reactor, stream)
    assert stream.data == b"by the side door"


def test_a_paused_stream_receives_nothing_until_it_is_resumed(
    reactor: WatchedReactor, connect: Connect
) -> None:
    stream = connect("echo hello; exit 0")
    stream.transport.pauseProducing()
    run_until(reactor, lambda: stream.transport.pid is None)
    assert stream.events == ["made"]
    stream.transport.resumeProducing()
    run_until_lost(reactor, stream)
    assert stream.events == ["made", "data", "lost"]


def test_a_producer_can_feed_the_child(reactor: WatchedReactor, connect: Connect) -> None:
    class Counter:
        """Writes the numbers below 100, one each time that it is asked."""

        count = 0

        def resumeProducing(self) -> None:
            stream.transport.write(b"%d " % self.count)
            self.count += 1
            if self.count == 100:
                stream.transport.unregisterProducer()
                stream.transport.closeStdin()

        def stopProducing(self) -> None:
            raise AssertionError("the child went away")

    stream = connect("exec cat")
    stream.transport.registerProducer(Counter(), False)
    run_until_lost(reactor, stream)
    assert stream.data.split() == [b"%d" % n for n in range(100)]


# The same program, with one import changed


PROGRAM = """
from LIBRARY.internet import defer, error, protocol, reactor
from LIBRARY.internet.endpoints import ProcessEndpoint, StandardErrorBehavior

class Stream(protocol.Protocol):
    def __init__(self):
        self.data = b""
        self.lost = defer.Deferred()
    def connectionMade(self):
        print("made", self.transport.pid is not None)
    def dataReceived(self, data):
        self.data += data
    def connectionLost(self, reason):
        print("lost", self.data, type(reason.value).__name__, reason.value)
        self.lost.callback(None)

@defer.inlineCallbacks
def talk(script, *texts, **kw):
    endpoint = ProcessEndpoint(
        reactor, "/bin/sh", ["/bin/sh", "-c", script], None, "/",
        errFlag=StandardErrorBehavior.DROP, **kw
    )
    stream = yield endpoint.connect(protocol.Factory.forProtocol(Stream))
    stream.transport.writeSequence(list(texts))
    stream.transport.closeStdin()
    yield stream.lost

@defer.inlineCallbacks
def main():
    yield talk("exec cat", b"one ", b"two")
    yield talk("pwd; echo no >&2; exit 3")
    yield talk("echo bye; kill -9 $$")
    yield talk("echo four >&4; echo one", childFDs={0: "w", 1: "r", 4: "r"})
    endpoint = ProcessEndpoint(reactor, "/nowhere/to/be/found", ["x"])
    try:
        yield endpoint.connect(protocol.Factory.forProtocol(Stream))
    except OSError as problem:
        print(isinstance(problem, FileNotFoundError))
    reactor.stop()

reactor.callWhenRunning(main)
reactor.run()
"""


@pytest.mark.needs("threads")
def test_a_program_written_for_twisted_prints_the_same() -> None:
    ours = run_program("procreactor", PROGRAM)
    assert ours.endswith("True\n")
    assert ours == run_program("twisted", PROGRAM)
