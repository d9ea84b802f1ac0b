"""What a program written for Twisted holds of a child, and is told of it, on our reactor.

Each test has a reactor of its own beside the stock one of this process (hosted.py). What Twisted's
own suite says of these transports it says by `make proof`; here is what that does not look at, or
only by chance: each order of the ends, each stage of a transport's life, each callback that raises.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pty
import select
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts.hosted import (
    HOW,
    SHELL,
    Gate,
    LoggedErrors,
    Witness,
    logged_errors,
    make_hosted,
    run_to_the_end,
    shell,
    signals_kept,
    take_apart,
    wait_for_zombie,
)
from leftovers import child_pids, open_fds
from support import run_until
from twisted.internet import error, process, utils
from twisted.internet import reactor as stock_reactor
from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import (
    IConsumer,
    IProcessTransport,
    IPushProducer,
    IReactorFDSet,
    IReactorProcess,
    IReadDescriptor,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import Interface
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from procreactor.errors import SpawnError
from procreactor.hosts.twisted.children import HostedChildren

PIPES = [0, 1, 2]


@pytest.fixture
def errors() -> Iterator[LoggedErrors]:
    with logged_errors() as logged:
        yield logged


@pytest.fixture
def reactor(errors: LoggedErrors) -> Iterator[Any]:
    with make_hosted() as made:
        yield made


@pytest.fixture(params=HOW)
def how(request: pytest.FixtureRequest) -> dict[str, Any]:
    return HOW[request.param]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()


def wait_readable(fd: int) -> None:
    """Return once *fd* has data, or its end, to be read."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(30_000)


def pipes_are_gone(witness: Witness) -> bool:
    """Whether all three pipes, or the terminal, are closed on our side."""
    transport = witness.transport
    return not transport.pipes if hasattr(transport, "pipes") else transport.fileno() == -1


def look(witness: Witness, act: Callable[[Any], object]) -> list[tuple[str, Any]]:
    """Let *act* be called with the transport in each callback; return the list of what it says."""
    seen: list[tuple[str, Any]] = []
    for name in ["connectionMade", "childDataReceived", "childConnectionLost", "processExited"]:
        witness.acts[name] = lambda one: seen.append((one.names[-1], act(one.transport)))
    witness.acts["processEnded"] = witness.acts["processExited"]
    return seen


# --- interfaces -----------------------------------------------------------------------------------


def complaint(interface: type[Interface], thing: object) -> str:
    """What is missing for *thing* to provide *interface*; "" when nothing is."""
    try:
        verifyObject(interface, thing)
    except Invalid as invalid:
        return str(invalid)
    return ""


def test_a_transport_provides_twisteds_interface_all_its_life(
    reactor: Any, how: dict[str, Any]
) -> None:
    witness = Witness()
    seen = look(witness, lambda transport: complaint(IProcessTransport, transport))
    transport = shell(reactor, witness, "echo out; read line; exit 3", **how)
    assert complaint(IProcessTransport, transport) == ""
    run_until(reactor, lambda: witness.out)
    transport.write(b"line\n")
    run_until(reactor, lambda: witness.ended)
    assert {name for name, _ in seen} == set(witness.names)
    assert {text for _, text in seen} == {""}
    assert complaint(IProcessTransport, transport) == ""


@pytest.mark.parametrize("interface", [IPushProducer, IConsumer])
def test_a_terminal_is_consumer_and_producer_too(reactor: Any, interface: type[Interface]) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "", usePTY=True)
    assert complaint(interface, transport) == ""
    run_until(reactor, lambda: witness.ended)
    assert complaint(interface, transport) == ""


@pytest.mark.parametrize("interface", [IReactorProcess, IReactorFDSet])
def test_the_reactor_provides_twisteds_interfaces(reactor: Any, interface: type[Interface]) -> None:
    assert complaint(interface, reactor) == ""


def test_what_the_reactor_watches_for_us_is_a_read_descriptor(reactor: Any) -> None:
    [reader] = [one for one in reactor._internalReaders if one is not reactor.waker]
    assert complaint(IReadDescriptor, reader) == ""
    assert reader.logPrefix() == "procreactor"
    assert reader in reactor.getReaders()


# --- the reactor is an object like any other ------------------------------------------------------


