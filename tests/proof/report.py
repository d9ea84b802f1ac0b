"""The kept result (results.json), and the table of README.md that is made of it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .judgement import Count
from .sdist import VERSION
from .suites import SUITES, Suite

__all__ = ["BEGIN", "END", "KEPT", "entry", "load", "replaced", "result", "save", "table"]

BEGIN = "<!-- proof -->"
END = "<!-- /proof -->"

KEPT = Path(__file__).with_name("results.json")

Result = Mapping[str, Any]


def entry(suite: Suite, stock: Count, ours: Count, deselected: int) -> dict[str, Any]:
    """What is kept of one suite."""
    return {
        "suite": suite.title,
        "route": suite.route.value,
        "stock": _figures(stock),
        "ours": {**_figures(ours), "deselected": deselected},
    }


def _figures(count: Count) -> dict[str, Any]:
    return {**dataclasses.asdict(count), "seconds": round(count.seconds, 1)}


def result(twisted: str, entries: list[dict[str, Any]]) -> Result:
    """What is kept of a run, in the order of the suites."""
    order = [suite.title for suite in SUITES]
    return {
        "twisted": twisted,
        "buildbot-worker": VERSION,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "root": os.geteuid() == 0,
        "suites": sorted(entries, key=lambda one: order.index(one["suite"])),
    }


def table(kept: Result) -> str:
    """Return the Markdown table of a kept result, between empty lines."""
    return "\n".join(_lines(kept))


def _lines(kept: Result) -> Iterator[str]:
    yield ""
    yield "| suite | of | Twisted's reactor | procreactor's |"
    yield "|---|---|---|---|"
    buildbot = {suite.title for suite in SUITES if suite.sdist}
    for one in kept["suites"]:
        name = "buildbot-worker" if one["suite"] in buildbot else "twisted"
        of = f"{name.replace('twisted', 'Twisted')} {kept[name]}"
        yield f"| {one['suite']} | {of} | {_cell(one['stock'])} | {_cell(one['ours'])} |"
    yield ""


def _cell(figures: Mapping[str, Any]) -> str:
    parts = [f"{figures['passed']} passed"]
    parts += [
        f"{figures[word]} {word}"
        for word in ("failed", "skipped", "deselected")
        if figures.get(word)
    ]
    return ", ".join(parts)


def replaced(text: str, section: str) -> str:
    """Return *text* with *section* between the marks; ValueError unless they are there."""
    lines = text.splitlines()
    if lines.count(BEGIN) != 1 or lines.count(END) != 1 or lines.index(BEGIN) > lines.index(END):
        raise ValueError(f"the lines {BEGIN} and {END} must be there, once each, in this order")
    before, after = lines[: lines.index(BEGIN) + 1], lines[lines.index(END) :]
    return "\n".join([*before, section, *after]) + "\n"


def load(path: Path) -> Result:
    """The result that *path* has."""
    kept: Result = json.loads(path.read_text(encoding="utf-8"))
    return kept


def save(path: Path, kept: Result) -> None:
    """Let *path* have *kept*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
