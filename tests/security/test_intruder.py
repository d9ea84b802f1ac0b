"""The user that a child becomes gets nothing of the parent through it, at no moment.

The moments are held open: a child that is about to make a certain system call waits for the test
(tests/seccomp.py), while tests/programs/intruder.c tries, as that user, all that he could. Then
there is a storm, in which the intruder and hundreds of children meet by chance.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from programs_build import build_program
from seccomp import Call, needs_seccomp, supervised
from security.spawned import (
    WAYS_TO_ANOTHER_USER,
    batch_spec,
    may_look_into_others,
    needs_root,
    new_user,
)
from support import LACKS, LACKS_ALONE, PROC, Recorder, make_reactor, run_until, spawn_and_finish

from procreactor.apps.batch import run_batch
from procreactor.errors import SpawnError
from procreactor.model import Identity

on_each_way = pytest.mark.parametrize(
    "disable", WAYS_TO_ANOTHER_USER.values(), ids=[*WAYS_TO_ANOTHER_USER]
)

Attempts = dict[str, int]
"""What came of each way to get at a process: an errno, 0 where it worked."""


def run_as(uid: int, command: list[object]) -> subprocess.Popen[str]:
    """Start *command* as the user *uid*, without groups."""
    return subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=uid,
        group=uid,
        extra_groups=[],
    )


def attempts_at(pid: int, address: int, intruder: str, uid: int) -> Attempts:
    """Let the intruder try each way at *pid* once, as *uid*; *address* is of its memory."""
    process = run_as(uid, [intruder, "try", pid, address])
    said, _ = process.communicate()
    assert process.returncode == 0
    return {way: int(code) for way, code in map(str.split, said.splitlines())}


def by_rights(attempts: Attempts) -> Attempts:
    """Leave out a way that nobody has in this world, whatever his rights."""
    if "pidfd_open" in LACKS:
        return {way: code for way, code in attempts.items() if way != "getfd"}
    return attempts


def refused(attempts: Attempts) -> bool:
    """Whether nothing worked, and each was refused for want of rights."""
    return set(by_rights(attempts).values()) <= {errno.EPERM, errno.EACCES}


# --- with the parent's files open -----------------------------------------------------------------

HIGH_FD = 10_001
LOW_FDS = 300
"""So many that all numbers below the cut of csrc/slots.c are taken: pipes land in the slots."""


@contextmanager
def secret_files(path: str) -> Iterator[None]:
    """The file at *path* is open under a few hundred numbers, one of them above 10,000."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for _ in range(LOW_FDS)]
    if hard > HIGH_FD:
        fds.append(fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, HIGH_FD))
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


