"""The guide's last program: gpg with a passphrase on fd 3 and its status on fd 4.

Ported from "Using Processes": twisted -> procreactor, bytes, and the option that gpg 2.1 and later
need to take a passphrase from an fd at all (--pinentry-mode loopback). So that there is something
to decrypt, gpg encrypts a text first, in a home directory of its own that is removed at the end.
"""

import os
import sys
import tempfile
from typing import Any

from procreactor.internet import reactor
from procreactor.internet.defer import Deferred, inlineCallbacks
from procreactor.internet.protocol import ProcessProtocol
from procreactor.internet.utils import getProcessValue
from procreactor.python.failure import Failure

GPG = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase-fd", "3"]
GPG += ["--status-fd", "4"]


class GPGProtocol(ProcessProtocol):
    """Feeds gpg a text and a passphrase; fires its Deferred with itself when gpg has ended well."""

    def __init__(self, text: bytes, passphrase: bytes) -> None:
        self.text = text
        self.passphrase = passphrase
        self.output = b""
        self.status = b""
        self.deferred: Deferred[GPGProtocol] = Deferred()

    def connectionMade(self) -> None:
        """Send the passphrase to fd 3 and the text to fd 0, and close both."""
        self.transport.writeToChild(3, self.passphrase)
        self.transport.closeChildFD(3)
        self.transport.writeToChild(0, self.text)
        self.transport.closeChildFD(0)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Collect the result from fd 1 and the status from fd 4."""
        if childFD == 1:
            self.output += data
        if childFD == 4:
            self.status += data

    def processEnded(self, reason: Failure) -> None:
        """Hand over the result."""
        if reason.value.exitCode == 0:
            self.deferred.callback(self)
        else:
            self.deferred.errback(reason)


def run_gpg(arguments: list[str], text: bytes, passphrase: bytes) -> Deferred[GPGProtocol]:
    """Run gpg on *text*; stderr is ours (2: 2), as in the guide."""
    gp = GPGProtocol(text, passphrase)
    cmd = [*GPG, *arguments]
    childFDs = {0: "w", 1: "r", 2: 2, 3: "w", 4: "r"}
    reactor.spawnProcess(gp, cmd[0], cmd, env=None, childFDs=childFDs)
    return gp.deferred


@inlineCallbacks
def main() -> Any:
    """Encrypt, decrypt, show."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["GNUPGHOME"] = home
        encrypted = yield run_gpg(["--symmetric", "--armor"], b"the eagle has landed\n", b"sesame")
        print("encrypted:", len(encrypted.output), "bytes,", encrypted.output.split(b"\n")[0])
        decrypted = yield run_gpg(["--decrypt"], encrypted.output, b"sesame")
        print("decrypted:", decrypted.output)
        for line in decrypted.status.splitlines():
            if b"DECRYPTION" in line:
                print("status:", line.decode())
        # gpg has left an agent behind, which would outlive its home.
        yield getProcessValue("gpgconf", ["--kill", "gpg-agent"], os.environ)


if __name__ == "__main__":
    failures: list[Failure] = []
    main().addErrback(failures.append).addBoth(lambda _: reactor.stop())
    reactor.run()
    if failures:
        sys.exit(f"gpg failed: {failures[0].getErrorMessage()}")
