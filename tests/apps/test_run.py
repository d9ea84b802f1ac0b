"""One command, or many: what is in a result, what stops a command, and what is left behind."""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from held import wait_for
from leftovers import child_pids
from programs_build import build_program
from seccomp import deny, needs_seccomp
from security.spawned import capabilities, set_capabilities
from support import DEADLINE_S, PROC, PYTHON

import procreactor
from procreactor import Command, CommandError, Limits, Result, SpawnError, run, run_many
from procreactor.apps.settings import ManyOptions, RunOptions, Settings

CAP_KILL = 5

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def sh(script: str, *arguments: str) -> list[str]:
    return ["/bin/sh", "-c", script, "sh", *arguments]


def end(*words: object) -> list[str]:
    return [build_program("end"), *map(str, words)]


# --- One command ---------------------------------------------------------------------------------


def test_a_result_has_all_that_is_known_of_a_command() -> None:
    before_s = time.time()
    result = run(sh("echo out; echo err >&2; exit 3"))
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert (result.exit_code, result.signal, result.signal_name) == (3, None, None)
    assert (result.ok, result.timed_out, result.truncated) == (False, False, False)
    assert (result.index, result.attempts, result.error) == (0, 1, None)
    assert result.pid is not None
    assert result.pid > 0
    assert before_s - 1 <= result.started_at <= time.time() + 1
    assert 0 < result.duration_s < DEADLINE_S
    assert result.rusage is not None
    assert result.rusage.max_rss_bytes > 0
    assert str(result.command) == "/bin/sh -c 'echo out; echo err >&2; exit 3' sh"


def test_the_pid_of_a_result_is_the_one_that_the_command_had() -> None:
    result = run(sh("echo $$"))
    assert int(result.stdout) == result.pid


def test_a_command_that_a_signal_ended_says_which() -> None:
    result = run(sh("kill -KILL $$"))
    assert (result.exit_code, result.signal, result.signal_name) == (None, 9, "SIGKILL")
    assert result.outcome == "ended by SIGKILL (9)"
    real_time = run(sh("kill -40 $$"))
    assert (real_time.signal, real_time.signal_name) == (40, "signal 40")


def test_text_is_decoded_and_keeps_its_line_ends() -> None:
    result = run(["printf", r"gr\303\274n\r\n"], text=True)
    assert result.stdout == "grün\r\n"
    assert run(["printf", r"\344"], text=True, encoding="latin-1").stdout == "ä"
    assert run(["printf", r"a\377b"], text=True).stdout == "a\ufffdb"
    with pytest.raises(UnicodeDecodeError):
        run(["printf", r"\377"], text=True, errors="strict")


@pytest.mark.parametrize("data", [b"", b"some", b"x" * 3_000_000])
def test_input_is_written_whole_and_standard_input_then_closed(data: bytes) -> None:
    assert run(["cat"], input=data).stdout == data


def test_input_may_be_text() -> None:
    assert run(["cat"], input="grün", text=True).stdout == "grün"
    assert run(["cat"], input="grün", encoding="latin-1").stdout == "grün".encode("latin-1")


def test_input_that_nobody_reads_is_no_error() -> None:
    result = run(end("exit", 0), input=b"x" * 1_000_000)
    assert result.ok


@pytest.mark.needs("/proc")
def test_without_input_standard_input_is_empty() -> None:
    assert run(["cat"]).stdout == b""
    assert run(["readlink", "/proc/self/fd/0"]).stdout == b"/dev/null\n"


def test_files_are_read_and_written_past_this_process(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"some")
    (tmp_path / "out").write_bytes(b"what was there before")
    with open(tmp_path / "err", "wb") as err:
        result = run(
            sh("cat; echo err >&2"),
            stdin=tmp_path / "in",
            stdout=str(tmp_path / "out"),
            stderr=err.fileno(),
        )
    assert (result.stdout, result.stderr) == (b"", b"")
    assert (tmp_path / "out").read_bytes() == b"some"
    assert (tmp_path / "err").read_bytes() == b"err\n"


def test_a_file_that_cannot_be_opened_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        run(["cat"], stdin=tmp_path / "missing")
    [result] = run_many([Command(["cat"], stdout=tmp_path)])
    assert isinstance(result.error, IsADirectoryError)
    assert (result.exit_code, result.pid, result.ok) == (None, None, False)


