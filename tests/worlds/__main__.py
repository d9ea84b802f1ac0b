"""The suite in poorer worlds: ``python -m tests.worlds`` (``make faults``).

In each world of catalogue.py tests are played, as an ordinary run of pytest plays them, and must
pass; what a world has no way to show is left out, and counted, and so is a world that nobody can
enter from here. Which tests: those of ROOMS, where children are started, talked to and reaped, some
fifteen seconds of each world, all of them within the time of one CI run; with ``--whole`` the whole
suite, which takes hours. Exit status 1: something failed, or a world was not what it says, or none
was played.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .catalogue import World, lacking_for, worlds

ROOT = Path(__file__).parents[2]

ROOMS = (
    "tests/core/test_binding.py",
    "tests/kernel/test_children.py",
    "tests/kernel/test_pipes.py",
    "tests/kernel/test_ptys.py",
    "tests/transport/test_process.py",
    "tests/transport/test_process_ends.py",
    "tests/transport/test_reader.py",
    "tests/transport/test_writer.py",
    "tests/transport/test_pool.py::test_each_of_many_is_told_once_with_its_number_and_its_end",
    "tests/transport/test_pool.py::test_output_of_any_size_is_whole_in_order_and_on_its_stream",
    "tests/transport/test_pool.py::test_a_close_kills_what_runs_stubborn_or_stopped_and_tells_nothing",
    "tests/internet/test_process.py",
    "tests/internet/test_signal_tree.py",
    "tests/internet/test_utils.py",
    "tests/apps/test_batch.py::test_each_of_many_is_an_outcome_once",
    "tests/apps/test_run.py::test_a_time_out_ends_all_descendants",
)
"""Spawning on every way, refusals, reaping, signals, pipes, terminals, the pool, and the two faces;
of each the files, or the tests, that say most per second."""

DEADLINE_S = 3600

_COUNT = re.compile(r"(\d+) (passed|failed|error|skipped)")


@dataclass(frozen=True)
class Result:
    """What came of one world."""

    world: World
    passed: int
    left_out: int
    failed: int
    seconds: float
    output: str

    @property
    def is_good(self) -> bool:
        """Whether something was played, and nothing failed."""
        return self.passed > 0 and self.failed == 0


def main(arguments: Sequence[str]) -> int:
    """Play, print a line per world, with what failed there, and which were left out and why.

    Return the exit status.
    """
    options = _parse(arguments)
    chosen = [world for world in worlds() if options.only in world.name]
    chosen.sort(key=lambda world: not world.under_valgrind)  # first what takes longest
    if options.list:
        print(*(world.name for world in chosen), sep="\n")
        return 0
    if not chosen:
        print(f"no world has {options.only!r} in its name")
        return 1
    left_out = {world.name: why for world in chosen if (why := lacking_for(world))}
    chosen = [world for world in chosen if world.name not in left_out]
    rooms = options.rooms or ([] if options.whole else ROOMS)
    results = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda world: _play(world, rooms), chosen):
            results.append(result)
            print(_line(result), flush=True)
            if not result.is_good:
                print(textwrap.indent(result.output, "    "), flush=True)
    print(_summary(results, left_out))
    return 0 if results and all(result.is_good for result in results) else 1


def _summary(results: Sequence[Result], left_out: Mapping[str, str]) -> str:
    good = sum(result.is_good for result in results)
    names = "".join(f"\n  {name}: {why}" for name, why in left_out.items())
    return f"worlds: {len(results)} played, {good} ok, {len(left_out)} left out{names}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.worlds", description=__doc__)
    parser.add_argument("rooms", nargs="*", help="play these, instead of ROOMS")
    parser.add_argument("--only", default="", metavar="WORDS", help="worlds with this in the name")
    parser.add_argument("--whole", action="store_true", help="play the whole suite in each")
    parser.add_argument("--list", action="store_true", help="name the worlds, and play none")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="worlds at a time")
    return parser.parse_args(arguments)


def _play(world: World, rooms: Sequence[str]) -> Result:
    begun = time.monotonic()
    into = [sys.executable, "-m", "tests.worlds.enter", world.name, sys.executable, "-m"]
    said = _run([*into, "tests.worlds.look"])
    if said.returncode == 0:
        pytest = ["pytest", "-p", "no:cacheprovider", "-q", "-rf", "--tb=short"]
        said = _run([*into, *pytest, *rooms])
    counts = {what: int(number) for number, what in _COUNT.findall(_last_line(said.stdout))}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return Result(
        world,
        counts.get("passed", 0),
        counts.get("skipped", 0),
        failed or int(said.returncode != 0),
        time.monotonic() - begun,
        said.stdout,
    )


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=DEADLINE_S,
        check=False,
    )


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def _line(result: Result) -> str:
    verdict = "ok" if result.is_good else "NOT ok"
    counts = f"{result.passed:>5} passed {result.left_out:>4} left out {result.failed:>3} failed"
    return f"{result.world.name:<36} {counts} {result.seconds:>5.0f} s  {verdict}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
