"""trio: lowlevel.open_process and its streams; lines are split by hand, as trio has none."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from subprocess import PIPE
from typing import Any

from benchmarks.adapters.pipes import check_exit, pieces_of, wrong_echo

# Found by name: it may not be installed where types are checked.
trio: Any = importlib.import_module("trio")


def read_all(argv: Sequence[str]) -> tuple[float, int]:
    """Iterate over the stream."""
    return read_streams(argv, 1)


def read_streams(argv: Sequence[str], count: int) -> tuple[float, int]:
    """One task per child."""
    seconds, total_bytes = trio.run(_read_streams, argv, count)
    return float(seconds), int(total_bytes)


def read_lines(argv: Sequence[str]) -> tuple[float, int]:
    """Split every chunk, and keep what is behind the last newline for the next."""
    seconds, lines = trio.run(_read_lines, argv)
    return float(seconds), int(lines)


def write_all(argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
    """send_all, which returns when the kernel has taken all."""
    return float(trio.run(_write_all, argv, total_bytes, chunk_bytes))


def ping_pong(argv: Sequence[str], rounds: int) -> float:
    """send_all and receive_some."""
    return float(trio.run(_ping_pong, argv, rounds))


async def _read_streams(argv: Sequence[str], count: int) -> tuple[float, int]:
    children: list[Any] = []
    total_bytes = 0

    async def start() -> None:
        children.append(await trio.lowlevel.open_process(argv, stdout=PIPE))

    async def read_to_end(child: Any) -> None:
        nonlocal total_bytes
        async with child.stdout:
            async for data in child.stdout:
                total_bytes += len(data)
        await child.wait()

    begun_s = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(start)
    async with trio.open_nursery() as nursery:
        for child in children:
            nursery.start_soon(read_to_end, child)
    for child in children:
        check_exit(argv, child.returncode)
    return time.perf_counter() - begun_s, total_bytes


async def _read_lines(argv: Sequence[str]) -> tuple[float, int]:
    begun_s = time.perf_counter()
    child = await trio.lowlevel.open_process(argv, stdout=PIPE)
    lines = 0
    tail = b""
    async with child.stdout:
        async for data in child.stdout:
            *complete, tail = (tail + data).split(b"\n")
            for _ in complete:
                lines += 1
    check_exit(argv, await child.wait())
    return time.perf_counter() - begun_s, lines + bool(tail)


async def _write_all(argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
    begun_s = time.perf_counter()
    child = await trio.lowlevel.open_process(argv, stdin=PIPE)
    async with child.stdin:
        for piece in pieces_of(total_bytes, chunk_bytes):
            await child.stdin.send_all(piece)
    check_exit(argv, await child.wait())
    return time.perf_counter() - begun_s


async def _ping_pong(argv: Sequence[str], rounds: int) -> float:
    child = await trio.lowlevel.open_process(argv, stdin=PIPE, stdout=PIPE)
    begun_s = 0.0
    async with child.stdin, child.stdout:
        for number in range(rounds + 1):
            if number == 1:
                begun_s = time.perf_counter()
            await child.stdin.send_all(b"x")
            came = await child.stdout.receive_some()
            if came != b"x":
                raise wrong_echo(b"x", came)
        seconds = time.perf_counter() - begun_s
    check_exit(argv, await child.wait())
    return seconds
