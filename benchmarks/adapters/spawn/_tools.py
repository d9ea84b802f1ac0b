"""Programs that run other programs, one per line of their input; the children have no pipes."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence

__all__ = ["find_tool", "run_lines"]


def find_tool(name: str) -> str:
    """Return the path of *name*; ImportError without it, as for a library."""
    path = shutil.which(name)
    if path is None:
        raise ImportError(f"{name} is not installed")
    return path


def run_lines(command: Sequence[str], count: int, env: Mapping[str, str] | None) -> float:
    """Return the seconds that *command* takes for *count* lines, its own start included."""
    lines = b"1\n" * count
    begun_s = time.perf_counter()
    subprocess.run(command, input=lines, stdout=subprocess.DEVNULL, check=True, env=env)
    return time.perf_counter() - begun_s