@pytest.mark.filterwarnings("ignore:reactor.iterate cannot be used:DeprecationWarning")
def test_another_reactor_object_becomes_ours_and_back_as_twisteds_reactor_builder_does_it(
    reactor: Any,
) -> None:
    """It gives the global reactor the class and the attributes of the one under test."""
    dictionary, kind = stock_reactor.__dict__, stock_reactor.__class__
    stock_reactor.__dict__ = reactor.__dict__
    stock_reactor.__class__ = reactor.__class__
    try:
        witness = Witness()
        transport = shell(stock_reactor, witness, "exit 3")
        assert process.reapProcessHandlers[transport.pid] is transport
        run_to_the_end(stock_reactor, witness)
    finally:
        stock_reactor.__dict__ = dictionary
        stock_reactor.__class__ = kind
    assert witness.end == (3, None)
    assert type(transport) is not process.Process


@pytest.mark.needs("threads")
def test_ours_becomes_another_reactor_and_back(reactor: Any) -> None:
    other = EPollReactor()
    try:
        dictionary, kind = reactor.__dict__, reactor.__class__
        reactor.__dict__, reactor.__class__ = other.__dict__, other.__class__
        witness = Witness()
        transport = shell(reactor, witness, "exit 3")
        assert type(transport) is process.Process
        wait_for_zombie(transport.pid) if transport.pid else None
        process.reapAllProcesses()
        run_until(reactor, lambda: witness.ended)
        reactor.__dict__, reactor.__class__ = dictionary, kind
    finally:
        take_apart(other)
    again = Witness()
    shell(reactor, again, "exit 4")
    run_until(reactor, lambda: again.ended)
    assert (witness.end, again.end) == ((3, None), (4, None))


def test_the_first_argument_must_be_a_reactor_that_watches_fds() -> None:
    with pytest.raises(TypeError, match="IReactorFDSet"):
        HostedChildren(object())


