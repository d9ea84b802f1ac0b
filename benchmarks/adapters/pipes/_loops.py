"""asyncio's subprocess API, which asyncio's own loop, uvloop's and rloop's run alike.

Streams have their default limit of 64 KiB, above twice which the transport stops reading.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from benchmarks.adapters.pipes import READ_BYTES, check_exit, pieces_of, wrong_echo

Figures = TypeVar("Figures")


class Loops:
    """All capabilities, each call on a new loop of *make_loop* (None: asyncio's default)."""

    def __init__(self, make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._make_loop = make_loop

    def _run(self, work: Coroutine[Any, Any, Figures]) -> Figures:
        with asyncio.Runner(loop_factory=self._make_loop) as runner:
            return runner.run(work)

    def read_all(self, argv: Sequence[str]) -> tuple[float, int]:
        """StreamReader.read."""
        return self._run(_read_streams(argv, 1))

    def read_streams(self, argv: Sequence[str], count: int) -> tuple[float, int]:
        """One task per child, StreamReader.read."""
        return self._run(_read_streams(argv, count))

    def read_lines(self, argv: Sequence[str]) -> tuple[float, int]:
        """StreamReader.readline, by its iterator."""
        return self._run(_read_lines(argv))

    def write_all(self, argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
        """StreamWriter.write and drain."""
        return self._run(_write_all(argv, total_bytes, chunk_bytes))

    def ping_pong(self, argv: Sequence[str], rounds: int) -> float:
        """StreamWriter.write and drain, StreamReader.read."""
        return self._run(_ping_pong(argv, rounds))


async def _read_to_end(child: Process) -> int:
    assert child.stdout is not None
    total_bytes = 0
    while data := await child.stdout.read(READ_BYTES):
        total_bytes += len(data)
    return total_bytes


async def _read_streams(argv: Sequence[str], count: int) -> tuple[float, int]:
    begun_s = time.perf_counter()
    spawns = (asyncio.create_subprocess_exec(*argv, stdout=PIPE) for _ in range(count))
    children = await asyncio.gather(*spawns)
    totals = await asyncio.gather(*map(_read_to_end, children))
    # all are waited for before one is judged: a loop that closes early leaves children behind
    exit_codes = [await child.wait() for child in children]
    for exit_code in exit_codes:
        check_exit(argv, exit_code)
    return time.perf_counter() - begun_s, sum(totals)


async def _read_lines(argv: Sequence[str]) -> tuple[float, int]:
    begun_s = time.perf_counter()
    child = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
    assert child.stdout is not None
    lines = 0
    async for _ in child.stdout:
        lines += 1
    check_exit(argv, await child.wait())
    return time.perf_counter() - begun_s, lines


async def _write_all(argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
    begun_s = time.perf_counter()
    child = await asyncio.create_subprocess_exec(*argv, stdin=PIPE)
    assert child.stdin is not None
    for piece in pieces_of(total_bytes, chunk_bytes):
        child.stdin.write(piece)
        await child.stdin.drain()
    child.stdin.close()
    check_exit(argv, await child.wait())
    return time.perf_counter() - begun_s


async def _ping_pong(argv: Sequence[str], rounds: int) -> float:
    child = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    begun_s = 0.0
    for number in range(rounds + 1):
        if number == 1:
            begun_s = time.perf_counter()
        child.stdin.write(b"x")
        await child.stdin.drain()
        came = await child.stdout.read(READ_BYTES)
        if came != b"x":
            child.stdin.close()
            await child.communicate()
            raise wrong_echo(b"x", came)
    seconds = time.perf_counter() - begun_s
    child.stdin.close()
    check_exit(argv, await child.wait())
    return seconds
