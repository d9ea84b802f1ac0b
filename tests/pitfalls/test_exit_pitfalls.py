"""What the end of a child does to those who wait for it: each pitfall that was met elsewhere.

An exit can be taken by others, be told too early, too late, twice or never; what is told may be a
stop; and what is killed may be somebody else. The pitfalls are numbered F.1 to F.10; each test says
which is its own. All of them apply, with one note:

    part             because
    F.5, no pidfd    a number is signalled a moment after it was asked whose it is; in that moment
                     others may reap it and have it given again, which no test can be there for

A status that other code took is still told by the pidfd from Linux 6.15 on. On an older kernel, and
without pidfds, the exit is told with neither code nor signal.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import os
import platform
import resource
import select
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from held import wait_for
from leftovers import child_pids, open_fds
from load.room import find_room
from seccomp import deny, needs_seccomp
from support import LACKS, PROC, Recorder, make_reactor, run_until, spawn_and_finish
from ways import WITHOUT_PIDFDS, finish_on, on_every_way, on_way, spawn_on

from procreactor.apps.batch import plan_command
from procreactor.core import binding
from procreactor.errors import SpawnError
from procreactor.internet.error import ProcessExitedAlready, ProcessTerminated
from procreactor.kernel import children, processes
from procreactor.kernel.children import Child
from procreactor.loop.eventloop import EventLoop
from procreactor.transport.collected import pairs_of
from procreactor.transport.pool import ChildPool

Build = Callable[[str], str]

KERNEL = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])

PIDFD_TELLS = KERNEL >= (6, 15) and "pidfd" not in LACKS
"""Whether a pidfd tells the status that other code took."""

WAIT_FOR_ALL = 0x40000000
"""__WALL of waitid(2): also for a child that has no exit signal, as that of the first look."""

End = list[int | None]
"""Exit code and signal, as JSON."""


def end_of(recorder: Any) -> End:
    """Return how the child of *recorder* ended, and check that it was told as it should be."""
    assert recorder.names[0] == "connectionMade"
    assert recorder.names.count("processExited") == 1
    assert recorder.names[-1] == "processEnded"
    value = recorder.reason.value
    return [value.exitCode, value.signal]


def ends_on(way: str, reactor: Any, end: str) -> list[End]:
    """Return the ends of a child that exits with 3 and of one that is killed."""
    killed = Recorder()
    transport = spawn_on(way, reactor, killed, end, [end, "wait", "0"])
    transport.signalProcess("KILL")
    run_until(reactor, lambda: killed.ended)
    return [end_of(finish_on(way, reactor, end, [end, "exit", "3"])), end_of(killed)]


TOLD: list[End] = [[3, None], [None, int(signal.SIGKILL)]]
LOST: list[End] = [[None, None], [None, None]]


def check_refusal(way: str, reactor: Any) -> None:
    """A start that fails is told as ever, whoever reaps the child."""
    with pytest.raises(FileNotFoundError):
        spawn_on(way, reactor, Recorder(), "/no/such/program")


# --- F.1, F.2: the status is taken by others -----------------------------------------------------


def ends_without_zombies(way: str, end: str, nowait: str) -> list[End]:
    if nowait:
        assert ctypes.CDLL(nowait).nowait_set() == 0
    else:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with make_reactor() as reactor:
        check_refusal(way, reactor)
        found = ends_on(way, reactor, end)
        check_refusal(way, reactor)
    return found


@on_every_way()
@pytest.mark.parametrize("how", ["SIG_IGN", "SA_NOCLDWAIT"])
def test_an_exit_is_told_though_the_parent_wants_no_zombies(
    way: str, how: str, program: Build, library: Build
) -> None:
    """F.1."""
    nowait = library("nowait") if how == "SA_NOCLDWAIT" else ""
    ends = on_way(way, ends_without_zombies, program("end"), nowait)
    assert ends == (TOLD if PIDFD_TELLS else LOST)


def _deny_what_pidfds_tell() -> None:
    size_bytes = 64  # struct pidfd_info as csrc/reap.c has it
    pidfd_get_info = 3 << 30 | size_bytes << 16 | 0xFF << 8 | 11
    deny("ioctl", errno.ENOTTY, (1, pidfd_get_info))


def ends_without_zombies_on_an_old_kernel(way: str, end: str) -> list[End]:
    _deny_what_pidfds_tell()
    return ends_without_zombies(way, end, "")


@on_every_way("plain", "launcher")
def test_a_status_that_is_lost_is_told_as_neither_code_nor_signal(way: str, program: Build) -> None:
    """F.1: as on a kernel before 6.15."""
    assert on_way(way, ends_without_zombies_on_an_old_kernel, program("end")) == LOST


def test_without_pidfds_a_lost_status_is_told_too(program: Build) -> None:
    """F.1."""
    assert on_way("without pidfds", ends_without_zombies, program("end"), "") == LOST


@contextmanager
def thief() -> Iterator[list[int]]:
    """A thread that reaps every child, as soon as it can; gives the list of those that it got."""
    stop, taken = threading.Event(), list[int]()

    def steal() -> None:
        while True:
            try:
                taken.append(os.waitpid(-1, 0)[0])
            except ChildProcessError:
                if stop.is_set():
                    return
                os.sched_yield()

    thread = threading.Thread(target=steal)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()


def ends_beside_a_thief(way: str, end: str) -> dict[str, Any]:
    unknown = 0
    with thief() as taken, make_reactor() as reactor:
        for _ in range(50):
            check_refusal(way, reactor)
            ends = ends_on(way, reactor, end)
            for found, told in zip(ends, TOLD, strict=True):
                assert found in (told, [None, None]), found
                unknown += found != told
    return {"stole": bool(taken), "unknown": unknown}


@on_every_way("plain", "legacy clone", "fork", "launcher", "fork to another user", "terminal")
def test_an_exit_is_told_though_other_code_waits_for_all_children(way: str, program: Build) -> None:
    """F.2."""
    found = on_way(way, ends_beside_a_thief, program("end"))
    assert found["stole"]
    assert found["unknown"] == 0 or not PIDFD_TELLS


def test_without_pidfds_other_code_that_waits_hangs_nothing(program: Build) -> None:
    """F.2: what is told is right, or that nothing is known."""
    found = on_way("without pidfds", ends_beside_a_thief, program("end"))
    assert found["stole"]


# --- F.3: zombies that are not to be had ---------------------------------------------------------


def turns_beside_a_traced_zombie(end: str, tracer: str, no_room: bool) -> dict[str, Any]:
    traced, tracing = Recorder(), Recorder()
    with make_reactor() as reactor:
        child = reactor.spawnProcess(traced, end, [end, "wait", "4"])
        watcher = reactor.spawnProcess(tracing, tracer, [tracer, str(child.pid)])
        run_until(reactor, lambda: tracing.out or tracing.ended)
        if tracing.ended:
            child.loseConnection()
            run_until(reactor, lambda: traced.ended)
            return {"traced": False}
        stat = Path(f"{PROC}/{child.pid}/stat")
        child.closeStdin()
        run_until(reactor, lambda: ") Z " in stat.read_text())
        if no_room:  # to watch anything again
            deny("epoll_ctl", errno.ENOSPC, (1, 1))
        turns = _turns_in(reactor, 0.3)
        told_early = "processExited" in traced.names
        watcher.closeStdin()
        run_until(reactor, lambda: traced.ended and tracing.ended)
    return {"traced": True, "turns": turns, "told early": told_early, "end": end_of(traced)}


def _turns_in(reactor: Any, seconds: float) -> int:
    over: list[bool] = []
    reactor.callLater(seconds, over.append, True)
    turns = 0
    while not over:
        reactor.iterate(seconds)
        turns += 1
    return turns


@pytest.mark.parametrize("no_room", [False, pytest.param(True, marks=needs_seccomp)])
@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_a_zombie_that_a_tracer_holds_is_no_exit_and_does_not_make_the_loop_spin(
    disable: str, no_room: bool, program: Build
) -> None:
    """F.3."""
    args = (program("end"), program("tracer"), no_room)
    found = alone(turns_beside_a_traced_zombie, *args, disable=disable)
    if not found.pop("traced"):
        pytest.skip("may not trace")
    assert found.pop("turns") < 150  # one that spins has tens of thousands
    assert found == {"told early": False, "end": [4, None]}


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_child_that_puts_itself_under_strace_is_told_of_once(program: Build) -> None:
    """F.3: strace -D, where the child is the traced program and not strace."""
    end = program("end")
    args = ["strace", "-D", "-f", "-o", "/dev/null", end, "wait", "6"]
    protocol = Recorder()
    with make_reactor() as reactor:
        transport = reactor.spawnProcess(protocol, "strace", args, env=None)
        transport.closeStdin()
        run_until(reactor, lambda: protocol.ended)
    if protocol.reason.value.exitCode != 6 and b"ptrace" in protocol.err:
        pytest.skip("may not trace")
    assert end_of(protocol) == [6, None]


class Records(logging.Handler):
    """How often something was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        self.lines.append(record.getMessage())


