"""What signals do to those who spawn: each pitfall that was met elsewhere, as a test.

Between clone and exec a child is neither the parent nor the program. Signals that meet it there,
handlers that it still has, dispositions and masks that it passes on: nearly every spawner got one
of these wrong once. The pitfalls are numbered A.1 to A.11; each test says which is its own.

    does not apply   because
    A.11             the kernel that accepts CLONE_CLEAR_SIGHAND and forgets it is a 32-bit kernel
                     before 6.18; only 64-bit machines are supported

Children that run as another user, or on a terminal, or by fork, are made with `ways.spawn_on`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from held import held_copy, wait_for
from support import PROC, Recorder, make_reactor, run_until, spawn_and_finish
from ways import NOBODY, finish_on, on_every_way, on_way, spawn_on

from procreactor._core import ffi
from procreactor.core import binding

Build = Callable[[str], str]

INITIAL_USER_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

RLIMIT_SIGPENDING = 11
"""Of linux/resource.h; Python has no name for it."""

LIBC_SIGNALS = (32, 33)
"""Those that libc keeps for thread cancellation and for setuid in all threads."""

STORM = sorted(
    set(range(1, 65))
    - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
)
"""All that can be handled, but for those whose default, in the child, is to stop for ever."""


def facts_of(recorder: Any) -> dict[str, str]:
    """Return what the program facts said of itself."""
    lines = recorder.out.decode().replace("\r", "").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def signals_in(mask: str) -> list[int]:
    """Return the numbers in a mask as /proc/PID/status gives it."""
    bits = int(mask, 16)
    return [number for number in range(1, 65) if bits >> (number - 1) & 1]


def in_thread(function: Callable[[], object]) -> threading.Thread:
    """Return a started thread that calls *function*."""
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def child_pids() -> list[int]:
    return [
        int(pid)
        for task in Path(f"{PROC}/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]


def child_pid() -> int:
    """Return the pid of the one child that this process has."""
    [found] = child_pids()
    return found


@contextmanager
def storm(reactor: Any, program: str, target: int, numbers: list[int]) -> Iterator[None]:
    """For as long as this lasts, *numbers* are sent to *target* all the time."""
    # Real-time signals queue up, all that this user may have, unless they may have none.
    _, hard = resource.getrlimit(RLIMIT_SIGPENDING)
    resource.setrlimit(RLIMIT_SIGPENDING, (0, hard))
    protocol = Recorder()
    args = [program, str(target), *map(str, numbers)]
    # In a group of its own, or it would hit itself.
    transport = reactor.spawnProcess(protocol, program, args, processGroup=0)
    run_until(reactor, lambda: protocol.out)
    try:
        yield
    finally:
        transport.loseConnection()
        run_until(reactor, lambda: protocol.ended)
    assert protocol.reason.value.exitCode == 0


def load_strays(strays: str) -> Any:
    """Return the library strays, with its handlers in place for all signals."""
    in_thread(lambda: None).join()  # the first thread makes libc set its own two, once
    library = ctypes.CDLL(strays)
    assert library.strays_handle_all() == 0
    return library


# --- A.1, A.2, A.9: what a child starts with -----------------------------------------------------


def blocked_in_a_child_of_a_thread(way: str, facts: str, **kwargs: Any) -> list[int]:
    blocked: list[int] = []

    def spawn() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
        with make_reactor() as reactor:
            blocked.extend(signals_in(facts_of(finish_on(way, reactor, facts, **kwargs))["SigBlk"]))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert mask == {signal.SIGUSR1, signal.SIGTERM}, "the thread's own mask has changed"

    in_thread(spawn).join()
    return blocked


@on_every_way()
def test_a_child_inherits_the_mask_of_the_thread_that_spawns_it(way: str, program: Build) -> None:
    """A.1."""
    blocked = on_way(way, blocked_in_a_child_of_a_thread, program("facts"))
    assert blocked == [signal.SIGUSR1, signal.SIGTERM]


def blocked_in_a_child_with_a_mask(way: str, facts: str) -> list[int]:
    mask = {signal.SIGHUP, signal.SIGRTMAX}
    return blocked_in_a_child_of_a_thread(way, facts, signalMask=mask)


@on_every_way("plain", "fork", "launcher", "fork to another user", "terminal")
def test_a_mask_that_is_asked_for_replaces_that_of_the_thread(way: str, program: Build) -> None:
    """A.1."""
    blocked = on_way(way, blocked_in_a_child_with_a_mask, program("facts"))
    assert blocked == [signal.SIGHUP, signal.SIGRTMAX]


def ignored_in_a_child(way: str, facts: str) -> list[int]:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN  # by Python itself
    with make_reactor() as reactor:
        return signals_in(facts_of(finish_on(way, reactor, facts))["SigIgn"])


@on_every_way()
def test_what_python_ignores_no_child_ignores(way: str, program: Build) -> None:
    """A.2."""
    assert on_way(way, ignored_in_a_child, program("facts")) == []


def ignored_since(way: str, facts: str) -> list[int]:
    with make_reactor() as reactor:
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMAX):
            signal.signal(number, signal.SIG_IGN)
        first = signals_in(facts_of(finish_on(way, reactor, facts))["SigIgn"])
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        return first + signals_in(facts_of(finish_on(way, reactor, facts))["SigIgn"])


@on_every_way()
def test_what_is_ignored_once_the_loop_is_made_no_child_ignores(way: str, program: Build) -> None:
    """A.2."""
    assert on_way(way, ignored_since, program("facts")) == []


def test_no_handler_is_kept_alive_by_a_spawn(program: Build) -> None:
    class Handler:
        def __call__(self, number: int, frame: object) -> None:
            raise AssertionError("nobody sends it")

    handler = Handler()
    kept = weakref.ref(handler)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with make_reactor() as reactor:
            finish_on("plain", reactor, program("facts"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    del handler
    gc.collect()
    assert kept() is None


def handled_or_ignored_in_a_child(way: str, facts: str, strays: str, setup: str) -> list[int]:
    library = ctypes.CDLL(strays)
    assert getattr(library, setup)() == 0
    with make_reactor() as reactor:
        found = facts_of(finish_on(way, reactor, facts))
    return signals_in(found["SigIgn"]) + signals_in(found["SigCgt"])


@on_every_way()
@pytest.mark.parametrize("setup", ["strays_handle_all", "strays_ignore_all"])
def test_all_64_signals_are_at_their_default_in_a_child(
    way: str, setup: str, program: Build, library: Build
) -> None:
    """A.9, A.2: those of the real-time range, and the two of libc, as well."""
    args = (program("facts"), library("strays"), setup)
    assert on_way(way, handled_or_ignored_in_a_child, *args) == []


# --- A.3, A.4: signals to all, all the time -------------------------------------------------------


def strays_in_a_storm(
    way: str, strays: str, end: str, storm_program: str, count: int
) -> dict[str, int]:
    library = load_strays(strays)
    by_python: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: by_python.append(os.getpid()))
    ended = 0
    with make_reactor() as reactor, storm(reactor, storm_program, -os.getpgrp(), STORM):
        for _ in range(count):
            reason = finish_on(way, reactor, end, [end, "exit", "0"]).reason.value
            assert reason.exitCode == 0 or reason.signal in STORM, reason
            ended += 1
    return {
        "ended": ended,
        "handled here": library.strays_here() > 0 and set(by_python) == {os.getpid()},
        "handled elsewhere": library.strays_elsewhere(),
    }


@on_every_way("plain", "legacy clone", "fork", "launcher", "fork to another user")
def test_a_handler_of_the_parent_never_runs_in_a_child(
    way: str, program: Build, library: Build
) -> None:
    """A.3: in C and in Python, for every signal, hit by all of them all the time."""
    count = 300 if "fork" in way else 1000  # a copy of the parent takes a hundred times as long
    args = (library("strays"), program("end"), program("storm"), count)
    found = on_way(way, strays_in_a_storm, *args)
    assert found == {"ended": count, "handled here": True, "handled elsewhere": 0}


def strays_of_a_careless_fork(strays: str) -> int:
    library = load_strays(strays)
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(0)
    os.waitpid(pid, 0)
    return int(library.strays_elsewhere())


def test_the_stray_handler_would_have_been_noticed(library: Build) -> None:
    """A.3: the test of that test."""
    assert alone(strays_of_a_careless_fork, library("strays")) == 1


def ends_under_killpg(way: str, end: str, storm_program: str) -> list[str]:
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    ends = []
    with (
        make_reactor() as reactor,
        storm(reactor, storm_program, -os.getpgrp(), [signal.SIGTERM]),
    ):
        for _ in range(300):
            protocol = Recorder()
            transport = spawn_on(way, reactor, protocol, end, [end, "wait", "0"])
            transport.closeStdin()
            run_until(reactor, lambda protocol=protocol: protocol.ended)  # type: ignore[misc]
            reason = protocol.reason.value
            ends.append("code 0" if reason.exitCode == 0 else f"signal {reason.signal}")
    return sorted(set(ends) - {"code 0"})


@on_every_way("plain", "fork", "launcher", "fork to another user")
def test_killing_the_process_group_during_spawns_ends_children_and_hangs_nothing(
    way: str, program: Build
) -> None:
    """A.4."""
    ends = on_way(way, ends_under_killpg, program("end"), program("storm"))
    assert ends in ([], [f"signal {signal.SIGTERM:d}"])


def end_of_a_child_hit_at_exec(
    way: str, end: str, public: str, strays: str, numbers: list[int], to_group: bool
) -> dict[str, Any]:
    """Spawn a child that can not get past exec, hit it there, and tell what became of it."""
    library = load_strays(strays)
    protocol = Recorder()
    with make_reactor() as reactor, held_copy(end, Path(public, "held")) as held:
        args = [held.path, "exit", "0"]
        thread = in_thread(lambda: spawn_on(way, reactor, protocol, held.path, args))
        held.wait_until_reached()
        for number in numbers:
            if to_group:
                os.killpg(0, number)
            else:
                os.kill(child_pid(), number)
        thread.join(10)  # the signal ends the exec, though nobody lets it go on
        assert not thread.is_alive(), "the spawn did not return"
        run_until(reactor, lambda: protocol.ended)
    return {
        "signal": protocol.reason.value.signal,
        "calls": protocol.names[:1] + protocol.names[-2:],
        "strays": library.strays_elsewhere(),
        "handlers": [number for number in STORM if not library.strays_handles(number)],
    }


@on_every_way("plain", "legacy clone", "fork", "launcher", "fork to another user")
def test_a_group_that_is_killed_while_its_child_is_at_exec_hangs_nothing(
    way: str, program: Build, library: Build, public_path: Path
) -> None:
    """A.4: a child that died before it became the program is told of by its exit."""
    found = on_way(
        way,
        end_of_a_child_hit_at_exec,
        program("end"),
        str(public_path),
        library("strays"),
        [signal.SIGTERM],
        True,
    )
    assert found["signal"] == signal.SIGTERM
    assert found["calls"] == ["connectionMade", "processExited", "processEnded"]
    assert (found["strays"], found["handlers"]) == (0, [])


# --- A.5, A.6: the signals of libc ----------------------------------------------------------------


def _dumps_shared_memory_only(number: int) -> bool:
    """Whether a fatal *number* ends this process alone, and not all that share its memory."""
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    return number not in (signal.SIGQUIT, signal.SIGABRT) or release >= (5, 16)


BY_MEMORY = ("plain", "legacy clone")
"""The ways of a child that shares our memory, has no session of its own, and opens its mask."""


@pytest.mark.parametrize(
    ("way", "number"),
    [
        *((way, number) for way in (*BY_MEMORY, "fork", "launcher") for number in LIBC_SIGNALS),
        *((way, signal.SIGQUIT) for way in ("fork", "launcher", "terminal")),
    ],
)
def test_a_signal_to_a_child_before_exec_leaves_the_parents_memory_intact(
    way: str, number: int, program: Build, library: Build, public_path: Path
) -> None:
    """A.5: 32 and 33, of which libc's handlers write to memory; and one that would dump core."""
    if not _dumps_shared_memory_only(number):
        pytest.skip("before Linux 5.16 a core dump ends all that share the memory")
    found = on_way(
        way,
        end_of_a_child_hit_at_exec,
        program("end"),
        str(public_path),
        library("strays"),
        [number],
        False,
    )
    assert found["signal"] == number
    assert (found["strays"], found["handlers"]) == (0, [])


