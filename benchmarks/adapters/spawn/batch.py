"""procreactor's batch path: many children at a bound, output and status of each collected."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from benchmarks.adapters.spawn import ENVIRONMENT, PATH
from benchmarks.adapters.spawn._heartbeat import Heartbeat
from procreactor.apps.batch import DRAIN_S, plan_command, run_batch
from procreactor.loop.eventloop import EventLoop
from procreactor.streams.collect import Collector
from procreactor.transport.collected import pairs_of
from procreactor.transport.pool import ChildPool, Ended

__all__ = ["IMPORTS", "WAYS", "spawn_many", "stall"]

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


def stall(argv: Sequence[str], count: int) -> list[float]:
    """See `benchmarks.adapters.spawn`: a pool on a loop that has other things to do, too."""
    loop, heart, stalls_s = EventLoop(), Heartbeat(), []
    ended: list[Ended[Collector]] = []
    pool = ChildPool(loop, pairs_of(Collector), ended.append, drain_s=DRAIN_S)
    spec = plan_command(argv, env=ENVIRONMENT)

    def turn() -> None:
        heart.beat()
        if len(ended) < count:
            loop.call_soon(turn)

    turn()
    for number in range(count):
        heart.begin()
        pool.submit(spec)
        while len(ended) <= number:
            loop.run_once(60)
        stalls_s.append(heart.end())
    pool.close()
    loop.close()
    for one in ended:
        if one.status is None or not one.status.ok:
            raise RuntimeError(f"a child ended with {one.status}, {one.error}")
    return stalls_s
