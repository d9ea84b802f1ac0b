"""The doctor tells what is so, in words that say what to do."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from alone import alone
from load.room import raise_open_files
from seccomp import deny, needs_seccomp
from support import LACKS, LACKS_ALONE
from worlds.catalogue import World, worlds

from procreactor import __version__, doctor
from procreactor.kernel.facts import Cgroup, Limit, read_facts
from procreactor.kernel.facts import _most_pids as most_pids_from

FULL_PIPE = 16 * os.sysconf("SC_PAGE_SIZE")
SOME_UID = 54323
"""Nobody's, so that no other process has pipes of his."""


def ask(disable: str = "", *, before: str = "true") -> subprocess.CompletedProcess[str]:
    """Run the command where a shell has done *before*."""
    command = [sys.executable, "-W", "error", "-m", "procreactor", "doctor"]
    return subprocess.run(
        ["/bin/sh", "-c", f'{before} && exec "$@"', "sh", *command],
        env={**os.environ, "PROCREACTOR_DISABLE": disable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ask_in(world: str, *before: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.worlds.enter", world, *before, sys.executable]
    return subprocess.run(
        [*command, "-m", "procreactor", "doctor"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ask_within(files: int) -> subprocess.CompletedProcess[str]:
    """Where so many files may be open, and twice as many if it asked for them."""
    return ask(before=f"ulimit -S -n {files} && ulimit -H -n {2 * files}")


def features_used() -> list[str]:
    return sorted(read_facts().used)


def lines_of(text: str) -> dict[str, str]:
    """The lines that tell something: name -> what is told."""
    told = (line.strip().partition(" ") for line in text.splitlines() if line.startswith("  "))
    return {name: value.strip() for name, _, value in told}


def test_it_names_the_version_tells_the_features_and_starts_children() -> None:
    answer = ask(os.environ.get("PROCREACTOR_DISABLE", ""))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"procreactor {__version__}, CPython ")
    used = {name for name, value in lines_of(answer.stdout).items() if value == "in use"}
    assert used == set(alone(features_used))
    assert "median" in answer.stdout.splitlines()[-1]


BY_PROC = "a sweep over /proc/self/fd in each child"
BY_POLL = "a million fd numbers asked of poll in each child: some 10 ms"

PRICES = {
    "vfork": "fork: a spawn grows with the memory of this process",
    "unshare": "a spawn copies the fd table: it grows with the open files of this process",
    "pidfd": "a waiting thread per child, and signals by number",
    "clone3": "clone, and some more system calls in each child; no CLONE_INTO_CGROUP",
    "close_range": BY_PROC if os.path.isdir("/proc/self/fd") else BY_POLL,
    "helper": "with uid= or gid=, fork: such a spawn grows with the memory of this process",
}
DENIALS = {
    "pidfd_open": "processes of a tree go by number, as do children of others, for each of which a"
    " thread waits",
    "pidfd_send_signal": "signals by number: a stranger's, where other code has just reaped the"
    " child",
    "waitid": "no child can be reaped: all become zombies, and how they ended is not told",
}
DENIED_HERE = frozenset() if os.environ.get("PROCREACTOR_DISABLE") else LACKS_ALONE
"""What the world that the tests are in denies. What it switches off, another one switches on: who
enters that has a PROCREACTOR_DISABLE of its own."""

FOR_VFORK_ONLY = {"unshare", "clone3", "helper"}


@pytest.mark.skipif(read_facts().used != set(PRICES), reason="something is off already")
@pytest.mark.parametrize("disable", [*PRICES, "cgroup", "vfork,pidfd", ",".join(PRICES)])
def test_each_feature_that_is_off_is_told_with_the_reason_and_the_price(disable: str) -> None:
    """And of nothing else is anything told but that it is in use, or what is so without."""
    off = set(disable.split(","))
    reasons = dict.fromkeys(FOR_VFORK_ONLY, "for vfork only") if "vfork" in off else {}
    reasons |= dict.fromkeys(off, "PROCREACTOR_DISABLE")
    answer = ask(disable)
    assert (answer.returncode, answer.stderr) == (0, "")
    told = lines_of(answer.stdout)
    for name, price in PRICES.items():
        wanted = f"OFF ({reasons[name]}): {price}" if name in reasons else "in use"
        assert told[name] == wanted
    assert told["directory"].startswith("OFF (PROCREACTOR_DISABLE): ") == ("cgroup" in off)
    assert {"writable", "cgroup.kill", "controllers"}.isdisjoint(told) or "cgroup" not in off


def test_a_feature_that_the_kernel_refuses_is_told_so() -> None:
    facts = dataclasses.replace(read_facts(), used=frozenset({"vfork"}), disabled=frozenset())
    told = lines_of("\n".join(doctor.report(facts)))
    assert told["pidfd"].startswith("OFF (the kernel or a sandbox refuses it): ")


def test_a_machine_that_starts_no_children_is_told_so_and_fails() -> None:
    answer = ask(before="ulimit -n 12")
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
    facts = dataclasses.replace(read_facts(), cgroup=cgroup, disabled=frozenset())
    assert lines_of("\n".join(doctor.report(facts)))[line].startswith(words)


def test_of_all_pids_max_above_a_cgroup_the_least_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for folder, most in ((tmp_path, "9"), (tmp_path / "a", "max"), (inner, "12")):
        (folder / "pids.max").write_text(f"{most}\n")
    assert list(most_pids_from(inner)) == [12, 9]


def test_limits_are_told_in_children() -> None:
    facts = dataclasses.replace(
        read_facts(), open_files=Limit(1024, 4096), pipe_pages=0, most_pids=None, uid=1
    )
    text = "\n".join(doctor.report(facts))
    assert "1,024, at most 4,096 (ulimit): room for about 248 children" in text
    assert "pipe pages     unlimited" in text
    assert "pids           unknown" in text


@pytest.mark.parametrize(("files", "children"), [(64, 8), (400, 92)])
def test_few_open_files_are_told_as_the_children_that_there_is_room_for(
    files: int, children: int
) -> None:
    answer = ask_within(files)
    assert (answer.returncode, answer.stderr) == (0, "")
    room = f"room for about {children} children with three pipes"
    assert lines_of(answer.stdout)["open"] == (
        f"files     {files}, at most {2 * files} (ulimit): {room}"
    )


@pytest.mark.needs("/proc")
def test_what_limits_all_children_is_told_as_proc_has_it() -> None:
    told = lines_of(ask().stdout)
    numbers = {
        name: int(Path("/proc/sys", name).read_text())
        for name in ("kernel/pid_max", "kernel/threads-max", "fs/epoll/max_user_watches")
    }
    assert told["pids"] == (
        f"{numbers['kernel/pid_max']:,}, threads {numbers['kernel/threads-max']:,}"
    )
    assert told["epoll"].split() == ["watches", f"{numbers['fs/epoll/max_user_watches']:,}"]
    pages = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    assert told["pipe"].startswith(f"pages     {pages:,}: {pages // 16:,} pipes of full size")
    assert told["processes"].endswith(" (not for root)") == (os.geteuid() == 0)


def doctor_of_a_user_whose_pipe_pages_are_used_up() -> str:
    raise_open_files(4096)
    os.setresgid(SOME_UID, SOME_UID, SOME_UID)
    os.setresuid(SOME_UID, SOME_UID, SOME_UID)
    fds: list[int] = []
    said = io.StringIO()
    try:
        while not fds or fcntl.fcntl(fds[-1], fcntl.F_GETPIPE_SZ) == FULL_PIPE:
            fds += os.pipe()
        with contextlib.redirect_stdout(said):
            assert doctor.run() == 0
    finally:
        for fd in fds:
            os.close(fd)
    return said.getvalue()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.skipif(not 0 < (read_facts().pipe_pages or 0) < 20_000, reason="too many pipe pages")
def test_used_up_pipe_pages_are_told_with_what_a_pipe_is_then() -> None:
    told = lines_of(alone(doctor_of_a_user_whose_pipe_pages_are_used_up))
    assert re.search(r"; a pipe has only [\d,]+ bytes now, and is slow$", told["pipe"])
    assert "now" not in lines_of(ask().stdout)["pipe"]


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
    assert off == {"clone3", "close_range", "pidfd", "unshare"} | (DENIED_HERE & set(PRICES))


DENIED = [
    world for world in worlds() if world.denials and world.error == errno.EPERM and world.lacks
]


@needs_seccomp
@pytest.mark.parametrize("world", DENIED, ids=lambda world: world.name)
def test_each_call_that_a_sandbox_denies_is_told_as_what_it_is_for(world: World) -> None:
    answer = ask_in(world.name)
    told = lines_of(answer.stdout)
    off = {name for name in PRICES if told[name] != "in use"}
    assert off == (world.lacks | DENIED_HERE) & set(PRICES)
    for name in off:
        assert told[name] == f"OFF (the kernel or a sandbox refuses it): {PRICES[name]}"
    denied = (world.lacks | DENIED_HERE) & set(DENIALS)
    assert denied == set(DENIALS) & set(told)
    for name in denied:
        assert told[name] == f"DENIED (the kernel or a sandbox refuses it): {DENIALS[name]}"
    assert off or denied


@needs_seccomp
def test_where_no_child_can_be_reaped_it_says_so_and_fails() -> None:
    told, code = alone(doctor_without_waits)
    denied = f"DENIED (the kernel or a sandbox refuses it): {DENIALS['waitid']}"
    assert lines_of(told)["waitid"] == denied
    assert (told.splitlines()[-1], code) == ("How a child ended cannot be told", 1)


def doctor_without_waits() -> tuple[str, int]:
    """In a copy that ends like this, as its children can be waited for by nobody."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        deny("waitid", errno.EPERM)
        os.dup2(write_fd, 1)
        sys.stdout = os.fdopen(1, "w")
        code = doctor.run()
        sys.stdout.flush()
        os._exit(code)
    os.close(write_fd)
    with open(read_fd) as said:
        told = said.read()
    return told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to unmount /proc")
@pytest.mark.needs("/proc")
def test_without_proc_what_cannot_be_read_is_unknown_and_not_unlimited() -> None:
    answer = ask_in("no /proc")
    assert (answer.returncode, answer.stderr) == (0, "")
    told = lines_of(answer.stdout)
    assert told["pids"] == "unknown, threads unknown"
    assert told["pipe"].split() == ["pages", "unknown"]
    assert told["epoll"].split() == ["watches", "unknown"]
    assert told["directory"].startswith("none to be seen: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to unmount /proc")
@pytest.mark.needs("/proc")
def test_what_it_costs_to_close_fds_depends_on_proc() -> None:
    off = "PROCREACTOR_DISABLE=close_range"
    with_proc = lines_of(ask(before=f"export {off}").stdout)["close_range"]
    without = lines_of(ask_in("no /proc", "env", off).stdout)["close_range"]
    assert with_proc.endswith(f": {BY_PROC}")
    assert without.endswith(f": {BY_POLL}")


@needs_seccomp
def test_where_no_threads_can_be_had_it_says_so_and_what_that_costs() -> None:
    answer = ask_in("clone3: EPERM")
    assert (answer.returncode, answer.stderr) == (0, "")
    told = lines_of(answer.stdout)["threads"]
    assert told.startswith("none can be had (a limit, or a sandbox): batches hold the caller up")
    assert "threads" not in lines_of(ask().stdout) or "threads" in LACKS
    assert answer.stdout.splitlines()[-1].startswith("20 times `true`")
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
    assert (answer.returncode, answer.stderr) == (128 + signal.SIGPIPE, b"")
