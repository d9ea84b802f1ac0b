"""What is told of a child, in which order, and what a callback that raises does.

The promises that hold of every child are `recording.LAWS`; every story here is held against them.
"""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

from contracts.recording import (
    CAT,
    SH,
    end_of,
    has_stopped,
    python,
    recording,
    sh,
    spawn,
    wait_for_zombie,
)
from contracts.scenario import Record, each, happens, scenario, turns, until
from contracts.world import World
from support import PROC

TRUE = "/bin/true"


# -- the usual stories -----------------------------------------------------------------------------


@each(
    {
        "true": ":",
        "false": "exit 1",
        "echo": "echo out; echo err >&2",
        "much": "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done",
        "killed": "echo first; kill -9 $$",
        "closes its output and goes on": "exec >&- 2>&-; read x; exit 4",
        "closes its input and goes on": "exec <&-; echo done",
        "closes all and goes on": "exec <&- >&- 2>&-; exit 5",
        "in the background": "(echo first) & wait; echo second",
    }
)
async def the_story_of(world: World, script: str) -> Record:
    child = sh(world, script)
    if "read" in script:
        await until(lambda: child.has_lost(1) and child.has_lost(2))
        child.transport.write(b"\n")
    return await end_of(child)


@each(
    {
        "none": {},
        "input": {0: "w"},
        "output": {1: "r"},
        "higher ones": {1: "r", 3: "r", 4: "r", 5: "w"},
    }
)
async def the_story_with_pipes(world: World, child_fds: dict[int, Any]) -> Record:
    script = "for fd in 1 3 4; do echo $fd 1>&$fd; done 2>/dev/null; exit 2"
    return await end_of(sh(world, script, childFDs=child_fds))


@scenario
async def many_children_at_once(world: World) -> Record:
    children = [sh(world, f"echo {number}; exit {number % 7}") for number in range(40)]
    await until(lambda: all(child.is_over() for child in children))
    stories = [child.story() for child in children]
    return {
        "broken laws": [story["broken laws"] for story in stories if story["broken laws"]],
        "said": [child.text() for child in children],
        "ended": [story["ended"] for story in stories],
    }


@scenario
async def a_child_that_is_spawned_by_the_end_of_another(world: World) -> Record:
    children: list[Any] = []

    def next_one(*_: object) -> None:
        if len(children) < 5:
            children.append(sh(world, f"echo {len(children)}", on={"processEnded": next_one}))

    next_one()
    await until(lambda: len(children) == 5 and children[-1].is_over())
    return {"said": [child.text() for child in children]}


@scenario
async def a_child_that_is_spawned_inside_connectionMade(world: World) -> Record:
    inner: list[Any] = []

    def start_inner(_: Any) -> None:
        inner.append(sh(world, "echo inner"))

    outer = sh(world, "echo outer", on={"connectionMade": start_inner})
    await until(lambda: outer.is_over() and inner[0].is_over())
    return {"outer": outer.story(), "inner": inner[0].story()}


# -- inside spawnProcess ---------------------------------------------------------------------------


@scenario
async def connectionMade_is_called_inside_spawnProcess(world: World) -> Record:
    seen: list[tuple[bool, bool]] = []

    def look(child: Any) -> None:
        pid = child.transport.pid
        seen.append((isinstance(pid, int), os.path.exists(f"{PROC}/{pid}")))

    child = recording(world, {"connectionMade": look})
    transport = world.reactor.spawnProcess(child, TRUE, ["true"], {})
    record: Record = {
        "calls when it returned": child.names[:1],
        "pid is there": seen,
        "same transport": transport is child.transport,
        "connected": bool(child.connected),
    }
    await until(child.is_over)
    return record


@each({"pipes": {"childFDs": None}, "no pipes": {"childFDs": {}}, "terminal": {"usePTY": True}})
async def a_child_that_has_ended_before_spawnProcess_returns(
    world: World, options: dict[str, Any]
) -> Record:
    child = spawn(world, TRUE, on={"connectionMade": wait_for_zombie}, **options)
    told = [name for name in child.names if name.startswith("process")]
    pid_is_there = child.transport.pid is not None
    await until(child.is_over)
    return {"told inside": told, "pid is there": pid_is_there, **child.story()}


