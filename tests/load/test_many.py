"""Thousands of children at once, all alive and talking; and all ending at once.

Each test runs in a process of its own, whose limit on open files is raised as far as it may be. It
plays as many children as are wanted. Where the machine has not room for them, as many as it has;
then what does not hold fails as ever, and what holds is left out, with the number and the reason:
it was not shown.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from alone import alone
from load.room import WATCHES_BY_THREAD, find_room
from load.talkers import Talker, end_all, faults, talk, wait_for_ends
from soak.actor import build_actor
from support import let_waiting_threads_end, make_reactor

ALIVE, IN_A_STORM = (3_900, 3_900) if WATCHES_BY_THREAD else (4_500, 4_000)
"""So many have room among 20,000 fds."""

EVENTS_PER_TURN = 1000
"""So many the loop takes from its epoll set, nearly, when there are more."""


@contextmanager
def played(found: dict[str, Any], wanted: int) -> Iterator[None]:
    """At the end of what must hold whatever the number, see to it that fewer than wanted show."""
    count, why = found.pop("room")
    yield
    if count < wanted:
        pytest.skip(f"holds for {count:,} children, but is about {wanted:,}: {why}")


def talk_with_many(actor: str, wanted: int) -> dict[str, Any]:
    count, why = find_room(wanted, fds_each=4)
    talkers = [Talker(number) for number in range(count)]
    with make_reactor() as reactor:
        for talker in talkers:
            talker.start(reactor, actor)
        for turn in range(3):
            talk(reactor, talkers, turn)
        alive = sum(talker.transport.pid is not None for talker in talkers)
        early = sum(len(talker.exits) for talker in talkers)
        end_all(reactor, talkers)
        left = len(reactor._disconnectable)
    return {
        "room": [count, why],
        "not alive at once": count - alive,
        "exits before the end": early,
        "faults": faults(talkers),
        "still known": left,
    }


def test_thousands_of_live_children_echo_what_each_was_told_and_end_once() -> None:
    found = alone(talk_with_many, build_actor(), ALIVE)
    with played(found, ALIVE):
        assert found == {
            "not alive at once": 0,
            "exits before the end": 0,
            "faults": [],
            "still known": 0,
        }


class Waiter(Talker):
    """A child that waits for the storm."""

    told: ClassVar[int] = 0
    """How many exits of such children have been told."""

    def processExited(self, reason: Any) -> None:
        super().processExited(reason)
        Waiter.told += 1


def start_waiters(reactor: Any, actor: str, count: int, **options: Any) -> list[Waiter]:
    """Return *count* children that read their stdin to its end, as *options* say.

    With a process group of 0 that of the first is that of all.
    """
    waiters = []
    for number in range(count):
        waiter = Waiter(number)
        reactor.spawnProcess(waiter, actor, [actor, "wait", str(waiter.code)], **options)
        if options.get("processGroup") == 0:
            options["processGroup"] = waiter.transport.pid
        waiters.append(waiter)
    return waiters


def storm(actor: str, how: str, wanted: int) -> dict[str, Any]:
    """End *wanted* children at once, then look at the turns in which that is told."""
    count, why = find_room(wanted, fds_each=4)
    with make_reactor() as reactor:
        if how == "pipe":
            theirs, ours = os.pipe()
            waiters = start_waiters(reactor, actor, count, childFDs={0: theirs, 1: "r", 2: "r"})
            os.close(theirs)
            os.close(ours)
        else:
            waiters = start_waiters(reactor, actor, count, processGroup=0)
            os.killpg(waiters[0].transport.pid, signal.SIGTERM)
        for waiter in waiters:
            # All are dead before the first turn: so it is sure what the turns are to bring.
            os.waitid(os.P_PID, waiter.transport.pid, os.WEXITED | os.WNOWAIT)
        let_waiting_threads_end()  # so those who stand for pidfds have seen it
        turns = most_per_turn = 0
        ticks: list[int] = []
        while Waiter.told < count and turns < count:
            before = Waiter.told
            reactor.callLater(0, ticks.append, turns)
            reactor.iterate(0)
            turns += 1
            most_per_turn = max(most_per_turn, Waiter.told - before)
        wait_for_ends(reactor, waiters)
        left = len(reactor._disconnectable)
    wrong = []
    for waiter in waiters:
        end = (None, signal.SIGTERM) if how == "signal" else (waiter.code, None)
        if waiter.exits != [end] or waiter.ends != 1:
            wrong.append(f"{waiter.number}: exits {waiter.exits}, {waiter.ends} ends")
    return {
        "room": [count, why],
        "turns": turns,
        "turns needed": math.ceil(count * (3 if how == "pipe" else 4) / EVENTS_PER_TURN),
        "turns without the timer": turns - len(ticks),
        "most per turn": most_per_turn,
        "wrong": wrong[:5],
        "still known": left,
    }


@pytest.mark.parametrize("how", ["pipe", "signal"])
def test_of_thousands_that_end_at_once_each_is_told_once_in_few_turns(how: str) -> None:
    found = alone(storm, build_actor(), how, IN_A_STORM)
    with played(found, IN_A_STORM):
        assert found.pop("turns") <= found.pop("turns needed") + 1
        assert found.pop("most per turn") <= 1024
        assert found == {"turns without the timer": 0, "wrong": [], "still known": 0}
