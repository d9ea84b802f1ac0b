"""The report on a terminal: tables, goals, and what is not in them, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.goals import Outcome, Reached, judge
from benchmarks.model import Report, Result, Summary
from benchmarks.plan import MEANINGS, workloads

__all__ = ["Table", "meanings", "number", "render", "tables"]


@dataclass(frozen=True)
class Table:
    """Libraries by columns, of one group of points of one workload."""

    workload: str
    title: str
    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def number(value: float) -> str:
    """Return *value* with three digits that count, and thousands separated."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cell(figures: Mapping[str, Summary], shown: Sequence[str]) -> str:
    texts = []
    for name in shown:
        summary = figures[name]
        low, high = summary.quartiles
        spread = f" ±{number((high - low) / 2)}" if summary.n > 1 and name == shown[0] else ""
        texts.append(number(summary.median) + spread)
    return " / ".join(texts)


def tables(report: Report) -> list[Table]:
    """Return one table per workload and group, in the order of the plan."""
    made = []
    for workload, module in workloads().items():
        results = [one for one in report.results if one.case.workload == workload]
        for group in dict.fromkeys(point.group for point in module.PARAMS):
            labels = {
                point.name: point.label
                for point in module.PARAMS
                if point.group == group and any(one.case.point == point.name for one in results)
            }
            if labels:
                unit = " / ".join(
                    f"{name} [{module.UNITS[name]}]" if module.UNITS[name] else name
                    for name in module.SHOWN
                )
                made.append(
                    Table(
                        workload,
                        f"{workload}: {group}: {unit}",
                        getattr(module, "ABOUT", ""),
                        ["", *labels.values()],
                        _rows(results, list(labels), module.SHOWN),
                    )
                )
    return made


def meanings(report: Report) -> Iterator[str]:
    """Yield a line for each library in *report* whose name needs one."""
    present = {result.case.library for result in report.results}
    for library, meaning in MEANINGS.items():
        if library in present:
            yield f"{library}: {meaning}."


def _rows(
    results: Iterable[Result], points: Sequence[str], shown: Sequence[str]
) -> list[list[str]]:
    cells: dict[str, dict[str, str]] = {}
    for result in results:
        if result.case.point in points:
            row = cells.setdefault(result.case.library, {})
            row[result.case.point] = _cell(result.figures, shown)
    return [[library, *(row.get(point, "") for point in points)] for library, row in cells.items()]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        yield "  " + "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _goal_row(reached: Reached) -> list[str]:
    value = "" if reached.value is None else f"{reached.value:,.2f}"
    goal, outcome = reached.goal, reached.outcome.value
    if reached.lacking:
        outcome += f" (nothing of {', '.join(str(ref) for ref in reached.lacking)})"
    return [f"{goal.measure}: {goal.compared}", goal.must, value, outcome]


def render(report: Report) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from _heading(report)
    about = ""
    for table in tables(report):
        yield ""
        yield table.title
        if table.about and table.about != about:
            yield f"  ({table.about})"
        about = table.about
        yield from _aligned([table.head, *table.rows])
    yield from _goals(report)
    for title, entries in (
        ("Not installed", report.missing),
        ("Not possible", report.left_out),
        ("FAILED", report.failed),
    ):
        if entries:
            yield ""
            yield f"{title}:"
            yield from _by_reason(entries)


def _heading(report: Report) -> Iterator[str]:
    machine = report.machine
    yield f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}"
    packages = [f"{name} {version}" for name, version in machine["packages"].items() if version]
    yield f"{machine['python']}, {', '.join(packages)}"
    yield f"{machine['date']}, load before {machine['load_before'][0]}, {report.seconds:.0f} s"
    yield "Medians ± half the range of the middle half. Compare only within this run."
    yield from meanings(report)
    if report.quick:
        yield "QUICK run: fewer points, one repeat or two, less work each: good for a look."


def _goals(report: Report) -> Iterator[str]:
    reached = judge(report)
    # Of a workload that was not run at all, the count says enough.
    workloads_run = {result.case.workload for result in report.results}
    shown = [one for one in reached if one.goal.top.workload in workloads_run]
    run = [one for one in shown if one.outcome is not Outcome.NOT_RUN]
    met = sum(one.outcome is Outcome.MET for one in run)
    yield ""
    yield f"Goals: {met} of {len(run)} met, {len(reached) - len(run)} not run"
    rows = [_goal_row(one) for one in shown] or [["", "", "", ""]]
    *widths, _ = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for text, must, value, outcome in rows:
        yield f"  {text.ljust(widths[0])}  {must:8} {value.rjust(widths[2])}  {outcome}".rstrip()


def _by_reason(entries: Mapping[str, str]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for name, reason in entries.items():
        names.setdefault(reason, []).append(name)
    for reason, some in names.items():
        more = f" and {len(some) - 3} more" if len(some) > 3 else ""
        yield f"  {'; '.join(some[:3])}{more}: {reason}"
