"""Pseudo terminals: the pair of fds, and nothing of termios.

Facts: csrc/pty.c. The slave has the kernel's default modes (echo on, ONLCR), which is what
Twisted's children see; 0 rows and columns mean "unknown" to programs.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from procreactor.core import binding
from procreactor.errors import SpawnError

__all__ = ["PtyPair", "open_pty"]


_NO_DEVPTS = "no devpts file system is mounted here"

_HINTS = {
    errno.ENODEV: _NO_DEVPTS,
    errno.ENOENT: _NO_DEVPTS,
    errno.ENOSPC: "there are as many terminals as there may be (kernel.pty.max)",
}


@dataclass(frozen=True, slots=True)
class PtyPair:
    """Two open fds: *master* (non-blocking) is ours, *slave* (blocking) is the child's."""

    master: int
    slave: int


def open_pty(rows: int = 0, columns: int = 0) -> PtyPair:
    """Return a new pair, both ends owned by the caller; SpawnError (ENOSPC, EMFILE, ENODEV)."""
    try:
        return PtyPair(*binding.open_pty(rows, columns))
    except SpawnError as error:
        error.hint = error.hint or _HINTS.get(error.errno or 0, "")
        raise
