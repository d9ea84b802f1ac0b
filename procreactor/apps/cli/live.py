"""The rich live view: a bar, the counts, and the jobs that run, on a terminal.

Facts about rich (13 and later):

- A Live that refreshes by itself has a thread. Here it does not: who runs the loop draws.
- A transient Live leaves nothing when it stops, and hides the cursor while it runs. So `clear` is
  a stop, and the next `draw` a new Live: what is written in between is in nobody's way.
- A table longer than the terminal is cut; the jobs that have run longest are the first lines.
- A Console asks the standard streams for the size, not the file it writes to. So it is told.
- A bar does not end its line, unless it is in a table.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from procreactor.apps.cli.progress import ProgressState
from procreactor.apps.cli.rendering import render_line, spell_duration
from procreactor.apps.cli.terminal import REDRAW_S

__all__ = ["LiveView"]

_SHOWN_JOBS = 10
_SIZE_OF_ANY = ConsoleDimensions(80, 24)


@dataclass(frozen=True, slots=True)
class _Running:
    command: bytes
    start_s: float


class LiveView:
    """Shows *state* and the running jobs on the terminal *fd*, which stays its owner's."""

    shows_nothing = False

    def __init__(self, state: ProgressState, fd: int = 2) -> None:
        self._state = state
        self._running: dict[int, _Running] = {}
        self._file = open(fd, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        self._console = Console(file=self._file)
        self._may_draw = os.isatty(fd)
        self._live: Live | None = None
        self._next_s = 0.0

    def on_start(self, seq: int, command: bytes, now_s: float) -> None:
        """Show a job from now on."""
        self._running[seq] = _Running(command, now_s)

    def on_end(self, seq: int) -> None:
        """Show a job no more; one that never started is none."""
        self._running.pop(seq, None)

    def draw(self, now_s: float) -> None:
        """Draw all, at most once per `REDRAW_S`."""
        if not self._may_draw or now_s < self._next_s:
            return
        self._next_s = now_s + REDRAW_S
        self._console.size = self._size()
        picture = self._picture(now_s)
        try:
            if self._live is None:
                self._live = Live(
                    console=self._console,
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
            self._live.update(picture, refresh=True)
        except OSError:  # progress is never worth a failure (terminal.py)
            self._may_draw = False

    def clear(self) -> None:
        """Erase what is drawn."""
        live, self._live = self._live, None
        if live is not None:
            try:
                live.stop()
            except OSError:
                self._may_draw = False

    def close(self) -> None:
        """Erase what is drawn, for good."""
        self.clear()
        self._may_draw = False
        try:
            self._file.close()
        except OSError:
            pass  # the terminal is gone, with what was to be written to it

    def _picture(self, now_s: float) -> RenderableType:
        state = self._state
        counts = Text(render_line(state, now_s, self._console.width), no_wrap=True)
        total = None if state.total is None else float(state.total)
        bar = ProgressBar(total=total, completed=state.done, animation_time=now_s)
        head = Table.grid(expand=True)
        head.add_row(bar)
        head.add_row(counts)
        return Group(head, self._table(now_s))

    def _size(self) -> ConsoleDimensions:
        try:
            size = os.get_terminal_size(self._file.fileno())
        except OSError:
            return _SIZE_OF_ANY
        return ConsoleDimensions(
            size.columns or _SIZE_OF_ANY.width, size.lines or _SIZE_OF_ANY.height
        )  # 0: nobody has told the terminal its size

    def _table(self, now_s: float) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", style="cyan")
        table.add_column(justify="right", style="dim")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for seq, job in list(self._running.items())[:_SHOWN_JOBS]:
            command = Text(job.command.decode("utf-8", "replace").replace("\n", " "))
            table.add_row(str(seq), spell_duration(now_s - job.start_s), command)
        hidden = len(self._running) - _SHOWN_JOBS
        if hidden > 0:
            table.add_row("", "", Text(f"and {hidden} more", style="dim"))
        return table
