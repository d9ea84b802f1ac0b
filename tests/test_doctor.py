"""The doctor tells what is so, in words that say what to do."""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from seccomp import needs_seccomp

from procreactor import __version__, doctor
from procreactor.kernel.facts import Cgroup, Limit, read_facts


def ask(disable: str = "", *arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "procreactor", "doctor", *arguments],
        env={**os.environ, "PROCREACTOR_DISABLE": disable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        **how,  # type: ignore[call-overload]
    )


def ask_in(world: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.worlds.enter", world, sys.executable]
    return subprocess.run(
        [*command, "-m", "procreactor", "doctor"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lines_of(text: str) -> dict[str, str]:
    """The lines that tell something: name -> what is told."""
    told = (line.strip().partition(" ") for line in text.splitlines() if line.startswith("  "))
    return {name: value.strip() for name, _, value in told}


def test_it_names_the_version_tells_the_features_and_starts_children() -> None:
    answer = ask()
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"procreactor {__version__}, CPython ")
    used = {name for name, value in lines_of(answer.stdout).items() if value == "in use"}
    assert used == read_facts().used
    assert "median" in answer.stdout.splitlines()[-1]


def test_a_feature_that_is_off_is_told_with_the_reason_and_the_price() -> None:
    answer = ask("vfork,pidfd")
    assert answer.returncode == 0
    told = lines_of(answer.stdout)
    assert told["vfork"].startswith("OFF (PROCREACTOR_DISABLE): fork")
    assert told["pidfd"].startswith("OFF (PROCREACTOR_DISABLE): a waiting thread")
    assert told["clone3"].startswith("OFF (for vfork only)")


def test_a_feature_that_the_kernel_refuses_is_told_so() -> None:
    facts = dataclasses.replace(read_facts(), used=frozenset({"vfork"}), disabled=frozenset())
    told = lines_of("\n".join(doctor.report(facts)))
    assert told["pidfd"].startswith("OFF (the kernel or a sandbox refuses it): ")


def test_a_machine_that_starts_no_children_is_told_so_and_fails() -> None:
    def allow_no_fds() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))

    answer = ask(preexec_fn=allow_no_fds)
    assert answer.returncode == 1
    assert "cannot start child" in answer.stdout


@pytest.mark.parametrize(
    ("cgroup", "line", "words"),
    [
        (None, "directory", "none to be seen"),
        (Cgroup("/c", (), False, False, None), "writable", "no: "),
        (Cgroup("/c", (), True, False, None), "cgroup.kill", "no (Linux 5.14)"),
        (Cgroup("/c", ("pids",), True, True, 9), "pids.max", "9"),
        (Cgroup("/c", (), True, True, None), "controllers", "none"),
    ],
)
def test_a_cgroup_is_told_with_what_it_lacks(cgroup: Cgroup | None, line: str, words: str) -> None:
    facts = dataclasses.replace(read_facts(), cgroup=cgroup)
    assert lines_of("\n".join(doctor.report(facts)))[line].startswith(words)


def test_limits_are_told_in_children() -> None:
    facts = dataclasses.replace(
        read_facts(), open_files=Limit(1024, 4096), pipe_pages=0, most_pids=None, uid=1
    )
    text = "\n".join(doctor.report(facts))
    assert "1,024, at most 4,096 (ulimit): room for about 248 children" in text
    assert "pipe pages     unlimited" in text
    assert "pids           unknown" in text


def test_no_command_and_an_unknown_one_are_misuse() -> None:
    for arguments in ([], ["physician"]):
        answer = subprocess.run(
            [sys.executable, "-m", "procreactor", *arguments], capture_output=True, text=True
        )
        assert answer.returncode == 2
        assert "Usage: procreactor COMMAND" in answer.stderr


@needs_seccomp
def test_what_a_sandbox_denies_is_told_as_refused_and_no_more_is_lost() -> None:
    answer = ask_in("all of these: EPERM")
    assert (answer.returncode, answer.stderr) == (0, "")
    told = lines_of(answer.stdout)
    off = {name for name, value in told.items() if value.startswith("OFF (the kernel or a sandbox")}
    assert off == {"clone3", "close_range", "pidfd", "unshare"}


@needs_seccomp
def test_where_no_threads_can_be_had_it_says_so_and_what_that_costs() -> None:
    answer = ask_in("clone3: EPERM")
    assert (answer.returncode, answer.stderr) == (1, "")
    assert answer.stdout.splitlines()[-1].startswith("No threads can be had")
    assert lines_of(answer.stdout)["vfork"] == "in use"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    command = [sys.executable, "-W", "error", "-m", "procreactor", "doctor"]
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=write_fd, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(write_fd)
    assert (answer.returncode, answer.stderr) == (1, b"")
