"""What a program may do with the transport of a child on pipes, call by call."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import termios
from collections.abc import Callable
from typing import Any

from contracts.recording import CAT, end_of, has_stopped, outcome, python, sh, spawn
from contracts.scenario import Record, each, scenario, turns, until
from contracts.world import World

READ_ALL = "cat >/dev/null; echo read; exit 5"


def bytes_in_pipe(fd: int) -> int:
    """How many bytes lie in the pipe of *fd*, unread."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


# -- write -----------------------------------------------------------------------------------------


@scenario
async def what_is_written_reaches_the_child_in_order(world: World) -> Record:
    child = spawn(world, CAT)
    for number in range(100):
        child.transport.write(b"%d " % number)
    child.transport.closeStdin()
    return await end_of(child)


@scenario
async def a_megabyte_goes_through(world: World) -> Record:
    data = bytes(range(256)) * 4096
    child = spawn(world, CAT)
    child.transport.write(data)
    child.transport.closeStdin()
    await until(child.is_over)
    return {"same": child.data[1] == data}


@each(
    {
        "bytes": b"abc",
        "empty": b"",
        "bytearray": bytearray(b"abc"),
        "memoryview": memoryview(b"abc"),
        "str": "abc",
        "None": None,
        "int": 3,
        "list": [b"abc"],
    }
)
async def write(world: World, data: object) -> Record:
    child = spawn(world, CAT)
    result = outcome(child.transport.write, data)
    child.transport.closeStdin()
    return {"write": result, **await end_of(child)}


@scenario
async def what_is_written_is_taken_as_it_is_then(world: World) -> Record:
    child = spawn(world, CAT)
    pieces = [b"a", b"b"]
    child.transport.writeSequence(pieces)
    pieces[0] = b"changed"
    pieces.append(b"later")
    child.transport.closeStdin()
    return await end_of(child)


@scenario
async def write_does_not_wait_for_the_next_turn(world: World) -> Record:
    child = sh(world, "read go <&3; cat", childFDs={0: "w", 1: "r", 3: "w"})
    child.transport.write(b"at once")
    in_pipe = bytes_in_pipe(child.transport.pipes[0].fileno())
    child.transport.closeChildFD(3)
    child.transport.closeStdin()
    return {"in the pipe when write returns": in_pipe, **await end_of(child)}


@scenario
async def write_calls_nothing_back(world: World) -> Record:
    called_inside: list[str] = []

    def write_to_nobody(child: Any) -> None:
        os.waitid(os.P_PID, child.transport.pid, os.WSTOPPED)
        before = len(child.calls)
        child.transport.write(b"to nobody")
        called_inside.extend(child.names[before:])
        child.transport.signalProcess(signal.SIGCONT)

    child = sh(world, "exec <&-; kill -STOP $$; exit 5", on={"connectionMade": write_to_nobody})
    return {"called inside write": called_inside, **await end_of(child)}


@scenario
async def write_without_a_standard_input(world: World) -> Record:
    child = sh(world, "exit 5", childFDs={1: "r"})
    results = {
        "write": outcome(child.transport.write, b"x"),
        "writeSequence": outcome(child.transport.writeSequence, [b"x"]),
        "closeStdin": outcome(child.transport.closeStdin),
    }
    return {**results, **await end_of(child)}


@scenario
async def write_after_closeStdin_in_the_same_turn_is_sent(world: World) -> Record:
    child = spawn(world, CAT)
    for number in range(5):
        child.transport.write(b"line %d\n" % number)
        child.transport.closeStdin()
    return await end_of(child)


@scenario
async def write_after_closeStdin_with_a_full_pipe_is_sent(world: World) -> Record:
    child = sh(world, "read go <&3; wc -c", childFDs={0: "w", 1: "r", 3: "w"})
    child.transport.write(b"x" * 300_000)
    child.transport.closeStdin()
    await turns()
    child.transport.write(b"y" * 10)
    child.transport.closeChildFD(3)
    return await end_of(child)


@scenario
async def write_after_the_input_is_lost_goes_nowhere(world: World) -> Record:
    child = sh(world, "read x; read y <&3; exit 5", childFDs={0: "w", 1: "r", 3: "w"})
    child.transport.write(b"line\n")
    child.transport.closeStdin()
    await until(lambda: child.has_lost(0))
    results = {
        "write": outcome(child.transport.write, b"x"),
        "writeSequence": outcome(child.transport.writeSequence, [b"x"]),
    }
    child.transport.closeChildFD(3)
    return {**results, **await end_of(child)}


