"""Items become records, in order, and no more of them is taken than is needed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli import combine
from procreactor.apps.cli.combine import Item, Replayed, Step
from procreactor.model import WOULD_BLOCK

items = st.lists(st.sampled_from([b"a", b"b", b"c d", b" e ", b""]), max_size=5)
shy_items = st.lists(st.sampled_from([b"a", b"b", b"c ", b"", WOULD_BLOCK]), max_size=12)


def without_waiting(steps: Iterable[object]) -> list[object]:
    return [step for step in steps if step is not WOULD_BLOCK]


def crossed(groups: list[list[Item]]) -> Iterator[Step]:
    first, *rest = (combine.singles(group) for group in groups)
    return combine.crossed([first, *map(Replayed, rest)])


@given(st.lists(items, min_size=1, max_size=4))
def test_crossed_sources_are_nested_loops(groups: list[list[bytes]]) -> None:
    assert list(crossed(groups)) == list(itertools.product(*groups))  # type: ignore[arg-type]


@given(st.lists(shy_items, min_size=1, max_size=3))
def test_waiting_changes_no_record(groups: list[list[Item]]) -> None:
    patient = [[item for item in group if item is not WOULD_BLOCK] for group in groups]
    assert without_waiting(crossed(groups)) == list(crossed(patient))  # type: ignore[arg-type]
    for join in (combine.linked, combine.linked_round):
        shy = without_waiting(join([iter(group) for group in groups]))
        assert shy == list(join([iter(group) for group in patient]))


@given(shy_items, st.integers(0, 4))
def test_waiting_changes_no_batch_and_no_line(source: list[Item], count: int) -> None:
    patient = [item for item in source if item is not WOULD_BLOCK]
    shy = combine.batched(combine.singles(source), count)
    assert without_waiting(shy) == list(combine.batched(combine.singles(patient), count))
    for room in (combine.not_blank, combine.continued):
        assert without_waiting(room(source)) == list(room(patient))


@given(st.lists(items, min_size=1, max_size=4))
def test_linked_sources_go_side_by_side(sources: list[list[bytes]]) -> None:
    linked = list(combine.linked([iter(source) for source in sources]))
    assert linked == list(zip(*sources, strict=False))


@given(st.lists(items, min_size=1, max_size=4))
def test_linked_round_the_shorter_begin_anew(sources: list[list[bytes]]) -> None:
    longest = max(map(len, sources)) if all(sources) else 0
    expected = [tuple(source[turn % len(source)] for source in sources) for turn in range(longest)]
    assert list(combine.linked_round([iter(source) for source in sources])) == expected


@given(items, st.integers(1, 4))
def test_a_batch_has_so_many_records_and_none_is_lost(source: list[bytes], count: int) -> None:
    batches = list(combine.batched(combine.singles(source), count))
    assert [item for batch in batches for item in batch] == source  # type: ignore[union-attr]
    assert all(len(batch) == count for batch in batches[:-1])  # type: ignore[arg-type]
    assert all(batches)


def test_a_batch_knows_its_records() -> None:
    batches = list(combine.batched([(b"a", b"b"), (b"c",), (b"d",)], 2))
    assert batches == [(b"a", b"b", b"c"), (b"d",)]
    widths = [batch.widths for batch in batches if isinstance(batch, combine.Joined)]
    assert widths == [(2, 1), (1,)]


def test_a_batch_of_none_still_is_a_job_for_each() -> None:
    assert list(combine.batched([(b"a",), (b"b",)], 0)) == [(), ()]


@given(st.lists(st.binary(max_size=50)), st.integers(2, 20), st.integers(1, 400))
def test_a_batch_is_what_fits_and_never_less(source: list[bytes], count: int, most: int) -> None:
    def fits(values: tuple[bytes, ...]) -> bool:
        return sum(map(len, values)) <= most

    batches = list(combine.batched(combine.singles(iter(source)), count, fits))
    assert [value for batch in batches for value in batch] == source
    for number, batch in enumerate(batches):
        assert len(batch) == 1 or (len(batch) <= count and fits(batch))
        if number + 1 < len(batches) and len(batch) < count:
            assert not fits(batch + batches[number + 1][:1])


def test_a_batch_without_end_is_not_waited_for() -> None:
    """Whether it fits is asked on the way, not only when so many are there as may be."""
    endless = combine.singles(iter(lambda: b"x" * 1000, None))
    batches = combine.batched(endless, 1 << 40, lambda values: len(values) <= 1000)
    assert all(980 <= len(next(batches)) <= 1000 for _ in range(3)), "about as many as fit"


def endless() -> Iterator[bytes]:
    return (b"%d" % number for number in itertools.count())


def test_an_endless_first_source_is_not_read_ahead() -> None:
    first = endless()
    crossed = combine.crossed([combine.singles(first), Replayed(combine.singles([b"a", b"b"]))])
    assert list(itertools.islice(crossed, 4)) == [
        (b"0", b"a"),
        (b"0", b"b"),
        (b"1", b"a"),
        (b"1", b"b"),
    ]
    assert next(first) == b"2"


def test_an_endless_last_source_is_not_read_ahead_either() -> None:
    last = endless()
    crossed = combine.crossed(
        [combine.singles([b"a"]), Replayed(combine.singles(last), keep=False)]
    )
    assert list(itertools.islice(crossed, 2)) == [(b"a", b"0"), (b"a", b"1")]
    assert next(last) == b"2"


@pytest.mark.timeout(30)
def test_an_endless_source_crossed_with_nothing_ends() -> None:
    empty = Replayed(combine.singles([]))
    assert list(combine.crossed([combine.singles(endless()), empty])) == []
    barren = Replayed(combine.singles([b"a"]))
    assert list(combine.crossed([combine.singles(endless()), barren, empty])) == []


def test_until_its_end_word() -> None:
    assert list(combine.until([b"a", b"EOF x", b"EOF", b"b"], b"EOF")) == [b"a", b"EOF x"]


def test_blank_lines_do_not_count() -> None:
    assert list(combine.not_blank([b"", b"a", b" \t", b" b "])) == [b"a", b" b "]


def test_a_line_that_ends_in_a_blank_goes_on() -> None:
    lines = [b"a ", b"b\t", b"c", b"d", b"e "]
    assert list(combine.continued(lines)) == [b"a b\tc", b"d", b"e "]


@pytest.mark.parametrize(
    ("pattern", "value", "columns"),
    [
        (rb",", b"a,b,,c", (b"a", b"b", b"", b"c")),
        (rb",", b"abc", (b"abc",)),
        (rb",", b"", (b"",)),
        (rb"\s+", b"a  b\tc", (b"a", b"b", b"c")),
        (rb"[\xff]", b"a\xff\xfe", (b"a", b"\xfe")),
        (rb"(-)|(\+)", b"a+b", (b"a", b"", b"+", b"b")),
    ],
)
def test_columns(pattern: bytes, value: bytes, columns: tuple[bytes, ...]) -> None:
    split = combine.split_columns([(value,), (b"x", value)], re.compile(pattern))
    assert list(split) == [columns, (b"x", *columns)]


@pytest.mark.parametrize(
    ("left", "right", "value"),
    [(True, False, b"a "), (False, True, b" \ta"), (True, True, b"a")],
)
def test_trimmed(left: bool, right: bool, value: bytes) -> None:
    assert list(combine.trimmed([(b" \ta ", b"b")], left, right)) == [(value, b"b")]
