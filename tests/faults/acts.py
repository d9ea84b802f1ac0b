"""What is done while a system call fails: each act says what belongs to its success.

An act does its thing once, with everything that the product may do wrong on the way, and asserts
the result: data, exit status, callbacks in their order, exactly once. What the product tells of a
failure is collected, not asserted: `Stage.refusals` for exceptions, `Stage.logged` for what was
logged and survived. Whether the error that was struck allows for it, test_every_call.py judges.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import pwd
import resource
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from faults.supervision import aside
from support import DEADLINE_S, Recorder, make_reactor, run_until
from ways import WAYS

from procreactor.apps.batch import Outcome, plan_command, run_batch
from procreactor.errors import SpawnError
from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.error import ProcessExitedAlready
from procreactor.kernel import cgroups, users
from procreactor.kernel.cgroups import Cgroup
from procreactor.transport.passage import Passage

__all__ = ["ACTS", "Act", "Refusal", "Stage", "note_refusal", "stage_for"]

SHELL = "/bin/sh"
ECHO_WORD = [SHELL, "-c", "read word; echo got $word; echo error >&2; exit 5"]
NOT_THERE = "/nowhere"
MUCH = bytes(range(256)) * 1200
"""More than a pipe holds, and than one read takes."""

USER = pwd.getpwuid(1)

Refusal = tuple[int | None, str]
"""An errno, and the stage or the text that goes with it."""


@dataclass
class Stage:
    """Where an act is performed, and what was told of failures meanwhile."""

    reactor: Any
    may_lose: bool = False
    """The error says that nobody is at the other side: what is on its way is lost."""

    may_miss: bool = False
    """A signal by number is refused: where it is one of several, that is not told."""

    refusals: list[Refusal] = field(default_factory=list)
    logged: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True)
class Act:
    """*perform* does it; what it does `aside` is not watched."""

    perform: Callable[[Stage], None]
    disable: str = ""
    is_cold: bool = False
    """Whether it is the first spawn of its process."""

    needs_root: bool = False
    needs_cgroup: bool = False
    needs_proc: bool = False
    """Whether a tree is looked for; without /proc only its leader is found."""

    is_long: bool = False
    """Whether it makes so many calls that fewer of equal ones have to do."""

    is_thorough: bool = False
    """Whether each call has all the errors that it may have, not only the likeliest."""

    has_reactor: bool = True
    asks_database: bool = False
    """Whether it looks up a user. What libc does there may be any service's, and happens under the
    interpreter's lock: it is left alone, but for the files that are opened and read."""


class _Log(logging.Handler):
    """Collects what the product logs, and what ends a thread of its."""

    def __init__(self, into: list[Refusal]) -> None:
        super().__init__()
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        self._note(record.exc_info[1] if record.exc_info else None, record.getMessage())

    def note_end(self, args: threading.ExceptHookArgs) -> None:
        self._note(args.exc_value, "a thread")

    def _note(self, error: BaseException | None, where: str) -> None:
        self._into.append((getattr(error, "errno", None), f"{where}: {error!r}"))


@contextmanager
def stage_for(act: Act, may_lose: bool = False, may_miss: bool = False) -> Iterator[Stage]:
    """A stage with what *act* wants."""
    stage = Stage(None, may_lose, may_miss)
    log, logger = _Log(stage.logged), logging.getLogger("procreactor")
    logger.addHandler(log)
    threading.excepthook = log.note_end
    try:
        if not act.has_reactor:
            yield stage
            return
        with make_reactor() as stage.reactor:
            yield stage
    finally:
        threading.excepthook = threading.__excepthook__
        logger.removeHandler(log)


def note_refusal(stage: Stage, error: BaseException) -> None:
    """Add *error* to what was told."""
    number = getattr(error, "errno", None)
    stage.refusals.append((number, getattr(error, "stage", "")))


# --- one child ------------------------------------------------------------------------------------


