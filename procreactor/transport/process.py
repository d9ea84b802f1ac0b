"""One child of the loop: its pipes, its queue, its end. Knows no name of Twisted's.

How the parts meet (CONTRIBUTING.md, The flows):

- `start` asks the kernel once. Until that has succeeded nothing is watched; when anything at all
  goes wrong on the way, one place undoes it.
- Data goes from the reader straight to the observer; this object is not in that path.
- What ends (a pipe, the child) becomes an event of lifecycle.py, and its actions are told to the
  observer in their order. Nothing of this happens inside a call of the user's: closes are carried
  out in a later turn.
- A child that ends hangs up all its pipes at once. At the first hang-up all are looked at in one C
  call (csrc/hangup.c), and if each is at its end, all are closed in it, told, and the child is
  reaped, in the order in which their events would have come. The call takes no data, and it reaps
  nobody: until its exit is told, a child has its pid and can be signalled. A pipe that is paused,
  grown, or has unread data leaves all to their events, one by one.
- KeyboardInterrupt out of any of this is followed by `_catch_up` in the next turn, which tells what
  the state says is due: closed fds make no events, so nothing else would. What was being told when
  it struck counts as told.
- The exit is noticed through the pidfd. One that polls readable while the child is not to be had
  (a traced zombie) is out of the set from then on, or the loop would spin, and looked at by a
  timer: to have it watched again might be refused (ENOSPC, ENOMEM), and the exit be lost.

fds: ``ours`` are opened by the start and closed here, one in `_close`, or all in `_end_all`. A
terminal's slave is the child's and closed after the start; the fds of the user (redirects >= 0) are
never touched.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Protocol

from procreactor.errors import SpawnError, spawn_error
from procreactor.kernel import cgroups
from procreactor.kernel.cgroups import CgroupId
from procreactor.kernel.children import Child
from procreactor.kernel.fds import close_fd
from procreactor.kernel.poller import READ
from procreactor.kernel.ptys import PtyPair
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.loop.sharing import SharedFd
from procreactor.model import ExitStatus, PipeEnd, Redirect, SpawnSpec
from procreactor.transport import lifecycle
from procreactor.transport.lifecycle import Action, Event, State
from procreactor.transport.outbox import BytesLike
from procreactor.transport.reader import StreamReader
from procreactor.transport.trees import signal_tree
from procreactor.transport.writer import StreamWriter

__all__ = ["ChildProcess", "Observer", "TerminalChild"]

_LOOK_AGAIN_S = 0.02

_WATCH_HINTS = {
    errno.ENOSPC: "this user's loops watch as many fds as they may (fs.epoll.max_user_watches)"
}


class Observer(Protocol):
    """Who is told of one child. Exceptions are the observer's own affair: it lets none out."""

    def on_data(self, child_fd: int, data: bytes) -> None:
        """The child wrote *data* (never empty) to *child_fd*."""

    def on_pipe_lost(self, child_fd: int) -> None:
        """Our end of *child_fd* is closed: by us, or because the child's side is."""

    def on_exit(self, status: ExitStatus) -> None:
        """The child has been reaped. Pipes may still be open, and data may still come."""

    def on_end(self, status: ExitStatus) -> None:
        """The child is reaped and all pipes are closed. Nothing is told after this."""


class _Nobody:
    """The observer of a child whose end has been told."""

    def on_data(self, child_fd: int, data: bytes) -> None:
        """Nothing."""

    def on_pipe_lost(self, child_fd: int) -> None:
        """Nothing."""

    def on_exit(self, status: ExitStatus) -> None:
        """Nothing."""

    def on_end(self, status: ExitStatus) -> None:
        """Nothing."""


_NOBODY = _Nobody()
_LOST = ExitStatus()

