"""Bytes from one fd to one listener.

Rules:

- One read per event: a child that never stops writing takes its turn like every other. Epoll is
  level-triggered, so what is left comes next turn. A second read at once, until one is short, was
  tried: on a grown pipe it gained nothing, because the wake-ups are what costs, not the turns.
- A stream is hot when it keeps filling a whole pipe before we come to it: then its child sleeps
  whenever we do not, and its pipe is grown (kernel/pipes.py). Four full reads in a row do it, or
  more with some small ones between (`head`, which writes 8 KiB, for a while fills every other).
  A pause forgets them: there the listener is slow, and a larger pipe would gain nothing.
- Reads of a grown pipe are large only while they bring much. Each read allocates what it asks for,
  and malloc maps 256 KiB each time (glibc, until a block of that size has been freed): to read one
  byte so took 13.5 us instead of 0.8, and each result that is kept would be a mapping of its own.
- Whatever the event was, it is answered by a read: a hang-up can come before the data that was
  written ahead of it (kernel/poller.py), and only a read tells that all has been read.
- A pause takes the fd out of the poller altogether: hang-up cannot be switched off, and a paused
  pipe whose writer is gone would wake the loop for ever. The kernel keeps the data.
- The fd is not closed here: its owner opened it.
"""

from __future__ import annotations

from collections.abc import Callable

from procreactor.kernel.pipes import (
    GROWN_BYTES,
    READ_SIZE_BYTES,
    forget_grown,
    try_grow,
    try_read,
)
from procreactor.kernel.poller import READ
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.loop.sharing import SharedFd
from procreactor.model import END, WOULD_BLOCK

__all__ = ["StreamReader"]

_FULL_READ = 8
"""How much warmer a full read makes; any other read makes colder by 1."""

_HOT = 32

_REFUSED = -4096
"""Where one whose pipe could not be grown begins again: half a thousand full reads later."""


class StreamReader:
    """Tells *on_data* (key, bytes) as they come, and *on_end* (key) once, at the end.

    *watch* is ``loop.adopt`` for an fd that the loop's set has already; else ``loop.watch``.
    *on_hangup* is asked first when the other side is gone; True: the owner has closed the fd.
    """

    __slots__ = (
        "_fd",
        "_heat",
        "_key",
        "_loop",
        "_on_data",
        "_on_end",
        "_on_hangup",
        "_read_bytes",
        "finished",
        "grown",
        "watch",
    )

    def __init__(
        self,
        loop: EventLoop | SharedFd,
        fd: int,
        key: int,
        on_data: Callable[[int, bytes], object],
        on_end: Callable[[int], object],
        watch: Callable[[int, Callable[[int], object], int], Watch] | None = None,
        on_hangup: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._key = key
        self._on_data = on_data
        self._on_end = on_end
        self._on_hangup = on_hangup
        self._read_bytes = READ_SIZE_BYTES
        self._heat = 0
        self.grown = False
        """Whether the pipe has been grown, and its share is to be given back."""

        self.finished = False
        self.watch: Watch | None = (watch or loop.watch)(fd, self.on_ready, READ)
        """None while it is paused, and once it is stopped."""

    def fileno(self) -> int:
        """Our end; -1 once it is closed."""
        return self._fd

    def on_ready(self, events: int) -> None:
        """Read once, and tell."""
        if not events & READ and self._on_hangup is not None and self._on_hangup():
            return
        data = try_read(self._fd, self._read_bytes)
        if data is END:
            self.finished = True
            self._on_end(self._key)
            self.stop()  # an owner that closes at once has taken the fd out of the loop itself
        elif data is not WOULD_BLOCK:
            if len(data) >= READ_SIZE_BYTES:
                self._warm_up()  # before the listener is told, who may close the fd
            elif self._heat > 0:
                self._heat -= 1
            else:
                self._read_bytes = READ_SIZE_BYTES
            self._on_data(self._key, data)

    def _warm_up(self) -> None:
        """Note a full read; grow the pipe of a stream that proves hot."""
        if self.grown:  # and its heat is 0
            self._read_bytes = GROWN_BYTES
            return
        self._heat += _FULL_READ
        if self._heat >= _HOT:
            self.grown = try_grow(self._fd) is not None
            self._heat = 0 if self.grown else _REFUSED

    def pause(self) -> None:
        """Tell nothing until `resume`; nothing is lost. Idempotent."""
        self._heat = min(self._heat, 0)
        if self.watch is not None:
            self._loop.unwatch(self.watch)
            self.watch = None

    def resume(self) -> None:
        """Go on after `pause`. Idempotent; nothing after `stop`."""
        if self.watch is None and not self.finished:
            self.watch = self._loop.watch(self._fd, self.on_ready, READ)

    def release(self) -> None:
        """Give back the share of a grown pipe; before the close, as its number is the key."""
        if self.grown:
            self.grown = False
            forget_grown(self._fd)

    def note_closed(self) -> None:
        """The owner has closed the fd, and nobody watches it."""
        self.finished = True
        self._fd = -1
        self.watch = None

    def stop(self) -> None:
        """Tell nothing any more; the fd may now be closed. Idempotent."""
        self.finished = True
        if self.grown:
            self.release()
        watch, self.watch = self.watch, None
        if watch is not None:
            self._loop.unwatch(watch)
