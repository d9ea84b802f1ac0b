"""asyncio's API, for the loops that implement it: create_subprocess_exec and communicate."""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.adapters.spawn import ENVIRONMENT, NOBODY, PATH
from benchmarks.adapters.spawn._heartbeat import Heartbeat

__all__ = ["LoopHeld", "LoopSpawner"]

_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "path": {"cwd": PATH},
    "identity": {"user": NOBODY, "group": NOBODY, "extra_groups": []},
}


def _check(child: Process) -> None:
    if child.returncode != 0:
        raise RuntimeError(f"a child ended with {child.returncode}")


async def _start(argv: Sequence[str], **options: Any) -> Process:
    return await asyncio.create_subprocess_exec(
        *argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=ENVIRONMENT, **options
    )


class LoopSpawner:
    """The capabilities of an adapter, on a loop of *loop_factory* that lives as long."""

    def __init__(self, loop_factory: Callable[[], Any] | None = None) -> None:
        self.runner = asyncio.Runner(loop_factory=loop_factory)

    def spawn_many(self, argv: Sequence[str], count: int, at_once: int, way: str) -> float:
        """See `benchmarks.adapters.spawn`."""
        return self.runner.run(_spawn_many(argv, count, at_once, _OPTIONS[way]))

    def hold(self, argv: Sequence[str], count: int) -> LoopHeld:
        """See `benchmarks.adapters.spawn`."""
        return LoopHeld(self.runner, argv, count)

    def stall(self, argv: Sequence[str], count: int) -> list[float]:
        """See `benchmarks.adapters.spawn`."""
        return self.runner.run(_stall(argv, count))


async def _spawn_many(
    argv: Sequence[str], count: int, at_once: int, options: dict[str, Any]
) -> float:
    gate = asyncio.Semaphore(at_once)

    async def run_one() -> Process:
        async with gate:
            child = await _start(argv, **options)
            await child.communicate()
            return child

    begun_s = time.perf_counter()
    # all have ended before one is judged: none is left to a loop that runs no more
    for child in await asyncio.gather(*(run_one() for _ in range(count))):
        _check(child)
    return time.perf_counter() - begun_s


async def _stall(argv: Sequence[str], count: int) -> list[float]:
    heart, stalls_s = Heartbeat(), []

    async def beat() -> None:
        while True:
            heart.beat()
            await asyncio.sleep(0)

    beating = asyncio.ensure_future(beat())
    for _ in range(count):
        heart.begin()
        child = await _start(argv)
        await child.communicate()
        _check(child)
        stalls_s.append(heart.end())
    beating.cancel()
    return stalls_s


class LoopHeld:
    """Live children of one loop."""

    def __init__(self, runner: asyncio.Runner, argv: Sequence[str], count: int) -> None:
        self._runner = runner
        self._children = runner.run(self._start_all(argv, count))

    async def _start_all(self, argv: Sequence[str], count: int) -> list[Process]:
        return [await _start(argv) for _ in range(count)]

    def idle(self, seconds: float) -> None:
        """See `benchmarks.adapters.spawn.Held`."""
        self._runner.run(asyncio.sleep(seconds))

    def end_all(self) -> float:
        """See `benchmarks.adapters.spawn.Held`."""
        return self._runner.run(self._end_all())

    async def _end_all(self) -> float:
        begun_s = time.perf_counter()
        for child in self._children:
            if child.stdin:
                child.stdin.close()
        await asyncio.gather(*(child.communicate() for child in self._children))
        for child in self._children:
            _check(child)
        self._children.clear()
        return time.perf_counter() - begun_s