# Members of an Enum are looked up through its metaclass, which is dear in the hottest lines.
_TELL_PIPE = Action.TELL_PIPE
_TELL_EXIT = Action.TELL_EXIT
_DRAINED = State.DRAINED
_ENDED = State.ENDED
_REAPED = Event.REAPED
_LAST_PIPE_CLOSED = Event.LAST_PIPE_CLOSED
_WE_READ = PipeEnd.WE_READ
_WE_WRITE = PipeEnd.WE_WRITE


class _Life:
    """What children on pipes and children on a terminal share: a start, an exit, an end."""

    def __init__(self, loop: EventLoop, observer: Observer) -> None:
        self._loop = loop
        self._observer = observer
        self._child: Child | None = None
        self._exit_watch: Watch | None = None
        self._state = State.RUNNING
        self._exit_is_told = False
        self._is_let_go = False
        self._cgroup: CgroupId | None = None
        self.status: ExitStatus | None = None

    @property
    def pid(self) -> int | None:
        """The child's number, or None once it is reaped."""
        return self._child.pid if self._child and self._child.pid >= 0 else None

    @property
    def pidfd(self) -> int | None:
        """The child's pidfd, which stays ours; None once it is reaped, and where there are none."""
        return self._child.pidfd if self._child and self._child.pidfd >= 0 else None

    @property
    def mode(self) -> frozenset[str]:
        """The kernel features that the start used."""
        return self._child.mode if self._child else frozenset()

    @property
    def is_over(self) -> bool:
        """Whether the end has been told, or is being told."""
        return self._state is _ENDED

    def send_signal(self, number: int) -> None:
        """Signal the child; ProcessLookupError once it is reaped, OSError (EINVAL, EPERM)."""
        if self._child is None:
            raise ProcessLookupError("the child has not been started")
        self._child.send_signal(number)

    def send_signal_to_tree(self, number: int) -> None:
        """Signal the child and all that descends from it, and all in the cgroup it was started in.

        As `trees.signal_tree` does it; with SIGKILL it waits for the ends, `trees.PATIENCE_S` at
        most. ProcessLookupError when nobody is left, OSError (EINVAL, EPERM).
        """
        if self._child is None:
            raise ProcessLookupError("the child has not been started")
        self._child.check_owner()
        signal_tree(self._child, number, self._cgroup)

    def _note_cgroup(self, spec: SpawnSpec) -> None:
        """Remember which cgroup that of *spec* is: the fd is the caller's."""
        if spec.cgroup_fd >= 0:
            self._cgroup = cgroups.identify(spec.cgroup_fd)

    def _watch_exit(self, child: Child, by_start: bool = False) -> None:
        watch = self._loop.adopt if by_start and child.exit_is_watched else self._loop.watch
        self._exit_watch = watch(child.exit_fd, self._on_exit_ready, READ)

    def _unwatch_exit(self) -> None:
        if self._exit_watch is not None:
            self._loop.unwatch(self._exit_watch)
            self._exit_watch = None

    def _forget_exit(self) -> None:
        """Watch it no longer; it has been closed."""
        if self._exit_watch is not None:
            self._loop.forget_all((self._exit_watch,))
            self._exit_watch = None

    def try_reap(self) -> bool:
        """Reap the child and tell so, if it has ended; return whether it is reaped.

        The loop does so by itself. ChildProcessError in a forked copy of the process.
        """
        child = self._child
        if child is None or self.status is not None:
            return child is not None
        try:
            status = child.try_reap_in(self._loop.epoll_fd)
            if status is None:
                return False
            self._forget_exit()
            self.status = status
            self._step(_REAPED)
        except BaseException:
            self._catch_up_soon()
            raise
        return True

    def _on_exit_ready(self, events: int) -> None:
        if not self.try_reap():
            self._look_again()

    def _look_again(self) -> None:
        """Look for the exit by a timer, again and again, and by nothing else from now on."""
        child = self._child
        if child is None or self.status is not None or self._is_let_go:
            return
        # First: an interrupt may come between any two lines, and nobody else would look.
        timer = self._loop.call_later(_LOOK_AGAIN_S, self._look_again)
        self._loop.disown(child.exit_fd)
        self._exit_watch = None
        try:
            is_reaped = self.try_reap()
        except ChildProcessError:  # of a forked copy of the process it is no child
            self._loop.timers.cancel(timer)
            raise
        if is_reaped:
            self._loop.timers.cancel(timer)

    def _disown_fds(self, fds: Iterable[int]) -> None:
        """Have no child, nor a watch of *fds* that an interrupt has kept us from knowing."""
        for fd in fds:
            if fd >= 0:
                self._loop.disown(fd)
        self._child = None

    def _step(self, event: Event, child_fd: int = -1) -> None:
        self._state, actions = lifecycle.step(self._state, event)
        for action in actions:
            if action is _TELL_PIPE:
                self._observer.on_pipe_lost(child_fd)
            elif action is _TELL_EXIT:
                self._tell_exit()
            else:
                self._tell_end()

    def _tell_exit(self) -> None:
        self._exit_is_told = True
        self._observer.on_exit(self.status or _LOST)

    def _tell_end(self) -> None:
        # Let go of first: the two refer to each other, and children that end are many.
        observer, self._observer = self._observer, _NOBODY
        observer.on_end(self.status or _LOST)

    def _catch_up_soon(self) -> None:
        """KeyboardInterrupt leaves the turn; what is due comes in the next."""
        self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """Tell what has happened and has not been told; what was being told counts as told."""
        child = self._child
        if child is None:
            return
        try:
            if child.is_reaped and self.status is None:
                self.try_reap()
            if self.status is not None and not self._exit_is_told:
                if self._state in (State.RUNNING, State.DRAINED):
                    self._step(_REAPED)
                else:
                    self._tell_exit()
            if self._state is _ENDED:
                self._tell_end()
        except BaseException:
            self._catch_up_soon()
            raise