def test_spawnprocess_may_be_replaced_on_the_reactor_and_put_back(reactor: Any) -> None:
    original = reactor.spawnProcess
    asked: list[str] = []

    def counting(protocol: Any, executable: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(executable)
        return original(protocol, executable, *args, **kwargs)

    reactor.spawnProcess = counting
    first = utils.getProcessOutput(SHELL, ["-c", "echo out"], reactor=reactor)
    run_until(reactor, lambda: first.called)
    del reactor.spawnProcess
    second = utils.getProcessOutputAndValue(SHELL, ["-c", "echo out; exit 3"], reactor=reactor)
    run_until(reactor, lambda: second.called)
    assert (first.result, second.result) == (b"out\n", (b"out\n", b"", 3))
    assert asked == [SHELL]


# --- how it ended ---------------------------------------------------------------------------------

ENDS = {
    "success": ("exit 0", error.ProcessDone, 0, None, 0),
    "failure": ("exit 3", error.ProcessTerminated, 3, None, 3 << 8),
    "signal": ("kill -KILL $$", error.ProcessTerminated, None, 9, 9),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end_is_told_in_twisteds_own_classes(
    reactor: Any, how: dict[str, Any], end: str
) -> None:
    script, kind, code, number, status = ENDS[end]
    reasons: list[Failure] = []
    note = lambda witness: reasons.append(witness.reason)  # noqa: E731
    witness = Witness(processExited=note, processEnded=note)
    transport = shell(reactor, witness, script, **how)
    run_until(reactor, lambda: witness.ended)
    assert len(reasons) == 2
    for reason in reasons:
        assert type(reason) is Failure
        assert type(reason.value) is kind
        assert (reason.value.exitCode, reason.value.signal) == (code, number)
        assert reason.value.status == status
        assert reason.check(error.ProcessDone, error.ProcessTerminated) is kind
        assert reason.trap(kind) is kind
        other = {error.ProcessDone, error.ProcessTerminated} - {kind}
        with pytest.raises(kind):
            reason.trap(*other)
        assert reason.getTraceback() != ""  # trial and loggers ask for it
    assert transport.status == status


def test_a_signal_that_comes_too_late_raises_twisteds_own_exception(
    reactor: Any, how: dict[str, Any]
) -> None:
    raised: list[type[BaseException]] = []

    def kill(witness: Witness) -> None:
        try:
            witness.transport.signalProcess("KILL")
        except BaseException as late:
            raised.append(type(late))

    witness = Witness(processExited=kill, processEnded=kill)
    transport = shell(reactor, witness, "", **how)
    run_until(reactor, lambda: witness.ended)
    assert raised == [error.ProcessExitedAlready] * 2
    with pytest.raises(error.ProcessExitedAlready):
        transport.signalProcess(signal.SIGTERM)


def test_a_signal_to_a_zombie_that_nobody_has_reaped_is_sent(
    reactor: Any, how: dict[str, Any]
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "exit 3", **how)
    wait_for_zombie(transport.pid)
    transport.signalProcess("TERM")
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)


# --- the pipes of a transport ---------------------------------------------------------------------


def test_pipes_is_a_dict_of_what_can_be_read_and_has_a_fileno(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "read line")
    pipes = transport.pipes
    assert isinstance(pipes, dict)
    assert sorted(pipes) == PIPES
    for child_fd, pipe in pipes.items():
        assert stat.S_ISFIFO(os.fstat(pipe.fileno()).st_mode)
        assert callable(pipe.doRead)
        assert pipe.connected
        assert (pipe.name, pipe.proc) == (child_fd, transport)
        assert pipe.logPrefix() == f"Process {child_fd}"
    assert len({pipe.fileno() for pipe in pipes.values()}) == 3
    transport.write(b"line\n")
    run_until(reactor, lambda: witness.ended)
    assert pipes == {}
    assert transport.pipes is pipes


def test_pipes_has_those_of_childfds_and_no_fd_of_the_programs_own(reactor: Any) -> None:
    with open(os.devnull, "rb") as null:
        witness = Witness()
        child_fds = {0: null.fileno(), 1: "r", 7: "r", 9: "w"}
        transport = shell(reactor, witness, "echo seven >&7; cat <&9", childFDs=child_fds)
    assert sorted(transport.pipes) == [1, 7, 9]
    transport.writeToChild(9, b"nine")
    transport.closeChildFD(9)
    run_until(reactor, lambda: witness.ended)
    assert witness.data == {1: b"nine", 7: b"seven\n"}
    assert sorted(witness.lost) == [1, 7, 9]


def test_pipes_is_emptied_one_by_one_as_they_close(reactor: Any) -> None:
    seen: list[tuple[list[int], int, Any]] = []

    def note(witness: Witness) -> None:
        lost = pipes[witness.lost[-1]]
        seen.append((sorted(witness.transport.pipes), lost.fileno(), lost.doRead()))

    witness = Witness(childConnectionLost=note)
    transport = shell(reactor, witness, "read line; exec 1>&-; read line; exec 2>&-; read line")
    pipes = dict(transport.pipes)
    for lost in ([1], [1, 2], [1, 2, 0]):
        transport.write(b"line\n")
        run_until(reactor, lambda lost=lost: witness.lost == lost)
    run_until(reactor, lambda: witness.ended)
    assert seen == [
        ([0, 2], -1, CONNECTION_LOST),
        ([0], -1, CONNECTION_LOST),
        ([], -1, CONNECTION_LOST),
    ]


def test_a_pipe_that_was_kept_is_dead_after_its_end(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "")
    pipes = dict(transport.pipes)
    run_until(reactor, lambda: witness.ended)
    calls = list(witness.calls)
    for pipe in pipes.values():
        assert pipe.fileno() == -1
        assert pipe.doRead() is CONNECTION_LOST
        assert not pipe.connected
        pipe.write(b"lost")
        pipe.writeSequence([b"lost"])
        pipe.stopReading()
        pipe.startReading()
        pipe.loseConnection()
    reactor.iterate(0)
    assert witness.calls == calls


def test_doread_reads_now_and_tells_the_protocol(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "echo one; read line; echo two >&2; exit 3")
    out, err = transport.pipes[1], transport.pipes[2]
    wait_readable(out.fileno())
    assert out.doRead() is None
    assert witness.data == {1: b"one\n"}
    assert out.doRead() is None  # nothing is there, and nothing is told
    assert witness.names == ["connectionMade", "childDataReceived"]
    transport.write(b"line\n")
    wait_readable(err.fileno())
    assert err.doRead() is None
    assert witness.data == {1: b"one\n", 2: b"two\n"}
    wait_for_zombie(transport.pid)
    assert [out.doRead(), out.doRead(), err.doRead()] == [CONNECTION_DONE] * 3
    assert witness.lost == []
    run_until(reactor, lambda: witness.ended)
    assert sorted(witness.lost) == PIPES
    assert witness.names.count("childDataReceived") == 2
    assert witness.end == (3, None)


def test_doread_of_a_pipe_into_the_child_has_nothing_to_read(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "cat")
    assert transport.pipes[0].doRead() is CONNECTION_LOST
    transport.write(b"still open")
    transport.closeStdin()
    run_until(reactor, lambda: witness.ended)
    assert witness.out == b"still open"


def test_doread_of_a_terminal_reads_now(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "echo one; read line; exit 3", usePTY=True)
    while witness.out != b"one\r\n":  # a terminal may give the word first, and then its end
        wait_readable(transport.fileno())
        assert transport.doRead() is None
    told = witness.names.count("childDataReceived")
    assert transport.doRead() is None
    assert witness.names.count("childDataReceived") == told
    transport.signalProcess("KILL")
    wait_for_zombie(transport.pid)
    assert [transport.doRead(), transport.doRead()] == [CONNECTION_DONE] * 2
    run_until(reactor, lambda: witness.ended)
    assert transport.doRead() is CONNECTION_LOST
    assert witness.end == (None, 9)


def test_a_program_may_drain_all_pipes_by_doread_when_the_child_exits(reactor: Any) -> None:
    """What programs do that end on processExited, and want all output by then."""
    size = 50_000  # fits into a pipe, so that the child exits with all of it unread

    def drain(witness: Witness) -> None:
        for pipe in list(witness.transport.pipes.values()):
            while pipe.doRead() is None:
                pass
        drained.append(len(witness.out))

    drained: list[int] = []
    witness = Witness(processExited=drain)
    transport = shell(reactor, witness, f"head -c {size} /dev/zero")
    wait_for_zombie(transport.pid)
    process.reapAllProcesses()
    assert drained == [size]
    run_until(reactor, lambda: witness.ended)
    assert len(witness.out) == size
    assert sorted(witness.lost) == PIPES


def test_what_the_protocol_raises_in_doread_is_logged_and_closes_that_pipe(
    reactor: Any, errors: LoggedErrors
) -> None:
    boom = ValueError("boom")

    def act(witness: Witness) -> None:
        raise boom

    witness = Witness(childDataReceived=act)
    transport = shell(reactor, witness, "echo one; read line; exit 3")
    wait_readable(transport.pipes[1].fileno())
    transport.pipes[1].doRead()
    assert errors.flush(ValueError) == [boom]
    run_until(reactor, lambda: witness.lost == [1])
    transport.write(b"line\n")
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)


