"""How many children a measurement takes: as many as fill its time, found by a short warm-up.

A count for all would be too small for the fast or minutes for the slow: between the fastest and
the slowest lies a factor of a thousand.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import target
from benchmarks.model import NotPossible

__all__ = ["measure_us", "public_target", "raise_open_files", "require_open_files", "warm_up"]

MOST = 20_000

ANEW_TIMES = 5
"""How much longer a program is measured whose own start is in its time."""


def warm_up(adapter: Adapter, argv: Sequence[str], at_once: int, way: str, seconds: float) -> int:
    """Return how many children take about *seconds*, at least three times *at_once*.

    Imports, page cache, probes and threads are warm then: twice as many as are alive at once have
    been run. For a program that starts anew it is `ANEW_TIMES` as long, and its start is no part of
    that: one tenth of a second among some dozens of children would say they took ten times as long
    as they do among thousands.
    """
    if way not in adapter.WAYS:
        raise NotPossible(f"it has no way {way!r}, or not for this user")
    adapter.spawn_many(argv, at_once, at_once, way)
    count = at_once + 8
    took_s = adapter.spawn_many(argv, count, at_once, way)
    per_child_s = took_s / count
    if getattr(adapter, "STARTS_ANEW", False):
        seconds *= ANEW_TIMES
        per_child_s = _pace_s(adapter, argv, at_once, way, took_s)
    return min(MOST, max(3 * at_once, int(seconds / per_child_s)))


def _pace_s(adapter: Adapter, argv: Sequence[str], at_once: int, way: str, few_s: float) -> float:
    """Return what one more child takes, where *few_s* are the seconds of a few: mostly a start.

    So many are run that most of the time is theirs.
    """
    few = count = at_once + 8
    took_s = few_s
    while took_s < 2 * few_s and count < MOST:
        count *= 8
        took_s = adapter.spawn_many(argv, count, at_once, way)
    return max(took_s - few_s, took_s / 2) / (count - few)


def measure_us(adapter: Adapter, argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """Return the microseconds per child of *count*."""
    return adapter.spawn_many(argv, count, at_once, way) / count * 1e6


def raise_open_files() -> int:
    """Return how many files this process may have open: the hard limit, from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextmanager
def public_target(name: str) -> Iterator[str]:
    """The path of a copy of a target that any user may run, wherever the tree lies."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)
        yield shutil.copy(target(name), folder)


def require_open_files(count: int) -> None:
    """`NotPossible` unless this process may have so many files open, and 256 others."""
    hard = raise_open_files()
    if hard != resource.RLIM_INFINITY and hard < count + 256:
        raise NotPossible(f"RLIMIT_NOFILE is {hard}, and {count} fds are needed")
