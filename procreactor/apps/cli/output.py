"""What jobs write, put on the standard output and error: in groups, in order, by lines, tagged.

Modes:

- **Group** (the default): all that a job wrote, once it has ended, stdout before stderr.
- **Keep order**: the groups in the order in which the jobs started. The job whose turn it is writes
  through at once, while it runs; its stderr too, unless that is the same file as stdout, where it
  would come between. What the others write is held (held.py). While the one whose turn it is writes
  all that we can pass on, they wait instead (throttle.py), each in the pipes that it has filled.
- **Line buffer**: whole lines, as they come. With keep order: those of the job whose turn it is.
- A **tag** and a tab before each line, in any mode (tagging.py).
- **Without room**: when what is held cannot be spilled, nothing more is started, but what runs may
  end. In any mode the jobs have turns now. The one whose turn it is writes all that it has at once,
  half lines and stderr too; the others are not read, and wait. As the one whose turn it is never
  waits for another, all come to their ends, in bounded memory, and nothing is lost.

Facts and decisions:

- A sink never writes more than what is due in its turn of the loop, and never raises, because it is
  called from the loop. What is due is queued; `OutputWriter.flush`, once per turn and before the
  loop sleeps, writes it, many pieces with one writev, and raises what went wrong. When more than a
  few MiB are queued within a turn they are written at once, so memory stays bounded.
- Writing blocks, in a wait of its own and never in the write (outlet.py): a slow reader stops the
  loop, so the children's pipes fill and the children wait. That is what bounds memory, and the
  price is that nothing else happens meanwhile: no start, no time limit.
- A handler of a signal may end that wait (`OutputWriter.stop_waiting`): nothing is lost, as nothing
  was being written. From then on what the reader does not take stays in the queue, and all jobs
  wait while it is long, so the loop goes on and memory stays bounded all the same.
- The queue is one for both fds: where both are one terminal, the order in which things were said
  is kept.
- What comes much and is to be written as it comes does not come here at all: it is moved from the
  job's pipe to ours (transport/passage.py).
- What was spilled goes out with sendfile(2), which to a pipe moves pages instead of bytes; where
  the target does not take it (EINVAL: a file opened to append), through memory.
- A reader who has gone is `OutputClosed`: there is no point in more output. Any other error is an
  OSError with the name of the stream.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice

from procreactor.apps.cli.held import Extent, Held, Part, Spill
from procreactor.apps.cli.order import Order, Place
from procreactor.apps.cli.outlet import Outlet
from procreactor.apps.cli.tagging import Tagger, end_of_lines
from procreactor.apps.cli.throttle import Throttle
from procreactor.transport.passage import Passage
from procreactor.typed import TypeVar

__all__ = ["OutputClosed", "OutputWriter", "StreamSink"]

_QUEUE_BYTES = 4 << 20
_COPY_BYTES = 1 << 20
_SENDFILE_BYTES = 1 << 30
_IOV_MAX = 1024

_NO_ROOM_S = 0.1
"""So often those who wait because there is no room are looked at again."""

_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)

R = TypeVar("R")


class OutputClosed(Exception):  # noqa: N818 - no error of ours: the reader has had enough
    """Nobody reads *fd* any more."""

    def __init__(self, fd: int) -> None:
        super().__init__(f"nobody reads the {_name(fd)} any more")
        self.fd = fd


class _WaitEnded(Exception):  # noqa: N818 - a signal, no error
    """A reader is not waited for any more."""


class StreamSink:
    """Takes one stream of one job."""

    __slots__ = ("_fd", "_tagger", "_tail", "_writer", "held", "is_direct")

    def __init__(
        self, writer: OutputWriter, fd: int, tag: bytes | None, by_lines: bool, is_direct: bool
    ) -> None:
        self._writer = writer
        self._fd = fd
        self._tagger = None if tag is None else Tagger(tag)
        self._tail = Held(writer.spill) if by_lines else None
        self.held = Held(writer.spill)
        self.is_direct = is_direct
        """Whether what comes is written through, instead of held."""

    def append(self, data: bytes) -> None:
        """Take *data* as the next bytes of the stream."""
        if not data:
            return
        if self._tagger is not None:
            data = self._tagger.feed(data)
        if self._tail is None:
            self._pass_on(data)
        else:
            self._pass_lines_on(data, self._tail)

    def pass_on(self, fd: int) -> int:
        """Move what is in the pipe *fd* straight to the output, where it would go as it is.

        Return how many bytes that were; 0 where it has to be read instead.
        """
        if not self.is_direct or self._tagger is not None or self._tail is not None:
            return 0
        return self._writer.move(fd, self._fd)

    def end(self) -> None:
        """Take what came after the last whole line for a line; nothing more will come."""
        if self._tail is not None:
            self._pass_all_on(self._tail)

    def write_through(self) -> None:
        """Have what is held queued, and from now on all that comes."""
        self.is_direct = True
        self._writer.enqueue_held(self.held)

    def write_all_through(self) -> None:
        """As `write_through`, and not by lines."""
        self.write_through()
        if self._tail is not None:
            self._writer.enqueue_held(self._tail)
            self._tail = None

    def drop(self) -> None:
        """Forget what is held."""
        self.held.drop()
        if self._tail is not None:
            self._tail.drop()

    def _pass_on(self, data: bytes) -> None:
        if self.is_direct:
            self._writer.enqueue_new(self._fd, data)
        else:
            self.held.append(self._fd, data)

    def _pass_lines_on(self, data: bytes, tail: Held) -> None:
        end = end_of_lines(data)
        if end:
            self._pass_all_on(tail)
            self._pass_on(data[:end])
            data = data[end:]
        if data:
            tail.append(self._fd, data)

    def _pass_all_on(self, tail: Held) -> None:
        if self.is_direct:
            self._writer.enqueue_held(tail)
        else:
            self.held.extend(tail)


class _Job:
    """One that runs: its streams, and what those left that ended behind it before their turn."""

    __slots__ = ("err", "followers", "out", "place", "seq", "seqs")

    def __init__(self, seq: int, out: StreamSink, err: StreamSink, followers: Held) -> None:
        self.seq = seq
        self.out = out
        self.err = err
        self.followers = followers
        self.seqs: list[int] = []
        """Who those were."""

        self.place: Place[_Job] | None = None


class OutputWriter:
    """Orders and writes what jobs write, to *fds*, which stay their owner's.

    *early*: in keep order, the job whose turn it is writes through while it runs; without, only
    when it has ended, so that an attempt that fails can be discarded. *before_write* is called
    before anything is written (to clear a progress line). *call_later* is that of the loop; without
    it nobody is made to wait, nor for the sake of speed unless it *throttles*.
    """

    def __init__(
        self,
        *,
        keep_order: bool = False,
        line_buffer: bool = False,
        early: bool = True,
        fds: tuple[int, int] = (1, 2),
        spill: Spill | None = None,
        before_write: Callable[[], object] | None = None,
        call_later: Callable[[float, Callable[[], object]], object] | None = None,
        throttles: bool = True,
    ) -> None:
        self.spill = Spill() if spill is None else spill
        self._keep_order = keep_order
        self._line_buffer = line_buffer
        self._early = early
        self._fds = fds
        self._before_write = before_write
        self._call_later = call_later
        self._throttles = throttles
        self._err_may_come_between = line_buffer or not _same_file(*fds)
        self._jobs: dict[int, _Job] = {}
        self._order: Order[_Job] = Order()
        self._queue: deque[tuple[int, Part | memoryview]] = deque()
        self._error: Exception | None = None
        self._has_no_room = False
        self._no_sendfile: set[int] = set()
        self._outlets = {fd: Outlet(fd) for fd in set(fds)}
        self._passages = {
            fd: Passage(outlet.fd, partial(self._wait, outlet))
            for fd, outlet in self._outlets.items()
        }
        self._waiting: dict[int, Callable[[bool], object]] = {}
        """The jobs that wait until there is room, or their turn, and what has them go on."""

        self._looks_later = False
        self._throttle = Throttle()
        self.queued_bytes = 0
        """How much `flush` would write."""

        self._queued: list[int] = []
        self.written: deque[int] = deque()
        """The jobs all of whose output is written, or that had none; for the caller to take."""

        self.waited_s = 0.0
        """For how long readers were waited for, ever."""

        self._is_patient = True
        self._is_waiting = False
        """Whether a reader is waited for at this moment, and nothing else is done."""

    def new_sinks(self, seq: int, tag: bytes | None = None) -> tuple[StreamSink, StreamSink]:
        """Return sinks for stdout and stderr of job *seq*, which starts, or starts again.

        Jobs that start one after the other have their turns in this order; one that starts again
        keeps its place. *tag* and a tab come before each line.
        """
        label = None if tag is None else tag + b"\t"
        known = self._jobs.get(seq)
        if known is not None:
            return self._restart(known, label)
        job = _Job(seq, self._sink(0, label), self._sink(1, label), Held(self.spill))
        self._jobs[seq] = job
        if self._keep_order:
            job.place = self._order.join(job)
            if self._order.first is job.place:
                self._begin_turn(job)
        elif self._line_buffer:
            job.out.is_direct = job.err.is_direct = True
        return job.out, job.err

    def finish(self, seq: int) -> None:
        """Have all that job *seq* wrote queued, or held until its turn; nothing more will come."""
        job = self._jobs.pop(seq, None)
        if job is None:
            self._queued.append(seq)  # it had nothing to say
            return
        self._waiting.pop(seq, None)
        job.out.end()
        job.err.end()
        place = job.place
        if place is None:
            self._enqueue_rest(job)
            self._queued.append(seq)
            return
        job.place = None  # else the two would hold each other, until a collection
        self._order.leave(place)
        if place.before is None:
            self._enqueue_rest(job)
            self._queued += (seq, *job.seqs)
            if self._order.first is not None:
                self._begin_turn(self._order.first.value)
        else:
            before = place.before.value.followers
            for held in (job.out.held, job.err.held, job.followers):
                before.extend(held)
            place.before.value.seqs += (seq, *job.seqs)

    def finish_all(self) -> None:
        """Have all that is held queued, in order: nobody will write any more."""
        for seq in list(self._jobs):
            self.finish(seq)

    def stop_waiting(self) -> None:
        """Wait for no reader any more, until `wait_again`; for handlers of signals.

        Where one is waited for, what this raises ends the wait, and is caught here.
        """
        self._is_patient = False
        if self._is_waiting:
            self._is_waiting = False
            raise _WaitEnded

    def wait_again(self) -> None:
        """Take back `stop_waiting`."""
        self._is_patient = True

    def must_wait(self, seq: int, go_on: Callable[[bool], object]) -> bool:
        """Whether what job *seq* writes is to stay in its pipe.

        While it had better wait for the sake of the one whose turn it is (throttle.py), while there
        is no room for it, or too much is queued for a reader who is not waited for. If so, *go_on*
        is called when that has changed, or may have; with True when its turn has come.
        """
        if self._call_later is None or not self._has_to_wait(seq):
            return False
        self._waiting[seq] = go_on
        if not self._looks_later:
            left_s = self._throttle.until_s - time.monotonic()
            self._look_later(left_s if self._is_throttling else _NO_ROOM_S)
        return True

    @property
    def _is_throttling(self) -> bool:
        return self._throttles and self._throttle.is_on

    def _has_to_wait(self, seq: int) -> bool:
        if not self._is_patient and self.queued_bytes > _QUEUE_BYTES:
            return True
        if not self._has_no_room and not self._is_throttling:
            return False
        job = self._jobs.get(seq)
        return job is not None and job.place is not None and job.place.before is not None

    def _look_later(self, delay_s: float) -> None:
        if self._call_later is not None:
            self._looks_later = True
            self._call_later(max(delay_s, 0.0), self._look_at_waiting)

    def _look_at_waiting(self) -> None:
        self._looks_later = False
        now_s = time.monotonic()
        try:
            self._throttle.look(now_s)
            if not self._is_throttling:
                self._let_all_go_on()
        finally:  # whatever one of them raises
            if self._waiting:
                self._look_later(self._throttle.until_s - now_s)

    def _let_all_go_on(self) -> None:
        for seq in list(self._waiting):
            self._let_go_on(seq, False)

    def _let_go_on(self, seq: int, is_due: bool) -> None:
        go_on = self._waiting.get(seq)
        if go_on is not None:
            go_on(is_due)
            del self._waiting[seq]

    def discard(self, seq: int) -> None:
        """Forget what job *seq* wrote, as far as it is held; it keeps its place, to start again."""
        self._waiting.pop(seq, None)  # it is another child that starts again
        job = self._jobs[seq]
        job.out.drop()
        job.err.drop()

    def flush(self) -> None:
        """Have written all that is queued. Blocks as long as the readers let us wait.

        After `stop_waiting`: what they take; the rest, and what it is about, stays where it is.

        `OutputClosed`: a reader has gone. OSError: names the stream, or the directory of temporary
        files; raised again each time, and nothing more is written to the streams, except that
        after an error about the directory nothing is lost: what is due is written first.
        """
        if self._throttle.look(time.monotonic()):
            self._let_all_go_on()
        if self.spill.error is not None and not self._has_no_room:
            self._go_on_without_room()
        if self._error is None:
            self._write_queue()
        if self._error is not None:
            raise self._error
        if not self._queue:
            self.written.extend(self._queued)
            self._queued.clear()
        if self.spill.error is not None:
            raise self.spill.error

    def close(self) -> None:
        """Let go of all that is held or queued, and of the temporary files; idempotent."""
        self._queue.clear()
        self.queued_bytes = 0
        self._jobs.clear()
        self._waiting.clear()
        for passage in self._passages.values():
            passage.close()
        for outlet in self._outlets.values():
            outlet.close()
        self.spill.close()

    # --- For the sinks ----------------------------------------------------------------------------

    def enqueue_new(self, fd: int, data: bytes) -> None:
        """Queue *data*, which has come just now, for *fd*."""
        self._throttle.new_bytes += len(data)
        self.enqueue(fd, data)

    def enqueue(self, fd: int, part: Part) -> None:
        """Queue *part* for *fd*; after an error it is for nobody."""
        if self._error is not None:
            return
        self._queue.append((fd, part))
        size_bytes = part.length if isinstance(part, Extent) else len(part)
        self.queued_bytes += size_bytes
        if self.queued_bytes > _QUEUE_BYTES and self._is_patient:
            self._write_queue()

    def move(self, pipe: int, fd: int) -> int:
        """Move what is in *pipe* to *fd*, behind all that is queued; return how many bytes.

        0 where there is nothing, or where *fd* does not take it so.
        """
        self._write_queue()
        passage = self._passages[fd]
        if self._error is not None or not self._is_patient or self._outlets[fd].asks:
            return 0
        if not passage.is_open:
            return 0
        if self._before_write is not None:
            self._before_write()
        try:
            moved_bytes = passage.move(pipe)
        except BrokenPipeError:
            self._error = OutputClosed(fd)
            return 0
        except _WaitEnded:
            return 0  # what was moved is written, and what was not is still there
        self._throttle.new_bytes += moved_bytes
        return moved_bytes

    def enqueue_held(self, held: Held) -> None:
        """Queue all of *held*, which is empty then."""
        if held:
            for fd, part in held.take():
                self.enqueue(fd, part)

    # --- Turns ------------------------------------------------------------------------------------

    def _sink(self, which: int, label: bytes | None) -> StreamSink:
        return StreamSink(self, self._fds[which], label, self._line_buffer, False)

    def _restart(self, job: _Job, label: bytes | None) -> tuple[StreamSink, StreamSink]:
        old = job.out, job.err
        job.out, job.err = self._sink(0, label), self._sink(1, label)
        job.out.is_direct, job.err.is_direct = old[0].is_direct, old[1].is_direct
        for sink in old:
            sink.drop()
        return job.out, job.err

    def _go_on_without_room(self) -> None:
        self._has_no_room = True
        if not self._keep_order:
            self._keep_order = True
            for job in self._jobs.values():
                job.out.is_direct = job.err.is_direct = False
                job.place = self._order.join(job)
        if self._order.first is not None:
            self._begin_turn(self._order.first.value)

    def _begin_turn(self, job: _Job) -> None:
        self._let_go_on(job.seq, True)
        if self._has_no_room:
            job.out.write_all_through()
            job.err.write_all_through()
        elif self._early:
            job.out.write_through()
            if self._err_may_come_between:
                job.err.write_through()

    def _enqueue_rest(self, job: _Job) -> None:
        for held in (job.out.held, job.err.held, job.followers):
            self.enqueue_held(held)

    # --- Writing ----------------------------------------------------------------------------------

    def _write_queue(self) -> None:
        if not self._queue:
            return
        try:
            if self._before_write is not None:
                self._before_write()
            while self._queue:
                fd, part = self._queue[0]
                if isinstance(part, Extent):
                    self._copy(fd, part)
                else:
                    self._write_pieces(fd)
        except _WaitEnded:
            pass
        except (OutputClosed, OSError) as error:
            self._error = error
            self._queue.clear()
            self.queued_bytes = 0

    def _write_pieces(self, fd: int) -> None:
        """Write the first pieces of the queue, which are for *fd*, as many as one call takes."""
        pieces = []
        for to_fd, part in islice(self._queue, _IOV_MAX):
            if to_fd != fd or isinstance(part, Extent):
                break
            pieces.append(part)
        written = self._insist(fd, lambda: self._outlets[fd].write(pieces))
        self.queued_bytes -= written
        for piece in pieces:
            if len(piece) > written:
                self._queue[0] = (fd, memoryview(piece)[written:])
                break
            self._queue.popleft()
            written -= len(piece)

    def _copy(self, fd: int, extent: Extent) -> None:
        while extent.length:
            copied = self._insist(fd, lambda: self._copy_some(fd, extent))
            self.queued_bytes -= copied
            self.spill.consume(extent, copied)
        self._queue.popleft()

    def _copy_some(self, fd: int, extent: Extent) -> int:
        if fd not in self._no_sendfile:
            count = min(extent.length, _SENDFILE_BYTES)
            try:
                return self._outlets[fd].send(extent.fd, extent.offset, count)
            except BlockingIOError:
                raise
            except OSError as error:
                if error.errno not in _NO_SENDFILE:
                    raise
                self._no_sendfile.add(fd)
        data = os.pread(extent.fd, min(extent.length, _COPY_BYTES), extent.offset)
        return self._outlets[fd].write([data])

    def _insist(self, fd: int, call: Callable[[], R]) -> R:
        """Return what *call*, which writes to *fd*, returns, once *fd* takes something."""
        try:
            while True:
                try:
                    return call()
                except BlockingIOError:
                    self._wait(self._outlets[fd])
        except BrokenPipeError:
            raise OutputClosed(fd) from None
        except OSError as error:
            raise OSError(error.errno, error.strerror, _name(fd)) from error

    def _wait(self, outlet: Outlet) -> None:
        """Return once *outlet* takes something; _WaitEnded when nobody is to be waited for."""
        try:
            self._is_waiting = True  # from here on `stop_waiting` raises
            if not self._is_patient:
                raise _WaitEnded
            begun_s = time.monotonic()
            try:
                outlet.wait()
            finally:
                passed_s = time.monotonic() - begun_s
                self.waited_s += passed_s
                self._throttle.waited_s += passed_s
        finally:
            self._is_waiting = False


def _name(fd: int) -> str:
    return {1: "standard output", 2: "standard error"}.get(fd, f"fd {fd}")


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False  # one of them is not open: writing to it will say so
