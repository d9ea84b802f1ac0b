"""Bytes from a queue to one fd.

Rules:

- A write to an empty queue is tried at once: most fit into the pipe, and then no event is needed.
- Nothing calls back out of `write` or `close_when_flushed`: not the end of the stream, which is
  told in the next turn, and not the close, so that writes after a close in the same turn still
  count (the guide's own example closes stdin in the middle of its loop).
- The write end of a pipe is watched for nothing while the queue is empty: epoll reports the error
  that means "no reader left" all the same, and so a child's closing of its stdin is noticed
  without a write. What is queued then can reach nobody and is dropped.
- A turn's share is bounded: a reader that is as fast as we are must not keep us here.
- The fd is not closed here: its owner opened it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from procreactor.kernel.pipes import try_write
from procreactor.kernel.poller import ERROR, HANGUP, WRITE
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.loop.sharing import SharedFd
from procreactor.model import END, WOULD_BLOCK
from procreactor.transport.outbox import BytesLike, Outbox

__all__ = ["HIGH_WATER_BYTES", "StreamWriter"]

HIGH_WATER_BYTES = 65536
"""Above so many queued bytes a source is asked to pause, as in Twisted."""

_WRITES_PER_TURN = 16


class StreamWriter:
    """A queue in front of *fd*. Tells *on_end* (key) once: flushed and closed, or no reader left.

    *on_congested* is told after a write that left more than HIGH_WATER_BYTES queued; *on_drained*
    when the queue has become empty, and returns whether more is coming, so that a close waits.
    """

    __slots__ = (
        "_fd",
        "_key",
        "_loop",
        "_on_end",
        "_outbox",
        "_watch",
        "finished",
        "on_congested",
        "on_drained",
    )

    def __init__(
        self,
        loop: EventLoop | SharedFd,
        fd: int,
        key: int,
        on_end: Callable[[int], object],
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._key = key
        self._on_end = on_end
        self._outbox = Outbox()
        self.finished = False
        self.on_congested: Callable[[], object] | None = None
        self.on_drained: Callable[[], bool] | None = None
        self._watch: Watch = loop.watch(fd, self.on_ready, 0)

    def fileno(self) -> int:
        """Our end."""
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
        was_empty = outbox.is_empty
        outbox.append(data)
        self._after_append(was_empty)

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
            elif outbox.size_bytes:
                self._loop.rewatch(self._watch, WRITE)
            elif self.on_drained is not None:
                self.settle_soon()  # a source that is pulled must be asked again
        if outbox.size_bytes > HIGH_WATER_BYTES and self.on_congested is not None:
            self.on_congested()

    def _flush(self) -> object:
        """Write until the queue or the pipe is empty, or enough was done; END: nobody reads."""
        outbox = self._outbox
        for _ in range(_WRITES_PER_TURN):
            if outbox.is_empty:
                return None
            written = try_write(self._fd, outbox.peek())
            if written is END or written is WOULD_BLOCK:
                return written
            outbox.advance(written)
        return None

    def on_ready(self, events: int) -> None:
        """Write what the fd takes, and see to the close."""
        if events & (ERROR | HANGUP) or self._flush() is END:
            self._end()
        elif self._outbox.is_empty:
            self._loop.rewatch(self._watch, 0)
            self._settle()

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
        if self._outbox.is_empty and not self.finished:
            self._loop.call_soon(self._settle_if_empty)

    def _settle_if_empty(self) -> None:
        if self._outbox.is_empty and not self.finished:
            self._settle()

    def _end(self) -> None:
        if not self.finished:
            self.stop()
            self._on_end(self._key)

    def stop(self) -> None:
        """Write nothing any more; what is queued is dropped. The fd may be closed. Idempotent."""
        if not self.finished:
            self.finished = True
            self._loop.unwatch(self._watch)
            self._outbox.clear()
