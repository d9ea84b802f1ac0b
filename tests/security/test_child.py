"""What a child of another user is given, and what of its parent's rights it has: none.

Each case makes a parent of another kind, and asks children of it, started by each engine, what they
were given. They say what the kernel says of them in /proc.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from programs_build import build_program
from security.spawned import (
    ENGINES,
    KEEP_CAPS,
    NO_SETUID_FIXUP,
    STRANGER,
    WAYS_TO_ANOTHER_USER,
    Standing,
    batch_spec,
    capabilities,
    in_a_copy,
    libc,
    needs_root,
    prctl,
    say_standing,
    set_capabilities,
    standing_of,
)
from support import PROC, Recorder, make_reactor, run_until, spawn_and_finish

from procreactor.apps.batch import run_batch
from procreactor.errors import SpawnError
from procreactor.model import Identity

on_each_way = pytest.mark.parametrize(
    "disable", WAYS_TO_ANOTHER_USER.values(), ids=[*WAYS_TO_ANOTHER_USER]
)

_PR_SET_SECUREBITS, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 28, 8, 38
_PR_CAP_AMBIENT, _RAISE = 47, 2
_CAP_DAC_OVERRIDE, _CAP_SETGID, _CAP_SETUID, _CAP_NET_RAW = 1, 6, 7, 13


# --- parents of all kinds -----------------------------------------------------------------------


def be_root() -> None:
    """As the tests are."""


def have_groups() -> None:
    os.setgroups([4, 27, 999])


def raise_capabilities(*ambient: int) -> None:
    """All inheritable, and some ambient."""
    effective, permitted, _ = capabilities()
    set_capabilities(effective, permitted, permitted)
    for number in ambient or (_CAP_NET_RAW, _CAP_DAC_OVERRIDE):
        prctl(_PR_CAP_AMBIENT, _RAISE, number)


def keep_capabilities() -> None:
    prctl(_PR_SET_SECUREBITS, KEEP_CAPS)


def fix_nothing_up() -> None:
    """A change of uid changes no capability."""
    prctl(_PR_SET_SECUREBITS, NO_SETUID_FIXUP)


def fix_nothing_up_with_all_raised() -> None:
    raise_capabilities()
    prctl(_PR_SET_SECUREBITS, NO_SETUID_FIXUP | KEEP_CAPS)


def put_root_aside() -> None:
    have_groups()
    os.setegid(STRANGER + 1)
    os.seteuid(STRANGER + 1)


def be_root_in_effect_only() -> None:
    os.setresgid(STRANGER + 1, 0, 0)
    os.setresuid(STRANGER + 1, 0, 0)


def save_root_only() -> None:
    os.setresuid(STRANGER + 1, STRANGER + 1, 0)


def have_capabilities_without_root() -> None:
    prctl(_PR_SET_KEEPCAPS, 1)
    os.setresgid(*[STRANGER + 1] * 3)
    os.setresuid(*[STRANGER + 1] * 3)
    wanted = sum(1 << number for number in (_CAP_SETUID, _CAP_SETGID, _CAP_DAC_OVERRIDE))
    set_capabilities(wanted, wanted, wanted)
    for number in (_CAP_SETUID, _CAP_SETGID, _CAP_DAC_OVERRIDE):
        prctl(_PR_CAP_AMBIENT, _RAISE, number)


PARENTS: dict[str, Callable[[], None]] = {
    "root": be_root,
    "root with groups": have_groups,
    "root with inheritable and ambient capabilities": raise_capabilities,
    "root with SECBIT_KEEP_CAPS": keep_capabilities,
    "root with SECBIT_NO_SETUID_FIXUP": fix_nothing_up,
    "root with all of that": fix_nothing_up_with_all_raised,
    "root put aside": put_root_aside,
    "root in effect only": be_root_in_effect_only,
    "root in the saved uid only": save_root_only,
    "capabilities without root": have_capabilities_without_root,
}

NONE = "0" * 16


def assert_has_no_rights(said: Standing, what: str) -> None:
    """It is the stranger, in all four ids, and nothing else."""
    assert said["Uid"] == said["Gid"] == " ".join([str(STRANGER)] * 4), what
    assert said["Groups"] == "", what
    sets = {name: said[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert sets == dict.fromkeys(sets, NONE), what


def assert_has_nothing_else(said: Standing, what: str) -> None:
    """Three fds, every signal open and at its default, no session that was not asked for."""
    assert said["Fds"] == "0 1 2", what
    signals = {name: said[name] for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd")}
    assert signals == dict.fromkeys(signals, NONE), what
    assert (said["DeathSignal"], said["Session"]) == ("0", "0"), what


def children_of(parent: str, program: str, closed_program: str) -> dict[str, Any]:
    PARENTS[parent]()
    return {
        engine: {
            "standing": say_standing(program, engine, STRANGER, STRANGER),
            "refusal": refusal_of(engine, closed_program),
        }
        for engine in ENGINES
    }


def refusal_of(engine: str, program: str) -> Any:
    """Return stage and errno of a start as the stranger, or None if there was one."""
    if engine == "batch":
        identity = Identity(STRANGER, STRANGER, ())
        (outcome,) = run_batch([batch_spec([program], identity)], at_once=1)
        return outcome.error and [outcome.error.stage, outcome.error.errno]
    with make_reactor() as reactor:
        try:
            spawn_and_finish(reactor, program, uid=STRANGER, gid=STRANGER)
        except SpawnError as error:
            return [error.stage, error.errno]
    return None


@pytest.fixture(scope="module")
def closed_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that every user may run, in a directory that root alone may enter."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    return str(shutil.copy(build_program("standing"), closed / "program"))


def children_of_all(program: str, closed_program: str) -> dict[str, Any]:
    return {parent: in_a_copy(children_of, parent, program, closed_program) for parent in PARENTS}


@pytest.fixture(scope="module", params=WAYS_TO_ANOTHER_USER.values(), ids=[*WAYS_TO_ANOTHER_USER])
def children(request: pytest.FixtureRequest, closed_program: str) -> dict[str, Any]:
    """What came of the children that each parent started with each engine."""
    found: dict[str, Any] = alone(
        children_of_all, build_program("standing"), closed_program, disable=request.param
    )
    return found


@needs_root
@pytest.mark.parametrize("parent", PARENTS)
def test_a_child_of_another_user_has_no_group_and_no_capability_of_its_parent(
    parent: str, children: dict[str, Any]
) -> None:
    ours = standing_of(Path(PROC, "self/status").read_bytes())
    for engine in ENGINES:
        said = children[parent][engine]["standing"]
        assert_has_no_rights(said, engine)
        assert_has_nothing_else(said, engine)
        # Not taken away: it gives nothing, and bounds what a setuid program may have.
        assert (said["CapBnd"], said["NoNewPrivs"]) == (ours["CapBnd"], ours["NoNewPrivs"])


@needs_root
@pytest.mark.parametrize("parent", PARENTS)
def test_no_right_of_the_parent_opens_the_way_to_a_program(
    parent: str, children: dict[str, Any]
) -> None:
    """The program is looked for with the rights of the new user, whatever the parent's are."""
    refusals = [children[parent][engine]["refusal"] for engine in ENGINES]
    assert refusals == [["exec", errno.EACCES]] * len(ENGINES)


