"""What bad input gets: an error that says what was wrong, and a process as it was before.

Two kinds. What can be told without asking the kernel is a TypeError or a ValueError that names the
argument, before any system call: nothing has been opened, so nothing can be lost. What the kernel
refuses is a SpawnError with stage, errno and file name. In both cases no callback is made, and no
fd and no child is left.

How an exec can fail, file by file, is in pitfalls/test_exec_pitfalls.py; here are the steps before
and after it, on every way that a child can be made.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import re
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fdtables import room_for
from leftovers import child_pids, open_fds
from support import Recorder, make_reactor, run_until, spawn_and_finish
from ways import NOBODY, WAYS, finish_on, on_every_way, on_way, spawn_on

from procreactor.core import binding
from procreactor.errors import SpawnError, spawn_error
from procreactor.internet import spawning
from procreactor.kernel import children

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# --- what is refused without asking the kernel ---------------------------------------------------


@pytest.fixture
def kernel_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that opens a terminal, looks up a user, opens a cgroup or starts a child."""

    def asked(*args: object, **kwargs: object) -> None:
        pytest.fail(f"the kernel was asked: {args!r}")

    monkeypatch.setattr(binding, "spawn", asked)
    monkeypatch.setattr(binding, "open_pty", asked)
    monkeypatch.setattr(spawning, "resolve_identity", asked)
    monkeypatch.setattr(os, "open", asked)


WRONG_TYPES: list[tuple[str, dict[str, Any]]] = [
    ("executable must be str, bytes or a path, not None", {"executable": None}),
    ("executable must be str, bytes or a path, not 5", {"executable": 5}),
    ("executable must be str, bytes or a path, not ['ls']", {"executable": ["ls"]}),
    ("args must be a list or tuple", {"args": "ls -l"}),
    ("args must be a list or tuple", {"args": {"ls": "-l"}}),
    ("args must be a list or tuple", {"args": None}),
    ("args[1] must be str, bytes or a path, not 5", {"args": ["sleep", 5]}),
    ("args[0] must be str, bytes or a path, not None", {"args": [None]}),
    ("env must be a mapping or None", {"env": [("A", "b")]}),
    ("env must be a mapping or None", {"env": "A=b"}),
    ("env['A'] must be str, bytes or a path, not 1", {"env": {"A": 1}}),
    ("a name in env must be str, bytes or a path, not 1", {"env": {1: "A"}}),
    ("path must be str, bytes or a path, not 5", {"path": 5}),
    ("uid must be an int from 0 to 4294967294, not 'root'", {"uid": "root"}),
    ("uid must be an int from 0 to 4294967294, not True", {"uid": True}),
    ("gid must be an int from 0 to 4294967294, not 0.0", {"gid": 0.0}),
    ("childFDs must be None or a mapping", {"childFDs": [0, 1, 2]}),
    ("a key of childFDs must be a child fd", {"childFDs": {"0": "r"}}),
    ("a key of childFDs must be a child fd", {"childFDs": {True: "r"}}),
    ("childFDs[1] must be 'r', 'w' or a parent fd", {"childFDs": {1: None}}),
    ("childFDs[1] must be 'r', 'w' or a parent fd", {"childFDs": {1: b"r"}}),
    ("childFDs[1] must be 'r', 'w' or a parent fd", {"childFDs": {1: 1.0}}),
    ("childFDs[1] must be 'r', 'w' or a parent fd", {"childFDs": {1: False}}),
    ("usePTY[0] must be an int", {"usePTY": ("master", 1, "name")}),
    ("processProtocol may be None only", {"processProtocol": None}),
    ("processProtocol may be None only", {"processProtocol": None, "usePTY": True}),
    ("umask must be an int from 0 to 511", {"umask": "022"}),
    ("rlimits must be a mapping", {"rlimits": [(resource.RLIMIT_CORE, 0)]}),
    ("a key of rlimits must be an int", {"rlimits": {"core": 0}}),
    ("rlimits[4] must be an int", {"rlimits": {resource.RLIMIT_CORE: "0"}}),
    ("processGroup must be an int", {"processGroup": True}),
    ("nice must be an int from -40 to 40", {"nice": 1.5}),
    ("parentDeathSignal must be a signal", {"parentDeathSignal": 9.0}),
    ("signalMask must be an iterable of signals", {"signalMask": signal.SIGHUP}),
    ("signalMask must be an iterable of signals", {"signalMask": "HUP"}),
    ("cgroup must be str, bytes or a path", {"cgroup": 1.5}),
    ("cgroup must be an int from 0", {"cgroup": True}),
]

