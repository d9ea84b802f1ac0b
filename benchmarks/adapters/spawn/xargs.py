"""``xargs -P AT_ONCE -n 1``: a line of input is one child. No pipes, no outputs to be read."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.adapters.spawn import ENVIRONMENT
from benchmarks.adapters.spawn._tools import find_tool, run_lines

__all__ = ["WAYS", "spawn_many"]

WAYS = frozenset({"plain"})

_XARGS = find_tool("xargs")


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`; the child's last argument is the line."""
    return run_lines([_XARGS, "-P", str(at_once), "-n", "1", *argv], count, ENVIRONMENT)
