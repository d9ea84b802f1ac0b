"""Pure: the queue of outgoing bytes of one stream.

The rules of the room:

* ``bytes`` are queued as they are, without a copy. What can change under our hands (bytearray,
  memoryview, array) is copied once, on the way in.
* What is large is never copied after that: a partial write of a gigabyte moves an offset.
* What is small is gathered into blocks, each byte copied once, because an entry of writev(2) costs
  more than the copy: a million one-byte writes become sixteen buffers, not a million.
* Each operation is amortised O(1) in the number of writes, and a peek costs what it shows.

The order of the stream is ``_ready``, then ``_small``. Small writes are joined and become ready
when they fill a block, when a large write follows, or when a peek finds little else to show. Not at
every peek: an owner that peeks after each write to a full pipe would seal them one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

__all__ = ["BytesLike", "Outbox"]

BytesLike = bytes | bytearray | memoryview

_SMALL_BYTES = 4096
"""Below this size, copying is cheaper than an entry of its own."""

_BLOCK_BYTES = 65536
"""Small writes are joined when they come to this much: what a pipe holds by default (pipe(7))."""


class Outbox:
    """Bytes on their way out, oldest first."""

    __slots__ = ("_offset", "_ready", "_small", "_small_bytes", "closing", "size_bytes")

    def __init__(self) -> None:
        self.closing = False
        """No more data is wanted: when the queue is empty, close. A note for the stream's owner;
        data appended nevertheless is queued, and the close waits for it."""

        self.size_bytes = 0
        """How many bytes are queued."""

        self._ready: deque[bytes] = deque()  # none of them empty
        self._offset = 0  # how much of _ready[0] is gone
        self._small: list[bytes] = []
        self._small_bytes = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is queued."""
        return not self.size_bytes

    def append(self, data: BytesLike) -> None:
        """Queue *data*; whatever the caller does to it later does not show."""
        self._put(_owned(data))

    def extend(self, pieces: Iterable[BytesLike]) -> None:
        """Queue every one of *pieces*; or none, when one of them is not bytes-like."""
        for data in [_owned(piece) for piece in pieces]:
            self._put(data)

    def peek(self, max_buffers: int = 64, max_bytes: int = 1 << 20) -> list[bytes | memoryview]:
        """Return the front of the queue, for one writev(2): empty only when the queue is.

        It need not reach *max_buffers* or *max_bytes* when more is queued. The kernel takes at most
        1024 buffers.
        """
        if len(self._ready) < 2:
            self._seal()
        shown: list[bytes | memoryview] = []
        skip, room = self._offset, max_bytes
        for data in islice(self._ready, max_buffers):
            piece = memoryview(data)[skip:] if skip else data
            shown.append(piece if len(piece) <= room else memoryview(piece)[:room])
            room -= len(piece)
            if room <= 0:
                break
            skip = 0
        return shown

    def advance(self, count_bytes: int) -> None:
        """Forget the first *count_bytes* bytes: they were written."""
        if not 0 <= count_bytes <= self.size_bytes:
            raise ValueError(
                f"count_bytes must be from 0 to {self.size_bytes}, which is all that is queued,"
                f" not {count_bytes}"
            )
        if count_bytes > self.size_bytes - self._small_bytes:
            self._seal()
        self.size_bytes -= count_bytes
        gone = self._offset + count_bytes
        while self._ready and gone >= len(self._ready[0]):
            gone -= len(self._ready.popleft())
        self._offset = gone

    def clear(self) -> int:
        """Forget all that is queued and return how many bytes that was; `closing` stays."""
        dropped_bytes = self.size_bytes
        self._ready.clear()
        self._small.clear()
        self.size_bytes = self._small_bytes = self._offset = 0
        return dropped_bytes

    def _put(self, data: bytes) -> None:
        size_bytes = len(data)
        if not size_bytes:
            return
        self.size_bytes += size_bytes
        if size_bytes >= _SMALL_BYTES:
            self._seal()
            self._ready.append(data)
            return
        self._small.append(data)
        self._small_bytes += size_bytes
        if self._small_bytes >= _BLOCK_BYTES:
            self._seal()

    def _seal(self) -> None:
        if self._small:
            self._ready.append(b"".join(self._small))
            self._small.clear()
            self._small_bytes = 0


def _owned(data: BytesLike) -> bytes:
    """Return *data* as bytes that nobody can change."""
    if isinstance(data, bytes):
        return data
    try:
        return memoryview(data).tobytes()
    except TypeError:
        raise TypeError(f"data must be bytes-like, not {type(data).__name__}") from None
