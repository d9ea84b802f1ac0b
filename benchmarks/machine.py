"""On what it was measured: without that an absolute figure says nothing."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["stamp"]

_PACKAGES = ("procreactor", "cffi", "twisted", "trio", "uvloop", "rloop", "matplotlib")
_TOOLS = ("xargs", "parallel", "gcc")


def stamp() -> dict[str, Any]:
    """Return what is known of this machine, as JSON. Versions are None for what is not there."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "optimised": sys.flags.optimize,
        "packages": {name: _package_version(name) for name in _PACKAGES},
        "tools": {name: _tool_version(name) for name in _TOOLS},
        "rlimit_nofile": list(resource.getrlimit(resource.RLIMIT_NOFILE)),
        "uid": os.geteuid(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("model name", "CPU part")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _tool_version(name: str) -> str | None:
    path = shutil.which(name)
    return None if path is None else _first_line([path, "--version"])


def _first_line(command: Sequence[str]) -> str | None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return next(iter(done.stdout.splitlines()), None)
