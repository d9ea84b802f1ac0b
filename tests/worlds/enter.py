"""Enters a world and becomes a program there: ``python -m tests.worlds.enter WORLD PROGRAM ...``.

Needs root where a world hides /proc. What is taken away stays so for all that the program starts.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import tempfile
from pathlib import Path

from ..seccomp import deny
from .catalogue import World, worlds

_VALGRIND = ("valgrind", "--tool=none", "-q")
"""What makes a world of its own is that no memory is shared; make valgrind looks for errors."""

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _enter(world: World) -> dict[str, str]:
    """Take away what *world* takes, and return the environment there."""
    environ = {
        **os.environ,
        "PROCREACTOR_DISABLE": ",".join(sorted(world.disable)),
        "PROCREACTOR_TESTS_LACK": ",".join(sorted(world.lacks)),
    }
    if world.open_files:
        environ["PROCREACTOR_TESTS_FILES"] = str(world.open_files)
        _allow_files(world.open_files)
    if world.hides_proc:
        environ["PROCREACTOR_TESTS_PROC"] = _hide_proc()
    for denial in world.denials:
        deny(denial.call, denial.error or world.error, *denial.conditions)
    return environ


def _allow_files(wanted: int) -> None:
    """So many, or as many as the machine has, or else as many as we have a right to."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    of_machine = int(Path("/proc/sys/fs/nr_open").read_text())
    for most in (wanted, min(wanted, of_machine), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (ValueError, OSError):
            continue
        return


def _hide_proc() -> str:
    """Unmount /proc, for us and those that we start; return where a test still finds it."""
    elsewhere = tempfile.mkdtemp(prefix="proc-")
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _check(_libc.mount(b"/proc", elsewhere.encode(), None, _MS_BIND, None))
    _check(_libc.umount2(b"/proc", _MNT_DETACH))
    return elsewhere


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _main(name: str, *command: str) -> None:
    world = {world.name: world for world in worlds()}[name]
    if world.under_valgrind:
        command = (*_VALGRIND, *command)
    os.execvpe(command[0], command, _enter(world))


if __name__ == "__main__":
    _main(*sys.argv[1:])
