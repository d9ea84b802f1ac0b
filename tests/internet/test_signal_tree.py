"""transport.signalTree: the child and all that it has started, and nobody else."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from programs_build import build_program
from support import LACKS, Recorder, make_reactor, run_until
from woods import living, new_mark, wait_gone

from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.error import ProcessExitedAlready
from procreactor.kernel import cgroups
from procreactor.transport import trees

pytestmark = pytest.mark.needs("/proc")  # without it a signal reaches the leader and its group


@pytest.fixture
def reactor() -> Iterator[EPollReactor]:
    with make_reactor() as made:
        yield made


def grow(reactor: EPollReactor, mark: str, shape: str, number: int, **kwargs: Any) -> Any:
    """Return a child with a tree of so many, each of which has said that it is there."""
    protocol = Recorder()
    program = build_program("tree")
    args = ["tree", mark, shape, str(number)]
    reactor.spawnProcess(protocol, program, args, env=None, **kwargs)
    run_until(reactor, lambda: protocol.out.count(b".") == number + 1)
    return protocol


@pytest.mark.parametrize("name", ["TERM", "KILL"])
@pytest.mark.parametrize("session", [False, True])
def test_all_of_a_tree_get_the_signal(reactor: EPollReactor, name: str, session: bool) -> None:
    mark = new_mark()
    protocol = grow(reactor, mark, "broad", 3, session=session)
    assert len(living(mark)) == 4
    protocol.transport.signalTree(name)
    run_until(reactor, lambda: protocol.ended)
    wait_gone(mark)
    assert protocol.reason.value.signal == getattr(signal, f"SIG{name}")


def test_on_a_terminal_too(reactor: EPollReactor) -> None:
    mark = new_mark()
    protocol = grow(reactor, mark, "broad", 2, usePTY=True)
    protocol.transport.signalTree("KILL")
    run_until(reactor, lambda: protocol.ended)
    wait_gone(mark)


def test_another_child_gets_nothing(reactor: EPollReactor) -> None:
    marks = [new_mark(), new_mark()]
    one, other = (grow(reactor, mark, "broad", 1) for mark in marks)
    one.transport.signalTree("KILL")
    run_until(reactor, lambda: one.ended)
    assert len(living(marks[1])) == 2
    other.transport.signalTree("KILL")
    run_until(reactor, lambda: other.ended)
    wait_gone(marks[1])


def test_after_the_end_there_is_nobody(reactor: EPollReactor) -> None:
    protocol = Recorder()
    transport = reactor.spawnProcess(protocol, "/bin/true", env=None)
    run_until(reactor, lambda: protocol.ended)
    with pytest.raises(ProcessExitedAlready):
        transport.signalTree("TERM")


@pytest.mark.parametrize(
    ("wrong", "error"), [("NONE", ValueError), (None, TypeError), (999, OSError)]
)
def test_a_signal_that_is_none_is_refused(
    reactor: EPollReactor, wrong: Any, error: type[Exception]
) -> None:
    protocol = Recorder()
    transport = reactor.spawnProcess(protocol, "/bin/cat", env=None)
    with pytest.raises(error):
        transport.signalTree(wrong)
    assert transport.pid in {*map(int, filter(str.isdigit, os.listdir("/proc")))}
    transport.signalTree(signal.SIGKILL)
    run_until(reactor, lambda: protocol.ended)


def signal_with_one_fd_left(name: str) -> list[Any]:
    """Who sees a process has none left for its pidfd, and may not take it for one that is gone."""
    patience_s, trees.PATIENCE_S = trees.PATIENCE_S, 0.2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with make_reactor() as reactor:
        protocol = grow(reactor, new_mark(), "broad", 2)
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            os.close(taken.pop())
        refusal = None
        try:
            protocol.transport.signalTree(name)
        except OSError as error:
            refusal = error.errno
        for fd in taken:
            os.close(fd)
        trees.PATIENCE_S = patience_s
        protocol.transport.signalTree(name)
        run_until(reactor, lambda: protocol.ended)  # all three held its pipes
    return [refusal, protocol.reason.value.signal]


@pytest.mark.needs("file limits")
@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_where_no_fd_is_to_be_had_to_look_that_is_told_and_nobody_is_overlooked(name: str) -> None:
    number = int(getattr(signal, f"SIG{name}"))
    refusal = None if "pidfd_open" in LACKS else errno.EMFILE  # without pidfds one is enough
    assert alone(signal_with_one_fd_left, name) == [refusal, number]


@pytest.fixture
def group(reactor: EPollReactor) -> Iterator[tuple[Path, str, str]]:
    """A new cgroup, and two marks; who has one of them is killed at the end."""
    home = cgroups.open_home()
    path, marks = Path(home.path, "service"), (new_mark(), new_mark())
    path.mkdir()
    yield path, *marks
    for mark in marks:
        for pid in living(mark):
            os.kill(pid, signal.SIGKILL)
        wait_gone(mark)
    run_until(reactor, home.close)


@pytest.mark.needs("cgroup")
def test_another_cgroup_of_the_same_name_is_not_that_of_the_child(
    reactor: EPollReactor, group: tuple[Path, str, str]
) -> None:
    path, *marks = group
    one = grow(reactor, marks[0], "broad", 1, cgroup=str(path))
    one.transport.signalTree("KILL")
    run_until(reactor, lambda: one.ended)
    run_until(reactor, lambda: cgroups.remove(str(path)))
    path.mkdir()
    other = grow(reactor, marks[1], "broad", 1, cgroup=str(path))
    try:
        for name in ("TERM", "KILL"):
            with pytest.raises(ProcessExitedAlready):
                one.transport.signalTree(name)
        assert len(living(marks[1])) == 2
    finally:
        if not other.ended:
            other.transport.signalTree("KILL")
        run_until(reactor, lambda: other.ended)


@pytest.mark.needs("cgroup")
def test_who_is_left_in_the_cgroup_of_a_child_that_was_reaped_is_signalled(
    reactor: EPollReactor, group: tuple[Path, str, str]
) -> None:
    path, mark, _ = group
    one = Recorder()
    script = f"{build_program('tree')} {mark} broad 0 & exit 0"
    reactor.spawnProcess(one, "/bin/sh", ["sh", "-c", script], env=None, cgroup=str(path))
    run_until(reactor, lambda: one.out and "processExited" in one.names)
    one.transport.signalTree("KILL")
    wait_gone(mark)
    run_until(reactor, lambda: one.ended)
