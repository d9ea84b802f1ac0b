"""The only importer of the compiled module: each function allocates, calls, translates the code.

Rules of the room:

- No policy: what is passed in is complete and checked; what comes back is what the kernel said.
- cffi lets go of the GIL around each call. The C core needs no lock (csrc/spawn.c says why), and
  what is allocated here belongs to one call.
- A spawn is owned by a `SpawnCall` from *before* the system call on, so that an exception from a
  signal handler (KeyboardInterrupt) between the C function's return and the next line finds the
  child's pid in it and loses nothing.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Sequence

from procreactor._core import ffi, lib
from procreactor.errors import SpawnError, report_denied_waits, spawn_error
from procreactor.model import ExitStatus, Redirect, ResourceUsage, SpawnSpec
from procreactor.typed import Any, new_tuple

__all__ = [
    "GATHERED_ALL_0",
    "GATHERED_ALL_1",
    "GATHERED_DATA",
    "GATHERED_EXIT",
    "GATHERED_OVER",
    "JOB_BEGUN",
    "JOB_FINISHED",
    "JOB_NEW",
    "JOB_RUNNING",
    "JOB_WAITING",
    "Gather",
    "GatherBuffer",
    "Result",
    "SpawnCall",
    "SpawnerThreads",
    "adopt_orphans",
    "cgroup_is_as_new",
    "disable",
    "drop",
    "feature_names",
    "features",
    "ignored_signals",
    "open_pty",
    "open_timer",
    "reserve",
    "room_for_pty",
    "send_signal",
    "set_timer",
    "spawn",
    "stage_text",
    "wait_exit",
]

_FEATURES = {
    "clone3": lib.PR_FEATURE_CLONE3,
    "pidfd": lib.PR_FEATURE_PIDFD,
    "unshare": lib.PR_FEATURE_UNSHARE,
    "close_range": lib.PR_FEATURE_CLOSE_RANGE,
    "vfork": lib.PR_FEATURE_VFORK,
    "helper": lib.PR_FEATURE_HELPER,
}

# The launcher lies beside the compiled module; without one (setup.py says when), identities fork.
_launcher_path = os.fsencode(
    os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "_launch")
)
_LAUNCHER = ffi.new("char[]", _launcher_path) if os.access(_launcher_path, os.X_OK) else ffi.NULL

_CLD_EXITED = 1
_CLD_DUMPED = 3
_NOT_REAPED = -1
"""In pr_exit.code, which the kernel fills with CLD_EXITED ..., and the C core with 0."""

# Constants of the module are looked up by cffi, which costs more than a global.
_IDENTITY = lib.PR_FLAG_IDENTITY
_UMASK = lib.PR_FLAG_UMASK
_SESSION = lib.PR_FLAG_SESSION
_GROUP = lib.PR_FLAG_GROUP
_SIGMASK = lib.PR_FLAG_SIGMASK
_NO_NEW_PRIVS = lib.PR_FLAG_NO_NEW_PRIVS
_WATCH = lib.PR_FLAG_WATCH
_IGNORED = lib.PR_FLAG_IGNORED
_MAY_FREEZE = lib.PR_FLAG_MAY_FREEZE

# struct pr_exit, read in one step: two ints, then nine 64-bit counts in the order of ResourceUsage.
_EXIT = struct.Struct("=ii9q")


class SpawnCall:
    """One call of `spawn`: owns what it made until the attributes have been taken over.

    ``pid`` and ``pidfd`` are -1 before the call and after a failed one; ``ours`` holds our end of
    each redirect's pipe, -1 for a redirect that is no pipe; ``mode`` has the features used. With
    an ``epoll_fd``, that set watches ``ours`` and ``pidfd``: read ends and pidfd for EPOLLIN.
    """

    __slots__ = ("_exit", "_ours", "_result", "_size", "epoll_fd", "ignored_signals")

    def __init__(self, redirects: int, epoll_fd: int = -1) -> None:
        self._size = redirects
        self._ours = ffi.new("int[]", [-1] * redirects)
        self.epoll_fd = epoll_fd
        self.ignored_signals = 0
        """Bit n-1: this process may ignore signal n. 0: unknown, so the child resets all."""

        self._result = ffi.new("struct pr_result *")
        self._result.pid = self._result.pidfd = -1
        self._exit: Any = None

    def made(self) -> tuple[int, int, list[int]]:
        """Return pid, pidfd and ours in one go, after a start that succeeded."""
        result = self._result
        return result.pid, result.pidfd, list(self._ours)

    def close_ended(self, epoll_fd: int) -> bool:
        """Close all that is open of ours, and return True, if all of it is at its end.

        Otherwise, or with more than 16 pipes, nothing is done. Reads nothing.
        """
        return bool(lib.pr_close_ended(epoll_fd, self._ours, self._size))

    def close_ours(self, epoll_fd: int, fd: int) -> None:
        """Take *fd* out of the epoll set and close it; nothing when it is not one of ours."""
        lib.pr_close_ours(epoll_fd, self._ours, self._size, fd)

    def reap(self, pidfd: int, pid: int) -> ExitStatus | None:
        """Return how the child ended, or None while it runs; after a status the child is gone.

        The status is empty when other code took it first (see `ExitStatus`). Never blocks. Once
        reaped, the same again and again: what an interrupt kept from being told is not lost.
        """
        if not self.is_reaped and not _is_so(lib.pr_reap(pidfd, pid, self._room_for_exit())):
            return None
        return _read_exit(self._exit)

    def reap_in(self, epoll_fd: int) -> ExitStatus | None:
        """Do as `reap` does; ``pidfd`` is then out of the epoll set, closed, and -1."""
        if not self.is_reaped and not _is_so(
            lib.pr_reap_in(epoll_fd, self._result, self._room_for_exit())
        ):
            return None
        return _read_exit(self._exit)

    def lose(self, error: int = 0) -> None:
        """Count the child as reaped, and its status as lost; for *error*, if no wait is allowed."""
        room = self._room_for_exit()
        room.status = error
        room.code = 0

    def _room_for_exit(self) -> Any:
        if self._exit is None:
            exit_ = ffi.new("struct pr_exit *")
            exit_.code = _NOT_REAPED
            self._exit = exit_
        return self._exit

    @property
    def is_reaped(self) -> bool:
        """Whether `reap` has reaped the child, be it that an interrupt kept it from telling."""
        return self._exit is not None and self._exit.code != _NOT_REAPED

    @property
    def pid(self) -> int:
        """The child, or -1."""
        return int(self._result.pid)

    @property
    def pidfd(self) -> int:
        """Its pidfd, or -1 where there are none."""
        return int(self._result.pidfd)

    @property
    def ours(self) -> list[int]:
        """Our pipe ends, in the order of the redirects."""
        return list(self._ours)

    def error(self, spec: SpawnSpec) -> SpawnError | None:
        """Why the start failed, or None when it did not."""
        result = self._result
        if not result.error:
            return None
        return _spawn_error(spec, result.stage, result.error, result.index)

    @property
    def mode(self) -> frozenset[str]:
        """The names of the features that this spawn used."""
        return feature_names(int(self._result.mode))


class _Packed:
    """The C form of the last tuple of a kind, for as long as the same tuple comes again.

    Most spawns of a program share their path, their environment and their fd map, and packing an
    environment costs more than all the rest of the request. A tuple of bytes cannot change, so
    identity is enough, and as it is held here its address cannot become another's. Threads may
    race: each reads or replaces a whole entry.
    """

    __slots__ = ("_pack", "last")

    def __init__(self, pack: Callable[[Any], Any]) -> None:
        self._pack = pack
        self.last: tuple[object, Any] = (None, None)
        """The values, and what they are in C. To be read in one go."""

    def get(self, values: Sequence[Any]) -> Any:
        """Return what *values* are in C."""
        last = self.last
        if last[0] is values:
            return last[1]
        packed = self._pack(values)
        if type(values) is tuple:
            self.last = (values, packed)
        return packed


def _pack_strings(strings: Sequence[bytes]) -> tuple[Any, int, int]:
    block = b"\0".join(strings) + b"\0" if strings else b""
    return ffi.from_buffer("char[]", block), len(block), len(strings)


def _pack_redirects(redirects: Sequence[Redirect]) -> tuple[Any, Any, int, Any]:
    return (
        ffi.new("int[]", [redirect.child_fd for redirect in redirects]),
        ffi.new("int[]", [int(redirect.source) for redirect in redirects]),
        len(redirects),
        ffi.new("int[3]", [_row_of(redirects, child_fd) for child_fd in range(3)]),
    )


def _row_of(redirects: Sequence[Redirect], child_fd: int) -> int:
    """Return which row is a pipe at *child_fd*, or -1."""
    for row, redirect in enumerate(redirects):
        if redirect.child_fd == child_fd and redirect.is_pipe:
            return row
    return -1


_candidates = _Packed(_pack_strings)
_envs = _Packed(_pack_strings)
_redirects = _Packed(_pack_redirects)


def spawn(spec: SpawnSpec, call: SpawnCall) -> None:
    """Start the child of *spec*; what was made is in *call*.

    Raises SpawnError with nothing left open. Blocks for as long as the kernel needs to exec.
    """
    # What the request points to is referred to by a local name until the end.
    request, kept = _prepare(spec, call)
    if lib.pr_spawn(request, call._result, call._ours) < 0:
        raise call.error(spec) or AssertionError("a failed spawn has an errno")
    del request, kept


def _prepare(spec: SpawnSpec, call: SpawnCall) -> tuple[Any, tuple[Any, ...]]:
    """Return the request for *spec*, and what is to live as long as the C core borrows it.

    The latter are the C forms of candidates, argv, environment, redirects and options, in this
    order.
    """
    request = ffi.new("struct pr_request *")
    # A struct at once: cffi takes as long for each field that is set.
    # And of what is the same for most, `_Packed.get` would be called for nothing.
    values, candidates = _candidates.last
    if values is not spec.candidates:
        candidates = _candidates.get(spec.candidates)
    values, env = _envs.last
    if values is not spec.env:
        env = _envs.get(spec.env)
    values, redirects = _redirects.last
    if values is not spec.redirects:
        redirects = _redirects.get(spec.redirects)
    request.candidates = candidates
    request.argv = argv = _pack_strings(spec.argv)
    request.env = env
    request.child_fds, request.sources, request.fd_count, _ = redirects
    request.launcher = _LAUNCHER
    options = _fill_options(request, spec)
    if call.epoll_fd >= 0:
        request.epoll_fd = call.epoll_fd
        request.flags |= _WATCH
    if call.ignored_signals:
        request.ignored_signals = call.ignored_signals
        request.flags |= _IGNORED
    return request, (candidates, argv, env, redirects, options)


def _fill_options(request: Any, spec: SpawnSpec) -> list[Any]:
    """Fill in what most spawns do without; return what the request then points to."""
    kept: list[Any] = []
    flags = 0
    if spec.cwd is not None:
        kept.append(ffi.new("char[]", spec.cwd))
        request.cwd = kept[-1]
    if spec.identity is not None:
        kept.append(ffi.new("uint32_t[]", spec.identity.groups))
        flags |= _IDENTITY
        request.uid = spec.identity.uid
        request.gid = spec.identity.gid
        request.groups = kept[-1]
        request.group_count = len(spec.identity.groups)
    if spec.rlimits:
        rows = [(limit.resource, limit.soft, limit.hard) for limit in spec.rlimits]
        kept.append(ffi.new("struct pr_rlimit[]", rows))
        request.rlimits = kept[-1]
        request.rlimit_count = len(rows)
    if spec.umask is not None:
        flags |= _UMASK
        request.umask = spec.umask
    if spec.new_session:
        flags |= _SESSION
    if spec.process_group is not None:
        flags |= _GROUP
        request.process_group = spec.process_group
    if spec.no_new_privileges:
        flags |= _NO_NEW_PRIVS
    if spec.signal_mask is not None:
        flags |= _SIGMASK
        request.signal_mask = sum(1 << (number - 1) for number in spec.signal_mask)
    cgroup_fd = request.cgroup_fd = spec.cgroup_fd
    if cgroup_fd >= 0 and spec.cgroup_may_freeze:
        flags |= _MAY_FREEZE
    if flags:
        request.flags = flags
    if spec.nice:
        request.nice = spec.nice
    request.tty_fd = -1 if spec.controlling_tty_fd is None else spec.controlling_tty_fd
    if spec.parent_death_signal:
        request.death_signal = spec.parent_death_signal
    return kept


GATHERED_ALL_0: int = lib.PR_GATHERED_ALL_0
GATHERED_ALL_1: int = lib.PR_GATHERED_ALL_1
GATHERED_EXIT: int = lib.PR_GATHERED_EXIT
GATHERED_DATA: int = lib.PR_GATHERED_DATA
GATHERED_OVER = GATHERED_ALL_0 | GATHERED_ALL_1 | GATHERED_EXIT
"""Both streams are at their end and the child is reaped."""

JOB_NEW: int = lib.PR_JOB_NEW
JOB_WAITING: int = lib.PR_JOB_WAITING
JOB_BEGUN: int = lib.PR_JOB_BEGUN
JOB_RUNNING: int = lib.PR_JOB_RUNNING
JOB_FINISHED: int = lib.PR_JOB_FINISHED
_JOB_CLAIMED: int = lib.PR_JOB_CLAIMED

Span = tuple[int, int, int]
"""The number that a child has or had (-1: there was none), when its start was begun (0: it was
not), and when the threads reaped it (0: they did not), in nanoseconds of time.monotonic."""

Result = tuple[int, ExitStatus | None, tuple[bytes, bytes] | None, Span]
"""The GATHERED bits, how the child ended if it did, what its streams brought, and when that was."""


_CAPACITY = 64
"""How many tokens a struct pr_taken has room for."""


class SpawnerThreads:
    """The native threads of csrc/spawner.c, and the jobs that are with them.

    At most *at_once* children live at once (0: any number), but for those that were released.
    A job is the caller's memory and stays here from `submit` until it was delivered, or claimed.
    Not for use by two threads at once. After os.fork the copy has none of the threads: `abandon`
    it there.
    """

    __slots__ = ("_batch", "_done", "_fds", "_handle", "_jobs", "_opened", "_pid", "_taken")

    def __init__(self, threads: int, at_once: int) -> None:
        self._fds: list[int] = []
        self._pid = os.getpid()
        self._opened = ffi.new("struct pr_spawner **")
        self._jobs: dict[int, tuple[Any, ...]] = {}
        # In C's memory, which an exception of a signal handler does not lose, as it does a result.
        self._taken = ffi.new("struct pr_taken *")
        self._batch: list[int] = []
        self._done = 0  # how many of them have been delivered
        code = lib.pr_spawner_open(threads, at_once, self._opened)
        if code < 0:
            raise OSError(-code, os.strerror(-code), "spawner threads")
        self._handle = self._opened[0]
        fds = ffi.new("int[3]")
        lib.pr_spawner_fds(self._handle, fds)
        self._fds = ffi.unpack(fds, 3)

    def fileno(self) -> int:
        """An fd, readable when jobs are done."""
        return self._fds[0]

    def submit(self, token: int, spec: SpawnSpec, call: SpawnCall, keeps: bool) -> None:
        """Let a thread start the child of *spec*; SpawnError when it cannot even be begun.

        With *keeps* the threads see it to its end: its standard input is closed at once, and
        `take` tells what it brought.
        """
        request, kept = _prepare(spec, call)
        job = ffi.new("struct pr_job *")
        job.request = request
        job.result = call._result
        job.ours = call._ours
        job.token = token
        if keeps:
            job.keeps = 1
            job.rows = kept[3][3]
        self._jobs[token] = (job, request, kept, call)
        if lib.pr_spawner_submit(self._handle, job) < 0:
            del self._jobs[token]
            raise call.error(spec) or AssertionError("a refused job has an errno")

    def __contains__(self, token: int) -> bool:
        """Whether a job was submitted under *token* and is still here."""
        return token in self._jobs

    def take(self, deliver: Callable[[int, Result], object]) -> None:
        """Call *deliver* with token and result of each job that is done. Waits for none.

        With all of GATHERED_OVER nothing is left of the child. Otherwise its `SpawnCall` has what
        is: why it was not started, or pid (-1: reaped), pidfd, and the streams that are open. When
        an exception comes out of it, the next call goes on with the same job, or the next one.
        """
        jobs = self._jobs
        while self._done < len(self._batch) or self._fetch():
            token = self._batch[self._done]
            if token in jobs:
                job = jobs[token][0]
                told: int = job.told
                status = _read_exit(job) if told & GATHERED_EXIT else None
                if told & GATHERED_DATA and job.data:  # else delivered, before an interrupt
                    deliver(token, (told, status, _read_data(job), _read_span(job)))
                    lib.pr_job_forget_data(job)
                else:
                    deliver(token, (told, status, None, _read_span(job)))
                del jobs[token]
            self._done += 1

    def _fetch(self) -> bool:
        """Have the next tokens, if there are any, in `_batch`."""
        taken = self._taken
        is_old = taken.next or not taken.count  # else an interrupt came before they were
        if is_old and not (self._handle and lib.pr_spawner_take(self._handle, taken, _CAPACITY)):
            return False
        self._batch, self._done = ffi.unpack(taken.tokens, taken.count), 0
        taken.next = 1
        return True

    def claim(self, token: int) -> tuple[int, Span]:
        """Return where a job is (JOB_WAITING ...); one that was JOB_RUNNING is now the caller's.

        Its `SpawnCall` has the child, which lives or has just ended.
        """
        job = self._jobs[token][0]
        state: int = lib.pr_spawner_claim(self._handle, job)
        if state == _JOB_CLAIMED:  # in an earlier call, out of which an interrupt came
            state = JOB_RUNNING
        if state == JOB_RUNNING:
            del self._jobs[token]
        return state, _read_span(job)

    def state(self, token: int) -> int:
        """Return where a job is (JOB_WAITING ...) that is here."""
        state: int = lib.pr_spawner_state(self._handle, self._jobs[token][0])
        return JOB_RUNNING if state == _JOB_CLAIMED else state

    def release(self) -> None:
        """Tell that a child is over which was claimed, or done alive or with open streams."""
        lib.pr_spawner_release(self._handle)

    def cancel(self) -> None:
        """Have the jobs that no thread has begun fail with ECANCELED, to be taken."""
        lib.pr_spawner_cancel(self._handle)

    def close(self) -> None:
        """Begin no more jobs; return when those begun are done and the threads have ended.

        What had not begun fails with ECANCELED. `take`, then `free`. Idempotent.
        """
        if self._handle:
            lib.pr_spawner_close(self._handle)

    def free(self) -> None:
        """Let go of everything, after `close`. Idempotent."""
        handle = self._opened[0]
        if handle:
            for job, *_ in self._jobs.values():
                lib.pr_job_forget_data(job)  # taken, and lost to an exception
            self._handle = None
            self._opened[0] = ffi.NULL  # right before: an interrupt comes after a call only
            lib.pr_spawner_free(handle)

    def abandon(self) -> None:
        """Close the copy's fds, in a forked copy of the process. Idempotent."""
        handle, self._opened[0] = self._opened[0], ffi.NULL
        self._handle = None
        if handle:
            lib.pr_spawner_close_fds(handle)

    def __del__(self) -> None:
        """Of one that an interrupt left half made: it has no jobs, and nobody else can end it."""
        if not hasattr(self, "_opened") or not self._opened[0]:
            return
        if self._pid != os.getpid():  # the collector may come here before the Spawner
            self.abandon()
        else:
            lib.pr_spawner_close(self._opened[0])
            self.free()


