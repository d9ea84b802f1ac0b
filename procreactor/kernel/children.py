"""One child of this process, from its start to its reaping.

Facts:

- A pidfd polls readable when the child has ended, in any thread, with no SIGCHLD handler anywhere;
  a signal through it can never reach a stranger that was given the same number.
- A traced zombie polls readable too, and is not to be had yet: `try_reap` returns None and the fd
  stays readable. The watcher must step back for a while, or it spins.
- Where there are no pidfds (Linux before 5.4, some sandboxes, PROCREACTOR_DISABLE=pidfd), a thread
  sleeps in waitid(WNOWAIT) for each child and makes an eventfd readable: dear, but with the same
  shape as a pidfd. There a signal goes to the number, which is the child's until it is reaped. As
  other code may have done that, waitid(WNOWAIT) says right before whether it is a child of ours,
  and /proc, where there is one, whether it is this one, by the time at which it was started. What
  is left is the moment between the question and the signal.
- Where there are no threads either, the eventfd is readable from the start, as for a traced zombie.
- Where a sandbox denies waitid altogether, a pidfd still tells the end, and /proc to that thread:
  once, without a status, and the zombie stays. /proc alone then says whose a number is. To look
  takes an fd: where none is to be had, nothing is known, neither an end nor another's number.
- PROCREACTOR_DISABLE (clone3, pidfd, unshare, close_range, vfork, helper, cgroup; commas) is read
  at the first spawn, like all that is learnt about the kernel.
- os.fork in the host program: parent and child then share one idea of whose children these are.
  A child that this process did not start answers ChildProcessError and touches nothing.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat

from procreactor.core import binding
from procreactor.errors import SpawnError, spawn_error
from procreactor.kernel import dispositions, processes
from procreactor.kernel.fds import close_fd
from procreactor.model import ExitStatus, SpawnSpec

__all__ = ["Child", "Process", "in_use", "open_exit_fd", "this_process"]


_LOOK_AGAIN_S = 0.02


class _Ladder:
    """Applies PROCREACTOR_DISABLE once, at the first spawn."""

    applied = False

    @classmethod
    def apply(cls) -> None:
        if not cls.applied:
            names = os.environ.get("PROCREACTOR_DISABLE", "").split(",")
            # Of cgroups the C core knows what it is told (kernel/cgroups.py).
            binding.disable([name.strip() for name in names if name.strip() not in ("", "cgroup")])
            cls.applied = True


class Process:
    """This process, told from its forked copies without a system call per question."""

    def __init__(self) -> None:
        self.pid = os.getpid()


this_process = Process()
"""Who is to find out whether it is in a copy remembers it, and compares it with what the module has
then: a name imported from here is not replaced."""


def _become_another_process() -> None:
    global this_process
    this_process = Process()


os.register_at_fork(after_in_child=_become_another_process)


def in_use() -> frozenset[str]:
    """Return the kernel features in use; asks the kernel if no spawn has yet."""
    _Ladder.apply()
    return binding.features()


class Child:
    """A child, and the fds through which the kernel speaks of it.

    ``start`` makes it, ``abandon`` undoes that, ``try_reap`` ends it; between, ``exit_fd`` is to be
    watched for reading. ``pid`` is a number with a meaning only until the reaping. Who takes the
    fds of ``ours`` over for good empties it.
    """

    __slots__ = ("_birth", "_call", "_exit_fd", "_is_made", "_owner", "ours", "pid", "pidfd")

    def __init__(self, spec: SpawnSpec, epoll_fd: int = -1) -> None:
        self._exit_fd = -1  # first: an interrupt may leave the object half made
        self._owner = this_process
        self._is_made = False  # once it is, pid, pidfd and ours are here, and no longer the call's
        self._birth: int | None = None  # of one without a pidfd, as far as /proc tells
        self._call = binding.SpawnCall(len(spec.redirects), epoll_fd)
        self.pid = -1
        self.pidfd = -1
        self.ours: list[int] = []

    def start(self, spec: SpawnSpec) -> None:
        """Run the program of *spec*; pid, pidfd and ours are set, and ours belong to the caller.

        Raises SpawnError with nothing left open. When any other exception passes through (a
        KeyboardInterrupt between two lines), call `abandon`.
        """
        _Ladder.apply()
        try:
            self._call.ignored_signals = dispositions.ignored_now()
            binding.spawn(spec, self._call)
            self._take_over()
        except SpawnError as error:
            self.abandon()
            _explain(error, spec)
            raise

    def submit(
        self,
        threads: binding.SpawnerThreads,
        token: int,
        spec: SpawnSpec,
        keeps: bool,
        ignored_signals: int = 0,
    ) -> None:
        """Let one of *threads* do what `start` does; once it has given back *token*, `complete`.

        *keeps* as for `SpawnerThreads.submit`; *ignored_signals* is which are ignored when it is
        begun, 0 where that is not known. SpawnError when it is refused at once.
        """
        if not _Ladder.applied:
            _Ladder.apply()
        self._call.ignored_signals = ignored_signals or dispositions.ignored_until_begun()
        threads.submit(token, spec, self._call, keeps)

    def close_ended_pipes(self, epoll_fd: int) -> bool:
        """Close all that is open of ours, if all of it is at its end; return whether it was."""
        return self._call.close_ended(epoll_fd)

    def close_pipe(self, epoll_fd: int, fd: int) -> None:
        """Take *fd* out of the epoll set and close it; nothing when it is not open, or not ours."""
        self._call.close_ours(epoll_fd, fd)

    def has_pipe(self, fd: int) -> bool:
        """Whether *fd* is one of ours that is open."""
        return fd >= 0 and fd in self._call.ours

    @property
    def is_reaped(self) -> bool:
        """Whether `try_reap` has reaped the child, be it that an interrupt came out of it."""
        return self._call.is_reaped

    @property
    def is_started(self) -> bool:
        """Whether there is a child that a spawn has made, and nobody has reaped."""
        return self._call.pid >= 0

    def complete(self, spec: SpawnSpec) -> None:
        """Take over what the spawn has made, or what is left of it: pid, pidfd and ours are set.

        A child that the threads have reaped has pid -1. Raises SpawnError with nothing left open
        when the start has failed.
        """
        error = self._call.error(spec)
        if error is not None:
            _explain(error, spec)
            raise error
        self._take_over()

    def _take_over(self) -> None:
        pid, self.pidfd, ours = self._call.made()
        if self._exit_fd < 0:  # else an interrupt came after the watch below had begun
            self._exit_fd = self.pidfd
        if self._exit_fd < 0 <= pid:
            self._birth = _birth_if_seen(pid)
            self._exit_fd = _watch_by_thread(pid)
        self.ours = ours
        self.pid = pid
        self._is_made = True

    def abandon(self) -> None:
        """Kill and reap what `start` may have made, and close all fds, as if it had not been.

        For a child whose owner is no more, or never was: an interrupt came before. Idempotent.
        """
        is_new = not self._is_made
        if is_new:
            self.pid, self.pidfd, self.ours = self._call.made()
            self._is_made = True
        drop = partial(binding.drop, self._call.epoll_fd)
        while self.ours:
            fd = self.ours[-1]
            del self.ours[-1]  # not pop, after which an interrupt may strike
            if fd >= 0:
                drop(fd)
        if self.pid < 0:
            self.close(drop)
            return
        if is_new and self._birth is None and self.pidfd < 0:
            self._birth = _birth_if_seen(self.pid)
        try:
            self._signal(signal.SIGKILL)
        except OSError:
            pass  # reaped by others; or another user's by now (a setuid program), and let go of
        else:
            self.wait_exit()
            self.try_reap(drop)
        self.close(drop)
        self.pid = -1

    @property
    def mode(self) -> frozenset[str]:
        """The names of the kernel features that the start used."""
        return self._call.mode

    @property
    def exit_fd(self) -> int:
        """The fd that is readable once the child has ended; -1 after the reaping."""
        return self._exit_fd

    @property
    def exit_is_watched(self) -> bool:
        """Whether the start put `exit_fd` into the epoll set."""
        return self._call.epoll_fd >= 0 and self._exit_fd == self.pidfd

    def try_reap(self, close: Callable[[int], object] = close_fd) -> ExitStatus | None:
        """Return how the child ended, its fds closed by *close*; or None while it has not ended."""
        self.check_owner()
        status = self._reap()
        if status is not None:
            self.close(close)
            self.pid = -1
        return status

    def _reap(self) -> ExitStatus | None:
        if not self._call.is_reaped and self._is_anothers():
            self._call.lose()
        try:
            return self._call.reap(self.pidfd, self.pid)
        except OSError as denial:
            if not self._has_been_told():
                return None
            self._call.lose(denial.errno or errno.EPERM)
            return self._call.reap(self.pidfd, self.pid)

    def _has_been_told(self) -> bool:
        return self._exit_fd >= 0 and _wait_readable(self._exit_fd, 0)

    def _is_anothers(self) -> bool:
        """Whether the number is seen to be another process's by now. Not asked with a pidfd."""
        if self._birth is None:
            return False
        birth = _birth_if_seen(self.pid)
        return birth is not None and birth != self._birth

    def _is_seen(self) -> bool:
        """Whether /proc shows the child under its number, and its end has not been told."""
        if self._birth is None or self._has_been_told():
            return False
        return _birth_if_seen(self.pid) == self._birth

    @property
    def lost_error(self) -> int | None:
        """Why the status of a child that has ended, and has no pidfd, will never be had.

        0: others have reaped it; an errno: a sandbox denies every wait; None where it may be had.
        """
        if self.pidfd >= 0 or self.pid < 0:
            return None
        try:
            if self._is_anothers() or not binding.is_child(-1, self.pid):
                return 0
        except OSError as denial:
            return denial.errno if self._has_been_told() else None
        return None

    @property
    def pid_while_ours(self) -> int | None:
        """The child's number, unless it is reaped, be it by others; then it may be a stranger's."""
        if self.pid < 0 or self._is_anothers():
            return None
        try:
            is_ours = binding.is_child(self.pidfd, self.pid)
        except OSError:  # no wait is allowed: who lives has its number, and whose birth is known
            is_ours = not self._has_been_told() if self.pidfd >= 0 else self._birth is not None
        return self.pid if is_ours else None

    def try_reap_in(self, epoll_fd: int) -> ExitStatus | None:
        """Do as `try_reap` does; the fds are taken out of the epoll set before they are closed.

        An interrupt loses nothing: after one, a second call returns what the first one would have.
        """
        if self.pidfd < 0 <= self._exit_fd:  # which is none of the C core's
            return self.try_reap(partial(binding.drop, epoll_fd))
        self.check_owner()
        status = self._call.reap_in(epoll_fd)
        if status is not None:
            self.forget()
        return status

    def send_signal(self, number: int) -> None:
        """Send signal *number*; ProcessLookupError once the child is reaped, be it by others.

        OSError: EINVAL, EPERM; the latter, or ENOSYS, also where a sandbox leaves us without
        pidfds and waitid, and /proc does not show whose the number is.
        """
        self.check_owner()
        self._signal(number)

    def _signal(self, number: int) -> None:
        if self.pid < 0 or (self._birth is not None and self._is_anothers()):
            raise ProcessLookupError(errno.ESRCH, "the child has been reaped")
        try:
            binding.signal_child(self.pidfd, self.pid, number)
        except OSError as denial:
            if denial.errno not in (errno.EPERM, errno.ENOSYS) or not self._is_seen():
                raise
            os.kill(self.pid, number)  # right after the look

    def wait_exit(self) -> None:
        """Return when the child has ended; it is still to be reaped. Blocks."""
        if self.pidfd >= 0 and self._wait_by_pidfd():
            return
        if binding.wait_exit(self.pid):
            return
        if self._exit_fd >= 0:
            _wait_readable(self._exit_fd)
        else:
            _wait_by_looking(self.pid)

    def _wait_by_pidfd(self) -> bool:
        """Return True when the child has ended; False where a sandbox denies such a wait."""
        try:  # by the pidfd: where others have reaped it, the number may be another child's by now
            while _is_stop(os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)):
                os.waitid(os.P_PIDFD, self.pidfd, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
            return False
        return True

    def close(self, close: Callable[[int], object] = close_fd) -> None:
        """Let go of the child's fds. The child itself runs on, unwatched; idempotent."""
        pidfd, exit_fd = self.pidfd, self._exit_fd
        is_open = pidfd >= 0 and self._call.pidfd == pidfd  # else an interrupted call closed it
        self.pidfd = self._exit_fd = -1
        if is_open:
            close(pidfd)
        if exit_fd >= 0 and exit_fd != pidfd:
            close(exit_fd)

    def forget(self) -> None:
        """The child is reaped, and its pidfd closed."""
        self.pid = self.pidfd = self._exit_fd = -1

    def __del__(self) -> None:
        try:
            is_open = self._exit_fd >= 0
        except AttributeError:
            return  # an interrupt came before the first line of it
        if is_open and self._owner is this_process:
            self.close()

    def check_owner(self) -> None:
        """Raise ChildProcessError in a forked copy of the process that started it."""
        if self._owner is not this_process:
            raise ChildProcessError(
                errno.ECHILD,
                f"pid {self.pid} is a child of process {self._owner.pid}, not of this one",
            )


def _wait_readable(fd: int, timeout_ms: int | None = None) -> bool:
    """Return whether *fd* is readable, at the latest after so long; None: when it is."""
    poller = select.poll()  # not select.select, which knows no fd beyond 1023
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_ms))


