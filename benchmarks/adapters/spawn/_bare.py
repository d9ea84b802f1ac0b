"""Live children held by os.posix_spawn and pipes, for adapters without a thing of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from benchmarks.adapters.spawn import ENVIRONMENT

__all__ = ["BareHeld", "reap"]


def reap(kind: int, pid: int) -> int:
    """Return the pid of a child that was waited for; RuntimeError unless it ended with 0."""
    result = os.waitid(kind, pid, os.WEXITED)
    if result is None or result.si_code != os.CLD_EXITED or result.si_status != 0:
        raise RuntimeError(f"a child ended with {result}")
    return result.si_pid


class BareHeld:
    """So many live children of this process, of which it keeps our ends of three pipes each."""

    def __init__(self, argv: Sequence[str], count: int) -> None:
        self._children = [_start(argv) for _ in range(count)]

    def end_all(self) -> float:
        """See `benchmarks.adapters.spawn.Held`."""
        begun_s = time.perf_counter()
        for _, ours in self._children:
            os.close(ours[0])
        for pid, (_, out_fd, err_fd) in self._children:
            for fd in (out_fd, err_fd):
                while os.read(fd, 65536):
                    pass
                os.close(fd)
            reap(os.P_PID, pid)
        self._children.clear()
        return time.perf_counter() - begun_s


def _start(argv: Sequence[str]) -> tuple[int, list[int]]:
    pipes = [os.pipe() for _ in range(3)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    actions = [(os.POSIX_SPAWN_DUP2, fd, child_fd) for child_fd, fd in enumerate(theirs)]
    pid = os.posix_spawn(argv[0], list(argv), ENVIRONMENT, file_actions=actions)
    for fd in theirs:
        os.close(fd)
    return pid, ours
