"""Programs that run other programs, one per line of their input; the children have no pipes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence

__all__ = ["find_tool", "read_lines", "run_lines"]

_READ_BYTES = 1 << 20


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


def read_lines(
    command: Sequence[str], lines: bytes, env: Mapping[str, str] | None
) -> tuple[float, int]:
    """Return the seconds that *command* takes for *lines*, and how many bytes it wrote.

    *lines* fit into a pipe. What it writes goes through a pipe, as into another program.
    """
    begun_s = time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, env=env) as tool:
        assert tool.stdin is not None
        assert tool.stdout is not None
        tool.stdin.write(lines)
        tool.stdin.close()
        came_bytes = 0
        while data := os.read(tool.stdout.fileno(), _READ_BYTES):
            came_bytes += len(data)
    if tool.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {tool.returncode}")
    return time.perf_counter() - begun_s, came_bytes
