"""Every system call of a spawn of each kind, looked at from outside: what is not among them.

No shell is run, no file made, nothing sent; and the parent changes no id, group or capability of
its own. A child that becomes another user does so in one order.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from programs_build import build_program
from seccomp import Call, needs_seccomp, supervised
from security.spawned import (
    STRANGER,
    batch_spec,
    libc,
    may_look_into_others,
    needs_root,
    public_folder,
)
from support import LACKS, LACKS_ALONE, PYTHON, Recorder, make_reactor, run_until, spawn_and_finish

import procreactor
from procreactor.__main__ import main
from procreactor.apps.batch import run_batch
from procreactor.errors import SpawnError
from procreactor.internet import utils
from procreactor.model import Identity

LAUNCHER = str(Path(procreactor.__file__).parent / "_launch")

NAME = "a b; touch made $(touch made) `touch made` | & * ? > made '\" \\ #.sh"
"""Of a program: a shell would make a file of it, and no program."""

TEXT = "text"
"""Of a file that is no program, and that a shell would run."""


def make_folder(folder: Path) -> str:
    """Fill *folder* with a program and a text; return its path."""
    shutil.copy(build_program("words"), folder / NAME)
    (folder / TEXT).write_text("touch made\n")
    (folder / TEXT).chmod(0o755)
    return str(folder)


def spawn_each_kind(folder: str, uid: int | None) -> None:
    """Start a child of every kind; each gets what a shell would not leave alone."""
    program, arguments = os.path.join(folder, NAME), [NAME, "$HOME", "; touch made", "`touch made`"]
    ids: dict[str, Any] = {} if uid is None else {"uid": uid, "gid": uid}
    limits = {"rlimits": {4: 0}, "nice": 1, "umask": 0o27}
    kinds: list[dict[str, Any]] = [
        {},
        {"path": folder},
        {"usePTY": True},
        {"executable": NAME, "env": {"PATH": folder}},
        {"executable": f"./{NAME}", "path": folder},
        {"path": folder, **limits, **ids},
        {"usePTY": True, **ids},
    ]
    identity = None if uid is None else Identity(uid, uid, (uid, 7))
    command = [program, *arguments[1:]]
    with make_reactor() as reactor:
        for kind in kinds:
            options = {"executable": program, "env": {}, **kind}
            child = spawn_and_finish(reactor, options.pop("executable"), arguments, **options)
            assert child.reason.value.exitCode == 0
            assert child.out.startswith(b"4\0" + os.fsencode(NAME) + b"\0$HOME\0; touch made\0`")
        for refused in ({}, ids):
            with pytest.raises(SpawnError, match="Exec format error"):
                reactor.spawnProcess(Recorder(), os.path.join(folder, TEXT), **refused)
        outputs: list[bytes] = []
        utils.getProcessOutput(program, arguments[1:], reactor=reactor).addCallback(outputs.append)
        run_until(reactor, lambda: outputs)
    for outcome in run_batch([batch_spec(command, None), batch_spec(command, identity)], at_once=2):
        assert outcome.stdout.startswith(b"4\0"), outcome


# --- what is executed, by seccomp, which needs nothing --------------------------------------------


def text_at(pid: int, address: int) -> str:
    """The string that *pid* has at *address*."""
    text = ctypes.create_string_buffer(4096)
    found = b""
    while b"\0" not in found:
        start = address + len(found)
        size = 4096 - start % 4096  # a page that is not there ends what is copied
        here, there = (
            struct.pack("2Q", ctypes.addressof(text), size),
            struct.pack("2Q", start, size),
        )
        copied = libc.process_vm_readv(pid, here, 1, there, 1, 0)
        assert copied > 0, os.strerror(ctypes.get_errno())
        found += text.raw[:copied]
    return os.fsdecode(found.split(b"\0")[0])


MAY_SEE_OTHERS = os.geteuid() == 0 and may_look_into_others()


def programs_executed(folder: str) -> list[str]:
    executed: list[str] = []

    def note(call: Call) -> None:
        pid, arguments = call
        executed.append(text_at(pid, arguments[0]))

    with supervised("execve", note):
        spawn_each_kind(folder, STRANGER if MAY_SEE_OTHERS else None)
    return executed


@needs_seccomp
@pytest.mark.parametrize("disable", ["", "helper", "vfork"])
def test_nothing_is_executed_but_the_program_itself(disable: str) -> None:
    """No shell, for no kind of child; the launcher, for another user's."""
    with public_folder() as path:
        folder = make_folder(path)
        executed = alone(programs_executed, folder, disable=disable)
        assert sorted(os.listdir(folder)) == sorted([NAME, TEXT])
    expected = {os.path.join(folder, name) for name in (NAME, TEXT)} | {f"./{NAME}"}
    assert expected <= set(executed) <= {*expected, LAUNCHER}
    is_launched = not disable and not LACKS_ALONE & {"helper", "vfork"}
    assert (LAUNCHER in executed) == (is_launched and MAY_SEE_OTHERS)


