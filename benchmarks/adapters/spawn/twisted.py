"""Twisted: the same program as procreactor's, on Twisted's own epoll reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import ProcessProtocol

from benchmarks.adapters.spawn import identity_way
from benchmarks.adapters.spawn._reactors import ReactorSpawner

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many", "stall"]

WAYS = frozenset({"plain", "path", "pty"}) | identity_way()
IMPORTS = {
    "package": "import twisted",
    "reactor": "from twisted.internet import reactor",
}

reactor: Any = _reactor
reactor.startRunning()  # installs the SIGCHLD handler, as run() does

_spawner = ReactorSpawner(reactor, ProcessProtocol)
spawn_many, hold, stall = _spawner.spawn_many, _spawner.hold, _spawner.stall