def end_of_a_child_that_is_told_to_quit_at_exec(way: str, end: str, public: str) -> list[int]:
    protocol = Recorder()
    with make_reactor() as reactor, held_copy(end, Path(public, "held")) as held:
        thread = in_thread(
            lambda: spawn_on(way, reactor, protocol, held.path, ["held", "exit", "3"])
        )
        held.wait_until_reached()
        first = child_pid()
        os.kill(first, signal.SIGQUIT)
        wait_for(lambda: child_pids() not in ([first], []))
        held.release()
        thread.join()
        run_until(reactor, lambda: protocol.ended)
    return [protocol.reason.value.exitCode, protocol.transport.pid == first]


@on_every_way(*BY_MEMORY)
@pytest.mark.needs("vfork")
def test_a_quit_before_exec_dumps_no_memory_that_is_shared(
    way: str, program: Build, public_path: Path
) -> None:
    """Before Linux 5.16 that would end all who share it: the child gives up, and is made anew."""
    args = (end_of_a_child_that_is_told_to_quit_at_exec, program("end"), str(public_path))
    assert on_way(way, *args) == [3, False]


def change_ids_during_spawns(strays: str, end: str, public: str) -> bool:
    library = ctypes.CDLL(strays)
    stop = threading.Event()
    changes = 0

    def change() -> None:
        nonlocal changes
        while not stop.is_set():
            os.setgid(os.getgid())  # libc interrupts every thread, and waits for each
            os.setuid(os.getuid())
            assert library.strays_cancel_a_thread() == 0
            changes += 1

    thread = in_thread(change)
    with make_reactor() as reactor:
        for _ in range(200):
            done = spawn_and_finish(reactor, end, [end, "exit", "0"]).reason.value
            assert done.exitCode == 0
        wait_for(lambda: changes)
        stop.set()
        thread.join()
        return _change_ids_while_a_child_is_at_exec(reactor, end, Path(public, "held"))