def _check_order(protocol: Recorder, pipes: int) -> None:
    """All callbacks came, each once, and in an order that makes sense."""
    names = protocol.names
    assert names[0] == "connectionMade", names
    assert names[-1] == "processEnded", names
    counts = Counter(names)
    assert counts["connectionMade"] == counts["processExited"] == counts["processEnded"] == 1, names
    lost = [call[1] for call in protocol.calls if call[0] == "childConnectionLost"]
    assert len(lost) == len(set(lost)) == pipes, protocol.calls
    for child_fd in lost:
        after = protocol.calls[protocol.calls.index(("childConnectionLost", child_fd)) :]
        assert not [call for call in after if call[:2] == ("childDataReceived", child_fd)]


def _talk(
    stage: Stage,
    talk: Callable[[Any, Recorder], None],
    args: Sequence[str],
    pipes: int = 3,
    **kwargs: Any,
) -> Recorder | None:
    """Spawn, *talk*, run to the end, and return the protocol; None when a failure was told."""
    protocol = Recorder()
    transport = stage.reactor.spawnProcess(protocol, args[0], args, env=None, **kwargs)
    told = False
    try:
        talk(transport, protocol)
        if stage.may_lose and kwargs.get("usePTY"):  # which is not hung up for the child
            transport.signalProcess("KILL")
    except OSError as error:  # told to us, so we end it
        told = True
        note_refusal(stage, error)
        if transport.pid is not None:
            os.kill(transport.pid, signal.SIGKILL)
        transport.resumeProducing()
        transport.loseConnection()
    run_until(stage.reactor, lambda: protocol.ended)
    _check_order(protocol, pipes)
    return None if told or stage.may_lose else protocol


def _say_word(transport: Any, protocol: Recorder) -> None:
    transport.write(b"word\n")
    transport.closeStdin()


def _exchange_words(stage: Stage, **kwargs: Any) -> None:
    on_terminal = bool(kwargs.get("usePTY"))
    protocol = _talk(stage, _say_word, ECHO_WORD, 0 if on_terminal else 3, **kwargs)
    if protocol is not None:
        value = protocol.reason.value
        assert (value.exitCode, value.signal) == (5, None), protocol.reason
        if on_terminal:
            assert protocol.out == b"word\r\ngot word\r\nerror\r\n", protocol.data
        else:
            assert protocol.data == {1: b"got word\n", 2: b"error\n"}


def _ask_who(stage: Stage) -> None:
    """A user's own group comes from the database: where that cannot be read, nobody is started."""
    users._kept.clear()  # as when the last answer is a second old
    protocol = _talk(stage, lambda *_: None, ["/usr/bin/id", "-G"], uid=USER.pw_uid)
    if protocol is not None:
        assert int(protocol.out.split()[0]) == USER.pw_gid, protocol.data
        assert protocol.reason.value.exitCode == 0


EXTRAS = {
    "path": "/",
    "umask": 0o27,
    "rlimits": {resource.RLIMIT_CORE: 0},
    "nice": 1,
    "session": True,
    "parentDeathSignal": "USR1",
    "noNewPrivileges": True,
    "signalMask": ["USR2"],
}


def _fail_to_find(stage: Stage, **kwargs: Any) -> None:
    """Spawn what is not there: SpawnError. One whose report was struck ends with 127 instead."""
    protocol = Recorder()
    try:
        stage.reactor.spawnProcess(protocol, NOT_THERE, [NOT_THERE], env=None, **kwargs)
    except SpawnError as error:
        if (error.errno, error.stage) != (errno.ENOENT, "exec"):
            raise
        assert not protocol.calls
        return
    raise AssertionError("a program that is not there was started")


# --- one child's bytes, signals, closes -----------------------------------------------------------


def _echo_much(stage: Stage) -> None:
    """More than the pipes hold, there and back, with a pause, and a second pipe into the child."""

    def talk(transport: Any, protocol: Recorder) -> None:
        transport.write(MUCH[:100_000])
        transport.writeSequence([MUCH[100_000:200_000], MUCH[200_000:]])
        transport.writeToChild(3, b"never read\n")  # before a turn, in which a struck child may end
        transport.pauseProducing()
        stage.reactor.iterate(0)
        transport.resumeProducing()
        transport.closeStdin()
        run_until(stage.reactor, lambda: len(protocol.out) >= len(MUCH) or protocol.ended)
        transport.closeChildFD(3)

    child_fds = {0: "w", 1: "r", 2: "r", 3: "w"}
    protocol = _talk(stage, talk, ["/bin/cat"], pipes=4, childFDs=child_fds)
    if protocol is not None:
        assert protocol.out == MUCH
        assert protocol.reason.value.exitCode == 0


