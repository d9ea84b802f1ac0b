"""An interpreter below a closed directory, made reachable for all users.

Twisted's tests start the interpreter as uid 1. Where that cannot reach it (a Python below a home
directory of mode 700) they fail on any reactor. Nothing of the machine is changed for them: the
process that asks gets mounts of its own, in which an empty directory of mode 755 lies over the
closed one, with what is needed mounted in its old place. All paths stay what they are.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["closed_paths", "make_reachable"]

_PROC = os.environ.get("PROCREACTOR_TESTS_PROC", "/proc")  # in a world without (tests/worlds)
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
_OTHERS_MAY_PASS = 0o001


def closed_paths(paths: Iterable[str]) -> list[str]:
    """Those directories of *paths* that not all users can reach: resolved, none below another."""
    outer: list[str] = []
    for path in sorted({os.path.realpath(path) for path in paths if os.path.isdir(path)}):
        if not outer or not path.startswith(outer[-1] + "/"):
            outer.append(path)
    return [path for path in outer if _closed_above(path) is not None]


def _closed_above(path: str) -> str | None:
    """The topmost directory on the way to *path*, itself included, that others may not pass."""
    for directory in [*reversed(Path(path).parents), Path(path)]:
        if not directory.stat().st_mode & _OTHERS_MAY_PASS:
            return str(directory)
    return None


def make_reachable(paths: Iterable[str]) -> None:
    """Let all users reach *paths*, in this process and its children to come.

    What else lies in the closed directories is out of sight. OSError without the right to mount,
    and for a path that is closed itself. The process must have one thread.
    """
    inside: dict[str, list[str]] = {}
    for path in paths:
        closed = _closed_above(path)
        if closed == path:
            raise OSError(f"{path} itself is closed to other users")
        if closed is not None:
            inside.setdefault(closed, []).append(path)
    _check(_libc().unshare(_CLONE_NEWNS), "a mount namespace")
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    here = os.getcwd()
    umask = os.umask(0o022)
    for closed, wanted in inside.items():
        _cover(closed, wanted)
    os.umask(umask)
    os.chdir(here)


def _cover(closed: str, wanted: list[str]) -> None:
    held = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in wanted}
    _mount("tmpfs", closed, "tmpfs", 0, "mode=755")
    for path, fd in held.items():
        os.makedirs(path)
        _mount(f"{_PROC}/self/fd/{fd}", path, "", _MS_BIND | _MS_REC)
        os.close(fd)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, at: str, kind: str, flags: int, options: str = "") -> None:
    words = [word.encode() or None for word in (source, at, kind)]
    _check(_libc().mount(*words, ctypes.c_ulong(flags), options.encode() or None), at)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)
