"""Bytes from an fd to a listener: all of them, in order, then the end, once."""

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
from procreactor.kernel.poller import HANGUP, READ
from procreactor.loop.eventloop import EventLoop
from procreactor.transport.reader import StreamReader

DEADLINE_S = 30
PIPE_BYTES = 65536


class Stream:
    """A pipe with a `StreamReader` on it, and what it told."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_fd, False)
        self.data: list[bytes] = []
        self.ends: list[int] = []
        self.reader = StreamReader(self.loop, self.read_fd, 7, self.on_data, self.ends.append)

    def on_data(self, key: int, data: bytes) -> None:
        assert key == 7
        assert data
        self.data.append(data)

    def turn(self) -> None:
        self.loop.run_once(0)

    def run_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end
            self.loop.run_once(end - time.monotonic())

    def write(self, data: bytes) -> None:
        os.write(self.write_fd, data)

    def end(self) -> None:
        os.close(self.write_fd)
        self.write_fd = -1

    def close(self) -> None:
        self.reader.stop()
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)
        self.loop.close()


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.close()


def test_data_is_told_when_it_comes(stream: Stream) -> None:
    assert stream.reader.fileno() == stream.read_fd
    stream.turn()
    assert stream.data == []
    stream.write(b"one")
    stream.turn()
    stream.write(b"two")
    stream.turn()
    assert stream.data == [b"one", b"two"]
    assert stream.ends == []


def test_a_turn_tells_no_more_than_one_pipe_full(stream: Stream) -> None:
    stream.write(b"x" * 65536)
    stream.turn()
    assert stream.data == [b"x" * 65536]


def test_the_end_comes_after_all_data_and_once(stream: Stream) -> None:
    stream.write(b"last words")
    stream.end()
    stream.run_until(lambda: stream.ends)
    stream.turn()
    assert stream.data == [b"last words"]
    assert stream.ends == [7]
    assert stream.reader.finished


def test_a_hang_up_without_a_word_of_data_is_answered_by_a_read(stream: Stream) -> None:
    stream.write(b"unread")
    stream.reader.on_ready(HANGUP)
    assert stream.data == [b"unread"]
    assert stream.ends == []


def test_an_event_without_data_is_nothing(stream: Stream) -> None:
    stream.reader.on_ready(HANGUP)
    assert stream.data == []
    assert stream.ends == []


def test_while_paused_nothing_is_told_and_nothing_is_lost(stream: Stream) -> None:
    stream.reader.pause()
    stream.reader.pause()
    stream.write(b"kept")
    stream.end()
    stream.turn()
    assert stream.data == []
    assert stream.ends == []
    stream.reader.resume()
    stream.reader.resume()
    stream.run_until(lambda: stream.ends)
    assert stream.data == [b"kept"]


def test_a_paused_stream_that_ended_does_not_keep_the_loop_busy(stream: Stream) -> None:
    stream.reader.pause()
    stream.end()
    assert stream.loop._poller.wait(0) == []


def test_a_listener_may_pause_from_within_a_call(stream: Stream) -> None:
    stream.reader._on_data = lambda key, data: stream.reader.pause()
    stream.write(b"one")
    stream.turn()
    stream.reader._on_data = stream.on_data
    stream.write(b"two")
    stream.turn()
    assert stream.data == []
    stream.reader.resume()
    stream.turn()
    assert stream.data == [b"two"]


def test_a_stopped_reader_tells_nothing_and_cannot_be_resumed(stream: Stream) -> None:
    stream.write(b"unread")
    stream.reader.stop()
    stream.reader.stop()
    stream.reader.resume()
    stream.turn()
    assert stream.reader.finished
    assert stream.data == []
    assert stream.ends == []


def test_the_fd_is_not_closed(stream: Stream) -> None:
    stream.end()
    stream.run_until(lambda: stream.ends)
    os.fstat(stream.read_fd)


def test_a_reader_may_adopt_what_is_in_the_loops_set_already(stream: Stream) -> None:
    stream.reader.stop()
    before = watched_by_kernel(stream.loop.epoll_fd)
    with by_others(stream.loop.epoll_fd) as others:
        others.register(stream.read_fd, READ)
    reader = StreamReader(
        stream.loop, stream.read_fd, 7, stream.on_data, stream.ends.append, stream.loop.adopt
    )
    stream.write(b"word")
    stream.run_until(lambda: stream.data)
    reader.pause()
    assert watched_by_kernel(stream.loop.epoll_fd) == before
    reader.resume()
    stream.end()
    stream.run_until(lambda: stream.ends)
    assert (stream.data, stream.ends) == ([b"word"], [7])
    assert watched_by_kernel(stream.loop.epoll_fd) == before


def test_an_owner_may_drop_the_fd_at_the_end_and_use_its_number_again(stream: Stream) -> None:
    told: list[int] = []
    finished: list[bool] = []
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def drop_and_reuse(key: int) -> None:
        finished.append(reader.finished)
        stream.loop.drop(stream.read_fd)
        os.dup2(read_end, stream.read_fd, inheritable=False)
        stream.loop.watch(stream.read_fd, told.append, READ)

    stream.reader.stop()
    reader = StreamReader(stream.loop, stream.read_fd, 7, stream.on_data, drop_and_reuse)
    stream.end()
    stream.run_until(lambda: finished)
    reader.stop()
    assert finished == [True]
    os.write(write_end, b"x")
    stream.run_until(lambda: told)
    os.close(read_end)
    os.close(write_end)


# --- hot streams ----------------------------------------------------------------------------------


def pipe_size(stream: Stream) -> int:
    return fcntl.fcntl(stream.read_fd, fcntl.F_GETPIPE_SZ)


def read_full(stream: Stream, times: int = 1) -> None:
    for _ in range(times):
        stream.write(bytes(PIPE_BYTES))
        stream.turn()


def read_small(stream: Stream, times: int = 1) -> None:
    for _ in range(times):
        stream.write(b"x")
        stream.turn()


def use_up_share(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Leave no share to grow pipes from; return what gets an item whenever one asks for it."""
    asked: list[int] = []

    def none_left() -> int:
        asked.append(1)
        return 0

    monkeypatch.setattr(pipes, "_most_grown", none_left)
    return asked


