"""Reactors of Twisted's own that were given our children: `procreactor.hosts.twisted.patch`.

Each reactor is the one of a process of its own (`alone`), made, patched, run and taken apart there,
by a function of this file whose result the test judges. In the parent of these there is Twisted's
default reactor already, and signal handlers, wake-up fds and forks concern a whole process.

How an end is told matters here, and a child that simply ends would not show it: with its last pipe
gone Twisted looks for itself. So most children here close all pipes first, and end later, when they
are let through a gate; only a signal, or a pidfd, can then tell.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alone import alone
from support import DEADLINE_S, LACKS, PROC
from twisted.internet import asyncioreactor, epollreactor, pollreactor, process, selectreactor
from twisted.internet.main import installReactor
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from procreactor.hosts.twisted import ProcreactorReactor, patch
from procreactor.hosts.twisted.transports import HostedTransport

KINDS: dict[str, Callable[[], Any]] = {
    "select": selectreactor.SelectReactor,
    "poll": pollreactor.PollReactor,
    "epoll": epollreactor.EPollReactor,
    "asyncio": asyncioreactor.AsyncioSelectorReactor,
    "ours": ProcreactorReactor,
}

MOMENTS = ["before the run", "at its start", "while it runs"]

on_every_reactor = pytest.mark.parametrize("kind", ["select", "poll", "epoll", "asyncio"])
on_ours_too = pytest.mark.parametrize("kind", [*KINDS])
at_every_moment = pytest.mark.parametrize("moment", MOMENTS)


# --- reactors -------------------------------------------------------------------------------------


@contextmanager
def reactor_of_its_own(kind: str) -> Iterator[Any]:
    """The reactor of this process, until the end, when nothing is left of it."""
    reactor = KINDS[kind]()
    installReactor(reactor)
    try:
        yield reactor
    finally:
        reactor.disconnectAll()
        for reader in list(reactor._internalReaders):
            reactor._internalReaders.remove(reader)
            reactor.removeReader(reader)
            reader.connectionLost(Failure(Exception("taken apart")))
        if isinstance(reactor, epollreactor.EPollReactor):
            reactor._poller.close()
        if isinstance(reactor, asyncioreactor.AsyncioSelectorReactor):
            reactor._asyncioEventloop.close()


def patch_at(moment: str, reactor: Any, then: Callable[[], object]) -> None:
    """Let *reactor* be patched at *moment*, and *then* be called when it runs."""

    def patch_running() -> None:
        assert signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL  # Twisted's own is there
        patch(reactor)
        then()

    if moment == "while it runs":
        reactor.callWhenRunning(patch_running)
        return
    if moment == "at its start":
        reactor.addSystemEventTrigger("before", "startup", patch, reactor)
    else:
        patch(reactor)
    reactor.callWhenRunning(then)


def run(reactor: Any, **options: Any) -> None:
    """Run *reactor* until it is stopped; fails when nobody does."""
    late = reactor.callLater(DEADLINE_S, reactor.stop)
    reactor.run(**options)
    assert late.active(), f"not within {DEADLINE_S} s"
    late.cancel()


# --- children -------------------------------------------------------------------------------------


class Seen(ProcessProtocol):
    """Writes down what it is told; *on_lost* and *on_end* are called then."""

    def __init__(
        self,
        on_end: Callable[[], object] = lambda: None,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        self.on_end = on_end
        self.on_lost = on_lost
        self.calls: list[str] = []
        self.data: dict[int, bytes] = {1: b"", 2: b""}
        self.end: tuple[int | None, int | None] | None = None
        self.ended = False

    def connectionMade(self) -> None:
        self.calls.append("made")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.data[childFD] += data

    def childConnectionLost(self, childFD: int) -> None:
        self.calls.append(f"lost {childFD}")
        if self.lost == {0, 1, 2}:
            self.on_lost()

    def processExited(self, reason: Failure) -> None:
        self.calls.append("exited")

    def processEnded(self, reason: Failure) -> None:
        self.calls.append("ended")
        self.ended = True
        self.end = (reason.value.exitCode, reason.value.signal)
        self.on_end()

    @property
    def lost(self) -> set[int]:
        return {int(call.split()[1]) for call in self.calls if call.startswith("lost")}

    @property
    def facts(self) -> list[Any]:
        """Output, errors, how it ended, and that it was told all of it, in order and once."""
        told_in_order = self.calls[0] == "made" and self.calls[-1] == "ended"
        once = len(self.calls) == len(set(self.calls)) and "exited" in self.calls
        code, signalled = self.end or (None, None)
        return [self.data[1].decode(), self.data[2].decode(), code, signalled, told_in_order, once]


def as_told(out: str = "", err: str = "", code: int | None = None, by: int | None = None) -> Any:
    """What `Seen.facts` are when all went well."""
    return [out, err, code, by, True, True]


def spawn(reactor: Any, seen: Seen, script: str, *args: str, **options: Any) -> Any:
    """Return the transport of a shell that runs *script*."""
    return reactor.spawnProcess(seen, "/bin/sh", ["sh", "-c", script, "sh", *args], **options)


class Gate:
    """Where children wait until they are let through: their fd 3."""

    SCRIPT = "exec 0<&- 1>&- 2>&-; read go <&3; exit 4"
    """Close all pipes, wait, and end with status 4."""

    WITHOUT_PIPES = "read go <&3; exit 4"

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()

    @property
    def child_fds(self) -> dict[int, Any]:
        return {0: "w", 1: "r", 2: "r", 3: self._read_fd}

    @property
    def only_fds(self) -> dict[int, Any]:
        """For a child without pipes: Twisted looks for its end once, at its start."""
        return {3: self._read_fd}

    def open(self) -> None:
        """Let one through."""
        os.write(self._write_fd, b"go\n")

    def close(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)


@contextmanager
def gate() -> Iterator[Gate]:
    made = Gate()
    try:
        yield made
    finally:
        made.close()


class GroupLeader(process.Process):
    """A child as Buildbot's worker has them: by Twisted's own class, with a step before exec."""

    def _setupChild(self, *args: Any, **kwargs: Any) -> None:
        super()._setupChild(*args, **kwargs)
        os.setpgid(0, 0)

    @classmethod
    def run(cls, reactor: Any, seen: Seen, script: str, child_fds: dict[int, Any]) -> Any:
        """Start a shell that runs *script*; with a directory given, Twisted forks and asks us."""
        argv = ["sh", "-c", script]
        return cls(reactor, "/bin/sh", argv, {}, "/", seen, childFDs=child_fds)


# --- children are ours ----------------------------------------------------------------------------

CHILDREN: dict[str, tuple[str, dict[str, Any]]] = {
    "says something": ("echo out; echo err >&2; exit 3", {}),
    "reads": ("read line; echo got $line", {}),
    "is killed": ("kill -9 $$", {}),
    "lies elsewhere": ("pwd", {"path": "/usr"}),
    "is on a terminal": ("test -t 0 && echo terminal; exit 5", {"usePTY": True}),
}


def see_children(kind: str, moment: str) -> list[Any]:
    with reactor_of_its_own(kind) as reactor:
        seen = {name: Seen(lambda: stop_at_the_last()) for name in CHILDREN}
        is_default = []

        def look() -> None:
            is_default.append(signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL)

        def stop_at_the_last() -> None:
            if all(one.ended for one in seen.values()):
                look()
                reactor.stop()

        def start() -> None:
            look()
            for name, (script, options) in CHILDREN.items():
                transport = spawn(reactor, seen[name], script, **options)
                assert isinstance(transport, HostedTransport)
                assert process.reapProcessHandlers[transport.pid] is transport
                if name == "reads":
                    transport.write(b"this\n")

        patch_at(moment, reactor, start)
        run(reactor)
        assert process.reapProcessHandlers == {}
        look()
        return [{name: one.facts for name, one in seen.items()}, is_default]


@on_every_reactor
@at_every_moment
def test_children_of_a_patched_reactor_are_ours(kind: str, moment: str) -> None:
    """And SIGCHLD has no handler: as the first starts, as the last ends, and after the run."""
    seen, is_default = alone(see_children, kind, moment)
    assert seen == {
        "says something": as_told("out\n", "err\n", code=3),
        "reads": as_told("got this\n", code=0),
        "is killed": as_told(by=signal.SIGKILL),
        "lies elsewhere": as_told("/usr\n", code=0),
        "is on a terminal": as_told("terminal\r\n", code=5),
    }
    assert is_default == [True, True, True]


# --- children of Twisted's own --------------------------------------------------------------------


def see_twisteds_own_children(kind: str, moment: str) -> list[Any]:
    with (
        reactor_of_its_own(kind) as reactor,
        gate() as over_gate,
        gate() as before_gate,
        gate() as after_gate,
    ):

        def stop_at_the_last() -> None:
            if over.ended and before.ended and after.ended:
                reactor.stop()

        # Each is let through in a turn of its own, when Twisted has looked for its end in vain.
        before = Seen(stop_at_the_last, lambda: reactor.callLater(0, before_gate.open))
        after = Seen(stop_at_the_last, lambda: reactor.callLater(0, after_gate.open))
        over = Seen(stop_at_the_last)
        are_twisteds = []

        def start_before() -> None:
            transport = spawn(reactor, before, Gate.SCRIPT, childFDs=before_gate.child_fds)
            are_twisteds.append(type(transport) is process.Process)
            transport = spawn(reactor, over, Gate.WITHOUT_PIPES, childFDs=over_gate.only_fds)
            are_twisteds.append(type(transport) is process.Process)
            over_gate.open()
            os.waitid(os.P_PID, transport.pid, os.WEXITED | os.WNOWAIT)

        def start_after() -> None:
            script = f"cut -d ' ' -f 5 {PROC}/$$/stat; echo $$; {Gate.SCRIPT}"
            GroupLeader.run(reactor, after, script, after_gate.child_fds)

        if moment == "while it runs":
            reactor.callWhenRunning(start_before)
        else:
            start_before()
        patch_at(moment, reactor, start_after)
        run(reactor)
        assert process.reapProcessHandlers == {}
        group, pid = after.data[1].decode().split()
        after.data[1] = b""
        return [are_twisteds, over.facts, before.facts, after.facts, group == pid]


@on_every_reactor
@at_every_moment
@pytest.mark.needs("threads")  # nor has Twisted libc's posix_spawn there
def test_children_of_twisteds_own_class_are_told_of_their_ends(kind: str, moment: str) -> None:
    """One that was over before, one that was started before, and one after, past spawnProcess."""
    are_twisteds, over, before, after, leads = alone(see_twisteds_own_children, kind, moment)
    assert are_twisteds == [True, True]
    assert over == as_told(code=4)
    assert before == as_told(code=4)
    assert after == as_told(code=4)
    assert leads


# --- twice, and where it cannot be ----------------------------------------------------------------


def patch_twice(kind: str) -> list[Any]:
    with reactor_of_its_own(kind) as reactor:
        patch(reactor)
        spawn_process, readers = reactor.spawnProcess, list(reactor._internalReaders)
        patch(reactor)
        unchanged = [
            reactor.spawnProcess == spawn_process,
            set(reactor._internalReaders) == set(readers),
        ]
        seen = Seen(reactor.stop)
        spawn(reactor, seen, "echo out; exit 3")
        reactor.callWhenRunning(patch, reactor)
        run(reactor)
        unchanged.append(reactor.spawnProcess == spawn_process)
        return [unchanged, seen.facts]


@on_ours_too
def test_a_second_patch_changes_nothing(kind: str) -> None:
    """Nor does one of a reactor that is ours from the start."""
    assert alone(patch_twice, kind) == [[True, True, True], as_told("out\n", code=3)]


@pytest.mark.parametrize("stranger", [Clock(), object(), None])
def test_what_watches_no_fds_is_refused(stranger: object) -> None:
    with pytest.raises(TypeError) as caught:
        patch(stranger)
    assert str(caught.value) == (
        f"{stranger!r} watches no file descriptors: it is no IReactorFDSet"
    )


# --- signals --------------------------------------------------------------------------------------


def wait_until_asleep(thread_id: int) -> None:
    """Return when a thread of this process waits in the kernel, and not for this thread only."""
    in_a_row = 0
    while in_a_row < 3:
        with open(f"{PROC}/self/task/{thread_id}/stat") as file:  # lets the other go on, each time
            state = file.read().rpartition(")")[2].split()[0]
        in_a_row = in_a_row + 1 if state == "S" else 0


def run_until_another_threads_signal(
    reactor: Any, when_running: Callable[[Callable[[], object]], object]
) -> int:
    """Run *reactor* until a thread has sent this process SIGTERM, which only it can be given.

    The thread begins with what *when_running* is given, and waits until this one does nothing.
    """
    may_go = threading.Event()
    main_id = threading.get_native_id()

    def signal_process() -> None:
        may_go.wait()
        wait_until_asleep(main_id)
        os.kill(os.getpid(), signal.SIGTERM)

    other = threading.Thread(target=signal_process)
    other.start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in this thread alone
    when_running(may_go.set)
    run(reactor)
    other.join()
    return int(reactor._exitSignal)


def be_stopped_by_another_threads_signal(kind: str, moment: str) -> list[int]:
    with reactor_of_its_own(kind) as reactor:
        exit_signal = run_until_another_threads_signal(
            reactor, lambda then: patch_at(moment, reactor, then)
        )
        if kind == "asyncio":
            reactor._uninstallHandler()  # which the run of Twisted's other reactors ends with
        return [exit_signal, signal.set_wakeup_fd(-1)]


@on_every_reactor
@at_every_moment
def test_a_signal_that_another_thread_was_given_ends_the_wait(kind: str, moment: str) -> None:
    """The main thread, where alone Python runs handlers, is not interrupted by it."""
    exit_signal, wakeup_fd = alone(be_stopped_by_another_threads_signal, kind, moment)
    assert exit_signal == signal.SIGTERM
    assert wakeup_fd == -1  # put back at the end: by then it may be another file's number


# --- stop -----------------------------------------------------------------------------------------


def stop_with_a_living_child(kind: str, is_patched: bool) -> list[Any]:
    with reactor_of_its_own(kind) as reactor, gate() as its_gate:
        if is_patched:
            patch(reactor)
        seen = Seen()
        transport = spawn(reactor, seen, "read go <&3", childFDs=its_gate.child_fds)
        pid = transport.pid
        reactor.callWhenRunning(reactor.stop)
        run(reactor)
        lives = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        its_gate.open()
        os.waitpid(pid, 0)
        process.reapProcessHandlers.clear()
        is_ours = isinstance(transport, HostedTransport)
        return [is_ours, lives, sorted(seen.calls), [*transport.pipes]]


@on_every_reactor
@pytest.mark.needs("threads")
def test_a_stop_closes_the_pipes_of_living_children_as_twisteds_does(kind: str) -> None:
    """And says so; they are neither signalled nor reaped."""
    lost = ["lost 0", "lost 1", "lost 2", "made"]
    assert alone(stop_with_a_living_child, kind, False) == [False, True, lost, []]
    assert alone(stop_with_a_living_child, kind, True) == [True, True, lost, []]


# --- threads --------------------------------------------------------------------------------------


def see_an_end_in_a_thread(kind: str, moment: str) -> list[Any]:
    with reactor_of_its_own(kind) as reactor, gate() as its_gate:
        seen = Seen(reactor.stop, lambda: reactor.callLater(0, its_gate.open))
        threads = []

        def start() -> None:
            if moment == "while it runs":
                patch(reactor)
            threads.append(threading.current_thread())
            spawn(reactor, seen, Gate.SCRIPT, childFDs=its_gate.child_fds)

        if moment != "while it runs":
            patch(reactor)
        reactor.callWhenRunning(start)
        failed: list[BaseException] = []

        def run_there() -> None:
            try:
                run(reactor, installSignalHandlers=False)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run_there)
        thread.start()
        thread.join()
        return [seen.facts, threads == [thread], [repr(error) for error in failed]]


@on_every_reactor
@pytest.mark.parametrize("moment", ["before the run", "while it runs"])
def test_in_a_thread_without_signal_handlers_ends_are_told(kind: str, moment: str) -> None:
    assert alone(see_an_end_in_a_thread, kind, moment) == [as_told(code=4), True, []]


# --- forked copies --------------------------------------------------------------------------------


def fork_copy(work: Callable[[], object]) -> tuple[int, int]:
    """Fork; the copy does *work* and ends. Return its pid, and an fd for what work returns."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_fd)
        return pid, read_fd
    status = 1
    try:
        os.write(write_fd, json.dumps(work()).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def result_of_copy(copy: tuple[int, int]) -> Any:
    """Return what the work of a copy has returned, once the copy has ended."""
    pid, read_fd = copy
    with open(read_fd, "rb") as file:
        result = file.read()
    assert os.waitpid(pid, 0)[1] == 0, "the copy has failed"
    return json.loads(result)


in_every_way = pytest.mark.parametrize(
    "way", ["before the run", "while it runs", "past spawnProcess"]
)


def work_in_copy(reactor: Any, inherited: list[Seen], way: str) -> list[Any]:
    """Run the reactor of a copy afresh, with two children, and say what they and others saw."""
    told_before = [list(one.calls) for one in inherited]
    with gate() as its_gate:
        first, second = (
            Seen(lambda: stop_at_the_last(), lambda: reactor.callLater(0, its_gate.open))
            for _ in range(2)
        )

        def stop_at_the_last() -> None:
            if first.ended and second.ended:
                reactor.stop()

        def start() -> None:
            scripts = [f"echo {word}; {Gate.SCRIPT}" for word in ("first", "second")]
            if way == "past spawnProcess":
                GroupLeader.run(reactor, first, scripts[0], its_gate.child_fds)
            else:
                spawn(reactor, first, scripts[0], childFDs=its_gate.child_fds)
            GroupLeader.run(reactor, second, scripts[1], its_gate.child_fds)

        if way == "while it runs":
            reactor.callLater(0, reactor.callLater, 0, start)  # when it has waited once
        else:
            start()
        run(reactor)
        none_told = [one.calls for one in inherited] == told_before
        return [first.facts, second.facts, none_told]


FROM_COPY = [as_told("first\n", code=4), as_told("second\n", code=4), True]


def pids_of_pidfds() -> set[int]:
    """The processes of which this one has a pidfd open."""
    pids = set()
    for fd in os.listdir(f"{PROC}/self/fdinfo"):
        try:
            with open(f"{PROC}/self/fdinfo/{fd}") as file:
                pids.update(int(line.split()[1]) for line in file if line.startswith("Pid:"))
        except FileNotFoundError:
            pass  # that of the directory
    return pids


def let_a_copy_run_first(kind: str, way: str) -> list[Any]:
    with reactor_of_its_own(kind) as reactor, gate() as its_gate:
        patch(reactor)
        waiting, over, leader = (Seen(lambda: stop_at_the_last()) for _ in range(3))

        def stop_at_the_last() -> None:
            if waiting.ended and over.ended and leader.ended:
                reactor.stop()

        spawn(reactor, waiting, "read go <&3; echo out; exit 4", childFDs=its_gate.child_fds)
        pid = spawn(reactor, over, "echo over; exit 3").pid
        # Without pipes: what Twisted's own pipes share with a copy is Twisted's affair.
        own = GroupLeader.run(reactor, leader, Gate.WITHOUT_PIPES, its_gate.only_fds)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        inherited = [waiting, over, leader]
        assert (own.pid in pids_of_pidfds()) is LACKS.isdisjoint({"pidfd", "pidfd_open"})

        def work() -> list[Any]:
            told = work_in_copy(reactor, inherited, way)
            assert own.pid not in pids_of_pidfds()  # it has no use for the original's
            return told

        from_copy = result_of_copy(fork_copy(work))
        its_gate.open()
        its_gate.open()
        run(reactor)
        return [from_copy, *(one.facts for one in inherited)]


@on_ours_too
@in_every_way
def test_a_forked_copy_runs_afresh_and_robs_the_original_of_nothing(kind: str, way: str) -> None:
    """Of no end, and of no output that waits to be read."""
    assert alone(let_a_copy_run_first, kind, way) == [
        FROM_COPY,
        as_told("out\n", code=4),
        as_told("over\n", code=3),
        as_told(code=4),
    ]


def run_beside_a_copy(kind: str, way: str) -> list[Any]:
    lower_fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    with reactor_of_its_own(kind) as reactor, gate() as copys_gate:
        patch(reactor)
        started_before, started_after = Seen(lambda: go_on()), Seen(reactor.stop)
        spawn(reactor, started_before, "echo before; exit 3")

        def go_on() -> None:
            spawn(reactor, started_after, "echo after; exit 4")

        def work() -> object:
            os.read(copys_gate.child_fds[3], 1)
            return work_in_copy(reactor, [started_before], way)

        for fd in lower_fds:
            os.close(fd)
        copy = fork_copy(work)
        run(reactor)
        copys_gate.open()
        return [result_of_copy(copy), started_before.facts, started_after.facts]


@on_ours_too
@in_every_way
def test_a_forked_copy_runs_afresh_after_the_original(kind: str, way: str) -> None:
    """That has told of its children, started another, and stopped; so nothing of it wakes the copy.

    Lower fds have become free before the fork, and what the copy opens afresh has other numbers.
    """
    assert alone(run_beside_a_copy, kind, way) == [
        FROM_COPY,
        as_told("before\n", code=3),
        as_told("after\n", code=4),
    ]


def let_a_copy_be_signalled(kind: str) -> int:
    with reactor_of_its_own(kind) as reactor:
        patch(reactor)

        def work() -> int:
            return run_until_another_threads_signal(reactor, reactor.callWhenRunning)

        return int(result_of_copy(fork_copy(work)))


@on_ours_too
def test_a_signal_ends_the_wait_of_a_forked_copy_without_children(kind: str) -> None:
    """The wake-up fd is one of the loop's, so the copy's reactor must watch the copy's loop."""
    assert alone(let_a_copy_be_signalled, kind) == signal.SIGTERM


def fork_while_running(kind: str) -> list[Any]:
    with reactor_of_its_own(kind) as reactor, gate() as its_gate:
        patch(reactor)
        copies = []

        def fork_and_go_on() -> None:
            copies.append(result_of_copy(fork_copy(lambda: "gone")))
            its_gate.open()

        seen = Seen(reactor.stop, lambda: reactor.callLater(0, fork_and_go_on))
        spawn(reactor, seen, f"echo out; {Gate.SCRIPT}", childFDs=its_gate.child_fds)
        run(reactor)
        return [copies, seen.facts]


@on_ours_too
def test_a_forked_copy_that_ends_takes_nothing_along(kind: str) -> None:
    """Forked while the reactor runs; what its reactor shares with the original stays as it is."""
    assert alone(fork_while_running, kind) == [["gone"], as_told("out\n", code=4)]


def go_on_in_a_copy(kind: str) -> list[Any]:
    with reactor_of_its_own(kind) as reactor, gate() as its_gate:
        patch(reactor)
        original = os.getpid()
        from_copy = []

        def fork_and_spawn() -> None:
            read_fd, write_fd = os.pipe()
            pid = os.fork()
            if pid:
                os.close(write_fd)
                from_copy.append(result_of_copy((pid, read_fd)))
                its_gate.open()
                return

            def leave() -> None:
                os.write(write_fd, json.dumps(copys.facts).encode())
                os._exit(0)

            copys = Seen(leave)
            spawn(reactor, copys, "echo copy; exit 5")

        seen = Seen(reactor.stop, lambda: reactor.callLater(0, fork_and_spawn))
        spawn(reactor, seen, f"echo out; {Gate.SCRIPT}", childFDs=its_gate.child_fds)
        try:
            run(reactor)
        finally:
            if os.getpid() != original:
                os._exit(1)
        return [from_copy, seen.facts]


@on_ours_too
def test_a_copy_that_was_forked_while_the_reactor_runs_may_go_on(kind: str) -> None:
    """In the very run in which it was forked; the original waits, and then goes on too."""
    assert alone(go_on_in_a_copy, kind) == [
        [as_told("copy\n", code=5)],
        as_told("out\n", code=4),
    ]


# --- what a program has of its own ----------------------------------------------------------------


def use_asyncios_signal_handler(moment: str) -> list[str]:
    """A handler of the program's, set by asyncio's means, is called when we are patched in."""
    told: list[str] = []
    with reactor_of_its_own("asyncio") as reactor:
        loop = reactor._asyncioEventloop

        def handle() -> None:
            told.append("called")
            loop.remove_signal_handler(signal.SIGUSR1)
            reactor.stop()

        def send() -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

        def handle_and_patch() -> None:
            loop.add_signal_handler(signal.SIGUSR1, handle)
            patch(reactor)
            send()

        if moment == "while it runs":
            reactor.callWhenRunning(handle_and_patch)
        else:
            patch(reactor)
            loop.add_signal_handler(signal.SIGUSR1, handle)
            reactor.callWhenRunning(send)
        run(reactor)
    return told


@pytest.mark.parametrize("moment", ["before the run", "while it runs"])
def test_a_signal_handler_of_asyncios_is_called_on_a_patched_reactor(moment: str) -> None:
    assert alone(use_asyncios_signal_handler, moment) == ["called"]


def list_the_open(kind: str) -> list[object]:
    with reactor_of_its_own(kind) as reactor, gate() as held:
        patch(reactor)
        seen, bare = Seen(), Seen()
        script = "read go <&3"
        transport = reactor.spawnProcess(
            seen, "/bin/sh", ["sh", "-c", script], childFDs=held.child_fds
        )
        reactor.spawnProcess(bare, "/bin/sh", ["sh", "-c", script], childFDs=held.only_fds)
        removed = [one for one in reactor.removeAll() if isinstance(one, HostedTransport)]
        found: list[object] = [len(removed), removed == [transport]]
        transport.connectionLost(Failure(Exception("taken apart")))
        held.open()
        held.open()
        while process.reapProcessHandlers:
            process.reapAllProcesses()
        return [*found, seen.end, bare.end]


@on_every_reactor
def test_a_child_with_open_pipes_is_among_the_selectables_and_one_without_is_not(
    kind: str,
) -> None:
    assert alone(list_the_open, kind) == [1, True, [0, None], [0, None]]