@scenario
async def write_after_the_end(world: World) -> Record:
    child = sh(world, "exit 5")
    await until(child.is_over)
    before = len(child.calls)
    transport = child.transport
    record: Record = {
        "write": outcome(transport.write, b"x"),
        "writeSequence": outcome(transport.writeSequence, [b"x"]),
        "writeToChild": outcome(transport.writeToChild, 0, b"x"),
        "closeStdin": outcome(transport.closeStdin),
        "closeChildFD": outcome(transport.closeChildFD, 1),
        "loseConnection": outcome(transport.loseConnection),
        "pauseProducing": outcome(transport.pauseProducing),
        "resumeProducing": outcome(transport.resumeProducing),
        "unregisterProducer": outcome(transport.unregisterProducer),
    }
    await turns()
    return {**record, "told": child.names[before:]}


@each(
    {
        "list": lambda: [b"a", b"b", b"c"],
        "tuple": lambda: (b"a", b"b"),
        "empty": list,
        "empty pieces": lambda: [b"", b"a", b""],
        "generator": lambda: (piece for piece in (b"a", b"b")),
        "a str among them": lambda: [b"a", "b"],
        "a bytearray among them": lambda: [b"a", bytearray(b"b")],
        "None": lambda: None,
        "many": lambda: [b"%d " % number for number in range(3000)],
    }
)
async def writeSequence(world: World, pieces: Callable[[], Any]) -> Record:
    child = spawn(world, CAT)
    result = outcome(child.transport.writeSequence, pieces())
    child.transport.closeStdin()
    return {"writeSequence": result, **await end_of(child)}


# -- writeToChild ----------------------------------------------------------------------------------


@scenario
async def writeToChild_reaches_any_fd(world: World) -> Record:
    child = sh(world, "cat; cat <&3; cat <&12", childFDs={0: "w", 1: "r", 3: "w", 12: "w"})
    for child_fd in (12, 3, 0):
        child.transport.writeToChild(child_fd, b"to %d\n" % child_fd)
        child.transport.closeChildFD(child_fd)
    return await end_of(child)


@each(
    {
        "unknown": (9, b"x"),
        "one that we read": (1, b"x"),
        "one of ours": (5, b"x"),
        "closed": (4, b"x"),
        "str": (0, "x"),
        "None": (0, None),
        "bytearray": (0, bytearray(b"x")),
    }
)
async def writeToChild(world: World, case: tuple[int, Any]) -> Record:
    nothing = os.open(os.devnull, os.O_RDWR)
    child = sh(world, READ_ALL, childFDs={0: "w", 1: "r", 4: "w", 5: nothing})
    os.close(nothing)
    child.transport.closeChildFD(4)
    await until(lambda: child.has_lost(4))
    result = outcome(child.transport.writeToChild, *case)
    child.transport.closeStdin()
    return {"writeToChild": result, **await end_of(child)}


# -- closing ---------------------------------------------------------------------------------------


@each({"unknown": 9, "negative": -1, "None": None, "one of ours": 5})
async def closing_an_fd_that_is_no_pipe(world: World, child_fd: Any) -> Record:
    nothing = os.open(os.devnull, os.O_RDWR)
    child = sh(world, READ_ALL, childFDs={0: "w", 1: "r", 5: nothing})
    os.close(nothing)
    result = outcome(child.transport.closeChildFD, child_fd)
    child.transport.closeStdin()
    return {"closeChildFD": result, **await end_of(child)}


@each({"closeStdin": 0, "closeStdout": 1, "closeStderr": 2})
async def closing_is_told_later_and_once(world: World, child_fd: int) -> Record:
    close = ("closeStdin", "closeStdout", "closeStderr")[child_fd]
    child = sh(world, "read x <&3; exit 5", childFDs={0: "w", 1: "r", 2: "r", 3: "w"})
    for _ in range(2):
        getattr(child.transport, close)()
        child.transport.closeChildFD(child_fd)
    told_inside = child.names
    await until(lambda: child.has_lost(child_fd))
    getattr(child.transport, close)()
    child.transport.closeChildFD(3)
    return {"told inside": told_inside, **await end_of(child)}


@scenario
async def closing_an_input_flushes_it_first(world: World) -> Record:
    child = sh(world, "read go <&3; wc -c", childFDs={0: "w", 1: "r", 3: "w"})
    child.transport.write(b"x" * 500_000)
    child.transport.closeStdin()
    await turns()
    lost_early = child.has_lost(0)
    child.transport.closeChildFD(3)
    return {"lost early": lost_early, **await end_of(child)}


