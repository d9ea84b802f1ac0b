"""ProcessMonitor, with real children on a real reactor.

Where time matters it is a `Clock`'s: `FrozenReactor` spawns for real and lets the test say how much
time has passed. Everything else waits for what the monitor logged or noted.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PROC, PYTHON, make_reactor, run_until

from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.task import Clock
from procreactor.runner.procmon import LineLogger, ProcessMonitor, Service

# It lives as long as its standard input is open: never longer than the test.
CAT = ["/bin/cat"]
# A grandchild that waits for standard input: it ends by itself when the monitor closes that.
HOLDING = "exec 3<&0; read x <&3 &"
STUBBORN = ["/bin/sh", "-c", 'trap "" TERM; echo ready; exec /bin/cat']


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


class Log(logging.Handler):
    """Keeps the records of the monitor's logger."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def lines(self, stream: str = "stdout", tag: str | None = None) -> list[str]:
        """The lines of one stream, of one process or of all."""
        return [r.line for r in self.records if r.stream == stream and tag in (None, r.tag)]


class FrozenReactor(Clock):
    """A Clock that spawns on a real reactor."""

    def __init__(self, reactor: EPollReactor) -> None:
        super().__init__()
        self.spawnProcess = reactor.spawnProcess


class Stage:
    """What a test plays on: a reactor, a clock that stands still, monitors, and their log."""

    def __init__(self, reactor: EPollReactor, log: Log) -> None:
        self.reactor = reactor
        self.clock = FrozenReactor(reactor)
        self.log = log
        self._monitors: list[ProcessMonitor] = []

    def monitor(
        self, reactor: Any = None, running: bool = True, **attributes: float
    ) -> ProcessMonitor:
        """A monitor, whose children are gone after the test."""
        monitor = ProcessMonitor(reactor or self.reactor)
        for name, value in attributes.items():
            setattr(monitor, name, value)
        if running:
            monitor.startService()
        self._monitors.append(monitor)
        return monitor

    def wait(self, condition: Callable[[], object]) -> None:
        """Run the real reactor until *condition* holds."""
        run_until(self.reactor, condition)

    def clear(self) -> None:
        """End all children, and let go of what their children hold."""
        for monitor in self._monitors:
            monitor.stopService()
            for life in monitor.protocols.values():
                if life.exitedAt is None:
                    life.transport.signalProcess("KILL")
                life.transport.loseConnection()
        self.wait(lambda: not any(monitor.protocols for monitor in self._monitors))


@pytest.fixture
def stage() -> Iterator[Stage]:
    logger = logging.getLogger("procreactor.procmon")
    log = Log()
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    with make_reactor() as reactor:
        stage = Stage(reactor, log)
        yield stage
        stage.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(log)


def pid_of(monitor: ProcessMonitor, name: str = "a") -> int | None:
    """The pid of the life that goes on, if one does."""
    life = monitor.protocols.get(name)
    return life.transport.pid if life is not None else None


def fired(deferred: Any) -> list[Any]:
    """A list that gets the result of *deferred*."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


def run_program(code: str) -> str:
    """Run *code* in a Python of its own that knows the package; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- Adding, removing and asking ------------------------------------------------------------------


def test_the_repr_names_every_process_with_its_ids_and_arguments() -> None:
    monitor = ProcessMonitor()
    assert repr(monitor) == "<ProcessMonitor >"
    monitor.addProcess("a", ["x", "y"])
    monitor.addProcess("b", ["z"], uid=1)
    monitor.addProcess("c", ["z"], uid=1, gid=2)
    monitor.addProcess("d", ["z"], gid=2)
    assert repr(monitor) == (
        "<ProcessMonitor 'a': ['x', 'y'] 'b'(1): ['z'] 'c'(1:2): ['z'] 'd'(:2): ['z']>"
    )


def test_processes_tells_what_was_added() -> None:
    monitor = ProcessMonitor()
    monitor.addProcess("a", ["x"], 1, 2, {"K": "v"}, "/")
    assert monitor.processes == {"a": (["x"], 1, 2, {"K": "v"})}
    monitor.removeProcess("a")
    assert monitor.processes == {}


def test_a_name_can_be_added_once() -> None:
    monitor = ProcessMonitor()
    monitor.addProcess("a", ["x"])
    with pytest.raises(KeyError, match="remove a first"):
        monitor.addProcess("a", ["x"])


