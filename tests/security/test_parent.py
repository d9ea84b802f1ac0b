"""The parent stays who it is: while it starts children of another user, and after.

A thread looks at the parent, all its threads included, again and again while others spawn. What it
sees must be one and the same all the time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from programs_build import build_program
from security.spawned import STRANGER, WAYS_TO_ANOTHER_USER, batch_spec, needs_root, prctl
from support import PROC, Recorder, make_reactor, run_until

from procreactor.apps.batch import run_batch
from procreactor.model import Identity

_GET_DEATH_SIGNAL, _SET_DEATH_SIGNAL, _GET_DUMPABLE, _SET_DUMPABLE = 2, 1, 3, 4
_GET_KEEPCAPS, _GET_SECUREBITS, _GET_NO_NEW_PRIVS = 7, 27, 39

OF_EACH_THREAD = (
    *("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Umask", "SigIgn", "SigCgt"),
)

SPAWNS, LOOKS = 300, 200


def rights_of(status: str) -> tuple[str, ...]:
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(lines[name].strip() for name in OF_EACH_THREAD)


def rights_of_all_threads() -> frozenset[tuple[str, ...]]:
    """What the threads are; one entry where all are the same."""
    found = set()
    for thread in Path(PROC, "self/task").iterdir():
        try:
            status = (thread / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # just ending
        # One that is ending has no umask any more, then no signals either, and no thread counts.
        if "\nUmask:" in status and "\nThreads:\t0\n" not in status:
            found.add(rights_of(status))
    return frozenset(found)


def look_at_all() -> tuple[Any, ...]:
    """What every thread sees, and must not change."""
    return (
        prctl(_GET_DUMPABLE),
        os.stat(f"{PROC}/self").st_uid,  # the target's to enter, were it not root's
        os.stat(f"{PROC}/self/mem").st_uid,
        rights_of_all_threads(),
        os.getcwd(),
        Path(PROC, "self/oom_score_adj").read_text(),
    )


def look_at_this_thread() -> tuple[Any, ...]:
    """What the kernel keeps by thread, and tells to that thread alone."""
    number = ctypes.c_int()
    prctl(_GET_DEATH_SIGNAL, ctypes.addressof(number))
    settings = (_GET_KEEPCAPS, _GET_SECUREBITS, _GET_NO_NEW_PRIVS)
    mask = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    return (number.value, mask, *map(prctl, settings))


def spawn_many(program: str) -> None:
    with make_reactor() as reactor:
        for _ in range(SPAWNS // 50):
            recorders = [Recorder() for _ in range(50)]
            for recorder in recorders:
                reactor.spawnProcess(
                    recorder, program, [program, "exit", "0"], uid=STRANGER, gid=STRANGER
                )
            run_until(reactor, lambda seen=recorders: all(one.ended for one in seen))
            assert {one.reason.value.exitCode for one in recorders} == {0}


def spawn_many_in_a_batch(program: str) -> None:
    identity = Identity(STRANGER, STRANGER, (STRANGER,))
    specs = (batch_spec([program, "exit", "0"], identity) for _ in range(SPAWNS))
    outcomes = list(run_batch(specs, at_once=32, threads=3))
    assert [outcome.error for outcome in outcomes] == [None] * SPAWNS


ENGINES: dict[str, Callable[[str], None]] = {
    "reactor": spawn_many,
    "batch": spawn_many_in_a_batch,
}


def what_was_seen(engine: str, program: str, dumpable: int) -> list[list[str]]:
    """Return the different things that were seen of all, and of the thread that spawns."""
    os.setgroups([4, 27])
    prctl(_SET_DEATH_SIGNAL, signal.SIGUSR1)
    prctl(_SET_DUMPABLE, dumpable)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
    seen, here = set(), {look_at_this_thread()}
    looks, done = 0, threading.Event()

    def keep_looking() -> None:
        nonlocal looks
        while not done.is_set():
            seen.add(look_at_all())
            looks += 1

    watcher = threading.Thread(target=keep_looking)
    watcher.start()
    seen.add(look_at_all())  # with a thread, of which libc handles a signal of its own
    try:
        while looks < LOOKS:
            ENGINES[engine](program)
            here.add(look_at_this_thread())
    finally:
        done.set()
        watcher.join()
    seen.add(look_at_all())
    assert prctl(_GET_DUMPABLE) == dumpable
    return [sorted(map(repr, seen)), sorted(map(repr, here))]


@needs_root
@pytest.mark.parametrize("dumpable", [0, 1], ids=["undumpable", "dumpable"])
@pytest.mark.parametrize("disable", WAYS_TO_ANOTHER_USER.values(), ids=[*WAYS_TO_ANOTHER_USER])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_parent_and_all_its_threads_stay_who_they_are_while_others_are_made(
    engine: str, disable: str, dumpable: int
) -> None:
    end = build_program("end")
    seen, here = alone(what_was_seen, engine, end, dumpable, disable=disable)
    assert len(seen) == 1, "\n".join(seen)
    assert len(here) == 1, "\n".join(here)