@scenario
async def closing_an_output_drops_what_was_not_read(world: World) -> Record:
    child = sh(world, "echo one; echo >&3; read x <&4; exit 5", childFDs={1: "r", 3: "r", 4: "w"})
    child.transport.pauseProducing()
    pipe = child.transport.pipes[3].fileno()
    await until(lambda: bytes_in_pipe(pipe))
    child.transport.closeStdout()
    await until(lambda: child.has_lost(1))
    child.transport.resumeProducing()
    child.transport.closeChildFD(4)
    return await end_of(child)


@scenario
async def closing_the_input_in_the_middle_of_its_data(world: World) -> Record:
    on = {"childDataReceived": lambda child, fd, data: child.transport.closeStdin()}
    child = spawn(world, CAT, on=on)
    child.transport.write(b"once")
    return await end_of(child)


@scenario
async def closing_the_output_inside_its_data(world: World) -> Record:
    on = {"childDataReceived": lambda child, fd, data: child.transport.closeStdout()}
    child = sh(world, "echo one; read x; exit 5", on=on)
    await until(lambda: child.has_lost(1))
    child.transport.write(b"\n")
    return await end_of(child)


# -- loseConnection --------------------------------------------------------------------------------


@scenario
async def loseConnection_closes_the_three(world: World) -> Record:
    child = spawn(world, CAT)
    child.transport.loseConnection()
    told_inside = child.names
    return {"told inside": told_inside, **await end_of(child)}


@scenario
async def loseConnection_leaves_the_others(world: World) -> Record:
    child = sh(world, "cat; cat <&5; exit 5", childFDs={0: "w", 1: "r", 2: "r", 5: "w", 6: "r"})
    child.transport.loseConnection()
    await until(lambda: all(child.has_lost(fd) for fd in (0, 1, 2)))
    await turns()
    open_still = sorted(child.transport.pipes)
    child.transport.closeChildFD(5)
    return {"open still": open_still, **await end_of(child)}


@scenario
async def loseConnection_flushes_the_input(world: World) -> Record:
    child = sh(world, "read go <&3; wc -c >&4", childFDs={0: "w", 1: "r", 2: "r", 3: "w", 4: "r"})
    child.transport.write(b"x" * 300_000)
    child.transport.loseConnection()
    await until(lambda: child.has_lost(1) and child.has_lost(2))
    lost_early = child.has_lost(0)
    child.transport.closeChildFD(3)
    return {"input lost early": lost_early, **await end_of(child)}


@each({"twice": 2, "three times": 3})
async def loseConnection_again(world: World, times: int) -> Record:
    child = spawn(world, CAT)
    for _ in range(times):
        child.transport.loseConnection()
    return await end_of(child)


@scenario
async def loseConnection_inside_connectionMade(world: World) -> Record:
    child = spawn(world, CAT, on={"connectionMade": lambda child: child.transport.loseConnection()})
    return await end_of(child)


@scenario
async def loseConnection_inside_data(world: World) -> Record:
    on = {"childDataReceived": lambda child, *_: child.transport.loseConnection()}
    child = sh(world, "echo one; read x; exit 5", on=on)
    return await end_of(child)


@scenario
async def loseConnection_inside_the_loss_of_a_pipe(world: World) -> Record:
    on = {"childConnectionLost": lambda child, *_: child.transport.loseConnection()}
    child = sh(world, "exec 2>&-; read x; exit 5", on=on)
    return await end_of(child)


# -- a child that closes its input -----------------------------------------------------------------


@scenario
async def an_input_that_the_child_closes_is_noticed_without_a_write(world: World) -> Record:
    child = sh(world, "exec <&-; read x <&3; exit 5", childFDs={0: "w", 3: "w"})
    await until(lambda: child.has_lost(0))
    exited = child.has_exited()
    child.transport.closeChildFD(3)
    return {"had exited": exited, **await end_of(child)}


@scenario
async def an_input_that_the_child_closes_drops_what_is_queued(world: World) -> Record:
    child = sh(world, "exec <&-; read x <&3; exit 5", childFDs={0: "w", 3: "w"})
    child.transport.write(b"x" * 1_000_000)
    await until(lambda: child.has_lost(0))
    exited = child.has_exited()
    child.transport.closeChildFD(3)
    return {"had exited": exited, **await end_of(child)}


