"""Children of another user, by each engine, for functions that run in a process of their own.

The engines are the reactor's spawnProcess and the batch engine's native threads. Whether they use
the launcher or fork is said by PROCREACTOR_DISABLE. The helpers of utils call spawnProcess, without
a uid.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import struct
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import PROC, make_reactor, spawn_and_finish

from procreactor.apps.batch import plan_command, run_batch
from procreactor.kernel.users import resolve_identity
from procreactor.model import Identity, SpawnSpec

__all__ = [
    "ENGINES",
    "KEEP_CAPS",
    "NO_SETUID_FIXUP",
    "STRANGER",
    "WAYS_TO_ANOTHER_USER",
    "Standing",
    "batch_spec",
    "capabilities",
    "in_a_copy",
    "libc",
    "may_look_into_others",
    "needs_root",
    "new_user",
    "prctl",
    "public_folder",
    "say_standing",
    "set_capabilities",
    "standing_of",
]

STRANGER = 31415
"""A uid and gid that nobody has, and no other test runs anything as."""

ENGINES = ("reactor", "batch")

WAYS_TO_ANOTHER_USER = {"launcher": "", "fork": "helper"}
"""The values of PROCREACTOR_DISABLE that lead there."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes its uid, which needs root")

Standing = dict[str, str]
"""What a child was given, by name: the lines of tests/programs/standing.c."""


def batch_spec(argv: Sequence[str], identity: Identity | None, **fields: Any) -> SpawnSpec:
    """A command for the batch engine that is to become *identity*."""
    return plan_command(argv, env={}).replace(identity=identity, **fields)


def new_user() -> int:
    """Return a uid that no database has and no process: for one who attacks all that is his."""
    taken = {row.pw_uid for row in pwd.getpwall()}
    for name in filter(str.isdigit, os.listdir(PROC)):
        try:
            taken.add(os.stat(f"{PROC}/{name}").st_uid)
        except FileNotFoundError:
            pass  # just ending
    uid = 20_000 + os.getpid() % 40_000
    while uid in taken:
        uid += 1
    return uid


@contextmanager
def public_folder() -> Iterator[Path]:
    """A new directory that any user may enter, which those of tmp_path are not."""
    with tempfile.TemporaryDirectory(prefix="public-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def in_a_copy(function: Callable[..., Any], *args: object) -> Any:
    """Return what ``function(*args)`` returns in a forked copy of this process, which then ends.

    For what a process cannot undo, where a process of its own for each would take long.
    """
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = [function(*args), None]
        except BaseException:
            answer = [None, traceback.format_exc()]
        os.write(write_fd, json.dumps(answer).encode())  # less than a pipe holds
        os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    result, error = json.loads(said)
    assert error is None, error
    return result


def say_standing(
    program: str, engine: str, uid: int | None = None, gid: int | None = None
) -> Standing:
    """Return what a child of this process, the program standing, says that it was given."""
    if engine == "batch":
        (outcome,) = run_batch([batch_spec([program], resolve_identity(uid, gid))], at_once=1)
        assert outcome.status is not None, outcome.error
        return standing_of(outcome.stdout)
    with make_reactor() as reactor:
        return standing_of(spawn_and_finish(reactor, program, uid=uid, gid=gid).out)


def standing_of(said: bytes) -> Standing:
    """Return the lines of *said* by their names."""
    rows = (line.split("\t", 1) for line in os.fsdecode(said).splitlines())
    return {name.rstrip(":"): " ".join(rest[0].split()) if rest else "" for name, *rest in rows}


# --- what Python has no name for ------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)

KEEP_CAPS, NO_SETUID_FIXUP = 1 << 4, 1 << 2
"""Bits of prctl(PR_SET_SECUREBITS)."""

_CAPABILITY_VERSION_3 = 0x20080522


def prctl(option: int, *arguments: int) -> int:
    """Return what prctl(2) does; OSError."""
    words = (ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4])
    result: int = libc.prctl(option, *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
    return result


def capabilities() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable capabilities of this thread."""
    data = ctypes.create_string_buffer(24)
    assert libc.capget(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), data) == 0
    words = struct.unpack("6I", data.raw)
    low, high = words[:3], words[3:]
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


_CAP_SYS_PTRACE = 19


def may_look_into_others() -> bool:
    """Whether this process may read of another what its user may not; not in every container."""
    return bool(capabilities()[0] >> _CAP_SYS_PTRACE & 1)


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Have these capabilities in this thread; OSError."""
    sets = (effective, permitted, inheritable)
    words = [one & 0xFFFFFFFF for one in sets] + [one >> 32 for one in sets]
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, struct.pack("6I", *words)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
