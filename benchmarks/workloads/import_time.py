"""Imports: how much longer an interpreter takes from start to end with the import than without.

The two take turns, so that a slow moment hits both; the difference of their medians counts. The
byte code is cached, as it is for a user from the second start on.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

from benchmarks.adapters.spawn import Adapter
from benchmarks.build import ROOT
from benchmarks.model import NotPossible, Point

KIND = "spawn"
NEEDS = "IMPORTS"
UNITS = {"ms": "ms"}
SHOWN = ("ms",)
ABOUT = "A bare interpreter's start and end are subtracted."
PARAMS = tuple(
    Point("import", what, {"what": what, "runs": 15}, quick=quick, repeats=3)
    for what, quick in (("package", {"runs": 6}), ("reactor", None))
)

# The tree stands last in the path: who is found there gains nothing over who is installed.
_BARE = f"import sys; sys.path.append({str(ROOT)!r})"


def run(adapter: Adapter, what: str, runs: int) -> dict[str, float]:
    """Return the milliseconds that the import adds."""
    statement = adapter.IMPORTS.get(what)
    if statement is None:
        raise NotPossible(f"it has no {what} to be imported alone")
    code = f"{_BARE}; {statement}"
    _interpreter_s(_BARE)
    _interpreter_s(code)
    pairs = [(_interpreter_s(_BARE), _interpreter_s(code)) for _ in range(runs)]
    bare_s, with_import_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"ms": (with_import_s - bare_s) * 1000}


def _interpreter_s(code: str) -> float:
    """Return the seconds of an isolated interpreter that runs *code*."""
    argv = [sys.executable, "-I", "-c", code]
    begun_s = time.perf_counter()
    pid = os.posix_spawn(sys.executable, argv, dict(os.environ))
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - begun_s
    if status != 0:
        raise RuntimeError(f"{code!r} ended with {status}")
    return seconds
