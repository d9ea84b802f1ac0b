"""Pure: how long jobs usually take, for ``--timeout N%``.

The rules of the room:

* The median is that of the last 999 run times: exact, in bounded memory, and it follows jobs that
  change. (GNU parallel approximates the median of all of them, with tables of 999.)
* Only jobs that succeeded count, as in GNU parallel: one that fails at once says nothing about how
  long work takes. That is for the caller to see to.
* One or two run times are no usual: there is no median before the third, so no limit either.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

__all__ = ["RunningMedian"]

_KEPT = 999
_NEEDED = 3


class RunningMedian:
    """The median of the values added last."""

    __slots__ = ("_by_age", "_by_size")

    def __init__(self) -> None:
        self._by_age: deque[float] = deque()
        self._by_size: list[float] = []

    def add(self, value: float) -> None:
        """Count *value*; the oldest falls out when there are too many."""
        if len(self._by_age) == _KEPT:
            oldest = self._by_age.popleft()
            del self._by_size[bisect_left(self._by_size, oldest)]
        self._by_age.append(value)
        insort(self._by_size, value)

    def median(self) -> float | None:
        """Return the middle value (of an even number the mean of two), None before the third."""
        values = self._by_size
        if len(values) < _NEEDED:
            return None
        half = len(values) // 2
        return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2

    def timeout_s(self, percent: float) -> float | None:
        """Return how long a job may run: *percent* of the median; None, no limit, without one."""
        median_s = self.median()
        return None if median_s is None else median_s * percent / 100
