"""One child whose output is wanted whole: no callback per chunk, one at the end.

For many children at once: one call into C per child and turn reads both streams and reaps
(csrc/gather.c), and a child that ends soon is looked at once, at its end. What a stream may be used
for beyond that (pausing, closing, line by line) is transport/process.py's affair.

Rules:

- The end is told once: when the child is reaped and both streams are at their end, or *drain_s*
  after the reaping. A grandchild that holds a stream open must not hold the result.
- Standard input, where it is a pipe, gets *data*, whole, and is closed; a child that does not read
  it is no error.
- A pidfd that is readable while nothing is to be had (a traced zombie) is looked at again a little
  later, or the loop would spin.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from procreactor.core.binding import (
    GATHERED_ALL_0,
    GATHERED_ALL_1,
    GATHERED_DATA,
    GATHERED_EXIT,
    Gather,
    GatherBuffer,
)
from procreactor.kernel.children import Child
from procreactor.kernel.poller import READ
from procreactor.loop.eventloop import EventLoop
from procreactor.loop.timers import Timer, TimerState
from procreactor.model import ExitStatus, SpawnSpec
from procreactor.transport.writer import StreamWriter

__all__ = ["BUFFER_BYTES", "CollectedChild", "Collecting", "Sink"]

BUFFER_BYTES = 262144
"""How much of one stream is read per turn at most; children share the loop."""

_LOOK_AGAIN_S = 0.02

_LAST_LOOKS = 8
"""How often what is given up is read before: a pipe grown to 1 MiB takes four, one that somebody
fills as fast as we read has no end."""

_STREAM_BITS = (GATHERED_ALL_0, GATHERED_ALL_1)
_OVER = GATHERED_ALL_0 | GATHERED_ALL_1 | GATHERED_EXIT


class Sink(Protocol):
    """Where the bytes of one stream go."""

    def append(self, data: bytes, /) -> object:
        """Take *data*, never empty, as the next bytes of the stream."""


S = TypeVar("S", bound=Sink)


class Collecting(Generic[S]):
    """What the collected children of one loop share; *new_sink* makes the place for a stream."""

    __slots__ = ("buffer", "drain_s", "loop", "new_sink")

    def __init__(self, loop: EventLoop, drain_s: float, new_sink: Callable[[], S]) -> None:
        self.loop = loop
        self.drain_s = drain_s
        self.new_sink = new_sink
        self.buffer = GatherBuffer(BUFFER_BYTES)


class CollectedChild(Generic[S]):
    """A started child; *on_over* is told, with it, when all there is has been collected.

    Takes over *child*, whose redirects may have pipes at 0 (into it), 1 and 2 (out of it) and
    nowhere else. *exit_key* is under what its end is told already (`EventLoop.new_key`), or 0. Its
    standard input is open until `feed`.

    The streams are not watched until `watch`: a child that ends soon needs none of it, as all that
    it wrote is read at its end. But one whose pipe is full waits until then.
    """

    __slots__ = (
        "_child",
        "_drain_timer",
        "_exit_key",
        "_fds",
        "_gather",
        "_in_fd",
        "_on_over",
        "_shared",
        "_sinks",
        "_told",
        "_watched",
        "_writer",
        "status",
    )

    def __init__(
        self,
        shared: Collecting[S],
        child: Child,
        spec: SpawnSpec,
        exit_key: int,
        on_over: Callable[[CollectedChild[S]], object],
    ) -> None:
        self._shared = shared
        self._child = child
        self._exit_key = exit_key
        self._on_over = on_over
        self._sinks: tuple[S, S] | None = None
        self._drain_timer: Timer | None = None
        self._writer: StreamWriter | None = None
        self._watched = False
        self._told = 0
        self.status: ExitStatus | None = None
        """How the child ended, once it is reaped."""

        in_fd, out_fd, err_fd = _ends(child, spec)
        self._fds = (out_fd, err_fd)
        self._gather = Gather(shared.loop.epoll_fd, child.pid, child.pidfd, out_fd, err_fd)
        self._in_fd = in_fd

    def feed(self, data: bytes) -> None:
        """Write *data*, if any, to the standard input and close it, whether it is a pipe or not.

        OSError as for `watch`; then `kill`. Not done by the constructor: until the owner has this
        object, the fds are the child's, and an exception between two lines would close one twice.
        """
        if not data:
            self._end_input(0)
        elif self._in_fd >= 0:
            self._writer = StreamWriter(self._shared.loop, self._in_fd, 0, self._end_input)
            self._writer.write(data)
            self._writer.close_when_flushed()

    def watch(self) -> None:
        """Have the loop watch the streams, and the exit where that is not watched yet.

        OSError (ENOSPC: this user's loops watch as many fds as they may); then `kill`.
        """
        if self._watched:
            return  # the exit came first, and brought that about
        loop = self._shared.loop
        by_gather = not self._exit_key and self._child.pidfd >= 0
        self._watch_streams(by_gather)
        if not self._exit_key:
            self._exit_key = self._child.exit_fd
            (loop.adopt if by_gather else loop.watch)(self._exit_key, self.on_exit_ready, READ)

    def _watch_streams(self, with_pidfd: bool) -> None:
        self._gather.watch(with_pidfd)
        self._watched = True
        for bit, fd in zip(_STREAM_BITS, self._fds, strict=True):
            if fd >= 0 and not self._told & bit:
                self._shared.loop.adopt(fd, self._on_stream_ready, READ)

    @property
    def pid(self) -> int | None:
        """The child's number, or None once it is reaped."""
        return self._child.pid if self._child.pid >= 0 else None

    def send_signal(self, number: int) -> None:
        """Signal the child; ProcessLookupError once it is reaped, OSError (EINVAL, EPERM)."""
        self._child.send_signal(number)

    def output(self) -> tuple[S, S] | None:
        """Return the sinks of stdout and stderr; None when neither brought anything."""
        return self._sinks

    def kill(self) -> None:
        """Kill and reap the child and let go of all fds; tells nothing. Blocks until it has ended.

        One that may not be killed (it has another uid, and we no CAP_KILL) is only let go of.
        """
        self._on_over = _tell_nobody
        self._ask_exit()  # it may be reaped already, and an exception have kept us from knowing
        if not self._told & GATHERED_EXIT:
            try:
                self._child.send_signal(signal.SIGKILL)
            except PermissionError:
                pass
            except ProcessLookupError:
                self._ask_exit()  # reaped by others
            else:
                self._child.wait_exit()
                self._ask_exit()
        self.close()

    def close(self) -> None:
        """Let go of all fds and tell nothing. A child that is not reaped runs on. Idempotent."""
        left, self._told = _OVER & ~self._told, _OVER
        self._on_over = _tell_nobody
        self._forget(left)
        self._gather.close()
        self._child.forget()
        self._end_rest()

    def on_exit_ready(self, events: int) -> None:
        """The exit is told; to be given to the loop for *exit_key*."""
        self._on_stream_ready(events)
        if not self._told & GATHERED_EXIT and self._exit_key:
            self._look_again_later()

    def _on_stream_ready(self, events: int) -> None:
        told, news = self._look()
        try:
            if told & GATHERED_DATA:
                self._collect()
        finally:  # what a sink raises must not hide an end: the kernel tells it once
            if news:
                self._go_on(news)

    def _look(self) -> tuple[int, int]:
        """Ask C once; return what it told, and the ends among that which are new.

        What has ended is forgotten before anybody else hears of it: C has closed the fd, and a sink
        may open something under its number.
        """
        told = self._gather.gather(self._shared.buffer)
        over = told & _OVER
        news, self._told = over & ~self._told, over
        if news & GATHERED_EXIT:
            self.status = self._gather.status()
        self._forget(news)
        return told, news

    def _ask_exit(self) -> None:
        """Reap the child if it has ended; its data is nobody's any more."""
        news = self._look()[1]
        if news:
            self._go_on(news)

    def _go_on(self, news: int) -> None:
        if self._told == _OVER:
            self._end_rest()
            self._on_over(self)
        elif news & GATHERED_EXIT:
            self._drain_timer = self._shared.loop.call_later(self._drain_s(), self._give_up)

    def _drain_s(self) -> float:
        """How long the streams may stay open from now on."""
        if not self._watched:
            try:
                self._watch_streams(with_pidfd=False)
            except OSError:  # the set is full: what is there by now must do
                return 0.0
        return self._shared.drain_s

    def _give_up(self) -> None:
        """Somebody else holds the streams: what they have brought until now is all."""
        self._drain_timer = None
        on_over = self._on_over
        try:
            self._read_the_last()
        finally:
            self.close()
            on_over(self)

    def _read_the_last(self) -> None:
        for _ in range(_LAST_LOOKS):
            if not self._look()[0] & GATHERED_DATA:
                break
            self._collect()

    def _forget(self, bits: int) -> None:
        """Have the loop forget what has ended: the streams and the exit of *bits*."""
        loop = self._shared.loop
        if self._watched:
            for bit, fd in zip(_STREAM_BITS, self._fds, strict=True):
                if bits & bit and fd >= 0:
                    loop.forget(fd)
        if bits & GATHERED_EXIT:
            key, self._exit_key = self._exit_key, 0
            if self._child.pidfd < 0:
                loop.drop(self._child.exit_fd)  # the stand-in for a pidfd is not C's to close
            elif key:
                loop.forget(key)
            self._child.forget()

    def _end_rest(self) -> None:
        timer, self._drain_timer = self._drain_timer, None
        if timer is not None and timer.state is TimerState.ACTIVE:
            self._shared.loop.timers.cancel(timer)
        if self._in_fd >= 0:
            self._end_input(0)

    def _look_again_later(self) -> None:
        loop, key = self._shared.loop, self._exit_key
        self._exit_key = 0
        loop.forget(key)
        loop.withdraw(self._child.exit_fd)
        loop.call_later(_LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        if self._told & GATHERED_EXIT:
            return
        self._on_stream_ready(0)
        if not self._told & GATHERED_EXIT:
            self._shared.loop.call_later(_LOOK_AGAIN_S, self._look_again)

    def _collect(self) -> None:
        if self._sinks is None:
            self._sinks = (self._shared.new_sink(), self._shared.new_sink())
        pieces = self._gather.data(self._shared.buffer)
        for sink, data in zip(self._sinks, pieces, strict=True):
            if data:
                sink.append(data)

    def _end_input(self, key: int) -> None:
        writer, self._writer = self._writer, None
        fd, self._in_fd = self._in_fd, -1
        if writer is not None:
            writer.release()
        if fd >= 0:
            self._shared.loop.drop(fd)
        if writer is not None:
            writer.stop()


def _tell_nobody(one: object) -> None:
    """The end of a child that was killed is no news."""


def _ends(child: Child, spec: SpawnSpec) -> tuple[int, int, int]:
    """Our ends of the child's fds 0, 1 and 2; -1 for one that is no pipe."""
    ends = [-1, -1, -1]
    for redirect, fd in zip(spec.redirects, child.ours, strict=True):
        if fd >= 0:
            ends[redirect.child_fd] = fd
    return ends[0], ends[1], ends[2]
