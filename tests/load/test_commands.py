"""Very many commands of ``procreactor run``: its memory, and a kill half way.

The children are without libc, so that it is the runner whose work this is.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from command_line import environment, log_of
from support import DEADLINE_S, PROC, PYTHON

from benchmarks.build import target

RUN = [PYTHON, "-m", "procreactor", "run", "-j8"]
"""As users run it: what -X dev adds to the work of a test is for others to bear."""

FEW, MANY = 2_000, 100_000
ONE_OF = 100
"""So many write, a byte each; the others are told to write nothing."""


def peak_kib(options: list[str], commands: int, where: Path) -> int:
    """The most memory the runner had when it had run so many commands from a pipe."""
    pipe = subprocess.PIPE
    writers = commands // ONE_OF
    with subprocess.Popen(
        [*RUN, *options, target("flood")],
        cwd=where,
        env=environment(where),
        stdin=pipe,
        stdout=pipe,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write((b"0\n" * (ONE_OF - 1) + b"1\n") * writers)
        process.stdin.flush()
        assert len(process.stdout.read(writers)) == writers  # the last command's is among them
        status = Path(PROC, str(process.pid), "status").read_text()
        assert process.communicate(timeout=DEADLINE_S) == (b"", None)
    assert process.returncode == 0
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("options", [["-k"]])
def test_a_hundred_thousand_commands_take_no_more_memory_than_few(
    options: list[str], tmp_path: Path
) -> None:
    few = peak_kib(options, FEW, tmp_path)
    assert peak_kib(options, MANY, tmp_path) < few + 2048


JOBS = 4_000
LOG = ["--joblog", "log", "--resume", "--results", "saved.jsonl"]


def run_on(where: Path, *, until_half: bool) -> None:
    """All jobs that the log does not have; or until it has half of all, and then a kill."""
    words = [*RUN, *LOG, target("flood"), ":::", *(str(number) for number in range(JOBS))]
    log = where / "log"
    with subprocess.Popen(words, cwd=where, env=environment(where)) as process:
        while until_half and (not log.exists() or log.read_bytes().count(b"\n") <= JOBS // 2):
            assert process.poll() is None
            os.sched_yield()
        if until_half:
            process.kill()
    assert process.returncode == (-signal.SIGKILL if until_half else 0)


def test_after_a_kill_half_way_exactly_the_rest_is_run(tmp_path: Path) -> None:
    run_on(tmp_path, until_half=True)
    before = (tmp_path / "log").read_bytes()
    kept = before[: before.rindex(b"\n") + 1]
    run_on(tmp_path, until_half=False)
    assert (tmp_path / "log").read_bytes().startswith(kept)
    logged = Counter(int(line[0]) for line in log_of(tmp_path / "log"))
    assert logged == Counter(range(1, JOBS + 1))
    # What was stored when the kill came, and not logged yet, was run again: no more than that.
    stored = Counter(
        map(int, re.findall(rb'(?m)^{"Seq": ?(\d+)', (tmp_path / "saved.jsonl").read_bytes()))
    )
    assert stored.keys() == logged.keys()
    assert max(stored.values()) <= 2
    assert sum(stored.values()) - JOBS < JOBS // 4
