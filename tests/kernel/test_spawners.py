"""Children that native threads start: each is given back once, none is lost between two lines."""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from conftest import child_pids
from held import held_copy
from interrupted import interrupt_each_line
from support import DEADLINE_S
from watched import watched_by_kernel

from procreactor.core import binding
from procreactor.errors import SpawnError
from procreactor.kernel import children, spawners
from procreactor.kernel.children import Child
from procreactor.kernel.spawners import Spawner, Start
from procreactor.model import ExitStatus, PipeEnd, Redirect, SpawnSpec

has_pidfds = pytest.mark.skipif("pidfd" not in children.in_use(), reason="pidfds are off")


def sh(script: str, redirects: Sequence[Redirect] = ()) -> SpawnSpec:
    return SpawnSpec([b"/bin/sh"], [b"sh", b"-c", script.encode()], [], redirects)


def missing() -> SpawnSpec:
    return SpawnSpec([b"/nowhere"], [b"nowhere"], [])


@contextmanager
def spawner_of(threads: int) -> Iterator[Spawner]:
    spawner = Spawner(threads)
    try:
        yield spawner
    finally:
        assert spawner.close() == []


def wait_for_starts(spawner: Spawner, count: int) -> list[Start]:
    """Return what `take` returns, once there have been *count*; woken by the fd alone."""
    starts: list[Start] = []
    while len(starts) < count:
        assert select.select([spawner], [], [], DEADLINE_S)[0], f"only {starts} of {count}"
        starts += spawner.take()
    return starts


def wait_for_exit(child: Child) -> ExitStatus:
    assert select.select([child.exit_fd], [], [], DEADLINE_S)[0], "the exit was not noticed"
    status = child.try_reap()
    assert status is not None
    return status


def end(child: Child) -> ExitStatus:
    for fd in child.ours:
        if fd >= 0:
            os.close(fd)
    return wait_for_exit(child)


def test_a_child_comes_back_as_if_it_had_been_started_here() -> None:
    redirects = [Redirect(0, PipeEnd.WE_WRITE), Redirect(1, PipeEnd.WE_READ), Redirect(2, 2)]
    with spawner_of(1) as spawner:
        submitted = spawner.submit(sh("read word; echo got $word; exit 7", redirects))
        assert len(spawner) == 1
        ((child, watched, error),) = wait_for_starts(spawner, 1)
        assert (child, watched, error, len(spawner)) == (submitted, False, None, 0)
    stdin, stdout, none = child.ours
    assert none == -1
    os.write(stdin, b"it\n")
    status = wait_for_exit(child)
    assert (status.code, os.read(stdout, 100)) == (7, b"got it\n")
    os.close(stdin)
    os.close(stdout)


def test_a_start_that_failed_comes_back_too_and_says_what_can_be_said() -> None:
    searched = SpawnSpec([b"/bin/nowhere"], [b"nowhere"], [], searched_name=b"nowhere")
    with spawner_of(1) as spawner:
        spawner.submit(searched)
        spawner.submit(sh("exit 0", [Redirect(0, 899)]))
        first, second = (error for _, _, error in wait_for_starts(spawner, 2))
    assert first is not None
    assert issubclass(type(first), FileNotFoundError)
    assert (first.filename, first.hint) == ("nowhere", "it is in no directory of PATH")
    assert isinstance(second, SpawnError)
    assert (second.errno, second.stage) == (errno.EBADF, "dup")


def test_one_thread_starts_them_in_the_order_of_their_submission() -> None:
    with spawner_of(1) as spawner:
        submitted = [spawner.submit(missing()) for _ in range(200)]
        assert [child for child, _, _ in wait_for_starts(spawner, 200)] == submitted


def test_several_threads_start_each_of_many_once() -> None:
    with spawner_of(4) as spawner:
        submitted = [spawner.submit(sh(f"exit {number}")) for number in range(150)]
        starts = wait_for_starts(spawner, 150)
        assert spawner.take() == []
    assert {child for child, _, _ in starts} == set(submitted)
    assert [end(child).code for child in submitted] == list(range(150))


