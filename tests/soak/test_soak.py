"""The soak itself: a short one is clean, and one in which something is lost, or kept, is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from alone import alone
from soak.__main__ import main
from soak.ledger import Ledger, State
from soak.parts import PARTS, Part, Says
from soak.vitals import MOST_BLOCKS, MOST_BYTES, PROC, Point, judge, slope

ROOT = Path(__file__).resolve().parents[2]


def test_two_thousand_spawns_are_told_once_and_leave_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.soak", "--spawns", "2000", "--seed", "3"]
    done = subprocess.run(
        [*command, "--report", report], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found = json.loads(report.read_text())
    assert found["ended"] + found["refused"] == sum(found["kinds"].values()) == 2000
    assert min(found["ended"], found["refused"], found["bytes_came"], found["bytes_sent"]) > 0
    assert len(found["points"]) == 21
    played = {part.__name__ for part in PARTS if os.geteuid() == 0 or not part.needs_root}
    assert played <= found["kinds"].keys()


def kinds_of(*seeds: int) -> list[dict[str, int]]:
    """Return how often each kind is played with each of *seeds*."""
    found = []
    report = Path(f"{PROC}/self/fd/{os.memfd_create('report')}")
    for seed in seeds:
        assert main(["--spawns", "100", "--seed", str(seed), "--report", str(report)]) == 0
        found.append(json.loads(report.read_text())["kinds"])
    os.close(int(report.name))
    return found


def test_the_same_seed_plays_the_same() -> None:
    first, again, other = alone(kinds_of, 5, 5, 6)
    assert first == again != other


# --- What it must notice --------------------------------------------------------------------------


class Careless(Says):
    """One child of a run is not treated as it should be; all others are."""

    left: ClassVar[int] = 1
    kept: ClassVar[list[Any]] = []

    def strikes(self) -> bool:
        """Whether it is this one."""
        strikes = type(self).left > 0 and self.number > 50 and self.wanted[1] != b""
        type(self).left -= strikes
        return strikes


class KeepsAnFd(Careless):
    def processEnded(self, reason: Any) -> None:
        if self.strikes():
            self.kept.append(os.dup(0))
        super().processEnded(reason)


class TellsTheExitTwice(Careless):
    def processExited(self, reason: Any) -> None:
        super().processExited(reason)
        if self.strikes():
            super().processExited(reason)


class TellsNoEnd(Careless):
    def processEnded(self, reason: Any) -> None:
        if self.strikes():
            self.scene.on_over(self)
        else:
            super().processEnded(reason)


class LosesAByte(Careless):
    def childDataReceived(self, childFD: int, data: bytes) -> None:
        super().childDataReceived(childFD, data[:-1] if childFD == 1 and self.strikes() else data)


class SwapsTwoBytes(Careless):
    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == 1 and len(data) > 1 and self.strikes():
            data = data[1:2] + data[:1] + data[2:]
        super().childDataReceived(childFD, data)


class ChangesTheStatus(Careless):
    def processExited(self, reason: Any) -> None:
        if self.strikes():
            reason.value.exitCode ^= 1
        super().processExited(reason)


class LeavesAZombie(Careless):
    def processEnded(self, reason: Any) -> None:
        if self.strikes():
            self.kept.append(subprocess.Popen([self.program, "exit", "0"]))
        super().processEnded(reason)


class KeepsItself(Careless):
    left = 1 << 30

    def processEnded(self, reason: Any) -> None:
        if self.strikes():
            self.kept.append([object() for _ in range(100)])
        super().processEnded(reason)


class Raises(Careless):
    def connectionMade(self) -> None:
        super().connectionMade()
        if self.strikes():
            raise ValueError("careless")


CARELESS = {
    KeepsAnFd: "fds more",
    TellsTheExitTwice: "told EXITED when EXITED",
    TellsNoEnd: "still EXITED",
    LosesAByte: "bytes came, ",
    SwapsTwoBytes: "bytes came, ",
    ChangesTheStatus: "ended with",
    LeavesAZombie: "children left",
    KeepsItself: "blocks grew",
    Raises: "logged",
}


def soak_with(careless: str) -> tuple[int, list[str]]:
    """Return the exit status of a soak in which Says is replaced, and what it complains of."""
    kind = next(one for one in CARELESS if one.__name__ == careless)
    report = Path(f"{PROC}/self/fd/{os.memfd_create('report')}")
    parts = [kind if part is Says else part for part in PARTS]
    status = main(["--spawns", "400", "--report", str(report)], parts)
    wrong: list[str] = json.loads(report.read_text())["wrong"]
    os.close(int(report.name))
    for kept in kind.kept:
        if isinstance(kept, int):
            os.close(kept)
        elif isinstance(kept, subprocess.Popen):
            kept.wait()
    return status, wrong


@pytest.mark.parametrize("careless", CARELESS, ids=lambda kind: kind.__name__)
def test_what_is_lost_or_kept_once_in_a_run_ends_it_with_1(careless: type[Careless]) -> None:
    status, wrong = alone(soak_with, careless.__name__)
    assert status == 1
    assert any(CARELESS[careless] in text for text in wrong), wrong


class NeverEnds(Part):
    """A child that nobody lets end."""

    def plan(self, rng: Any) -> list[object]:
        return ["wait", 0]


def soak_that_stalls() -> list[Any]:
    """Return the exit status, and the complaints, of a soak whose children do not end."""
    report = Path(f"{PROC}/self/fd/{os.memfd_create('report')}")
    status = main(["--spawns", "100", "--report", str(report)], [NeverEnds], stalled_s=0.2)
    wrong: list[str] = json.loads(report.read_text())["wrong"]
    os.close(int(report.name))
    return [status, wrong]


def test_children_that_never_end_are_killed_and_named() -> None:
    status, wrong = alone(soak_that_stalls)
    assert status == 1
    assert wrong[0] == "no child has ended for long"
    assert wrong[1] == "spawn 0, NeverEnds: stalled: ['wait', 0]"


# --- The judge ------------------------------------------------------------------------------------

FDS = {0: "in", 1: "out"}
START = Point(0, 0.0, FDS, 1, (), 20 << 20, 70_000)


def at(spawns: int, rss_bytes: int = START.rss_bytes, blocks: int = START.blocks) -> Point:
    return Point(spawns, 1.0, FDS, 1, (), rss_bytes, blocks)


def test_memory_may_grow_at_first_and_then_no_more() -> None:
    grown, much = START.rss_bytes + (20 << 20), START.blocks + 10_000
    assert judge([START, at(100), at(200, grown, much), at(1000, grown, much)]) == []
    assert judge([START, at(200), at(1000, START.rss_bytes + MOST_BYTES)]) == []
    (text,) = judge([START, at(200), at(1000, START.rss_bytes + MOST_BYTES + 1)])
    assert "rss_bytes grew" in text
    (text,) = judge([START, at(200), at(1000, blocks=START.blocks + MOST_BLOCKS + 1)])
    assert "blocks grew" in text


def test_the_slope_is_that_of_the_points_from_a_fifth_on() -> None:
    points = [START, at(10_000, 0), at(20_000, 1000), at(60_000, 5000), at(100_000, 9000)]
    assert slope(points) == pytest.approx(100)


def test_an_fd_that_is_missing_is_wrong_too() -> None:
    (text,) = judge([START, Point(1000, 1.0, {0: "in"}, 1, (), START.rss_bytes, START.blocks)])
    assert "fewer: [1]" in text


def test_a_spawn_that_was_never_told_of_is_missing() -> None:
    ledger = Ledger(3)
    ledger.move(0, State.NEW, State.REFUSED)
    ledger.move(1, State.NEW, State.RUNNING)
    ledger.check_all_over(3)
    assert ledger.wrong == ["spawn 1: still RUNNING", "spawn 2: still NEW"]
