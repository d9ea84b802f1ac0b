"""``procreactor run`` from outside: the same command lines as GNU parallel and xargs, and bad days.

What a command line prints, its exit status and its log are compared with those of the real tools,
which run beside ours, each in a directory of its own.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import RUN, environment, log_of, ran, ran_with, received_of, running
from gnu_parallel import needs_parallel
from held import wait_for
from seccomp import needs_seccomp
from support import DEADLINE_S, PROC, PYTHON

PARALLEL = ["parallel", "--will-cite", "--plain", "-q"]

LINES = b"a\nb b\nc\n"


class Said(NamedTuple):
    """How a run ended, and what it left."""

    status: int
    out: bytes
    log: list[tuple[bytes, ...]]
    received: dict[bytes, bytes]


def begin(command: list[str], where: Path, given: bytes) -> subprocess.Popen[bytes]:
    """Start *command* in *where*, which is made, and has the files that the cases name."""
    where.mkdir(exist_ok=True)
    (where / "abc").write_bytes(b"a\nb\nc\n")
    (where / "12").write_bytes(b"1\n2\n")
    (where / "ten").write_bytes(b"".join(b"%d\n" % number for number in range(10)))
    (where / "given").write_bytes(given)
    with open(where / "given", "rb") as stdin:
        return subprocess.Popen(
            command,
            cwd=where,
            env=environment(where),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def end(process: subprocess.Popen[bytes], where: Path, keeps_order: bool) -> Said:
    """Return what *process* said, once it has ended."""
    with process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert re.search(rb"\w+Warning:", err) is None, err  # of Python
    assert b"Traceback" not in err, err
    if not keeps_order:
        out = b"\n".join(sorted(out.split(b"\n")))
    return Said(process.returncode, out, log_of(where / "log"), received_of(where / "log"))


def both(tmp_path: Path, lines: str | list[str], given: bytes = b"") -> tuple[Said, Said]:
    """What ours and GNU parallel's say to the last of *lines*, after the others."""
    said: tuple[Said, Said]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for line in [lines] if isinstance(lines, str) else lines:
        words = shlex.split(line)
        if not {"--joblog", "--dry-run"} & set(words):
            words = ["--joblog", "log", *words]
        keeps = "-k" in words
        theirs_is = PARALLEL[:-1] if "--retry-failed" in words else PARALLEL  # no quoting twice
        processes = begin(RUN + words, ours, given), begin(theirs_is + words, theirs, given)
        said = end(processes[0], ours, keeps), end(processes[1], theirs, keeps)
    return said


