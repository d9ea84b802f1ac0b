"""The outbox against a plain byte string, and its promises about copies."""

import array
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from procreactor.transport.outbox import Outbox

SMALL, LARGE, BLOCK = 100, 5000, 65536


def drained(outbox: Outbox, max_buffers: int = 64, max_bytes: int = 1 << 20) -> bytes:
    out = bytearray()
    while shown := outbox.peek(max_buffers, max_bytes):
        data = b"".join(shown)
        out += data
        outbox.advance(len(data))
    return bytes(out)


def view_of(outbox: Outbox) -> memoryview:
    """The one view that a half written buffer is shown as."""
    [shown] = outbox.peek()
    assert isinstance(shown, memoryview)
    return shown


class OutboxAgainstBytes(RuleBasedStateMachine):
    """Whatever is done in whatever order, the outbox is the byte string."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.model = b""
        self.shown_bytes = 0

    @rule(data=st.binary(max_size=20), times=st.sampled_from([1, 1, 3, 4000]))
    def append_small(self, data: bytes, times: int) -> None:
        for _ in range(times):
            self.outbox.append(data)
        self.model += data * times

    @rule(fill=st.integers(0, 255), size=st.integers(LARGE - 2000, LARGE + 2000))
    def append_large(self, fill: int, size: int) -> None:
        self.outbox.append(bytes([fill]) * size)
        self.model += bytes([fill]) * size

    @rule(pieces=st.lists(st.binary(max_size=5), max_size=5))
    def extend(self, pieces: list[bytes]) -> None:
        self.outbox.extend(iter(pieces))
        self.model += b"".join(pieces)

    @rule(max_buffers=st.integers(1, 4), max_bytes=st.sampled_from([1, 7, 4096, 1 << 20]))
    def peek(self, max_buffers: int, max_bytes: int) -> None:
        shown = self.outbox.peek(max_buffers, max_bytes)
        data = b"".join(shown)
        assert len(shown) <= max_buffers
        assert len(data) <= max_bytes
        assert all(shown)
        assert self.model.startswith(data)
        assert bool(data) == bool(self.model)
        self.shown_bytes = len(data)

    @rule(share=st.floats(0, 1))
    def advance_some_of_what_was_shown(self, share: float) -> None:
        self.advance(int(self.shown_bytes * share))

    @rule(share=st.floats(0, 1))
    def advance_some_of_all(self, share: float) -> None:
        self.advance(int(len(self.model) * share))

    @rule()
    def clear(self) -> None:
        assert self.outbox.clear() == len(self.model)
        self.model = b""
        self.shown_bytes = 0

    def advance(self, count_bytes: int) -> None:
        self.outbox.advance(count_bytes)
        self.model = self.model[count_bytes:]
        self.shown_bytes = 0

    @invariant()
    def sizes_agree(self) -> None:
        assert self.outbox.size_bytes == len(self.model)
        assert self.outbox.is_empty == (not self.model)


TestOutboxAgainstBytes = OutboxAgainstBytes.TestCase


@given(st.lists(st.binary(max_size=6000), max_size=20), st.integers(1, 5), st.integers(1, 9000))
def test_what_goes_in_comes_out_in_order(
    pieces: list[bytes], max_buffers: int, max_bytes: int
) -> None:
    outbox = Outbox()
    outbox.extend(pieces)
    assert drained(outbox, max_buffers, max_bytes) == b"".join(pieces)
    assert outbox.is_empty


@pytest.mark.parametrize("size", [1, SMALL, LARGE])
def test_bytes_are_queued_without_a_copy(size: int) -> None:
    data = bytes(size) + b"x"
    outbox = Outbox()
    outbox.append(data)
    assert outbox.peek()[0] is data


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_mutable_buffer_may_change_after_it_was_queued(size: int) -> None:
    data = bytearray(b"x" * size)
    outbox = Outbox()
    outbox.append(data)
    outbox.append(memoryview(data).toreadonly())
    data[:] = b"y" * size
    assert drained(outbox) == b"x" * 2 * size


def test_any_buffer_is_taken_as_its_bytes() -> None:
    outbox = Outbox()
    outbox.append(array.array("H", [1, 2]))  # type: ignore[arg-type]
    outbox.append(memoryview(b"abcdef")[::2])
    assert drained(outbox) == array.array("H", [1, 2]).tobytes() + b"ace"


def test_a_million_one_byte_writes_become_a_few_buffers() -> None:
    outbox = Outbox()
    for _ in range(1_000_000):
        outbox.append(b"x")
    shown = outbox.peek(max_buffers=1024, max_bytes=1 << 30)
    assert b"".join(shown) == b"x" * sum(map(len, shown))
    assert len(shown) <= 1_000_000 // BLOCK + 1
    assert drained(outbox) == b"x" * 1_000_000


def test_small_writes_that_wait_cost_about_their_bytes() -> None:
    outbox = Outbox()
    tracemalloc.start()
    try:
        for _ in range(100_000):
            # A new object each time, as a program's formatting gives.
            outbox.append(bytes(bytearray(b"1234567")))
        held_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # All but the last block are joined.
    assert held_bytes < 700_000 + 10 * BLOCK


def test_a_peek_after_every_tiny_write_does_not_keep_them_apart() -> None:
    outbox = Outbox()
    for _ in range(BLOCK * 4):
        outbox.append(b"x")
        outbox.peek()
    assert len(outbox.peek(max_buffers=1024)) <= 8


def test_large_writes_stay_apart_and_small_ones_between_them_are_joined() -> None:
    outbox = Outbox()
    large = bytes(LARGE)
    outbox.extend([b"a", b"b", large, b"c", b"d", large])
    assert outbox.peek() == [b"ab", large, b"cd", large]


def test_a_partial_write_of_a_huge_buffer_copies_nothing() -> None:
    huge = bytes(256 << 20)
    outbox = Outbox()
    outbox.append(huge)
    tracemalloc.start()
    try:
        for _ in range(1000):
            outbox.advance(65536)
            assert view_of(outbox).obj is huge
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000
    assert outbox.size_bytes == len(huge) - 65536 * 1000


def test_a_buffer_that_is_written_is_let_go() -> None:
    outbox = Outbox()
    outbox.extend([bytes(LARGE), b"y" * LARGE])
    outbox.advance(LARGE)
    assert outbox.peek() == [b"y" * LARGE]


def test_a_peek_is_cut_at_max_bytes_without_a_copy() -> None:
    data = bytes(range(256)) * 100
    outbox = Outbox()
    outbox.append(data)
    outbox.advance(10)
    [shown] = outbox.peek(max_bytes=20)
    assert isinstance(shown, memoryview)
    assert shown.obj is data
    assert shown == data[10:30]


def test_what_was_never_shown_can_be_written_too() -> None:
    outbox = Outbox()
    outbox.append(b"abc")
    outbox.advance(3)
    assert outbox.peek() == []


def test_an_empty_write_is_no_buffer() -> None:
    outbox = Outbox()
    outbox.extend([b"", bytearray()])
    assert outbox.is_empty
    assert outbox.peek() == []


def test_more_cannot_be_written_than_was_queued() -> None:
    outbox = Outbox()
    outbox.append(b"abc")
    with pytest.raises(ValueError, match=r"count_bytes must be from 0 to 3, .*not 4"):
        outbox.advance(4)
    with pytest.raises(ValueError, match="not -1"):
        outbox.advance(-1)
    assert drained(outbox) == b"abc"


@pytest.mark.parametrize("data", ["text", 5, None])
def test_what_is_not_bytes_like_is_refused(data: object) -> None:
    outbox = Outbox()
    with pytest.raises(TypeError, match="data must be bytes-like, not "):
        outbox.append(data)  # type: ignore[arg-type]
    assert outbox.is_empty


def test_extend_takes_all_or_nothing() -> None:
    outbox = Outbox()
    with pytest.raises(TypeError):
        outbox.extend([b"good", "bad"])  # type: ignore[list-item]
    assert outbox.is_empty


def test_closing_is_a_note_that_changes_nothing_here() -> None:
    outbox = Outbox()
    assert not outbox.closing
    outbox.closing = True
    outbox.append(b"late")
    assert drained(outbox) == b"late"
    outbox.append(b"dropped")
    assert outbox.clear() == 7
    assert outbox.closing
