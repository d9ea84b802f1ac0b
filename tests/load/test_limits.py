"""At the limit on fds, processes or terminals: starts are refused, and nothing else suffers.

ENFILE and ENOMEM are of the whole machine, and cannot be had here: tests/c/test_faults.c has the
kernel say them.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from leftovers import child_pids, open_fds
from load.room import WATCHES_BY_THREAD, groups
from load.talkers import Talker, Typist, end_all, faults, talk
from mounts import mount, needs_mounts, private_mounts, unmount
from soak.actor import build_actor, said
from support import let_waiting_threads_end, make_reactor

from procreactor.apps.batch import plan_command, run_batch
from procreactor.errors import SpawnError
from procreactor.kernel import children
from procreactor.model import SpawnSpec

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ROUNDS = 4
MANY, FEW = 500, 12
"""So many children there is room for."""

TASKS = 1 + (1 + WATCHES_BY_THREAD) * MANY
"""What MANY children are to the kernel, with this process and the threads that wait for them."""

SOME_UID = 54322
"""Nobody's, so that no other process counts."""


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def refusal_of(talker: Talker, reactor: Any, actor: str) -> tuple[str, str, str] | None:
    """Start one; return what it is refused for."""
    try:
        talker.start(reactor, actor)
    except SpawnError as error:
        return error.stage, errno.errorcode[error.errno or 0], error.hint
    return None


def fill_up(reactor: Any, actor: str, kind: type[Talker] = Talker) -> dict[str, Any]:
    """Start children until one is refused, end half of them, and again, some times."""
    alive: list[Talker] = []
    gone: list[Talker] = []
    refusals, highs = set(), []
    for turn in range(ROUNDS):
        while True:
            talker = kind(len(alive) + len(gone))
            refusal = refusal_of(talker, reactor, actor)
            if refusal is not None:
                break
            alive.append(talker)
            assert len(alive) < 2 * MANY, "no limit"
        before = open_fds(), child_pids()
        refusals |= {refusal, refusal_of(talker, reactor, actor)}
        assert (open_fds(), child_pids()) == before
        assert talker.transport is None
        highs.append(len(alive))
        talk(reactor, alive, turn)
        ending, alive = alive[::2], alive[1::2]
        end_all(reactor, ending)
        let_waiting_threads_end()  # each holds an fd until then
        gone += ending
    end_all(reactor, alive)
    return {
        "refusals": sorted(refusals),
        "highs": highs,
        "faults": faults([*gone, *alive]),
        "known": len(reactor._disconnectable),
    }


def with_few_fds(actor: str) -> dict[str, Any]:
    with make_reactor() as reactor:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        fds = (4 + WATCHES_BY_THREAD) * MANY
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + fds + 2, hard))
        return fill_up(reactor, actor)


def with_few_processes(actor: str) -> dict[str, Any]:
    with make_reactor() as reactor:
        become(SOME_UID)
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        resource.setrlimit(resource.RLIMIT_NPROC, (TASKS, hard))
        return fill_up(reactor, actor)


def in_a_small_cgroup(actor: str, group: str, procs: str) -> dict[str, Any]:
    with make_reactor() as reactor:
        Path(group, "pids.max").write_text(str(TASKS))
        Path(group, "cgroup.procs").write_text("0")
        try:
            return fill_up(reactor, actor)
        finally:
            Path(procs).write_text("0")


def with_few_terminals(actor: str) -> dict[str, Any]:
    private_mounts()
    unmount("/dev/pts")
    mount("devpts", "/dev/pts", f"newinstance,ptmxmode=0666,max={FEW}")
    with make_reactor() as reactor:
        return fill_up(reactor, actor, Typist)


def test_without_more_fds_starts_are_refused_until_children_end() -> None:
    found = alone(with_few_fds, build_actor())
    stages = {stage for stage, _, _ in found["refusals"]}
    forks = "vfork" not in children.in_use()
    watch = {"exit watch"} if WATCHES_BY_THREAD else {"clone"}
    assert stages <= {"pipe"} | watch | ({"report pipe"} if forks else set())
    assert {(number, "ulimit -n" in hint) for _, number, hint in found["refusals"]} == {
        ("EMFILE", True)
    }
    assert (found["faults"], found["known"]) == ([], 0)
    assert len(set(found["highs"])) == 1, "fewer fit than before: fds are lost"
    assert found["highs"][0] >= 0.9 * MANY


@needs_root
def test_without_more_processes_of_a_user_starts_are_refused_until_children_end() -> None:
    found = alone(with_few_processes, build_actor())
    [(stage, number, hint)] = found["refusals"]
    assert (stage, number, "ulimit -u" in hint) == ("clone", "EAGAIN", True)
    assert (found["highs"], found["faults"], found["known"]) == ([MANY] * ROUNDS, [], 0)