CASES: list[tuple[str, bytes]] = [
    # Input.
    ("-k echo", LINES),
    ("echo", LINES),
    ("-k echo x{}y", LINES),
    ("-q -k printf '%s ' '$HOME' '*' {}", LINES),
    ("echo", b""),
    ("-r echo", b""),
    ("-r -k echo", b"a\n\n  \nb\n"),
    ("-k echo", b"a\n\nb\n"),
    ("-k echo", b"no newline"),
    ("-0 -k echo", b"a\nb\0c d\0'q\"\0"),
    ("-0 -k printf '%s.'", b"-n\0--\0 x \0*\0$HOME\0"),
    ("-d , -k echo", b"a,b,c"),
    ("-k echo", b"\xff\xfe\n\xc3\xa9\n"),
    ("-k echo ::: a 'b  c' \"d'e\" 'f\"g' '-n' ';' '$x' '\\'", b""),
    ("-k echo {2}{1} ::: a b ::: 1 2", b""),
    ("-k echo {1}{2} ::: a b :::+ 1 2", b""),
    ("-k echo :::: abc", b""),
    ("-k echo {1}{2} :::: abc 12", b""),
    ("-k echo {1}{2} :::: abc ::::+ 12", b""),
    ("-k -a abc echo", b""),
    ("-k -a abc -a 12 echo", b""),
    ("-k echo {1}-{2} ::: x y :::: -", b"1\n2\n"),
    ("--link -k echo ::: 1 2 3 ::: a b", b""),
    ("-N 2 -k echo {2} {1}", b"a\nb\nc\nd\n"),
    ("-N 2 -k echo", b"a\nb\nc\n"),
    ("-n 2 -k echo", b"a\nb\nc\n"),
    ("-N 0 -k echo x", LINES),
    ("-L 2 -k echo", b"a\nb\nc\n"),
    ("-I ,, -k echo x,,y {}", b"a\nb\n"),
    ("--colsep , -k echo {2} {1}", b"a,b\nc,d\n"),
    ("--trim lr -k echo [{}]", b"  a b \n"),
    ("-E b -k echo", b"a\nb\nc\n"),
    ("-k -L 2 echo {2} {1}", b"a\nb\nc\n"),
    ("-k --xapply echo ::: 1 2 ::: a b", b""),
    ("-k -r echo x", b"\n\na\n"),
    ("-k -C ', *' echo {3}-{2}-{1}", b"a, b,  c\nd\n"),
    ("-k --arg-file abc --max-args=2 echo", b""),
    ("-k --arg-sep ,, echo ,, a b", b""),
    # Replacement strings.
    ("-k echo {} {.} {/} {//} {/.} ::: a/b.c d e/f.g.h /i", b""),
    ("-k echo {#} {}", LINES),
    ("-j1 -k echo {%} {}", LINES),
    # Output.
    ("-k --tag echo", LINES),
    ("-k --tag printf 'x\\ny' ", b"a\n"),
    ("-k --tagstring '{#}-{}' echo", LINES),
    ("--line-buffer echo", LINES),
    ("--lb --tag sh -c 'echo $0; echo $0'", LINES),
    ("-u echo", LINES),
    ("-k -j0 echo", LINES),
    ("-j0 sleep", b"0.05\n" * 20),
    ("-j200% echo", LINES),
    ("-k -j2 sh -c 'sleep 0.$0; echo $0'", b"3\n1\n2\n"),
    ("-k -j1 sh -c 'echo out; echo err >&2' {}", b"a\nb\n"),
    # When to start, and where.
    ("-k -P2 --memfree 1k echo", LINES),
    ("-k -j+0 --load 10000 echo", LINES),
    ("-k -t --delay 0.01 echo", LINES),
    ("-k --wd /tmp --nice 5 sh -c 'pwd; nice' ::: a", b""),
    # Exit status.
    ("true", LINES),
    ("false", LINES),
    ("-k sh -c 'exit $0'", b"0\n1\n2\n255\n"),
    ("-j8 false", b"a\n" * 100),
    ("-j8 false", b"a\n" * 101),
    ("-j8 false", b"a\n" * 103),
    ("sh -c 'kill -9 $$' {}", b"a\nb\n"),
    ("sh -c 'kill -TERM $$' {}", b"a\n"),
    # Time and failure.
    ("-j1 --retries 3 sh -c 'echo x >>tried; wc -l <tried; exit 1' {}", b"a\n"),
    ("-j1 --retries 3 sh -c 'echo x >>tried; test $(wc -l <tried) = 2' {}", b"a\n"),
    ("-j1 --retries 0 sh -c 'echo x >>tried; test $(wc -l <tried) = 4' {}", b"a\n"),
    ("-j1 -k --retries 1 --timeout 1m false", b"a\n"),
    ("-j1 -k --retries 2 sh -c 'echo $0; exit $0'", b"0\n1\n"),
    ("-j1 --halt now,fail=1 sh -c 'echo $0; exit $0'", b"0\n3\n0\n"),
    ("-j1 --halt soon,fail=1 sh -c 'echo $0; exit $0'", b"0\n3\n0\n"),
    ("-j1 --halt now,fail=2 sh -c 'echo $0; exit $0'", b"1\n3\n0\n4\n0\n"),
    ("-j1 --halt soon,fail=2 sh -c 'echo $0; exit $0'", b"1\n0\n3\n0\n4\n"),
    ("-j1 --halt now,success=1 sh -c 'echo $0; exit $0'", b"1\n0\n3\n"),
    ("-j1 --halt soon,success=2 sh -c 'echo $0; exit $0'", b"1\n0\n3\n0\n0\n"),
    ("-j1 --halt now,done=2 sh -c 'echo $0; exit $0'", b"1\n0\n3\n"),
    ("-j1 --halt now,done=1 sh -c 'echo $0; exit $0'", b"5\n0\n3\n"),
    ("-j1 --halt soon,fail=50% sh -c 'exit $0' ::: 0 1 0 1 1 1 0 0", b""),
    ("-j1 --halt now,fail=30% sh -c 'exit $0' ::: 0 1 0 1 1 1 0 0", b""),
    *((f"-j1 --halt {short} sh -c 'exit $0' ::: 0 1 0 1", b"") for short in (0, 1, 2, -1, -2)),
    ("-j1 --halt now,fail=30% sh -c 'exit $0'", b"0\n1\n0\n1\n1\n1\n0\n0\n"),
    ("-j1 -r --halt soon,done=30% true ::: a b c d e f", b""),
    ("-j1 -n 2 --halt soon,done=50% sh -c 'exit $0' ::: 1 0 0 0 0 0 0 0", b""),
    ("-j1 --halt soon,fail=50% sh -c 'exit $0' :::: 12", b""),
    ("-j1 --halt now,done=10% sh -c 'exit $0' ::: 7 0 0 0 0 0 0 0 0 0", b""),
    ("-j1 --halt-on-error 50% sh -c 'exit $0' ::: 0 1 0 1 1 0", b""),
    ("-j1 --halt never sh -c 'exit $0'", b"1\n0\n3\n"),
    ("-j1 --halt soon,done=1 true ::: a b c", b""),
    ("-j1 --halt soon,done=50% true ::: a b c d", b""),
    ("./no-such-command ::: a", b""),
    ("--timeout 0.3 sleep ::: 30", b""),
    ("--timeout 0.3 --halt now,fail=1 sleep ::: 30", b""),
    ("--timeout 0.3 --termseq KILL,25 sleep ::: 30", b""),
    ("--timeout 0.3 sh -c 'trap \"exit 3\" TERM; sleep 30 & wait' ::: a", b""),
    ("--timeout 0.3 sh -c 'trap \"exit 0\" TERM; sleep 30 & wait' ::: a", b""),
    ("-j1 --timeout 0.3 --retries 2 sh -c 'echo x >>tried; exec sleep 30' ::: a", b""),
    ("-j1 --timeout 2000% sleep ::: 0.1 0.1 0.1 0.1 30", b""),
    ("-j2 --halt now,fail=1 sh -c 'test $0 = 1 && exit 7; exec sleep 30'", b"1\n30\n"),
]


@needs_parallel
@pytest.mark.parametrize(("line", "given"), CASES)
def test_as_gnu_parallel(line: str, given: bytes, tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, line, given)
    assert ours == theirs


