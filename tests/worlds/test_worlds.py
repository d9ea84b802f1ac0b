"""Each world is what it says, and a child starts, speaks and ends in it (look.py).

What else holds there, ``make faults`` plays: the suite itself, in each of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from seccomp import needs_seccomp
from worlds.catalogue import World, lacking_for, worlds

ROOT = Path(__file__).resolve().parents[2]

in_no_world = pytest.mark.skipif(
    "PROCREACTOR_TESTS_LACK" in os.environ, reason="in a world already"
)


@in_no_world
@needs_seccomp
@pytest.mark.parametrize("world", list(worlds()), ids=lambda world: world.name)
def test_a_child_starts_and_ends_in_every_world(world: World) -> None:
    if lacking := lacking_for(world):
        pytest.skip(lacking)
    command = [sys.executable, "-m", "tests.worlds.enter", world.name, sys.executable]
    done = subprocess.run(
        [*command, "-m", "tests.worlds.look"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
