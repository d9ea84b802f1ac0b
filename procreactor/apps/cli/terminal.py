"""One line at the bottom of a terminal that is drawn again and again, between other output.

Facts:

- What is written beside it would mix with it: `ProgressLine.clear` comes before any output that
  may go to the same terminal, and the next `draw` puts the line back.
- A line as wide as the terminal leaves the cursor in a state of its own on each terminal
  (pending wrap); the last column stays free.
- A terminal can go away under us (EIO after a hang-up), or be one that refuses to take more
  (stopped with Ctrl-S, where the fd does not block). Progress is never worth a failure: what the
  terminal does not take is left out.

On anything but a terminal nothing is ever written.
"""

from __future__ import annotations

import os

from procreactor.apps.cli.progress import ProgressState
from procreactor.apps.cli.rendering import Renderer
from procreactor.apps.cli.views import NoView

__all__ = ["REDRAW_S", "ProgressLine"]

REDRAW_S = 0.1
"""No line is drawn sooner after another: a person reads no faster."""

_WIDTH_OF_ANY = 80
_ERASE = b"\r\x1b[K"


class ProgressLine(NoView):
    """Shows *state*, as *render* puts it, on the terminal *fd*, which stays its owner's."""

    shows_nothing = False

    def __init__(self, state: ProgressState, render: Renderer, fd: int = 2) -> None:
        self._state = state
        self._render = render
        self._fd = fd
        self._may_draw = os.isatty(fd)
        self._next_s = 0.0
        self._is_drawn = False

    def draw(self, now_s: float) -> None:
        """Draw the line, at most once per `REDRAW_S`."""
        if not self._may_draw or now_s < self._next_s:
            return
        self._next_s = now_s + REDRAW_S
        text = self._render(self._state, now_s, self._width())
        self._is_drawn = True
        self._write(b"\r" + text.encode("ascii", "replace") + b"\x1b[K")

    def clear(self) -> None:
        """Erase the line, if it is there."""
        if self._is_drawn:
            self._is_drawn = False
            self._write(_ERASE)

    def close(self) -> None:
        """Erase the line for good."""
        self.clear()
        self._may_draw = False

    def _width(self) -> int:
        try:
            columns = os.get_terminal_size(self._fd).columns
        except OSError:
            columns = 0
        return max((columns or _WIDTH_OF_ANY) - 1, 1)  # 0: nobody has told the terminal its size

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._fd, data)
        except BlockingIOError:
            pass
        except OSError:
            self._may_draw = False