def test_a_command_has_the_directory_and_the_environment_it_was_given(tmp_path: Path) -> None:
    assert run(["pwd"], cwd=tmp_path, text=True).stdout.strip() == str(tmp_path.resolve())
    assert run(["/usr/bin/env"], env={"A": "1"}, tree=False).stdout == b"A=1\n"
    with_extra = run(["/usr/bin/env"], env={"A": "1", "B": "2"}, env_extra={"B": "3"}, tree=False)
    assert with_extra.stdout == b"A=1\nB=3\n"
    inherited = run(["/usr/bin/env"], env_extra={"PROCREACTOR_TEST": "x"}).stdout.splitlines()
    assert b"PROCREACTOR_TEST=x" in inherited
    assert len(inherited) >= len(os.environ)


def test_a_program_that_is_not_there_raises_out_of_run() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        run(["no-such-program"])
    assert isinstance(caught.value, SpawnError)
    assert caught.value.stage == "exec"


def test_check_raises_with_command_outcome_and_last_words() -> None:
    with pytest.raises(CommandError) as caught:
        run(sh("for i in 1 2 3 4 5 6 7 8 9; do echo line $i >&2; done; exit 7"), check=True)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("sh: exit code 7")
    assert lines[1:] == [f"    line {number}" for number in range(2, 10)]
    assert caught.value.result.exit_code == 7
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert run(["true"], check=True).ok


def test_check_is_not_content_with_a_command_that_was_timed_out_and_then_ended_well() -> None:
    script = "trap 'exit 0' TERM; echo here; while :; do read x < /dev/zero & wait; done"
    with pytest.raises(CommandError, match=r"timed out after .* s, exit code 0"):
        run(sh(script), timeout_s=0.2, check=True)


def test_bounded_output_keeps_both_ends_and_says_what_was_dropped() -> None:
    result = run(sh("seq 1 100000"), max_output_bytes=100)
    assert result.truncated
    head, gap, tail = result.stdout.partition(b"\n... 588795 bytes dropped ...\n")
    assert gap
    assert head == b"".join(b"%d\n" % n for n in range(1, 30))[:50]
    assert tail.endswith(b"99999\n100000\n")
    assert len(head) + len(tail) == 100
    assert not run(["echo", "short"], max_output_bytes=100).truncated


def test_output_that_is_not_captured_goes_where_ours_goes(tmp_path: Path) -> None:
    script = (
        "from procreactor import run\n"
        "print('before', flush=True)\n"
        "result = run(['/bin/sh', '-c', 'echo out; echo err >&2'], capture=False)\n"
        "assert result.stdout == result.stderr == b''\n"
    )
    result = run([PYTHON, "-c", script])
    assert (result.stdout, result.stderr) == (b"before\nout\n", b"err\n")


def test_tee_shows_output_as_it_comes_and_keeps_it(capfdbinary: Any) -> None:
    result = run(sh("echo out; echo err >&2"), tee=True)
    assert capfdbinary.readouterr() == (b"out\n", b"err\n")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


