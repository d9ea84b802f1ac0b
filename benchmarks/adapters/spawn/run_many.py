"""run_many: an iterator over results, with the output and the status of each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from benchmarks.adapters.spawn import ENVIRONMENT, PATH
from procreactor import run_many

__all__ = ["IMPORTS", "WAYS", "spawn_many"]

WAYS = frozenset({"plain", "path"})
IMPORTS = {"package": "from procreactor import run_many"}


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`; standard input is /dev/null."""
    cwd = PATH if way == "path" else None
    begun_s = time.perf_counter()
    commands = itertools.repeat(argv, count)
    for result in run_many(commands, jobs=at_once, cwd=cwd, env=ENVIRONMENT):
        result.check()
    return time.perf_counter() - begun_s