EARLIER = "-j1 --joblog log sh -c 'echo $0 >>ran; test -e fixed || exit $0' ::: 0 1 2"
AGAIN = "sh -c 'echo $0 >>ran; touch fixed; echo $0 again' ::: 0 1 2 3"

SEQUENCES = [
    [EARLIER, f"-j1 -k --joblog log --resume {AGAIN}"],
    [EARLIER, f"-j1 -k --joblog log --resume-failed {AGAIN}"],
    [EARLIER, "-j1 -k --joblog log --retry-failed"],
    [
        "-j1 --joblog log true ::: 1 2",
        "-j1 --joblog log --resume --halt now,done=80% echo :::: ten",
    ],
    ["-j1 --joblog log true ::: 1", "-j1 --joblog log --resume --halt now,fail=20% false :::: ten"],
    [EARLIER, EARLIER],
    [EARLIER, f"-j1 -k --joblog +log {AGAIN}"],
]


@needs_parallel
@pytest.mark.parametrize("lines", SEQUENCES)
def test_a_second_run_goes_on_as_gnu_parallel_does(lines: list[str], tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, lines)
    assert ours == theirs
    ran = [tree(tmp_path / who).get("ran") for who in ("ours", "theirs")]
    assert ran[0] == ran[1]


def tree(top: Path) -> dict[str, bytes]:
    """Each file below *top*, and what is in it."""
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }


RESULTS = "--results saved -k sh -c 'echo out $0; echo err $0 >&2' ::: a 'b c' d/e"


@needs_parallel
def test_results_in_a_directory_are_gnu_parallels(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, RESULTS)
    assert ours == theirs
    assert tree(tmp_path / "ours/saved") == tree(tmp_path / "theirs/saved")


@needs_parallel
@pytest.mark.parametrize(
    "line",
    [
        "-N2 --results saved echo ::: a b c",
        "-n2 --results saved echo ::: a b c",
        "-L2 --results saved echo ::: a 'b ' c d",
        "-n1 --results saved echo ::: a b",
        "-N2 --results saved echo ::: a b ::: c d",
        "-N3 --results saved echo ::: a b ::: c d",
        "-N2 --results saved echo ::: a b c :::+ d e f",
        "-n2 --results saved echo ::: a '' ::: c",
        "-N2 -C , --results saved echo ::: a,b c,d e,f",
        "-N2 -C , --results saved echo ::: a,b c,d,e f",
        "-N2 -C , --results saved echo ::: a,b c ::: x,y z",
        "-N2 --halt soon,fail=50% --results saved echo ::: a b c",
    ],
)
def test_results_of_several_records_are_where_gnu_parallels_are(line: str, tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, line)
    assert ours == theirs
    assert tree(tmp_path / "ours/saved") == tree(tmp_path / "theirs/saved")


def test_jobs_that_get_no_values_have_results_of_their_own(tmp_path: Path) -> None:
    """GNU parallel gives all of them one place, and after the first takes all for done."""
    words = ["-k", "-N0", "--results", "saved", "--shell", "echo {#}; test -e fixed || exit {#}"]
    assert ran(tmp_path, *words, ":::", "a", "b").returncode == 2
    (tmp_path / "fixed").touch()
    assert ran(tmp_path, "--resume", *words, ":::", "a", "b", "c").returncode == 0
    assert {name: data for name, data in tree(tmp_path / "saved").items() if "err" not in name} == {
        f"job/{seq}/{name}": f"{seq}{end}".encode()
        for seq in (1, 2, 3)
        for name, end in (("seq", ""), ("stdout", "\n"))
    }


@needs_parallel
@pytest.mark.parametrize("name", ["saved.csv", "saved.tsv"])
def test_results_in_a_table_are_gnu_parallels(name: str, tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, RESULTS.replace("saved", name))
    assert ours == theirs
    rows = [(tmp_path / who / name).read_text().split("\n") for who in ("ours", "theirs")]
    assert len(rows[0]) == len(rows[1])
    assert rows[0][0] == rows[1][0]


@needs_parallel
def test_dry_run_prints_words_that_a_shell_reads_alike(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, "--dry-run -k echo {} x ::: a 'b c' '$d' \"e'f\"")
    assert [shlex.split(line) for line in ours.out.decode().splitlines()] == [
        shlex.split(line) for line in theirs.out.decode().splitlines()
    ]
    assert ours.status == theirs.status == 0


@needs_parallel
@pytest.mark.parametrize(
    ("line", "its", "ours_is"),
    [
        # The status of a run in which nothing failed is 0; theirs too with done=1 and done=50%.
        ("-j1 --halt soon,done=2 true ::: a b c", (101, b"0", b"0"), (0, b"0", b"0")),
        ("-j1 --halt now,done=2 true ::: a b c", (101, b"0", b"0"), (0, b"0", b"0")),
    ],
)
def test_what_each_does_where_we_differ(
    line: str, its: tuple[int, bytes, bytes], ours_is: tuple[int, bytes, bytes], tmp_path: Path
) -> None:
    ours, theirs = both(tmp_path, line)
    assert (theirs.status, *theirs.log[0][2:4]) == its
    assert (ours.status, *ours.log[0][2:4]) == ours_is


