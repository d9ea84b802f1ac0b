"""One child whose output is wanted whole: no callback per chunk, one at the end.

For many children at once: one call into C per child and turn reads both streams and reaps
(csrc/gather.c). A child that ends soon mostly does not come here: the threads that start it see to
that (pool.py). What a stream may be used for beyond being read (pausing, closing, line by line) is
transport/process.py's affair.

Rules:

- The end is told once: when the child is reaped and both streams are at their end, or *drain_s*
  after the reaping. A grandchild that holds a stream open must not hold the result.
- Standard input, where it is a pipe, gets *data*, whole, and is closed; a child that does not read
  it is no error.
- A stream that keeps filling its pipe is hot, as in reader.py, and its pipe is grown.
- What nobody has room for stays in the pipe, and the child waits: its streams leave the set, in
  which they would be ready all the time, until who said so ends that. The exit is seen all the
  same; the drain time is what is left of it when the wait ends, or what the child has left behind
  would be lost. A pipe that was full before the wait is hot when all is wanted that comes.
- Nor is the drain time meant to pass while the owner of the loop holds it up.
- A pidfd that is readable while nothing is to be had (a traced zombie) is looked at again a little
  later, or the loop would spin.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable

from procreactor.core.binding import (
    GATHERED_ALL_0,
    GATHERED_ALL_1,
    GATHERED_DATA,
    GATHERED_EXIT,
    GATHERED_OVER,
    Gather,
    GatherBuffer,
)
from procreactor.kernel.children import Child
from procreactor.kernel.pipes import READ_SIZE_BYTES, forget_grown, try_grow
from procreactor.kernel.poller import READ
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.loop.timers import Timer, TimerState
from procreactor.model import ExitStatus, SpawnSpec
from procreactor.transport.writer import StreamWriter
from procreactor.typed import Generic, Protocol, TypeVar

__all__ = ["BUFFER_BYTES", "CollectedChild", "Collecting", "Sink", "append_pieces", "pairs_of"]

BUFFER_BYTES = 262144
"""How much of one stream is read per turn at most; children share the loop."""

_LOOK_AGAIN_S = 0.02

_LAST_LOOKS = 8
"""How often what is given up is read before: a pipe grown to 1 MiB takes four, one that somebody
fills as fast as we read has no end."""

_FULL_BYTES = READ_SIZE_BYTES // 2
"""A pipe of the default size has 16 pages, and is full with half as many bytes when no two writes
fit into one."""

_HOT = 4
"""So many pipes found full, and they are grown."""

_READ_ALL_S = 0.02
"""So often both streams are read even though one of them can be passed on without end."""

_STREAM_BITS = (GATHERED_ALL_0, GATHERED_ALL_1)


class Sink(Protocol):
    """Where the bytes of one stream go."""

    def append(self, data: bytes, /) -> object:
        """Take *data*, never empty, as the next bytes of the stream."""


S = TypeVar("S", bound=Sink)


class Collecting(Generic[S]):
    """What the collected children of one loop share.

    *new_sinks* makes the places for stdout and stderr of the child with a given number. *must_wait*
    is asked, with these, whether the child is not to be read, though it has written, until what it
    is given with them is called, once or more often: with True if all that comes is wanted then.
    *pass_on* moves what is in a pipe to where its sink would bring it, without reading it, and
    returns how many bytes that were; 0 for none, be it that the pipe has none: then it is read.
    *held_up_s* says for how long the loop has been held up, ever.
    """

    __slots__ = ("buffer", "drain_s", "held_up_s", "loop", "must_wait", "new_sinks", "pass_on")

    def __init__(
        self,
        loop: EventLoop,
        drain_s: float,
        new_sinks: Callable[[int], tuple[S, S]],
        must_wait: Callable[[tuple[S, S], Callable[[bool], object]], bool] | None = None,
        pass_on: Callable[[S, int], int] | None = None,
        held_up_s: Callable[[], float] = float,
    ) -> None:
        self.loop = loop
        self.drain_s = drain_s
        self.new_sinks = new_sinks
        self.must_wait = must_wait
        self.pass_on = pass_on
        self.held_up_s = held_up_s
        self.buffer = GatherBuffer(BUFFER_BYTES)


def pairs_of(new_sink: Callable[[], S]) -> Callable[[int], tuple[S, S]]:
    """Return a maker of pairs, whatever the number, each half made by *new_sink*."""
    return lambda number: (new_sink(), new_sink())


def append_pieces(sinks: tuple[Sink, Sink], pieces: tuple[bytes, bytes]) -> None:
    """Append to each of *sinks* its piece, if there is any; whatever the other one raises."""
    (out, err), (out_data, err_data) = sinks, pieces
    try:
        if out_data:
            out.append(out_data)
    finally:
        if err_data:
            err.append(err_data)


class CollectedChild(Generic[S]):
    """A started child; *on_over* is told, with it, when all there is has been collected.

    Takes over *child*, whose redirects may have pipes at 0 (into it), 1 and 2 (out of it) and
    nowhere else. Its standard input, where it is not closed yet, is open until `feed`. Nothing is
    read before `watch`, or `resume`.
    """

    __slots__ = (
        "_drain_left_s",
        "_drain_timer",
        "_exit_watch",
        "_fds",
        "_full",
        "_gather",
        "_grown",
        "_heat",
        "_held_up_s",
        "_in_fd",
        "_is_waiting",
        "_number",
        "_on_over",
        "_read_due_s",
        "_retry_timer",
        "_shared",
        "_sinks",
        "_told",
        "_watched",
        "_writer",
        "child",
        "ended_s",
        "status",
    )

    def __init__(
        self,
        shared: Collecting[S],
        child: Child,
        spec: SpawnSpec,
        on_over: Callable[[CollectedChild[S]], object],
        number: int = 0,
    ) -> None:
        self._shared = shared
        self._number = number
        self.child = child
        self._exit_watch: Watch | None = None
        self._on_over = on_over
        self._sinks: tuple[S, S] | None = None
        self._drain_timer: Timer | None = None
        self._drain_left_s = self._held_up_s = 0.0
        self._retry_timer: Timer | None = None
        self._is_waiting = False
        self._writer: StreamWriter | None = None
        self._watched = False
        self._heat = 0
        self._read_due_s = 0.0
        self._grown: tuple[int, ...] = ()
        self._full: tuple[int, ...] = ()
        """Whose pipes were full when one of them was for the last time, while it is not hot."""

        self._told = 0
        self.status: ExitStatus | None = None
        """How the child ended, once it is reaped."""

        self.ended_s = 0.0
        """When it was reaped here, on the clock of time.monotonic; 0: not yet, or not here."""

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

    def resume(self, told: int, status: ExitStatus | None) -> None:
        """Go on where others have stopped, who have seen the ends of *told*, but not all three.

        What is left is watched; `append` what they have read before the next turn. OSError as for
        `watch`; then `kill`.
        """
        self._told = told & GATHERED_OVER
        self.status = status
        if self._told & GATHERED_EXIT:
            self._go_on(GATHERED_EXIT)
        else:
            self.watch()

    def watch(self) -> None:
        """Have the loop watch the streams and the exit.

        OSError (ENOSPC: this user's loops watch as many fds as they may); then `kill`.
        """
        loop, child = self._shared.loop, self.child
        by_gather = child.pidfd >= 0
        self._watch_streams(by_gather)
        watch = loop.adopt if by_gather else loop.watch
        self._exit_watch = watch(child.exit_fd, self._on_exit_ready, READ)

    def read_now(self) -> int:
        """Take what is there without waiting to be told; return how many bytes that was."""
        told = self._read()
        return self._gather.size() if told & GATHERED_DATA else 0

    def _watch_streams(self, with_pidfd: bool) -> None:
        self._gather.watch(with_pidfd)
        self._watched = True
        for bit, fd in zip(_STREAM_BITS, self._fds, strict=True):
            if fd >= 0 and not self._told & bit:
                self._shared.loop.adopt(fd, self._on_stream_ready, READ)

    @property
    def pid(self) -> int | None:
        """The child's number, or None once it is reaped."""
        return self.child.pid if self.child.pid >= 0 else None

    @property
    def pid_while_ours(self) -> int | None:
        """The child's number, unless it is reaped, be it by others."""
        return self.child.pid_while_ours

    def send_signal(self, number: int) -> None:
        """Signal the child; ProcessLookupError once it is reaped, OSError (EINVAL, EPERM)."""
        self.child.send_signal(number)

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
                self.child.send_signal(signal.SIGKILL)
            except PermissionError:
                pass
            except ProcessLookupError:
                self._ask_exit()  # reaped by others
            else:
                self.child.wait_exit()
                self._ask_exit()
        self.close()

    def close(self) -> None:
        """Let go of all fds and tell nothing. A child that is not reaped runs on. Idempotent."""
        left, self._told = GATHERED_OVER & ~self._told, GATHERED_OVER
        self._on_over = _tell_nobody
        self._forget(left)
        self._gather.close()
        self._close_stand_in()  # again, if an exception came between the end and its forgetting
        self.child.forget()
        self._end_rest()

    def _on_exit_ready(self, events: int) -> None:
        self._read()
        if not self._told & GATHERED_EXIT:
            self._look_again()

    def _on_stream_ready(self, events: int) -> None:
        if self._must_wait():
            self._wait()
            return
        if self._grown and self._shared.pass_on is not None:
            now_s = time.monotonic()
            if now_s < self._read_due_s and self._pass_on():
                return
            self._read_due_s = now_s + _READ_ALL_S
        self._read()

    def _must_wait(self) -> bool:
        ask, sinks = self._shared.must_wait, self._sinks
        return ask is not None and sinks is not None and ask(sinks, self._end_wait)

    def _wait(self) -> None:
        """Have the streams looked at no more until `_end_wait`."""
        self._is_waiting = True
        for fd in self._open_streams():
            self._shared.loop.disown(fd)
        timer = self._drain_timer
        if timer is not None:
            left_s = timer.deadline_s - time.monotonic() + self._held_up_since_s()
            self._drain_left_s = max(left_s, 0.0)
            self._drain_timer = None
            self._cancel(timer)

    def _end_wait(self, is_wanted: bool = False) -> None:
        """Have the streams read from the next turn on; idempotent."""
        retry, self._retry_timer = self._retry_timer, None
        self._cancel(retry)
        if not self._is_waiting:
            return
        if is_wanted and self._heat < _HOT and self._full:
            self._heat = _HOT
            self._grow(fd for fd in self._full if fd in self._open_streams())
        if self._grown:
            self._read_due_s = time.monotonic() + _READ_ALL_S  # what they have can be passed on
        try:
            for fd in self._open_streams():
                self._shared.loop.disown(fd)
                self._shared.loop.watch(fd, self._on_stream_ready, READ)
        except OSError:  # the set is full by now
            self._retry_timer = self._shared.loop.call_later(_LOOK_AGAIN_S, self._end_wait)
        else:
            self._is_waiting = False
            if self._told & GATHERED_EXIT and self._told != GATHERED_OVER:
                self._drain()

    def _cancel(self, timer: Timer | None) -> None:
        if timer is not None and timer.state is TimerState.ACTIVE:
            self._shared.loop.timers.cancel(timer)

    def _open_streams(self) -> list[int]:
        pairs = zip(_STREAM_BITS, self._fds, strict=True)
        return [fd for bit, fd in pairs if fd >= 0 and not self._told & bit]

    def _pass_on(self) -> bool:
        """Whether something was moved of a stream that is hot; then there may be more."""
        pass_on, sinks = self._shared.pass_on, self._sinks
        if pass_on is None or sinks is None:
            return False
        return any(
            fd in self._grown and not self._told & bit and pass_on(sink, fd)
            for fd, bit, sink in zip(self._fds, _STREAM_BITS, sinks, strict=True)
        )

    def _read(self) -> int:
        try:
            told, news = self._look()
            try:
                if told & GATHERED_DATA:
                    self.append(self._gather.data(self._shared.buffer))
            finally:  # what a sink raises must not hide an end: the kernel tells it once
                if news:
                    self._go_on(news)
        except BaseException:  # an interrupt may hide one as well
            self._shared.loop.call_soon(self._catch_up)
            raise
        return told

    def _catch_up(self) -> None:
        """Look again, and go on from what is known to have ended; idempotent."""
        self._read()
        if self._told == GATHERED_OVER or (
            self._told & GATHERED_EXIT and self._drain_timer is None
        ):
            self._go_on(GATHERED_EXIT)

    def _look(self) -> tuple[int, int]:
        """Ask C once; return what it told, and the ends among that which are new.

        What has ended is forgotten before anybody else hears of it: C has closed the fd, and a sink
        may open something under its number.
        """
        if self.child.pidfd < 0 <= self.child.pid:
            self._look_for_loss()
        told = self._gather.gather(self._shared.buffer)
        over = told & GATHERED_OVER
        news, self._told = over & ~self._told, over
        if news & GATHERED_EXIT:
            self.status = self._gather.status()
            self.ended_s = time.monotonic()
        self._forget(news)
        return told, news

    def _look_for_loss(self) -> None:
        """C asks by the number, which may be another child's once others have reaped this one."""
        error = self.child.lost_error
        if error is not None:
            self._gather.lose(error)

    def _ask_exit(self) -> None:
        """Reap the child if it has ended; its data is nobody's any more."""
        news = self._look()[1]
        if news:
            self._go_on(news)

    def _go_on(self, news: int) -> None:
        if self._told == GATHERED_OVER:
            self._close_stand_in()
            self._end_rest()
            self._on_over(self)
        elif news & GATHERED_EXIT:
            self._drain_left_s = self._drain_s()
            if not self._is_waiting:
                self._drain()

    def _drain(self) -> None:
        """Give the streams the time that is left."""
        self._held_up_s = self._shared.held_up_s()
        self._drain_timer = self._shared.loop.call_later(self._drain_left_s, self._give_up)

    def _held_up_since_s(self) -> float:
        """For how much of the time since the last `_drain` nobody could read."""
        return self._shared.held_up_s() - self._held_up_s

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
            self._drain_left_s = self._held_up_since_s()
            if self._drain_left_s > 0:  # nobody could read meanwhile
                self._drain()
                return
            try:
                self._read_the_last()
            finally:
                self.close()
                on_over(self)
        except BaseException:  # an interrupt may hide the end; it is told once
            self._shared.loop.call_soon(self._end, on_over)
            raise

    def _end(self, on_over: Callable[[CollectedChild[S]], object]) -> None:
        self.close()
        on_over(self)

    def _read_the_last(self) -> None:
        for _ in range(_LAST_LOOKS):
            if not self._look()[0] & GATHERED_DATA:
                break
            self.append(self._gather.data(self._shared.buffer))

    def _forget(self, bits: int) -> None:
        """Have the loop forget what has ended: the streams and the exit of *bits*."""
        loop = self._shared.loop
        if self._watched:
            for bit, fd in zip(_STREAM_BITS, self._fds, strict=True):
                if bits & bit and fd >= 0:
                    loop.forget(fd)
        for bit, fd in zip(_STREAM_BITS, self._fds, strict=True):
            if bits & bit and fd in self._grown:
                forget_grown(fd)
        if bits & GATHERED_EXIT:
            watch, self._exit_watch = self._exit_watch, None
            if watch is not None and self.child.pidfd >= 0:
                loop.forget(watch.fd)
            self._close_stand_in()
            self.child.forget()

    def _close_stand_in(self) -> None:
        """Close what stands for a pidfd where there is none: it is not C's to close. Idempotent."""
        child = self.child
        if child.pidfd < 0 <= child.exit_fd:
            self._shared.loop.disown(child.exit_fd)
            child.close()

    def _end_rest(self) -> None:
        timers = self._drain_timer, self._retry_timer
        self._drain_timer = self._retry_timer = None
        for timer in timers:
            self._cancel(timer)
        if self._in_fd >= 0:
            self._end_input(0)

    def _look_again(self) -> None:
        """Look for the exit by a timer, again and again, and by no watch from now on."""
        if self._told & GATHERED_EXIT:
            return
        # First: an interrupt may come between any two lines, and nobody else would look.
        loop = self._shared.loop
        timer = loop.call_later(_LOOK_AGAIN_S, self._look_again)
        loop.disown(self.child.exit_fd)
        self._exit_watch = None
        self._read()
        if self._told & GATHERED_EXIT:
            loop.timers.cancel(timer)

    def append(self, pieces: tuple[bytes, bytes]) -> None:
        """Put what stdout and stderr brought into the sinks."""
        if self._sinks is None:
            self._sinks = self._shared.new_sinks(self._number)
        if self._heat < _HOT and max(map(len, pieces)) >= _FULL_BYTES:
            self._warm_up(pieces)
        append_pieces(self._sinks, pieces)

    def _warm_up(self, pieces: tuple[bytes, bytes]) -> None:
        """Note that a pipe was full; grow those that are, once they prove hot."""
        self._heat += 1
        self._full = tuple(
            fd
            for bit, fd, data in zip(_STREAM_BITS, self._fds, pieces, strict=True)
            if not self._told & bit and len(data) >= _FULL_BYTES
        )
        if self._heat == _HOT:
            self._grow(self._full)

    def _grow(self, fds: Iterable[int]) -> None:
        self._grown = tuple(fd for fd in fds if try_grow(fd) is not None)

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
