"""Twisted, on procreactor's reactor: the program of twisted.py, with another reactor alone."""

from __future__ import annotations

from benchmarks.adapters.spawn._twisted import WAYS, started
from procreactor.hosts.twisted import install

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many", "stall"]

IMPORTS = {
    "package": "import procreactor.hosts.twisted",
    "reactor": (
        "import procreactor.hosts.twisted; procreactor.hosts.twisted.install();"
        " from twisted.internet import reactor"
    ),
}

_spawner = started(install())
spawn_many, hold, stall = _spawner.spawn_many, _spawner.hold, _spawner.stall