@scenario
async def pid_stays_while_connectionMade_runs(world: World) -> Record:
    pids = []

    def look(child: Any) -> None:
        pids.append(child.transport.pid)
        wait_for_zombie(child)
        pids.append(child.transport.pid)

    child = spawn(world, TRUE, on={"connectionMade": look})
    await until(child.is_over)
    return {"same": pids[0] == pids[1] and isinstance(pids[0], int), "later": child.transport.pid}


@scenario
def children_spawned_before_the_reactor_runs(world: World) -> Record:
    on = {"connectionMade": wait_for_zombie}
    children = [sh(world, f"echo {number}", on=on) for number in range(3)]

    def stop_at_the_end(*_: object) -> None:
        if all(child.is_over() for child in children):
            world.reactor.stop()

    for child in children:
        child.hooks["processEnded"] = stop_at_the_end
    world.reactor.callWhenRunning(stop_at_the_end)
    world.reactor.run()
    return {"stories": [child.story() for child in children]}


# -- the end ---------------------------------------------------------------------------------------


@scenario
async def after_the_end_the_transport_has_no_protocol(world: World) -> Record:
    protos = []

    def look(child: Any, *_: object) -> None:
        protos.append(child.transport.proto is child)

    child = sh(world, "echo", on={"connectionMade": look, "processExited": look})
    await until(child.is_over)
    return {
        "before": protos,
        "after": child.transport.proto is None,
        "protocol still has its transport": child.transport is not None,
    }


@scenario
async def a_grandchild_that_holds_the_pipes_delays_the_end(world: World) -> Record:
    child = sh(world, f"{CAT} <&3 & exit 7", childFDs={1: "r", 3: "w"})
    await until(child.has_exited)
    await turns()
    over_early = child.is_over()
    child.transport.writeToChild(3, b"from the grandchild")
    child.transport.closeChildFD(3)
    return {"over early": over_early, **await end_of(child)}


@scenario
async def loseConnection_lets_the_end_come_in_spite_of_a_grandchild(world: World) -> Record:
    child = sh(world, "read x & read x <&3", childFDs={0: "w", 1: "r", 2: "r", 3: "w"})
    child.transport.closeChildFD(3)
    await until(child.has_exited)
    await turns()
    over_early = child.is_over()
    child.transport.loseConnection()
    return {"over early": over_early, **await end_of(child)}


@scenario
async def what_was_in_the_pipe_at_the_exit_is_not_lost(world: World) -> Record:
    child = python(world, "import os; os.write(1, b'x' * 60000); os.write(2, b'y' * 60000)")
    child.transport.pauseProducing()
    await until(child.has_exited)
    before = {str(fd): len(data) for fd, data in child.data.items()}
    child.transport.resumeProducing()
    await until(child.is_over)
    return {"before": before, "after": {str(fd): len(data) for fd, data in child.data.items()}}


WRITE_NUMBERS = """
import sys
size = int(sys.argv[1])
sys.stdout.write("".join("%07d\\n" % number for number in range(size // 8 + 1))[:size])
"""


@each({"4 MB": 4_000_000, "one byte": 1, "a page": 4096, "a pipe": 65536, "more": 65537})
async def all_that_a_child_writes_arrives(world: World, size: int) -> Record:
    child = python(world, WRITE_NUMBERS, str(size))
    await until(child.is_over)
    lines = child.text().splitlines()[:-1]
    return {"size": len(child.data[1]), "in order": lines == sorted(lines)}


@scenario
async def a_stopped_child_has_not_ended(world: World) -> Record:
    child = spawn(world, CAT)
    pid = child.transport.pid
    child.transport.signalProcess("STOP")
    await until(lambda: has_stopped(child))
    await turns()
    ended = child.has_exited()
    os.kill(pid, signal.SIGCONT)
    child.transport.closeStdin()
    await until(child.is_over)
    return {"ended when stopped": ended, **child.story()}


