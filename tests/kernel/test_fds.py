"""Closing: once, whatever the kernel says of it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import threading

import pytest
from alone import alone
from interrupted import interrupt_each_bytecode
from leftovers import open_fds
from libraries_build import build_library
from seccomp import deny, needs_seccomp

from procreactor.kernel.fds import Fds, close_fd


def test_what_was_open_is_closed() -> None:
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    assert close_fd(fd) == 0
    with pytest.raises(OSError):
        os.fstat(fd)


def test_what_was_not_open_is_told() -> None:
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    assert close_fd(fd) == -errno.EBADF


def close_with(error: int) -> list[str]:
    """What is told by a close that fails with *error*: returned, or raised."""
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    told: list[str] = []

    def close() -> None:
        deny("close", error)  # for this thread, and unlike a kernel that says so, it closes nothing
        try:
            told.append(repr(close_fd(fd)))
        except OSError as refusal:
            told.append(repr(refusal))

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    os.close(fd)
    return told


@needs_seccomp
@pytest.mark.parametrize("error", [errno.EINTR, errno.EIO], ids=errno.errorcode.get)
def test_what_a_close_says_after_it_has_closed_is_no_error(error: int) -> None:
    assert alone(close_with, error) == ["0"]


# --- fds that are kept together -------------------------------------------------------------------

NULL = os.devnull, os.O_RDONLY | os.O_CLOEXEC


def test_a_high_fd_is_above_what_a_child_gets_a_copy_of_and_the_only_one() -> None:
    before, fds = open_fds(), Fds()
    high = [fds.open_high(os.open, *NULL) for _ in range(3)]
    assert min(high) >= 128
    assert open_fds() == {**before, **dict.fromkeys(high, os.devnull)}
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in high)
    fds.close()
    assert open_fds() == before


def open_where_no_high_fd_may_be() -> bool:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    fds = Fds()
    try:
        return fds.open_high(os.open, *NULL) < 100
    finally:
        fds.close()


@pytest.mark.needs("file limits")
def test_where_there_are_few_numbers_a_low_one_does() -> None:
    assert alone(open_where_no_high_fd_may_be)


def strikes_in_high_fds(library: str) -> int:
    before, kept = open_fds(), list[Fds]()

    def open_some() -> None:
        fds = Fds()
        kept.append(fds)
        fds.open_high(os.open, *NULL)
        fds.open_high(os.open, *NULL)

    def clean_up() -> None:
        while kept:
            kept.pop().close()
        assert open_fds() == before

    return interrupt_each_bytecode(library, open_some, clean_up)


def test_an_interrupt_leaves_no_high_fd_and_closes_none_twice() -> None:
    assert alone(strikes_in_high_fds, build_library("interrupter")) > 20
