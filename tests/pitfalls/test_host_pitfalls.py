"""What the program around us, or the user that a child becomes, can do to the reactor.

A fork of the host, a loop that hosts ours and is given a file, a user who stops all that he owns, a
sandbox that kills for a system call it was told we do not make, a limit of a few open files.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from seccomp import make_deadly, needs_seccomp
from support import PROC, PYTHON, Recorder, make_reactor, run_until, spawn_and_finish

from procreactor.errors import SpawnError
from procreactor.internet.epollreactor import EPollReactor

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes its uid, which needs root")

STRANGER = 12345
"""A uid that nobody has."""


# --- a fork of the host ---------------------------------------------------------------------------


def parents_child_after_a_fork_that_runs_its_copy_of_the_reactor() -> list[str]:
    with make_reactor() as reactor:
        recorder = Recorder()
        transport = reactor.spawnProcess(recorder, "/bin/cat")
        copy = os.fork()
        if copy == 0:
            # The copy's turns must neither hear of the original's child nor take it out of its set.
            reactor.callLater(0.01, reactor.crash)
            reactor.iterate(0)
            reactor.iterate(0.02)
            os._exit(0 if recorder.names == ["connectionMade"] else 1)
        _, status = os.waitpid(copy, 0)
        assert status == 0
        transport.write(b"still ours")
        transport.closeStdin()
        run_until(reactor, lambda: recorder.ended)
        assert recorder.out == b"still ours"
        return recorder.names[-1:]


def test_a_forked_copy_does_not_rob_the_original_of_its_children() -> None:
    assert alone(parents_child_after_a_fork_that_runs_its_copy_of_the_reactor) == ["processEnded"]


def exit_code_of_a_copy_that_spawns_its_own_child() -> int:
    with make_reactor() as reactor:
        copy = os.fork()
        if copy == 0:
            recorder = spawn_and_finish(reactor, "/bin/sh", ["sh", "-c", "exit 7"])
            os._exit(recorder.reason.value.exitCode)
        return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


def test_a_forked_copy_of_a_reactor_can_spawn_children_of_its_own() -> None:
    assert alone(exit_code_of_a_copy_that_spawns_its_own_child) == 7


# --- hosted ---------------------------------------------------------------------------------------


class FileReader:
    """Reads a file to its end, by the reactor's readiness."""

    def __init__(self, reactor: EPollReactor, fd: int) -> None:
        self._reactor = reactor
        self._fd = fd
        self.data = b""
        self.done = False

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        piece = os.read(self._fd, 5)
        self.data += piece
        if not piece:
            self._reactor.removeReader(self)
            self.done = True

    def connectionLost(self, reason: object) -> None:
        self.done = True


def test_a_regular_file_is_read_under_a_host_loop_that_waits_for_our_fd() -> None:
    async def host(reactor: EPollReactor, reader: FileReader) -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def turn() -> None:
            reactor.iterate(0)
            if reader.done and not ended.done():
                ended.set_result(None)

        loop.add_reader(reactor.fileno(), turn)
        try:
            await asyncio.wait_for(ended, 30)
        finally:
            loop.remove_reader(reactor.fileno())

    with make_reactor() as reactor, tempfile.TemporaryFile() as file:
        file.write(b"twelve bytes")
        file.flush()
        file.seek(0)
        reader = FileReader(reactor, file.fileno())
        reactor.addReader(reader)
        asyncio.run(host(reactor, reader))
        assert reader.data == b"twelve bytes"


# --- a user who stops all that he owns ------------------------------------------------------------


def stop_everything_of(uid: int) -> None:
    """As that user, stop every process of his, for ever; never returns."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    while True:
        for name in os.listdir(PROC):
            try:
                his = name.isdigit() and Path(PROC, name).stat().st_uid == uid
                if his and int(name) != os.getpid():
                    os.kill(int(name), signal.SIGSTOP)
            except OSError:
                pass  # gone, or not his


def stages_of_starts_under_attack(starts: int) -> list[str]:
    attacker = os.fork()
    if attacker == 0:
        stop_everything_of(STRANGER)
    stages = set()
    try:
        with make_reactor() as reactor:
            for _ in range(starts):
                try:
                    reactor.spawnProcess(
                        Recorder(), "/no/such/program", uid=STRANGER, gid=STRANGER, childFDs={}
                    )
                except SpawnError as error:
                    stages.add(error.stage)
    finally:
        os.kill(attacker, signal.SIGKILL)
        os.waitpid(attacker, 0)
    return sorted(stages)


@needs_root
@pytest.mark.parametrize("disable", ["", "helper"])
def test_a_user_who_stops_all_his_processes_does_not_stop_the_reactor(disable: str) -> None:
    stages = alone(stages_of_starts_under_attack, 300, disable=disable)
    assert set(stages) <= {"exec", "stopped before exec"}
    assert "exec" in stages


# --- a sandbox ------------------------------------------------------------------------------------


def exit_code_where_close_range_is_deadly() -> int:
    make_deadly("close_range")
    with make_reactor() as reactor:
        recorder = spawn_and_finish(reactor, "/bin/sh", ["sh", "-c", "exit 5"])
        return int(recorder.reason.value.exitCode)


@needs_seccomp
def test_what_is_switched_off_is_not_even_asked_for() -> None:
    code: Any = alone(exit_code_where_close_range_is_deadly, disable="unshare,close_range")
    assert code == 5


# --- few open files -------------------------------------------------------------------------------


ONE_SPAWN = """
from procreactor.internet import reactor, utils

utils.getProcessValue("/bin/true").addBoth(lambda value: (print(value), reactor.stop()))
reactor.run()
"""


@pytest.mark.needs("file limits")
def test_a_program_that_may_open_few_files_can_still_spawn() -> None:
    with make_reactor() as reactor:
        recorder = spawn_and_finish(
            reactor,
            PYTHON,
            [PYTHON, "-c", ONE_SPAWN],
            env=None,
            rlimits={resource.RLIMIT_NOFILE: 34},
        )
    assert recorder.out == b"0\n", recorder.err
