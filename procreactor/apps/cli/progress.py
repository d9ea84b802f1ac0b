"""Pure: how far a run is.

The rules of the room:

* The rate is that of the whole run: jobs ended since the start, by the time since then. Jobs that
  were skipped because an earlier run did them count as done, never for the rate.
* The rest takes as long as the rate says. Without a total, or before the first end, nobody knows,
  and the answer is None.
"""

from __future__ import annotations

__all__ = ["ProgressState"]


class ProgressState:
    """The counts of one run that began at *started_s*, of *total* jobs if that is known."""

    __slots__ = ("failed", "running", "skipped", "started_s", "succeeded", "total")

    def __init__(
        self,
        started_s: float,
        total: int | None = None,
        running: int = 0,
        succeeded: int = 0,
        failed: int = 0,
        skipped: int = 0,
    ) -> None:
        self.started_s = started_s
        self.total = total
        self.running = running
        self.succeeded = succeeded
        self.failed = failed
        self.skipped = skipped
        """Done by an earlier run."""

    def on_start(self) -> None:
        """Count a job that has started."""
        self.running += 1

    def on_end(self, ok: bool) -> None:
        """Count a job that has ended for good."""
        self.running -= 1
        if ok:
            self.succeeded += 1
        else:
            self.failed += 1

    def on_put_back(self) -> None:
        """Count a job that has ended and will be tried again."""
        self.running -= 1

    @property
    def ended(self) -> int:
        """How many jobs have ended in this run."""
        return self.succeeded + self.failed

    @property
    def done(self) -> int:
        """How many jobs need no work any more."""
        return self.ended + self.skipped

    def left(self) -> int | None:
        """Return how many jobs have not ended, or None when the total is unknown."""
        return None if self.total is None else max(self.total - self.done, 0)

    def share(self) -> float | None:
        """Return which part of the jobs is done, 0 to 1, or None when the total is unknown."""
        if self.total is None:
            return None
        return min(self.done / self.total, 1.0) if self.total > 0 else 1.0

    def rate(self, now_s: float) -> float:
        """Return how many jobs have ended per second."""
        passed_s = now_s - self.started_s
        return self.ended / passed_s if passed_s > 0 else 0.0

    def eta_s(self, now_s: float) -> float | None:
        """Return in how many seconds the last job will have ended, or None when nobody knows."""
        left, rate = self.left(), self.rate(now_s)
        if left is None or (left and not rate):
            return None
        return left / rate if left else 0.0
