"""Which libraries do which workload, and how often.

Unless said otherwise all adapters of a workload's kind take part, each in what it can do. Left out
is what would take minutes to say what is known: that fork is slow in a large parent.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from benchmarks.adapters import library_of
from benchmarks.build import HERE
from benchmarks.model import Case, Description, Point

__all__ = ["MEANINGS", "ORDER", "Planned", "libraries", "plan", "workloads"]

ORDER = (
    "limit2",
    "limit1",
    "limit",
    "limit_big",
    "blocking",
    "batch",
    "run_many",
    "procreactor run",
    "procreactor run -u",
    "procreactor",
    "hosted",
    "posix_spawn",
    "subprocess",
    "xargs",
    "rloop",
    "trio",
    "asyncio",
    "twisted",
    "uvloop",
    "parallel",
    "python",
)
"""Of the rows of all tables."""

MEANINGS = {
    "procreactor run -u": "the children write to its output themselves, as those of xargs",
    "hosted": "Twisted, on procreactor's reactor",
    "python": "the interpreter that runs the others, with nothing to do",
}
"""Of a library's name, where that leaves it open: told wherever its rows are."""

_Rule = Callable[[str, Mapping[str, Any]], bool]

_JUDGED = {"memory": 2, "fds": 10_000, "live children": 4000}
"""The sizes of a grown parent that goals speak of."""


def _growth(library: str, params: Mapping[str, Any]) -> bool:
    # Twisted opens and closes thousands of fds in each spawn: 4,000 live children would take it
    # minutes to start.
    slow = library == "twisted" and params["what"] == "live children" and params["size"] > 1000
    # hosted starts children as procreactor does: whether it is flat too, one size tells.
    judged = params["size"] == _JUDGED[params["what"]]
    others = ("procreactor", "twisted", "subprocess", "limit1", "posix_spawn")
    return (library in others and not slow) or (library == "hosted" and judged)


def _held(library: str, params: Mapping[str, Any]) -> bool:
    # How thousands of live children are held is the question to loops; starting them is dear for
    # the peers, so theirs are 1,000.
    peers = ("subprocess", "asyncio", "trio", "twisted", "uvloop", "rloop")
    return library in ("procreactor", "hosted") or (library in peers and params["count"] <= 1000)


_RULES: dict[str, _Rule] = {
    "growth": _growth,
    "exit_storm": _held,
    "memory": _held,
    "idle": lambda library, params: library != "subprocess" and _held(library, params),
}


@dataclass(frozen=True)
class Planned:
    """A point of a workload and the cases that it is measured by."""

    point: Point
    cases: Sequence[Case]
    left_out: Mapping[str, str]
    """What could have been a case, and why it is none."""


def workloads() -> dict[str, ModuleType]:
    """Return all workloads by name, as modules."""
    names = sorted(path.stem for path in (HERE / "workloads").glob("[a-z]*.py"))
    first = ["spawn_rate", "growth"]
    names.sort(key=lambda name: first.index(name) if name in first else len(first))
    return {name: importlib.import_module(f"benchmarks.workloads.{name}") for name in names}


def libraries() -> list[tuple[str, str]]:
    """Return (kind, library) of all adapters, in the order of the tables."""
    files = (HERE / "adapters").glob("*/[a-z]*.py")
    found = [(path.parent.name, library_of(path.stem)) for path in files]
    return sorted(found, key=lambda one: (one[0] != "spawn", _place(one[1]), one[1]))


def _place(library: str) -> int:
    return ORDER.index(library) if library in ORDER else len(ORDER)


def plan(
    modules: Mapping[str, Any],
    descriptions: Mapping[tuple[str, str], Description],
    *,
    quick: bool,
    only: Iterable[str] | None = None,
) -> list[Planned]:
    """Return what is to be measured, in order; *only* limits the libraries."""
    wanted = None if only is None else set(only)
    planned = []
    for name, module in modules.items():
        for point in module.PARAMS:
            if quick and point.quick is None:
                continue
            params = {**point.params, **(point.quick or {})} if quick else dict(point.params)
            cases, left_out = [], {}
            for (kind, library), offer in descriptions.items():
                if kind != module.KIND or (wanted is not None and library not in wanted):
                    continue
                case = Case(name, kind, library, point.name, params, module.UNITS)
                reason = _obstacle(module, case, offer)
                if reason is None:
                    cases.append(case)
                elif reason:
                    left_out[case.name] = reason
            planned.append(Planned(point, cases, left_out))
    return planned


def _obstacle(module: Any, case: Case, offer: Description) -> str | None:
    """Return why a case is none, None if it is one; "" for what needs no mention."""
    rule = _RULES.get(case.workload)
    if offer.missing is not None or module.NEEDS not in offer.capabilities:
        return ""
    if rule is not None and not rule(case.library, case.params):
        return ""
    way = case.params.get("way", "plain")
    if case.kind == "spawn" and way not in offer.ways:
        return f"it has no way {way!r}, or not for this user"
    return None