@has_pidfds
def test_under_a_key_the_set_watches_the_child_and_the_spawner_keeps_still() -> None:
    with select.epoll() as epoll, spawner_of(1) as spawner:
        child = spawner.submit(sh("exit 3"), epoll.fileno(), -7)
        assert epoll.poll(DEADLINE_S) == [(-7, select.EPOLLIN)]
        starts = spawner.take()
        while not starts:  # the set is told a moment before the child can be taken
            starts = spawner.take()
        assert starts == [(child, True, None)]
        assert not select.select([spawner], [], [], 0)[0]
        assert watched_by_kernel(epoll.fileno()) == {child.pidfd: select.EPOLLIN}
        assert wait_for_exit(child).code == 3


def test_under_a_key_a_failure_is_told_by_the_spawner() -> None:
    with select.epoll() as epoll, spawner_of(1) as spawner:
        spawner.submit(missing(), epoll.fileno(), -7)
        ((_, watched, error),) = wait_for_starts(spawner, 1)
        assert not watched
        assert issubclass(type(error), FileNotFoundError)
        assert epoll.poll(0) == []


def test_where_the_set_takes_no_more_the_start_is_told_by_the_spawner() -> None:
    with spawner_of(1) as spawner:
        child = spawner.submit(sh("exit 3"), -1, -7)
        assert wait_for_starts(spawner, 1) == [(child, False, None)]
    assert wait_for_exit(child).code == 3


def test_a_child_inherits_the_mask_of_the_submitting_thread() -> None:
    mask = {signal.SIGUSR1, signal.SIGRTMIN + 5}
    redirects = [Redirect(1, PipeEnd.WE_READ)]
    with spawner_of(1) as spawner:
        before = signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            spawner.submit(sh("exec grep SigBlk: /proc/self/status", redirects))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ((child, _, _),) = wait_for_starts(spawner, 1)
    assert child.ours
    child.wait_exit()
    blocked = int(os.read(child.ours[0], 100).split()[1], 16)
    assert {number for number in range(1, 65) if blocked >> (number - 1) & 1} == mask
    end(child)


def test_a_death_signal_is_refused_at_once_and_leaves_nothing() -> None:
    spec = sh("exit 0")
    spec.parent_death_signal = signal.SIGTERM
    with spawner_of(1) as spawner:
        with pytest.raises(SpawnError, match=os.strerror(errno.EINVAL)):
            spawner.submit(spec)
        assert len(spawner) == 0


