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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

__all__ = ["NUMBERS", "Call", "deny", "make_deadly", "needs_seccomp", "supervised"]

_EVERYWHERE = {"clone3": 435, "close_range": 436, "pidfd_open": 434, "pidfd_send_signal": 424}
_ALL_NUMBERS = {
    "x86_64": {
        "clone": 56,
        "close": 3,
        "dup3": 292,
        "epoll_ctl": 233,
        "execve": 59,
        "ioctl": 16,
        "waitid": 247,
        **_EVERYWHERE,
    },
    "aarch64": {
        "clone": 220,
        "close": 57,
        "dup3": 24,
        "epoll_ctl": 21,
        "execve": 221,
        "ioctl": 29,
        "waitid": 95,
        **_EVERYWHERE,
    },
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
    question = bytearray(80)
    try:
        fcntl.ioctl(listener, _NOTIFY_RECEIVE, question)
    except FileNotFoundError:
        return  # killed in the meantime
    number, pid, *_ = struct.unpack_from("QII", question)
    arguments = struct.unpack_from("6Q", question, 32)
    error = decide((pid, arguments))
    answer = struct.pack("QqiI", number, 0, -(error or 0), 0 if error else _CONTINUE)
    try:
        fcntl.ioctl(listener, _NOTIFY_SEND, answer)
    except FileNotFoundError:
        pass  # likewise
