"""The fd table that a child gets, as seen by the child, against the one that it should get."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import itertools
import os
import resource
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import PROC, Recorder, let_waiting_threads_end, run_until
from ways import spawn_on

__all__ = [
    "ChildTables",
    "Entry",
    "assert_same",
    "expected_table",
    "file_of",
    "landing_slots",
    "new_file",
    "numbers_taken",
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
    let_waiting_threads_end()
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

    *report* is where the children write to; one of another user must be allowed to. *way* is one of
    `ways.WAYS`, or None for any; *end* is one above the highest fd that is looked at.
    """

    def __init__(
        self, reactor: Any, program: str, report: Path, way: str | None, end: int = TABLE_END
    ) -> None:
        self._reactor = reactor
        self._program = program
        self._report = report
        self._way = way
        self._end = end

    def spawn(self, child_fds: Mapping[int, End] | None, **kwargs: Any) -> dict[int, Entry]:
        """Return the child's fd table, which has been compared to the model's.

        Neither the child's map nor its end has changed a flag or an fd of ours.
        """
        before = own_table(self._end)
        actual = self.spawn_among_others(child_fds, before, **kwargs)
        assert_same(own_table(self._end), before, f"the parent's own fds after {child_fds}")
        return actual

    def spawn_among_others(
        self, child_fds: Mapping[int, End] | None, parent: Mapping[int, Entry], **kwargs: Any
    ) -> dict[int, Entry]:
        """Return the child's fd table, compared to the model's, whatever other threads open.

        *parent* has the entries of those fds of ours that are mapped.
        """
        recorder = Recorder()
        args = [self._program, str(self._report), str(self._end)]
        kwargs["childFDs"] = child_fds
        if self._way is None:
            transport = self._reactor.spawnProcess(recorder, self._program, args, **kwargs)
        else:
            transport = spawn_on(self._way, self._reactor, recorder, self._program, args, **kwargs)
        pipes = {fd: file_of(pipe.fileno()) for fd, pipe in transport.pipes.items()}
        run_until(self._reactor, lambda: recorder.ended)
        assert recorder.reason.value.exitCode == 0, recorder.reason
        rows = {0: "w", 1: "r", 2: "r"} if child_fds is None else child_fds
        actual = self.read()
        assert_same(actual, expected_table(rows, parent, pipes), child_fds)
        return actual

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


def new_file(flags: int = os.O_RDWR) -> int:
    """Return an fd, close-on-exec, of a new file that nobody else has, opened with *flags*."""
    fd = os.memfd_create("canary")
    try:
        # Through /proc, because only an open decides on access mode and O_NONBLOCK.
        return os.open(f"{PROC}/self/fd/{fd}", flags | os.O_CLOEXEC)
    finally:
        os.close(fd)


def open_at(least: int, flags: int = os.O_RDWR) -> int:
    """Return a `new_file` under the lowest free number from *least* on."""
    fd = new_file(flags)
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
    finally:
        os.close(fd)


@contextmanager
def numbers_taken(numbers: Iterable[int]) -> Iterator[None]:
    """For as long as this lasts, each of *numbers* is an fd of a `new_file`, with varied flags.

    What was there before is put back, flags and all, at the end.
    """
    variants = itertools.cycle(
        [os.O_RDONLY, os.O_WRONLY | os.O_NONBLOCK, os.O_RDWR, os.O_RDWR | os.O_NONBLOCK]
    )
    wanted = list(numbers)
    before = {fd: entry for fd, entry in own_table(max(wanted) + 1).items() if fd in wanted}
    aside = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(wanted) + 1) for fd in before}
    for number, flags in zip(wanted, variants, strict=False):
        fd = open_at(max(wanted) + 1, flags)
        os.dup2(fd, number, inheritable=flags == os.O_RDONLY)
        os.close(fd)
    try:
        yield
    finally:
        for number in wanted:
            if number in aside:
                os.dup2(aside[number], number, inheritable=not before[number].close_on_exec)
                os.close(aside[number])
            else:
                os.close(number)


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
