"""What a process holds: the fds and children that a test must leave as it found them."""

from __future__ import annotations

import os
from pathlib import Path

from support import PROC, let_waiting_threads_end

__all__ = ["child_pids", "open_fds"]


def open_fds() -> dict[int, str]:
    """Every open fd with what it refers to."""
    let_waiting_threads_end()
    found = {}
    for name in os.listdir(f"{PROC}/self/fd"):
        try:
            found[int(name)] = os.readlink(f"{PROC}/self/fd/{name}")
        except FileNotFoundError:
            pass  # the directory itself, or closed by a thread that is just ending
    return found


def child_pids() -> set[int]:
    """Every child of this process, zombies included."""
    pids: set[int] = set()
    for task in Path(PROC, "self/task").iterdir():
        try:
            pids.update(int(pid) for pid in (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            pass  # a thread that is just ending
    return pids
