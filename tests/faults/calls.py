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
    ENOENT,
    ENOEXEC,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTTY,
    EPERM,
    EPIPE,
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
    "fcntl": ((EMFILE, EPERM), ("pipe", "report pipe", "exit watch")),
    "fstat": ((EPERM,), ()),
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
    "openat": ((EMFILE, ENOSPC, ENOENT, EACCES, ENOMEM), ("open pty",)),
    "pidfd_send_signal": ((ENOSYS, EPERM), ()),
    "pipe2": ((EMFILE, ENFILE), ("pipe", "report pipe", "")),
    "ppoll": ((EINTR, ENOMEM, ENOSYS), ()),
    "prctl": ((EINVAL, EPERM), ("no_new_privs", "parent death signal")),
    "prlimit64": ((EPERM, EINVAL), ("rlimit",)),
    "read eventfd": ((EINTR, EAGAIN), ()),
    "read pipe": ((EINTR, EAGAIN, SHORT), ("report pipe",)),
    "read terminal": ((EINTR, EIO, EAGAIN, SHORT), ()),
    "rt_sigaction": ((EINVAL,), ()),
    "rt_sigprocmask": ((), ()),
    "setgroups": ((EPERM, ENOMEM), ("setgroups",)),
    "setpriority": ((EACCES, EPERM), ("nice",)),
    "setresgid": ((EPERM,), ("setgid",)),
    "setresuid": ((EPERM, EAGAIN), ("setuid",)),
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
    "getresgid": ((), ()),
    "getresuid": ((), ()),
    "ioctl": ((ENOTTY,), ("watch",)),  # os.set_blocking, after the start, which is undone
    "newfstatat": ((EACCES,), ()),
    "openat": ((EMFILE, EACCES, ENFILE), ("user database",)),
    "read file": ((EIO, EINTR), ("user database",)),
    "readlink": ((EACCES,), ()),
    "sched_getaffinity": ((), ()),
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


def find_call(site: str, name: str) -> Call | None:
    """Return what the call may say there; None: it is not known to be made."""
    if site == "libc" and name in LIBC_CALLS:
        return LIBC_CALLS[name]
    if site not in ("core", "libc") and name == "close":
        return (), ()  # nobody could close it (supervision.py); tests/c strikes it
    return CALLS.get(name)
