"""System calls that fail, or that wait for a test to decide: by seccomp(2), which needs no root.

A filter holds for the calling thread, the threads and children that it starts from then on, and for
good. So these are for functions that run in a process of their own (`alone.alone`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pytest

__all__ = [
    "NUMBERS",
    "Call",
    "Question",
    "answer",
    "deny",
    "listen",
    "make_deadly",
    "needs_seccomp",
    "receive",
    "supervised",
]

_EVERYWHERE = {
    "clone3": 435,
    "close_range": 436,
    "faccessat2": 439,
    "pidfd_open": 434,
    "pidfd_send_signal": 424,
}
_BOTH = {  # x86_64, and aarch64, where some have another name
    "capset": (126, 91),
    "chdir": (80, 49),
    "clone": (56, 220),
    "close": (3, 57),
    "dup": (32, 23),
    "dup3": (292, 24),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "execve": (59, 221),
    "exit_group": (231, 94),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fstat": (5, 80),
    "getdents64": (217, 61),
    "geteuid": (107, 175),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getpriority": (140, 141),
    "getresuid": (118, 148),
    "getsid": (124, 156),
    "getxattr": (191, 8),
    "ioctl": (16, 29),
    "kill": (62, 129),
    "mkdir": (83, 34),  # mkdirat
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "openat": (257, 56),
    "pipe2": (293, 59),
    "ppoll": (271, 73),
    "prctl": (157, 167),
    "pread64": (17, 67),
    "prlimit64": (302, 261),
    "read": (0, 63),
    "readlink": (89, 78),  # readlinkat, where there is no other
    "rmdir": (84, 35),  # unlinkat
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "sched_get_priority_max": (146, 125),
    "setgroups": (116, 159),
    "setpgid": (109, 154),
    "setpriority": (141, 140),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setsid": (112, 157),
    "splice": (275, 76),
    "tgkill": (234, 131),
    "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86),
    "umask": (95, 166),
    "waitid": (247, 95),
    "write": (1, 64),
    "writev": (20, 66),
    # The interpreter's own.
    "brk": (12, 214),
    "clock_nanosleep": (230, 115),
    "exit": (60, 93),
    "futex": (202, 98),
    "getrandom": (318, 278),
    "gettid": (186, 178),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "mremap": (25, 216),
    "newfstatat": (262, 79),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "rseq": (334, 293),
    "set_robust_list": (273, 99),
    "sigaltstack": (131, 132),
}
_ALL_NUMBERS = {
    "x86_64": {
        "epoll_wait": 232,
        "poll": 7,
        **{name: numbers[0] for name, numbers in _BOTH.items()},
        **_EVERYWHERE,
    },
    "aarch64": {**{name: numbers[1] for name, numbers in _BOTH.items()}, **_EVERYWHERE},
}
_SECCOMP = {"x86_64": 317, "aarch64": 277}

NUMBERS = _ALL_NUMBERS.get(platform.machine(), {})
"""The system calls that can be named here."""

needs_seccomp = pytest.mark.skipif(not NUMBERS, reason=f"no numbers for {platform.machine()}")

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER = 8
_RET_ERRNO, _RET_NOTIFY, _RET_ALLOW = 0x00050000, 0x7FC00000, 0x7FFF0000
_RET_KILL_PROCESS = 0x80000000
_LOAD_WORD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALL_BITS = 0xFFFFFFFF
_NOTIFY_RECEIVE, _NOTIFY_SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1

Call = tuple[int, tuple[int, ...]]
"""A system call that waits: the pid (of its thread) and its six arguments."""


class Question(NamedTuple):
    """A system call that waits for its answer."""

    token: int
    pid: int
    """Of the thread that makes it."""

    number: int
    instruction: int
    """Where in that thread's program the call stands."""

    arguments: tuple[int, ...]


