"""The interpreter alone: what a program in Python takes before it can do anything."""

from __future__ import annotations

import sys

__all__ = ["WAYS", "command_line"]

WAYS = frozenset({"plain"})


def command_line(at_once: int, *options: str) -> list[str]:
    """See `benchmarks.adapters.spawn`; what is added to it is not looked at."""
    return [sys.executable, *options, "-c", "pass"]
