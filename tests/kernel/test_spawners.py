"""Children that native threads start, and keep: each is given back once, none is lost."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from held import held_copy, wait_for
from interrupted import interrupt_each_line, interrupted_before
from leftovers import child_pids, open_fds
from programs_build import build_program
from support import DEADLINE_S, PROC, PYTHON
from ways import WITHOUT_PIDFDS

from procreactor._core import ffi
from procreactor.core import binding
from procreactor.core.binding import GATHERED_EXIT, GATHERED_OVER
from procreactor.errors import SpawnError
from procreactor.kernel import children, dispositions, spawners
from procreactor.kernel.children import Child
from procreactor.kernel.spawners import Finish, JobState, Spawner
from procreactor.model import ExitStatus, PipeEnd, Redirect, SpawnSpec

has_pidfds = pytest.mark.skipif("pidfd" not in children.in_use(), reason="pidfds are off")

PIPES = (
    Redirect(0, PipeEnd.WE_WRITE),
    Redirect(1, PipeEnd.WE_READ),
    Redirect(2, PipeEnd.WE_READ),
)


def sh(script: str, redirects: Sequence[Redirect] = ()) -> SpawnSpec:
    return SpawnSpec([b"/bin/sh"], [b"sh", b"-c", script.encode()], [], redirects)


def program(*words: object, redirects: Sequence[Redirect] = PIPES) -> SpawnSpec:
    argv = [str(word).encode() for word in words]
    return SpawnSpec([argv[0]], argv, [], redirects)


def missing() -> SpawnSpec:
    return SpawnSpec([b"/nowhere"], [b"nowhere"], [])


def close(spawner: Spawner) -> list[Finish]:
    rest: deque[Finish] = deque()
    spawner.close(rest)
    return list(rest)


def take(spawner: Spawner) -> list[Finish]:
    taken: deque[Finish] = deque()
    spawner.take(taken)
    return list(taken)


@contextmanager
def spawner_of(threads: int, at_once: int | None = None) -> Iterator[Spawner]:
    spawner = Spawner(threads, at_once)
    try:
        yield spawner
    except BaseException:
        for finish in close(spawner):
            finish.child.abandon()
        raise
    assert close(spawner) == []


def wait_for_finishes(spawner: Spawner, count: int) -> list[Finish]:
    """Return what `take` gives, once there have been *count*; woken by the fd alone."""
    finishes: deque[Finish] = deque()
    while len(finishes) < count:
        assert select.select([spawner], [], [], DEADLINE_S)[0], f"only {finishes} of {count}"
        spawner.take(finishes)
    return list(finishes)


def claim(spawner: Spawner, token: int) -> None:
    """Have the child of *token* as soon as it can be had."""
    wait_for(lambda: spawner.claim(token, deque()) is JobState.RUNNING)


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


def read_all(fd: int) -> bytes:
    """Read *fd*, which does not block, to its end, and close it."""
    os.set_blocking(fd, True)
    with open(fd, "rb") as stream:
        return stream.read()


def see_to_the_end(spawner: Spawner, finish: Finish) -> tuple[ExitStatus, bytes, bytes]:
    """How a child went, and what it said.

    Something may be left though it ended: a child that another thread has just started holds a copy
    of its streams until it execs, and one that the kernel reaps by itself cannot be had in between.
    """
    out, err = finish.data or (b"", b"")
    status = finish.status
    if not finish.is_over:
        rest = [read_all(fd) if fd >= 0 else b"" for fd in finish.child.ours] + [b""] * 3
        out, err = out + rest[1], err + rest[2]
        while status is None:
            status = finish.child.try_reap()
        spawner.release(finish.child)
    assert status is not None
    return status, out, err


def said(fd: int, size_bytes: int) -> bytes:
    """What the program "say" writes to *fd*."""
    block = bytes((7 * index + fd) % 251 for index in range(251 * 256))
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


def stat_of(pid: int) -> str:
    return Path(f"{PROC}/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def state_of(spawner: Spawner, token: int) -> JobState:
    """Where a job is, without a claim: as C noted it, read without its lock."""
    return JobState(spawner._threads._jobs[token][0].state)


# --- children that are given back alive -----------------------------------------------------------


def test_a_child_comes_back_as_if_it_had_been_started_here() -> None:
    redirects = [Redirect(0, PipeEnd.WE_WRITE), Redirect(1, PipeEnd.WE_READ), Redirect(2, 2)]
    with spawner_of(1) as spawner:
        token, submitted = spawner.submit(sh("read word; echo got $word; exit 7", redirects), False)
        assert (len(spawner), token in spawner) == (1, True)
        (finish,) = wait_for_finishes(spawner, 1)
        assert not finish.is_over
        assert finish[:5] == (submitted, 0, None, None, None)
        assert (len(spawner), token in spawner) == (0, False)
    child = finish.child
    stdin, stdout, none = child.ours
    assert none == -1
    os.write(stdin, b"it\n")
    status = wait_for_exit(child)
    assert (status.code, os.read(stdout, 100)) == (7, b"got it\n")
    os.close(stdin)
    os.close(stdout)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_start_that_failed_comes_back_too_and_says_what_can_be_said(keeps: bool) -> None:
    searched = SpawnSpec([b"/bin/nowhere"], [b"nowhere"], [], searched_name=b"nowhere")
    with spawner_of(1) as spawner:
        spawner.submit(searched, keeps)
        spawner.submit(sh("exit 0", [Redirect(0, 899)]), keeps)
        finishes = wait_for_finishes(spawner, 2)
    first, second = (finish.error for finish in finishes)
    assert all(finish.is_over and finish.status is None for finish in finishes)
    assert first is not None
    assert issubclass(type(first), FileNotFoundError)
    assert (first.filename, first.hint) == ("nowhere", "it is in no directory of PATH")
    assert isinstance(second, SpawnError)
    assert (second.errno, second.stage) == (errno.EBADF, "dup")


def test_one_thread_starts_them_in_the_order_of_their_submission() -> None:
    with spawner_of(1) as spawner:
        submitted = [spawner.submit(missing(), bool(number % 2))[1] for number in range(200)]
        assert [finish.child for finish in wait_for_finishes(spawner, 200)] == submitted


def test_several_threads_start_each_of_many_once() -> None:
    with spawner_of(4) as spawner:
        submitted = [spawner.submit(sh(f"exit {number}"), False)[1] for number in range(150)]
        finishes = wait_for_finishes(spawner, 150)
        assert take(spawner) == []
    assert {finish.child for finish in finishes} == set(submitted)
    assert [end(child).code for child in submitted] == list(range(150))


def test_a_child_inherits_the_mask_of_the_submitting_thread() -> None:
    mask = {signal.SIGUSR1, signal.SIGRTMIN + 5}
    with spawner_of(1) as spawner:
        before = signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            spawner.submit(sh(f"exec grep SigBlk: {PROC}/self/status", PIPES), True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        (finish,) = wait_for_finishes(spawner, 1)
        _, out, _ = see_to_the_end(spawner, finish)
    blocked = int(out.split()[1], 16)
    assert {number for number in range(1, 65) if blocked >> (number - 1) & 1} == mask


def ignored_by_one_that_waited(signals_stay: bool) -> list[Any]:
    """Of three: ignored before there was a spawner; behind Python's back; when there was one.

    And whether a clone clears handlers (CLONE_CLEAR_SIGHAND): else all is set to the default.
    """
    signals = signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
    signal.signal(signals[0], signal.SIG_IGN)
    ctypes.CDLL(None).signal(signals[1], ctypes.c_void_p(1))
    dispositions.learn()  # as a loop does when it is made
    spawner = Spawner(1, signals_stay=signals_stay)
    signal.signal(signals[2], signal.SIG_IGN)
    spawner.submit(sh(f"exec grep SigIgn: {PROC}/self/status", PIPES), True)
    (finish,) = wait_for_finishes(spawner, 1)
    _, out, _ = see_to_the_end(spawner, finish)
    assert close(spawner) == []
    ignored = int(out.split()[1], 16)
    found = [number for number in range(1, 65) if ignored >> (number - 1) & 1]
    return [found, "clone3" in children.in_use()]


def test_a_child_ignores_nothing_that_the_program_did_when_its_signals_were_to_stay() -> None:
    assert alone(ignored_by_one_that_waited, False)[0] == []
    found, clears = alone(ignored_by_one_that_waited, True)
    assert found == ([signal.SIGHUP] if clears else [])


@pytest.mark.parametrize("keeps", [False, True])
def test_a_death_signal_is_refused_at_once_and_leaves_nothing(keeps: bool) -> None:
    spec = sh("exit 0")
    spec.parent_death_signal = signal.SIGTERM
    with spawner_of(1, 1) as spawner:
        with pytest.raises(SpawnError, match=os.strerror(errno.EINVAL)):
            spawner.submit(spec, keeps)
        assert len(spawner) == 0
        spawner.submit(sh("exit 3"), True)  # what was refused is in nobody's way
        (finish,) = wait_for_finishes(spawner, 1)
        assert see_to_the_end(spawner, finish)[0].code == 3


@pytest.mark.parametrize("threads", [0, -1, 65, 1 << 40])
def test_the_number_of_threads_is_checked(threads: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to 64, not {threads}"):
        Spawner(threads)


# --- children that are kept -----------------------------------------------------------------------


@has_pidfds
def test_a_kept_child_is_told_once_when_it_has_ended_with_its_status_and_its_data() -> None:
    with spawner_of(1) as spawner:
        before = open_fds()
        _, child = spawner.submit(sh("cat; echo out; echo error >&2; exit 7", PIPES), True)
        (finish,) = wait_for_finishes(spawner, 1)
        assert (finish.child, finish.told & GATHERED_OVER) == (child, GATHERED_OVER)
        assert (finish.is_over, finish.error) == (True, None)
        assert finish.status is not None
        assert (finish.status.code, finish.status.usage.max_rss_bytes > 0) == (7, True)
        assert finish.data == (b"out\n", b"error\n")
        assert (child.pid, child.pidfd, child.exit_fd, child.ours) == (-1, -1, -1, [])
        assert (open_fds(), child_pids(), len(spawner)) == (before, set(), 0)
        assert take(spawner) == []


@has_pidfds
def test_a_kept_child_that_says_nothing_has_no_data_with_pipes_and_without() -> None:
    with spawner_of(1) as spawner:
        for redirects in (PIPES, PIPES[1:2], PIPES[2:], [Redirect(1, 2)], ()):
            spawner.submit(sh("exit 4", redirects), True)
        for finish in wait_for_finishes(spawner, 5):
            assert (finish.is_over, finish.data) == (True, None)
            assert finish.status is not None
            assert finish.status.code == 4


@has_pidfds
def test_the_streams_are_told_apart_whatever_the_order_of_the_redirects() -> None:
    with spawner_of(1) as spawner:
        for redirects in (PIPES, PIPES[::-1], (*PIPES[1:], Redirect(0, 0)), PIPES[1:]):
            spawner.submit(sh("echo out; echo error >&2", redirects), True)
        finishes = wait_for_finishes(spawner, 4)
        spawner.submit(sh("echo out; echo error >&2", [PIPES[2], Redirect(1, 2)]), True)
        (without_stdout,) = wait_for_finishes(spawner, 1)
    assert [finish.data for finish in finishes] == [(b"out\n", b"error\n")] * 4
    assert without_stdout.data == (b"", b"error\n")


@has_pidfds
@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_the_signal_that_killed_a_kept_child_is_told(name: str) -> None:
    with spawner_of(1) as spawner:
        spawner.submit(sh(f"echo out; kill -{name} $$", PIPES), True)
        (finish,) = wait_for_finishes(spawner, 1)
    assert (finish.is_over, finish.data) == (True, (b"out\n", b""))
    assert finish.status is not None
    assert (finish.status.code, finish.status.signal) == (None, signal.Signals[f"SIG{name}"])


@has_pidfds
def test_as_much_as_a_pipe_holds_comes_whole_with_the_end() -> None:
    say = build_program("say")
    sizes = [(1, 0), (0, 65535), (65536, 0), (65536, 65536), (4096, 40000)]
    with spawner_of(1) as spawner:
        submitted = [spawner.submit(program(say, *size, 3), True)[1] for size in sizes]
        finishes = {finish.child: finish for finish in wait_for_finishes(spawner, len(sizes))}
    for child, (out, err) in zip(submitted, sizes, strict=True):
        assert finishes[child].is_over
        assert finishes[child].data == (said(1, out), said(2, err))


def many_of_mixed_fates() -> list[list[object]]:
    with spawner_of(4) as spawner:
        submitted = []
        for number in range(150):
            spec = missing() if number % 3 == 2 else sh(f"echo {number}; exit {number}", PIPES)
            submitted.append(spawner.submit(spec, True)[1])
        finishes = {finish.child: finish for finish in wait_for_finishes(spawner, 150)}
        assert take(spawner) == []
        assert len(finishes) == 150
        found: list[list[object]] = []
        for finish in map(finishes.__getitem__, submitted):
            if finish.error is not None:
                found.append([None, None, finish.error.errno])
            else:
                status, out, _ = see_to_the_end(spawner, finish)
                found.append([status.code, out.decode(), None])
    return found


@has_pidfds
def test_each_of_many_that_are_kept_is_told_once() -> None:
    wanted = [
        [None, None, errno.ENOENT] if number % 3 == 2 else [number, f"{number}\n", None]
        for number in range(150)
    ]
    assert alone(many_of_mixed_fates) == wanted


GROW = """
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
os.write(1, (bytes((7 * i + 1) % 251 for i in range(251)) * 4000)[:1_000_000])
"""


@has_pidfds
def test_of_a_pipe_that_is_fuller_than_the_threads_read_the_rest_is_given_back() -> None:
    argv = [os.fsencode(word) for word in (PYTHON, "-I", "-S", "-c", GROW)]
    with spawner_of(1) as spawner:
        spawner.submit(SpawnSpec([argv[0]], argv, [], PIPES), True)
        ((child, told, status, data, error, _),) = wait_for_finishes(spawner, 1)
        assert told & GATHERED_EXIT
        assert status is not None
        assert (status.code, error, child.pid, child.exit_fd) == (0, None, -1, -1)
        stdin, stdout, stderr = child.ours
        assert (stdin, stderr) == (-1, -1)
        assert data is not None
        assert len(data[0]) >= 65536
        assert data[0] + read_all(stdout) == said(1, 1_000_000)
        spawner.release(child)


@has_pidfds
def test_streams_that_a_grandchild_holds_are_given_back_open_with_the_end() -> None:
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    script = "(read word <&3; echo late) & echo early; exit 3"
    with spawner_of(1, 1) as spawner:
        spawner.submit(sh(script, [*PIPES, Redirect(3, theirs)]), True)
        (finish,) = wait_for_finishes(spawner, 1)
        assert (finish.is_over, finish.data) == (False, (b"early\n", b""))
        assert finish.status is not None
        assert finish.status.code == 3
        child = finish.child
        assert (child.pid, child.exit_fd, child.ours[0]) == (-1, -1, -1)
        waiting, _ = spawner.submit(sh("exit 4"), True)
        assert state_of(spawner, waiting) is JobState.WAITING  # it counts while it is not over
        os.close(ours)
        assert [read_all(fd) for fd in child.ours[1:3]] == [b"late\n", b""]
        spawner.release(child)
        wait_for_finishes(spawner, 1)
    os.close(theirs)


def keep_with_sigchld_ignored() -> list[int]:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with spawner_of(2, 1) as spawner:
        for number in range(20):
            spawner.submit(sh(f"echo {number}; exit 3", PIPES), True)
        numbers: list[int] = []
        ends: set[int | None] = set()
        while len(numbers) < 20:
            for finish in wait_for_finishes(spawner, 1):
                assert finish.data is not None
                numbers.append(int(finish.data[0]))
                ends.add(see_to_the_end(spawner, finish)[0].raw)
    assert ends <= {None, 3 << 8}
    return numbers


@has_pidfds
def test_what_the_kernel_reaps_by_itself_is_told_with_its_data() -> None:
    assert alone(keep_with_sigchld_ignored) == list(range(20))


def keep_without_pidfds() -> list[object]:
    with spawner_of(1, 1) as spawner:
        _, child = spawner.submit(sh("cat; echo out; exit 5", PIPES), True)
        waiting, _ = spawner.submit(missing(), True)
        (finish,) = wait_for_finishes(spawner, 1)
        assert finish[:5] == (child, 0, None, None, None)
        assert state_of(spawner, waiting) is JobState.WAITING
        assert child.ours[0] == -1  # its standard input was closed all the same
        found = [read_all(child.ours[1]).decode(), read_all(child.ours[2]).decode()]
        status = wait_for_exit(child)
        spawner.release(child)
        (finish,) = wait_for_finishes(spawner, 1)
        assert finish.error is not None
    return [*found, status.code]


@pytest.mark.needs("threads")
def test_without_pidfds_a_kept_child_is_given_back_as_soon_as_it_runs() -> None:
    assert alone(keep_without_pidfds, disable="pidfd") == ["out\n", "", 5]


def ends_that_would_have_been_signals(end_program: str) -> list[bool]:
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    with spawner_of(2) as spawner:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        waits = program(end_program, "wait", 3, redirects=[Redirect(0, theirs)])
        tokens = [spawner.submit(waits, True)[0] for _ in range(5)]
        wait_for(lambda: {state_of(spawner, token) for token in tokens} == {JobState.RUNNING})
        os.close(ours)
        wait_for_finishes(spawner, 5)
    pending = signal.SIGCHLD in signal.sigpending()
    child = Child(sh("exit 0"))
    child.start(sh("exit 0"))
    end(child)
    control = signal.SIGCHLD in signal.sigpending()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(theirs)
    return [pending, control]


@has_pidfds
@pytest.mark.needs("threads")
def test_the_end_of_a_child_of_threads_that_wait_is_no_signal_to_any_other() -> None:
    """Were it one, it would be pending where it is blocked, as for a child of that thread."""
    assert alone(ends_that_would_have_been_signals, build_program("end")) == [False, True]


def wait_until_finished(spawner: Spawner, tokens: Sequence[int]) -> None:
    """Return once none of *tokens*, of children that nobody claims, is with a thread any more."""
    wait_for(lambda: {state_of(spawner, token) for token in tokens} == {JobState.FINISHED})


# --- claims ---------------------------------------------------------------------------------------


@has_pidfds
@pytest.mark.needs("threads")
def test_a_claim_tells_where_the_child_is_and_gives_one_that_runs(tmp_path: Path) -> None:
    with (
        held_copy("/bin/true", tmp_path / "held") as held,
        spawner_of(1) as spawner,
    ):
        held_token, _ = spawner.submit(program(held.path), True)
        token, child = spawner.submit(sh("echo out; exec sleep 600", PIPES[1:]), True)
        held.wait_until_reached()
        assert spawner.claim(held_token, deque()) is JobState.BEGUN
        assert spawner.claim(token, deque()) is JobState.WAITING
        assert (len(spawner), child.pid) == (2, -1)
        held.release()
        assert wait_for_finishes(spawner, 1)[0].is_over
        claim(spawner, token)
        assert (len(spawner), token in spawner) == (0, False)
        assert {child.pid} == child_pids()
        child.send_signal(signal.SIGTERM)
        assert wait_for_exit(child).signal == signal.SIGTERM
        for fd in child.ours:
            os.close(fd)
        spawner.release(child)
        assert take(spawner) == []


@has_pidfds
@pytest.mark.needs("threads")
def test_a_claim_of_what_has_finished_changes_nothing() -> None:
    with spawner_of(1) as spawner:
        token, child = spawner.submit(sh("echo out; exit 6", PIPES), True)
        failed_token, failed = spawner.submit(missing(), True)
        wait_until_finished(spawner, [token, failed_token])
        for each in (token, failed_token, token):
            assert spawner.claim(each, deque()) is JobState.FINISHED
        assert len(spawner) == 2
        finishes = {finish.child: finish for finish in wait_for_finishes(spawner, 2)}
        assert finishes[child].data == (b"out\n", b"")
        assert finishes[failed].error is not None


@has_pidfds
def test_a_child_that_waits_with_a_full_pipe_is_read_by_who_claims_it() -> None:
    with spawner_of(1) as spawner:
        token, child = spawner.submit(program(build_program("say"), 300_000, 60_000, 9), True)
        claim(spawner, token)
        stdin, stdout, stderr = child.ours
        assert stdin == -1
        assert read_all(stdout) == said(1, 300_000)
        assert read_all(stderr) == said(2, 60_000)
        assert wait_for_exit(child).code == 9


@has_pidfds
def test_a_child_that_ended_unheard_of_may_be_claimed_too() -> None:
    """Many race with their ends: each is either told or claimed, and whole."""
    with spawner_of(2) as spawner:
        submitted = {
            spawner.submit(sh(f"echo {number}; exit {number}", PIPES), True): number
            for number in range(60)
        }
        found: dict[int, bytes] = {}
        claimed = 0
        for (token, child), number in submitted.items():
            state = spawner.claim(token, deque()) if token in spawner else JobState.FINISHED
            if state is JobState.RUNNING:
                claimed += 1
                found[number] = read_all(child.ours[1])
                os.close(child.ours[2])
                assert wait_for_exit(child).code == number
        for finish in wait_for_finishes(spawner, 60 - claimed):
            status, out, _ = see_to_the_end(spawner, finish)
            found[status.code or 0] = out
    assert found == {number: b"%d\n" % number for number in range(60)}


# --- how many at once -----------------------------------------------------------------------------


def is_waiting(spawner: Spawner, token: int) -> bool:
    return state_of(spawner, token) is spawner.claim(token, deque()) is JobState.WAITING


@has_pidfds
def test_what_was_given_alive_counts_until_it_is_released() -> None:
    with spawner_of(2, 2) as spawner:
        spawner.submit(sh("exec sleep 600"), False)
        token, claimed = spawner.submit(sh("exec sleep 600"), True)
        (taken,) = wait_for_finishes(spawner, 1)
        claim(spawner, token)
        waiting = [spawner.submit(sh("exec sleep 600"), True)[0] for _ in range(3)]
        assert all(is_waiting(spawner, token) for token in waiting)
        for at, child in enumerate((taken.child, claimed)):
            child.send_signal(signal.SIGKILL)
            wait_for_exit(child)
            assert all(is_waiting(spawner, token) for token in waiting[at:])  # not by its end alone
            spawner.release(child)
            claim(spawner, waiting[at])
            assert len(child_pids()) == 2
            assert all(is_waiting(spawner, token) for token in waiting[at + 1 :])
        (finish,) = close(spawner)
        assert finish.error is not None
        assert finish.error.errno == errno.ECANCELED
    for pid in child_pids():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@has_pidfds
@pytest.mark.parametrize("threads", [1, 4])
def test_a_place_is_used_again_after_an_end_a_failure_and_a_refusal(threads: int) -> None:
    deadly = sh("exit 0")
    deadly.parent_death_signal = signal.SIGTERM
    with spawner_of(threads, 1) as spawner:
        for number in range(40):
            spawner.submit(missing() if number % 2 else sh("exit 3", PIPES), True)
            with pytest.raises(SpawnError):
                spawner.submit(deadly, True)
        finishes = wait_for_finishes(spawner, 40)
    assert sum(finish.error is not None for finish in finishes) == 20


@has_pidfds
def test_there_are_never_more_kept_children_than_may_be(tmp_path: Path) -> None:
    """Each takes one of three seats, and says so if there is none."""
    seats = tmp_path / "seats"
    seats.touch()
    with spawner_of(4, 3) as spawner:
        for _ in range(200):
            spawner.submit(program(build_program("seats"), seats, 3), True)
        codes: list[int | None] = []
        while len(codes) < 200:
            finishes = wait_for_finishes(spawner, 1)
            codes += [see_to_the_end(spawner, finish)[0].code for finish in finishes]
    assert codes == [0] * 200


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps", [False, True])
def test_a_close_gives_what_was_not_taken(keeps: bool) -> None:
    spawner = Spawner(2)
    submitted = {spawner.submit(sh("exit 5"), keeps)[1] for _ in range(100)}
    finishes = close(spawner)
    assert {finish.child for finish in finishes} == submitted
    for finish in finishes:
        if finish.error is not None:
            assert finish.error.errno == errno.ECANCELED
            assert finish.error.stage == "cancelled before it began"
            continue
        status = finish.status or end(finish.child)
        assert status.code == 5


@has_pidfds
@pytest.mark.needs("threads")
def test_a_close_gives_a_child_in_every_state() -> None:
    spawner = Spawner(1, 3)
    first, over = spawner.submit(sh("echo out; exit 5", PIPES), True)
    second, held = spawner.submit(sh("sleep 600 & echo $!; exit 6", PIPES), True)
    wait_until_finished(spawner, [first, second])
    third, alive = spawner.submit(sh("exec sleep 600", PIPES), True)
    fourth, given = spawner.submit(sh("exec sleep 600", PIPES), False)
    wait_until_finished(spawner, [fourth])
    wait_for(lambda: state_of(spawner, third) is JobState.RUNNING)
    waiting = [spawner.submit(sh("exit 0"), True)[1] for _ in range(2)]
    finishes = {finish.child: finish for finish in close(spawner)}
    assert set(finishes) == {over, held, alive, given, *waiting}
    assert finishes[over].data == (b"out\n", b"")
    assert finishes[held].status is not None
    assert finishes[held].is_over is False
    os.kill(int((finishes[held].data or (b"",))[0]), signal.SIGKILL)
    held.abandon()
    for child in (alive, given):
        assert finishes[child][:5] == (child, 0, None, None, None)
        child.send_signal(signal.SIGTERM)
        os.close(child.ours.pop(0)) if child.ours[0] >= 0 else child.ours.pop(0)
        assert end(child).signal == signal.SIGTERM
    for child in waiting:
        error = finishes[child].error
        assert error is not None
        assert error.errno == errno.ECANCELED


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.needs("threads")
def test_a_close_waits_for_the_exec_that_is_under_way(tmp_path: Path, keeps: bool) -> None:
    with held_copy("/bin/true", tmp_path / "held") as held:
        spawner = Spawner(1)
        _, child = spawner.submit(program(held.path, redirects=()), keeps)
        held.wait_until_reached()
        result: list[list[Finish]] = []
        closer = threading.Thread(target=lambda: result.append(close(spawner)))
        closer.start()
        assert not result
        held.release()
        closer.join(DEADLINE_S)
    ((finish,),) = result
    assert finish.child is child
    assert finish.error is None
    status = finish.status if finish.is_over else wait_for_exit(child)
    assert status is not None
    assert status.code == 0


def test_a_second_close_does_nothing_and_nothing_is_accepted_after_the_first() -> None:
    spawner = Spawner(1)
    assert close(spawner) == []
    with pytest.raises(ValueError, match="closed"):
        spawner.submit(missing(), True)
    assert len(spawner) == 0
    assert take(spawner) == []
    spawner.release(Child(missing()))
    assert close(spawner) == []


def submit_what_is_none() -> None:
    with spawner_of(1, 1) as spawner:
        wrong: Any = SpawnSpec([b"/bin/true"], ["text"], [])  # type: ignore[list-item]
        for keeps in (False, True):
            with pytest.raises(TypeError):
                spawner.submit(wrong, keeps)
        assert len(spawner) == 0
        _, child = spawner.submit(sh("exit 1"), False)
        assert wait_for_finishes(spawner, 1)[0][:5] == (child, 0, None, None, None)
        assert wait_for_exit(child).code == 1


def test_a_request_that_is_none_is_refused_and_the_spawner_can_still_be_closed() -> None:
    alone(submit_what_is_none)


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.needs("threads")
def test_one_that_is_forgotten_ends_its_threads_and_what_they_started(keeps: bool) -> None:
    gc.collect()
    spawner = Spawner(2)
    for _ in range(20):
        spawner.submit(sh("exec sleep 600", [Redirect(1, PipeEnd.WE_READ)]), keeps)
    del spawner
    gc.collect()
    assert not child_pids()


END_WITH_ONE_THAT_RUNS = """
import select
from procreactor.kernel.spawners import Spawner
from procreactor.model import SpawnSpec
spawner = Spawner(1)
spawner.submit(SpawnSpec([b"/bin/sleep"], [b"sleep", b"1000"], []), False)
print(len(select.select([spawner], [], [])[0]))
"""


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_an_interpreter_that_exits_ends_one_that_was_not_taken(disable: str) -> None:
    """Without pidfds too: a thread that would wait for it would not begin any more."""
    done = subprocess.run(
        [PYTHON, "-c", END_WITH_ONE_THAT_RUNS],
        env={**os.environ, "PROCREACTOR_DISABLE": disable},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


# --- when there is too little of something --------------------------------------------------------


def start_without_room_for_the_exit_watch(keeps: bool) -> list[Any]:
    """Without pidfds a start is over only when its end can be watched, which takes two fds."""
    spawner = Spawner(1, 1)
    spawner.submit(sh("exec sleep 600", [Redirect(1, PipeEnd.WE_READ)]), keeps)
    assert select.select([spawner], [], [], DEADLINE_S)[0]
    (pid,) = child_pids()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        (finish,) = take(spawner)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    error = finish.error
    assert error is not None
    assert not child_pids()
    spawner.submit(missing(), keeps)  # its place is free again
    wait_for_finishes(spawner, 1)
    close(spawner)
    return [pid > 0, error.errno, error.stage]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_start_whose_end_cannot_be_watched_is_undone(keeps: bool) -> None:
    found = alone(start_without_room_for_the_exit_watch, keeps, disable="pidfd")
    assert found == [True, errno.EMFILE, "exit watch"]


def spawners_without_room() -> list[int]:
    errors = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    for room in range(4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + room, limits[1]))
        try:
            close(Spawner(2))
        except OSError as error:
            errors.append(error.errno or 0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return errors


def test_one_that_cannot_be_opened_leaves_nothing() -> None:
    """It takes three fds."""
    assert alone(spawners_without_room) == [errno.EMFILE] * 3


# --- copies of the process ------------------------------------------------------------------------


def use_beside_a_copy() -> list[int | None]:
    fds = open_fds()
    spawner = Spawner(2)
    before = [spawner.submit(sh("exit 4"), False)[1] for _ in range(10)]
    kept = [spawner.submit(sh("echo out; exit 5", PIPES), True)[1] for _ in range(10)]
    alive, claimed = spawner.submit(sh("exec sleep 600", PIPES[1:]), True)
    claim(spawner, alive)
    copy = os.fork()
    if copy == 0:
        rest = close(spawner)
        again = close(spawner)
        own = set(os.listdir(f"{PROC}/self/fd")) - {str(fd) for fd in fds}
        names = {os.path.basename(os.readlink(f"{PROC}/self/fd/{fd}")) for fd in own if is_open(fd)}
        clean = not {name for name in names if "event" in name}
        os._exit(0 if rest == again == [] and clean else 1)
    assert os.waitpid(copy, 0)[1] == 0
    after = spawner.submit(sh("exit 6"), False)[1]
    finishes = {finish.child: finish for finish in wait_for_finishes(spawner, 21)}
    codes = [end(child).code for child in before]
    for child in kept:
        status, out, _ = see_to_the_end(spawner, finishes[child])
        assert out == b"out\n"
        codes.append(status.code)
    codes.append(end(after).code)
    assert close(spawner) == []
    claimed.send_signal(signal.SIGKILL)
    end(claimed)
    return codes


def is_open(fd: str) -> bool:
    return os.path.lexists(f"{PROC}/self/fd/{fd}")


@has_pidfds
def test_a_copy_of_the_process_may_close_it_and_leaves_it_to_the_original() -> None:
    assert alone(use_beside_a_copy) == [4] * 10 + [5] * 10 + [6]


# --- between two lines ----------------------------------------------------------------------------


def interrupt_everywhere() -> int:
    """Who has the children that `submit` returned has, after a close, all that there are."""
    mine: list[Child] = []
    opened: list[Spawner] = []
    finishes: deque[Finish] = deque()

    def submit(spec: SpawnSpec, keeps: bool) -> int:
        token, child = opened[-1].submit(spec, keeps)
        mine.append(child)
        return token

    def act() -> None:
        spawner = Spawner(1, 4)
        opened.append(spawner)
        submit(sh("exec sleep 600", PIPES), False)
        alive = submit(sh("exec sleep 600", PIPES), True)
        submit(sh("echo out; exec sleep 600", PIPES), True)
        opened[-1].submit(missing(), True)
        submit(sh("echo out; exit 3", PIPES), True)
        while spawner.claim(alive, deque()) not in (JobState.RUNNING, JobState.FINISHED):
            os.sched_yield()  # FINISHED: without pidfds it is given back as soon as it runs
        while len(finishes) < 3:
            assert select.select([spawner], [], [], DEADLINE_S)[0]
            spawner.take(finishes)
        spawner.release(mine[1])

    def clean_up() -> None:
        while opened:
            opened.pop().close(finishes)
        while finishes:
            finishes.popleft().child.abandon()
        while mine:
            mine.pop().abandon()
        if open_fds() != before:
            gc.collect()  # ends those of which nobody had got hold
        assert not child_pids()
        left = {fd: what for fd, what in open_fds().items() if before.get(fd) != what}
        assert not left, f"fds left: {left}"

    before = open_fds()
    return interrupt_each_line([spawners, children, binding], act, clean_up, set())


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_an_interrupt_between_any_two_lines_loses_no_child(disable: str) -> None:
    assert alone(interrupt_everywhere, disable=disable) > 100


def count_interrupted_takes() -> int:
    """At each line of a `take`, once: what it had got from the threads is free after a close."""
    jobs: list[Any] = []
    opened: list[Spawner] = []

    def act() -> None:
        trace = sys.gettrace()
        sys.settrace(None)
        spawner = Spawner(1)
        opened.append(spawner)
        tokens = [spawner.submit(program("/bin/echo", number), True)[0] for number in range(2)]
        wait_until_finished(spawner, tokens)
        jobs.extend(entry[0] for entry in spawner._threads._jobs.values())
        assert [job.data != ffi.NULL for job in jobs] == [True, True]
        sys.settrace(trace)
        take(spawner)

    def clean_up() -> None:
        close(opened.pop())
        while jobs:
            assert jobs.pop().data == ffi.NULL

    return interrupt_each_line([spawners, binding], act, clean_up, set())


@has_pidfds
@pytest.mark.needs("threads")
def test_an_interrupt_of_a_take_leaves_no_data_allocated() -> None:
    assert alone(count_interrupted_takes) > 20


def close_after_an_interrupted_take() -> list[bool]:
    """Whether an fd is still ours that got the number of one that the child's owner has closed."""
    spawner = Spawner(1)
    spawner.submit(sh("exec sleep 600", PIPES[1:]), False)
    assert select.select([spawner], [], [], DEADLINE_S)[0]
    finishes: deque[Finish] = deque()
    with interrupted_before(Spawner._deliver, "del self._pending[token]"):
        spawner.take(finishes)
    spawner.take(finishes)  # goes on where the first was interrupted
    (finish,) = finishes  # so it is its owner's, who sees it to its end
    numbers = list(finish.child.ours)
    finish.child.send_signal(signal.SIGKILL)
    end(finish.child)
    finish.child.ours = []
    spawner.release(finish.child)
    strangers = [os.dup2(0, number, inheritable=False) for number in numbers]
    assert close(spawner) == []
    found = [os.path.lexists(f"{PROC}/self/fd/{fd}") for fd in strangers]
    for fd in numbers:  # all are closed, or the frame around this would say so instead
        os.dup2(0, fd, inheritable=False)
        os.close(fd)
    return found


