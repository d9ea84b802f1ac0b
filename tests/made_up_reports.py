"""Reports that nobody measured, for what is computed of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.model import Case, Report, Result, Summary

__all__ = ["MACHINE", "rate", "report", "result"]

MACHINE: Mapping[str, Any] = {
    "cpu": "a CPU",
    "cpus": 2,
    "kernel": "6.1",
    "python": "CPython 3.11.0",
    "packages": {"twisted": None, "trio": "0.30"},
    "tools": {"xargs": None},
    "load_before": [0.1, 0.2, 0.3],
    "date": "2026-01-02T03:04:05+00:00",
}


def result(
    workload: str,
    point: str,
    library: str,
    samples: Mapping[str, Sequence[float]],
    unit: str = "us",
) -> Result:
    units = dict.fromkeys(samples, unit)
    case = Case(workload, "spawn", library, point, {}, units)
    return Result(case, {name: Summary(tuple(values)) for name, values in samples.items()})


def report(*results: Result, **details: Any) -> Report:
    return Report(**{"machine": MACHINE, "quick": False, "results": list(results), **details})


def rate(library: str, *samples: float, program: str = "tiny") -> Result:
    """What spawn_rate measured of one library."""
    point = f"{program}, 16 at once"
    return result("spawn_rate", point, library, {"us_per_child": samples})
