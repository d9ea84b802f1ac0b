"""The collector against the bytes themselves."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.streams.collect import Collector

# Chunks of both kinds: those that are kept as they came and those that are gathered.
chunks_of_output = st.lists(
    st.one_of(st.binary(max_size=20), st.integers(0, 255).map(lambda n: bytes([n]) * 5000)),
    max_size=30,
)


@given(chunks_of_output)
def test_without_a_bound_all_is_kept_in_order(chunks: list[bytes]) -> None:
    collector = Collector()
    for chunk in chunks:
        collector.append(chunk)
    assert collector.getvalue() == b"".join(chunks)
    assert collector.total == len(b"".join(chunks))
    assert collector.dropped == 0


@given(chunks_of_output, st.integers(0, 12000))
def test_with_a_bound_both_ends_are_kept_and_the_rest_is_counted(
    chunks: list[bytes], limit_bytes: int
) -> None:
    collector = Collector(limit_bytes)
    for chunk in chunks:
        collector.append(chunk)
    output = b"".join(chunks)
    assert collector.total == len(output)
    assert collector.dropped == max(0, len(output) - limit_bytes)
    if not collector.dropped:
        assert collector.getvalue(gap=b"...") == output
        return
    head_bytes = limit_bytes // 2
    tail_bytes = limit_bytes - head_bytes
    assert collector.getvalue() == output[:head_bytes] + output[len(output) - tail_bytes :]


def test_the_gap_stands_where_bytes_were_dropped() -> None:
    collector = Collector(limit_bytes=6)
    collector.append(b"abc--------xyz")
    assert collector.getvalue(gap=b"[8 bytes]") == b"abc[8 bytes]xyz"


@given(chunks_of_output, st.one_of(st.none(), st.integers(0, 100)))
def test_looking_changes_nothing(chunks: list[bytes], limit_bytes: int | None) -> None:
    watched, unwatched = Collector(limit_bytes), Collector(limit_bytes)
    for chunk in chunks:
        watched.append(chunk)
        unwatched.append(chunk)
        assert watched.getvalue() == watched.getvalue()
    assert watched.getvalue() == unwatched.getvalue()


def test_a_large_chunk_that_is_alone_is_never_copied() -> None:
    chunk = bytes(1 << 16)
    collector = Collector()
    collector.append(chunk)
    assert collector.getvalue() is chunk


def bytes_held_after(collector: Collector, chunk: bytes, times: int) -> int:
    """How much memory *collector* holds more, once it was given *chunk* so many times."""
    tracemalloc.start()
    try:
        for _ in range(times):
            # A new object each time, as a read gives.
            collector.append(bytes(bytearray(chunk)))
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("chunk", [b"1234567", b"x" * 10_000, b"x" * 300_000])
def test_a_bound_bounds_the_memory_too(chunk: bytes) -> None:
    limit_bytes = 200_000
    # Half the bound for the head, as much twice for the tail, and a bytearray's room to grow.
    assert bytes_held_after(Collector(limit_bytes), chunk, 1000) < 2 * limit_bytes


def test_small_chunks_cost_about_their_bytes() -> None:
    assert bytes_held_after(Collector(), b"1234567", 100_000) < 1.5 * 700_000


def test_a_bound_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="limit_bytes must be None or >= 0, not -1"):
        Collector(-1)
