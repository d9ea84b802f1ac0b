"""Each world is what it says, and a child starts, speaks and ends in it (look.py).

What else holds there, ``make faults`` plays: the suite itself, in each of them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from alone import alone
from faults.supervision import Listen, begin_act, end_act, play
from load.room import raise_open_files
from seccomp import needs_seccomp
from support import Recorder, make_reactor, run_until
from worlds.catalogue import MOST_FILES, World, lacking_for, worlds

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


@in_no_world
@needs_seccomp
def test_commands_run_where_all_is_forbidden_and_threads_with_it() -> None:
    """Who forbids clone3 as well takes libc's threads away, and with them much that tests need."""
    into = [sys.executable, "-m", "tests.worlds.enter"]
    command = [*into, "all of these: EPERM", *into, "clone3: EPERM", sys.executable]
    done = subprocess.run(
        [*command, "-m", "procreactor", "run", "-k", "echo", ":::", "1", "2", "3"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n2\n3\n", "")


FEW_FILES = 128


def calls_of_a_spawn(files: int) -> int:
    """How many system calls it takes, of ours and of the child's before its exec."""
    raise_open_files(MOST_FILES)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files or hard, hard))

    def spawn(listen: Listen) -> None:
        with make_reactor() as reactor:
            child = Recorder()
            listen()
            begin_act()
            reactor.spawnProcess(child, "/bin/true")
            end_act()
            run_until(reactor, lambda: child.ended)

    spawn(lambda: None)  # what only the first one asks
    return sum(play(spawn, None).calls.values())


@in_no_world
@needs_seccomp
@pytest.mark.parametrize("disable", ["", "close_range", "vfork,close_range"])
def test_a_spawn_makes_no_call_more_because_more_files_may_be_open(disable: str) -> None:
    few = alone(calls_of_a_spawn, FEW_FILES, disable=disable)
    assert 10 < few < 200
    assert abs(alone(calls_of_a_spawn, 0, disable=disable) - few) < 4
