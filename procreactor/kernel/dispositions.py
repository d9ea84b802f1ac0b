"""Which signals this process may ignore, so that a child has to set no others to default.

Facts:

- An ignored signal stays ignored over exec; CLONE_CLEAR_SIGHAND clears handlers only. A child that
  resets all 62 takes a tenth longer to start, and no one system call tells which are ignored.
- Python's own table has all that Python set, and all that was ignored when the interpreter began.
- So: what the kernel said when a loop was made, what the table says now, and the two that CPython
  ignores at its start. What is missed is a signal that C code begins to ignore behind Python's back
  after the last loop was made. (Twisted asks the table alone; subprocess resets the two.)
- For a child that waits for a thread the table may change until then, so nearly all are reset;
  `ignored_until_begun` says which are missed. A program that knows that its own will not change
  need not have that (`ignored_now`): of the system calls that a child costs it is a third.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # no stub; signal's own wrapper is ten times slower
import signal

from procreactor.core import binding

__all__ = ["ignored_now", "ignored_until_begun", "learn"]

_NUMBERS = range(1, 65)
_ALWAYS = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)

_FORCED = (
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGSEGV,
    signal.SIGSYS,
)
"""Which cannot be ignored, or are raised by a fault, and then the kernel asks nobody."""

_STANDARD = ((1 << 31) - 1) & ~sum(1 << (number - 1) for number in _FORCED)
"""All but those and the real-time ones."""


class _Known:
    """What was learnt last; `entry` is replaced in one step, because threads may race."""

    by_kernel = 0
    entry: tuple[int, int, list[int], list[int]] = (0, 0, [], [])
    """by_kernel as it was then; the set; which of it only Python's table has; which are not in."""


def learn() -> None:
    """Ask the kernel: 62 system calls, about ten microseconds."""
    _Known.by_kernel = binding.ignored_signals() | _ALWAYS


def ignored_now() -> int:
    """Return the set for a child that is started at once, bit n-1 for signal n; never 0."""
    by_kernel, mask, by_python, others = _Known.entry
    if (
        by_kernel != _Known.by_kernel
        or not by_kernel
        # One pass in C: of all that is asked for a spawn, this is the longest list.
        or _signal.SIG_IGN in map(_signal.getsignal, others)
        or not all(map(_is_ignored, by_python))
    ):
        return _look_again()
    return mask


def _look_again() -> int:
    if not _Known.by_kernel:
        learn()
    by_kernel = _Known.by_kernel
    by_python = [number for number in _NUMBERS if _is_ignored(number)]
    mask = by_kernel | sum(1 << (number - 1) for number in by_python)
    others = [number for number in _NUMBERS if not mask >> (number - 1) & 1]
    by_python = [number for number in by_python if not by_kernel >> (number - 1) & 1]
    _Known.entry = (by_kernel, mask, by_python, others)
    return mask


def _is_ignored(number: int) -> bool:
    return _signal.getsignal(number) is _signal.SIG_IGN


def ignored_until_begun() -> int:
    """Return the set for a child that waits for its turn: the program may begin to ignore more.

    So all standard signals are in it that a program may ignore to some effect; of the others, the
    ones that were known to be ignored when a loop was made last, or a child started at once.
    """
    if not _Known.by_kernel:
        learn()
    return _Known.by_kernel | _Known.entry[1] | _STANDARD
