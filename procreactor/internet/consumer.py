"""Producers: who feeds a stream, and is told when to pause (Twisted's IConsumer, IPushProducer).

A streaming (push) producer writes when it likes, is paused above 65,536 queued bytes and resumed
when all is written. A pull producer writes once per `resumeProducing` and is asked again when that
has been written. A close that was asked for waits for a pull producer and for a paused one, and not
for a streaming producer that is not paused: that one is told `stopProducing`. All as in Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from procreactor.errors import report_callback_error
from procreactor.transport.writer import StreamWriter

__all__ = ["ProducerGate"]


class ProducerGate:
    """Stands between one producer at a time and the writer that it feeds."""

    def __init__(self, writer: StreamWriter, hang_up: Callable[[], object] | None = None) -> None:
        self._writer = writer
        self._hang_up = hang_up or writer.close_when_flushed
        self._producer: Any = None
        self._streaming = False
        self._paused = False

    def register(self, producer: Any, streaming: bool) -> None:
        """Let *producer* feed the writer; RuntimeError when another one does.

        When the stream has ended already, the producer is stopped at once.
        """
        if self._producer is not None:
            raise RuntimeError(
                f"cannot register {producer!r}: {self._producer!r} was never unregistered"
            )
        if self._writer.finished:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._paused = False
        self._writer.on_congested = self._pause
        self._writer.on_drained = self._refill
        if not streaming:
            producer.resumeProducing()

    def unregister(self) -> None:
        """The producer has no more; a close that waited for it goes on."""
        self._producer = None
        self._writer.on_congested = self._writer.on_drained = None
        if self._writer.closing:
            self._writer.settle_soon()

    def stop(self) -> None:
        """The stream has ended: tell the producer, if there is one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _pause(self) -> None:
        if self._streaming and self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()

    def _refill(self) -> bool:
        if self._producer is None or (self._streaming and not self._paused):
            return False
        self._paused = False
        try:
            self._producer.resumeProducing()
        except BaseException:
            # The stream cannot be completed: it ends here, and the producer is told so.
            report_callback_error(f"{type(self._producer).__name__}.resumeProducing")
            self._writer.on_drained = None
            self._hang_up()
            return False
        return True
