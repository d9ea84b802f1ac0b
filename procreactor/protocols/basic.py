"""Twisted's line receivers (twisted.protocols.basic): `LineReceiver` and `LineOnlyReceiver`.

They serve a network protocol and, mixed into a ProcessProtocol, the output of a child::

    class Lines(LineReceiver, ProcessProtocol):
        delimiter = b"\\n"

        def outReceived(self, data):
            self.dataReceived(data)

        def lineReceived(self, line): ...

Nothing needs ``__init__``: what a receiver holds is made when the first bytes come.

What a `LineReceiver` does is Twisted's, also where it is surprising: while a callback runs, bytes
that come (`dataReceived`, `setLineMode` with extra) are only queued, behind all that is held; a
callback that raises loses its own line and nothing else, but what follows waits for the next bytes;
and the whole state, `delimiter` and ``MAX_LENGTH`` and ``line_mode`` and ``paused``, may change at
any line and holds from the next on.

How it is done is not Twisted's. There, each line copies all that is left of the chunk. Here a chunk
is split once, and the lines wait in a deque; `LineSplitter` loses nothing, so that what a callback
then wants raw, or cut otherwise, is put together again.

A transport without ``disconnecting``, such as Twisted's and our own process transport, counts as
one that is not: Twisted's receivers raise AttributeError after its first line.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property

from procreactor.internet.protocol import Protocol
from procreactor.streams.lines import LineSplitter

__all__ = ["LineOnlyReceiver", "LineReceiver"]

_GO_ON = object()
"""Not a result of a callback: there may be more to deliver."""


class _Intake:
    """All that a receiver holds, in the order of the stream.

    First the *lines* that were cut and not delivered, then the splitter's tail, then the chunks
    that nobody has looked at yet.
    """

    __slots__ = ("_splitter", "_unseen", "lines")

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque()
        self._splitter = LineSplitter()
        self._unseen: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self.lines or self._unseen or self._splitter.tail_bytes)

    def put(self, data: bytes) -> None:
        """Add *data* at the end."""
        if data:
            self._unseen.append(data)

    def take(self) -> bytes:
        """Return all that is held, as it came; nothing is held then."""
        # A chunk that is alone is not copied: bytes.join returns a single piece as it is.
        raw = b"".join(filter(None, (self._splitter.take_raw(self.lines), *self._unseen)))
        self.lines.clear()
        self._unseen.clear()
        return raw

    def cut(self, delimiter: bytes) -> None:
        """Make *lines* all the lines that are held, and the tail what is left."""
        if delimiter != self._splitter.delimiter:
            self._unseen = [self.take()]
            self._splitter = LineSplitter(delimiter)
        if self._unseen:
            self.lines += self._splitter.feed(b"".join(self._unseen))
            self._unseen.clear()

    @property
    def tail_bytes(self) -> int:
        """The length of the line that has begun, after `cut`."""
        return self._splitter.tail_bytes


class LineOnlyReceiver(Protocol):
    """Lines and nothing else; it cannot be paused.

    *delimiter* ends a line and is not part of it. A line of more than *MAX_LENGTH* bytes goes to
    `lineLengthExceeded`, which hangs up.
    """

    delimiter = b"\r\n"
    MAX_LENGTH = 16384

    @cached_property
    def _splitter(self) -> LineSplitter:
        return LineSplitter(self.delimiter)

    def dataReceived(self, data: bytes) -> object:
        """Give each line that *data* completes to `lineReceived`.

        The lines after one that hung up, that was too long or whose callback raised are dropped.
        """
        for line in self._cut(data):
            if getattr(self.transport, "disconnecting", False):
                return None
            if len(line) > self.MAX_LENGTH:
                return self.lineLengthExceeded(line)
            self.lineReceived(line)
        if self._splitter.tail_bytes > self.MAX_LENGTH:
            return self.lineLengthExceeded(self._splitter.tail)
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

    def _cut(self, data: bytes) -> list[bytes]:
        if self.delimiter != self._splitter.delimiter:
            data = self._splitter.take_raw() + data
            self._splitter = LineSplitter(self.delimiter)
        return self._splitter.feed(data)


class _PauseableMixin:
    """Pausing, for a receiver that holds bytes: *paused* stops the callbacks at the next line."""

    paused = False

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


class LineReceiver(Protocol, _PauseableMixin):
    """Lines, or raw bytes, by turns.

    *delimiter* ends a line and is not part of it. A line of more than *MAX_LENGTH* bytes goes,
    with all that is held behind it, to `lineLengthExceeded`, which hangs up. *line_mode* says which
    mode it is. The module's head says what holds when callbacks change these.
    """

    delimiter = b"\r\n"
    MAX_LENGTH = 16384
    line_mode = 1
    _busyReceiving = False

    @cached_property
    def _intake(self) -> _Intake:
        return _Intake()

    def dataReceived(self, data: bytes) -> object:
        """Deliver *data*, or queue it when a callback runs or `paused` is set.

        A true value from a callback, which asks to stop, is returned, and what is left waits.
        """
        self._intake.put(data)
        if self._busyReceiving:
            return None
        self._busyReceiving = True
        try:
            return self._deliver()
        finally:
            self._busyReceiving = False

    def clearLineBuffer(self) -> bytes:
        """Return all bytes that are held, delimiters and all; nothing is held then."""
        return self._intake.take()

    def setLineMode(self, extra: bytes = b"") -> object:
        """Give what comes from now on to `lineReceived`, *extra* first, unless bytes are held.

        *extra* is for `rawDataReceived`, to give back what is no longer raw.
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

    def sendLine(self, line: bytes) -> object:
        """Send *line*, and a delimiter behind it."""
        return self.transport.write(line + self.delimiter)

    def lineLengthExceeded(self, line: bytes) -> object:
        """Hang up, because a line is too long. May be overridden.

        *line* is all that was held, from the beginning of that line, perhaps with more lines.
        """
        return self.transport.loseConnection()

    def _deliver(self) -> object:
        """Call back until a callback says stop, or nothing more can be delivered."""
        result = _GO_ON
        while result is _GO_ON and self._intake and not self.paused:
            result = self._deliver_lines() if self.line_mode else self._deliver_raw()
        return None if result is _GO_ON else result

    def _deliver_raw(self) -> object:
        return self.rawDataReceived(self.clearLineBuffer()) or _GO_ON

    def _deliver_lines(self) -> object:
        """Give the lines that are held to `lineReceived`, until one changes how to go on."""
        delimiter = self.delimiter
        self._intake.cut(delimiter)
        lines = self._intake.lines
        if not lines:
            return self._check_tail()
        while lines:
            line = lines.popleft()
            if len(line) > self.MAX_LENGTH:
                return self.lineLengthExceeded(line + delimiter + self.clearLineBuffer())
            result = self.lineReceived(line)
            if result or getattr(self.transport, "disconnecting", False):
                return result
            if self.paused or not self.line_mode or self.delimiter != delimiter:
                break
        return _GO_ON

    def _check_tail(self) -> object:
        """Report a line that has no end yet and can have none within the bound."""
        if self._intake.tail_bytes >= self.MAX_LENGTH + len(self.delimiter):
            return self.lineLengthExceeded(self.clearLineBuffer())
        return None
