"""The worlds that the suite is played in: what each takes away, and what a test may miss there.

Numbers and flags: syscalls(2), clone(2), close_range(2), waitid(2).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FEATURES", "MOST_FILES", "Denial", "World", "lacking_for", "worlds"]

FEATURES = ("clone3", "close_range", "helper", "pidfd", "unshare", "vfork")
"""What PROCREACTOR_DISABLE takes, each alone."""

MOST_FILES = 1_073_741_816
"""RLIMIT_NOFILE as some container hosts set it: more than anybody could loop over."""


@dataclass(frozen=True, slots=True)
class Denial:
    """A system call that fails if each (index, value, which bits count) of its arguments is met."""

    call: str
    conditions: tuple[tuple[int, int, int], ...] = ()
    error: int = 0
    """0: that of the world."""


@dataclass(frozen=True, slots=True)
class World:
    """What is taken away before the suite starts, from it and from all that it starts."""

    name: str
    lacks: frozenset[str] = frozenset()
    """What is not to be had there: features of ours, and calls that a test may want to make."""

    denials: tuple[Denial, ...] = ()
    error: int = 0
    """What a denied call fails with."""

    disable: frozenset[str] = frozenset()
    """For PROCREACTOR_DISABLE."""

    hides_proc: bool = False
    open_files: int = 0
    """RLIMIT_NOFILE, or as near as the hard limit allows; 0: as it is."""

    under_valgrind: bool = False
    """The suite's own process is; those that it starts are not."""


_CLONE_PIDFD = 0x1000
_P_PIDFD = 3
_CLOSE_RANGE_UNSHARE = 2
_EVERY_BIT = 0xFFFFFFFF

_DENIED = {
    "clone3": ([Denial("clone3")], {"clone3"}),
    # What clone3 is asked for lies in memory, where no filter can look: so it is denied as well,
    # and always as unknown: where it is forbidden, libc has no threads, and nor have we.
    "CLONE_PIDFD": (
        [Denial("clone3", error=errno.ENOSYS), Denial("clone", ((0, _CLONE_PIDFD, _CLONE_PIDFD),))],
        {"clone3", "pidfd"},
    ),
    "pidfd_open": ([Denial("pidfd_open")], {"pidfd_open"}),
    "pidfd_send_signal": ([Denial("pidfd_send_signal")], {"pidfd_send_signal"}),
    "waitid(P_PIDFD)": (
        [Denial("waitid", ((0, _P_PIDFD, _EVERY_BIT),))],
        {"waitid(P_PIDFD)", "pidfd"},
    ),
    "close_range": ([Denial("close_range")], {"close_range", "unshare"}),
    "CLOSE_RANGE_UNSHARE": (
        [Denial("close_range", ((2, _CLOSE_RANGE_UNSHARE, _CLOSE_RANGE_UNSHARE),))],
        {"unshare"},
    ),
}

_LOST_WITH = {
    "vfork": {"vfork", "unshare", "helper", "clone3"},
}
"""The features that another one goes without."""

_LOST_UNDER_VALGRIND = frozenset(
    {
        *_LOST_WITH["vfork"],
        "bare processor",
        "file limits",
        "refusals of execve",
        "signal 64",
        "LD_PRELOAD",
    }
)
"""Besides shared memory: RLIMIT_NOFILE is valgrind's own there, which denies another hard limit,
forgets the soft one where an ioctl makes an fd, and sees to it when the kernel has done what it
then refuses (a connection accepted, say, is closed); what it has looked at and found fit for an
execve, and the kernel refuses then, it ends; the last signal it keeps for itself; and what it has
put into LD_PRELOAD no child is given. All that holds for the process of pytest, and for none that
is started by it."""


def worlds() -> Iterator[World]:
    """Yield every world."""
    for error in (errno.ENOSYS, errno.EPERM):
        yield from _denied(error)
    for feature in FEATURES:
        lacks = frozenset(_LOST_WITH.get(feature, {feature}))
        yield World(f"PROCREACTOR_DISABLE={feature}", lacks, disable=frozenset({feature}))
    everything = frozenset(FEATURES)
    yield World("PROCREACTOR_DISABLE, all of these", everything, disable=everything)
    yield World("PROCREACTOR_DISABLE=cgroup", frozenset({"cgroup"}), disable=frozenset({"cgroup"}))
    yield World("no /proc", frozenset({"/proc", "cgroup"}), hides_proc=True)
    yield World("a billion files", open_files=MOST_FILES)
    yield World("valgrind", _LOST_UNDER_VALGRIND, under_valgrind=True)


def lacking_for(world: World) -> str:
    """Return why nobody can enter *world* from here, or nothing."""
    if world.hides_proc and os.geteuid() != 0:
        return "needs root"
    if world.under_valgrind and shutil.which("valgrind") is None:
        return "needs valgrind"
    return ""


def _denied(error: int) -> Iterator[World]:
    name = errno.errorcode[error]
    for what, (denials, lacks) in _DENIED.items():
        lost = {"threads"} if what == "clone3" and error == errno.EPERM else set()
        yield World(f"{what}: {name}", frozenset(lacks | lost), tuple(denials), error)
    every = [
        denial for what, (denials, _) in _DENIED.items() if what != "clone3" for denial in denials
    ]
    lacks = frozenset().union(*(lacks for _, lacks in _DENIED.values()))
    yield World(f"all of these: {name}", lacks, tuple(every), error)