def ends_where_no_wait_is_allowed(end: str, error: int, later: bool) -> dict[str, Any]:
    records = Records()
    logging.getLogger("procreactor").addHandler(records)
    first, second = Recorder(), Recorder()
    with make_reactor() as reactor:
        if not later:
            deny("waitid", error)
        for one in (first, second):
            reactor.spawnProcess(one, end, [end, "wait", "3"])
        if later:
            deny("waitid", error)
        turns = _turns_in(reactor, 0.2)
        told_early = first.names + second.names
        first.transport.closeStdin()
        second.transport.signalProcess("KILL")  # by pidfd, or as /proc shows whose the number is
        run_until(reactor, lambda: first.ended and second.ended)
        turns += _turns_in(reactor, 0.2)
        ends = [end_of(first), end_of(second)]
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, WAIT_FOR_ALL)
    return {
        "turns": turns,
        "early": told_early,
        "ends": ends,
        "logged": len(records.lines),
    }


@needs_seccomp
@pytest.mark.parametrize(("error", "later"), [(errno.EPERM, False), (errno.ENOSYS, True)])
@pytest.mark.parametrize(
    "disable", ["", pytest.param("pidfd", marks=pytest.mark.needs("threads", "/proc"))]
)
def test_where_no_wait_is_allowed_an_end_is_told_once_and_the_loop_does_not_spin(
    disable: str, error: int, later: bool, program: Build
) -> None:
    """F.3, F.1: without a status, and with a line in the log, once. The zombie stays."""
    found = alone(ends_where_no_wait_is_allowed, program("end"), error, later, disable=disable)
    assert found.pop("turns") < 150
    assert found == {
        "early": ["connectionMade", "connectionMade"],
        "ends": [[None, None], [None, None]],
        "logged": 1,
    }