def _is_stop(news: os.waitid_result | None) -> bool:
    """Whether a child has stopped that made us its tracer: told once, asked for or not."""
    return news is not None and news.si_code in (os.CLD_TRAPPED, os.CLD_STOPPED)


def _explain(error: SpawnError, spec: SpawnSpec) -> None:
    """Say what it was that a search, or an exec, did not find."""
    if error.stage != "exec" or error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return
    if spec.searched_name is not None:
        error.filename = os.fsdecode(spec.searched_name)
        error.hint = "it is in no directory of PATH"
    elif os.path.exists(os.path.join(spec.cwd or b"", spec.candidates[0])):
        error.hint = "the file is there; its interpreter (the #! line) or loader is not"


def open_exit_fd(pid: int) -> int:
    """Return an fd that is readable once *pid*, a child that others started, has ended.

    The caller closes it. For a child that nobody has reaped yet: the number must still be its own.
    For none: ProcessLookupError, or an fd that is readable soon. Readable at once where neither a
    pidfd nor a thread is to be had: who is not found to have ended then is to be looked at again,
    now and then. SpawnError (EMFILE, ENFILE; EAGAIN: nobody may wait for it either, or the
    interpreter is at its end).
    """
    if "pidfd" in in_use():
        fds: list[int] = []
        try:
            fds.extend(map(os.pidfd_open, (pid,)))  # as below
            return fds[0]
        except ProcessLookupError:
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise spawn_error(error.errno or 0, "exit watch") from error
        except BaseException:
            _close_all(fds)
            raise
    return _watch_by_thread(pid)


