"""The fd table that a child gets, as seen by the child, against the one that it should get."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import resource
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import Recorder, run_until

__all__ = [
    "ChildTables",
    "Entry",
    "assert_same",
    "expected_table",
    "file_of",
    "landing_slots",
    "open_at",
    "own_table",
    "room_for",
]

End = str | int
"""A value of childFDs: "r", "w", or an fd of the parent."""

TABLE_END = 1024
"""One above the highest fd that is looked at, unless more is asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one fd refers to, and how."""

    file: tuple[int, int]
    access_mode: int
    close_on_exec: bool
    non_blocking: bool


def file_of(fd: int) -> tuple[int, int]:
    """Return device and inode of *fd*."""
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino


def own_table(end: int = TABLE_END) -> dict[int, Entry]:
    """Return every open fd of this process below *end*; looks at the numbers, not at /proc."""
    table = {}
    for fd in range(end):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            continue
        table[fd] = Entry(
            file_of(fd),
            flags & os.O_ACCMODE,
            bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC),
            bool(flags & os.O_NONBLOCK),
        )
    return table


def expected_table(
    child_fds: Mapping[int, End], parent: Mapping[int, Entry], pipes: Mapping[int, tuple[int, int]]
) -> dict[int, Entry]:
    """The model: all rows at once, each from the parent's table as it was before any of them."""
    table = {}
    for child_fd, source in child_fds.items():
        if isinstance(source, int):
            table[child_fd] = dataclasses.replace(parent[source], close_on_exec=False)
        else:
            mode = os.O_WRONLY if source == "r" else os.O_RDONLY
            table[child_fd] = Entry(pipes[child_fd], mode, close_on_exec=False, non_blocking=False)
    return table


def assert_same(actual: Mapping[int, Entry], expected: Mapping[int, Entry], what: object) -> None:
    """Fail with the fds that differ, and nothing else."""
    differing = {
        fd: (actual.get(fd), expected.get(fd))
        for fd in {*actual, *expected}
        if actual.get(fd) != expected.get(fd)
    }
    assert not differing, f"{what}: fd -> (is, should be): {differing}"


class ChildTables:
    """Runs the program fdtable as a child, with any childFDs, and reads what it saw.

    *report* is where the children write to; a child of another user must be allowed to.
    """

    def __init__(self, reactor: Any, program: str, report: Path, end: int = TABLE_END) -> None:
        self._reactor = reactor
        self._program = program
        self._report = report
        self._end = end

    def spawn(self, child_fds: Mapping[int, End] | None, **kwargs: Any) -> dict[int, Entry]:
        """Return the child's fd table, which has been compared to the model's.

        Neither the child's map nor its end has changed a flag or an fd of ours.
        """
        before = own_table()
        actual, expected = self._run(child_fds, before, kwargs)
        assert_same(actual, expected, child_fds)
        assert_same(own_table(), before, f"the parent's own fds after {child_fds}")
        return actual

    def _run(
        self, child_fds: Mapping[int, End] | None, parent: Mapping[int, Entry], kwargs: Any
    ) -> tuple[dict[int, Entry], dict[int, Entry]]:
        recorder = Recorder()
        transport = self._reactor.spawnProcess(
            recorder,
            self._program,
            [self._program, str(self._report), str(self._end)],
            env={},
            childFDs=child_fds,
            **kwargs,
        )
        pipes = {fd: file_of(pipe.fileno()) for fd, pipe in transport.pipes.items()}
        run_until(self._reactor, lambda: recorder.ended)
        assert recorder.reason.value.exitCode == 0, recorder.reason
        rows = {0: "w", 1: "r", 2: "r"} if child_fds is None else child_fds
        return self.read(), expected_table(rows, parent, pipes)

    def read(self) -> dict[int, Entry]:
        """Return the table that the last child wrote, and forget it."""
        table = {}
        for line in self._report.read_text().splitlines():
            fd, device, inode, mode, close_on_exec, non_blocking = map(int, line.split())
            table[fd] = Entry((device, inode), mode, bool(close_on_exec), bool(non_blocking))
        self._report.unlink()
        return table


def landing_slots() -> set[int]:
    """Return the numbers that csrc/slots.c holds: many fds of one and the same pipe."""
    table = own_table()
    file, count = Counter(entry.file for entry in table.values()).most_common(1)[0]
    return {fd for fd, entry in table.items() if entry.file == file} if count >= 8 else set()


def open_at(least: int, flags: int = os.O_RDWR) -> int:
    """Return an fd >= *least*, close-on-exec, of a new file that nobody else has."""
    fd = os.memfd_create("canary", 0)
    try:
        # Through /proc, because only an open decides on access mode and O_NONBLOCK.
        opened = os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)
        try:
            return fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, least)
        finally:
            os.close(opened)
    finally:
        os.close(fd)


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """For as long as this lasts, this process can open *count* fds more, and then gets EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(own_table())
    blockers = []
    while (fd := os.open("/dev/null", os.O_RDONLY)) < highest:
        blockers.append(fd)
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in blockers:
            os.close(fd)
