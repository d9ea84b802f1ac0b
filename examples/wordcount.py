"""The guide's first program: count the words of a text with wc(1).

Ported from "Using Processes": twisted -> procreactor, print statements, bytes. The guide's program
never ends; this one stops its reactor when wc has ended.
"""

from procreactor.internet import protocol, reactor


class WCProcessProtocol(protocol.ProcessProtocol):
    """Writes a text to wc and reads three numbers back."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def connectionMade(self) -> None:
        """Send the text, and say that it is all."""
        self.transport.write(self.text)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        """Take wc's answer apart: three columns of the same width."""
        fieldLength = len(data) // 3
        lines = int(data[:fieldLength])
        words = int(data[fieldLength : fieldLength * 2])
        chars = int(data[fieldLength * 2 :])
        self.transport.loseConnection()
        self.receiveCounts(lines, words, chars)

    def receiveCounts(self, lines: int, words: int, chars: int) -> None:
        """Show the counts."""
        print("Received counts from wc.")
        print("Lines:", lines)
        print("Words:", words)
        print("Characters:", chars)

    def processEnded(self, reason: object) -> None:
        """End the program."""
        reactor.stop()


if __name__ == "__main__":
    wcProcess = WCProcessProtocol(b"accessing protocols through Twisted is fun!\n")
    reactor.spawnProcess(wcProcess, "wc", ["wc"])
    reactor.run()