# --- F.4: many -----------------------------------------------------------------------------------


class Exit:
    """A protocol that notes how its child ended, and nothing else."""

    def __init__(self, exits: list[tuple[int | None, int | None]]) -> None:
        self._exits = exits

    def makeConnection(self, transport: Any) -> None:
        """Nothing is to be done with it."""

    def processExited(self, reason: Any) -> None:
        """Note it."""
        self._exits.append((reason.value.exitCode, reason.value.signal))

    def processEnded(self, reason: Any) -> None:
        """Nothing more."""


def reaps_of_many(end: str) -> dict[str, Any]:
    """Run thousands of children, end one, then all at once; count who is asked for its end."""
    asked: list[int] = []
    reap, reap_in = binding.SpawnCall.reap, binding.SpawnCall.reap_in

    def counted(call: binding.SpawnCall, pidfd: int, pid: int) -> Any:
        asked.append(pid)
        return reap(call, pidfd, pid)

    def counted_in(call: binding.SpawnCall, epoll_fd: int) -> Any:
        asked.append(call.pid)
        return reap_in(call, epoll_fd)

    binding.SpawnCall.reap = counted  # type: ignore[method-assign]
    binding.SpawnCall.reap_in = counted_in  # type: ignore[method-assign]
    count, _ = find_room(5000, fds_each=1)
    exits: list[tuple[int | None, int | None]] = []
    theirs, ours = os.pipe()
    args = [end, "wait", "9"]
    with make_reactor() as reactor:
        children = [
            reactor.spawnProcess(Exit(exits), end, args, childFDs={0: theirs}) for _ in range(count)
        ]
        os.close(theirs)
        chosen = children[count // 2]
        pid = chosen.pid
        chosen.signalProcess("KILL")
        run_until(reactor, lambda: exits)
        first = {"exits": list(exits), "asked": asked == [pid]}
        os.close(ours)
        run_until(reactor, lambda: len(exits) == count)
    by_code = sum(code == 9 for code, _ in exits)
    return {
        "first": first,
        "missing": count - 1 - by_code,
        "asked in vain": len(asked) - count,
        "enough": count >= 500,
    }


@pytest.mark.needs("pidfd")  # else a thread of its own waits for each of the thousands
def test_of_thousands_of_children_each_end_costs_one_question(program: Build) -> None:
    """F.4: one of them, and then all at once."""
    found = alone(reaps_of_many, program("end"))
    if not found.pop("enough"):
        pytest.skip("too few processes or fds allowed")
    assert found == {
        "first": {"exits": [[None, signal.SIGKILL]], "asked": True},
        "missing": 0,
        "asked in vain": 0,
    }


# --- F.5: signals to strangers -------------------------------------------------------------------

CLONE_NEWPID, CLONE_NEWNS = 0x20000000, 0x20000
MS_REC_PRIVATE = 1 << 14 | 1 << 18
SYS_CLONE3 = 435


_CLONE_ARGS = """
flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size
"""


class CloneArgs(ctypes.Structure):
    """What clone3 takes, up to set_tid (Linux 5.5)."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _CLONE_ARGS.split())


def start_brother(pid: int, held: int) -> bool:
    """Start a child with the number *pid*, which waits to be killed; False where one may not.

    It has the fd *held*, as a copy of this process.
    """
    number = ctypes.c_int(pid)
    args = CloneArgs(exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(number), set_tid_size=1)
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.syscall(SYS_CLONE3, ctypes.byref(args), ctypes.sizeof(args))
    if made < 0:  # a sandbox denies it: then as the next number that there is
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        except OSError:
            return False
        made = libc.fork()  # os.fork complains of threads
    if made == 0:
        os.setsid()
        while os.getpid() == pid:
            signal.pause()
        os._exit(0)  # others were faster
    if made > 0 and made != pid:
        os.waitpid(made, 0)
    return bool(made == pid)


def start_nephew(pid: int, held: int) -> bool:
    """Do as `start_brother` does; it is the child of a child, which waits as well.

    Of the two only the one with the number holds the fd *held*.
    """
    read_fd, write_fd = os.pipe()
    if os.fork() == 0:
        made = start_brother(pid, held)
        os.close(held)
        os.write(write_fd, b"y" if made else b"n")
        while True:
            signal.pause()
    made = os.read(read_fd, 1) == b"y"
    os.close(read_fd)
    os.close(write_fd)
    return made


STRANGERS = {"brother": start_brother, "nephew": start_nephew}
"""Who has the number next: one whom waitid tells of, and one whom it does not."""


@contextmanager
def stranger(who: str, pid: int) -> Iterator[int | None]:
    """Gives an fd that has an end with one who has the number *pid*; None where none is to be had.

    For the first process of a pid namespace, which nobody outlives.
    """
    begun = processes.ticks_now()
    wait_for(lambda: processes.ticks_now() > begun + 1)  # else it is born when the first one was
    life, held = os.pipe()
    try:
        made = STRANGERS[who](pid, held)
        os.close(held)
        if made:
            wait_for(lambda: os.getsid(pid) == pid)
        yield life if made else None
    finally:
        os.close(life)


def lives(life: int) -> bool:
    return not select.select([life], [], [], 0)[0]


def in_pid_namespace(function: Callable[..., str], *args: object) -> str:
    """Return what *function* returns as the first process of a new pid namespace, with its /proc.

    All others there end with it.
    """
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWPID) != 0:
        return "no namespace"
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "no namespace"
        try:
            mounts = (b"none", b"/", None, MS_REC_PRIVATE), (b"proc", b"/proc", b"proc", 0)
            if not libc.unshare(CLONE_NEWNS) and not any(libc.mount(*it, None) for it in mounts):
                said = function(*args)
        except BaseException as error:
            said = "".join(traceback.format_exception(error))
        finally:
            os.write(write_fd, said.encode())
            os._exit(0)
    os.close(write_fd)
    with open(read_fd) as result:
        said = result.read()
    os.waitpid(pid, 0)
    return said


def signal_to_a_reaped_child(who: str, reaped_by_others: bool, method: str) -> str:
    protocol = Recorder()
    with make_reactor() as reactor:
        # A pipe that stays open after the end: the transport lives on, and can be asked to kill.
        transport = reactor.spawnProcess(protocol, "/bin/sh", ["sh", "-c", "sleep 1000 & exit 3"])
        pid = transport.pid or 0
        if reaped_by_others:
            os.waitpid(pid, 0)
        else:
            run_until(reactor, lambda: "processExited" in protocol.names)
        with stranger(who, pid) as life:
            if life is None:
                return "no stranger"
            try:
                getattr(transport, method)("KILL")
            except ProcessExitedAlready:
                found = "refused"
            else:
                found = "sent"
            run_until(reactor, lambda: "processExited" in protocol.names)
            fate = "lives" if lives(life) else "killed"
    return f"{found}, stranger {fate}, status {transport.status}"


CASES = [
    (who, reaped_by_others, method)
    for who in STRANGERS
    for reaped_by_others in (True, False)
    for method in ("signalProcess", "signalTree")
]


def signals_to_reaped_children() -> str:
    return "\n".join(signal_to_a_reaped_child(*case) for case in CASES)


def signals_among_recycled_numbers(denied: bool) -> list[str]:
    if denied:
        deny("pidfd_send_signal", errno.EPERM)
    return in_pid_namespace(signals_to_reaped_children).splitlines()


@needs_seccomp
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("disable", "denied"),
    [
        pytest.param("", False, id="by pidfd"),
        pytest.param("", True, id="denied"),
        pytest.param("pidfd", False, id="without pidfds", marks=pytest.mark.needs("threads")),
    ],
)
def test_a_signal_after_the_end_never_reaches_who_was_given_the_number_next(
    disable: str, denied: bool
) -> None:
    """F.5: whoever reaped the child, and whether or not we have noticed its end."""
    found = alone(signals_among_recycled_numbers, denied, disable=disable)
    if found[0] in ("no namespace", "no stranger"):
        pytest.skip(found[0])
    by_pidfd = PIDFD_TELLS and "pidfd" in children.in_use() and not disable
    assert found == [
        f"refused, stranger lives, status {-1 if by_others and not by_pidfd else 3 << 8}"
        for _, by_others, _ in CASES
    ]


def undone_when_the_number_is_a_strangers(who: str) -> str:
    """A start that is undone; and a batch that is closed, whose children others have reaped."""
    said = []
    one = Child(plan_command(["/bin/sh", "-c", "exit 3"]))
    one.start(plan_command(["/bin/sh", "-c", "exit 3"]))
    os.waitpid(one.pid, 0)
    with stranger(who, one.pid) as life:
        if life is None:
            return "no stranger"
        for fd in one.ours:
            if fd >= 0:
                os.close(fd)
        one.ours = []
        one.abandon()
        said.append(lives(life))
    loop = EventLoop()
    live: list[Any] = []
    pool = ChildPool(
        loop, pairs_of(list), lambda ended: None, on_live=lambda *a: live.append(a[1]), drain_s=9
    )
    pool.submit(plan_command(["/bin/sh", "-c", "kill -STOP $$; exit 3"]), b"word")
    while not live:
        pool.claim_all()
        loop.run_once(1)
    os.waitpid(live[0].pid, os.WUNTRACED)
    os.kill(live[0].pid, signal.SIGCONT)
    pid = live[0].pid
    os.waitpid(pid, 0)
    with stranger(who, pid) as life:
        if life is None:
            return "no stranger"
        pool.close()
        said.append(lives(life))
    loop.close()
    return str(said)


def undone_for_every_stranger() -> str:
    return "\n".join(map(undone_when_the_number_is_a_strangers, STRANGERS))


def undone_in_a_namespace() -> list[str]:
    return in_pid_namespace(undone_for_every_stranger).splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_what_is_undone_kills_no_stranger_and_waits_for_none(disable: str) -> None:
    """F.5."""
    found = alone(undone_in_a_namespace, disable=disable)
    if found[0] in ("no namespace", "no stranger"):
        pytest.skip(found[0])
    assert found == ["[True, True]", "[True, True]"]


def exit_of_a_brother(end: str) -> str:
    """Whose number is that of a child which others have reaped, and which we know to have ended."""
    first, second = Recorder(), Recorder()
    with make_reactor() as reactor:
        transport = reactor.spawnProcess(first, "/bin/sh", ["sh", "-c", "sleep 1000 & exit 3"])
        pid = transport.pid or 0
        os.waitpid(pid, 0)
        with stranger("brother", pid) as life:
            if life is None:
                return "no stranger"
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            run_until(reactor, lambda: "processExited" in first.names)
            value = next(call[1] for call in first.calls if call[0] == "processExited")
            taken = os.waitpid(pid, 0) != (pid, signal.SIGKILL)
        reactor.spawnProcess(second, end, [end, "exit", "4"])
        run_until(reactor, lambda: second.ended)
    return f"{value.exitCode} {value.signal} {taken} {end_of(second)}"


def exit_of_a_brother_in_a_namespace(end: str) -> str:
    return in_pid_namespace(exit_of_a_brother, end)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_pidfds_the_end_of_who_was_given_the_number_next_is_not_taken_for_the_childs(
    program: Build,
) -> None:
    """F.5, F.2: it stays that one's own."""
    found = alone(exit_of_a_brother_in_a_namespace, program("end"), disable="pidfd")
    if found in ("no namespace", "no stranger"):
        pytest.skip(found)
    assert found == "None None False [4, None]"


# --- F.6, F.7: nothing is left -------------------------------------------------------------------


def pidfds() -> int:
    """Return how many pidfds this process has open."""
    return sum("pidfd" in what for what in open_fds().values())


def fail_often_then_succeed(way: str, end: str) -> list[int | None]:
    before = open_fds()
    with make_reactor() as reactor:
        inside = open_fds()
        for _ in range(100):
            check_refusal(way, reactor)
            assert open_fds() == inside
            assert not child_pids()
            assert reactor.getDelayedCalls() == []
        found = end_of(finish_on(way, reactor, end, [end, "exit", "3"]))
        assert open_fds() == inside
        assert reactor.getReaders() == []
    assert open_fds() == before
    return found


@on_every_way()
def test_a_hundred_failures_leave_no_child_no_fd_and_no_timer_and_then_one_succeeds(
    way: str, program: Build
) -> None:
    """F.6."""
    assert on_way(way, fail_often_then_succeed, program("end")) == [3, None]


@pytest.mark.needs("pidfd")
def test_a_pidfd_is_closed_with_the_exit_before_the_pipes_are(program: Build) -> None:
    """F.7."""
    protocol = Recorder()
    with make_reactor() as reactor:
        args = ["sh", "-c", "cat <&3 & exit 0"]  # a grandchild that holds the output open
        child_fds = {0: "r", 1: "r", 3: "w"}
        transport = reactor.spawnProcess(protocol, "/bin/sh", args, None, childFDs=child_fds)
        assert (pidfds(), transport.pidfd is None) == (1, False)
        run_until(reactor, lambda: "processExited" in protocol.names)
        assert not protocol.ended
        assert (pidfds(), transport.pidfd is None) == (0, True)
        transport.closeChildFD(3)
        run_until(reactor, lambda: protocol.ended)


@pytest.mark.needs("pidfd")
def test_a_pidfd_is_closed_when_the_transport_is_forgotten_with_its_child_alive(
    program: Build,
) -> None:
    """F.7, F.9: the child lives on, unwatched, and is neither signalled nor reaped."""
    end = program("end")
    theirs, ours = os.pipe()
    with make_reactor() as reactor:
        args = (None, end, [end, "wait", "7"])
        pid = reactor.spawnProcess(*args, childFDs={0: theirs}).pid
        assert pid is not None
        assert pidfds() == 1
    del reactor
    gc.collect()
    assert pidfds() == 0
    os.kill(pid, 0)
    os.close(theirs)
    os.close(ours)
    assert os.waitpid(pid, 0) == (pid, 7 << 8)


def spawn_with_no_room_to_watch(way: str, end: str) -> list[Any]:
    protocol = Recorder()
    with make_reactor() as reactor:
        before = open_fds()
        deny("epoll_ctl", errno.ENOSPC, (1, 1))  # fs.epoll.max_user_watches is reached
        with pytest.raises(OSError) as caught:
            spawn_on(way, reactor, protocol, end, [end, "wait", "0"])
        assert open_fds() == before
        assert not child_pids()
        assert protocol.calls == []
    error = caught.value
    return [error.errno, error.stage if isinstance(error, SpawnError) else type(error).__name__]


@on_every_way("plain", "fork", "launcher", "terminal")
def test_a_child_that_cannot_be_watched_is_killed_reaped_and_told_as_a_start_that_failed(
    way: str, program: Build
) -> None:
    """F.7."""
    found = on_way(way, spawn_with_no_room_to_watch, program("end"))
    assert found == [errno.ENOSPC, "watch"]


# --- F.8: what is told ---------------------------------------------------------------------------


def all_codes(way: str, end: str) -> list[list[int | None]]:
    with make_reactor() as reactor:
        return [
            [*end_of(child), child.transport.status]
            for child in (
                finish_on(way, reactor, end, [end, "exit", str(code)]) for code in range(256)
            )
        ]


@on_every_way("plain", "fork", "launcher", "terminal")
def test_every_exit_code_is_told_as_it_is(way: str, program: Build) -> None:
    """F.8."""
    codes = on_way(way, all_codes, program("end"))
    assert codes == [[code, None, code << 8] for code in range(256)]


STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
HARMLESS = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)