def test_a_process_needs_a_program() -> None:
    monitor = ProcessMonitor()
    with pytest.raises(ValueError, match="args must have at least one item"):
        monitor.addProcess("a", [])
    assert monitor.processes == {}


@pytest.mark.parametrize("method", ["removeProcess", "startProcess", "stopProcess"])
def test_a_name_that_was_not_added_is_a_key_error(method: str) -> None:
    with pytest.raises(KeyError, match="Unrecognized process name: a"):
        getattr(ProcessMonitor(), method)("a")


def test_a_service_has_a_name_and_runs_or_not() -> None:
    service = Service()
    assert (service.name, service.running) == (None, False)
    service.setName("one")
    service.privilegedStartService()
    assert (service.name, service.running) == ("one", False)
    service.startService()
    assert service.running
    assert service.stopService() is None
    assert not service.running


# --- Starting -------------------------------------------------------------------------------------


def test_nothing_is_started_before_the_service(stage: Stage) -> None:
    monitor = stage.monitor(running=False)
    monitor.addProcess("a", CAT)
    monitor.addProcess("b", CAT)
    assert monitor.protocols == {}
    monitor.startService()
    assert set(monitor.protocols) == {"a", "b"}
    assert pid_of(monitor, "a") != pid_of(monitor, "b")


def test_a_process_that_is_added_to_a_running_service_starts_at_once(stage: Stage) -> None:
    monitor = stage.monitor()
    monitor.addProcess("a", CAT)
    assert pid_of(monitor) is not None
    assert set(monitor.timeStarted) == {"a"}


def test_a_process_that_lives_is_not_started_again(stage: Stage) -> None:
    monitor = stage.monitor()
    monitor.addProcess("a", CAT)
    pid = pid_of(monitor)
    monitor.startProcess("a")
    monitor.startService()
    assert pid_of(monitor) == pid


def test_a_process_can_be_started_without_the_service_and_is_not_restarted(stage: Stage) -> None:
    monitor = stage.monitor(running=False)
    monitor.addProcess("a", ["/bin/true"])
    monitor.startProcess("a")
    stage.wait(lambda: not monitor.protocols)
    assert monitor.restart == {}


def test_the_child_has_the_arguments_the_environment_and_the_directory(
    stage: Stage, tmp_path: Path
) -> None:
    monitor = stage.monitor(minRestartDelay=1000)
    script = 'echo "$1"; echo "$KEY"; pwd -P'
    monitor.addProcess("a", [*sh(script), "sh", "one"], env={"KEY": "v"}, cwd=str(tmp_path))
    stage.wait(lambda: not monitor.protocols)
    assert stage.log.lines() == ["one", "v", str(tmp_path.resolve())]


def test_the_environment_is_empty_unless_given(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=1000)
    monitor.addProcess("a", ["/usr/bin/env"])
    stage.wait(lambda: not monitor.protocols)
    assert stage.log.lines() == []


def test_the_child_has_the_ids(stage: Stage) -> None:
    uid, gid = (65534, 65533) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    monitor = stage.monitor(minRestartDelay=1000)
    script = "/usr/bin/id -u; /usr/bin/id -g"
    monitor.addProcess("a", sh(script), uid=uid, gid=gid, cwd="/")
    stage.wait(lambda: not monitor.protocols)
    assert stage.log.lines() == [str(uid), str(gid)]


def test_misuse_is_raised_and_does_not_count_as_a_start(stage: Stage) -> None:
    monitor = stage.monitor()
    with pytest.raises(ValueError, match="null byte"):
        monitor.addProcess("a", ["/bin/true", "\0"])
    assert monitor.protocols == {}
    assert monitor.restart == {}


# --- Restarting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["exit 0", "exit 3", "kill -KILL $$"])
def test_a_process_is_restarted_however_it_ends(stage: Stage, ending: str) -> None:
    monitor = stage.monitor(threshold=0)
    monitor.addProcess("a", sh(f"echo started; {ending}"))
    stage.wait(lambda: len(stage.log.lines()) >= 3)
    assert set(stage.log.lines()) == {"started"}


def test_a_short_life_is_followed_by_a_wait(stage: Stage) -> None:
    monitor = stage.monitor(threshold=1000, minRestartDelay=500)
    monitor.addProcess("a", ["/bin/true"])
    stage.wait(lambda: not monitor.protocols)
    assert monitor.restart["a"].active()
    assert monitor.delay["a"] == 1000


