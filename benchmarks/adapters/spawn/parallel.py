"""GNU parallel, ``-j AT_ONCE``: a line of input is one child; it collects the outputs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from benchmarks.adapters.spawn._tools import find_tool, run_lines

__all__ = ["WAYS", "spawn_many"]

WAYS = frozenset({"plain"})

_PARALLEL = find_tool("parallel")
if (
    b"GNU parallel"
    not in subprocess.run(
        [_PARALLEL, "--version"], capture_output=True, stdin=subprocess.DEVNULL, check=False
    ).stdout
):
    raise ImportError("GNU parallel is not installed")  # moreutils has another one of that name


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`; the child's last argument is the line."""
    # --will-cite: it would else print its notice; it needs PATH and HOME, hence our environment.
    return run_lines([_PARALLEL, "--will-cite", "-j", str(at_once), *argv], count, None)
