"""Programs around us that do what no one should, and what holds all the same.

host                                     outcome                           test
ignores SIGCHLD, wants no zombies        told, the true status (6.15)      test_an_exit_is_told_though_the_parent_wants_no_zombies
reaps all with waitpid(-1)               likewise                          test_an_exit_is_told_though_other_code_waits_for_all_children
reaps all, 500 children at once          likewise, each once               test_of_a_storm_that_others_reap_each_end_is_told_once
forks with a live child                  the copy refuses                  test_a_copy_of_the_parent_neither_reaps_nor_signals_its_children
forks, and runs the reactor              the copy starts afresh            test_a_forked_copy_does_not_rob_the_original_of_its_children
forks, and spawns                        its own children                  test_a_forked_copy_of_a_reactor_can_spawn_children_of_its_own
forks with a pool at work                the copy refuses                  test_a_copy_of_the_process_touches_nothing_of_the_originals
forks in a callback of run()             the copy's run is its own         test_a_copy_made_in_the_middle_of_a_run_runs_afresh
forks in a thread, during spawns         the same                          test_copies_made_by_a_thread_during_spawns_touch_nothing
forks in a thread, in starts with uid=   no copy is waited for             test_copies_that_live_on_do_not_hold_up_a_start_as_another_user
the same, and the child dies early       the same; told as any end         test_copies_that_live_on_do_not_hold_up_a_start_whose_child_dies_early
stopped with its group (Ctrl-Z)          stops at once, and goes on        test_a_host_whose_group_is_stopped_amid_starts_stops_and_goes_on
multiprocessing, fork and forkserver     workers have their own            test_workers_of_multiprocessing_have_children_of_their_own
spawns in a signal handler               both start, wherever it strikes   test_a_signal_handler_may_spawn_in_the_middle_of_anything
calls in from a signal handler           as from a thread                  test_a_signal_handler_may_call_in_from_anywhere
spawns in 8 threads, 8 others open       no fd is taken or slips in        test_threads_that_spawn_and_threads_that_open_and_close_do_not_meet
the same with batches and utils          likewise                          test_reactors_batches_and_utils_in_threads_keep_to_their_own_fds
has 300 threads that all spawn           each has its own                  test_a_host_with_300_threads_spawns
ends with live children                  silence, they live on             test_a_host_that_ends_is_silent_and_its_children_live_on
ends with a batch under way              silence, they are killed          test_a_host_that_ends_amid_a_batch_is_silent_and_leaves_no_child
a callback raises                        logged, the reactor lives         test_what_is_raised_and_is_no_exception_is_logged_and_the_reactor_runs_on
KeyboardInterrupt anywhere               nothing is lost                   test_an_interrupt_in_a_spawn_leaves_a_child_that_is_known_or_nothing
a storm of signals with handlers         each end is told once             test_in_a_storm_of_signals_each_of_many_ends_is_told_once
a signal to a recycled pid               refused                           test_a_signal_after_the_end_never_reaches_who_was_given_the_number_next
many children out of 300 pids            no stranger is signalled          test_among_few_pids_that_are_used_again_no_stranger_is_signalled
closed 0, 1 and 2                        works                             test_any_of_the_standard_fds_may_be_closed_in_the_parent
changes of all kinds (see CHANGES)       works                             test_a_host_that_changes_its_world_spawns_as_before
started strangely (see STARTS)           works                             test_a_host_that_was_started_strangely_spawns_as_ever
LD_PRELOAD before fork, exec and close   no child calls it                 test_no_child_calls_what_stands_before_libc
a sub-interpreter                        works beside the main one         test_a_sub_interpreter_has_a_reactor_of_its_own
seccomp strict, later                    the host dies, children live on   test_a_host_that_ends_is_silent_and_its_children_live_on
setuid between two spawns                the new user's right              test_a_host_that_gives_up_root_keeps_its_children_and_spawns_as_itself
"""  # noqa: E501  # a table

from __future__ import annotations

import ctypes
import faulthandler
import gc
import itertools
import multiprocessing
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fdtables import file_of, new_file, own_table
from held import wait_for
from libraries_build import build_library
from load.room import raise_open_files
from programs_build import build_program
from seccomp import make_deadly, needs_seccomp
from support import (
    DEADLINE_S,
    LACKS,
    PROC,
    PYTHON,
    Recorder,
    make_reactor,
    run_until,
    spawn_and_finish,
)
from ways import WITHOUT_PIDFDS

import procreactor
from procreactor.apps.batch import plan_command, run_batch
from procreactor.internet import utils
from procreactor.internet.error import ProcessExitedAlready

