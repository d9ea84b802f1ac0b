"""asyncio's API on rloop's loop."""

from __future__ import annotations

import rloop

from benchmarks.adapters.spawn._loops import LoopSpawner

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many", "stall"]

WAYS = frozenset({"plain", "path"})
IMPORTS = {"package": "import rloop", "reactor": "import rloop; rloop.new_event_loop()"}

_spawner = LoopSpawner(rloop.new_event_loop)
spawn_many, hold, stall = _spawner.spawn_many, _spawner.hold, _spawner.stall