WRONG_VALUES: list[tuple[str, dict[str, Any]]] = [
    ("executable must not contain an embedded null byte", {"executable": "l\0s"}),
    ("must not be empty", {"executable": ""}),
    ("args[1] must not contain an embedded null byte", {"args": ["ls", "\0"]}),
    ("args[0] must not be empty", {"args": [""]}),
    ("args[1] cannot be encoded", {"args": ["ls", "\ud800"]}),
    ("illegal environment variable name in env: 'A=B'", {"env": {"A=B": "c"}}),
    ("illegal environment variable name in env: b'=A'", {"env": {b"=A": "c"}}),
    ("illegal environment variable name in env: ''", {"env": {"": "c"}}),
    ("env['A'] must not contain an embedded null byte", {"env": {"A": b"\0"}}),
    ("a name in env must not contain an embedded null byte", {"env": {"A\0": "b"}}),
    ("path must not contain an embedded null byte", {"path": b"/tmp\0"}),
    ("uid must be from 0 to 4294967294, not -1", {"uid": -1}),
    ("uid must be from 0 to 4294967294, not 4294967295", {"uid": 2**32 - 1}),
    ("gid must be from 0 to 4294967294, not -1", {"gid": -1}),
    ("childFDs[1] must be 'r', 'w' or a parent fd >= 0, not 'x'", {"childFDs": {1: "x"}}),
    ("childFDs[1] must be 'r', 'w' or a parent fd >= 0, not 'rw'", {"childFDs": {1: "rw"}}),
    ("childFDs[1] must be 'r', 'w' or a parent fd >= 0, not ''", {"childFDs": {1: ""}}),
    ("childFDs[1] must be 'r', 'w' or a parent fd >= 0, not -1", {"childFDs": {1: -1}}),
    ("childFDs[1] must be 'r', 'w' or a parent fd >= 0 and below", {"childFDs": {1: 2**31}}),
    ("a key of childFDs must be a child fd from 0 to 1048575, not -1", {"childFDs": {-1: "r"}}),
    ("a key of childFDs must be a child fd from 0 to 1048575", {"childFDs": {1 << 20: "r"}}),
    ("childFDs must be None when usePTY is true", {"childFDs": {0: "w"}, "usePTY": True}),
    ("childFDs must be None when usePTY is true", {"childFDs": {}, "usePTY": True}),
    ("usePTY must be true, or (master, slave, name)", {"usePTY": (1, 2)}),
    ("usePTY[1] must be from 0 to 2147483647, not -1", {"usePTY": (0, -1, "name")}),
    ("windowSize needs usePTY=True", {"windowSize": (24, 80)}),
    ("windowSize needs usePTY=True", {"windowSize": (24, 80), "usePTY": (0, 1, "name")}),
    ("windowSize must be (rows, columns)", {"windowSize": (24,), "usePTY": True}),
    ("an item of windowSize must be from 0 to 65535", {"windowSize": (-1, 80), "usePTY": True}),
    ("umask must be from 0 to 511, not 512", {"umask": 0o1000}),
    ("rlimits[4] must be a limit or a pair", {"rlimits": {resource.RLIMIT_CORE: (0, 0, 0)}}),
    ("rlimits[4]: the soft limit must not be above", {"rlimits": {resource.RLIMIT_CORE: (1, 0)}}),
    ("rlimits[4] must be from -1 to", {"rlimits": {resource.RLIMIT_CORE: -2}}),
    ("processGroup must be from 0 to 2147483647, not -1", {"processGroup": -1}),
    ("leave out processGroup", {"processGroup": 0, "session": True}),
    ("leave out processGroup", {"processGroup": 0, "usePTY": True}),
    ("nice must be from -40 to 40, not 41", {"nice": 41}),
    ("parentDeathSignal must be from 1 to 64, not 0", {"parentDeathSignal": 0}),
    ("parentDeathSignal must be a signal, like 'TERM'", {"parentDeathSignal": "TREM"}),
    ("an item of signalMask must be from 1 to 64, not 65", {"signalMask": [65]}),
    ("an item of signalMask must be a signal, like 'TERM'", {"signalMask": ["FOO"]}),
    ("cgroup must not contain an embedded null byte", {"cgroup": "\0"}),
    ("cgroup must be from 0 to 2147483647, not -1", {"cgroup": -1}),
]

