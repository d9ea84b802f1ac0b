"""``procreactor run`` without room for what waits: jobs wait instead, and nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from command_line import log_of, running
from fulldisk import fill, small_disk
from held import wait_for
from mounts import needs_mounts
from support import DEADLINE_S, PROC

NOWHERE = "/no/such/directory"

LOOKS = 5
"""Who so often looks what there is to do, and takes nothing, means to take nothing."""

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


@contextmanager
def fifo_that_is_read(path: Path) -> Iterator[int]:
    """A fd that opens the fifo *path* to write, once somebody has opened it to read."""
    fds: list[int] = []

    def is_read() -> bool:
        try:
            fds.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        return bool(fds)

    wait_for(is_read)
    try:
        yield fds[0]
    finally:
        os.close(fds[0])


def flood(fd: int, piece: bytes, through: int, reader: int, most_bytes: int = 64 << 20) -> int:
    """Write *piece* again and again, until it is not taken any more; return how many bytes were.

    It goes through the process *through*, which while the fifo is full sleeps for want of room
    alone.
    """
    taken = 0
    stall = Stall(through, reader)

    def is_enough() -> bool:
        nonlocal taken
        try:
            taken += os.write(fd, piece)
        except BlockingIOError:
            return stall.is_sure()
        return taken >= most_bytes

    wait_for(is_enough)
    return taken


class Stall:
    """Whether *writer* waits for the *reader*, and for none of the breaks that he takes.

    Then it sleeps on while he goes to sleep a few times more.
    """

    def __init__(self, writer: int, reader: int) -> None:
        self._writer = writer
        self._reader = reader
        self._since = 0
        self._last = (0, False)

    def is_sure(self) -> bool:
        looks, _ = sleeps_of(self._reader)
        before, self._last = self._last, sleeps_of(self._writer)
        _, is_asleep = self._last
        if not is_asleep or self._last != before:  # else it has slept all the while
            self._since = looks
        return looks - self._since > LOOKS


def sleeps_of(pid: int) -> tuple[int, bool]:
    """How often the first thread of *pid* has gone to sleep, and whether it sleeps now."""
    text = Path(PROC, str(pid), "status").read_text()
    switches = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)
    assert switches is not None
    return int(switches[1]), "\nState:\tS" in text


def waits(where: Path, tmpdir: str, *words: str) -> tuple[int, bytes, bytes, int]:
    """Status, output, what was said, and how much the second job could write before its turn."""
    jobs = ["echo begun; read word <gate; echo first", "echo $$ >pid; exec cat <flood"]
    os.mkfifo(where / "flood")
    with (
        fifo(where / "gate") as gate,
        running(
            where, "-j2", "--joblog", "log", *words, "sh", "-c", "{}", ":::", *jobs, TMPDIR=tmpdir
        ) as process,
    ):
        with fifo_that_is_read(where / "flood") as fd:
            pid = int((where / "pid").read_text())
            taken = flood(fd, b"x" * 4096, pid, process.pid)
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
    """Also what they write to standard error, though it is the same file as their output.

    In order, the first one writes nothing before the second has written what there is room for.
    """
    begin = "test $0 = B || read word <gate; " if "-k" in words else ""
    write = f"echo $$ >$0; exec tr '\\0' $0 {stream}"
    script = f"{begin}head -c {MUCH_BYTES} /dev/zero | sh -c {shlex.quote(write)} $0"
    with (
        fifo(tmp_path / "gate") as gate,
        running(
            tmp_path, "-j2", *words, "sh", "-c", script, ":::", "A", "B",
            stderr=subprocess.STDOUT, TMPDIR=NOWHERE,
        ) as process,
    ):  # fmt: skip
        if begin:
            wait_for(lambda: (tmp_path / "B").exists() and (tmp_path / "B").read_text()[-1:])
            stall = Stall(int((tmp_path / "B").read_text()), process.pid)
            wait_for(stall.is_sure)
            os.write(gate, b"go\n")
        *letters, changes, memory_bytes = read_letters(process)
        assert process.wait(DEADLINE_S) == 255
    assert letters == [MUCH_BYTES, MUCH_BYTES]
    assert changes == 1
    assert memory_bytes < MUCH_BYTES