def test_the_wait_doubles_with_each_short_life_up_to_the_maximum(stage: Stage) -> None:
    monitor = stage.monitor(stage.clock, threshold=1, minRestartDelay=2, maxRestartDelay=7)
    monitor.addProcess("a", ["/bin/true"])
    waits = []
    for _ in range(4):
        stage.wait(lambda: not monitor.protocols)
        waits.append(stage.clock.getDelayedCalls()[0].getTime() - stage.clock.seconds())
        stage.clock.advance(waits[-1])
        assert "a" in monitor.protocols
    assert waits == [2, 4, 7, 7]


def test_a_long_life_is_followed_by_a_restart_at_once_and_forgives_what_was_before(
    stage: Stage,
) -> None:
    monitor = stage.monitor(stage.clock, threshold=10, minRestartDelay=2)
    monitor.addProcess("a", CAT)
    monitor.delay["a"] = 64
    first = pid_of(monitor)
    stage.clock.advance(10)
    monitor.stopProcess("a")
    stage.wait(lambda: not monitor.protocols)
    stage.clock.advance(0)
    assert pid_of(monitor) not in (None, first)
    assert monitor.delay["a"] == 2


def test_a_life_ends_with_the_exit_not_with_the_pipes(stage: Stage) -> None:
    monitor = stage.monitor(stage.clock, threshold=10, minRestartDelay=2, drainTime=100)
    monitor.addProcess("a", sh(f"{HOLDING} exit 1"))
    stage.wait(lambda: monitor.protocols["a"].exitedAt is not None)
    stage.clock.advance(100)
    stage.wait(lambda: not monitor.protocols)
    assert monitor.delay["a"] == 4


def test_starting_by_hand_ends_the_wait(stage: Stage) -> None:
    monitor = stage.monitor(threshold=1000, minRestartDelay=500)
    monitor.addProcess("a", ["/bin/true"])
    stage.wait(lambda: not monitor.protocols)
    waiting = monitor.restart["a"]
    monitor.startProcess("a")
    assert not waiting.active()
    stage.wait(lambda: not monitor.protocols)
    assert len(stage.reactor.getDelayedCalls()) == 1


# --- Starts that fail -----------------------------------------------------------------------------


