"""The C core's own tests (tests/c), run as one: gcc and make are what the package is built with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent / "c"


@pytest.mark.timeout(600)
@pytest.mark.needs("/proc")  # to list fds; without it the core is tried there by strikes
@pytest.mark.needs("threads")
def test_the_c_cores_own_tests_pass() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-s", "-C", str(HERE), "check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert ", 0 failed" in done.stdout.splitlines()[-1], done.stdout
