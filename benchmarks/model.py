"""The words of the suite: what is to be measured, what was measured, and the file it is kept in.

A result file is the JSON of `Report`; `Report.from_json` takes nothing else.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Case",
    "Description",
    "NotPossible",
    "Point",
    "Report",
    "Result",
    "Sample",
    "Summary",
]

FORMAT = 1
"""Of the result file; another number is refused."""


class NotPossible(Exception):  # noqa: N818  # no error: the cell of the table stays empty
    """A library or this machine can not do this case; the message says why."""


@dataclass(frozen=True)
class Point:
    """One set of parameters of a workload: one column of one of its tables."""

    group: str
    """The table."""

    label: str
    """The column."""

    params: Mapping[str, Any]
    """Keyword arguments of the workload's ``run``; JSON."""

    quick: Mapping[str, Any] | None = None
    """What differs in a quick run; None: not part of it."""

    repeats: int = 4
    """Of the full run; a point that repeats by itself inside its process needs fewer."""

    @property
    def name(self) -> str:
        """Unique within the workload, and the same in the quick run."""
        return f"{self.group}, {self.label}"


@dataclass(frozen=True)
class Case:
    """What one measurement measures."""

    workload: str
    kind: str
    library: str
    point: str
    params: Mapping[str, Any] = field(hash=False, compare=False)
    units: Mapping[str, str] = field(hash=False, compare=False)
    """Of each figure; "us" and the like are better when lower, what ends in "/s" when higher."""

    @property
    def name(self) -> str:
        """Workload, point and library."""
        return f"{self.workload}: {self.point}: {self.library}"


@dataclass(frozen=True)
class Sample:
    """What one process measured: figures, or why there are none."""

    case: Case
    figures: Mapping[str, float]
    skipped: str | None = None
    """The case is not possible, here or for this library."""
    failed: str | None = None
    """The worker died, hung or lied: what it said last."""


@dataclass(frozen=True)
class Summary:
    """The samples of one figure."""

    samples: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many there are; never 0."""
        return len(self.samples)

    @property
    def median(self) -> float:
        """The one that counts."""
        return statistics.median(self.samples)

    @property
    def least(self) -> float:
        """The smallest sample."""
        return min(self.samples)

    @property
    def most(self) -> float:
        """The greatest sample."""
        return max(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between them lies the middle half; of one sample, that sample twice."""
        if self.n == 1:
            return self.samples[0], self.samples[0]
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high

    def to_json(self, unit: str) -> dict[str, Any]:
        """Everything, for people who read the file; only the samples are read back."""
        low, high = self.quartiles
        return {
            "unit": unit,
            "median": self.median,
            "min": self.least,
            "q1": low,
            "q3": high,
            "max": self.most,
            "n": self.n,
            "samples": list(self.samples),
        }


@dataclass(frozen=True)
class Result:
    """All that was measured of one case."""

    case: Case
    figures: Mapping[str, Summary]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Result:
        """Return the result of *samples* of one case, at least one of which has figures."""
        good = [sample.figures for sample in samples if sample.figures]
        names = good[0].keys()
        return cls(
            samples[0].case, {name: Summary(tuple(one[name] for one in good)) for name in names}
        )

    def to_json(self) -> dict[str, Any]:
        """One row of the file."""
        case = self.case
        return {
            "workload": case.workload,
            "kind": case.kind,
            "library": case.library,
            "point": case.point,
            "params": dict(case.params),
            "figures": {
                name: summary.to_json(case.units[name]) for name, summary in self.figures.items()
            },
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Result:
        """Return what `to_json` wrote; KeyError, TypeError or ValueError for anything else."""
        figures = {
            name: Summary(tuple(_number(sample) for sample in figure["samples"]))
            for name, figure in row["figures"].items()
        }
        if not figures or not all(summary.n for summary in figures.values()):
            raise ValueError("a row without a sample")
        texts = {name: row[name] for name in ("workload", "kind", "library", "point")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError(f"no text: {texts}")
        units = {name: str(figure["unit"]) for name, figure in row["figures"].items()}
        return cls(Case(**texts, params=dict(row["params"]), units=units), figures)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"no finite number: {value!r}")
    return float(value)


@dataclass(frozen=True)
class Description:
    """What an adapter can do, found out in a process of its own."""

    capabilities: frozenset[str] = frozenset()
    ways: frozenset[str] = frozenset()
    missing: str | None = None
    """Why it can not be used at all, as "No module named 'trio'"."""


@dataclass(frozen=True)
class Report:
    """One run of the suite."""

    machine: Mapping[str, Any]
    quick: bool
    results: Sequence[Result]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Libraries that are not installed, and what was said."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Cases that are not possible, and why."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Cases in which a measurement failed, and what was said."""
    seconds: float = 0.0
    """How long the run took."""

    def figure(self, workload: str, point: str, library: str, name: str) -> Summary | None:
        """Return one figure, or None when it was not measured."""
        for result in self.results:
            case = result.case
            if (case.workload, case.point, case.library) == (workload, point, library):
                return result.figures.get(name)
        return None

    def to_json(self) -> dict[str, Any]:
        """The result file."""
        return {
            "format": FORMAT,
            "quick": self.quick,
            "seconds": self.seconds,
            "machine": dict(self.machine),
            "missing": dict(self.missing),
            "left_out": dict(self.left_out),
            "failed": dict(self.failed),
            "results": [result.to_json() for result in self.results],
        }

    @classmethod
    def from_json(cls, data: Any) -> Report:
        """Return the report of a result file; ValueError says what is wrong with it."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"no result file of format {FORMAT}")
        try:
            return cls(
                machine=dict(data["machine"]),
                quick=bool(data["quick"]),
                results=[Result.from_json(row) for row in data["results"]],
                missing=dict(data["missing"]),
                left_out=dict(data["left_out"]),
                failed=dict(data["failed"]),
                seconds=_number(data["seconds"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a damaged result file: {error!r}") from error
