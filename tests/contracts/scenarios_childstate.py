"""What a child finds when it begins: its fds, its signals, and all that it inherits.

The real Twisted starts a child in two ways, with posix_spawn and, when path is given, with fork; so
most of this is looked at ``plain`` and ``with path``.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.recording import CAT, SH, end_of, python, spawn
from contracts.scenario import Record, each, scenario, until
from contracts.world import World
from support import PROC

BOTH_WAYS: Mapping[str, str | None] = {"plain": None, "with path": "/"}

LOOK_AT_FDS = """
import fcntl, json, os, sys
found = {}
for fd in range(4096):
    try:
        about, flags = os.fstat(fd), fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        continue
    access = {os.O_RDONLY: "reads", os.O_WRONLY: "writes"}.get(flags & os.O_ACCMODE, "both")
    found[fd] = [about.st_dev, about.st_ino, access, bool(flags & os.O_NONBLOCK)]
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""

LOOK_AT_REST = """
import json, os, resource, sys
print(json.dumps({
    "umask": os.umask(0),
    "nice": os.nice(0),
    "cwd": os.getcwd(),
    "core limit": resource.getrlimit(resource.RLIMIT_CORE),
    "file limit": resource.getrlimit(resource.RLIMIT_NOFILE),
    "parent": os.getppid(),
    "group": os.getpgrp(),
    "session": os.getsid(0),
}))
"""


# -- fds -------------------------------------------------------------------------------------------


@contextmanager
def open_files(**places: int) -> Iterator[dict[str, int]]:
    """Open a file for each name at the fd of *places*; yields the names with their fds."""
    with tempfile.TemporaryDirectory() as folder:
        for name, place in places.items():
            fd = os.open(f"{folder}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            if fd != place:
                os.dup2(fd, place, inheritable=False)
                os.close(fd)
        yield places


async def fds_of_child(
    world: World, child_fds: Any, files: Mapping[str, int], path: str | None
) -> dict[str, object]:
    """What is at each fd of a child: the name of a file, or which pipe, and how it is open."""
    names = {_identity(fd): name for name, fd in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        report = f"{folder}/report"
        child = python(world, LOOK_AT_FDS, report, childFDs=child_fds, path=path)
        for child_fd, pipe in child.transport.pipes.items():
            names[_identity(pipe.fileno())] = f"pipe {child_fd}"
        await until(child.is_over)
        found = json.loads(Path(report).read_text())
    return {
        fd: (
            names.get((device, node), "a stranger"),
            access,
            "non-blocking" if non_blocking else "",
        )
        for fd, (device, node, access, non_blocking) in found.items()
    }


def _identity(fd: int) -> tuple[int, int]:
    about = os.fstat(fd)
    return about.st_dev, about.st_ino


@each(
    {
        "default": None,
        "none at all": {},
        "only 1": {1: "r"},
        "only 2": {2: "r"},
        "all but 1": {0: "w", 2: "r"},
        "pipes further up": {0: "w", 1: "r", 2: "r", 3: "w", 4: "r", 200: "r", 1000: "w"},
        "two pipes the other way round": {0: "r", 1: "w"},
        "a file": {1: 60},
        "files in low places": {3: 60, 4: 61, 5: 62},
        "one file in three places": {0: 60, 1: 60, 7: 60},
        "a file in its own place": {60: 60},
        "files in their own places and others": {60: 60, 1: 60, 61: 61},
        "two files swapped": {60: 61, 61: 60},
        "three files in a ring": {60: 61, 61: 62, 62: 60},
        "a ring and a copy out of it": {60: 61, 61: 62, 62: 60, 5: 61},
        "a chain": {60: 61, 61: 62, 62: 63},
        "pipes in the places of files": {60: "r", 61: "w"},
        "a pipe in the place of a file that goes elsewhere": {60: "r", 1: 60},
        "in no order": {61: 60, 2: "r", 0: 62, 60: 61, 1: "r"},
    }
)
async def fds_of_a_child(world: World, child_fds: Mapping[int, Any] | None) -> Record:
    with open_files(a=60, b=61, c=62, d=63) as files:
        return {
            way: await fds_of_child(world, child_fds, files, path)
            for way, path in BOTH_WAYS.items()
        }


@scenario
async def standard_fds_swapped(world: World) -> Record:
    with open_files(a=0, b=1, c=2) as files:
        return {
            way: await fds_of_child(world, {0: 1, 1: 2, 2: 0}, files, path)
            for way, path in BOTH_WAYS.items()
        }


@scenario
async def inheritable_fds_of_ours_are_not_inherited(world: World) -> Record:
    with open_files(a=60, b=61, c=1500) as files:
        for fd in files.values():
            os.set_inheritable(fd, True)
        return {
            way: await fds_of_child(world, {1: "r", 60: 60}, files, path)
            for way, path in BOTH_WAYS.items()
        }


@scenario
async def a_child_does_not_get_the_pipes_of_another(world: World) -> Record:
    first = spawn(world, CAT)
    record: Record = {
        way: await fds_of_child(world, None, {}, path) for way, path in BOTH_WAYS.items()
    }
    first.transport.closeStdin()
    await until(first.is_over)
    return record


@scenario
async def closing_the_input_of_one_child_ends_it_while_another_runs(world: World) -> Record:
    first, second = spawn(world, CAT), spawn(world, CAT)
    first.transport.closeStdin()
    await until(first.is_over)
    still_running = not second.has_exited()
    second.transport.closeStdin()
    await until(second.is_over)
    return {"second ran on": still_running}


@scenario
async def fds_of_ours_stay_as_they_are(world: World) -> Record:
    def look(fd: int) -> tuple[bool, bool, int]:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        position = os.lseek(fd, 0, os.SEEK_CUR)
        return os.get_inheritable(fd), bool(flags & os.O_NONBLOCK), position

    with open_files(a=60, b=61) as files:
        os.set_inheritable(61, True)
        os.set_blocking(61, False)
        before = [look(fd) for fd in files.values()]
        record: Record = {}
        for way, path in BOTH_WAYS.items():
            child = spawn(world, SH, "-c", ":", childFDs={60: 60, 5: 60, 1: 61}, path=path)
            await until(child.is_over)
            record[way] = [look(fd) for fd in files.values()] == before
        return record


@each(BOTH_WAYS)
async def our_ends_of_pipes(world: World, path: str | None) -> Record:
    child = spawn(world, CAT, childFDs={0: "w", 1: "r", 5: "r", 6: "w"}, path=path)
    record: Record = {
        "pipes": {str(fd): _our_end(pipe.fileno()) for fd, pipe in child.transport.pipes.items()}
    }
    for child_fd in (0, 6):
        child.transport.closeChildFD(child_fd)
    await until(child.is_over)
    return {**record, "pipes at the end": list(child.transport.pipes)}


@scenario
async def our_end_of_a_terminal(world: World) -> Record:
    child = spawn(world, SH, "-c", "read x", usePTY=True)
    ours = _our_end(child.transport.fileno())
    child.transport.write(b"\n")
    await until(child.is_over)
    return {"terminal": ours}


def _our_end(fd: int) -> dict[str, bool]:
    return {
        "blocking": os.get_blocking(fd),
        "inheritable": os.get_inheritable(fd),
        "pipe": stat.S_ISFIFO(os.fstat(fd).st_mode),
    }


# -- signals ---------------------------------------------------------------------------------------


async def signals_of_child(world: World, **options: Any) -> dict[str, str]:
    """The lines of /proc/self/status about signals, in a child that has no handlers of its own."""
    child = spawn(world, CAT, f"{PROC}/self/status", **options)
    await until(child.is_over)
    lines = dict(line.split(":\t", 1) for line in child.text().splitlines())
    return {name: f"{int(lines[name], 16) & ~_LIBRARY_OWN:x}" for name in _SIGNAL_LINES}


_SIGNAL_LINES = ("SigBlk", "SigIgn", "SigCgt")

_LIBRARY_OWN = 1 << (32 - 1) | 1 << (33 - 1)
"""glibc's posix_spawn leaves its two internal signals ignored, in some versions."""


def ignore_some() -> None:
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMAX):
        signal.signal(number, signal.SIG_IGN)


def handle_some() -> None:
    for number in (signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, lambda *_: None)


def block_some() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN})


