"""The pipes of a child that ends, closed in one call: when, in which order, and nothing lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from interrupted import interrupt_each_line, interrupted_before
from observed import STANDARD, Observed, watched_fds

from procreactor.core import binding
from procreactor.kernel import children, pipes
from procreactor.loop import eventloop
from procreactor.loop.eventloop import EventLoop
from procreactor.model import PipeEnd, Redirect
from procreactor.transport import lifecycle, process, reader, writer
from procreactor.transport.process import ChildProcess

ALL_TOLD = [("pipe lost", 0), ("pipe lost", 1), ("pipe lost", 2), ("exit",), ("end",)]

has_pidfds = pytest.mark.skipif("pidfd" not in children.in_use(), reason="needs pidfds")


class Asked(Observed):
    """One that also counts how often all pipes were closed together."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.together: list[bool] = []
        close_ended = binding.SpawnCall.close_ended

        def counted(call: binding.SpawnCall, epoll_fd: int) -> bool:
            self.together.append(close_ended(call, epoll_fd))
            return self.together[-1]

        patch.setattr(binding.SpawnCall, "close_ended", counted)

    def start_and_wait(self, script: str, **fields: Any) -> ChildProcess:
        """Start a child, and wait for its death, of which the loop hears in one turn only then."""
        child = self.start(script, **fields)
        wait_dead(child)
        return child


def wait_dead(child: ChildProcess) -> None:
    assert child.pid is not None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    made = Asked(monkeypatch)
    yield made
    made.loop.close()


def test_a_pipe_that_closes_before_others_changes_no_state_and_is_all_that_is_told() -> None:
    for state in (lifecycle.State.RUNNING, lifecycle.State.EXITED):
        row = lifecycle.TABLE[state, lifecycle.Event.PIPE_CLOSED]
        assert row == (state, (lifecycle.Action.TELL_PIPE,))


@has_pidfds
def test_a_silent_child_ends_in_one_turn_and_in_order(seen: Asked) -> None:
    before = watched_fds(seen.loop)
    child = seen.start_and_wait("exit 3")
    seen.loop.run_once(0)
    assert seen.told == ALL_TOLD
    assert seen.together == [True]
    assert seen.status is not None
    assert seen.status.code == 3
    assert (child.pid, child.pidfd, child.pipes) == (None, None, {})
    assert watched_fds(seen.loop) == before


def test_what_was_written_before_the_end_is_told_before_it(seen: Asked) -> None:
    seen.start_and_wait("echo out; echo err >&2")
    seen.run_until(lambda: seen.ended)
    assert seen.data == {1: b"out\n", 2: b"err\n"}
    assert seen.together[-1:] == [True]
    for fd in (1, 2):
        assert seen.told.index(("data", fd)) < seen.told.index(("pipe lost", fd))


def test_more_than_one_read_of_data_is_told_before_the_end(seen: Asked) -> None:
    seen.start_and_wait("head -c 60000 /dev/zero; head -c 50000 /dev/zero >&2")
    for pipe in seen.loop._watches.values():
        if isinstance(owner := getattr(pipe.on_ready, "__self__", None), reader.StreamReader):
            owner._read_bytes = 1000
    seen.run_until(lambda: seen.ended)
    assert {fd: len(data) for fd, data in seen.data.items()} == {1: 60000, 2: 50000}


def test_a_paused_pipe_is_not_ended_and_its_data_are_told_later(seen: Asked) -> None:
    child = seen.start("echo out; exit 0")
    child.pause_reading()
    wait_dead(child)
    seen.run_until(lambda: ("exit",) in seen.told)
    assert True not in seen.together
    assert sorted(child.pipes) == [1, 2]
    child.resume_reading()
    seen.run_until(lambda: seen.ended)
    assert seen.data == {1: b"out\n"}


def test_a_paused_pipe_without_data_is_not_ended_either(seen: Asked) -> None:
    child = seen.start("exit 0")
    child.pause_reading()
    wait_dead(child)
    seen.run_until(lambda: ("exit",) in seen.told)
    assert sorted(child.pipes) == [1, 2]
    child.resume_reading()
    seen.run_until(lambda: seen.ended)


def test_one_paused_pipe_of_several_holds_back_itself_alone(seen: Asked) -> None:
    child = seen.start("exit 0")
    child.pipes[2].pause()  # type: ignore[union-attr]
    wait_dead(child)
    seen.run_until(lambda: ("exit",) in seen.told)
    assert (list(child.pipes), seen.together) == ([2], [])
    child.pipes[2].resume()  # type: ignore[union-attr]
    seen.run_until(lambda: seen.ended)


