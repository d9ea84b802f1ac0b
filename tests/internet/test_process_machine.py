"""A life in any order: what a program, a child and the kernel may do, against a model of it.

Each step is done to a real child, and is over when the next begins: a command to the child has been
acknowledged, a death is visible to waitid. When the loop takes turns is a step of its own. So what
the model says holds for every order, and a failure can be repeated.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import let_waiting_threads_end, make_reactor, run_until

from procreactor.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from procreactor.internet.protocol import ProcessProtocol

SCRIPT = r"""
while read -r what number <&3; do
    case $what in
        out) printf '%*s' "$number" '' ;;
        err) printf '%*s' "$number" '' >&2 ;;
        close) eval "exec $number>&-" ;;
        exit) exit "$number" ;;
    esac
    echo done >&4
done
"""
NAMES = {1: b"out", 2: b"err"}


class Told(ProcessProtocol):
    """Keeps what it is told, and finds at once what may not be told any more."""

    def __init__(self) -> None:
        self.data = {1: b"", 2: b""}
        self.lost: list[int] = []
        self.exited: list[Any] = []
        self.ended: list[Any] = []
        self.wrong: list[str] = []

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if not data or childFD in self.lost or self.ended:
            self.wrong.append(f"{len(data)} bytes of {childFD} after {self.lost} {self.ended}")
        self.data[childFD] += data

    def childConnectionLost(self, childFD: int) -> None:
        if childFD in self.lost or self.ended:
            self.wrong.append(f"lost {childFD} after {self.lost} {self.ended}")
        self.lost.append(childFD)

    def processExited(self, reason: Any) -> None:
        if self.exited or self.ended:
            self.wrong.append("exited twice, or after the end")
        self.exited.append(reason.value)

    def processEnded(self, reason: Any) -> None:
        if self.ended or not self.exited or sorted(self.lost) != [0, 1, 2]:
            self.wrong.append(f"ended after {self.exited} {self.lost} {self.ended}")
        self.ended.append(reason.value)


class Life(RuleBasedStateMachine):
    """One child, on three pipes, with a fourth for commands and a fifth for their answers."""

    @initialize()
    def spawn(self) -> None:
        self.opened = contextlib.ExitStack()
        self.reactor = self.opened.enter_context(make_reactor())
        theirs, self.commands = os.pipe()
        self.answers, answering = os.pipe()
        self.opened.callback(os.close, self.commands)
        self.opened.callback(os.close, self.answers)
        self.told = Told()
        self.transport = self.reactor.spawnProcess(
            self.told,
            "/bin/sh",
            ["sh", "-c", SCRIPT],
            childFDs={0: "w", 1: "r", 2: "r", 3: theirs, 4: answering},
        )
        os.close(theirs)
        os.close(answering)
        self.pid = self.transport.pid
        self.written = {1: 0, 2: 0}
        self.closed_by_child: set[int] = set()
        self.closed_by_us: set[int] = set()
        self.death: ProcessDone | ProcessTerminated | None = None

    def command(self, words: bytes) -> None:
        os.write(self.commands, words + b"\n")
        assert os.read(self.answers, 5) == b"done\n"

    def wait_for_death(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        let_waiting_threads_end()  # without pidfds it is visible to the loop only now

    lives = precondition(lambda self: self.death is None)

    # What the child does.

    @lives
    @rule(child_fd=st.sampled_from([1, 2]), size=st.integers(1, 2000))
    def child_writes(self, child_fd: int, size: int) -> None:
        if child_fd not in self.closed_by_us | self.closed_by_child:
            self.command(b"%s %d" % (NAMES[child_fd], size))
            self.written[child_fd] += size

    @lives
    @rule(child_fd=st.sampled_from([0, 1, 2]))
    def child_closes(self, child_fd: int) -> None:
        if child_fd not in self.closed_by_child:
            self.command(b"close %d" % child_fd)
            self.closed_by_child.add(child_fd)

    @lives
    @rule(code=st.integers(0, 255))
    def child_exits(self, code: int) -> None:
        os.write(self.commands, b"exit %d\n" % code)
        self.wait_for_death()
        self.death = ProcessTerminated(code, None, code << 8) if code else ProcessDone(0)

    # What the program does.

    @lives
    @rule(number=st.sampled_from([signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1]))
    def we_kill(self, number: signal.Signals) -> None:
        self.transport.signalProcess(number)
        self.wait_for_death()
        self.death = ProcessTerminated(None, number, int(number))

    @rule(size=st.integers(0, 200_000))
    def we_write(self, size: int) -> None:
        self.transport.write(bytes(size))

    @rule(child_fd=st.sampled_from([0, 1, 2]))
    def we_close(self, child_fd: int) -> None:
        self.transport.closeChildFD(child_fd)
        self.closed_by_us.add(child_fd)

    @rule()
    def we_lose_the_connection(self) -> None:
        self.transport.loseConnection()
        self.closed_by_us |= {0, 1, 2}

    @rule()
    def we_pause(self) -> None:
        self.transport.pauseProducing()

    @rule()
    def we_resume(self) -> None:
        self.transport.resumeProducing()

    @rule(count=st.integers(1, 3))
    def the_loop_turns(self, count: int) -> None:
        for _ in range(count):
            self.reactor.iterate(0)

    @precondition(lambda self: bool(self.told.exited))
    @rule()
    def a_signal_after_the_exit_is_refused(self) -> None:
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return
        raise AssertionError("a signal was sent to a child that was reaped")

    # What holds at any time.

    @invariant()
    def only_what_can_be_has_been_told(self) -> None:
        if not hasattr(self, "told"):
            return
        told = self.told
        assert not told.wrong, told.wrong
        assert all(len(told.data[fd]) <= self.written[fd] for fd in (1, 2))
        assert self.death is not None or not told.exited
        assert self.death is not None or set(told.lost) <= self.closed_by_us | self.closed_by_child
        assert (self.transport.pid is None) == bool(told.exited)
        assert set(self.transport.pipes) == {0, 1, 2} - set(told.lost)

    def teardown(self) -> None:
        if not hasattr(self, "told"):
            return
        with self.opened:
            if self.death is None:
                self.we_kill(signal.SIGKILL)
            self.transport.resumeProducing()
            run_until(self.reactor, lambda: bool(self.told.ended))
            told = self.told
            assert not told.wrong, told.wrong
            for reasons in (told.exited, told.ended):
                (reason,) = reasons
                assert type(reason) is type(self.death)
                assert (reason.exitCode, reason.signal) == (self.death.exitCode, self.death.signal)
            for child_fd in {1, 2} - self.closed_by_us:
                assert len(told.data[child_fd]) == self.written[child_fd], "bytes were lost"
            assert sorted(told.lost) == [0, 1, 2]


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
