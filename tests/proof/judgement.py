"""What is required of our reactor, given what the tests did on Twisted's own. Pure.

All that passes there must pass here, and what is skipped there may be skipped here, except for the
tests that deselected.txt names, each with its reason. Those are run as well, by themselves, and
must not pass: an entry whose reason is gone is a failure, and so is one that names no test. What
fails on Twisted's own reactor is not judged; the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .suites import Suite

__all__ = [
    "Count",
    "Deselected",
    "Outcome",
    "Run",
    "Verdict",
    "counted",
    "judge",
    "judge_distributed",
    "outcomes",
    "parse_deselected",
    "stale",
]

_WORST_LAST = (
    "started",
    "passed",
    "skipped",
    "expected failure",
    "unexpected success",
    "failed",
    "error",
)
_GOOD = ("passed", "skipped", "expected failure")

_ENOUGH = {
    "passed": ("passed",),
    "skipped": ("skipped", "passed"),
    "expected failure": ("expected failure", "unexpected success", "passed"),
}
"""What ours may do, by what the stock reactor did."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test."""

    kind: str
    text: str = ""
    """The tracebacks, or the reason of a skip."""


@dataclass(frozen=True)
class Run:
    """What one process saw."""

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = True
    """Whether it came to its end by itself."""
    output: str = ""
    """What it printed."""


@dataclass(frozen=True)
class Count:
    """The figures of one run."""

    passed: int
    failed: int
    skipped: int
    seconds: float


@dataclass(frozen=True)
class Deselected:
    """An entry of deselected.txt."""

    test: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What is wrong, as (test, text), and what was not judged."""

    failures: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()


def parse_deselected(text: str) -> list[Deselected]:
    """The entries of the list; ValueError for one without a reason, and for one given twice."""
    entries: dict[str, Deselected] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        test, _, reason = line.strip().partition(" ")
        if not reason.strip():
            raise ValueError(f"line {number}: {test} has no reason")
        if test in entries:
            raise ValueError(f"line {number}: {test} is there twice")
        entries[test] = Deselected(test, reason.strip())
    return list(entries.values())


def outcomes(
    events: Iterable[tuple[str, str, str]], rename: tuple[str, str] = ("", "")
) -> dict[str, Outcome]:
    """What became of each test: the worst that was told of it; *rename* replaces in its name."""
    seen: dict[str, Outcome] = {}
    for test, kind, text in events:
        if kind not in _WORST_LAST or not test:
            continue
        name = test.replace(*rename) if rename[0] else test
        before = seen.get(name, Outcome("started"))
        worst = max(before.kind, kind, key=_WORST_LAST.index)
        seen[name] = Outcome(worst, "\n".join(filter(None, (before.text, text))))
    return {
        name: Outcome("error", "did not come to its end") if one.kind == "started" else one
        for name, one in seen.items()
    }


def counted(run: Run) -> Count:
    """The figures of *run*; an expected failure has passed."""
    kinds = [one.kind for one in run.outcomes.values()]
    skipped = kinds.count("skipped")
    passed = kinds.count("passed") + kinds.count("expected failure")
    return Count(passed, len(kinds) - passed - skipped, skipped, run.seconds)


def stale(suites: Sequence[Suite], entries: Sequence[Deselected]) -> list[tuple[str, str]]:
    """The entries that can be of none of *suites*."""
    return [
        (entry.test, "is deselected, and is of no suite")
        for entry in entries
        if not any(suite.has(entry.test) for suite in suites)
    ]


def judge(
    suite: Suite, stock: Run, ours: Run, left_out: Run, entries: Sequence[Deselected]
) -> Verdict:
    """What is wrong with *ours*, a run without the deselected, and with *left_out*, one of these.

    *entries* are those of this suite. Names in *stock* are those that the tests have on ours.
    """
    failures = [
        (f"the run on {label}", f"ended early\n{run.output}")
        for label, run in (("stock", stock), ("ours", ours), ("ours, deselected", left_out))
        if not run.complete
    ]
    notes: list[str] = []
    deselected = {entry.test for entry in entries}
    for entry in entries:
        failures += _wrong_entry(entry, left_out.outcomes.get(entry.test))
    for test, there in stock.outcomes.items():
        if test in deselected:
            continue
        here = ours.outcomes.get(test)
        if there.kind not in _ENOUGH:
            result = here.kind if here is not None else "not run"
            notes.append(f"not judged here: {test} fails on stock as well (on ours: {result})")
        elif here is None:
            failures.append((test, f"{there.kind} on stock, was not run on ours"))
        elif here.kind not in _ENOUGH[there.kind]:
            failures.append((test, f"{there.kind} on stock, {here.kind} on ours\n{here.text}"))
    for test, here in ours.outcomes.items():
        if test not in stock.outcomes and here.kind not in _GOOD:
            failures.append((test, f"unknown on stock, {here.kind} on ours\n{here.text}"))
    failures += _too_few(suite, stock, counted(ours).passed)
    return Verdict(failures, notes)


def _wrong_entry(entry: Deselected, outcome: Outcome | None) -> list[tuple[str, str]]:
    if outcome is None:
        return [(entry.test, "is deselected, and no such test was run")]
    if outcome.kind in _GOOD or outcome.kind == "unexpected success":
        return [(entry.test, f"is deselected ({entry.reason}), and is {outcome.kind}")]
    return []


def _too_few(suite: Suite, stock: Run, passed: int) -> list[tuple[str, str]]:
    without = sum(
        test.rsplit(".", 1)[-1] in suite.identity and one.kind != "passed"
        for test, one in stock.outcomes.items()
    )
    least = suite.passes - without
    return [] if passed >= least else [("the suite", f"{passed} passed, {least} must at least")]


def judge_distributed(suite: Suite, stock: Count, ours: Count) -> Verdict:
    """The same where only the figures are known."""
    failures = []
    if ours.failed:
        failures.append(("the suite", f"{ours.failed} failed on ours"))
    if ours.passed < max(stock.passed, suite.passes):
        least = max(stock.passed, suite.passes)
        failures.append(("the suite", f"{ours.passed} passed on ours, {least} must at least"))
    notes = [f"not judged here: {stock.failed} fail on stock"] if stock.failed else []
    return Verdict(failures, notes)
