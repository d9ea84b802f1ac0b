"""Bytes from a queue to an fd: all of them, in order, and nothing called out of a write."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watched import by_others, watched_by_kernel

from procreactor.kernel import pipes
from procreactor.kernel.pipes import GROWN_BYTES
from procreactor.kernel.poller import WRITE
from procreactor.loop.eventloop import EventLoop
from procreactor.transport.writer import HIGH_WATER_BYTES, StreamWriter

DEADLINE_S = 30
PIPE_BYTES = 65536


class Stream:
    """A pipe with a `StreamWriter` on it; what arrived, and how often the end was told."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.arrived = b""
        self.ends: list[int] = []
        self.writer = StreamWriter(self.loop, self.write_fd, 7, self.ends.append)

    def turn(self) -> None:
        self.loop.run_once(0)

    def read(self) -> None:
        try:
            self.arrived += os.read(self.read_fd, 1 << 20)
        except BlockingIOError:
            pass

    def run_until(self, condition: Callable[[], object], reading: bool = True) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end
            self.loop.run_once(0)
            if reading:
                self.read()

    def hang_up(self) -> None:
        os.close(self.read_fd)
        self.read_fd = -1

    def close(self) -> None:
        self.writer.stop()
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)
        self.loop.close()


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.close()


def test_a_small_write_is_made_at_once(stream: Stream) -> None:
    assert stream.writer.fileno() == stream.write_fd
    stream.writer.write(b"now")
    stream.read()
    assert stream.arrived == b"now"
    assert stream.writer.queued_bytes == 0


def test_what_does_not_fit_is_queued_and_follows_in_order(stream: Stream) -> None:
    data = bytes(range(256)) * 4096
    for start in range(0, len(data), 50_000):
        stream.writer.write(data[start : start + 50_000])
    assert len(data) - PIPE_BYTES <= stream.writer.queued_bytes < len(data)
    stream.run_until(lambda: len(stream.arrived) == len(data))
    assert stream.arrived == data
    assert stream.writer.queued_bytes == 0


@given(
    st.lists(
        st.one_of(st.binary(max_size=10), st.integers(0, 200_000).map(lambda n: b"%d," % n * 9)),
        max_size=30,
    )
)
@settings(max_examples=30, deadline=None)
def test_any_pieces_arrive_as_they_were_written(pieces: list[bytes]) -> None:
    stream = Stream()
    stream.writer.write_all(pieces[::2])
    for piece in pieces[1::2]:
        stream.writer.write(piece)
    stream.writer.close_when_flushed()
    stream.run_until(lambda: stream.ends)
    stream.read()
    assert stream.arrived == b"".join([*pieces[::2], *pieces[1::2]])
    stream.close()


