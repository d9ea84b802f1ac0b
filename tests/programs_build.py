"""Builds the small C programs of tests/programs, each once per run."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

from support import PROC

__all__ = ["build_program"]

SOURCES = Path(__file__).resolve().parent / "programs"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="programs-")
    Path(folder.name).chmod(0o755)  # some tests run them as another user
    return folder


@functools.cache
def build_program(name: str) -> str:
    """Return the path of the program made of programs/*name*.c, which any user may run.

    Static, so that it starts fast and opens nothing. It is deleted when this process ends.
    """
    program = Path(_folder().name) / name
    source = str(SOURCES / f"{name}.c")
    command = ["cc", "-O1", "-Wall", "-Werror", "-static", f'-DPROC="{PROC}"', source, "-o"]
    subprocess.run([*command, str(program)], check=True)
    return str(program)
