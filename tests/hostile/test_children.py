"""Hostile and unlucky children: what comes of each, and the tests that show it.

The children are made by tests/programs/hostile.c, and by other programs there. What is said holds
for spawnProcess; for the batch engine (procreactor/apps/batch.py) and for the functions of
procreactor/internet/utils.py too, unless they are named. "The end is told" means: processExited
once, and processEnded once, last. No loop may spin: the tests look whether anything is ready in it.

The table is read by a test at the end of this file. A row is a child, what comes of it, and its
tests: a file below tests/ and a name, or a name in this file.

    floods its outputs and never reads its input
        Each turn reads at most one pipe of each, so others are served. All that it writes arrives.
        A producer is paused above 64 KiB queued; what a plain write() queues is the caller's memory
        and goes with the child. The batch engine keeps as much as limit_bytes says.
            test_a_child_that_floods_and_never_reads_takes_its_turn_and_no_memory
            test_what_is_written_without_a_producer_to_a_child_that_never_reads_is_queued_by_its_writer
            test_a_gib_for_a_batch_with_a_limit_costs_no_more_memory_than_that
            transport/test_reader.py::test_a_stream_that_floods_does_not_keep_another_waiting
            internet/test_utils.py::test_stdinBytes_need_not_be_read
    writes a GiB at once to a paused reader
        The parent grows by no pipe's worth; on resume it comes to the last byte.
            test_a_gib_for_a_paused_reader_stays_where_it_is_and_comes_whole_when_it_resumes
    writes 1 byte at a time
        All arrive, in order.
            test_bytes_that_come_one_by_one_all_come_in_order
    writes nothing and never ends
        Nothing is told and the loop sleeps. loseConnection closes the pipes and is no signal; KILL
        ends it, as do cancelSignal of utils and the close of a batch.
            test_of_a_child_that_writes_nothing_and_never_ends_nothing_is_told_until_it_is_killed
            test_a_deferred_of_a_child_that_never_ends_is_cancelled_with_a_signal
            transport/test_pool.py::test_a_close_kills_what_runs_stubborn_or_stopped_and_tells_nothing
    never reads while much is queued and the connection is lost
        Outputs close at once, the input when all is written: never. KILL ends it; what is queued is
        dropped.
            test_what_is_queued_when_the_connection_is_lost_keeps_the_input_open_and_nothing_else
            transport/test_process_ends.py::test_what_is_queued_for_a_child_that_is_gone_is_dropped
    reads its input a byte at a time
        It gets all of it, also what was queued before the close; the loop sleeps in between.
            test_a_child_that_sips_its_input_gets_all_of_it_and_costs_no_turns_between
    closes its standard fds early and lives on
        childConnectionLost for each at once, processExited and processEnded with its end.
            test_a_pipe_that_a_child_closes_is_told_at_once_and_the_others_with_its_end
            transport/test_pool.py::test_a_child_that_closes_its_streams_early_lives_on_and_its_end_is_told
    writes to its input or reads its output
        EBADF for the child, nothing for us. By way of /proc it can open the other ends, and take
        from its own pipes what is in them; it then ends its own input, not ours.
            test_against_the_direction_of_a_pipe_nothing_moves_and_who_turns_it_takes_only_his_own
    resizes its pipes, or fills up its user's share of pipe memory
        The size is the pipe's, so also ours; all arrives, at the speed that it chose.
            test_a_child_that_resizes_its_pipes_gets_and_gives_all_the_same
            kernel/test_pipes.py::test_a_pipe_is_never_shrunk
            kernel/test_pipes.py::test_a_user_whose_pipes_are_too_large_already_is_refused
    sets O_NONBLOCK, O_ASYNC, an owner, a lock, a lease on its ends
        They are of its open files; ours are others. All arrives.
            test_flags_locks_owners_and_leases_of_the_childs_ends_are_not_those_of_ours
            pitfalls/test_fds_pitfalls.py::test_only_our_ends_of_pipes_do_not_block_and_mapped_fds_keep_their_flags
    keeps its writes apart (O_DIRECT)
        A read takes one of them, whole. All arrives.
            test_a_pipe_that_keeps_its_writes_apart_loses_none_of_them
    gives away pages (vmsplice) and changes them
        It is read as it is at the moment of our read, and as much as it was.
            test_a_page_that_a_child_gives_away_is_read_as_it_is_when_it_is_read
    writes from a page that never comes (userfaultfd, FUSE)
        The kernel holds the lock of its pipe meanwhile, and our read, though it is not to wait,
        waits: a child that may do this (root, or the user of a FUSE mount) holds the reactor until
        it goes on or is killed, by another thread or process. Nobody can refuse it.
            test_a_child_that_writes_from_a_page_that_never_comes_holds_who_reads_until_it_is_killed
    ignores and blocks every signal
        It lives on; KILL ends it. ProcessMonitor sends KILL when killTime is over.
            test_a_child_that_ignores_and_blocks_all_signals_lives_on_after_them_and_is_killed
            runner/test_procmon.py::test_a_process_that_ignores_term_is_killed_when_its_time_is_up
            pitfalls/test_pty_pitfalls.py::test_a_child_that_ignores_the_hang_up_is_waited_for
    stops itself, or is stopped
        No exit is told; CONT lets it go on, KILL ends it even so. A batch runs others meanwhile.
            test_a_child_that_stops_itself_has_not_ended_goes_on_when_told_and_can_be_killed
            test_a_batch_waits_for_a_child_that_stopped_itself_and_with_nothing_else_meanwhile
            pitfalls/test_exit_pitfalls.py::test_a_stop_is_no_exit
    is stopped by its own user between setuid and exec
        It is killed, and the start fails: SpawnError, stage "stopped before exec". Nobody waits.
            test_a_child_that_its_own_user_stops_before_it_has_execed_is_a_start_that_failed
            pitfalls/test_host_pitfalls.py::test_a_user_who_stops_all_his_processes_does_not_stop_the_reactor
            c/test_stages.c::a_child_that_is_stopped_before_it_has_become_the_program_is_killed
            c/test_stages.c::a_launcher_that_is_stopped_is_killed
            c/test_stages.c::a_stopped_child_that_cannot_be_killed_is_handed_over
    is started in a cgroup that its user freezes, or has frozen
        It is killed, and the start fails: SpawnError, stage "frozen before exec". Nobody waits.
            test_a_start_in_a_cgroup_that_is_frozen_fails_and_is_not_waited_for
            test_a_user_who_freezes_and_thaws_the_cgroup_of_his_children_holds_no_start_up
            c/test_cgroup.c::a_child_whose_cgroup_is_frozen_is_not_waited_for
            c/test_cgroup.c::nor_is_one_that_is_frozen_from_above
    dies by a signal, any of 1 to 64
        ProcessTerminated with that signal.
            pitfalls/test_exit_pitfalls.py::test_every_signal_that_kills_is_told_as_it_is
    dumps core
        ProcessTerminated with the signal; the status has the bit for it.
            pitfalls/test_exit_pitfalls.py::test_a_core_dump_is_told_in_the_status
    ends at once
        It is told of once, also where it is gone before the loop has its next turn.
            test_a_thousand_children_that_end_at_once_are_each_told_of_once
            pitfalls/test_signals_pitfalls.py::test_an_exit_that_comes_at_once_is_never_missed
            transport/test_pool.py::test_each_of_many_is_told_once_with_its_number_and_its_end
    leaves a grandchild that holds its pipes
        processExited at once; processEnded when the pipes close, or after loseConnection. What the
        grandchild writes arrives. A Deferred of utils waits for it; a batch for drain_s, a
        ProcessMonitor for drainTime.
            test_an_exit_is_told_though_a_grandchild_holds_all_and_what_that_writes_comes_before_the_end
            test_after_the_exit_a_lost_connection_is_the_end_whoever_holds_the_pipes
            test_a_deferred_waits_for_a_grandchild_that_holds_the_pipes
            test_a_batch_waits_no_longer_than_it_was_told_for_a_grandchild_that_holds_the_streams
            runner/test_procmon.py::test_a_grandchild_that_holds_the_pipes_does_not_keep_its_process_from_being_restarted
            pitfalls/test_pty_pitfalls.py::test_hanging_up_after_the_exit_does_not_wait_for_grandchildren
    sends its fds to a stranger over a unix socket
        As with a grandchild, also while they are on their way. The stranger may read and write.
            test_a_stranger_who_was_sent_the_fds_is_as_a_grandchild
    double-forks and leaves the session
        The end of the child is told as ever. What it leaves gets no signal of ours; one that falls
        to us (we are a subreaper, or pid 1) is left to the program to reap.
            test_a_daemon_that_left_session_and_pipes_is_none_of_ours
            test_orphans_that_fall_to_us_are_left_to_the_program
    is traced by a debugger
        Neither its stops nor a zombie that the debugger holds are an exit; it is told when the
        debugger lets go, or is killed.
            test_a_child_that_a_debugger_holds_has_not_ended_and_goes_on_without_it
            test_a_child_that_is_killed_under_a_debugger_is_told_when_that_lets_go
            pitfalls/test_exit_pitfalls.py::test_a_zombie_that_a_tracer_holds_is_no_exit_and_does_not_make_the_loop_spin
            pitfalls/test_exit_pitfalls.py::test_a_child_that_puts_itself_under_strace_is_told_of_once
            transport/test_pool.py::test_a_zombie_that_a_tracer_holds_is_no_end_and_does_not_make_the_loop_spin
    makes us its tracer (PTRACE_TRACEME)
        Its exit is told as ever. A signal stops it for good, as nobody lets it on; KILL ends it.
            test_a_child_that_makes_us_its_tracer_is_told_as_ever
            test_a_child_that_makes_us_its_tracer_and_stops_is_no_exit_and_can_be_killed
            test_to_a_batch_a_child_that_makes_us_its_tracer_and_stops_has_not_ended
            test_a_batch_tells_the_exit_whatever_a_child_makes_of_itself
    makes itself undumpable, renames itself, unshares, chroots, becomes a subreaper, a leader, idle
        Output and exit are told as ever.
            test_whatever_a_child_makes_of_itself_its_output_and_its_exit_are_told
            test_a_batch_tells_the_exit_whatever_a_child_makes_of_itself
    becomes a user whom we may not signal
        signalProcess raises PermissionError; it is our child all the same. ProcessMonitor logs it.
            test_a_child_that_we_may_not_signal_is_told_so_and_is_our_child_all_the_same
            runner/test_procmon.py::test_a_signal_that_is_refused_is_logged_and_the_others_are_stopped_all_the_same
    execs again and again
        It is one child, with one pid and one end.
            test_a_child_that_becomes_another_program_again_and_again_is_one_child
    ends its first thread before the others, or execs in another thread
        It has ended when the last thread has.
            pitfalls/test_exit_pitfalls.py::test_a_process_is_not_over_when_its_first_thread_is
    signals its parent and its parent's group
        CHLD, CONT, WINCH and URG do nothing, and a handler of the program's interrupts nothing.
        STOP and KILL of the same user nobody can refuse: a parent that is stopped loses nothing
        when it goes on. A child of another user (uid=) may not signal us, and one with a group of
        its own (session, processGroup, usePTY) has only that as its group.
            test_signals_of_a_child_to_its_parent_and_its_group_interrupt_nothing
            test_a_child_that_stops_its_parent_has_stopped_it_and_nothing_is_lost_when_it_goes_on
            test_a_child_of_another_user_may_not_signal_us
            test_a_child_that_kills_its_group_ends_alone_where_that_is_its_own
            pitfalls/test_signals_pitfalls.py::test_killing_the_process_group_during_spawns_ends_children_and_hangs_nothing
    closes its terminal
        Nobody holds the other side: ours is closed, which is HUP for the child. One that has
        opened it again before keeps it.
            test_a_child_that_closes_its_terminal_is_hung_up
            test_a_child_that_reopens_its_terminal_has_it_as_before
    hangs up its terminal (vhangup), or gives it up (TIOCNOTTY)
        Hung up, it is dead for the child, and we are told nothing before the child ends; given up,
        what the child has open stays good.
            test_a_terminal_that_a_child_hangs_up_itself_is_dead_for_it_and_for_us_ends_with_it
            test_a_child_that_gives_up_its_terminal_still_writes_to_it
    types into its own terminal (TIOCSTI)
        It reads what it typed, and we get the echo.
            test_what_a_child_types_into_its_own_terminal_is_echoed_to_us_and_read_by_it
    sets its terminal raw and floods it without a newline
        Bounded as with pipes; all arrives. The end is told once.
            test_a_raw_terminal_that_is_flooded_without_a_newline_costs_no_memory_and_loses_nothing
            pitfalls/test_pty_pitfalls.py::test_much_output_right_before_the_exit_is_not_lost
            pitfalls/test_pty_pitfalls.py::test_the_end_is_told_once_and_the_pipes_end_never
            internet/test_process.py::test_a_paused_terminal_whose_child_is_gone_does_not_make_the_loop_spin
    does not read its terminal
        Raw: as a pipe, a producer is paused, and loseConnection hangs up when all is written, which
        is never; KILL ends it. In line mode the kernel keeps 4,095 bytes of a line, and no more.
            test_what_is_typed_at_a_raw_terminal_that_nobody_reads_pauses_its_producer
            test_a_line_that_is_too_long_for_a_terminal_is_cut_by_the_kernel_and_blocks_nobody
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import re
import select
import signal
import socket
import struct
import tempfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from alone import alone
from deferreds import watched_reactor
from held import held_copy, wait_for
from named import missing, names_in
from programs_build import build_program
from support import DEADLINE_S, LACKS, PROC, Recorder, make_reactor, run_until, spawn_and_finish

from procreactor.apps.batch import plan_command, run_batch
from procreactor.errors import SpawnError
from procreactor.internet import utils
from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.error import ProcessExitedAlready
from procreactor.kernel import cgroups
from procreactor.model import Identity
from procreactor.transport.writer import HIGH_WATER_BYTES

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

NOBODY = 65534

SLACK_BYTES = 12 * MIB
"""How much this process may grow in a test of bounded memory: code that runs for the first time,
what malloc keeps, and at most a few pipes full. What flows is many times that."""

WRONG, REFUSED = 100, 101
"""Exit codes of the program: see tests/programs/hostile.c."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# --- Children, and how they are talked to ---------------------------------------------------------