def test_what_is_queued_for_a_child_that_is_gone_is_dropped(seen: Asked) -> None:
    child = seen.start("read x; exit 0")
    stdin = child.writer(0)
    assert stdin is not None
    child.write(0, b"line\n" + b"x" * 1_000_000)
    assert stdin.queued_bytes
    wait_dead(child)
    seen.loop.run_once(0)
    assert seen.together == [True]
    assert (stdin.queued_bytes, stdin.finished, stdin.fileno()) == (0, True, -1)
    stdin.write(b"more")
    assert not stdin.queued_bytes
    seen.run_until(lambda: seen.ended)


def test_a_pipe_that_was_closed_before_is_no_hindrance_and_its_number_is_anothers(
    seen: Asked,
) -> None:
    child = seen.start("kill -STOP $$; exit 0")
    assert child.pid is not None
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)  # and so it lives until it is told
    number = child.pipes[0].fileno()
    child.close_pipe(0)
    seen.run_until(lambda: ("pipe lost", 0) in seen.told)
    stranger = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    if stranger != number:
        os.dup2(stranger, number, inheritable=False)
        os.close(stranger)
    child.send_signal(signal.SIGCONT)
    wait_dead(child)
    seen.run_until(lambda: seen.ended)
    assert seen.together[-1] is True
    assert seen.told == ALL_TOLD
    os.fstat(number)
    os.close(number)


def test_a_pipe_that_the_user_closes_ends_in_a_turn_of_its_own(seen: Asked) -> None:
    child = seen.start_and_wait("exit 0")
    child.close_pipe(1)
    assert not child._end_all()
    seen.run_until(lambda: seen.ended)
    assert seen.told.count(("pipe lost", 1)) == 1


def test_pipes_that_the_user_named_are_ended_with_the_others(seen: Asked) -> None:
    rows = [*STANDARD, Redirect(5, PipeEnd.WE_READ), Redirect(3, PipeEnd.WE_WRITE), Redirect(7, 2)]
    seen.start_and_wait("echo five >&5", redirects=rows)
    seen.run_until(lambda: seen.ended)
    assert seen.data == {5: b"five\n"}
    lost = [one[1] for one in seen.told if one[0] == "pipe lost"]
    assert sorted(lost) == [0, 1, 2, 3, 5]
    assert seen.told[-2:] == [("exit",), ("end",)]


def test_more_pipes_than_one_call_takes_are_all_ended(seen: Asked) -> None:
    rows = [*STANDARD, *(Redirect(fd, PipeEnd.WE_READ) for fd in range(3, 23))]
    seen.start_and_wait("exit 0", redirects=rows)
    seen.run_until(lambda: seen.ended)
    assert sorted(one for one in seen.told if one[0] == "pipe lost") == [
        ("pipe lost", fd) for fd in range(23)
    ]


def test_a_grandchild_that_holds_a_pipe_keeps_all_to_their_events(seen: Asked) -> None:
    child = seen.start("sleep 600 & echo $!; exit 5")
    seen.run_until(lambda: ("exit",) in seen.told and 1 in seen.data)
    assert True not in seen.together
    os.kill(int(seen.data[1]), signal.SIGKILL)
    seen.run_until(lambda: seen.ended)
    assert seen.together[-1] is True
    assert seen.told[-1] == ("end",)
    assert child.pipes == {}


def test_a_child_that_lives_on_without_pipes_is_not_taken_for_ended(seen: Asked) -> None:
    child = seen.start("exec 0<&- 1>&- 2>&-; exec sleep 600")
    seen.run_until(lambda: not child.pipes)
    assert (child.status, child.is_over) == (None, False)
    child.send_signal(signal.SIGKILL)
    seen.run_until(lambda: seen.ended)


