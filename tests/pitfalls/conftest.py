"""Programs and libraries in C, for children and parents that Python cannot play."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from programs_build import SOURCES, build_program

Build = Callable[[str], str]


@pytest.fixture(scope="session")
def program() -> Build:
    """Return a function that gives the path of a program of tests/programs by its name."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    return build_program


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function that gives the path of a shared library made of tests/programs/<name>.c."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("libraries")

    def build(name: str) -> str:
        made = folder / f"{name}.so"
        if not made.exists():
            command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
            subprocess.run([*command, SOURCES / f"{name}.c", "-o", made], check=True)
        return str(made)

    return build


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A new directory that any user may enter, which those of tmp_path are not."""
    with tempfile.TemporaryDirectory(prefix="public-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
