"""KeyboardInterrupt anywhere: no fd, child, zombie or end is lost by it, and the next spawn works.

SIGINT arrives at each bytecode of an act in turn, those of the standard library included, and
strikes where the interpreter looks for signals (interrupted.py says where, and why nowhere else).
All places are swept.

    struck                           what is true afterwards
    in spawnProcess                  the reactor knows the child, or nothing is left
    in the turn that tells an end    all is told, in order, but for the one call that was being made
    in a look at one that is held    somebody looks again
    in a signal, to a tree as well   no fd is left
    in a loop's turn                 each call comes once, each timer that was left
    in a pool's turn                 each end is told once, but for the one that was being told
    in a batch, or a run             nothing is left

Not shown, because nobody can see to it: bytes that a read had just returned, and an interrupt that
strikes in a __del__, which Python prints and drops. Python's threading is spared, whose locks do
not survive an interrupt: where there are no pidfds, one in Thread.start may leave a thread that
never begins, or become a SpawnError.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fdtables import own_table
from held import wait_for
from interrupted import interrupt_each_bytecode
from libraries_build import build_library
from programs_build import build_program
from support import DEADLINE_S, LACKS, PROC, Recorder, make_reactor, run_until, spawn_and_finish
from ways import WAYS, on_every_way, on_way

from procreactor.apps.batch import Outcome, plan_command, run_batch
from procreactor.apps.run import run
from procreactor.kernel import cgroups, processes
from procreactor.kernel.children import open_exit_fd
from procreactor.kernel.poller import READ
from procreactor.loop.eventloop import EventLoop
from procreactor.model import Redirect, SpawnSpec
from procreactor.streams.collect import Collector
from procreactor.transport.collected import pairs_of
from procreactor.transport.pool import ChildPool, Ended

SWEPT_WAYS = "plain", "path", "fork", "launcher", "fork to another user", "without pidfds"


def built() -> tuple[str, str]:
    """The library that interrupts, and the program that ends."""
    return build_library("interrupter"), build_program("end")


def has_child() -> bool:
    """Whether this process has a child, dead or alive; asks by waiting, which needs no /proc."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


class Footprint:
    """The fds of this process, and those that a loop watches; the same after each interrupt."""

    def __init__(self, loop: EventLoop | None = None, has_child: bool = False) -> None:
        self._loop = loop
        self._has_child = has_child
        self._before = self._now()

    def _now(self) -> tuple[dict[int, Any], set[int]]:
        return own_table(100), set(self._loop._watches) if self._loop else set()

    def assert_same(self) -> None:
        """All is as it was: at once, or when the collector, or a waiting thread, is through."""
        end_s = time.monotonic() + 5
        while self._now() != self._before and time.monotonic() < end_s:
            gc.collect()
        (fds, watched), (fds_before, watched_before) = self._now(), self._before
        assert not fds.keys() ^ fds_before.keys(), "fds that were left, or closed"
        assert fds == fds_before
        assert watched == watched_before
        assert has_child() == self._has_child, "a child is left, or a zombie; or it is gone"


# --- a spawn --------------------------------------------------------------------------------------


def strikes_in_spawns(
    way: str, library: str, end: str, options: Mapping[str, Any] | None = None
) -> int:
    with make_reactor() as reactor:
        spawn_and_finish(reactor, end, [end, "exit", "0"])
        footprint = Footprint(reactor._loop)
        arguments = {**WAYS[way].arguments, **(options or {})}

        def spawn() -> None:
            args = [end, "wait", "3"]
            reactor.spawnProcess(Recorder(), end, args, **arguments)

        def clean_up() -> None:
            for transport in list(reactor._disconnectable):
                transport.signalProcess("KILL")
            run_until(reactor, lambda: not reactor._disconnectable)
            footprint.assert_same()
            child = spawn_and_finish(reactor, end, [end, "exit", "7"])
            assert child.reason.value.exitCode == 7

        footprint.assert_same()
        return interrupt_each_bytecode(library, spawn, clean_up)


@on_every_way(*SWEPT_WAYS)
def test_an_interrupt_in_a_spawn_leaves_a_child_that_is_known_or_nothing(way: str) -> None:
    assert on_way(way, strikes_in_spawns, *built()) > 100


def test_an_interrupt_in_a_spawn_on_a_terminal_leaves_a_known_child_or_nothing() -> None:
    assert on_way("terminal", strikes_in_spawns, *built()) > 100


