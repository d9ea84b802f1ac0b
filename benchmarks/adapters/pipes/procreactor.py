"""procreactor, the drop-in API: spawnProcess and process protocols."""

from __future__ import annotations

from benchmarks.adapters.pipes._callbacks import Callbacks
from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.protocol import ProcessProtocol
from procreactor.protocols.basic import LineOnlyReceiver

_callbacks = Callbacks(EPollReactor, ProcessProtocol, LineOnlyReceiver)

read_all = _callbacks.read_all
read_lines = _callbacks.read_lines
read_streams = _callbacks.read_streams
write_all = _callbacks.write_all
ping_pong = _callbacks.ping_pong
