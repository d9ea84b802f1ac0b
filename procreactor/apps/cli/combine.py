"""Pure: items of several sources become records, and records become the values of one job.

An item is a line of input, or a word after ``:::``. A record is a tuple of values: one item of each
source. A job gets one record, or the values of several in a row (-n).

The rules of the room:

* Lazy: no more is taken from a source than the next record needs. Of several sources the first is
  never kept, however long it is; the others are, because they are gone through again for each
  record before them. An endless one among those is never gone through twice.
* The order is that of nested loops, the last source the innermost, as in GNU parallel.
* ``WOULD_BLOCK`` among the items means "nothing yet". It comes out where it went in, between two
  records, and none is lost by it.
* Nothing is made up: a product with a source that has no items is empty. (GNU parallel runs the
  command with an empty value there, which may well be the wrong half of a path.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from procreactor.model import WOULD_BLOCK, NoData
from procreactor.typed import Literal

__all__ = [
    "Item",
    "Joined",
    "Record",
    "Replayed",
    "batched",
    "continued",
    "crossed",
    "linked",
    "linked_round",
    "not_blank",
    "singles",
    "split_columns",
    "trimmed",
    "until",
]

Nothing = Literal[NoData.WOULD_BLOCK]
Item = bytes | Nothing
Record = tuple[bytes, ...]
Step = Record | Nothing
"""What comes out of a room's iterator at each turn."""


class Joined(tuple[bytes, ...]):
    """The values of several records, as one."""

    widths: tuple[int, ...]
    """How many values each of them has: not always as many, where items were split (--colsep)."""


_LOOK_BYTES = 65536
"""When whether all fits is asked for the first time; then each time that there is twice as much."""


# --- Items ----------------------------------------------------------------------------------------


def until(items: Iterable[Item], end: bytes) -> Iterator[Item]:
    """Yield the items before the first that is *end* (-E)."""
    for item in items:
        if item == end:
            return
        yield item


