"""The C core's own tests (tests/c), run as one: gcc and make are what the package is built with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import LACKS

HERE = Path(__file__).resolve().parent / "c"
MAKE = ["make", "--no-print-directory", "check"]


def steps_of_make() -> list[str]:
    """Return what does as make says: where clone3 is forbidden a shell can, and make cannot."""
    machine = output_of(["cc", "-dumpmachine"]).strip()
    return ["sh", "-ec", output_of([*MAKE, "-n", f"MACHINE={machine}"])]


def output_of(command: list[str]) -> str:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.timeout(600)
def test_the_c_cores_own_tests_pass() -> None:
    done = subprocess.run(
        steps_of_make() if "threads" in LACKS else [*MAKE, "-s"],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert ", 0 failed" in done.stdout.splitlines()[-1], done.stdout
