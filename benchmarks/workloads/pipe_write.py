"""One child that reads as fast as it can, written to by the library's own flow control."""

from __future__ import annotations

from benchmarks.adapters.pipes import WritesAll
from benchmarks.model import Point

KIND = "pipes"
NEEDS = "write_all"
UNITS = {"gigabytes_per_s": "GB/s"}
SHOWN = ("gigabytes_per_s",)
ABOUT = "Standard input of `cat >/dev/null`, in chunks of 64 KiB under the library's flow control."
PARAMS = (
    Point(
        "write to one child",
        "512 MiB",
        {"total_bytes": 1 << 29, "chunk_bytes": 1 << 16},
        quick={"total_bytes": 1 << 27},
    ),
)

_WARM_UP_BYTES = 1 << 22
_ARGV = ["sh", "-c", "exec cat >/dev/null"]


def run(adapter: WritesAll, total_bytes: int, chunk_bytes: int) -> dict[str, float]:
    """Return the rate, to the end of the child, which comes after its last read."""
    adapter.write_all(_ARGV, min(_WARM_UP_BYTES, total_bytes), chunk_bytes)
    seconds = adapter.write_all(_ARGV, total_bytes, chunk_bytes)
    return {"gigabytes_per_s": total_bytes / seconds / 1e9}
