"""The tables of README.md, made of the committed result: ``python -m benchmarks.readme``.

They stand between two marks, each on a line of its own, which must be there, once and in order;
nothing outside of them is touched. ``--check`` changes nothing and fails when they are out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.build import HERE, ROOT
from benchmarks.goals import Outcome, Reached, judge
from benchmarks.model import Report
from benchmarks.report import Table, meanings, number, tables

__all__ = ["BEGIN", "END", "main", "render", "replaced"]

BEGIN = "<!-- benchmarks:begin -->"
END = "<!-- benchmarks:end -->"

REFERENCE = HERE / "results" / "reference.json"

_GROWTH_WAYS = ("plain", "path")
"""The others grow alike, and are in the result file and in the plots."""


def replaced(text: str, section: str) -> str:
    """Return *text* with *section* between the marks; ValueError unless they are there."""
    lines = text.splitlines()
    if lines.count(BEGIN) != 1 or lines.count(END) != 1 or lines.index(BEGIN) > lines.index(END):
        raise ValueError(f"the lines {BEGIN} and {END} must be there, once each, in this order")
    before, after = lines[: lines.index(BEGIN) + 1], lines[lines.index(END) :]
    return "\n".join([*before, section, *after]) + "\n"


def render(report: Report) -> str:
    """Return the section: the machine, the tables, the goals."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    machine = report.machine
    yield ""
    where = (machine["cpu"], f"{machine['cpus']} CPUs", f"Linux {machine['kernel']}")
    yield f"{', '.join(where)}, {machine['python']}, {machine['date'][:10]}."
    yield "Medians ± half the range of the middle half of the repeats."
    yield from meanings(report)
    about = ""
    for table in tables(report):
        if table.workload == "growth" and not table.title.split(": ")[1].endswith(_GROWTH_WAYS):
            continue
        yield from _table(table, with_about=table.about != about)
        about = table.about
    yield from _goals(report)
    yield ""


def _table(table: Table, *, with_about: bool) -> Iterator[str]:
    yield ""
    yield f"**{table.title}**" + (f"  \n{table.about}" if table.about and with_about else "")
    yield ""
    yield "| " + " | ".join(table.head) + " |"
    yield "|---|" + "---:|" * (len(table.head) - 1)
    for row in table.rows:
        yield "| " + " | ".join(row) + " |"


def _goals(report: Report) -> Iterator[str]:
    yield ""
    yield "| goal | | must be | is | |"
    yield "|---|---|---:|---:|---|"
    for one in _judged(report):
        value = "" if one.value is None else number(one.value)
        outcome = "" if one.outcome is Outcome.MET else one.outcome.value
        cells = (one.goal.measure, one.goal.compared, one.goal.must, value, outcome)
        yield f"| {' | '.join(cells)} |"


def _judged(report: Report) -> Iterator[Reached]:
    """Yield the goals; not those of a library that the suite had not yet when *report* was made.

    Of such a one it has no word at all, where one that is not installed, or failed, has its name.
    """
    words = [*report.left_out, *report.failed, *(result.case.name for result in report.results)]
    known = {word.rpartition(": ")[2] for word in words} | report.missing.keys()
    for one in judge(report):
        if all(ref.library in known for ref in one.lacking):
            yield one


def main(arguments: Sequence[str]) -> int:
    """Write, or check, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--result", type=Path, default=REFERENCE, metavar="FILE")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    report = Report.from_json(json.loads(options.result.read_text(encoding="utf-8")))
    old = options.readme.read_text(encoding="utf-8")
    try:
        new = replaced(old, render(report))
    except ValueError as error:
        print(f"{options.readme}: {error}", file=sys.stderr)
        return 2
    if options.check:
        print("up to date" if new == old else f"{options.readme} is out of date")
        return int(new != old)
    if new != old:
        options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
