"""Who reaps the children of our reactor, and when: Twisted's list, threads, signals, the stop.

`process.reapProcessHandlers` is one for all reactors of a process. A test that ends with anything
of its own in it fails (hosted.py), but for those that say why it must stay. What is about the
signals of the whole process, or would take the children of others, is played in a process of its
own (alone.py).
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from held import wait_for
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
from leftovers import open_fds
from programs_build import build_program
from support import DEADLINE_S, LACKS, PROC, run_until
from twisted.internet import process
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IProcessTransport
from twisted.trial.util import _Janitor

from procreactor.hosts.twisted import ProcreactorReactor, patch
from procreactor.hosts.twisted.transports import HostedTransport

PIPES = [0, 1, 2]
KERNEL = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
PIDFD_TELLS = KERNEL >= (6, 15) and "pidfd" not in LACKS
"""Whether a pidfd tells the status that other code took."""

forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
"""For tests in which Twisted forks, as from Python 3.12 on it should not beside threads."""


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


@contextmanager
def hosted() -> Iterator[ProcreactorReactor]:
    """The same as the fixture, for functions that are run in a process of their own."""
    with logged_errors(), make_hosted() as made:
        yield made


def is_listed(transport: Any) -> bool:
    return any(one is transport for one in process.reapProcessHandlers.values())


def in_thread(function: Callable[[], Any]) -> Any:
    """Return what *function* returns in a thread of its own; raise what it raises."""
    returned: list[Any] = []
    raised: list[BaseException] = []

    def call() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return returned[0]


# --- Twisted's list -------------------------------------------------------------------------------


def test_a_child_is_in_twisteds_list_from_its_start_to_its_reaping(
    reactor: Any, how: dict[str, Any]
) -> None:
    seen: dict[str, bool] = {}

    def note(witness: Witness) -> None:
        seen[witness.names[-1]] = is_listed(witness.transport)

    witness = Witness(connectionMade=note, processExited=note, processEnded=note)
    transport = shell(reactor, witness, "read line; exit 3", **how)
    pid = transport.pid
    assert process.reapProcessHandlers[pid] is transport
    transport.write(b"line\n")
    wait_for_zombie(pid)
    assert process.reapProcessHandlers[pid] is transport
    run_until(reactor, lambda: witness.ended)
    assert seen == {"connectionMade": True, "processExited": False, "processEnded": False}
    assert pid not in process.reapProcessHandlers


def test_the_list_is_the_one_that_twisteds_module_has_at_the_moment(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests replace it, as trial's patch does."""
    replaced: dict[int, Any] = {}
    monkeypatch.setattr(process, "reapProcessHandlers", replaced)
    witness = Witness()
    transport = shell(reactor, witness, "exit 3")
    assert replaced == {transport.pid: transport}
    run_until(reactor, lambda: witness.ended)
    assert replaced == {}


def test_another_entry_under_the_number_of_a_child_that_was_reaped_stays(reactor: Any) -> None:
    """Once other code has taken the child, its number may be another child's."""
    stranger: Any = object()
    witness = Witness()
    transport = shell(reactor, witness, "exit 3")
    pid = transport.pid
    os.waitpid(pid, 0)
    process.reapProcessHandlers[pid] = stranger
    run_until(reactor, lambda: witness.ended)
    assert process.reapProcessHandlers.pop(pid) is stranger


# --- reapAllProcesses at any time -----------------------------------------------------------------


def test_reaping_by_the_program_before_the_run_tells_the_exit_at_once_and_once(
    reactor: Any, how: dict[str, Any]
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "echo out; exit 3", **how)
    wait_for_zombie(transport.pid)
    assert not witness.exited
    process.reapAllProcesses()
    assert witness.names == ["connectionMade", "processExited"]
    process.reapAllProcesses()
    transport.reapProcess()
    run_to_the_end(reactor, witness)
    assert witness.end == (3, None)
    assert witness.out.rstrip() == b"out"


def test_reaping_by_the_program_tells_processended_too_when_there_are_no_pipes(
    reactor: Any,
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "exit 3", childFDs={})
    wait_for_zombie(transport.pid)
    process.reapAllProcesses()
    assert witness.end == (3, None)
    reactor.iterate(0)
    assert witness.names == ["connectionMade", "processExited", "processEnded"]


def test_reaping_by_the_program_does_nothing_to_a_child_that_lives(
    reactor: Any, how: dict[str, Any]
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "read line; exit 3", **how)
    process.reapAllProcesses()
    transport.reapProcess()
    assert witness.names == ["connectionMade"]
    assert is_listed(transport)
    transport.write(b"line\n")
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)


def test_a_protocol_may_reap_in_connectionmade(reactor: Any) -> None:
    def reap(witness: Witness) -> None:
        wait_for_zombie(witness.transport.pid)
        process.reapAllProcesses()

    witness = Witness(connectionMade=reap)
    transport = shell(reactor, witness, "echo out; exit 3")
    assert witness.names == ["connectionMade", "processExited"]
    assert not is_listed(transport)
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)
    assert witness.out == b"out\n"