def _read_data(job: Any) -> tuple[bytes, bytes]:
    first, second = job.gather.sizes
    data = ffi.buffer(job.data, first + second)
    return data[:first], data[first:]


def _read_span(job: Any) -> Span:
    return job.made_pid, job.begun_ns, job.ended_ns


def _read_exit(gather: Any) -> ExitStatus:
    """Read the struct pr_exit at which *gather*, or what begins with one, begins."""
    return _translate_exit(*_EXIT.unpack(ffi.buffer(gather, _EXIT.size)))


class GatherBuffer:
    """Room for one `Gather.gather` at a time: *part_bytes* for each of the two streams."""

    __slots__ = ("_buffer", "part_bytes")

    def __init__(self, part_bytes: int) -> None:
        self.part_bytes = part_bytes
        self._buffer = ffi.new("char[]", 2 * part_bytes)

    def copy(self, stream: int, size_bytes: int) -> bytes:
        """Return the first *size_bytes* that were read of *stream*."""
        begin = stream * self.part_bytes
        return ffi.buffer(self._buffer)[begin : begin + size_bytes]


class Gather:
    """Two streams and the exit of one child in one epoll set (struct pr_gather).

    Owns the fds it is given until it, or `close`, has closed them. -1 stands for none; with a *pid*
    of -1 the child is reaped, and only its streams are left.
    """

    __slots__ = ("_gather",)

    def __init__(self, epoll_fd: int, pid: int, pidfd: int, out_fd: int, err_fd: int) -> None:
        gather = self._gather = ffi.new("struct pr_gather *")
        gather.epoll_fd = epoll_fd
        gather.pid = pid
        gather.pidfd = pidfd
        gather.out_fds = (out_fd, err_fd)
        gather.reaped = pid < 0

    def watch(self, with_pidfd: bool) -> None:
        """Have the epoll set watch the streams; OSError (ENOSPC, ENOMEM) leaves none watched."""
        code = lib.pr_gather_watch(self._gather, with_pidfd)
        if code < 0:
            raise OSError(-code, os.strerror(-code), "epoll watch")

    def gather(self, buffer: GatherBuffer) -> int:
        """Read and reap what there is; return a set of the GATHERED bits. Never blocks."""
        told: int = lib.pr_gather(self._gather, buffer._buffer, buffer.part_bytes)
        return told

    def data(self, buffer: GatherBuffer) -> tuple[bytes, bytes]:
        """What the last `gather` has read, once it told GATHERED_DATA."""
        first, second = self._gather.sizes
        return buffer.copy(0, first), buffer.copy(1, second)

    def size(self) -> int:
        """How many bytes that were, of both streams."""
        return int(sum(self._gather.sizes))

    def status(self) -> ExitStatus:
        """How the child ended, once GATHERED_EXIT was told."""
        return _read_exit(self._gather)

    def lose(self, error: int = 0) -> None:
        """Count the child as reaped, and its status as lost, as `SpawnCall.lose` does."""
        self._gather.exit.code = 0
        self._gather.exit.status = error
        self._gather.reaped = 1

    def close(self) -> None:
        """Close what is still open; the child is not reaped by it. Idempotent."""
        lib.pr_gather_close(self._gather)


