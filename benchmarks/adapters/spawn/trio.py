"""trio: run_process with captured output, in a nursery, bounded by a CapacityLimiter."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from benchmarks.adapters.spawn import ENVIRONMENT, NOBODY, PATH, identity_way
from benchmarks.adapters.spawn._heartbeat import Heartbeat

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many", "stall"]

WAYS = frozenset({"plain", "path"}) | identity_way()
IMPORTS = {"package": "import trio"}

_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "path": {"cwd": PATH},
    "identity": {"user": NOBODY, "group": NOBODY, "extra_groups": []},
}


async def _run_one(argv: Sequence[str], options: dict[str, Any]) -> None:
    await trio.run_process(
        argv, stdin=b"", capture_stdout=True, capture_stderr=True, env=ENVIRONMENT, **options
    )


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`."""
    options = _OPTIONS[way]

    async def run_bounded(limiter: Any) -> None:
        async with limiter:
            await _run_one(argv, options)

    async def main() -> float:
        begun_s = time.perf_counter()
        async with trio.open_nursery() as nursery:
            limiter = trio.CapacityLimiter(at_once)
            for _ in range(count):
                nursery.start_soon(run_bounded, limiter)
        return time.perf_counter() - begun_s

    return float(trio.run(main))


def stall(argv: Sequence[str], count: int) -> list[float]:
    """See `benchmarks.adapters.spawn`."""
    heart, stalls_s = Heartbeat(), []

    async def beat() -> None:
        while True:
            heart.beat()
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            for _ in range(count):
                heart.begin()
                await _run_one(argv, {})
                stalls_s.append(heart.end())
            nursery.cancel_scope.cancel()

    trio.run(main)
    return stalls_s


class hold:  # noqa: N801  # a capability, named as the others
    """Live children of a trio that runs in a thread: only so can it be entered again and again."""

    def __init__(self, argv: Sequence[str], count: int) -> None:
        self._children: list[Any] = []
        self._ready = threading.Event()
        self._over = trio.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._live,))
        self._thread.start()
        self._ready.wait()
        self._call(partial(self._start_all, argv, count))

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ready.set()
        await self._over.wait()

    def _call(self, what: Callable[[], Awaitable[Any]]) -> Any:
        return trio.from_thread.run(what, trio_token=self._token)

    async def _start_all(self, argv: Sequence[str], count: int) -> None:
        pipe = subprocess.PIPE
        for _ in range(count):
            child = await trio.lowlevel.open_process(
                argv, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT
            )
            self._children.append(child)

    def idle(self, seconds: float) -> None:
        """See `benchmarks.adapters.spawn.Held`."""
        self._call(partial(trio.sleep, seconds))

    def end_all(self) -> float:
        """See `benchmarks.adapters.spawn.Held`."""
        seconds = float(self._call(self._end_all))
        self._thread.join()
        return seconds

    async def _end_all(self) -> float:
        begun_s = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for child in self._children:
                nursery.start_soon(_end, child)
        self._children.clear()
        self._over.set()
        return time.perf_counter() - begun_s


async def _end(child: Any) -> None:
    await child.stdin.aclose()
    for stream in (child.stdout, child.stderr):
        while await stream.receive_some(65536):
            pass
        await stream.aclose()
    if await child.wait() != 0:
        raise RuntimeError(f"a child ended with {child.returncode}")