def _change_ids_while_a_child_is_at_exec(reactor: Any, end: str, at: Path) -> bool:
    protocol = Recorder()
    with held_copy(end, at) as held:
        args = [held.path, "exit", "0"]
        spawning = in_thread(lambda: reactor.spawnProcess(protocol, held.path, args))
        held.wait_until_reached()
        # Not os.setuid, which waits with the GIL, and so would keep us from letting the exec go on.
        changing = in_thread(lambda: ctypes.CDLL(None).setuid(os.getuid()))
        held.release()
        for thread in (spawning, changing):
            thread.join(30)
            assert not thread.is_alive(), "deadlock"
        run_until(reactor, lambda: protocol.ended)
    return bool(protocol.reason.value.exitCode == 0)


def test_other_threads_change_ids_and_cancel_threads_during_spawns_without_deadlock(
    program: Build, library: Build, tmp_path: Path
) -> None:
    """A.6."""
    args = (library("strays"), program("end"), str(tmp_path))
    assert alone(change_ids_during_spawns, *args) is True


# --- A.7: the death of the parent ----------------------------------------------------------------


def death_signal_of_a_child(way: str, facts: str) -> str:
    with make_reactor() as reactor:
        return facts_of(finish_on(way, reactor, facts, parentDeathSignal="USR2"))["DeathSignal"]


