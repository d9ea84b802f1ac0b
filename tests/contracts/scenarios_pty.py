"""A child on a pseudo terminal."""

from __future__ import annotations

import os
import pty
import resource
import signal
import termios
from collections.abc import Callable
from typing import Any

from contracts.recording import (
    CAT,
    SH,
    attempt,
    describe,
    end_of,
    outcome,
    python,
    recording,
    sh,
    spawn,
)
from contracts.scenario import Record, each, scenario, turns, until
from contracts.world import World
from support import PROC

LOOK_AT_TERMINAL = """
import fcntl, json, os, struct, sys, termios
size = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
modes = termios.tcgetattr(0)
os.open("/dev/tty", os.O_RDWR)
print(json.dumps({
    "terminals": [os.isatty(fd) for fd in (0, 1, 2)],
    "one terminal": len({os.ttyname(fd) for fd in (0, 1, 2)}),
    "leads session": os.getsid(0) == os.getpid(),
    "foreground": os.tcgetpgrp(0) == os.getpgrp(),
    "size": size,
    "echo": bool(modes[3] & termios.ECHO),
    "canonical": bool(modes[3] & termios.ICANON),
    "blocking": [os.get_blocking(fd) for fd in (0, 1, 2)],
    "further fds": [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 4],
}))
"""


# -- what the child has ----------------------------------------------------------------------------


@each({"true": True, "one": 1})
async def the_terminal_of_a_child(world: World, use_pty: object) -> Record:
    return await end_of(python(world, LOOK_AT_TERMINAL.replace("/proc", PROC), usePTY=use_pty))


@scenario
async def env_and_path_on_a_terminal(world: World) -> Record:
    child = sh(world, "pwd; echo $GREETING", usePTY=True, env={"GREETING": "hello"}, path="/etc")
    return await end_of(child)


@scenario
async def args_and_env_may_be_bytes_on_a_terminal(world: World) -> Record:
    return await attempt(
        world, b"/bin/echo", [b"echo", b"\xff"], {b"A": b"1"}, None, None, None, True
    )


# -- what is told ----------------------------------------------------------------------------------


@each(
    {
        "true": ":",
        "output": "echo out",
        "both outputs": "echo out; echo err >&2",
        "code": "exit 3",
        "killed": "kill -9 $$",
        "much": "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done",
    }
)
async def the_story_of(world: World, script: str) -> Record:
    return await end_of(sh(world, script, usePTY=True))


@scenario
async def a_terminal_echoes_what_is_written(world: World) -> Record:
    child = sh(world, "read x; echo got $x", usePTY=True)
    child.transport.write(b"some ")
    child.transport.writeSequence([b"words", b"\n"])
    return await end_of(child)


@scenario
async def what_is_typed_before_the_child_reads_is_kept(world: World) -> Record:
    child = sh(world, "stty -echo; echo ready; read x; echo got $x", usePTY=True)
    await until(lambda: "ready" in child.text())
    child.transport.write(b"typed\n")
    return await end_of(child)


async def typing_cat(world: World, **options: Any) -> Any:
    """A cat on a terminal that has answered once, and so is really there."""
    child = spawn(world, CAT, **{"usePTY": True, **options})
    child.transport.write(b"hi\n")
    await until(lambda: child.text() == "hi\r\nhi\r\n")
    return child


@scenario
async def an_end_of_file_is_a_key(world: World) -> Record:
    # cat closes its terminal before it exits: alone, it might be hung up in between.
    child = sh(world, "cat; exit 5", usePTY=True)
    child.transport.write(b"hi\n\x04")
    return await end_of(child)


@scenario
async def a_child_that_closes_its_terminal_and_goes_on_is_hung_up(world: World) -> Record:
    return await end_of(sh(world, "echo out; exec <&- >&- 2>&-; kill -STOP $$", usePTY=True))


@each({"interrupt": b"\x03", "quit": b"\x1c"})
async def a_key_with_a_meaning(world: World, key: bytes) -> Record:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = await typing_cat(world)
    child.transport.write(key)
    await until(child.is_over)
    return {"ended": child.story()["ended"]}


@each(
    {
        "str": "x",
        "None": None,
        "empty": b"",
    }
)
async def write(world: World, data: Any) -> Record:
    child = sh(world, "stty -echo; echo ready; read x; exit 5", usePTY=True)
    await until(lambda: "ready" in child.text())
    result = outcome(child.transport.write, data)
    child.transport.write(b"\n")
    return {"write": result, **await end_of(child)}


@scenario
async def a_grandchild_on_the_terminal_delays_the_end(world: World) -> Record:
    child = sh(world, "trap '' HUP; exec 3<&0; cat <&3 & exit 5", usePTY=True)
    await until(child.has_exited)
    await turns()
    over_early = child.is_over()
    child.transport.loseConnection()
    return {"over early": over_early, **await end_of(child)}


# -- closing ---------------------------------------------------------------------------------------


