"""Output that has to wait: in memory up to a bound, then in files that have no name.

Facts, and what follows:

- Behind one slow job 100,000 others may end. A file for each would need as many fds; so all that
  is spilled shares segments of 64 MiB, written from front to back, each closed when nothing in it
  is wanted any more. The space goes back to the disk then, as the files have no name (O_TMPFILE).
- sendfile(2) from a file to a pipe moves pages, not bytes: a reader sees what is in the page when
  it reads it. So a segment is never written twice at the same place, nor truncated.
- What waits in memory is bounded twice: per holder, and for all together. When all together is too
  much, holders are spilled, the oldest first, until half of it is left: so many small ones cost few
  writes, each for much.
- Small pieces are gathered: a job that writes by the byte, or 100,000 that write a word, cost their
  bytes and not an object for each.

When the disk is full what was to be spilled stays in memory, nothing is lost, and the error, which
names the directory, waits in `Spill.error` for who can stop the run, and have those wait who write.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

__all__ = ["Extent", "Held", "Part", "Spill"]

SEGMENT_BYTES = 64 << 20
HOLDER_BYTES = 2 << 20
"""More than most jobs write: to a file and out of it again is half as much work once more."""

MEMORY_BYTES = 64 << 20

_SMALL_BYTES = 4096
_GATHERED_BYTES = 65536
_NO_O_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
"""What open says where the kernel or the file system has no nameless files (open(2), BUGS)."""

_IOV_MAX = 1024
"""How many pieces one writev takes (limits.h)."""


class _Segment:
    """A file without a name, which is written to at *end* only."""

    __slots__ = ("end", "fd", "wanted")

    def __init__(self, directory: str) -> None:
        self.fd = _open_nameless(directory)
        self.end = 0
        self.wanted = 0
        """How many of its bytes somebody will still read."""


class Extent:
    """Bytes in a segment."""

    __slots__ = ("length", "offset", "segment")

    def __init__(self, segment: _Segment, offset: int, length: int) -> None:
        self.segment = segment
        self.offset = offset
        self.length = length

    @property
    def fd(self) -> int:
        """The file that they are in, from *offset* on; not the caller's to close."""
        return self.segment.fd


Part = bytes | bytearray | Extent


