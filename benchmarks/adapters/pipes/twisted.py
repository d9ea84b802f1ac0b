"""Twisted: the same program as procreactor's, on the default reactor, which is epoll's on Linux."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.protocol import ProcessProtocol
from twisted.protocols.basic import LineOnlyReceiver

from benchmarks.adapters.pipes._callbacks import Callbacks

_callbacks = Callbacks(lambda: reactor, ProcessProtocol, LineOnlyReceiver)

read_all = _callbacks.read_all
read_lines = _callbacks.read_lines
read_streams = _callbacks.read_streams
write_all = _callbacks.write_all
ping_pong = _callbacks.ping_pong