@pytest.mark.parametrize("threads", [0, -1, 65, 1 << 40])
def test_the_number_of_threads_is_checked(threads: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to 64, not {threads}"):
        Spawner(threads)


# --- the end --------------------------------------------------------------------------------------


def test_a_close_gives_what_was_not_taken() -> None:
    spawner = Spawner(2)
    submitted = {spawner.submit(sh("exit 5")) for _ in range(100)}
    starts = spawner.close()
    assert {child for child, _, _ in starts} == submitted
    for child, _, error in starts:
        if error is None:
            assert end(child).code == 5
        else:
            assert (error.errno, error.stage) == (errno.ECANCELED, "cancelled before it began")


def test_a_close_waits_for_the_exec_that_is_under_way(tmp_path: Path) -> None:
    with held_copy("/bin/true", tmp_path / "held") as held:
        path = held.path.encode()
        spawner = Spawner(1)
        child = spawner.submit(SpawnSpec([path], [path], []))
        held.wait_until_reached()
        result: list[list[Start]] = []
        closer = threading.Thread(target=lambda: result.append(spawner.close()))
        closer.start()
        assert not result
        held.release()
        closer.join(DEADLINE_S)
    assert result == [[(child, False, None)]]
    assert wait_for_exit(child).code == 0


def test_a_second_close_does_nothing_and_nothing_is_accepted_after_the_first() -> None:
    spawner = Spawner(1)
    spawner.close()
    with pytest.raises(ValueError, match="closed"):
        spawner.submit(missing())
    assert len(spawner) == 0
    assert spawner.take() == []
    assert spawner.close() == []


def submit_what_is_none() -> None:
    spawner = Spawner(1)
    wrong: Any = SpawnSpec([b"/bin/true"], ["text"], [])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        spawner.submit(wrong)
    assert len(spawner) == 0
    child = spawner.submit(sh("exit 1"))
    assert wait_for_starts(spawner, 1) == [(child, False, None)]
    assert wait_for_exit(child).code == 1
    assert spawner.close() == []


def test_a_request_that_is_none_is_refused_and_the_spawner_can_still_be_closed() -> None:
    alone(submit_what_is_none)


def test_one_that_is_forgotten_ends_its_threads_and_what_they_started() -> None:
    gc.collect()
    spawner = Spawner(2)
    for _ in range(20):
        spawner.submit(sh("exec sleep 600", [Redirect(1, PipeEnd.WE_READ)]))
    del spawner
    gc.collect()
    assert not child_pids()


# --- when there is too little of something --------------------------------------------------------


def start_without_room_for_the_exit_watch() -> list[Any]:
    """Without pidfds a start is over only when its end can be watched, which takes two fds."""
    spawner = Spawner(1)
    spawner.submit(sh("exec sleep 600", [Redirect(1, PipeEnd.WE_READ)]))
    assert select.select([spawner], [], [], DEADLINE_S)[0]
    (pid,) = child_pids()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        ((_, _, error),) = spawner.take()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert error is not None
    assert not child_pids()
    spawner.close()
    return [pid > 0, error.errno, error.stage]


def test_a_start_whose_end_cannot_be_watched_is_undone() -> None:
    found = alone(start_without_room_for_the_exit_watch, disable="pidfd")
    assert found == [True, errno.EMFILE, "exit watch"]


def spawners_without_room() -> list[int]:
    errors = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        Spawner(2)
    except OSError as error:
        errors.append(error.errno or 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return errors


def test_one_that_cannot_be_opened_leaves_nothing() -> None:
    assert alone(spawners_without_room) == [errno.EMFILE]


# --- copies of the process ------------------------------------------------------------------------


def use_beside_a_copy() -> list[int | None]:
    spawner = Spawner(2)
    before = [spawner.submit(sh("exit 4")) for _ in range(20)]
    copy = os.fork()
    if copy == 0:
        rest = spawner.close()
        again = spawner.close()
        os._exit(0 if rest == again == [] else 1)
    assert os.waitpid(copy, 0)[1] == 0
    after = spawner.submit(sh("exit 6"))
    wait_for_starts(spawner, 21)
    codes = [end(child).code for child in [*before, after]]
    assert spawner.close() == []
    return codes


def test_a_copy_of_the_process_may_close_it_and_leaves_it_to_the_original() -> None:
    assert alone(use_beside_a_copy) == [4] * 20 + [6]


# --- between two lines ----------------------------------------------------------------------------


def interrupt_everywhere() -> int:
    """Who has the children that `submit` returned has, after a close, all that there are."""
    mine: list[Child] = []
    opened: list[Spawner] = []

    def act() -> None:
        spawner = Spawner(1)
        opened.append(spawner)
        mine.append(spawner.submit(sh("exec sleep 600", [Redirect(1, PipeEnd.WE_READ)])))
        spawner.submit(missing())
        wait_for_starts(spawner, 2)

    def clean_up() -> None:
        while opened:
            mine.extend(child for child, _, _ in opened.pop().close())
        while mine:
            mine.pop().abandon()
        gc.collect()  # ends those of which nobody had got hold
        assert not child_pids()

    return interrupt_each_line([spawners, children, binding], act, clean_up, set())


def test_an_interrupt_between_any_two_lines_loses_no_child() -> None:
    assert alone(interrupt_everywhere) > 100