@needs_parallel
def test_a_random_order_runs_each_once(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, "--shuf echo ::: 1 2 3 4")
    assert ours[:2] == theirs[:2]
    assert {line[0] for line in ours.log} == {line[0] for line in theirs.log}


XARGS = [
    ("true", b"a\0b\0"),
    ("sh -c 'exit $0'", b"0\0" + b"3\0" + b"0\0"),
    ("sh -c 'echo $0; exit $0'", b"0\0" + b"255\0" + b"0\0"),
    ("sh -c 'echo $0; kill -9 $$'", b"0\0" + b"1\0"),
    ("/", b"a\0b\0"),
    ("./no-such-command", b"a\0b\0"),
    ("sh -c 'exit $0'", b"0\0" + b"254\0" + b"1\0"),
    ("printf '%s.'", b"-n\0a b\0\xff\n\0"),
]


@pytest.mark.parametrize(("command", "given"), XARGS)
def test_as_xargs(command: str, given: bytes, tmp_path: Path) -> None:
    words = ["-0", "-n1", "-P1", *shlex.split(command)]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    processes = (
        begin([*RUN, "--xargs-exit", *words], ours, given),
        begin(["xargs", *words], theirs, given),
    )
    assert end(processes[0], ours, True) == end(processes[1], theirs, True)


XARGS_OPTIONS = [
    ("-n1 -t echo", b"a\nb\n"),
    ("-d , --max-args=1 --max-procs=1 echo", b"a,b"),
    ("-a abc -n 1 echo", b""),
    ("-E b -n1 echo", b"a\nb\nc\n"),
    ("-E '' -n1 echo", b"a\nb\n"),
    ("-n2 echo", b"a\nb\nc\n"),
    ("-P0 -n1 true", b"a\nb\n"),
    ("-0 -L 2 echo", b"a\0b\0c\0"),
    ("-I% echo x%", b"a\nb\n"),
    ("-r -n1 echo", b""),
]


@pytest.mark.parametrize(("line", "given"), XARGS_OPTIONS)
def test_options_as_xargs(line: str, given: bytes, tmp_path: Path) -> None:
    words = ["-P1", *shlex.split(line)]
    processes = (
        begin([*RUN, "--xargs-exit", *words], tmp_path / "ours", given),
        begin(["xargs", *words], tmp_path / "theirs", given),
    )
    said = []
    for process in processes:
        with process:
            said.append((*process.communicate(timeout=DEADLINE_S), process.returncode))
    assert said[0] == said[1]  # what -t says, too


def test_an_option_that_there_is_not_has_the_status_of_xargs(tmp_path: Path) -> None:
    assert ran(tmp_path, "--xargs-exit", "--nosuch").returncode == 1
    assert ran(tmp_path, "--nosuch").returncode == 255
    assert ran(tmp_path, "--nosuch", "echo", "--xargs-exit").returncode == 255


@pytest.mark.parametrize("words", [["sh", "-c", "echo $#", "x"], ["--shell", "echo {} | wc -w"]])
def test_no_job_gets_more_than_a_program_can_be_given(words: list[str], tmp_path: Path) -> None:
    """A hundred bytes each, 3 MB in all: nothing is lost, and nothing refused."""
    items = "\n".join(f"{number:0100d}" for number in range(30_000))
    (tmp_path / "items").write_text(items)
    said = ran(tmp_path, "-a", "items", "-n", "30000", "--joblog", "log", *words)
    assert (said.returncode, said.stderr) == (0, b"")
    counts = [int(count) for count in said.stdout.split()]
    assert sum(counts) == 30_000
    assert sorted(counts)[1] >= 1000, "all but the last"


# --- What an earlier run has left -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "shell", "status"),
    [
        (["--shell", "exit {}", ":::", "0", "1", "2"], False, 2),  # which a shell alone can do
        (["--shell", "exit {}", ":::", "0", "1", "2"], True, 2),
        (["--shell", "cd /tmp/{}", ":::", "no-such-directory"], True, 1),
        (["--shell", "test 1 = {}", ":::", "2"], True, 1),
        (["sh", "-c", "exit $0", ":::", "1"], False, 1),
    ],
)
def test_what_failed_is_run_again_as_it_was(
    first: list[str], shell: bool, status: int, tmp_path: Path
) -> None:
    assert ran(tmp_path, "-j1", "--joblog", "log", *first).returncode == status
    before = log_of(tmp_path / "log")
    failed = [line for line in before if line[2] != b"0"]
    again = ["--shell"] if shell else []
    assert ran(tmp_path, "-j1", "--retry-failed", "--joblog", "log", *again).returncode == status
    assert log_of(tmp_path / "log") == sorted(before + failed)


@pytest.mark.parametrize("name", ["saved", "saved.jsonl"])
def test_what_is_run_again_is_stored_and_logged(name: str, tmp_path: Path) -> None:
    fails = "echo $0; exit $0"
    ran(tmp_path, "-j1", "--joblog", "log", "sh", "-c", fails, ":::", "3")
    assert ran(tmp_path, "--retry-failed", "--joblog", "log", "--results", name).returncode == 1
    assert len(log_of(tmp_path / "log")) == 2
    stored = tree(tmp_path / name) if name == "saved" else {name: (tmp_path / name).read_bytes()}
    assert any(b"3" in text for text in stored.values())