def standings_with_half_an_identity(program: str) -> list[Standing]:
    have_groups()
    found = [say_standing(program, engine, uid=STRANGER) for engine in ENGINES]
    return found + [say_standing(program, engine, gid=STRANGER) for engine in ENGINES]


@needs_root
@on_each_way
def test_uid_alone_sheds_the_groups_and_keeps_the_gid_and_gid_alone_keeps_root(
    disable: str,
) -> None:
    *by_uid, by_gid, by_gid_in_batch = alone(
        standings_with_half_an_identity, build_program("standing"), disable=disable
    )
    for said in by_uid:
        assert said["Uid"] == " ".join([str(STRANGER)] * 4)
        assert (said["Gid"], said["Groups"]) == (" ".join([str(os.getegid())] * 4), "")
        assert {said["CapPrm"], said["CapEff"], said["CapAmb"]} == {NONE}
    roots_groups = {str(group) for group in os.getgrouplist("root", STRANGER)}
    for said in (by_gid, by_gid_in_batch):
        assert said["Uid"] == "0 0 0 0"
        assert said["Gid"] == " ".join([str(STRANGER)] * 4)
        assert set(said["Groups"].split()) == roots_groups
        assert said["CapEff"] != NONE


def groups_in_the_batch_engine(program: str) -> Standing:
    have_groups()
    identity = Identity(STRANGER, STRANGER, (7, 1000000))
    (outcome,) = run_batch([batch_spec([program], identity)], at_once=1)
    return standing_of(outcome.stdout)


