"""asyncio's API on rloop."""

from __future__ import annotations

import importlib

from benchmarks.adapters.pipes._loops import Loops

# Found by name: it may not be installed where types are checked.
_loops = Loops(importlib.import_module("rloop").new_event_loop)

read_all = _loops.read_all
read_lines = _loops.read_lines
read_streams = _loops.read_streams
write_all = _loops.write_all
ping_pong = _loops.ping_pong