def executed_by_the_command(lines: list[list[str]]) -> list[list[str]]:
    """Return what each of these command lines executes, and what comes of it."""
    executed: list[list[str]] = []

    def note(call: Call) -> None:
        pid, arguments = call
        executed[-1].append(text_at(pid, arguments[0]))

    with supervised("execve", note):
        for words in lines:
            executed.append([])
            main(["run", "-j1", *words])
    return executed


@needs_seccomp
def test_the_command_runs_a_shell_only_when_told_to_or_for_a_line_of_a_log_that_needs_one() -> None:
    with public_folder() as path:
        folder, log = make_folder(path), str(path / "log")
        program, text = os.path.join(folder, NAME), os.path.join(folder, TEXT)
        items = [":::", "; touch made", "`touch made`"]
        executed = alone(
            executed_by_the_command,
            [
                ["--joblog", log, program, "{}", *items],
                [program, "-n1", *items],
                ["--results", str(path / "results"), program, *items],
                [text, *items],
                ["--joblog", f"{log}2", text, *items],
                ["--joblog", f"{log}2", "--retry-failed"],
                ["--shell", "true", *items],
                ["--joblog", f"{log}3", "--shell", "false;", ":::", "1"],
                ["--joblog", f"{log}3", "--retry-failed"],
            ],
        )
        assert not (path / "made").exists()
    *without, shell, first, again = map(set, executed)
    assert without == [{program}] * 3 + [{text}] * 3
    assert shell == first == again == {"/bin/sh"}


# --- all the rest, by strace ----------------------------------------------------------------------

BEGIN = "/the audit begins"

