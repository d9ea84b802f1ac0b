"""The process protocols that procreactor and Twisted run alike: only the imports differ.

The reactor is run once per call and left with ``crash``, after which, other than after ``stop``, it
may run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.adapters.pipes import WrongResult, pieces_of, wrong_echo, wrong_exit

INHERITED = {0: 0, 1: 1, 2: 2}


class Session:
    """One run of a reactor, from the start of the first child to the end of the last."""

    def __init__(self, reactor: Any, argv: Sequence[str]) -> None:
        self.reactor = reactor
        self.argv = list(argv)
        self.seconds = 0.0
        self._transports: list[Any] = []
        self._ended = 0
        self._error: Exception | None = None
        self._begun_s = 0.0

    def run(self, begin: Callable[[], object]) -> None:
        """Call *begin*, which starts the children, in the running reactor; return after the last.

        `seconds` is then the time since *begin* was called. Raises what was given to `fail`.
        """

        def start() -> None:
            self._begun_s = time.perf_counter()
            try:
                begin()
            except Exception as error:  # a reactor would only log it, and run for ever
                self.fail(error)

        self.reactor.callWhenRunning(start)
        self.reactor.run()
        if self._error is not None:
            raise self._error

    def spawn(self, protocol: Any, **child_fds: str) -> None:
        """Start a child with a pipe for each of *child_fds*: stdin="w", stdout="r"."""
        numbers = {"stdin": 0, "stdout": 1}
        pipes = {numbers[name]: way for name, way in child_fds.items()}
        transport = self.reactor.spawnProcess(
            protocol, self.argv[0], self.argv, env=None, childFDs={**INHERITED, **pipes}
        )
        self._transports.append(transport)

    def fail(self, error: Exception) -> None:
        """Let `run` raise *error*, once all children are gone."""
        self._error = self._error or error
        for transport in self._transports:
            if transport.pid is not None:  # not reaped yet
                transport.signalProcess("KILL")
        if self._ended == len(self._transports):
            self.reactor.crash()

    def on_ended(self, reason: Any) -> None:
        """One child is over: for processEnded."""
        self._ended += 1
        if self._ended == len(self._transports):
            self.seconds = time.perf_counter() - self._begun_s
            self.reactor.crash()
        if self._error is None and reason.value.status != 0:
            self.fail(wrong_exit(self.argv, reason.value.status))


class Callbacks:
    """All capabilities, on the reactor that *make_reactor* returns and the given base classes."""

    def __init__(
        self, make_reactor: Callable[[], Any], process_protocol: Any, line_receiver: Any
    ) -> None:
        self._make_reactor = make_reactor
        self._process_protocol = process_protocol
        self._line_receiver = line_receiver

    def read_all(self, argv: Sequence[str]) -> tuple[float, int]:
        """One child, outReceived."""
        return self.read_streams(argv, 1)

    def read_streams(self, argv: Sequence[str], count: int) -> tuple[float, int]:
        """One protocol per child, outReceived."""
        session = Session(self._make_reactor(), argv)
        total_bytes = 0

        class Reader(self._process_protocol):  # type: ignore[misc,name-defined]
            def outReceived(self, data: bytes) -> None:
                nonlocal total_bytes
                total_bytes += len(data)

            def processEnded(self, reason: Any) -> None:
                session.on_ended(reason)

        def begin() -> None:
            for _ in range(count):
                session.spawn(Reader(), stdout="r")

        session.run(begin)
        return session.seconds, total_bytes

    def read_lines(self, argv: Sequence[str]) -> tuple[float, int]:
        """LineOnlyReceiver mixed into the process protocol."""
        session = Session(self._make_reactor(), argv)
        lines = 0

        class Lines(self._line_receiver, self._process_protocol):  # type: ignore[misc,name-defined]
            delimiter = b"\n"

            def connectionMade(self) -> None:
                # Twisted's receivers look at it for every line, its process transport lacks it.
                self.transport.disconnecting = False

            def outReceived(self, data: bytes) -> None:
                self.dataReceived(data)

            def lineReceived(self, line: bytes) -> None:
                nonlocal lines
                lines += 1

            def processEnded(self, reason: Any) -> None:
                session.on_ended(reason)

        session.run(lambda: session.spawn(Lines(), stdout="r"))
        return session.seconds, lines

    def write_all(self, argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
        """A push producer that is paused when more than 64 KiB are queued."""
        session = Session(self._make_reactor(), argv)

        class Writer(self._process_protocol):  # type: ignore[misc,name-defined]
            def connectionMade(self) -> None:
                producer = Producer(self.transport, pieces_of(total_bytes, chunk_bytes))
                self.transport.registerProducer(producer, True)
                producer.resumeProducing()

            def processEnded(self, reason: Any) -> None:
                session.on_ended(reason)

        session.run(lambda: session.spawn(Writer(), stdin="w"))
        return session.seconds

    def ping_pong(self, argv: Sequence[str], rounds: int) -> float:
        """transport.write from outReceived."""
        session = Session(self._make_reactor(), argv)
        players: list[Any] = []

        class Player(self._process_protocol):  # type: ignore[misc,name-defined]
            left = rounds
            begun_s = ended_s = 0.0

            def connectionMade(self) -> None:
                players.append(self)
                self.transport.write(b"x")

            def outReceived(self, data: bytes) -> None:
                if data != b"x":
                    session.fail(wrong_echo(b"x", data))
                if self.left == rounds:
                    self.begun_s = time.perf_counter()
                if self.left > 0:
                    self.left -= 1
                    self.transport.write(b"x")
                else:
                    self.ended_s = time.perf_counter()
                    self.transport.closeStdin()

            def processEnded(self, reason: Any) -> None:
                session.on_ended(reason)

        session.run(lambda: session.spawn(Player(), stdin="w", stdout="r"))
        [player] = players
        if player.left > 0 or not player.ended_s:
            raise WrongResult(f"the child ended {player.left} rounds too early")
        return float(player.ended_s - player.begun_s)


class Producer:
    """Writes *pieces* while it may, and then closes the child's standard input."""

    def __init__(self, transport: Any, pieces: Iterator[bytes]) -> None:
        self._transport = transport
        self._pieces = pieces
        self._paused = False

    def resumeProducing(self) -> None:
        """Write until paused, or until there is no more."""
        self._paused = False
        for piece in self._pieces:
            self._transport.write(piece)
            if self._paused:
                return
        self._transport.unregisterProducer()
        self._transport.closeStdin()

    def pauseProducing(self) -> None:
        """Write no more until resumed."""
        self._paused = True

    def stopProducing(self) -> None:
        """Write no more: the child reads no more, which its exit status will tell."""
        self._paused = True