def test_a_grown_pipe_gives_its_share_back(seen: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {-5}
    monkeypatch.setattr(pipes, "_grown", shares)
    child = seen.start("read x; exit 0")
    out = child.pipes[1]
    for _ in range(4):
        out._warm_up()  # type: ignore[union-attr]
    if not out.grown:
        pytest.skip("no pipe may be grown here")
    child.write(0, b"\n")
    wait_dead(child)
    seen.run_until(lambda: seen.ended)
    assert shares == {-5}


@has_pidfds
def test_until_its_exit_is_told_a_child_has_its_pid_and_takes_signals(seen: Asked) -> None:
    found: list[Any] = []

    def look(child_fd: int) -> None:
        child.send_signal(signal.SIGTERM)
        found.append((child.pid, child.status, [one.fileno() for one in child.pipes.values()]))

    child = seen.start_and_wait("exit 0")
    pid = child.pid
    seen.on_pipe_lost = look  # type: ignore[method-assign]
    seen.loop.run_once(0)
    assert found == [(pid, None, [-1, -1]), (pid, None, [-1]), (pid, None, [])]
    assert seen.told == [("exit",), ("end",)]


def test_who_is_told_of_one_pipe_may_let_go_of_all(seen: Asked) -> None:
    def let_go(child_fd: int) -> None:
        seen.told.append(("pipe lost", child_fd))
        child.let_go()

    child = seen.start_and_wait("exit 0")
    pid = child.pid
    seen.on_pipe_lost = let_go  # type: ignore[method-assign]
    seen.loop.run_once(0)
    assert seen.told == ALL_TOLD[:3]
    assert child.pid == pid  # not reaped: it is watched no longer
    os.waitpid(pid or 0, 0)
    del seen.on_pipe_lost  # which holds the child, and that its pidfd


def test_a_forked_copy_ends_its_pipes_and_reaps_nobody(seen: Asked) -> None:
    child = seen.start("read x; exit 0")
    child.pause_reading()
    copy = os.fork()
    if copy == 0:
        code = 1
        try:
            child.resume_reading()
            for _ in range(50):
                seen.loop.run_once(0.1)
                if not any(fd in child.pipes for fd in (1, 2)):
                    break
            told = sorted(seen.told)
            code = 0 if told == [("pipe lost", 1), ("pipe lost", 2)] and child.pid else 2
        finally:
            os._exit(code)
    child.write(0, b"\n")
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
    child.resume_reading()
    seen.run_until(lambda: seen.ended)
    assert seen.status is not None
    assert seen.status.code == 0


# --- interrupts -----------------------------------------------------------------------------------

MODULES = [process, reader, writer, eventloop, children, binding]


def interrupt_an_end(
    seen: Asked, wanted: list[tuple[Any, ...]], end: Callable[[ChildProcess], object]
) -> int:
    """End a child once per line that runs for it; *wanted* is told, but for one at most."""
    current: list[ChildProcess] = []
    redirects = STANDARD if len(wanted) > 2 else ()

    def make() -> None:
        seen.told.clear()
        current[:] = [seen.start("exit 3", redirects)]
        wait_dead(current[0])

    def clean_up() -> None:
        for _ in range(3):
            seen.loop.run_once(0)
        child = current[0]
        left = iter(wanted)
        assert all(one in left for one in seen.told), seen.told  # none twice, and in order
        assert len(seen.told) >= len(wanted) - 1, seen.told
        assert child.is_over
        assert child.status is not None
        assert child.status.code == 3
        assert (child.pid, child.pidfd, child.pipes) == (None, None, {})
        assert watched_fds(seen.loop) == before
        make()

    before = watched_fds(seen.loop)
    make()
    count = interrupt_each_line(MODULES, lambda: end(current[0]), clean_up, set())
    seen.run_until(lambda: seen.ended)
    return count


@has_pidfds
def test_an_interrupt_at_any_line_of_an_end_loses_only_what_was_being_told(seen: Asked) -> None:
    assert interrupt_an_end(seen, ALL_TOLD, lambda child: child._end_all()) > 50


@has_pidfds
def test_an_interrupt_at_any_line_of_a_reaping_loses_only_what_was_being_told(seen: Asked) -> None:
    assert interrupt_an_end(seen, ALL_TOLD[3:], lambda child: child.try_reap()) > 20


@has_pidfds
def test_an_interrupt_at_any_line_of_the_end_of_one_pipe_loses_only_that(seen: Asked) -> None:
    assert interrupt_an_end(seen, ALL_TOLD, lambda child: child._end_pipe(0)) > 10


@has_pidfds
@pytest.mark.parametrize("nth", range(5))
def test_an_interrupt_out_of_who_is_told_keeps_nothing_else_from_being_told(
    seen: Asked, nth: int
) -> None:
    class Stubborn(list[tuple[Any, ...]]):
        def append(self, one: tuple[Any, ...]) -> None:
            super().append(one)
            if len(self) == nth + 1:
                raise KeyboardInterrupt

    seen.told = Stubborn()
    child = seen.start_and_wait("exit 3")
    with pytest.raises(KeyboardInterrupt):
        seen.loop.run_once(0)
    assert seen.told == ALL_TOLD[: nth + 1]
    seen.run_until(lambda: seen.ended)
    assert seen.told == ALL_TOLD
    assert child.is_over


@has_pidfds
def test_a_status_is_not_lost_to_an_interrupt_after_the_reaping(seen: Asked) -> None:
    seen.start_and_wait("exit 6")
    with interrupted_before(children.Child.try_reap_in, "if status is not None"):
        seen.loop.run_once(0)
    assert ("exit",) not in seen.told
    seen.run_until(lambda: seen.ended)
    assert seen.status is not None
    assert seen.status.code == 6


def test_a_loop_that_is_closed_meanwhile_gets_no_more_calls() -> None:
    loop = EventLoop()
    seen = Observed()
    seen.loop.close()
    seen.loop = loop
    child = seen.start("exit 0")
    wait_dead(child)
    loop.close()
    child.let_go()
    assert seen.told == ALL_TOLD[:3]
    assert child.try_reap()
    assert seen.told == ALL_TOLD