@on_every_way()
def test_the_death_signal_is_still_set_in_the_program(way: str, program: Build) -> None:
    """A.7: a change of uid clears it, so it is set after that."""
    assert on_way(way, death_signal_of_a_child, program("facts")) == str(int(signal.SIGUSR2))


def end_after_the_spawning_thread(way: str, end: str) -> int:
    protocol = Recorder()
    with make_reactor() as reactor:
        args = (way, reactor, protocol, end, [end, "wait", "0"])
        in_thread(lambda: spawn_on(*args, parentDeathSignal="TERM")).join()
        run_until(reactor, lambda: protocol.ended)
    return int(protocol.reason.value.signal)


@on_every_way("plain", "fork", "launcher")
def test_the_death_signal_comes_when_the_spawning_thread_ends(way: str, program: Build) -> None:
    """A.7: as documented, and as the kernel counts: the parent is a thread, not a process."""
    assert on_way(way, end_after_the_spawning_thread, program("end")) == signal.SIGTERM


def _start_and_forget(way: str, program: str, args: list[str], theirs: int, launcher: str) -> int:
    """Return the pid of a new process that spawns a child which is to write to *theirs*."""
    pid = os.fork()
    if pid:
        return pid
    try:
        if launcher:
            binding._LAUNCHER = ffi.new("char[]", os.fsencode(launcher))
        with make_reactor() as reactor:
            protocol, child_fds = Recorder(), {1: theirs}
            spawn_on(
                way,
                reactor,
                protocol,
                program,
                args,
                childFDs=child_fds,
                parentDeathSignal="KILL",
            )
            run_until(reactor, lambda: protocol.ended)
    finally:
        os._exit(0)


