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

import os
from collections.abc import Sequence
from pathlib import Path

from procreactor._core import ffi, lib
from procreactor.errors import spawn_error
from procreactor.model import ExitStatus, ResourceUsage, SpawnSpec

__all__ = [
    "SpawnCall",
    "disable",
    "feature_names",
    "features",
    "open_pty",
    "open_timer",
    "reap",
    "reserve",
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
_launcher_path = os.fsencode(Path(__file__).resolve().parents[1] / "_launch")
_LAUNCHER = ffi.new("char[]", _launcher_path) if os.access(_launcher_path, os.X_OK) else ffi.NULL

_CLD_EXITED = 1
_CLD_DUMPED = 3


class SpawnCall:
    """One call of `spawn`: owns what it made until the attributes have been taken over.

    ``pid`` and ``pidfd`` are -1 before the call and after a failed one; ``ours`` holds our end of
    each redirect's pipe, -1 for a redirect that is no pipe; ``mode`` has the features used.
    """

    __slots__ = ("_ours", "_result", "_size")

    def __init__(self, redirects: int) -> None:
        self._size = redirects
        self._ours = ffi.new("int[]", [-1] * redirects)
        self._result = ffi.new("struct pr_result *")
        self._result.pid = self._result.pidfd = -1

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
        return ffi.unpack(self._ours, self._size)

    @property
    def mode(self) -> frozenset[str]:
        """The names of the features that this spawn used."""
        return feature_names(int(self._result.mode))


def _pack(strings: Sequence[bytes]) -> bytes:
    return b"\0".join(strings) + b"\0" if strings else b""


def spawn(spec: SpawnSpec, call: SpawnCall) -> None:
    """Start the child of *spec*; what was made is in *call*.

    Raises SpawnError with nothing left open. Blocks for as long as the kernel needs to exec.
    """
    request = ffi.new("struct pr_request *")
    blocks = [_pack(strings) for strings in (spec.candidates, spec.argv, spec.env)]
    buffers = [ffi.from_buffer("char[]", block) for block in blocks]
    counts = (len(spec.candidates), len(spec.argv), len(spec.env))
    fields = (request.candidates, request.argv, request.env)
    for field, block, buffer, count in zip(fields, blocks, buffers, counts, strict=True):
        field.bytes = buffer
        field.size = len(block)
        field.count = count
    # Everything that the request points to lives until the end of this function.
    kept = [
        ffi.new("int[]", [redirect.child_fd for redirect in spec.redirects]),
        ffi.new("int[]", [int(redirect.source) for redirect in spec.redirects]),
    ]
    request.child_fds, request.sources = kept
    request.fd_count = len(spec.redirects)
    if spec.cwd is not None:
        kept.append(ffi.new("char[]", spec.cwd))
        request.cwd = kept[-1]
    request.launcher = _LAUNCHER
    flags = 0
    if spec.identity is not None:
        kept.append(ffi.new("uint32_t[]", spec.identity.groups))
        flags |= lib.PR_FLAG_IDENTITY
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
        flags |= lib.PR_FLAG_UMASK
        request.umask = spec.umask
    if spec.new_session:
        flags |= lib.PR_FLAG_SESSION
    if spec.process_group is not None:
        flags |= lib.PR_FLAG_GROUP
        request.process_group = spec.process_group
    if spec.no_new_privileges:
        flags |= lib.PR_FLAG_NO_NEW_PRIVS
    if spec.signal_mask is not None:
        flags |= lib.PR_FLAG_SIGMASK
        request.signal_mask = sum(1 << (number - 1) for number in spec.signal_mask)
    request.flags = flags
    request.nice = spec.nice
    request.tty_fd = -1 if spec.controlling_tty_fd is None else spec.controlling_tty_fd
    request.death_signal = spec.parent_death_signal
    request.cgroup_fd = spec.cgroup_fd

    if lib.pr_spawn(request, call._result, call._ours) < 0:
        _raise_spawn_error(spec, call._result.stage, call._result.error, call._result.index)


def _raise_spawn_error(spec: SpawnSpec, stage: int, error: int, index: int) -> None:
    filename: bytes | None = spec.candidates[0] if spec.candidates else None
    hint = ""
    if stage == lib.PR_STAGE_EXEC:
        filename = spec.candidates[max(index, 0)]
    elif stage == lib.PR_STAGE_CHDIR:
        filename = spec.cwd
    elif stage in (lib.PR_STAGE_DUP, lib.PR_STAGE_PIPE) and index >= 0:
        redirect = spec.redirects[index]
        if not redirect.is_pipe:
            hint = f"child fd {redirect.child_fd} is mapped to parent fd {redirect.source}"
    elif stage == lib.PR_STAGE_RLIMIT:
        limit = spec.rlimits[index]
        hint = f"resource {limit.resource} to {limit.soft}:{limit.hard}"
    elif stage == lib.PR_STAGE_STOPPED:
        hint = "the target user stopped it before it had become the program; it was killed"
    raise spawn_error(error, stage_text(stage), filename, hint)


def reap(pidfd: int, pid: int) -> ExitStatus | None:
    """Return how the child ended, or None while it runs; after a status the child is gone.

    The status is empty when other code took it first (see `ExitStatus`). Never blocks.
    """
    exit_ = ffi.new("struct pr_exit *")
    code = lib.pr_reap(pidfd, pid, exit_)
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    return _translate_exit(exit_) if code else None


def _translate_exit(exit_: object) -> ExitStatus:
    raw: int | None
    code, status = exit_.code, exit_.status  # type: ignore[attr-defined]  # a cffi struct
    usage = ResourceUsage(
        user_s=exit_.user_us / 1e6,  # type: ignore[attr-defined]
        system_s=exit_.system_us / 1e6,  # type: ignore[attr-defined]
        max_rss_bytes=exit_.max_rss_kib * 1024,  # type: ignore[attr-defined]
        minor_faults=exit_.minor_faults,  # type: ignore[attr-defined]
        major_faults=exit_.major_faults,  # type: ignore[attr-defined]
        block_reads=exit_.block_reads,  # type: ignore[attr-defined]
        block_writes=exit_.block_writes,  # type: ignore[attr-defined]
        voluntary_switches=exit_.voluntary_switches,  # type: ignore[attr-defined]
        involuntary_switches=exit_.involuntary_switches,  # type: ignore[attr-defined]
    )
    if code == 0:
        return ExitStatus(usage=usage)
    if code == _CLD_EXITED:
        return ExitStatus(code=status, raw=status << 8, usage=usage)
    dumped = code == _CLD_DUMPED
    raw = status | 0x80 if dumped else status
    return ExitStatus(signal=status, core_dumped=dumped, raw=raw, usage=usage)


def wait_exit(pid: int) -> None:
    """Return when the child has ended; it is left to be reaped. Blocks."""
    lib.pr_wait_exit(pid)


def send_signal(pidfd: int, pid: int, number: int) -> None:
    """Send signal *number*; raises OSError (ESRCH: gone, EINVAL: no such signal, EPERM)."""
    code = lib.pr_signal(pidfd, pid, number)
    if code < 0:
        raise OSError(-code, os.strerror(-code))


def open_pty(rows: int, columns: int) -> tuple[int, int]:
    """Return (master, slave), both close-on-exec and the caller's; the master is non-blocking.

    0 rows and 0 columns leave the size unset, as Twisted does. Raises SpawnError.
    """
    fds = ffi.new("int[2]")
    stage = ffi.new("int *")
    code = lib.pr_open_pty(rows, columns, fds, stage)
    if code < 0:
        raise spawn_error(-code, stage_text(stage[0]), "/dev/ptmx")
    return fds[0], fds[1]


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
