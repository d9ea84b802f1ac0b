"""Output through -k: many jobs that write at once, read in the order of their lines.

Whoever keeps the order must put aside what comes too early, or have it wait. Few large jobs ask
what that costs, many small ones what a job costs besides, and jobs that compute whether they still
do so side by side.
"""

from __future__ import annotations

import shutil
import tempfile

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import target
from benchmarks.model import NotPossible, Point

KIND = "spawn"
NEEDS = "run_ordered"
UNITS = {"gigabytes_per_s": "GB/s"}
SHOWN = ("gigabytes_per_s",)
ABOUT = (
    "All bytes, of children without libc, 16 at once, through -k into a pipe that is read here; "
    "from the program's start to its end. Who computes does 500,000 multiplications for 64 KiB. "
    "xargs keeps no order: its children write into the pipe themselves, as fast as it takes it."
)

_AT_ONCE = 16
_QUICK = {"total_bytes": 1 << 28}
PARAMS = (
    Point("ordered output", "16 of 64 MiB", {"jobs": 16, "total_bytes": 1 << 30}, quick=_QUICK),
    Point("ordered output", "1,024 of 1 MiB", {"jobs": 1024, "total_bytes": 1 << 30}),
    Point(
        "ordered output",
        "16 of 16 MiB that compute",
        {"jobs": 16, "total_bytes": 1 << 28, "work": 500_000},
        quick={"total_bytes": 1 << 25},
    ),
)


def run(adapter: Adapter, jobs: int, total_bytes: int, work: int = 0) -> dict[str, float]:
    """Return the rate; RuntimeError unless every byte came."""
    if shutil.disk_usage(tempfile.gettempdir()).free < 2 * total_bytes:
        raise NotPossible(f"{tempfile.gettempdir()} has no room for {2 * total_bytes} bytes")
    command = [target("flood"), str(work)]
    _seconds(adapter, command, 2, 1 << 16)
    seconds = _seconds(adapter, command, jobs, total_bytes // jobs)
    return {"gigabytes_per_s": total_bytes / seconds / 1e9}


def _seconds(adapter: Adapter, command: list[str], jobs: int, bytes_each: int) -> float:
    lines = b"%d\n" % bytes_each * jobs
    seconds, came_bytes = adapter.run_ordered(command, lines, _AT_ONCE)
    if came_bytes != jobs * bytes_each:
        raise RuntimeError(f"{came_bytes} bytes came, not {jobs * bytes_each}")
    return seconds
