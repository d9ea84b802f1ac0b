"""``procreactor run -u -j AT_ONCE``: the children write to its output themselves, as with xargs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.adapters.spawn import ENVIRONMENT, command
from benchmarks.adapters.spawn._tools import run_lines

__all__ = ["STARTS_ANEW", "WAYS", "command_line", "spawn_many"]

WAYS = frozenset({"plain"})
STARTS_ANEW = True


def command_line(at_once: int, *options: str) -> list[str]:
    """See `benchmarks.adapters.spawn`."""
    return command.command_line(at_once, "-u", *options)


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`; the child's last argument is the line."""
    return run_lines([*command_line(at_once), *argv], count, ENVIRONMENT)
