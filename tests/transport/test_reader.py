"""Bytes from an fd to a listener: all of them, in order, then the end, once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from procreactor.kernel.poller import HANGUP
from procreactor.loop.eventloop import EventLoop
from procreactor.transport.reader import StreamReader

DEADLINE_S = 30


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
