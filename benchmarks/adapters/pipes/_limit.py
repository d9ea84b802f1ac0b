"""Runs benchmarks/limit/pipe.c, which does the same work with bare system calls."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from benchmarks import build
from benchmarks.adapters.pipes import WrongResult


def run_limit(
    mode: str, pipe_bytes: int, buffer_bytes: int, number: int, argv: Sequence[str]
) -> tuple[float, int]:
    """Return the seconds and the count that the program prints; `WrongResult` when it fails.

    Its clock is its own: neither its start nor this process is in the seconds.
    """
    program = build.limit("pipe")
    numbers = map(str, (pipe_bytes, buffer_bytes, number))
    ended = subprocess.run([program, mode, *numbers, *argv], capture_output=True, text=True)
    if ended.returncode != 0:
        raise WrongResult(f"pipe {mode}, status {ended.returncode}: {ended.stderr.strip()}")
    # The child inherits standard output where it has no pipe; what it prints comes before.
    seconds, count = ended.stdout.split()[-2:]
    return float(seconds), int(count)
