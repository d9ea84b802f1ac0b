"""Pure: whether the others had better wait while the job whose turn it is writes.

What they write meanwhile would be put aside, over the disk where it is much, and read again. Where
the job whose turn it is gives us all that we can pass on, or the reader all that he takes, that
helps nobody, and takes the CPUs from those who are at work: 16 jobs of 64 MiB in order took twice
as long with it. Where it is slower, because it computes, the others must not wait: eight gzip -dc,
two at once, took 5.3 s instead of 3.4, as if only one had run.

Which of the two it is cannot be seen while all are read, as all are slow then. So it is tried:

- Once the job has written so much that it might be worth it, the others wait, for a moment.
- When it proves in that moment to be fast, or the reader to be slow, they wait for another one.
- When not, they are not made to wait again for twenty times as long.
- So often they all have a turn in any case, not counting the time in which the reader was waited
  for: one that never stops must not keep the others from their ends, of which one may be a reason
  to halt.

The times are the caller's, in seconds of one clock that only goes forward.
"""

from __future__ import annotations

__all__ = ["Throttle"]

_TRIAL_BYTES = 131072
_MOMENT_S = 0.005
"""A trial begins when so much has come within so long, and lasts so long."""

_FAST_BYTES_PER_S = 2e8
"""What decompresses has 1e8 here, what only copies 2e9; with 1e8 the gzip -dc took 3.9 s, with
2e8 and 4e8 as long as without any waiting."""

_SLOW_READER = 0.5
"""The share of the moment in which the reader was waited for."""

_TURN_OF_ALL_S = 0.1


class Throttle:
    """Says `is_on` as of the last `look`, until which its owner counted up the other two."""

    __slots__ = ("_all_at_s", "_since_s", "_trial_from_s", "new_bytes", "until_s", "waited_s")

    def __init__(self) -> None:
        self.new_bytes = 0
        """How much the job whose turn it is has written, since they were last set to 0."""

        self.waited_s = 0.0
        """How long the reader was waited for, since then."""

        self.until_s = 0.0
        """When the others need not wait any more, unless a `look` says so again; 0: they do not."""

        self._since_s = self._trial_from_s = self._all_at_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the others had better wait."""
        return self.until_s > 0

    def look(self, now_s: float) -> bool:
        """Judge anew, where it is time to; return whether those who wait go on now."""
        was_on = self.is_on
        passed_s = now_s - self._since_s
        if was_on:
            if now_s < self.until_s:
                return False
            self._all_at_s += self.waited_s
            self._judge(now_s, passed_s)
        elif self.new_bytes >= _TRIAL_BYTES and now_s >= self._trial_from_s:
            self.until_s = now_s + _MOMENT_S
            self._all_at_s = now_s + _TURN_OF_ALL_S
        elif passed_s < _MOMENT_S:
            return False
        self.new_bytes = 0
        self.waited_s = 0.0
        self._since_s = now_s
        return was_on and not self.is_on

    def _judge(self, now_s: float, passed_s: float) -> None:
        is_fast = self.new_bytes >= passed_s * _FAST_BYTES_PER_S
        if not is_fast and self.waited_s < passed_s * _SLOW_READER:
            self.until_s = 0.0
            self._trial_from_s = now_s + _TURN_OF_ALL_S
        elif now_s < self._all_at_s:
            self.until_s = now_s + _MOMENT_S
        else:
            self.until_s = 0.0