def test_what_is_run_again_has_its_directory_and_its_tag(tmp_path: Path) -> None:
    ran(tmp_path, "--joblog", "log", "--shell", "pwd; exit {}", ":::", "1")
    again = ["--retry-failed", "--joblog", "log", "--wd", "/", "--tag"]
    assert ran(tmp_path, *again).stdout == b"pwd; exit 1\t/\n"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--resume", "--joblog", "log"], b"sh -c 'exit $0' 2\n"),
        (["--resume-failed", "--joblog", "log"], b"sh -c 'exit $0' 1\nsh -c 'exit $0' 2\n"),
        (["--retry-failed", "--joblog", "log"], b"sh -c 'exit $0' 1\n"),
        (["--resume", "--results", "saved"], b"sh -c 'exit $0' 2\n"),
    ],
)
def test_a_dry_run_says_what_would_be_run(
    options: list[str], wanted: bytes, tmp_path: Path
) -> None:
    jobs = ["sh", "-c", "exit $0", ":::", "0", "1"]
    ran(tmp_path, "-j1", "--joblog", "log", "--results", "saved", *jobs)
    before = tree(tmp_path)
    said = ran(tmp_path, "--dry-run", *options, *jobs, "2")
    assert (said.returncode, said.stdout, said.stderr) == (0, wanted, b"")
    assert tree(tmp_path) == before


def test_a_job_that_was_to_be_tried_again_is_in_no_log_once_we_are_stopped(tmp_path: Path) -> None:
    words = ["-j1", "--retries", "0", "--joblog", "log", "--delay", "3600"]
    with running(tmp_path, *words, "sh", "-c", "echo x >>tried; exit 1", ":::", "a") as process:
        wait_for((tmp_path / "tried").exists)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -signal.SIGINT
    assert log_of(tmp_path / "log") == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--resume", "--results", "saved.csv"], b"--resume needs --joblog"),
        (["--resume", "--shuf", "--joblog", "log"], b"--shuf gives the jobs other numbers"),
    ],
)
def test_what_could_not_be_known_is_not_guessed(
    options: list[str], why: bytes, tmp_path: Path
) -> None:
    said = ran(tmp_path, *options, "echo", ":::", "1")
    assert (said.returncode, why in said.stderr, said.stdout) == (255, True, b"")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--halt soon,fail=1 sh -c 'exit 3' ::: a", "job 1 failed (3): no more are started"),
        ("--halt now,done=1 true ::: a", "job 1 succeeded: what runs is stopped"),
        ("--xargs-exit sh -c 'exit 255' ::: a", "job 1 failed (255): no more are started"),
        (
            "--xargs-exit -j2 --shell '[ {} = 1 ] && exit 255; sleep 0.2' ::: 1 2",
            "job 1 failed (255): no more are started",
        ),
        ("--timeout 0.1 sleep ::: 60", "job 1 took too long, and was stopped"),
    ],
)
def test_why_it_stops_is_said(line: str, wanted: str, tmp_path: Path) -> None:
    assert ran(tmp_path, *shlex.split(line)).stderr.decode() == f"procreactor: {wanted}\n"