def test_output_is_told_while_the_command_runs(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    told: list[tuple[int, int, bytes]] = []

    def on_output(index: int, fd: int, data: bytes) -> None:
        told.append((index, fd, data))
        if data == b"first\n":
            fifo.write_bytes(b"go on\n")  # for which the command waits

    result = run(sh(f"echo first; read x < {fifo}; echo second"), on_output=on_output)
    assert told == [(0, 1, b"first\n"), (0, 1, b"second\n")]
    assert result.stdout == b"first\nsecond\n"


def test_rlimits_hold_in_the_command() -> None:
    limits = Limits(rlimits={resource.RLIMIT_CPU: 50, resource.RLIMIT_CORE: (0, 0)})
    assert run(sh("ulimit -t; ulimit -c"), limits=limits).stdout == b"50\n0\n"


SHOW_LIMIT = """
import sys
from procreactor.kernel.cgroups import find_directory
texts = (open(f"/proc/self/{name}").read() for name in ("mountinfo", "cgroup"))
print(open(f"{find_directory(*texts)}/{sys.argv[1]}").read().strip())
"""


def run_first(argv: list[str], limits: Limits) -> Result[bytes]:
    with run_many([argv], limits=limits) as results:
        return next(results)


@pytest.mark.parametrize("run_it", [run, run_first])
@pytest.mark.parametrize(
    ("limits", "file", "value"),
    [
        (Limits(memory_bytes=1 << 30), "memory.max", b"1073741824"),
        (Limits(pids=50), "pids.max", b"50"),
        (Limits(cpus=0.5), "cpu.max", b"50000 100000"),
    ],
)
def test_each_limit_of_all_that_a_command_starts_is_set_or_refused_by_its_name(
    run_it: Any, limits: Limits, file: str, value: bytes
) -> None:
    """The kernel's own word where the controller can be had; where not, that just this one cannot.

    Then it is the refusal alone that shows that the limit has come through, and not its value.
    """
    refusal: SpawnError | None = None
    try:
        result = run_it([PYTHON, "-c", SHOW_LIMIT, file], limits=limits)
    except SpawnError as error:
        refusal = error
    if refusal is not None:
        assert refusal.stage == f"{file.partition('.')[0]} limit"
        assert refusal.hint
    else:
        assert (result.stdout, result.stderr) == (value + b"\n", b"")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timeout_s": -1}, ValueError, "timeout_s must be >= 0"),
        ({"timeout_s": "1"}, TypeError, "timeout_s must be seconds"),
        ({"timeout_s": float("nan")}, ValueError, "timeout_s"),
        ({"max_output_bytes": -1}, ValueError, "max_output_bytes"),
        ({"encoding": "no-such"}, LookupError, "no-such"),
        ({"errors": "no-such"}, LookupError, "no-such"),
        ({"jobs": 2}, TypeError, r"run\(\) got an unexpected keyword argument 'jobs'"),
        ({"time_out_s": 2}, TypeError, "did you mean 'timeout_s'"),
        ({"on_output": 3}, TypeError, "on_output"),
        ({"input": 3}, TypeError, "input must be bytes"),
        ({"input": b"", "stdin": 0}, ValueError, "either input or stdin"),
        ({"env": 3}, TypeError, "env must be a mapping"),
        ({"env_extra": {"A=B": "1"}}, ValueError, "illegal environment variable name"),
        ({"cwd": 3}, TypeError, "cwd must be"),
        ({"limits": Limits(rlimits={999: 1})}, ValueError, "limits.rlimits"),
        ({"limits": {"memory_bytes": 1}}, TypeError, "limits must be Limits"),
    ],
)
def test_misuse_is_told_before_anything_is_started(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(["true"], **options)


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ([], ValueError),
        (["a\0b"], ValueError),
        (["true", 3], TypeError),
        ("true", TypeError),
        (None, TypeError),
        ({"a": 1}, TypeError),
        (iter(["true"]), TypeError),
    ],
)
def test_arguments_that_are_none_are_refused(argv: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="argv"):
        run(argv)
    with pytest.raises(error, match="argv"):
        list(run_many([argv]))


def test_a_command_is_no_argv() -> None:
    with pytest.raises(TypeError, match="argv must be"):
        run(Command(["true"]))  # type: ignore[call-overload]


