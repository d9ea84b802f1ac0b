"""Pure: chunks of bytes in, complete lines out.

The rules of the room:

* Nothing is lost or added: ``delimiter.join([*lines, tail])`` is the stream as it came. So a
  caller may change its mind in the middle of a chunk: `LineSplitter.take_raw` turns the lines it
  has not used back into the bytes they were, and feeding bytes again is how line mode resumes.
* How the stream was chunked does not show in the lines.
* The work is linear in the bytes fed, in one huge chunk or in a million tiny ones. A byte is
  searched once, save the last ``len(delimiter) - 1`` of a chunk, where a delimiter may have begun.
* A chunk costs one ``bytes.split``: no Python runs per line, unless a line may be too long, and
  then one ``max(map(len, ...))`` does.
* A line above the bound is a state, not an exception: `LineSplitter.too_long`. What to do about it
  (hang up, truncate, cut in pieces) is the caller's policy.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["LineSplitter"]


class LineSplitter:
    """A splitter of one stream at each *delimiter*, which is one or more bytes.

    *max_length* bounds a line, in bytes without its delimiter; None leaves lines unbounded.
    """

    __slots__ = ("_held", "_overlap", "_seam", "delimiter", "max_length", "tail_bytes", "too_long")

    def __init__(self, delimiter: bytes = b"\n", max_length: int | None = None) -> None:
        if not isinstance(delimiter, bytes):
            raise TypeError(f"delimiter must be bytes, not {type(delimiter).__name__}")
        if not delimiter:
            raise ValueError("delimiter must be at least one byte, not b''")
        if max_length is not None and max_length < 0:
            raise ValueError(f"max_length must be None or >= 0, not {max_length}")
        self.delimiter = delimiter
        """Fixed: to cut otherwise, feed what `take_raw` gives to another splitter."""

        self.max_length = max_length
        """May be changed between chunks."""

        self.too_long = False
        """Whether the tail begins with a line above *max_length*; then `feed` only gathers, and
        gives no line until `take_raw` is called."""

        self.tail_bytes = 0
        """The length of the tail."""

        # The tail is _held + _seam. No delimiter can begin in _held any more; one may have begun
        # in _seam, which is therefore split again together with the next chunk.
        self._held = bytearray()
        self._seam = b""
        self._overlap = len(delimiter) - 1

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that *data* completes, oldest first; what follows them is the tail."""
        if self.too_long:
            self._held += data
            self.tail_bytes += len(data)
            return []
        lines = (self._seam + data).split(self.delimiter)
        rest = lines.pop()
        if lines:
            if self._held:
                lines[0] = self._take_held() + lines[0]
            self.tail_bytes = len(rest)
        else:
            self.tail_bytes += len(data)
        self._seam = b""
        if rest:
            self._hold(rest)
        limit = self.max_length
        return lines if limit is None else self._up_to_too_long(lines, limit, len(data))

    @property
    def tail(self) -> bytes:
        """The bytes after the last line that `feed` returned (a copy, made anew for each look)."""
        return bytes(self._held) + self._seam

    def take_raw(self, unused: Iterable[bytes] = ()) -> bytes:
        """Return the stream from the first of the *unused* lines on; the tail is empty then.

        *unused* are the last lines that `feed` returned, or none of them, delimiters off.
        """
        raw = self.delimiter.join((*unused, self._take_held() + self._seam))
        self._seam = b""
        self.tail_bytes = 0
        self.too_long = False
        return raw

    def _hold(self, rest: bytes) -> None:
        cut = max(len(rest) - self._overlap, 0)
        self._held += rest[:cut]
        self._seam = rest[cut:]

    def _take_held(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    def _up_to_too_long(self, lines: list[bytes], limit: int, chunk_bytes: int) -> list[bytes]:
        """Return the lines before the first that is too long; that one and all after are tail."""
        # Only the first line, which an earlier chunk may have begun, can be longer than its chunk.
        suspects = lines if chunk_bytes > limit else lines[:1]
        late: list[bytes] = []
        if max(map(len, suspects), default=0) > limit:
            first = next(i for i, line in enumerate(lines) if len(line) > limit)
            lines, late = lines[:first], lines[first:]
        elif self.tail_bytes < limit + len(self.delimiter):
            # Short enough, or perhaps: the end of the tail may be the beginning of a delimiter.
            return lines
        raw = self.take_raw(late)
        self._held += raw
        self.tail_bytes = len(raw)
        self.too_long = True
        return lines