def _raise_refusal(error: BaseException, spec: SpawnSpec) -> None:
    """Raise the SpawnError for a child whose fds the kernel would not watch; nothing otherwise."""
    if isinstance(error, OSError) and not isinstance(error, SpawnError):
        hint = _WATCH_HINTS.get(error.errno or 0, "")
        raise spawn_error(error.errno or 0, "watch", spec.candidates[0], hint) from error


class ChildProcess(_Life):
    """A child on pipes."""

    def __init__(self, loop: EventLoop, observer: Observer) -> None:
        super().__init__(loop, observer)
        self.pipes: dict[int, StreamReader | StreamWriter] = {}
        """Our ends that are open, by child fd."""

    def start(self, spec: SpawnSpec) -> None:
        """Run the program of *spec*: pid is set and all pipes are watched.

        SpawnError, or any other exception, leaves no child, no fd and nothing watched.
        """
        self._note_cgroup(spec)
        child = Child(spec, self._loop.epoll_fd)
        try:
            child.start(spec)
            self._adopt(child, spec.redirects)
        except BaseException as error:
            self._disown(child.exit_fd, *child.ours)
            child.abandon()
            _raise_refusal(error, spec)
            raise

    def _adopt(self, child: Child, redirects: Iterable[Redirect]) -> None:
        loop, pipes, end_pipe = self._loop, self.pipes, self._end_pipe
        watch = loop.adopt if loop.epoll_fd >= 0 else loop.watch  # which refuses, once closed
        on_data, on_hangup = self._observer.on_data, self._end_all
        for redirect, fd in zip(redirects, child.ours, strict=True):
            source, child_fd = redirect.source, redirect.child_fd
            if source == _WE_READ:
                pipes[child_fd] = StreamReader(
                    loop, fd, child_fd, on_data, end_pipe, watch, on_hangup
                )
            elif source == _WE_WRITE:
                pipes[child_fd] = StreamWriter(loop, fd, child_fd, end_pipe, watch, on_hangup)
        self._watch_exit(child, by_start=True)
        self._state = lifecycle.start(len(self.pipes))
        self._child = child

    def _disown(self, *fds: int) -> None:
        """Watch nothing; the fds are closed by the child's `abandon`."""
        self._unwatch_exit()
        for pipe in self.pipes.values():
            pipe.stop()
        self.pipes.clear()
        self._disown_fds(fds)

    def writer(self, child_fd: int) -> StreamWriter | None:
        """Return the open stream into *child_fd*, or None."""
        pipe = self.pipes.get(child_fd)
        return pipe if isinstance(pipe, StreamWriter) else None

    def write(self, child_fd: int, data: BytesLike) -> None:
        """Send *data* to *child_fd*; KeyError when that is not open, or not ours to write to."""
        writer = self.writer(child_fd)
        if writer is None:
            raise KeyError(f"child fd {child_fd} is not an open pipe into the child")
        writer.write(data)

    def close_pipe(self, child_fd: int) -> None:
        """Close our end of *child_fd* in a later turn; nothing when it is not open.

        A pipe into the child is flushed first; from one out of it nothing more is told, and what
        was not read is lost.
        """
        pipe = self.pipes.get(child_fd)
        if isinstance(pipe, StreamWriter):
            pipe.close_when_flushed()
        elif pipe is not None and not pipe.finished:
            pipe.stop()
            self._loop.call_soon(self._end_pipe, child_fd)

    def pause_reading(self) -> None:
        """Tell no data until `resume_reading`; the child blocks when its pipes are full."""
        for pipe in self.pipes.values():
            if isinstance(pipe, StreamReader):
                pipe.pause()

    def resume_reading(self) -> None:
        """Go on after `pause_reading`."""
        for pipe in self.pipes.values():
            if isinstance(pipe, StreamReader):
                pipe.resume()

    def let_go(self) -> None:
        """Close all pipes at once, tell so, and watch the child no longer; it gets no signal."""
        self._is_let_go = True
        self._unwatch_exit()
        for child_fd in list(self.pipes):
            self._end_pipe(child_fd)

    def _end_pipe(self, child_fd: int) -> None:
        pipe = self.pipes.get(child_fd)
        if pipe is None:
            return
        try:
            if pipe.fileno() >= 0:
                self._close(pipe)
            self._tell_pipe(child_fd)
        except BaseException:
            self._catch_up_soon()
            raise

    def _tell_pipe(self, child_fd: int) -> None:
        del self.pipes[child_fd]
        if self.pipes:
            self._observer.on_pipe_lost(child_fd)  # all that lifecycle.TABLE has for it
        else:
            self._step(_LAST_PIPE_CLOSED, child_fd)

    def _close(self, pipe: StreamReader | StreamWriter) -> None:
        pipe.finished = True
        if pipe.grown:
            pipe.release()
        if pipe.watch is not None:
            self._loop.forget_all((pipe.watch,))
        if self._child is not None:
            self._child.close_pipe(self._loop.epoll_fd, pipe.fileno())
        pipe.note_closed()

    def _end_all(self) -> bool:
        """End all pipes at once and look for the exit, if all are at their end; else do nothing.

        Not if one is paused, or was closed by the user, which is carried out in a turn of its own.
        """
        child, loop, pipes = self._child, self._loop, self.pipes
        watches = []
        for pipe in pipes.values():
            watch = pipe.watch
            if watch is None or not watch.active or pipe.grown:
                return False
            watches.append(watch)
        try:
            if child is None or not child.close_ended_pipes(loop.epoll_fd):
                return False
            loop.forget_all(watches)
            for pipe in pipes.values():
                pipe.note_closed()
            for child_fd in list(pipes):
                if child_fd in pipes:  # else told by a `let_go` of the one who was told before
                    self._tell_pipe(child_fd)
            if self._state is _DRAINED and self._exit_is_near():
                self.try_reap()
        except BaseException:
            self._catch_up_soon()
            raise
        return True

    def _exit_is_near(self) -> bool:
        """Whether the exit of a child that closed all its pipes is watched, and worth a look."""
        watch = self._exit_watch
        return watch is not None and watch.active and self.pidfd is not None

    def _catch_up(self) -> None:
        child = self._child
        if child is None:
            return
        try:
            for child_fd, pipe in list(self.pipes.items()):
                if pipe.finished or not child.has_pipe(pipe.fileno()):
                    self._end_pipe(child_fd)
            if not self.pipes and self._state in (State.RUNNING, State.EXITED):
                self._state, _ = lifecycle.step(self._state, _LAST_PIPE_CLOSED)
        except BaseException:
            self._catch_up_soon()
            raise
        super()._catch_up()