@each(
    {
        "as they are": lambda: None,
        "ignored": ignore_some,
        "handled": handle_some,
        "blocked": block_some,
    }
)
async def signals_of_a_child(world: World, prepare: Callable[[], None]) -> Record:
    prepare()
    record: Record = {
        way: await signals_of_child(world, path=path) for way, path in BOTH_WAYS.items()
    }
    terminal = await signals_of_child(world, usePTY=True)
    return {**record, "on a terminal": terminal}


@scenario
async def our_own_signals_stay_as_they_are(world: World) -> Record:
    ignore_some()
    handle_some()
    block_some()

    def look() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in signal.valid_signals()]
        return signal.pthread_sigmask(signal.SIG_BLOCK, ()), handlers

    before = look()
    record: Record = {}
    for way, path in BOTH_WAYS.items():
        child = spawn(world, SH, "-c", ":", path=path)
        record[way] = look() == before
        await until(child.is_over)
    return record


@scenario
async def a_pipe_that_breaks_ends_a_child_by_its_signal(world: World) -> Record:
    child = spawn(world, SH, "-c", "read x; echo into nothing")
    child.transport.closeStdout()
    await until(lambda: child.has_lost(1))
    child.transport.write(b"\n")
    return await end_of(child)


# -- what is inherited -----------------------------------------------------------------------------


@scenario
async def what_else_is_inherited(world: World) -> Record:
    os.umask(0o027)
    os.nice(3)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1024))
    os.chdir("/usr")
    record: Record = {}
    for way, path in {"plain": None, "with path": "/etc"}.items():
        child = python(world, LOOK_AT_REST, path=path)
        await until(child.is_over)
        record[way] = _relations(json.loads(child.text()))
    return record


@scenario
async def what_a_child_on_a_terminal_inherits(world: World) -> Record:
    child = python(world, LOOK_AT_REST, usePTY=True)
    pid = child.transport.pid
    await until(child.is_over)
    seen = json.loads(child.text())
    own = {name: seen[name] == pid for name in ("group", "session")}
    return {"its own": own, "parent is us": seen["parent"] == os.getpid()}


def _relations(seen: dict[str, Any]) -> dict[str, Any]:
    return {
        **seen,
        "parent": seen["parent"] == os.getpid(),
        "group": seen["group"] == os.getpgrp(),
        "session": seen["session"] == os.getsid(0),
    }


@scenario
async def a_child_of_a_program_with_threads(world: World) -> Record:
    go_on = threading.Event()
    threads = [threading.Thread(target=go_on.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    child = spawn(world, SH, "-c", "echo fine")
    story = await end_of(child)
    go_on.set()
    for thread in threads:
        thread.join()
    return story


@scenario
async def a_child_of_a_program_with_many_fds(world: World) -> Record:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in range(100, 1600):
        os.dup2(nothing, fd, inheritable=fd % 2 == 0)
    return {way: await fds_of_child(world, None, {}, path) for way, path in BOTH_WAYS.items()}