def _echo_small(stage: Stage) -> None:
    """Byte by byte, so that each read is short and most turns have one event."""

    def talk(transport: Any, protocol: Recorder) -> None:
        for size in range(1, 4):
            transport.write(b"x")
            run_until(stage.reactor, lambda size=size: len(protocol.out) >= size or protocol.ended)
        transport.closeStdin()

    protocol = _talk(stage, talk, ["/bin/cat"])
    if protocol is not None:
        assert protocol.out == b"xxx"
        assert protocol.reason.value.exitCode == 0


def _flood(stage: Stage) -> None:
    """So much that the pipe is grown."""
    size = 2_000_000
    protocol = _talk(stage, lambda *_: None, ["/usr/bin/head", "-c", str(size), "/dev/zero"])
    if protocol is not None:
        assert protocol.out == bytes(size)
        assert protocol.reason.value.exitCode == 0


def _lose_connection(stage: Stage) -> None:
    protocol = _talk(stage, lambda transport, _: transport.loseConnection(), ["/bin/cat"])
    if protocol is not None:
        value = protocol.reason.value
        assert (value.exitCode, value.signal) in ((0, None), (None, signal.SIGPIPE)), value


def _signal(stage: Stage) -> None:
    def talk(transport: Any, protocol: Recorder) -> None:
        transport.signalProcess("TERM")

    protocol = _talk(stage, talk, ["/bin/cat"])
    if protocol is not None:
        assert protocol.reason.value.signal == signal.SIGTERM


def _let_go(stage: Stage) -> None:
    """The reactor lets go of a child that runs, which then sees the end of its input."""
    protocol = Recorder()
    transport = stage.reactor.spawnProcess(protocol, "/bin/cat", ["/bin/cat"])
    pid = transport.pid
    transport.disconnectAll()
    os.waitid(os.P_PID, pid, os.WEXITED)
    assert sorted(protocol.names[1:]) == ["childConnectionLost"] * 3
    del protocol, transport
    gc.collect()  # the pidfd goes with them


# --- trees and groups -----------------------------------------------------------------------------

TREE = [SHELL, "-c", "exec 3<&0; /bin/cat <&3 & exec /bin/sleep 60"]
"""Two processes with the same pipes: so the ends of these tell that both are no more."""


def _grow(stage: Stage, **kwargs: Any) -> Recorder:
    """Return what was started as `TREE`, all of which is there."""
    protocol = Recorder()
    stage.reactor.spawnProcess(protocol, SHELL, TREE, env=None, **kwargs).write(b"up")
    run_until(stage.reactor, lambda: protocol.out)
    return protocol


def _fell(stage: Stage, protocol: Recorder, blow: Callable[[], object]) -> bool:
    """End all of a tree by *blow*; return whether it did. Once it was told, it does."""
    try:
        blow()
        has_felled = True
    except OSError as error:
        note_refusal(stage, error)
        has_felled = False
    with aside():
        if not has_felled or stage.may_miss:
            with suppress(ProcessLookupError, ProcessExitedAlready):
                blow()
            protocol.transport.closeStdin()  # ends who has lost his leader, and is not found
        run_until(stage.reactor, lambda: protocol.ended)
    _check_order(protocol, 3)
    return has_felled


def _signal_tree(stage: Stage, name: str, **kwargs: Any) -> None:
    with aside():
        protocol = _grow(stage, **kwargs)
    if _fell(stage, protocol, lambda: protocol.transport.signalTree(name)):
        assert protocol.reason.value.signal == getattr(signal, f"SIG{name}"), protocol.reason


@contextmanager
def _a_group() -> Iterator[Cgroup]:
    """A group that is made, and removed, aside."""
    with aside():
        home = cgroups.open_home()
        group = home.new_group()
    try:
        yield group
    finally:
        with aside():
            assert group.kill(DEADLINE_S)
            group.close()
            assert home.close()


