"""Readiness: what epoll reports, what it refuses, and fds that were closed too early."""

from __future__ import annotations

import errno
import os
import select
import tempfile
from collections.abc import Iterator

import pytest
from support import PROC
from watched import watched_by_kernel

from procreactor.kernel.poller import ERROR, HANGUP, READ, WRITE, Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise


def test_an_fd_is_reported_while_it_is_ready(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.add(pipe[0], READ)
    assert poller.wait(0) == []
    os.write(pipe[1], b"x")
    assert poller.wait(-1) == [(pipe[0], READ)]
    assert poller.wait(-1) == [(pipe[0], READ)]  # level-triggered
    os.read(pipe[0], 1)
    assert poller.wait(0) == []


def test_only_the_events_asked_for_are_reported(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.add(pipe[1], READ)
    assert poller.wait(0) == []
    poller.change(pipe[1], WRITE)
    assert poller.wait(-1) == [(pipe[1], WRITE)]


def test_a_writer_without_readers_is_told_though_it_asked_for_nothing(
    poller: Poller, pipe: tuple[int, int]
) -> None:
    poller.add(pipe[1], 0)
    assert poller.wait(0) == []
    os.close(pipe[0])
    assert poller.wait(-1) == [(pipe[1], ERROR)]


def test_hang_up_is_told_though_nobody_asked(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.add(pipe[0], 0)
    os.close(pipe[1])
    assert poller.wait(-1) == [(pipe[0], HANGUP)]


def test_hang_up_comes_with_the_data_that_is_left(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.add(pipe[0], READ)
    os.write(pipe[1], b"x")
    os.close(pipe[1])
    assert poller.wait(-1) == [(pipe[0], READ | HANGUP)]


def test_what_was_removed_is_not_reported(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.add(pipe[1], WRITE)
    poller.remove(pipe[1])
    assert poller.wait(0) == []


def test_an_fd_removed_before_its_close_is_not_reported_through_a_copy(
    poller: Poller, pipe: tuple[int, int]
) -> None:
    copy = os.dup(pipe[1])  # like the one that a child holds until its exec
    try:
        poller.add(pipe[1], WRITE)
        poller.remove(pipe[1])
        os.close(pipe[1])
        assert poller.wait(0) == []
    finally:
        os.close(copy)


def test_removing_an_fd_that_its_owner_has_closed_is_no_error(
    poller: Poller, pipe: tuple[int, int]
) -> None:
    poller.add(pipe[1], WRITE)
    os.close(pipe[1])
    poller.remove(pipe[1])
    assert poller.wait(0) == []


def is_open(fd: int) -> bool:
    return os.path.lexists(f"{PROC}/self/fd/{fd}")


def test_what_was_dropped_is_closed_and_not_reported_through_a_copy(
    poller: Poller, pipe: tuple[int, int]
) -> None:
    copy = os.dup(pipe[1])  # like the one that a child holds until its exec
    try:
        poller.add(pipe[0], READ)
        poller.add(pipe[1], WRITE)
        poller.drop(pipe[1])
        assert not is_open(pipe[1])
        assert poller.wait(0) == []
        assert watched_by_kernel(poller.fileno()) == {pipe[0]: READ}
    finally:
        os.close(copy)


def test_what_is_not_watched_can_be_dropped_and_the_rest_stays(
    poller: Poller, pipe: tuple[int, int]
) -> None:
    poller.add(pipe[1], WRITE)
    poller.drop(pipe[0])
    assert not is_open(pipe[0])
    assert watched_by_kernel(poller.fileno()) == {pipe[1]: WRITE}


def test_a_regular_file_that_is_dropped_is_closed_and_ready_no_more(
    poller: Poller, pipe: tuple[int, int]
) -> None:
    with tempfile.TemporaryFile() as file:
        fds = [os.dup(file.fileno()) for _ in range(2)]
    for fd in fds:
        poller.add(fd, READ)
    poller.add(pipe[0], READ)
    poller.drop(fds[0])
    assert (is_open(fds[0]), is_open(fds[1])) == (False, True)
    assert poller.wait(-1) == [(fds[1], READ)]
    poller.drop(fds[1])
    assert poller.wait(0) == []
    assert not select.select([poller.fileno()], [], [], 0)[0]
    assert watched_by_kernel(poller.fileno()) == {pipe[0]: READ}


def test_a_pipe_is_dropped_while_a_regular_file_is_watched(
    poller: Poller, pipe: tuple[int, int]
) -> None:
    with tempfile.TemporaryFile() as file:
        poller.add(file.fileno(), READ)
        poller.add(pipe[1], WRITE)
        poller.drop(pipe[1])
        assert not is_open(pipe[1])
        assert poller.wait(-1) == [(file.fileno(), READ)]
        poller.remove(file.fileno())


def test_an_fd_is_watched_once(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.add(pipe[0], READ)
    with pytest.raises(FileExistsError):
        poller.add(pipe[0], WRITE)


def test_an_fd_that_is_not_open_is_refused(poller: Poller, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        poller.add(pipe[0], READ)


def test_a_regular_file_is_always_ready(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.add(pipe[0], READ)
    with tempfile.TemporaryFile() as file:
        fd = file.fileno()
        poller.add(fd, READ)
        assert poller.wait(-1) == [(fd, READ)]
        os.write(pipe[1], b"x")
        assert sorted(poller.wait(-1)) == sorted([(fd, READ), (pipe[0], READ)])
        poller.change(fd, READ | WRITE)
        assert (fd, READ | WRITE) in poller.wait(-1)
        with pytest.raises(FileExistsError, match="watched already"):
            poller.add(fd, READ)
        poller.remove(fd)
        assert poller.wait(-1) == [(pipe[0], READ)]


def test_a_regular_file_watched_for_nothing_does_not_keep_the_wait_short(poller: Poller) -> None:
    with tempfile.TemporaryFile() as file:
        poller.add(file.fileno(), 0)
        assert poller.wait(0.001) == []


def test_the_poller_can_be_watched_itself(poller: Poller, pipe: tuple[int, int]) -> None:
    outer = select.poll()
    outer.register(poller.fileno(), select.POLLIN)
    poller.add(pipe[0], READ)
    assert outer.poll(0) == []
    os.write(pipe[1], b"x")
    assert outer.poll() == [(poller.fileno(), select.POLLIN)]
