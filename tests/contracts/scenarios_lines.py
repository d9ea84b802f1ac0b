"""LineReceiver and LineOnlyReceiver, mixed into a ProcessProtocol or standing beside one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contracts.recording import SH
from contracts.scenario import Record, each, scenario, until
from contracts.world import World

TWO_LINES = "echo one; echo two; printf rest"


def lines_of(world: World, **body: Any) -> Any:
    """A ProcessProtocol whose output is cut into lines, as the guide suggests."""

    def init(self: Any) -> None:
        self.told = []

    def tell(name: str) -> Callable[..., None]:
        def method(self: Any, *args: object) -> None:
            self.told.append((name, *(arg.decode() for arg in args if isinstance(arg, bytes))))

        return method

    methods: dict[str, Any] = {
        "__init__": init,
        "delimiter": b"\n",
        "outReceived": lambda self, data: self.dataReceived(data),
        "lineReceived": tell("line"),
        "rawDataReceived": tell("raw"),
        "processEnded": tell("ended"),
        **body,
    }
    kinds = (world.basic.LineReceiver, world.protocol.ProcessProtocol)
    return type("Lines", kinds, methods)()


async def told_by(world: World, protocol: Any, script: str) -> Record:
    """What *protocol* wrote down about a child with *script*."""
    world.reactor.spawnProcess(protocol, SH, [SH, "-c", script], None)
    await until(lambda: ("ended",) in protocol.told)
    return {"told": protocol.told, "logged": [line.split(":")[0] for line in world.logged]}


@scenario
async def mixed_in_as_the_guide_suggests(world: World) -> Record:
    return await told_by(world, lines_of(world), TWO_LINES)


def connected_for_good(self: Any) -> None:
    """What programs add today, because LineReceiver asks its transport whether it hangs up."""
    self.transport.disconnecting = False


@each(
    {
        "lines": TWO_LINES,
        "empty lines": "echo; echo; echo three",
        "no line": "printf rest",
        "no output": ":",
        "many lines": "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done",
        "with carriage returns": r"printf 'one\r\ntwo\r\n'",
        "in pieces": "printf on; printf e; echo; printf 'two\\nthr'; echo ee",
    }
)
async def mixed_in(world: World, script: str) -> Record:
    return await told_by(world, lines_of(world, connectionMade=connected_for_good), script)


@scenario
async def another_delimiter(world: World) -> Record:
    lines = lines_of(world, delimiter=b"--", connectionMade=connected_for_good)
    return await told_by(world, lines, "printf one--two--rest")


@scenario
async def raw_from_a_line_on(world: World) -> Record:
    """A header, then a body: what is raw may come in any pieces, so it is put together."""

    def line_received(self: Any, line: bytes) -> None:
        self.told.append(("line", line.decode()))
        if not line:
            self.setRawMode()

    def raw_received(self: Any, data: bytes) -> None:
        self.body = getattr(self, "body", b"") + data

    lines = lines_of(
        world,
        connectionMade=connected_for_good,
        lineReceived=line_received,
        rawDataReceived=raw_received,
    )
    record = await told_by(world, lines, "echo header; echo; echo body; echo more")
    return {**record, "body": lines.body.decode()}


@scenario
async def a_line_that_is_too_long(world: World) -> Record:
    def exceeded(self: Any, line: bytes) -> None:
        self.told.append(("exceeded", line[:10].decode()))
        self.transport.loseConnection()

    lines = lines_of(
        world, MAX_LENGTH=50, connectionMade=connected_for_good, lineLengthExceeded=exceeded
    )
    record = await told_by(world, lines, "printf '%0100d\\n' 7; exit 0")
    return {"told": sorted({tuple(one) for one in record["told"]})}  # type: ignore[attr-defined]


@scenario
async def an_answer_to_each_line(world: World) -> Record:
    def line_received(self: Any, line: bytes) -> None:
        self.told.append(("line", line.decode()))
        self.sendLine(b"seen " + line)

    lines = lines_of(world, connectionMade=connected_for_good, lineReceived=line_received)
    return await told_by(world, lines, "echo one; read x; echo $x; read y; echo $y")


@scenario
async def pausing_at_a_line(world: World) -> Record:
    """Lines of the same chunk wait with the rest."""

    def line_received(self: Any, line: bytes) -> None:
        self.told.append(("line", line.decode()))
        if line == b"one":
            self.pauseProducing()
            world.reactor.callLater(0.02, self._resume)

    def resume(self: Any) -> None:
        self.told.append(("resume",))
        self.resumeProducing()

    lines = lines_of(
        world, connectionMade=connected_for_good, lineReceived=line_received, _resume=resume
    )
    return await told_by(world, lines, TWO_LINES)


# -- beside the protocol ---------------------------------------------------------------------------


class StandIn:
    """The transport of a receiver that has none of its own, as ProcessMonitor does it."""

    disconnecting = False

    def __init__(self) -> None:
        self.told: list[str] = []

    def write(self, data: bytes) -> None:
        self.told.append(f"write {data!r}")

    def writeSequence(self, pieces: Any) -> None:
        self.told.append(f"write {b''.join(pieces)!r}")

    def loseConnection(self) -> None:
        self.disconnecting = True
        self.told.append("loseConnection")


@each(
    {
        f"{kind}, {label}": (kind, chunks)
        for kind in ("LineReceiver", "LineOnlyReceiver")
        for label, chunks in {
            "whole lines": [b"one\r\n", b"two\r\n"],
            "two in a chunk": [b"one\r\ntwo\r\n"],
            "a line in three chunks": [b"o", b"n", b"e\r\n"],
            "a delimiter cut in two": [b"one\r", b"\ntwo\r\n"],
            "an empty chunk": [b"", b"one\r\n", b""],
            "an empty line": [b"\r\n", b"\r\n"],
            "too long": [b"x" * 30 + b"\r\n", b"one\r\n"],
            "too long without an end": [b"x" * 30, b"x" * 30],
        }.items()
    }
)
async def fed_by_hand(world: World, case: tuple[str, list[bytes]]) -> Record:
    kind, chunks = case
    told: list[str] = []
    receiver = type(
        "Receiver",
        (getattr(world.basic, kind),),
        {"MAX_LENGTH": 20, "lineReceived": lambda self, line: told.append(line.decode())},
    )()
    transport = StandIn()
    receiver.makeConnection(transport)
    for chunk in chunks:
        if not transport.disconnecting:
            receiver.dataReceived(chunk)
    receiver.sendLine(b"bye")
    return {"lines": told, "transport": transport.told}


@each({kind: kind for kind in ("LineReceiver", "LineOnlyReceiver")})
async def what_a_receiver_has(world: World, kind: str) -> Record:
    receiver = getattr(world.basic, kind)
    return {
        "delimiter": receiver.delimiter.decode(),
        "MAX_LENGTH": receiver.MAX_LENGTH,
        "line mode": bool(getattr(receiver, "line_mode", True)),
        "is a Protocol": issubclass(receiver, world.protocol.Protocol),
    }