@pytest.mark.parametrize("timeout_s", ["x", -1, float("nan")])
def test_the_time_of_a_command_is_checked_before_it_is_started(timeout_s: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout_s"):
        list(run_many([Command(["true"], timeout_s=timeout_s)]))


@pytest.mark.parametrize("halt", [3, "x", "now,fail=0"])
def test_when_to_halt_is_checked_before_anything_is_started(halt: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="halt"):
        run_many([], halt=halt)


# --- Time-outs -----------------------------------------------------------------------------------


def test_a_command_that_takes_too_long_is_terminated_and_its_output_kept() -> None:
    result = run(sh("echo before; exec sleep 1000"), timeout_s=0.3)
    assert (result.timed_out, result.ok) == (True, False)
    assert (result.signal_name, result.stdout) == ("SIGTERM", b"before\n")
    assert 0.3 <= result.duration_s < DEADLINE_S


def test_a_command_that_ignores_the_signal_is_killed_after_the_grace() -> None:
    script = "trap '' TERM; echo before; while :; do sleep 1000; done"
    result = run(sh(script), timeout_s=0.2, kill_after_s=0.2)
    assert (result.timed_out, result.signal_name) == (True, "SIGKILL")
    assert result.duration_s >= 0.4


def log_of_a_kill_that_is_not_enough() -> list[Any]:
    """By root without the right to kill others: a grandchild has become another user's."""
    said = io.StringIO()
    logging.getLogger("procreactor").addHandler(logging.StreamHandler(said))
    effective, permitted, inheritable = capabilities()
    set_capabilities(effective & ~(1 << CAP_KILL), permitted, inheritable)
    script = "setpriv --reuid 54324 sh -c 'echo $$; exec sleep 600' & exec sleep 600"
    for timeout_s in (0.3, 3, 30):  # on a busy machine it takes longer to become another's
        result = run(sh(script), timeout_s=timeout_s, kill_after_s=0.1)
        if result.stdout:
            break
    set_capabilities(effective, permitted, inheritable)
    pid = int(result.stdout)
    os.kill(pid, signal.SIGKILL)
    lines = said.getvalue().splitlines()
    return [result.timed_out, f"killed, and alive all the same: {pid}" in lines]


@needs_root
@pytest.mark.needs("/proc")
def test_who_lives_on_after_a_kill_is_told() -> None:
    assert alone(log_of_a_kill_that_is_not_enough, disable="cgroup") == [True, True]


def test_a_time_out_of_nothing_still_runs_what_is_quick() -> None:
    [result] = run_many([Command(["true"], timeout_s=DEADLINE_S)], timeout_s=0.0)
    assert result.ok


def test_a_time_out_counts_from_the_start_of_each_command() -> None:
    # One at a time: the last ones wait for longer than their time-out before they start.
    results = list(run_many([["sleep", "0.15"]] * 5, jobs=1, timeout_s=0.5))
    assert [result.timed_out for result in results] == [False] * 5


def test_commands_have_time_outs_of_their_own() -> None:
    results = run_many(
        [Command(["sleep", "1000"], timeout_s=0.1), Command(["sleep", "0.3"])],
        jobs=2,
        timeout_s=DEADLINE_S,
    )
    assert {result.index: result.timed_out for result in results} == {0: True, 1: False}


# --- Trees ---------------------------------------------------------------------------------------


def alive(pids: list[int]) -> list[int]:
    """Those that have neither ended nor are zombies."""
    found = []
    for pid in pids:
        try:
            state = Path(PROC, str(pid), "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            found.append(pid)
    return found


@pytest.mark.needs("/proc")  # where there are no cgroups either
def test_a_time_out_ends_all_descendants(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        f"echo $$ >> {pids};"
        f"(setsid sh -c 'echo $$ >> {pids}; trap \"\" TERM; while :; do sleep 1000; done' &);"
        f"sh -c 'echo $$ >> {pids}; exec sleep 1000' &"
        "echo started; wait"
    )
    result = run(sh(script), timeout_s=0.5, kill_after_s=0.2)
    assert result.timed_out
    known = [int(line) for line in pids.read_text().split()]
    assert len(known) == 3
    assert alive(known) == []


def test_a_process_left_behind_does_not_hold_the_result_and_lives_on(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"(trap '' HUP; echo $$; sh -c 'echo $$ > {pids}; exec sleep 1000') & echo done"
    begun_s = time.monotonic()
    result = run(sh(script))
    assert time.monotonic() - begun_s < DEADLINE_S
    assert result.ok
    assert b"done" in result.stdout
    wait_for(lambda: pids.exists() and pids.read_text().endswith("\n"))
    [left] = [int(pids.read_text())]
    try:
        assert alive([left]) == [left]
    finally:
        os.kill(left, signal.SIGKILL)


# --- Many ----------------------------------------------------------------------------------------


def test_many_commands_each_have_their_result() -> None:
    results = list(run_many([end("exit", number % 7) for number in range(300)], jobs=8))
    assert sorted(result.index for result in results) == list(range(300))
    assert all(result.exit_code == result.index % 7 for result in results)


def test_results_come_in_order_when_asked_for() -> None:
    commands = [sh(f"sleep 0.{9 - number % 10}; echo {number}") for number in range(20)]
    results = list(run_many(commands, jobs=10, ordered=True, text=True))
    assert [result.index for result in results] == list(range(20))
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(20)]


def test_of_an_endless_iterable_no_more_is_taken_than_is_started() -> None:
    taken = itertools.count()

    def endless() -> Iterator[list[str]]:
        while True:
            next(taken)
            yield end("exit", 0)

    with run_many(endless(), jobs=4) as results:
        for _ in range(200):
            assert next(results).ok
    assert next(taken) <= 200 + 4 + 64


@pytest.mark.needs("threads")
def test_in_order_the_starts_do_not_run_away_from_a_slow_command(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    taken: list[int] = []

    def commands() -> Iterator[list[str]]:
        yield sh(f"read x < {fifo}")
        for number in range(2000):
            taken.append(number)
            if number == 250:
                threading.Thread(target=fifo.write_bytes, args=(b"go\n",)).start()
            yield end("exit", 0)

    results = list(run_many(commands(), jobs=2, ordered=True))
    assert [result.index for result in results] == list(range(2001))


def test_a_command_that_cannot_be_started_is_a_result_among_the_others() -> None:
    results = sorted(run_many([["true"], ["/no/such/program"], ["true"]]), key=lambda r: r.index)
    assert [result.ok for result in results] == [True, False, True]
    assert isinstance(results[1].error, FileNotFoundError)
    assert "/no/such/program" in results[1].outcome
    with pytest.raises(SpawnError):
        results[1].check()


def test_a_tag_comes_back_with_the_result() -> None:
    [result] = run_many([Command(["true"], tag=("any", "thing"))])
    assert result.command.tag == ("any", "thing")


def test_input_and_environment_differ_from_command_to_command() -> None:
    commands = [
        Command(sh('cat; echo "$X"'), input=f"{number} ", env_extra={"X": str(number * 2)})
        for number in range(20)
    ]
    results = run_many(commands, jobs=4, ordered=True, text=True)
    assert [result.stdout for result in results] == [f"{n} {2 * n}\n" for n in range(20)]


def test_a_command_that_fails_is_tried_again(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    script = f'echo x >> {counter}; test "$(wc -l < {counter})" -ge 3'
    [result] = run_many([sh(script)], retries=5, retry_delay_s=0.01)
    assert (result.ok, result.attempts) == (True, 3)
    [never] = run_many([["false"]], retries=2)
    assert (never.ok, never.attempts) == (False, 3)


def test_a_start_that_fails_is_tried_again_too() -> None:
    [result] = run_many([["/no/such/program"]], retries=1)
    assert (result.attempts, type(result.error).__name__) == (2, "SpawnFileNotFoundError")


def test_halt_soon_starts_no_more() -> None:
    results = list(run_many([["true"], ["false"], ["true"]], jobs=1, halt="soon,fail=1"))
    assert [result.index for result in results] == [0, 1]


def test_halt_now_stops_what_runs() -> None:
    results = list(run_many([["sleep", "1000"], ["false"], ["true"]], jobs=2, halt="now,fail=1"))
    assert {result.index: result.signal_name for result in results} == {0: "SIGTERM", 1: None}


def test_halt_at_a_share_of_what_has_no_length_reads_all_of_it_first() -> None:
    codes = (str(number % 2) for number in range(10))
    results = list(run_many((end("exit", code) for code in codes), jobs=1, halt="soon,fail=30%"))
    assert [result.exit_code for result in results] == [0, 1, 0, 1, 0, 1]


def test_a_file_that_cannot_be_opened_is_tried_again_like_all_else(tmp_path: Path) -> None:
    nowhere = tmp_path / "made-later" / "out"
    (result,) = run_many([Command(["true"], stdout=nowhere)], retries=2)
    assert (result.attempts, result.exit_code) == (3, None)
    assert isinstance(result.error, FileNotFoundError)
    assert result.error.filename == str(nowhere)


def crowded_run(stdin: str | None, ahead: int) -> list[int | None]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (75, 75))
    taken = itertools.count()
    command = Command(["sleep", "0.02"], stdin=stdin)
    commands = (command for _ in range(100) if next(taken) >= 0)
    codes = []
    for result in run_many(commands, jobs=50, retry_delay_s=1000):
        codes.append(result.exit_code)
        assert next(taken) < len(codes) + ahead
    return codes


@pytest.mark.parametrize("stdin", [None, os.devnull])
def test_what_there_is_no_room_for_waits_until_another_has_ended(stdin: str | None) -> None:
    """Each takes a few open files; no more than a few have room, and none is failed for that.

    Nor does it wait for longer, nor is everything taken that there would be no room for either.
    """
    assert alone(crowded_run, stdin, 300) == [0] * 100


def crowded_runs(stdin: str | None) -> list[tuple[int, list[object]]]:
    """For each of some numbers of open files: what comes of a dozen commands."""
    command, found = Command(end("exit", 0), stdin=stdin), []
    run(command.argv)
    for most_fds in range(12, 100):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_fds, 1024))
        codes: list[object]
        try:
            codes = [result.exit_code for result in run_many([command] * 12, jobs=6)]
        except OSError as error:
            codes = [error.errno]
        found.append((most_fds, sorted(set(codes), key=str)))
    return found


@pytest.mark.parametrize("stdin", [None, os.devnull])
def test_if_one_has_room_all_have_one_after_the_other(stdin: str | None) -> None:
    found = alone(crowded_runs, stdin)
    assert found[-1][1] == [0]
    others = [codes for _, codes in found if codes != [0]]
    assert [None] in others
    mixed = [codes for codes in others if codes not in ([None], [errno.EMFILE])]
    # A start takes two fds less where there was no more room for a cgroup of its own: so there are
    # up to two numbers that are enough for one of the two kinds of start, and not for the other.
    assert len(mixed) <= 2, found


def test_halt_at_a_share_of_a_list_knows_its_length() -> None:
    results = list(run_many([["false"]] * 10, jobs=1, halt="soon,fail=30%"))
    assert len(results) == 3
    with pytest.raises(ValueError, match="fail="):
        run_many([], halt="tomorrow")


def test_nothing_is_started_before_the_first_result_is_asked_for(tmp_path: Path) -> None:
    results = run_many([["touch", str(tmp_path / "made")]])
    results.close()
    assert not (tmp_path / "made").exists()
    assert list(results) == []


@pytest.mark.needs("/proc")
def test_closing_kills_what_runs_with_its_descendants(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"echo $$ >> {pids}; (setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' &); sleep 1000"
    with run_many([*[sh(script)] * 3, ["true"]], jobs=4) as results:
        assert next(results).index == 3
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 6)
    assert alive([int(pid) for pid in pids.read_text().split()]) == []
    assert child_pids() == set()


def test_leaving_the_loop_leaves_nothing() -> None:
    for result in run_many(itertools.repeat(["true"]), jobs=4):
        assert result.ok
        break
    assert child_pids() == set()


@pytest.mark.needs("threads")
def test_several_threads_run_commands_at_once() -> None:
    found: list[int] = []

    def work() -> None:
        found.extend(result.exit_code or 0 for result in run_many([end("exit", 5)] * 50, jobs=3))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5] * 300