TESTS = Path(__file__).resolve().parents[1]
EACH = 3
"""So many bytecodes on, the next place for a signal handler; all of them take minutes."""

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_every_test_of_the_table_exists() -> None:
    rows = re.findall(r" (test_\w+)$", __doc__ or "", re.MULTILINE)
    texts = [path.read_text() for path in TESTS.rglob("test_*.py")]
    known = {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    assert len(rows) == (__doc__ or "").count(" test_")
    assert not set(rows) - known


def ends_of(recorders: Sequence[Recorder]) -> list[int | None]:
    """Return the exit codes, and check that each end was told once, in order."""
    for recorder in recorders:
        names = [name for name in recorder.names if name.startswith(("conn", "process"))]
        assert names == ["connectionMade", "processExited", "processEnded"], names
    return [recorder.reason.value.exitCode for recorder in recorders]


def work(end: str) -> None:
    """Spawn in every manner, and check what comes of it."""
    with make_reactor() as reactor:
        child = Recorder()
        transport = reactor.spawnProcess(child, "/bin/cat", path="/")
        transport.write(b"a word")
        transport.closeStdin()
        run_until(reactor, lambda: child.ended)
        assert child.out == b"a word"
        on_terminal = spawn_and_finish(reactor, end, [end, "exit", "3"], usePTY=True)
        assert ends_of([child, on_terminal]) == [0, 3]
        killed = Recorder()
        reactor.spawnProcess(killed, end, [end, "wait", "0"]).signalProcess("KILL")
        run_until(reactor, lambda: killed.ended)
        assert killed.reason.value.signal == signal.SIGKILL
        with pytest.raises(FileNotFoundError):
            reactor.spawnProcess(Recorder(), "/no/such/program")
    specs = [plan_command([end, "exit", str(code)]) for code in range(8)]
    outcomes = sorted(run_batch(specs, at_once=3))
    codes = [outcome.status.code for outcome in outcomes if outcome.status is not None]
    assert codes == list(range(8))


def many(reactor: Any, end: str, count: int, at_once: int = 16) -> list[Recorder]:
    """Spawn and finish *count* children, *at_once* at a time; the n-th exits with n % 200."""
    done: list[Recorder] = []
    for number in range(count):
        done.append(Recorder())
        args = [end, "exit", str(number % 200)]
        reactor.spawnProcess(done[-1], end, args, childFDs={1: "r"})
        if (number + 1) % at_once == 0 or number == count - 1:
            run_until(reactor, lambda: all(one.ended for one in done[-at_once:]))
    return done


# --- others who reap ------------------------------------------------------------------------------


@contextmanager
def a_thread_that_reaps_all() -> Iterator[list[int]]:
    """Gives the list of those that it got."""
    stop, taken = threading.Event(), list[int]()

    def reap() -> None:
        while not stop.is_set():
            try:
                taken.append(os.waitpid(-1, 0)[0])
            except ChildProcessError:
                os.sched_yield()

    thread = threading.Thread(target=reap)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()


def storm_that_others_reap(end: str, count: int) -> dict[str, Any]:
    with a_thread_that_reaps_all() as taken, make_reactor() as reactor:
        codes = ends_of(many(reactor, end, count))
        specs = [plan_command([end, "exit", str(number % 200)]) for number in range(count)]
        outcomes = sorted(run_batch(specs, at_once=16))
    batch = [outcome.status.code if outcome.status else -1 for outcome in outcomes]
    expected = [number % 200 for number in range(count)]
    wrong = [
        (code, wanted)
        for found in (codes, batch)
        for code, wanted in zip(found, expected, strict=True)
        if code not in (wanted, None)
    ]
    return {"wrong": wrong, "taken": bool(taken), "unknown": (codes + batch).count(None)}


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_of_a_storm_that_others_reap_each_end_is_told_once(disable: str) -> None:
    """With the true status, where a pidfd tells it, or none; by a reactor and by a batch."""
    found = alone(storm_that_others_reap, build_program("end"), 500, disable=disable)
    assert found["taken"]
    assert found["wrong"] == []
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    assert found["unknown"] == 0 or disable or release < (6, 15) or "pidfd" in LACKS


# --- copies of the host ---------------------------------------------------------------------------


def run_that_forks_in_a_callback(end: str) -> list[Any]:
    with make_reactor() as reactor:
        original = os.getpid()
        child = Recorder()
        transport = reactor.spawnProcess(child, end, [end, "wait", "5"])
        codes: list[int] = []

        def copy() -> None:
            pid = os.fork()
            if pid:
                codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                transport.closeStdin()
                reactor.callLater(0, reactor.stop) if child.ended else watch()
                return
            try:
                transport.signalProcess("KILL")
            except ChildProcessError:
                reactor.callLater(0, spawn_own)
            else:
                os._exit(90)

        def spawn_own() -> None:
            own = Recorder()
            reactor.spawnProcess(own, end, [end, "exit", "7"])
            own.processEnded = lambda reason: os._exit(  # type: ignore[method-assign]
                reason.value.exitCode if child.names == ["connectionMade"] else 91
            )

        def watch() -> None:
            if child.ended:
                reactor.stop()
            else:
                reactor.callLater(0.001, watch)

        reactor.callLater(0, copy)
        reactor.run(installSignalHandlers=False)
        if os.getpid() != original:
            os._exit(92)
        return [codes, ends_of([child])]


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_a_copy_made_in_the_middle_of_a_run_runs_afresh(disable: str) -> None:
    found = alone(run_that_forks_in_a_callback, build_program("end"), disable=disable)
    assert found == [[7], [5]]


def copies_made_by_a_thread(end: str, copies: int) -> list[Any]:
    codes: list[int] = []
    transports: list[Any] = []

    def be_a_copy() -> int:
        for transport in transports[-3:]:
            try:
                transport.signalProcess("KILL")
            except (ChildProcessError, ProcessExitedAlready):
                continue
            return 2
        transports.clear()
        gc.collect()
        with make_reactor() as reactor:
            child = spawn_and_finish(reactor, end, [end, "exit", "0"])
            return int(child.reason.value.exitCode)

    def fork() -> None:
        for _ in range(copies):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = be_a_copy()
                finally:
                    os._exit(code)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    thread = threading.Thread(target=fork)
    with make_reactor() as reactor:
        thread.start()
        recorders: list[Recorder] = []
        while thread.is_alive() or len(recorders) < 20:
            recorder = Recorder()
            transports.append(reactor.spawnProcess(recorder, end, [end, "wait", "4"]))
            recorders.append(recorder)
            transports[-1].closeStdin()
            run_until(reactor, lambda: recorders[-1].ended)
        thread.join()
        return [set(ends_of(recorders)) == {4}, codes]


def test_copies_made_by_a_thread_during_spawns_touch_nothing() -> None:
    assert alone(copies_made_by_a_thread, build_program("end"), 20) == [True, [0] * 20]


def worker(end: str) -> int:
    """What a worker of multiprocessing does: children of its own."""
    work(end)
    return 11


def workers_beside_a_child(end: str, method: str) -> list[Any]:
    sys.path[:0] = [str(TESTS), str(TESTS / "hostile")]
    import test_hosts  # under a name that a worker can import

    with make_reactor() as reactor:
        child = Recorder()
        transport = reactor.spawnProcess(child, end, [end, "wait", "5"])
        context: Any = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            found = pool.map(test_hosts.worker, [end, end])
            pool.close()
            pool.join()
        names = list(child.names)
        transport.closeStdin()
        run_until(reactor, lambda: child.ended)
        if method == "forkserver":
            stop_the_forkserver()
        return [found, names, ends_of([child])]


def stop_the_forkserver() -> None:
    """It would stay until this process ends, and so would the tracker of its resources."""
    from multiprocessing import forkserver, resource_tracker

    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def copies_until(stop: int, told: threading.Event) -> Iterator[int]:
    """Make copies of this process. They live until *stop* is readable, or exit with 1."""
    end = time.monotonic() + DEADLINE_S
    while not told.is_set():
        pid = os.fork()
        if pid == 0:
            os._exit(not select.select([stop], [], [], max(end - time.monotonic(), 0))[0])
        yield pid


def starts_while_copies_are_made(
    end: str, count: int, dies_early: bool = False
) -> list[list[int | None]]:
    """Return how the copies ended, and how the children: by their programs, or before."""
    if dies_early:
        make_deadly("chdir")
    stop, tell = os.pipe()
    told = threading.Event()
    copies: list[int] = []
    children = [Recorder() for _ in range(count)]
    thread = threading.Thread(target=lambda: copies.extend(copies_until(stop, told)))
    with make_reactor() as reactor:
        thread.start()
        for child in children:
            reactor.spawnProcess(
                child, end, [end, "exit", "3"], path="/", childFDs={1: "r"}, uid=NOBODY
            )
        told.set()
        thread.join()
        os.write(tell, b"x")
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in copies]
        run_until(reactor, lambda: all(child.ended for child in children))
    os.close(stop)
    os.close(tell)
    return [sorted(set(codes)), sorted(set(ends_of(children)))]


