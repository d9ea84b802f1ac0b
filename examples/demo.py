"""``make demo``: the guide's programs on real programs, then a burst of children.

Each example is a program of its own and is run as one, by this package: the demo is a procreactor
program too. A program that an example needs and that is not installed is named with its Debian
package.
"""

import os
import shutil
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from procreactor.internet import reactor
from procreactor.internet.defer import Deferred, inlineCallbacks
from procreactor.internet.protocol import ProcessProtocol
from procreactor.protocols.basic import LineOnlyReceiver
from procreactor.python.failure import Failure

HERE = Path(__file__).resolve().parent
FORTUNE = "/usr/games/fortune"


class Shown(ProcessProtocol):
    """Runs an example with its output on ours; fires its Deferred with whether it ended well."""

    def __init__(self) -> None:
        self.ended: Deferred[bool] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        """Tell."""
        self.ended.callback(reason.value.exitCode == 0)


class Server(LineOnlyReceiver, ProcessProtocol):
    """The quote server: fires `port` with the number that it prints, and `ended` like `Shown`."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self.port: Deferred[int] = Deferred()
        self.ended: Deferred[bool] = Deferred()

    def outReceived(self, data: bytes) -> None:
        """Split the server's output into lines."""
        self.dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """The first line ends with the port."""
        self.port.callback(int(line.split()[-1]))

    def processEnded(self, reason: Failure) -> None:
        """Tell; a server that was told to stop ended well."""
        self.ended.callback(reason.value.exitCode == 0)


def run_example(name: str, *arguments: str) -> Deferred[bool]:
    """Run an example to its end, its output on ours."""
    shown = Shown()
    argv = [sys.executable, str(HERE / name), *arguments]
    reactor.spawnProcess(shown, argv[0], argv, env=None, childFDs={0: 0, 1: 1, 2: 2})
    return shown.ended


def ask(port: int) -> bytes:
    """Connect as any client would, and return all that the server sends."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        return b"".join(iter(lambda: client.recv(4096), b""))


def ask_in_thread(port: int) -> Deferred[bytes]:
    """Ask from a thread, so that the reactor goes on meanwhile."""
    answer: Deferred[bytes] = Deferred()

    def work() -> None:
        try:
            reactor.callFromThread(answer.callback, ask(port))
        except OSError as error:
            reactor.callFromThread(answer.errback, error)

    reactor.callInThread(work)
    return answer


@inlineCallbacks
def show_quotes() -> Generator[Deferred[Any], Any, bool]:
    """Start the quote server, be its client, and stop it with SIGTERM."""
    program = FORTUNE
    if not os.access(program, os.X_OK):
        print(
            "(fortune is not installed; Debian has it in fortune-mod. A stand-in speaks instead.)"
        )
        program = str(HERE / "fortune.sh")
    server = Server()
    argv = [sys.executable, str(HERE / "quotes.py"), program, "0"]
    transport = reactor.spawnProcess(
        server, argv[0], argv, env=None, childFDs={0: "w", 1: "r", 2: 2}
    )
    port = yield server.port
    answer = yield ask_in_thread(port)
    print(f"a client of port {port} was told:\n{answer.decode()}", end="")
    transport.signalProcess("TERM")
    ended_well = yield server.ended
    return bool(answer) and ended_well


@inlineCallbacks
def show_all() -> Generator[Deferred[Any], Any, bool]:
    """Run everything in turn; whether all went well."""
    results = []
    for title, name in (
        ("word count, by wc", "wordcount.py"),
        ("the callbacks in order", "verbose.py"),
        ("exit values", "trueandfalse.py"),
    ):
        heading(title)
        results.append((yield run_example(name)))
    heading("a quote server on TCP")
    results.append((yield show_quotes()))
    heading("gpg, with a passphrase on fd 3 and status on fd 4")
    if shutil.which("gpg"):
        results.append((yield run_example("gpg_decrypt.py")))
    else:
        print("(gpg is not installed; Debian has it in gnupg. This example is left out.)")
    heading("a burst of 2,000 children")
    results.append((yield run_example("burst.py")))
    return all(results)


def heading(text: str) -> None:
    """Name what comes."""
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    outcome: list[Any] = []
    reactor.callWhenRunning(
        lambda: show_all().addBoth(outcome.append).addBoth(lambda _: reactor.stop())
    )
    reactor.run()
    if outcome == [True]:
        print("\nAll went well.")
    else:
        sys.exit(f"\nThe demo failed: {outcome}")
