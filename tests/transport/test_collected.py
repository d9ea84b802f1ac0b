"""One child, collected whole, by whoever started it; test_pool.py has the crowds."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from held import wait_for
from leftovers import child_pids, open_fds
from support import DEADLINE_S, PROC
from watched import watched_by_kernel

from procreactor.kernel import children, pipes
from procreactor.kernel.children import Child
from procreactor.kernel.spawners import Finish, Spawner
from procreactor.loop.eventloop import EventLoop
from procreactor.model import PipeEnd, Redirect, SpawnSpec
from procreactor.transport.collected import BUFFER_BYTES, CollectedChild, Collecting, pairs_of

Pieces = list[bytes]

PIPES = (
    Redirect(0, PipeEnd.WE_WRITE),
    Redirect(1, PipeEnd.WE_READ),
    Redirect(2, PipeEnd.WE_READ),
)

has_pidfds = pytest.mark.skipif("pidfd" not in children.in_use(), reason="pidfds are off")


class Bench:
    """A loop, and the children that it collects."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.shared: Collecting[Pieces] = Collecting(self.loop, DEADLINE_S, pairs_of(list))
        self.over: list[CollectedChild[Pieces]] = []

    def start(self, script: str, data: bytes = b"") -> CollectedChild[Pieces]:
        """Start "sh -c *script*"; its end is watched once `watch` is called, as its streams are."""
        spec = SpawnSpec((b"/bin/sh",), (b"sh", b"-c", script.encode()), (), PIPES)
        child = Child(spec)
        child.start(spec)
        one = CollectedChild(self.shared, child, spec, self.over.append)
        if not data:
            one.feed(b"")
        return one

    def run_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"not within {DEADLINE_S} s"
            self.loop.run_once(end - time.monotonic())


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    before = watched_by_kernel(made.loop.epoll_fd)
    yield made
    assert watched_by_kernel(made.loop.epoll_fd) == before
    assert not made.loop.timers
    made.loop.close()


def texts(one: CollectedChild[Pieces]) -> tuple[bytes, bytes]:
    out, err = one.output() or ([], [])
    return b"".join(out), b"".join(err)


def test_the_end_is_told_once_with_all_that_came(bench: Bench) -> None:
    one = bench.start("echo out; echo error >&2; exit 3")
    one.watch()
    bench.run_until(lambda: bench.over)
    bench.loop.run_once(0)
    assert bench.over == [one]
    assert one.status is not None
    assert (one.status.code, texts(one)) == (3, (b"out\n", b"error\n"))


def test_one_that_ended_before_it_was_watched_is_told_by_the_next_turn(bench: Bench) -> None:
    one = bench.start("echo out; exit 3")
    wait_for(lambda: ") Z " in Path(f"{PROC}/{one.pid}/stat").read_text())
    one.watch()
    bench.loop.run_once(0)
    assert bench.over == [one]
    assert texts(one) == (b"out\n", b"")


def test_one_that_wrote_nothing_has_no_sinks(bench: Bench) -> None:
    one = bench.start("exit 0")
    one.watch()
    bench.run_until(lambda: bench.over)
    assert one.output() is None


def test_no_more_than_a_share_is_read_of_a_stream_in_a_turn(bench: Bench) -> None:
    one = bench.start("head -c 3000000 /dev/zero")
    one.watch()
    sizes = [0]
    while not bench.over:
        bench.loop.run_once(DEADLINE_S)
        sizes.append(len(texts(one)[0]))
    steps = [later - earlier for earlier, later in itertools.pairwise(sizes)]
    assert max(steps) <= 2 * BUFFER_BYTES  # once for the stream, once for the exit
    assert sizes[-1] == 3_000_000


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_pipe_that_proves_hot_is_grown_and_gives_its_share_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    shares: set[int] = set()
    monkeypatch.setattr(pipes, "_grown", shares)
    one = bench.start("head -c 8000000 /dev/zero; echo cold >&2")
    out_fd, err_fd = one._fds
    one.watch()
    bench.run_until(lambda: len(texts(one)[0]) > 2_000_000)
    assert one.pid is not None, "most is still to come"
    if not shares:
        pytest.skip("no pipe may be grown here")
    assert shares == {out_fd}
    assert fcntl.fcntl(out_fd, fcntl.F_GETPIPE_SZ) >= pipes.GROWN_BYTES
    assert fcntl.fcntl(err_fd, fcntl.F_GETPIPE_SZ) < pipes.GROWN_BYTES
    if is_killed:
        one.kill()
    else:
        bench.run_until(lambda: bench.over)
        assert texts(one) == (bytes(8_000_000), b"cold\n")
    assert shares == set()


