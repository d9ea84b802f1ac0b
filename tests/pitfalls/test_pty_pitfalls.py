"""Children on a pseudo terminal: each pitfall that was met elsewhere, as a test.

A terminal is a pipe with a mind of its own: it belongs to a session, it echoes, it turns newlines
into two bytes, and its end is an error (EIO) that comes once the last holder of the slave is gone,
whoever that is. The pitfalls are numbered G.1 to G.6; each test says which is its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fdtables import ChildTables, file_of, own_table
from mounts import mount, needs_mounts, private_mounts, unmount
from support import PYTHON, Recorder, make_reactor, run_until, spawn_and_finish
from ways import NOBODY, finish_on, on_every_way, on_way, spawn_on

from procreactor.errors import SpawnError
from procreactor.internet.error import ProcessExitedAlready

Build = Callable[[str], str]

ON_TERMINALS = ("terminal", "terminal by fork")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def reactor() -> Iterator[Any]:
    with make_reactor() as made:
        yield made


def on_terminal(reactor: Any, script: str, **kwargs: Any) -> Recorder:
    """The recorder of a shell on a terminal, which has ended."""
    child = Recorder()
    env = {"PATH": "/usr/bin:/bin"}
    reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", script], env, usePTY=True, **kwargs)
    run_until(reactor, lambda: child.ended)
    return child


def wait_for_output(reactor: Any, child: Recorder, text: bytes) -> None:
    run_until(reactor, lambda: text in child.out)


# --- G.1: a session with the terminal as its own -------------------------------------------------

SAY_WHO = """
import os
terminal = os.open("/dev/tty", os.O_RDWR)
same = all(os.ttyname(fd) == os.ttyname(0) for fd in (0, 1, 2))
group = os.tcgetpgrp(terminal)
print(os.getpid(), os.getsid(0), os.getpgrp(), group, int(same), int(os.isatty(0)))
"""


def who_is_on_the_terminal(way: str) -> list[int]:
    with make_reactor() as reactor:
        args = [PYTHON, "-I", "-S", "-c", SAY_WHO]
        return list(map(int, finish_on(way, reactor, PYTHON, args).out.split()))


@on_every_way(*ON_TERMINALS)
def test_the_child_leads_a_session_whose_terminal_is_its_own(way: str) -> None:
    """G.1: setsid, TIOCSCTTY, tcgetpgrp, /dev/tty."""
    pid, session, group, foreground, same, is_terminal = on_way(way, who_is_on_the_terminal)
    assert session == group == foreground == pid
    assert same
    assert is_terminal


def test_the_terminal_becomes_nobody_elses(reactor: Any) -> None:
    """G.1: not this process's, and not that of a child on pipes that starts beside."""
    child = Recorder()
    transport = reactor.spawnProcess(child, "/bin/cat", ["cat"], usePTY=True)
    open_it = ["sh", "-c", ": < /dev/tty"]
    code = spawn_and_finish(reactor, "/bin/sh", open_it, session=True).reason.value.exitCode
    assert code != 0
    transport.loseConnection()
    run_until(reactor, lambda: child.ended)


def test_keys_that_signal_reach_the_foreground(reactor: Any) -> None:
    """G.1."""
    child = Recorder()
    transport = reactor.spawnProcess(
        child, "/bin/sh", ["sh", "-c", "echo ready; exec sleep 600"], None, usePTY=True
    )
    wait_for_output(reactor, child, b"ready")
    transport.write(b"\x03")
    run_until(reactor, lambda: child.ended)
    assert child.reason.value.signal == signal.SIGINT


@needs_root
@pytest.mark.parametrize("disable", ["", "helper"])
def test_a_child_of_another_user_has_the_terminal_too(disable: str, program: Build) -> None:
    """G.1: the session is made while we may, and the identity changes after."""
    uid, foreground = alone(foreground_of_another_user, program("facts"), disable=disable)
    assert uid == NOBODY
    assert foreground == 1


def foreground_of_another_user(facts: str) -> list[int]:
    with make_reactor() as reactor:
        child = spawn_and_finish(reactor, facts, usePTY=True, uid=NOBODY, gid=NOBODY)
        said = dict(line.split(":", 1) for line in child.out.decode().splitlines())
        return [int(said["Uid"].split()[0]), int(said["Foreground"])]


# --- G.2: the end, and nothing lost before it ----------------------------------------------------


