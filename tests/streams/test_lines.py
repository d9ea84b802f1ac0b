"""The line splitter against its one law: joined again, the lines and the tail are the stream."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.streams.lines import LineSplitter

MEBIBYTE = 1 << 20

delimiters = st.sampled_from([b"\n", b"\r\n", b"aa", b"aba", b"\n\n", b"END", b"abcabd"])


@st.composite
def chunked_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A delimiter, and chunks rich in it, in its parts, and in what looks like it."""
    delimiter = draw(delimiters)
    pieces = st.sampled_from([delimiter, delimiter[:1], delimiter[1:], b"a", b"b", b"xyz", b""])
    stream = b"".join(draw(st.lists(pieces, max_size=40)))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    bounds = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(bounds)]
    return delimiter, chunks


def fed(splitter: LineSplitter, chunks: list[bytes]) -> list[bytes]:
    return [line for chunk in chunks for line in splitter.feed(chunk)]


@given(chunked_streams())
def test_any_chunking_gives_the_lines_of_one_split(case: tuple[bytes, list[bytes]]) -> None:
    delimiter, chunks = case
    splitter = LineSplitter(delimiter)
    lines = fed(splitter, chunks)
    assert [*lines, splitter.tail] == b"".join(chunks).split(delimiter)
    assert splitter.tail_bytes == len(splitter.tail)


@given(chunked_streams(), st.data())
def test_raw_mode_can_begin_at_any_line_and_lines_resume(
    case: tuple[bytes, list[bytes]], data: st.DataObject
) -> None:
    delimiter, chunks = case
    splitter = LineSplitter(delimiter)
    used: list[bytes] = []
    for chunk in chunks:
        lines = splitter.feed(chunk)
        keep = data.draw(st.integers(0, len(lines)))
        used += lines[:keep]
        raw = splitter.take_raw(lines[keep:])
        assert splitter.tail == b""
        used += splitter.feed(raw)
    assert [*used, splitter.tail] == b"".join(chunks).split(delimiter)


@given(chunked_streams(), st.integers(0, 12))
def test_a_bound_stops_before_the_first_line_above_it(
    case: tuple[bytes, list[bytes]], max_length: int
) -> None:
    delimiter, chunks = case
    stream = b"".join(chunks)
    splitter = LineSplitter(delimiter, max_length)
    lines = fed(splitter, chunks)
    assert delimiter.join([*lines, splitter.tail]) == stream
    assert all(len(line) <= max_length for line in lines)
    too_long = [len(line) > max_length for line in stream.split(delimiter)[:-1]]
    if any(too_long):
        assert splitter.too_long
        assert len(lines) == too_long.index(True)
    else:
        # The unfinished line counts only once no delimiter can end it within the bound.
        assert len(lines) == len(too_long)
        assert splitter.too_long == (splitter.tail_bytes >= max_length + len(delimiter))


def test_a_line_exactly_at_the_bound_is_a_line() -> None:
    splitter = LineSplitter(b"\n", max_length=4)
    assert splitter.feed(b"1234\n12345\n1\n") == [b"1234"]
    assert splitter.too_long
    assert splitter.tail == b"12345\n1\n"


def test_a_line_that_grows_too_long_over_short_chunks_is_too_long() -> None:
    splitter = LineSplitter(b"\n", max_length=4)
    assert splitter.feed(b"123") == []
    assert splitter.feed(b"45\n") == []
    assert splitter.too_long


def test_an_unfinished_line_waits_for_the_end_of_its_delimiter_before_it_is_too_long() -> None:
    splitter = LineSplitter(b"\r\n", max_length=3)
    assert splitter.feed(b"123\r") == []
    assert not splitter.too_long
    assert splitter.feed(b"\n") == [b"123"]
    assert splitter.feed(b"12345") == []
    assert splitter.too_long


def test_after_a_line_that_is_too_long_bytes_are_gathered_until_taken() -> None:
    splitter = LineSplitter(b"\n", max_length=3)
    splitter.feed(b"12345")
    assert splitter.feed(b"6\nab\n") == []
    assert splitter.tail_bytes == len(b"123456\nab\n")
    assert splitter.take_raw() == b"123456\nab\n"
    assert not splitter.too_long
    assert splitter.feed(b"cd\n") == [b"cd"]


def test_lines_are_bytes_whatever_the_chunk_was() -> None:
    splitter = LineSplitter()
    lines = splitter.feed(bytearray(b"one\ntw"))  # type: ignore[arg-type]
    lines += splitter.feed(memoryview(b"o\n"))  # type: ignore[arg-type]
    assert lines == [b"one", b"two"]
    assert {type(line) for line in lines} == {bytes}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"-" * 50])
def test_a_long_line_in_a_million_tiny_chunks_takes_linear_time(delimiter: bytes) -> None:
    # Were the tail copied for each chunk, this would move half a tebibyte.
    splitter = LineSplitter(delimiter)
    for _ in range(MEBIBYTE):
        splitter.feed(b"x")
    assert splitter.feed(delimiter) == [b"x" * MEBIBYTE]


@pytest.mark.timeout(30)
def test_a_huge_chunk_of_short_lines_takes_linear_time() -> None:
    # Were the rest copied for each line, this would move eight tebibytes.
    splitter = LineSplitter(b"\r\n", max_length=100)
    assert splitter.feed(b"1234567\r\n" * MEBIBYTE) == [b"1234567"] * MEBIBYTE


def test_a_delimiter_must_have_a_byte() -> None:
    with pytest.raises(ValueError, match="delimiter must be at least one byte"):
        LineSplitter(b"")


def test_a_delimiter_must_be_bytes() -> None:
    with pytest.raises(TypeError, match="delimiter must be bytes, not str"):
        LineSplitter("\n")  # type: ignore[arg-type]


def test_a_bound_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="max_length must be None or >= 0, not -1"):
        LineSplitter(max_length=-1)