def said_after_the_parents_death(
    way: str, facts: str, public: str, hold_launcher: bool, kill: bool
) -> str:
    """Let a parent die while its child is at exec; return what the program said nevertheless."""
    ours, theirs = os.pipe()
    held_file = os.fsdecode(ffi.string(binding._LAUNCHER)) if hold_launcher else facts
    with open(ours, "rb") as said, held_copy(held_file, Path(public, "held")) as held:
        program = facts if hold_launcher else held.path
        launcher = held.path if hold_launcher else ""
        parent = _start_and_forget(way, program, [program], theirs, launcher)
        os.close(theirs)
        held.wait_until_reached()
        if kill:
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
        if hold_launcher or not kill:
            held.release()
        text = said.read().decode()
        if not kill:
            os.waitpid(parent, 0)
    return text


@on_every_way("plain", "fork", "launcher", "fork to another user")
def test_a_parent_that_dies_while_its_child_is_at_exec_takes_it_along(
    way: str, program: Build, public_path: Path
) -> None:
    """A.7."""
    args = (program("facts"), str(public_path), False)
    assert on_way(way, said_after_the_parents_death, *args, True) == ""


@INITIAL_USER_ONLY
@pytest.mark.parametrize("kill", [True, False])
@pytest.mark.needs("helper")
def test_a_parent_that_died_before_the_death_signal_was_set_is_noticed(
    kill: bool, program: Build, public_path: Path
) -> None:
    """A.7: the signal of a parent that is dead already never comes; the program must not run."""
    args = (program("facts"), str(public_path), True, kill)
    said = on_way("launcher", said_after_the_parents_death, *args)
    assert said == "" if kill else f"Uid:\t{NOBODY}" in said


# --- A.8: terminals ------------------------------------------------------------------------------


def foreground_on_a_terminal(way: str, facts: str) -> Mapping[str, str]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    with make_reactor() as reactor:
        found = facts_of(finish_on(way, reactor, facts))
    return {name: found[name] for name in ("Foreground", "SigBlk")}


@on_every_way("terminal", "terminal by fork")
def test_a_child_on_a_terminal_is_in_its_foreground(way: str, program: Build) -> None:
    """A.8: as the leader of its session, so that no tcsetpgrp, and no SIGTTOU, is in it."""
    found = on_way(way, foreground_on_a_terminal, program("facts"))
    assert found["Foreground"] == "1"
    assert signals_in(found["SigBlk"]) == [signal.SIGTTOU]


def spawn_from_the_background(facts: str) -> str:
    """Be in the background of a terminal, and spawn there; return what the children say."""
    master, slave = os.openpty()
    read_fd, write_fd = os.pipe()
    leader = os.fork()
    if leader == 0:
        os.login_tty(slave)  # a session of its own, in the foreground of the terminal
        os.write(write_fd, _from_a_background_group(facts).encode())
        os._exit(0)
    for fd in (slave, write_fd):
        os.close(fd)
    with open(read_fd, "rb") as result:
        said = result.read().decode()
    os.close(master)
    os.waitpid(leader, 0)
    return said


def _from_a_background_group(facts: str) -> str:
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        with make_reactor() as reactor:
            on_pipes = facts_of(
                spawn_and_finish(reactor, facts, processGroup=0, childFDs={0: 0, 1: "r"})
            )
            on_pty = facts_of(spawn_and_finish(reactor, facts, usePTY=True))
        os.write(write_fd, f"{on_pipes['Foreground']} {on_pty['Foreground']}".encode())
        os._exit(0)
    os.close(write_fd)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return f"stopped by {os.WSTOPSIG(status)}"
    with open(read_fd, "rb") as result:
        return result.read().decode()


def test_a_parent_in_the_background_of_a_terminal_is_not_stopped_by_a_spawn(
    program: Build,
) -> None:
    """A.8: its child with a group of its own stays there too; one on a new terminal does not."""
    assert alone(spawn_from_the_background, program("facts")) == "0 1"


# --- A.10: an exit before anyone knows of the child ----------------------------------------------


def codes_of_instant_exits(way: str, end: str) -> list[int]:
    told: list[int] = []
    signal.signal(signal.SIGCHLD, lambda number, frame: told.append(number))
    with make_reactor() as reactor:
        codes = [
            finish_on(way, reactor, end, [end, "exit", str(number % 256)]).reason.value.exitCode
            for number in range(300)
        ]
    assert told, "the program's own handler was not called"
    return codes


@on_every_way()
def test_an_exit_that_comes_at_once_is_never_missed(way: str, program: Build) -> None:
    """A.10."""
    codes = on_way(way, codes_of_instant_exits, program("end"))
    assert codes == [number % 256 for number in range(300)]