def test_the_pipes_themselves_write_pause_and_close(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "echo err >&2; cat")
    pipes = transport.pipes
    pipes[1].stopReading()
    pipes[0].stopReading()  # a pipe into the child: nothing to stop
    pipes[0].write(b"one ")
    pipes[0].writeSequence(piece for piece in [b"two ", b"three"])
    pipes[1].write(b"into a pipe out of the child: dropped")
    pipes[1].writeSequence([b"likewise"])
    run_until(reactor, lambda: witness.data.get(2))
    pipes[0].loseConnection()
    pipes[0].write(b", late")  # counts while the queue is not flushed, or the close not done
    assert witness.lost == []
    run_until(reactor, lambda: witness.exited)
    assert witness.out == b""
    assert not witness.ended
    pipes[0].startReading() if 0 in pipes else None
    pipes[1].startReading()
    run_until(reactor, lambda: witness.ended)
    assert witness.out == b"one two three, late"


def test_a_pipe_out_of_the_child_is_closed_by_itself(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "read line; echo dropped; echo err >&2; read line")
    transport.pipes[1].loseConnection()
    assert witness.lost == []
    run_until(reactor, lambda: witness.lost == [1])
    assert sorted(transport.pipes) == [0, 2]
    transport.write(b"line\n")
    run_until(reactor, lambda: witness.ended)
    assert witness.out == b""
    assert sorted(witness.lost) == PIPES


def test_data_for_a_pipe_must_be_bytes(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "cat")
    with pytest.raises(TypeError, match="str"):
        transport.pipes[0].write("text")
    with pytest.raises(TypeError, match="str"):
        transport.pipes[0].writeSequence([b"bytes", "text"])
    transport.closeStdin()
    run_until(reactor, lambda: witness.ended)
    assert witness.out == b""


# --- the stages of a life -------------------------------------------------------------------------


def stages(transport: Any) -> tuple[bool, int, int]:
    """Whether it has a pid, the status, and how much of the child is over."""
    return transport.pid is not None, transport.status, transport.lostProcess


