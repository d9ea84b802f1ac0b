"""The rich view on a real terminal: what it shows, and that it leaves nothing."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import threading
from collections.abc import Iterator

import pytest

from procreactor.apps.cli.live import LiveView
from procreactor.apps.cli.progress import ProgressState

Ends = tuple[int, int]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def read(ours: int) -> str:
    got = b""
    while select.select([ours], [], [], 0)[0]:
        got += os.read(ours, 65536)
    return got.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)


def test_the_counts_and_the_running_jobs_are_shown(terminal: Ends) -> None:
    ours, theirs = terminal
    state = ProgressState(0.0, total=4, succeeded=1)
    view = LiveView(state, theirs)
    view.on_start(7, b"sleep 5\n\xff", 1.0)
    view.on_start(8, b"gone", 1.0)
    view.on_end(8)
    view.on_end(99)
    state.running = 1
    view.draw(3.0)
    shown = plain(read(ours))
    assert "1/4 done, 1 running, 0 failed" in shown
    assert re.search(r"7\s+2s\s+sleep 5", shown)
    assert "gone" not in shown
    assert max(map(len, re.split(r"[\r\n]+", shown))) == 70, "as wide as this terminal"
    view.close()


def test_more_jobs_than_fit_are_counted(terminal: Ends) -> None:
    ours, theirs = terminal
    view = LiveView(ProgressState(0.0), theirs)
    for seq in range(1, 31):
        view.on_start(seq, b"job", 0.0)
    view.draw(1.0)
    shown = plain(read(ours))
    assert "and 20 more" in shown
    assert len(shown.splitlines()) <= 24
    view.close()


def test_what_is_cleared_leaves_nothing_and_comes_back(terminal: Ends) -> None:
    ours, theirs = terminal
    view = LiveView(ProgressState(0.0), theirs)
    view.draw(1.0)
    view.clear()
    cleared = read(ours)
    assert cleared.count("\x1b[?25l") == cleared.count("\x1b[?25h") == 1, "the cursor is back"
    assert cleared.rindex("\x1b[2K") > cleared.rindex("done")
    view.clear()
    view.draw(1.05)
    assert read(ours) == "", "too soon"
    view.draw(1.2)
    assert "done" in read(ours)
    view.close()
    view.close()
    read(ours)
    view.draw(9.0)
    assert read(ours) == "", "it is closed"


def test_it_has_no_thread(terminal: Ends) -> None:
    before = threading.active_count()
    view = LiveView(ProgressState(0.0), terminal[1])
    view.draw(1.0)
    assert threading.active_count() == before
    view.close()


def test_a_terminal_that_has_gone_is_no_error() -> None:
    ours, theirs = pty.openpty()
    view = LiveView(ProgressState(0.0), theirs)
    view.draw(1.0)
    os.close(ours)
    for second in (2.0, 3.0):
        view.draw(second)
    view.clear()
    view.close()
    os.close(theirs)


def test_what_is_no_terminal_gets_nothing() -> None:
    read_fd, write_fd = os.pipe()
    view = LiveView(ProgressState(0.0), write_fd)
    view.draw(1.0)
    view.close()
    os.close(write_fd)
    assert os.read(read_fd, 10) == b""
    os.close(read_fd)