def _make_a_group(stage: Stage) -> None:
    """One that is not removed is so by the next that is made there."""
    cgroups._Refused.last = None  # as in a process that never asked
    home = cgroups.open_home()
    try:
        group = home.new_group()
        try:
            assert group.is_as_new() or group.is_as_new()  # what cannot be told is not so, for once
            assert group.members() == []
            assert group.wait_empty(0)
            same = Cgroup(group.path, is_one_of_many=True)
            try:
                assert same.is_as_new() or same.is_as_new()
            finally:
                same.close()
        finally:
            group.close()
        cgroups.remove(group.path)
    finally:
        home.close()


def _start_in_a_group(stage: Stage) -> None:
    with _a_group() as group:
        try:
            protocol = Recorder()
            stage.reactor.spawnProcess(protocol, "/bin/cat", env=None, cgroup=group.path)
            with aside():
                assert group.members() == [protocol.transport.pid]
        finally:
            with aside():
                group.kill(DEADLINE_S)
                run_until(stage.reactor, lambda: protocol.ended or not protocol.calls)


def _signal_a_group(stage: Stage) -> None:
    with _a_group() as group:
        _signal_tree(stage, "TERM", cgroup=group.path)


def _kill_a_group(stage: Stage, at_once: bool = True) -> None:
    with _a_group() as made:
        with aside():
            group = Cgroup(made.path, at_once=at_once)
            protocol = _grow(stage, cgroup=group.path)
        try:
            _fell(stage, protocol, lambda: group.kill(DEADLINE_S))
        finally:
            with aside():
                group.close()


# --- pages ----------------------------------------------------------------------------------------


PIECE = 50_000
PAGES = MUCH[:100_000] * 12
"""So many bytes that the pipe which they are passed on to is grown."""


