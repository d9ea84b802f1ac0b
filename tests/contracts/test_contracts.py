"""The contract: what a program sees here is what it sees on the real Twisted.

Each scenario (scenarios_*.py) was played in all worlds (driver.py), and the records must say the
same, except for what differences.py says of it (judgement.py). To see the records of a scenario,
give its name to ``python -m contracts.driver procreactor``, ``... twisted`` or ``...
procreactor.hosts.twisted`` in this test folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from contracts import catalogue
from contracts.differences import AS_TWISTED_WHEN_HOSTED, DIFFERENCES
from contracts.judgement import Difference, complaints
from contracts.scenario import Record
from contracts.world import HOSTED, OURS, THEIRS
from support import LACKS

# The first test of a run waits for the scenarios of all of them. Where libc has no threads, as
# clone3 is forbidden, it has no posix_spawn either, and Twisted starts nothing to compare with.
pytestmark = [pytest.mark.timeout(900), pytest.mark.needs("threads")]

SCENARIOS = catalogue.load()

Records = dict[str, Record]
Differences = Mapping[str, Difference]


class Driver:
    """A driver that plays the scenarios of *names*, which must not be none, in one world."""

    def __init__(self, world: str, names: list[str], folder: Path) -> None:
        # A file and no pipe: it must not wait for us to read what it says.
        self._file = folder / world
        with self._file.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "contracts.driver", world, *names],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=output,
            )

    def records(self) -> Records:
        """The records, now that it has ended."""
        assert self.process.returncode == 0, "the driver failed, see its stderr"
        return dict(json.loads(line) for line in self._file.read_text().splitlines())


@pytest.fixture(scope="session")
def records(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Records]:
    """The records of all scenarios that are to be tested, by world."""
    comparisons = {comparison.__name__ for comparison in COMPARISONS}
    tested = {
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname in comparisons
    }
    names = sorted(name for name in tested if can_be_played(name))
    folder = tmp_path_factory.mktemp("records")
    drivers = {world: Driver(world, names, folder) for world in (THEIRS, OURS, HOSTED)}
    for driver in drivers.values():
        driver.process.wait()
    return {world: driver.records() for world, driver in drivers.items()}


def can_be_played(name: str) -> bool:
    return os.geteuid() == 0 or not SCENARIOS[name].needs_root


CLOSES_MANY = {
    "childstate/inheritable fds of ours are not inherited",
    "childstate/a child of a program with many fds",
}
"""Without /proc Twisted closes none above 1023, and there are such: no scenario to compare with."""


def check(name: str, records: dict[str, Records], world: str, intended: Differences) -> None:
    if not can_be_played(name):
        pytest.skip("only root can change its identity")
    if name in CLOSES_MANY and "/proc" in LACKS:
        pytest.skip("this world lacks /proc")
    found = complaints(records[THEIRS][name], records[world][name], intended)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_program_sees_what_it_sees_on_twisted(name: str, records: dict[str, Records]) -> None:
    check(name, records, OURS, DIFFERENCES.get(name, {}))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_twisted_program_sees_the_same_on_our_reactor(
    name: str, records: dict[str, Records]
) -> None:
    """What differs is what differs here, unless it is the doing of Twisted's own code."""
    intended = {} if name in AS_TWISTED_WHEN_HOSTED else DIFFERENCES.get(name, {})
    check(name, records, HOSTED, intended)


COMPARISONS = (
    test_a_program_sees_what_it_sees_on_twisted,
    test_a_twisted_program_sees_the_same_on_our_reactor,
)


def test_every_row_of_differences_is_about_a_scenario_that_exists() -> None:
    assert set(DIFFERENCES) <= set(SCENARIOS)
    assert set(DIFFERENCES) >= AS_TWISTED_WHEN_HOSTED