def _watch_by_thread(pid: int) -> int:
    """Return an eventfd that is readable once *pid* has ended; the caller closes it.

    Where no thread is to be had (a limit, or a sandbox in which libc can make none) it is readable
    at once: who watches it finds the child alive, and looks again a little later, as for one that a
    tracer holds. SpawnError (EMFILE, ENFILE; EAGAIN: nobody may wait for it either, or the
    interpreter is at its end).
    """
    if sys.is_finalizing():  # a new thread would never begin, and its start, before 3.12, not end
        raise spawn_error(errno.EAGAIN, "exit watch")
    fds: list[int] = []
    copies: list[int] = []
    try:
        # One call of C each, from the system call to the list: an interrupt after it loses no fd.
        fds.extend(map(os.eventfd, (0,), (os.EFD_CLOEXEC | os.EFD_NONBLOCK,)))
        # The thread writes to a copy of its own: by then the caller may have closed the first, and
        # the number may belong to another file.
        copies.extend(map(os.dup, fds))
        # A daemon: an interpreter that exits does not wait for its children.
        thread = threading.Thread(
            target=_wait_and_tell, args=(pid, copies), name=f"procreactor-wait-{pid}", daemon=True
        )
        if not _has_started(thread):
            _check_waits(pid)
            os.eventfd_write(fds[0], 1)
            _close_all(copies)
        return fds[0]
    except BaseException as error:
        _close_all(copies)
        _close_all(fds)
        if not isinstance(error, OSError):
            raise
        raise spawn_error(error.errno or 0, "exit watch") from error


