"""asyncio's API on uvloop's loop."""

from __future__ import annotations

import uvloop

from benchmarks.adapters.spawn._loops import LoopSpawner

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many", "stall"]

WAYS = frozenset({"plain", "path"})
IMPORTS = {"package": "import uvloop", "reactor": "import uvloop; uvloop.new_event_loop()"}

_spawner = LoopSpawner(uvloop.new_event_loop)
spawn_many, hold, stall = _spawner.spawn_many, _spawner.hold, _spawner.stall
