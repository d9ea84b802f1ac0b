"""Output through -k: many jobs that write at once, read in the order of their lines.

Whoever keeps the order must put aside what comes too early. Few large jobs ask what that costs,
many small ones what a job costs besides.
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
    "1 GiB in all, of children without libc, 16 at once, through -k into a pipe that is read here; "
    "from the program's start to its end."
)

_AT_ONCE = 16
_QUICK = {"total_bytes": 1 << 28}
PARAMS = (
    Point("ordered output", "16 of 64 MiB", {"jobs": 16, "total_bytes": 1 << 30}, quick=_QUICK),
    Point("ordered output", "1,024 of 1 MiB", {"jobs": 1024, "total_bytes": 1 << 30}, repeats=2),
)


def run(adapter: Adapter, jobs: int, total_bytes: int) -> dict[str, float]:
    """Return the rate; RuntimeError unless every byte came."""
    if shutil.disk_usage(tempfile.gettempdir()).free < 2 * total_bytes:
        raise NotPossible(f"{tempfile.gettempdir()} has no room for {2 * total_bytes} bytes")
    _seconds(adapter, 2, 1 << 16)
    return {"gigabytes_per_s": total_bytes / _seconds(adapter, jobs, total_bytes // jobs) / 1e9}


def _seconds(adapter: Adapter, jobs: int, bytes_each: int) -> float:
    lines = b"%d\n" % bytes_each * jobs
    seconds, came_bytes = adapter.run_ordered([target("flood")], lines, _AT_ONCE)
    if came_bytes != jobs * bytes_each:
        raise RuntimeError(f"{came_bytes} bytes came, not {jobs * bytes_each}")
    return seconds
