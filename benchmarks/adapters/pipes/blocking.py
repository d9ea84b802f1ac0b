"""Blocking os.read and os.write on the pipes of a subprocess.Popen: no library between.

The plainest program that Python can be, and so the measure of what a loop adds. Many streams are
read one after the other: those whose turn has not come wait with a full pipe.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from subprocess import PIPE, Popen

from benchmarks.adapters.pipes import READ_BYTES, check_exit, pieces_of, wrong_echo


def read_all(argv: Sequence[str]) -> tuple[float, int]:
    """os.read."""
    return read_streams(argv, 1)


def read_streams(argv: Sequence[str], count: int) -> tuple[float, int]:
    """os.read, child after child."""
    begun_s = time.perf_counter()
    children = [Popen(argv, stdout=PIPE, bufsize=0) for _ in range(count)]
    total_bytes = sum(map(_read_to_end, children))
    for status in [child.wait() for child in children]:
        check_exit(argv, status)
    return time.perf_counter() - begun_s, total_bytes


def _read_to_end(child: Popen[bytes]) -> int:
    assert child.stdout is not None
    total_bytes = 0
    with child.stdout as stdout:
        fd = stdout.fileno()
        while data := os.read(fd, READ_BYTES):
            total_bytes += len(data)
    return total_bytes


def read_lines(argv: Sequence[str]) -> tuple[float, int]:
    """Split every chunk, and keep what is behind the last newline for the next."""
    begun_s = time.perf_counter()
    lines = 0
    tail = b""
    with Popen(argv, stdout=PIPE, bufsize=0) as child:
        assert child.stdout is not None
        fd = child.stdout.fileno()
        while data := os.read(fd, READ_BYTES):
            *complete, tail = (tail + data).split(b"\n")
            for _ in complete:
                lines += 1
    check_exit(argv, child.returncode)
    return time.perf_counter() - begun_s, lines + bool(tail)


def write_all(argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
    """os.write, again for what a write has left over."""
    begun_s = time.perf_counter()
    with Popen(argv, stdin=PIPE, bufsize=0) as child:
        assert child.stdin is not None
        fd = child.stdin.fileno()
        for piece in pieces_of(total_bytes, chunk_bytes):
            written = os.write(fd, piece)
            while written < len(piece):
                written += os.write(fd, memoryview(piece)[written:])
    check_exit(argv, child.returncode)
    return time.perf_counter() - begun_s


def ping_pong(argv: Sequence[str], rounds: int) -> float:
    """os.write and os.read."""
    begun_s = 0.0
    with Popen(argv, stdin=PIPE, stdout=PIPE, bufsize=0) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        to_child, from_child = child.stdin.fileno(), child.stdout.fileno()
        for number in range(rounds + 1):
            if number == 1:
                begun_s = time.perf_counter()
            os.write(to_child, b"x")
            came = os.read(from_child, READ_BYTES)
            if came != b"x":
                raise wrong_echo(b"x", came)
        seconds = time.perf_counter() - begun_s
    check_exit(argv, child.returncode)
    return seconds
