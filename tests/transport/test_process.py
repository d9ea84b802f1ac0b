"""One real child at a time: what its observer is told, and in which order."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from alone import alone
from observed import STANDARD, Observed, sh, watched_fds
from programs_build import build_program
from watched import watched_by_kernel

from procreactor.errors import SpawnError
from procreactor.kernel import children
from procreactor.kernel.poller import READ
from procreactor.kernel.ptys import PtyPair, open_pty
from procreactor.loop.eventloop import EventLoop
from procreactor.model import PipeEnd, Redirect, SpawnSpec
from procreactor.transport.process import ChildProcess, TerminalChild
from procreactor.transport.reader import StreamReader
from procreactor.transport.writer import StreamWriter

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture
def seen() -> Iterator[Observed]:
    made = Observed()
    yield made
    made.loop.close()


# --- on pipes -------------------------------------------------------------------------------------


def test_before_the_start_there_is_no_child(seen: Observed) -> None:
    child = ChildProcess(seen.loop, seen)
    assert (child.pid, child.pidfd, child.status, child.mode) == (None, None, None, frozenset())
    assert not child.is_over
    with pytest.raises(ProcessLookupError):
        child.send_signal(signal.SIGTERM)


def test_a_started_child_has_its_pipes_and_nothing_has_been_told(seen: Observed) -> None:
    child = seen.start("read x")
    assert isinstance(child.pipes[0], StreamWriter)
    assert isinstance(child.pipes[1], StreamReader)
    assert isinstance(child.pipes[2], StreamReader)
    assert child.pid is not None
    assert (child.pidfd is not None) == ("pidfd" in children.in_use())
    assert child.mode <= children.in_use()
    assert seen.told == []
    child.close_pipe(0)
    seen.run_until(lambda: seen.ended)


def test_the_end_is_last_and_comes_after_every_pipe_and_the_exit(seen: Observed) -> None:
    child = seen.finish("echo out; echo err >&2; exit 3")
    assert seen.data == {1: b"out\n", 2: b"err\n"}
    assert seen.told[-1] == ("end",)
    for one in (("exit",), ("end",), *(("pipe lost", fd) for fd in range(3))):
        assert seen.told.count(one) == 1
    assert seen.status is child.status
    assert seen.status is not None
    assert seen.status.code == 3
    assert child.is_over
    assert (child.pid, child.pidfd, child.pipes) == (None, None, {})


def test_data_of_a_pipe_comes_before_its_end(seen: Observed) -> None:
    seen.finish("exec 2>&-; echo out; i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done")
    assert seen.data[1].startswith(b"out\n0\n1\n")
    assert seen.data[1].endswith(b"\n19999\n")
    last = max(index for index, one in enumerate(seen.told) if one == ("data", 1))
    assert seen.told.index(("pipe lost", 1)) > last


def test_what_is_written_reaches_the_child(seen: Observed) -> None:
    child = seen.start("cat; cat <&5 >&2", [*STANDARD, Redirect(5, PipeEnd.WE_WRITE)])
    child.write(0, b"to 0")
    child.write(5, bytearray(b"to 5"))
    child.close_pipe(0)
    child.close_pipe(5)
    seen.run_until(lambda: seen.ended)
    assert seen.data == {1: b"to 0", 2: b"to 5"}


def test_writing_to_what_is_no_open_pipe_into_the_child_is_an_error(seen: Observed) -> None:
    child = seen.start("cat")
    for child_fd in (1, 9):
        with pytest.raises(KeyError, match=f"child fd {child_fd} "):
            child.write(child_fd, b"x")
    child.close_pipe(0)
    seen.run_until(lambda: seen.ended)
    with pytest.raises(KeyError):
        child.write(0, b"x")


def test_a_child_without_pipes_has_an_exit_and_an_end(seen: Observed) -> None:
    child = seen.finish("exit 0", [])
    assert seen.told == [("exit",), ("end",)]
    assert child.is_over


def test_the_exit_is_told_though_a_grandchild_holds_the_pipes(seen: Observed) -> None:
    child = seen.start("sleep 600 & echo $!; exit 5")
    seen.run_until(lambda: ("exit",) in seen.told and 1 in seen.data)
    assert not seen.ended
    assert child.pid is None
    os.kill(int(seen.data[1]), signal.SIGKILL)
    seen.run_until(lambda: seen.ended)


def test_a_child_that_closes_its_pipes_may_live_on(seen: Observed) -> None:
    child = seen.start("exec 0<&- 1>&- 2>&-; exec sleep 600")
    seen.run_until(lambda: not child.pipes)
    assert sorted(seen.told) == [("pipe lost", 0), ("pipe lost", 1), ("pipe lost", 2)]
    child.send_signal(signal.SIGTERM)
    seen.run_until(lambda: seen.ended)
    assert seen.told[3:] == [("exit",), ("end",)]
    assert child.status is not None
    assert child.status.signal == signal.SIGTERM


def test_closing_a_pipe_out_of_the_child_is_told_later_and_drops_the_rest(seen: Observed) -> None:
    child = seen.start("echo unread; read x; echo more; exit 0")
    child.close_pipe(1)
    child.close_pipe(1)
    child.close_pipe(99)
    assert seen.told == []
    seen.run_until(lambda: ("pipe lost", 1) in seen.told)
    child.close_pipe(0)
    seen.run_until(lambda: seen.ended)
    assert 1 not in seen.data
    assert seen.told.count(("pipe lost", 1)) == 1


def test_reading_can_be_paused_and_nothing_is_lost(seen: Observed) -> None:
    child = seen.start("echo out; echo err >&2")
    child.pause_reading()
    seen.run_until(lambda: ("exit",) in seen.told)
    assert seen.data == {}
    child.resume_reading()
    seen.run_until(lambda: seen.ended)
    assert seen.data == {1: b"out\n", 2: b"err\n"}


def test_a_signal_after_the_end_is_refused(seen: Observed) -> None:
    child = seen.finish("exit 0")
    with pytest.raises(ProcessLookupError):
        child.send_signal(signal.SIGTERM)


def test_a_refused_start_leaves_nothing_watched_and_nothing_told(seen: Observed) -> None:
    before = watched_fds(seen.loop)
    child = ChildProcess(seen.loop, seen)
    with pytest.raises(SpawnError):
        child.start(SpawnSpec([b"/nonexistent"], [b"x"], [], STANDARD))
    assert watched_fds(seen.loop) == before
    assert (child.pid, child.pipes, seen.told) == (None, {}, [])


class RefusingLoop(EventLoop):
    """A loop that takes only so many fds more."""

    room: int | None = None
    refusal: BaseException = OSError(errno.ENOSPC, "fs.epoll.max_user_watches")

    def watch(self, fd: int, on_ready: Any, events: int) -> Any:
        self._take_room()
        return super().watch(fd, on_ready, events)

    def adopt(self, fd: int, on_ready: Any, events: int) -> Any:
        self._take_room()
        return super().adopt(fd, on_ready, events)

    def _take_room(self) -> None:
        if self.room is not None:
            if not self.room:
                raise self.refusal
            self.room -= 1


def test_a_started_childs_fds_are_watched_by_the_loop_and_by_the_kernel(seen: Observed) -> None:
    before = watched_by_kernel(seen.loop.epoll_fd)
    child = seen.start("read x; exit 3")
    stdin, stdout, stderr = (child.pipes[child_fd].fileno() for child_fd in (0, 1, 2))
    (exit_fd,) = watched_fds(seen.loop) - set(before) - {stdin, stdout, stderr}
    assert child.pidfd in (exit_fd, None)
    wanted = {stdin: 0, stdout: READ, stderr: READ, exit_fd: READ}
    assert watched_by_kernel(seen.loop.epoll_fd) == {**before, **wanted}
    child.write(0, b"\n")
    seen.run_until(lambda: seen.ended)
    assert watched_by_kernel(seen.loop.epoll_fd) == before


@pytest.mark.parametrize("room", range(4))
@pytest.mark.parametrize("refusal", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_a_start_that_is_interrupted_between_its_fds_is_undone(
    room: int, refusal: BaseException
) -> None:
    seen = Observed()
    loop = RefusingLoop()
    loop.room, loop.refusal = room, refusal
    before = watched_fds(loop)
    child = ChildProcess(loop, seen)
    with pytest.raises(type(refusal)):
        child.start(sh("exec sleep 600"))
    assert watched_fds(loop) == before
    assert (child.pid, child.pipes, seen.told) == (None, {}, [])
    loop.close()
    seen.loop.close()


@pytest.mark.parametrize("redirects", [STANDARD, ()], ids=["pipes", "none"])
def test_a_start_whose_fds_the_kernel_does_not_watch_is_undone(
    seen: Observed, redirects: Sequence[Redirect], pipe: tuple[int, int]
) -> None:
    if not redirects and "pidfd" not in children.in_use():
        pytest.skip("without pidfds there is nothing to be watched")
    before = watched_fds(seen.loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen.loop, "epoll_fd", pipe[0])  # no epoll set
        child = ChildProcess(seen.loop, seen)
        with pytest.raises(SpawnError) as caught:
            child.start(sh("exec sleep 600", redirects))
    assert (caught.value.stage, caught.value.errno) == ("watch", errno.EINVAL)
    assert watched_fds(seen.loop) == before
    assert (child.pid, child.pipes, seen.told) == (None, {}, [])


def test_a_closed_loop_starts_nobody() -> None:
    loop = EventLoop()
    loop.close()
    other = EventLoop()  # most likely with the number that the closed one had
    before = watched_by_kernel(other.epoll_fd)
    with pytest.raises(ValueError, match="closed epoll"):
        ChildProcess(loop, Observed()).start(sh("exec sleep 600"))
    assert watched_by_kernel(other.epoll_fd) == before
    other.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_CLOEXEC)
    yield ends
    os.close(ends[0])
    os.close(ends[1])


def refuse_to_watch_the_exit() -> list[str]:
    seen, loop = Observed(), RefusingLoop()
    before = watched_fds(loop)
    loop.room = 3
    child = ChildProcess(loop, seen)
    try:
        child.start(sh("exec sleep 600"))
    except SpawnError as error:
        told = [error.stage, errno.errorcode[error.errno or 0], error.hint]
    assert watched_fds(loop) == before
    assert (child.pid, child.pipes, seen.told) == (None, {}, [])
    loop.close()
    seen.loop.close()
    return told


@pytest.mark.needs("threads")
def test_without_pidfds_a_start_whose_exit_can_not_be_watched_is_undone() -> None:
    stage, name, hint = alone(refuse_to_watch_the_exit, disable="pidfd")
    assert (stage, name) == ("watch", "ENOSPC")
    assert "fs.epoll.max_user_watches" in hint


def test_a_child_that_is_let_go_is_neither_signalled_nor_reaped(seen: Observed) -> None:
    child = seen.start("trap '' HUP PIPE; exec sleep 600")
    pid = child.pid
    assert pid is not None
    before = watched_fds(seen.loop)
    child.let_go()
    assert seen.told == [("pipe lost", 0), ("pipe lost", 1), ("pipe lost", 2)]
    assert len(watched_fds(seen.loop)) == len(before) - 4
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    seen.loop.run_once(0)
    assert len(seen.told) == 3
    os.waitpid(pid, 0)


@needs_compiler
@pytest.mark.skipif("pidfd" not in children.in_use(), reason="without pidfds a thread waits it out")
def test_a_zombie_that_a_tracer_holds_is_no_exit_yet_and_is_looked_at_again(seen: Observed) -> None:
    child = seen.start("exec sleep 600", [])
    program = os.fsencode(build_program("tracer"))
    tracing = Observed()
    tracing.loop.close()
    tracing.loop = seen.loop
    tracer = ChildProcess(seen.loop, tracing)
    tracer.start(SpawnSpec([program], [program, b"%d" % (child.pid or 0)], [], STANDARD))
    seen.run_until(lambda: 1 in tracing.data)
    child.send_signal(signal.SIGKILL)
    seen.run_until(lambda: child._exit_watch is None)
    assert ("exit",) not in seen.told
    assert seen.loop._poller.wait(0) == []  # nothing to spin on
    tracer.close_pipe(0)
    seen.run_until(lambda: seen.ended and tracing.ended)
    assert seen.status is not None
    assert seen.status.signal == signal.SIGKILL


def test_a_status_that_other_code_took_still_ends_the_child(seen: Observed) -> None:
    child = seen.start("exit 4")
    assert child.pid is not None
    os.waitpid(child.pid, 0)
    seen.run_until(lambda: seen.ended)
    assert seen.status is not None
    assert seen.status.code in (4, None)


def test_many_children_end_each_with_its_own_code(seen: Observed) -> None:
    everyone = [Observed() for _ in range(50)]
    for index, one in enumerate(everyone):
        one.loop.close()
        one.loop = seen.loop
        one.start(f"exit {index}")
    seen.run_until(lambda: all(one.ended for one in everyone))
    codes = [one.status.code for one in everyone if one.status is not None]
    assert codes == list(range(50))


# --- on a terminal --------------------------------------------------------------------------------


def start_on_terminal(seen: Observed, script: str) -> tuple[TerminalChild, PtyPair]:
    pair = open_pty()
    child = TerminalChild(seen.loop, seen)
    child.start(sh(script, []), pair)
    return child, pair


def test_a_terminal_is_one_stream_both_ways_told_as_fd_1(seen: Observed) -> None:
    child, _ = start_on_terminal(seen, "stty -echo; echo ready; read x; echo got $x >&2")
    seen.run_until(lambda: b"ready" in seen.data.get(1, b""))
    assert child.writer is not None
    child.writer.write(b"it\n")
    seen.run_until(lambda: seen.ended)
    assert seen.data == {1: b"ready\r\ngot it\r\n"}
    assert seen.told[-1] == ("end",)
    assert sorted(seen.told[-3:]) == [("end",), ("exit",), ("pipe lost", 1)]


def test_the_pair_is_taken_over(seen: Observed) -> None:
    _, pair = start_on_terminal(seen, "exit 0")
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(pair.slave)
    seen.run_until(lambda: seen.ended)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(pair.master)


def test_a_refused_start_leaves_the_pair_to_its_owner(seen: Observed) -> None:
    pair = open_pty()
    child = TerminalChild(seen.loop, seen)
    with pytest.raises(SpawnError):
        child.start(SpawnSpec([b"/nonexistent"], [b"x"], []), pair)
    assert (child.reader, child.writer, child.pid, seen.told) == (None, None, None, [])
    os.close(pair.master)
    os.close(pair.slave)


@pytest.mark.parametrize("room", range(2))
def test_a_start_on_a_terminal_that_can_not_be_watched_is_undone(room: int) -> None:
    seen, loop, pair = Observed(), RefusingLoop(), open_pty()
    loop.room = room
    child = TerminalChild(loop, seen)
    with pytest.raises(OSError, match="max_user_watches"):
        child.start(sh("exec sleep 600", []), pair)
    assert (child.reader, child.writer, child.pid, seen.told) == (None, None, None, [])
    os.close(pair.master)
    os.close(pair.slave)
    loop.close()
    seen.loop.close()


def test_a_close_hangs_up_when_all_is_written(seen: Observed) -> None:
    child, _ = start_on_terminal(seen, "trap 'exit 9' HUP; echo ready; while :; do read x; done")
    seen.run_until(lambda: b"ready" in seen.data.get(1, b""))
    child.close()
    assert ("pipe lost", 1) not in seen.told
    seen.run_until(lambda: seen.ended)
    assert child.status is not None
    assert child.status.code == 9 or child.status.signal == signal.SIGHUP


def test_letting_go_of_a_terminal_hangs_up_at_once(seen: Observed) -> None:
    child, _ = start_on_terminal(seen, "echo ready; exec sleep 600")
    seen.run_until(lambda: b"ready" in seen.data.get(1, b""))
    pid = child.pid
    assert pid is not None
    child.let_go()
    child.let_go()
    assert seen.told[-1] == ("pipe lost", 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGHUP
