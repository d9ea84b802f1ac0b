"""One child, collected whole, by whoever started it; test_pool.py has the crowds."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import child_pids, open_fds
from held import wait_for
from support import DEADLINE_S
from watched import watched_by_kernel

from procreactor.kernel.children import Child
from procreactor.loop.eventloop import EventLoop
from procreactor.model import PipeEnd, Redirect, SpawnSpec
from procreactor.transport.collected import BUFFER_BYTES, CollectedChild, Collecting

Pieces = list[bytes]


class Bench:
    """A loop, and the children that it collects."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.shared: Collecting[Pieces] = Collecting(self.loop, DEADLINE_S, list)
        self.over: list[CollectedChild[Pieces]] = []

    def start(self, script: str, data: bytes = b"") -> CollectedChild[Pieces]:
        """Start "sh -c *script*"; its end is watched once `watch` is called, as its streams are."""
        redirects = (
            Redirect(0, PipeEnd.WE_WRITE),
            Redirect(1, PipeEnd.WE_READ),
            Redirect(2, PipeEnd.WE_READ),
        )
        spec = SpawnSpec((b"/bin/sh",), (b"sh", b"-c", script.encode()), (), redirects)
        child = Child(spec)
        child.start(spec)
        one = CollectedChild(self.shared, child, spec, 0, self.over.append)
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
    wait_for(lambda: ") Z " in Path(f"/proc/{one.pid}/stat").read_text())
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
    wait_for(lambda: ") T " in Path(f"/proc/{pid}/stat").read_text())
    one.close()
    one.close()
    assert open_fds() == before
    assert one.pid is None
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    bench.loop.run_once(0)
    assert bench.over == []