def outputs_of_quick_children(way: str, count: int) -> list[str]:
    with make_reactor() as reactor:
        children = [Recorder() for _ in range(count)]
        for child in children:
            spawn_on(way, reactor, child, "/bin/echo", ["echo", "all of it"])
        run_until(reactor, lambda: all(child.ended for child in children))
        assert all(child.names[0] == "connectionMade" for child in children)
        return [child.out.decode() for child in children]


@on_every_way(*ON_TERMINALS)
def test_what_a_child_writes_before_it_exits_at_once_is_not_lost(way: str) -> None:
    """G.2: the end of a terminal is EIO, after all output was read."""
    assert on_way(way, outputs_of_quick_children, 40) == ["all of it\r\n"] * 40


def test_much_output_right_before_the_exit_is_not_lost(reactor: Any) -> None:
    """G.2: more than the terminal buffers, so that the child ends while we still read."""
    script = "stty -opost; i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890; "
    child = on_terminal(reactor, script + "i=$((i+1)); done")
    assert child.out == b"0123456789012345678901234567890\n" * 3000
    assert child.reason.value.exitCode == 0


def test_output_while_reading_is_paused_is_kept(reactor: Any) -> None:
    """G.2."""
    child = Recorder()
    transport = reactor.spawnProcess(child, "/bin/echo", ["echo", "kept"], usePTY=True)
    transport.pauseProducing()
    run_until(reactor, lambda: "processExited" in child.names)
    assert child.out == b""
    transport.resumeProducing()
    run_until(reactor, lambda: child.ended)
    assert child.out == b"kept\r\n"


def test_the_end_is_told_once_and_the_pipes_end_never(reactor: Any) -> None:
    """G.2: childConnectionLost is of pipes, as in Twisted."""
    child = on_terminal(reactor, "exit 3")
    assert child.names == ["connectionMade", "processExited", "processEnded"]
    assert child.reason.value.exitCode == 3


# --- G.3: whose the fds are ----------------------------------------------------------------------


def test_the_slave_is_closed_in_the_parent_and_the_master_is_not_inherited(reactor: Any) -> None:
    """G.3."""
    before = set(own_table())
    child = Recorder()
    transport = reactor.spawnProcess(child, "/bin/cat", ["cat"], usePTY=True)
    made = {fd: entry for fd, entry in own_table().items() if fd not in before}
    terminals = {fd for fd in made if os.isatty(fd)}
    assert terminals == {transport.fileno()}
    assert all(entry.close_on_exec for entry in made.values())
    transport.loseConnection()
    run_until(reactor, lambda: child.ended)
    assert transport.fileno() == -1


def three_times_the_slave(way: str, program: str, report: str) -> list[list[int]]:
    with make_reactor() as reactor:
        finish_on(way, reactor, program, [program, report, "1024"])
        table = ChildTables(None, "", Path(report), way).read()
    assert len({entry.file for entry in table.values()}) == 1
    return [[fd, entry.access_mode, entry.non_blocking] for fd, entry in table.items()]


@on_every_way(*ON_TERMINALS)
def test_the_child_has_the_slave_as_0_1_and_2_and_nothing_else(
    way: str, program: Build, tmp_path: Path
) -> None:
    """G.3: the master above all would keep the child from ever being hung up."""
    found = on_way(way, three_times_the_slave, program("fdtable"), str(tmp_path / "report"))
    assert found == [[fd, os.O_RDWR, False] for fd in (0, 1, 2)]


@contextmanager
def pair() -> Iterator[tuple[int, int]]:
    """A terminal of the test's own; what of it was taken over is not closed here."""
    master, slave = os.openpty()
    files = {fd: file_of(fd) for fd in (master, slave)}
    yield master, slave
    for fd, file in files.items():
        if fd in own_table() and file_of(fd) == file:
            os.close(fd)


def test_a_terminal_that_was_given_is_taken_over(reactor: Any) -> None:
    """G.3: the slave is closed after the start, the master at the end."""
    with pair() as (master, slave):
        child = Recorder()
        transport = reactor.spawnProcess(
            child, "/bin/echo", ["echo", "hello"], usePTY=(master, slave, "name")
        )
        assert transport.fileno() == master
        assert slave not in own_table()
        run_until(reactor, lambda: child.ended)
        assert master not in own_table()
    assert child.out == b"hello\r\n"


