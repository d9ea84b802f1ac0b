"""Many children that all write at once, all read to the end."""

from __future__ import annotations

import resource

from benchmarks import build
from benchmarks.adapters.pipes import ReadsStreams, check_count
from benchmarks.model import NotPossible, Point

KIND = "pipes"
NEEDS = "read_streams"
UNITS = {"gigabytes_per_s": "GB/s"}
SHOWN = ("gigabytes_per_s",)
ABOUT = "Children without libc that write 1 MiB each, all started before the first is read."
PARAMS = (
    Point(
        "streams at once",
        "1,000 of 1 MiB",
        {"children": 1000, "bytes_each": 1 << 20},
        quick={"children": 200},
    ),
)

_WARM_UP_CHILDREN = 10
_FDS_EACH = 4
"""At most while a child is started; at rest a pipe, and a pidfd or what a library has for it."""

_OTHER_FDS = 64


def run(adapter: ReadsStreams, children: int, bytes_each: int) -> dict[str, float]:
    """Return the rate of all together; `WrongResult` unless every byte came."""
    _allow_fds(children * _FDS_EACH + _OTHER_FDS)
    _read(adapter, min(_WARM_UP_CHILDREN, children), bytes_each)
    seconds = _read(adapter, children, bytes_each)
    return {"gigabytes_per_s": children * bytes_each / seconds / 1e9}


def _read(adapter: ReadsStreams, children: int, bytes_each: int) -> float:
    argv = [build.target("flood"), str(bytes_each)]
    seconds, came_bytes = adapter.read_streams(argv, children)
    check_count("bytes", children * bytes_each, came_bytes)
    return seconds


def _allow_fds(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise NotPossible(f"RLIMIT_NOFILE is {hard}, and {wanted} fds are needed")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
