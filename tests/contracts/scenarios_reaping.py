"""How the end of a child is noticed, and what that does to the program's signals and children."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from contracts.recording import CAT, SH, Hooks, end_of, has_stopped, sh, spawn, wait_for_zombie
from contracts.scenario import NEVER_S, Record, each, happens, scenario, turns, until
from contracts.world import World

CLOSE_ALL_AND_STOP = "exec <&- >&- 2>&-; kill -STOP $$; exit 5"
"""Its pipes end long before it does: until it is told to continue."""


def stands_still(child: Any) -> bool:
    """Whether a child of `CLOSE_ALL_AND_STOP` has lost its pipes and waits."""
    return all(child.has_lost(child_fd) for child_fd in (0, 1, 2)) and has_stopped(child)


def wait_here(condition: Callable[[], object], within_s: float = NEVER_S) -> bool:
    """In a thread that runs no reactor: wait for *condition*, which may never hold."""
    end_s = time.monotonic() + within_s
    tick = threading.Event()
    while not condition() and time.monotonic() < end_s:
        tick.wait(0.01)
    return bool(condition())


# -- who notices -----------------------------------------------------------------------------------


@scenario
async def no_zombie_is_left(world: World) -> Record:
    children = [sh(world, "exit 3") for _ in range(5)]
    await until(lambda: all(child.is_over() for child in children))
    try:
        return {"left": os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None}
    except ChildProcessError:
        return {"left": False}


@scenario
async def a_child_that_closes_its_pipes_long_before_it_ends(world: World) -> Record:
    child = sh(world, CLOSE_ALL_AND_STOP)
    await until(lambda: stands_still(child))
    await turns()
    exited_early = child.has_exited()
    child.transport.signalProcess(signal.SIGCONT)
    await until(child.is_over)
    return {"exited early": exited_early, **child.story()}


WAYS_TO_END = {
    "at once": ("echo out; exit 5", {"connectionMade": wait_for_zombie}),
    "its pipes end long before": (CLOSE_ALL_AND_STOP, {}),
}


@each(WAYS_TO_END)
def a_reactor_in_another_thread(world: World, case: tuple[str, Hooks]) -> Record:
    script, on = case
    children: list[Any] = []
    reactor = world.reactor
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
    reactor.callWhenRunning(lambda: children.append(sh(world, script, on=on)))
    thread.start()
    if script == CLOSE_ALL_AND_STOP:
        wait_here(lambda: children and stands_still(children[0]), within_s=30)
        os.kill(children[0].transport.pid, signal.SIGCONT)
    over = wait_here(lambda: children and children[0].is_over())
    reactor.callFromThread(reactor.stop)
    thread.join()
    return {"over": over, "ended": children[0].story()["ended"]}


@each(WAYS_TO_END)
def a_reactor_without_signal_handlers(world: World, case: tuple[str, Hooks]) -> Record:
    script, on = case
    reactor = world.reactor

    def start() -> None:
        child = sh(world, script, on={**on, "processEnded": lambda *_: reactor.stop()})
        children.append(child)
        if script == CLOSE_ALL_AND_STOP:
            go_on_when_it_stands_still()
        else:
            reactor.callLater(NEVER_S, stop)

    def go_on_when_it_stands_still() -> None:
        if stands_still(children[0]):
            children[0].transport.signalProcess(signal.SIGCONT)
            reactor.callLater(NEVER_S, stop)
        else:
            reactor.callLater(0.01, go_on_when_it_stands_still)

    def stop() -> None:
        if reactor.running:
            reactor.stop()

    children: list[Any] = []
    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
    return {"over": children[0].is_over(), "ended": children[0].story()["ended"]}


@scenario
async def a_child_that_is_spawned_from_a_thread_by_callFromThread(world: World) -> Record:
    children: list[Any] = []
    thread = threading.Thread(
        target=lambda: world.reactor.callFromThread(
            lambda: children.append(sh(world, "echo from a thread; exit 5"))
        )
    )
    thread.start()
    await until(lambda: children and children[0].is_over())
    thread.join()
    return await end_of(children[0])


# -- the program's own handlers --------------------------------------------------------------------


@scenario
def the_handler_of_SIGCHLD(world: World) -> Record:
    def look(*_: object) -> str:
        handler = signal.getsignal(signal.SIGCHLD)
        return handler.name if isinstance(handler, signal.Handlers) else "somebody's"

    seen: dict[str, object] = {"before": look()}

    def end(*_: object) -> None:
        seen["while it runs"] = look()
        world.reactor.stop()

    child = sh(world, "exit 5", on={"processEnded": lambda *_: world.reactor.callLater(0, end)})
    world.reactor.run()
    return {**seen, "after": look(), "ended": child.story()["ended"]}


@each({"before the reactor runs": True, "while it runs": False})
def a_handler_of_the_programs_own(world: World, before: bool) -> Record:
    """Both are told: the program by its handler, and the protocol of the child."""
    told: list[int] = []

    def note(number: int, _: object) -> None:
        told.append(number)

    children: list[Any] = []

    def start() -> None:
        if not before:
            signal.signal(signal.SIGCHLD, note)
        on = {"processEnded": lambda *_: world.reactor.callLater(0.05, world.reactor.stop)}
        children.append(sh(world, "exit 5", on=on))

    if before:
        signal.signal(signal.SIGCHLD, note)
    world.reactor.callWhenRunning(start)
    world.reactor.run()
    return {
        "told": bool(told),
        "still the handler": signal.getsignal(signal.SIGCHLD) is note,
        "ended": children[0].story()["ended"],
    }


@scenario
async def SIGCHLD_ignored_by_the_program(world: World) -> Record:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return await _story_without_status(sh(world, "echo out; exit 5"))


async def _story_without_status(child: Any) -> Record:
    """Of a child whose status is gone. From Linux 6.15 on the pidfd has it nevertheless."""
    over = await happens(child.is_over)
    story = child.story()
    kinds = {name: story[name].partition("(")[0] for name in ("exited", "ended")}
    return {"over": over, **story, **kinds}


@scenario
async def a_child_whose_status_other_code_takes(world: World) -> Record:
    def take(child: Any) -> None:
        os.waitpid(child.transport.pid, 0)

    return await _story_without_status(sh(world, "echo out; exit 5", on={"connectionMade": take}))


@scenario
async def children_that_other_code_started(world: World) -> Record:
    """The reactor reaps its own children and no others."""
    with subprocess.Popen([SH, "-c", "exit 7"]) as popen:
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        child = sh(world, "exit 5")
        await until(child.is_over)
        await turns()
        return {"theirs": popen.wait(), "ours": child.story()["ended"]}


@each({"INT": signal.SIGINT, "TERM": signal.SIGTERM})
def a_signal_that_stops_the_reactor(world: World, number: signal.Signals) -> Record:
    """Ctrl-C and the like: the reactor stops in order, and its children's pipes are closed."""
    child = spawn(world, "/bin/sleep", "600")  # it does not mind
    pid = child.transport.pid
    world.reactor.callLater(0, os.kill, os.getpid(), number)
    world.reactor.run()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"running": world.reactor.running, **child.story()}


@scenario
def a_handler_of_SIGINT_that_was_there_before(world: World) -> Record:
    told: list[int] = []

    def note(number: int, _: object) -> None:
        told.append(number)
        world.reactor.callLater(0, world.reactor.stop)

    signal.signal(signal.SIGINT, note)
    world.reactor.callLater(0, os.kill, os.getpid(), signal.SIGINT)
    world.reactor.callLater(20, world.reactor.stop)
    world.reactor.run()
    return {"told": told, "still the handler": signal.getsignal(signal.SIGINT) is note}


@scenario
async def a_child_that_is_killed_by_other_code(world: World) -> Record:
    child = spawn(world, CAT)
    subprocess.run([SH, "-c", f"kill -9 {child.transport.pid}"], check=True)
    return await end_of(child)