def test_input_is_fed_and_ended(bench: Bench) -> None:
    one = bench.start("cat; echo end", b"some")
    one.watch()
    one.feed(b"some")
    bench.run_until(lambda: bench.over)
    assert texts(one)[0] == b"someend\n"


def test_the_pid_is_known_and_signals_arrive_until_the_end(bench: Bench) -> None:
    one = bench.start("exec sleep 600")
    one.watch()
    assert {one.pid} == child_pids()
    one.send_signal(signal.SIGTERM)
    bench.run_until(lambda: bench.over)
    assert one.status is not None
    assert (one.status.signal, one.pid) == (signal.SIGTERM, None)
    with pytest.raises(ProcessLookupError):
        one.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("script", ["exec sleep 600", "trap '' TERM; kill -STOP $$", "exit 3"])
def test_a_kill_reaps_and_closes_and_tells_nothing(
    bench: Bench, script: str, watched: bool
) -> None:
    before = open_fds()
    one = bench.start(script, b"never fed")
    if watched:
        one.watch()
    one.kill()
    assert not child_pids()
    assert open_fds() == before
    one.kill()
    one.close()
    bench.loop.run_once(0)
    assert bench.over == []


def test_a_kill_while_the_input_waits_for_room_closes_it_too(bench: Bench) -> None:
    before = open_fds()
    one = bench.start("exec sleep 600", b"fed")
    one.watch()
    one.feed(bytes(1 << 20))
    one.kill()
    assert open_fds() == before


def test_a_kill_of_one_whose_streams_others_hold_does_not_wait_for_them(bench: Bench) -> None:
    one = bench.start("exec 3<&0; (cat <&3) & exit 3", b"fed")
    one.watch()
    bench.run_until(lambda: one.status)
    one.kill()  # the grandchild's input ends with it
    assert bench.over == []


@pytest.mark.parametrize("watched", [False, True])
def test_a_close_lets_the_child_run_on(bench: Bench, watched: bool) -> None:
    before = open_fds()
    one = bench.start("trap 'exit 7' TERM; kill -STOP $$; exit 6")
    pid = one.pid
    assert pid is not None
    if watched:
        one.watch()
    wait_for(lambda: ") T " in Path(f"{PROC}/{pid}/stat").read_text())
    one.close()
    one.close()
    if "pidfd" in children.in_use():  # else a thread has an fd until the child has ended
        assert open_fds() == before
    assert one.pid is None
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert open_fds() == before
    bench.loop.run_once(0)
    assert bench.over == []


# --- going on where others have stopped -----------------------------------------------------------


@contextmanager
def reaped_and_held(bench: Bench) -> Iterator[tuple[CollectedChild[Pieces], Finish]]:
    """A child that native threads have seen to its end, and a grandchild that has its streams.

    It says "early" before the end, and "late" once the fd is closed that it waits for.
    """
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    script = b"(read word <&3; echo late) & echo early; exit 3"
    redirects = (*PIPES, Redirect(3, theirs))
    spec = SpawnSpec((b"/bin/sh",), (b"sh", b"-c", script), (), redirects)
    spawner, finishes = Spawner(1), deque[Finish]()
    try:
        spawner.submit(spec, keeps=True)
        assert select.select([spawner], [], [], DEADLINE_S)[0]
        spawner.take(finishes)
        spawner.release(finishes[0].child)
        spawner.close(finishes)
        (finish,) = finishes
        assert (finish.is_over, finish.data, finish.child.pid) == (False, (b"early\n", b""), -1)
        yield CollectedChild(bench.shared, finish.child, spec, bench.over.append), finish
    finally:
        os.close(ours)
        os.close(theirs)
        spawner.close(finishes)


@has_pidfds
def test_one_that_others_have_reaped_is_over_when_its_streams_are(bench: Bench) -> None:
    with reaped_and_held(bench) as (one, finish):
        one.resume(finish.told, finish.status)
        one.append(finish.data or (b"", b""))
        assert (one.pid, texts(one), bench.over) == (None, (b"early\n", b""), [])
        with pytest.raises(ProcessLookupError):
            one.send_signal(signal.SIGTERM)
        bench.loop.run_once(0)
        assert bench.over == []
    bench.run_until(lambda: bench.over)
    assert bench.over == [one]
    assert texts(one) == (b"early\nlate\n", b"")
    assert one.status is finish.status
    assert one.status is not None
    assert one.status.code == 3


