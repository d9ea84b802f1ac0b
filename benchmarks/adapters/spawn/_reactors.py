"""The one API that procreactor and Twisted share: spawnProcess and a ProcessProtocol per child.

Both are given the same program, so that nothing but the library differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.adapters.spawn import ENVIRONMENT, NOBODY, PATH
from benchmarks.adapters.spawn._heartbeat import Heartbeat

__all__ = ["ReactorHeld", "ReactorSpawner"]

_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "path": {"path": PATH},
    "identity": {"uid": NOBODY, "gid": NOBODY},
    "pty": {"usePTY": True},
}


class ReactorSpawner:
    """The capabilities of an adapter, on *reactor*, with protocols derived from *base*."""

    def __init__(self, reactor: Any, base: Any) -> None:
        self.reactor = reactor
        self._base = base
        self._bad: list[object] = []

    def protocol(self, on_end: Callable[[], object]) -> Any:
        """Return a class whose instances call *on_end* at processEnded."""
        bad = self._bad

        class Life(self._base):  # type: ignore[misc,name-defined]
            def processEnded(self, reason: Any) -> None:
                if reason.value.exitCode != 0:
                    bad.append(reason.value)
                on_end()

        return Life

    def check(self) -> None:
        """RuntimeError if a child did not end with 0: a callback's exception would be logged."""
        if self._bad:
            raise RuntimeError(f"children ended badly: {len(self._bad)}, as {self._bad[0]!r}")

    def spawn_many(self, argv: Sequence[str], count: int, at_once: int, way: str) -> float:
        """See `benchmarks.adapters.spawn`."""
        reactor, options = self.reactor, _OPTIONS[way]
        started = ended = 0

        def on_end() -> None:
            nonlocal ended
            ended += 1
            if started < count:
                start()

        def start() -> None:
            nonlocal started
            started += 1
            reactor.spawnProcess(life(), argv[0], argv, env=ENVIRONMENT, **options)

        life = self.protocol(on_end)
        begun_s = time.perf_counter()
        for _ in range(min(at_once, count)):
            start()
        while ended < count:
            reactor.iterate(60)
        seconds = time.perf_counter() - begun_s
        self.check()
        return seconds

    def hold(self, argv: Sequence[str], count: int) -> ReactorHeld:
        """See `benchmarks.adapters.spawn`."""
        return ReactorHeld(self, argv, count)

    def stall(self, argv: Sequence[str], count: int) -> list[float]:
        """See `benchmarks.adapters.spawn`."""
        reactor, heart, stalls_s = self.reactor, Heartbeat(), []
        next_turn: Any = None
        ended = 0

        def turn() -> None:
            nonlocal next_turn
            heart.beat()
            next_turn = reactor.callLater(0, turn)

        def on_end() -> None:
            nonlocal ended
            ended += 1

        life = self.protocol(on_end)
        turn()
        for number in range(count):
            heart.begin()
            reactor.spawnProcess(life(), argv[0], argv, env=ENVIRONMENT)
            while ended <= number:
                reactor.iterate(60)
            stalls_s.append(heart.end())
        next_turn.cancel()
        self.check()
        return stalls_s


class ReactorHeld:
    """Live children of one reactor."""

    def __init__(self, spawner: ReactorSpawner, argv: Sequence[str], count: int) -> None:
        self._spawner, self._reactor = spawner, spawner.reactor
        self._left = count
        life = spawner.protocol(self._on_end)
        self._transports = [
            self._reactor.spawnProcess(life(), argv[0], argv, env=ENVIRONMENT) for _ in range(count)
        ]

    def _on_end(self) -> None:
        self._left -= 1

    def idle(self, seconds: float) -> None:
        """See `benchmarks.adapters.spawn.Held`."""
        end_s = time.perf_counter() + seconds
        while (left_s := end_s - time.perf_counter()) > 0:
            self._reactor.iterate(left_s)

    def end_all(self) -> float:
        """See `benchmarks.adapters.spawn.Held`."""
        begun_s = time.perf_counter()
        for transport in self._transports:
            transport.closeStdin()
        while self._left:
            self._reactor.iterate(60)
        seconds = time.perf_counter() - begun_s
        self._transports.clear()
        self._spawner.check()
        return seconds