@pytest.mark.parametrize(
    "callback", ["childDataReceived", "childConnectionLost", "processExited", "processEnded"]
)
def test_reaping_by_the_program_in_a_callback_tells_each_exit_once(
    reactor: Any, callback: str
) -> None:
    """All three children are zombies when the first callback comes."""
    reap = lambda witness: process.reapAllProcesses()  # noqa: E731
    witnesses = [Witness(**{callback: reap}) for _ in range(3)]
    for code, witness in enumerate(witnesses):
        wait_for_zombie(shell(reactor, witness, f"echo out; exit {code}").pid)
    run_until(reactor, lambda: all(witness.ended for witness in witnesses))
    assert [witness.end for witness in witnesses] == [(0, None), (1, None), (2, None)]
    assert [witness.out for witness in witnesses] == [b"out\n"] * 3


def test_reaping_by_the_program_in_the_reactors_own_calls(reactor: Any) -> None:
    witnesses = [Witness() for _ in range(3)]
    for code, witness in enumerate(witnesses):
        shell(reactor, witness, f"exit {code}")
    reactor.callWhenRunning(process.reapAllProcesses)
    reactor.callLater(0, process.reapAllProcesses)
    reactor.callFromThread(process.reapAllProcesses)
    run_to_the_end(reactor, *witnesses)
    assert [witness.end for witness in witnesses] == [(0, None), (1, None), (2, None)]


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_one_that_raises_when_the_program_reaps_does_not_keep_the_others_back(
    reactor: Any, errors: LoggedErrors, kind: type[BaseException]
) -> None:
    def boom(witness: Witness) -> None:
        raise kind("boom")

    witnesses = [Witness(processExited=boom) for _ in range(3)]
    for witness in witnesses:
        wait_for_zombie(shell(reactor, witness, "exit 3").pid)
    process.reapAllProcesses()
    assert [witness.exited for witness in witnesses] == [True] * 3
    run_until(reactor, lambda: all(witness.ended for witness in witnesses))
    assert [witness.end for witness in witnesses] == [(3, None)] * 3
    assert len(errors.flush(kind)) == 3


def test_what_a_replaced_maybecallprocessended_raises_does_not_come_out_of_the_reaping(
    reactor: Any, errors: LoggedErrors
) -> None:
    refusal = SystemExit("not yet")

    def refuse() -> None:
        raise refusal

    witness = Witness()
    transport = shell(reactor, witness, "exit 3", childFDs={})
    original, transport.maybeCallProcessEnded = transport.maybeCallProcessEnded, refuse
    wait_for_zombie(transport.pid)
    process.reapAllProcesses()
    assert errors.flush(SystemExit) == [refusal]
    assert witness.exited
    original()
    assert witness.end == (3, None)


# --- the stop -------------------------------------------------------------------------------------

LIVE_ON = 'trap "" HUP PIPE; echo out; read go <"$1"; exit 3'
"""Minds neither the end of its pipes nor the hang-up of its terminal."""


def test_the_stop_closes_the_pipes_of_living_children_and_leaves_them_alone(
    reactor: Any, how: dict[str, Any], gate: Gate
) -> None:
    witness = Witness(childDataReceived=lambda _: reactor.stop())
    transport = shell(reactor, witness, LIVE_ON, gate.path, **how)
    pid = transport.pid
    reactor.run(installSignalHandlers=False)
    assert sorted(witness.lost) == ([] if how else PIPES)
    assert not witness.exited
    assert transport.pid == pid
    assert process.reapProcessHandlers[pid] is transport
    transport.signalProcess(0)  # it is there
    process.reapAllProcesses()
    assert not witness.exited
    gate.open()
    wait_for_zombie(pid)
    assert not witness.exited  # nobody has reaped it
    process.reapAllProcesses()
    assert witness.end == (3, None)  # and it was not signalled
    assert not is_listed(transport)


def test_what_was_reaped_before_the_stop_is_told_all_when_its_pipes_close(
    reactor: Any, gate: Gate, tmp_path: Path
) -> None:
    """A grandchild holds them."""
    witness = Witness(processExited=lambda _: reactor.stop())
    through = tmp_path / "through"
    script = '(read go <"$1"; : >"$2") & exit 3'
    shell(reactor, witness, script, gate.path, str(through))
    reactor.run(installSignalHandlers=False)
    assert witness.end == (3, None)
    assert sorted(witness.lost) == PIPES
    gate.open()
    wait_for(through.exists)  # else it may come to a gate that is gone, and stay there


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_protocol_that_raises_at_the_stop_does_not_keep_the_others_open(
    reactor: Any, errors: LoggedErrors, gate: Gate, kind: type[BaseException]
) -> None:
    def boom(witness: Witness) -> None:
        raise kind("boom")

    witnesses = [Witness(childConnectionLost=boom) for _ in range(2)]
    children = [shell(reactor, witness, LIVE_ON, gate.path) for witness in witnesses]
    reactor.callWhenRunning(reactor.stop)
    reactor.run(installSignalHandlers=False)
    assert [sorted(witness.lost) for witness in witnesses] == [PIPES] * 2
    assert len(errors.flush(kind)) == 6
    for _ in children:
        gate.open()
    for child in children:
        wait_for_zombie(child.pid)
    process.reapAllProcesses()
    assert [witness.end for witness in witnesses] == [(3, None)] * 2


def test_a_reactor_taken_apart_leaves_children_that_can_be_reaped(gate: Gate) -> None:
    witness = Witness()
    with logged_errors():
        reactor: Any = ProcreactorReactor()
        transport = shell(reactor, witness, LIVE_ON, gate.path)
        take_apart(reactor)
        assert sorted(witness.lost) == PIPES
        assert is_listed(transport)
        gate.open()
        wait_for_zombie(transport.pid)
        process.reapAllProcesses()
    assert witness.end == (3, None)
    assert not is_listed(transport)


