"""What this process holds: fds, threads, children, memory; and whether that stays as it was.

Memory is read when nothing runs and after a garbage collection, in two ways:

- Rss of /proc/self/smaps_rollup, which walks the page tables. That of statm adds up counters which
  each CPU keeps a part of, and is off by megabytes on large machines.
- The blocks that Python's own allocator has given out (sys.getallocatedblocks): exact, and the same
  again after the same work, so that a few objects more are seen in a run of seconds.

The bounds, from a fifth of the run on (caches, free lists and arenas have their size by then):

- `MOST_BYTES` of Rss, 4 MiB. In 1,000,000 spawns that is 5 bytes for each: the smallest object that
  is kept for each spawn, or one of 50 bytes for each tenth, shows.
- `MOST_BLOCKS` blocks, 1,000: in 1,000,000 spawns an object that is kept for each eight hundredth
  of them shows, in 2,000 one for each. What is there of them in such runs is some tens, and some
  hundreds in the short ones, as caches fill.
"""

from __future__ import annotations

import gc
import os
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MOST_BLOCKS", "MOST_BYTES", "PROC", "Point", "judge", "look", "slope"]

PROC = os.environ.get("PROCREACTOR_TESTS_PROC", "/proc")
"""Where it is in a world without (tests/worlds)."""

MOST_BYTES = 4 << 20
MOST_BLOCKS = 1000
SETTLED = 0.2
"""From which part of the run on memory is to be flat."""


@dataclass(frozen=True)
class Point:
    """What this process held after so many spawns, none of them alive."""

    spawns: int
    seconds: float
    fds: dict[int, str]
    threads: int
    children: tuple[int, ...]
    rss_bytes: int
    blocks: int


def look(spawns: int, seconds: float, fds_before: dict[int, str] | None = None) -> Point:
    """Return what is held now; with *fds_before* itself, if the fds are the same.

    Or each point would hold a list of its own, and be part of the growth that it measures.
    """
    gc.collect()
    fds = _fds()
    if fds == fds_before:
        fds = fds_before
    return Point(spawns, seconds, fds, _threads(), _children(), _rss(), sys.getallocatedblocks())


def _fds() -> dict[int, str]:
    found = {}
    for name in os.listdir(f"{PROC}/self/fd"):
        try:
            found[int(name)] = os.readlink(f"{PROC}/self/fd/{name}")
        except FileNotFoundError:
            pass  # the directory itself
    return found


def _threads() -> int:
    return len(os.listdir(f"{PROC}/self/task"))


def _children() -> tuple[int, ...]:
    """All children, zombies included."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ()
    texts = [path.read_text() for path in Path(PROC, "self/task").glob("*/children")]
    return tuple(int(pid) for text in texts for pid in text.split())


def _rss() -> int:
    text = Path(PROC, "self/smaps_rollup").read_text()
    found = re.search(r"^Rss: +(\d+) kB$", text, re.MULTILINE)
    assert found, text
    return int(found[1]) * 1024


def _settled(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if point.spawns >= SETTLED * points[-1].spawns]


def slope(points: Sequence[Point]) -> float:
    """Return how many bytes of Rss come with 1,000 spawns, in settled *points* (least squares)."""
    settled = _settled(points)
    if len(settled) < 2:
        return 0.0
    spawns = [point.spawns / 1000 for point in settled]
    return statistics.linear_regression(spawns, [point.rss_bytes for point in settled]).slope


def judge(points: Sequence[Point]) -> list[str]:
    """Return what is wrong with *points*: not as the first one, or growing."""
    first, last = points[0], points[-1]
    wrong = []
    for point in points[1:]:
        at = f"after {point.spawns:,} spawns"
        if point.fds != first.fds:
            more = {fd: what for fd, what in point.fds.items() if first.fds.get(fd) != what}
            wrong.append(f"{at}: fds more: {more}, fewer: {sorted(first.fds.keys() - point.fds)}")
        if point.threads != first.threads:
            wrong.append(f"{at}: {point.threads} threads, {first.threads} before")
        if point.children:
            wrong.append(f"{at}: children left: {point.children}")
    settled = _settled(points)[0]
    for what, most in (("rss_bytes", MOST_BYTES), ("blocks", MOST_BLOCKS)):
        grown = getattr(last, what) - getattr(settled, what)
        if grown > most:
            wrong.append(f"{what} grew by {grown:,} from {settled.spawns:,} spawns on: > {most:,}")
    return wrong
