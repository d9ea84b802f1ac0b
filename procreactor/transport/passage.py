"""From the pipe of a child straight to an fd of ours: pages are moved, and nothing is read.

Facts (splice(2), pipe(7)):

- From pipe to pipe nothing is copied: the pages of the one become those of the other. What a child
  has made of its own is passed on as it is: packets (O_DIRECT, of which who reads less than one
  loses the rest), and pages that it may still write to (vmsplice). As if it wrote to *fd* itself.
- Where either end does not block, neither does the call, and "not now" may be said of either: so
  the target is waited for then, and what it says after that is that the source is empty.
- A file that was opened to append takes no pages (EINVAL), nor do terminals on some kernels.
- A target of 64 KiB, as pipes are, means two switches of process per 64 KiB. One that proves hot is
  grown (kernel/pipes.py): 16 jobs of 64 MiB in order took 1.04 s before, and 0.57 s after it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from procreactor.kernel.pipes import forget_grown, try_grow

__all__ = ["Passage"]

_MOST_BYTES = 1 << 20
_HOT_BYTES = 1 << 20
"""When so much has passed, the target is grown."""


class Passage:
    """What leads to *fd*, which stays its owner's, and is waited for. `close` it.

    *wait* returns once *fd* takes something; what it raises comes out of `move`.
    """

    def __init__(self, fd: int, wait: Callable[[], object] | None = None) -> None:
        self._fd = fd
        self._wait = wait or self._wait_for_room
        self._passed_bytes = 0
        self._is_grown = False
        self.is_open = True
        """Whether *fd* takes pages, as far as is known."""

    def move(self, pipe: int) -> int:
        """Move what is in *pipe*, or a share of it; return how many bytes that was.

        0: it is empty, or at its end, or this way is not open any more. BrokenPipeError.
        """
        moved_bytes = 0
        while self.is_open and moved_bytes < _MOST_BYTES:
            count = self._move_some(pipe)
            if not count:
                break
            moved_bytes += count
        self._passed_bytes += moved_bytes
        if self._passed_bytes >= _HOT_BYTES and not self._is_grown:
            self._is_grown = True  # or cannot be: it is not asked for again
            try_grow(self._fd)
        return moved_bytes

    def _move_some(self, pipe: int) -> int:
        try:
            try:
                return os.splice(pipe, self._fd, _MOST_BYTES)
            except BlockingIOError:
                self._wait()
                return os.splice(pipe, self._fd, _MOST_BYTES)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise
        except OSError:
            self.is_open = False  # what else is wrong, a write will tell
            return 0

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()

    def close(self) -> None:
        """Let go of what *fd* was given. Idempotent."""
        self.is_open = False
        forget_grown(self._fd)
