"""When ``procreactor run`` starts the next job: --delay, --load and --memfree, from outside."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from alone import alone
from command_line import running
from held import HeldProgram, wait_for
from mounts import bind, needs_mounts, private_mounts
from support import DEADLINE_S

DELAY_S = 0.4
ROUNDING_S = 0.002
"""Of the start time in the log."""


def test_a_delay_lies_between_the_starts_of_two_jobs(tmp_path: Path) -> None:
    """The second may not start before it is there; so from then on the third has to wait."""
    with running(tmp_path, "-kj3", f"--delay={DELAY_S}", "--joblog=log", "echo") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"1\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"1\n"
        there_s = time.time()
        assert process.communicate(b"2\n3\n", DEADLINE_S) == (b"2\n3\n", b"")
    rows = (tmp_path / "log").read_text().splitlines()[1:]
    starts_s = sorted(float(row.split("\t")[2]) for row in rows)
    assert len(starts_s) == 3
    assert starts_s[2] >= there_s + DELAY_S - ROUNDING_S


def starts_when_it_may(where: str, file: str, busy: str, idle: str, *words: str) -> bool:
    """Whether a job runs once the *file* says *idle*, and not while it says *busy*.

    Who opens the file waits for us. The only job has not been started for what was said at the
    first look if there is a second one.
    """
    os.chdir(where)
    private_mounts()
    Path("file").write_text(busy)
    bind("file", file)
    held = HeldProgram(Path("file"))
    try:
        with running(Path(), "-j1", *words, "touch", ":::", "ran") as process:
            wait_for(lambda: held.is_reached() or process.poll() is not None)
            held.release()
            wait_for(lambda: has_hold_again(held))
            wait_for(lambda: held.is_reached() or process.poll() is not None)
            assert not Path("ran").exists()
            assert held.is_reached()
            held.release()
            Path("file").write_text(idle)
            assert process.communicate(timeout=DEADLINE_S) == (b"", b"")
            return Path("ran").exists()
    finally:
        held.close()


def has_hold_again(held: HeldProgram) -> bool:
    """Whether it could be held again, which it cannot as long as who has looked has it open."""
    try:
        held.hold()
    except BlockingIOError:
        return False
    return True


@needs_mounts
@pytest.mark.needs("/proc")
@pytest.mark.parametrize(
    ("file", "busy", "idle", "words"),
    [
        ("/proc/loadavg", "9.00 9.00 9.00 1/99 9\n", "0.00 0.00 0.00 1/99 9\n", "--load=2"),
        ("/proc/meminfo", "MemAvailable: 9 kB\n", "MemAvailable: 9999999 kB\n", "--memfree=1g"),
    ],
)
def test_no_job_starts_before_the_machine_lets_it(
    tmp_path: Path, file: str, busy: str, idle: str, words: str
) -> None:
    assert alone(starts_when_it_may, str(tmp_path), file, busy, idle, words)
