"""``xargs -P AT_ONCE -n 1``: a line of input is one child. No pipes, no outputs to be read."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.adapters.spawn import ENVIRONMENT
from benchmarks.adapters.spawn._tools import find_tool, read_lines, run_lines

__all__ = ["STARTS_ANEW", "WAYS", "command_line", "run_ordered", "spawn_many"]

WAYS = frozenset({"plain"})
STARTS_ANEW = True

_XARGS = find_tool("xargs")


def command_line(at_once: int, *options: str) -> list[str]:
    """See `benchmarks.adapters.spawn`."""
    return [_XARGS, *options, "-P", str(at_once), "-n", "1"]


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`; the child's last argument is the line."""
    return run_lines([*command_line(at_once), *argv], count, ENVIRONMENT)


def run_ordered(argv: Sequence[str], lines: bytes, at_once: int) -> tuple[float, int]:
    """See `benchmarks.adapters.spawn`; no order is kept: the children have the pipe themselves."""
    return read_lines([*command_line(at_once), *argv], lines, ENVIRONMENT)
