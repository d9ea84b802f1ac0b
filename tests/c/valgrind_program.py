"""A short program on the built package, for valgrind (make valgrind-python).

Spawn, write, read, end of input, another uid, a terminal, a failed start, a batch on native
threads: on the way that the core falls back to where memory cannot be shared. Exit code 0 if all
went so.
"""

from __future__ import annotations

import os
from typing import Any

from procreactor.apps.batch import plan_command, run_batch
from procreactor.core import binding
from procreactor.errors import SpawnError
from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.protocol import ProcessProtocol


class Echo(ProcessProtocol):
    """Says a line to its child, and keeps what comes back."""

    def __init__(self, on_terminal: bool) -> None:
        self.on_terminal = on_terminal
        self.heard = b""
        self.ended = False

    def connectionMade(self) -> None:
        """All that is to be said is said."""
        self.transport.write(b"a line\n")
        if not self.on_terminal:
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        """What came is kept."""
        self.heard += data
        if self.on_terminal:
            self.transport.loseConnection()

    def processEnded(self, reason: Any) -> None:
        """Nobody need wait any more."""
        self.ended = True


def hear(**how: Any) -> bytes:
    """What came back from a cat that was started in this way."""
    reactor = EPollReactor()
    echo = Echo("usePTY" in how)
    try:
        reactor.spawnProcess(echo, "/bin/cat", ["cat"], **how)
        while not echo.ended:
            reactor.iterate(60)
    finally:
        reactor.disconnectAll()
        reactor._loop.close()
    return echo.heard


def check_all() -> None:
    """Every kind of start once."""
    assert "vfork" not in binding.features(), "memory is shared: this is not valgrind"
    assert hear() == b"a line\n"
    if os.getuid() == 0:
        assert hear(uid=65534, gid=65534) == b"a line\n"
    assert b"a line" in hear(usePTY=True)
    stage = "none"
    try:
        hear(path="/nowhere")
    except SpawnError as error:
        stage = error.stage
    assert stage == "chdir"
    commands = [plan_command(["/bin/echo", str(number)]) for number in range(20)]
    outcomes = list(run_batch(commands, at_once=4))
    assert sorted(int(outcome.stdout) for outcome in outcomes) == list(range(20))


check_all()