def is_readable(fd: int, within_s: float = DEADLINE_S) -> bool:
    """Whether *fd* is, or becomes, readable."""
    ready = select.poll()
    ready.register(fd, select.POLLIN)
    return bool(ready.poll(within_s * 1000))


class Line:
    """What one child says, and where it is let on: beside its pipes, and outside of the loop."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(DEADLINE_S)

    def hear(self, least: int = 1) -> bytes:
        """Return what is said next, *least* bytes; fewer once all who hold the line are gone."""
        said = b""
        while len(said) < least and (more := self._connection.recv(4096)):
            said += more
        return said

    @property
    def is_open(self) -> bool:
        """Whether nothing was said, and somebody is still there to say it."""
        return not is_readable(self._connection.fileno(), 0)

    def let_on(self) -> None:
        """Let the child do its next step."""
        self._connection.sendall(b"g")

    def close(self) -> None:
        """Let the child do all that it still has to."""
        self._connection.close()


class Gate:
    """Where children of hostile.c report: an abstract unix socket. Closing it lets them all on."""

    def __init__(self) -> None:
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind("")  # the kernel finds a name
        self._door.listen()
        self._door.settimeout(DEADLINE_S)
        self._lines: list[Line] = []
        self.name = self._door.getsockname()[1:].decode()

    def meet(self) -> Line:
        """Return the line to the next child that comes."""
        self._lines.append(Line(self._door.accept()[0]))
        return self._lines[-1]

    def close(self) -> None:
        """Hang up on all."""
        for line in self._lines:
            line.close()
        self._door.close()


@contextlib.contextmanager
def reactor_and_gate() -> Iterator[tuple[EPollReactor, Gate]]:
    with make_reactor() as reactor, contextlib.closing(Gate()) as gate:
        yield reactor, gate


@pytest.fixture
def reactor() -> Iterator[EPollReactor]:
    with make_reactor() as made:
        yield made


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


def command(gate: Gate | None, *words: object, program: str = "") -> list[str]:
    """The arguments of ``hostile WORDS``; *program* is its path, where it is not to be built."""
    name = gate.name if gate else "-"
    return [program or build_program("hostile"), name, *map(str, words)]


def start(
    reactor: Any,
    gate: Gate | None,
    *words: object,
    protocol: Any = None,
    program: str = "",
    **kwargs: Any,
) -> tuple[Any, Any]:
    """Start ``hostile WORDS``; return its protocol (a `Recorder` unless given) and transport."""
    protocol = protocol if protocol is not None else Recorder()
    args = command(gate, *words, program=program)
    return protocol, reactor.spawnProcess(protocol, args[0], args, **kwargs)


def finish(reactor: Any, child: Any) -> list[int | None]:
    """Run until *child* has ended; return its exit code and signal, told as they should be."""
    run_until(reactor, lambda: child.ended)
    assert child.names[0] == "connectionMade"
    assert child.names.count("processExited") == 1
    assert child.names.count("processEnded") == 1
    assert child.names[-1] == "processEnded"
    value = child.reason.value
    if value.exitCode == REFUSED:
        pytest.skip("the kernel, or what we run in, does not let a child do this")
    return [value.exitCode, value.signal]


def goes_quiet(reactor: Any) -> bool:
    """Whether the loop soon has nothing to do; with one that spins something is always ready."""
    for _ in range(3):
        reactor.iterate(0)  # calls that wait for the next turn are not to be seen from outside
    for _ in range(100):
        if not is_readable(reactor._loop.epoll_fd, 0):
            return True
        reactor.iterate(0)
    return False


def wait_stopped(pid: int | None) -> None:
    """Return once our child *pid* is stopped; it stays to be told."""
    assert pid is not None
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


def wait_dead(pid: int | None) -> None:
    """Return once our child *pid* has ended; it stays to be reaped."""
    assert pid is not None
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


PATTERNS = {fd: bytes((7 * i + fd) % 251 for i in range(251)) * (MIB // 251 + 2) for fd in range(3)}


def pattern(fd: int, size: int) -> bytes:
    """The first *size* bytes that hostile.c and say.c write to *fd*."""
    return (PATTERNS[fd] * (size // MIB + 1))[:size] if size > MIB else PATTERNS[fd][:size]


def name_of(function: Any) -> str:
    return str(function.__name__)


class Kept(Recorder):
    """Keeps what comes of fd 1 in the pieces that it came in, be they many."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[bytes] = []

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        assert childFD == 1
        self.chunks.append(data)