def not_blank(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items that are more than white space (-r, -L)."""
    return (item for item in items if item is WOULD_BLOCK or item.strip())


def continued(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, each that ends in a blank together with the next (-L)."""
    held = b""
    for item in items:
        if item is WOULD_BLOCK:
            yield item
        elif item.endswith((b" ", b"\t")):
            held += item
        else:
            yield held + item
            held = b""
    if held:
        yield held


# --- Records --------------------------------------------------------------------------------------


def singles(items: Iterable[Item]) -> Iterator[Step]:
    """Yield each item as a record."""
    return (item if item is WOULD_BLOCK else (item,) for item in items)


def linked(sources: Sequence[Iterator[Item]]) -> Iterator[Step]:
    """Yield records of the first items, the second items and so on, up to the shortest source."""
    while True:
        record: list[bytes] = []
        for source in sources:
            for item in source:
                if item is not WOULD_BLOCK:
                    record.append(item)
                    break
                yield item
            else:
                return
        yield tuple(record)


def linked_round(sources: Sequence[Iterator[Item]]) -> Iterator[Step]:
    """Yield records as `linked` does, up to the longest source; a shorter one begins anew."""
    seen: list[list[bytes]] = [[] for _ in sources]
    ended = [False] * len(sources)
    for turn in range(1 << 62):
        for number, source in enumerate(sources):
            while not ended[number] and len(seen[number]) <= turn:
                item = next(source, None)
                if item is None:
                    ended[number] = True
                elif item is WOULD_BLOCK:
                    yield item
                else:
                    seen[number].append(item)
        if not all(seen) or all(len(items) <= turn for items in seen):
            return
        yield tuple([items[turn % len(items)] for items in seen])


class Replayed:
    """Steps that can be gone through again and again, one pass after the other.

    What the first pass brought is kept, unless *keep* is false: then there is but one pass.
    """

    __slots__ = ("_keep", "_kept", "_steps")

    def __init__(self, steps: Iterator[Step], keep: bool = True) -> None:
        self._steps = steps
        self._keep = keep
        self._kept: list[Record] = []

    def __iter__(self) -> Iterator[Step]:
        yield from self._kept
        for step in self._steps:
            if self._keep and step is not WOULD_BLOCK:
                self._kept.append(step)
            yield step


def crossed(groups: Sequence[Iterable[Step]], before: Record = ()) -> Iterator[Step]:
    """Yield every record of the first group with every one of the second, and so on.

    All but the first must be `Replayed`. *before* stands at the beginning of each record.
    """
    head, *rest = groups
    if not rest:
        yield from (step if step is WOULD_BLOCK else before + step for step in head)
        return
    for step in head:
        if step is WOULD_BLOCK:
            yield step
            continue
        barren = True
        for longer in crossed(rest, before + step):
            barren = barren and longer is WOULD_BLOCK
            yield longer
        if barren:  # and so it will be for ever, of which *head* may have plenty
            return


def split_columns(steps: Iterable[Step], separator: re.Pattern[bytes]) -> Iterator[Step]:
    """Yield the records with each value split at *separator* (--colsep)."""
    for step in steps:
        if step is WOULD_BLOCK:
            yield step
        else:
            yield tuple([column or b"" for value in step for column in separator.split(value)])


def trimmed(steps: Iterable[Step], left: bool, right: bool) -> Iterator[Step]:
    """Yield the records without white space at the beginning, or the end, of their values."""
    strip = bytes.strip if left and right else bytes.lstrip if left else bytes.rstrip
    return (step if step is WOULD_BLOCK else tuple(map(strip, step)) for step in steps)


def batched(
    steps: Iterable[Step], count: int, fits: Callable[[Record], bool] | None = None
) -> Iterator[Step]:
    """Yield the values of *count* records as one; of fewer at the end, and where not so many *fit*.

    One record that does not fit by itself comes by itself. With *count* 0 there is one without
    values for each record.
    """
    if count == 0:
        yield from (step if step is WOULD_BLOCK else () for step in steps)
        return
    records: list[Record] = []
    size_bytes, look_at_bytes = 0, _LOOK_BYTES
    known = usual = 1  # so many fit for certain; so many did last time
    for step in steps:
        if step is WOULD_BLOCK:
            yield step
            continue
        records.append(step)
        size_bytes += _size_bytes(step)
        if len(records) < count and size_bytes < look_at_bytes:
            continue
        fitting = _how_many_fit(records, fits, known, usual)
        if fitting == len(records) < count:
            known = fitting
            look_at_bytes *= 2
            continue
        yield _as_one(records[:fitting])
        rest = records[fitting:]
        rest_bytes = sum(map(_size_bytes, rest))
        if rest:  # it was as much as fits: so there is no need to look much earlier next time
            look_at_bytes = max(_LOOK_BYTES, (size_bytes - rest_bytes) * 17 // 16)
        known, usual, records, size_bytes = 1, fitting, rest, rest_bytes
    while records:
        fitting = _how_many_fit(records, fits, 1, usual)
        yield _as_one(records[:fitting])
        records = records[fitting:]


def _how_many_fit(
    records: Sequence[Record], fits: Callable[[Record], bool] | None, known: int, usual: int
) -> int:
    """How many of *records* fit, from the first on: about as many as can be, at least one.

    *known* do for certain; *usual* is a guess. To ask costs as much as there is, hence few times.
    """
    if fits is None or fits(_joined(records)):
        return len(records)
    least, too_many, guess = min(known, len(records)), len(records), usual
    while too_many - least > max(1, least >> 6):
        half = guess if least < guess < too_many else (least + too_many) // 2
        if fits(_joined(records[:half])):
            least, guess = half, half + max(1, half >> 6)
        else:
            too_many, guess = half, half - max(1, half >> 6)
    return least


def _as_one(records: Sequence[Record]) -> Joined:
    joined = Joined(_joined(records))
    joined.widths = tuple(map(len, records))
    return joined


def _joined(records: Iterable[Record]) -> Record:
    return tuple([value for record in records for value in record])


def _size_bytes(record: Record) -> int:
    """About how much memory of a program's its values take."""
    return sum(map(len, record)) + 9 * len(record)
