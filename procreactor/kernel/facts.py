"""What this machine and its limits are: read, or tried on a pipe, a thread and no process.

Nothing is changed.

Sources: proc(5), getrlimit(2), pipe(7), epoll(7), cgroups(7). What cannot be read (no /proc, a
sandbox) is None: unknown, which is not the same as unlimited.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from procreactor.kernel import children
from procreactor.kernel.cgroups import find_directory
from procreactor.kernel.fds import close_fd

__all__ = ["Cgroup", "Facts", "Limit", "read_facts"]

UNLIMITED = resource.RLIM_INFINITY


@dataclass(frozen=True)
class Limit:
    """A soft and a hard limit; `UNLIMITED` is -1."""

    soft: int
    hard: int


@dataclass(frozen=True)
class Cgroup:
    """The cgroup v2 that this process is in."""

    directory: str
    controllers: tuple[str, ...]
    can_make_children: bool
    """Whether this process may make a cgroup below."""

    can_kill: bool
    """Whether the kernel has cgroup.kill (Linux 5.14)."""

    most_pids: int | None
    """The least pids.max of it and those above, None where it is none or unlimited."""


@dataclass(frozen=True)
class Facts:
    """All that decides how children are made here, and how many."""

    kernel: str
    machine: str
    python: str
    uid: int
    used: frozenset[str]
    """The kernel features in use."""

    disabled: frozenset[str]
    """Those that PROCREACTOR_DISABLE switches off."""

    has_proc: bool
    """Whether /proc tells a child which fds it has."""

    open_files: Limit
    processes: Limit
    """RLIMIT_NPROC, which does not bind root."""

    most_pids: int | None
    """kernel.pid_max."""

    most_threads: int | None
    """kernel.threads-max."""

    pipe_pages: int | None
    """fs.pipe-user-pages-soft: above it, this user's new pipes have one page; 0: no limit."""

    pipe_bytes: int | None
    """fs.pipe-max-size."""

    new_pipe_bytes: int | None
    """What a pipe holds that is made now: little where this user's pages are used up."""

    epoll_watches: int | None
    """fs.epoll.max_user_watches."""

    can_make_threads: bool
    """No, where a sandbox denies clone3 with EPERM, say: libc has no other way then."""

    denied: frozenset[str]
    """Which of pidfd_open, pidfd_send_signal and waitid the kernel has not, or a sandbox denies."""

    cgroup: Cgroup | None


def read_facts() -> Facts:
    """Return what is so now. Asks the kernel as the first spawn does, if there was none yet."""
    names = os.environ.get("PROCREACTOR_DISABLE", "").split(",")
    return Facts(
        kernel=platform.release(),
        machine=platform.machine(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        uid=os.geteuid(),
        used=children.in_use(),
        disabled=frozenset(name.strip() for name in names if name.strip()),
        has_proc=os.path.isdir("/proc/self/fd"),
        open_files=Limit(*resource.getrlimit(resource.RLIMIT_NOFILE)),
        processes=Limit(*resource.getrlimit(resource.RLIMIT_NPROC)),
        most_pids=_read_number("/proc/sys/kernel/pid_max"),
        most_threads=_read_number("/proc/sys/kernel/threads-max"),
        pipe_pages=_read_number("/proc/sys/fs/pipe-user-pages-soft"),
        pipe_bytes=_read_number("/proc/sys/fs/pipe-max-size"),
        new_pipe_bytes=_measure_new_pipe(),
        epoll_watches=_read_number("/proc/sys/fs/epoll/max_user_watches"),
        can_make_threads=_can_make_threads(),
        denied=frozenset(name for name, call in _CALLS.items() if _is_denied(call)),
        cgroup=_read_cgroup(),
    )


def _measure_new_pipe() -> int | None:
    try:
        fds = os.pipe()
    except OSError:
        return None
    try:
        return fcntl.fcntl(fds[0], fcntl.F_GETPIPE_SZ)
    finally:
        for fd in fds:
            close_fd(fd)


def _can_make_threads() -> bool:
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


_CALLS: Mapping[str, Callable[[], object]] = {
    "pidfd_open": lambda: os.pidfd_open(0),
    "pidfd_send_signal": lambda: signal.pidfd_send_signal(-1, 0),
    "waitid": lambda: os.waitid(os.P_PID, os.getpid(), os.WEXITED | os.WNOHANG),
}
"""Each with what it must refuse: no pid, no fd, no child. So nothing comes of it."""


def _is_denied(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError as error:
        return error.errno in (errno.ENOSYS, errno.EPERM)
    return False


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None


def _read_number(path: str | Path) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.strip().isdigit() else None


def _read_cgroup() -> Cgroup | None:
    cgroups = _read("/proc/self/cgroup") or ""
    found = find_directory(_read("/proc/self/mountinfo") or "", cgroups)
    if found is None:
        return None
    directory = Path(found)
    controllers = _read(directory / "cgroup.controllers")
    if controllers is None:  # its cgroup lies outside of what is mounted here
        return None
    return Cgroup(
        directory=str(directory),
        controllers=tuple(controllers.split()),
        can_make_children=os.access(directory, os.W_OK),
        can_kill=_knows_kill(),
        most_pids=min(_most_pids(directory), default=None),
    )


def _most_pids(directory: Path) -> Iterator[int]:
    """Yield pids.max of each group from there up that has one."""
    for group in (directory, *directory.parents):
        most = _read_number(group / "pids.max")
        if most is not None:
            yield most


def _knows_kill() -> bool:
    # The file itself is not there in the root cgroup.
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    return (major, minor) >= (5, 14)
