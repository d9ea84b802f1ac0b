"""procreactor's batch path: many children at a bound, output and status of each collected."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from benchmarks.adapters.spawn import ENVIRONMENT, PATH
from procreactor.apps.batch import plan_command, run_batch

__all__ = ["IMPORTS", "WAYS", "spawn_many"]

WAYS = frozenset({"plain", "path"})
IMPORTS = {"package": "from procreactor.apps import batch"}


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`."""
    cwd = PATH if way == "path" else None
    begun_s = time.perf_counter()
    spec = plan_command(argv, env=ENVIRONMENT, cwd=cwd)
    for outcome in run_batch(itertools.repeat(spec, count), at_once=at_once):
        if outcome.error is not None:
            raise outcome.error
        if outcome.status is None or not outcome.status.ok:
            raise RuntimeError(f"a child ended with {outcome.status}")
    return time.perf_counter() - begun_s