UNKNOWN: list[tuple[str, dict[str, Any]]] = [
    ("unexpected keyword argument 'childFds'; did you mean 'childFDs'?", {"childFds": {}}),
    ("unexpected keyword argument 'cwd'; known are processProtocol", {"cwd": "/"}),
    ("unexpected keyword argument 'usePty'; did you mean 'usePTY'?", {"usePty": True}),
    ("unexpected keyword argument 'rlimit'; did you mean 'rlimits'?", {"rlimit": {}}),
    (
        "unexpected keyword argument 'process_group'; did you mean 'processGroup'?",
        {"process_group": 0},
    ),
    ("unexpected keyword argument 'environ'; did you mean 'env'?", {"environ": {}}),
    ("unexpected keyword argument 'sgnalMask'; did you mean 'signalMask'?", {"sgnalMask": []}),
]


def _name(case: Any) -> str:
    return re.sub(r"[^\w'\[\]=]+", " ", case) if isinstance(case, str) else ""


def check_misuse(kind: type[Exception], words: str, bad: dict[str, Any]) -> None:
    protocol = Recorder()
    with make_reactor() as reactor:
        before = open_fds()
        with pytest.raises(kind) as caught:
            reactor.spawnProcess(**{"processProtocol": protocol, "executable": "/bin/true", **bad})
        assert open_fds() == before
    assert words in str(caught.value)
    assert protocol.calls == []


@pytest.mark.parametrize(("words", "bad"), WRONG_TYPES, ids=_name)
@pytest.mark.usefixtures("kernel_is_not_asked")
def test_an_argument_of_the_wrong_type_is_named_before_the_kernel_is_asked(
    words: str, bad: dict[str, Any]
) -> None:
    check_misuse(TypeError, words, bad)


@pytest.mark.parametrize(("words", "bad"), WRONG_VALUES, ids=_name)
@pytest.mark.usefixtures("kernel_is_not_asked")
def test_a_value_that_cannot_be_meant_is_named_before_the_kernel_is_asked(
    words: str, bad: dict[str, Any]
) -> None:
    check_misuse(ValueError, words, bad)


@pytest.mark.parametrize(("words", "bad"), UNKNOWN, ids=_name)
@pytest.mark.usefixtures("kernel_is_not_asked")
def test_an_unknown_keyword_is_told_with_the_name_that_is_near(
    words: str, bad: dict[str, Any]
) -> None:
    check_misuse(TypeError, words, bad)


