"""What was asked for and what was told, spawn by spawn. Pure: no child, no clock.

Each spawn goes through its states once: NEW, RUNNING, EXITED, ENDED, or NEW, REFUSED; a command of
the batch engine, which tells all in one, NEW, RUNNING, ENDED. Whatever is told out of turn, twice,
or of nobody, is wrong, and so is a spawn that is in another state when all should be over. One byte
per spawn, made at the start: the ledger must not grow while memory is watched.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

__all__ = ["Ledger", "State"]

_MOST_KEPT = 20


class State(IntEnum):
    """Where a spawn is."""

    NEW = 0
    RUNNING = 1
    EXITED = 2
    ENDED = 3
    REFUSED = 4


class Ledger:
    """The accounts of *spawns* spawns, numbered from 0."""

    def __init__(self, spawns: int) -> None:
        self._states = bytearray(spawns)
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []
        """The first complaints."""

        self.wrong_count = 0
        self.bytes_asked = 0
        """How much children were to write, by what they were told or sent."""

        self.bytes_came = 0
        self.bytes_sent = 0
        """How much was written into children that echo it."""

        self.bytes_echoed = 0

    def complain(self, text: str) -> None:
        """Note that something is wrong."""
        self.wrong_count += 1
        if len(self.wrong) < _MOST_KEPT:
            self.wrong.append(text)

    def move(self, number: int, before: State, after: State) -> None:
        """Note that spawn *number*, which should be in *before*, is in *after*."""
        found = self._states[number]
        if found != before:
            self.complain(f"spawn {number}: told {after.name} when {State(found).name}")
        self._states[number] = after

    def check_all_over(self, done: int) -> None:
        """Complain of each of the first *done* spawns that is not over, and of lost bytes."""
        states = self._states[:done]
        if states.count(State.ENDED) + states.count(State.REFUSED) != done:
            for number, state in enumerate(states):
                if state not in (State.ENDED, State.REFUSED):
                    self.complain(f"spawn {number}: still {State(state).name}")
        if self.bytes_came != self.bytes_asked:
            self.complain(f"{self.bytes_came:,} bytes came of {self.bytes_asked:,}")
        if self.bytes_echoed != self.bytes_sent:
            self.complain(f"{self.bytes_echoed:,} bytes echoed of {self.bytes_sent:,} sent")

    def count(self, state: State) -> int:
        """Return how many spawns are in *state*."""
        return self._states.count(state)
