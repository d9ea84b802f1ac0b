"""The job log: our lines and GNU parallel's, each read by the other; resuming from them."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fulldisk import fill, small_disk
from gnu_parallel import needs_parallel, parallel
from hypothesis import given
from hypothesis import strategies as st
from mounts import needs_mounts
from support import PYTHON

from procreactor.apps.cli import shellwords
from procreactor.apps.cli.joblog import (
    HEADER,
    JobLog,
    JobLogError,
    ResumeState,
    format_line,
    read_log,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def write_log(path: str, *jobs: tuple[int, int, int, bytes], append: bool = False) -> None:
    log = JobLog(path, append=append)
    for seq, code, number, command in jobs:
        log.record(seq, ":", 1700000000.5, 0.25, 0, 12, code, number, command)
    log.close()


def test_a_line_has_nine_columns(path: str) -> None:
    write_log(path, (7, 3, 0, b"echo 'a b'"))
    assert Path(path).read_bytes() == (
        HEADER + b"7\t:\t1700000000.500\t     0.250\t0\t12\t3\t0\techo 'a b'\n"
    )


@needs_parallel
def test_the_file_is_that_of_gnu_parallel_but_for_the_times(tmp_path: Path) -> None:
    words = ["a b", "c\td", "e\nf", ""]  # -0: else a line feed is between two
    parallel(tmp_path, "-0", "--joblog", "log", "-j1", "printf %s", ":::", *words)
    theirs = (tmp_path / "log").read_bytes()
    times = re.findall(rb":\t([\d.]+)\t *([\d.]+)\t", theirs)
    log = JobLog(str(tmp_path / "ours"), append=False)
    for seq, (word, (start, run)) in enumerate(zip(words, times, strict=True), 1):
        command = b"printf %s " + shellwords.quote(word.encode())
        log.record(seq, ":", float(start), float(run), 0, len(word), 0, 0, command)
    log.close()
    assert (tmp_path / "ours").read_bytes() == theirs


@needs_parallel
def test_gnu_parallels_log_tells_what_failed_and_how(tmp_path: Path) -> None:
    script = "test {} = 2 && exit 5; test {} = 3 && kill -9 $$; echo {}"
    parallel(tmp_path, "-0", "--joblog", "log", "-j2", script, ":::", "1", "2", "3", "x\ny")
    state = read_log(str(tmp_path / "log"))
    assert (state.succeeded, state.failed) == (2, 2)
    assert [seq for seq in range(1, 7) if state.should_run(seq, failed_again=False)] == [5, 6]
    assert [seq for seq in range(1, 7) if state.should_run(seq, failed_again=True)] == [2, 3, 5, 6]
    assert [seq for seq, _ in state.failed_commands()] == [2, 3]
    assert dict(state.failed_commands())[3] == script.replace("{}", "3").encode()


@needs_parallel
def test_gnu_parallels_log_of_a_job_out_of_time_is_a_failure(tmp_path: Path) -> None:
    parallel(tmp_path, "--joblog", "log", "--timeout", "1", "sleep", ":::", "30")
    assert read_log(str(tmp_path / "log")).has_failed(1)


@needs_parallel
@pytest.mark.parametrize(
    ("option", "ran", "counts"),
    [
        ("--resume", ["e"], (3, 2)),
        ("--resume-failed", ["b", "d", "e"], (5, 0)),
        ("--retry-failed", ["B", "D D"], (4, 0)),
    ],
)
def test_gnu_parallel_resumes_from_our_log(
    tmp_path: Path, option: str, ran: list[str], counts: tuple[int, int]
) -> None:
    write_log(
        str(tmp_path / "log"),
        (3, 0, 0, b"echo c"),
        (1, 0, 0, b"echo a"),
        (2, 1, 0, shellwords.join([b"echo", b"B"])),
        (4, 0, 15, shellwords.join([b"echo", b"D D"])),
    )
    done = parallel(
        tmp_path, "-k", option, "--joblog", "log", "echo", ":::", "a", "b", "c", "d", "e"
    )
    assert done.stdout.decode().split("\n")[:-1] == ran, done.stderr
    state = read_log(str(tmp_path / "log"))
    assert (state.succeeded, state.failed) == counts


@needs_parallel
def test_gnu_parallel_resumes_from_a_log_that_we_mended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = format_line(1, ":", 1.0, 1.0, 0, 0, 0, 0, b"echo a")
    path.write_bytes(HEADER + whole + b"2")  # of 23
    write_log(str(path), append=True)
    done = parallel(tmp_path, "-k", "--resume", "--joblog", "log", "echo", ":::", "a", "b", "c")
    assert done.stdout == b"b\nc\n"


# --- Reading --------------------------------------------------------------------------------------


def test_no_log_tells_that_nothing_was_done(path: str) -> None:
    state = read_log(path)
    assert state.should_run(1, failed_again=False)
    assert list(state.failed_commands()) == []


def test_an_empty_log_and_one_without_header_are_logs(path: str) -> None:
    Path(path).write_bytes(b"")
    assert not read_log(path).is_recorded(1)
    Path(path).write_bytes(format_line(1, ":", 1.0, 1.0, 0, 0, 1, 0, b"x"))
    assert list(read_log(path).failed_commands()) == [(1, b"x")]


@pytest.mark.parametrize("cut", range(1, 40))
def test_half_a_line_at_the_end_is_no_line(path: str, cut: int) -> None:
    whole, torn = (format_line(seq, ":", 1.0, 1.0, 0, 0, 0, 0, b"true") for seq in (1, 23))
    Path(path).write_bytes(HEADER + whole + torn[: min(cut, len(torn) - 1)])
    state = read_log(path)
    assert [seq for seq in (1, 2, 23) if state.is_recorded(seq)] == [1]
    write_log(path, (4, 0, 0, b"true"), append=True)
    state = read_log(path)
    assert [seq for seq in (1, 2, 4, 23) if state.is_recorded(seq)] == [1, 4]


@pytest.mark.parametrize(
    "line", [b"x\n", b"1\t:\t1.0\t1.0\t0\t0\t0\n", b"\n", b"1 : 1 1 0 0 0 0 x\n"]
)
def test_a_line_that_is_none_is_refused_with_its_place(path: str, line: bytes) -> None:
    Path(path).write_bytes(HEADER + line + format_line(2, ":", 1.0, 1.0, 0, 0, 0, 0, b"x"))
    with pytest.raises(JobLogError, match=f"{path}, line 2"):
        read_log(path)


def test_the_last_line_of_a_job_counts(path: str) -> None:
    write_log(path, (1, 1, 0, b"old"), (2, 0, 0, b"x"), (1, 2, 0, b"new"), (2, 0, 9, b"y"))
    write_log(path, (3, 1, 0, b"z"), (3, 0, 0, b"z"), append=True)
    state = read_log(path)
    assert list(state.failed_commands()) == [(1, b"new"), (2, b"y")]
    assert (state.succeeded, state.failed) == (1, 2)


commands = st.binary(max_size=30).map(lambda text: text.replace(b"\0", b""))


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(-1, 3), st.integers(0, 2), commands)))
def test_what_is_written_is_read(tmp_path_factory: Any, jobs: Any) -> None:
    path = str(tmp_path_factory.mktemp("log") / "log")
    write_log(path, *jobs)
    last = {seq: (code or number, command) for seq, code, number, command in jobs}
    failed = {seq: command for seq, (bad, command) in last.items() if bad}
    state = read_log(path)
    assert dict(state.failed_commands()) == failed
    assert [seq for seq, _ in state.failed_commands()] == sorted(failed)
    assert (state.succeeded, state.failed) == (len(last) - len(failed), len(failed))
    assert all(state.is_recorded(seq) for seq in last)


def test_a_million_jobs_take_eight_megabytes_and_an_absurd_one_a_page() -> None:
    state = ResumeState("none")
    for seq in range(1, 1_000_001):
        state.note(seq, seq * 50, ok=bool(seq % 7))
    state.note(10**18, 1, ok=True)
    held = sum(page.itemsize * len(page) for page in state._pages.values())
    assert held <= 8_200_000
    assert state.has_failed(7)
    assert state.is_recorded(10**18)
    assert not state.is_recorded(10**18 + 1)


# --- Errors ---------------------------------------------------------------------------------------


def on_a_full_disk(where: str) -> dict[str, Any]:
    disk = small_disk(where)
    path = str(disk / "log")
    log = JobLog(path, append=False)
    filler = fill(disk, leave_bytes=4096)
    raised = []
    for seq in range(1, 200):
        try:
            log.record(seq, ":", 1.0, 1.0, 0, 0, 0, 0, b"x" * 50)
        except OSError as error:
            raised.append((seq, error.errno, error.filename))
    torn = Path(path).read_bytes().count(b"\n") - 1
    recorded = read_log(path).succeeded
    unwritten = len(log.unwritten)
    filler.unlink()
    log.retry()
    log.close()
    return {
        "raised": raised,
        "torn": torn - recorded,
        "sum": recorded + unwritten,
        "end": read_log(path).succeeded,
        "path": path,
    }


@needs_mounts
def test_on_a_full_disk_the_log_is_named_and_no_line_is_lost(tmp_path: Path) -> None:
    found = alone(on_a_full_disk, str(tmp_path))
    assert {(number, name) for _, number, name in found["raised"]} == {
        (errno.ENOSPC, found["path"])
    }
    assert (found["torn"], found["sum"], found["end"]) == (0, 199, 199)


WRITER = """
import sys
from procreactor.apps.cli.joblog import JobLog
log = JobLog(sys.argv[1], append=True)
print(flush=True)
seq = 0
while True:
    seq += 1
    log.record(seq, ":", 1.0, 1.0, 0, 0, 0, 0, b"x" * (seq % 9000))
"""


def test_kill_9_leaves_a_log_from_which_exactly_the_rest_follows(path: str) -> None:
    with subprocess.Popen([PYTHON, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while os.stat(path).st_size < 1 << 20:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
    state = read_log(path)
    count = state.succeeded
    assert [seq for seq in range(1, count + 5) if state.should_run(seq, failed_again=False)] == [
        count + 1, count + 2, count + 3, count + 4
    ]  # fmt: skip
    write_log(path, (count + 1, 0, 0, b"true"), append=True)
    assert read_log(path).succeeded == count + 1
