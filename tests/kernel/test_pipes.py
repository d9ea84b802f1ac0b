"""Reading and writing without waiting: data, "not yet" or "never again", whatever the fd is."""

from __future__ import annotations

import errno
import os
import pty
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from procreactor.kernel.pipes import READ_SIZE_BYTES, try_read, try_write
from procreactor.model import END, WOULD_BLOCK


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a non-blocking pipe; a test may close either."""
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield ends
    for fd in ends:
        close_if_open(fd)


def close_if_open(fd: int) -> None:
    try:
        os.close(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise


def fill(fd: int) -> int:
    """Write until the fd takes no more; how much that was."""
    total = 0
    while (written := try_write(fd, [b"x" * 4096])) is not WOULD_BLOCK:
        assert isinstance(written, int)
        total += written
    return total


def test_what_was_written_is_read(pipe: tuple[int, int]) -> None:
    assert try_write(pipe[1], [b"hello"]) == 5
    assert try_read(pipe[0]) == b"hello"


def test_an_empty_pipe_would_block(pipe: tuple[int, int]) -> None:
    assert try_read(pipe[0]) is WOULD_BLOCK


def test_a_pipe_without_writers_has_ended_once_it_is_empty(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"last words")
    os.close(pipe[1])
    assert try_read(pipe[0]) == b"last words"
    assert try_read(pipe[0]) is END
    assert try_read(pipe[0]) is END


def test_one_read_takes_a_whole_pipe_of_the_default_size(pipe: tuple[int, int]) -> None:
    assert fill(pipe[1]) == READ_SIZE_BYTES
    data = try_read(pipe[0])
    assert isinstance(data, bytes)
    assert len(data) == READ_SIZE_BYTES


def test_a_read_can_be_asked_to_be_smaller(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"abcdef")
    assert try_read(pipe[0], 2) == b"ab"
    assert try_read(pipe[0]) == b"cdef"


def test_a_full_pipe_would_block(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    assert try_write(pipe[1], [b"more"]) is WOULD_BLOCK
    assert try_write(pipe[1], [b"more", b"and more"]) is WOULD_BLOCK


def test_a_pipe_without_readers_takes_nothing_ever_again(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    assert try_write(pipe[1], [b"x"]) is END
    assert try_write(pipe[1], [b"x", b"y"]) is END


def test_several_buffers_go_in_one_call_and_in_order(pipe: tuple[int, int]) -> None:
    assert try_write(pipe[1], [b"one ", memoryview(b"two "), b"three"]) == 13
    assert try_read(pipe[0]) == b"one two three"


def test_a_pipe_with_little_room_takes_a_part(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    assert try_read(pipe[0], 8192) == b"x" * 8192
    taken = try_write(pipe[1], [b"a" * 6000, b"b" * 6000])
    assert isinstance(taken, int)
    assert 0 < taken < 12000


def test_the_master_of_a_terminal_ends_when_nobody_holds_the_slave() -> None:
    master, slave = pty.openpty()
    try:
        os.set_blocking(master, False)
        assert try_read(master) is WOULD_BLOCK
        os.write(slave, b"bye")
        os.close(slave)
        assert try_read(master) == b"bye"
        assert try_read(master) is END
    finally:
        os.close(master)


def test_the_slave_of_a_hung_up_terminal_takes_nothing_ever_again() -> None:
    master, slave = pty.openpty()
    try:
        os.close(master)
        assert try_write(slave, [b"x"]) is END
        assert try_read(slave) is END
    finally:
        os.close(slave)


def test_a_socket_whose_peer_reset_it_has_ended_in_both_directions() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours:
        # Closing with a lingering time of zero sends a reset.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert try_read(ours.fileno()) is END
        assert try_write(ours.fileno(), [b"x"]) is END


def test_a_socket_that_was_never_connected_has_ended() -> None:
    with socket.socket() as lonely:
        lonely.setblocking(False)
        assert try_read(lonely.fileno()) is END


def test_what_is_a_mistake_is_raised(pipe: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        try_read(pipe[1])
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        try_write(pipe[0], [b"x"])
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            try_read(directory)
    finally:
        os.close(directory)


def test_a_regular_file_is_read_to_its_end() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.seek(0)
        assert try_read(file.fileno()) == b"content"
        assert try_read(file.fileno()) is END