@has_pidfds
def test_one_that_others_have_reaped_is_given_up_after_a_while(bench: Bench) -> None:
    before = open_fds()
    bench.shared.drain_s = 0.0
    with reaped_and_held(bench) as (one, finish):
        one.resume(finish.told, finish.status)
        one.append(finish.data or (b"", b""))
        bench.run_until(lambda: bench.over)
        assert bench.over == [one]
        assert texts(one) == (b"early\n", b"")
    assert open_fds() == before


@has_pidfds
def test_a_kill_of_one_that_others_have_reaped_lets_go_of_its_streams(bench: Bench) -> None:
    before = open_fds()
    with reaped_and_held(bench) as (one, finish):
        one.resume(finish.told, finish.status)
        one.kill()
        one.kill()
    assert open_fds() == before
    bench.loop.run_once(0)
    assert bench.over == []


@has_pidfds
def test_a_kill_of_one_that_others_have_reaped_comes_also_before_it_goes_on(bench: Bench) -> None:
    """As after an interrupt between the two lines that make it and have it go on."""
    before = open_fds()
    with reaped_and_held(bench) as (one, _):
        one.kill()
    assert open_fds() == before
    assert bench.over == []


def test_one_of_which_nothing_was_seen_goes_on_from_the_beginning(bench: Bench) -> None:
    one = bench.start("echo out; exit 3")
    one.resume(0, None)
    bench.run_until(lambda: bench.over)
    assert one.status is not None
    assert (one.status.code, texts(one)) == (3, (b"out\n", b""))


def test_what_is_there_can_be_had_without_waiting_and_its_size_is_told(bench: Bench) -> None:
    one = bench.start("echo out; echo error >&2; kill -STOP $$; echo more; exit 3")
    one.watch()
    assert one.pid is not None
    wait_for(lambda: ") T " in Path(f"{PROC}/{one.pid}/stat").read_text())
    assert (one.read_now(), one.read_now()) == (10, 0)
    assert texts(one) == (b"out\n", b"error\n")
    pid = one.pid
    one.send_signal(signal.SIGCONT)
    wait_for(lambda: ") Z " in Path(f"{PROC}/{pid}/stat").read_text())
    assert bench.over == []
    assert one.read_now() == 5
    assert bench.over == [one]
    assert texts(one) == (b"out\nmore\n", b"error\n")


# --- what nobody has room for ---------------------------------------------------------------------


class Waits:
    """Says whether a child has to wait, counts how often it was asked, and has it go on."""

    def __init__(self) -> None:
        self.must = False
        self.asked = 0
        self._end: Callable[[bool], object] = bool

    def __call__(self, sinks: tuple[Pieces, Pieces], end: Callable[[bool], object]) -> bool:
        self.asked += 1
        self._end = end
        return self.must

    def end(self, *, for_good: bool = True) -> None:
        self.must = not for_good
        self._end(for_good)


def start_waiting(bench: Bench, script: str) -> tuple[CollectedChild[Pieces], Waits]:
    """One that has written a word, and has to wait with all that comes after it."""
    one = bench.start(f"echo out; read word; {script}", b"later")
    waits = bench.shared.must_wait = Waits()
    one.watch()
    bench.run_until(one.output)
    waits.must = True
    one.feed(b"word\n")
    return one, waits


def test_one_that_has_to_wait_does_not_wake_the_loop_until_it_need_not(bench: Bench) -> None:
    one, waits = start_waiting(bench, "exec head -c 3000000 /dev/zero")
    bench.run_until(lambda: waits.asked)
    asked = waits.asked
    bench.loop.run_once(0)
    assert not select.select([bench.loop.epoll_fd], [], [], 0.05)[0]
    waits.end(for_good=False)
    bench.run_until(lambda: waits.asked > asked)
    assert not select.select([bench.loop.epoll_fd], [], [], 0.05)[0]
    assert texts(one)[0] == b"out\n"
    waits.end()
    bench.run_until(lambda: bench.over)
    assert texts(one)[0] == b"out\n" + bytes(3_000_000)
    waits.end()  # nobody is there any more
    assert not bench.loop.timers


def test_a_pipe_that_was_full_before_the_wait_is_grown_and_passed_on_after_it(
    bench: Bench,
) -> None:
    one, waits = start_waiting(bench, "exec head -c 3000000 /dev/zero")
    waits.must = False
    bench.run_until(lambda: one._full)
    waits.must = True
    asked = waits.asked
    bench.run_until(lambda: waits.asked > asked)
    assert len(one._full) == 1
    pieces = [len(pieces) for pieces in one.output() or ()]
    passed_on = []

    def pass_on(sink: Pieces, fd: int) -> int:
        passed_on.append([len(pieces) for pieces in one.output() or ()])
        return 0  # but it cannot be: it is read

    bench.shared.pass_on = pass_on
    waits.end()
    assert one._grown == one._full
    bench.run_until(lambda: bench.over)
    assert passed_on[0] == pieces, "ahead of all reads"
    assert texts(one)[0] == b"out\n" + bytes(3_000_000)