@forks
def test_the_same_holds_for_a_child_that_twisted_itself_started(gate: Gate) -> None:
    witness = Witness()
    with logged_errors():
        reactor: Any = ProcreactorReactor()
        transport = start_own(reactor, witness, LIVE_ON, gate.path)
        take_apart(reactor)
        gate.open()
        wait_for_zombie(transport.pid)
        process.reapAllProcesses()
    assert witness.end == (3, None)
    assert not is_listed(transport)


# --- removeAll ------------------------------------------------------------------------------------


def test_removeall_gives_the_children_and_knows_them_no_longer(
    reactor: Any, how: dict[str, Any], gate: Gate
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, LIVE_ON, gate.path, **how)
    run_until(reactor, lambda: witness.out)
    removed = reactor.removeAll()
    assert removed == [transport]
    assert IProcessTransport.providedBy(removed[0])
    assert reactor.removeAll() == []
    removed[0].connectionLost(None)
    removed[0].connectionLost(None)  # idempotent
    assert sorted(witness.lost) == ([] if how else PIPES)
    assert not witness.exited
    gate.open()
    wait_for_zombie(transport.pid)
    process.reapAllProcesses()
    assert witness.end == (3, None)


def test_a_child_that_is_over_is_not_among_what_is_removed(
    reactor: Any, how: dict[str, Any]
) -> None:
    witness = Witness()
    shell(reactor, witness, "", **how)
    run_until(reactor, lambda: witness.ended)
    assert reactor.removeAll() == []


def test_a_child_that_has_exited_but_whose_pipes_are_open_is_among_what_is_removed(
    reactor: Any, gate: Gate
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, '(read go <"$1") & exit 3', gate.path)
    run_until(reactor, lambda: witness.exited)
    assert reactor.removeAll() == [transport]
    gate.open()
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)


def test_trials_janitor_kills_the_children_that_a_test_left(
    reactor: Any, how: dict[str, Any], gate: Gate
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, LIVE_ON, gate.path, **how)
    left = _Janitor(None, None, reactor)._cleanReactor()
    assert left == [repr(transport)]
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (None, signal.SIGKILL)


# --- children that Twisted itself starts ----------------------------------------------------------


MARK = "set in the child"


class OwnGroup:
    """What programs derive from Twisted's own classes for: a word in the child, before the exec."""

    def _trySpawnInsteadOfFork(self, *args: Any, **kwargs: Any) -> bool:
        return False

    def _setupChild(self, *args: Any, **kwargs: Any) -> None:
        super()._setupChild(*args, **kwargs)  # type: ignore[misc]
        if os.getsid(0) != os.getpid():  # one on a terminal leads a session, and so a group
            os.setpgid(0, 0)
        os.environ["MARK"] = MARK


class GroupProcess(OwnGroup, process.Process):
    """On pipes."""


class GroupPTYProcess(OwnGroup, process.PTYProcess):
    """On a terminal."""


OWN = {"pipes": GroupProcess, "terminal": GroupPTYProcess}

SAY_GROUP = f'read -r pid comm state ppid group rest <{PROC}/self/stat; echo "$$ $group $MARK"'


def start_own(
    reactor: Any, witness: Witness, script: str, *args: str, own: str = "pipes", **kwargs: Any
) -> Any:
    """Return the transport, of a class of the program's own, of a shell that runs *script*."""
    argv = ["sh", "-c", script, "sh", *args]
    return OWN[own](reactor, SHELL, argv, None, None, witness, **kwargs)


def check_group(witness: Witness) -> None:
    [said] = [line for line in witness.out.decode().splitlines() if line.endswith(MARK)]
    pid, group = said.removesuffix(MARK).split()
    assert pid == group


@forks
@pytest.mark.parametrize("own", OWN)
def test_a_process_class_of_the_programs_own_runs_its_own_start_and_is_seen_to_end(
    reactor: Any, own: str
) -> None:
    handlers: list[Any] = []
    witness = Witness(processExited=lambda _: handlers.append(signal.getsignal(signal.SIGCHLD)))
    transport = start_own(reactor, witness, f"{SAY_GROUP}; read line; exit 3", own=own)
    assert type(transport) is OWN[own]
    assert process.reapProcessHandlers[transport.pid] is transport
    reactor.callWhenRunning(transport.write, b"line\n")
    with signals_kept():
        run_to_the_end(reactor, witness, signals=True)
    assert handlers == [signal.SIG_DFL]
    assert witness.end == (3, None)
    assert not is_listed(transport)
    check_group(witness)


@forks
def test_such_children_run_beside_ours(reactor: Any) -> None:
    kinds: list[Callable[..., Any]] = [start_own, shell] * 4
    witnesses = [Witness() for _ in kinds]
    children = [
        start(reactor, witness, f"read line; echo $line; exit {code}")
        for code, (start, witness) in enumerate(zip(kinds, witnesses, strict=True))
    ]
    for code, child in enumerate(children):
        child.write(b"%d\n" % code)
    run_to_the_end(reactor, *witnesses)
    assert [witness.end for witness in witnesses] == [(code, None) for code in range(8)]
    assert [witness.out for witness in witnesses] == [b"%d\n" % code for code in range(8)]


@forks
@pytest.mark.parametrize("own", OWN)
def test_such_a_child_is_seen_to_end_in_another_thread(errors: LoggedErrors, own: str) -> None:
    witness = Witness()

    def live() -> None:
        with make_hosted() as reactor:
            transport = start_own(reactor, witness, f"{SAY_GROUP}; read line; exit 3", own=own)
            reactor.callWhenRunning(transport.write, b"line\n")
            run_to_the_end(reactor, witness)

    in_thread(live)
    assert witness.end == (3, None)
    check_group(witness)


@forks
@pytest.mark.parametrize("kind", [process.Process, GroupProcess])
@pytest.mark.needs("threads")
def test_such_a_child_without_pipes_is_seen_to_end(
    reactor: Any, gate: Gate, kind: type[process.Process]
) -> None:
    """Nothing else than the exit can wake the reactor for it."""
    witness = Witness()
    argv = ["sh", "-c", 'read go <"$1"; exit 3', "sh", gate.path]
    transport = kind(reactor, SHELL, argv, None, None, witness, childFDs={})
    assert is_listed(transport)
    reactor.callWhenRunning(gate.open)
    run_to_the_end(reactor, witness)
    assert witness.names == ["connectionMade", "processExited", "processEnded"]
    assert witness.end == (3, None)


@forks
def test_such_a_child_that_closes_its_pipes_and_goes_on_is_seen_to_end(
    reactor: Any, gate: Gate
) -> None:
    witness = Witness()
    script = 'exec 0<&- 1>&- 2>&-; read go <"$1"; exit 3'
    start_own(reactor, witness, script, gate.path)
    run_until(reactor, lambda: len(witness.lost) == 3)
    gate.open()
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)


@forks
def test_such_a_child_that_is_dead_when_it_is_registered_is_told_of_there(reactor: Any) -> None:
    """Twisted looks once, after connectionMade; then it is not in the list, and nothing is left."""
    fds = open_fds()
    witness = Witness(connectionMade=lambda one: wait_for_zombie(one.transport.pid))
    start_own(reactor, witness, "exit 3", childFDs={})
    assert witness.end == (3, None)
    assert open_fds() == fds


@forks
def test_such_a_child_may_be_reaped_by_the_program_first(reactor: Any, gate: Gate) -> None:
    fds = open_fds()
    witness = Witness()
    transport = start_own(reactor, witness, 'read go <"$1"; exit 3', gate.path)
    gate.open()
    wait_for_zombie(transport.pid)
    process.reapAllProcesses()
    assert witness.exited
    run_until(reactor, lambda: witness.ended)
    run_until(reactor, lambda: open_fds() == fds)  # the fd by which it was watched
    assert witness.end == (3, None)


@forks
def test_such_a_child_of_another_reactor_is_not_ours_to_watch(reactor: Any, gate: Gate) -> None:
    other: Any = EPollReactor()
    try:
        fds = open_fds()
        witness = Witness()
        script = 'read go <"$1"; exit 3'
        transport = start_own(other, witness, script, gate.path, childFDs={})
        assert open_fds() == fds
        gate.open()
        wait_for_zombie(transport.pid)
        reactor.iterate(0)
        assert not witness.exited
        process.reapAllProcesses()
        assert witness.end == (3, None)
    finally:
        take_apart(other)


@forks
def test_such_a_child_that_was_there_before_the_reactor_was_patched_is_seen_to_end(
    errors: LoggedErrors, gate: Gate
) -> None:
    reactor: Any = EPollReactor()
    try:
        witnesses = Witness(), Witness()
        start_own(reactor, witnesses[0], 'read go <"$1"; exit 3', gate.path, childFDs={})
        patch(reactor)
        shell(reactor, witnesses[1], 'read go <"$1"; exit 4', gate.path, childFDs={})
        gate.open()
        gate.open()
        run_to_the_end(reactor, *witnesses)
        assert [witness.end for witness in witnesses] == [(3, None), (4, None)]
    finally:
        take_apart(reactor)


