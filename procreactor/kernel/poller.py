"""Readiness of many fds: epoll, and what epoll will not take.

Facts (epoll(7)):

- Interest belongs to the open file, not to the number. A just-spawned child holds copies of our
  files for a moment after vfork returns, so closing a number does not end the interest: always
  `remove` before close, or events for a dead file arrive under a number that is somebody else's by
  then.
- EPOLLHUP and EPOLLERR are always reported. For the write end of a pipe EPOLLERR means that no
  reader is left, so interest in nothing still tells when a child closes its stdin.
- HUP can come without IN while data is unread: whoever sees HUP must read to the end.
- Regular files are always ready, and refused with EPERM. They are kept in a set and reported
  ready each turn, as poll(2) would.

Events of one turn are looked up when the turn begins and checked again before each is delivered
(eventloop.py), because an earlier callback may have closed a number and opened it anew.
"""

from __future__ import annotations

import os
import select

from procreactor.core import binding
from procreactor.kernel.fds import Fds

__all__ = ["ERROR", "HANGUP", "READ", "WRITE", "Poller"]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP
ERROR = select.EPOLLERR

_LONGEST_WAIT_S = 86400.0


class Poller:
    """A set of fds with the events that each is watched for."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        self._poll = self._epoll.poll
        self._always_ready: dict[int, int] = {}
        self._ready_fds = Fds()
        self._ready_fd = -1  # in the set and readable while one of those is wanted

    def fileno(self) -> int:
        """The epoll fd, readable while any watched fd is ready."""
        return self._epoll.fileno()

    def add(self, fd: int, events: int) -> None:
        """Watch *fd* for *events*; FileExistsError when it is watched, OSError when not open."""
        try:
            self._epoll.register(fd, events)
        except PermissionError:
            if fd in self._always_ready:
                raise FileExistsError(f"fd {fd} is watched already") from None
            self._always_ready[fd] = events
            self._show_readiness()

    def change(self, fd: int, events: int) -> None:
        """Watch *fd* for *events* from now on."""
        if fd in self._always_ready:
            self._always_ready[fd] = events
            self._show_readiness()
        else:
            self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Watch *fd* no longer. Call before closing it; one that was closed first is let go."""
        if self._always_ready and self._always_ready.pop(fd, None) is not None:
            self._show_readiness()
            return
        try:
            self._epoll.unregister(fd)
        except (FileNotFoundError, ValueError, OSError):
            pass  # closed by its owner, which took it out of the set as well

    def drop(self, fd: int) -> None:
        """Watch *fd*, of the caller, no longer, and close it: `remove` and close in one step."""
        if self._always_ready and self._always_ready.pop(fd, None) is not None:
            self._show_readiness()
        binding.drop(self._epoll_fd, fd)

    def wait(self, timeout_s: float) -> list[tuple[int, int]]:
        """Return (fd, events) pairs that are ready; waits at most *timeout_s*, for ever if < 0.

        May return nothing before the time is over: epoll counts milliseconds in 31 bits.
        """
        if timeout_s > _LONGEST_WAIT_S:
            timeout_s = _LONGEST_WAIT_S
        if not self._always_ready:
            return self._poll(timeout_s)
        ready = [(fd, events) for fd, events in self._always_ready.items() if events]
        return ready + [pair for pair in self._epoll.poll(timeout_s) if pair[0] != self._ready_fd]

    def _show_readiness(self) -> None:
        """Make the epoll fd itself readable while a file is wanted, for a loop that watches it."""
        wanted = any(self._always_ready.values())
        if wanted and self._ready_fd < 0:
            flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
            self._ready_fd = self._ready_fds.open(os.eventfd, 1, flags)
            self._epoll.register(self._ready_fd, READ)
        elif not wanted and self._ready_fd >= 0:
            self._epoll.unregister(self._ready_fd)
            self._ready_fd = -1
            fds, self._ready_fds = self._ready_fds, Fds()
            fds.close()

    def close(self) -> None:
        """Close the epoll fd. Idempotent."""
        try:
            self._epoll.close()
        except OSError:
            pass  # closed all the same (kernel/fds.py)
        self._ready_fd = -1
        self._ready_fds.close()

    def __del__(self) -> None:
        if hasattr(self, "_ready_fds"):
            self._ready_fds.close_forgotten()
