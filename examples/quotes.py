"""The guide's quote server: each TCP client gets the output of fortune(6).

Ported from "Using Processes": twisted -> procreactor. Usage: quotes.py [PROGRAM [PORT]]; port 0
takes a free one. It prints the port that it listens on; SIGINT or SIGTERM ends it.
"""

import sys

from procreactor.internet import protocol, reactor, utils


class FortuneQuoter(protocol.Protocol):
    """Runs the program for each client and sends what it says."""

    fortune = "/usr/games/fortune"

    def connectionMade(self) -> None:
        """Start the program."""
        output = utils.getProcessOutput(self.fortune)
        output.addCallbacks(self.writeResponse, self.noResponse)

    def writeResponse(self, resp: bytes) -> None:
        """Send its output, and hang up."""
        self.transport.write(resp)
        self.transport.loseConnection()

    def noResponse(self, err: object) -> None:
        """It failed: hang up."""
        self.transport.loseConnection()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        FortuneQuoter.fortune = sys.argv[1]
    f = protocol.Factory()
    f.protocol = FortuneQuoter
    port = reactor.listenTCP(int(sys.argv[2]) if len(sys.argv) > 2 else 10999, f)
    print("listening on port", port.getHost().port, flush=True)
    reactor.run()