@pytest.mark.needs("cgroup")
@on_every_way("plain", "legacy clone")
def test_an_interrupt_in_a_spawn_into_a_cgroup_leaves_no_fd_of_it(way: str) -> None:
    home = cgroups.open_home()
    try:
        options = {"cgroup": home.new_group().path}
        assert on_way(way, strikes_in_spawns, *built(), options) > 100
    finally:
        assert home.close()


def strikes_in_spawns_with_many_fds(way: str, library: str, end: str) -> int:
    child_fds = {0: "w", 1: "r", 2: 1, 4: "r", 7: 0}
    options = {"childFDs": child_fds, "session": True, "umask": 0o27, "signalMask": ["USR2"]}
    return strikes_in_spawns(way, library, end, options)


@on_every_way("plain", "fork")
def test_an_interrupt_in_a_spawn_with_many_fds_leaves_none_of_them(way: str) -> None:
    assert on_way(way, strikes_in_spawns_with_many_fds, *built()) > 100


# --- an end ---------------------------------------------------------------------------------------

IN_ORDER = ["connectionMade", "processExited", "processEnded"]


class Ends:
    """Children that have ended, each to be told of in the next turn, one after the other."""

    def __init__(self, reactor: Any, args: list[str], arguments: dict[str, Any]) -> None:
        self._reactor = reactor
        self._args = args
        self._arguments = arguments
        self._footprint = Footprint(reactor._loop)
        self._begin()

    def _begin(self) -> None:
        self._protocol = Recorder()
        self._transport = self._reactor.spawnProcess(
            self._protocol, self._args[0], self._args, **self._arguments
        )
        with select.epoll() as exits:
            exits.register(self._transport._child._child.exit_fd, select.EPOLLIN)
            assert exits.poll(DEADLINE_S)

    def turn(self) -> None:
        """Tell what there is to be told."""
        self._reactor.iterate(0)

    def clean_up(self) -> None:
        """The rest is told in later turns; then begin anew."""
        child = self._transport._child
        run_until(self._reactor, lambda: child.is_over)
        for _ in range(2):
            self._reactor.iterate(0)
        names = [name for name in self._protocol.names if name in IN_ORDER]
        left = iter(IN_ORDER)
        assert all(name in left for name in names), names  # none twice, and in order
        assert len(names) >= len(IN_ORDER) - 1, names
        assert self._transport.pid is None
        self._reactor._disconnectable.pop(self._transport, None)  # if the last call was struck
        self._footprint.assert_same()
        self._begin()

    def close(self) -> None:
        """Let the last one end as well."""
        run_until(self._reactor, lambda: self._protocol.ended)


def strikes_in_ends(way: str, library: str, end: str) -> int:
    with make_reactor() as reactor:
        spawn_and_finish(reactor, end, [end, "exit", "0"])
        ends = Ends(reactor, [end, "exit", "3"], dict(WAYS[way].arguments))
        count: int = interrupt_each_bytecode(library, ends.turn, ends.clean_up)
        ends.close()
    return count


@on_every_way("plain", "terminal", "without pidfds")
def test_an_interrupt_in_the_turn_of_an_end_costs_only_what_was_being_told(way: str) -> None:
    assert on_way(way, strikes_in_ends, *built()) > 50


class HeldZombie:
    """The child of *life*, on *loop*, which has ended, and which a tracer keeps to itself."""

    def __init__(self, loop: EventLoop, life: Any, exit_fd: int) -> None:
        self._loop = loop
        self._life = life
        self._exit_fd = exit_fd
        self._watch()

    def look_twice(self) -> None:
        """Because its pidfd says that it has ended; and by the timer that comes of it."""
        self._loop.run_once(0)
        self._loop.run_once(DEADLINE_S)

    def begin_again(self) -> None:
        """See that somebody would look again, and have it watched as in the beginning."""
        for _ in range(2):
            self._loop.run_once(0)
        watch = self._life._exit_watch
        assert (watch is not None and watch.active) or self._loop.timers, "nobody looks again"
        self._watch()

    def _watch(self) -> None:
        for timer in self._loop.timers.pending():
            self._loop.timers.cancel(timer)
        self._loop.disown(self._exit_fd)
        self._life._exit_watch = self._loop.watch(self._exit_fd, self._life._on_exit_ready, READ)