def test_a_pipe_that_is_found_full_four_times_in_a_row_is_grown(stream: Stream) -> None:
    read_full(stream, 3)
    assert pipe_size(stream) == PIPE_BYTES
    read_full(stream)
    assert pipe_size(stream) == GROWN_BYTES


def test_a_grown_pipe_is_read_in_large_pieces_while_it_is_full(stream: Stream) -> None:
    read_full(stream, 4)
    read_small(stream)
    stream.data.clear()
    stream.write(bytes(PIPE_BYTES))
    stream.turn()
    stream.write(bytes(GROWN_BYTES))
    stream.turn()
    read_small(stream)
    stream.write(bytes(GROWN_BYTES))
    stream.turn()
    assert list(map(len, stream.data)) == [PIPE_BYTES, GROWN_BYTES, 1, PIPE_BYTES]


def test_a_stream_of_small_pieces_never_grows_its_pipe(stream: Stream) -> None:
    read_small(stream, 300)
    assert pipe_size(stream) == PIPE_BYTES


def test_a_full_read_now_and_then_does_not_grow_the_pipe(stream: Stream) -> None:
    for _ in range(20):
        read_full(stream)
        read_small(stream, 8)
    assert pipe_size(stream) == PIPE_BYTES


def test_full_reads_with_small_ones_between_grow_the_pipe(stream: Stream) -> None:
    for _ in range(6):
        read_full(stream)
        read_small(stream)
    assert pipe_size(stream) == GROWN_BYTES


def test_a_pause_forgets_that_the_pipe_was_full(stream: Stream) -> None:
    for _ in range(20):
        read_full(stream, 3)
        stream.reader.pause()
        stream.reader.resume()
    assert pipe_size(stream) == PIPE_BYTES


def test_when_the_share_is_used_up_the_pipe_stays_and_is_not_asked_for_each_time(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = use_up_share(monkeypatch)
    read_full(stream, 100)
    assert pipe_size(stream) == PIPE_BYTES
    assert len(asked) == 1
    assert sum(map(len, stream.data)) == 100 * PIPE_BYTES
    monkeypatch.undo()
    read_full(stream, 516)  # after some 30 MiB more it may ask again
    assert pipe_size(stream) == GROWN_BYTES


@pytest.mark.parametrize("how", ["stop", "end"])
def test_the_share_of_a_grown_pipe_comes_back(
    stream: Stream, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown: set[int] = set()
    monkeypatch.setattr(pipes, "_grown", grown)
    read_full(stream, 4)
    assert grown == {stream.read_fd}
    if how == "stop":
        stream.reader.stop()
    else:
        stream.end()
        stream.run_until(lambda: stream.ends)
    assert grown == set()


@given(st.lists(st.sampled_from([1, 4096, 8192, PIPE_BYTES, 100_000, GROWN_BYTES]), max_size=40))
@settings(max_examples=20, deadline=None)
def test_nothing_is_lost_or_reordered_when_the_pipe_grows(sizes: list[int]) -> None:
    stream = Stream()
    os.set_blocking(stream.write_fd, False)
    sent = bytearray()
    read_full(stream, 3)
    stream.data.clear()
    for number, size in enumerate([PIPE_BYTES, *sizes]):
        piece = (b"%07d " % number * (size // 8 + 1))[:size]
        sent += piece[: try_write_all(stream.write_fd, piece)]
        stream.turn()
    assert pipe_size(stream) == GROWN_BYTES
    stream.end()
    stream.run_until(lambda: stream.ends)
    assert b"".join(stream.data) == sent
    stream.close()


def try_write_all(fd: int, data: bytes) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


def test_a_stream_that_floods_does_not_keep_another_waiting(stream: Stream) -> None:
    read_full(stream, 5)
    quiet_read, quiet_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    told: list[bytes] = []
    quiet = StreamReader(
        stream.loop, quiet_read, 8, lambda key, data: told.append(data), stream.ends.append
    )
    stream.data.clear()
    os.write(quiet_write, b"me too")
    stream.write(bytes(GROWN_BYTES))
    stream.turn()
    assert told == [b"me too"]
    assert sum(map(len, stream.data)) <= GROWN_BYTES
    quiet.stop()
    os.close(quiet_read)
    os.close(quiet_write)
