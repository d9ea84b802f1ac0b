"""Who a child is to be, asked as root and as users without rights, of the real user database."""

from __future__ import annotations

import ctypes
import errno
import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fdtables import room_for
from mounts import bind, needs_mounts, private_mounts
from support import PROC, Recorder, make_reactor, spawn_and_finish

from procreactor.errors import SpawnError
from procreactor.kernel import users
from procreactor.kernel.users import resolve_identity
from procreactor.model import Identity

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NOBODY = pwd.getpwnam("nobody")


def uid_without_entry() -> int:
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(54321, 64321) if uid not in taken)


def test_nothing_asked_is_nothing_changed() -> None:
    assert resolve_identity(None, None) is None


@as_root
def test_a_uid_alone_takes_that_users_gid_and_groups() -> None:
    assert resolve_identity(NOBODY.pw_uid, None) == Identity(
        NOBODY.pw_uid,
        NOBODY.pw_gid,
        tuple(os.getgrouplist("nobody", NOBODY.pw_gid)),
    )


def test_a_database_that_cannot_be_read_is_not_one_without_the_user() -> None:
    """Or the child would have the parent's gid."""
    assert alone(ask_without_fds) == [errno.EMFILE, "user database"]


def ask_without_fds() -> list[object]:
    with room_for(0), pytest.raises(SpawnError) as caught:
        resolve_identity(NOBODY.pw_uid, None)
    return [caught.value.errno, caught.value.stage]


@as_root
def test_what_was_found_is_found_again_without_asking_for_a_while() -> None:
    assert alone(ask_twice) == [True, errno.EMFILE]


def ask_twice() -> list[object]:
    """Whether the same is said when nothing can be opened; and what, when the while is over."""
    first = resolve_identity(NOBODY.pw_uid, None)
    with room_for(0):
        same = resolve_identity(NOBODY.pw_uid, None) == first
        for question, (_, stamp, answer) in list(users._kept.items()):
            users._kept[question] = (0.0, stamp, answer)
        with pytest.raises(SpawnError) as caught:
            resolve_identity(NOBODY.pw_uid, None)
    return [same, caught.value.errno]


@as_root
@needs_mounts
def test_a_change_of_the_database_counts_at_once(tmp_path: Path) -> None:
    copy = tmp_path / "group"
    shutil.copy("/etc/group", copy)
    before, after = alone(join_a_group, str(copy))
    assert {*after} - {*before} == {54321}


def join_a_group(copy: str) -> list[tuple[int, ...]]:
    """The groups of a user before and after it is put into another one."""
    private_mounts()
    bind(copy, "/etc/group")
    found = [resolve_identity(NOBODY.pw_uid, None)]
    with open(copy, "a") as file:
        file.write("another:x:54321:nobody\n")
    found.append(resolve_identity(NOBODY.pw_uid, None))
    return [identity.groups for identity in found if identity is not None]


@as_root
def test_of_many_users_not_all_are_kept() -> None:
    for gid in range(2 * users._MOST_KEPT):
        assert resolve_identity(NOBODY.pw_uid, 20_000 + gid) is not None
    assert len(users._kept) <= users._MOST_KEPT


@as_root
def test_the_groups_include_the_given_gid() -> None:
    identity = resolve_identity(NOBODY.pw_uid, 12345)
    assert identity is not None
    assert identity.gid == 12345
    assert 12345 in identity.groups


@as_root
def test_every_user_gets_the_groups_of_the_database() -> None:
    for entry in pwd.getpwall():
        if entry.pw_uid == 0:
            continue
        member_of = {group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem}
        first = pwd.getpwuid(entry.pw_uid)  # of several names for one uid, the first counts
        identity = resolve_identity(first.pw_uid, None)
        assert identity is not None
        if first.pw_name == entry.pw_name:
            assert set(identity.groups) == member_of | {entry.pw_gid}


