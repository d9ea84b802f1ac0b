"""The progress line on a real terminal: what stands there, and what is left when it is cleared."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
from collections.abc import Iterator

import pytest

from procreactor.apps.cli.progress import ProgressState
from procreactor.apps.cli.rendering import render_line
from procreactor.apps.cli.terminal import REDRAW_S, ProgressLine
from procreactor.apps.cli.views import NoView


class Terminal:
    """Both ends of a pty, and a screen of one line that understands CR and erase-to-end."""

    def __init__(self, columns: int) -> None:
        self.ours, self.theirs = pty.openpty()
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, size)
        self.raw = b""

    def read(self) -> bytes:
        """What has been written since the last time."""
        got = b""
        while select.select([self.ours], [], [], 0)[0]:
            got += os.read(self.ours, 65536)
        self.raw += got
        return got

    def line(self) -> str:
        """What stands on the last line."""
        self.read()
        line, at = "", 0
        text = self.raw.decode().rpartition("\n")[2]
        while text:
            if text.startswith("\x1b[K"):
                line, text = line[:at], text[3:]
            elif text.startswith("\r"):
                at, text = 0, text[1:]
            else:
                line, at, text = line[:at] + text[0] + line[at + 1 :], at + 1, text[1:]
        return line

    def close(self) -> None:
        for fd in (self.ours, self.theirs):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    one = Terminal(40)
    yield one
    one.close()


def test_the_line_is_drawn_and_drawn_over(terminal: Terminal) -> None:
    state = ProgressState(started_s=0.0, total=10, running=3)
    view = ProgressLine(state, render_line, terminal.theirs)
    view.draw(1.0)
    assert terminal.line() == "0/10 done, 3 running, 0 failed, 0.0/s"
    state.running, state.total = 0, None
    view.draw(2.0)
    assert terminal.line() == "0 done, 0 running, 0 failed, 0.0/s"
    view.close()


def test_a_line_that_is_cleared_leaves_nothing(terminal: Terminal) -> None:
    view = ProgressLine(ProgressState(0.0), render_line, terminal.theirs)
    view.clear()
    assert terminal.read() == b"", "nothing was there to clear"
    view.draw(1.0)
    view.clear()
    assert terminal.line() == ""
    view.clear()
    assert terminal.read() == b""


def test_output_between_two_drawings_stays(terminal: Terminal) -> None:
    view = ProgressLine(ProgressState(0.0), render_line, terminal.theirs)
    view.draw(1.0)
    view.clear()
    os.write(terminal.theirs, b"output\n")
    view.draw(2.0)
    terminal.read()
    assert b"\x1b[Koutput\r\n\r0 done" in terminal.raw
    view.close()
    assert terminal.line() == ""
    view.draw(3.0)
    assert terminal.read() == b"", "it is closed"


def test_it_is_drawn_no_more_than_ten_times_a_second(terminal: Terminal) -> None:
    drawn = 0
    view = ProgressLine(ProgressState(0.0), render_line, terminal.theirs)
    for milliseconds in range(0, 2000, 7):
        view.draw(100.0 + milliseconds / 1000)
        drawn += terminal.read().count(b"done")
        view.clear()
    assert REDRAW_S == 0.1
    assert 10 <= drawn <= 20


@pytest.mark.parametrize("columns", [1, 2, 10, 20, 200])
def test_the_last_column_stays_free(columns: int) -> None:
    terminal = Terminal(columns)
    view = ProgressLine(ProgressState(0.0, total=10**6), render_line, terminal.theirs)
    view.draw(1.0)
    assert len(terminal.line()) <= max(columns - 1, 1)
    terminal.close()


def test_a_terminal_that_says_no_size_is_80_wide() -> None:
    terminal = Terminal(0)
    view = ProgressLine(
        ProgressState(0.0), lambda state, now_s, width: "x" * width, terminal.theirs
    )
    view.draw(1.0)
    assert len(terminal.line()) == 79
    terminal.close()


def test_nothing_is_written_to_what_is_no_terminal() -> None:
    read_fd, write_fd = os.pipe()
    view = ProgressLine(ProgressState(0.0), render_line, write_fd)
    view.draw(1.0)
    view.clear()
    view.close()
    os.close(write_fd)
    assert os.read(read_fd, 100) == b""
    os.close(read_fd)


def test_a_terminal_that_takes_no_more_is_not_waited_for(terminal: Terminal) -> None:
    os.set_blocking(terminal.theirs, False)
    termios.tcflow(terminal.theirs, termios.TCOOFF)
    view = ProgressLine(ProgressState(0.0), render_line, terminal.theirs)
    for second in range(1000):
        view.draw(float(second))
    termios.tcflow(terminal.theirs, termios.TCOON)
    view.close()


def test_a_terminal_that_has_gone_is_no_error(terminal: Terminal) -> None:
    view = ProgressLine(ProgressState(0.0), render_line, terminal.theirs)
    view.draw(1.0)
    os.close(terminal.ours)
    terminal.ours = -1
    view.draw(2.0)
    view.draw(3.0)
    view.close()


def test_no_view_does_nothing() -> None:
    view = NoView()
    view.on_start(1, b"true", 0.0)
    view.draw(1.0)
    view.on_end(1)
    view.clear()
    view.close()
