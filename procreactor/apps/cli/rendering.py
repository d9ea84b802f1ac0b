"""Pure: what a line of the terminal says of how far a run is.

The rules of the room:

* A line is at most *width* columns wide, whatever there is to say; what matters least is left out
  first. It has no control characters but those of the bar, which take no columns.
"""

from __future__ import annotations

from collections.abc import Callable

from procreactor.apps.cli.progress import ProgressState

__all__ = [
    "Renderer",
    "render_bar",
    "render_eta",
    "render_line",
    "render_progress",
    "spell_duration",
]

_REVERSE, _NORMAL = "\x1b[7m", "\x1b[m"

Renderer = Callable[[ProgressState, float, int], str]
"""Gives the line for a state, a time and a width in columns."""


def render_line(state: ProgressState, now_s: float, width: int) -> str:
    """Return the line that a terminal shows by default: done, running, failed, rate, ETA."""
    done = f"{state.done}/{state.total}" if state.total is not None else str(state.done)
    pieces = [f"{done} done", f"{state.running} running", f"{state.failed} failed"]
    pieces.append(f"{_spell_rate(state.rate(now_s))}/s")
    pieces += _spell_eta(state, now_s)
    return _fit(pieces, ", ", width)


def render_eta(state: ProgressState, now_s: float, width: int) -> str:
    """Return the line of ``--eta``: the seconds left first, the jobs left, the mean, the rest."""
    eta_s, left, rate = state.eta_s(now_s), state.left(), state.rate(now_s)
    pieces = [f"ETA: {'?' if eta_s is None else f'{eta_s:.0f}'}s"]
    pieces.append(f"Left: {'?' if left is None else left}")
    pieces.append(f"AVG: {1 / rate if rate else 0:.2f}s")
    pieces.append(render_progress(state, now_s, width))
    return _fit(pieces, " ", width)


def render_progress(state: ProgressState, now_s: float, width: int) -> str:
    """Return the line of ``--progress``: running / done / share of those started / mean time."""
    started = state.running + state.done
    percent = 100 * state.done // started if started else 0
    rate = state.rate(now_s)
    mean_s = 1 / rate if rate else 0
    return _fit(
        [f"local:{state.running}/{state.done}", f"{percent}%", f"{mean_s:.1f}s"], "/", width
    )


def render_bar(state: ProgressState, now_s: float, width: int) -> str:
    """Return the line of ``--bar``: the share in reverse video, under percent, counts and ETA."""
    share, left = state.share(), state.left()
    percent = "?" if share is None else f"{int(100 * share)}"
    pieces = [f"{percent}% {state.done}:{'?' if left is None else left}"]
    pieces += _spell_eta(state, now_s)
    pieces.append(f"{state.failed} failed" if state.failed else "")
    text = _fit([piece for piece in pieces if piece], " ", width).ljust(width)
    filled = int(width * (share or 0.0))
    return f"{_REVERSE}{text[:filled]}{_NORMAL}{text[filled:]}"


def spell_duration(seconds: float) -> str:
    """Return *seconds* as a person writes them: 12s, 3m05s, 2h07m, 4d01h."""
    whole = round(seconds)
    for unit, name, smaller, its_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // smaller:02d}{its_name}"
    return f"{whole}s"


def _spell_eta(state: ProgressState, now_s: float) -> list[str]:
    eta_s = state.eta_s(now_s)
    return [] if eta_s is None else [f"ETA {spell_duration(eta_s)}"]


def _spell_rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def _fit(pieces: list[str], between: str, width: int) -> str:
    """As many of *pieces* as fit, the first ones; at least a part of the first."""
    text = pieces[0][:width]
    for piece in pieces[1:]:
        longer = f"{text}{between}{piece}"
        if len(longer) > width:
            break
        text = longer
    return text
