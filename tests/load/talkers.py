"""Children that are talked to, each in words of its own, and the count of what is told of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from procreactor.internet.protocol import ProcessProtocol

__all__ = ["Talker", "Typist", "end_all", "faults", "talk"]

from soak.actor import SEEDS, said
from support import run_until

DEADLINE_S = 80
"""For thousands of children on a busy machine; nothing waits for it when all is well."""


class Talker(ProcessProtocol):
    """A child that echoes, and says at its end what the checksum of it all was."""

    options: dict[str, Any] = {}  # noqa: RUF012  # of spawnProcess, read only

    def __init__(self, number: int) -> None:
        self.number = number
        self.code = number % 99
        self.sent = b""
        self.came = {1: b"", 2: b""}
        self.exits: list[tuple[int | None, int | None]] = []
        self.ends = 0
        self.transport: Any = None

    def start(self, reactor: Any, actor: str, **options: Any) -> None:
        """Start the child; SpawnError."""
        words = [actor, "echo", str(self.code)]
        reactor.spawnProcess(self, actor, words, **{**self.options, **options})

    def message(self, turn: int) -> bytes:
        """Return what is said to it in this *turn*: nobody else is told the same."""
        size = (37 * self.number + 1009 * turn) % 3000
        return b"%d:%d:%b" % (self.number, turn, said(size, self.number % SEEDS))

    def say(self, turn: int) -> None:
        message = self.message(turn)
        self.sent += message
        self.transport.write(message)

    def finish(self) -> None:
        """Have it end by itself."""
        self.transport.closeStdin()

    @property
    def has_answered(self) -> bool:
        """Whether as much has come back as was sent."""
        return len(self.came[1]) >= len(self.sent)

    @property
    def wanted(self) -> dict[int, bytes]:
        """What comes of it by its end."""
        return {1: self.sent, 2: b"%08x" % zlib.adler32(self.sent)}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.came[childFD] += data

    def processExited(self, reason: Any) -> None:
        self.exits.append((reason.value.exitCode, reason.value.signal))

    def processEnded(self, reason: Any) -> None:
        self.ends += 1


class Typist(Talker):
    """The same on a terminal, which echoes what is typed before the child does."""

    options = {"usePTY": True}  # noqa: RUF012

    def message(self, turn: int) -> bytes:
        return b"%d:%d:%b\n" % (self.number, turn, said(100, self.number % SEEDS))

    def finish(self) -> None:
        self.transport.write(b"\x04")

    @property
    def has_answered(self) -> bool:
        return len(self.came[1]) >= len(self._echoed())

    @property
    def wanted(self) -> dict[int, bytes]:
        return {1: self._echoed() + b"%08x" % zlib.adler32(self.sent), 2: b""}

    def _echoed(self) -> bytes:
        lines = self.sent.splitlines()
        return b"".join(2 * (line + b"\r\n") for line in lines)


def talk(reactor: Any, talkers: Sequence[Talker], turn: int) -> None:
    """Say something to each of *talkers*, all at once, and return when all have answered."""
    for talker in talkers:
        talker.say(turn)
    waiting = list(talkers)

    def all_have_answered() -> bool:
        while waiting and waiting[-1].has_answered:
            waiting.pop()
        return not waiting

    run_until(reactor, all_have_answered, DEADLINE_S)


def end_all(reactor: Any, talkers: Sequence[Talker]) -> None:
    """Have all of *talkers* end, and return when the end of each has been told."""
    for talker in talkers:
        talker.finish()
    wait_for_ends(reactor, talkers)


def wait_for_ends(reactor: Any, talkers: Sequence[Talker]) -> None:
    """Return when the end of each of *talkers* has been told."""
    waiting = list(talkers)

    def all_have_ended() -> bool:
        while waiting and waiting[-1].ends:
            waiting.pop()
        return not waiting

    run_until(reactor, all_have_ended, DEADLINE_S)


def faults(talkers: Sequence[Talker]) -> list[str]:
    """Return what is not as it must be with *talkers* that have ended: the first few things."""
    found = []
    for talker in talkers:
        if talker.exits != [(talker.code, None)] or talker.ends != 1:
            found.append(f"{talker.number}: exits {talker.exits}, {talker.ends} ends")
        for fd, wanted in talker.wanted.items():
            if talker.came[fd] != wanted:
                found.append(f"{talker.number}: fd {fd}: {talker.came[fd]!r:.200}")
    return found[:5]