@pytest.mark.parametrize("given", [False, True], ids=["ours", "given"])
def test_a_start_that_fails_leaves_no_terminal_and_takes_none(reactor: Any, given: bool) -> None:
    """G.3."""
    with pair() as fds:
        before = own_table()
        for executable, path in (("/nonexistent", None), ("/bin/true", "/nonexistent")):
            with pytest.raises(SpawnError):
                reactor.spawnProcess(
                    Recorder(), executable, path=path, usePTY=(*fds, "name") if given else True
                )
        assert own_table() == before


def test_a_given_pair_that_is_no_terminal_is_refused_and_left_alone(reactor: Any) -> None:
    """G.3."""
    read_end, write_end = os.pipe()
    before = own_table()
    with pytest.raises(SpawnError) as caught:
        reactor.spawnProcess(Recorder(), "/bin/true", usePTY=(write_end, read_end, "name"))
    assert caught.value.stage == "controlling terminal"
    assert own_table() == before
    os.close(read_end)
    os.close(write_end)


def test_terminals_beside_each_other_do_not_hold_each_other(reactor: Any) -> None:
    """G.3: the end of one comes though the others live."""
    lasting = [Recorder() for _ in range(3)]
    transports = [
        reactor.spawnProcess(child, "/bin/cat", ["cat"], usePTY=True) for child in lasting
    ]
    assert on_terminal(reactor, "echo done").out == b"done\r\n"
    for transport in transports:
        transport.loseConnection()
    run_until(reactor, lambda: all(child.ended for child in lasting))


# --- G.4: modes and size -------------------------------------------------------------------------


def test_the_terminal_echoes_and_turns_newlines_into_two_bytes(reactor: Any) -> None:
    """G.4: the kernel's defaults, as children of Twisted get them."""
    child = Recorder()
    transport = reactor.spawnProcess(
        child, "/bin/sh", ["sh", "-c", "read x; echo got $x"], None, usePTY=True
    )
    transport.write(b"typed\n")
    run_until(reactor, lambda: child.ended)
    assert child.out == b"typed\r\ngot typed\r\n"


@pytest.mark.parametrize(
    ("size", "said"), [(None, b"0 0"), ((24, 80), b"24 80"), ((1, 65535), b"1 65535")]
)
def test_the_size_is_the_given_one_or_unknown(reactor: Any, size: Any, said: bytes) -> None:
    """G.4."""
    kwargs = {} if size is None else {"windowSize": size}
    assert on_terminal(reactor, "stty size", **kwargs).out.strip() == said


def test_a_child_that_turned_the_echo_off_is_not_echoed(reactor: Any) -> None:
    """G.4."""
    child = Recorder()
    script = "stty -echo; echo ready; read x; echo got $x"
    transport = reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", script], None, usePTY=True)
    wait_for_output(reactor, child, b"ready")
    transport.write(b"secret\n")
    run_until(reactor, lambda: child.ended)
    assert child.out == b"ready\r\ngot secret\r\n"