@scenario
async def an_input_that_the_child_closes_after_a_write_that_it_did_not_read(world: World) -> Record:
    child = sh(world, "read go <&3; exec <&-; read x <&3; exit 5", childFDs={0: "w", 3: "w"})
    child.transport.write(b"unread")
    await turns()
    child.transport.writeToChild(3, b"\n")
    await until(lambda: child.has_lost(0))
    exited = child.has_exited()
    child.transport.closeChildFD(3)
    return {"had exited": exited, **await end_of(child)}


# -- pauseProducing and resumeProducing ------------------------------------------------------------


@scenario
async def pauseProducing_holds_all_outputs(world: World) -> Record:
    child = sh(world, "echo out; echo err >&2; echo three >&3", childFDs={1: "r", 2: "r", 3: "r"})
    child.transport.pauseProducing()
    await until(child.has_exited)
    await turns()
    before = child.story()
    child.transport.resumeProducing()
    await until(child.is_over)
    return {"paused": before, "resumed": child.story()}


@scenario
async def pauseProducing_inside_data_holds_the_next(world: World) -> Record:
    on = {"childDataReceived": lambda child, *_: child.transport.pauseProducing()}
    child = python(world, "import os\nwhile True: os.write(1, b'x' * 4096)", on=on)
    await until(lambda: child.data)
    got = len(child.calls)
    await turns(30)
    got_more = len(child.calls) > got
    child.hooks.clear()
    child.transport.signalProcess("KILL")
    child.transport.resumeProducing()
    await until(child.is_over)
    return {"got more": got_more, "ended": child.story()["ended"]}


@scenario
async def pauseProducing_does_not_hold_the_input(world: World) -> Record:
    child = sh(world, "exec <&-; read x <&3", childFDs={0: "w", 1: "r", 3: "w"})
    child.transport.pauseProducing()
    await until(lambda: child.has_lost(0))
    child.transport.closeChildFD(3)
    child.transport.resumeProducing()
    return await end_of(child)


@scenario
async def loseConnection_while_paused_drops_what_was_held(world: World) -> Record:
    child = sh(world, "echo out; exit 5")
    child.transport.pauseProducing()
    await until(child.has_exited)
    child.transport.loseConnection()
    return await end_of(child)


@each({"pause twice": "PPR", "resume twice": "PRR", "resume alone": "R", "in turn": "PRPRPR"})
async def pausing_and_resuming(world: World, steps: str) -> Record:
    child = sh(world, "echo out; exit 5")
    for step in steps:
        if step == "P":
            child.transport.pauseProducing()
        else:
            child.transport.resumeProducing()
    return await end_of(child)


@scenario
async def resumeProducing_after_closeStdout(world: World) -> Record:
    child = sh(world, "read x; exit 5")
    child.transport.closeStdout()
    results = [outcome(child.transport.pauseProducing), outcome(child.transport.resumeProducing)]
    child.transport.closeStdin()
    return {"results": results, **await end_of(child)}


@scenario
async def the_largest_piece_of_data(world: World) -> Record:
    child = python(world, "import os; os.write(1, b'x' * 65536)")
    child.transport.pauseProducing()
    await until(child.has_exited)
    child.transport.resumeProducing()
    await until(child.is_over)
    sizes = [len(call[2]) for call in child.calls if call[0] == "childDataReceived"]
    return {"sum": sum(sizes), "largest": max(sizes)}


# -- signalProcess ---------------------------------------------------------------------------------


