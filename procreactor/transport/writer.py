"""Bytes from a queue to one fd.

Rules:

- A write to an empty queue is tried at once: most fit into the pipe, and then no event is needed.
- Nothing calls back out of `write` or `close_when_flushed`: not the end of the stream, which is
  told in the next turn, and not the close, so that writes after a close in the same turn still
  count (the guide's own example closes stdin in the middle of its loop).
- The write end of a pipe is watched for nothing while the queue is empty: epoll reports the error
  that means "no reader left" all the same, and so a child's closing of its stdin is noticed
  without a write. What is queued then can reach nobody and is dropped.
- A turn's share is bounded: a reader that is as fast as we are must not keep us here. A write that
  the pipe took in part has filled it; another one at once would only be refused.
- A stream is hot when it keeps finding its pipe half empty or more, and fills it with data left
  over: then the child waits for us as often as we for it, and the pipe is grown (kernel/pipes.py).
  A child that takes a page now and then gains nothing by that, whatever is queued for it.
- The fd is not closed here: its owner opened it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from procreactor.kernel.pipes import READ_SIZE_BYTES, forget_grown, try_grow, try_write
from procreactor.kernel.poller import ERROR, HANGUP, WRITE
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.loop.sharing import SharedFd
from procreactor.model import END, WOULD_BLOCK
from procreactor.transport.outbox import BytesLike, Outbox

__all__ = ["HIGH_WATER_BYTES", "StreamWriter"]

HIGH_WATER_BYTES = 65536
"""Above so many queued bytes a source is asked to pause, as in Twisted."""

_WRITES_PER_TURN = 16

_HALF_A_PIPE_BYTES = READ_SIZE_BYTES // 2

_HOT = 4
"""So many large flushes that left data over, one more than small ones, and the pipe is grown."""

_REFUSED = -512
"""Where one whose pipe could not be grown begins again."""


class StreamWriter:
    """A queue in front of *fd*. Tells *on_end* (key) once: flushed and closed, or no reader left.

    *on_congested* is told after a write that left more than HIGH_WATER_BYTES queued; *on_drained*
    when the queue has become empty, and returns whether more is coming, so that a close waits.
    *watch* and *on_hangup* are as for `StreamReader`.
    """

    __slots__ = (
        "_fd",
        "_heat",
        "_key",
        "_loop",
        "_on_end",
        "_on_hangup",
        "_outbox",
        "_settling",
        "finished",
        "grown",
        "on_congested",
        "on_drained",
        "watch",
    )

    def __init__(
        self,
        loop: EventLoop | SharedFd,
        fd: int,
        key: int,
        on_end: Callable[[int], object],
        watch: Callable[[int, Callable[[int], object], int], Watch] | None = None,
        on_hangup: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._key = key
        self._on_end = on_end
        self._on_hangup = on_hangup
        self._outbox = Outbox()
        self._heat = 0
        self.grown = False
        """As for `StreamReader`."""

        self._settling = False
        self.finished = False
        self.on_congested: Callable[[], object] | None = None
        self.on_drained: Callable[[], bool] | None = None
        self.watch: Watch = (watch or loop.watch)(fd, self.on_ready, 0)

    def fileno(self) -> int:
        """Our end; -1 once it is closed."""
        return self._fd

    @property
    def queued_bytes(self) -> int:
        """How much has been accepted and not yet been taken by the kernel."""
        return self._outbox.size_bytes

    @property
    def closing(self) -> bool:
        """Whether a close waits for the queue."""
        return self._outbox.closing

    def write(self, data: BytesLike) -> None:
        """Take *data*; dropped when the stream has ended. TypeError unless bytes-like."""
        outbox = self._outbox
        if type(data) is bytes and data and not outbox.size_bytes and not self.finished:
            self._write_past_queue(data)
        else:
            was_empty = not outbox.size_bytes
            outbox.append(data)
            self._after_append(was_empty)

    def _write_past_queue(self, data: bytes) -> None:
        # What most writes are: in and out of the queue, one of a byte took four times as long.
        written = try_write(self._fd, (data,))
        if written is END:
            self._loop.call_soon(self._end)
        elif written == len(data):
            if self.on_drained is not None:
                self.settle_soon()  # a source that is pulled must be asked again
        else:
            self._outbox.append(data)
            if written is not WOULD_BLOCK:
                self._outbox.advance(written)
            self._wait_for_room()

    def write_all(self, pieces: Iterable[BytesLike]) -> None:
        """Take all of *pieces*, or none when one of them is not bytes-like."""
        was_empty = self._outbox.is_empty
        self._outbox.extend(pieces)
        self._after_append(was_empty)

    def _after_append(self, was_empty: bool) -> None:
        outbox = self._outbox
        if self.finished:
            outbox.clear()
            return
        if was_empty and outbox.size_bytes:
            if self._flush() is END:
                outbox.clear()
                self._loop.call_soon(self._end)
            elif self.on_drained is not None:
                self.settle_soon()  # if all is written
        if outbox.size_bytes:
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Something is queued: go on when the fd takes more, and tell if it is much."""
        self._loop.rewatch(self.watch, WRITE)
        if self._outbox.size_bytes > HIGH_WATER_BYTES and self.on_congested is not None:
            self.on_congested()

    def _flush(self) -> object:
        """Write until the queue or the pipe is empty, or enough was done; END: nobody reads."""
        outbox = self._outbox
        for _ in range(_WRITES_PER_TURN):
            if not outbox.size_bytes:
                return None
            shown = outbox.peek()
            written = try_write(self._fd, shown)
            if written is END or written is WOULD_BLOCK:
                return written
            outbox.advance(written)
            if written < sum(map(len, shown)):
                return WOULD_BLOCK
        return None

    def on_ready(self, events: int) -> None:
        """Write what the fd takes, and see to the close."""
        before_bytes = self._outbox.size_bytes
        if events & (ERROR | HANGUP):
            if self._on_hangup is None or not self._on_hangup():
                self._end()
        elif self._flush() is END:
            self._end()
        elif self._outbox.is_empty:
            self._loop.rewatch(self.watch, 0)
            self._settle()
        elif not self.grown:
            self._feel(before_bytes - self._outbox.size_bytes)

    def _feel(self, flushed_bytes: int) -> None:
        """Note a flush that left data over; grow the pipe of a stream that proves hot."""
        if flushed_bytes >= _HALF_A_PIPE_BYTES:
            self._heat += 1
        elif self._heat > 0:
            self._heat -= 1
        if self._heat >= _HOT:
            self.grown = try_grow(self._fd) is not None
            self._heat = 0 if self.grown else _REFUSED

    def _settle(self) -> None:
        """The queue is empty: ask for more, or else close if that was wanted."""
        more_comes = self.on_drained is not None and self.on_drained()
        if self._outbox.closing and self._outbox.is_empty and not more_comes:
            self._end()

    def close_when_flushed(self) -> None:
        """End the stream, in a later turn, once all that is queued has been written."""
        self._outbox.closing = True
        self.settle_soon()

    def settle_soon(self) -> None:
        """Look again, in the next turn, whether a wanted close has nothing to wait for."""
        if not self._settling and self._outbox.is_empty and not self.finished:
            self._settling = True
            self._loop.call_soon(self._settle_if_empty)

    def _settle_if_empty(self) -> None:
        self._settling = False
        if self._outbox.is_empty and not self.finished:
            self._settle()

    def _end(self) -> None:
        if not self.finished:
            self.finished = True
            try:
                self._on_end(self._key)
            except BaseException:  # an interrupt, and the owner may not have heard of the end
                self.finished = self._fd < 0
                raise
            self.stop()  # an owner that closes at once has taken the fd out of the loop itself

    def release(self) -> None:
        """Give back the share of a grown pipe; before the close, as its number is the key."""
        if self.grown:
            self.grown = False
            forget_grown(self._fd)

    def note_closed(self) -> None:
        """The owner has closed the fd, and nobody watches it; what is queued is dropped."""
        self.finished = True
        self._fd = -1
        if self._outbox.size_bytes:
            self._outbox.clear()

    def stop(self) -> None:
        """Write nothing any more; what is queued is dropped. The fd may be closed. Idempotent."""
        self.finished = True
        if self.grown:
            self.release()
        self._loop.unwatch(self.watch)
        if self._outbox.size_bytes:
            self._outbox.clear()
