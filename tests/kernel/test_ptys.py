"""A pair of fds that is a terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fdtables import room_for

from procreactor.errors import SpawnError
from procreactor.kernel.ptys import PtyPair, open_pty


@contextmanager
def opened(rows: int = 0, columns: int = 0) -> Iterator[PtyPair]:
    pair = open_pty(rows, columns)
    try:
        yield pair
    finally:
        os.close(pair.master)
        os.close(pair.slave)


def window_size(fd: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    return rows, columns


def test_what_goes_into_one_end_comes_out_of_the_other() -> None:
    with opened() as pair:
        os.write(pair.slave, b"out")
        os.set_blocking(pair.master, True)
        assert os.read(pair.master, 100) == b"out"
        os.write(pair.master, b"in\n")
        assert os.read(pair.slave, 100) == b"in\n"


def test_both_ends_are_terminals_and_neither_becomes_ours() -> None:
    with opened() as pair:
        assert os.isatty(pair.master)
        assert os.isatty(pair.slave)
        with pytest.raises(OSError, match=os.strerror(errno.ENOTTY)):
            os.tcgetpgrp(pair.slave)  # a process group is what only a controlling terminal has


def test_neither_end_is_inherited_and_only_ours_does_not_block() -> None:
    with opened() as pair:
        assert not os.get_inheritable(pair.master)
        assert not os.get_inheritable(pair.slave)
        assert not os.get_blocking(pair.master)
        assert os.get_blocking(pair.slave)


def test_the_size_is_unknown_unless_given() -> None:
    with opened() as pair:
        assert window_size(pair.slave) == (0, 0)
    with opened(24, 80) as pair:
        assert window_size(pair.slave) == (24, 80)
    with opened(0, 65535) as pair:
        assert window_size(pair.slave) == (0, 65535)


def test_the_modes_are_the_kernels_defaults() -> None:
    with opened() as pair:
        _, oflag, _, lflag, *_ = termios.tcgetattr(pair.slave)
        assert lflag & termios.ECHO
        assert lflag & termios.ICANON
        assert lflag & termios.ISIG
        assert oflag & termios.ONLCR


@pytest.mark.parametrize(
    ("room", "stage"),
    [
        (0, "open pty"),
        pytest.param(1, "open pty slave", marks=pytest.mark.needs("file limits")),
    ],
)
def test_without_room_for_both_ends_none_is_left_open(room: int, stage: str) -> None:
    with room_for(room), pytest.raises(SpawnError) as caught:
        open_pty()
    assert caught.value.errno == errno.EMFILE
    assert caught.value.stage == stage
    assert caught.value.filename == "/dev/ptmx"
