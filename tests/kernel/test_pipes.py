"""Reading and writing without waiting: data, "not yet" or "never again", whatever the fd is."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import LACKS, PROC

from procreactor.kernel import pipes
from procreactor.kernel.pipes import (
    GROWN_BYTES,
    READ_SIZE_BYTES,
    forget_grown,
    try_grow,
    try_read,
    try_write,
)
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


# --- growing --------------------------------------------------------------------------------------


def size_of(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Nothing is grown when a test begins; what it has grown is forgotten."""
    mine: set[int] = set()
    monkeypatch.setattr(pipes, "_grown", mine)
    return mine


@pytest.mark.parametrize("end", [0, 1], ids=["read end", "write end"])
def test_a_pipe_is_grown_through_either_end(
    pipe: tuple[int, int], share: set[int], end: int
) -> None:
    os.write(pipe[1], b"kept")
    assert try_grow(pipe[end]) == GROWN_BYTES
    assert size_of(pipe[0]) == GROWN_BYTES
    assert share == {pipe[end]}
    assert fill(pipe[1]) >= GROWN_BYTES - READ_SIZE_BYTES // 16
    data = try_read(pipe[0], GROWN_BYTES)
    assert isinstance(data, bytes)
    assert data.startswith(b"keptxxx")
    forget_grown(pipe[end])
    assert share == set()


def test_no_more_pipes_are_grown_than_the_share_allows(
    share: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "_most_grown", lambda: 2)
    with ExitStack() as stack:
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        for fd in (fd for both in ends for fd in both):
            stack.callback(os.close, fd)
        grown = [try_grow(read_end) for read_end, _ in ends]
        assert grown == [GROWN_BYTES, GROWN_BYTES, None]
        assert size_of(ends[2][0]) == READ_SIZE_BYTES
        forget_grown(ends[0][0])
        assert try_grow(ends[2][0]) == GROWN_BYTES
        assert len(share) == 2


def test_the_share_is_an_eighth_of_what_the_user_may_have() -> None:
    pages = 16384
    if "/proc" not in LACKS:
        pages = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text()) or pages
    limit_bytes = pages * os.sysconf("SC_PAGE_SIZE")
    assert limit_bytes // 8 - GROWN_BYTES < pipes._most_grown() * GROWN_BYTES <= limit_bytes // 8


def test_without_proc_the_limits_are_those_that_the_kernel_starts_with() -> None:
    assert pipes._read_limit("no-such-limit", 16384) == 16384


def test_a_pipe_is_never_shrunk(pipe: tuple[int, int], share: set[int]) -> None:
    larger = fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 2 * GROWN_BYTES)  # as a child may have done
    assert try_grow(pipe[0]) == larger
    assert size_of(pipe[0]) == larger
    assert share == set()


def test_a_pipe_is_not_shrunk_to_a_limit_that_was_lowered(
    pipe: tuple[int, int], share: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "_target_bytes", lambda: READ_SIZE_BYTES // 2)
    assert try_grow(pipe[0]) == READ_SIZE_BYTES
    assert size_of(pipe[0]) == READ_SIZE_BYTES


def test_what_is_no_pipe_is_left_alone(share: set[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as file:
        assert try_grow(ours.fileno()) is None
        assert try_grow(file.fileno()) is None
        closed = os.dup(file.fileno())
        os.close(closed)
        assert try_grow(closed) is None
    assert share == set()


def test_a_copy_of_the_process_begins_with_the_whole_share(pipe: tuple[int, int]) -> None:
    assert try_grow(pipe[0]) == GROWN_BYTES
    pid = os.fork()
    if pid == 0:
        os._exit(len(pipes._grown))
    assert os.waitpid(pid, 0)[1] == 0
    assert pipe[0] in pipes._grown
    forget_grown(pipe[0])


_REFUSED = """
import fcntl, os
from procreactor.kernel import pipes

if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
ends = os.pipe2(os.O_CLOEXEC)
before = fcntl.fcntl(ends[0], fcntl.F_GETPIPE_SZ)
{refusal}
assert pipes.try_grow(ends[0]) is None
assert fcntl.fcntl(ends[0], fcntl.F_GETPIPE_SZ) == before
assert not pipes._grown
"""

_ABOVE_MAX_SIZE = f"""
largest = int(open(f"{PROC}/sys/fs/pipe-max-size").read())
pipes._target_bytes = lambda: 2 * largest
"""

_ABOVE_USERS_LIMIT = """
others = []
for size_bytes in (1 << 20, 1 << 17):  # the second takes what the first leaves
    try:
        while len(others) < 400:
            others.append(os.pipe2(os.O_CLOEXEC))
            fcntl.fcntl(others[-1][0], fcntl.F_SETPIPE_SZ, size_bytes)
    except PermissionError:
        pass
"""


def test_more_than_a_user_may_ask_for_is_a_refusal() -> None:
    subprocess.run([sys.executable, "-c", _REFUSED.format(refusal=_ABOVE_MAX_SIZE)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user whose pipes nobody else waits for")
def test_a_user_whose_pipes_are_too_large_already_is_refused() -> None:
    subprocess.run([sys.executable, "-c", _REFUSED.format(refusal=_ABOVE_USERS_LIMIT)], check=True)