CREDENTIALS = re.compile(
    r"(setuid|setgid|setreuid|setregid|setresuid|setresgid|setfsuid|setfsgid|setgroups|capset)\("
)
OF_FILES = "open,openat,openat2,creat,memfd_create,mkdir,mkdirat,mknod,mknodat,link,linkat,symlink"
TRACED = (
    f"{OF_FILES},symlinkat,rename,renameat,renameat2,unlink,unlinkat,truncate,chmod,fchmodat,"
    "setuid,setgid,setreuid,setregid,setresuid,setresgid,setfsuid,setfsgid,setgroups,capset,prctl,"
    "close_range,chdir,prlimit64,setpriority,umask,execve,execveat,%network"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """The calls of each task: of the parent's threads from the start of the audit, of children."""

    parent: list[str]
    children: list[list[str]]

    @property
    def all(self) -> Iterator[str]:
        """Every call of all."""
        yield from self.parent
        for child in self.children:
            yield from child


SCRIPT = """
import runpy, sys
test = runpy.run_path(sys.argv[1])
try:
    open(sys.argv[4])
except FileNotFoundError:
    test["spawn_each_kind"](sys.argv[2], int(sys.argv[3]) if sys.argv[3] else None)
"""


def run_under_strace(work: Path, out: Path, disable: str) -> Trace:
    words = [__file__, make_folder(work), str(STRANGER) if os.geteuid() == 0 else "", BEGIN]
    command = ["strace", "-ff", "-qq", "-s", "200", "-e", f"trace={TRACED}", "-e", "signal=none"]
    subprocess.run(
        [*command, "-o", str(out / "of"), PYTHON, "-B", "-c", SCRIPT, *words],
        env={
            "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}",
            "PROCREACTOR_DISABLE": disable,
            "PATH": os.environ["PATH"],
        },
        check=True,
    )
    tasks = [path.read_text(errors="replace").splitlines() for path in sorted(out.iterdir())]
    assert sorted(os.listdir(work)) == sorted([NAME, TEXT])
    return sort_tasks(tasks)


def sort_tasks(tasks: list[list[str]]) -> Trace:
    """Children are those that execute something, but for the one that begins the audit."""
    parent: list[str] = []
    children = []
    for calls in tasks:
        starts = [at for at, call in enumerate(calls) if BEGIN in call and "openat" in call]
        if starts:
            parent += calls[starts[-1] + 1 :]
        elif any(call.startswith("execve(") for call in calls):
            children.append(calls)
        else:
            parent += calls
    return Trace(parent, children)


@pytest.fixture(scope="module", params=["", "helper", "vfork"], ids=["", "no launcher", "by fork"])
def trace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The trace of a child of each kind, made in one way."""
    if "/proc" in LACKS or shutil.which("strace") is None:
        pytest.skip("needs strace, and that /proc")
    with public_folder() as work:
        return run_under_strace(work, tmp_path_factory.mktemp("audit"), request.param)


def test_the_trace_has_the_children_and_the_parent(trace: Trace) -> None:
    assert len(trace.children) == 12
    assert any("prctl" in call or "openat" in call for call in trace.parent)


def test_a_spawn_makes_no_file_and_changes_none(trace: Trace) -> None:
    of_files = [call for call in trace.all if not re.match(r"(open|openat|\+\+\+)", call)]
    made = re.compile(r"(creat|memfd|mk|link|symlink|rename|unlink|truncate|chmod|fchmod)")
    assert [call for call in of_files if made.match(call)] == []
    assert [call for call in trace.all if re.search(r"O_(CREAT|TMPFILE|TRUNC)", call)] == []
    written = [call for call in trace.all if re.search(r"O_(WRONLY|RDWR)", call)]
    assert all('"/dev/p' in call or '"/proc/' in call for call in written), written


def test_a_spawn_sends_nothing(trace: Trace) -> None:
    """The user database may be asked by a socket: of nscd, or as the machine has it set up."""
    names = "socket|connect|bind|listen|accept|accept4|sendto|sendmsg|recvfrom|recvmsg"
    sockets = [call for call in trace.all if re.match(rf"({names})\(", call)]
    assert [call for call in sockets if "nscd" not in call and "AF_UNIX" not in call] == []


def test_the_parent_changes_no_right_of_its_own(trace: Trace) -> None:
    assert [call for call in trace.parent if CREDENTIALS.match(call)] == []
    calls = (re.match(r"prctl\((\w+)", call) for call in trace.parent)
    options = {call[1] for call in calls if call is not None}
    asking = {option for option in options if re.match(r"PR_(GET_|CAPBSET_READ$)", option)}
    assert options - asking <= {"PR_SET_VMA", "PR_SET_NAME"}, "libc's names for memory and threads"


@needs_root
@pytest.mark.needs("close_range")
def test_a_child_has_closed_all_that_is_not_its_own_before_it_changes_its_ids(trace: Trace) -> None:
    changing = [calls for calls in trace.children if any(map(CREDENTIALS.match, calls))]
    assert len(changing) == 4
    for calls in changing:
        first = next(at for at, call in enumerate(calls) if CREDENTIALS.match(call))
        to_the_end = re.compile(r"close_range\(\d+, (4294967295|~0U|-1), 0\) += 0")
        assert any(map(to_the_end.match, calls[:first])), calls


@needs_root
def test_a_child_changes_its_gid_its_groups_and_its_uid_in_that_order_and_last(
    trace: Trace,
) -> None:
    """What needs the rights of the parent comes before; then comes the exec."""
    changing = [calls for calls in trace.children if any(map(CREDENTIALS.match, calls))]
    assert len(changing) == 4
    for calls in changing:
        names = [call.split("(")[0] for call in calls]
        first = names.index("setresgid")
        changes = names[first : names.index("execve", first) + 1]
        kept = [name for name in changes if name not in ("prctl", "capset")]
        assert kept == ["setresgid", "setgroups", "setresuid", "execve"], calls
        ids = f"({STRANGER}, {STRANGER}, {STRANGER})"
        assert [call for call in calls if call.startswith(f"setresuid{ids}")]
    early = {"chdir", "prlimit64", "setpriority", "umask"}
    assert any(early <= {call.split("(")[0] for call in calls} for calls in changing)