WAIT_FOR_SIGNAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.write(1, b"ready")
sys.stdin.read()
sys.exit(5)
"""


@each(
    {
        "HUP": "HUP",
        "INT": "INT",
        "KILL": "KILL",
        "TERM": "TERM",
        "SIGTERM": "SIGTERM",
        "USR1": "USR1",
        "number": 15,
        "enum": signal.SIGTERM,
        "real time": signal.SIGRTMIN + 1,
        "no such name": "NONESUCH",
        "lower case": "term",
        "empty": "",
        "SIG": "SIG",
        "too great": 999,
        "negative": -1,
        "None": None,
        "float": 9.0,
        "bytes": b"TERM",
    }
)
async def signalProcess(world: World, signal_id: Any) -> Record:
    child = python(world, WAIT_FOR_SIGNAL)
    await until(lambda: child.text() == "ready")
    result = outcome(child.transport.signalProcess, signal_id)
    child.transport.closeStdin()
    return {"signalProcess": result, **await end_of(child)}


@scenario
async def signal_0_asks_whether_the_child_is_there(world: World) -> Record:
    child = spawn(world, CAT)
    while_running = outcome(child.transport.signalProcess, 0)
    child.transport.closeStdin()
    await until(child.is_over)
    return {"running": while_running, "over": outcome(child.transport.signalProcess, 0)}


@scenario
async def a_stop_and_a_continue(world: World) -> Record:
    child = spawn(world, CAT)
    child.transport.signalProcess("STOP")
    await until(lambda: has_stopped(child))
    child.transport.write(b"late")
    child.transport.signalProcess(signal.SIGCONT)
    child.transport.closeStdin()
    return await end_of(child)


@each({"KILL": "KILL", "number": 9, "no such name": "NONESUCH", "999": 999})
async def signalProcess_after_the_exit(world: World, signal_id: Any) -> Record:
    results: list[str] = []

    def send(child: Any, *_: object) -> None:
        results.append(outcome(child.transport.signalProcess, signal_id))

    child = sh(world, "exit 5", on={"processExited": send, "processEnded": send})
    await until(child.is_over)
    send(child)
    return {"in processExited, in processEnded, after it": results}


@scenario
async def signalProcess_to_a_child_that_is_dead_and_not_reaped(world: World) -> Record:
    results: list[str] = []

    def send(child: Any) -> None:
        os.waitid(os.P_PID, child.transport.pid, os.WEXITED | os.WNOWAIT)
        results.append(outcome(child.transport.signalProcess, "TERM"))

    child = sh(world, "exit 5", on={"connectionMade": send})
    return {"results": results, **await end_of(child)}


@scenario
async def a_signal_by_its_pid(world: World) -> Record:
    child = spawn(world, CAT)
    os.kill(child.transport.pid, signal.SIGKILL)
    return await end_of(child)


# -- what can be asked -----------------------------------------------------------------------------


@each({"pipes": {}, "terminal": {"usePTY": True}})
async def pid_status_and_repr(world: World, options: dict[str, Any]) -> Record:
    seen: dict[str, object] = {}

    def look(when: str) -> Callable[..., None]:
        def note(child: Any, *_: object) -> None:
            transport = child.transport
            text = repr(transport).replace(f"pid={pid}", "pid=PID") if pid else ""
            seen[when] = (type(transport.pid).__name__, transport.status, text)

        return note

    pid: int | None = None
    child = sh(
        world,
        "read x; exit 1",
        on={"processExited": look("processExited"), "processEnded": look("processEnded")},
        **options,
    )
    pid = child.transport.pid
    look("running")(child)
    child.transport.write(b"\n")
    await until(child.is_over)
    look("after")(child)
    return seen


@each({"pipes": {}, "terminal": {"usePTY": True}})
async def methods_of_the_transport(world: World, options: dict[str, Any]) -> Record:
    child = sh(world, "read x", **options)
    public = {name for name in dir(child.transport) if not name.startswith("_")}
    child.transport.write(b"\n")
    await until(child.is_over)
    return {"methods": sorted(public & _METHODS)}


_METHODS = {
    *("pid", "status", "pipes", "proto", "write", "writeSequence", "writeToChild"),
    *("closeChildFD", "closeStdin", "closeStdout", "closeStderr", "loseConnection"),
    *("registerProducer", "unregisterProducer", "pauseProducing", "resumeProducing"),
    *("stopProducing", "abortConnection", "signalProcess", "getHost", "getPeer", "fileno"),
}


@each({"pipes": {}, "terminal": {"usePTY": True}})
async def addresses(world: World, options: dict[str, Any]) -> Record:
    child = sh(world, "read x", **options)
    record: Record = {
        "getHost": outcome(child.transport.getHost),
        "getPeer": outcome(child.transport.getPeer),
    }
    child.transport.write(b"\n")
    await until(child.is_over)
    return record


@each({"pipes": {}, "terminal": {"usePTY": True}})
async def interfaces(world: World, options: dict[str, Any]) -> Record:
    child = sh(world, "read x", **options)
    child.transport.write(b"\n")
    await until(child.is_over)
    provided = {
        "transport": (child.transport, "IProcessTransport"),
        "protocol": (child, "IProcessProtocol"),
        "reactor": (world.reactor, "IReactorProcess"),
        "protocol as transport": (child, "IProcessTransport"),
    }
    return {
        name: bool(getattr(world.interfaces, interface).providedBy(one))
        for name, (one, interface) in provided.items()
    }


@scenario
async def pipes_names_the_open_ones(world: World) -> Record:
    child = sh(world, "cat <&7", childFDs={1: "r", 7: "w", 2: 2})
    while_open = sorted(child.transport.pipes)
    child.transport.closeChildFD(7)
    await until(child.is_over)
    return {"open": while_open, "over": sorted(child.transport.pipes)}
