"""Pure: what is wrong about two records of one scenario, given the differences that are intended.

Nothing is wrong when both say the same, but for what a row of differences.py says of this scenario,
word for word. A row that does not hold any more is wrong too: it would hide the next difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.scenario import Record

__all__ = ["Difference", "complaints"]

_MISHAPS = ("crashed", "timed out", "broken off")
"""Keys of a record that is none. No row can excuse them: there was nothing to compare."""


@dataclass(frozen=True)
class Difference:
    """What one key of the two records of a scenario is, when it is not the same on purpose."""

    theirs: object
    ours: object


class _Absent:
    """The value of a key that a record does not have."""

    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def complaints(theirs: Record, ours: Record, intended: Mapping[str, Difference]) -> list[str]:
    """Return what is wrong, one sentence for each thing; an empty list when all is well."""
    found = _mishaps("Twisted", theirs) + _mishaps("procreactor", ours)
    if found:
        return found
    keys = sorted({*theirs, *ours, *intended})
    told = (
        _complaint(key, theirs.get(key, _ABSENT), ours.get(key, _ABSENT), intended.get(key))
        for key in keys
    )
    return [complaint for complaint in told if complaint]


def _mishaps(world: str, record: Record) -> list[str]:
    return [f"{world} {mishap}: {record[mishap]}" for mishap in _MISHAPS if mishap in record]


def _complaint(key: str, theirs: object, ours: object, row: Difference | None) -> str:
    seen = f"{key}: Twisted {theirs!r}, procreactor {ours!r}"
    if row is None:
        return "" if theirs == ours else f"{seen}, which is in no row of differences.py"
    if theirs == ours:
        return f"{seen}: its row of differences.py does not hold any more"
    if (theirs, ours) != (row.theirs, row.ours):
        return f"{seen}, but its row says {row.theirs!r} and {row.ours!r}"
    return ""
