"""Bytes go from pipe to pipe unread, all and in order, and where that cannot be, none is lost."""

from __future__ import annotations

import fcntl
import os
import pty
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from procreactor.kernel import pipes
from procreactor.transport.passage import Passage


class Pipe:
    """A pipe whose read end does not block."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_fd, False)


@pytest.fixture
def source() -> Iterator[Pipe]:
    yield from opened()


@pytest.fixture
def target() -> Iterator[Pipe]:
    yield from opened()


def opened() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for fd in (pipe.read_fd, pipe.write_fd):
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def test_what_is_in_the_pipe_is_moved_and_told(source: Pipe, target: Pipe) -> None:
    passage = Passage(target.write_fd)
    assert passage.move(source.read_fd) == 0
    os.write(source.write_fd, b"a few bytes")
    assert passage.move(source.read_fd) == 11
    assert os.read(target.read_fd, 100) == b"a few bytes"
    os.close(source.write_fd)
    assert passage.move(source.read_fd) == 0
    assert passage.is_open, "an end is no refusal"
    passage.close()


def test_a_target_that_is_full_is_waited_for(source: Pipe, target: Pipe) -> None:
    passage = Passage(target.write_fd)
    data = os.urandom(3_000_000)
    read: list[bytes] = []

    def write_all() -> None:
        with open(source.write_fd, "wb", closefd=False) as file:
            file.write(data)

    def read_all() -> None:
        with open(target.read_fd, "rb", buffering=0, closefd=False) as file:
            os.set_blocking(target.read_fd, True)
            while sum(map(len, read)) < len(data):
                read.append(file.read(10_000))

    threads = [threading.Thread(target=one) for one in (write_all, read_all)]
    for thread in threads:
        thread.start()
    moved = 0
    while moved < len(data):
        moved += passage.move(source.read_fd)
    for thread in threads:
        thread.join()
    assert b"".join(read) == data
    passage.close()


def test_who_does_not_take_pages_is_left_for_writes(source: Pipe, tmp_path: Path) -> None:
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(source.write_fd, b"still there")
    passage = Passage(file)
    assert passage.move(source.read_fd) == 0
    assert not passage.is_open
    assert passage.move(source.read_fd) == 0
    passage.close()
    os.close(file)
    assert os.read(source.read_fd, 100) == b"still there"


def test_to_a_terminal_nothing_is_lost_whether_it_takes_pages_or_not(source: Pipe) -> None:
    ours, terminal = pty.openpty()
    os.write(source.write_fd, b"a few words")
    passage = Passage(terminal)
    if passage.move(source.read_fd):
        assert os.read(ours, 100) == b"a few words"
    else:
        assert not passage.is_open
        assert os.read(source.read_fd, 100) == b"a few words"
    passage.close()
    os.close(ours)
    os.close(terminal)


def test_a_reader_who_has_gone_is_told(source: Pipe, target: Pipe) -> None:
    passage = Passage(target.write_fd)
    os.write(source.write_fd, b"for nobody")
    os.close(target.read_fd)
    with pytest.raises(BrokenPipeError):
        passage.move(source.read_fd)
    passage.close()


def test_a_target_that_proves_hot_is_grown_until_the_end(
    source: Pipe, target: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: set[int] = set()
    monkeypatch.setattr(pipes, "_grown", shares)
    passage = Passage(target.write_fd)
    moved = 0
    while moved <= 1 << 20:
        assert not shares
        os.write(source.write_fd, bytes(60_000))
        moved += passage.move(source.read_fd)
        os.read(target.read_fd, 100_000)
    os.write(source.write_fd, b"one more")
    passage.move(source.read_fd)
    if not shares:
        pytest.skip("no pipe may be grown here")
    assert shares == {target.write_fd}
    assert fcntl.fcntl(target.read_fd, fcntl.F_GETPIPE_SZ) >= pipes.GROWN_BYTES
    passage.close()
    assert shares == set()
