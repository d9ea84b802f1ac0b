"""Compiles the small C programs: the children (``targets/``) and the limits (``limit/``).

Each is made when it is first asked for, and again when its source is newer, in csrc/build/bench.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import tempfile
from pathlib import Path

__all__ = ["ROOT", "build_all", "limit", "limit_library", "target"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDER = ROOT / "csrc" / "build" / "bench"

_COMPILE = [os.environ.get("CC", "gcc"), "-O2", "-Wall", "-Wextra"]
_STATIC = ["-static", "-fno-stack-protector"]
_NO_LIBC = [*_STATIC, "-nostdlib", "-nostartfiles", "-fno-builtin"]


def target(name: str) -> str:
    """Return the path of the child made of targets/*name*.c: static, so that it starts fast.

    A source that defines ``_start`` itself is linked without libc.
    """
    source = HERE / "targets" / f"{name}.c"
    no_libc = "void _start(" in source.read_text(encoding="utf-8")
    return _built(source, name, _NO_LIBC if no_libc else _STATIC)


def limit(name: str) -> str:
    """Return the path of the program made of limit/*name*.c."""
    return _built(HERE / "limit" / f"{name}.c", f"limit-{name}", ["-pthread"])


def limit_library(name: str) -> str:
    """Return the path of limit/*name*.c as a shared library.

    For limits that are to be measured in a parent that has grown: this process is the parent.
    """
    flags = ["-shared", "-fPIC", "-pthread"]
    return _built(HERE / "limit" / f"{name}.c", f"limit-{name}.so", flags)


def build_all() -> None:
    """All programs are up to date; before the clock runs, though nothing depends on it.

    So is the byte code of the package, which an environment may keep Python from writing
    (PYTHONDONTWRITEBYTECODE): the peers' was written when they were installed.
    """
    compileall.compile_dir(ROOT / "procreactor", quiet=1)
    for source in sorted((HERE / "targets").glob("*.c")):
        target(source.stem)
    for source in sorted((HERE / "limit").glob("*.c")):
        limit(source.stem)


def _built(source: Path, name: str, flags: list[str]) -> str:
    program = FOLDER / name
    if program.exists() and program.stat().st_mtime_ns > source.stat().st_mtime_ns:
        return str(program)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        # Complete before it gets its name: another process may be asking for it right now.
        fresh = Path(folder) / name
        subprocess.run([*_COMPILE, *flags, "-o", str(fresh), str(source)], check=True)
        fresh.replace(program)
    return str(program)