@pytest.mark.parametrize(
    ("line", "given"),
    [("--bar sh -c 'cat gate'", b"a\n" * 4), ("--eta sh -c 'cat gate' :::: items", b"")],
)
def test_of_how_many_is_known_before_the_first_one_starts(
    line: str, given: bytes, tmp_path: Path
) -> None:
    """That is what these two are for; what is drawn while the first ones run says it."""
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "items").write_bytes(b"a\n" * 4)
    (tmp_path / "given").write_bytes(given)
    ours, theirs = pty.openpty()
    with open(tmp_path / "given", "rb") as stdin:
        process = subprocess.Popen(
            [*RUN, "-j1", *shlex.split(line)],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
    os.close(theirs)
    with process:
        drawn = b""
        while b"0:4" not in drawn and b"Left: 4" not in drawn:
            drawn += os.read(ours, 65536)
        process.terminate()
        assert process.wait(DEADLINE_S) == -signal.SIGTERM
    os.close(ours)


@pytest.mark.parametrize("options", ["-j50", "-j0", "-j50 --results saved", "-j0 --results saved"])
def test_of_too_many_at_once_those_wait_for_which_there_is_no_room(
    options: str, tmp_path: Path
) -> None:
    """Open files, of which each job takes some: none is failed as long as another one runs.

    What is said of each, as it starts, is said once.
    """
    run = f"{shlex.join(RUN)} -t {options} --joblog log"
    line = f"ulimit -n 80; exec {run} sh -c 'exec sleep 0.0$0' ::: $(seq 10 99)"
    said = ran(tmp_path, line, command=["sh", "-c"])
    assert (said.returncode, len(said.stderr.splitlines())) == (0, 90)
    assert [line[2] for line in log_of(tmp_path / "log")] == [b"0"] * 90


@pytest.mark.parametrize(
    "words",
    [["--dry-run", "echo", ":::", *map(str, range(20_000))], ["--help"]],
)
def test_who_prints_ends_as_who_runs(words: list[str], tmp_path: Path) -> None:
    said = ran_with(">&-", tmp_path, *words)
    closed = b"procreactor: [Errno 9] Bad file descriptor: 'standard output'\n"
    assert (said.returncode, said.stderr) == (255, closed)
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    said = ran(tmp_path, *words, stdout=write_fd)
    os.close(write_fd)
    assert (said.returncode, said.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_dry_run_waits_for_a_reader_whose_pipe_does_not_block(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    with running(tmp_path, "--dry-run", "echo", stdout=write_fd) as process:
        os.close(write_fd)
        items = b"".join(b"%d\n" % number for number in range(20_000))
        feeder = threading.Thread(target=lambda: process.communicate(items, DEADLINE_S))
        feeder.start()
        with open(read_fd, "rb") as reader:
            lines = reader.read().splitlines()
        feeder.join()
    assert (process.returncode, len(lines), lines[-1]) == (0, 20_000, b"echo 19999")


def test_an_interrupted_dry_run_says_nothing_of_it(tmp_path: Path) -> None:
    with running(tmp_path, "--dry-run", "echo") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"echo a\n"  # so it is no longer in its imports
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(
    ("line", "given", "its", "ours_is"),
    [
        # There -0 and -d take -E's meaning away, with a warning; to us an end is an end.
        ("-0 -E b -n1 echo", b"a\0b\0c\0", (0, b"a\nb\nc\n"), (0, b"a\n")),
        # Without a command they print; we ask for one.
        ("-n1", b"a\n", (0, b"a\n"), (255, b"")),
    ],
)
def test_what_xargs_does_where_we_differ(
    line: str, given: bytes, its: tuple[int, bytes], ours_is: tuple[int, bytes], tmp_path: Path
) -> None:
    words = shlex.split(line)
    processes = (
        begin([*RUN, "-j1", *words], tmp_path / "ours", given),
        begin(["xargs", *words], tmp_path / "theirs", given),
    )
    assert end(processes[0], tmp_path / "ours", True)[:2] == ours_is
    assert end(processes[1], tmp_path / "theirs", True)[:2] == its


# --- Bad days -------------------------------------------------------------------------------------


def test_a_reader_who_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    with running(tmp_path, "-j2", "-k", "echo", ":::", *map(str, range(5000))) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE_S) == -signal.SIGPIPE


DIES = "(sh -c 'echo $PPID'; while :; do sleep 0.1; done) & wait"
STAYS = (
    "trap 'echo got' TERM; (trap '' TERM; sh -c 'echo $PPID'; while :; do sleep 0.1; done) &"
    " while :; do wait; done"
)


@pytest.mark.parametrize(("script", "times"), [(DIES, 1), (STAYS, 2)])
def test_interrupts_end_whole_trees(script: str, times: int, tmp_path: Path) -> None:
    words = ["--lb", "--joblog", "log", "sh", "-c", script, ":::", "a"]
    with running(tmp_path, *words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        inner = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        if times > 1:
            assert process.stdout.readline() == b"got\n"
            process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == -signal.SIGINT
        assert b"Traceback" not in process.stderr.read()
    wait_for(lambda: not Path(PROC, str(inner)).exists())
    assert log_of(tmp_path / "log") == []  # so that --resume runs it again


def test_results_of_early_items_come_before_the_producer_ends(tmp_path: Path) -> None:
    with running(tmp_path, "echo", "got") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for item in (b"a", b"b"):
            process.stdin.write(item + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"got " + item + b"\n"
        assert process.communicate(timeout=DEADLINE_S) == (b"", b"")
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], rb"0/1 done, 1 running, 0 failed"),
        (["--progress"], rb"local:1/0/"),
        (["--eta"], rb"Left: 1 "),
        (["--bar"], rb"0% 0:1"),
        (["--live"], rb"1 \S*[0-9]+s.* sh -c "),
    ],
)
def test_a_terminal_is_shown_progress_while_a_job_runs(
    tmp_path: Path, words: list[str], shown: bytes
) -> None:
    """Whoever asks for nothing is shown a line."""
    os.mkfifo(tmp_path / "gate")
    ours, theirs = map(os.fdopen, pty.openpty(), ("rb", "wb"), (0, 0))
    job = ["sh", "-c", "read word <gate", ":::", "a"]
    with ours, theirs, open(tmp_path / "gate", "r+b", buffering=0) as gate, running(
        tmp_path, *words, *job, stderr=theirs.fileno(), TERM="xterm"
    ) as process:  # fmt: skip
        seen = b""
        while not re.search(shown, re.sub(rb"\x1b\[[?0-9;]*[a-zA-Z]", b"", seen)):
            assert select.select([ours], [], [], DEADLINE_S)[0], seen
            seen += os.read(ours.fileno(), 65536)
        gate.write(b"go\n")
        assert process.wait(DEADLINE_S) == 0


def test_progress_is_for_a_terminal_and_for_who_wants_it(tmp_path: Path) -> None:
    with running(tmp_path, "--progress", "sleep", ":::", "0.5") as process:
        assert process.communicate(timeout=DEADLINE_S) == (b"", b"")
    ours, theirs = map(os.fdopen, pty.openpty(), ("rb", "wb"), (0, 0))
    with ours, theirs, running(
        tmp_path, "--no-progress", "sleep", ":::", "0.5", stderr=theirs.fileno()
    ) as process:  # fmt: skip
        assert process.wait(DEADLINE_S) == 0
        assert not select.select([ours], [], [], 0)[0]


def test_a_hangup_that_was_ignored_when_we_came_stays_ignored(tmp_path: Path) -> None:
    """As under nohup(1), and for the interrupts of a shell's job in the background."""
    command = f"{PYTHON} -m procreactor run --shell 'kill -HUP $PPID; echo {{}}' ::: done"
    done = ran(tmp_path, f"trap '' HUP; exec {command}", command=["/bin/sh", "-c"])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")