def all_signals(way: str, end: str) -> dict[str, list[int | None]]:
    with make_reactor() as reactor:
        return {
            str(number): end_of(
                finish_on(
                    way,
                    reactor,
                    end,
                    [end, "signal", str(number)],
                    rlimits={resource.RLIMIT_CORE: 0},
                )
            )
            for number in range(1, 65)
            if number not in STOPPING
        }


@on_every_way("plain", "fork", "launcher", "terminal")
def test_every_signal_that_kills_is_told_as_it_is(way: str, program: Build) -> None:
    """F.8."""
    ends = on_way(way, all_signals, program("end"))
    for number, end in ends.items():
        expected = [int(number), None] if int(number) in HARMLESS else [None, int(number)]
        assert end == expected, number


def dumped_core(end: str, folder: str) -> list[Any]:
    """Abort twice in *folder*, as a child of ours and as one of os.posix_spawn."""
    os.chdir(folder)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    args = [end, "signal", str(int(signal.SIGABRT))]
    _, expected = os.waitpid(os.posix_spawn(end, args, {}), 0)
    with make_reactor() as reactor:
        child = spawn_and_finish(reactor, end, args)
    status = child.transport._child.status
    assert end_of(child) == [None, signal.SIGABRT]
    assert child.transport.status == expected
    assert status.core_dumped == os.WCOREDUMP(expected)
    return [os.WCOREDUMP(expected), child.reason.value.status == expected]