@pytest.mark.parametrize("way", ["path", "launcher", "terminal"])
@pytest.mark.usefixtures("kernel_is_not_asked")
def test_misuse_is_found_before_the_kernel_is_asked_on_every_way(way: str) -> None:
    for bad in ({"args": "ls"}, {"env": {"A=": "b"}}, {"umask": -1}, {"unknown": 1}):
        check_misuse((TypeError, ValueError), "", {**WAYS[way].arguments, **bad})  # type: ignore[arg-type]


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A new directory that any user may enter, which those of tmp_path are not."""
    with tempfile.TemporaryDirectory(prefix="public-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


# --- what the kernel refuses ---------------------------------------------------------------------


def refusal(reactor: Any, way: str, executable: str, args: Any = (), **kwargs: Any) -> SpawnError:
    """Return the error of a start that fails, after which all is as it was before."""
    protocol = Recorder()
    fds, pids = open_fds(), child_pids()
    with pytest.raises(SpawnError) as caught:
        spawn_on(way, reactor, protocol, executable, args, **kwargs)
    assert open_fds() == fds
    assert child_pids() == pids
    assert reactor.getDelayedCalls() == []
    reactor.iterate(0)
    assert protocol.calls == []
    return caught.value


def said_by(error: SpawnError) -> list[Any]:
    return [error.stage, errno.errorcode[error.errno or 0], error.filename]


def basic_refusals(way: str, folder: str) -> dict[str, list[Any]]:
    """What is said of what goes wrong most often."""
    (Path(folder) / "text").write_text("no program\n")
    bad_script = Path(folder, "script")
    bad_script.write_text("#!/no/such/interpreter\n")
    bad_script.chmod(0o755)
    with make_reactor() as reactor:
        found = {
            "missing": refusal(reactor, way, "/no/such/program"),
            "missing by name": refusal(reactor, way, "no-such-program", env={"PATH": "/bin:/"}),
            "not executable": refusal(reactor, way, f"{folder}/text"),
            "directory": refusal(reactor, way, folder),
            "bad interpreter": refusal(reactor, way, str(bad_script)),
            "too long": refusal(reactor, way, "/bin/true", ["true", "x" * (1 << 17)]),
            "missing path": refusal(reactor, way, "/bin/true", path="/no/such/directory"),
            "file as path": refusal(reactor, way, "/bin/true", path="/bin/true"),
        }
        assert finish_on(way, reactor, "/bin/true").reason.value.exitCode == 0
    return {case: said_by(error) for case, error in found.items()}


@on_every_way()
def test_what_the_kernel_refuses_is_told_with_stage_errno_and_name(
    way: str, public_path: Path
) -> None:
    folder = str(public_path)
    assert on_way(way, basic_refusals, folder) == {
        "missing": ["exec", "ENOENT", "/no/such/program"],
        "missing by name": ["exec", "ENOENT", "no-such-program"],
        "not executable": ["exec", "EACCES", f"{folder}/text"],
        "directory": ["exec", "EACCES", folder],
        "bad interpreter": ["exec", "ENOENT", f"{folder}/script"],
        "too long": ["exec", "E2BIG", "/bin/true"],
        "missing path": ["chdir", "ENOENT", "/no/such/directory"],
        "file as path": ["chdir", "ENOTDIR", "/bin/true"],
    }


def refusals_of_fds(way: str) -> list[list[Any]]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with make_reactor() as reactor:
        found = []
        for child_fds in ({0: "w", 1: 9999}, {1: 9999, 9999: 1}, {0: 0, limit: "r"}):
            error = refusal(reactor, way, "/bin/true", childFDs=child_fds)
            found.append([*said_by(error), error.hint])
    return found


@on_every_way("plain", "legacy clone", "own fd table", "fork", "path", "launcher")
def test_a_mapped_fd_that_is_not_open_is_told_with_both_its_numbers(way: str) -> None:
    first, second, third = on_way(way, refusals_of_fds)
    assert first == second == ["dup", "EBADF", "/bin/true", first[-1]]
    assert "child fd 1 is mapped to parent fd 9999" in first[-1]
    assert third[:3] == ["dup", "EBADF", "/bin/true"]  # a number beyond RLIMIT_NOFILE


@pytest.mark.parametrize(("closed", "stage"), [("master", "watch"), ("slave", "dup")])
def test_a_terminal_of_the_users_that_is_not_open_is_refused_and_its_other_end_stays_open(
    closed: str, stage: str
) -> None:
    ends = os.openpty()
    # High numbers: that of the closed one must not be given to what the start opens.
    master, slave = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 700) for fd in ends)
    bad, good = (master, slave) if closed == "master" else (slave, master)
    os.close(bad)
    with make_reactor() as reactor:
        error = refusal(reactor, "plain", "/bin/cat", usePTY=(master, slave, "terminal"))
    for fd in (good, *ends):
        os.close(fd)  # which are still ours
    assert said_by(error) == [stage, "EBADF", "/bin/cat"]


# Limits: fds and processes.


def refusals_without_room(way: str) -> list[list[str]]:
    """Return what is said of a start with room for no fd, for one, for two ... each thing once."""
    said: list[list[str]] = []
    protocol = Recorder()
    children.in_use()  # a look at the kernel needs some, too
    with make_reactor() as reactor:
        while not protocol.calls:
            before = open_fds()
            with room_for(len(said)):
                try:
                    spawn_on(way, reactor, protocol, "/bin/true")
                except SpawnError as error:
                    said.append([*said_by(error)[:2], error.hint])
            assert protocol.calls or (open_fds() == before and not child_pids())
        run_until(reactor, lambda: protocol.ended)
    return [list(one) for one in dict.fromkeys(map(tuple, said))]


_in_this_process = pytest.mark.needs("file limits")


@pytest.mark.parametrize(
    ("way", "stages"),
    [
        pytest.param("plain", ["pipe", "clone"], marks=_in_this_process),
        pytest.param("path", ["pipe", "clone"], marks=_in_this_process),
        ("fork", ["pipe", "report pipe", "clone"]),
        ("launcher", ["user database", "pipe", "report pipe", "clone"]),
        ("fork to another user", ["user database", "pipe", "report pipe", "clone"]),
        pytest.param("terminal", ["open pty", "open pty slave", "clone"], marks=_in_this_process),
        ("terminal by fork", ["open pty", "open pty slave", "report pipe", "clone"]),
    ],
)
def test_every_step_that_makes_an_fd_tells_when_there_is_no_room(
    way: str, stages: list[str]
) -> None:
    said = on_way(way, refusals_without_room)
    for _, number, hint in said:
        assert number == "EMFILE"
        assert "ulimit -n" in hint
    expected = set(stages)
    used = children.in_use()
    if "vfork" not in used:
        expected.add("report pipe")  # all are made by fork then
    if "pidfd" not in used:
        expected.discard("clone")  # makes no fd; for an eventfd there is room, with theirs closed
        if way == "terminal" and "vfork" in used:
            expected.add("exit watch")
    assert {stage for stage, _, _ in said} == expected


def test_a_cgroup_that_there_is_no_room_to_open_is_told_too() -> None:
    with make_reactor() as reactor:
        before = open_fds()
        with room_for(0), pytest.raises(SpawnError) as caught:
            reactor.spawnProcess(Recorder(), "/bin/true", cgroup="/")
        assert open_fds() == before
    assert said_by(caught.value) == ["cgroup", "EMFILE", "/"]
    assert "ulimit -n" in caught.value.hint


def exhaust_processes_of_a_user(way: str) -> list[Any]:
    os.setgroups([])
    uid = 54321  # nobody's, so that no other process counts
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    with make_reactor() as reactor:
        assert finish_on(way, reactor, "/bin/true").reason.value.exitCode == 0
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        error = refusal(reactor, way, "/bin/true")
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
        assert finish_on(way, reactor, "/bin/true").reason.value.exitCode == 0
    return [*said_by(error), isinstance(error, BlockingIOError), error.hint]


@needs_root
@on_every_way("plain", "legacy clone", "fork", "path", "terminal")
def test_a_user_with_too_many_processes_is_told_so(way: str) -> None:
    stage, number, name, blocking, hint = on_way(way, exhaust_processes_of_a_user)
    assert (stage, number, name, blocking) == ("clone", "EAGAIN", "/bin/true", True)
    assert "ulimit -u" in hint


def exhaust_processes_of_the_new_user(way: str) -> list[Any]:
    user = {"uid": 54321, "gid": 54321}
    other = Recorder()
    with make_reactor() as reactor:
        transport = spawn_on(way, reactor, other, "/bin/cat", **user)  # the one that is too many
        error = refusal(reactor, way, "/bin/true", rlimits={resource.RLIMIT_NPROC: 0}, **user)
        transport.closeStdin()
        run_until(reactor, lambda: other.ended)
    return [*said_by(error), error.hint]


@needs_root
@on_every_way("launcher", "fork to another user")
def test_a_new_user_with_too_many_processes_is_told_so(way: str) -> None:
    stage, number, name, hint = on_way(way, exhaust_processes_of_the_new_user)
    assert stage in ("exec", "setuid")  # which of the two tells depends on the kernel
    assert (number, name) == ("EAGAIN", "/bin/true")
    assert "limit on processes" in hint


@contextmanager
def pids_cgroup() -> Iterator[Path]:
    """A new cgroup with the pids controller (cgroup v1)."""
    root = Path("/sys/fs/cgroup/pids")
    group = root / f"test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no pids controller of cgroup v1: {error}")
    try:
        yield group
    finally:
        group.rmdir()


def exhaust_processes_of_a_cgroup(way: str, group: str) -> list[Any]:
    with make_reactor() as reactor:
        finish_on(way, reactor, "/bin/true")
        Path(group, "pids.max").write_text("1")
        Path(group, "cgroup.procs").write_text("0")
        try:
            error = refusal(reactor, way, "/bin/true")
            Path(group, "pids.max").write_text("max")
            assert finish_on(way, reactor, "/bin/true").reason.value.exitCode == 0
        finally:
            Path(group).parent.joinpath("cgroup.procs").write_text("0")
    return [*said_by(error), error.hint]


@on_every_way()
def test_a_cgroup_with_too_many_processes_is_told_so(way: str) -> None:
    with pids_cgroup() as group:
        stage, number, name, hint = on_way(way, exhaust_processes_of_a_cgroup, str(group))
    assert (stage, number, name) == ("clone", "EAGAIN", "/bin/true")
    assert "pids.max" in hint


# Rights.


def ask_for_rights(way: str) -> dict[str, list[Any]]:
    """As a user without rights, ask for what only root may have."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    with make_reactor() as reactor:
        name = "/bin/true"
        raised = {resource.RLIMIT_CPU: (100, 100)}
        resource.setrlimit(resource.RLIMIT_CPU, (50, 50))
        found = {
            "uid": refusal(reactor, way, name, uid=1, gid=None),
            "gid": refusal(reactor, way, name, uid=None, gid=1),
            "uid, own gid": refusal(reactor, way, name, uid=1, gid=NOBODY),
            "nice": refusal(reactor, way, name, nice=-5, uid=None, gid=None),
            "rlimits": refusal(reactor, way, name, rlimits=raised, uid=None, gid=None),
        }
        own = finish_on(way, reactor, name, uid=NOBODY, gid=NOBODY)
        assert own.reason.value.exitCode == 0
    return {case: said_by(error)[:2] for case, error in found.items()}


