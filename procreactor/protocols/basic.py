"""Twisted's line receivers (twisted.protocols.basic): `LineReceiver` and `LineOnlyReceiver`.

They serve a network protocol and, mixed into a ProcessProtocol, the output of a child::

    class Lines(LineReceiver, ProcessProtocol):
        delimiter = b"\\n"

        def outReceived(self, data):
            self.dataReceived(data)

        def lineReceived(self, line): ...

Nothing needs ``__init__``: what a receiver holds is made when the first bytes come. Not by a
cached_property: that looks at the instance's ``__dict__``, after which CPython's fast paths for its
attributes are gone, and a line took 400 ns instead of 200.

What a `LineReceiver` does is Twisted's, also where it is surprising: while a callback runs, bytes
that come (`dataReceived`, `setLineMode` with extra) are only queued, behind all that is held; a
callback that raises loses its own line and nothing else, but what follows waits for the next bytes;
and the whole state, `delimiter` and ``MAX_LENGTH`` and ``line_mode`` and ``paused``, may change at
any line and holds from the next on.

How it is done is not Twisted's. There, each line copies all that is left of the chunk. Here a chunk
is split once, and the lines wait in a deque; `LineSplitter` loses nothing, so that what a callback
then wants raw, or cut otherwise, is put together again.

Two differences. A transport without the attribute ``disconnecting`` counts as one that is not;
Twisted's process transport has none, and its receivers raise AttributeError at the first line. And
an empty delimiter is refused with ValueError, where Twisted's LineReceiver never finds a line.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from procreactor.internet.protocol import Protocol
from procreactor.streams.lines import LineSplitter

__all__ = ["LineOnlyReceiver", "LineReceiver"]

_GO_ON = object()
"""No result of a callback, but ours: there may be more to deliver."""


class _Connected:
    """Stands for a transport that has no ``disconnecting``.

    Which one to ask is settled once per chunk; asking with a default took a tenth of each line.
    """

    disconnecting = False


_CONNECTED = _Connected()


def _telling(transport: Any) -> Any:
    return transport if hasattr(transport, "disconnecting") else _CONNECTED


class _Intake:
    """All that a receiver holds, in the order of the stream.

    First the *lines* that were cut and not delivered, then the splitter's tail, then the chunks
    that nobody has looked at yet.
    """

    __slots__ = ("lines", "splitter", "unseen")

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque()
        self.unseen: list[bytes] = []
        self.splitter = LineSplitter()

    def cut(self, delimiter: bytes) -> deque[bytes]:
        """Return *lines*, which are all the lines held; what is not in them is tail."""
        if delimiter != self.splitter.delimiter:
            splitter = LineSplitter(delimiter)
            self.unseen = [self.take()]
            self.splitter = splitter
        if self.unseen:
            self.lines.extend(self.splitter.feed(b"".join(self.unseen)))
            self.unseen.clear()
        return self.lines

    def take(self) -> bytes:
        """Return all that is held, as it came; nothing is held then."""
        # A chunk that is alone is not copied: bytes.join returns a single piece as it is.
        raw = b"".join(filter(None, (self.splitter.take_raw(self.lines), *self.unseen)))
        self.lines.clear()
        self.unseen.clear()
        return raw


class LineOnlyReceiver(Protocol):
    """Lines and nothing else; it cannot be paused.

    *delimiter* ends a line and is not part of it. A line of more than *MAX_LENGTH* bytes goes to
    `lineLengthExceeded`, which hangs up.
    """

    delimiter = b"\r\n"
    MAX_LENGTH = 16384
    _splitter: LineSplitter | None = None

    def dataReceived(self, data: bytes) -> object:
        """Give each line that *data* completes to `lineReceived`.

        The lines after one that hung up, that was too long or whose callback raised are dropped.
        """
        splitter = self._splitter
        if splitter is None or splitter.delimiter != self.delimiter:
            splitter, data = self._cut_otherwise(splitter, data)
        transport = _telling(self.transport)
        for line in splitter.feed(data):
            if transport.disconnecting:
                return None
            if len(line) > self.MAX_LENGTH:
                return self.lineLengthExceeded(line)
            self.lineReceived(line)
        splitter = self._splitter or splitter  # a callback that fed a chunk may have changed it
        if splitter.tail_bytes > self.MAX_LENGTH:
            return self.lineLengthExceeded(splitter.tail)
        return None

    def lineReceived(self, line: bytes) -> object:
        """Override: *line* came, without its delimiter."""
        raise NotImplementedError

    def sendLine(self, line: bytes) -> object:
        """Send *line*, and a delimiter behind it."""
        return self.transport.writeSequence((line, self.delimiter))

    def lineLengthExceeded(self, line: bytes) -> object:
        """Hang up, because *line*, perhaps not all of it yet, is too long. May be overridden."""
        return self.transport.loseConnection()

    def _cut_otherwise(self, old: LineSplitter | None, data: bytes) -> tuple[LineSplitter, bytes]:
        """Return a splitter at what `delimiter` is now, and what it is to be fed."""
        self._splitter = LineSplitter(self.delimiter)
        return self._splitter, data if old is None else old.take_raw() + data


class LineReceiver(Protocol):
    """Lines, or raw bytes, by turns.

    *delimiter* ends a line and is not part of it. A line of more than *MAX_LENGTH* bytes goes,
    with all that is held behind it, to `lineLengthExceeded`, which hangs up. *line_mode* says which
    mode it is; *paused* stops the callbacks. The module's head says what holds when a callback
    changes these.
    """

    delimiter = b"\r\n"
    MAX_LENGTH = 16384
    line_mode = 1
    paused = False
    _busyReceiving = False
    _held: _Intake | None = None

    @property
    def _intake(self) -> _Intake:
        if self._held is None:
            self._held = _Intake()
        return self._held

    def dataReceived(self, data: bytes) -> object:
        """Deliver *data*, or queue it when a callback runs or `paused` is set.

        A true value from a callback, which asks to stop, is returned, and what is left waits.
        """
        intake = self._intake
        intake.unseen.append(data)
        if self._busyReceiving:
            return None
        self._busyReceiving = True
        try:
            return self._deliver(intake)
        finally:
            self._busyReceiving = False

    def clearLineBuffer(self) -> bytes:
        """Return all bytes that are held, delimiters and all; nothing is held then."""
        return self._intake.take()

    def setLineMode(self, extra: bytes = b"") -> object:
        """Give what comes from now on to `lineReceived`.

        *extra* is what `rawDataReceived` gives back because it is not raw any more.
        """
        self.line_mode = 1
        return self.dataReceived(extra) if extra else None

    def setRawMode(self) -> None:
        """Give what comes from now on, and what is held, to `rawDataReceived`."""
        self.line_mode = 0

    def lineReceived(self, line: bytes) -> object:
        """Override: *line* came, without its delimiter."""
        raise NotImplementedError

    def rawDataReceived(self, data: bytes) -> object:
        """Override, if raw mode is used: *data* came, one or more bytes."""
        raise NotImplementedError

    def pauseProducing(self) -> None:
        """Stop the callbacks and the transport; what is held stays."""
        self.paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Let the transport go on, and deliver what is held."""
        self.paused = False
        self.transport.resumeProducing()
        self.dataReceived(b"")

    def stopProducing(self) -> None:
        """Stop the callbacks, and the transport for good."""
        self.paused = True
        self.transport.stopProducing()

    def sendLine(self, line: bytes) -> object:
        """Send *line*, and a delimiter behind it."""
        return self.transport.write(line + self.delimiter)

    def lineLengthExceeded(self, line: bytes) -> object:
        """Hang up, because a line is too long. May be overridden.

        *line* is all that was held, from the beginning of that line, perhaps with more lines.
        """
        return self.transport.loseConnection()

    def _deliver(self, intake: _Intake) -> object:
        """Call back until a callback says stop, or nothing more can be delivered."""
        result = _GO_ON
        while result is _GO_ON and not self.paused:
            result = self._deliver_lines(intake) if self.line_mode else self._deliver_raw(intake)
        return None if result is _GO_ON else result

    def _deliver_raw(self, intake: _Intake) -> object:
        data = intake.take()
        return (self.rawDataReceived(data) or _GO_ON) if data else None

    def _deliver_lines(self, intake: _Intake) -> object:
        delimiter = self.delimiter
        lines = intake.cut(delimiter)
        transport = _telling(self.transport)
        while lines:
            line = lines.popleft()
            if len(line) > self.MAX_LENGTH:
                return self.lineLengthExceeded(line + delimiter + intake.take())
            result = self.lineReceived(line)
            if result or transport.disconnecting:
                return result
            if self.paused or not self.line_mode or self.delimiter != delimiter:
                return _GO_ON
        if intake.unseen:
            return _GO_ON
        if intake.splitter.tail_bytes >= self.MAX_LENGTH + len(delimiter):
            return self.lineLengthExceeded(intake.take())
        return None
