"""The suite as a whole: processes that measure, end well or badly, and a file of what they said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import suite
from benchmarks.build import ROOT
from benchmarks.model import Case, Point, Report
from benchmarks.plan import Planned, workloads

TINY = {"program": "tiny", "at_once": 2, "way": "plain", "seconds": 0.0}


def case(library: str, workload: str = "spawn_rate", **params: Any) -> Case:
    units = workloads()[workload].UNITS
    return Case(workload, "spawn", library, "a point", {**TINY, **params}, units)


def suite_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.needs("threads")
def test_a_measurement_has_the_figures_of_its_workload() -> None:
    sample = suite.measure(case("subprocess"))
    assert (sample.skipped, sample.failed) == (None, None)
    assert sample.figures["us_per_child"] > 0


def test_what_is_not_possible_is_skipped_with_the_reason() -> None:
    sample = suite.measure(case("limit2", at_once=1))
    assert sample.skipped == "fewer children at once than threads"
    assert sample.figures == {}


def test_a_worker_that_dies_is_a_failure_with_its_last_words() -> None:
    sample = suite.measure(case("subprocess", at_once="two"))
    assert sample.figures == {}
    assert sample.failed is not None
    assert "TypeError" in sample.failed


@pytest.mark.needs("threads")
def test_other_figures_than_those_of_the_workload_are_a_failure() -> None:
    wrong = Case("spawn_rate", "spawn", "subprocess", "a point", TINY, {"something": "us"})
    assert "us_per_child" in (suite.measure(wrong).failed or "")


@pytest.mark.needs("/proc")
def test_a_worker_that_hangs_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "TIMEOUT_S", 1)
    hanging = Case("idle", "spawn", "procreactor", "", {"count": 1, "seconds": 1e6}, {})
    assert suite.measure(hanging).failed == "no answer within 1 s"


def test_a_library_that_is_not_installed_is_missing_by_name(tmp_path: Path) -> None:
    (tmp_path / "trio.py").write_text("raise ImportError('no trio here')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", "spawn", "trio"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"missing": "no trio here"}


def test_all_adapters_can_be_asked_and_those_without_needs_are_there() -> None:
    offers = suite.describe_all()
    for library in ("procreactor", "subprocess", "asyncio", "limit1", "limit2", "posix_spawn"):
        offer = offers["spawn", library]
        assert offer.missing is None
        assert "spawn_many" in offer.capabilities
        assert "plain" in offer.ways


def test_repeats_are_interleaved_and_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def remember(one: Case) -> suite.Sample:
        order.append(one.library)
        return suite.Sample(one, {} if one.library == "b" else {"us": 1.0}, failed=None)

    monkeypatch.setattr(suite, "measure", remember)
    planned = Planned(Point("", "", {}, repeats=3), [case(name) for name in "abc"], {})
    assert len(suite.run_plan([planned], lambda point: point.repeats, lambda text: None)) == 7
    assert "".join(order) == "abc" + "ca" + "ac"  # b gave nothing and is not asked again


def test_a_quick_run_repeats_only_what_the_full_run_repeats_most() -> None:
    assert [suite.quick_repeats(Point("", "", {}, repeats=n)) for n in (1, 5, 7)] == [1, 1, 2]


def test_the_list_names_workloads_and_libraries() -> None:
    done = suite_process("--list")
    assert done.returncode == 0, done.stderr
    assert "spawn_rate" in done.stdout
    assert "procreactor" in done.stdout
    assert "hosted          Twisted, on procreactor's reactor\n" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--only", "nonsense"], ["--libraries", "nonsense"], ["--repeats", "0"]]
)
def test_an_argument_that_makes_no_sense_is_refused(arguments: list[str]) -> None:
    assert suite_process(*arguments).returncode == 2


@pytest.mark.needs("threads")
@pytest.mark.needs("/proc")
def test_a_small_run_makes_a_file_a_report_and_a_comparison(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    arguments = ["--quick", "--repeats", "1", "--only", "import_time"]
    arguments += ["--libraries", "subprocess", "procreactor"]
    done = suite_process(*arguments, "--json", str(kept))
    assert done.returncode == 0, done.stderr
    assert "import_time" in done.stdout
    report = Report.from_json(json.loads(kept.read_text()))
    assert report.quick
    assert {result.case.library for result in report.results} == {"subprocess", "procreactor"}
    assert report.machine["cpus"] >= 1
    again = suite_process(*arguments, "--against", str(kept))
    assert again.returncode == 0, again.stderr
    assert "figures in both" in again.stdout