@pytest.mark.needs("threads")
def test_a_core_dump_is_told_in_the_status(program: Build, tmp_path: Path) -> None:
    """F.8."""
    dumped, same = alone(dumped_core, program("end"), str(tmp_path))
    assert same
    if not dumped:
        pytest.skip("core files are switched off here, as the status says")


def stop_and_go_on(way: str, end: str) -> list[Any]:
    protocol = Recorder()
    with make_reactor() as reactor:
        transport = spawn_on(way, reactor, protocol, end, [end, "wait", "5"])
        stat = Path(f"{PROC}/{transport.pid}/stat")
        transport.signalProcess("STOP")
        wait_for(lambda: ") T " in stat.read_text())
        _turns_in(reactor, 0.05)
        while_stopped = list(protocol.names)
        transport.signalProcess("CONT")
        transport.loseConnection()
        run_until(reactor, lambda: protocol.ended)
    return [while_stopped, end_of(protocol)]


@on_every_way("plain", "without pidfds", "fork", "launcher")
def test_a_stop_is_no_exit(way: str, program: Build) -> None:
    """F.8."""
    found = on_way(way, stop_and_go_on, program("end"))
    assert found == [["connectionMade"], [5, None]]


# --- F.9: copies of the parent -------------------------------------------------------------------