@needs_root
@on_each_way
def test_groups_that_are_given_are_the_only_ones(disable: str) -> None:
    said = alone(groups_in_the_batch_engine, build_program("standing"), disable=disable)
    assert said["Groups"] == "7 1000000"
    assert {said["CapInh"], said["CapPrm"], said["CapEff"], said["CapAmb"]} == {NONE}


def standings_without_an_identity(program: str) -> list[Standing]:
    raise_capabilities()
    os.setgroups([4, 27])
    os.setresuid(0, STRANGER, 0)
    return [say_standing(program, engine) for engine in ENGINES]


@needs_root
def test_without_uid_and_gid_a_child_has_all_rights_of_its_parent() -> None:
    """What is stated: nothing is dropped unasked, not even a real uid that was put aside."""
    for said in alone(standings_without_an_identity, build_program("standing")):
        assert said["Uid"] == f"0 {STRANGER} {STRANGER} {STRANGER}"
        assert said["Groups"] == "4 27"
        assert said["CapInh"] != NONE


# --- where it stands ---------------------------------------------------------


def directory_of_a_child(program: str, path: str) -> list[str]:
    with make_reactor() as reactor:
        child = spawn_and_finish(reactor, program, path=path, uid=STRANGER, gid=STRANGER)
    identity = Identity(STRANGER, STRANGER, ())
    spec = batch_spec([program], identity, cwd=os.fsencode(path))
    (outcome,) = run_batch([spec], at_once=1)
    return [standing_of(said)["Directory"] for said in (child.out, outcome.stdout)]