_WATCH_HINTS = {
    errno.EBADF: "other code of this process has closed an fd of ours",
    errno.ENOSPC: "this user's loops watch as many fds as they may (fs.epoll.max_user_watches)",
}


def _spawn_error(spec: SpawnSpec, stage: int, error: int, index: int) -> SpawnError:
    filename: bytes | None = spec.candidates[0] if spec.candidates else None
    hint = ""
    if stage == lib.PR_STAGE_EXEC:
        filename = spec.candidates[max(index, 0)]
    elif stage == lib.PR_STAGE_CHDIR:
        filename = spec.cwd
    elif stage == lib.PR_STAGE_WATCH:
        hint = _WATCH_HINTS.get(error, "")
    elif stage in (lib.PR_STAGE_DUP, lib.PR_STAGE_PIPE) and index >= 0:
        redirect = spec.redirects[index]
        if redirect.source >= 0:
            hint = f"child fd {redirect.child_fd} is mapped to parent fd {redirect.source}"
    elif stage == lib.PR_STAGE_RLIMIT:
        limit = spec.rlimits[index]
        hint = f"resource {limit.resource} to {limit.soft}:{limit.hard}"
    elif stage == lib.PR_STAGE_STOPPED:
        hint = "it was stopped before it had become the program, by its new user say, and killed"
    elif stage == lib.PR_STAGE_FROZEN:
        hint = "its cgroup, or one above, is frozen (cgroup.freeze); it was killed"
    return spawn_error(error, stage_text(stage), filename, hint)


