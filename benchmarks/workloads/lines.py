"""Short lines of one child, split by what the library has for lines."""

from __future__ import annotations

from benchmarks.adapters.pipes import ReadsLines, check_count
from benchmarks.model import Point

KIND = "pipes"
NEEDS = "read_lines"
UNITS = {"million_lines_per_s": "M lines/s"}
SHOWN = ("million_lines_per_s",)
ABOUT = (
    "Standard output of `seq COUNT`: LineOnlyReceiver (procreactor, Twisted), readline (asyncio's "
    "loops), the file object (subprocess), a split of each chunk (trio, blocking), memchr (limit)."
)
PARAMS = (Point("split into lines", "3 million", {"lines": 3_000_000}, quick={"lines": 500_000}),)

_WARM_UP_LINES = 10_000


def run(adapter: ReadsLines, lines: int) -> dict[str, float]:
    """Return the rate; `WrongResult` unless every line came."""
    _read(adapter, min(_WARM_UP_LINES, lines))
    seconds = _read(adapter, lines)
    return {"million_lines_per_s": lines / seconds / 1e6}


def _read(adapter: ReadsLines, lines: int) -> float:
    seconds, came = adapter.read_lines(["seq", str(lines)])
    check_count("lines", lines, came)
    return seconds
