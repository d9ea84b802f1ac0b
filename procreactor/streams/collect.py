"""Pure: gathers the output of a child, whole or within a bound.

The rules of the room:

* Unbounded, a large chunk is kept as it came, without a copy; small ones are gathered, so that a
  child that writes by the byte costs its bytes and not an object for each.
* Bounded, the first half of the bound and the last half stay, because the cause of a failure
  stands at one of the two ends: how it began, or the last words. The bytes between are counted.
  Memory stays below about twice the bound whatever the child writes.
* Every append is amortised O(1) per byte.
"""

from __future__ import annotations

__all__ = ["Collector"]

_KEEP_AS_IS_BYTES = 4096
"""From this size on, copying a chunk costs more than the object that holds it."""


class Collector:
    """What a stream brought: all of it, or the two ends of it when *limit_bytes* is given."""

    __slots__ = ("_head", "_head_room", "_last", "limit_bytes", "total")

    def __init__(self, limit_bytes: int | None = None) -> None:
        if limit_bytes is not None and limit_bytes < 0:
            raise ValueError(f"limit_bytes must be None or >= 0, not {limit_bytes}")
        self.limit_bytes = limit_bytes
        self.total = 0
        """How many bytes came, kept or not."""

        self._head = _All()
        self._head_room = 0 if limit_bytes is None else limit_bytes // 2
        self._last = _Last(0 if limit_bytes is None else limit_bytes - limit_bytes // 2)

    def append(self, data: bytes) -> None:
        """Take *data* as the next bytes of the stream."""
        self.total += len(data)
        if self.limit_bytes is None:
            self._head.append(data)
        else:
            self._append_bounded(data)

    @property
    def dropped(self) -> int:
        """How many bytes came and are no longer here."""
        return 0 if self.limit_bytes is None else max(self.total - self.limit_bytes, 0)

    def getvalue(self, gap: bytes = b"") -> bytes:
        """Return what was kept, with *gap* put where bytes were dropped, if any were."""
        if self.limit_bytes is None:
            return self._head.getvalue()
        return (gap if self.dropped else b"").join((self._head.getvalue(), self._last.getvalue()))

    def _append_bounded(self, data: bytes) -> None:
        if self._head_room:
            first = data[: self._head_room]
            self._head_room -= len(first)
            self._head.append(first)
            data = data[len(first) :]
        self._last.append(data)


class _All:
    """Every byte appended: large chunks as they came, runs of small ones gathered."""

    __slots__ = ("_chunks", "_small")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._small = bytearray()

    def append(self, data: bytes) -> None:
        if len(data) < _KEEP_AS_IS_BYTES:
            self._small += data
            return
        self._flush()
        self._chunks.append(bytes(data))

    def getvalue(self) -> bytes:
        self._flush()
        value = b"".join(self._chunks)
        # So that a second look costs nothing.
        self._chunks = [value]
        return value

    def _flush(self) -> None:
        if self._small:
            self._chunks.append(bytes(self._small))
            self._small.clear()


class _Last:
    """The last *limit_bytes* bytes appended.

    Two generations, each at most the limit: when the new one is full it becomes the old one. So
    nothing is moved when bytes fall out, and at most twice the limit is held.
    """

    __slots__ = ("_limit_bytes", "_new", "_old")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._old = bytearray()
        self._new = bytearray()

    def append(self, data: bytes) -> None:
        kept = self._end_of(data)
        if len(self._new) + len(kept) > self._limit_bytes:
            self._old, self._new = self._new, bytearray()
        self._new += kept

    def getvalue(self) -> bytes:
        return bytes(self._end_of(self._old + self._new))

    def _end_of(self, data: bytes | bytearray) -> bytes | bytearray:
        return data[max(len(data) - self._limit_bytes, 0) :]