drop = lib.pr_drop
"""``drop(epoll_fd, fd)``: take *fd*, of the caller, out of the epoll set, and close it.

With -1 it is in none. Returns 0, or -EBADF when it was not open.
"""


def _is_so(code: int) -> bool:
    _check(code)
    return code > 0


def _translate_exit(
    code: int, status: int, user_us: int, system_us: int, max_rss_kib: int, *counts: int
) -> ExitStatus:
    usage = new_tuple(ResourceUsage, (user_us / 1e6, system_us / 1e6, max_rss_kib * 1024, *counts))
    if code == _CLD_EXITED:
        return new_tuple(ExitStatus, (status, None, False, status << 8, usage))
    if code == 0:
        if status:
            report_denied_waits(status)
        return ExitStatus(usage=usage)
    dumped = code == _CLD_DUMPED
    raw = status | 0x80 if dumped else status
    return ExitStatus(signal=status, core_dumped=dumped, raw=raw, usage=usage)


def wait_exit(pid: int) -> bool:
    """Return True when the child has ended, left to be reaped; False where no wait is allowed.

    Blocks.
    """
    return not lib.pr_wait_exit(pid)


def is_child(pidfd: int, pid: int) -> bool:
    """Whether *pid* is a child that nobody has reaped; OSError (EPERM, ENOSYS): no wait is allowed.

    With a *pidfd* that very one; without (-1), whichever child has the number now.
    """
    return _is_so(lib.pr_is_child(pidfd, pid))