def test_the_size_can_be_changed_through_the_master(reactor: Any) -> None:
    """G.4: and the child is told so by SIGWINCH."""
    child = Recorder()
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do read x; done"
    transport = reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", script], None, usePTY=True)
    wait_for_output(reactor, child, b"ready")
    fcntl.ioctl(transport.fileno(), termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
    transport.write(b"\n")  # a shell looks at its traps when the read is over
    run_until(reactor, lambda: child.ended)
    assert b"40 100" in child.out


# --- G.5: hanging up -----------------------------------------------------------------------------


def test_hanging_up_is_told_to_the_child(reactor: Any) -> None:
    """G.5."""
    child = Recorder()
    transport = reactor.spawnProcess(
        child, "/bin/sh", ["sh", "-c", "echo ready; exec sleep 600"], None, usePTY=True
    )
    wait_for_output(reactor, child, b"ready")
    transport.loseConnection()
    run_until(reactor, lambda: child.ended)
    assert child.reason.value.signal == signal.SIGHUP
    with pytest.raises(ProcessExitedAlready):
        transport.signalProcess("HUP")


def test_what_was_written_before_the_hang_up_arrives(reactor: Any, tmp_path: Path) -> None:
    """G.5."""
    child = Recorder()
    script = f"trap '' HUP; stty raw -echo; echo ready; head -c 3000 > {tmp_path}/got"
    transport = reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", script], None, usePTY=True)
    wait_for_output(reactor, child, b"ready")
    transport.write(b"x" * 3000)
    run_until(reactor, lambda: not transport._child.writer.queued_bytes)
    run_until(reactor, lambda: child.ended)
    assert (tmp_path / "got").read_bytes() == b"x" * 3000


IGNORES_HANG_UP = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.write(1, b"ready")
try:
    while os.read(0, 100):
        pass
except OSError:
    pass  # after a hang-up a read gives the end, or EIO
os._exit(42)
"""


def test_a_child_that_ignores_the_hang_up_is_waited_for(reactor: Any) -> None:
    """G.5: its reads end and its writes fail, but it lives for as long as it likes."""
    child = Recorder()
    transport = reactor.spawnProcess(
        child, PYTHON, [PYTHON, "-I", "-S", "-c", IGNORES_HANG_UP], None, usePTY=True
    )
    wait_for_output(reactor, child, b"ready")
    transport.loseConnection()
    run_until(reactor, lambda: child.ended)
    assert child.reason.value.exitCode == 42


GRANDCHILD = "trap '' HUP; (echo here; exec sleep 600) & echo $!; exit 7"


def test_a_grandchild_on_the_terminal_keeps_it_open_and_the_exit_is_told_before(
    reactor: Any,
) -> None:
    """G.5."""
    child = Recorder()
    transport = reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", GRANDCHILD], None, usePTY=True)
    run_until(reactor, lambda: "processExited" in child.names and b"here" in child.out)
    assert not child.ended
    assert transport.pid is None
    grandchild = next(int(line) for line in child.out.split() if line.isdigit())
    os.kill(grandchild, signal.SIGKILL)
    run_until(reactor, lambda: child.ended)
    assert child.reason.value.exitCode == 7


def test_hanging_up_after_the_exit_does_not_wait_for_grandchildren(reactor: Any) -> None:
    """G.5."""
    child = Recorder()
    transport = reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", GRANDCHILD], None, usePTY=True)
    run_until(reactor, lambda: "processExited" in child.names and b"here" in child.out)
    transport.loseConnection()
    run_until(reactor, lambda: child.ended)
    os.kill(next(int(line) for line in child.out.split() if line.isdigit()), signal.SIGKILL)


# --- G.6: no terminal to be had ------------------------------------------------------------------


def without_devpts() -> list[str]:
    master, slave = os.openpty()
    private_mounts()
    unmount("/dev/pts")
    with make_reactor() as reactor:
        before = own_table()
        with pytest.raises(SpawnError) as caught:
            reactor.spawnProcess(Recorder(), "/bin/true", usePTY=True)
        assert own_table() == before
        child = Recorder()
        reactor.spawnProcess(
            child, "/bin/echo", ["echo", "still here"], usePTY=(master, slave, "name")
        )
        run_until(reactor, lambda: child.ended)
        return [caught.value.stage, caught.value.hint, child.out.decode()]


@needs_mounts
def test_without_devpts_the_refusal_says_so_and_a_given_terminal_still_works() -> None:
    """G.6: what another mount namespace mounted."""
    stage, hint, said = alone(without_devpts)
    assert stage == "open pty"
    assert "devpts" in hint
    assert said == "still here\r\n"


def in_a_private_devpts() -> list[str]:
    """A devpts of its own, over the first: names mean other terminals there."""
    private_mounts()
    unmount("/dev/pts")
    mount("devpts", "/dev/pts", "newinstance,ptmxmode=0666")
    with make_reactor() as reactor:
        return [on_terminal(reactor, "tty; : > /dev/tty && echo writable").out.decode()]


@needs_mounts
def test_in_a_devpts_of_its_own_a_child_gets_a_terminal_of_that() -> None:
    """G.6."""
    (said,) = alone(in_a_private_devpts)
    assert said == "/dev/pts/0\r\nwritable\r\n"


def without_room() -> list[str]:
    stages = []
    with make_reactor() as reactor:
        before = own_table()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        with pytest.raises(SpawnError) as caught:
            reactor.spawnProcess(Recorder(), "/bin/true", usePTY=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.errno == errno.EMFILE
        stages.append(caught.value.stage)
        assert own_table() == before
    return stages


def test_without_room_for_a_terminal_the_refusal_says_so() -> None:
    """G.6."""
    assert alone(without_room) == ["open pty"]