@needs_root
@pytest.mark.parametrize("disable", ["", "helper", "pidfd"])
def test_copies_that_live_on_do_not_hold_up_a_start_as_another_user(disable: str) -> None:
    """Some have a copy of the pipe whose end says that the child has exec'ed."""
    found = alone(starts_while_copies_are_made, build_program("end"), 10, disable=disable)
    assert found == [[0], [3]]


@needs_root
@needs_seccomp
@pytest.mark.parametrize("disable", ["", "helper", "pidfd"])
def test_copies_that_live_on_do_not_hold_up_a_start_whose_child_dies_early(disable: str) -> None:
    """A child that is killed on its way to the exec tells nothing, and leaves the pipe to them."""
    found = alone(starts_while_copies_are_made, build_program("end"), 10, True, disable=disable)
    assert found == [[0], [None]]


HOST_THAT_STARTS_AND_STARTS = """
import os, select, sys
from support import make_reactor, spawn_and_finish
from procreactor.apps.batch import plan_command, run_batch

way, end = sys.argv[1:]
extras = {"uid": {"uid": 65534}}.get(way, {})
command = [end, "exit", "0"]
with make_reactor() as reactor:
    while not select.select([0], [], [], 0)[0]:
        if way == "batch":
            codes = [one.status.code for one in run_batch([plan_command(command)] * 8, at_once=4)]
        else:
            codes = [spawn_and_finish(reactor, end, command, **extras).reason.value.exitCode]
        assert not any(codes), codes
        os.write(1, b".")
"""


