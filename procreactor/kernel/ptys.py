"""Pseudo terminals: the pair of fds, and nothing of termios.

Facts: csrc/pty.c. The slave has the kernel's default modes (echo on, ONLCR), which is what
Twisted's children see; 0 rows and columns mean "unknown" to programs.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from procreactor.core import binding
from procreactor.errors import SpawnError
from procreactor.kernel.fds import close_fd

__all__ = ["PtyPair", "PtyRoom", "open_pty"]


_NO_DEVPTS = "no devpts file system is mounted here"

_HINTS = {
    errno.ENODEV: _NO_DEVPTS,
    errno.ENOENT: _NO_DEVPTS,
    errno.ENOSPC: "there are as many terminals as there may be (kernel.pty.max)",
}


class PtyPair(NamedTuple):
    """Two open fds: *master* (non-blocking) is ours, *slave* (blocking) is the child's."""

    master: int
    slave: int


class PtyRoom:
    """Where `open_pty` puts a new pair at once, for an owner whom a signal handler interrupts."""

    def __init__(self) -> None:
        self._fds = binding.room_for_pty()

    def close(self) -> None:
        """Close what has been opened."""
        for fd in self._fds:
            if fd >= 0:
                close_fd(fd)


def open_pty(rows: int = 0, columns: int = 0, room: PtyRoom | None = None) -> PtyPair:
    """Return a new pair, both ends owned by the caller; SpawnError (ENOSPC, EMFILE, ENODEV)."""
    try:
        return PtyPair(*binding.open_pty(rows, columns, room._fds if room is not None else None))
    except SpawnError as error:
        error.hint = error.hint or _HINTS.get(error.errno or 0, "")
        raise