# -- reactor.stop ----------------------------------------------------------------------------------


WRITE_AND_WAIT = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.write(1, b"ready")
while True:
    signal.pause()
"""


@each({"pipes": {}, "terminal": {"usePTY": True}})
def stopping_the_reactor(world: World, options: dict[str, Any]) -> Record:
    on = {"childDataReceived": lambda *_: world.reactor.stop()}
    child = python(world, WRITE_AND_WAIT, on=on, **options)
    pid = child.transport.pid
    world.reactor.run()
    alive = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"child lives": alive, **child.story()}


@scenario
def the_reactor_may_be_stopped_by_the_end_of_a_child(world: World) -> Record:
    child = sh(world, "echo", on={"processEnded": lambda *_: world.reactor.stop()})
    world.reactor.run()
    return {**child.story(), "running": world.reactor.running}


# -- the default methods ---------------------------------------------------------------------------


@scenario
async def the_default_methods_dispatch_by_fd(world: World) -> Record:
    told: list[str] = []

    class Named(world.protocol.ProcessProtocol):  # type: ignore[misc, name-defined]
        def outReceived(self, data: bytes) -> None:
            told.append(f"outReceived {data!r}")

        def errReceived(self, data: bytes) -> None:
            told.append(f"errReceived {data!r}")

        def inConnectionLost(self) -> None:
            told.append("inConnectionLost")

        def outConnectionLost(self) -> None:
            told.append("outConnectionLost")

        def errConnectionLost(self) -> None:
            told.append("errConnectionLost")

        def processEnded(self, reason: Any) -> None:
            told.append("processEnded")

    script = "for fd in 1 2 3; do echo $fd >&$fd; done"
    child_fds = {0: "w", 1: "r", 2: "r", 3: "r", 4: "w"}
    world.reactor.spawnProcess(Named(), SH, [SH, "-c", script], {}, childFDs=child_fds)
    await until(lambda: "processEnded" in told)
    return {"told": sorted(told)}


@scenario
async def a_protocol_that_overrides_nothing(world: World) -> Record:
    protocol = world.protocol.ProcessProtocol()
    transport = world.reactor.spawnProcess(protocol, SH, [SH, "-c", "echo; echo >&2; exit 3"], {})
    await until(lambda: transport.status != -1 and transport.proto is None)
    return {"status": transport.status, "logged": world.logged}


@scenario
async def methods_are_looked_up_at_each_call(world: World) -> Record:
    child = sh(world, "echo one; read x; echo two")
    lines: list[bytes] = []
    await until(lambda: child.text() == "one\n")
    child.childDataReceived = lambda fd, data: lines.append(data)
    child.transport.write(b"\n")
    await until(child.is_over)
    return {"before": child.text(), "after": b"".join(lines).decode()}


@scenario
async def the_methods_of_the_base_class_may_be_called(world: World) -> Record:
    protocol = world.protocol.ProcessProtocol()
    reason = world.Failure(world.error.ProcessDone(0))
    results = [
        protocol.connectionMade(),
        protocol.childDataReceived(1, b""),
        protocol.childDataReceived(9, b""),
        protocol.childConnectionLost(0),
        protocol.childConnectionLost(9),
        protocol.outReceived(b""),
        protocol.errReceived(b""),
        protocol.inConnectionLost(),
        protocol.outConnectionLost(),
        protocol.errConnectionLost(),
        protocol.processExited(reason),
        protocol.processEnded(reason),
    ]
    return {"results": results, "transport": repr(protocol.transport)}


# -- callbacks that raise --------------------------------------------------------------------------


def complain(*_: object) -> NoReturn:
    raise LookupError("on purpose")


@each(
    {
        name: name
        for name in (
            "connectionMade",
            "childDataReceived",
            "childConnectionLost",
            "processExited",
            "processEnded",
        )
    }
)
async def an_exception_in(world: World, callback: str) -> Record:
    child = sh(world, "echo out; echo err >&2; exit 6", on={callback: complain})
    await until(child.is_over)
    return {**_without_data(child), "logged": sorted(world.logged)}


def _without_data(child: Any) -> Record:
    """Of a child that may or may not get its second write done before its pipe is closed."""
    return {name: value for name, value in child.story().items() if name != "data"}


@scenario
async def an_exception_in_makeConnection(world: World) -> Record:
    child = recording(world)
    child.makeConnection = complain
    transport = world.reactor.spawnProcess(child, SH, [SH, "-c", "echo out"], {})
    await until(child.is_over)
    return {
        "told": child.names[-1],
        "out": child.text(),
        "pid": transport.pid,
        "logged": world.logged,
    }


@scenario
async def an_exception_about_the_data_of_one_pipe_leaves_the_others(world: World) -> Record:
    def complain_of_output(child: Any, child_fd: int, data: bytes) -> None:
        if child_fd == 1:
            complain()

    child = sh(
        world,
        "echo out; read x; echo err >&2; exit 6",
        on={"childDataReceived": complain_of_output},
    )
    await until(lambda: child.has_lost(1))
    exited = child.has_exited()
    child.transport.write(b"\n")
    await until(child.is_over)
    return {"exited at once": exited, **child.story(), "logged": world.logged}


@scenario
async def an_exception_about_data_closes_the_pipe_for_the_child(world: World) -> Record:
    child = sh(world, "echo out; read x; echo more", on={"childDataReceived": complain})
    await until(lambda: child.has_lost(1))
    child.transport.write(b"\n")
    await until(child.is_over)
    return {**child.story(), "logged": world.logged}


@scenario
async def an_exception_about_the_data_of_a_terminal(world: World) -> Record:
    child = sh(world, "echo out; read x", usePTY=True, on={"childDataReceived": complain})
    await until(child.is_over)
    return {**child.story(), "logged": world.logged}


@scenario
async def a_protocol_without_processExited(world: World) -> Record:
    child = recording(world)

    class Old:
        """As they were written before processExited existed."""

        makeConnection = child.makeConnection
        childDataReceived = child.childDataReceived
        childConnectionLost = child.childConnectionLost
        processEnded = child.processEnded

    world.reactor.spawnProcess(Old(), SH, [SH, "-c", "exit 3"], {})
    await until(child.is_over)
    return {
        "ended": child.story()["ended"],
        "logged": [line.split(":")[0] for line in world.logged],
    }


class Exotic(BaseException):
    """No Exception, as some are that do not mean to end the program."""


@each(
    {
        f"{kind.__name__} in {callback}": (kind, callback)
        for kind in (SystemExit, KeyboardInterrupt, Exotic)
        for callback in (
            "connectionMade",
            "childDataReceived",
            "childConnectionLost",
            "processEnded",
        )
    }
)
def what_is_no_Exception(world: World, case: tuple[type[BaseException], str]) -> Record:
    kind, callback = case

    def leave(*_: object) -> NoReturn:
        raise kind("on purpose")

    def stop_when_it_was_logged() -> None:
        if world.logged:
            world.reactor.stop()
        else:
            world.reactor.callLater(0.01, stop_when_it_was_logged)

    world.reactor.callLater(0, stop_when_it_was_logged)
    try:
        sh(world, "echo out; exit 3", on={callback: leave})
        world.reactor.run()
    except kind:
        return {"leaves": "the program", "logged": world.logged}
    return {"leaves": "nothing", "logged": sorted(set(world.logged))}


@scenario
async def a_loop_that_logs_goes_on(world: World) -> Record:
    child = sh(world, "echo", on={"childDataReceived": complain, "processEnded": complain})
    await until(child.is_over)
    again = sh(world, "echo still")
    await until(again.is_over)
    return {"again": again.summary(), "within time": await happens(lambda: True)}
