"""The child (actor.c): how it is built, and what it says."""

from __future__ import annotations

import functools
import platform
import subprocess
import tempfile
from pathlib import Path

__all__ = ["MOST_BYTES", "SEEDS", "build_actor", "said"]

SOURCE = Path(__file__).with_name("actor.c")
SEEDS = 89
MOST_BYTES = 1 << 18
"""More than any pipe holds unasked, and more than the batch engine's threads read of one stream."""

_COMPILE = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
_NO_LIBC = ["-ffreestanding", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns"]
_NO_LIBC += ["-nostdlib", "-fno-pie", "-no-pie"]

_PATTERN = bytes(33 + 7 * i % SEEDS for i in range(SEEDS)) * (MOST_BYTES // SEEDS + 3)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="actor-")
    Path(folder.name).chmod(0o755)  # some children run as another user
    return folder


@functools.cache
def build_actor() -> str:
    """Return the path of the program, which any user may run; deleted when this process ends."""
    program = Path(_folder().name) / "actor"
    bare = platform.machine() in ("x86_64", "aarch64")
    subprocess.run([*_COMPILE, *(_NO_LIBC if bare else []), SOURCE, "-o", program], check=True)
    return str(program)


def said(size: int, seed: int) -> bytes:
    """Return the *size* (up to `MOST_BYTES`) bytes that a child with *seed* (< `SEEDS`) says."""
    return _PATTERN[seed : seed + size]