@contextmanager
def host_that_starts_and_starts(way: str) -> Iterator[subprocess.Popen[bytes]]:
    """It leads a group of its own in our session, as the job of a shell does."""
    command = [PYTHON, "-c", HOST_THAT_STARTS_AND_STARTS, way, build_program("end")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, process_group=0, env=env, **pipes) as host:
        try:
            yield host
        finally:
            if host.poll() is None:
                os.killpg(host.pid, signal.SIGKILL)


def stop_and_let_go_on(host: subprocess.Popen[bytes]) -> None:
    """As the shell and its user do, when the host has shown that it runs."""
    assert host.stdout is not None
    assert select.select([host.stdout], [], [], DEADLINE_S)[0], "it does not go on"
    assert os.read(host.stdout.fileno(), 1 << 16)
    os.killpg(host.pid, signal.SIGTSTP)
    wait_for(lambda: os.waitid(os.P_PID, host.pid, os.WSTOPPED | os.WNOHANG))
    os.killpg(host.pid, signal.SIGCONT)


@pytest.mark.parametrize("way", ["plain", "batch", pytest.param("uid", marks=needs_root)])
def test_a_host_whose_group_is_stopped_amid_starts_stops_and_goes_on(way: str) -> None:
    with host_that_starts_and_starts(way) as host:
        for _ in range(60):
            stop_and_let_go_on(host)
        assert host.stdin is not None
        host.stdin.close()
        assert host.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_of_multiprocessing_have_children_of_their_own(method: str) -> None:
    found = alone(workers_beside_a_child, build_program("end"), method)
    assert found == [[11, 11], ["connectionMade"], [5]]


# --- signal handlers ------------------------------------------------------------------------------


def handle_everywhere(library: str, end: str, step: int, calls_in: bool) -> int:
    """Let a handler run once in each place of a spawn and of the turns to its end."""
    with make_reactor() as reactor:
        interrupter = ctypes.PyDLL(library)
        interrupter.interrupter_start.argtypes = [ctypes.c_long]
        recorders: list[Recorder] = []

        def spawn() -> None:
            recorder = Recorder()  # by a name of its own: a handler may run here too
            recorders.append(recorder)
            reactor.spawnProcess(recorder, end, [end, "exit", "3"])

        def handle(number: int, frame: object) -> None:
            if calls_in:
                reactor.callFromThread(spawn)
            else:
                spawn()

        before = signal.signal(signal.SIGINT, handle)
        nth = 0
        while True:
            nth += step
            recorders.clear()
            interrupter.interrupter_start(nth)
            spawn()
            run_until(reactor, lambda: all(one.ended for one in recorders))
            interrupter.interrupter_stop()
            reactor.iterate(0)
            run_until(reactor, lambda: all(one.ended for one in recorders))
            assert set(ends_of(recorders)) == {3}
            if len(recorders) == 1:
                break
            assert len(recorders) == 2
        signal.signal(signal.SIGINT, before)
    return nth // step


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_a_signal_handler_may_spawn_in_the_middle_of_anything(disable: str) -> None:
    """Of another spawn, and of the turns to its end."""
    args = build_library("interrupter"), build_program("end"), EACH, False
    assert alone(handle_everywhere, *args, disable=disable) > 50


def test_a_signal_handler_may_call_in_from_anywhere() -> None:
    args = build_library("interrupter"), build_program("end"), EACH, True
    assert alone(handle_everywhere, *args) > 50