@forks
def test_such_a_child_is_seen_to_end_though_no_fd_was_to_be_had_for_it(
    reactor: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Counter[Any]()
    look = process.Process.reapProcess

    def counting(self: Any) -> None:
        looks[self] += 1
        look(self)

    monkeypatch.setattr(process.Process, "reapProcess", counting)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    no_more = lambda _: resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # noqa: E731
    witness = Witness(connectionMade=no_more)
    fds = open_fds()
    try:
        transport = start_own(reactor, witness, 'read go <"$1"; exit 3', gate.path, childFDs={})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_fds() == fds
    run_until(reactor, lambda: looks[transport] >= 2)
    assert not witness.exited
    gate.open()
    run_until(reactor, lambda: witness.ended)
    assert witness.end == (3, None)


def ends_of_own_starts() -> list[Any]:
    with hosted() as reactor:
        witnesses = [Witness() for _ in OWN]
        for own, witness in zip(OWN, witnesses, strict=True):
            start_own(reactor, witness, "read line; exit 3", own=own).write(b"line\n")
        run_to_the_end(reactor, *witnesses)
        return [witness.end for witness in witnesses]


@forks
def test_such_a_child_is_seen_to_end_where_there_are_no_pidfds() -> None:
    assert alone(ends_of_own_starts, disable="pidfd") == [[3, None]] * 2


def turns_in(reactor: Any, seconds: float) -> int:
    """Return how many turns *reactor* made in so many seconds."""
    over: list[bool] = []
    reactor.callLater(seconds, over.append, True)
    turns = 0
    while not over:
        reactor.iterate(seconds)
        turns += 1
    return turns


FEW = 150
"""Turns in 0.3 s: one that looks again at times has dozens, one that spins tens of thousands."""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.needs("threads")
def test_such_a_child_whose_tracer_holds_it_does_not_make_the_reactor_spin(reactor: Any) -> None:
    end, tracer = build_program("end"), build_program("tracer")
    traced, tracing = Witness(), Witness()
    child = process.Process(reactor, end, [end, "wait", "4"], None, None, traced)
    watcher = reactor.spawnProcess(tracing, tracer, [tracer, str(child.pid)])
    run_until(reactor, lambda: tracing.out or tracing.ended)
    is_traced = not tracing.ended
    child.closeStdin()
    if is_traced:
        stat = Path(PROC, str(child.pid), "stat")
        run_until(reactor, lambda: ") Z " in stat.read_text())
        turns = turns_in(reactor, 0.3)
        told_early = traced.exited
        watcher.closeStdin()
    run_until(reactor, lambda: traced.ended and tracing.ended)
    assert traced.end == (4, None)
    if not is_traced:
        pytest.skip("may not trace")
    assert turns < FEW
    assert not told_early


# --- other code that reaps ------------------------------------------------------------------------


def told_or_lost(*codes: int) -> list[tuple[int | None, int | None]]:
    """The ends that may be told of a child whose status other code has taken."""
    return [(code if PIDFD_TELLS else None, None) for code in codes]


def test_the_end_of_a_child_that_other_code_reaped_is_told(
    reactor: Any, how: dict[str, Any]
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "echo out; exit 3", **how)
    os.waitpid(transport.pid, 0)
    run_until(reactor, lambda: witness.ended)
    assert [witness.end] == told_or_lost(3)
    assert witness.out.rstrip() == b"out"
    assert not is_listed(transport)


def test_the_end_of_a_child_that_other_code_reaped_is_told_by_reapallprocesses(
    reactor: Any,
) -> None:
    witness = Witness()
    transport = shell(reactor, witness, "exit 3", childFDs={})
    os.waitpid(transport.pid, 0)
    process.reapAllProcesses()
    assert [witness.end] == told_or_lost(3)
    assert not is_listed(transport)


@pytest.mark.needs("threads")
def test_one_of_twisteds_own_that_other_code_reaped_does_not_make_the_reactor_spin(
    reactor: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never told of, as on stock Twisted; but the others are, and nobody waits in vain."""
    looked: list[Any] = []
    look = process.Process.reapProcess

    def noting(self: Any) -> None:
        looked.append(self)
        look(self)

    monkeypatch.setattr(process.Process, "reapProcess", noting)
    witness = Witness()
    argv = ["sh", "-c", 'read go <"$1"; exit 3', "sh", gate.path]
    transport = process.Process(reactor, SHELL, argv, None, None, witness, childFDs={})
    pid = transport.pid
    gate.open()
    os.waitpid(pid, 0)
    run_until(reactor, lambda: looked)
    assert turns_in(reactor, 0.3) < 5
    assert looked == [transport]
    assert not witness.exited
    assert process.reapProcessHandlers.pop(pid) is transport  # in it for good, with stock Twisted
    ours = Witness()
    shell(reactor, ours, "exit 4")
    run_until(reactor, lambda: ours.ended)
    assert ours.end == (4, None)


def test_children_of_other_code_are_left_to_it(reactor: Any) -> None:
    codes: list[int] = []

    def run_another(witness: Witness) -> None:
        codes.append(subprocess.run([SHELL, "-c", "exit 5"], check=False).returncode)

    witness = Witness(connectionMade=run_another, processExited=run_another)
    with subprocess.Popen([SHELL, "-c", "exit 6"]) as other:
        wait_for_zombie(other.pid)
        shell(reactor, witness, "exit 3")
        with signals_kept():
            run_to_the_end(reactor, witness, signals=True)
        process.reapAllProcesses()
    assert witness.end == (3, None)
    assert (codes, other.returncode) == ([5, 5], 6)


def ends_beside_a_handler_that_reaps_all() -> list[Any]:
    taken: list[int] = []

    def reap_all(number: int, frame: object) -> None:
        try:
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) > 0:
                taken.append(pid)
        except ChildProcessError:
            pass

    with hosted() as reactor:
        signal.signal(signal.SIGCHLD, reap_all)
        witnesses = [Witness() for _ in range(20)]
        for code, witness in enumerate(witnesses):
            shell(reactor, witness, f"echo {code}; exit {code}")
        run_to_the_end(reactor, *witnesses, signals=True)
        kept = signal.getsignal(signal.SIGCHLD) is reap_all
    return [bool(taken), kept, [(witness.out.decode(), witness.end) for witness in witnesses]]


def test_beside_a_sigchld_handler_that_reaps_all_children_each_end_is_told() -> None:
    took, kept, told = alone(ends_beside_a_handler_that_reaps_all)
    assert took
    assert kept  # and the program's handler stays
    for code, (out, end) in enumerate(told):
        assert out == f"{code}\n"
        assert end in ([code, None], [None, None])
        assert end == [code, None] or not PIDFD_TELLS


def ends_where_no_zombies_are_wanted() -> list[Any]:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with hosted() as reactor:
        witnesses = [Witness() for _ in HOW]
        for kwargs, witness in zip(HOW.values(), witnesses, strict=True):
            shell(reactor, witness, "exit 3", **kwargs)
        run_to_the_end(reactor, *witnesses, signals=True)
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        return [witness.end for witness in witnesses]


def test_where_sigchld_is_ignored_each_end_is_told() -> None:
    told = [list(end) for end in told_or_lost(3, 3)]
    assert alone(ends_where_no_zombies_are_wanted) == told


def ends_in_a_storm_of_signals() -> list[Any]:
    """A signal each millisecond, with a handler that starts a child now and then."""
    signals = 0
    with hosted() as reactor:
        witnesses = [Witness() for _ in range(40)]
        late = Witness()

        def on_alarm(number: int, frame: object) -> None:
            nonlocal signals
            signals += 1
            if signals == 5:
                reactor.callFromThread(shell, reactor, late, "exit 99")

        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for code, witness in enumerate(witnesses):
            reactor.callWhenRunning(shell, reactor, witness, f"echo out; exit {code}")
        run_to_the_end(reactor, *witnesses, late, signals=True)
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert {witness.out for witness in witnesses} == {b"out\n"}
    return [witness.end[0] for witness in [*witnesses, late]]


def test_in_a_storm_of_signals_nothing_is_lost() -> None:
    assert alone(ends_in_a_storm_of_signals) == [*range(40), 99]


# --- many children --------------------------------------------------------------------------------

MANY = 200


def test_an_exit_costs_nothing_for_the_children_that_live(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twisted asks each child in its list at each exit."""
    asked = Counter[Any]()
    reap = HostedTransport.reapProcess

    def counting(self: HostedTransport) -> None:
        asked[self] += 1
        reap(self)

    monkeypatch.setattr(HostedTransport, "reapProcess", counting)
    theirs, ours = os.pipe()
    child_fds = {0: theirs, 1: "r"}
    witnesses = [Witness() for _ in range(MANY)]
    children = [
        reactor.spawnProcess(witness, "/bin/cat", ["cat"], childFDs=child_fds)
        for witness in witnesses
    ]
    os.close(theirs)
    assert {children[n].pid for n in range(MANY)} <= set(process.reapProcessHandlers)
    chosen = MANY // 2
    children[chosen].signalProcess("KILL")
    run_until(reactor, lambda: witnesses[chosen].ended)
    assert set(asked) <= {children[chosen]}
    os.close(ours)
    run_to_the_end(reactor, *witnesses)
    assert max(asked.values(), default=0) <= 1  # and not 200 times each
    ends = Counter(witness.end for witness in witnesses)
    assert ends == {(0, None): MANY - 1, (None, 9): 1}


@pytest.mark.needs("threads")
def test_an_exit_costs_nothing_for_the_children_of_twisteds_own_that_live(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counter[Any]()
    reap = process.Process.reapProcess

    def counting(self: Any) -> None:
        asked[self] += 1
        reap(self)

    monkeypatch.setattr(process.Process, "reapProcess", counting)
    theirs, ours = os.pipe()
    witnesses = [Witness() for _ in range(20)]
    argv = ["sh", "-c", "read line"]
    children = [
        process.Process(reactor, SHELL, argv, None, None, witness, childFDs={0: theirs})
        for witness in witnesses
    ]
    os.close(theirs)
    children[7].signalProcess("KILL")
    run_until(reactor, lambda: witnesses[7].ended)
    assert asked == {children[7]: 1}
    os.close(ours)
    run_to_the_end(reactor, *witnesses)
    assert asked == dict.fromkeys(children, 1)


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.needs("threads")
def test_another_thread_may_ask_the_reactor_for_a_child(reactor: Any, how: dict[str, Any]) -> None:
    threads: list[threading.Thread] = []
    note = lambda _: threads.append(threading.current_thread())  # noqa: E731
    witness = Witness(connectionMade=note, processExited=note)
    asker = threading.Thread(
        target=reactor.callFromThread,
        args=(shell, reactor, witness, "echo out; exit 3"),
        kwargs=how,
    )
    reactor.callWhenRunning(asker.start)
    run_to_the_end(reactor, witness)
    asker.join()
    assert witness.end == (3, None)
    assert threads == [threading.main_thread()] * 2


def test_a_reactor_that_runs_in_another_thread_tells_there(
    errors: LoggedErrors, how: dict[str, Any]
) -> None:
    threads: list[threading.Thread] = []
    note = lambda _: threads.append(threading.current_thread())  # noqa: E731
    witness = Witness(connectionMade=note, childDataReceived=note, processExited=note)

    def live() -> threading.Thread:
        with make_hosted() as reactor:
            reactor.callWhenRunning(shell, reactor, witness, "echo out; exit 3", **how)
            run_to_the_end(reactor, witness)
        return threading.current_thread()

    runner = in_thread(live)
    assert witness.end == (3, None)
    assert set(threads) == {runner}


def test_reactors_in_several_threads_have_their_own_children(errors: LoggedErrors) -> None:
    both_run = threading.Barrier(2)
    witnesses = {code: [Witness() for _ in range(5)] for code in (3, 4)}
    told = {3: set[threading.Thread](), 4: set[threading.Thread]()}

    def live(code: int) -> None:
        reactor: Any = ProcreactorReactor()
        both_run.wait(DEADLINE_S)
        for witness in witnesses[code]:
            witness.acts["processExited"] = lambda _: told[code].add(threading.current_thread())
            shell(reactor, witness, f"exit {code}")
        run_to_the_end(reactor, *witnesses[code])
        take_apart(reactor)

    threads = [threading.Thread(target=live, args=(code,)) for code in witnesses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for code, thread in zip(witnesses, threads, strict=True):
        assert [witness.end for witness in witnesses[code]] == [(code, None)] * 5
        assert told[code] == {thread}


@pytest.mark.needs("threads")
def test_the_reactors_thread_pool_works_beside_children(reactor: Any) -> None:
    witness = Witness()
    begun = threading.Event()
    reactor.callInThread(begun.wait, DEADLINE_S)
    reactor.callWhenRunning(shell, reactor, witness, "exit 3")
    witness.acts["processExited"] = lambda _: begun.set()
    run_to_the_end(reactor, witness)
    assert witness.end == (3, None)


def test_callbacks_may_give_the_reactor_a_turn(reactor: Any) -> None:
    turn = lambda _: reactor.iterate(0)  # noqa: E731
    callbacks = ["childDataReceived", "childConnectionLost", "processExited", "processEnded"]
    witnesses = [Witness(**dict.fromkeys(callbacks, turn)) for _ in range(6)]
    for code, witness in enumerate(witnesses):
        shell(
            reactor, witness, f"echo out; exit {code}", **HOW["terminal" if code % 2 else "pipes"]
        )
    run_until(reactor, lambda: all(witness.ended for witness in witnesses))
    assert [witness.end for witness in witnesses] == [(code, None) for code in range(6)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_turn_of_the_loop_does_not_take_it_from_the_reactor(
    reactor: Any, errors: LoggedErrors, kind: type[BaseException]
) -> None:
    """As a signal handler may raise it, anywhere; logged, as all that Twisted's turns meet."""

    def boom() -> None:
        raise kind("boom")

    reactor._procreactor_children.loop.call_soon(boom)
    witness = Witness()
    shell(reactor, witness, "exit 3")
    try:
        run_until(reactor, lambda: witness.ended)
    except KeyboardInterrupt:
        pytest.fail("it left the reactor")
    assert witness.end == (3, None)
    assert len(errors.flush(kind)) == 1


# --- a forked copy --------------------------------------------------------------------------------


def pidfds() -> int:
    return list(open_fds().values()).count("anon_inode:[pidfd]")


def child_in_a_copy_that_turns(reactor: Any, own: Witness) -> None:
    shell(reactor, own, "echo out; exit 4")
    run_until(reactor, lambda: own.ended)


def child_in_a_copy_that_reaps_and_runs(reactor: Any, own: Witness) -> None:
    process.reapAllProcesses()
    reactor.callWhenRunning(shell, reactor, own, "echo out; exit 4")
    run_to_the_end(reactor, own)


def child_of_twisteds_in_a_copy_that_runs(reactor: Any, own: Witness) -> None:
    argv = ["sh", "-c", "echo out; exec 0<&- 1>&- 2>&-; exit 4"]
    reactor.callWhenRunning(process.Process, reactor, SHELL, argv, None, None, own)
    run_to_the_end(reactor, own)


IN_A_COPY: dict[str, Callable[[Any, Witness], None]] = {
    "turns": child_in_a_copy_that_turns,
    "reaps and runs": child_in_a_copy_that_reaps_and_runs,
    "runs with one of Twisted's": child_of_twisteds_in_a_copy_that_runs,
}


def what_a_copy_sees(reactor: Any, originals: Witness, what: str) -> dict[str, Any]:
    before = pidfds()
    own = Witness()
    IN_A_COPY[what](reactor, own)
    return {
        "own": [own.end, own.out.decode()],
        "the original's": originals.names,
        "listed": [str(one) for one in process.reapProcessHandlers.values() if is_ours(one)],
        "children": [str(one) for one in reactor.removeAll() if is_ours(one)],
        "pidfds closed": before - pidfds(),
    }


def is_ours(transport: Any) -> bool:
    return isinstance(transport, HostedTransport)


def what_a_copy_and_its_original_see(what: str, folder: str) -> dict[str, Any]:
    """The copy starts a child of its own, as a daemon does; then the original goes on with its."""
    gate = Gate(Path(folder))
    with hosted() as reactor:
        witness, own_start = Witness(), Witness()
        transport = shell(reactor, witness, "read line; exit 3")
        argv = ["sh", "-c", 'read go <"$1"; exit 5', "sh", gate.path]
        process.Process(reactor, SHELL, argv, None, None, own_start, childFDs={})
        read_fd, write_fd = os.pipe()
        copy = os.fork()
        if copy == 0:
            said: Any = "nothing"
            try:
                said = what_a_copy_sees(reactor, witness, what)
            finally:
                os.write(write_fd, json.dumps(said).encode())
                os._exit(0)
        os.close(write_fd)
        with open(read_fd, "rb") as file:
            seen = json.loads(file.read())
        os.waitpid(copy, 0)
        listed = is_listed(transport)
        transport.write(b"line\n")
        gate.open()
        run_to_the_end(reactor, witness, own_start)
    gate.close()
    return {"copy": seen, "listed": listed, "ends": [witness.end, own_start.end]}


@pytest.mark.parametrize("what", IN_A_COPY)
@pytest.mark.needs("threads")
def test_a_forked_copy_goes_on_with_children_of_its_own(what: str, tmp_path: Path) -> None:
    found = alone(what_a_copy_and_its_original_see, what, str(tmp_path))
    assert found == {
        "copy": {
            "own": [[4, None], "out\n"],
            "the original's": ["connectionMade"],
            "listed": [],
            "children": [],
            # That of the one that Twisted started, where it has one.
            "pidfds closed": int(LACKS.isdisjoint({"pidfd", "pidfd_open"})),
        },
        "listed": True,
        "ends": [[3, None], [5, None]],
    }


# --- signals --------------------------------------------------------------------------------------


def wakeup_fd() -> int:
    """The fd to which Python writes when a signal comes, or -1."""
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


def test_no_sigchld_handler_is_installed_and_the_wakeup_fd_is_put_back(reactor: Any) -> None:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(write_fd)
    during: list[Any] = []
    witness = Witness(
        processExited=lambda _: during.extend([signal.getsignal(signal.SIGCHLD), wakeup_fd()])
    )
    try:
        with signals_kept():
            reactor.callWhenRunning(shell, reactor, witness, "exit 3")
            run_to_the_end(reactor, witness, signals=True)
            assert wakeup_fd() == write_fd
            reactor._uninstallHandler()  # as Twisted's ReactorBuilder does once more
            assert wakeup_fd() == write_fd
    finally:
        signal.set_wakeup_fd(before)
        os.close(read_fd)
        os.close(write_fd)
    handler, fd = during
    assert handler == signal.SIG_DFL
    assert fd not in (-1, write_fd)


def test_a_wakeup_fd_that_was_closed_during_the_run_is_not_put_back(reactor: Any) -> None:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(write_fd)
    witness = Witness(processExited=lambda _: os.close(write_fd))
    shell(reactor, witness, "exit 3")
    try:
        with signals_kept():
            run_to_the_end(reactor, witness, signals=True)
        assert witness.end == (3, None)
        assert wakeup_fd() == -1
    finally:
        signal.set_wakeup_fd(before)
        os.close(read_fd)


def test_without_signal_handlers_the_wakeup_fd_is_not_touched(reactor: Any) -> None:
    before = wakeup_fd()
    during: list[int] = []
    witness = Witness(processExited=lambda _: during.append(wakeup_fd()))
    shell(reactor, witness, "exit 3")
    run_to_the_end(reactor, witness)
    assert during == [before]
    assert wakeup_fd() == before


def test_a_reactor_may_run_again_after_a_crash(reactor: Any) -> None:
    before = wakeup_fd()
    with signals_kept():
        for code in (3, 4):
            witness = Witness()
            shell(reactor, witness, f"exit {code}")
            run_to_the_end(reactor, witness, signals=True)
            assert witness.end == (code, None)
            assert wakeup_fd() == before


def after_a_signal(ours: bool, number: int, by_thread: bool, handler: bool) -> dict[str, Any]:
    """How a run ends that gets a signal, and what it leaves."""
    if handler:
        signal.signal(signal.SIGINT, lambda *_: None)
    reactor: Any = ProcreactorReactor() if ours else EPollReactor()
    began = threading.Event()

    def signal_itself() -> None:
        began.wait(DEADLINE_S)
        signal.pthread_kill(threading.get_ident(), number)

    thread = threading.Thread(target=signal_itself)
    if by_thread:
        thread.start()
        reactor.callWhenRunning(reactor.callLater, 0, began.set)
    else:
        reactor.callWhenRunning(os.kill, os.getpid(), number)
    began_at = time.monotonic()
    deadline = reactor.callLater(DEADLINE_S, reactor.crash)
    if handler:
        reactor.callWhenRunning(reactor.callLater, 0.1, reactor.stop)
    reactor.run()
    in_time = deadline.active() and time.monotonic() - began_at < DEADLINE_S / 2
    if by_thread:
        thread.join()
    names = {one.name: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    found = {
        "in time": in_time,
        "exit signal": reactor._exitSignal,
        "handlers": {name: getattr(one, "__name__", str(one)) for name, one in names.items()},
        "SIGCHLD": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
        "wake-up fd": signal.set_wakeup_fd(-1),
    }
    take_apart(reactor)
    return found


@pytest.mark.parametrize("by_thread", [False, True], ids=["process", "thread"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_reactor_and_leaves_what_stock_twisted_leaves(
    number: int, by_thread: bool
) -> None:
    """One that another thread is given must end the wait of the main thread, too."""
    ours, stock = (alone(after_a_signal, ours, int(number), by_thread, False) for ours in (1, 0))
    assert ours == stock
    assert ours["in time"]
    assert ours["exit signal"] == number


def test_a_programs_own_sigint_handler_stays() -> None:
    ours, stock = (alone(after_a_signal, ours, int(signal.SIGINT), False, True) for ours in (1, 0))
    assert ours == stock
    assert ours["handlers"]["SIGINT"] == "<lambda>"
    assert ours["exit signal"] is None


def child_of_a_reactor_that_a_signal_stops(folder: str) -> dict[str, Any]:
    gate = Gate(Path(folder))
    with hosted() as reactor:
        witness = Witness(childDataReceived=lambda _: os.kill(os.getpid(), signal.SIGTERM))
        transport = shell(reactor, witness, LIVE_ON, gate.path)
        deadline = reactor.callLater(DEADLINE_S, reactor.crash)
        reactor.run()
        in_time = deadline.active()
        gate.open()
        wait_for_zombie(transport.pid)
        process.reapAllProcesses()
    gate.close()
    return {"in time": in_time, "lost": sorted(witness.lost), "end": witness.end}


def test_a_signal_that_stops_the_reactor_is_not_passed_on_to_children(tmp_path: Path) -> None:
    found = alone(child_of_a_reactor_that_a_signal_stops, str(tmp_path))
    assert found == {"in time": True, "lost": PIPES, "end": [3, None]}
