"""A program file that no exec gets past, until it is let.

A window that is open for microseconds, between clone and exec, stays open for as long as a test
needs it: the file has a lease (fcntl(2), F_SETLEASE). Whoever opens the file, and exec does, waits
in the kernel for the holder of the lease to give it up. No special file system, no rights but
ownership of the file. The kernel breaks a lease after /proc/sys/fs/lease-break-time (45 s), so
nothing hangs for ever; a test that runs into that has failed by its own deadlines.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import DEADLINE_S

__all__ = ["HeldProgram", "held_copy", "wait_for"]


class HeldProgram:
    """The file at *path*, held from the start; owns one fd until `close`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.hold()
        except OSError as error:
            self.close()
            pytest.skip(f"no leases on this file system: {error}")

    def hold(self) -> None:
        """Hold it from now on; BlockingIOError while somebody else has it open."""
        # The holder is told by a signal, which a release forgets; this one does nothing unless it
        # is asked to.
        fcntl.fcntl(self._fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def is_reached(self) -> bool:
        """Whether an exec waits for us now."""
        return fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def wait_until_reached(self) -> None:
        """Return once an exec waits for us."""
        wait_for(self.is_reached)

    def release(self) -> None:
        """Let the exec go on."""
        fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def close(self) -> None:
        """Release, and close the fd."""
        os.close(self._fd)


@contextmanager
def held_copy(program: str, at: Path) -> Iterator[HeldProgram]:
    """A copy of *program* at *at*, held; released and deleted at the end."""
    shutil.copy(program, at)
    held = HeldProgram(at)
    try:
        yield held
    finally:
        held.close()
        at.unlink()


def wait_for(condition: object, deadline_s: float = DEADLINE_S) -> None:
    """Return once *condition* holds, for what no fd tells of; fails after *deadline_s*."""
    assert callable(condition)
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {condition}"
        os.sched_yield()