def _new_pipe() -> tuple[int, int]:
    """A pipe whose read end does not block."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    return read_fd, write_fd


def _drain(fd: int) -> bytes:
    """Return all that is in the pipe."""
    data = b""
    try:
        while piece := os.read(fd, len(PAGES)):
            data += piece
    except BlockingIOError:
        pass
    return data


def _pass_on(stage: Stage) -> None:
    """From pipe to pipe, so much that the target is grown; what takes no pages any more is read."""
    with aside():
        (source, filled), (read, target) = _new_pipe(), _new_pipe()
    passage = Passage(target)
    passed = b""
    try:
        for at in range(0, len(PAGES), PIECE):
            with aside():
                os.write(filled, PAGES[at : at + PIECE])
            while passage.move(source):
                pass
            with aside():
                passed += _drain(read) + _drain(source)
        assert passed == PAGES
    except BrokenPipeError as error:
        note_refusal(stage, error)
    finally:
        passage.close()
        with aside():
            for fd in (source, filled, read, target):
                os.close(fd)


# --- reactors and batches -------------------------------------------------------------------------


def _use_a_reactor(stage: Stage) -> None:
    called: list[str] = []
    reactor = EPollReactor()
    try:
        reactor.callLater(0, called.append, "later")
        reactor.callFromThread(called.append, "from thread")
        run_until(reactor, lambda: len(called) == 2)
        reactor.fileno()  # a host would watch it
        reactor.callLater(0.001, called.append, "when hosted")
        run_until(reactor, lambda: len(called) == 3)
    finally:
        reactor.disconnectAll()
        reactor._loop.close()
    assert sorted(called) == ["from thread", "later", "when hosted"]


Command = tuple[list[str], bytes, bytes, int | None]
"""What is run, what it writes to stdout and stderr, and its exit code; None: it is not there."""

FLOOD: Command = (["/usr/bin/head", "-c", "200000", "/dev/zero"], bytes(200_000), b"", 0)
"""Fills its pipe, and so waits until the loop claims it from the thread that started it."""

FEW_COMMANDS: list[Command] = [
    ([SHELL, "-c", "echo out; echo error >&2; exit 3"], b"out\n", b"error\n", 3),
    FLOOD,
]

COMMANDS: list[Command] = [*FEW_COMMANDS, ([NOT_THERE], b"", b"", None)]


def _run_commands(stage: Stage, commands: list[Command]) -> None:
    outcomes: dict[int, Outcome] = {}
    specs = [plan_command(argv) for argv, *_ in commands]
    for outcome in run_batch(specs, at_once=2, threads=2):
        assert outcome.number not in outcomes
        outcomes[outcome.number] = outcome
    assert set(outcomes) == set(range(len(commands)))
    for number, (_, out, err, code) in enumerate(commands):
        outcome = outcomes[number]
        if outcome.error is not None:
            if code is not None or outcome.error.errno != errno.ENOENT:
                note_refusal(stage, outcome.error)
            continue
        assert (outcome.stdout, outcome.stderr) == (out, err), outcome
        assert outcome.status is not None
        assert outcome.status.code == code, outcome


# --- all of them ----------------------------------------------------------------------------------


def _spawn_on(way: str, perform: Callable[..., None], thorough: bool = False, **kwargs: Any) -> Act:
    return Act(
        partial(perform, **{**WAYS[way].arguments, **kwargs}),
        disable=WAYS[way].disable,
        is_thorough=thorough,
        needs_root=WAYS[way].needs_root,
        asks_database=WAYS[way].needs_root,
    )


def _in_group(perform: Callable[[Stage], None], **kwargs: Any) -> Act:
    return Act(perform, needs_cgroup=True, **kwargs)


COVERED = ("path", "launcher", "own fd table")
"""Ways whose calls are all among those of other acts."""

ACTS: Mapping[str, Act] = {
    **{f"a spawn, {way}": _spawn_on(way, _exchange_words) for way in WAYS if way not in COVERED},
    "a spawn with everything": _spawn_on("plain", _exchange_words, True, **EXTRAS),
    "a spawn with everything, launcher": _spawn_on("launcher", _exchange_words, True, **EXTRAS),
    "a spawn by uid alone": Act(_ask_who, needs_root=True, asks_database=True),
    "a terminal with a size": _spawn_on("terminal", _exchange_words, True, windowSize=(25, 80)),
    "the first spawn": Act(_exchange_words, is_cold=True, is_thorough=True),
    **{
        f"a spawn that fails, {way}": _spawn_on(way, _fail_to_find)
        for way in ("plain", "fork", "launcher", "terminal")
    },
    "much through the pipes": Act(_echo_much, is_thorough=True),
    "little through the pipes": Act(_echo_small),
    "a flood": Act(_flood),
    "loseConnection": Act(_lose_connection),
    "a signal": Act(_signal),
    "a signal, without pidfds": Act(_signal, disable="pidfd"),
    "disconnectAll": Act(_let_go),
    "a signal to a tree": Act(partial(_signal_tree, name="TERM"), needs_proc=True, is_long=True),
    "a kill of a tree": Act(partial(_signal_tree, name="KILL"), needs_proc=True, is_long=True),
    "a signal to a cgroup": _in_group(_signal_a_group, is_long=True),
    "a cgroup": _in_group(_make_a_group, has_reactor=False, is_thorough=True),
    "a spawn into a cgroup": _in_group(_start_in_a_group, is_thorough=True),
    "a spawn into a cgroup, by hand": _in_group(_start_in_a_group, disable="clone3"),
    "a kill of a cgroup": _in_group(_kill_a_group, is_thorough=True),
    "a kill of a cgroup, one by one": _in_group(partial(_kill_a_group, at_once=False)),
    "pages passed on": Act(_pass_on, has_reactor=False, is_thorough=True),
    "a reactor": Act(_use_a_reactor, has_reactor=False, is_thorough=True),
    "a batch": Act(partial(_run_commands, commands=COMMANDS), has_reactor=False),
    "a batch, without pidfds": Act(
        partial(_run_commands, commands=FEW_COMMANDS), disable="pidfd", has_reactor=False
    ),
    "a batch, fork": Act(
        partial(_run_commands, commands=FEW_COMMANDS), disable="vfork", has_reactor=False
    ),
}
