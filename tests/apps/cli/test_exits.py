"""The exit status, from what became of the jobs."""

from __future__ import annotations

import errno

import pytest

from procreactor.apps.cli import exits
from procreactor.apps.halt import NEVER, parse_halt
from procreactor.model import ExitStatus


@pytest.mark.parametrize(
    ("ended", "value"),
    [
        (ExitStatus(code=0), 0),
        (ExitStatus(code=3), 3),
        (ExitStatus(signal=9), 137),
        (ExitStatus(), 255),
        (exits.out_of_time(ExitStatus(signal=15)), 255),
        (exits.out_of_time(ExitStatus(code=3)), 3),
    ],
)
def test_a_job_ends_as_a_shell_would_say(ended: ExitStatus, value: int) -> None:
    assert exits.exit_value(ended) == value


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (ExitStatus(signal=15), -1),
        (ExitStatus(code=0), -1),
        (ExitStatus(code=3), 3),
        (ExitStatus(), -1),
    ],
)
def test_a_job_whose_time_was_up_has_failed_however_it_took_that(
    ended: ExitStatus, code: int
) -> None:
    said = exits.out_of_time(ended)
    assert (said.code, said.signal, said.ok) == (code, ended.signal, False)


@pytest.mark.parametrize(
    ("number", "value"), [(errno.ENOENT, 127), (errno.EACCES, 126), (errno.E2BIG, 126)]
)
def test_a_job_that_cannot_be_started_as_well(number: int, value: int) -> None:
    assert exits.start_failure_value(number) == value


@pytest.mark.parametrize(
    ("halt", "failed", "started", "status"),
    [
        ("never", 0, 5, 0),
        ("never", 3, 5, 3),
        ("never", 100, 200, 100),
        ("never", 101, 200, 101),
        ("never", 5000, 9000, 101),
        ("now,fail=5", 3, 5, 3),
        ("now,success=5", 300, 500, 101),
        ("soon,fail=50%", 1, 3, 34),
        ("soon,fail=50%", 0, 0, 0),
        ("soon,success=50%", 3, 3, 100),
    ],
)
def test_the_status_at_the_end_of_the_input(
    halt: str, failed: int, started: int, status: int
) -> None:
    assert exits.status(parse_halt(halt), failed=failed, started=started) == status


@pytest.mark.parametrize(
    ("halt", "failed", "total", "last", "status"),
    [
        ("now,fail=1", 1, 9, 7, 7),
        ("soon,fail=1", 1, 9, 137, 137),
        ("now,done=1", 0, 9, 0, 0),
        ("now,fail=2", 2, 9, 7, 2),
        ("now,fail=150", 150, 900, 7, 101),
        ("now,done=4", 3, 9, 0, 3),
        ("now,success=1", 5, 9, 0, 0),
        ("now,success=50%", 5, 9, 0, 0),
        ("soon,fail=30%", 1, 3, 7, 34),
        ("now,done=50%", 0, 4, 0, 0),
        ("now,fail=1%", 1, 1000, 7, 1),
    ],
)
def test_the_status_of_a_run_that_was_halted(
    halt: str, failed: int, total: int, last: int, status: int
) -> None:
    said = exits.halted_status(parse_halt(halt), failed=failed, total=total, last=last)
    assert said == status


def test_nothing_fails_without_jobs() -> None:
    assert exits.status(NEVER, failed=0, started=0) == 0


@pytest.mark.parametrize(
    ("so_far", "ended", "number", "verdict"),
    [
        (0, ExitStatus(code=0), 0, (0, False)),
        (0, ExitStatus(code=1), 0, (123, False)),
        (0, ExitStatus(code=254), 0, (123, False)),
        (123, ExitStatus(code=0), 0, (123, False)),
        (123, ExitStatus(code=255), 0, (124, True)),
        (0, ExitStatus(signal=15), 0, (125, True)),
        (0, ExitStatus(code=127), 0, (123, False)),
        (0, None, errno.EACCES, (126, True)),
        (123, None, errno.ENOENT, (127, True)),
        (0, ExitStatus(), 0, (123, False)),
        # Those that were running when it was decided change nothing.
        (124, ExitStatus(signal=9), 0, (124, True)),
        (127, ExitStatus(code=0), 0, (127, True)),
    ],
)
def test_the_verdict_of_xargs(
    so_far: int, ended: ExitStatus | None, number: int, verdict: tuple[int, bool]
) -> None:
    assert exits.xargs_after(so_far, ended, number) == verdict
