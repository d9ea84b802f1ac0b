"""Which view of the run a terminal gets.

What draws is imported when there is a terminal to draw on: most runs have none, and are short. Of
all views the live one alone needs rich, which takes longer to import than most runs take, and is an
extra.
"""

from __future__ import annotations

import os

from procreactor.apps.cli.progress import ProgressState
from procreactor.typed import Protocol

__all__ = ["VIEW_KINDS", "NoView", "View", "open_view"]

VIEW_KINDS = ("none", "line", "progress", "eta", "bar", "live")


class View(Protocol):
    """What shows a run to a person."""

    shows_nothing: bool
    """Whether there is nobody to be told."""

    def on_start(self, seq: int, command: bytes, now_s: float) -> None:
        """Take note of a job that has started."""

    def on_end(self, seq: int) -> None:
        """Take note of a job that runs no more."""

    def draw(self, now_s: float) -> None:
        """Show how things are, unless that was done a moment ago. Cheap then."""

    def clear(self) -> None:
        """Leave no trace on the screen until the next `draw`; idempotent."""

    def close(self) -> None:
        """Leave no trace on the screen for good; idempotent."""


class NoView:
    """Shows nothing, as where there is no terminal."""

    shows_nothing = True

    def on_start(self, seq: int, command: bytes, now_s: float) -> None:
        """Do nothing."""

    def on_end(self, seq: int) -> None:
        """Do nothing."""

    def draw(self, now_s: float) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def open_view(kind: str, state: ProgressState, fd: int = 2) -> View:
    """Return the view of *state* on *fd*, one of `VIEW_KINDS`; `NoView` where it is no terminal.

    The owner closes it. ImportError, with what to do, when the live view's library is missing.
    """
    if not os.isatty(fd) or kind == "none":
        return NoView()
    return _open_live(state, fd) if kind == "live" else _open_line(kind, state, fd)


def _open_line(kind: str, state: ProgressState, fd: int) -> View:
    from procreactor.apps.cli import rendering, terminal

    renderers = {
        "line": rendering.render_line,
        "progress": rendering.render_progress,
        "eta": rendering.render_eta,
        "bar": rendering.render_bar,
    }
    return terminal.ProgressLine(state, renderers[kind], fd)


def _open_live(state: ProgressState, fd: int) -> View:
    try:
        from procreactor.apps.cli.live import LiveView
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the live view needs {error.name}: pip install 'procreactor[rich]'"
        ) from error
    return LiveView(state, fd)
