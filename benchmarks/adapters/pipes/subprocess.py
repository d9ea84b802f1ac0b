"""subprocess, with the file objects of its pipes, buffered as they are by default.

Many streams are read by a thread for each, as a program without a loop does it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE, Popen

from benchmarks.adapters.pipes import READ_BYTES, check_exit, pieces_of, wrong_echo


def read_all(argv: Sequence[str]) -> tuple[float, int]:
    """stdout.read."""
    begun_s = time.perf_counter()
    child = Popen(argv, stdout=PIPE)
    total_bytes = _read_to_end(child)
    check_exit(argv, child.wait())
    return time.perf_counter() - begun_s, total_bytes


def read_streams(argv: Sequence[str], count: int) -> tuple[float, int]:
    """stdout.read, in as many threads as there are children."""
    begun_s = time.perf_counter()
    children = [Popen(argv, stdout=PIPE) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        total_bytes = sum(pool.map(_read_to_end, children))
    for status in [child.wait() for child in children]:
        check_exit(argv, status)
    return time.perf_counter() - begun_s, total_bytes


def _read_to_end(child: Popen[bytes]) -> int:
    assert child.stdout is not None
    total_bytes = 0
    with child.stdout as stdout:
        while data := stdout.read(READ_BYTES):
            total_bytes += len(data)
    return total_bytes


def read_lines(argv: Sequence[str]) -> tuple[float, int]:
    """Iterate over stdout."""
    begun_s = time.perf_counter()
    lines = 0
    with Popen(argv, stdout=PIPE) as child:
        assert child.stdout is not None
        for _ in child.stdout:
            lines += 1
    check_exit(argv, child.returncode)
    return time.perf_counter() - begun_s, lines


def write_all(argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
    """stdin.write, which blocks."""
    begun_s = time.perf_counter()
    with Popen(argv, stdin=PIPE) as child:
        assert child.stdin is not None
        for piece in pieces_of(total_bytes, chunk_bytes):
            child.stdin.write(piece)
    check_exit(argv, child.returncode)
    return time.perf_counter() - begun_s


def ping_pong(argv: Sequence[str], rounds: int) -> float:
    """stdin.write and flush, stdout.read(1)."""
    begun_s = 0.0
    with Popen(argv, stdin=PIPE, stdout=PIPE) as child:
        stdin, stdout = child.stdin, child.stdout
        assert stdin is not None
        assert stdout is not None
        for number in range(rounds + 1):
            if number == 1:
                begun_s = time.perf_counter()
            stdin.write(b"x")
            stdin.flush()
            came = stdout.read(1)
            if came != b"x":
                raise wrong_echo(b"x", came)
        seconds = time.perf_counter() - begun_s
    check_exit(argv, child.returncode)
    return seconds