def fork_with_a_live_child(end: str) -> list[Any]:
    protocol = Recorder()
    with make_reactor() as reactor:
        transport = reactor.spawnProcess(protocol, end, [end, "wait", "5"])
        copy = os.fork()
        if copy == 0:
            code = 1
            try:
                code = _be_a_copy(transport, end)
            finally:
                os._exit(code)
        _, status = os.waitpid(copy, 0)
        _turns_in(reactor, 0.05)
        meanwhile = list(protocol.names)
        transport.closeStdin()
        run_until(reactor, lambda: protocol.ended)
    return [os.waitstatus_to_exitcode(status), meanwhile, end_of(protocol)]


def _be_a_copy(transport: Any, end: str) -> int:
    """Return 0 when the copy of a transport does nothing, and children of the copy's own work."""
    try:
        transport.signalProcess("KILL")
    except ChildProcessError:
        pass
    else:
        return 2
    del transport
    gc.collect()
    with make_reactor() as reactor:
        return 0 if spawn_and_finish(reactor, end, [end, "exit", "0"]).ended else 3


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS, "vfork"])
def test_a_copy_of_the_parent_neither_reaps_nor_signals_its_children(
    disable: str, program: Build
) -> None:
    """F.9."""
    found = alone(fork_with_a_live_child, program("end"), disable=disable)
    assert found == [0, ["connectionMade"], [5, None]]


