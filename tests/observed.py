"""A child on pipes, its loop, and an observer that writes down what it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from support import DEADLINE_S
from watched import watched_by_kernel

from procreactor.loop.eventloop import EventLoop
from procreactor.model import ExitStatus, PipeEnd, Redirect, SpawnSpec
from procreactor.transport.process import ChildProcess

__all__ = ["STANDARD", "Observed", "sh", "watched_fds"]

STANDARD = (
    Redirect(0, PipeEnd.WE_WRITE),
    Redirect(1, PipeEnd.WE_READ),
    Redirect(2, PipeEnd.WE_READ),
)


class Observed:
    """An observer that writes all down, and the loop that its child lives in."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.told: list[tuple[Any, ...]] = []
        self.data: dict[int, bytes] = {}
        self.status: ExitStatus | None = None

    def on_data(self, child_fd: int, data: bytes) -> None:
        self.told.append(("data", child_fd))
        self.data[child_fd] = self.data.get(child_fd, b"") + data

    def on_pipe_lost(self, child_fd: int) -> None:
        self.told.append(("pipe lost", child_fd))

    def on_exit(self, status: ExitStatus) -> None:
        self.told.append(("exit",))
        self.status = status

    def on_end(self, status: ExitStatus) -> None:
        self.told.append(("end",))
        assert status is self.status

    @property
    def ended(self) -> bool:
        return ("end",) in self.told

    def run_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            left_s = end - time.monotonic()
            assert left_s > 0, self.told
            self.loop.run_once(left_s)

    def start(self, script: str, redirects: Sequence[Redirect] = STANDARD) -> ChildProcess:
        child = ChildProcess(self.loop, self)
        child.start(sh(script, redirects))
        return child

    def finish(self, script: str, redirects: Sequence[Redirect] = STANDARD) -> ChildProcess:
        child = self.start(script, redirects)
        self.run_until(lambda: self.ended)
        return child


def sh(script: str, redirects: Sequence[Redirect] = STANDARD) -> SpawnSpec:
    env = [b"PATH=/usr/bin:/bin"]
    return SpawnSpec([b"/bin/sh"], [b"sh", b"-c", script.encode()], env, redirects)


def watched_fds(loop: EventLoop) -> set[int]:
    """What the loop watches; its own idea of it and the kernel's must be the same."""
    assert set(loop._watches) == set(watched_by_kernel(loop.epoll_fd))
    return set(loop._watches)