class TerminalChild(_Life):
    """A child on a pseudo terminal: one stream both ways, told as child fd 1."""

    CHILD_FD = 1

    def __init__(self, loop: EventLoop, observer: Observer) -> None:
        super().__init__(loop, observer)
        self.reader: StreamReader | None = None
        self.writer: StreamWriter | None = None
        self._master = -1

    def start(self, spec: SpawnSpec, pty: PtyPair) -> None:
        """Run the program of *spec* on *pty*, which is taken over on success only.

        The child leads a new session with the terminal as its own, on fds 0, 1 and 2. Raises as
        `ChildProcess.start` does; then both fds of *pty* are still the caller's.
        """
        spec = spec.replace(
            redirects=[Redirect(child_fd, pty.slave) for child_fd in (0, 1, 2)],
            new_session=True,
            controlling_tty_fd=0,
        )
        self._note_cgroup(spec)
        child = Child(spec)
        try:
            child.start(spec)
            os.set_blocking(pty.master, False)
            self._adopt(child, pty.master)
        except BaseException as error:
            self._disown(child.exit_fd, pty.master)
            child.abandon()
            _raise_refusal(error, spec)
            raise
        self._master = pty.master
        close_fd(pty.slave)

    def _adopt(self, child: Child, master: int) -> None:
        shared = SharedFd(self._loop, master)
        self.reader = StreamReader(
            shared, master, self.CHILD_FD, self._observer.on_data, self._end_stream
        )
        self.writer = StreamWriter(shared, master, self.CHILD_FD, self._on_write_end)
        self._watch_exit(child)
        self._state = lifecycle.start(1)
        self._child = child

    def _disown(self, *fds: int) -> None:
        self._unwatch_exit()
        for side in (self.reader, self.writer):
            if side is not None:
                side.stop()
        self.reader = self.writer = None
        self._disown_fds(fds)

    def close(self) -> None:
        """Hang up in a later turn, once all that is queued has been written."""
        if self.writer is None:
            return
        if self.writer.finished:
            self._loop.call_soon(self._end_stream, self.CHILD_FD)
        else:
            self.writer.close_when_flushed()

    def _on_write_end(self, child_fd: int) -> None:
        """A wanted hang-up may come; or nobody reads any more, and the reader, when it is through
        with what the child wrote before, will tell the end."""
        if self.writer is not None and self.writer.closing:
            self._end_stream(child_fd)

    def let_go(self) -> None:
        """Hang up at once and watch the child no longer; a child that minds gets SIGHUP for it."""
        self._is_let_go = True
        self._unwatch_exit()
        self._end_stream(self.CHILD_FD)

    def _end_stream(self, child_fd: int) -> None:
        if self._master < 0:
            return
        try:
            for side in (self.reader, self.writer):
                if side is not None:
                    side.stop()
            master, self._master = self._master, -1
            close_fd(master)
            self._step(_LAST_PIPE_CLOSED, child_fd)
        except BaseException:
            self._catch_up_soon()
            raise

    def _catch_up(self) -> None:
        try:
            if self.reader is not None and self.reader.finished and self._master >= 0:
                self._loop.disown(self._master)
                self._end_stream(self.CHILD_FD)
            elif self._master < 0 and self._state in (State.RUNNING, State.EXITED):
                self._step(_LAST_PIPE_CLOSED, self.CHILD_FD)
        except BaseException:
            self._catch_up_soon()
            raise
        super()._catch_up()
