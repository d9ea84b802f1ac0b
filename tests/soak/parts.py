"""What children do on the reactor: a protocol for each part that a child may play.

A part knows how its child must end and what must come of it, and compares at the end. What it does
is drawn from a random generator as it is made, so the same seed plays the same.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from procreactor.errors import SpawnError
from procreactor.internet.protocol import ProcessProtocol

from .actor import MOST_BYTES, SEEDS, said
from .ledger import Ledger, State

__all__ = ["DEADLY", "PARTS", "Part", "Says", "Scene", "pick_size"]

NOBODY = 65534
CANNOT = 99
"""The actor's code when a call fails."""

NOISE = random.Random(0).randbytes(1 << 18)
"""What is sent into children is cut from it."""

_CORES = {3, 4, 5, 6, 7, 8, 11, 24, 25, 31}  # they may dump core: dearer than all the rest
_SPARED = _CORES | {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, 32, 33}
_SPARED |= {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}

DEADLY = [number for number in range(1, 65) if number not in _SPARED]
"""Signals that end a child; 32 and 33 are libc's own."""


def pick_size(rng: random.Random, most: int = 1 << 17) -> int:
    """Return a size up to *most*: as many of few bytes as of many, and some of none."""
    return int(most ** rng.random()) if rng.random() > 0.05 else 0


class Scene(Protocol):
    """Where parts are played."""

    ledger: Ledger
    actor: str
    missing: str
    """A path at which nothing is."""

    barred: str
    """A file that nobody may execute."""

    def on_over(self, part: Part) -> None:
        """A child that ran has ended."""


class Part(ProcessProtocol):
    """One spawn. In itself: a child that ends with a code, on few pipes or none."""

    weight: ClassVar[int] = 24
    """How often it is played, beside the others."""

    needs_root: ClassVar[bool] = False

    def __init__(self, scene: Scene, number: int, rng: random.Random) -> None:
        self.scene = scene
        self.number = number
        self.program = scene.actor
        self.options: dict[str, Any] = {}
        self.code = rng.randrange(CANNOT)
        self.ends: set[tuple[int | None, int | None]] = {(self.code, None)}
        self.refusal: int | None = None
        self.wanted: dict[int, bytes] = {1: b"", 2: b""}
        self.came: dict[int, bytes] = {1: b"", 2: b""}
        self.reactor: Any = None
        self.words = self.plan(rng)

    def plan(self, rng: random.Random) -> Sequence[object]:
        """Return the actor's arguments; sets what is to be expected."""
        pipes: Sequence[Any] = [None, {}, {1: "r"}, {0: "w"}, {3: "r", 7: "w", 2: 2}]
        self.options["childFDs"] = rng.choice(pipes)
        return ["exit", self.code]

    def plan_to_say(self, rng: random.Random, most: int = 1 << 17) -> Sequence[object]:
        """Return the arguments of a child that says something on both streams."""
        seed, out, err = rng.randrange(SEEDS), pick_size(rng, most), pick_size(rng, most)
        self.wanted = {1: said(out, seed), 2: said(err, seed + 1)}
        return ["say", out, err, seed, self.code]

    def start(self, reactor: Any) -> bool:
        """Return whether the child runs; it does not when its start is refused."""
        self.reactor = reactor
        try:
            argv = [self.program, *map(str, self.words)]
            reactor.spawnProcess(self, self.program, argv, **self.options)
        except SpawnError as error:
            self.scene.ledger.move(self.number, State.NEW, State.REFUSED)
            if error.errno != self.refusal:
                self.complain(f"{error}")
            return False
        if self.refusal is not None:
            self.complain("was not refused")
        return True

    def complain(self, text: str) -> None:
        self.scene.ledger.complain(f"spawn {self.number}, {type(self).__name__}: {text}")

    def connectionMade(self) -> None:
        self.scene.ledger.move(self.number, State.NEW, State.RUNNING)
        self.act()

    def act(self) -> None:
        """The child runs."""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.came[childFD] += data

    def processExited(self, reason: Any) -> None:
        self.scene.ledger.move(self.number, State.RUNNING, State.EXITED)
        end = reason.value.exitCode, reason.value.signal
        if end not in self.ends:
            self.complain(f"ended with {end}, not {self.ends}")

    def processEnded(self, reason: Any) -> None:
        self.scene.ledger.move(self.number, State.EXITED, State.ENDED)
        self.compare()
        self.scene.on_over(self)

    def compare(self) -> None:
        """Complain unless what came is what was to come."""
        ledger = self.scene.ledger
        for child_fd, wanted in self.wanted.items():
            came = self.came[child_fd]
            ledger.bytes_asked += len(wanted)
            ledger.bytes_came += len(came)
            if came != wanted:
                self.complain(f"fd {child_fd}: {len(came)} bytes came, {len(wanted)} were to")