# --- F.10: threads in the child ------------------------------------------------------------------


def ends_of_threaded_children(way: str, threads: str) -> dict[str, list[Any]]:
    found = {}
    with make_reactor() as reactor:
        for case, args in {
            "exec": ["exec", "/bin/sh", "-c", "echo x; read line; exit 5"],
            "survive": ["survive", "5"],
        }.items():
            protocol = Recorder()
            transport = spawn_on(way, reactor, protocol, threads, [threads, *args])
            run_until(reactor, lambda protocol=protocol: protocol.out)  # type: ignore[misc]
            _turns_in(reactor, 0.1)
            while_running = "processExited" in protocol.names
            transport.closeStdin()
            run_until(reactor, lambda protocol=protocol: protocol.ended)  # type: ignore[misc]
            found[case] = [while_running, end_of(protocol)]
    return found


@on_every_way("plain", "without pidfds", "fork", "launcher")
@pytest.mark.needs("threads")
def test_a_process_is_not_over_when_its_first_thread_is(way: str, program: Build) -> None:
    """F.10: another thread lives on, or execs in its place."""
    found = on_way(way, ends_of_threaded_children, program("threads"))
    assert found == {"exec": [False, [5, None]], "survive": [False, [5, None]]}


def test_a_lost_status_has_its_own_words() -> None:
    """F.1: what a program is told that asks for code and signal and gets neither."""
    assert "process ended" in str(ProcessTerminated())
