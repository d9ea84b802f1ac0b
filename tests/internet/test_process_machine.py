"""A life in any order: what a program, a child and the kernel may do, against a model of it.

Each step is done to a real child, and is over when the next begins: a command to the child has been
acknowledged, a death is visible to waitid. When the loop takes turns is a step of its own. So what
the model says holds for every order, and a failure can be repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import tempfile
import termios
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import let_waiting_threads_end, make_reactor, run_until
from ways import WITHOUT_PIDFDS

from procreactor.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from procreactor.internet.protocol import ProcessProtocol

SCRIPT = r"""
while read -r what word <&3; do
    case $what in
        out) printf '%s' "$word" ;;
        err) printf '%s' "$word" >&2 ;;
        echo) head -c "$word" ;;
        close) eval "exec $word>&-" ;;
        exit) exit "$word" ;;
    esac
    echo done >&4
done
"""
NAMES = {1: b"out", 2: b"err"}
LONG_S = 30
PTY_BYTES = 500
"""At most in one write to, or of, a child on a terminal: of all together none makes it wait."""


class Words:
    """Bytes that are nowhere twice, so that what is lost, doubled or out of order differs."""

    def __init__(self, digits: bytes) -> None:
        text = b"".join(b"%d." % number for number in range(50_000))
        self._text = text.translate(bytes.maketrans(b"0123456789", digits))
        self.taken = 0

    def take(self, size: int) -> bytes:
        begin = self.taken % len(self._text)
        self.taken += size
        return (self._text[begin:] + self._text * (size // len(self._text) + 1))[:size]


class Told(ProcessProtocol):
    """Keeps what it is told, and finds at once what may not be told any more."""

    def __init__(self, pipes: int) -> None:
        self.pipes = pipes
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
        if self.ended or not self.exited or sorted(self.lost) != list(range(self.pipes)):
            self.wrong.append(f"ended after {self.exited} {self.lost} {self.ended}")
        self.ended.append(reason.value)


class AnyLife(RuleBasedStateMachine):
    """One child, told what to do by a pipe, which answers by another; what it is on, see below."""

    on_terminal = False

    def begin(self) -> None:
        self.opened = contextlib.ExitStack()
        self.reactor = self.opened.enter_context(make_reactor())
        self.told = Told(0 if self.on_terminal else 3)
        self.start()
        self.pid = self.transport.pid
        self.of_child, self.ours = Words(b"0123456789"), Words(b"abcdefghij")
        self.sent = b""
        self.echoed = 0
        self.expected = {1: b"", 2: b""}
        """What the child has written to either stream."""

        self.closed_by_child: set[int] = set()
        self.closed_by_us: set[int] = set()
        self.is_stopped = False
        self.waiting: set[signal.Signals] = set()
        """Signals to a child that is stopped."""

        self.death: ProcessDone | ProcessTerminated | None = None

    def start(self) -> None:
        """Set transport, commands and answers."""
        raise NotImplementedError

    def command(self, words: bytes) -> None:
        os.write(self.commands, words + b"\n")
        assert os.read(self.answers, 5) == b"done\n"

    def wait_for_death(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        let_waiting_threads_end()  # without pidfds it is visible to the loop only now

    def die_by(self, number: signal.Signals) -> None:
        self.wait_for_death()
        self.death = ProcessTerminated(None, number, int(number))

    def stream(self, child_fd: int) -> int:
        return 1 if self.on_terminal else child_fd

    lives = precondition(lambda self: self.death is None)
    runs = precondition(lambda self: self.death is None and not self.is_stopped)
    is_stopped_alive = precondition(lambda self: self.death is None and self.is_stopped)

    # What the child does.

    @runs
    @rule(child_fd=st.sampled_from([1, 2]), size=st.integers(1, 1000))
    def child_writes(self, child_fd: int, size: int) -> None:
        if child_fd not in self.closed_by_us | self.closed_by_child:
            words = self.of_child.take(min(size, PTY_BYTES) if self.on_terminal else size)
            self.command(b"%s %s" % (NAMES[child_fd], words))
            self.expected[self.stream(child_fd)] += words

    @runs
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
        if self.is_stopped and number != signal.SIGKILL:
            self.waiting.add(number)
        else:
            self.die_by(number)

    @runs
    @rule()
    def we_stop(self) -> None:
        self.transport.signalProcess("STOP")
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)
        self.is_stopped = True

    @is_stopped_alive
    @rule()
    def we_let_it_go_on(self) -> None:
        self.transport.signalProcess("CONT")
        self.is_stopped = False
        if self.waiting:
            self.die_by(min(self.waiting))  # the lowest number comes first
        else:
            os.waitid(os.P_PID, self.pid, os.WCONTINUED)

    def send(self, size: int) -> None:
        words = self.ours.take(size)
        self.transport.write(words)
        self.sent += words

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
        for fd, data in told.data.items():
            assert self.expected[fd].startswith(data), "other bytes, or in another order"
        assert self.death is not None or not told.exited
        assert self.death is not None or set(told.lost) <= self.closed_by_us | self.closed_by_child
        assert (self.transport.pid is None) == bool(told.exited)

    def teardown(self) -> None:
        if not hasattr(self, "told"):
            return
        with self.opened:
            self.transport.resumeProducing()
            if self.death is None and not self.is_stopped:
                self.echo_the_rest()
            if self.death is None:
                self.we_kill(signal.SIGKILL)
            run_until(self.reactor, lambda: bool(self.told.ended))
            told = self.told
            assert not told.wrong, told.wrong
            for reasons in (told.exited, told.ended):
                (reason,) = reasons
                assert type(reason) is type(self.death)
                assert (reason.exitCode, reason.signal) == (self.death.exitCode, self.death.signal)
            for child_fd in {1, 2} - self.closed_by_us:
                assert told.data[child_fd] == self.expected[child_fd], "bytes were lost"
            assert len(told.lost) == told.pipes

    def echo_the_rest(self) -> None:
        """All that was written to a child that can still tell is echoed, once and in order."""
        raise NotImplementedError

    def echo(self, size: int) -> None:
        """The child reads so much, which is there, and writes it."""
        self.command(b"echo %d" % size)
        self.note_echo(size)

    def note_echo(self, size: int) -> None:
        self.expected[1] += self.sent[self.echoed : self.echoed + size]
        self.echoed += size


class Life(AnyLife):
    """On three pipes."""

    @initialize()
    def spawn(self) -> None:
        self.begin()

    def start(self) -> None:
        theirs, self.commands = os.pipe()
        self.answers, answering = os.pipe()
        self.opened.callback(os.close, self.commands)
        self.opened.callback(os.close, self.answers)
        self.transport = self.reactor.spawnProcess(
            self.told,
            "/bin/sh",
            ["sh", "-c", SCRIPT],
            childFDs={0: "w", 1: "r", 2: "r", 3: theirs, 4: answering},
        )
        os.close(theirs)
        os.close(answering)

    @AnyLife.runs
    @rule(child_fd=st.sampled_from([0, 1, 2]))
    def child_closes(self, child_fd: int) -> None:
        if child_fd not in self.closed_by_child:
            self.command(b"close %d" % child_fd)
            self.closed_by_child.add(child_fd)

    @AnyLife.runs
    @rule(size=st.integers(1, 1000))
    def child_echoes(self, size: int) -> None:
        if self.can_echo() and (there := min(size, self.in_pipe())):
            self.echo(there)

    def can_echo(self) -> bool:
        return not (self.closed_by_us | self.closed_by_child) & {0, 1}

    def in_pipe(self) -> int:
        answer = fcntl.ioctl(self.transport.pipes[0].fileno(), termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", answer)[0])

    def echo_the_rest(self) -> None:
        end_s = self.reactor.seconds() + LONG_S
        while self.can_echo() and self.echoed < len(self.sent):
            assert self.reactor.seconds() < end_s, "not all that was written comes to the child"
            run_until(self.reactor, lambda: self.told.data[1] == self.expected[1])
            if there := min(self.in_pipe(), 60_000):  # which a pipe that is empty holds
                self.echo(there)

    @rule(size=st.integers(0, 200_000))
    def we_write(self, size: int) -> None:
        self.send(size)

    @rule(child_fd=st.sampled_from([0, 1, 2]))
    def we_close(self, child_fd: int) -> None:
        self.transport.closeChildFD(child_fd)
        self.closed_by_us.add(child_fd)

    @rule()
    def we_lose_the_connection(self) -> None:
        self.transport.loseConnection()
        self.closed_by_us |= {0, 1, 2}

    @invariant()
    def the_pipes_are_those_that_were_not_told_lost(self) -> None:
        if hasattr(self, "told"):
            assert set(self.transport.pipes) == {0, 1, 2} - set(self.told.lost)


class LifeOnTerminal(AnyLife):
    """On a terminal that passes on what it gets as it is."""

    on_terminal = True

    @initialize()
    def spawn(self) -> None:
        self.begin()

    def start(self) -> None:
        folder = self.opened.enter_context(tempfile.TemporaryDirectory())
        ends = []
        for name in ("commands", "answers"):
            os.mkfifo(Path(folder, name))
            ends.append(os.open(Path(folder, name), os.O_RDWR | os.O_CLOEXEC))
            self.opened.callback(os.close, ends[-1])
        self.commands, self.answers = ends
        script = f"stty raw -echo; exec 3<commands 4>answers; echo done >&4\n{SCRIPT}"
        self.transport = self.reactor.spawnProcess(
            self.told, "/bin/sh", ["sh", "-c", script], env=None, path=folder, usePTY=True
        )
        assert os.read(self.answers, 5) == b"done\n"

    @AnyLife.runs
    @rule()
    def child_echoes(self) -> None:
        self.echo_the_rest()

    def echo_the_rest(self) -> None:
        """It waits for what is still ours to write, and so the loop takes turns."""
        size = len(self.sent) - self.echoed
        if self.closed_by_us or not size:
            return
        os.write(self.commands, b"echo %d\n" % size)
        self.note_echo(size)
        end_s = self.reactor.seconds() + LONG_S
        while not select.select([self.answers], [], [], 0.001)[0]:
            assert self.reactor.seconds() < end_s, "not all that was written comes to the child"
            self.reactor.iterate(0)
        assert os.read(self.answers, 5) == b"done\n"

    @rule(size=st.integers(0, PTY_BYTES))
    def we_write(self, size: int) -> None:
        self.send(size)

    @AnyLife.lives
    @rule()
    def we_hang_up(self) -> None:
        self.transport.loseConnection()
        self.closed_by_us |= {1, 2}
        # With CONT, for one that is stopped. The loop may tell it in the same turn, or later.
        self.death = ProcessTerminated(None, signal.SIGHUP, int(signal.SIGHUP))
        run_until(self.reactor, lambda: self.transport.fileno() < 0 and bool(self.told.exited))


def few(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


TestLife = Life.TestCase
TestLife.settings = few(70, 30)
TestLifeOnTerminal = LifeOnTerminal.TestCase
TestLifeOnTerminal.settings = few(25, 20)

LIVES = {"pipes": Life, "terminal": LifeOnTerminal}


def live(kind: str) -> None:
    run_state_machine_as_test(LIVES[kind], settings=settings(few(15, 20), database=None))


@pytest.mark.parametrize("kind", LIVES)
@pytest.mark.parametrize("disable", ["vfork", WITHOUT_PIDFDS])
def test_a_life_is_the_same_without_shared_memory_and_without_pidfds(
    kind: str, disable: str
) -> None:
    alone(live, kind, disable=disable)