def test_a_transport_on_pipes_says_how_far_its_child_is(reactor: Any, gate: Gate) -> None:
    """Here the pipes close first."""
    witness = Witness()
    seen = look(witness, stages)
    transport = shell(reactor, witness, 'exec 0<&- 1>&- 2>&-; read go <"$1"; exit 3', gate.path)
    pid = transport.pid
    assert repr(transport) == f"<Process pid={pid} status=-1>"
    assert transport.logPrefix() == "Witness"
    run_until(reactor, lambda: pipes_are_gone(witness))
    assert transport.pid == pid
    assert transport.proto is witness
    gate.open()
    run_until(reactor, lambda: witness.ended)
    alive, dead = (True, -1, 0), (False, 3 << 8, 1)
    assert [stage for _, stage in seen] == [alive] * 4 + [dead] * 2
    assert stages(transport) == dead
    assert transport.proto is None
    assert witness.transport is transport
    assert repr(transport) == "<Process pid=None status=768>"
    assert transport.logPrefix()


def test_a_transport_on_a_terminal_counts_the_terminal_too(reactor: Any, gate: Gate) -> None:
    witness = Witness()
    seen = look(witness, stages)
    script = 'trap "" HUP; exec 0<&- 1>&- 2>&-; read go <"$1"; exit 3'
    transport = shell(reactor, witness, script, gate.path, usePTY=True)
    assert repr(transport) == f"<PTYProcess pid={transport.pid} status=-1>"
    assert stages(transport) == (True, -1, 0)
    run_until(reactor, lambda: pipes_are_gone(witness))
    assert stages(transport) == (True, -1, 1)
    gate.open()
    run_until(reactor, lambda: witness.ended)
    dead = (False, 3 << 8, 2)
    assert seen == [
        ("connectionMade", (True, -1, 0)),
        ("processExited", dead),
        ("processEnded", dead),
    ]
    assert transport.proto is None
    assert repr(transport) == "<PTYProcess pid=None status=768>"


def test_the_transport_has_let_go_of_the_protocol_when_processended_is_told(
    reactor: Any, how: dict[str, Any]
) -> None:
    protos: list[Any] = []
    witness = Witness(processEnded=lambda one: protos.append(one.transport.proto))
    shell(reactor, witness, "", **how)
    run_until(reactor, lambda: witness.ended)
    assert protos == [None]


def test_processended_is_told_once_to_a_program_that_asks_for_it_in_processended(
    reactor: Any, how: dict[str, Any]
) -> None:
    def again(witness: Witness) -> None:
        if len(witness.calls) < 50:
            witness.transport.maybeCallProcessEnded()

    witness = Witness(processEnded=again)
    transport = shell(reactor, witness, "exit 3", **how)
    run_until(reactor, lambda: witness.ended)
    transport.maybeCallProcessEnded()
    assert witness.end == (3, None)


def test_a_child_without_protocol_lives_and_ends(reactor: Any) -> None:
    transport = shell(reactor, None, "exit 3", childFDs={})
    assert transport.proto is None
    run_until(reactor, lambda: transport.pid is None)
    assert transport.status == 3 << 8
    assert transport.logPrefix() == "HostedProcess"


# --- a program that decides itself when processEnded is told --------------------------------------

# That it closes them hangs up a terminal, too.
PIPES_FIRST = 'trap "" HUP; echo out; exec 0<&- 1>&- 2>&-; read go <"$1"; exit 3'
EXIT_FIRST = "echo out; exit 3"
ORDERS = ["pipes first", "exit first"]


def start_in_order(
    reactor: Any, witness: Witness, order: str, gate: Gate, how: dict[str, Any]
) -> Any:
    """Return the transport of a child whose pipes close before it is reaped, or after."""
    script = PIPES_FIRST if order == "pipes first" else EXIT_FIRST
    transport = shell(reactor, witness, script, gate.path, **how)
    if order == "exit first":
        transport.pauseProducing()
    return transport


def go_on_in_order(reactor: Any, witness: Witness, order: str, gate: Gate) -> None:
    """Bring that child to its end, in this order; the last event is told in the turns to come."""
    if order == "pipes first":
        run_until(reactor, lambda: pipes_are_gone(witness))
        assert not witness.exited
        gate.open()
    else:
        run_until(reactor, lambda: witness.exited)
        assert not pipes_are_gone(witness)
        witness.transport.resumeProducing()


