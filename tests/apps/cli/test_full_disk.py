"""``procreactor run`` on a disk that is full, or fills: it is named, and no record is lost."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from command_line import log_of, ran, running
from fulldisk import fill, small_disk
from mounts import needs_mounts
from support import DEADLINE_S

JOBS = 200


def run(*words: str, jobs: int = JOBS) -> subprocess.CompletedProcess[bytes]:
    """Our command, two at a time, for the numbers from 1000 on, each of which is an item."""
    return ran(Path("/tmp"), "-j2", *words, ":::", *map(str, range(1000, 1000 + jobs)))


def test_a_full_disk_under_the_log_is_named(tmp_path: Path) -> None:
    with running(tmp_path, "--joblog", "/dev/full", "echo", ":::", "a") as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 255
    assert b"/dev/full" in err


def test_a_full_disk_under_the_results_is_named_and_no_record_is_lost(tmp_path: Path) -> None:
    (tmp_path / "full.csv").symlink_to("/dev/full")
    with running(tmp_path, "--results", "full.csv", "echo", ":::", "a-record") as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 255
    assert b"full.csv" in err
    assert err.count(b"a-record") == 3  # the command, its value and what it wrote


def under_the_log(where: str) -> None:
    """Each job that ran is in the log, or on standard error with the name of the log."""
    disk = small_disk(where, "8k")
    fill(disk, 4096)
    said = run("--joblog", str(disk / "log"), "sh", "-c", "echo $0", jobs=2 * JOBS)
    assert said.returncode == 255
    assert str(disk / "log").encode() in said.stderr
    lines = (disk / "log").read_bytes() + said.stderr
    told = re.findall(rb"^\d+\t:\t.* (\d+)$", lines, re.MULTILINE)
    assert sorted(told) == sorted(said.stdout.split())
    assert len(told) < 2 * JOBS


@needs_mounts
def test_a_disk_that_fills_under_the_log_loses_no_line(tmp_path: Path) -> None:
    alone(under_the_log, str(tmp_path))


def stored(saved: Path) -> dict[int, str]:
    """What is stored of each job, by its number, whatever the form; twice the same is a failure."""
    if saved.is_dir():
        found = [
            (int(seq.read_text()), seq.with_name("stdout").read_text())
            for seq in saved.rglob("seq")
            if seq.stat().st_size
        ]
    elif saved.suffix == ".csv":
        with open(saved, newline="") as file:
            found = [(int(row["Seq"]), row["Stdout"]) for row in csv.DictReader(file, strict=True)]
    else:
        rows = map(json.loads, saved.read_text().splitlines())
        found = [(row["Seq"], row["Stdout"]) for row in rows]
    assert len(dict(found)) == len(found)
    return dict(found)


def output(seq: int) -> str:
    """What each job writes: it fills more than half a page."""
    return f"{999 + seq:02500d}"


def under_the_results(where: str, name: str) -> dict[str, Any]:
    top = Path(where)
    (top / "disk").mkdir()
    disk = small_disk(str(top / "disk"), "4m")
    filler = fill(disk, 1 << 16)
    words = ["--joblog", str(top / "log"), "--results", str(disk / name)]
    words += ["sh", "-c", "printf %02500d $0"]
    first = run(*words)
    on_disk, logged = stored(disk / name), [int(line[0]) for line in log_of(top / "log")]
    shown = set(map(int, re.findall(rb'(?m)^(?:{"Seq": ?)?(\d+)[,"]', first.stderr)))
    filler.unlink()
    second = run("--resume", *words)
    assert (second.returncode, second.stderr) == (0, b"")
    return {
        "status": first.returncode,
        "is_named": str(disk).encode() in first.stderr,
        "stored": len(on_disk),
        "what_is_stored_is_logged": sorted(logged) == sorted(on_disk),
        "is_whole": all(on_disk[seq] == output(seq) for seq in on_disk),
        "shown": sorted(shown),
        "shown_and_stored": sorted(shown & on_disk.keys()),
        "is_complete": stored(disk / name) == {seq: output(seq) for seq in range(1, JOBS + 1)},
        "log": sorted(int(line[0]) for line in log_of(top / "log")),
    }


@needs_mounts
@pytest.mark.parametrize("name", ["saved", "saved.jsonl", "saved.csv"])
def test_a_disk_that_fills_under_the_results_loses_no_record(name: str, tmp_path: Path) -> None:
    """What is stored is whole and in the log; the rest is neither, and --resume runs just that."""
    found = alone(under_the_results, str(tmp_path), name)
    shown = found.pop("shown")
    assert 0 < found.pop("stored") < JOBS
    assert found == {
        "status": 255,
        "is_named": True,
        "what_is_stored_is_logged": True,
        "is_whole": True,
        "shown_and_stored": [],
        "is_complete": True,
        "log": [*range(1, JOBS + 1)],
    }
    if name != "saved":  # whose files hold what there was room for
        assert shown