@contextmanager
def pids_cgroup() -> Iterator[tuple[Path, Path]]:
    """A new cgroup below that of this process, with the pids controller; and cgroup.procs above."""
    found = [one for one in groups("pids") if (one / "cgroup.procs").exists()]
    if not found:
        pytest.skip("no pids controller")
    group = found[0] / f"load-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup to be had: {error}")
    try:
        if not (group / "pids.max").exists():
            pytest.skip("no pids controller for cgroups below this process's")
        yield group, found[0] / "cgroup.procs"
    finally:
        group.rmdir()


def test_without_more_processes_in_a_cgroup_starts_are_refused_until_children_end() -> None:
    with pids_cgroup() as (group, procs):
        found = alone(in_a_small_cgroup, build_actor(), str(group), str(procs))
    [(stage, number, hint)] = found["refusals"]
    assert (stage, number, "pids.max" in hint) == ("clone", "EAGAIN", True)
    assert (found["highs"], found["faults"], found["known"]) == ([MANY] * ROUNDS, [], 0)


@needs_mounts
def test_without_more_terminals_starts_are_refused_until_children_end() -> None:
    found = alone(with_few_terminals, build_actor())
    [(stage, number, hint)] = found["refusals"]
    assert (stage, number, "kernel.pty.max" in hint) == ("open pty", "ENOSPC", True)
    assert (found["highs"], found["faults"], found["known"]) == ([FEW] * ROUNDS, [], 0)


# --- The batch engine: a start that is refused is an outcome, and not tried again -----------------

FIRST, LAST = 20, 40
"""So many commands while there is no room, and so many after there is some again."""


def run_until_there_is_room(
    actor: str, threads: int, take_room: Callable[[], Callable[[], None]]
) -> list[list[Any]]:
    """Return number, code and errno of each command of a batch that finds no room for the first."""
    give_back: list[Callable[[], None]] = []

    def specs() -> Iterator[SpawnSpec]:
        for number in range(FIRST + LAST):
            if number == 0:
                give_back.append(take_room())
            if number == FIRST:
                give_back.pop()()
            yield plan_command([actor, "say", "3000", "2000", "5", str(number)])

    found = []
    for outcome in run_batch(specs(), at_once=4, threads=threads):
        status, error = outcome.status, outcome.error
        right = (said(3000, 5), said(2000, 6)) if status else (b"", b"")
        assert (outcome.stdout, outcome.stderr) == right
        found.append([outcome.number, status and status.code, error and error.errno])
    return found


def take_all_fds() -> Callable[[], None]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 10, hard))
    taken: list[int] = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass

    def give_back() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for fd in taken:
            os.close(fd)

    return give_back


def batch_without_fds(actor: str) -> list[list[Any]]:
    return run_until_there_is_room(actor, 2, take_all_fds)


def take_all_processes() -> Callable[[], None]:
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))


def batch_without_processes(actor: str) -> list[list[Any]]:
    become(SOME_UID)
    return run_until_there_is_room(actor, 2, take_all_processes)


def check_outcomes(found: list[list[Any]], number: int) -> None:
    assert sorted(one[0] for one in found) == list(range(FIRST + LAST)), "one is missing, or twice"
    refused = [one for one in found if one[2] is not None]
    assert refused
    assert all(one == [one[0], None, number] and one[0] < FIRST for one in refused)
    assert all(one[1] == one[0] for one in found if one not in refused)


def test_a_batch_without_fds_tells_so_of_each_command_and_goes_on_when_there_are_some() -> None:
    check_outcomes(alone(batch_without_fds, build_actor()), errno.EMFILE)


@needs_root
def test_a_batch_without_processes_tells_so_of_each_command_and_goes_on_when_there_are_some() -> (
    None
):
    check_outcomes(alone(batch_without_processes, build_actor()), errno.EAGAIN)


def batch_without_threads(actor: str) -> list[Any]:
    become(SOME_UID)
    give_back = take_all_processes()
    before = open_fds()
    with pytest.raises(BlockingIOError) as caught:
        next(run_batch([plan_command([actor, "exit", "3"])], at_once=1, threads=2))
    assert open_fds() == before
    give_back()
    (outcome,) = run_batch([plan_command([actor, "exit", "3"])], at_once=1, threads=2)
    return [caught.value.errno, outcome.status and outcome.status.code]


@needs_root
@pytest.mark.needs("threads")
def test_a_batch_that_gets_no_threads_raises_and_leaves_nothing() -> None:
    assert alone(batch_without_threads, build_actor()) == [errno.EAGAIN, 3]