@each({"loseConnection": "loseConnection", "stopProducing": "stopProducing"})
async def hanging_up(world: World, method: str) -> Record:
    child = await typing_cat(world)
    before = len(child.calls)
    getattr(child.transport, method)()
    told_inside = child.names[before:]
    return {"told inside": told_inside, **await end_of(child)}


READ_TO_THE_END = """
import os, signal, sys, tty
signal.signal(signal.SIGHUP, signal.SIG_IGN)
tty.setraw(0)
os.write(1, b"ready")
size = 0
try:
    while data := os.read(0, 4096):
        size += len(data)
except OSError:
    pass  # hung up
sys.exit(size > 150_000)
"""


@scenario
async def loseConnection_flushes_what_was_written(world: World) -> Record:
    # The last few kB may be in the terminal when it is hung up, and are lost with it.
    child = python(world, READ_TO_THE_END, usePTY=True)
    await until(lambda: "ready" in child.text())
    child.transport.write(b"x" * 200_000)
    child.transport.loseConnection()
    return await end_of(child)


@scenario
async def calls_for_a_single_pipe(world: World) -> Record:
    child = sh(world, "read x; exit 5", usePTY=True)
    transport = child.transport
    results: Record = {
        "closeStdin": outcome(transport.closeStdin),
        "closeStdout": outcome(transport.closeStdout),
        "closeStderr": outcome(transport.closeStderr),
        "closeChildFD": outcome(transport.closeChildFD, 1),
        "writeToChild": outcome(transport.writeToChild, 0, b"x"),
    }
    transport.write(b"\n")
    return {**results, **await end_of(child)}


@scenario
async def calls_after_the_end(world: World) -> Record:
    child = sh(world, "exit 5", usePTY=True)
    await until(child.is_over)
    before = len(child.calls)
    transport = child.transport
    results: Record = {
        "write": outcome(transport.write, b"x"),
        "writeSequence": outcome(transport.writeSequence, [b"x"]),
        "loseConnection": outcome(transport.loseConnection),
        "stopProducing": outcome(transport.stopProducing),
        "signalProcess": outcome(transport.signalProcess, "TERM"),
    }
    await turns()
    return {**results, "told": child.names[before:]}


@scenario
async def pauseProducing_holds_the_output(world: World) -> Record:
    child = sh(world, "echo out; exit 5", usePTY=True)
    child.transport.pauseProducing()
    await until(child.has_exited)
    await turns()
    before = child.story()
    child.transport.resumeProducing()
    await until(child.is_over)
    return {"paused": before, "resumed": child.story()}


@each({"TERM": "TERM", "KILL": "KILL", "HUP": "HUP", "number": signal.SIGUSR1})
async def signalProcess(world: World, signal_id: Any) -> Record:
    child = await typing_cat(world)
    child.transport.signalProcess(signal_id)
    return await end_of(child)


# -- a terminal of the program's own ---------------------------------------------------------------


@each({"tuple": tuple, "list": list})
async def a_terminal_that_is_given(world: World, kind: Callable[..., Any]) -> Record:
    master, slave = pty.openpty()
    modes = termios.tcgetattr(slave)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    child = sh(world, "read x; echo got $x", usePTY=kind((master, slave, os.ttyname(slave))))
    while_running = {"master": _is_open(master), "slave": _is_open(slave)}
    child.transport.write(b"words\n")
    await until(child.is_over)
    return {"while running": while_running, "master at the end": _is_open(master), **child.story()}


@scenario
async def a_given_terminal_needs_no_name(world: World) -> Record:
    master, slave = pty.openpty()
    return await end_of(sh(world, "echo out", usePTY=(master, slave, None)))


@scenario
async def a_given_terminal_in_a_start_that_fails(world: World) -> Record:
    master, slave = pty.openpty()
    child = recording(world)
    try:
        world.reactor.spawnProcess(child, "/nowhere", ["x"], {}, usePTY=(master, slave, None))
    except OSError as error:
        still_ours = _is_open(master) and _is_open(slave)
        return {"result": f"raised {describe(error)}", "still ours": still_ours}
    await until(child.is_over)
    return {"result": child.summary(), "still ours": _is_open(master)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# -- starts that fail ------------------------------------------------------------------------------


@each(
    {
        "not there": ("/nowhere/at/all", ["x"], {}, None),
        "no directory": (SH, [SH, "-c", ":"], {}, "/nowhere"),
        "args with NUL": (SH, [SH, "\0"], {}, None),
        "int in args": (SH, [SH, 1], {}, None),
        "env": (SH, [SH, "-c", ":"], {"A=": "1"}, None),
    }
)
async def a_start_that_fails(world: World, case: tuple[Any, ...]) -> Record:
    return await attempt(world, *case, None, None, True)


@scenario
async def a_terminal_without_a_protocol(world: World) -> Record:
    try:
        transport = world.reactor.spawnProcess(None, "/bin/true", ["true"], {}, usePTY=True)
    except Exception as error:
        return {"result": f"raised {describe(error)}", "logged": world.logged}
    await until(lambda: transport.pid is None)
    return {"result": "started", "logged": [line.split(":")[0] for line in world.logged]}