@needs_root
@on_every_way("plain", "fork", "path", "terminal")
def test_who_has_no_right_to_it_is_told_what_it_was(way: str) -> None:
    found = on_way(way, ask_for_rights)
    assert found == {
        "uid": ["setgid", "EPERM"],
        "gid": ["setgid", "EPERM"],
        "uid, own gid": ["setgroups", "EPERM"],
        "nice": ["nice", "EACCES"],
        "rlimits": ["rlimit", "EPERM"],
    }


def refused_options(way: str, folder: str) -> dict[str, list[Any]]:
    with make_reactor() as reactor:
        options: dict[str, dict[str, Any]] = {
            "rlimit": {"rlimits": {resource.RLIMIT_CORE: 0, 200: 0}},
            "cgroup": {"cgroup": "/no/such/cgroup"},
            "no cgroup": {"cgroup": folder},
            "not an fd": {"cgroup": 9999},
        }
        if "terminal" not in way:
            options["group"] = {"processGroup": 1}
        return {
            case: [*said_by(refusal(reactor, way, "/bin/true", **bad))[:2]]
            for case, bad in options.items()
        }


@on_every_way()
def test_an_option_that_the_kernel_refuses_is_told_with_its_own_stage(
    way: str, public_path: Path
) -> None:
    found = on_way(way, refused_options, str(public_path))
    assert found.pop("group", ["setpgid", "EPERM"]) == ["setpgid", "EPERM"]
    assert found == {
        "rlimit": ["rlimit", "EINVAL"],
        "cgroup": ["cgroup", "ENOENT"],
        "no cgroup": ["cgroup", "ENOENT"],
        "not an fd": ["cgroup", "EBADF"],
    }