class Says(Part):
    """Two streams at once, of any size."""

    weight = 14

    def plan(self, rng: random.Random) -> Sequence[object]:
        return self.plan_to_say(rng)


class SaysElsewhere(Part):
    """In a directory of its own."""

    weight = 6

    def plan(self, rng: random.Random) -> Sequence[object]:
        self.options["path"] = rng.choice(["/", "/tmp", "."])
        return self.plan_to_say(rng, 1 << 12)


class SaysAsAnother(Part):
    """As a user without rights."""

    weight = 3
    needs_root = True

    def plan(self, rng: random.Random) -> Sequence[object]:
        self.options.update(uid=NOBODY, gid=NOBODY)
        return self.plan_to_say(rng, 1 << 12)


class SaysUnread(Part):
    """Nothing is read for a turn."""

    weight = 3

    def plan(self, rng: random.Random) -> Sequence[object]:
        return self.plan_to_say(rng)

    def act(self) -> None:
        self.transport.pauseProducing()
        self.reactor.callLater(0, self.transport.resumeProducing)


class Echoes(Part):
    """All that is sent comes back, with its checksum, however it is cut into writes."""

    weight = 12

    def plan(self, rng: random.Random) -> Sequence[object]:
        size = pick_size(rng)
        begin = rng.randrange(len(NOISE) - size)
        data = NOISE[begin : begin + size]
        self.wanted = {1: data, 2: b"%08x" % zlib.adler32(data)}
        self.pieces: list[bytes] = []
        while data:
            cut = 1 + int(len(data) * rng.random())
            self.pieces.append(data[:cut])
            data = data[cut:]
        return ["echo", self.code]

    def act(self) -> None:
        for piece in self.pieces:
            self.transport.write(piece)
        self.transport.closeStdin()

    def compare(self) -> None:
        super().compare()
        self.scene.ledger.bytes_sent += len(self.wanted[1])
        self.scene.ledger.bytes_echoed += len(self.came[1])


class EchoesInTurn(Echoes):
    """The next piece is sent when all before have come back."""

    weight = 4

    def act(self) -> None:
        self.sent = 0
        self.send_next()

    def send_next(self) -> None:
        if self.pieces:
            piece = self.pieces.pop(0)
            self.sent += len(piece)
            self.transport.write(piece)
        else:
            self.transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        super().childDataReceived(childFD, data)
        if childFD == 1 and len(self.came[1]) == self.sent:
            self.send_next()


class EchoesAfterAStop(Echoes):
    """Stopped, which is no exit, and for some turns; then it goes on."""

    weight = 4

    def act(self) -> None:
        self.transport.signalProcess("STOP")
        pid = self.transport.pid
        stopped = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if stopped is None or stopped.si_code != os.CLD_STOPPED:
            self.complain(f"not stopped: {stopped}")
        self.reactor.callLater(0, self.go_on)

    def go_on(self) -> None:
        super().act()
        self.transport.signalProcess("CONT")


class Dies(Part):
    """By its own hand."""

    weight = 8

    def plan(self, rng: random.Random) -> Sequence[object]:
        number = rng.choice(DEADLY)
        self.ends = {(None, number)}
        return ["signal", number]


class IsKilled(Part):
    """By us: as soon as it runs, or in a later turn."""

    weight = 8

    def plan(self, rng: random.Random) -> Sequence[object]:
        self.number_sent = rng.choice(DEADLY)
        self.at_once = rng.random() < 0.5
        self.ends = {(None, self.number_sent)}
        return ["wait", 0]

    def act(self) -> None:
        if self.at_once:
            self.transport.signalProcess(self.number_sent)
        else:
            self.reactor.callLater(0, self.transport.signalProcess, self.number_sent)


