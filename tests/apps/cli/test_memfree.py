"""``procreactor run --memfree`` on a machine whose memory grows short when a test wants it to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from alone import alone
from command_line import log_of, running
from held import held_copy, wait_for
from mounts import bind, needs_mounts, private_mounts
from support import DEADLINE_S, PROC

JOB = """#!/bin/sh
echo $$ >>tried
echo begun
until test -e fixed; do sleep 0.01; done
echo ended
"""


def put_back_in_its_turn(where: str) -> list[str]:
    """The first job is killed, though it is the older one: of the other the exec hangs."""
    os.chdir(where)
    private_mounts()
    meminfo = Path("meminfo")
    meminfo.write_text("MemAvailable: 2000000 kB\n")
    bind("meminfo", "/proc/meminfo")
    job = Path("job")
    job.write_text(JOB)
    job.chmod(0o755)
    words = ["-j2", "-k", "--memfree", "1g", "--joblog", "log", "{}", ":::", "./job", "./held"]
    with (
        held_copy("/bin/true", Path("held")) as held,
        running(Path(), *words) as process,
    ):
        held.wait_until_reached()
        wait_for(lambda: len(tried()) == 1)
        meminfo.write_text("MemAvailable: 1000 kB\n")
        [pid] = tried()
        wait_for(lambda: not Path(PROC, str(pid)).exists())
        meminfo.write_text("MemAvailable: 2000000 kB\n")
        wait_for(lambda: len(tried()) == 2)
        Path("fixed").touch()
        held.release()
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err, len(log_of(Path("log")))) == (0, b"", 2)
    return out.decode().split()


def tried() -> list[str]:
    return Path("tried").read_text().split() if Path("tried").exists() else []


@needs_mounts
@pytest.mark.needs("/proc")
@pytest.mark.needs("threads")
def test_what_a_job_wrote_before_it_was_put_back_is_not_printed(tmp_path: Path) -> None:
    """In order, where the job whose turn it is would write through."""
    assert alone(put_back_in_its_turn, str(tmp_path)) == ["begun", "ended"]