def test_what_on_output_raises_is_logged_and_costs_no_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(index: int, fd: int, data: bytes) -> None:
        raise RuntimeError("not today")

    result = run(sh("echo some; echo more >&2"), on_output=refuse)
    assert (result.ok, result.stdout, result.stderr) == (True, b"some\n", b"more\n")
    assert caplog.text.count("RuntimeError: not today") == 2
    assert f"{refuse!r} raised" in caplog.text


def test_a_copy_that_cannot_be_written_costs_no_result(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "not today")

    told: list[bytes] = []
    monkeypatch.setattr(sys, "stdout", Refusing())
    result = run(
        sh("echo some; echo more >&2"), tee=True, on_output=lambda _, fd, data: told.append(data)
    )
    assert (result.stdout, result.stderr) == (b"some\n", b"more\n")
    assert sorted(told) == [b"more\n", b"some\n"]
    assert "not today" in caplog.text


# --- Interrupts ----------------------------------------------------------------------------------


def interrupted_run(script: str, kill_after_s: float) -> tuple[bool, list[int]]:
    """Run *script*, which interrupts us; return whether that came out, and who is left."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        run(sh(script, str(os.getpid())), kill_after_s=kill_after_s)
    except KeyboardInterrupt:
        return True, sorted(child_pids())
    return False, sorted(child_pids())


def test_an_interrupt_terminates_what_runs_and_is_raised() -> None:
    script = "trap 'exit 0' TERM; sleep 0.1; kill -INT $1; while :; do sleep 0.05; done"
    assert alone(interrupted_run, script, DEADLINE_S) == [True, []]


def interrupted_body(where: str) -> tuple[bool, list[int], bool]:
    """Interrupt a loop over results; whether that came out, who is left, who was told to end."""
    os.chdir(where)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first = sh("until test -e ready; do sleep 0.01; done")
    other = sh("trap 'touch told' TERM; touch ready; while :; do sleep 0.05; done")
    try:
        for _ in run_many([first, other], jobs=2):
            signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return True, sorted(child_pids()), Path("told").exists()
    return False, sorted(child_pids()), Path("told").exists()


def test_an_interrupt_in_the_body_of_a_loop_kills_at_once(tmp_path: Path) -> None:
    assert alone(interrupted_body, str(tmp_path)) == [True, [], False]


def test_a_second_interrupt_kills() -> None:
    script = (
        "trap 'kill -INT $1' TERM; trap '' INT; sleep 0.1; kill -INT $1;"
        "while :; do sleep 0.05; done"
    )
    assert alone(interrupted_run, script, 1000.0) == [True, []]


# --- The package's face --------------------------------------------------------------------------


def test_the_typed_options_are_those_of_the_settings() -> None:
    settings = {field.name for field in dataclasses.fields(Settings)} - {"text"}
    many = typing.get_type_hints(ManyOptions)
    assert set(many) == settings
    assert set(typing.get_type_hints(RunOptions)) == settings - {
        "jobs",
        "ordered",
        "retries",
        "retry_delay_s",
        "halt",
    }
    hints = typing.get_type_hints(Settings)
    assert {name: hints[name] for name in many} == many


def test_the_face_of_the_package_has_what_it_promises() -> None:
    assert {"run", "run_many", "Result", "Command", "CommandError", "Limits"} <= set(
        dir(procreactor)
    )
    assert len(procreactor.__all__) <= 25
    for name in procreactor.__all__:
        assert getattr(procreactor, name) is not None
    assert procreactor.Result is Result


def test_in_a_forked_copy_there_are_no_more_results() -> None:
    results = run_many(itertools.repeat(["true"]), jobs=2)
    next(results)
    pid = os.fork()
    if pid == 0:
        try:
            next(results)
            while True:
                next(results)
        except ChildProcessError as error:
            os._exit(0 if error.errno == errno.ECHILD else 2)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert next(results).ok
    results.close()


def test_warnings_are_errors_and_there_are_none() -> None:
    script = (
        "import procreactor\n"
        "assert procreactor.run(['echo', 'x']).ok\n"
        "results = procreactor.run_many([['true']] * 100, jobs=4)\n"
        "next(results)\n"  # and the end of the interpreter with children alive
    )
    result = run([sys.executable, "-X", "dev", "-W", "error", "-c", script], text=True)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


# --- what is called off --------------------------------------------------------------------------


def test_one_that_waits_to_be_started_again_is_told_when_nothing_more_is_started() -> None:
    results = run_many(
        [["false"], ["true"]], jobs=2, retries=1, retry_delay_s=1000, halt="soon,success=1"
    )
    assert sorted((one.index, one.exit_code, one.attempts) for one in results) == [
        (0, 1, 1),
        (1, 0, 1),
    ]


def test_one_that_cannot_be_started_is_told_before_another_is_taken(tmp_path: Path) -> None:
    missing = Command(["true"], stdin=str(tmp_path / "missing"))
    with run_many(missing for _ in itertools.count()) as results:
        assert isinstance(next(results).error, FileNotFoundError)
    mark = tmp_path / "mark"
    commands = [missing, Command(["touch", str(mark)])]
    (result,) = run_many(commands, jobs=1, halt="now,fail=1")
    assert result.error is not None
    assert not mark.exists()


def test_one_command_is_no_iterable_of_commands() -> None:
    with pytest.raises(TypeError, match="commands must be an iterable"):
        list(run_many(Command(["true"])))  # type: ignore[arg-type]


# --- Both streams as one -------------------------------------------------------------------------

MIXED = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
ALL_MIXED = "".join(f"out {number}\nerr {number}\n" for number in range(1, 10))


@pytest.mark.parametrize("merge", [procreactor.STDOUT, subprocess.STDOUT])
def test_standard_error_may_go_where_the_output_goes(merge: int) -> None:
    result = run(sh(f"{MIXED}; exit 3"), text=True, stderr=merge)
    assert (result.stdout, result.stderr) == (ALL_MIXED, "")
    with pytest.raises(CommandError, match=r"(?s)exit code 3.*out 9\n *err 9"):
        result.check()


def hint_of_a_merge_that_has_no_room() -> str:
    deny("dup3", errno.EMFILE, (1, 2, 0xFFFFFFFF))
    with pytest.raises(SpawnError, match="dup") as raised:
        run(["true"], stderr=procreactor.STDOUT, tree=False)
    return raised.value.hint


@needs_seccomp
def test_what_is_told_of_a_merge_that_fails_names_no_fd_that_there_is_not() -> None:
    assert "-3" not in alone(hint_of_a_merge_that_has_no_room)


def test_both_streams_may_go_into_one_file(tmp_path: Path) -> None:
    result = run(sh(MIXED), stdout=tmp_path / "both", stderr=procreactor.STDOUT)
    assert (result.stdout, result.stderr) == (b"", b"")
    assert (tmp_path / "both").read_text() == ALL_MIXED


def test_commands_with_one_stream_and_with_two_run_side_by_side() -> None:
    ones = [Command(sh(MIXED), stderr=procreactor.STDOUT, input="") for _ in range(20)]
    twos = [Command(sh(MIXED)) for _ in range(20)]
    commands = [one for pair in zip(ones, twos, strict=True) for one in pair]
    seen: list[tuple[int, int]] = []
    results = run_many(
        commands, ordered=True, text=True, on_output=lambda *what: seen.append(what[:2])
    )
    for result in results:
        out, err = result.stdout.count("out"), result.stderr.count("err")
        if result.command.is_merged:
            assert (result.stdout, result.stderr) == (ALL_MIXED, "")
        else:
            assert (out, err) == (9, 9)
    assert {fd for index, fd in seen if index % 2 == 0} == {1}


def test_one_that_writes_much_to_both_at_once_loses_nothing() -> None:
    script = "head -c 3000000 /dev/zero >&2 & head -c 3000000 /dev/zero; wait"
    result = run(sh(script), stderr=procreactor.STDOUT)
    assert result.stdout == bytes(6_000_000)


def test_uncaptured_standard_error_goes_where_this_processs_output_goes() -> None:
    assert alone(uncaptured) == ["captured 0", ALL_MIXED]


def uncaptured() -> list[str]:
    read_fd, write_fd = os.pipe()
    stdout = os.dup(1)
    os.dup2(write_fd, 1)
    result = run(sh(MIXED), capture=False, stderr=procreactor.STDOUT)
    os.dup2(stdout, 1)
    for fd in (stdout, write_fd):
        os.close(fd)
    with open(read_fd) as file:
        return [f"captured {len(result.stdout)}", file.read()]


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_only_standard_error_may_be_as_another(stream: str) -> None:
    with pytest.raises(ValueError, match=f"{stream} must be from 0"):
        run(["true"], **{stream: procreactor.STDOUT})  # type: ignore[arg-type]


# --- too few fds ----------------------------------------------------------------------------------


def time_out_without_an_fd() -> list[list[object]]:
    """There is no fd left from when the loop has the first in hand, until it is over."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    taken: list[int] = []
    heard: list[bytes] = []

    def commands() -> Iterator[Command]:
        deaf = ["sh", "-c", "trap '' TERM; echo here; sleep 60 & wait; wait"]
        yield Command(deaf, timeout_s=2)  # long enough for the others, on any machine
        while not heard:
            yield Command(["true"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass

    def on_output(index: int, fd: int, data: bytes) -> None:
        heard.append(data)

    results = run_many(commands(), jobs=2, kill_after_s=0.1, on_output=on_output)
    found: list[list[object]] = [[one.index, one.timed_out, one.signal] for one in results]
    for fd in taken:
        os.close(fd)
    return found


@pytest.mark.needs("file limits", "/proc")
def test_without_an_fd_to_look_for_a_tree_its_command_is_killed_and_the_run_goes_on() -> None:
    *others, deaf = alone(time_out_without_an_fd, disable="clone3")  # by its session
    assert others == [[index, False, None] for index in range(1, len(others) + 1)]
    assert deaf == [0, True, signal.SIGKILL]
