"""Scenarios that go wrong on purpose, for the tests of the harness itself."""

from __future__ import annotations

import os
import signal
import sys

from contracts.recording import CAT, end_of, sh, spawn
from contracts.scenario import Record, scenario, turns, until
from contracts.world import OURS, World


@scenario
async def the_same_in_both(world: World) -> Record:
    child = sh(world, "echo out; exit 3")
    return await end_of(child)


@scenario
async def another_exit_code(world: World) -> Record:
    child = sh(world, f"echo out; exit {3 if world.package == OURS else 4}")
    return await end_of(child)


@scenario
async def a_child_that_never_ends(world: World) -> Record:
    child = spawn(world, CAT)
    await until(child.is_over)
    return {}


@scenario
def a_reactor_that_never_stops(world: World) -> Record:
    world.reactor.run()
    return {}


@scenario
async def an_exception(world: World) -> Record:
    await turns()
    raise LookupError("on purpose")


@scenario
def a_process_that_dies(world: World) -> Record:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@scenario
async def a_reactor_that_is_stopped_too_early(world: World) -> Record:
    world.reactor.callLater(0, world.reactor.stop)
    await until(lambda: False)
    return {}


@scenario
def an_exit(world: World) -> Record:
    sys.exit("early")


@scenario
async def a_promise_that_is_broken(world: World) -> Record:
    """The protocol is told twice of the end, as no transport may do."""
    child = sh(world, "exit 3")
    await until(child.is_over)
    child.processEnded(child.reason())
    story: Record = child.story()
    return story