@pytest.fixture
def secret_path(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_bytes(b"of the parent alone")
    path.chmod(0o600)
    return str(path)


def files_of(pid: int, path: str) -> list[str]:
    """The fds of *pid*, as root sees them; a "!" where it is the file at *path*."""
    secret, found = os.stat(path), []
    for name in sorted(os.listdir(f"{PROC}/{pid}/fd"), key=int):
        is_secret = os.path.samestat(os.stat(f"{PROC}/{pid}/fd/{name}"), secret)
        found.append(f"{name}!" if is_secret else name)
    return found


# --- the moments ----------------------------------------------------------------------------------


def spawn_with_reactor(program: str, uid: int) -> list[Any]:
    """How a child of that user ended, or why it did not start."""
    with make_reactor() as reactor:
        try:
            child = spawn_and_finish(reactor, program, [program, "exit", "3"], uid=uid, gid=uid)
        except SpawnError as error:
            return [error.stage]
    return [child.reason.value.exitCode]


def spawn_with_batch(program: str, uid: int) -> list[Any]:
    """Likewise."""
    spec = batch_spec([program, "exit", "3"], Identity(uid, uid, ()))
    (outcome,) = run_batch([spec], at_once=1)
    return [outcome.status.code if outcome.status else outcome.error and outcome.error.stage]


SPAWN: Mapping[str, Callable[[str, int], list[Any]]] = {
    "reactor": spawn_with_reactor,
    "batch": spawn_with_batch,
}


def what_comes_of_attempts(
    engine: str, call: str, intruder: str, program: str, secret: str
) -> dict[str, Any]:
    """Let the intruder try the parent, and the child at each call of that name that it makes."""
    uid = new_user()
    address = ctypes.addressof(canary := ctypes.create_string_buffer(b"of the parent alone"))
    moments: list[Any] = []
    ours: list[Attempts] = []

    def attack(waiting: Call) -> None:
        pid, _ = waiting
        ids = {*Path(PROC, str(pid), "status").read_text().split("Uid:")[1].split()[:4]}
        files = files_of(pid, secret) if call == "execve" else []
        moments.append([",".join(ids), files, attempts_at(pid, address, intruder, uid)])
        ours.append(attempts_at(os.getpid(), address, intruder, uid))

    with secret_files(secret), supervised(call, attack):
        ended = SPAWN[engine](program, uid)
    assert canary.value
    return {"uid": str(uid), "moments": moments, "ended": ended, "ours": ours}


@needs_root
@needs_seccomp
@pytest.mark.skipif(not may_look_into_others(), reason="needs CAP_SYS_PTRACE")
@on_each_way
@pytest.mark.parametrize("engine", SPAWN)
def test_until_its_exec_a_child_is_as_closed_to_its_new_user_as_the_parent(
    engine: str, disable: str, secret_path: str
) -> None:
    """At each exec, the launcher's as root, and the program's as the new user.

    He may signal it from then on, and that is all.
    """
    programs = build_program("intruder"), build_program("end")
    found = alone(what_comes_of_attempts, engine, "execve", *programs, secret_path, disable=disable)
    assert all(map(refused, found["ours"]))
    *as_root, (ids, files, last) = found["moments"]
    assert len(as_root) == (0 if disable or LACKS_ALONE & {"helper", "vfork"} else 1)
    for root_ids, root_files, attempts in as_root:
        assert root_ids == "0"
        assert refused(attempts)
        assert root_files[:3] == ["0", "1", "2"]
        assert len(root_files) == 4, "the report pipe, and nothing else of ours"
    assert ids == found["uid"]
    assert files[:3] == ["0", "1", "2"]
    assert len(files) == 4
    assert last.pop("signal") == 0
    assert refused(last)
    assert found["ended"] == [3]


@needs_root
@needs_seccomp
@pytest.mark.needs("unshare")
@pytest.mark.parametrize("engine", SPAWN)
def test_while_it_shares_the_fd_table_of_the_parent_a_child_is_root_and_closed(
    engine: str, secret_path: str
) -> None:
    """The first close_range is what gives it a table of its own."""
    programs = build_program("intruder"), build_program("end")
    found = alone(what_comes_of_attempts, engine, "close_range", *programs, secret_path)
    assert all(map(refused, found["ours"]))
    assert found["moments"], "no close_range was made"
    for ids, _, attempts in found["moments"]:
        assert ids == "0"
        assert refused(attempts)
    assert found["ended"] == [3]


def attempts_at_a_program_that_runs(intruder: str, program: str) -> list[Attempts]:
    with make_reactor() as reactor:
        recorder, uid = Recorder(), new_user()
        command = [program, "wait", "4"]
        transport = reactor.spawnProcess(recorder, program, command, uid=uid, gid=uid)
        found = [attempts_at(pid, 1, intruder, uid) for pid in (transport.pid, os.getpid())]
        transport.closeStdin()
        run_until(reactor, lambda: recorder.ended)
        assert recorder.reason.value.exitCode == 4
    return found


@needs_root
@on_each_way
def test_the_program_belongs_to_its_user_once_it_runs_and_the_parent_never_does(
    disable: str,
) -> None:
    """What the attempts above would have told, had they worked."""
    programs = build_program("intruder"), build_program("end")
    child, parent = alone(attempts_at_a_program_that_runs, *programs, disable=disable)
    assert refused(parent)
    unmapped = {child.pop("memory"), child.pop("vm")}
    assert unmapped == {errno.EIO, errno.EFAULT}, "it was opened, and has nothing at that address"
    assert set(by_rights(child).values()) == {0}


# --- the storm ------------------------------------------------------------------------------------

STORM_SPAWNS = 300


class Intruder:
    """The program intruder, raging against *parent* from construction to `end`."""

    def __init__(
        self, program: str, uid: int, path: str, secret: bytes, address: int, prey: str
    ) -> None:
        facts = os.stat(path)
        words = [os.getpid(), address, secret.decode(), facts.st_dev, facts.st_ino, prey]
        self._process = run_as(uid, [program, "storm", *words])
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "x\n"

    def end(self) -> dict[str, int]:
        """Return its account."""
        out, _ = self._process.communicate()
        assert self._process.returncode == 0
        rows = (line.split() for line in out.splitlines())
        return {name: int(count) for name, count in rows}


def storm_on_reactor(program: str, uid: int) -> list[Any]:
    """The ends of many children of that user, as they came."""
    ends: list[Any] = []
    with make_reactor() as reactor:
        for _ in range(STORM_SPAWNS):
            recorder = Recorder()
            command = [program, "exit", "3"]
            try:
                reactor.spawnProcess(recorder, program, command, uid=uid, gid=uid)
            except SpawnError as error:
                ends.append(error.stage)
                continue
            run_until(reactor, lambda one=recorder: one.ended)
            ends.append(recorder.reason.value.exitCode)
    return ends


def storm_on_batch(program: str, uid: int) -> list[Any]:
    """Likewise."""
    identity = Identity(uid, uid, ())
    specs = (batch_spec([program, "exit", "3"], identity) for _ in range(STORM_SPAWNS))
    return [
        outcome.status.code if outcome.status else outcome.error and outcome.error.stage
        for outcome in run_batch(specs, at_once=8, threads=3)
    ]


STORM: Mapping[str, Callable[[str, int], list[Any]]] = {
    "reactor": storm_on_reactor,
    "batch": storm_on_batch,
}


def account_of_a_storm(engine: str, intruder: str, program: str, path: str) -> list[Any]:
    secret = os.environb[b"SECRET"]
    canary = ctypes.create_string_buffer(secret)
    with secret_files(path):
        uid = new_user()
        raging = Intruder(intruder, uid, path, secret, ctypes.addressof(canary), program)
        try:
            ends = STORM[engine](program, uid)
        finally:
            account = raging.end()
    assert canary.value == secret
    return [ends, account]


@needs_root
@on_each_way
@pytest.mark.parametrize("engine", STORM)
def test_a_user_who_attacks_all_that_he_sees_gets_nothing_and_holds_nothing_up(
    engine: str, disable: str, secret_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He stops, traces and reads what he can. Each spawn returns, and each end is told."""
    monkeypatch.setenv("SECRET", secrets.token_hex(16))
    programs = build_program("intruder"), build_program("end")
    ends, account = alone(account_of_a_storm, engine, *programs, secret_path, disable=disable)
    assert len(ends) == STORM_SPAWNS
    assert set(ends) <= {3, "stopped before exec"}
    assert account["rounds"] > 1
    found = {name: account[name] for name in ("parent", "secret", "file", "beyond", "early")}
    assert found == dict.fromkeys(found, 0), account
