"""What changed between two runs.

Two runs are two moments of a machine, or two machines: a figure that moved may be the machine's
doing. So goals, which are ratios within a run, come first; of the figures only those are told that
moved by more than a tenth and whose middle halves do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.goals import judge
from benchmarks.model import Report, Summary

__all__ = ["Change", "changes", "render"]

WORTH_TELLING = 0.1


@dataclass(frozen=True)
class Change:
    """One figure of one case, then and now."""

    name: str
    unit: str
    old: Summary
    new: Summary

    @property
    def ratio(self) -> float:
        """Now / then."""
        return self.new.median / self.old.median if self.old.median else float("inf")

    @property
    def is_better(self) -> bool:
        """Rates go up, all else goes down."""
        return (self.ratio > 1) == self.unit.endswith("/s")

    @property
    def is_clear(self) -> bool:
        """Whether it is worth telling."""
        if self.old.median == self.new.median:
            return False
        (old_low, old_high), (new_low, new_high) = self.old.quartiles, self.new.quartiles
        apart = old_high < new_low or new_high < old_low
        return apart and abs(self.ratio - 1) > WORTH_TELLING


def changes(old: Report, new: Report) -> list[Change]:
    """Return all figures that both runs have."""
    found = []
    for result in new.results:
        case = result.case
        for name, summary in result.figures.items():
            before = old.figure(case.workload, case.point, case.library, name)
            if before is not None:
                found.append(Change(f"{case.name}: {name}", case.units[name], before, summary))
    return found


def render(old: Report, new: Report) -> Iterator[str]:
    """Yield the lines of the comparison."""
    yield ""
    yield f"Against the run of {old.machine.get('date')}:"
    yield from _differences(old, new)
    for before, after in zip(judge(old), judge(new), strict=True):
        if before.value is None or after.value is None:
            continue
        mark = "" if before.outcome is after.outcome else f"  was {before.outcome.value}"
        yield (
            f"  {after.goal.measure}: {after.goal.compared} {after.goal.must}:"
            f" {before.value:,.2f} -> {after.value:,.2f}, {after.outcome.value}{mark}"
        )
    found = changes(old, new)
    clear = [change for change in found if change.is_clear]
    yield f"  {len(found)} figures in both, {len(clear)} of them moved clearly:"
    for change in sorted(clear, key=lambda one: one.ratio):
        word = "better" if change.is_better else "WORSE"
        yield (
            f"  {change.name}: {change.old.median:,.2f} -> {change.new.median:,.2f}"
            f" {change.unit} (x{change.ratio:.2f}, {word})"
        )


def _differences(old: Report, new: Report) -> Iterator[str]:
    if old.quick != new.quick:
        yield "  one of them is a quick run: its figures are of less work"
    for name in ("cpu", "cpus", "kernel", "python", "packages", "tools"):
        before, after = old.machine.get(name), new.machine.get(name)
        if before != after:
            yield f"  {name} differs: {before} -> {after}"
