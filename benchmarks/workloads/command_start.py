"""Start-up of a command: from its start to its end, with one item, and a child that only exits.

The byte code is cached, as it is for a user from the second start on.
"""

from __future__ import annotations

import os
import statistics
import time

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import target
from benchmarks.model import Point

KIND = "spawn"
NEEDS = "command_line"
UNITS = {"ms": "ms"}
SHOWN = ("ms",)
ABOUT = "One child that only exits; the interpreter alone, with nothing to do, is part of ours."
PARAMS = (Point("start-up", "one item", {"runs": 15}, quick={"runs": 6}, repeats=3),)


def run(adapter: Adapter, runs: int) -> dict[str, float]:
    """Return the median of the milliseconds."""
    argv = [*adapter.command_line(1), target("tiny")]
    _run_s(argv)
    return {"ms": statistics.median(_run_s(argv) for _ in range(runs)) * 1000}


def _run_s(argv: list[str]) -> float:
    """Return the seconds of *argv* with one line of input, its child's argument."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"1\n")
    os.close(write_fd)
    begun_s = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, read_fd, 0)]
    pid = os.posix_spawn(argv[0], argv, dict(os.environ), file_actions=actions)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - begun_s
    os.close(read_fd)
    if status != 0:
        raise RuntimeError(f"{argv[0]} ended with {status}")
    return seconds