@needs_root
@on_each_way
def test_the_directory_is_entered_with_the_rights_of_the_parent(
    disable: str, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    found = alone(directory_of_a_child, build_program("standing"), str(closed), disable=disable)
    assert found == [str(closed)] * len(ENGINES)


# --- seen from outside --------------------------------------------------------------------------


def status_of(pid: int) -> Standing:
    return standing_of(Path(PROC, str(pid), "status").read_bytes())


def facts_from_outside(program: str) -> list[Any]:
    have_groups()
    raise_capabilities()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
    with make_reactor() as reactor:
        recorder = Recorder()
        options: dict[str, Any] = {"uid": STRANGER, "gid": STRANGER, "signalMask": ()}
        transport = reactor.spawnProcess(recorder, program, [program, "wait", "0"], **options)
        pid = transport.pid
        terminal = int(Path(PROC, str(pid), "stat").read_text().rsplit(")", 1)[1].split()[4])
        fds = sorted(os.listdir(f"{PROC}/{pid}/fd"))
        facts = [status_of(pid), fds, terminal, Path(PROC, str(pid)).stat().st_uid]
        transport.closeStdin()
        run_until(reactor, lambda: recorder.ended)
    return facts


@needs_root
@on_each_way
def test_proc_shows_a_child_of_another_user_without_any_right_of_its_parent(disable: str) -> None:
    said, fds, terminal, owner = alone(facts_from_outside, build_program("end"), disable=disable)
    assert_has_no_rights(said, "from outside")
    assert {said["SigBlk"], said["SigIgn"], said["SigCgt"]} == {NONE}
    assert fds == ["0", "1", "2"]
    assert terminal == 0, "a process of the test's own has none to pass on"
    assert owner == STRANGER


# --- session and terminal -------------------------------------------------------------------------


def standings_on_a_terminal(program: str) -> dict[str, Standing]:
    master, slave = os.openpty()
    os.close(os.open(os.ttyname(slave), os.O_RDWR))  # a leader without one gets the first it opens
    found = {}
    with make_reactor() as reactor:
        for name, options in {"inherited": {}, "session": {"session": True}}.items():
            child = spawn_and_finish(reactor, program, uid=STRANGER, gid=STRANGER, **options)
            found[name] = standing_of(child.out)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.close(slave)
    os.close(master)
    return found


@needs_root
@on_each_way
def test_a_session_of_its_own_is_what_takes_the_parents_terminal_away(disable: str) -> None:
    found = alone(standings_on_a_terminal, build_program("standing"), disable=disable)
    assert (found["session"]["Session"], found["session"]["Terminal"]) == ("1", "0")
    assert (found["inherited"]["Session"], found["inherited"]["Terminal"]) == ("0", "1")


# --- keyrings -----------------------------------------------------------------------------------

_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION, _GET_ID = 1, 0
_THREAD, _PROCESS, _SESSION = -1, -2, -3


def keyctl(*arguments: int | None) -> int:
    result: int = libc.syscall(_KEYCTL[platform.machine()], *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "keyctl")
    return result


def has_keyrings() -> bool:
    try:
        return platform.machine() in _KEYCTL and keyctl(_GET_ID, _SESSION, 0) > 0
    except OSError:
        return False


def keyrings(program: str) -> list[Any]:
    session = keyctl(_JOIN_SESSION, None)
    keyctl(_GET_ID, _THREAD, 1)
    keyctl(_GET_ID, _PROCESS, 1)
    return [session, *(say_standing(program, engine, STRANGER, STRANGER) for engine in ENGINES)]


@needs_root
@pytest.mark.skipif(not has_keyrings(), reason="no keyrings to be had")
@on_each_way
def test_a_child_has_the_session_keyring_of_its_parent_and_no_other(disable: str) -> None:
    session, *standings = alone(keyrings, build_program("standing"), disable=disable)
    for said in standings:
        assert said["Keyrings"] == f"-{errno.ENOKEY} -{errno.ENOKEY} {session}"


# --- what a thread has given up -------------------------------------------------------------------


def standings_after_giving_up_privileges(program: str) -> list[Standing]:
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return [say_standing(program, engine) for engine in ENGINES]


def test_what_the_caller_gave_up_before_a_batch_began_its_children_do_not_have() -> None:
    found = alone(standings_after_giving_up_privileges, build_program("standing"))
    assert [said["NoNewPrivs"] for said in found] == ["1"] * len(ENGINES)


# --- in a user namespace --------------------------------------------------------------------------

_CLONE_NEWUSER = 0x10000000
INSIDE = STRANGER
"""Beside root, the only uid and gid of the namespace."""


def be_root_of_a_namespace() -> None:
    """Be root in a new user namespace of two users; its maps are written from outside. OSError."""
    there, here = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(there, 1)
            for name in ("uid_map", "gid_map"):
                Path(PROC, str(parent), name).write_text(f"0 0 1\n{INSIDE} {INSIDE} 1\n")
            os._exit(0)
        finally:
            os._exit(1)
    result = libc.unshare(_CLONE_NEWUSER)
    os.write(here, b"x")
    mapped = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(there)
    os.close(here)
    if result != 0 or not mapped:
        raise OSError(errno.EPERM, "no user namespace to be had")


def standings_in_a_namespace(program: str) -> list[Any]:
    try:
        be_root_of_a_namespace()
    except OSError as error:
        return [str(error)]
    have_none: list[Any] = [say_standing(program, engine, INSIDE, INSIDE) for engine in ENGINES]
    with make_reactor() as reactor:
        try:
            reactor.spawnProcess(Recorder(), "/bin/true", uid=INSIDE + 1, gid=INSIDE)
        except SpawnError as error:
            have_none.append([error.stage, error.errno])
    return have_none


@needs_root
@on_each_way
def test_in_a_user_namespace_a_child_has_no_right_of_its_root(disable: str) -> None:
    found = alone(standings_in_a_namespace, build_program("standing"), disable=disable)
    if len(found) == 1:
        pytest.skip(found[0])
    *standings, refusal = found
    for said in standings:
        assert said["Uid"] == said["Gid"] == " ".join([str(INSIDE)] * 4)
        sets = {said[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
        assert sets == {NONE}
        assert said["Groups"] == ""
    assert refusal == ["setuid", errno.EINVAL], "a uid that is not mapped is nobody"
