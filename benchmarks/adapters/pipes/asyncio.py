"""asyncio on its own loop."""

from __future__ import annotations

from benchmarks.adapters.pipes._loops import Loops

_loops = Loops()

read_all = _loops.read_all
read_lines = _loops.read_lines
read_streams = _loops.read_streams
write_all = _loops.write_all
ping_pong = _loops.ping_pong