Condition = tuple[int, int] | tuple[int, int, int]
"""Of a system call: the index of an argument, its lower 32 bits, and which of them count."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _install(flags: int, action: int, name: str, arguments: Sequence[Condition]) -> int:
    """Take *action* on the call *name* when each condition is met; allow all else."""
    checks = [(0, NUMBERS[name], _ALL_BITS)]
    for index, value, *mask in arguments:
        checks.append((16 + 8 * index, value, mask[0] if mask else _ALL_BITS))
    rows = []
    for done, (offset, value, bits) in enumerate(checks):
        past_all = 3 * (len(checks) - done - 1) + 1
        rows.append(struct.pack("HBBI", _LOAD_WORD, 0, 0, offset))
        rows.append(struct.pack("HBBI", _AND, 0, 0, bits))
        rows.append(struct.pack("HBBI", _JUMP_IF_EQUAL, 0, past_all, value))
    rows += [struct.pack("HBBI", _RETURN, 0, 0, value) for value in (action, _RET_ALLOW)]
    return _load(flags, rows)


def _load(flags: int, rows: Sequence[bytes]) -> int:
    code = ctypes.create_string_buffer(b"".join(rows))
    filter_ = _Program(len(rows), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    call = _SECCOMP[platform.machine()], _SET_MODE_FILTER, flags, ctypes.byref(filter_)
    result: int = libc.syscall(*call)
    if result < 0 and ctypes.get_errno() == errno.EACCES:  # as another than root
        assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        result = libc.syscall(*call)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result


def deny(name: str, error: int, *arguments: Condition) -> None:
    """Make the call *name* fail with *error* when each condition of *arguments* is met."""
    _install(0, _RET_ERRNO | error, name, arguments)


def make_deadly(name: str) -> None:
    """Kill the process that makes the call *name*."""
    _install(0, _RET_KILL_PROCESS, name, ())


@contextmanager
def supervised(
    name: str, decide: Callable[[Call], int | None], *arguments: Condition
) -> Iterator[None]:
    """Ask *decide*, in another thread, before each call *name*: an errno, or None to go on.

    The caller of the system call waits meanwhile. *decide* itself is not asked for its own calls.
    After the end such calls fail with ENOSYS.
    """
    listeners: list[int] = []
    installed, ending = threading.Event(), os.eventfd(0, os.EFD_CLOEXEC)

    def serve() -> None:
        installed.wait()
        while listeners[0] in (ready := select.select([listeners[0], ending], [], [])[0]):
            _answer(listeners[0], decide)
        assert ready == [ending]

    thread = threading.Thread(target=serve)
    thread.start()  # before the filter, which it would have too
    try:
        listeners.append(_install(_NEW_LISTENER, _RET_NOTIFY, name, arguments))
        installed.set()
        yield
    finally:
        os.eventfd_write(ending, 1)
        thread.join()
        os.close(ending)
        os.close(listeners[0])


def _answer(listener: int, decide: Callable[[Call], int | None]) -> None:
    question = receive(listener)
    if question is not None:
        answer(listener, question, decide((question.pid, question.arguments)) or 0)


def listen(numbers: Collection[int] | None) -> int:
    """Have each call of *numbers*, None for every call, wait for an answer from now on.

    Returns the fd to `receive` from, which is for another process: a call that nobody answers
    waits, and with None all that follows here are such calls. Once all copies of it are closed, the
    calls fail with ENOSYS.
    """
    wanted = sorted(numbers or ())
    rows = [struct.pack("HBBI", _LOAD_WORD, 0, 0, 0)]
    for at, number in enumerate(wanted):
        rows.append(struct.pack("HBBI", _JUMP_IF_EQUAL, len(wanted) - at, 0, number))
    others = _RET_NOTIFY if numbers is None else _RET_ALLOW
    rows += [struct.pack("HBBI", _RETURN, 0, 0, action) for action in (others, _RET_NOTIFY)]
    return _load(_NEW_LISTENER, rows)


def receive(listener: int) -> Question | None:
    """Return the next call that waits; None when who made it was killed in the meantime."""
    question = bytearray(80)
    try:
        fcntl.ioctl(listener, _NOTIFY_RECEIVE, question)
    except FileNotFoundError:
        return None
    token, pid, _, number, _, instruction = struct.unpack_from("QIIiIQ", question)
    return Question(token, pid, number, instruction, struct.unpack_from("6Q", question, 32))


def answer(listener: int, question: Question, error: int = 0, value: int | None = None) -> None:
    """Let the call be made; or, with an *error* or a *value*, return that and do nothing."""
    goes_on = _CONTINUE if value is None and not error else 0
    message = struct.pack("QqiI", question.token, value or 0, -error, goes_on)
    try:
        fcntl.ioctl(listener, _NOTIFY_SEND, message)
    except FileNotFoundError:
        pass  # killed in the meantime