class Checked(Recorder):
    """Counts what comes and checks that it is the pattern; keeps nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {1: 0, 2: 0}
        self.right = True

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        at = self.counts[childFD] % 251
        self.right = self.right and PATTERNS[childFD].startswith(data, at)
        self.counts[childFD] += len(data)


def peak_bytes() -> int:
    """The most memory that this process has ever had; of an exec'ed one, since its exec."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(PROC, "self/status").read_text())
    assert found is not None
    return int(found[1]) * KIB


def unread_bytes(fd: int) -> int:
    """How much can be read of *fd*."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])


class Endless:
    """A push producer that has more and more, of a KiB each, until it is paused."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.paused = self.stopped = False
        self.produced_bytes = 0
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused and not self.stopped and self.produced_bytes < 64 * MIB:
            self._transport.write(b"x" * KIB)
            self.produced_bytes += KIB

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.stopped = True


# --- Floods ---------------------------------------------------------------------------------------


class PingPong(Recorder):
    """Sends a byte through `cat`, again and again."""

    rounds = 0

    def connectionMade(self) -> None:
        self.transport.write(b"x")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.rounds += 1
        self.transport.write(data)


def serve_others_in_a_flood(program: str) -> dict[str, Any]:
    with reactor_and_gate() as (reactor, gate):
        before = peak_bytes()
        child, transport = start(reactor, gate, "flood", protocol=Checked(), program=program)
        line = gate.meet()
        other = PingPong()
        cat = reactor.spawnProcess(other, "/bin/cat")
        producer = Endless(transport)
        queued = transport._child.writer(0).queued_bytes
        run_until(reactor, lambda: other.rounds >= 300 and child.counts[2] >= 64 * MIB)
        cat.loseConnection()
        line.let_on()
        end = finish(reactor, child)
        run_until(reactor, lambda: other.ended)
        wrote = int(line.hear())
    return {
        "end": end,
        "right": child.right,
        "all": child.counts == {1: wrote, 2: wrote},
        "paused": producer.paused,
        "stopped": producer.stopped,
        "produced": producer.produced_bytes,
        "queued": queued,
        "grown": peak_bytes() - before,
    }


def test_a_child_that_floods_and_never_reads_takes_its_turn_and_no_memory() -> None:
    """What is for it comes of a producer, which is paused."""
    found = alone(serve_others_in_a_flood, build_program("hostile"))
    assert found.pop("grown") < SLACK_BYTES
    assert 0 < found.pop("queued") <= HIGH_WATER_BYTES + KIB
    assert found.pop("produced") <= 64 * KIB + HIGH_WATER_BYTES + KIB  # a pipe, and the queue
    assert found == {"end": [0, None], "right": True, "all": True, "paused": True, "stopped": True}


def test_what_is_written_without_a_producer_to_a_child_that_never_reads_is_queued_by_its_writer(
    reactor: EPollReactor, gate: Gate
) -> None:
    """All of it: nobody was asked to pause. It goes with the child."""
    child, transport = start(reactor, gate, "silent")
    assert gate.meet().hear() == b"s"
    transport.write(b"x" * 8 * MIB)
    writer = transport._child.writer(0)
    assert 8 * MIB - MIB <= writer.queued_bytes < 8 * MIB
    assert goes_quiet(reactor)
    assert child.names == ["connectionMade"]
    transport.signalProcess("KILL")
    assert finish(reactor, child) == [None, signal.SIGKILL]
    assert writer.queued_bytes == 0


def read_a_paused_gib(say: str) -> dict[str, Any]:
    with make_reactor() as reactor:
        child = Checked()
        transport = reactor.spawnProcess(child, say, [say, str(GIB), "0", "4"])
        transport.pauseProducing()
        before = peak_bytes()
        ours = transport.pipes[1].fileno()
        room = fcntl.fcntl(ours, fcntl.F_GETPIPE_SZ)
        wait_for(lambda: unread_bytes(ours) > room - 4096)  # its last page may not be full
        quiet = goes_quiet(reactor) and child.counts[1] == 0
        pauses = 0
        transport.resumeProducing()
        while not child.ended:
            seen = child.counts[1]
            run_until(reactor, lambda seen=seen: child.ended or child.counts[1] > seen + 32 * MIB)  # type: ignore[misc]
            transport.pauseProducing()
            pauses += 1
            assert goes_quiet(reactor)
            transport.resumeProducing()
    return {
        "end": finish(reactor, child),
        "quiet": quiet,
        "pauses": pauses > 20,
        "right": child.right,
        "missing": GIB - child.counts[1],
        "grown": peak_bytes() - before,
    }


def test_a_gib_for_a_paused_reader_stays_where_it_is_and_comes_whole_when_it_resumes() -> None:
    found = alone(read_a_paused_gib, build_program("say"))
    assert found.pop("grown") < SLACK_BYTES
    assert found == {"end": [4, None], "quiet": True, "pauses": True, "right": True, "missing": 0}


