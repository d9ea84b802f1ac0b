"""Every system call of the installed package fails once, seen from outside.

For each act (acts.py) a first performance shows which calls it makes, and where. Then, for each of
them and each error that it may have (calls.py), a process of its own performs it again with that
call struck (supervision.py). Whatever happens, it must make sense: either all came about, or the
failure was told, with the very errno, at a stage where the call belongs. Of equal calls a few are
struck, and with the likeliest errors, but for what matters most; PROCREACTOR_TESTS_STRIKE=all has
all of them struck, with all their errors. Nothing is left: no fd, no child, no blocked signal, and
the process is as dumpable as it was. And then the same act succeeds, unstruck, in the same process:
a blow may cost features, not function.

tests/c/test_faults.c does this inside the C core. Here are the calls that Python makes for us, the
order in which they meet those of the core, and what a program is told.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from faults.acts import ACTS, Act, Refusal, Stage, note_refusal, stage_for
from faults.calls import CALLS, DATABASE, ENDS, LIBC_CALLS, UNREACHED, find_call
from faults.supervision import Blow, Calls, Listen, begin_act, can_supervise, end_act, play
from fdtables import Entry, assert_same, landing_slots, own_table
from seccomp import needs_seccomp
from support import DEADLINE_S, PROC
from woods import homes

from procreactor.kernel import children

MOST_TIMES, MOST_TIMES_LONG = 5, 2
"""Of a call that is made more often, so many are struck, the first and the last among them."""

FEW_ERRORS = 2

STRIKES_ALL = os.environ.get("PROCREACTOR_TESTS_STRIKE") == "all"
"""Whether there is time, 20 minutes, for each call as often as it is made, with each error."""

SWEEP_S = 3600 if STRIKES_ALL else 90
"""How long one act may take."""

ENOUGH_FAILURES = 3

TABLE_END = 96
"""One above the highest fd that is looked at; acts open few, and low ones."""

PR_GET_DUMPABLE = 3
WAIT_FOR_ALL = 0x40000000
"""__WALL of waitid(2): also for a child that has no exit signal."""

ACTIONS = Path(PROC, "sys/kernel/seccomp/actions_avail")
SYSTEM_CALLS = Path(__file__).resolve().parents[2] / "csrc" / "sys.h"

# --- one performance, in a process of its own -----------------------------------------------------

State = tuple[dict[int, Entry], set[int], int]


def state(slot_file: tuple[int, int]) -> State:
    """What an act must leave as it was; of the landing slots some may have been given up."""
    fds = {fd: entry for fd, entry in own_table(TABLE_END).items() if entry.file != slot_file}
    blocked = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}
    return fds, blocked, ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)


def assert_nothing_is_left(before: State, slot_file: tuple[int, int]) -> None:
    now = state(slot_file)
    assert_same(now[0], before[0], "fds")
    assert now[1:] == before[1:], "signals blocked, dumpable"
    try:
        left = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WAIT_FOR_ALL)
    except ChildProcessError:
        return
    raise AssertionError(f"a child is left: {left or 'it runs'}")


def join_watchers() -> None:
    """Wait for the threads that stand for pidfds, where there are none, by no call but theirs."""
    for thread in threading.enumerate():
        if thread.name.startswith("procreactor-wait-"):
            thread.join(DEADLINE_S)


def perform_once(act: Act, stage: Stage) -> tuple[list[Refusal], list[Refusal]]:
    """Return what was told, by exceptions and in the log."""
    try:
        act.perform(stage)
    except OSError as error:
        note_refusal(stage, error)
    join_watchers()
    told = list(stage.refusals), list(stage.logged)
    stage.refusals.clear()
    stage.logged.clear()
    return told


def perform(act: Act, blow: Blow | None, listen: Listen) -> tuple[list[Refusal], list[Refusal]]:
    """Return what was told of *blow*; afterwards the act was performed once more, unstruck."""
    may_lose = blow is not None and (blow.name, blow.error) in ENDS
    may_miss = blow is not None and blow.name == "kill"
    with stage_for(act, may_lose, may_miss) as stage:
        slot = min(landing_slots())
        slot_file = own_table(slot + 1)[slot].file
        listen()
        before = state(slot_file)
        begin_act()
        told = perform_once(act, stage)
        end_act()
        assert_nothing_is_left(before, slot_file)
        if blow is not None:
            stage.may_lose = stage.may_miss = False
            assert perform_once(act, stage) == ([], []), "unstruck, afterwards"
            assert_nothing_is_left(before, slot_file)
        assert not act.needs_cgroup or blow is None or homes() == []
    return told


# --- all blows to one act -------------------------------------------------------------------------


def which(count: int, most: int) -> Iterable[int]:
    """Return which of *count* equal calls are struck: so many at *most*."""
    if count <= most:
        return range(1, count + 1)
    return sorted({1 + (count - 1) * at // (most - 1) for at in range(most)})


def is_the_databases(act: Act, site: str, name: str) -> bool:
    return act.asks_database and site == "libc" and name not in DATABASE


def blows(act: Act, calls: Calls) -> Iterator[Blow]:
    for (site, name), count in sorted(calls.items()):
        if is_the_databases(act, site, name):
            continue
        errors, _ = find_call(site, name) or ((), ())
        most = MOST_TIMES_LONG if act.is_long else MOST_TIMES
        for nth in range(1, count + 1) if STRIKES_ALL else which(count, most):
            for error in errors if act.is_thorough or STRIKES_ALL else errors[:FEW_ERRORS]:
                yield Blow(site, name, nth, error)


def complaint(blow: Blow, refusals: list[Refusal], logged: list[Refusal]) -> str:
    """Return what is wrong with what was told of *blow*, or ""."""
    wrong = [told for told in [*refusals, *logged] if told[0] != blow.error]
    if wrong:
        return f"told as {wrong}"
    _, stages = find_call(blow.site, blow.name) or ((), ())
    wrong = [told for told in refusals if told[1] not in stages]
    wrong += [told for told in logged if "" not in stages]
    return f"told where it does not belong: {wrong}" if wrong else ""


def strike(act: Act, blow: Blow) -> tuple[bool, str]:
    """Return whether the call was struck, and what went wrong, or ""."""
    try:
        played = play(partial(perform, act, blow), blow)
    except AssertionError as error:
        return True, str(error) or repr(error)
    refusals, logged = played.said
    return played.struck, complaint(blow, refusals, logged)


def sweep(name: str) -> dict[str, Any]:
    """Strike each call of the act; return what was struck, is not known, and went wrong."""
    act = ACTS[name]
    if not act.is_cold:
        with stage_for(act) as stage:
            assert perform_once(act, stage) == ([], [])
    learnt = play(partial(perform, act, None), None)
    assert learnt.said == [[], []], learnt.said
    unknown = [
        (site, name)
        for site, name in learnt.calls
        if find_call(site, name) is None and not is_the_databases(act, site, name)
    ]
    struck, failures = set(), []
    for blow in blows(act, learnt.calls):
        has_struck, wrong = strike(act, blow)
        if has_struck:
            struck.add((blow.site, blow.name))
        if wrong:
            failures.append(f"{blow}: {wrong}")
        if len(failures) == ENOUGH_FAILURES:
            break  # each may have taken its whole deadline
    return {"struck": sorted(struck), "unknown": unknown, "failures": failures}


STRUCK: dict[str, set[tuple[str, str]]] = {}
"""By act, the calls that were struck in this run."""


@functools.cache
def is_supervision_to_be_had() -> bool:
    return bool(alone(can_supervise))


def has_user_filters() -> bool:
    """Whether this kernel has filters that ask another process; anybody may lay one."""
    return "user_notif" in ACTIONS.read_text().split() if ACTIONS.exists() else False


def all_acts() -> Iterator[Any]:
    """Yield the name of each act, marked with what of a world it needs."""
    for name, act in ACTS.items():
        needs = {"cgroup": act.needs_cgroup, "/proc": act.needs_proc}
        marks = [pytest.mark.needs(what) for what, is_needed in needs.items() if is_needed]
        yield pytest.param(name, marks=marks, id=name)


@needs_seccomp
@pytest.mark.skipif(not has_user_filters(), reason="this kernel has no filters that ask")
def test_nothing_is_left_out_where_system_calls_could_be_watched() -> None:
    """Else a run in which all below was left out would be green, and show nothing."""
    assert is_supervision_to_be_had(), "seccomp or /proc is kept from us"


@needs_seccomp
@pytest.mark.timeout(0 if STRIKES_ALL else 300)
@pytest.mark.parametrize("name", list(all_acts()))
def test_any_call_may_fail(name: str) -> None:
    if ACTS[name].needs_root and os.geteuid() != 0:
        pytest.skip("needs root")
    if not is_supervision_to_be_had():
        pytest.skip("system calls cannot be watched here (seccomp, /proc)")
    found = alone(sweep, name, disable=ACTS[name].disable, deadline_s=SWEEP_S)
    assert not found["unknown"], "calls that calls.py does not know"
    assert not found["failures"], "\n".join(found["failures"])
    STRUCK[name] = {(site, name) for site, name in found["struck"]}


@pytest.mark.needs("pidfd_open", "pidfd_send_signal")
def test_every_call_that_may_fail_was_struck() -> None:
    if set(STRUCK) != set(ACTS):
        pytest.skip("not all acts were performed in this run")
    if len(children.in_use()) < 6:
        pytest.skip("not all that the kernel may have is here")
    struck = set().union(*STRUCK.values())
    by_libc = {name for site, name in struck if site == "libc"}
    elsewhere = {name for _, name in struck}
    never = {name for name, (errors, _) in CALLS.items() if errors} - elsewhere
    never |= {name for name, (errors, _) in LIBC_CALLS.items() if errors} - by_libc
    assert never - {"epoll_pwait", "epoll_wait"} == set()  # one of them is the machine's


def test_every_call_of_the_c_core_is_known() -> None:
    text = SYSTEM_CALLS.read_text(encoding="utf-8")
    made = set(re.findall(r"^PR_CALL\((\w+)", text, re.MULTILINE)) | set(
        re.findall(r"\bSYS_(\w+),", text)
    )
    known = {name.split()[0] for name in CALLS}
    assert "pipe2" in made
    assert made - known == set(UNREACHED), "in sys.h, and neither in CALLS nor in UNREACHED"
