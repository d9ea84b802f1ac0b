"""The drop-in API: spawnProcess, a ProcessProtocol per child, all callbacks."""

from __future__ import annotations

from benchmarks.adapters.spawn import identity_way
from benchmarks.adapters.spawn._reactors import ReactorSpawner
from procreactor.internet import reactor
from procreactor.internet.protocol import ProcessProtocol

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many", "stall"]

WAYS = frozenset({"plain", "path", "pty"}) | identity_way()
IMPORTS = {
    "package": "import procreactor",
    "reactor": "from procreactor.internet import reactor",
}

_spawner = ReactorSpawner(reactor, ProcessProtocol)
spawn_many, hold, stall = _spawner.spawn_many, _spawner.hold, _spawner.stall