@pytest.mark.parametrize("order", ORDERS)
def test_processended_waits_for_a_program_that_replaced_maybecallprocessended(
    reactor: Any, how: dict[str, Any], order: str, gate: Gate
) -> None:
    witness = Witness()
    transport = start_in_order(reactor, witness, order, gate, how)
    original = transport.maybeCallProcessEnded
    asked: list[None] = []
    transport.maybeCallProcessEnded = lambda: asked.append(None)
    original()  # too early: it tells nothing
    go_on_in_order(reactor, witness, order, gate)
    run_until(reactor, lambda: witness.exited and pipes_are_gone(witness))
    for _ in range(3):
        reactor.iterate(0)
    assert asked
    assert not witness.ended
    assert transport.proto is witness
    assert transport.pid is None
    original()
    assert witness.ended
    original()
    reactor.iterate(0)
    assert witness.end == (3, None)


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
@pytest.mark.parametrize("order", ORDERS)
def test_what_a_replaced_maybecallprocessended_raises_is_logged_and_loses_nothing(
    reactor: Any,
    errors: LoggedErrors,
    how: dict[str, Any],
    order: str,
    gate: Gate,
    kind: type[BaseException],
) -> None:
    witness = Witness()
    transport = start_in_order(reactor, witness, order, gate, how)
    original = transport.maybeCallProcessEnded

    asked: list[BaseException] = []

    def refuse() -> None:
        asked.append(kind("not yet"))
        raise asked[-1]

    transport.maybeCallProcessEnded = refuse
    go_on_in_order(reactor, witness, order, gate)
    run_until(reactor, lambda: witness.exited and pipes_are_gone(witness))
    assert asked
    assert errors.flush(kind) == asked
    assert not witness.ended
    original()
    assert witness.end == (3, None)


# --- processEnded comes once, and last ------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_processended_comes_once_and_last_whichever_ends_first(
    reactor: Any, how: dict[str, Any], order: str, gate: Gate
) -> None:
    witness = Witness()
    transport = start_in_order(reactor, witness, order, gate, how)
    go_on_in_order(reactor, witness, order, gate)
    run_until(reactor, lambda: witness.ended)
    for _ in range(3):
        reactor.iterate(0)
    assert witness.end == (3, None)
    assert witness.out.rstrip() == b"out"
    assert sorted(witness.lost) == ([] if how else PIPES)
    assert transport.proto is None


@pytest.mark.parametrize("signals", [False, True])
def test_processended_comes_while_the_reactor_runs(
    reactor: Any, how: dict[str, Any], signals: bool
) -> None:
    witness = Witness()
    reactor.callWhenRunning(shell, reactor, witness, "echo out; exit 3", **how)
    with signals_kept():
        run_to_the_end(reactor, witness, signals=signals)
    assert witness.end == (3, None)
    assert witness.out.rstrip() == b"out"


def test_a_grandchild_that_holds_a_pipe_keeps_processended_back(reactor: Any, gate: Gate) -> None:
    witness = Witness()
    script = '(read go <"$1"; echo late) & exit 3'
    transport = shell(reactor, witness, script, gate.path)
    run_until(reactor, lambda: witness.exited)
    assert set(transport.pipes) >= {1, 2}
    assert transport.pid is None
    gate.open()
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)
    assert witness.out == b"late\n"
    assert sorted(witness.lost) == PIPES


def test_closing_the_pipes_that_a_grandchild_holds_brings_processended(
    reactor: Any, gate: Gate
) -> None:
    witness = Witness(processExited=lambda one: one.transport.loseConnection())
    shell(reactor, witness, '(read go <"$1"; echo late) & exit 3', gate.path)
    run_until(reactor, lambda: witness.ended)
    gate.open()
    assert witness.end == (3, None)
    assert witness.out == b""


def test_a_child_without_pipes_is_told_of_when_it_is_reaped(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "exit 3", childFDs={})
    assert transport.pipes == {}
    run_until(reactor, lambda: witness.ended)
    assert witness.names == ["connectionMade", "processExited", "processEnded"]
    assert witness.end == (3, None)


def test_a_pipe_beyond_the_three_keeps_processended_back(reactor: Any, gate: Gate) -> None:
    witness = Witness()
    script = '(read go <"$1"; echo late >&5) 1>&- 2>&- & exit 3'
    child_fds = {0: "w", 1: "r", 2: "r", 4: "w", 5: "r"}
    transport = shell(reactor, witness, script, gate.path, childFDs=child_fds)
    run_until(reactor, lambda: witness.exited)
    transport.loseConnection()
    run_until(reactor, lambda: {0, 1, 2} <= set(witness.lost))
    assert not witness.ended
    gate.open()
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)
    assert witness.data == {5: b"late\n"}
    assert sorted(witness.lost) == [0, 1, 2, 4, 5]


def test_a_terminal_of_the_programs_own_is_taken_over(reactor: Any) -> None:
    master, slave = pty.openpty()
    witness = Witness()
    transport = shell(reactor, witness, "tty; exit 3", usePTY=(master, slave, os.ttyname(slave)))
    assert transport.fileno() == master
    assert open_fds().get(slave, "") != "/dev/ptmx"
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(slave)
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)
    assert witness.out.startswith(b"/dev/pts/")
    assert witness.lost == []
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(master)


