"""The guide's program for exit codes: /bin/true, then /bin/false.

Ported from "Using Processes": twisted -> procreactor and print statements.
"""

from procreactor.internet import reactor, utils


def printTrueValue(val: int | None) -> None:
    """Show the first exit code and ask for the second."""
    print(f"/bin/true exits with rc={val}")
    output = utils.getProcessValue("/bin/false")
    output.addCallback(printFalseValue)


def printFalseValue(val: int | None) -> None:
    """Show the second exit code and end."""
    print(f"/bin/false exits with rc={val}")
    reactor.stop()


if __name__ == "__main__":
    output = utils.getProcessValue("/bin/true")
    output.addCallback(printTrueValue)
    reactor.run()