def collect_a_gib(say: str, limit_bytes: int) -> dict[str, Any]:
    before = peak_bytes()
    spec = plan_command([say, str(GIB), "1000", "4"])
    (outcome,) = run_batch([spec], at_once=1, limit_bytes=limit_bytes)
    assert outcome.status is not None
    return {
        "code": outcome.status.code,
        "begins": outcome.stdout.startswith(pattern(1, 1000)),
        "dropped": outcome.dropped_bytes,
        "error": outcome.stderr == pattern(2, 1000),
        "grown": peak_bytes() - before,
    }


def test_a_gib_for_a_batch_with_a_limit_costs_no_more_memory_than_that() -> None:
    found = alone(collect_a_gib, build_program("say"), MIB)
    assert found.pop("grown") < SLACK_BYTES
    assert found == {"code": 4, "begins": True, "dropped": GIB - MIB, "error": True}


DRIPS = 100_000


def dripped_to_a_protocol(reactor: Any) -> bytes:
    child, _ = start(reactor, None, "drip", DRIPS, protocol=Kept())
    assert finish(reactor, child) == [0, None]
    return b"".join(child.chunks)


def dripped_to_a_deferred(reactor: Any) -> bytes:
    program, *args = command(None, "drip", DRIPS)
    found: list[Any] = []
    utils.getProcessOutputAndValue(program, args, reactor=reactor).addBoth(found.append)
    run_until(reactor, lambda: found)
    out, err, code = found[0]
    assert (err, code) == (b"", 0)
    return bytes(out)


def dripped_to_a_batch(reactor: Any) -> bytes:
    (outcome,) = run_batch([plan_command(command(None, "drip", DRIPS))], at_once=1)
    assert outcome.status is not None
    assert outcome.status.ok
    return outcome.stdout


@pytest.mark.parametrize(
    "drip",
    [dripped_to_a_protocol, dripped_to_a_deferred, dripped_to_a_batch],
    ids=name_of,
)
def test_bytes_that_come_one_by_one_all_come_in_order(reactor: EPollReactor, drip: Any) -> None:
    assert drip(reactor) == pattern(1, DRIPS)


def test_of_a_child_that_writes_nothing_and_never_ends_nothing_is_told_until_it_is_killed(
    reactor: EPollReactor, gate: Gate
) -> None:
    """Closing its pipes is no end either, where it does not mind."""
    child, transport = start(reactor, gate, "stubborn")
    line = gate.meet()
    assert line.hear() == b"s"
    assert goes_quiet(reactor)
    assert child.names == ["connectionMade"]
    transport.loseConnection()
    run_until(reactor, lambda: len(child.calls) == 4)
    line.let_on()
    assert line.hear() == b"!"  # it lives
    assert goes_quiet(reactor)
    assert child.calls[1:] == [("childConnectionLost", fd) for fd in (0, 2, 1)]
    transport.signalProcess("KILL")
    assert finish(reactor, child) == [None, signal.SIGKILL]


def test_a_deferred_of_a_child_that_never_ends_is_cancelled_with_a_signal(gate: Gate) -> None:
    program, *args = command(gate, "silent")
    get, failures = utils.getProcessOutputAndValue, list[Any]()
    with watched_reactor() as reactor:
        deferred = get(program, args, reactor=reactor, cancelSignal="KILL")
        deferred.addErrback(failures.append)
        line = gate.meet()
        assert line.hear() == b"s"
        deferred.cancel()
        assert len(failures) == 1
        assert line.hear() == b""  # it is gone
        reactor.run_out()


# --- Input that is not wanted ---------------------------------------------------------------------


def test_what_is_queued_when_the_connection_is_lost_keeps_the_input_open_and_nothing_else(
    reactor: EPollReactor, gate: Gate
) -> None:
    """For a child that never reads, that is for ever; it can be killed."""
    child, transport = start(reactor, gate, "stubborn")
    line = gate.meet()
    assert line.hear() == b"s"
    transport.write(b"x" * MIB)
    transport.loseConnection()
    run_until(reactor, lambda: len(child.calls) == 3)
    line.let_on()
    assert line.hear() == b"!"  # it lives
    assert goes_quiet(reactor)
    assert child.calls[1:] == [("childConnectionLost", 2), ("childConnectionLost", 1)]
    transport.signalProcess("KILL")
    assert finish(reactor, child) == [None, signal.SIGKILL]
    assert child.names.count("childConnectionLost") == 3


def test_a_child_that_sips_its_input_gets_all_of_it_and_costs_no_turns_between(
    reactor: EPollReactor, gate: Gate
) -> None:
    """Also what was queued when its input was closed."""
    child, transport = start(reactor, gate, "sip")
    line = gate.meet()
    assert line.hear() == b"s"
    transport.write(pattern(0, MIB))
    transport.closeStdin()
    for _ in range(100):
        line.let_on()
        assert line.hear() == b"."
        assert goes_quiet(reactor)
    assert transport._child.writer(0).queued_bytes >= MIB - 256 * KIB
    line.close()
    assert finish(reactor, child) == [0, None]
    assert child.out == str(MIB).encode()


# --- fds that are closed, reversed, given away ----------------------------------------------------


@pytest.mark.parametrize("closed", ["0", "1", "2", "01", "12", "012"])
def test_a_pipe_that_a_child_closes_is_told_at_once_and_the_others_with_its_end(
    reactor: EPollReactor, gate: Gate, closed: str
) -> None:
    child, transport = start(reactor, gate, "close", closed)
    line = gate.meet()
    assert line.hear() == b"c"
    run_until(reactor, lambda: len(child.calls) == 1 + len(closed))
    assert goes_quiet(reactor)
    lost = {("childConnectionLost", int(fd)) for fd in closed}
    assert child.calls[0] == ("connectionMade",)
    assert set(child.calls[1:]) == lost
    transport.signalProcess(0)  # it lives
    transport.write(b"not lost on us")
    assert goes_quiet(reactor)
    line.let_on()
    assert finish(reactor, child) == [5, None]
    assert child.names.count("childConnectionLost") == 3
    assert len(child.calls) == 6


def test_against_the_direction_of_a_pipe_nothing_moves_and_who_turns_it_takes_only_his_own(
    reactor: EPollReactor, gate: Gate
) -> None:
    """EBADF for the child. By /proc it can have the other ends, and then what is in its pipes."""
    child, transport = start(reactor, gate, "wrong way")
    line = gate.meet()
    assert line.hear(3)[:2] == bytes([errno.EBADF, errno.EBADF])
    assert goes_quiet(reactor)
    assert child.calls == [("connectionMade",)]
    transport.closeStdin()
    transport.closeStdout()
    run_until(reactor, lambda: len(child.calls) == 3)
    assert goes_quiet(reactor)
    line.close()
    assert finish(reactor, child) == [0, None]
    assert child.data == {}


@pytest.mark.parametrize("size", [4096, MIB])
def test_a_child_that_resizes_its_pipes_gets_and_gives_all_the_same(
    reactor: EPollReactor, gate: Gate, size: int
) -> None:
    """The size is the pipe's, so ours as well."""
    child, transport = start(reactor, gate, "resize", size, protocol=Checked())
    assert gate.meet().hear() == b"r"
    transport.write(pattern(1, 3 * MIB))
    run_until(reactor, lambda: child.counts[1] == 3 * MIB)
    assert goes_quiet(reactor)
    transport.closeStdin()
    assert finish(reactor, child) == [0, None]
    assert child.right
    assert child.counts == {1: 3 * MIB, 2: 0}


def flags_of(transport: Any) -> list[int]:
    return [fcntl.fcntl(pipe.fileno(), fcntl.F_GETFL) for pipe in transport.pipes.values()]


def test_flags_locks_owners_and_leases_of_the_childs_ends_are_not_those_of_ours(
    reactor: EPollReactor, gate: Gate
) -> None:
    """Signals for us at each of our reads (SIGURG here) are all that it can have."""
    child, transport = start(reactor, gate, "flags", protocol=Checked())
    before = flags_of(transport)
    assert gate.meet().hear() == b"f"
    assert flags_of(transport) == before
    owners = [fcntl.fcntl(pipe.fileno(), fcntl.F_GETOWN) for pipe in transport.pipes.values()]
    assert owners == [0, 0, 0]
    transport.write(pattern(1, MIB))
    transport.closeStdin()
    assert finish(reactor, child) == [0, None]
    assert child.right
    assert child.counts[1] == MIB


