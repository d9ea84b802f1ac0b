"""Pure: the exit status of ``procreactor run``, as GNU parallel's or as that of xargs.

GNU parallel 20221122, parallel(1), EXIT STATUS, and what it does:

    0        no job failed; or --halt success=... was reached
    1-100    that many jobs failed; with a percentage in --halt, that many per cent of them (rounded
             up): of all jobs when it was reached, of those started when it was not
    101      more than 100 failed
    255      another error
    the failing job's own status (128 + the signal's number) with --halt fail=1 or done=1

A job that ran out of time has code -1 there, whatever ended it, unless it ended with a code of its
own that is not 0: so it has failed also when it took the signal well.

One thing it does is not done here: with --halt done=N, N > 1, it exits with 101 when no job has
failed (the least of "none yet" and 101). Ours is 0, as its own with a percentage, or with N = 1.

xargs (findutils 4.9), xargs(1):

    0        all is well
    123      some command exited with another status than 0
    124      one exited with 255: nothing more is started
    125      one was killed by a signal: likewise
    126, 127 the command cannot be run, or is not found: likewise
    1        another error
"""

from __future__ import annotations

import errno

from procreactor.apps.halt import Halt
from procreactor.model import ExitStatus
from procreactor.typed import Final

__all__ = [
    "OTHER_ERROR",
    "XARGS_OTHER_ERROR",
    "exit_value",
    "halted_status",
    "out_of_time",
    "start_failure_value",
    "status",
    "xargs_after",
]

OTHER_ERROR: Final = 255
XARGS_OTHER_ERROR: Final = 1

_MOST = 101
_OUT_OF_TIME = -1


def out_of_time(ended: ExitStatus) -> ExitStatus:
    """Return *ended*, of a job that was stopped because its time was up, as a failure."""
    return ended._replace(code=ended.code or _OUT_OF_TIME)


def exit_value(ended: ExitStatus) -> int:
    """Return *ended* as a shell says it in ``$?``; a status that was lost is 255."""
    if ended.code is not None:
        return ended.code & 0xFF
    return OTHER_ERROR if ended.signal is None else 128 + ended.signal


def start_failure_value(number: int) -> int:
    """Return what a shell exits with when exec fails with errno *number*: 127 or 126."""
    return 127 if number == errno.ENOENT else 126


def status(halt: Halt, *, failed: int, started: int) -> int:
    """Return the exit status of a run that came to the end of its input."""
    if halt.is_percent:
        return _per_cent(failed, started)
    return min(failed, _MOST)


def halted_status(halt: Halt, *, failed: int, total: int, last: int) -> int:
    """Return the exit status of a run that *halt* ended, as of the job that decided it.

    *failed* counts no job that was killed because of it; *last* is the `exit_value` of the job.
    """
    if halt.what == "success":
        return 0
    if halt.is_percent:  # where one job is as much as that, it is as if one had been asked for
        return last if halt.threshold * total == 100 else _per_cent(failed, total)
    return last if halt.threshold == 1 else min(failed, _MOST)


def _per_cent(failed: int, jobs: int) -> int:
    return -(-100 * failed // (jobs or 1))


def xargs_after(so_far: int, ended: ExitStatus | None, start_errno: int = 0) -> tuple[int, bool]:
    """Return the exit status after one more command, and whether to start nothing more.

    With *ended* None it could not be started. What has been stopped stays so, whatever the
    commands still running come to.
    """
    if so_far >= 124:
        return so_far, True
    if ended is None:
        return start_failure_value(start_errno), True
    if ended.signal is not None:
        return 125, True
    if ended.code == 255:
        return 124, True
    return so_far if ended.ok else 123, False
