"""Objects with a fileno, doRead and doWrite of their own (Twisted's addReader and addWriter).

Reader and writer of one fd are usually one object and are watched together. What doRead or doWrite
returns or raises ends the object: it is let go, and told connectionLost with the reason. So does a
hang-up, but only after a read: what was sent before it is not lost.
"""

from __future__ import annotations

from typing import Any

from procreactor.errors import report_callback_error
from procreactor.internet.error import ConnectionLost
from procreactor.kernel.poller import ERROR, HANGUP, READ, WRITE
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.python.failure import Failure

__all__ = ["Selectables"]


class _Entry:
    """One fd: who reads, who writes."""

    def __init__(self) -> None:
        self.reader: Any = None
        self.writer: Any = None
        self.watch: Watch | None = None

    @property
    def events(self) -> int:
        return (READ if self.reader is not None else 0) | (WRITE if self.writer is not None else 0)


class Selectables:
    """The user's own readers and writers on one loop."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._entries: dict[int, _Entry] = {}

    def readers(self) -> list[Any]:
        """Return all readers."""
        return [entry.reader for entry in self._entries.values() if entry.reader is not None]

    def writers(self) -> list[Any]:
        """Return all writers."""
        return [entry.writer for entry in self._entries.values() if entry.writer is not None]

    def add_reader(self, reader: Any) -> None:
        """Call ``reader.doRead`` whenever its fd is readable. Idempotent."""
        self._entry_of(reader).reader = reader
        self._apply(reader.fileno())

    def add_writer(self, writer: Any) -> None:
        """Call ``writer.doWrite`` whenever its fd is writable. Idempotent."""
        self._entry_of(writer).writer = writer
        self._apply(writer.fileno())

    def remove_reader(self, reader: Any) -> None:
        """Undo `add_reader`, also for an object that has closed its fd already. Idempotent."""
        for fd, entry in list(self._entries.items()):
            if entry.reader is reader:
                entry.reader = None
                self._apply(fd)

    def remove_writer(self, writer: Any) -> None:
        """Undo `add_writer`, likewise."""
        for fd, entry in list(self._entries.items()):
            if entry.writer is writer:
                entry.writer = None
                self._apply(fd)

    def remove_all(self) -> list[Any]:
        """Let all go, and return them, each once."""
        removed = {id(one): one for one in [*self.readers(), *self.writers()]}
        for entry in self._entries.values():
            if entry.watch is not None:
                self._loop.unwatch(entry.watch)
        self._entries.clear()
        return list(removed.values())

    def disconnect_all(self) -> None:
        """Let all go, and tell each connectionLost."""
        for selectable in self.remove_all():
            self._disconnect(selectable, ConnectionLost())

    def _entry_of(self, selectable: Any) -> _Entry:
        return self._entries.setdefault(_open_fd(selectable), _Entry())

    def _apply(self, fd: int) -> None:
        entry = self._entries[fd]
        if entry.events == 0:
            if entry.watch is not None:
                self._loop.unwatch(entry.watch)
            del self._entries[fd]
        elif entry.watch is None:
            try:
                entry.watch = self._loop.watch(
                    fd, lambda events: self._on_ready(entry, events), entry.events
                )
            except OSError:
                del self._entries[fd]
                raise
        else:
            self._loop.rewatch(entry.watch, entry.events)

    def _on_ready(self, entry: _Entry, events: int) -> None:
        gone = events & (HANGUP | ERROR)
        reader, writer = entry.reader, entry.writer
        if reader is not None and events & READ | gone:
            self._call(reader, "doRead", gone and not events & READ)
        if writer is not None and entry.writer is writer and events & WRITE | gone:
            self._call(writer, "doWrite", gone and not events & WRITE)

    def _call(self, selectable: Any, method: str, is_gone: int) -> None:
        try:
            why = getattr(selectable, method)()
        except BaseException as error:
            report_callback_error(f"{type(selectable).__name__}.{method}")
            why = error
        if why or (is_gone and self._is_watched(selectable)):
            self._disconnect(selectable, why or ConnectionLost())

    def _is_watched(self, selectable: Any) -> bool:
        return any(
            selectable is entry.reader or selectable is entry.writer
            for entry in self._entries.values()
        )

    def _disconnect(self, selectable: Any, why: object) -> None:
        self.remove_reader(selectable)
        self.remove_writer(selectable)
        try:
            selectable.connectionLost(Failure(why))
        except BaseException:
            report_callback_error(f"{type(selectable).__name__}.connectionLost")


def _open_fd(selectable: Any) -> int:
    fd = selectable.fileno()
    if not isinstance(fd, int) or fd < 0:
        raise ValueError(f"fileno() of {selectable!r} must be an open fd, not {fd!r}")
    return fd
