"""The transports of children, when what the user supplies fails or stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from interrupted import interrupted_before
from support import DEADLINE_S, Recorder, make_reactor, run_until

from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.process import ChildTransport
from procreactor.python.failure import Failure

ON_TERMINAL = [False, True]


@pytest.fixture
def reactor() -> Iterator[EPollReactor]:
    with make_reactor() as made:
        yield made


# --- a callback that raises -----------------------------------------------------------------------


class Raising(Recorder):
    """Raises *reason* each time that *callback* is called, after writing it down."""

    def __init__(self, callback: str, reason: BaseException) -> None:
        super().__init__()
        write_down = getattr(self, callback)

        def raise_reason(*args: Any) -> None:
            write_down(*args)
            raise reason

        setattr(self, callback, raise_reason)


NO_EXCEPTIONS: list[Callable[[], BaseException]] = [
    lambda: Failure(ValueError("boom")),
    asyncio.CancelledError,
    GeneratorExit,
]

ANY_CALLBACK = [
    (callback, use_pty)
    for use_pty in ON_TERMINAL
    for callback in (
        "connectionMade",
        "childDataReceived",
        "childConnectionLost",
        "processExited",
        "processEnded",
    )
    if not (use_pty and callback == "childConnectionLost")  # that is of pipes
]


@pytest.mark.parametrize("make_reason", NO_EXCEPTIONS, ids=["Failure", "Cancelled", "Exit"])
@pytest.mark.parametrize(("callback", "use_pty"), ANY_CALLBACK)
def test_what_is_raised_and_is_no_exception_is_logged_and_the_reactor_runs_on(
    reactor: EPollReactor,
    caplog: pytest.LogCaptureFixture,
    callback: str,
    use_pty: bool,
    make_reason: Callable[[], BaseException],
) -> None:
    reason = make_reason()
    child = Raising(callback, reason)

    def stop_at_the_end() -> None:
        reactor.callLater(0, reactor.stop if child.ended else stop_at_the_end)

    script = ["sh", "-c", "echo out; read line || exit 0"]
    transport = reactor.spawnProcess(child, "/bin/sh", script, None, usePTY=use_pty)
    transport.write(b"line\n")
    reactor.callWhenRunning(stop_at_the_end)
    reactor.callLater(DEADLINE_S, reactor.crash)
    reactor.run(installSignalHandlers=False)
    assert child.names[-1] == "processEnded"
    assert child.names.count("processEnded") == child.names.count("processExited") == 1
    logged = [record.exc_info and record.exc_info[1] for record in caplog.records]
    assert reason in logged
    assert set(logged) == {reason}


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("callback", ["childDataReceived", "processExited", "processEnded"])
def test_what_means_to_end_the_program_leaves_the_run(
    reactor: EPollReactor,
    caplog: pytest.LogCaptureFixture,
    callback: str,
    kind: type[BaseException],
) -> None:
    child = Raising(callback, kind())
    reactor.spawnProcess(child, "/bin/echo", ["echo", "out"])
    reactor.callLater(DEADLINE_S, reactor.crash)
    with pytest.raises(kind):
        reactor.run(installSignalHandlers=False)
    assert child.names[-1] == callback
    assert not caplog.records
    run_until(reactor, lambda: "processEnded" in child.names)


def test_an_interrupt_just_before_an_exit_is_told_leaves_the_end_to_be_told(
    reactor: EPollReactor,
) -> None:
    child = Recorder()
    reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", "exit 4"])
    with interrupted_before(ChildTransport.on_exit, "self.status ="):
        run_until(reactor, lambda: False)
    run_until(reactor, lambda: "processEnded" in child.names)
    assert child.reason.value.exitCode == 4


# --- a producer that raises -----------------------------------------------------------------------


class Broken:
    """A pull producer that writes *pieces* pieces, and raises when asked for more."""

    def __init__(self, transport: Any, pieces: int) -> None:
        self.transport = transport
        self.pieces = pieces
        self.stops = 0

    def resumeProducing(self) -> None:
        if not self.pieces:
            raise ValueError("boom")
        self.pieces -= 1
        self.transport.write(b"data\n")

    def stopProducing(self) -> None:
        self.stops += 1


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_pull_producer_that_raises_ends_the_stream_and_is_stopped(
    reactor: EPollReactor, caplog: pytest.LogCaptureFixture, pieces: int
) -> None:
    child = Recorder()
    transport = reactor.spawnProcess(child, "/bin/cat", ["cat"])
    producer = Broken(transport, pieces)
    transport.registerProducer(producer, False)
    run_until(reactor, lambda: child.ended)
    assert child.out == b"data\n" * pieces
    assert child.reason.value.exitCode == 0
    assert producer.stops == 1
    assert [record.getMessage() for record in caplog.records] == ["Broken.resumeProducing raised"]


# --- a terminal that nobody reads -----------------------------------------------------------------

LAST_WORDS = "stty -echo; echo ready; read line; echo last words; exit 3"


def leave_a_full_terminal(reactor: EPollReactor) -> tuple[Recorder, Any]:
    """A child that has exited, its last words unread and more for it queued than it could take."""
    child = Recorder()
    script = ["sh", "-c", LAST_WORDS]
    transport = reactor.spawnProcess(child, "/bin/sh", script, None, usePTY=True)
    run_until(reactor, lambda: b"ready" in child.out)
    transport.pauseProducing()
    transport.write(b"x\n" * 500_000)
    run_until(reactor, lambda: "processExited" in child.names)
    assert b"last words" not in child.out
    assert not child.ended
    return child, transport


def test_a_paused_terminal_whose_child_is_gone_does_not_make_the_loop_spin(
    reactor: EPollReactor,
) -> None:
    leave_a_full_terminal(reactor)
    waited: list[str] = []
    reactor.callLater(0.2, waited.append, "waited")
    turns = 0
    while not waited:
        reactor.iterate(DEADLINE_S)
        turns += 1
    assert turns < 10


def test_what_a_child_wrote_to_a_paused_terminal_is_read_after_it_is_gone(
    reactor: EPollReactor,
) -> None:
    child, transport = leave_a_full_terminal(reactor)
    transport.resumeProducing()
    run_until(reactor, lambda: child.ended)
    assert child.out.endswith(b"last words\r\n")
    assert child.reason.value.exitCode == 3
    assert child.names.count("processEnded") == 1


def test_a_paused_terminal_whose_child_is_gone_can_be_hung_up(reactor: EPollReactor) -> None:
    child, transport = leave_a_full_terminal(reactor)
    transport.loseConnection()
    run_until(reactor, lambda: child.ended)
    assert child.reason.value.exitCode == 3
