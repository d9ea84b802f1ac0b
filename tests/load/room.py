"""How many children there may be: what this machine and its limits leave room for."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from support import LACKS, PROC

from procreactor.kernel import children

__all__ = ["WATCHES_BY_THREAD", "find_room", "groups", "raise_open_files"]

WATCHES_BY_THREAD = "pidfd" not in children.in_use()
"""Then a child costs an fd more, as the thread has one too, and a task more."""

SPARE_FDS = 400
SPARE_PIDS = 100
SWEPT = 1000
"""So many children that are started without close_range, while all before them live."""

BYTES_EACH = 200 << 10
"""Of one child and its pipes, most of it the kernel's: more than it takes."""


def raise_open_files(wanted: int) -> int:
    """Allow this process *wanted* fds, or as many as it may; return how many. Root may more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        hard = _raise_hard(hard, min(wanted, _number(f"{PROC}/sys/fs/nr_open") or hard))
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _raise_hard(hard: int, wanted: int) -> int:
    """Return what is the hard limit then."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, wanted))
    except (ValueError, PermissionError):
        return hard
    return wanted


def find_room(wanted: int, fds_each: int) -> tuple[int, str]:
    """Return how many children there may be, at most *wanted*, and what is the reason.

    The limit on open files is raised for that. *fds_each* is what a child costs with a pidfd.
    """
    fds_each += WATCHES_BY_THREAD
    fds = raise_open_files(wanted * fds_each + SPARE_FDS)
    rooms = [(wanted, "as many as are wanted")]
    rooms.append(((fds - SPARE_FDS) // fds_each, f"{fds:,} open files (ulimit -n)"))
    rooms += (((most - SPARE_PIDS) // (1 + WATCHES_BY_THREAD), why) for most, why in _pids())
    if "close_range" in LACKS:
        rooms.append((SWEPT, "each closes the fds of all before it one by one"))
    rooms += ((free // BYTES_EACH, why) for free, why in _memory())
    return min(rooms, key=lambda room: room[0])


def _number(path: str | Path) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def groups(controller: str) -> Iterator[Path]:
    """The directories of the cgroups that this process is in and *controller* may bound it by."""
    lines = Path(PROC, "self/cgroup").read_text().splitlines()
    mounts = Path("/sys/fs/cgroup")
    for _, names, group in (line.split(":", 2) for line in lines):
        if not names:  # cgroup v2
            mount = mounts / "unified" if (mounts / "unified").is_dir() else mounts
        elif controller in names.split(","):
            mount = mounts / controller
        else:
            continue
        path = mount / group.lstrip("/")
        yield from (one for one in (path, *path.parents) if one.is_relative_to(mount))


def _pids() -> Iterator[tuple[int, str]]:
    if os.geteuid() != 0:
        soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft - SPARE_PIDS, "processes of this user (ulimit -u)"
    for name in ("kernel/pid_max", "kernel/threads-max"):
        most = _number(f"{PROC}/sys/{name}")
        if most is not None:
            yield most - len(list(Path(PROC).glob("[0-9]*"))), name
    for group in groups("pids"):
        most, now = _number(group / "pids.max"), _number(group / "pids.current")
        if most is not None:
            yield most - (now or 0), f"{group}/pids.max"


def _memory() -> Iterator[tuple[int, str]]:
    text = Path(PROC, "meminfo").read_text()
    found = re.search(r"^MemAvailable: +(\d+) kB$", text, re.MULTILINE)
    if found:
        yield int(found[1]) * 1024, "memory available"
    for group in groups("memory"):
        for most, now in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(group / most)
            if limit is not None:
                yield limit - (_number(group / now) or 0), f"{group}/{most}"
