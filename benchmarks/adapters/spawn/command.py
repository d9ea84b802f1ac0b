"""``procreactor run -j AT_ONCE``: a line of input is one child; it collects the outputs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.adapters.spawn import ENVIRONMENT
from benchmarks.adapters.spawn._tools import read_lines, run_lines

__all__ = ["STARTS_ANEW", "WAYS", "command_line", "run_ordered", "spawn_many"]

WAYS = frozenset({"plain"})
STARTS_ANEW = True

_COMMAND = Path(sys.executable).with_name("procreactor")
if not _COMMAND.exists():
    raise ImportError("the command procreactor is not installed beside this interpreter")


def command_line(at_once: int, *options: str) -> list[str]:
    """See `benchmarks.adapters.spawn`."""
    return [str(_COMMAND), "run", *options, "-j", str(at_once)]


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`; the child's last argument is the line."""
    return run_lines([*command_line(at_once), *argv], count, ENVIRONMENT)


def run_ordered(argv: Sequence[str], lines: bytes, at_once: int) -> tuple[float, int]:
    """See `benchmarks.adapters.spawn`."""
    return read_lines([*command_line(at_once, "-k"), *argv], lines, None)  # as for parallel
