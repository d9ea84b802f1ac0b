"""Memory of the parent per live child with three pipes.

What the parent's heap and stacks take (Anonymous in /proc/self/smaps_rollup, Linux 4.14), after a
collection, with all children less with the first quarter of them: those fill the holes that imports
left in the heap, and so seem to weigh nothing. Rss and Pss would also move with the pages of files
that are looked at meanwhile, and Pss with the other processes that look at them. What the kernel
takes for pipes, fds and the child is the same for all.
"""

from __future__ import annotations

import gc
from pathlib import Path

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import target
from benchmarks.model import NotPossible, Point
from benchmarks.workloads._pace import require_open_files

KIND = "spawn"
NEEDS = "hold"
UNITS = {"bytes_per_child": "bytes"}
SHOWN = ("bytes_per_child",)
PARAMS = tuple(
    Point("memory", f"{count:,} children", {"count": count}, quick=quick, repeats=3)
    for count, quick in ((1000, None), (4000, {}))
)


def run(adapter: Adapter, count: int) -> dict[str, float]:
    """Return the bytes per child."""
    require_open_files(4 * count)
    argv = [target("hold")]
    first = adapter.hold(argv, count // 4)
    before_bytes = _own_bytes()
    rest = adapter.hold(argv, count - count // 4)
    after_bytes = _own_bytes()
    first.end_all()
    rest.end_all()
    return {"bytes_per_child": (after_bytes - before_bytes) / (count - count // 4)}


def _own_bytes() -> int:
    gc.collect()
    try:
        text = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotPossible("this kernel has no /proc/self/smaps_rollup") from error
    for line in text.splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise NotPossible("/proc/self/smaps_rollup has no Anonymous")