def _has_started(thread: threading.Thread) -> bool:
    """Start *thread*; return False where there is none to be had."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


def _check_waits(pid: int) -> None:
    """OSError (EAGAIN) where nobody may ask whether *pid* has ended."""
    try:
        binding.is_child(-1, pid)
    except OSError:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None


def _wait_and_tell(pid: int, copies: list[int]) -> None:
    try:
        if not binding.wait_exit(pid):
            _wait_by_looking(pid)
    finally:  # whatever came out of it: who is never told waits forever
        _tell(copies)


def _tell(copies: list[int]) -> None:
    try:
        fd = copies.pop()  # whoever takes it out of the list closes it
    except IndexError:
        return  # our start was interrupted, and undone
    os.eventfd_write(fd, 1)
    close_fd(fd)


def _wait_by_looking(pid: int) -> None:
    """Return when /proc shows that *pid* has ended, or where there is none."""
    birth = None
    while True:
        try:
            row = processes.row_if_any(pid)
        except (OSError, MemoryError):
            pass  # no fd to look with, or no memory: nothing is known
        else:
            if row is None or not row.is_alive or birth not in (None, row.started):
                return
            birth = row.started
        time.sleep(_LOOK_AGAIN_S)


def _birth_if_seen(pid: int) -> int | None:
    """Return when *pid* was started; None also where no fd is to be had to look."""
    try:
        return processes.birth_of(pid)
    except OSError:
        return None


def _close_all(fds: list[int]) -> None:
    try:  # one call of C, so that an interrupt loses none
        deque(map(close_fd, map(fds.pop, repeat(-1, len(fds)))), 0)
    except IndexError:
        pass  # its thread has taken it, and closes it