# What the error is.


def test_a_refusal_is_an_oserror_of_its_kind_and_says_it_in_one_sentence() -> None:
    with make_reactor() as reactor:
        error = refusal(reactor, "plain", "/no/such/program")
    assert isinstance(error, FileNotFoundError)
    assert error.strerror == "No such file or directory"
    assert str(error) == (
        "cannot start child: exec '/no/such/program': No such file or directory (errno 2)"
    )


def test_after_a_refusal_inside_a_running_reactor_it_runs_on() -> None:
    caught: list[SpawnError] = []
    with make_reactor() as reactor:

        def start() -> None:
            try:
                reactor.spawnProcess(Recorder(), "/no/such/program")
            except SpawnError as error:
                caught.append(error)
            reactor.callLater(0, reactor.stop)

        reactor.callWhenRunning(start)
        reactor.run(installSignalHandlers=False)
    assert len(caught) == 1
    with make_reactor() as reactor:
        assert spawn_and_finish(reactor, "/bin/true").reason.value.exitCode == 0


def test_a_refusal_in_a_process_that_has_never_spawned_is_told_as_any_other() -> None:
    assert alone(first_of_all) == ["exec", "ENOENT", "/no/such/program"]


def first_of_all() -> list[Any]:
    with make_reactor() as reactor:
        return said_by(refusal(reactor, "plain", "/no/such/program"))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EAGAIN, errno.E2BIG])
