"""A stream is written to without a wait, whatever it is; its owner's file stays as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from leftovers import open_fds

from procreactor.apps.cli.outlet import Outlet


@contextmanager
def ends(kind: str) -> Iterator[tuple[int, int]]:
    """A fd to read from, and one to write to."""
    if kind == "socket":
        one, other = socket.socketpair()
        with one, other:
            yield one.fileno(), other.fileno()
        return
    ours, theirs = os.pipe() if kind == "pipe" else pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def fill(outlet: Outlet) -> int:
    """Write until there is no room; return how many bytes were taken."""
    taken = 0
    while True:
        try:
            taken += outlet.write([b"x" * 1000, b"y" * 100_000])
        except BlockingIOError:
            return taken


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_a_reader_who_does_not_read_is_not_waited_for_in_a_write(kind: str) -> None:
    with ends(kind) as (ours, theirs):
        outlet = Outlet(theirs)
        assert fill(outlet) > 0
        assert not fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK
        if kind == "terminal":  # there a thread of the kernel moves on what was written
            while select.select([], [outlet.fd], [], 0)[1]:
                fill(outlet)
        else:
            assert not select.select([], [outlet.fd], [], 0)[1]
        while not select.select([], [outlet.fd], [], 0)[1]:
            os.read(ours, 1000)
        outlet.wait()
        assert outlet.write([b"z"]) == 1
        outlet.close()
        outlet.close()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_sent_from_a_file_does_not_wait_either(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 8000)
    with ends(kind) as (ours, theirs), open(tmp_path / "file", "rb") as file:
        outlet = Outlet(theirs)
        sent = outlet.send(file.fileno(), 0, 1 << 20)
        assert 0 < sent < 2_048_000
        fill(outlet)
        with pytest.raises(BlockingIOError):
            outlet.send(file.fileno(), sent, 1 << 20)
        assert os.read(ours, 1000) == (bytes(range(256)) * 4)[:1000]
        outlet.close()


def test_a_pipe_that_cannot_be_opened_anew_takes_small_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "open", lambda *args: os.close(-1))  # as without /proc
    with ends("pipe") as (ours, theirs):
        outlet = Outlet(theirs)
        monkeypatch.undo()
        assert outlet.asks
        assert 60_000 < fill(outlet) <= 65_536
        assert os.read(ours, 1000) == b"x" * 1000
        outlet.close()
        os.fstat(theirs)


def test_a_file_takes_all_at_once_where_it_was(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb", buffering=0) as file:
        file.write(b"before ")
        before = open_fds()
        outlet = Outlet(file.fileno())
        assert outlet.write([b"x" * 1_000_000, b"y" * 1_000_000]) == 2_000_000
        assert open_fds() == before
        outlet.close()
        file.write(b" after")
    assert (tmp_path / "file").read_bytes()[:8] == b"before x"
    assert (tmp_path / "file").stat().st_size == 2_000_013


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_who_has_gone_is_told_by_the_write(kind: str) -> None:
    with ends(kind) as (ours, theirs):
        gone = os.open("/dev/null", os.O_RDONLY)
        os.dup2(gone, ours)
        os.close(gone)
        outlet = Outlet(theirs)
        outlet.wait()
        with pytest.raises(BrokenPipeError):
            outlet.write([b"x"])
        outlet.close()


def test_an_fd_that_is_not_open_is_told_by_the_write() -> None:
    outlet = Outlet(1 << 20)
    with pytest.raises(OSError, match="Bad file descriptor"):
        outlet.write([b"x"])
    outlet.close()
