"""The system calls that the package makes, the errors that each may have, and where these are told.

By name, with what decides about the errors: an operation, or the kind of file. An error is one that
the man page has for this use of the call, or that a sandbox gives (EPERM, ENOSYS). The likeliest
come first: acts that are not thorough have only two of them.

What is told of an error is an exception with its errno, and, when it comes out of the start of a
child, with a stage (errors.py). "" is an exception without a stage, of what is no start. A call
without any stage is never told of: it is tried again, or done without.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import (
    E2BIG,
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    EINTR,
    EINVAL,
    EIO,
    EMFILE,
    ENFILE,
    ENODEV,
    ENOENT,
    ENOEXEC,
    ENOLCK,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTTY,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
    EROFS,
    ETIMEDOUT,
    ETXTBSY,
)

from faults.supervision import SHORT

__all__ = ["CALLS", "DATABASE", "ENDS", "LIBC_CALLS", "UNREACHED", "find_call"]

Call = tuple[tuple[int, ...], tuple[str, ...]]
"""Errors and stages."""

CALLS: Mapping[str, Call] = {
    "capset": ((EPERM,), ("setuid",)),
    "chdir": ((ENOENT, EACCES, EIO), ("chdir",)),
    "clone": ((EAGAIN, EPERM, ENOMEM, EMFILE, EINVAL), ("clone",)),
    "clone3": ((EAGAIN, ENOSYS, ENOMEM, EMFILE, EPERM, EINVAL), ("clone",)),
    "clone3 into cgroup": ((EBUSY, EACCES, EAGAIN, ENOSYS, EOPNOTSUPP), ("clone", "cgroup")),
    "close": ((EINTR, EIO), ()),
    "close_range": ((ENOMEM, ENOSYS, EPERM, EINVAL), ("unshare",)),
    "dup3": ((EMFILE, EBUSY, EBADF), ("dup", "report pipe")),
    "epoll_create1": ((EMFILE, ENOMEM, ENFILE), ("",)),
    "epoll_ctl ADD": ((ENOSPC, ENOMEM), ("watch", "")),
    "epoll_ctl DEL": ((), ()),  # needs nothing that could be short
    "epoll_ctl MOD": ((ENOMEM,), ("",)),
    "epoll_pwait": ((EINTR,), ()),
    "epoll_wait": ((EINTR,), ()),
    "eventfd2": ((EMFILE, ENOMEM, ENFILE), ("exit watch", "")),
    "execve": ((ENOENT, ETXTBSY, EACCES, EPERM, ENOEXEC, ENOMEM, EAGAIN, E2BIG), ("exec",)),
    "exit_group": ((), ()),
    "fcntl": ((EMFILE, EPERM), ("pipe", "report pipe", "exit watch", "")),
    "fstat": ((EPERM,), ()),
    "futex": ((ETIMEDOUT, ENOSYS, EINTR, EAGAIN), ()),
    "getpid": ((), ()),
    "getppid": ((), ()),
    "getpriority": ((EPERM,), ("nice",)),
    "getresuid": ((EPERM,), ()),
    "ioctl": (
        (EIO, EPERM, ENOTTY),
        ("unlock pty", "open pty slave", "pty window size", "controlling terminal"),
    ),
    "kill": ((EPERM,), ("",)),
    "mmap": ((ENOMEM,), ("clone",)),
    "mprotect": ((ENOMEM,), ("clone",)),
    "openat": ((EMFILE, ENOSPC, ENOENT, EACCES, ENOMEM), ("open pty", "cgroup")),
    "openat cgroup": ((EMFILE, EACCES), ()),  # is it frozen? If nobody can look, it is not
    "pidfd_send_signal": ((ENOSYS, EPERM), ("",)),
    "pipe2": ((EMFILE, ENFILE), ("pipe", "report pipe", "")),
    "ppoll": ((EINTR, ENOMEM, ENOSYS), ()),
    "pread64 cgroup": ((ENOMEM, EINTR, ENODEV), ("",)),
    "prctl": ((EINVAL, EPERM), ("no_new_privs", "parent death signal", "")),
    "prlimit64": ((EPERM, EINVAL), ("rlimit",)),
    "read cgroup": ((EINTR, ENODEV), ()),
    "read eventfd": ((EINTR, EAGAIN), ()),
    "read pipe": ((EINTR, EAGAIN, SHORT), ("report pipe",)),
    "read terminal": ((EINTR, EIO, EAGAIN, SHORT), ()),
    "rt_sigaction": ((EINVAL,), ()),
    "rt_sigprocmask": ((), ()),
    "setgroups": ((EPERM, ENOMEM, EINVAL), ("setgroups",)),
    "setpriority": ((EACCES, EPERM), ("nice",)),
    "setresgid": ((EPERM, EINVAL), ("setgid",)),
    "setresuid": ((EPERM, EAGAIN, EINVAL), ("setuid",)),
    "setsid": ((EPERM,), ("setsid",)),
    "timerfd_create": ((EMFILE, ENFILE), ("",)),
    "timerfd_settime": ((EINVAL,), ("",)),
    "umask": ((), ()),
    "waitid": ((EINTR,), ()),
    "write": ((), ()),  # the child's report, to a parent that waits for it
    "write eventfd": ((), ()),  # which is far from full
    "write pipe": ((EAGAIN, EPIPE, EINTR, SHORT), ("",)),
    "write terminal": ((EAGAIN, EIO, EINTR, SHORT), ()),
    "writev pipe": ((EAGAIN, EPIPE, EINTR, SHORT), ("",)),
}

LIBC_CALLS: Mapping[str, Call] = {
    "clone3": ((EAGAIN,), ("exit watch", "")),  # a thread
    "faccessat2": ((EACCES, ENOSYS), ("cgroup",)),
    "flock": ((ENOLCK, EAGAIN, EINTR), ("cgroup",)),
    "getdents64 cgroup": ((), ()),
    "getdents64 proc": ((), ()),
    "geteuid": ((), ()),
    "getresgid": ((), ()),
    "getresuid": ((), ()),
    "getsid": ((), ()),
    "ioctl": ((ENOTTY,), ("watch",)),  # os.set_blocking, after the start, which is undone
    "mkdir": ((EACCES, ENOSPC, EAGAIN, EROFS), ("cgroup", "")),
    "newfstatat": ((EACCES,), ()),
    "newfstatat fd": ((), ()),
    "openat": ((EMFILE, EACCES, ENFILE), ("user database",)),
    "openat cgroup": ((EMFILE, ENOMEM, ENFILE), ("cgroup", "")),
    "openat proc": ((EMFILE, ENOMEM, ENFILE), ("cgroup", "")),
    "pidfd_open": ((EMFILE, ENOSYS, EPERM), ("",)),
    "poll": ((EINTR, ENOMEM), ("",)),
    "pread64 cgroup": ((ENOMEM, EINTR), ("",)),
    "read cgroup": ((ENOMEM, EINTR), ("cgroup", "")),
    "read file": ((EIO, EINTR), ("user database",)),
    "read proc": ((ENOMEM, EINTR), ("cgroup", "")),
    "readlink": ((ENOMEM, EACCES), ("",)),
    "rmdir": ((EBUSY,), ()),
    "sched_getaffinity": ((), ()),
    "splice": ((EAGAIN, EPIPE, SHORT, EINVAL, EINTR, ENOMEM), ("",)),
    "write cgroup": ((EOPNOTSUPP, EINTR, ENODEV), ()),
    # The interpreter's own, for its memory and its threads: nobody's business here.
    **dict.fromkeys(
        (
            "brk",
            "clock_nanosleep",
            "exit",
            "futex",
            "getrandom",
            "gettid",
            "lseek",
            "madvise",
            "mmap",
            "mprotect",
            "mremap",
            "munmap",
            "prctl",
            "rseq",
            "rt_sigprocmask",
            "sched_yield",
            "set_robust_list",
            "sigaltstack",
        ),
        ((), ()),
    ),
}
"""Of those of `CALLS`, the ones that are another thing when libc makes them."""

DATABASE = frozenset({"openat", "read file"})
"""What looking up a user does that may fail; the rest is the business of its services."""

ENDS = frozenset(
    {
        ("read terminal", EIO),
        ("splice", EPIPE),
        ("write pipe", EPIPE),
        ("write terminal", EIO),
        ("writev pipe", EPIPE),
    }
)
"""Errors which say that nobody is at the other side: what is on its way is lost."""

UNREACHED: Mapping[str, str] = {
    "getdents64": "where close_range is denied: tests/c, any_call_of_a_spawn, older kernels",
    "munmap": "when more spawns run at once than there are stacks: tests/c, any_call_for_a_stack",
    "nanosleep": "after ETXTBSY: tests/c, any_call_of_a_spawn_of_a_busy_program",
    "setpgid": "as setsid: tests/c, any_call_of_a_spawn_that_fails",
}
"""Calls of csrc/sys.h that no act makes, with the reason and who strikes them."""


ELSEWHERE: Mapping[str, Call] = {
    "getdents64": ((EACCES, ENOMEM), ()),  # then one number after the other
}
"""Those of them that are made where the kernel denies others (tests/worlds)."""

LIBC_ELSEWHERE: Mapping[str, Call] = {"clone": LIBC_CALLS["clone3"]}
"""As `ELSEWHERE`, when libc makes them."""


def find_call(site: str, name: str) -> Call | None:
    """Return what the call may say there; None: it is not known to be made."""
    if site == "libc" and (name in LIBC_CALLS or name in LIBC_ELSEWHERE):
        return LIBC_CALLS.get(name) or LIBC_ELSEWHERE[name]
    if site not in ("core", "libc") and name == "close":
        return (), ()  # nobody could close it (supervision.py); tests/c strikes it
    return CALLS.get(name) or ELSEWHERE.get(name)
