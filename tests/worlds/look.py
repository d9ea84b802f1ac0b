"""Looks whether this world is what it says: ``python -m tests.worlds.look``, from inside.

What is lacking must not be found, and a child must start and end all the same.
"""

from __future__ import annotations

import os
import resource
import threading

from procreactor.internet import protocol, reactor
from procreactor.kernel import children
from procreactor.kernel.facts import read_facts

from ..support import LACKS, PROC
from .catalogue import FEATURES


class _Echo(protocol.ProcessProtocol):
    def __init__(self) -> None:
        self.received = b""

    def outReceived(self, data: bytes) -> None:
        self.received += data

    def processEnded(self, reason: object) -> None:
        reactor.stop()


def _main() -> None:
    echo = _Echo()
    reactor.spawnProcess(echo, "/bin/echo", ["echo", "here"], {})
    reactor.run()
    assert echo.received == b"here\n"
    found = children.in_use() & LACKS
    assert not found, f"in use after all: {found}"
    lost = set(FEATURES) - children.in_use() - LACKS
    assert not lost, f"lost besides: {lost}"
    assert ("/proc" in LACKS) == (not os.path.exists("/proc/self/fd"))
    assert os.path.exists(f"{PROC}/self/fd")
    assert ("threads" in LACKS) == (not _has_threads())
    allowed = {"pidfd_open", "pidfd_send_signal"} & LACKS - read_facts().denied
    assert not allowed, f"allowed after all: {allowed}"
    if wanted := int(os.environ.get("PROCREACTOR_TESTS_FILES", "0")):
        _check_files(wanted)


def _check_files(wanted: int) -> None:
    """So many may be open, or no more are to be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard, "more may be open than are"
    if soft != wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft + 1, soft + 1))
        except (ValueError, OSError):
            return
        raise AssertionError(f"only {soft} files may be open, but more are to be had")


def _has_threads() -> bool:
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


if __name__ == "__main__":
    _main()
