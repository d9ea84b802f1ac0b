"""Looks whether this world is what it says: ``python -m tests.worlds.look``, from inside.

What is lacking must not be found, and a child must start and end all the same.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections.abc import Callable

from procreactor.internet import protocol, reactor
from procreactor.kernel import children

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
    if "pidfd_open" in LACKS:
        assert _is_denied(lambda: os.close(os.pidfd_open(os.getpid())))
    if "pidfd_send_signal" in LACKS:
        assert _is_denied(lambda: signal.pidfd_send_signal(-1, 0))
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


def _is_denied(call: Callable[[], object]) -> bool:
    """Whether the kernel, as it is here, refuses the call whatever it is asked."""
    try:
        call()
    except OSError as error:
        return error.errno in (errno.ENOSYS, errno.EPERM)
    return False


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