def send_signal(pidfd: int, pid: int, number: int) -> None:
    """Send signal *number* to any process; OSError (ESRCH: gone, EINVAL: no such signal, EPERM).

    Without a *pidfd* (-1) the caller knows that the number is that of who is meant.
    """
    _check(lib.pr_signal(pidfd, pid, number))


def signal_child(pidfd: int, pid: int, number: int) -> None:
    """Send signal *number* to a child, by its number only while it `is_child`; as `send_signal`."""
    _check(lib.pr_signal_child(pidfd, pid, number))


def _check(code: int) -> None:
    if code < 0:
        raise OSError(-code, os.strerror(-code))


def adopt_orphans(on: bool | None) -> bool:
    """Have descendants that lose their parent become children of this process, or not any more.

    Return whether they did before; with None that is all. OSError.
    """
    before: int = lib.pr_adopt_orphans(-1 if on is None else int(on))
    if before < 0:
        raise OSError(-before, os.strerror(-before), "child subreaper")
    return bool(before)


def room_for_pty() -> Any:
    """Return memory for the fds of `open_pty`: two numbers, -1 until it has opened them."""
    return ffi.new("int[2]", [-1, -1])


def open_pty(rows: int, columns: int, room: Any = None) -> tuple[int, int]:
    """Return (master, slave), both close-on-exec and the caller's; the master is non-blocking.

    0 rows and 0 columns leave the size unset, as Twisted does. Raises SpawnError. The fds are in
    *room* as well, where an exception of a signal handler does not lose them.
    """
    fds = room_for_pty() if room is None else room
    stage = ffi.new("int *")
    code = lib.pr_open_pty(rows, columns, fds, stage)
    if code < 0:
        raise spawn_error(-code, stage_text(stage[0]), "/dev/ptmx")
    return fds[0], fds[1]


