"""One measurement in a process of its own; one JSON object on standard output.

``python -m benchmarks.worker KIND LIBRARY WORKLOAD PARAMS`` runs a workload by a library, PARAMS
being JSON:

    {"figures": {name: number}}    measured
    {"skipped": reason}            this library or this machine can not do it

``python -m benchmarks.worker KIND LIBRARY`` tells what the adapter offers, without a measurement:

    {"capabilities": [name], "ways": [name]}
    {"missing": reason}            the library is not installed

Nothing else of the suite is imported, so that the process is the library's own.
"""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType
from typing import Any

from benchmarks.adapters import module_of
from benchmarks.model import NotPossible

__all__ = ["describe", "main", "measure"]


def _adapter(kind: str, library: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.adapters.{kind}.{module_of(library)}")


def describe(kind: str, library: str) -> dict[str, Any]:
    """Return what the adapter offers."""
    try:
        adapter = _adapter(kind, library)
    except ImportError as error:
        return {"missing": str(error)}
    names = [name for name in vars(adapter) if not name.startswith("_")]
    return {"capabilities": sorted(names), "ways": sorted(getattr(adapter, "WAYS", ()))}


def measure(kind: str, library: str, workload: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the figures, or why there are none."""
    module = importlib.import_module(f"benchmarks.workloads.{workload}")
    try:
        return {"figures": module.run(_adapter(kind, library), **params)}
    except NotPossible as reason:
        return {"skipped": str(reason)}


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    if len(arguments) == 2:
        answer = describe(*arguments)
    elif len(arguments) == 4:
        answer = measure(arguments[0], arguments[1], arguments[2], json.loads(arguments[3]))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
