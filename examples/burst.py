"""2,000 real children, three pipes and all callbacks each, 32 at a time.

Usage: burst.py [CHILDREN [AT_ONCE]]. On a terminal one line shows the progress; the closing line
has children per second, the median and 99th percentile of a child's life (from the call of
spawnProcess to processEnded), and the failures.
"""

import statistics
import sys
import time

from procreactor.internet import protocol, reactor
from procreactor.internet.error import ProcessDone
from procreactor.python.failure import Failure

PROGRAM = "/bin/true"
SHOW_EVERY_S = 0.1


class Burst:
    """Keeps a number of children alive until all have been."""

    def __init__(self, children: int, at_once: int) -> None:
        self.children = children
        self.at_once = at_once
        self.started = 0
        self.failures = 0
        self.lives_s: list[float] = []
        self.begun_s = time.perf_counter()

    def start(self) -> None:
        """Start the first children; each that ends starts the next."""
        for _ in range(min(self.at_once, self.children)):
            self.spawn()
        self.show()

    def spawn(self) -> None:
        """Start one child."""
        self.started += 1
        reactor.spawnProcess(Life(self), PROGRAM)

    def note(self, life_s: float, ok: bool) -> None:
        """One child has ended."""
        self.lives_s.append(life_s)
        self.failures += not ok
        if self.started < self.children:
            self.spawn()
        elif len(self.lives_s) == self.children:
            reactor.stop()

    def rate(self) -> float:
        """Children per second so far."""
        return len(self.lives_s) / (time.perf_counter() - self.begun_s)

    def show(self) -> None:
        """Rewrite the progress line, on a terminal."""
        if sys.stdout.isatty():
            line = f"\r{len(self.lives_s):6} of {self.children} children, {self.rate():6.0f}/s"
            print(line, end="", flush=True)
            reactor.callLater(SHOW_EVERY_S, self.show)

    def close(self) -> None:
        """Print the closing line."""
        lives_ms = [life_s * 1000 for life_s in self.lives_s]
        start = "\r" if sys.stdout.isatty() else ""
        p99_ms = statistics.quantiles(lives_ms, n=100)[98]
        print(
            f"{start}{len(lives_ms)} children of {PROGRAM}:"
            f" {self.rate():.0f} per second, life time median {statistics.median(lives_ms):.2f} ms,"
            f" p99 {p99_ms:.2f} ms, {self.failures} failures"
        )


class Life(protocol.ProcessProtocol):
    """One child's life, timed."""

    def __init__(self, burst: Burst) -> None:
        self.burst = burst
        self.begun_s = time.perf_counter()

    def processEnded(self, reason: Failure) -> None:
        """It is over."""
        ok = isinstance(reason.value, ProcessDone)
        self.burst.note(time.perf_counter() - self.begun_s, ok)


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    burst = Burst(*(numbers + [2000, 32][len(numbers) :]))
    reactor.callWhenRunning(burst.start)
    reactor.run()
    burst.close()
    sys.exit(1 if burst.failures else 0)