def cgroup_is_as_new(directory_fd: int, events_fd: int) -> bool:
    """Whether another child may be born into a cgroup (csrc/procreactor.h); OSError."""
    code: int = lib.pr_cgroup_is_as_new(directory_fd, events_fd)
    if code < 0:
        _check(code)
    return code > 0


def open_timer() -> int:
    """Return a timerfd on the clock of time.monotonic, owned by the caller; OSError (EMFILE)."""
    fd = lib.pr_open_timer()
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    return fd


def set_timer(fd: int, deadline_ns: int) -> None:
    """Make *fd* readable from *deadline_ns* on, and not before; 0 means never."""
    code = lib.pr_set_timer(fd, deadline_ns)
    if code < 0:
        raise OSError(-code, os.strerror(-code))


def reserve() -> None:
    """Reserve low fd numbers as landing slots, once; the earlier, the flatter (csrc/slots.c)."""
    lib.pr_reserve()


def ignored_signals() -> int:
    """Return which signals this process ignores, bit n-1 for signal n; 62 system calls."""
    return int(lib.pr_ignored_signals())


def disable(names: Sequence[str]) -> None:
    """Take the named features away for the life of this process; ValueError for unknown names."""
    for name in names:
        if name not in _FEATURES:
            raise ValueError(f"unknown feature {name!r}; known are {', '.join(_FEATURES)}")
    lib.pr_disable(sum(_FEATURES[name] for name in set(names)))


def feature_names(bits: int) -> frozenset[str]:
    """Return the names of a set of feature bits."""
    return frozenset(name for name, bit in _FEATURES.items() if bits & bit)


def features() -> frozenset[str]:
    """Return the features in use; asks the kernel if no spawn has yet."""
    return feature_names(lib.pr_features())


def stage_text(stage: int) -> str:
    """Return the words for a stage of procreactor.h."""
    return ffi.string(lib.pr_stage_text(stage)).decode("ascii")