@pytest.mark.parametrize("hint", ["", "try another"])
def test_a_refusal_can_be_sent_to_another_process(number: int, hint: str) -> None:
    error = spawn_error(number, "exec", b"/no/such\xff", hint)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.errno, copy.stage, copy.filename) == (number, "exec", error.filename)
    assert (copy.hint, copy.strerror, str(copy)) == (error.hint, error.strerror, str(error))


def test_a_refusal_by_the_kernel_can_be_sent_to_another_process() -> None:
    with make_reactor() as reactor:
        error = refusal(reactor, "plain", "x", env={"PATH": "/no:/where"})
    copy: SpawnError = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, FileNotFoundError)
    assert [*said_by(copy), copy.hint] == ["exec", "ENOENT", "x", error.hint]


def names_of_what_was_refused(way: str, folder: str) -> list[list[Any]]:
    with make_reactor() as reactor:
        cgroup = refusal(reactor, way, "/bin/true", cgroup=folder)
        name = refusal(reactor, way, "x", env={"PATH": folder})
    return [[*said_by(cgroup)], [*said_by(name), name.hint]]


@on_every_way()
def test_the_name_that_is_told_is_the_one_that_was_given(way: str, public_path: Path) -> None:
    cgroup, name = on_way(way, names_of_what_was_refused, str(public_path))
    assert cgroup == ["cgroup", "ENOENT", str(public_path)]
    assert name == ["exec", "ENOENT", "x", "it is in no directory of PATH"]
