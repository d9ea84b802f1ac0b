"""Pure: a tag at the start of every line, and where whole lines end.

The rules of the room:

* A line begins at the start of the stream and after each line feed; after a carriage return too,
  unless a line feed follows it (programs draw progress with carriage returns, and GNU parallel
  tags those as well). How the stream was chunked does not show in the result.
* A tag is put where the first byte of its line is, never after the last line feed of a stream.
* No Python runs per line, unless there are carriage returns. A chunk is copied once, and once more
  when it begins with a line.
"""

from __future__ import annotations

import re

__all__ = ["Tagger", "end_of_lines"]

_LINE_END = rb"\r(?!\n)|\n"


def end_of_lines(data: bytes) -> int:
    """Return how many bytes of *data* are whole lines; 0 when no line ends in it.

    A carriage return ends one where there is no line feed in all of *data*, so that progress is
    seen; the last byte does not, because a line feed may follow.
    """
    return data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, max(len(data) - 1, 0)) + 1


class Tagger:
    """Puts *tag* at the start of each line of one stream."""

    __slots__ = ("_last", "_tag")

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._last = b"\n"
        """The byte before the next chunk; a stream begins like a line."""

    def feed(self, data: bytes) -> bytes:
        """Return *data*, which is not empty, with the tag at the start of each line in it."""
        begins = self._last == b"\n" or (self._last == b"\r" and data[:1] != b"\n")
        self._last = data[-1:]
        head = self._tag if begins else b""
        return head + (self._tag_each(data) if b"\r" in data else self._tag_feeds(data))

    def _tag_feeds(self, data: bytes) -> bytes:
        # What ends at the very end is followed by nothing yet: the next chunk sees to it.
        ends = -1 if self._last != b"\n" else data.count(b"\n") - 1
        return data.replace(b"\n", b"\n" + self._tag, ends)

    def _tag_each(self, data: bytes) -> bytes:
        tag, last = self._tag, len(data)
        return re.sub(_LINE_END, lambda end: end[0] + tag if end.end() < last else end[0], data)