@as_root
def test_a_uid_without_an_entry_gets_no_groups_and_keeps_our_gid() -> None:
    uid = uid_without_entry()
    assert resolve_identity(uid, None) == Identity(uid, os.getegid(), ())
    assert resolve_identity(uid, 777) == Identity(uid, 777, ())


@as_root
def test_a_gid_alone_keeps_the_uid() -> None:
    identity = resolve_identity(None, 12345)
    assert identity is not None
    assert (identity.uid, identity.gid) == (os.geteuid(), 12345)
    assert 12345 in identity.groups


ASK = """
import json, os, sys
from procreactor.kernel.users import resolve_identity
gid, uid, groups = json.loads(sys.argv[1])
os.setgroups(groups); os.setresgid(*gid); os.setresuid(*uid)
answers = [resolve_identity(*question) for question in json.loads(sys.argv[2])]
print(json.dumps([a and [a.uid, a.gid, list(a.groups)] for a in answers]))
"""


def ask_as(
    uid: tuple[int, int, int],
    gid: tuple[int, int, int],
    groups: list[int],
    questions: list[tuple[int | None, int | None]],
) -> list[Any]:
    """What the function answers in a process with these ids."""
    command = [sys.executable, "-c", ASK, json.dumps([gid, uid, groups]), json.dumps(questions)]
    answers: list[Any] = json.loads(subprocess.check_output(command, text=True))
    return answers


@as_root
def test_a_user_who_asks_for_his_own_ids_changes_nothing_and_keeps_his_groups() -> None:
    answers = ask_as((1234,) * 3, (777,) * 3, [888], [(1234, 777), (None, 777), (1234, None)])
    assert answers == [None, None, None]


@as_root
def test_a_user_who_asks_for_other_ids_gets_a_request_that_the_kernel_may_refuse() -> None:
    assert ask_as((1234,) * 3, (777,) * 3, [], [(0, 0)]) == [
        [0, 0, os.getgrouplist(pwd.getpwuid(0).pw_name, 0)]
    ]


@as_root
def test_ids_that_are_only_effectively_the_wanted_ones_are_still_a_change() -> None:
    (answer,) = ask_as((0, 1234, 0), (777,) * 3, [], [(1234, 777)])
    assert answer == [1234, 777, []]


@as_root
def test_root_with_groups_that_are_not_its_own_sheds_them() -> None:
    name = pwd.getpwuid(0).pw_name
    own = os.getgrouplist(name, 0)
    assert ask_as((0,) * 3, (0,) * 3, own, [(0, 0)]) == [None]
    assert ask_as((0,) * 3, (0,) * 3, [*own, 999], [(0, 0)]) == [[0, 0, own]]


# --- in a user namespace --------------------------------------------------------------------------

_CLONE_NEWUSER = 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)


def _become_root_of_a_namespace() -> None:
    """Be root in a new user namespace that has this user alone, and no setgroups; OSError."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        os.setgroups([])
    if _libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"{PROC}/self/{name}", "w") as file:
            file.write(text)


def _may_have_a_namespace() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            _become_root_of_a_namespace()
        except OSError:
            os._exit(1)
        os._exit(1 if set(os.getgroups()) - {0} else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def start_as_root_of_a_namespace() -> list[str]:
    _become_root_of_a_namespace()
    said = []
    with make_reactor() as reactor:
        ids: list[dict[str, int]] = [{"uid": 0}, {"gid": 0}, {"uid": 0, "gid": 0}]
        for own in ids:
            child = spawn_and_finish(reactor, "/bin/sh", ["sh", "-c", "id -u; id -g"], None, **own)
            said.append(child.out.decode())
        with pytest.raises(SpawnError):
            reactor.spawnProcess(Recorder(), "/bin/true", uid=1)
    return said


@pytest.mark.skipif(
    not _may_have_a_namespace(), reason="no user namespace without other groups to be had"
)
def test_root_of_a_user_namespace_without_setgroups_may_ask_for_its_own_ids() -> None:
    assert alone(start_as_root_of_a_namespace) == ["0\n0\n"] * 3
