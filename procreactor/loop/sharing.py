"""One fd with two users: the reading and the writing side of a socket or a terminal.

A reader and a writer each want to watch "their" fd, pause and resume on their own, and know nothing
of each other. The loop watches an fd once. `SharedFd` stands between: to each side it looks like
the loop, and to the loop it is one watch with the sum of the interests.

The nasty case: hang-up is reported whether wanted or not. It goes to the reader, which reads to
the end and so loses nothing; with the reader paused and the writer waiting it goes to the writer,
which ends (told as what it is: a write to a terminal without a slave would block for ever, not
fail); with both silent the fd is not watched at all, or the loop would spin.
"""

from __future__ import annotations

from collections.abc import Callable

from procreactor.kernel.poller import ERROR, HANGUP, READ
from procreactor.loop.eventloop import EventLoop, Watch

__all__ = ["SharedFd"]


class SharedFd:
    """The face of the loop for the two sides of *fd*; owns nothing."""

    def __init__(self, loop: EventLoop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._whole: Watch | None = None
        self._sides: list[Watch] = []
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later

    def watch(self, fd: int, on_ready: Callable[[int], object], events: int) -> Watch:
        """Tell *on_ready* when the fd is ready for *events*; one side per direction."""
        side = Watch(fd, on_ready, events)
        self._sides.append(side)
        self._apply()
        return side

    def rewatch(self, side: Watch, events: int) -> None:
        """Watch for *events* from now on."""
        if side.active and side.events != events:
            side.events = events
            self._apply()

    def unwatch(self, side: Watch) -> None:
        """Never tell this side again. Idempotent."""
        if side.active:
            side.retire()
            self._sides.remove(side)
            self._apply()

    def _apply(self) -> None:
        wanted = 0
        for side in self._sides:
            wanted |= side.events
        if self._whole is None:
            if wanted:
                self._whole = self._loop.watch(self._fd, self._on_ready, wanted)
        elif wanted:
            self._loop.rewatch(self._whole, wanted)
        else:
            self._loop.unwatch(self._whole)
            self._whole = None

    def _on_ready(self, events: int) -> None:
        gone = events & (HANGUP | ERROR)
        reader_listens = any(side.events & READ for side in self._sides)
        for side in list(self._sides):
            mine = events & side.events
            if gone and not mine and side.events:
                # The reader is to read; a writer that alone listens is told what it is.
                mine = READ if side.events & READ else 0 if reader_listens else gone
            if mine and side.active:
                side.on_ready(mine)