def test_a_start_that_fails_is_logged_with_its_text(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", ["/no/such/program"])
    [record] = stage.log.records
    assert record.levelno == logging.ERROR
    assert (record.tag, record.stream, record.partial) == ("a", "monitor", False)
    assert record.line == (
        "cannot start child: exec '/no/such/program': No such file or directory (errno 2);"
        " tried again in 500 s"
    )
    assert record.getMessage() == f"[a] {record.line}"


def test_a_start_that_fails_is_tried_again_with_growing_waits_whatever_the_threshold(
    stage: Stage,
) -> None:
    monitor = stage.monitor(stage.clock, threshold=0, minRestartDelay=2, maxRestartDelay=5)
    monitor.addProcess("a", ["/no/such/program"])
    assert (monitor.protocols, monitor.delay["a"]) == ({}, 4)
    stage.clock.advance(2)
    stage.clock.advance(4)
    waits = [line.rsplit("tried again in ")[1] for line in stage.log.lines("monitor")]
    assert waits == ["2 s", "4 s", "5 s"]


def test_a_program_that_appears_later_is_started_then(stage: Stage, tmp_path: Path) -> None:
    program = tmp_path / "late"
    monitor = stage.monitor(minRestartDelay=0.001, maxRestartDelay=0.001)
    monitor.addProcess("a", [str(program)])
    stage.wait(lambda: len(stage.log.lines("monitor")) >= 2)
    (tmp_path / "new").write_text("#!/bin/sh\necho here\nexec /bin/cat\n")
    (tmp_path / "new").chmod(0o755)
    (tmp_path / "new").rename(program)
    stage.wait(lambda: stage.log.lines() == ["here"])


def test_a_start_that_fails_without_the_service_is_not_tried_again(stage: Stage) -> None:
    monitor = stage.monitor(running=False)
    monitor.addProcess("a", ["/no/such/program"])
    monitor.startProcess("a")
    assert not stage.reactor.getDelayedCalls()
    assert stage.log.lines("monitor")[0].endswith("; not tried again")


# --- Stopping -------------------------------------------------------------------------------------


def test_a_stopped_process_gets_term_and_is_restarted(stage: Stage) -> None:
    monitor = stage.monitor(threshold=0)
    script = 'trap "echo told; exit" TERM; echo ready; while read x; do :; done'
    monitor.addProcess("a", sh(script))
    stage.wait(lambda: stage.log.lines() == ["ready"])
    monitor.stopProcess("a")
    stage.wait(lambda: stage.log.lines() == ["ready", "told", "ready"])


def test_a_process_that_ignores_term_is_killed_when_its_time_is_up(stage: Stage) -> None:
    monitor = stage.monitor(stage.clock, killTime=5)
    monitor.addProcess("a", STUBBORN)
    stage.wait(lambda: stage.log.lines() == ["ready"])
    transport = monitor.protocols["a"].transport
    monitor.stopProcess("a")
    stage.clock.advance(4)
    assert monitor.murder["a"].active()
    stage.clock.advance(1)
    stage.wait(lambda: not monitor.protocols)
    assert os.WTERMSIG(transport.status) == signal.SIGKILL
    assert monitor.murder == {}


def test_a_second_stop_does_not_put_off_the_kill(stage: Stage) -> None:
    monitor = stage.monitor(stage.clock, killTime=5)
    monitor.addProcess("a", STUBBORN)
    stage.wait(lambda: stage.log.lines() == ["ready"])
    monitor.stopProcess("a")
    stage.clock.advance(4)
    monitor.stopProcess("a")
    assert stage.clock.getDelayedCalls() == [monitor.murder["a"]]
    stage.clock.advance(1)
    stage.wait(lambda: not monitor.protocols)


def test_a_process_that_obeys_is_not_killed(stage: Stage) -> None:
    monitor = stage.monitor(killTime=1000)
    monitor.addProcess("a", CAT)
    monitor.stopProcess("a")
    murder = monitor.murder["a"]
    stage.wait(lambda: not monitor.protocols)
    assert not murder.active()
    assert monitor.murder == {}


def test_stopping_a_process_that_other_code_has_reaped_plans_no_kill(stage: Stage) -> None:
    monitor = stage.monitor()
    monitor.addProcess("a", CAT)
    pid = pid_of(monitor)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    monitor.stopProcess("a")
    assert monitor.murder == {}
    stage.wait(lambda: not monitor.protocols)


def test_stopping_a_process_that_waits_for_its_restart_changes_nothing(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", ["/bin/true"])
    stage.wait(lambda: not monitor.protocols)
    monitor.stopProcess("a")
    assert monitor.murder == {}
    assert monitor.restart["a"].active()


def test_a_removed_process_ends_and_is_not_restarted(stage: Stage) -> None:
    monitor = stage.monitor(threshold=0)
    monitor.addProcess("a", CAT)
    monitor.removeProcess("a")
    stage.wait(lambda: not monitor.protocols)
    assert not stage.reactor.getDelayedCalls()
    assert (monitor.delay, monitor.timeStarted) == ({}, {})


def test_removing_a_process_that_waits_calls_its_restart_off(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", ["/bin/true"])
    stage.wait(lambda: not monitor.protocols)
    monitor.removeProcess("a")
    assert not stage.reactor.getDelayedCalls()


def test_a_name_can_be_used_again_while_the_old_process_still_ends(stage: Stage) -> None:
    monitor = stage.monitor(threshold=0)
    monitor.addProcess("a", CAT)
    monitor.removeProcess("a")
    monitor.addProcess("a", sh("echo new; exec /bin/cat"))
    stage.wait(lambda: stage.log.lines() == ["new"])


def test_restart_all_restarts_each_process(stage: Stage) -> None:
    monitor = stage.monitor(threshold=0)
    for name in "abc":
        monitor.addProcess(name, CAT)
    first = {pid_of(monitor, name) for name in "abc"}
    monitor.restartAll()

    def are_others() -> bool:
        return first.isdisjoint({pid_of(monitor, name) for name in "abc"} - {None}) and all(
            pid_of(monitor, name) for name in "abc"
        )

    stage.wait(are_others)


SIGNAL_OF_ANOTHER_USER = """
import os
from procreactor.internet.epollreactor import EPollReactor
from procreactor.runner.procmon import ProcessMonitor
reactor = EPollReactor()
monitor = ProcessMonitor(reactor)
monitor.addProcess("a", ["/bin/cat"])
monitor.addProcess("b", ["/bin/cat"], uid=65534, gid=65534)
monitor.startService()
lives = dict(monitor.protocols)
os.setresuid(65534, 65534, 0)
done = monitor.stopService()
os.setresuid(0, 0, 0)
while "b" in monitor.protocols:
    reactor.iterate(1)
print(done.called, monitor.murder)
lives["a"].transport.signalProcess("KILL")
while monitor.protocols:
    reactor.iterate(1)
print(done.called)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone who may not signal")
def test_a_signal_that_is_refused_is_logged_and_the_others_are_stopped_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_OF_ANOTHER_USER],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "False {}\nTrue\n"
    assert done.stderr == "[a] cannot send TERM: [Errno 1] Operation not permitted\n"


# --- Stopping the service -------------------------------------------------------------------------


def test_stopping_a_service_without_children_is_done_at_once(stage: Stage) -> None:
    monitor = stage.monitor()
    assert fired(monitor.stopService()) == [None]
    assert not monitor.running


def test_the_service_is_stopped_when_all_children_have_ended(stage: Stage) -> None:
    monitor = stage.monitor(killTime=0.01, threshold=0)
    monitor.addProcess("quick", CAT)
    monitor.addProcess("slow", STUBBORN)
    stage.wait(lambda: stage.log.lines() == ["ready"])
    pids = [pid_of(monitor, "quick"), pid_of(monitor, "slow")]
    first, second = fired(monitor.stopService()), fired(monitor.stopService())
    assert (first, second) == ([], [])
    stage.wait(lambda: "quick" not in monitor.protocols)
    stage.wait(lambda: first and second)
    assert (first, second) == ([None], [None])
    assert monitor.protocols == {}
    assert not any(pid and Path(f"{PROC}/{pid}").exists() for pid in pids)
    assert not stage.reactor.getDelayedCalls()


def test_what_the_children_still_wrote_is_logged_before_the_service_is_stopped(
    stage: Stage,
) -> None:
    monitor = stage.monitor()
    script = 'trap "printf bye; exit" TERM; echo ready; while read x; do :; done'
    monitor.addProcess("a", sh(script))
    stage.wait(lambda: stage.log.lines() == ["ready"])
    seen: list[list[str]] = []
    monitor.stopService().addCallback(lambda _: seen.append(stage.log.lines()))
    stage.wait(lambda: seen)
    assert seen == [["ready", "bye"]]


def test_stopping_the_service_calls_restarts_off(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", ["/bin/true"])
    stage.wait(lambda: not monitor.protocols)
    assert fired(monitor.stopService()) == [None]
    assert not monitor.restart["a"].active()


def test_stopping_the_service_waits_for_removed_processes_too(stage: Stage) -> None:
    monitor = stage.monitor()
    monitor.addProcess("a", CAT)
    monitor.removeProcess("a")
    stopped = fired(monitor.stopService())
    assert stopped == []
    stage.wait(lambda: stopped)
    assert monitor.protocols == {}


def test_a_stopped_service_can_be_started_again(stage: Stage) -> None:
    monitor = stage.monitor()
    monitor.addProcess("a", CAT)
    stopped = fired(monitor.stopService())
    stage.wait(lambda: stopped)
    assert monitor.delay["a"] == monitor.minRestartDelay
    monitor.startService()
    assert pid_of(monitor) is not None


def test_a_service_that_is_started_while_it_stops_restarts_its_children(stage: Stage) -> None:
    monitor = stage.monitor(threshold=0)
    monitor.addProcess("a", CAT)
    first = pid_of(monitor)
    stopped = fired(monitor.stopService())
    monitor.startService()
    stage.wait(lambda: stopped and pid_of(monitor) not in (None, first))


def test_a_reactor_that_shuts_down_can_wait_for_the_service() -> None:
    printed = run_program("""
from procreactor.internet import reactor
from procreactor.runner.procmon import ProcessMonitor
monitor = ProcessMonitor()
monitor.addProcess("a", ["/bin/cat"])
monitor.startService()
transport = monitor.protocols["a"].transport
reactor.addSystemEventTrigger("before", "shutdown", monitor.stopService)
reactor.callWhenRunning(reactor.stop)
reactor.run()
print(transport.status, monitor.protocols)
""")
    assert printed == f"{int(signal.SIGTERM)} {{}}\n"


# --- Logging --------------------------------------------------------------------------------------


def test_each_line_is_logged_with_its_process_and_its_stream(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", sh("echo one; echo two; echo three >&2"))
    stage.wait(lambda: not monitor.protocols)
    assert stage.log.lines("stdout", "a") == ["one", "two"]
    assert stage.log.lines("stderr", "a") == ["three"]
    record = next(record for record in stage.log.records if record.line == "one")
    assert (record.name, record.levelno) == ("procreactor.procmon", logging.INFO)
    assert record.getMessage() == "[a] one"
    assert not record.partial


def test_no_empty_line_is_logged_at_the_end_of_a_stream(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", sh("echo out; echo err >&2"))
    stage.wait(lambda: not monitor.protocols)
    assert (stage.log.lines("stdout"), stage.log.lines("stderr")) == (["out"], ["err"])


def test_an_empty_line_that_was_written_is_logged(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", sh("echo; echo x; echo"))
    stage.wait(lambda: not monitor.protocols)
    assert stage.log.lines() == ["", "x", ""]


def test_a_last_line_without_an_end_is_logged_on_each_stream(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", sh("echo one; printf two; printf three >&2"))
    stage.wait(lambda: not monitor.protocols)
    assert (stage.log.lines("stdout"), stage.log.lines("stderr")) == (["one", "two"], ["three"])


def test_a_line_that_is_not_utf8_is_logged_as_its_repr(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    monitor.addProcess("a", sh(r"printf 'caf\303\251\n\377\n'"))
    stage.wait(lambda: not monitor.protocols)
    assert stage.log.lines() == ["café", repr(b"\xff")]


def test_a_line_of_any_length_is_logged_and_so_is_what_follows(stage: Stage) -> None:
    monitor = stage.monitor(minRestartDelay=500)
    code = "import sys; sys.stdout.write('x' * 1_000_000 + chr(10) + 'after' + chr(10))"
    monitor.addProcess("a", [PYTHON, "-I", "-S", "-c", code], env=None)
    stage.wait(lambda: not monitor.protocols)
    *pieces, after = stage.log.lines()
    assert after == "after"
    assert "".join(pieces) == "x" * 1_000_000
    assert max(map(len, pieces)) == LineLogger.MAX_LENGTH
    assert [record.partial for record in stage.log.records] == [True] * 61 + [False, False]
    assert stage.log.lines("monitor") == []


class SmallLines(LineLogger):
    """A line logger to which five bytes are already too long."""

    MAX_LENGTH = 4


class Collector(ProcessMonitor):
    """A monitor that keeps what would be logged: (line, partial)."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[str, bool]] = []

    def _report(self, level: int, tag: str, line: str, *where: Any) -> None:
        self.logged.append((line, where[1]))


def log_chunks(chunks: list[bytes]) -> list[tuple[str, bool]]:
    """Return what is logged of a stream that comes in *chunks*."""
    monitor = Collector()
    lines = SmallLines(monitor, "a", "stdout")
    for chunk in chunks:
        lines.dataReceived(chunk)
        assert lines._splitter.tail_bytes <= SmallLines.MAX_LENGTH
    lines.flush()
    return monitor.logged


texts = st.text(st.sampled_from("\nab£€😀"), max_size=40)


def chunk_up(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@given(texts, st.lists(st.integers(0, 200), max_size=10))
def test_pieces_add_up_to_the_text_and_no_character_is_cut(text: str, cuts: list[int]) -> None:
    logged = log_chunks(chunk_up(text.encode(), cuts))
    whole = "".join(line if partial else line + "\n" for line, partial in logged)
    assert whole == (text if text.endswith("\n") or not text else text + "\n")
    assert all(len(line.encode()) <= SmallLines.MAX_LENGTH for line, _ in logged)


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=10))
def test_how_a_stream_is_chunked_does_not_show_in_the_log(stream: bytes, cuts: list[int]) -> None:
    assert log_chunks(chunk_up(stream, cuts)) == log_chunks([stream])


# --- Grandchildren --------------------------------------------------------------------------------


def test_a_grandchild_that_holds_the_pipes_does_not_keep_its_process_from_being_restarted(
    stage: Stage,
) -> None:
    monitor = stage.monitor(threshold=0, drainTime=0.01)
    monitor.addProcess("a", sh(f"echo started; {HOLDING}"))
    stage.wait(lambda: len(stage.log.lines()) >= 3)
    warnings = [record for record in stage.log.records if record.levelno == logging.WARNING]
    assert warnings[0].line == (
        "has exited, but 0.01 s later another process holds its pipes; closed"
    )


def test_what_a_grandchild_writes_in_the_drain_time_is_logged(stage: Stage) -> None:
    monitor = stage.monitor(stage.clock)
    monitor.addProcess("a", sh("exec 3<&0; (read x <&3; echo $x) & exit"))
    life = monitor.protocols["a"]
    stage.wait(lambda: life.exitedAt is not None)
    life.transport.write(b"late\n")
    stage.wait(lambda: not monitor.protocols)
    assert stage.log.lines() == ["late"]
    assert stage.log.lines("monitor") == []


def test_nothing_is_left_of_the_drain_time_once_the_pipes_are_closed(stage: Stage) -> None:
    monitor = stage.monitor(drainTime=500, minRestartDelay=1000)
    monitor.addProcess("a", ["/bin/true"])
    stage.wait(lambda: not monitor.protocols)
    [call] = stage.reactor.getDelayedCalls()
    assert call is monitor.restart["a"]


def test_a_child_whose_grandchild_holds_the_pipes_is_signalled_no_more(stage: Stage) -> None:
    monitor = stage.monitor(stage.clock)
    monitor.addProcess("a", sh(HOLDING))
    stage.wait(lambda: monitor.protocols["a"].exitedAt is not None)
    monitor.stopProcess("a")
    assert monitor.murder == {}
    stopped = fired(monitor.stopService())
    stage.clock.advance(monitor.drainTime)
    stage.wait(lambda: stopped)


# --- Whose reactor --------------------------------------------------------------------------------


def test_the_reactor_is_the_installed_one_when_it_is_first_needed() -> None:
    printed = run_program("""
import sys
from procreactor.runner.procmon import ProcessMonitor
monitor = ProcessMonitor()
monitor.addProcess("a", ["/bin/cat"])
print("procreactor.internet.reactor" in sys.modules)
monitor.startService()
from procreactor.internet import reactor
monitor.stopService().addCallback(lambda _: reactor.stop())
reactor.run()
print(monitor.protocols)
""")
    assert printed == "False\n{}\n"


@pytest.mark.needs("threads")
def test_it_works_on_a_reactor_of_the_real_twisted() -> None:
    pytest.importorskip("twisted")
    printed = run_program("""
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
from twisted.internet import reactor
from procreactor.runner.procmon import ProcessMonitor
monitor = ProcessMonitor(reactor)
monitor.threshold = 0
monitor.addProcess("a", ["/bin/sh", "-c", "echo hello; exec /bin/cat"])
hellos = []
def follow(record):
    hellos.append(record.line)
    if hellos == ["hello"]:
        monitor.restartAll()
    elif hellos == ["hello", "hello"]:
        monitor.stopService().addCallback(lambda _: reactor.stop())
    return True
monitor.log.addFilter(follow)
reactor.callWhenRunning(monitor.startService)
reactor.run()
print(monitor.protocols, "procreactor.internet.reactor" in sys.modules)
""")
    assert printed == "[a] hello\n[a] hello\n{} False\n"


@pytest.mark.needs("threads")
def test_a_child_that_has_exited_is_not_signalled_on_a_reactor_of_the_real_twisted() -> None:
    pytest.importorskip("twisted")
    # Its signalProcess raises an exception of its own, which would keep the service from stopping.
    printed = run_program(f"""
from twisted.internet import reactor
from procreactor.runner.procmon import ProcessMonitor
class StopsAtOnce(ProcessMonitor):
    def _on_exit(self, life):
        super()._on_exit(life)
        self.stopService().addCallback(lambda _: reactor.stop())
monitor = StopsAtOnce(reactor)
monitor.drainTime = 0.01
monitor.addProcess("a", {sh(HOLDING)!r})
reactor.callWhenRunning(monitor.startService)
reactor.run()
print(monitor.protocols)
""")
    assert printed == "{}\n"
