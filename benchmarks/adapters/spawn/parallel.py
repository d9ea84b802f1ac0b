"""GNU parallel, ``-j AT_ONCE``: a line of input is one child; it collects the outputs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from benchmarks.adapters.spawn._tools import find_tool, read_lines, run_lines

__all__ = ["STARTS_ANEW", "WAYS", "command_line", "run_ordered", "spawn_many"]

WAYS = frozenset({"plain"})
STARTS_ANEW = True

_PARALLEL = find_tool("parallel")
if (
    b"GNU parallel"
    not in subprocess.run(
        [_PARALLEL, "--version"], capture_output=True, stdin=subprocess.DEVNULL, check=False
    ).stdout
):
    raise ImportError("GNU parallel is not installed")  # moreutils has another one of that name


def command_line(at_once: int, *options: str) -> list[str]:
    """See `benchmarks.adapters.spawn`."""
    # --will-cite: it would else print its notice.
    return [_PARALLEL, "--will-cite", *options, "-j", str(at_once)]


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`; the child's last argument is the line."""
    # It needs PATH and HOME, hence our environment.
    return run_lines([*command_line(at_once), *argv], count, None)


def run_ordered(argv: Sequence[str], lines: bytes, at_once: int) -> tuple[float, int]:
    """See `benchmarks.adapters.spawn`."""
    return read_lines([*command_line(at_once, "-k"), *argv], lines, None)
