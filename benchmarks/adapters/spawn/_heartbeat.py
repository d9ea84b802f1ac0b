"""How long a loop was blocked: the longest gap between two calls that it makes in every turn."""

from __future__ import annotations

import time

__all__ = ["Heartbeat"]


class Heartbeat:
    """To be called in every turn of the loop."""

    def __init__(self) -> None:
        self._last_s = self._longest_s = 0.0

    def begin(self) -> None:
        """From now on."""
        self._last_s, self._longest_s = time.perf_counter(), 0.0

    def beat(self) -> None:
        """The loop lives."""
        now_s = time.perf_counter()
        self._longest_s = max(self._longest_s, now_s - self._last_s)
        self._last_s = now_s

    def end(self) -> float:
        """Return the longest gap since `begin`, in seconds."""
        self.beat()
        return self._longest_s
