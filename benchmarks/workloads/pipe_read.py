"""One child that writes as fast as it can, read to the end.

Two children, because one says little: `head` writes 8 KiB at a time and is itself most of the work,
so that beyond some rate all readers look alike; the other, without libc, writes 64 KiB at a time
and leaves the pipe as the limit.
"""

from __future__ import annotations

from benchmarks import build
from benchmarks.adapters.pipes import ReadsAll, check_count
from benchmarks.model import Point

KIND = "pipes"
NEEDS = "read_all"
UNITS = {"gigabytes_per_s": "GB/s"}
SHOWN = ("gigabytes_per_s",)
ABOUT = (
    "Standard output of one child, read to the end and counted: of `head -c SIZE /dev/zero`, which "
    "writes 8 KiB at a time, and of a program without libc that writes 64 KiB at a time."
)
_QUICK = {"total_bytes": 1 << 28}
PARAMS = (
    Point(
        "read from one child",
        "1 GiB",
        {"total_bytes": 1 << 30, "writer": "head"},
        quick=_QUICK,
    ),
    Point(
        "read from one child",
        "1 GiB, 64 KiB writes",
        {"total_bytes": 1 << 30, "writer": "flood"},
        quick=_QUICK,
    ),
)

_WARM_UP_BYTES = 1 << 22


def run(adapter: ReadsAll, total_bytes: int, writer: str = "head") -> dict[str, float]:
    """Return the rate; `WrongResult` unless every byte came. *writer* is "head" or "flood"."""
    _read(adapter, min(_WARM_UP_BYTES, total_bytes), writer)
    seconds = _read(adapter, total_bytes, writer)
    return {"gigabytes_per_s": total_bytes / seconds / 1e9}


def _read(adapter: ReadsAll, total_bytes: int, writer: str) -> float:
    size = str(total_bytes)
    argv = [build.target("flood"), size] if writer == "flood" else ["head", "-c", size, "/dev/zero"]
    seconds, came_bytes = adapter.read_all(argv)
    check_count("bytes", total_bytes, came_bytes)
    return seconds
