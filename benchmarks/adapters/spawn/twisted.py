"""Twisted: the same program as procreactor's, on Twisted's own epoll reactor."""

from __future__ import annotations

from twisted.internet import reactor

from benchmarks.adapters.spawn._twisted import WAYS, started

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many", "stall"]

IMPORTS = {
    "package": "import twisted",
    "reactor": "from twisted.internet import reactor",
}

_spawner = started(reactor)
spawn_many, hold, stall = _spawner.spawn_many, _spawner.hold, _spawner.stall
