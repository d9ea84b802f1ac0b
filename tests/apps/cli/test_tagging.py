"""Tags and line ends against a plain rule for the whole stream, however it is cut into chunks."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli.tagging import Tagger, end_of_lines

pieces = st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b"T\t"])


@st.composite
def chunks(draw: st.DrawFn) -> list[bytes]:
    stream = b"".join(draw(st.lists(pieces, max_size=30)))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    return [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)]) if a < b]


def tagged(stream: bytes, tag: bytes) -> bytes:
    """The rule: at the start, and after each end that something follows."""
    lines = re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", stream)
    return b"".join(tag + line for line in lines)


@given(chunks())
def test_each_line_has_its_tag_however_it_came(some: list[bytes]) -> None:
    tagger = Tagger(b"T\t")
    found = b"".join(tagger.feed(chunk) for chunk in some)
    assert found == tagged(b"".join(some), b"T\t")


@given(chunks())
def test_lines_that_are_passed_on_are_whole(some: list[bytes]) -> None:
    tail, passed = b"", []
    for chunk in some:
        end = end_of_lines(chunk)
        assert 0 <= end <= len(chunk)
        if end:
            passed.append(tail + chunk[:end])
            tail = b""
        tail += chunk[end:]
    assert b"".join(passed) + tail == b"".join(some)
    assert all(lines.endswith((b"\n", b"\r")) for lines in passed)
    assert b"\n" not in tail


@pytest.mark.parametrize(
    ("data", "end"),
    [(b"", 0), (b"a", 0), (b"a\n", 2), (b"a\nb", 2), (b"1%\r2%", 3), (b"1%\r", 0), (b"\r\n", 2)],
)
def test_where_whole_lines_end(data: bytes, end: int) -> None:
    assert end_of_lines(data) == end
