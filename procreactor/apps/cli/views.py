"""Which view of the run a terminal gets; the one place that may import rich, when it is asked for.

rich takes longer to import than most runs take, and is an extra; so it is imported by `open_view`
alone, and only for the view that needs it.
"""

from __future__ import annotations

import os
from enum import Enum

from procreactor.apps.cli.progress import (
    ProgressState,
    Renderer,
    render_bar,
    render_eta,
    render_line,
    render_progress,
)
from procreactor.apps.cli.terminal import NoView, ProgressLine, View

__all__ = ["ViewKind", "open_view"]


class ViewKind(Enum):
    """What the user asked for."""

    NONE = "none"
    LINE = "line"
    PROGRESS = "progress"
    ETA = "eta"
    BAR = "bar"
    LIVE = "live"


_RENDERERS: dict[ViewKind, Renderer] = {
    ViewKind.LINE: render_line,
    ViewKind.PROGRESS: render_progress,
    ViewKind.ETA: render_eta,
    ViewKind.BAR: render_bar,
}


def open_view(kind: ViewKind, state: ProgressState, fd: int = 2) -> View:
    """Return the view of *state* on *fd*; one that shows nothing where *fd* is no terminal.

    The owner closes it. ImportError, with what to do, when the live view's library is missing.
    """
    if not os.isatty(fd) or kind is ViewKind.NONE:
        return NoView()
    if kind is not ViewKind.LIVE:
        return ProgressLine(state, _RENDERERS[kind], fd)
    try:
        from procreactor.apps.cli.live import LiveView
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the live view needs {error.name}: pip install 'procreactor[rich]'"
        ) from error
    return LiveView(state, fd)
