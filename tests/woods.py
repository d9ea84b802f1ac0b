"""Trees of processes for tests, and what /proc shows of them afterwards.

Also whether this machine has what the cgroup way needs, found out without the product: a test that
`needs("cgroup")` is left out where it has not, and not where the product only believes so.
"""

from __future__ import annotations

import itertools
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from programs_build import build_program
from support import DEADLINE_S, PROC

from procreactor.kernel.children import Child
from procreactor.model import PipeEnd, Redirect, SpawnSpec

__all__ = ["Grown", "grown", "homes", "living", "new_mark", "tree_spec", "wait_gone"]

_numbers = itertools.count()


def new_mark() -> str:
    """A word that is in no other command line."""
    return f"mark-{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}"


def living(mark: str) -> set[int]:
    """The processes with *mark* in their command line that are alive: zombies have none."""
    folders = (folder for folder in Path(PROC).iterdir() if folder.name.isdigit())
    return {int(folder.name) for folder in folders if mark.encode() in _words(folder)}


def _words(folder: Path) -> list[bytes]:
    """Its command line, as any of its threads has it: the first one may have ended."""
    try:
        for thread in (folder / "task").iterdir():
            if words := (thread / "cmdline").read_bytes():
                return words.split(b"\0")
    except OSError:
        pass  # gone
    return []


def wait_gone(mark: str) -> None:
    """Return once none with *mark* is alive; fails after a while."""
    end_s = time.monotonic() + DEADLINE_S
    while left := living(mark):
        assert time.monotonic() < end_s, f"alive: {left}"
        os.sched_yield()


def tree_spec(mark: str, shape: str, number: int = 1) -> SpawnSpec:
    """A request for tests/programs/tree.c, whose fd 1 is a pipe to us."""
    program = build_program("tree").encode()
    return SpawnSpec(
        (program,),
        (b"tree", mark.encode(), shape.encode(), b"%d" % number),
        (b"HOME=/nowhere",),
        (Redirect(1, PipeEnd.WE_READ),),
    )


class Grown:
    """A tree that was started by *spec* and is what it is to be: all its processes have said so."""

    def __init__(self, spec: SpawnSpec, mark: str, processes: int) -> None:
        self.mark = mark
        self.child = Child(spec)
        self.child.start(spec)
        self.fd = self.child.ours[0]
        self.child.ours = []
        ready = b""
        while len(ready) < processes:
            assert select.select([self.fd], [], [], DEADLINE_S)[0], f"only {len(ready)} are ready"
            piece = os.read(self.fd, processes - len(ready))
            assert piece, f"only {len(ready)} were ready"
            ready += piece

    @property
    def pid(self) -> int:
        return self.child.pid

    def living(self) -> set[int]:
        return living(self.mark)

    def reap(self) -> None:
        """Wait for the leader and reap it. Idempotent."""
        if self.child.pid >= 0:
            self.child.wait_exit()
            assert self.child.try_reap() is not None

    def close(self) -> None:
        """End all that is left, without the product, and reap the leader."""
        if self.pid >= 0 and os.getpgid(self.pid) == self.pid:
            os.killpg(self.pid, 9)  # at once: who forks and ends is not to be had one by one
        while left := self.living():
            for pid in left:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
        self.reap()
        os.close(self.fd)


@contextmanager
def grown(spec: SpawnSpec, mark: str, processes: int) -> Iterator[Grown]:
    """A `Grown`, of which nothing is left afterwards."""
    tree = Grown(spec, mark, processes)
    try:
        yield tree
    finally:
        tree.close()


def homes() -> list[str]:
    """The directories that this process has made for its groups, and not removed."""
    found = []
    for mount in _mounts():
        for folder, names, _ in os.walk(mount):  # where others make and remove theirs meanwhile
            own = (name for name in names if name.startswith(f"procreactor-{os.getpid()}-"))
            found += [f"{folder}/{name}" for name in own]
    return found


def _mounts() -> list[str]:
    lines = Path(PROC, "self/mounts").read_text().splitlines()
    return [fields[1] for fields in (line.split() for line in lines) if fields[2] == "cgroup2"]