class Spill:
    """What holders share: the bounds, and the segments, which are in *directory*.

    *directory* is $TMPDIR, or /tmp. Errors are in `error`; nothing here raises OSError.
    """

    def __init__(
        self,
        directory: str | None = None,
        *,
        holder_bytes: int = HOLDER_BYTES,
        memory_bytes: int = MEMORY_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.directory = directory or os.environ.get("TMPDIR") or "/tmp"
        self.holder_bytes = holder_bytes
        self.memory_bytes = memory_bytes
        self.in_memory = 0
        """How many bytes all holders have in memory."""

        self.spilled = 0
        """How many bytes have been written to segments, ever."""

        self.error: OSError | None = None
        """Why something could not be spilled; then nothing is tried any more."""

        self._segment_bytes = segment_bytes
        self._segments: set[_Segment] = set()
        self._current: _Segment | None = None
        self._holders: dict[Held, None] = {}

    def count(self, holder: Held, by: int) -> None:
        """Take note that *holder* has *by* more bytes in memory, or fewer."""
        self.in_memory += by
        if by > 0:
            self._holders[holder] = None
            if self.in_memory > self.memory_bytes and self.error is None:
                self._make_room()

    def leave(self, holder: Held) -> None:
        """Take note that *holder* has nothing in memory."""
        self._holders.pop(holder, None)

    def spill(self, holders: Sequence[Held]) -> None:
        """Have nothing of *holders* in memory any more; or all, and `error` set."""
        if self.error is not None:
            return
        pieces = [piece for holder in holders for piece in holder.pieces_in_memory()]
        if not pieces:
            return
        try:
            extents = iter(self._write(pieces))
        except OSError as error:
            self.error = OSError(error.errno, error.strerror, self.directory)
            return
        for holder in holders:
            holder.settle(extents)

    def consume(self, extent: Extent, count: int) -> None:
        """Forget the first *count* bytes of *extent*: nobody will read them any more."""
        extent.offset += count
        extent.length -= count
        extent.segment.wanted -= count
        if not extent.segment.wanted:
            self._close(extent.segment)

    def close(self) -> None:
        """Close all segments; what is in them is gone. Idempotent."""
        for segment in list(self._segments):
            self._close(segment)

    def _write(self, pieces: list[bytes | bytearray]) -> list[Extent]:
        segment = self._current
        if segment is None or segment.end >= self._segment_bytes:
            segment = self._current = _Segment(self.directory)
            self._segments.add(segment)
        start = segment.end
        _write_all(segment, pieces)
        extents = []
        for piece in pieces:
            extents.append(Extent(segment, start, len(piece)))
            start += len(piece)
            segment.wanted += len(piece)
            self.spilled += len(piece)
        return extents

    def _make_room(self) -> None:
        left = self.in_memory
        holders = []
        for holder in self._holders:
            holders.append(holder)
            left -= holder.in_memory
            if left <= self.memory_bytes // 2:
                break
        self.spill(holders)

    def _close(self, segment: _Segment) -> None:
        if segment is self._current:
            self._current = None
        if segment in self._segments:
            self._segments.remove(segment)
            os.close(segment.fd)


class Held:
    """Parts of output, each for a fd, in order; in memory or spilled."""

    __slots__ = ("_parts", "_settled", "_spill", "in_memory")

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._parts: list[tuple[int, Part]] = []
        self._settled = 0  # so many parts, the first ones, are extents and not looked at again
        self.in_memory = 0
        """How many bytes are in memory."""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def append(self, fd: int, data: bytes | bytearray) -> None:
        """Hold *data*, which is for *fd*, behind what is there."""
        self._add_in_memory(fd, data)
        self.in_memory += len(data)
        self._spill.count(self, len(data))
        if self.in_memory > self._spill.holder_bytes and self._spill.error is None:
            self.spill()

    def extend(self, other: Held) -> None:
        """Hold all that *other* holds behind what is there; *other* is empty then."""
        for fd, part in other.take():
            if isinstance(part, Extent):
                self._add_extent(fd, part)
            else:
                self.append(fd, part)

    def take(self) -> list[tuple[int, Part]]:
        """Return all parts, which are the caller's now; nothing is held any more."""
        parts, self._parts = self._parts, []
        self._settled = 0
        self._forget_memory()
        return parts

    def drop(self) -> None:
        """Hold nothing any more, and let nobody have it."""
        for _, part in self.take():
            if isinstance(part, Extent):
                self._spill.consume(part, part.length)

    def spill(self) -> None:
        """Have nothing in memory any more, unless that is impossible (`Spill.error`)."""
        self._spill.spill((self,))

    def pieces_in_memory(self) -> list[bytes | bytearray]:
        """Return the parts that are in memory."""
        return [part for _, part in self._parts[self._settled :] if not isinstance(part, Extent)]

    def settle(self, extents: Iterator[Extent]) -> None:
        """Have the parts in memory replaced by the next of *extents*, where they are now."""
        parts = self._parts[self._settled :]
        del self._parts[self._settled :]
        for fd, part in parts:
            self._add_extent(fd, part if isinstance(part, Extent) else next(extents))
        self._settled = len(self._parts)
        self._forget_memory()

    def _forget_memory(self) -> None:
        self._spill.count(self, -self.in_memory)
        self._spill.leave(self)
        self.in_memory = 0

    def _add_in_memory(self, fd: int, data: bytes | bytearray) -> None:
        if len(data) >= _SMALL_BYTES:
            self._parts.append((fd, data))
            return
        if self._parts:
            last_fd, last = self._parts[-1]
            if last_fd == fd and isinstance(last, bytearray) and len(last) < _GATHERED_BYTES:
                last += data
                return
        self._parts.append((fd, bytearray(data)))

    def _add_extent(self, fd: int, extent: Extent) -> None:
        if self._parts:
            last_fd, last = self._parts[-1]
            if last_fd == fd and isinstance(last, Extent) and _joins(last, extent):
                last.length += extent.length
                return
        self._parts.append((fd, extent))


def _joins(one: Extent, other: Extent) -> bool:
    return one.segment is other.segment and one.offset + one.length == other.offset


def _open_nameless(directory: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_O_TMPFILE:
            raise
    name = f"{directory}/procreactor-{os.urandom(16).hex()}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(name)
    return fd


def _write_all(segment: _Segment, pieces: list[bytes | bytearray]) -> None:
    """Write *pieces* at the segment's end, which moves on with them, also at an error."""
    for batch in _batches(pieces):
        written = os.pwritev(segment.fd, batch, segment.end)
        segment.end += written
        if written < sum(map(len, batch)):  # a signal, or the disk is full and says so next time
            _write_rest(segment, memoryview(b"".join(batch))[written:])


def _write_rest(segment: _Segment, data: memoryview) -> None:
    while data:
        written = os.pwrite(segment.fd, data, segment.end)
        segment.end += written
        data = data[written:]


def _batches(pieces: list[bytes | bytearray]) -> Iterator[list[bytes | bytearray]]:
    for start in range(0, len(pieces), _IOV_MAX):
        yield pieces[start : start + _IOV_MAX]