def packets_to_a_protocol(reactor: Any, words: list[object]) -> bytes:
    child, _ = start(reactor, None, *words, protocol=Kept())
    assert finish(reactor, child) == [0, None]
    return b"".join(child.chunks)


def packets_to_a_batch(reactor: Any, words: list[object]) -> bytes:
    (outcome,) = run_batch([plan_command(command(None, *words))], at_once=1)
    assert outcome.status is not None
    if outcome.status.code == REFUSED:
        pytest.skip("pipes may not be grown here")
    assert outcome.status.ok
    return outcome.stdout


@pytest.mark.parametrize(("size", "count"), [(4000, 250), (4096, 250), (1000, 5000)])
@pytest.mark.parametrize("collect", [packets_to_a_protocol, packets_to_a_batch], ids=name_of)
def test_a_pipe_that_keeps_its_writes_apart_loses_none_of_them(
    reactor: EPollReactor, collect: Any, size: int, count: int
) -> None:
    """O_DIRECT: what a read has no room for of one write is gone."""
    assert collect(reactor, ["packets", size, count]) == pattern(1, size * count)


def test_a_page_that_a_child_gives_away_is_read_as_it_is_when_it_is_read(
    reactor: EPollReactor, gate: Gate
) -> None:
    """vmsplice: the child may change it until then; never how much it is."""
    child, _ = start(reactor, gate, "page")
    line = gate.meet()
    assert line.hear() == b"b"
    run_until(reactor, lambda: len(child.out) == 4096)
    assert child.out == b"b" * 4096
    line.let_on()
    assert finish(reactor, child) == [0, None]
    assert len(child.out) == 4096


def state_of_thread(number: int) -> str:
    return Path(f"{PROC}/self/task/{number}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.needs("threads")
def test_a_child_that_writes_from_a_page_that_never_comes_holds_who_reads_until_it_is_killed(
    reactor: EPollReactor, gate: Gate
) -> None:
    """By the lock of its pipe: O_NONBLOCK is of no use. Another thread may kill the child."""
    child, transport = start(reactor, gate, "hold")
    line = gate.meet()
    if not line.hear():
        assert finish(reactor, child)[0] == REFUSED  # which skips
    reader, pid, told = threading.get_native_id(), transport.pid, list[bytes]()

    def kill_when_held() -> None:
        wait_for(lambda: state_of_thread(reader) == "D" or told)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_when_held)
    thread.start()
    reactor.iterate(DEADLINE_S)
    told.append(child.out)
    thread.join()
    assert finish(reactor, child) == [None, signal.SIGKILL]
    assert child.out == b"x"
    line.let_on()
    assert line.hear() == b""


# --- Ends that are not ends, and ends that are not seen -------------------------------------------


def test_a_child_that_ignores_and_blocks_all_signals_lives_on_after_them_and_is_killed(
    reactor: EPollReactor, gate: Gate
) -> None:
    child, transport = start(reactor, gate, "stubborn")
    line = gate.meet()
    assert line.hear() == b"s"
    last = 63 if "signal 64" in LACKS else 64
    for name in ("TERM", "INT", "HUP", "QUIT", "ABRT", "TSTP", "USR1", 34, last):
        transport.signalProcess(name)
    line.let_on()
    assert line.hear() == b"!"
    assert goes_quiet(reactor)
    assert child.names == ["connectionMade"]
    transport.signalProcess("KILL")
    assert finish(reactor, child) == [None, signal.SIGKILL]
    with pytest.raises(ProcessExitedAlready):
        transport.signalProcess("KILL")


