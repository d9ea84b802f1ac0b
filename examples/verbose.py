"""The guide's verbose program: when is which callback called?

Ported from "Using Processes": twisted -> procreactor, print statements, bytes. It closes stdin
inside its loop, after the first of ten writes, and all forty lines arrive: a close waits for what
is written in the same turn.
"""

import re

from procreactor.internet import protocol, reactor
from procreactor.python.failure import Failure


class MyPP(protocol.ProcessProtocol):
    """Sings to wc, and tells of everything that happens."""

    def __init__(self, verses: int) -> None:
        self.verses = verses
        self.data = b""

    def connectionMade(self) -> None:
        """Write the verses."""
        print("connectionMade!")
        for _ in range(self.verses):
            self.transport.write(
                b"Aleph-null bottles of beer on the wall,\n"
                b"Aleph-null bottles of beer,\n"
                b"Take one down and pass it around,\n"
                b"Aleph-null bottles of beer on the wall.\n"
            )
            self.transport.closeStdin()  # tell them we're done

    def outReceived(self, data: bytes) -> None:
        """Collect what wc says."""
        print(f"outReceived! with {len(data)} bytes!")
        self.data = self.data + data

    def errReceived(self, data: bytes) -> None:
        """Tell of errors."""
        print(f"errReceived! with {len(data)} bytes!")

    def inConnectionLost(self) -> None:
        """Tell of stdin."""
        print("inConnectionLost! stdin is closed! (we probably did it)")

    def outConnectionLost(self) -> None:
        """Tell of stdout, and of what came from it."""
        print("outConnectionLost! The child closed their stdout!")
        # now is the time to examine what they wrote
        (_, lines, _, _, _) = re.split(r"\s+", self.data.decode())
        print(f"I saw {lines} lines")

    def errConnectionLost(self) -> None:
        """Tell of stderr."""
        print("errConnectionLost! The child closed their stderr.")

    def processExited(self, reason: Failure) -> None:
        """Tell of the exit."""
        print(f"processExited, status {reason.value.exitCode}")

    def processEnded(self, reason: Failure) -> None:
        """Tell of the end, and make it one."""
        print(f"processEnded, status {reason.value.exitCode}")
        print("quitting")
        reactor.stop()


if __name__ == "__main__":
    pp = MyPP(10)
    reactor.spawnProcess(pp, "wc", ["wc"], {})
    reactor.run()
    print("Main loop terminated.")