def test_one_that_is_killed_while_it_waits_leaves_nothing(bench: Bench) -> None:
    one, waits = start_waiting(bench, "echo more; exec sleep 1000")
    bench.run_until(lambda: waits.asked)
    one.kill()
    waits.end()
    assert not bench.loop.timers


def test_a_set_that_is_full_when_the_wait_ends_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, waits = start_waiting(bench, "echo more; exec sleep 1000")
    bench.run_until(lambda: waits.asked)
    refused = []

    def refuse(*args: object) -> NoReturn:
        refused.append(args)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(EventLoop, "watch", refuse)
        for _ in range(3):
            waits.end()
        assert len(bench.loop.timers) == 1
        bench.run_until(lambda: len(refused) > 4)
    bench.run_until(lambda: b"more" in texts(one)[0])
    assert not bench.loop.timers
    monkeypatch.setattr(EventLoop, "watch", refuse)
    waits.must = True
    one._wait()
    waits.end()
    one.kill()
    assert not bench.loop.timers


def test_the_end_of_one_that_waits_is_seen_and_what_is_left_of_it_read(bench: Bench) -> None:
    one, _ = start_waiting(bench, "echo more; exit 3")
    bench.run_until(lambda: bench.over)
    assert one.status is not None
    assert (one.status.code, texts(one)[0]) == (3, b"out\nmore\n")


def test_what_one_that_waits_has_left_behind_has_its_time_once_it_is_read(bench: Bench) -> None:
    one, waits = start_waiting(bench, "head -c 3000000 /dev/zero & exit 3")
    bench.run_until(lambda: one.status)
    bench.run_until(lambda: waits.asked)
    for _ in range(3):
        asked = waits.asked
        waits.end(for_good=False)
        bench.run_until(lambda asked=asked: waits.asked > asked)
        assert not bench.loop.timers, "while it waits no time passes"
    assert not bench.over
    waits.end()
    assert bench.loop.timers
    bench.run_until(lambda: bench.over)
    assert texts(one)[0] == b"out\n" + bytes(3_000_000)


def test_one_that_waits_is_not_waited_for_without_end_when_it_goes_on(bench: Bench) -> None:
    bench.shared.drain_s = 0.0
    one, waits = start_waiting(bench, "yes & exit 3")
    bench.run_until(lambda: one.status)
    waits.end()
    bench.run_until(lambda: bench.over)
    assert texts(one)[0].startswith(b"out\n")


def test_the_time_in_which_nobody_could_read_is_not_what_is_given(bench: Bench) -> None:
    held_up_s = itertools.chain((0.0, DEADLINE_S), itertools.repeat(DEADLINE_S))
    bench.shared.held_up_s = lambda: next(held_up_s)
    bench.shared.drain_s = 0.0
    one = bench.start("head -c 9000000 /dev/zero & exit 3")
    one.watch()
    bench.run_until(lambda: bench.over)
    assert len(texts(one)[0]) == 9_000_000


def test_that_nobody_could_read_is_not_forgotten_in_a_wait(bench: Bench) -> None:
    bench.shared.drain_s = 2 * DEADLINE_S
    one, waits = start_waiting(bench, "yes & exit 3")
    waits.must = False
    bench.run_until(lambda: one.status)
    bench.shared.held_up_s = lambda: DEADLINE_S
    one._wait()
    one._end_wait()
    timer = one._drain_timer
    assert timer is not None
    assert timer.deadline_s > time.monotonic() + 2 * DEADLINE_S
    one.close()


def test_a_stream_is_read_though_the_other_can_be_passed_on_without_end(bench: Bench) -> None:
    passed_on: list[int] = []
    bench.shared.pass_on = lambda sink, fd: passed_on.append(fd) or 1
    one = bench.start("head -c 2000000 /dev/zero; read word; echo cold >&2; exec yes", b"later")
    one.watch()
    bench.run_until(lambda: len(texts(one)[0]) == 2_000_000 or passed_on)
    if not one._grown:
        one.kill()
        pytest.skip("no pipe may be grown here")
    one.feed(b"word\n")
    bench.run_until(lambda: texts(one)[1] == b"cold\n")
    assert set(passed_on) == {one._fds[0]}
    one.kill()
