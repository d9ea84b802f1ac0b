"""What the adapters on a reactor of Twisted's share: all but that reactor.

It is given, never imported here: to import ``twisted.internet.reactor`` is to install Twisted's
own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ProcessProtocol

from benchmarks.adapters.spawn import identity_way
from benchmarks.adapters.spawn._reactors import ReactorSpawner

__all__ = ["WAYS", "started"]

WAYS = frozenset({"plain", "path", "pty"}) | identity_way()


def started(reactor: Any) -> ReactorSpawner:
    """Return the capabilities on *reactor*, which has been started, as its run() does first.

    So what it has of signal handlers is installed: Twisted's own needs the one for SIGCHLD.
    """
    reactor.startRunning()
    return ReactorSpawner(reactor, ProcessProtocol)
