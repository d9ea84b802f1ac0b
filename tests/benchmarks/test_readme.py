"""The tables of the README: made between two marks, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_up_reports import rate, report, result

from benchmarks.goals import GOALS
from benchmarks.model import Report
from benchmarks.plan import libraries
from benchmarks.readme import BEGIN, END, main, render, replaced

TEXT = f"# A title\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n"
RUN = report(rate("procreactor", 123.0, 125.0, 127.0), rate("trio", 456.0))


def files(folder: Path, text: str) -> tuple[Path, list[str]]:
    kept, readme = folder / "result.json", folder / "README.md"
    kept.write_text(json.dumps(RUN.to_json()))
    readme.write_text(text)
    return readme, ["--result", str(kept), "--readme", str(readme)]


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    text = replaced(TEXT, "new")
    assert text == TEXT.replace("old", "new")


def test_making_the_tables_twice_changes_nothing(tmp_path: Path) -> None:
    readme, options = files(tmp_path, TEXT)
    assert main(options) == 0
    once = readme.read_text()
    assert once != TEXT
    assert main(options) == 0
    assert readme.read_text() == once
    assert main([*options, "--check"]) == 0


def test_a_check_changes_nothing_and_fails(tmp_path: Path) -> None:
    readme, options = files(tmp_path, TEXT)
    assert main([*options, "--check"]) == 1
    assert readme.read_text() == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "no marks\n",
        f"{BEGIN}\n",
        f"{END}\n",
        f"{END}\n{BEGIN}\n",
        f"{BEGIN}\n{BEGIN}\n{END}\n",
        f"in a line {BEGIN}\n{END}\n",
    ],
)
def test_a_readme_without_the_marks_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    readme, options = files(tmp_path, text)
    assert main(options) == 2
    assert readme.read_text() == text
    assert BEGIN in capsys.readouterr().err


def test_the_tables_have_the_figures_and_the_machine() -> None:
    text = render(RUN)
    assert "| procreactor | 125 ±1 |" in text
    assert "| trio | 456 |" in text
    assert "a CPU, 2 CPUs, Linux 6.1" in text


HOSTED_GOALS = [
    one.measure
    for one in GOALS
    if "hosted" in {ref.library for ref in (one.top, one.bottom) if ref is not None}
]


def rows_of_hosted_goals(run: Report) -> list[str]:
    rows = [line.split("|") for line in render(run).splitlines() if line.startswith("| ")]
    return [row[-2].strip() for row in rows if row[1].strip() in HOSTED_GOALS]


def test_a_library_has_its_row_its_meaning_and_its_goals() -> None:
    run = report(rate("hosted", 200.0), rate("twisted", 400.0))
    text = render(run)
    assert "\nhosted: Twisted, on procreactor's reactor.\n" in text
    assert "\n| hosted | 200 |\n" in text
    assert "16 at once | twisted / hosted | >= 1.5 | 2 |  |\n" in text
    assert len(rows_of_hosted_goals(run)) == len(HOSTED_GOALS)


def test_of_a_library_that_a_run_did_not_know_nothing_is_told() -> None:
    run = report(rate("procreactor", 200.0), rate("twisted", 400.0))
    assert "hosted" not in render(run)
    assert rows_of_hosted_goals(run) == []
    assert "| twisted / procreactor | >= 3.3 | 2 | NOT met |" in render(run)


COMMAND = "procreactor run"


def test_what_a_run_knew_of_the_command_is_told_and_else_nothing() -> None:
    start = result("command_start", "start-up, one item", COMMAND, {"ms": [55.0]}, unit="ms")
    others = (rate("xargs", 300.0), rate("parallel", 4000.0))
    known, unknown = render(report(start, *others)), render(report(*others))
    assert f"| {COMMAND} | 55 |" in known
    assert f"| start-up, one item | {COMMAND}, ms | <= 60 | 55 |  |" in known
    assert f"| xargs / {COMMAND} | >= 2.5 |  | not run |" in known
    assert f"| {COMMAND} / parallel | >= 5 |  | not run |" in known
    assert f"| {COMMAND}" not in unknown
    assert f"/ {COMMAND}" not in unknown
    assert "start-up" not in unknown


@pytest.mark.parametrize(
    "word",
    [
        {"missing": {"hosted": "No module named 'twisted'"}},
        {"failed": {"spawn_rate: tiny, 16 at once: hosted": "died"}},
        {"left_out": {"growth: fds, path, 10,000 fds: hosted": "it has no way 'path'"}},
    ],
)
def test_the_goals_of_a_library_that_gave_no_figure_are_not_run(
    word: dict[str, dict[str, str]],
) -> None:
    others = report(
        *(rate(name, 400.0) for name in {name for _, name in libraries()} - {"hosted"}), **word
    )
    assert rows_of_hosted_goals(others) == ["not run"] * len(HOSTED_GOALS)


def test_the_tables_of_the_readme_are_those_of_the_kept_result() -> None:
    assert main(["--check"]) == 0
