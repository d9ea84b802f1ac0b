"""``procreactor run`` without room for what waits: jobs wait instead, and nothing is lost."""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from command_line import log_of, running
from fulldisk import fill, small_disk
from mounts import needs_mounts
from support import DEADLINE_S, PROC

NOWHERE = "/no/such/directory"

STALLED_MS = 400
"""Who has taken nothing for so long waits. On a slow machine one that only dawdles may be taken for
one that waits: then the test shows less, and passes."""

MOST_BYTES = 4 << 20
"""What pipes and programs on the way, and the share of a job, may take together."""


@contextmanager
def fifo(path: Path) -> Iterator[int]:
    """A fd that opens *path*, a new fifo, for both sides, so that nobody waits for an opening."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def flood(fd: int, piece: bytes, most_bytes: int = 64 << 20) -> int:
    """Write *piece* again and again, until nobody takes it; return how many bytes were taken."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    taken = 0
    while taken < most_bytes and poll.poll(STALLED_MS):
        try:
            taken += os.write(fd, piece)
        except BlockingIOError:
            pass  # there is some room, and not enough
    return taken


def waits(where: Path, tmpdir: str, *words: str) -> tuple[int, bytes, bytes, int]:
    """Status, output, what was said, and how much the second job could write before its turn."""
    jobs = ["echo begun; read word <gate; echo first", "exec cat <flood"]
    with (
        fifo(where / "gate") as gate,
        running(
            where, "-j2", "--joblog", "log", *words, "sh", "-c", "{}", ":::", *jobs, TMPDIR=tmpdir
        ) as process,
    ):
        with fifo(where / "flood") as fd:
            taken = flood(fd, b"x" * 4096)
            os.write(gate, b"go\n")
        out, err = process.communicate(timeout=DEADLINE_S)
        return process.returncode, out, err, taken


@pytest.mark.parametrize("words", [[], ["--lb"], ["--retries", "3"], ["--tag"]])
def test_a_job_waits_for_its_turn_when_what_it_writes_cannot_be_put_aside(
    tmp_path: Path, words: list[str]
) -> None:
    status, out, err, taken = waits(tmp_path, NOWHERE, "-k", *words)
    assert status == 255
    assert NOWHERE.encode() in err
    lines = [line.rpartition(b"\t")[2] for line in out.split(b"\n")]
    assert lines == [b"begun", b"first", b"x" * taken]
    assert 0 < taken < MOST_BYTES
    assert len(log_of(tmp_path / "log")) == 2


def on_a_full_disk(where: str) -> dict[str, Any]:
    (Path(where) / "disk").mkdir()
    disk = small_disk(str(Path(where) / "disk"), "1m")
    fill(disk, 1 << 19)
    status, out, err, taken = waits(Path(where), str(disk), "-k")
    return {
        "status": status,
        "is_named": str(disk).encode() in err,
        "is_whole": out == b"begun\nfirst\n" + b"x" * taken,
        "is_bounded": taken < MOST_BYTES,
        "logged": len(log_of(Path(where) / "log")),
    }


@needs_mounts
@pytest.mark.needs("threads")
def test_a_job_waits_for_its_turn_when_the_disk_is_full(tmp_path: Path) -> None:
    found = alone(on_a_full_disk, str(tmp_path))
    assert found == {
        "status": 255, "is_named": True, "is_whole": True, "is_bounded": True, "logged": 2
    }  # fmt: skip


MUCH_BYTES = 50_000_000


def read_letters(process: subprocess.Popen[bytes]) -> tuple[int, int, int, int]:
    """How many A and B the output has, how often it changes, and how much memory was used.

    The output is not kept: what this process has would be taken for the memory of its next child.
    """
    assert process.stdout is not None
    changes = most_kb = 0
    last, counts = b"", [0, 0]
    while data := os.read(process.stdout.fileno(), 1 << 20):
        both = last + data
        changes += both.count(b"AB") + both.count(b"BA")
        counts = [counts[0] + data.count(b"A"), counts[1] + data.count(b"B")]
        last = data[-1:]
        status = Path(PROC, str(process.pid), "status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        most_kb = max(most_kb, int(peak[1]) if peak else 0)
    return *counts, changes, most_kb * 1024


@pytest.mark.parametrize("words", [[], ["-k"], ["--lb"], ["-k", "--lb"]])
@pytest.mark.parametrize("stream", ["", ">&2"])
def test_jobs_that_write_much_come_out_one_after_the_other_in_bounded_memory(
    tmp_path: Path, words: list[str], stream: str
) -> None:
    """Also what they write to standard error, though it is the same file as their output."""
    script = f"head -c {MUCH_BYTES} /dev/zero | tr '\\0' $0 {stream}"
    with running(
        tmp_path, "-j2", *words, "sh", "-c", script, ":::", "A", "B",
        stderr=subprocess.STDOUT, TMPDIR=NOWHERE,
    ) as process:  # fmt: skip
        *letters, changes, memory_bytes = read_letters(process)
        assert process.wait(DEADLINE_S) == 255
    assert letters == [MUCH_BYTES, MUCH_BYTES]
    assert changes == 1
    assert memory_bytes < MUCH_BYTES