class Floods(Part):
    """Says more than anybody wants: its stdout is closed when the first has come."""

    weight = 3

    def plan(self, rng: random.Random) -> Sequence[object]:
        self.seed = rng.randrange(SEEDS)
        self.ends = {(None, signal.SIGPIPE)}
        return ["flood", self.seed]

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        super().childDataReceived(childFD, data)
        self.transport.closeStdout()

    def compare(self) -> None:
        came = self.came[1][:MOST_BYTES]
        if came != said(len(came), self.seed) or not came or self.came[2]:
            self.complain(f"{len(came)} bytes that are not the first ones")


class FloodsUnheard(Floods):
    """All pipes are closed before anything is read."""

    weight = 2

    def act(self) -> None:
        self.transport.loseConnection()

    def compare(self) -> None:
        if any(self.came.values()):
            self.complain("data of a pipe that was closed")


class Shuts(Part):
    """Closes its outputs, and lives until its stdin is closed in return."""

    weight = 3

    def plan(self, rng: random.Random) -> Sequence[object]:
        self.lost: set[int] = set()
        return ["shut", self.code]

    def childConnectionLost(self, childFD: int) -> None:
        self.lost.add(childFD)
        if self.lost == {1, 2}:
            self.transport.closeStdin()


class IsDeaf(Part):
    """Closes its stdin, into which more is written than a pipe holds."""

    weight = 3

    def plan(self, rng: random.Random) -> Sequence[object]:
        seed, size = rng.randrange(SEEDS), pick_size(rng)
        self.wanted = {1: said(size, seed), 2: b""}
        return ["deaf", size, seed, self.code]

    def act(self) -> None:
        self.transport.write(NOISE)


class SaysOnATerminal(Part):
    """Both streams are one there."""

    weight = 2

    def plan(self, rng: random.Random) -> Sequence[object]:
        self.options["usePTY"] = True
        words = self.plan_to_say(rng, 1 << 13)
        self.wanted = {1: self.wanted[1] + self.wanted[2]}
        return words


class EchoesOnATerminal(Part):
    """A line is typed: the terminal echoes it, then the child does, with its checksum."""

    weight = 1

    def plan(self, rng: random.Random) -> Sequence[object]:
        self.options["usePTY"] = True
        self.line = said(rng.randrange(1000), rng.randrange(SEEDS))
        checksum = b"%08x" % zlib.adler32(self.line + b"\n")
        self.wanted = {1: 2 * (self.line + b"\r\n") + checksum}
        return ["echo", self.code]

    def act(self) -> None:
        self.transport.write(self.line + b"\n\x04")


class LosesItsTerminal(Part):
    """The hang-up ends it: by SIGHUP, or as its read fails, whichever it sees first."""

    weight = 1

    def plan(self, rng: random.Random) -> Sequence[object]:
        self.options["usePTY"] = True
        self.ends = {(None, signal.SIGHUP), (CANNOT, None)}
        return ["wait", 0]

    def act(self) -> None:
        self.transport.loseConnection()


class IsRefused(Part):
    """A start that fails: no program, no right, no directory."""

    weight = 6

    def plan(self, rng: random.Random) -> Sequence[object]:
        which = rng.randrange(4)
        if which == 0:
            self.program, self.refusal = self.scene.missing, errno.ENOENT
        elif which == 1:
            self.program, self.refusal = self.scene.barred, errno.EACCES
        elif which == 2:
            self.options["path"], self.refusal = self.scene.missing, errno.ENOENT
        else:
            self.options["path"], self.refusal = self.scene.barred, errno.ENOTDIR
        self.options["usePTY"] = rng.random() < 0.1
        if os.geteuid() == 0 and rng.random() < 0.1:
            self.options.update(uid=NOBODY, gid=NOBODY)
        return ["exit", 0]


PARTS: Sequence[type[Part]] = [
    Part,
    Says,
    SaysElsewhere,
    SaysAsAnother,
    SaysUnread,
    Echoes,
    EchoesInTurn,
    EchoesAfterAStop,
    Dies,
    IsKilled,
    Floods,
    FloodsUnheard,
    Shuts,
    IsDeaf,
    SaysOnATerminal,
    EchoesOnATerminal,
    LosesItsTerminal,
    IsRefused,
]
