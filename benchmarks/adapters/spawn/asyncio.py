"""asyncio on its own loop."""

from __future__ import annotations

from benchmarks.adapters.spawn import identity_way
from benchmarks.adapters.spawn._loops import LoopSpawner

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many", "stall"]

WAYS = frozenset({"plain", "path"}) | identity_way()
IMPORTS = {"package": "import asyncio", "reactor": "import asyncio; asyncio.new_event_loop()"}

_spawner = LoopSpawner()
spawn_many, hold, stall = _spawner.spawn_many, _spawner.hold, _spawner.stall
