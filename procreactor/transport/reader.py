"""Bytes from one fd to one listener.

Rules:

- One read per event, of what a pipe of the default size holds: a child that never stops writing
  takes its turn like every other. Epoll is level-triggered, so what is left comes next turn.
- Whatever the event was, it is answered by a read: a hang-up can come before the data that was
  written ahead of it (kernel/poller.py), and only a read tells that all has been read.
- A pause takes the fd out of the poller altogether: hang-up cannot be switched off, and a paused
  pipe whose writer is gone would wake the loop for ever. The kernel keeps the data.
- The fd is not closed here: its owner opened it.
"""

from __future__ import annotations

from collections.abc import Callable

from procreactor.kernel.pipes import try_read
from procreactor.kernel.poller import READ
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.loop.sharing import SharedFd
from procreactor.model import END, WOULD_BLOCK

__all__ = ["StreamReader"]


class StreamReader:
    """Tells *on_data* (key, bytes) as they come, and *on_end* (key) once, at the end."""

    __slots__ = ("_fd", "_key", "_loop", "_on_data", "_on_end", "_watch", "finished")

    def __init__(
        self,
        loop: EventLoop | SharedFd,
        fd: int,
        key: int,
        on_data: Callable[[int, bytes], object],
        on_end: Callable[[int], object],
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._key = key
        self._on_data = on_data
        self._on_end = on_end
        self.finished = False
        self._watch: Watch | None = loop.watch(fd, self.on_ready, READ)

    def fileno(self) -> int:
        """Our end."""
        return self._fd

    def on_ready(self, events: int) -> None:
        """Read once, and tell."""
        data = try_read(self._fd)
        if data is END:
            self.stop()
            self._on_end(self._key)
        elif data is not WOULD_BLOCK:
            self._on_data(self._key, data)

    def pause(self) -> None:
        """Tell nothing until `resume`; nothing is lost. Idempotent."""
        if self._watch is not None:
            self._loop.unwatch(self._watch)
            self._watch = None

    def resume(self) -> None:
        """Go on after `pause`. Idempotent; nothing after `stop`."""
        if self._watch is None and not self.finished:
            self._watch = self._loop.watch(self._fd, self.on_ready, READ)

    def stop(self) -> None:
        """Tell nothing any more; the fd may now be closed. Idempotent."""
        self.pause()
        self.finished = True