@pytest.mark.parametrize("use_pty", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("then", ["CONT", "KILL"])
def test_a_child_that_stops_itself_has_not_ended_goes_on_when_told_and_can_be_killed(
    reactor: EPollReactor, then: str, use_pty: bool
) -> None:
    child, transport = start(reactor, None, "stop", usePTY=use_pty)
    wait_stopped(transport.pid)
    assert goes_quiet(reactor)
    assert child.names == ["connectionMade"]
    transport.signalProcess(then)
    assert finish(reactor, child) == ([5, None] if then == "CONT" else [None, signal.SIGKILL])
    assert child.out == (b"on" if then == "CONT" else b"")


def test_a_batch_waits_for_a_child_that_stopped_itself_and_with_nothing_else_meanwhile(
    gate: Gate,
) -> None:
    """Others end, and it is told when it goes on; one that never does is killed by a close."""
    stops, quick = plan_command(command(gate, "stop", "told")), plan_command(["/bin/true"])
    outcomes = run_batch([stops, *[quick] * 20, stops], at_once=2, threads=2)
    assert {next(outcomes).spec is quick for _ in range(20)} == {True}
    pid = int(gate.meet().hear())
    wait_stopped(pid)
    os.kill(pid, signal.SIGCONT)
    went_on = next(outcomes)
    assert (went_on.number, went_on.status and went_on.status.code, went_on.stdout) == (0, 5, b"on")
    wait_stopped(int(gate.meet().hear()))
    outcomes.close()  # type: ignore[attr-defined]


def refusal_of_a_spawn(path: str, uid: int) -> SpawnError:
    child = Recorder()
    with make_reactor() as reactor, pytest.raises(SpawnError) as caught:
        reactor.spawnProcess(child, path, uid=uid, gid=uid)
    assert child.names == []
    return caught.value


def refusal_of_a_batch(path: str, uid: int) -> SpawnError:
    spec = plan_command([path]).replace(identity=Identity(uid, uid, ()))
    (outcome,) = run_batch([spec], at_once=1)
    assert outcome.error is not None
    return outcome.error


def stage_of_a_start_that_its_user_stops(program: str, refusal: str) -> list[Any]:
    """Stop it as that user, when it is that user already and the exec waits for us."""
    uid = 1_000_000 + os.getpid()  # one that nobody else stops, or is
    reached, tell = os.pipe()
    stopper = os.fork()
    if stopper == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.read(reached, 1)
        os.kill(-1, signal.SIGSTOP)  # all that may be signalled, but for this one
        os._exit(0)
    with tempfile.TemporaryDirectory(prefix="public-") as name:
        Path(name).chmod(0o755)
        with held_copy(program, Path(name, "held")) as held:

            def tell_stopper() -> None:
                held.wait_until_reached()
                os.write(tell, b"x")

            thread = threading.Thread(target=tell_stopper)
            thread.start()
            error = globals()[refusal](held.path, uid)
            thread.join()
    code = os.waitstatus_to_exitcode(os.waitpid(stopper, 0)[1])
    os.close(reached)
    os.close(tell)
    return [error.stage, code]


@needs_root
@pytest.mark.parametrize("disable", ["", "helper"])
@pytest.mark.parametrize("refusal", [refusal_of_a_spawn, refusal_of_a_batch], ids=name_of)
def test_a_child_that_its_own_user_stops_before_it_has_execed_is_a_start_that_failed(
    refusal: Any, disable: str
) -> None:
    """Certainly stopped there, by lease and not by luck. It is killed, and nobody waits."""
    args = (build_program("end"), refusal.__name__)
    found = alone(stage_of_a_start_that_its_user_stops, *args, disable=disable)
    assert found == ["stopped before exec", 0]


@contextlib.contextmanager
def a_cgroup() -> Iterator[Path]:
    """One that is thawed after a while: a start that waits for it fails the test, and ends."""
    home = cgroups.open_home()
    group = home.new_group()
    path = Path(group.path)
    group.close()
    rescue = threading.Timer(DEADLINE_S, Path(path, "cgroup.freeze").write_text, ["0"])
    rescue.start()
    try:
        yield path
    finally:
        rescue.cancel()
        rescue.join()
        Path(path, "cgroup.freeze").write_text("0")
        wait_for(home.close)


def refusal_in_a_group_by_a_spawn(group: Path, **kwargs: Any) -> SpawnError:
    child = Recorder()
    with make_reactor() as reactor, pytest.raises(SpawnError) as caught:
        reactor.spawnProcess(child, "/bin/true", cgroup=group, **kwargs)
    assert child.names == []
    assert caught.value.filename == str(group)
    return caught.value


def refusal_in_a_group_by_a_batch(group: Path, uid: int | None = None) -> SpawnError:
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    identity = None if uid is None else Identity(uid, uid, ())
    spec = plan_command(["/bin/true"]).replace(identity=identity, cgroup_fd=fd)
    (outcome,) = run_batch([spec], at_once=1)
    os.close(fd)
    assert outcome.error is not None
    return outcome.error


def stage_in_a_frozen_group(refusal: str, uid: int | None) -> list[Any]:
    with a_cgroup() as group:
        Path(group, "cgroup.freeze").write_text("1")
        error = globals()[refusal](group, **({} if uid is None else {"uid": uid}))
        return [error.stage, error.errno, Path(group, "cgroup.procs").read_text()]


@pytest.mark.needs("cgroup")
@pytest.mark.parametrize("disable", ["", "clone3", "vfork"])
@pytest.mark.parametrize("uid", [None, pytest.param(NOBODY, marks=needs_root)])
@pytest.mark.parametrize(
    "refusal", [refusal_in_a_group_by_a_spawn, refusal_in_a_group_by_a_batch], ids=name_of
)
def test_a_start_in_a_cgroup_that_is_frozen_fails_and_is_not_waited_for(
    refusal: Any, uid: int | None, disable: str
) -> None:
    found = alone(stage_in_a_frozen_group, refusal.__name__, uid, disable=disable)
    assert found == ["frozen before exec", errno.EBUSY, ""]


@contextlib.contextmanager
def a_user_who_freezes_and_thaws(group: Path) -> Iterator[None]:
    """The group is his, as systemd's Delegate= makes it."""
    uid = 1_000_000 + os.getpid()
    for path in (group, *group.iterdir()):
        os.chown(path, uid, uid)
    pid = os.fork()
    if pid == 0:
        try:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            fd = os.open(Path(group, "cgroup.freeze"), os.O_WRONLY)
            for word in itertools.cycle([b"1", b"0"]):
                os.write(fd, word)
                os.sched_yield()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def stages_under_a_freezing_user(count: int) -> list[str]:
    """Return what came of each start: of one that failed, its stage."""
    found: list[str] = []
    children: list[Recorder] = []
    with a_cgroup() as group, make_reactor() as reactor:
        with a_user_who_freezes_and_thaws(group):
            for _ in range(count):
                child = Recorder()
                try:
                    reactor.spawnProcess(child, "/bin/true", cgroup=group)
                except SpawnError as error:
                    found.append(error.stage)
                else:
                    found.append("started")
                    children.append(child)
        Path(group, "cgroup.freeze").write_text("0")
        run_until(reactor, lambda: all(child.ended for child in children))
    return found


@needs_root
@pytest.mark.needs("cgroup")
def test_a_user_who_freezes_and_thaws_the_cgroup_of_his_children_holds_no_start_up() -> None:
    found = alone(stages_under_a_freezing_user, 100)
    assert len(found) == 100
    assert set(found) <= {"started", "frozen before exec"}


def test_a_thousand_children_that_end_at_once_are_each_told_of_once(reactor: EPollReactor) -> None:
    end = build_program("end")
    children = [Recorder() for _ in range(1000)]
    for first in range(0, 1000, 100):
        some = children[first : first + 100]
        for number, child in enumerate(some):
            reactor.spawnProcess(child, end, [end, "exit", str(number)])
        run_until(reactor, lambda some=some: all(child.ended for child in some))  # type: ignore[misc]
    assert goes_quiet(reactor)
    codes = [finish(reactor, child)[0] for child in children]
    assert codes == [number % 100 for number in range(1000)]
    assert {len(child.calls) for child in children} == {6}


def test_a_child_that_becomes_another_program_again_and_again_is_one_child(
    reactor: EPollReactor,
) -> None:
    child, transport = start(reactor, None, "exec", 200)
    pid = transport.pid
    wait_dead(pid)
    assert transport.pid == pid
    assert finish(reactor, child) == [8, None]


ODD = [
    "undumpable",
    "renamed",
    "subreaper",
    "a leader",
    "idle",
    "another user",
    "chrooted",
    "unshared",
    "in a user namespace",
]


@pytest.mark.parametrize("how", ODD)
def test_whatever_a_child_makes_of_itself_its_output_and_its_exit_are_told(
    reactor: EPollReactor, how: str
) -> None:
    child, _ = start(reactor, None, "odd", how)
    assert finish(reactor, child) == [6, None]
    assert child.out == how.encode()
    assert len(child.calls) == 7


def test_a_batch_tells_the_exit_whatever_a_child_makes_of_itself(gate: Gate) -> None:
    """Its children are those of threads, which may be gone when they end."""
    commands = [command(None, "odd", how) for how in ODD]
    commands += [command(gate, "traced", "exit"), command(None, "exec", 20)]
    found = sorted(run_batch(map(plan_command, commands), at_once=4))
    codes = [one.status.code if one.status else None for one in found]
    expected = [*[6] * len(ODD), 6, 8]
    allowed = [
        code if code != REFUSED else wanted for code, wanted in zip(codes, expected, strict=True)
    ]
    assert allowed == expected
    for how, code, one in zip([*ODD, "exit"], codes, found, strict=False):
        assert one.stdout == (how.encode() if code == 6 else b"")


def refused_signal(program: str) -> list[Any]:
    with reactor_and_gate() as (reactor, gate):
        child, transport = start(reactor, gate, "close", "0", program=program)
        line = gate.meet()
        line.hear()
        os.setresuid(NOBODY, NOBODY, 0)
        try:
            transport.signalProcess("KILL")
        except PermissionError:
            refused = True
        else:
            refused = False
        os.setresuid(0, 0, 0)
        quiet = goes_quiet(reactor)
        names = child.names[:2]
        line.let_on()
        return [refused, quiet, names, finish(reactor, child)]


@needs_root
def test_a_child_that_we_may_not_signal_is_told_so_and_is_our_child_all_the_same() -> None:
    """As sudo and its like are."""
    names = ["connectionMade", "childConnectionLost"]
    assert alone(refused_signal, build_program("hostile")) == [True, True, names, [5, None]]


# --- Traced ---------------------------------------------------------------------------------------


def test_a_child_that_makes_us_its_tracer_is_told_as_ever(
    reactor: EPollReactor, gate: Gate
) -> None:
    child, _ = start(reactor, gate, "traced", "exit")
    assert finish(reactor, child) == [6, None]


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_a_child_that_makes_us_its_tracer_and_stops_is_no_exit_and_can_be_killed(
    reactor: EPollReactor, gate: Gate, how: str
) -> None:
    """Nobody lets it go on from there; CONT is not for such stops. To waitid such a stop is news
    though it is not asked for, also of one that has left its pipes and might have ended."""
    child, transport = start(reactor, gate, "traced", how)
    if gate.meet().hear():
        stat = Path(PROC, str(transport.pid), "stat")
        wait_for(lambda: ") t " in stat.read_text())  # to wait for it would take the news from us
        run_until(reactor, lambda: len(child.calls) == (4 if how == "leave" else 2))
        assert goes_quiet(reactor)
        assert "processExited" not in child.names
        transport.signalProcess("CONT")
        assert goes_quiet(reactor)
        assert "processExited" not in child.names
        transport.signalProcess("KILL")
    assert finish(reactor, child) == [None, signal.SIGKILL]


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_to_a_batch_a_child_that_makes_us_its_tracer_and_stops_has_not_ended(
    gate: Gate, how: str
) -> None:
    commands = [command(gate, "traced", how), *[["/bin/true"]] * 20]
    outcomes = run_batch(map(plan_command, commands), at_once=2)
    numbers = [next(outcomes).number for _ in range(20)]
    said = gate.meet().hear()
    if not said:
        pytest.skip("may not trace")
    assert sorted(numbers) == list(range(1, 21))
    os.kill(int(said), signal.SIGKILL)
    (last,) = outcomes
    assert (last.number, last.status and last.status.signal) == (0, signal.SIGKILL)


def test_a_child_that_a_debugger_holds_has_not_ended_and_goes_on_without_it(
    reactor: EPollReactor, gate: Gate
) -> None:
    end = build_program("end")
    child = Recorder()
    transport = reactor.spawnProcess(child, end, [end, "wait", "4"])
    debugger, its = start(reactor, gate, "trace", transport.pid)
    if gate.meet().hear() == b"t":
        transport.closeStdin()
        assert goes_quiet(reactor)
        assert "processExited" not in child.names
        its.signalProcess("KILL")
    else:
        transport.closeStdin()
    assert finish(reactor, child) == [4, None]
    assert finish(reactor, debugger) == [None, signal.SIGKILL]


def test_a_child_that_is_killed_under_a_debugger_is_told_when_that_lets_go(
    reactor: EPollReactor, gate: Gate
) -> None:
    """The debugger has it first, and may be killed too."""
    child, transport = start(reactor, gate, "silent")
    assert gate.meet().hear() == b"s"
    debugger, its = start(reactor, gate, "trace", transport.pid)
    line = gate.meet()
    if line.hear() == b"t":
        transport.signalProcess("KILL")
        stat = Path(PROC, str(transport.pid), "stat")
        wait_for(lambda: ") Z " in stat.read_text())
        assert goes_quiet(reactor)
        assert "processExited" not in child.names
        its.signalProcess("KILL")
    else:
        transport.signalProcess("KILL")
    assert finish(reactor, child) == [None, signal.SIGKILL]
    assert finish(reactor, debugger) == [None, signal.SIGKILL]


# --- Those whom it leaves behind ------------------------------------------------------------------


@pytest.mark.parametrize("use_pty", [False, True], ids=["pipes", "terminal"])
def test_an_exit_is_told_though_a_grandchild_holds_all_and_what_that_writes_comes_before_the_end(
    reactor: EPollReactor, gate: Gate, use_pty: bool
) -> None:
    child, transport = start(reactor, gate, "grandchild", usePTY=use_pty)
    line = gate.meet()
    assert line.hear() == b"g"
    run_until(reactor, lambda: "processExited" in child.names)
    assert goes_quiet(reactor)
    assert child.names == ["connectionMade", "processExited"]
    assert transport.pid is None
    line.let_on()
    run_until(reactor, lambda: child.ended)
    assert finish(reactor, child) == [3, None]
    assert child.out == b"late"


def test_after_the_exit_a_lost_connection_is_the_end_whoever_holds_the_pipes(
    reactor: EPollReactor, gate: Gate
) -> None:
    child, transport = start(reactor, gate, "grandchild")
    line = gate.meet()
    assert line.hear() == b"g"
    run_until(reactor, lambda: "processExited" in child.names)
    transport.loseConnection()
    assert finish(reactor, child) == [3, None]
    assert line.is_open  # the grandchild lives
    line.let_on()
    assert line.hear() == b""


def test_a_deferred_waits_for_a_grandchild_that_holds_the_pipes(gate: Gate) -> None:
    program, *args = command(gate, "grandchild")
    found: list[Any] = []
    with watched_reactor() as reactor:
        utils.getProcessOutputAndValue(program, args, reactor=reactor).addBoth(found.append)
        line = gate.meet()
        assert line.hear() == b"g"
        run_until(reactor, lambda: reactor.spawned[0].pid is None)
        assert goes_quiet(reactor)
        assert found == []
        line.let_on()
        run_until(reactor, lambda: found)
    assert found == [(b"late", b"", 3)]


def test_a_batch_waits_no_longer_than_it_was_told_for_a_grandchild_that_holds_the_streams(
    gate: Gate,
) -> None:
    spec = plan_command(command(gate, "grandchild"))
    (outcome,) = run_batch([spec], at_once=1, drain_s=0.01)
    assert outcome.status is not None
    assert outcome.status.code == 3
    line = gate.meet()
    assert line.hear() == b"g"
    assert line.is_open
    line.let_on()
    assert line.hear() == b""


@pytest.mark.parametrize("use_pty", [False, True], ids=["pipes", "terminal"])
def test_a_daemon_that_left_session_and_pipes_is_none_of_ours(
    reactor: EPollReactor, gate: Gate, use_pty: bool
) -> None:
    """Its parent's end is told as if it were not there; no signal of ours reaches it."""
    child, transport = start(reactor, gate, "daemon", usePTY=use_pty)
    line = gate.meet()
    line.hear()
    assert finish(reactor, child) == [3, None]
    with pytest.raises(ProcessExitedAlready):
        transport.signalProcess("KILL")
    line.let_on()
    assert line.hear() == b"!"


PR_SET_CHILD_SUBREAPER = 36


def orphan_of_a_subreaper(program: str) -> list[Any]:
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    with reactor_and_gate() as (reactor, gate):
        child, _ = start(reactor, gate, "daemon", program=program)
        line = gate.meet()
        pid = int(line.hear())
        end = finish(reactor, child)
        line.close()
        wait_dead(pid)
        quiet = goes_quiet(reactor)
        return [end, quiet, os.waitpid(pid, 0) == (pid, 9 << 8)]


def test_orphans_that_fall_to_us_are_left_to_the_program() -> None:
    """A subreaper, or pid 1 of a container: neither reaped nor told of."""
    assert alone(orphan_of_a_subreaper, build_program("hostile")) == [[3, None], True, True]


@pytest.mark.parametrize("received", [True, False], ids=["received", "on their way"])
@pytest.mark.parametrize("who_lets_go", ["the stranger", "we"])
def test_a_stranger_who_was_sent_the_fds_is_as_a_grandchild(
    reactor: EPollReactor, received: bool, who_lets_go: str
) -> None:
    stranger, theirs = socket.socketpair()
    child, transport = start(
        reactor, None, "send away", childFDs={0: "w", 1: "r", 2: "r", 7: theirs.fileno()}
    )
    theirs.close()
    run_until(reactor, lambda: "processExited" in child.names)
    assert goes_quiet(reactor)
    assert child.names == ["connectionMade", "processExited"]
    held: list[int] = []
    if received:
        held = socket.recv_fds(stranger, 1, 3)[1]
        transport.write(b"for the stranger")
        assert os.read(held[0], 100) == b"for the stranger"
        os.write(held[1], b"from the stranger")
        run_until(reactor, lambda: child.out)
        assert goes_quiet(reactor)
        assert child.names[2:] == ["childDataReceived"]
    if who_lets_go == "we":
        transport.loseConnection()
        run_until(reactor, lambda: child.ended)
    for fd in held:
        os.close(fd)
    stranger.close()
    assert finish(reactor, child) == [3, None]
    assert child.out == (b"from the stranger" if received else b"")


# --- Signals to us --------------------------------------------------------------------------------


def storm_of_signals(program: str, rounds: int) -> dict[str, Any]:
    handled: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    with make_reactor() as reactor:
        child, _ = start(reactor, None, "signals", rounds, protocol=Checked(), program=program)
        end = finish(reactor, child)
        again = spawn_and_finish(reactor, "/bin/true").reason.value.exitCode
    return {
        "end": end,
        "right": child.right,
        "missing": rounds - child.counts[1],
        "handled": 0 < len(handled) <= rounds,
        "again": again,
    }


def test_signals_of_a_child_to_its_parent_and_its_group_interrupt_nothing() -> None:
    """CHLD, CONT, WINCH, URG, and one with a handler of the program's own."""
    found = alone(storm_of_signals, build_program("hostile"), 2000)
    assert found == {"end": [0, None], "right": True, "missing": 0, "handled": True, "again": 0}


def stopped_by_a_child(program: str) -> list[Any]:
    with make_reactor() as reactor:
        child, _ = start(reactor, None, "stop parent", program=program)
        return [finish(reactor, child), child.out.decode()]


def test_a_child_that_stops_its_parent_has_stopped_it_and_nothing_is_lost_when_it_goes_on() -> None:
    """Nobody can refuse STOP or KILL of the same user; another uid, with uid=, keeps them away."""
    assert alone(stopped_by_a_child, build_program("hostile")) == [[5, None], "meanwhile"]


def refusals_of_signals_from_another_user() -> str:
    script = "for number in 1 9 15 19 23; do kill -$number $PPID 2>&- || echo refused; done"
    with make_reactor() as reactor:
        child = spawn_and_finish(reactor, "/bin/sh", ["sh", "-c", script], uid=NOBODY, gid=NOBODY)
        return str(child.out.decode())


@needs_root
def test_a_child_of_another_user_may_not_signal_us() -> None:
    assert alone(refusals_of_signals_from_another_user) == "refused\n" * 5


@pytest.mark.parametrize("where", [{"session": True}, {"processGroup": 0}, {"usePTY": True}])
def test_a_child_that_kills_its_group_ends_alone_where_that_is_its_own(
    reactor: EPollReactor, where: Any
) -> None:
    child, _ = start(reactor, None, "kill group", int(signal.SIGKILL), **where)
    assert finish(reactor, child) == [None, signal.SIGKILL]


# --- Terminals ------------------------------------------------------------------------------------


def on_terminal(reactor: Any, gate: Gate | None, *words: object, **kwargs: Any) -> tuple[Any, Any]:
    return start(reactor, gate, "terminal", *words, usePTY=True, **kwargs)


def test_a_child_that_closes_its_terminal_is_hung_up(reactor: EPollReactor, gate: Gate) -> None:
    """Nobody holds the other side, which is the end of ours; the kernel sends it HUP for that."""
    child, _ = on_terminal(reactor, gate, "leave")
    assert finish(reactor, child) == [None, signal.SIGHUP]
    assert child.names == ["connectionMade", "processExited", "processEnded"]


def test_a_child_that_reopens_its_terminal_has_it_as_before(
    reactor: EPollReactor, gate: Gate
) -> None:
    child, _ = on_terminal(reactor, gate, "reopen")
    line = gate.meet()
    assert line.hear() == b"c"
    assert goes_quiet(reactor)
    line.let_on()
    assert finish(reactor, child) == [5, None]
    assert child.out == b"again"


def test_a_terminal_that_a_child_hangs_up_itself_is_dead_for_it_and_for_us_ends_with_it(
    reactor: EPollReactor, gate: Gate
) -> None:
    """vhangup, which needs root: the kernel tells our side of the terminal nothing."""
    child, transport = on_terminal(reactor, gate, "hang up")
    line = gate.meet()
    if line.hear() == b"h":
        transport.write(b"to nobody")
        assert goes_quiet(reactor)
        assert child.names == ["connectionMade"]
        line.let_on()
    assert finish(reactor, child) == [5, None]
    assert child.names == ["connectionMade", "processExited", "processEnded"]


def test_a_child_that_gives_up_its_terminal_still_writes_to_it(
    reactor: EPollReactor, gate: Gate
) -> None:
    """TIOCNOTTY: it is no longer that of its session, and what it has open stays open."""
    child, _ = on_terminal(reactor, gate, "give up")
    line = gate.meet()
    assert line.hear() == b"n"
    assert goes_quiet(reactor)
    line.let_on()
    assert finish(reactor, child) == [5, None]
    assert child.out == b"still"


def test_what_a_child_types_into_its_own_terminal_is_echoed_to_us_and_read_by_it(
    reactor: EPollReactor,
) -> None:
    """TIOCSTI, where the kernel still has it."""
    child, _ = on_terminal(reactor, None, "type")
    assert finish(reactor, child) == [5, None]
    assert child.out == b"x\r\n"


FLOOD_BYTES = 16 * MIB


def flood_of_a_terminal(program: str) -> dict[str, Any]:
    with make_reactor() as reactor:
        child, transport = on_terminal(
            reactor, None, "flood", FLOOD_BYTES, protocol=Checked(), program=program
        )
        transport.pauseProducing()
        before = peak_bytes()
        assert is_readable(transport.fileno())
        quiet = goes_quiet(reactor) and child.counts[1] == 0
        transport.resumeProducing()
        end = finish(reactor, child)
    return {
        "end": end,
        "quiet": quiet,
        "right": child.right,
        "missing": FLOOD_BYTES - child.counts[1],
        "grown": peak_bytes() - before,
    }


def test_a_raw_terminal_that_is_flooded_without_a_newline_costs_no_memory_and_loses_nothing() -> (
    None
):
    found = alone(flood_of_a_terminal, build_program("hostile"))
    assert found.pop("grown") < SLACK_BYTES
    assert found == {"end": [5, None], "quiet": True, "right": True, "missing": 0}


def test_what_is_typed_at_a_raw_terminal_that_nobody_reads_pauses_its_producer(
    reactor: EPollReactor, gate: Gate
) -> None:
    child, transport = on_terminal(reactor, gate, "ignore")
    line = gate.meet()
    assert line.hear() == b"i"
    producer = Endless(transport)
    assert goes_quiet(reactor)
    assert producer.paused
    assert transport._child.writer.queued_bytes <= HIGH_WATER_BYTES + KIB
    transport.loseConnection()  # when all is written, which here is never
    assert goes_quiet(reactor)
    assert transport.fileno() >= 0
    assert child.names == ["connectionMade"]
    transport.signalProcess("KILL")
    assert finish(reactor, child) == [None, signal.SIGKILL]
    assert producer.stopped


def test_a_line_that_is_too_long_for_a_terminal_is_cut_by_the_kernel_and_blocks_nobody(
    reactor: EPollReactor, gate: Gate
) -> None:
    """In line mode it keeps 4,095 bytes until the newline comes, and the rest is dropped."""
    child, transport = on_terminal(reactor, gate, "line", protocol=Checked())
    line = gate.meet()
    assert line.hear() == b"l"
    transport.write(b"x" * MIB)
    run_until(reactor, lambda: not transport._child.writer.queued_bytes)
    transport.write(b"\n")
    run_until(reactor, lambda: not transport._child.writer.queued_bytes)
    run_until(reactor, lambda: goes_quiet(reactor))
    line.let_on()
    assert int(line.hear()) == 4096
    assert finish(reactor, child) == [5, None]


# --- The table ------------------------------------------------------------------------------------


class Row(NamedTuple):
    child: str
    outcome: str
    tests: list[str]


def rows() -> list[Row]:
    """The table at the head of this file."""
    found: list[Row] = []
    for text in (__doc__ or "").splitlines():
        depth, words = len(text) - len(text.lstrip()), text.strip()
        if depth == 4:
            found.append(Row(words, "", []))
        elif depth == 8:
            found[-1] = found[-1]._replace(outcome=f"{found[-1].outcome} {words}".strip())
        elif depth == 12:
            found[-1].tests.append(words)
    return found


def test_every_row_says_what_comes_of_the_child_and_names_its_tests() -> None:
    assert len(rows()) > 20
    assert [row.child for row in rows() if not row.outcome or not row.tests] == []


def test_every_test_that_the_table_names_exists() -> None:
    named = [test.rpartition("::") for row in rows() for test in row.tests]
    assert missing([(place or "hostile/test_children.py", name) for place, _, name in named]) == []


def test_every_test_of_a_child_is_named_by_the_table() -> None:
    named = {test for row in rows() for test in row.tests}
    here = {name for name in names_in(Path(__file__)) if name.startswith("test_")}
    about_the_table = {name for name in here if "table" in name or "_row_" in name}
    assert here - about_the_table - named == set()
