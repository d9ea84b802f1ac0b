"""The drop-in API: spawnProcess, a ProcessProtocol per child, all callbacks."""

from __future__ import annotations

import time

from benchmarks.adapters import main
from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.protocol import ProcessProtocol


def run(program: str, children: int, at_once: int) -> float:
    """Return the seconds from the first spawn to the last processEnded."""
    reactor = EPollReactor()
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

    begun_s = time.perf_counter()
    for _ in range(min(at_once, children)):
        start()
    while ended < children:
        reactor.iterate(60)
    return time.perf_counter() - begun_s


if __name__ == "__main__":
    main(run)
