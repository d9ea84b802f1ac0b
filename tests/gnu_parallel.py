"""The real GNU parallel, for tests of what is compatible with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import environment
from support import LACKS

__all__ = ["needs_parallel", "parallel"]


def _is_there() -> bool:
    if "/proc" in LACKS or shutil.which("parallel") is None:
        return False  # it asks /proc for processors, and stops there without them
    said = subprocess.run(["parallel", "--version"], capture_output=True, check=False).stdout
    return said.startswith(b"GNU parallel")  # moreutils has another program of this name


needs_parallel = pytest.mark.skipif(not _is_there(), reason="no GNU parallel to compare with")


def parallel(where: Path, *args: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Return how a run of GNU parallel in *where*, which is its home too, ended."""
    return subprocess.run(
        ["parallel", "--will-cite", *args],
        cwd=where,
        env=environment(where),
        input=given,
        capture_output=True,
        check=False,
        timeout=60,
    )
