"""The programs of "Using Processes", ported to Python 3: bytes, print(), and // for whole numbers.

Where the guide runs a program that a machine may not have (gpg, fortune), a stand-in with the same
fds takes its place.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import Any

from contracts.recording import SH
from contracts.scenario import Record, scenario
from contracts.world import World


@scenario
def writing_a_ProcessProtocol(world: World) -> Record:
    counts: list[tuple[int, int, int]] = []

    class WCProcessProtocol(world.protocol.ProcessProtocol):  # type: ignore[misc, name-defined]
        def __init__(self, text: bytes) -> None:
            self.text = text

        def connectionMade(self) -> None:
            self.transport.write(self.text)
            self.transport.closeStdin()

        def outReceived(self, data: bytes) -> None:
            field_length = len(data) // 3
            lines = int(data[:field_length])
            words = int(data[field_length : field_length * 2])
            chars = int(data[field_length * 2 :])
            self.transport.loseConnection()
            self.receiveCounts(lines, words, chars)

        def receiveCounts(self, lines: int, words: int, chars: int) -> None:
            counts.append((lines, words, chars))

        def processEnded(self, reason: Any) -> None:
            world.reactor.stop()

    wc_process = WCProcessProtocol(b"accessing protocols through Twisted is fun!\n")
    world.reactor.spawnProcess(wc_process, "wc", ["wc"])
    world.reactor.run()
    return {"counts": counts}


@scenario
def the_verbose_example(world: World) -> Record:
    printed: list[str] = []

    class MyPP(world.protocol.ProcessProtocol):  # type: ignore[misc, name-defined]
        def __init__(self, verses: int) -> None:
            self.verses = verses
            self.data = b""

        def connectionMade(self) -> None:
            printed.append("connectionMade!")
            for _ in range(self.verses):
                self.transport.write(
                    b"Aleph-null bottles of beer on the wall,\n"
                    b"Aleph-null bottles of beer,\n"
                    b"Take one down and pass it around,\n"
                    b"Aleph-null bottles of beer on the wall.\n"
                )
                self.transport.closeStdin()  # tell them we're done

        def outReceived(self, data: bytes) -> None:
            printed.append(f"outReceived! with {len(data)} bytes!")
            self.data = self.data + data

        def errReceived(self, data: bytes) -> None:
            printed.append(f"errReceived! with {len(data)} bytes!")

        def inConnectionLost(self) -> None:
            printed.append("inConnectionLost! stdin is closed! (we probably did it)")

        def outConnectionLost(self) -> None:
            printed.append("outConnectionLost! The child closed their stdout!")
            _, lines, _, _, _ = re.split(rb"\s+", self.data)
            printed.append(f"I saw {lines.decode()} lines")

        def errConnectionLost(self) -> None:
            printed.append("errConnectionLost! The child closed their stderr.")

        def processEnded(self, status_object: Any) -> None:
            printed.append(f"processEnded, status {status_object.value.exitCode}")
            printed.append("quitting")
            world.reactor.stop()

    world.reactor.spawnProcess(MyPP(10), "wc", ["wc"], {})
    world.reactor.run()
    # "The exact output depends upon the relative timing of some un-synchronized events."
    return {"first": printed[0], "between": sorted(printed[1:-2]), "last": printed[-2:]}


@scenario
def true_and_false(world: World) -> Record:
    printed: list[str] = []

    def print_true_value(value: int) -> None:
        printed.append(f"/bin/true exits with rc={value}")
        output = world.utils.getProcessValue("/bin/false")
        output.addCallback(print_false_value)

    def print_false_value(value: int) -> None:
        printed.append(f"/bin/false exits with rc={value}")
        world.reactor.stop()

    output = world.utils.getProcessValue("/bin/true")
    output.addCallback(print_true_value)
    world.reactor.run()
    return {"printed": printed}


CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    while data := connection.recv(4096):
        print(data.decode(), end="")
"""


@scenario
def the_fortune_quoter(world: World) -> Record:
    class FortuneQuoter(world.protocol.Protocol):  # type: ignore[misc, name-defined]
        fortune = "/bin/echo"

        def connectionMade(self) -> None:
            output = world.utils.getProcessOutput(self.fortune, ["You will be lucky."])
            output.addCallbacks(self.writeResponse, self.noResponse)

        def writeResponse(self, resp: bytes) -> None:
            self.transport.write(resp)
            self.transport.loseConnection()

        def noResponse(self, err: Any) -> None:
            self.transport.loseConnection()

    class UnluckyQuoter(FortuneQuoter):
        fortune = "/bin/false"

    factory = world.protocol.Factory()
    factory.protocol = FortuneQuoter
    port = world.reactor.listenTCP(0, factory, interface="127.0.0.1")
    address = port.getHost()
    quoted: list[object] = []

    def note(result: object) -> None:
        quoted.append(result)
        world.reactor.stop()

    args = ["-I", "-S", "-c", CLIENT, str(address.port)]
    client = world.utils.getProcessOutputAndValue(sys.executable, args, env=None)
    client.addBoth(note)
    world.reactor.run()
    return {"quoted": repr(quoted)}