def test_closing_a_terminal_hangs_up(reactor: Any) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "echo out; read line; exit 3", usePTY=True)
    run_until(reactor, lambda: witness.out)
    transport.loseConnection()
    assert transport.fileno() >= 0
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (None, signal.SIGHUP)
    assert transport.fileno() == -1


# --- a callback that raises -----------------------------------------------------------------------

CALLBACKS = [
    (callback, how)
    for callback in (
        "connectionMade",
        "childDataReceived",
        "childConnectionLost",
        "processExited",
        "processEnded",
    )
    for how in HOW
    if (callback, how) != ("childConnectionLost", "terminal")  # that is of pipes
]


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError, SystemExit])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("callback", "how"), CALLBACKS, indirect=["how"])
def test_what_a_callback_raises_is_logged_and_nothing_is_lost_after_it(
    reactor: Any,
    errors: LoggedErrors,
    gate: Gate,
    callback: str,
    how: dict[str, Any],
    order: str,
    kind: type[BaseException],
) -> None:
    """SystemExit as well: on Twisted's reactors too, none of these ends the program."""
    raised: list[BaseException] = []

    def act(witness: Witness) -> None:
        raised.append(kind("boom"))
        raise raised[-1]

    witness = Witness(**{callback: act})
    transport = start_in_order(reactor, witness, order, gate, how)
    pid = transport.pid
    assert transport.proto is witness
    go_on_in_order(reactor, witness, order, gate)
    run_until(reactor, lambda: witness.exited and pipes_are_gone(witness))
    assert pid not in process.reapProcessHandlers
    for _ in range(3):
        reactor.iterate(0)
    assert witness.end == (3, None)
    assert witness.out.rstrip() == b"out"
    assert sorted(witness.lost) == ([] if how else PIPES)
    assert errors.flush(kind) == raised
    assert len(raised) == witness.names.count(callback)


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_data_that_a_protocol_chokes_on_closes_that_pipe_alone(
    reactor: Any, errors: LoggedErrors, kind: type[BaseException]
) -> None:
    def choke(witness: Witness) -> None:
        if witness.calls[-1][1] == 1:
            raise kind("boom")

    witness = Witness(childDataReceived=choke)
    transport = shell(reactor, witness, "echo out; read line; echo err >&2; exit 3")
    run_until(reactor, lambda: errors.failures)
    run_until(reactor, lambda: witness.lost == [1])
    transport.write(b"line\n")
    run_until(reactor, lambda: witness.ended)
    assert witness.data == {1: b"out\n", 2: b"err\n"}
    assert witness.end == (3, None)
    assert len(errors.flush(kind)) == 1


def test_a_protocol_without_processexited_is_told_processended(
    reactor: Any, errors: LoggedErrors
) -> None:
    """As protocols of before Twisted 8.2 are, which do not inherit it."""

    class Old:
        ended: Any = None

        def makeConnection(self, transport: Any) -> None:
            pass

        def childConnectionLost(self, child_fd: int) -> None:
            pass

        def processEnded(self, reason: Any) -> None:
            self.ended = reason

    old = Old()
    shell(reactor, old, "exit 3")  # type: ignore[arg-type]
    run_until(reactor, lambda: old.ended)
    assert old.ended.value.exitCode == 3
    assert len(errors.flush(AttributeError)) == 1


def test_methods_that_are_replaced_on_the_protocol_are_found(reactor: Any) -> None:
    protocol: Any = ProcessProtocol()
    shell(reactor, protocol, "echo out; exit 3")
    said: list[Any] = []
    protocol.outReceived = said.append
    protocol.processEnded = lambda reason: said.append(reason.value.exitCode)
    run_until(reactor, lambda: len(said) == 2)
    assert said == [b"out\n", 3]


# --- what the house itself has to say -------------------------------------------------------------


def test_what_the_house_logs_comes_to_twisteds_log(reactor: Any, errors: LoggedErrors) -> None:
    said: list[str] = []

    def note(event: Any) -> None:
        if event.get("log_system") == "procreactor":
            said.append(event["log_text"] if "log_text" in event else str(event.get("message")))

    globalLogPublisher.addObserver(note)
    try:
        logging.getLogger("procreactor").warning("something of %s", "note")
        try:
            raise ValueError("boom")
        except ValueError:
            logging.getLogger("procreactor").exception("something failed")
    finally:
        globalLogPublisher.removeObserver(note)
    assert len(said) == 1
    assert "something of note" in said[0]
    [boom] = errors.flush(ValueError)
    assert str(boom) == "boom"