@contextmanager
def tracer_of(pid: int) -> Iterator[bool]:
    """Have it traced, by one who lets it go at the end; whether that is possible."""
    words = [build_program("tracer"), str(pid)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
        assert tracer.stdout is not None
        yield tracer.stdout.read(1) == b"s"


def is_zombie(pid: int) -> bool:
    return ") Z " in Path(f"{PROC}/{pid}/stat").read_text()


def strikes_beside_a_held_zombie(library: str, end: str) -> list[int]:
    protocol = Recorder()
    count = 0
    with make_reactor() as reactor:
        transport = reactor.spawnProcess(protocol, end, [end, "wait", "4"])
        life = transport._child
        with tracer_of(transport.pid) as is_traced:
            transport.closeStdin()
            if is_traced:
                run_until(reactor, lambda: is_zombie(transport.pid) and not life.pipes)
                held = HeldZombie(reactor._loop, life, life._child.exit_fd)
                count = interrupt_each_bytecode(library, held.look_twice, held.begin_again)
        run_until(reactor, lambda: protocol.ended)
    return [count, protocol.reason.value.exitCode]


def strikes_in_a_pool_beside_a_held_zombie(library: str, end: str) -> list[int | None]:
    told: list[Ended[Any]] = []
    loop = EventLoop()
    pool = ChildPool(loop, pairs_of(partial(Collector, None)), told.append, threads=1, drain_s=0.0)
    count = 0
    theirs, ours = os.pipe()
    program = os.fsencode(end)
    pool.submit(SpawnSpec((program,), (program, b"wait", b"4"), (), [Redirect(0, theirs)]))
    while not pool._running:
        loop.run_once(DEADLINE_S)
    (one,) = pool._running
    assert one.pid is not None
    with tracer_of(one.pid) as is_traced:
        os.close(ours)
        if is_traced:
            wait_for(lambda: is_zombie(one.pid))
            held = HeldZombie(loop, one, one.child.exit_fd)
            count = interrupt_each_bytecode(library, held.look_twice, held.begin_again)
    while not told:
        loop.run_once(DEADLINE_S)
    pool.close()
    loop.close()
    os.close(theirs)
    return [count, told[0].status and told[0].status.code]


@pytest.mark.needs("pidfd")  # else a thread waits until it can be had
@pytest.mark.parametrize(
    "strikes", [strikes_beside_a_held_zombie, strikes_in_a_pool_beside_a_held_zombie]
)
def test_an_interrupt_in_a_look_at_a_zombie_that_others_hold_is_not_the_last_look(
    strikes: Callable[[str, str], list[int]],
) -> None:
    count, code = alone(strikes, *built())
    if not count:
        pytest.skip("may not trace")
    assert count > 50
    assert code == 4


# --- signals, and trees ---------------------------------------------------------------------------


def strikes_in_signals(library: str, end: str, path: str) -> int:
    """Signals that change nothing, to a child: as one's own, as anybody, and by its cgroup."""
    footprint = Footprint()
    with make_reactor() as reactor:
        spawn_and_finish(reactor, end, [end, "exit", "0"])
        child = Recorder()
        transport = reactor.spawnProcess(child, end, [end, "wait", "3"], cgroup=path or None)
        row = processes.row_if_any(transport.pid)
        group = cgroups.Cgroup(path) if path else None

        def signal_all() -> None:
            transport.signalProcess("CONT")
            if row is not None:
                processes.signal_process(row, signal.SIGCONT)
                processes.wait_for_ends([row], 0)
            if group is not None:
                group.signal(signal.SIGCONT)
                cgroups.Cgroup(path).close()

        with_child = Footprint(reactor._loop, has_child=True)
        count = interrupt_each_bytecode(library, signal_all, with_child.assert_same)
        transport.closeStdin()
        run_until(reactor, lambda: child.ended)
        assert child.reason.value.exitCode == 3
        if group is not None:
            group.close()
    footprint.assert_same()
    return count


def test_an_interrupt_in_a_signal_leaves_no_fd() -> None:
    # Without /proc the child is signalled as ours alone.
    assert alone(strikes_in_signals, *built(), "") > (10 if "/proc" in LACKS else 20)


@pytest.mark.needs("cgroup")
def test_an_interrupt_in_a_signal_to_a_cgroup_leaves_no_fd() -> None:
    home = cgroups.open_home()
    try:
        assert alone(strikes_in_signals, *built(), home.new_group().path) > 100
    finally:
        assert home.close()


def strikes_in_a_watch(library: str, end: str) -> int:
    footprint = Footprint()
    with subprocess.Popen([end, "wait", "0"], stdin=subprocess.PIPE) as other:
        fds: list[int] = []
        with_child = Footprint(has_child=True)

        def clean_up() -> None:
            while fds:
                os.close(fds.pop())
            with_child.assert_same()

        count = interrupt_each_bytecode(
            library, lambda: fds.extend(map(open_exit_fd, [other.pid])), clean_up
        )
    footprint.assert_same()
    return count


@pytest.mark.needs("pidfd", "pidfd_open")  # else threads have copies, until the child has ended
def test_an_interrupt_in_the_watch_of_a_childs_end_leaves_no_fd() -> None:
    assert alone(strikes_in_a_watch, *built()) > 5


def strikes_in_runs(library: str, end: str) -> int:
    """A run with a tree: what makes its home, its group, its pool, and unmakes them."""
    assert run([end, "exit", "3"]).exit_code == 3
    footprint = Footprint()
    return interrupt_each_bytecode(
        library, lambda: run([end, "exit", "3"]), lambda: _let_go_of(footprint)
    )


def _let_go_of(footprint: Footprint) -> None:
    gc.collect()  # what a run was made of
    footprint.assert_same()


def test_an_interrupt_in_a_run_leaves_nothing() -> None:
    assert alone(strikes_in_runs, *built()) > 500


# --- a loop's calls and timers --------------------------------------------------------------------


def interrupt(number: int, frame: object) -> None:
    """A handler in Python, which has a place in the traceback."""
    raise KeyboardInterrupt


def strikes_in_turns(library: str, by_python: bool) -> int:
    """Each call comes once, wherever it strikes: before it, in it, after it, or between two."""
    if by_python:
        signal.signal(signal.SIGINT, interrupt)
    loop = EventLoop()
    came: list[str] = []

    def note(name: str) -> None:
        came.append(name)

    def begin() -> None:
        came.clear()
        loop.call_soon(note, "a")
        moved = loop.call_later(60, note, "b")
        for _ in range(20):  # enough for a sweep
            loop.timers.cancel(loop.call_later(0, note, "never"))
        loop.call_later(0, note, "c")
        loop.timers.move(moved, 0.0)
        loop.call_soon(loop.call_soon, note, "d")

    def clean_up() -> None:
        for _ in range(3):
            loop.run_once(0)
        assert sorted(came) == ["a", "b", "c", "d"], came
        assert came.index("b") < came.index("c")
        assert not loop.timers
        begin()

    def turn() -> None:
        loop.run_once(0)
        loop.run_once(0)

    begin()
    count = interrupt_each_bytecode(library, turn, clean_up)
    loop.close()
    return count


@pytest.mark.parametrize("by_python", [False, True])
def test_an_interrupt_in_a_turn_loses_no_call_and_makes_none_twice(by_python: bool) -> None:
    assert alone(strikes_in_turns, built()[0], by_python) > 30


def strikes_in_timers(library: str) -> int:
    """Timers are added, moved and cancelled; those that were come, however it ends."""
    loop = EventLoop()
    came: list[int] = []

    def act() -> None:
        timers = [loop.call_later(60, came.append, number) for number in range(40)]
        for timer in timers[::2]:
            loop.timers.cancel(timer)
        for timer in timers[1::2]:
            loop.timers.move(timer, timer.deadline_s - 30)

    def clean_up() -> None:
        pending = loop.timers.pending()
        assert len(loop.timers) == len(pending)
        for timer in pending:
            loop.timers.move(timer, 0.0)
        loop.run_once(0)
        assert len(came) == len(pending)
        came.clear()
        assert not loop.timers

    count = interrupt_each_bytecode(library, act, clean_up)
    loop.close()
    return count


def test_an_interrupt_in_a_change_of_timers_loses_none_that_is_left() -> None:
    assert alone(strikes_in_timers, built()[0]) > 100


# --- many commands --------------------------------------------------------------------------------


def commands(end: str) -> list[Any]:
    """Of all fates: one that exits, one that is missing, one that says something, one killed."""
    argvs = [end, "exit", "1"], ["/no/such/program"], ["/bin/echo", "x"], [end, "signal", "9"]
    return [plan_command(argv) for argv in argvs]


def strikes_in_batches(library: str, end: str) -> int:
    specs = commands(end)
    batches: list[Iterator[Outcome]] = []

    def run() -> None:
        batches.append(run_batch(specs, at_once=2, threads=2))
        for _ in specs:
            next(batches[0])

    def clean_up() -> None:
        while batches:
            batches.pop().close()  # type: ignore[attr-defined]  # a generator
        footprint.assert_same()

    footprint = Footprint()
    return interrupt_each_bytecode(library, run, clean_up)


def test_an_interrupt_in_a_batch_leaves_nothing() -> None:
    assert alone(strikes_in_batches, *built()) > 100


def strikes_in_pools(library: str, end: str) -> int:
    specs = commands(end)
    footprint = Footprint()
    loop = EventLoop()
    told: list[Ended[Collector]] = []
    numbers: list[int] = []
    pool = ChildPool(loop, pairs_of(partial(Collector, None)), told.append, threads=2, drain_s=0.0)

    def run() -> None:
        numbers.extend(map(pool.submit, specs))
        end_s = time.monotonic() + DEADLINE_S
        while len(told) < len(specs) and time.monotonic() < end_s:
            loop.run_once(1)

    def clean_up() -> None:
        end_s = time.monotonic() + DEADLINE_S
        while pool or has_child():  # also one whose submission was interrupted
            assert time.monotonic() < end_s, f"{len(pool)} ends were not told"
            loop.run_once(0.01)
        found = [one.number for one in told]
        assert len(set(found)) == len(found), "told twice"
        assert set(found) >= set(numbers), "not told"
        told.clear()
        numbers.clear()

    count = interrupt_each_bytecode(library, run, clean_up)
    pool.close()
    loop.close()
    footprint.assert_same()
    return count


def test_an_interrupt_in_a_pools_turn_loses_no_end() -> None:
    assert alone(strikes_in_pools, *built()) > 100


def strikes_in_drains(library: str, folder: str) -> int:
    """In a pool whose children end while others hold their streams, until all has been told."""
    fifo = os.path.join(folder, "fifo")
    os.mkfifo(fifo)
    script = f"exec 3<{fifo}; cat <&3 >&2 & exit 5"
    footprint = Footprint()
    loop = EventLoop()
    told: list[Ended[Collector]] = []
    pool = ChildPool(loop, pairs_of(partial(Collector, None)), told.append, threads=1, drain_s=0.0)
    holding: list[int] = []

    def begin() -> None:
        holding.append(os.open(fifo, os.O_RDWR))

    def run() -> None:
        pool.submit(plan_command(["/bin/sh", "-c", script]))
        end_s = time.monotonic() + DEADLINE_S
        while not told and time.monotonic() < end_s:
            loop.run_once(1)

    def clean_up() -> None:
        end_s = time.monotonic() + DEADLINE_S
        while pool or has_child():
            assert time.monotonic() < end_s, f"{len(pool)} ends were not told"
            loop.run_once(0.01)
        assert len(told) <= 1, "told twice"
        told.clear()
        os.close(holding.pop())
        begin()

    begin()
    count = interrupt_each_bytecode(library, run, clean_up)
    pool.close()
    loop.close()
    os.close(holding.pop())
    footprint.assert_same()
    return count


def test_an_interrupt_when_streams_are_held_by_others_loses_no_end(tmp_path: Path) -> None:
    assert alone(strikes_in_drains, built()[0], str(tmp_path)) > 100


def strikes_in_closes(library: str, end: str) -> int:
    specs = commands(end)
    footprint = Footprint()
    made: list[Any] = []

    def begin() -> None:
        loop = EventLoop()
        pool = ChildPool(loop, pairs_of(partial(Collector, None)), bool, threads=2, drain_s=0.0)
        made[:] = pool, loop
        for spec in specs:
            pool.submit(spec)

    def close() -> None:
        made[0].close()

    def clean_up() -> None:
        for one in made:
            one.close()
        made.clear()
        footprint.assert_same()
        begin()

    begin()
    count = interrupt_each_bytecode(library, close, clean_up)
    for one in made:
        one.close()
    return count


def test_a_close_of_a_pool_that_was_interrupted_can_be_made_again() -> None:
    assert alone(strikes_in_closes, *built()) > 20
