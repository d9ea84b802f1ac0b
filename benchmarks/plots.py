"""PNGs: bars of each table of rates, curves of growth. Needs matplotlib (the ``bench`` extra)."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.model import Report, Result
from benchmarks.plan import workloads
from benchmarks.report import number

__all__ = ["draw", "require"]

_AXES = {
    "memory": "resident memory of the parent, GiB",
    "fds": "open fds of the parent",
    "live children": "live children with three pipes each",
}


def require() -> None:
    """SystemExit, with what to install, unless plots can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("--plots needs matplotlib: pip install 'procreactor[bench]'")


def draw(report: Report, folder: Path) -> list[Path]:
    """Write one PNG per workload and group into *folder*; return their paths."""
    require()
    matplotlib: Any = importlib.import_module("matplotlib")  # here: it takes half a second
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    return list(_draw_all(report, folder, pyplot))


def _draw_all(report: Report, folder: Path, pyplot: Any) -> Iterator[Path]:
    for workload, module in workloads().items():
        for group in dict.fromkeys(point.group for point in module.PARAMS):
            points = [point for point in module.PARAMS if point.group == group]
            names = {point.name for point in points}
            results = [
                result
                for result in report.results
                if result.case.workload == workload and result.case.point in names
            ]
            if not results:
                continue
            curve = getattr(module, "CURVE", None)
            figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
            if curve is None:
                _bars(axes, results, [point.name for point in points], module)
            else:
                _curves(axes, results, curve, _AXES.get(group.split(",")[0], group))
            axes.set_title(f"{workload}: {group}")
            axes.legend(fontsize="small")
            name = re.sub(r"[^a-z0-9]+", "-", f"{workload} {group}".lower()).strip("-")
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=120)
            pyplot.close(figure)
            yield path


def _libraries(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.case.library for result in results))


def _bars(axes: Any, results: Sequence[Result], points: Sequence[str], module: Any) -> None:
    """A group of bars per library, a bar per point; logarithmic, as there are factors of 50."""
    figure = module.SHOWN[0]
    found = {(one.case.library, one.case.point): one.figures[figure] for one in results}
    names = _libraries(results)
    present = [point for point in points if any((name, point) in found for name in names)]
    height = 0.8 / len(present)
    for index, point in enumerate(present):
        rows = [place for place, name in enumerate(names) if (name, point) in found]
        summaries = [found[names[row], point] for row in rows]
        medians = [summary.median for summary in summaries]
        spread = [
            [summary.median - summary.quartiles[0] for summary in summaries],
            [summary.quartiles[1] - summary.median for summary in summaries],
        ]
        bars = axes.barh(
            [row + index * height for row in rows],
            medians,
            height,
            xerr=spread,
            label=point.rpartition(", ")[2],
        )
        axes.bar_label(bars, [number(median) for median in medians], padding=4, fontsize="small")
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(names))], names)
    axes.invert_yaxis()
    least = min(summary.median for summary in found.values())
    axes.margins(x=0.15)
    if least > 0:
        # From a whole decade below the shortest bar, so that no bar is cut to nothing.
        axes.set_xscale("log")
        axes.set_xlim(left=10 ** math.floor(math.log10(least / 2)))
    axes.set_xlabel(f"{figure} [{module.UNITS[figure]}]")


def _curves(axes: Any, results: Sequence[Result], curve: tuple[str, str, str], label: str) -> None:
    """A line per library, from the empty parent on; logarithmic in the cost alone."""
    for library in _libraries(results):
        mine = [result for result in results if result.case.library == library]
        empty, grown, size = curve
        start = statistics.median(result.figures[empty].median for result in mine)
        places = [0.0, *(result.case.params[size] for result in mine)]
        costs = [start, *(result.figures[grown].median for result in mine)]
        axes.plot(places, costs, marker="o", label=library)
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("us per child")