def test_what_the_house_logs_comes_once_however_many_reactors_there_are(
    reactor: Any, errors: LoggedErrors
) -> None:
    with make_hosted():
        try:
            raise ValueError("boom")
        except ValueError:
            logging.getLogger("procreactor").exception("something failed")
    assert len(errors.flush(ValueError)) == 1


# --- a start that fails ---------------------------------------------------------------------------

NO_STARTS: dict[str, tuple[dict[str, Any], type[BaseException]]] = {
    "no such program": ({"executable": "/no/such/program"}, FileNotFoundError),
    "not in the path": ({"executable": "no-such-program", "env": {"PATH": "/"}}, FileNotFoundError),
    "no program": ({"executable": "/"}, PermissionError),
    "no such directory": ({"path": "/no/such/directory"}, FileNotFoundError),
    "a nul in an argument": ({"args": ["a\0b"]}, ValueError),
    "arguments of another type": ({"args": [1]}, TypeError),
}


@pytest.mark.parametrize("what", NO_STARTS)
def test_a_start_that_fails_raises_and_leaves_nothing(
    reactor: Any, how: dict[str, Any], what: str
) -> None:
    changes, kind = NO_STARTS[what]
    arguments = {"executable": SHELL, "args": ["sh"], **how, **changes}
    fds, pids, listed = open_fds(), child_pids(), dict(process.reapProcessHandlers)
    witness = Witness()
    with pytest.raises(kind) as raised:
        reactor.spawnProcess(witness, **arguments)
    if issubclass(kind, OSError):
        assert isinstance(raised.value, SpawnError)
    assert (open_fds(), child_pids()) == (fds, pids)
    assert process.reapProcessHandlers == listed
    assert reactor.removeAll() == []
    reactor.iterate(0)
    assert witness.calls == []


def test_a_start_that_fails_leaves_the_programs_terminal_to_it(reactor: Any) -> None:
    master, slave = pty.openpty()
    try:
        with pytest.raises(FileNotFoundError):
            reactor.spawnProcess(Witness(), "/no/such/program", usePTY=(master, slave, ""))
        os.write(slave, b"ours")
        assert os.read(master, 10) == b"ours"
    finally:
        os.close(master)
        os.close(slave)


def test_the_next_start_is_not_minded_by_one_that_failed(reactor: Any, how: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError):
        reactor.spawnProcess(Witness(), "/no/such/program", **how)
    witness = Witness()
    shell(reactor, witness, "exit 3", **how)
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)


def test_the_houses_own_arguments_are_taken(reactor: Any) -> None:
    witness = Witness()
    shell(reactor, witness, "umask", umask=0o27)
    run_until(reactor, lambda: witness.ended)
    assert witness.out == b"0027\n"
    with pytest.raises(TypeError, match="umask"):
        shell(reactor, Witness(), "", unmask=0o27)


def test_the_reactors_own_start_is_the_stock_one_elsewhere(reactor: Any) -> None:
    """A reactor of ours changes nothing for the others."""
    assert isinstance(reactor, ReactorBase)
    assert "spawnProcess" not in vars(EPollReactor)
    assert not isinstance(stock_reactor, type(reactor))


# --- what a program may set -----------------------------------------------------------------------


def test_pid_may_be_set_and_is_none_after_the_exit(reactor: Any, how: dict[str, Any]) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "read line; exit 3", **how)
    really = transport.pid
    assert process.reapProcessHandlers[really] is transport
    transport.pid = 5
    assert transport.pid == 5
    transport.write(b"\n")
    run_until(reactor, lambda: "processEnded" in witness.names)
    assert transport.pid is None
    assert really not in process.reapProcessHandlers


def test_processended_waits_for_what_a_program_has_put_into_pipes(reactor: Any) -> None:
    """As on Twisted, where the dict is what is looked at."""
    witness = Witness()
    transport = shell(reactor, witness, "read line; exit 3")
    held = object()
    transport.pipes = {**transport.pipes, 9: held}
    transport.write(b"\n")
    run_until(reactor, lambda: {"childConnectionLost", "processExited"} <= set(witness.names))
    run_until(reactor, lambda: transport.pipes == {9: held})
    assert "processEnded" not in witness.names
    del transport.pipes[9]
    transport.maybeCallProcessEnded()
    assert witness.names.count("processEnded") == 1