def test_what_is_not_bytes_is_refused_and_nothing_of_it_is_written(stream: Stream) -> None:
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            stream.writer.write(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        stream.writer.write_all([b"good", "bad"])  # type: ignore[list-item]
    stream.read()
    assert stream.arrived == b""


def test_the_writer_keeps_its_own_copy_of_what_can_change(stream: Stream) -> None:
    stream.writer.write(b"x" * PIPE_BYTES)
    data = bytearray(b"before")
    stream.writer.write(data)
    data[:] = b"after!"
    stream.run_until(lambda: len(stream.arrived) == PIPE_BYTES + 6)
    assert stream.arrived.endswith(b"before")


def test_an_idle_writer_does_not_keep_the_loop_busy(stream: Stream) -> None:
    assert stream.loop._poller.wait(0) == []
    stream.writer.write(b"x" * (PIPE_BYTES + 1))
    assert stream.loop._poller.wait(0) == []
    stream.run_until(lambda: not stream.writer.queued_bytes)
    assert stream.loop._poller.wait(0) == []


# --- closing --------------------------------------------------------------------------------------


def test_a_close_is_told_in_a_later_turn(stream: Stream) -> None:
    stream.writer.close_when_flushed()
    assert stream.ends == []
    stream.turn()
    assert stream.ends == [7]
    stream.turn()
    assert stream.ends == [7]
    assert stream.writer.finished


def test_a_close_waits_for_what_is_queued(stream: Stream) -> None:
    stream.writer.write(b"x" * 200_000)
    stream.writer.close_when_flushed()
    stream.turn()
    assert stream.ends == []
    assert stream.writer.closing
    stream.run_until(lambda: stream.ends)
    stream.read()
    assert len(stream.arrived) == 200_000


def test_a_write_after_a_close_in_the_same_turn_still_counts(stream: Stream) -> None:
    stream.writer.close_when_flushed()
    stream.writer.write(b"x" * 100_000)
    stream.run_until(lambda: stream.ends)
    stream.read()
    assert len(stream.arrived) == 100_000


def test_closing_twice_is_closing_once(stream: Stream) -> None:
    stream.writer.close_when_flushed()
    stream.writer.close_when_flushed()
    stream.run_until(lambda: stream.ends)
    stream.turn()
    assert stream.ends == [7]


def test_a_write_after_the_end_is_dropped(stream: Stream) -> None:
    stream.writer.close_when_flushed()
    stream.run_until(lambda: stream.ends)
    stream.writer.write(b"late")
    stream.writer.write_all([b"later", b"latest"])
    stream.read()
    assert stream.arrived == b""
    assert stream.writer.queued_bytes == 0


def test_the_fd_is_not_closed(stream: Stream) -> None:
    stream.writer.close_when_flushed()
    stream.run_until(lambda: stream.ends)
    os.fstat(stream.write_fd)


# --- a reader that is gone ------------------------------------------------------------------------


def test_a_reader_that_goes_is_noticed_without_a_write(stream: Stream) -> None:
    stream.hang_up()
    stream.run_until(lambda: stream.ends, reading=False)
    assert stream.ends == [7]


def test_a_reader_that_goes_takes_what_is_queued_with_it(stream: Stream) -> None:
    stream.writer.write(b"x" * 200_000)
    stream.hang_up()
    stream.run_until(lambda: stream.ends, reading=False)
    assert stream.writer.queued_bytes == 0


def test_a_write_to_nobody_does_not_call_back(stream: Stream) -> None:
    stream.hang_up()
    stream.writer.write(b"x")
    assert stream.ends == []
    stream.turn()
    stream.turn()
    assert stream.ends == [7]


def test_a_reader_that_goes_while_a_close_waits_ends_it_once(stream: Stream) -> None:
    stream.writer.write(b"x" * 200_000)
    stream.writer.close_when_flushed()
    stream.hang_up()
    stream.run_until(lambda: stream.ends, reading=False)
    stream.turn()
    assert stream.ends == [7]


def test_a_stopped_writer_drops_what_is_queued_and_tells_nothing(stream: Stream) -> None:
    stream.writer.write(b"x" * 200_000)
    stream.writer.stop()
    stream.writer.stop()
    stream.writer.close_when_flushed()
    stream.turn()
    assert stream.ends == []
    assert stream.writer.queued_bytes == 0


# --- flow -----------------------------------------------------------------------------------------


def test_congestion_is_told_above_the_high_water_mark_and_only_there(stream: Stream) -> None:
    told: list[int] = []
    stream.writer.on_congested = lambda: told.append(stream.writer.queued_bytes)
    stream.writer.write(b"x" * PIPE_BYTES)
    stream.writer.write(b"x" * HIGH_WATER_BYTES)
    assert told == []
    stream.writer.write(b"x")
    assert told == [HIGH_WATER_BYTES + 1]


def test_a_source_is_asked_for_more_when_the_queue_is_empty(stream: Stream) -> None:
    pieces = [b"c" * 300_000, b"b" * 10, b"a" * 100_000]

    def more() -> bool:
        if pieces:
            stream.writer.write(pieces.pop())
        return bool(pieces)

    stream.writer.on_drained = more
    stream.writer.write(b"first")
    stream.writer.close_when_flushed()  # waits for as long as more is to come
    stream.run_until(lambda: stream.ends)
    stream.read()
    assert stream.arrived == b"first" + b"a" * 100_000 + b"b" * 10 + b"c" * 300_000


def test_a_fast_reader_does_not_keep_the_writer_from_its_loop(stream: Stream) -> None:
    stream.writer.write(b"x" * (64 << 20))
    turns = 0
    reads_per_turn = 0

    def read_along() -> None:
        nonlocal reads_per_turn
        reads_per_turn += 1
        stream.read()

    while stream.writer.queued_bytes and turns < 3:
        read_along()
        stream.turn()
        turns += 1
    assert turns == 3  # a turn ends although more could be written
    stream.writer.stop()


def test_a_writer_may_adopt_what_is_in_the_loops_set_already(stream: Stream) -> None:
    stream.writer.stop()
    before = watched_by_kernel(stream.loop.epoll_fd)
    with by_others(stream.loop.epoll_fd) as others:
        others.register(stream.write_fd, 0)
    writer = StreamWriter(stream.loop, stream.write_fd, 7, stream.ends.append, stream.loop.adopt)
    writer.write(bytes(3 * PIPE_BYTES))
    assert watched_by_kernel(stream.loop.epoll_fd) == {**before, stream.write_fd: WRITE}
    stream.run_until(lambda: len(stream.arrived) == 3 * PIPE_BYTES)
    stream.turn()
    assert watched_by_kernel(stream.loop.epoll_fd) == {**before, stream.write_fd: 0}
    stream.hang_up()
    stream.run_until(lambda: stream.ends, reading=False)
    assert watched_by_kernel(stream.loop.epoll_fd) == before


def test_an_owner_may_drop_the_fd_at_the_end_and_use_its_number_again(stream: Stream) -> None:
    told: list[int] = []
    finished: list[bool] = []
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def drop_and_reuse(key: int) -> None:
        finished.append(writer.finished)
        stream.loop.drop(stream.write_fd)
        os.dup2(write_end, stream.write_fd, inheritable=False)
        stream.loop.watch(stream.write_fd, told.append, WRITE)

    stream.writer.stop()
    writer = StreamWriter(stream.loop, stream.write_fd, 7, drop_and_reuse)
    stream.hang_up()
    stream.run_until(lambda: finished, reading=False)
    writer.stop()
    assert finished == [True]
    stream.run_until(lambda: told, reading=False)
    os.close(read_end)
    os.close(write_end)


# --- hot streams ----------------------------------------------------------------------------------


def pipe_size(stream: Stream) -> int:
    return fcntl.fcntl(stream.write_fd, fcntl.F_GETPIPE_SZ)


def empty_and_flush(stream: Stream, times: int) -> None:
    for _ in range(times):
        stream.read()
        stream.turn()


def pattern(size_bytes: int) -> bytes:
    return b"".join(b"%07d " % number for number in range(size_bytes // 8))


def test_a_pipe_that_is_emptied_and_filled_four_times_is_grown(stream: Stream) -> None:
    data = pattern(2 << 20)
    stream.writer.write(data)
    empty_and_flush(stream, 3)
    assert pipe_size(stream) == PIPE_BYTES
    empty_and_flush(stream, 1)
    assert pipe_size(stream) == GROWN_BYTES
    empty_and_flush(stream, 1)
    before = len(stream.arrived)
    stream.read()
    assert len(stream.arrived) - before == GROWN_BYTES
    stream.run_until(lambda: not stream.writer.queued_bytes)
    stream.read()
    assert stream.arrived == data
    stream.writer.stop()


def test_a_child_that_takes_a_page_at_a_time_does_not_get_a_larger_pipe(stream: Stream) -> None:
    data = pattern(1 << 20)
    stream.writer.write(data)
    while stream.writer.queued_bytes:
        stream.arrived += os.read(stream.read_fd, 4096)
        stream.turn()
    assert pipe_size(stream) == PIPE_BYTES
    stream.read()
    assert stream.arrived == data


def test_writes_that_fit_never_grow_the_pipe(stream: Stream) -> None:
    for _ in range(50):
        stream.writer.write(bytes(PIPE_BYTES))
        empty_and_flush(stream, 1)
    assert pipe_size(stream) == PIPE_BYTES


def test_when_the_share_is_used_up_the_pipe_stays_and_the_data_goes(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def none_left() -> int:
        asked.append(1)
        return 0

    monkeypatch.setattr(pipes, "_most_grown", none_left)
    data = pattern(4 << 20)
    stream.writer.write(data)
    stream.run_until(lambda: not stream.writer.queued_bytes)
    stream.read()
    assert stream.arrived == data
    assert pipe_size(stream) == PIPE_BYTES
    assert len(asked) == 1


@pytest.mark.parametrize("how", ["stop", "reader gone"])
def test_the_share_of_a_grown_pipe_comes_back(
    stream: Stream, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown: set[int] = set()
    monkeypatch.setattr(pipes, "_grown", grown)
    stream.writer.write(bytes(2 << 20))
    empty_and_flush(stream, 4)
    assert grown == {stream.write_fd}
    if how == "stop":
        stream.writer.stop()
    else:
        stream.hang_up()
        stream.run_until(lambda: stream.ends, reading=False)
    assert grown == set()


# --- writes past the queue ------------------------------------------------------------------------


def test_a_write_that_fits_in_part_is_queued_for_the_rest(stream: Stream) -> None:
    stream.writer.write(b"a" * (PIPE_BYTES - 4096))
    stream.writer.write(b"b" * 8192)
    assert stream.writer.queued_bytes == 4096
    stream.writer.write(b"c" * 10)
    stream.run_until(lambda: not stream.writer.queued_bytes)
    stream.read()
    assert stream.arrived == b"a" * (PIPE_BYTES - 4096) + b"b" * 8192 + b"c" * 10


def test_an_empty_write_asks_no_source_for_more(stream: Stream) -> None:
    asked: list[int] = []

    def nothing_more() -> bool:
        asked.append(1)
        return False

    stream.writer.on_drained = nothing_more
    stream.writer.write(b"")
    stream.writer.write_all([])
    stream.turn()
    assert asked == []


def test_a_source_is_asked_once_after_several_writes(stream: Stream) -> None:
    asked: list[int] = []

    def nothing_more() -> bool:
        asked.append(1)
        return False

    stream.writer.on_drained = nothing_more
    for _ in range(5):
        stream.writer.write(b"x")
    stream.turn()
    assert asked == [1]
    stream.writer.write(b"x")
    stream.turn()
    assert asked == [1, 1]
