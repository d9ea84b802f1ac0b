"""Pure: when many jobs stop before their input ends (``--halt``).

The rules of the room, GNU parallel's:

* ``fail`` is looked at when a job has failed, ``success`` when one has succeeded, ``done`` after
  each. A percentage is one of all jobs there will be, so the whole input must be known
  (`HaltPolicy.needs_total`).
* A decision stands: after SOON no job is started, whatever the jobs still running come to.
"""

from __future__ import annotations

import enum
import re

from procreactor.typed import Final, NamedTuple

__all__ = ["NEVER", "Decision", "Halt", "HaltPolicy", "parse_halt"]


class Decision(enum.Enum):
    """What to do after a job has ended."""

    GO_ON = "never"
    SOON = "soon"
    """Start no more; those that run may end by themselves."""

    NOW = "now"
    """Start no more, and kill what runs."""


class Halt(NamedTuple):
    """When to stop: *decision* once *threshold* jobs, or per cent of all, are *what* says."""

    decision: Decision
    what: str = "fail"
    """``"fail"``, ``"success"`` or ``"done"``."""

    threshold: float = 1
    is_percent: bool = False


NEVER: Final = Halt(Decision.GO_ON)

_SHORT = {
    "0": NEVER,
    "1": Halt(Decision.SOON),
    "2": Halt(Decision.NOW),
    "-1": Halt(Decision.SOON, "success"),
    "-2": Halt(Decision.NOW, "success"),
    "never": NEVER,
}
"""GNU parallel's older spellings; ``N%`` is ``soon,fail=N%``."""

_LONG = r"(soon|now),(fail|success|done)=([0-9]+(?:\.[0-9]+)?)(%?)"


def parse_halt(text: str) -> Halt:
    """Return what ``--halt`` *text* says; ValueError says what it may be."""
    if text in _SHORT:
        return _SHORT[text]
    long = f"soon,fail={text}" if re.fullmatch(r"[0-9.]+%", text) else text
    match = re.fullmatch(_LONG, long)
    if match is not None:
        when, what, number, percent = match.groups()
        threshold = float(number)
        if percent and 0 < threshold <= 100:
            return Halt(Decision(when), what, threshold, True)
        if not percent and threshold >= 1 and threshold == int(threshold):
            return Halt(Decision(when), what, int(threshold))
    raise ValueError(
        "never, or now or soon, a comma, and fail=, success= or done= with a number from 1 on or a"
        " percentage up to 100%, such as now,fail=1"
    )


class HaltPolicy:
    """Looks at each result and says what to do."""

    __slots__ = ("decision", "halt")

    def __init__(self, halt: Halt) -> None:
        self.halt = halt
        self.decision = Decision.GO_ON
        """The last decision."""

    @property
    def needs_total(self) -> bool:
        """Whether nothing can be decided before it is known how many jobs there will be."""
        return self.halt.is_percent

    def on_result(self, ok: bool, done: int, failed: int, total: int | None) -> Decision:
        """Return what to do after one more job ended, well or not.

        *done* and *failed* count it too; *total* is how many there will be, or None while unknown.
        """
        halt = self.halt
        if self.decision is Decision.GO_ON and halt.decision is not Decision.GO_ON:
            count = _count(halt.what, ok, done, failed)
            if count and _is_reached(halt, count, total):
                self.decision = halt.decision
        return self.decision


def _count(what: str, ok: bool, done: int, failed: int) -> int:
    """How many jobs count for *what*; 0 when this one says nothing about it."""
    if what == "done":
        return done
    if what == "fail":
        return 0 if ok else failed
    return done - failed if ok else 0


def _is_reached(halt: Halt, count: int, total: int | None) -> bool:
    if not halt.is_percent:
        return count >= halt.threshold
    return total is not None and 100 * count >= halt.threshold * total
