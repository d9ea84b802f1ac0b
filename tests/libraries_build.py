"""Builds shared libraries of tests/programs, each once per run: what only C can do to a host."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest
from programs_build import SOURCES

__all__ = ["build_library"]


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="libraries-")


@functools.cache
def build_library(name: str) -> str:
    """Return the path of the library made of programs/*name*.c, deleted when this process ends."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    made = Path(_folder().name) / f"{name}.so"
    command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
    command += ["-I", sysconfig.get_paths()["include"], str(SOURCES / f"{name}.c")]
    subprocess.run([*command, "-o", str(made), "-ldl"], check=True)
    return str(made)