def ends_in_a_storm(storm: str, end: str, count: int) -> dict[str, Any]:
    handled = itertools.count()
    numbers = signal.SIGCHLD, signal.SIGWINCH, signal.SIGALRM
    for number in numbers:
        signal.signal(number, lambda number, frame: next(handled))
    from_outside = subprocess.Popen(
        [storm, str(os.getpid()), str(int(signal.SIGCHLD)), str(int(signal.SIGWINCH))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert from_outside.stdin is not None
    assert from_outside.stdout is not None
    from_outside.stdout.read(1)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    with make_reactor() as reactor:
        codes = ends_of(many(reactor, end, count))
    signal.setitimer(signal.ITIMER_REAL, 0)
    from_outside.stdin.close()
    from_outside.wait()
    from_outside.stdout.close()
    return {"right": codes == [number % 200 for number in range(count)], "handled": next(handled)}


def test_in_a_storm_of_signals_each_of_many_ends_is_told_once() -> None:
    count = 10_000
    args = build_program("storm"), build_program("end"), count
    found = alone(ends_in_a_storm, *args, deadline_s=115)
    assert found["right"]
    assert found["handled"] > count / 10


# --- threads --------------------------------------------------------------------------------------


def children_among_openers(fdtable: str, folder: str, rounds: int) -> dict[str, Any]:
    """Eight threads that spawn, in three manners; eight that open and close beside them."""
    failures: list[str] = []
    ended = threading.Event()
    serial = itertools.count()
    canary = new_file()

    def guarded(function: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                function()
            except BaseException as error:
                failures.append(repr(error))

        return run

    def report() -> str:
        return f"{folder}/report-{next(serial)}"

    def by_reactor() -> None:
        with make_reactor() as reactor:
            for _ in range(rounds):
                child = spawn_and_finish(reactor, fdtable, [fdtable, report(), "1024"])
                assert child.reason.value.exitCode == 0

    def by_batch() -> None:
        specs = [plan_command([fdtable, report(), "1024"]) for _ in range(rounds)]
        for outcome in run_batch(specs, at_once=4, threads=2):
            assert outcome.status is not None
            assert outcome.status.code == 0

    def by_utils() -> None:
        with make_reactor() as reactor:
            thread = threading.Thread(target=reactor.run, args=(False,))
            thread.start()
            values: list[Any] = []
            all_there = threading.Event()

            def ask() -> None:
                args = [report(), "1024"]
                utils.getProcessValue(fdtable, args, reactor=reactor).addBoth(note)

            def note(value: Any) -> None:
                values.append(value)
                if len(values) == rounds:
                    all_there.set()

            for _ in range(rounds):
                reactor.callFromThread(ask)
            assert all_there.wait(DEADLINE_S)
            reactor.callFromThread(reactor.stop)
            thread.join()
            assert values == [0] * rounds

    def open_and_close() -> None:
        while not ended.is_set():
            fds = [new_file(), *os.pipe(), os.dup(canary)]
            files = [file_of(fd) for fd in fds]
            fds.append(os.open("/dev/null", os.O_RDONLY))
            os.close(fds.pop())
            assert [file_of(fd) for fd in fds] == files, "an fd was taken from its owner"
            for fd in fds:
                os.close(fd)  # OSError when somebody else has closed it

    kinds = [by_reactor] * 4 + [by_batch] * 2 + [by_utils] * 2
    spawners = [threading.Thread(target=guarded(kind)) for kind in kinds]
    openers = [threading.Thread(target=guarded(open_and_close)) for _ in range(8)]
    before = own_table()
    for thread in [*spawners, *openers]:
        thread.start()
    for thread in spawners:
        thread.join()
    ended.set()
    for thread in openers:
        thread.join()
    assert own_table() == before
    os.close(canary)
    reports = [path.read_text().splitlines() for path in Path(folder).glob("report-*")]
    return {
        "failures": failures,
        "children": len(reports),
        "fds": sorted({int(line.split()[0]) for lines in reports for line in lines}),
    }


def test_reactors_batches_and_utils_in_threads_keep_to_their_own_fds(tmp_path: Path) -> None:
    rounds = 12
    args = build_program("fdtable"), str(tmp_path), rounds
    found = alone(children_among_openers, *args)
    assert found == {"failures": [], "children": 8 * rounds, "fds": [0, 1, 2]}


def threads_that_all_spawn(end: str, count: int) -> dict[str, Any]:
    """Each has a reactor of its own, and the blocking face; nobody ends before all have begun."""
    raise_open_files(30 * count)
    all_here = threading.Barrier(count + 1)
    codes: dict[int, list[int | None]] = {}

    def spawn(number: int) -> None:
        all_here.wait(DEADLINE_S)
        code = number % 200
        with make_reactor() as reactor:
            child = Recorder()
            transport = reactor.spawnProcess(child, end, [end, "wait", str(code)])
            result = procreactor.run([end, "exit", str(code + 1)])  # while the other lives
            transport.closeStdin()
            run_until(reactor, lambda: child.ended)
        codes[number] = [*ends_of([child]), result.exit_code]

    threads = [threading.Thread(target=spawn, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    alive = sum(thread.is_alive() for thread in threads)
    all_here.wait(DEADLINE_S)
    work(end)
    for thread in threads:
        thread.join()
    wanted = {number: [number % 200, number % 200 + 1] for number in range(count)}
    return {"at once": alive, "right": codes == wanted}


def test_a_host_with_300_threads_spawns() -> None:
    found = alone(threads_that_all_spawn, build_program("end"), 300)
    assert found == {"at once": 300, "right": True}


# --- the end of the host --------------------------------------------------------------------------

PREAMBLE = """
import ctypes, os, sys, threading
from procreactor.internet import protocol, reactor
end, gate, held = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def spawn(**more):
    fds = {0: gate, 1: "r", 9: held}
    child = reactor.spawnProcess(protocol.ProcessProtocol(), end, [end, "wait", "0"],
                                 childFDs=None if more else fds, **more)
    if not more:
        os.close(held)
    return child
"""

ENDINGS: dict[str, tuple[str, int]] = {
    "at once": ("spawn()", 0),
    "after some turns": ("spawn(); reactor.iterate(0); reactor.iterate(0.01)", 0),
    "with a child on a terminal beside": ("spawn(); spawn(usePTY=True)", 0),
    "after reactor.stop": ("spawn(); reactor.callLater(0, reactor.stop); reactor.run()", 0),
    "sys.exit in a callback": ("spawn(); reactor.callLater(0, sys.exit, 3); reactor.run()", 3),
    "os._exit in a callback": ("spawn(); reactor.callLater(0, os._exit, 4); reactor.run()", 4),
    "run by a daemon thread": (
        "spawn()\n"
        "threading.Thread(target=reactor.run, args=(False,), daemon=True).start()\n"
        "asked = threading.Event(); reactor.callFromThread(asked.set); asked.wait()",
        0,
    ),
    "spawned by a daemon thread that goes on": (
        "spawn(); begun = threading.Event()\n"
        "def go_on():\n"
        "    while True:\n"
        "        reactor.spawnProcess(protocol.ProcessProtocol(), end, [end, 'exit', '0'])\n"
        "        reactor.iterate(0); begun.set()\n"
        "threading.Thread(target=go_on, daemon=True).start(); begun.wait()",
        0,
    ),
    "in an atexit function": (
        "import atexit; atexit.register(lambda: reactor.iterate(0)); spawn()",
        0,
    ),
    "spawning in an atexit function": ("import atexit; atexit.register(spawn)", 0),
    "with the child in a circle": ("child = spawn(); child.me = [child]; del child", 0),
    "by seccomp strict": ("spawn(); ctypes.CDLL(None).prctl(22, 1, 0, 0, 0); os.getpid()", -9),
}


BATCH = """
from procreactor.apps.batch import run_batch
from procreactor.model import PipeEnd, Redirect, SpawnSpec

def command(how, *rows):
    argv = end.encode(), how.encode(), b"0"
    return SpawnSpec(argv[:1], argv, (), (*rows, Redirect(1, PipeEnd.WE_READ)))

waits = command("wait", Redirect(0, gate), Redirect(9, held))
# One thread starts them, one after the other: who hears of an end knows that the first one runs.
both = run_batch([waits, command("exit")], at_once=2, threads=1)
"""

ENDINGS["a batch in a daemon thread"] = (
    BATCH + "begun = threading.Event()\n"
    "threading.Thread(target=lambda: (next(both), begun.set(), next(both)), daemon=True).start()\n"
    "begun.wait()",
    0,
)
ENDINGS["os._exit amid a batch"] = (BATCH + "next(both); os._exit(5)", 5)

AMID_A_BATCH = {
    "at once": (BATCH + "next(both)", 0),
    "sys.exit": (BATCH + "next(both); sys.exit(3)", 3),
    "deleted": (BATCH + "next(both); del both", 0),
}


@contextmanager
def host_that_ends(code: str, disable: str) -> Iterator[tuple[int, bytes, Callable[[], bool]]]:
    """Run *code* as a program: its exit code, what it said, and whether its child is over."""
    gate, let_go = os.pipe()
    ended, held = os.pipe()
    try:
        host = subprocess.run(
            [PYTHON, "-c", PREAMBLE + code, build_program("end"), str(gate), str(held)],
            pass_fds=[gate, held],
            env={**os.environ, "PROCREACTOR_DISABLE": disable},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE_S,
            check=False,
        )
    finally:
        os.close(gate)
        os.close(held)

    def is_over() -> bool:
        """Nobody holds the other end any more; waits as long as it is to be expected."""
        return bool(select.select([ended], [], [], 0 if let_go in open_ends else DEADLINE_S)[0])

    open_ends = [let_go, ended]
    try:
        yield host.returncode, host.stdout, is_over
        open_ends.remove(let_go)
        os.close(let_go)
        assert is_over(), "the child did not end"
    finally:
        for fd in open_ends:
            os.close(fd)


needs_no_filter = pytest.mark.skipif(
    "Seccomp:\t0" not in Path(PROC, "self/status").read_text(),
    reason="below a filter nobody enters the strict mode",
)


def marks_of_ending(how: str) -> list[pytest.MarkDecorator]:
    strict, in_thread = [needs_no_filter] * ("strict" in how), "daemon thread" in how
    return strict + [pytest.mark.needs("threads")] * in_thread


BY_THREADS = "at once", "os._exit in a callback", "run by a daemon thread"
"""Those that are shown without pidfds too, where a thread waits for each child."""


@pytest.mark.parametrize(
    ("how", "disable"),
    [pytest.param(how, "", marks=marks_of_ending(how)) for how in ENDINGS]
    + [pytest.param(how, *WITHOUT_PIDFDS.values, marks=WITHOUT_PIDFDS.marks) for how in BY_THREADS],
)
def test_a_host_that_ends_is_silent_and_its_children_live_on(how: str, disable: str) -> None:
    """No traceback, no message, no wait for them; they are neither signalled nor cut off."""
    code, expected = ENDINGS[how]
    with host_that_ends(code, disable) as (found, said, is_over):
        assert (found, said) == (expected, b"")
        assert not is_over()


@pytest.mark.parametrize("how", AMID_A_BATCH)
def test_a_host_that_ends_amid_a_batch_is_silent_and_leaves_no_child(how: str) -> None:
    """The iterator is closed by the interpreter's end, and kills what runs."""
    code, expected = AMID_A_BATCH[how]
    with host_that_ends(code, "") as (found, said, is_over):
        assert (found, said) == (expected, b"")
        assert is_over()


# --- numbers that are used again ------------------------------------------------------------------

CLONE_NEWPID, CLONE_NEWNS = 0x20000000, 0x20000


def signals_among_few_pids(end: str, count: int) -> str:
    """Be the first process of a namespace with few pids; say how it went."""
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWPID) != 0:
        return "no namespace"
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_fd, _signal_among_few_pids(end, count).encode())
        except BaseException as error:
            os.write(write_fd, repr(error).encode())
        os._exit(0)
    os.close(write_fd)
    with open(read_fd) as result:
        said = result.read()
    os.waitpid(pid, 0)
    return said


def _signal_among_few_pids(end: str, count: int) -> str:
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 14):
        return "no pid_max of a namespace's own: it would be the whole machine's"
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, 1 << 14 | 1 << 18, None):
        return "no mounts"
    if libc.mount(b"proc", b"/proc", b"proc", 0, None) != 0:
        return "no /proc"
    try:
        # The first 300 are handed out once, and never again (RESERVED_PIDS).
        Path("/proc/sys/kernel/pid_max").write_text("600")
    except OSError:
        return "no pid_max"
    if os.getpid() != 1:
        return "not the first"
    pids: dict[int, int] = {}
    late: list[Any] = []
    sent = 0
    codes: set[int | None] = set()
    with make_reactor() as reactor:
        for _ in range(count // 30):
            strangers = [Recorder() for _ in range(30)]
            theirs, ours = os.pipe()
            begun = []
            for stranger in strangers:
                args = [end, "wait", "6"]
                begun.append(reactor.spawnProcess(stranger, end, args, childFDs={0: theirs}))
                pids[begun[-1].pid] = pids.get(begun[-1].pid, 0) + 1
            os.close(theirs)
            for transport in late:  # over; whose numbers are these strangers' now, in part
                try:
                    transport.signalProcess("KILL")
                except ProcessExitedAlready:
                    continue
                sent += 1
            os.close(ours)
            run_until(reactor, lambda: all(one.ended for one in strangers))  # noqa: B023
            codes |= set(ends_of(strangers))
            late = (late + begun)[-600:]
    if max(pids) > 600:
        return "pid_max is not the namespace's own"
    return f"{codes}, {sent} sent, used again: {max(pids.values()) > 2}"


@needs_root
@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_among_few_pids_that_are_used_again_no_stranger_is_signalled(disable: str) -> None:
    """Where a number is another's within moments; before Linux 6.14 it cannot be had so small."""
    found = alone(signals_among_few_pids, build_program("end"), 3_000, disable=disable)
    if found.startswith(("no", "pid_max")):
        pytest.skip(found)
    assert found == "{6}, 0 sent, used again: True"


# --- worlds that change ---------------------------------------------------------------------------


def _stay_in_a_deleted_directory() -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def _trace() -> None:
    def trace(frame: object, event: str, arg: object) -> Any:
        return trace

    sys.settrace(trace)
    sys.setprofile(trace)
    threading.settrace(trace)


def _lock_memory() -> None:
    if ctypes.CDLL(None).mlockall(3) != 0:
        print("no right to lock memory")


CHANGES: dict[str, Callable[[], object]] = {
    "in a deleted directory": _stay_in_a_deleted_directory,
    "umask 0777": lambda: os.umask(0o777),
    "no core files": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "nice 19": lambda: os.nice(19),
    "traced and profiled": _trace,
    "a frozen heap": gc.freeze,
    "no collector": gc.disable,
    "a collector at each allocation": lambda: gc.set_threshold(1),
    "tracemalloc": lambda: tracemalloc.start(25),
    "faulthandler": lambda: faulthandler.enable(all_threads=True),
    "locked memory": _lock_memory,
}


def work_after(change: str, end: str) -> bool:
    CHANGES[change]()
    try:
        work(end)
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        threading.settrace(None)  # type: ignore[arg-type]
        tracemalloc.stop()
    os.chdir("/")
    return True


@pytest.mark.parametrize("change", CHANGES)
def test_a_host_that_changes_its_world_spawns_as_before(change: str) -> None:
    assert alone(work_after, change, build_program("end"))


SHELL = ["/bin/sh", "-c"]

STARTS: dict[str, tuple[list[str], list[str], dict[str, str]]] = {
    "a stack of 256 KiB": ([*SHELL, 'ulimit -s 256 && exec "$@"', "sh"], [], {}),
    "a stack without limit": ([*SHELL, 'ulimit -s unlimited && exec "$@"', "sh"], [], {}),
    "malloc that fills": ([], [], {"MALLOC_PERTURB_": "165", "MALLOC_CHECK_": "3"}),
    "the development mode": ([], [], {"PYTHONDEVMODE": "1"}),
    "each import timed": ([], ["-X", "importtime"], {}),
    "without the site": ([], ["-O", "-B"], {}),
    "traced by strace": (["strace", "-f", "-o", "/dev/null"], [], {}),
}


def run_work(prefix: Sequence[str], flags: Sequence[str], env: dict[str, str]) -> str:
    """Do `work` in a program that is started so; return what it said."""
    code = "import sys, test_hosts; test_hosts.work(sys.argv[1]); print('done')"
    path = os.pathsep.join([str(TESTS), str(TESTS / "hostile"), *sys.path])
    host = subprocess.run(
        [*prefix, PYTHON, *flags, "-c", code, build_program("end")],
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
    assert host.returncode == 0, host.stderr
    assert host.stdout == "done\n"
    return host.stderr


@pytest.mark.parametrize("start", STARTS)
def test_a_host_that_was_started_strangely_spawns_as_ever(start: str) -> None:
    prefix, flags, env = STARTS[start]
    if prefix and shutil.which(prefix[0]) is None:
        pytest.skip(f"needs {prefix[0]}")
    said = run_work(prefix, flags, env)
    if "importtime" in flags:
        said = "".join(row for row in said.splitlines() if not row.startswith("import time:"))
    assert said == ""


def work_behind_an_interposer(library: str, end: str) -> list[bool]:
    code = (
        "import ctypes, sys, test_hosts; test_hosts.work(sys.argv[1]); l = ctypes.CDLL(None)\n"
        "print(l.interposer_here() > 0, l.interposer_elsewhere())"
    )
    path = os.pathsep.join([str(TESTS), str(TESTS / "hostile"), *sys.path])
    said = subprocess.check_output(
        [PYTHON, "-c", code, end],
        env={**os.environ, "PYTHONPATH": path, "LD_PRELOAD": library},
        text=True,
    )
    return said.split()


@pytest.mark.parametrize("disable", ["", "vfork", "clone3", "unshare"])
def test_no_child_calls_what_stands_before_libc(disable: str) -> None:
    """Between clone and exec there are bare system calls only."""
    args = build_library("interposer"), build_program("end")
    assert alone(work_behind_an_interposer, *args, disable=disable) == ["True", "0"]


IN_A_SUB_INTERPRETER = """
import _xxsubinterpreters as interpreters
code = '''
from procreactor.internet import reactor, utils
said = []
utils.getProcessOutput("/bin/echo", ["sub"]).addBoth(lambda out: (said.append(out), reactor.stop()))
reactor.run(installSignalHandlers=False)
assert said[0].split() == [b"sub"], said
'''
one = interpreters.create()
interpreters.run_string(one, code)
exec(code.replace("sub", "main"))
interpreters.run_string(interpreters.create(), code)
interpreters.destroy(one)
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="cffi's modules refuse a GIL of their own")
def test_a_sub_interpreter_has_a_reactor_of_its_own() -> None:
    subprocess.run([PYTHON, "-c", IN_A_SUB_INTERPRETER], check=True, timeout=DEADLINE_S)


def host_that_gives_up_root(end: str) -> list[Any]:
    nobody = 65534
    with make_reactor() as reactor:
        of_root, own = Recorder(), Recorder()
        first = reactor.spawnProcess(of_root, end, [end, "wait", "4"])
        os.setgroups([])
        os.setresgid(nobody, nobody, nobody)
        os.setresuid(nobody, nobody, nobody)
        refused = []
        for attempt in (
            lambda: first.signalProcess("KILL"),
            lambda: reactor.spawnProcess(Recorder(), end, [end, "exit", "0"], uid=0, gid=0),
        ):
            try:
                attempt()
            except PermissionError as error:
                refused.append(type(error).__name__)
        script = 'exit "$(($(id -u) == 65534))"'
        reactor.spawnProcess(own, "/bin/sh", ["sh", "-c", script], env=None)
        first.closeStdin()
        run_until(reactor, lambda: own.ended and of_root.ended)
        return [refused, ends_of([of_root, own])]


@needs_root
def test_a_host_that_gives_up_root_keeps_its_children_and_spawns_as_itself() -> None:
    found = alone(host_that_gives_up_root, build_program("end"))
    assert found == [["PermissionError", "SpawnPermissionError"], [4, 1]]
