"""What is said of an exception of a callback, also where nothing can be imported any more."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, sys
from procreactor.errors import report_callback_error
assert "logging" not in sys.modules
if sys.argv[1] == "no fds":
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    raise KeyError("what went wrong")
except BaseException:
    report_callback_error("<the callback>")
print("goes on")
"""


@pytest.mark.parametrize("world", ["as it is", "no fds"])
def test_an_exception_is_told_with_the_callbacks_name(world: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, world],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert "<the callback> raised" in done.stderr
    assert "KeyError: 'what went wrong'" in done.stderr
    assert done.stdout == "goes on\n"