GPG = """
passphrase=$(cat <&3)
crypttext=$(cat)
echo "[GNUPG:] DECRYPTION_OKAY" >&4
echo "$crypttext decrypted with $passphrase"
[ -n "$passphrase" ]
"""
"""It reads fd 3 to its end, then its input, and tells its status on fd 4, as gpg does."""


def decrypt(world: World, crypttext: bytes, passphrase: bytes) -> Any:
    class GPGProtocol(world.protocol.ProcessProtocol):  # type: ignore[misc, name-defined]
        def __init__(self, crypttext: bytes) -> None:
            self.crypttext = crypttext
            self.plaintext = b""
            self.status = b""
            self.deferred = world.defer.Deferred()

        def connectionMade(self) -> None:
            self.transport.writeToChild(3, passphrase)
            self.transport.closeChildFD(3)
            self.transport.writeToChild(0, self.crypttext)
            self.transport.closeChildFD(0)

        def childDataReceived(self, childFD: int, data: bytes) -> None:
            if childFD == 1:
                self.plaintext += data
            if childFD == 4:
                self.status += data

        def processEnded(self, status: Any) -> None:
            rc = status.value.exitCode
            if rc == 0:
                self.deferred.callback(self)
            else:
                self.deferred.errback(LookupError(rc))

    gp = GPGProtocol(crypttext)
    cmd = [SH, "-c", GPG, "gpg"]
    child_fds = {0: "w", 1: "r", 2: 2, 3: "w", 4: "r"}
    world.reactor.spawnProcess(gp, cmd[0], cmd, env=None, childFDs=child_fds)
    return gp.deferred


@scenario
def the_gpg_example(world: World) -> Record:
    told: list[str] = []

    def note(gp: Any) -> None:
        told.extend([gp.plaintext.decode(), gp.status.decode()])
        decrypt(world, b"secret", b"").addErrback(note_failure)

    def note_failure(failure: Any) -> None:
        told.append(repr(failure.value))
        world.reactor.stop()

    decrypt(world, b"secret", b"open sesame").addCallback(note)
    world.reactor.run()
    return {"told": told}


@scenario
def the_childFDs_of_the_guide(world: World) -> Record:
    """The default mapping written out, an additional fd, and the parent's own three."""
    told: list[str] = []
    mappings: list[dict[int, Any]] = [
        {0: "w", 1: "r", 2: "r"},
        {0: "w", 1: "r", 2: "r", 4: "w"},
        {0: 0, 1: 1, 2: 2},
    ]
    left = list(mappings)

    class Mapped(world.protocol.ProcessProtocol):  # type: ignore[misc, name-defined]
        def connectionMade(self) -> None:
            told.append(f"pipes {sorted(self.transport.pipes)}")
            if 4 in self.transport.pipes:
                self.transport.writeToChild(4, b"into fd 4\n")
            for child_fd in (0, 4):
                self.transport.closeChildFD(child_fd)

        def childDataReceived(self, childFD: int, data: bytes) -> None:
            told.append(f"{childFD}: {data.decode()}")

        def processEnded(self, status: Any) -> None:
            next_one()

    def next_one() -> None:
        if not left:
            world.reactor.stop()
            return
        script = "cat /dev/fd/4 2>/dev/null || echo no fd 4"
        world.reactor.spawnProcess(Mapped(), SH, [SH, "-c", script], None, childFDs=left.pop(0))

    world.reactor.callWhenRunning(next_one)
    world.reactor.run()
    return {"told": told}


@scenario
def killing_by_the_pid_of_the_transport(world: World) -> Record:
    told: list[str] = []

    class Victim(world.protocol.ProcessProtocol):  # type: ignore[misc, name-defined]
        def connectionMade(self) -> None:
            os.kill(self.transport.pid, signal.SIGKILL)

        def inConnectionLost(self) -> None:
            told.append("in")

        def outConnectionLost(self) -> None:
            told.append("out")

        def errConnectionLost(self) -> None:
            told.append("err")

        def processEnded(self, status: Any) -> None:
            # "This will always be called after inConnectionLost, outConnectionLost, and
            # errConnectionLost are called."
            told.sort()
            told.append(f"ended by {status.value.signal}")
            world.reactor.stop()

    world.reactor.spawnProcess(Victim(), "cat", ["cat"], {})
    world.reactor.run()
    return {"told": told}