def codes_in(log: Path) -> list[list[str]]:
    """Exitval and Signal of each job."""
    return [line.split("\t")[6:8] for line in log.read_text().splitlines()[1:]]


def test_a_status_is_known_although_sigchld_was_ignored_when_we_came(tmp_path: Path) -> None:
    """The kernel keeps none for who ignores it, unless there is a pidfd, from Linux 6.15 on."""
    words = ["-j1", "--joblog", "log", "sh", "-c", "exit $0", ":::", "0", "3"]
    ignores = ["env", "--ignore-signal=CHLD", "PROCREACTOR_DISABLE=pidfd"]
    done = ran(tmp_path, *words, command=[*ignores, *RUN])
    assert (done.returncode, done.stderr) == (1, b"")
    assert codes_in(tmp_path / "log") == [["0", "0"], ["3", "0"]]


NO_WAIT_IS_ALLOWED = """
import errno
from seccomp import deny
from procreactor.__main__ import entry

deny("waitid", errno.EPERM)
entry()
"""


@needs_seccomp
def test_a_job_whose_status_is_lost_is_none_that_went_well(tmp_path: Path) -> None:
    words = ["run", "-j1", "--joblog", "log", "sh", "-c", "exit $0", ":::", "0", "3"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [PYTHON, "-c", NO_WAIT_IS_ALLOWED, *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"no wait for children is allowed here" in done.stderr
    assert codes_in(tmp_path / "log") == [["255", "0"]] * 2


def test_a_job_ignores_no_signal_that_we_ignore(tmp_path: Path) -> None:
    """Of those that are ignored when we come: HUP, for which we would have a use, and others."""
    numbers = [signal.SIGHUP, signal.SIGUSR2, signal.SIGRTMIN + 6]
    show = ["grep", "^SigIgn:", f"{PROC}/self/status"]
    trap = f"trap '' {' '.join(map(str, map(int, numbers)))}"
    script = f"{trap}; {shlex.join(show)}; exec {shlex.join([*RUN, *show[:-1], ':::', show[-1]])}"
    done = ran(tmp_path, script, command=["/bin/sh", "-c"])
    assert (done.returncode, done.stderr) == (0, b"")
    before, in_job = (int(line.split()[1], 16) for line in done.stdout.splitlines())
    assert all(before >> (number - 1) & 1 for number in numbers)
    assert in_job == 0


def test_a_job_that_never_stops_writing_does_not_keep_the_others_from_their_ends(
    tmp_path: Path,
) -> None:
    """They may wait while it writes, and not for ever."""
    jobs = ["exec yes", "head -c 3000000 /dev/zero; exit 3"]
    words = ["-k", "-j2", "--halt", "now,fail=1", "sh", "-c", "{}", ":::", *jobs]
    assert ran(tmp_path, *words, stdout=subprocess.DEVNULL).returncode == 3


def test_much_output_in_order_comes_whole_with_what_was_said_between(tmp_path: Path) -> None:
    """Enough that pipes are grown, and pages are moved from one to the other."""
    script = "seq $0 1000000; echo $0 >&2; seq $0 1000000"
    done = ran(tmp_path, "-k", "-j3", "sh", "-c", script, ":::", "1", "300000", "999999")
    assert (done.returncode, done.stderr) == (0, b"1\n300000\n999999\n")
    lines = (range(first, 1_000_001) for first in (1, 1, 300_000, 300_000, 999_999, 999_999))
    assert done.stdout == b"".join(b"%d\n" % number for part in lines for number in part)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    done = ran_with(closed, tmp_path, "sh", "-c", "echo $0 >>ran", ":::", "a", "b")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert sorted((tmp_path / "ran").read_text().split()) == ["a", "b"]


def test_what_cannot_be_printed_is_not_logged_as_done(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        words = ["-j1", "--joblog", "log", "echo", ":::", "a", "b", "c"]
        done = ran(tmp_path, *words, stdout=full)
    assert done.returncode == 255
    assert b"standard output" in done.stderr
    assert len((tmp_path / "log").read_text().splitlines()) == 1, "the heading"


def test_a_closed_standard_output_is_not_taken_by_the_log(tmp_path: Path) -> None:
    done = ran_with(">&-", tmp_path, "--joblog", "log", "echo", ":::", "a")
    assert done.returncode == 255
    assert b"standard output" in done.stderr
    assert "a" not in (tmp_path / "log").read_text().splitlines()


def test_without_standard_error_all_is_run_that_would_be_announced(tmp_path: Path) -> None:
    done = ran_with("2>&-", tmp_path, "-u", "-t", "touch", ":::", "a", "b")
    assert done.returncode == 0
    assert {"a", "b"} <= set(os.listdir(tmp_path))


def test_a_place_for_results_that_cannot_be_made_is_named_and_its_job_not_logged(
    tmp_path: Path,
) -> None:
    (tmp_path / "out" / "1").mkdir(parents=True)
    (tmp_path / "out" / "1" / "b").touch()
    words = ["-j1", "--joblog", "log", "--results", "out/", "echo", ":::", "a", "b", "c"]
    done = ran(tmp_path, *words)
    assert done.returncode == 255
    assert b"out/1/b" in done.stderr
    assert b"Traceback" not in done.stderr
    assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()[1:]] == ["a"]


def test_a_second_signal_ends_the_wait_for_a_reader_who_does_not_read(tmp_path: Path) -> None:
    ours, theirs = map(os.fdopen, os.pipe(), "rw")
    with ours, theirs, running(
        tmp_path, "-k", "sh", "-c", "exec yes", ":::", "a", stdout=theirs
    ) as process:  # fmt: skip
        wait_for(lambda: waits_for_room(process.pid, theirs.fileno()))
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: caught_all(process.pid))
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == -signal.SIGTERM


def waits_for_room(pid: int, fd: int) -> bool:
    """Whether nothing can be written to *fd*, and the process *pid* sleeps."""
    is_full = not select.select([], [fd], [], 0)[1]
    return is_full and Path(PROC, str(pid), "stat").read_text().split()[2] == "S"


def caught_all(pid: int) -> bool:
    """Whether no signal is on its way to the process, and it sleeps again."""
    status = Path(PROC, str(pid), "status").read_text()
    pending = re.findall(r"^(?:SigPnd|ShdPnd):\s+([0-9a-f]+)", status, re.M)
    return not any(int(one, 16) for one in pending) and "State:\tS" in status


# Its pause is what it computes: so long it takes for 64 KiB, on any machine.
AT_ITS_PACE = """
import os, sys, time
left, pause_s = int(sys.argv[1]), float(sys.argv[2])
while left and not os.path.exists("done"):
    left -= os.write(1, bytes(min(left, 65536)))
    open("begun", "w").close()
    time.sleep(pause_s)
sys.exit(not left)
"""


@pytest.mark.parametrize(
    ("words", "pause_s", "most_bytes"),
    [
        ([], "0.001", 512 << 20),
        (["--timeout", "600"], "0", 4 << 30),
    ],
    ids=["one that computes", "a time limit"],
)
def test_what_is_not_due_is_put_aside_and_not_made_to_wait(
    tmp_path: Path, words: list[str], pause_s: str, most_bytes: int
) -> None:
    """The first one writes until the second one has written all, and fails where it comes late."""
    script = Path(tmp_path, "script")
    script.write_text(AT_ITS_PACE)
    first = f"exec {PYTHON} -SE {script} {most_bytes} {pause_s}"
    second = f"until test -e begun; do :; done; head -c {256 << 20} /dev/zero && : >done"
    with running(
        tmp_path, "-k", "-j2", *words, "sh", "-c", ":::", first, second, stdout=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while process.stdout.read1(1 << 20):
            pass
        assert process.wait(DEADLINE_S) == 0


def test_what_a_job_has_left_behind_is_not_cut_because_it_had_to_wait(tmp_path: Path) -> None:
    first = f"exec head -c {4 << 30} /dev/zero"
    second = "head -c 20000000 /dev/zero | tr '\\0' g & exit 0"
    came_bytes = 0
    with running(tmp_path, "-k", "-j2", "sh", "-c", ":::", first, second) as process:
        assert process.stdout is not None
        while data := process.stdout.read1(1 << 20):
            came_bytes += data.count(b"g")
        assert process.wait(DEADLINE_S) == 0
    assert came_bytes == 20_000_000


@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_no_shell_that_is_stopped_goes_on_as_its_command_was(tmp_path: Path, name: str) -> None:
    words = ["-j64", "--timeout", "0.5", "--termseq", f"{name},60000"]
    script = "sleep 600; : >went-on.$1"
    done = ran(tmp_path, *words, "sh", "-c", script, "sh", ":::", *map(str, range(64)))
    assert (done.returncode, done.stdout) == (64, b"")
    said = done.stderr.splitlines()
    assert [line for line in said if not line.endswith(b"took too long, and was stopped")] == []
    assert len(said) == 64
    assert os.listdir(tmp_path) == []


FIRST = "echo $$ >pid; exec seq 10000000"
OBSTINATE = "trap '' TERM; echo $$ >pid; seq 10000000; exec sleep 600"


@pytest.mark.parametrize(
    ("words", "script", "jobs"),
    [
        (["-k"], FIRST, 1),
        (["--lb"], FIRST, 1),
        (["-k", "--tag"], FIRST, 1),
        (["-k", "--termseq", "TERM,100,KILL,25"], OBSTINATE, 1),
        ([], "test $0 = 1 && exec seq 1000000; echo $$ >pid; exec sleep 600", 2),
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_signal_stops_what_runs_although_nobody_reads(
    tmp_path: Path, words: list[str], script: str, jobs: int, kind: str
) -> None:
    """What was written until then comes whole when somebody does; the run ends with that."""
    ours, theirs = socket.socketpair() if kind == "socket" else map(os.fdopen, os.pipe(), "rw")
    with ours, theirs, running(
        tmp_path, "-j2", *words, "sh", "-c", script, ":::", *"12"[:jobs], stdout=theirs
    ) as process:  # fmt: skip
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        wait_for(lambda: waits_for_room(process.pid, theirs.fileno()))
        theirs.close()
        pid = int((tmp_path / "pid").read_text())
        process.send_signal(signal.SIGINT)
        wait_for(lambda: not Path(PROC, str(pid)).exists())
        assert process.poll() is None
        with open(ours.fileno(), "rb", closefd=False) as file:
            lines = file.read().splitlines()
        assert process.communicate(timeout=DEADLINE_S) == (None, b"")
        assert process.returncode == -signal.SIGINT
    numbers = [int(line.rpartition(b"\t")[2]) for line in lines[:-1]]  # the last one may be torn
    assert numbers == [*range(1, len(numbers) + 1)]
