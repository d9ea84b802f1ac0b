"""From files, pipes and words to records: every byte kept, nothing waited for that is there."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli.inputs import InputError, Inputs, records
from procreactor.apps.cli.plan import InputPlan, Source
from procreactor.model import END, WOULD_BLOCK

STDIN = Source(path=b"-")


@contextmanager
def pipe() -> Iterator[tuple[int, FileIO]]:
    """The end to read from, and the end to write to, which the test may close."""
    ours, theirs = os.pipe()
    try:
        with FileIO(theirs, "wb") as writer:
            yield ours, writer
    finally:
        os.close(ours)


def read_all(data: bytes, plan: InputPlan | None = None) -> list[tuple[bytes, ...]]:
    """The records of *plan* with *data* on its standard input."""
    fd = os.memfd_create("input")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return list(records(plan or InputPlan(), stdin_fd=fd))
    finally:
        os.close(fd)


def items(*words: bytes, linked: bool = False) -> Source:
    return Source(words, linked=linked)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\na\n", [b"", b"", b"a"]),
        (b"\n", [b""]),
        (b" a 'b\" \\c \n", [b" a 'b\" \\c "]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b"\xff\xfe\n\x80", [b"\xff\xfe", b"\x80"]),
    ],
)
def test_items_are_lines_and_nothing_else_is_special(data: bytes, expected: list[bytes]) -> None:
    assert read_all(data) == [(item,) for item in expected]


delimiters = st.sampled_from([b"\n", b"\0", b",", b"::", b"aba", b"\r\n"])
pieces = st.binary(max_size=6)


@given(st.lists(pieces, max_size=12), delimiters)
def test_what_was_joined_is_split_again(parts: list[bytes], delimiter: bytes) -> None:
    plan = InputPlan(delimiter=delimiter)
    if delimiter == b"\0":
        parts = [part.replace(b"\0", b"") for part in parts]
    else:
        parts = [part.replace(b"\0", b"").replace(delimiter[:1], b"") for part in parts]
        parts = [part for part in parts if delimiter[-1:] not in part]
    data = b"".join(part + delimiter for part in parts)
    assert read_all(data, plan) == [(part,) for part in parts]
    if parts and parts[-1]:
        assert read_all(data.removesuffix(delimiter), plan) == [(part,) for part in parts]


@pytest.mark.parametrize("length", [1, 65535, 65536, 65537, 1 << 20])
def test_a_line_may_have_any_length(length: int) -> None:
    line = os.urandom(length).replace(b"\n", b"x").replace(b"\0", b"y")
    assert read_all(b"a\n" + line + b"\nb\n") == [(b"a",), (line,), (b"b",)]


PRODUCT = [(a, b, c) for a in (b"1", b"2") for b in (b"a", b"b", b"c") for c in (b"x", b"y")]


def test_sources_are_crossed_wherever_they_come_from(tmp_path: Path) -> None:
    letters = tmp_path / "letters"
    letters.write_bytes(b"a\nb\nc\n")
    sources = (STDIN, Source(path=os.fsencode(letters)), items(b"x", b"y"))
    assert read_all(b"1\n2\n", InputPlan(sources)) == PRODUCT


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ((items(b"a", b"b", b"c"), items(b"1", b"2", linked=True)), ["a1", "b2"]),
        (
            (items(b"a", b"b"), items(b"1", b"2", linked=True), items(b"x", b"y")),
            ["a1x", "a1y", "b2x", "b2y"],
        ),
        (
            (items(b"x", b"y"), items(b"a", b"b"), items(b"1", b"2", linked=True)),
            ["xa1", "xb2", "ya1", "yb2"],
        ),
        ((items(), items(b"a")), []),
        ((items(b"a"), items()), []),
        ((items(b"a"), items(linked=True)), []),
    ],
)
def test_linked_sources_are_one_of_those_crossed(
    sources: tuple[Source, ...], expected: list[str]
) -> None:
    plan = InputPlan(sources)
    assert [b"".join(record).decode() for record in records(plan)] == expected
    assert plan.known_total == len(expected)


def test_all_sources_linked_begin_anew() -> None:
    plan = InputPlan((items(b"1", b"2"), items(b"a", b"b", b"c")), link_all=True)
    assert list(records(plan)) == [(b"1", b"a"), (b"2", b"b"), (b"1", b"c")]
    assert plan.known_total == 3


@pytest.mark.parametrize(
    ("plan", "total"),
    [
        (InputPlan((items(b"a", b"b", b"c"),)), 3),
        (InputPlan((items(b"a", b"b", b"c"),), batch=2), 2),
        (InputPlan((items(b"a", b"b", b"c"),), batch=0), 3),
        (InputPlan((items(b"a"), STDIN)), None),
        (InputPlan((items(b"a", b""),), skip_blank=True), None),
        (InputPlan((items(b"a", b""),), end=b"a"), None),
    ],
)
def test_how_many_there_will_be(plan: InputPlan, total: int | None) -> None:
    assert plan.known_total == total
    if total is not None:
        assert len(list(records(plan))) == total


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [b"a,b", b" c , d ", b"", b"END", b"e"]),
        ({"skip_blank": True}, [b"a,b", b" c , d ", b"END", b"e"]),
        ({"end": b"END"}, [b"a,b", b" c , d ", b""]),
        ({"trim": "lr"}, [b"a,b", b"c , d", b"", b"END", b"e"]),
        ({"trim": "r"}, [b"a,b", b" c , d", b"", b"END", b"e"]),
        ({"continue_lines": True}, [b"a,b", b" c , d END", b"e"]),
    ],
)
def test_what_becomes_of_lines(options: dict[str, object], expected: list[bytes]) -> None:
    plan = InputPlan((STDIN,), **options)  # type: ignore[arg-type]
    assert read_all(b"a,b\n c , d \n\nEND\ne\n", plan) == [(item,) for item in expected]


def test_columns_of_each_source_stand_side_by_side() -> None:
    plan = InputPlan((items(b"a-b", b"c"), items(b"1-2")), column_separator=rb"-")
    assert list(records(plan)) == [(b"a", b"b", b"1", b"2"), (b"c", b"1", b"2")]


def test_batches_are_of_records() -> None:
    plan = InputPlan((items(b"a-b", b"c-d", b"e-f"),), column_separator=b"-", batch=2)
    assert list(records(plan)) == [(b"a", b"b", b"c", b"d"), (b"e", b"f")]


def test_a_shuffle_loses_nothing_and_comes_before_batches() -> None:
    words = tuple(b"%d" % number for number in range(100))
    plan = InputPlan((items(*words),), shuffle=True, batch=3)
    shuffled = [word for record in records(plan) for word in record]
    assert sorted(shuffled) == sorted(words)
    assert tuple(shuffled) != words  # once in 10**158 times it is


# --- As they come ---------------------------------------------------------------------------------


def test_a_record_is_there_as_soon_as_its_newline_is() -> None:
    with pipe() as (ours, theirs):
        inputs = Inputs(InputPlan(), stdin_fd=ours)
        assert inputs.try_next() is WOULD_BLOCK
        assert inputs.waits_for_fd == ours
        theirs.write(b"one\ntw")
        assert inputs.try_next() == (b"one",)
        assert inputs.try_next() is WOULD_BLOCK
        theirs.write(b"o\n")
        assert inputs.try_next() == (b"two",)
        theirs.write(b"three")
        assert inputs.try_next() is WOULD_BLOCK
        theirs.close()
        assert inputs.try_next() == (b"three",)
        assert inputs.try_next() is END
        assert inputs.try_next() is END


def test_a_batch_waits_for_its_records_and_keeps_those_it_has() -> None:
    with pipe() as (ours, theirs):
        inputs = Inputs(InputPlan(batch=3), stdin_fd=ours)
        theirs.write(b"a\nb\n")
        assert inputs.try_next() is WOULD_BLOCK
        theirs.write(b"c\n")
        assert inputs.try_next() == (b"a", b"b", b"c")


@pytest.mark.needs("threads")
def test_iterating_waits_for_a_slow_producer() -> None:
    with pipe() as (ours, theirs):
        seen = records(InputPlan(), stdin_fd=ours)

        def answer() -> None:
            for number in range(1, 50):
                theirs.write(b"%d\n" % number)
                assert next(seen) == (b"%d" % number,)  # and so never waits for more
            theirs.close()

        thread = threading.Thread(target=answer)
        thread.start()
        thread.join()
        assert list(seen) == []


@pytest.mark.needs("threads")
def test_an_fd_that_does_not_block_is_waited_for_all_the_same() -> None:
    with pipe() as (ours, theirs):
        os.set_blocking(ours, False)
        seen = records(InputPlan(), stdin_fd=ours)
        thread = threading.Thread(target=lambda: (theirs.write(b"a\n"), theirs.close()))
        thread.start()
        assert list(seen) == [(b"a",)]
        thread.join()


def test_an_endless_stream_is_not_kept() -> None:
    with open("/dev/zero", "rb") as zeros:
        plan = InputPlan(delimiter=b"\0")
        taken = itertools.islice(records(plan, stdin_fd=zeros.fileno()), 1_000_000)
        assert sum(1 for record in taken if record == (b"",)) == 1_000_000


def test_endless_standard_input_is_crossed_lazily() -> None:
    with open("/dev/zero", "rb") as zeros:
        plan = InputPlan((STDIN, items(b"a", b"b")), delimiter=b"\0")
        taken = list(itertools.islice(records(plan, stdin_fd=zeros.fileno()), 4))
        assert taken == [(b"", b"a"), (b"", b"b")] * 2
        plan = InputPlan((items(b"a"), STDIN), delimiter=b"\0")
        taken = list(itertools.islice(records(plan, stdin_fd=zeros.fileno()), 4))
        assert taken == [(b"a", b"")] * 4


# --- What goes wrong ------------------------------------------------------------------------------


def test_a_nul_is_named_in_its_turn() -> None:
    for data in (b"a\nb\nc\0d\ne\n", b"a\nb\nc\0d"):
        fd = os.memfd_create("input")
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        seen = records(InputPlan(), stdin_fd=fd)
        assert [next(seen), next(seen)] == [(b"a",), (b"b",)]
        with pytest.raises(InputError, match="record 3 of standard input holds a NUL byte"):
            next(seen)
        os.close(fd)


def test_a_nul_in_a_later_chunk_is_counted_from_the_beginning() -> None:
    lines = b"x" * 999 + b"\n"
    with pytest.raises(InputError, match="record 301 of standard input"):
        read_all(lines * 300 + b"\0\n" + lines)


def test_a_nul_whose_line_ends_in_a_later_chunk_is_found() -> None:
    with pytest.raises(InputError, match="record 2 of standard input"):
        read_all(b"a\n" + b"\0" + b"x" * 200_000 + b"\nb\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    plan = InputPlan((Source(path=os.fsencode(missing)),))
    with pytest.raises(InputError, match=f"cannot read {missing}: No such file or directory"):
        list(records(plan))
    plan = InputPlan((Source(path=os.fsencode(tmp_path)),))
    with pytest.raises(InputError, match=f"cannot read {tmp_path}: Is a directory"):
        list(records(plan))


def test_standard_input_is_one_source_at_most() -> None:
    with pytest.raises(InputError, match="named twice"):
        Inputs(InputPlan((STDIN, STDIN)))


def test_closing_closes_the_files_and_reads_no_more(tmp_path: Path) -> None:
    # The fixture around each test sees to it that no fd stays open.
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(b"1\n" * 100_000)
    inputs = Inputs(InputPlan(tuple(Source(path=os.fsencode(file)) for file in files)))
    seen = iter(inputs)
    assert next(seen) == (b"1", b"1")
    inputs.close()
    inputs.close()
    assert list(seen) == []
    assert inputs.try_next() is END