def test_a_close_touches_nothing_of_a_child_that_was_given_in_an_interrupted_take() -> None:
    assert alone(close_after_an_interrupted_take) == [True, True]


def close_twice_around_an_interrupt() -> int:
    opened: list[Spawner] = []
    finishes: deque[Finish] = deque()

    def act() -> None:
        trace = sys.gettrace()
        sys.settrace(None)
        spawner = Spawner(1)
        opened.append(spawner)
        token, _ = spawner.submit(sh("exec sleep 600", PIPES), True)
        spawner.submit(sh("exec sleep 600", PIPES), True)
        wait_for(lambda: len(child_pids()) == 2)
        spawner.submit(sh("echo out", PIPES), True)
        with interrupted_before(Spawner.claim, "error = self._hand_over"):
            while spawner.claim(token, deque()) is not JobState.RUNNING:
                os.sched_yield()
        sys.settrace(trace)
        spawner.close(finishes)

    def clean_up() -> None:
        spawner = opened.pop()
        spawner.close(finishes)
        while finishes:
            finishes.popleft().child.abandon()
        del spawner
        gc.collect()
        assert not child_pids()
        left = {fd: what for fd, what in open_fds().items() if before.get(fd) != what}
        assert not left, f"fds left: {left}"

    before = open_fds()
    return interrupt_each_line([spawners], act, clean_up, set())


@has_pidfds
def test_a_close_that_was_interrupted_is_done_by_the_next() -> None:
    """Also with a child that an earlier interrupt took from who claimed it."""
    assert alone(close_twice_around_an_interrupt) > 10
