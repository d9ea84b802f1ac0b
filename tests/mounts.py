"""Other mounts than those of the machine, for functions that run in a process of their own."""

from __future__ import annotations

import ctypes
import os

import pytest

__all__ = ["bind", "mount", "needs_mounts", "private_mounts", "unmount"]

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _may_have_private_mounts() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(1 if _libc.unshare(_CLONE_NEWNS) else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


needs_mounts = pytest.mark.skipif(
    not _may_have_private_mounts(), reason="no mount namespace to be had"
)


def _check(result: int) -> None:
    assert result == 0, os.strerror(ctypes.get_errno())


def private_mounts() -> None:
    """From now on the calling thread, its children and its new threads have mounts of their own."""
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


def mount(kind: str, at: str, options: str) -> None:
    """Mount a file system of *kind*; OSError."""
    if _libc.mount(kind.encode(), at.encode(), kind.encode(), 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), at)


def bind(source: str, at: str) -> None:
    """What is at *source* is at *at* as well; OSError."""
    if _libc.mount(source.encode(), at.encode(), None, _MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), at)


def unmount(at: str) -> None:
    """Nothing is mounted at *at* any more; there may have been several, one over the other."""
    while os.path.ismount(at):
        _check(_libc.umount2(at.encode(), _MNT_DETACH))
