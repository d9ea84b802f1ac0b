"""Which view there is, and that rich is imported for its own view alone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from support import PYTHON

from procreactor.apps.cli.live import LiveView
from procreactor.apps.cli.progress import ProgressState
from procreactor.apps.cli.terminal import ProgressLine
from procreactor.apps.cli.views import VIEW_KINDS, NoView, open_view


@pytest.mark.parametrize("kind", VIEW_KINDS)
def test_a_pipe_gets_no_view(kind: str) -> None:
    read_fd, write_fd = os.pipe()
    assert type(open_view(kind, ProgressState(0.0), write_fd)) is NoView
    os.close(read_fd)
    os.close(write_fd)


@pytest.mark.parametrize("kind", VIEW_KINDS)
def test_a_terminal_gets_the_view_that_was_asked_for(kind: str) -> None:
    ours, theirs = pty.openpty()
    view = open_view(kind, ProgressState(0.0, total=2), theirs)
    wanted = {"none": NoView, "live": LiveView}.get(kind, ProgressLine)
    assert type(view) is wanted
    view.draw(1.0)
    view.close()
    os.close(ours)
    os.close(theirs)


def test_rich_is_imported_by_nothing_but_its_view() -> None:
    code = "import sys, procreactor.apps.cli.views; print('rich' in sys.modules)"
    assert subprocess.check_output([PYTHON, "-c", code]) == b"False\n"


def test_without_rich_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "procreactor.apps.cli.live")
    monkeypatch.setattr(sys.modules["procreactor.apps.cli"], "live", None)
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ImportError, match=r"pip install 'procreactor\[rich\]'"):
        open_view("live", ProgressState(0.0), theirs)
    os.close(ours)
    os.close(theirs)
