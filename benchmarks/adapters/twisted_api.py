"""Twisted: the same protocol on Twisted's own epoll reactor."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import ProcessProtocol

from benchmarks.adapters import main

reactor: Any = _reactor


def run(program: str, children: int, at_once: int) -> float:
    """Return the seconds from the first spawn to the last processEnded."""
    started = ended = 0

    class Life(ProcessProtocol):
        def processEnded(self, reason: object) -> None:
            nonlocal ended
            ended += 1
            if started < children:
                start()

    def start() -> None:
        nonlocal started
        started += 1
        reactor.spawnProcess(Life(), program, [program])

    if not reactor.running:
        reactor.startRunning()  # installs the SIGCHLD handler, as run() does
    begun_s = time.perf_counter()
    for _ in range(min(at_once, children)):
        start()
    while ended < children:
        reactor.iterate(60)
    return time.perf_counter() - begun_s


if __name__ == "__main__":
    main(run)
