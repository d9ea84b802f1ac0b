"""A small disk that is full when a test wants it to be, for functions run by `alone`."""

from __future__ import annotations

import os
from pathlib import Path

from mounts import mount, private_mounts

__all__ = ["fill", "small_disk"]


def small_disk(where: str, size: str = "64k") -> Path:
    """Return *where*, which is a file system of *size* from now on, for this process alone."""
    private_mounts()
    mount("tmpfs", where, f"size={size}")
    return Path(where)


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """Return a file that takes all the room of *disk* but *leave_bytes*; remove it to make room."""
    path = disk / "filler"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            os.write(fd, bytes(4096))
    except OSError:
        os.ftruncate(fd, os.fstat(fd).st_size - leave_bytes)
    finally:
        os.close(fd)
    return path
