"""A process whose system calls are watched from outside, and one of which may be struck.

The kernel asks us before each call (seccomp(2), SECCOMP_RET_USER_NOTIF), so what is struck is the
installed package as it is, with the real kernel for all other calls. Facts that shape this file:

- The filter is inherited over fork and exec: by threads, by children before exec, by the launcher
  and by programs. Only the last are let be.
- Whose call it is, its address tells: the C core has system calls of its own, those of Python come
  from libc. So read, close or mmap can be struck, and not those that the interpreter needs itself.
- What has been learnt from a blow stays learnt (csrc/ladder.c), so each blow has a process of its
  own: a fork of one that is warm, or cold, as the act wants it.
- A second process shares the fds of the watched one, and is older than the filter: the hands. It
  closes an fd there, or sends us a copy (SCM_RIGHTS), that of the listener too: the watched one
  cannot, because every call that it makes may wait for us, nor could a thread of it, which would
  wait for the interpreter's lock. No pidfd is needed, so this is played where there are none.

What else a kernel does when it says so is done here too, or the blow would be a lie:

- A close that fails has closed the fd all the same (close(2)). The hands do that.
- A short read or write is a real one, of one byte: made by us, on a copy of the fd, into or from
  the memory of the process. Nothing is lost, nothing is made up.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import functools
import json
import os
import select
import signal
import socket
import stat
import struct
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, NamedTuple

from seccomp import NUMBERS, Question, answer, listen, receive
from support import LACKS, PROC

from procreactor import _core

__all__ = [
    "SHORT",
    "Blow",
    "Calls",
    "Listen",
    "Play",
    "aside",
    "begin_act",
    "can_supervise",
    "end_act",
    "play",
]

SHORT = -1
"""Instead of an errno: the call moves one byte."""

DEADLINE_S = 30

_NAMES = {number: name for name, number in NUMBERS.items()}
_MARK, _BEGIN, _END = "sched_get_priority_max", 7001, 7002
_ALWAYS = {_MARK, "execve"}
_EPOLL_OPERATIONS = ("", "ADD", "DEL", "MOD")
_KINDS = {stat.S_IFIFO: "pipe", stat.S_IFCHR: "terminal"}
_WITH_A_KIND = frozenset({"getdents64", "pread64", "read", "write", "writev"})
_CLONE_INTO_CGROUP = 0x200000000
_CLONE_FILES, _CLONE_PARENT = 0x400, 0x8000
_CLOSE, _SEND = 1, 2
"""What the hands are told to do with an fd."""

_REPORT_BYTES = 12
"""What a child reports to the C core when it fails."""

_libc = ctypes.CDLL(None, use_errno=True)


@functools.cache
def _core_addresses() -> range:
    """Where the instructions of the C core lie, in this process and in its forks."""
    with open(f"{PROC}/self/maps") as maps:
        for line in maps:
            where, rights, *_, file = line.split(maxsplit=5)
            if file.strip() == _core.__file__ and "x" in rights:
                first, end = (int(text, 16) for text in where.split("-"))
                return range(first, end)
    raise AssertionError("the C core has no instructions")


class Blow(NamedTuple):
    """Which call is struck, and how."""

    site: str
    """Where the call is made: "core", "libc", "child" (before exec) or "launcher"."""

    name: str
    nth: int
    error: int


Calls = Counter[tuple[str, str]]
"""How often each call was made: by site and name."""


class Play(NamedTuple):
    """What a watched process did."""

    said: Any
    """What its function returned."""

    calls: Calls
    """Those between `begin_act` and `end_act`."""

    struck: bool


_is_in_act = False


def begin_act() -> None:
    """From here on calls are counted, and may be struck. For the watched process."""
    global _is_in_act
    _is_in_act = True
    _libc.sched_get_priority_max(_BEGIN)


def end_act() -> None:
    """No longer."""
    global _is_in_act
    _is_in_act = False
    _libc.sched_get_priority_max(_END)


@contextmanager
def aside() -> Iterator[None]:
    """What is done meanwhile is no part of the act, if one is under way."""
    if not _is_in_act:
        yield
        return
    end_act()
    try:
        yield
    finally:
        begin_act()


Listen = Callable[[], None]
"""From here on the process is watched."""


def play(function: Callable[[Listen], object], blow: Blow | None) -> Play:
    """Return what *function* says in a fork of this process, watched, with *blow* struck.

    Without one, every call of the process is looked at. What it says is something that json knows.
    """
    ours, theirs = socket.socketpair()
    hands, tasks = socket.socketpair()
    with ours, theirs, hands, tasks, tempfile.TemporaryFile() as notes:
        pid = os.fork()
        if pid == 0:
            ours.close()
            hands.close()
            _be_watched(function, blow, theirs, tasks, notes)
        theirs.close()
        tasks.close()
        try:
            return _Supervisor(pid, blow, ours, hands, notes).supervise()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            hands.shutdown(socket.SHUT_RDWR)
            _wait_for_hands()


# --- the watched ----------------------------------------------------------------------------------


def _be_watched(
    function: Callable[[Listen], object],
    blow: Blow | None,
    report: socket.socket,
    tasks: socket.socket,
    notes: IO[bytes],
) -> None:
    said: object
    try:
        _start_hands(tasks)
        if "threads" not in LACKS:
            faulthandler.dump_traceback_later(DEADLINE_S - 5, exit=True, file=notes)
        said = {"said": function(partial(_submit, blow, report))}
    except BaseException:
        said = {"failed": traceback.format_exc()}
    report.sendall(json.dumps(said).encode() + b"\n")  # the hands hold it too: it has no end
    os._exit(0)


def _start_hands(tasks: socket.socket) -> None:
    """Start the process that shares our fds: a child of our parent, for we are to have none."""
    flags = _CLONE_FILES | _CLONE_PARENT | signal.SIGCHLD
    pid = _libc.syscall(NUMBERS["clone"], flags, 0, 0, 0, 0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if pid == 0:
        try:
            _do_as_told(tasks)
        finally:
            os._exit(0)


def _do_as_told(tasks: socket.socket) -> None:
    """Answer each task with a byte. What is opened here, the watched process would have."""
    while task := tasks.recv(8):
        what, fd = struct.unpack("ii", task)
        try:
            if what == _CLOSE:
                os.close(fd)
                tasks.sendall(b"y")
            else:
                socket.send_fds(tasks, [b"y"], [fd])
        except OSError:
            tasks.sendall(b"n")


def _submit(blow: Blow | None, report: socket.socket) -> None:
    number = os.dup(report.fileno())
    os.close(number)  # the listener's, since it is the lowest that is free
    report.sendall(struct.pack("i", number))
    names = None if blow is None else {NUMBERS[name] for name in {*_ALWAYS, blow.name.split()[0]}}
    assert listen(names) == number
    _libc.sched_get_priority_max(0)  # waits until the supervisor has its copy
    os.close(number)


# --- the supervisor -------------------------------------------------------------------------------


def _wait_for_hands() -> None:
    """Reap them, where there are any: of all children of this process the only one."""
    try:
        os.wait()
    except ChildProcessError:
        pass


class _Supervisor:
    def __init__(
        self,
        pid: int,
        blow: Blow | None,
        report: socket.socket,
        hands: socket.socket,
        notes: IO[bytes],
    ) -> None:
        self._pid = pid
        self._blow = blow
        self._report = report
        self._hands = hands
        for talk in (report, hands):
            talk.settimeout(DEADLINE_S)  # the hands hold the other ends too, and end after us
        self._notes = notes
        self._core = _core_addresses()
        self._calls: Calls = Counter()
        self._is_marked = self._has_struck = False
        self._after_exec: dict[int, str] = {}

    def supervise(self) -> Play:
        """Answer the process's calls until it has ended; OSError when that cannot be done here."""
        number = self._report.recv(4)
        assert len(number) == 4, self._last_words()
        listener = self._wait_for_listener(struct.unpack("i", number)[0])
        try:
            said = json.loads(self._serve(listener))
        finally:
            os.close(listener)
        assert "said" in said, said.get("failed")
        return Play(said["said"], self._calls, self._has_struck)

    def _wait_for_listener(self, number: int) -> int:
        end_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                return self._fetch(number)
            except OSError:
                assert not self._has_ended(), self._last_words()
                if time.monotonic() > end_s:
                    raise
            os.sched_yield()

    def _serve(self, listener: int) -> bytes:
        """Answer until the process has ended; return what it said last."""
        said = b""
        report = self._report.fileno()
        while ready := select.select([listener, report], [], [], DEADLINE_S)[0]:
            if listener in ready:
                if question := receive(listener):
                    self._answer(listener, question)
                elif self._has_ended() and report not in ready:
                    raise AssertionError(self._last_words())
            if report in ready:
                data = self._report.recv(65536)
                assert data, self._last_words()
                said += data
                if said.endswith(b"\n"):
                    return said
        raise AssertionError(f"nothing within {DEADLINE_S} s")

    def _has_ended(self) -> bool:
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._pid, how) is not None

    def _fetch(self, fd: int) -> int:
        """Return a copy of *fd* of the watched process."""
        self._hands.sendall(struct.pack("ii", _SEND, fd))
        _, copies, _, _ = socket.recv_fds(self._hands, 1, 1)
        if not copies:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return copies[0]

    def _last_words(self) -> str:
        self._notes.seek(0)
        said = self._notes.read()
        while select.select([self._report], [], [], 0)[0] and (more := self._report.recv(65536)):
            said += more
        return f"it ended without a result: {said.decode(errors='replace')}"

    def _answer(self, listener: int, question: Question) -> None:
        if self._has_struck:
            answer(listener, question)
            return
        site = self._site(question)
        name = self._name(question, site)
        if name == _MARK and question.arguments[0] in (_BEGIN, _END):
            self._is_marked = question.arguments[0] == _BEGIN
        elif self._is_marked and site != "program":
            self._calls[site, name] += 1
            if self._blow == (site, name, self._calls[site, name], self._blow and self._blow.error):
                self._has_struck = self._strike(listener, question)
                if self._has_struck:
                    return
        if name == "execve" and site in ("child", "launcher"):
            self._note_exec(question)
        answer(listener, question)

    def _site(self, question: Question) -> str:
        pid = question.pid
        if pid in self._after_exec:
            return self._after_exec[pid]
        if _libc.syscall(NUMBERS["tgkill"], self._pid, pid, 0) == 0:
            return "core" if question.instruction in self._core else "libc"
        return "child"

    def _note_exec(self, question: Question) -> None:
        """What is to be thought of the process from now on; one that is not there is not run."""
        path = self._text_at(question.pid, question.arguments[0])
        if os.path.exists(path):
            is_launcher = path.endswith(b"/_launch")
            self._after_exec[question.pid] = "launcher" if is_launcher else "program"

    def _name(self, question: Question, site: str) -> str:
        """The name of the call, with what decides about the errors that it may have."""
        name = _NAMES.get(question.number, f"number {question.number}")
        what = self._about(name, question) if site in ("core", "libc") else ""
        return f"{name} {what}".rstrip()

    def _about(self, name: str, question: Question) -> str:
        first, second = question.arguments[:2]
        if name == "epoll_ctl":
            return _EPOLL_OPERATIONS[second]
        if name == "clone3":
            flags = struct.unpack("Q", self._memory(question.pid, first, 8))[0]
            return "into cgroup" if flags & _CLONE_INTO_CGROUP else ""
        if name == "newfstatat":
            return "" if self._text_at(question.pid, second) else "fd"
        if name == "openat":
            path = os.fsdecode(self._text_at(question.pid, second))
            folder_fd = ctypes.c_int(first & 0xFFFFFFFF).value
            is_below = folder_fd >= 0 and not path.startswith("/")
            return _place(self._path_of(folder_fd) if is_below else path)
        return self._kind(first) if name in _WITH_A_KIND else ""

    def _path_of(self, fd: int) -> str:
        return os.readlink(f"{PROC}/{self._pid}/fd/{fd}")

    def _kind(self, fd: int) -> str:
        mode = stat.S_IFMT(os.stat(f"{PROC}/{self._pid}/fd/{fd}").st_mode)
        path = self._path_of(fd)
        if mode in (stat.S_IFREG, stat.S_IFDIR):
            return _place(path) or "file"
        return _KINDS.get(mode, "eventfd")

    # -- memory of the watched ----------------------------------------------------------------

    def _text_at(self, pid: int, address: int) -> bytes:
        return self._memory(pid, address, 256).split(b"\0")[0]

    def _memory(self, pid: int, address: int, size: int) -> bytes:
        with open(f"{PROC}/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size)

    # -- blows --------------------------------------------------------------------------------

    def _strike(self, listener: int, question: Question) -> bool:
        """Strike the call; False where the blow is none to it."""
        assert self._blow is not None
        if self._blow.error == SHORT:
            return self._make_short(listener, question)
        if self._blow.name == "close":
            self._hands.sendall(struct.pack("ii", _CLOSE, question.arguments[0]))
            assert self._hands.recv(1) == b"y"
        answer(listener, question, error=self._blow.error)
        return True

    def _make_short(self, listener: int, question: Question) -> bool:
        fd, address, size = question.arguments[:3]
        if size == _REPORT_BYTES:
            return False  # so few come together, or not at all (pipe(7), PIPE_BUF)
        copy = self._fetch(fd)
        try:
            if self._blow.name == "splice":
                answer(listener, question, value=self._splice_one(copy, question.arguments[2]))
            elif self._blow.name.startswith("read"):
                data = os.read(copy, 1)
                with open(f"{PROC}/{question.pid}/mem", "r+b", buffering=0) as memory:
                    memory.seek(address)
                    memory.write(data)
                answer(listener, question, value=len(data))
            else:
                if self._blow.name.startswith("writev"):
                    address = struct.unpack("Q", self._memory(question.pid, address, 8))[0]
                done = os.write(copy, self._memory(question.pid, address, 1))
                answer(listener, question, value=done)
        except OSError as error:
            answer(listener, question, error=error.errno or 0)
        finally:
            os.close(copy)
        return True

    def _splice_one(self, source: int, target: int) -> int:
        copy = self._fetch(target)
        try:
            return os.splice(source, copy, 1)
        finally:
            os.close(copy)


def _place(path: str) -> str:
    """Whose file it is: one that the kernel makes up has errors of its own."""
    if f"{path}/".startswith(("/proc/", f"{PROC}/")):
        return "proc"
    return "cgroup" if f"{path}/".startswith(_cgroup_mounts()) else ""


@functools.cache
def _cgroup_mounts() -> tuple[str, ...]:
    with open(f"{PROC}/self/mounts") as mounts:
        rows = [line.split() for line in mounts]
    return tuple(f"{row[1]}/" for row in rows if row[2] == "cgroup2")


def can_supervise() -> bool:
    """Whether this kernel, and what we run in, let us watch a process."""
    try:
        play(_do_nothing, None)
    except (AssertionError, OSError):
        return False
    return True


def _do_nothing(listen_now: Listen) -> None:
    listen_now()
