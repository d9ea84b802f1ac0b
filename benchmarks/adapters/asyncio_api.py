"""asyncio: create_subprocess_exec and communicate, bounded by a semaphore."""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import PIPE

from benchmarks.adapters import main


async def _run_all(program: str, children: int, at_once: int) -> float:
    gate = asyncio.Semaphore(at_once)

    async def run_one() -> None:
        async with gate:
            child = await asyncio.create_subprocess_exec(
                program, stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
            await child.communicate()

    begun_s = time.perf_counter()
    await asyncio.gather(*(run_one() for _ in range(children)))
    return time.perf_counter() - begun_s


def run(program: str, children: int, at_once: int) -> float:
    """Return the seconds for all children."""
    return asyncio.run(_run_all(program, children, at_once))


if __name__ == "__main__":
    main(run)
