"""Many children on one loop: each told once, whole, whatever it and its neighbours do."""

from __future__ import annotations

import errno
import gc
import logging
import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from held import held_copy, wait_for
from interrupted import interrupt_each_line, interrupted_before
from leftovers import child_pids, open_fds
from programs_build import build_program
from seccomp import deny, needs_seccomp
from support import DEADLINE_S, PROC, PYTHON
from watched import watched_by_kernel
from ways import WITHOUT_PIDFDS

from procreactor.core.binding import SpawnerThreads
from procreactor.errors import SpawnError
from procreactor.kernel import children
from procreactor.kernel.poller import READ
from procreactor.kernel.spawners import JobState, Spawner
from procreactor.loop.eventloop import EventLoop
from procreactor.model import PipeEnd, Redirect, SpawnSpec
from procreactor.transport import collected, pool
from procreactor.transport.collected import CollectedChild, pairs_of
from procreactor.transport.pool import ChildPool, Ended, thread_count

Pieces = list[bytes]

PIPES = (
    Redirect(0, PipeEnd.WE_WRITE),
    Redirect(1, PipeEnd.WE_READ),
    Redirect(2, PipeEnd.WE_READ),
)


has_pidfds = pytest.mark.skipif("pidfd" not in children.in_use(), reason="pidfds are off")


class Pool:
    """A `ChildPool` on a loop of its own, and what it told."""

    def __init__(
        self, *, threads: int = 2, at_once: int | None = None, drain_s: float = DEADLINE_S
    ) -> None:
        self.loop = EventLoop()
        self.ended: list[Ended[Pieces]] = []
        self.pool: ChildPool[Pieces] = ChildPool(
            self.loop,
            pairs_of(list),
            self.ended.append,
            at_once=at_once,
            threads=threads,
            drain_s=drain_s,
        )

    def run_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"not within {DEADLINE_S} s: {condition}"
            self.loop.run_once(end - time.monotonic())

    def run_all(self) -> list[Ended[Pieces]]:
        """Return all that has been told, in the order of submission, once nothing runs."""
        self.run_until(lambda: not self.pool)
        return sorted(self.ended, key=lambda one: one.number)

    def state_of(self, number: int) -> JobState | None:
        """Where a child is, as C noted it, read without its lock; None: not with the threads."""
        spawner = self.pool._spawner
        for token, (child, _) in spawner._pending.items():
            job = self.pool._starting.get(child)
            if job is not None and job.number == number and token in spawner:
                return JobState(spawner._threads._jobs[token][0].state)
        return None

    def wait_until(self, state: JobState, *numbers: int) -> None:
        """Return once all of *numbers* are in *state*; no turn is run meanwhile."""
        wait_for(lambda: {self.state_of(number) for number in numbers} == {state})

    def run(self, spec: SpawnSpec, data: bytes = b"") -> Ended[Pieces]:
        self.pool.submit(spec, data)
        (ended,) = self.run_all()
        self.ended.clear()
        return ended

    def close(self) -> None:
        self.pool.close()
        self.loop.close()


@contextmanager
def pool_of(**options: Any) -> Iterator[Pool]:
    made = Pool(**options)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def crowd() -> Iterator[Pool]:
    with pool_of() as made:
        yield made


@pytest.fixture
def gate() -> Iterator[tuple[int, Callable[[], None]]]:
    """A fd for children to wait for, and a function that lets them all go on."""
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    is_open = [ours]

    def let_go() -> None:
        while is_open:
            os.close(is_open.pop())

    yield theirs, let_go
    let_go()
    os.close(theirs)


def sh(script: str, *more: Redirect) -> SpawnSpec:
    return SpawnSpec((b"/bin/sh",), (b"sh", b"-c", script.encode()), (), (*PIPES, *more))


def run_program(name: str, *args: object, redirects: Sequence[Redirect] = PIPES) -> SpawnSpec:
    path = build_program(name).encode()
    return SpawnSpec((path,), (path, *(str(arg).encode() for arg in args)), (), redirects)


def code_of(ended: Ended[Pieces]) -> int | None:
    assert ended.error is None, ended.error
    assert ended.status is not None
    return ended.status.code


def texts(ended: Ended[Pieces]) -> tuple[bytes, bytes]:
    out, err = ended.sinks or ([], [])
    return b"".join(out), b"".join(err)


def said(fd: int, size_bytes: int) -> bytes:
    """What the program "say" writes to *fd*."""
    block = bytes((7 * index + fd) % 251 for index in range(251 * 256))
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


# --- each once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_each_of_many_is_told_once_with_its_number_and_its_end(threads: int) -> None:
    with pool_of(threads=threads) as crowd:
        numbers = [crowd.pool.submit(run_program("end", "exit", at % 256)) for at in range(500)]
        assert len(crowd.pool) == 500
        ended = crowd.run_all()
        assert numbers == [one.number for one in ended] == list(range(500))
        assert [code_of(one) for one in ended] == [at % 256 for at in range(500)]
        assert all(one.sinks is None for one in ended)
        assert not crowd.pool
        assert not child_pids()


def test_what_is_told_says_whose_it_is_and_what_it_used(crowd: Pool) -> None:
    spec = sh("exit 3")
    ended = crowd.run(spec)
    assert ended.spec is spec
    assert ended.status is not None
    assert ended.status.usage.max_rss_bytes > 0
    assert 0 < ended.duration_s < DEADLINE_S


SIZES = [0, 1, 65535, 65536, 65537, 300 * 1024, 5 << 20]


def test_output_of_any_size_is_whole_in_order_and_on_its_stream(crowd: Pool) -> None:
    pairs = [(size, 0) for size in SIZES] + [(0, size) for size in SIZES]
    pairs += [(size, size) for size in SIZES]
    for number, (out, err) in enumerate(pairs):
        crowd.pool.submit(run_program("say", out, err, number))
    for ended, (out, err) in zip(crowd.run_all(), pairs, strict=True):
        assert code_of(ended) == ended.number
        assert texts(ended) == (said(1, out), said(2, err))


def test_a_second_round_on_the_same_loop_is_like_the_first(crowd: Pool) -> None:
    for _ in range(2):
        for number in range(30):
            crowd.pool.submit(sh(f"echo {number}; exit {number}"))
        ended = crowd.run_all()
        assert sorted(texts(one)[0] for one in ended) == sorted(b"%d\n" % n for n in range(30))
        crowd.ended.clear()


def test_two_of_them_on_one_loop_do_not_mix(crowd: Pool) -> None:
    others: list[Ended[Pieces]] = []
    other: ChildPool[Pieces] = ChildPool(crowd.loop, pairs_of(list), others.append, drain_s=1)
    for number in range(30):
        crowd.pool.submit(sh(f"echo mine {number}"))
        other.submit(sh(f"echo other {number}"))
    crowd.run_until(lambda: not crowd.pool and not other)
    other.close()
    for name, told in (("mine", crowd.ended), ("other", others)):
        assert [texts(one)[0] for one in sorted(told)] == [
            f"{name} {number}\n".encode() for number in range(30)
        ]


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS, "vfork", "unshare", "clone3"])
def test_on_every_kernel_all_is_told(disable: str) -> None:
    arguments = build_program("end"), build_program("say")
    assert alone(run_mixture, *arguments, disable=disable) == []


def run_mixture(end: str, say: str) -> list[str]:
    """Return what was wrong."""
    wrong: list[str] = []

    def spec(program: str, *args: object) -> SpawnSpec:
        words = (program, *map(str, args))
        return SpawnSpec((program.encode(),), tuple(word.encode() for word in words), (), PIPES)

    with pool_of() as crowd:
        for number in range(60):
            match number % 3:
                case 0:
                    crowd.pool.submit(spec(end, "exit", number))
                case 1:
                    crowd.pool.submit(spec(say, 100_000, 300_000, number))
                case _:
                    crowd.pool.submit(spec("/nowhere"))
        for number, ended in enumerate(crowd.run_all()):
            assert ended.number == number
            if number % 3 == 2:
                if not isinstance(ended.error, FileNotFoundError):
                    wrong.append(f"{number}: {ended.error}")
                continue
            wanted = (said(1, 100_000), said(2, 300_000)) if number % 3 else (b"", b"")
            if code_of(ended) != number or texts(ended) != wanted:
                wrong.append(f"{number}: {ended.status}")
    return wrong


# --- a host that closes our fds -------------------------------------------------------------------


def first_refusal(crowd: Pool, data: bytes) -> SpawnError:
    """Submit until one fails: what a thread has begun before it noticed is run as ever."""
    while True:
        try:
            crowd.pool.submit(sh("cat; exit 4"), data)
        except SpawnError as error:
            return error
        ended = crowd.run_all()[-1]
        if ended.error is not None:
            return ended.error
        assert (code_of(ended), texts(ended)[0]) == (4, data)


def run_after_closing(which: list[int], has_file: bool, word: str) -> list[Any]:
    """A child that lives, the fds closed, then others; how that one went, and what the last had."""
    with (
        pool_of(threads=2, at_once=8) as crowd,
        tempfile.TemporaryFile() as file,
    ):
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        crowd.pool.submit(sh("read word <&9; echo out; exit 3", Redirect(9, theirs)))
        # FINISHED: without pidfds it is given back as soon as it runs.
        wait_for(lambda: crowd.state_of(0) in (JobState.RUNNING, JobState.FINISHED))
        os.close(theirs)
        numbers = crowd.pool._spawner._threads._fds
        for at in which:
            if has_file:
                os.dup2(file.fileno(), numbers[at], inheritable=False)
            else:
                os.close(numbers[at])
        os.close(ours)
        refusal = first_refusal(crowd, word.encode())
        crowd.run_until(lambda: not crowd.pool)
        (first,) = (ended for ended in crowd.ended if ended.number == 0)
        for at in which:
            if has_file:
                assert os.path.sameopenfile(numbers[at], file.fileno())
                os.close(numbers[at])
        size = os.fstat(file.fileno()).st_size
    return [code_of(first), texts(first)[0].decode(), size, refusal.errno, str(refusal)]


@pytest.mark.parametrize("has_file", [False, True])
@pytest.mark.parametrize(
    ("which", "word"), [([0], ""), ([0], "word"), ([2], ""), ([0, 1, 2], "word")]
)
def test_a_host_that_closes_fds_of_the_threads_is_told_so_and_what_runs_goes_on(
    which: list[int], word: str, has_file: bool
) -> None:
    code, out, size, error, words = alone(run_after_closing, which, has_file, word)
    assert (code, out, size, error) == (3, "out\n", 0, errno.EBADF)
    assert "other code of this process has closed an fd of ours" in words


def close_in_a_daemon(_: int) -> list[int]:
    """A copy that closes all it has, as a daemon does, and then the pool."""
    with pool_of() as crowd:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.closerange(3, 256)
                crowd.pool.close()
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        ended = crowd.run(sh("exit 5"))
    return [os.waitstatus_to_exitcode(status), code_of(ended)]


def test_a_copy_that_has_closed_all_fds_closes_the_pool_all_the_same() -> None:
    assert alone(close_in_a_daemon, 0) == [0, 5]


# --- what the loop hears of -----------------------------------------------------------------------


@has_pidfds
@pytest.mark.needs("threads")
def test_of_children_that_end_soon_the_loop_hears_of_their_results_alone(crowd: Pool) -> None:
    before = watched_by_kernel(crowd.loop.epoll_fd), len(crowd.loop._watches)
    numbers = [crowd.pool.submit(run_program("say", 1000, 65000, number)) for number in range(15)]
    crowd.wait_until(JobState.FINISHED, *numbers)
    assert not child_pids()
    new_sinks = Counting(list)
    crowd.pool._shared.new_sinks = pairs_of(new_sinks)
    crowd.loop.run_once(0)
    assert [one.number for one in sorted(crowd.ended)] == numbers
    assert (watched_by_kernel(crowd.loop.epoll_fd), len(crowd.loop._watches)) == before
    assert new_sinks.calls == 30
    for ended in crowd.ended:
        assert (code_of(ended), texts(ended)) == (ended.number, (said(1, 1000), said(2, 65000)))


class Counting:
    """A function, and how often it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self._function(*args)


@has_pidfds
def test_after_the_last_end_no_tick_is_due(crowd: Pool) -> None:
    for data in (b"", b"", b"data"):
        crowd.pool.submit(sh("exit 3"), data)
        crowd.run_all()
        crowd.run_until(lambda: not crowd.loop.timers)


# --- children that live ---------------------------------------------------------------------------


def test_a_child_that_lives_is_read_while_it_does_and_costs_no_wake_up(
    crowd: Pool, gate: tuple[int, Callable[[], None]]
) -> None:
    theirs, let_go = gate
    got: Pieces = []
    crowd.pool._shared.new_sinks = pairs_of(lambda: got)
    crowd.pool.submit(sh("echo first; read word <&3; exit 4", Redirect(3, theirs)))
    crowd.run_until(lambda: got)
    assert (got, len(crowd.pool), crowd.ended) == ([b"first\n"], 1, [])
    crowd.run_until(lambda: not crowd.loop.timers)  # no tick is due any more
    let_go()
    (ended,) = crowd.run_all()
    assert code_of(ended) == 4


@has_pidfds
def test_a_child_that_waits_with_a_full_pipe_is_claimed_by_the_tick_and_read(crowd: Pool) -> None:
    # More than the turn that claims it can read, however fast the child fills what is emptied.
    number = crowd.pool.submit(run_program("say", 3_000_000, 2_000_000, 9))
    crowd.wait_until(JobState.RUNNING, number)
    crowd.run_until(lambda: crowd.pool._running)
    assert crowd.state_of(number) is None
    (ended,) = crowd.run_all()
    assert (code_of(ended), texts(ended)) == (9, (said(1, 3_000_000), said(2, 2_000_000)))


def test_the_output_of_a_child_that_pauses_is_whole_and_in_order(
    crowd: Pool, gate: tuple[int, Callable[[], None]]
) -> None:
    theirs, let_go = gate
    say = f"{build_program('say')} 150000 100000 0"
    got: list[Pieces] = []

    def new_sink() -> Pieces:
        got.append([])
        return got[-1]

    crowd.pool._shared.new_sinks = pairs_of(new_sink)
    crowd.pool.submit(sh(f"{say}; read word <&3; {say}; exit 5", Redirect(3, theirs)))
    crowd.run_until(lambda: [sum(map(len, sink)) for sink in got] == [150_000, 100_000])
    let_go()
    (ended,) = crowd.run_all()
    assert (code_of(ended), texts(ended)) == (5, (said(1, 150_000) * 2, said(2, 100_000) * 2))


def test_a_child_that_closes_its_streams_early_lives_on_and_its_end_is_told(
    crowd: Pool, gate: tuple[int, Callable[[], None]]
) -> None:
    theirs, let_go = gate
    script = "echo out; echo error >&2; exec >&- 2>&-; read word <&3; exit 4"
    before = set(open_fds())
    left = 1 if "pidfd" in children.in_use() else 2  # what tells the end, and a thread's copy
    crowd.pool.submit(sh(script, Redirect(3, theirs)))
    crowd.run_until(lambda: not crowd.loop.timers and len(set(open_fds()) - before) <= left)
    assert crowd.ended == []
    let_go()
    (ended,) = crowd.run_all()
    assert (code_of(ended), texts(ended)) == (4, (b"out\n", b"error\n"))


def test_a_child_without_pipes_is_told_too(
    crowd: Pool, gate: tuple[int, Callable[[], None]]
) -> None:
    theirs, let_go = gate
    crowd.pool.submit(run_program("end", "wait", 7, redirects=[Redirect(0, theirs)]))
    crowd.pool.submit(run_program("end", "exit", 8, redirects=()))
    crowd.run_until(lambda: crowd.ended and not crowd.loop.timers)
    let_go()
    assert [code_of(one) for one in crowd.run_all()] == [7, 8]


def test_streams_that_are_shared_or_missing_are_told_as_empty(crowd: Pool) -> None:
    only_err = SpawnSpec(
        (b"/bin/sh",), (b"sh", b"-c", b"echo error >&2"), (), (Redirect(2, PipeEnd.WE_READ),)
    )
    assert texts(crowd.run(only_err)) == (b"", b"error\n")


# --- who holds the streams ------------------------------------------------------------------------


def kill_who_was_named(text: bytes) -> None:
    """Kill the grandchild whose pid *text* is, and wait until it is gone."""
    pid = int(text)
    os.kill(pid, signal.SIGKILL)

    def is_gone() -> bool:
        try:
            return ") Z " in Path(f"{PROC}/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(is_gone)


@pytest.mark.parametrize("drain_s", [0.0, 0.05])
def test_a_grandchild_that_holds_the_streams_does_not_hold_the_end(drain_s: float) -> None:
    with pool_of(drain_s=drain_s) as crowd:
        before = watched_by_kernel(crowd.loop.epoll_fd)
        ended = crowd.run(sh("sleep 600 & echo $!; exit 3"))
        assert (code_of(ended), texts(ended)[1]) == (3, b"")
        kill_who_was_named(texts(ended)[0])
        assert watched_by_kernel(crowd.loop.epoll_fd) == before


def test_what_a_grandchild_writes_in_time_is_told_when_it_lets_go(
    crowd: Pool, gate: tuple[int, Callable[[], None]]
) -> None:
    theirs, let_go = gate
    script = "(read word <&3; echo late) & echo early; exit 3"
    crowd.pool.submit(sh(script, Redirect(3, theirs)))
    crowd.run_until(lambda: any(one.status for one in crowd.pool._running))
    let_go()
    (ended,) = crowd.run_all()
    assert (code_of(ended), texts(ended)[0]) == (3, b"early\nlate\n")


GROW = """
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
os.write(1, (bytes((7 * i + 1) % 251 for i in range(251)) * 4000)[:1_000_000])
"""


@pytest.mark.parametrize("holder", ["", "sleep 600 & echo $! >&2;"])
@pytest.mark.needs("threads")
def test_a_pipe_fuller_than_one_look_is_emptied_before_it_is_given_up(holder: str) -> None:
    """The child grew its pipe; there is more in it than a turn reads, and no time left."""
    script = f"{holder} exec {PYTHON} -I -S -c '{GROW}'"
    with pool_of(drain_s=0.0) as crowd:
        number = crowd.pool.submit(sh(script))
        crowd.wait_until(JobState.FINISHED, number)  # all is in the pipe, or was read out of it
        (ended,) = crowd.run_all()
        out, err = texts(ended)
        if holder:
            kill_who_was_named(err)
        assert code_of(ended) == 0
        assert out == said(1, 1_000_000)


# --- bad ends and starts --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["KILL", "TERM", "USR1"])
def test_the_signal_that_killed_it_is_told(crowd: Pool, name: str) -> None:
    ended = crowd.run(sh(f"echo out; kill -{name} $$"))
    assert ended.status is not None
    assert (ended.status.code, ended.status.signal) == (None, signal.Signals[f"SIG{name}"])
    assert texts(ended)[0] == b"out\n"


def test_a_start_that_fails_is_told_in_its_turn_and_the_others_are_not_harmed(
    crowd: Pool, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    missing = SpawnSpec((b"/nowhere",), (b"x",), (), PIPES)
    no_cwd = sh("exit 0")
    no_cwd.cwd = b"/no/where"
    not_executable = SpawnSpec((bytes(plain),), (b"x",), (), PIPES)
    for spec in (missing, sh("exit 1"), no_cwd, sh("exit 2"), not_executable, sh("exit 3")):
        crowd.pool.submit(spec)
    ended = crowd.run_all()
    assert [one.status.code if one.status else None for one in ended] == [None, 1, None, 2, None, 3]
    found = [(type(one.error).__mro__[2], one.error.stage) for one in ended if one.error]
    assert found == [
        (FileNotFoundError, "exec"),
        (FileNotFoundError, "chdir"),
        (PermissionError, "exec"),
    ]


def test_a_request_that_cannot_be_followed_is_refused_before_anything_is_done(crowd: Pool) -> None:
    deadly = sh("exit 0")
    deadly.parent_death_signal = signal.SIGTERM
    with pytest.raises(ValueError, match="death signal"):
        crowd.pool.submit(deadly)
    for redirect in (
        Redirect(3, PipeEnd.WE_READ),
        Redirect(0, PipeEnd.WE_READ),
        Redirect(1, PipeEnd.WE_WRITE),
        Redirect(2, PipeEnd.WE_WRITE),
    ):
        with pytest.raises(ValueError, match=f"no pipe at .*child_fd={redirect.child_fd}"):
            crowd.pool.submit(SpawnSpec((b"/bin/true",), (b"true",), (), (redirect,)))
    assert len(crowd.pool) == 0
    assert crowd.pool.submit(sh("exit 0")) == 0
    crowd.run_all()


def submit_what_is_none() -> int | None:
    with pool_of() as crowd:
        wrong: Any = SpawnSpec((b"/bin/true",), ("text",), (), PIPES)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            crowd.pool.submit(wrong)
        assert len(crowd.pool) == 0
        return code_of(crowd.run(sh("exit 5")))


def test_what_is_no_request_is_refused_and_the_rest_goes_on() -> None:
    assert alone(submit_what_is_none) == 5


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_the_number_of_threads_is_checked(threads: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 64"):
        Pool(threads=threads)
    gc.collect()


def test_by_default_there_is_a_thread_more_than_cpus_may_be_used_but_not_more_than_8() -> None:
    assert 2 <= thread_count() <= 8
    assert thread_count() == min(8, len(os.sched_getaffinity(0)) + 1)


# --- standard input -------------------------------------------------------------------------------

MIB = said(0, 1 << 20)


def test_a_child_gets_all_of_its_input_and_its_end(crowd: Pool) -> None:
    cat = SpawnSpec((b"/bin/cat",), (b"cat",), (), PIPES)
    assert texts(crowd.run(cat, MIB)) == (MIB, b"")
    assert texts(crowd.run(cat, b"x")) == (b"x", b"")
    assert texts(crowd.run(cat)) == (b"", b"")


def test_a_child_that_does_not_read_its_input_is_no_error(crowd: Pool) -> None:
    crowd.pool.submit(sh("exit 3"), MIB)
    crowd.pool.submit(sh("exec <&-; echo closed; exit 4"), MIB)
    crowd.pool.submit(sh("head -c 10; exit 5"), MIB)
    ended = crowd.run_all()
    assert [code_of(one) for one in ended] == [3, 4, 5]
    assert [texts(one)[0] for one in ended] == [b"", b"closed\n", MIB[:10]]


def test_a_child_that_closes_its_input_and_lives_holds_nothing_of_it(
    crowd: Pool, gate: tuple[int, Callable[[], None]]
) -> None:
    theirs, let_go = gate
    script = "head -c 3; exec <&-; echo closed >&2; read word <&3; exit 4"
    crowd.pool.submit(sh(script, Redirect(3, theirs)), MIB)
    running = crowd.pool._running
    crowd.run_until(lambda: running and not any(one._writer for one in running))
    let_go()
    (ended,) = crowd.run_all()
    assert (code_of(ended), texts(ended)[0]) == (4, MIB[:3])


def test_input_for_a_child_that_has_no_pipe_there_is_dropped(crowd: Pool) -> None:
    spec = run_program("end", "exit", 3, redirects=PIPES[1:])
    assert code_of(crowd.run(spec, MIB)) == 3


# --- at once --------------------------------------------------------------------------------------


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_of_any_mixture_no_more_live_at_once_than_may_and_all_are_told(disable: str) -> None:
    arguments = build_program("end"), build_program("say")
    assert alone(run_mixed_fates, *arguments, disable=disable) == [list(range(200)), 2]


def run_mixed_fates(end: str, say: str) -> list[object]:
    """Of 200 the numbers that were told, and how many children were there at most."""
    most = 0

    def look(ended: object = None) -> None:
        nonlocal most
        # Each thread's children are listed at a moment of its own; who is there in both of two
        # lists was there at the moment between them, with all the others.
        most = max(most, len(child_pids() & child_pids()))

    def spec(program: str, *args: object) -> SpawnSpec:
        words = (program, *map(str, args))
        return SpawnSpec((program.encode(),), tuple(word.encode() for word in words), (), PIPES)

    fates: list[tuple[SpawnSpec, bytes]] = [
        (spec(end, "exit", 3), b""),
        (spec("/nowhere"), b""),
        (spec(say, 100_000, 1000, 4), b""),
        (spec("/bin/cat"), MIB[:100_000]),
        (spec(end, "signal", 9), b""),
        (spec("/nowhere"), b"data"),
        (sh("(exec sleep 0.02) & exit 5"), b""),
        (sh("exec >&- 2>&-; exec sleep 0.02"), b""),
        (sh("exec <&-; exit 6"), MIB),
        (spec(say, 3, 60_000, 7), b""),
    ]
    with pool_of(at_once=2, threads=4, drain_s=0.0) as crowd:
        crowd.pool._on_end = lambda ended: (look(), crowd.ended.append(ended))  # type: ignore[func-returns-value]
        for number in range(200):
            crowd.pool.submit(*fates[number % len(fates)])
        while crowd.pool:
            crowd.loop.run_once(DEADLINE_S)
            look()
        ended = sorted(crowd.ended)
    for one in ended:
        _, data = fates[one.number % len(fates)]
        if one.number % len(fates) == 3:
            assert texts(one) == (data, b"")
        if one.number % len(fates) == 2:
            assert texts(one) == (said(1, 100_000), said(2, 1000))
    return [[one.number for one in ended], most]


@has_pidfds
def test_children_that_live_keep_the_others_waiting(gate: tuple[int, Callable[[], None]]) -> None:
    """One that is read as it goes, one that is fed, and one whose streams others hold."""
    theirs, let_go = gate
    with pool_of(at_once=3, threads=2) as crowd:
        crowd.pool.submit(sh("read word <&3; exit 0", Redirect(3, theirs)))
        crowd.pool.submit(sh("read word <&3; exit 0", Redirect(3, theirs)), MIB)
        crowd.pool.submit(sh("(read word <&3) & exit 0", Redirect(3, theirs)))
        waiting = [crowd.pool.submit(sh("exit 4"), data) for data in (b"", MIB, b"")]
        crowd.run_until(lambda: sum(one.status is not None for one in crowd.pool._running) == 1)
        crowd.run_until(lambda: len(crowd.pool._running) == 3)
        assert [crowd.state_of(number) for number in waiting] == [JobState.WAITING] * 3
        let_go()
        assert [code_of(one) for one in crowd.run_all()] == [0, 0, 0, 4, 4, 4]


def refuse_one_after_the_other() -> list[object]:
    """A set that takes no more, and children that need it, one at a time."""
    with pool_of(at_once=1) as crowd:
        deny("epoll_ctl", errno.ENOSPC, ADD)
        for number in range(12):
            crowd.pool.submit(sh("exec sleep 600"), MIB if number % 2 else b"")
        crowd.pool.submit(sh("exit 3"))
        ended = crowd.run_all()
    return [one.error.errno if one.error else code_of(one) for one in ended]


@needs_seccomp
@has_pidfds
@pytest.mark.needs("threads")
def test_a_child_that_cannot_be_watched_makes_room_for_the_next() -> None:
    assert alone(refuse_one_after_the_other) == [errno.ENOSPC] * 12 + [3]


# --- the ticks ------------------------------------------------------------------------------------


def note_ticks(crowd: Pool) -> list[float]:
    """The lengths of the ticks that are set from now on."""
    ticks: list[float] = []
    call_later = crowd.loop.call_later

    def noting(delay_s: float, callback: Callable[..., object], *args: object) -> Any:
        if callback == crowd.pool._on_tick:
            ticks.append(delay_s)
        return call_later(delay_s, callback, *args)

    crowd.loop.call_later = noting  # type: ignore[method-assign]
    return ticks


FILL = {
    "whole pages": "exec dd if=/dev/zero bs=4096 count=70 status=none",
    "odd sizes": "exec dd if=/dev/zero bs=2500 count=110 status=none",
}
"""What does not fit into the rest of a page takes the next one (pipe_write in Linux), so of odd
sizes a pipe of 16 pages holds little more than half as many bytes."""


def run_some(crowd: Pool, script: str) -> None:
    """Run eight, one after the other; each may be claimed while another waits for its turn."""
    for _ in range(8):
        number = crowd.pool.submit(sh(script))
        crowd.wait_until(JobState.RUNNING, number)
        (pid,) = child_pids()
        wait_for(lambda pid=pid: is_asleep(pid))
        crowd.pool.submit(sh("exit 0"))
        crowd.run_all()
    crowd.run_until(lambda: not crowd.loop.timers)


def is_asleep(pid: int) -> bool:
    """Whether *pid* waits, as for room in a pipe, and is what the shell became."""
    text = Path(f"{PROC}/{pid}/stat").read_text()
    return "(sh)" not in text and text.rpartition(")")[2].split()[0] == "S"


@has_pidfds
@pytest.mark.parametrize("sizes", FILL)
def test_ticks_become_short_while_children_fill_their_pipes_and_long_when_others_live(
    sizes: str,
) -> None:
    with pool_of(at_once=1, threads=1) as crowd:
        ticks = note_ticks(crowd)
        run_some(crowd, FILL[sizes])
        assert ticks[0] == pool._TICK_S
        assert pool._SHORTEST_TICK_S <= min(ticks) < pool._TICK_S
        run_some(crowd, "echo out; exec sleep 0.1")
        ticks.clear()
        crowd.pool.submit(sh("exit 0"))
        assert ticks == [pool._TICK_S]


@has_pidfds
def test_ticks_become_long_again_while_all_end_soon(gate: tuple[int, Callable[[], None]]) -> None:
    """Also when there is never one to be claimed."""
    theirs, let_go = gate
    with pool_of(at_once=1, threads=1) as crowd:
        ticks = note_ticks(crowd)
        run_some(crowd, FILL["whole pages"])
        crowd.pool.submit(sh("read word <&3", Redirect(3, theirs)), b"fed, and so not claimed")
        for _ in range(10):
            seen = len(ticks)
            crowd.pool.submit(sh("exit 0"))
            crowd.run_until(lambda seen=seen: len(ticks) > seen + 1)  # type: ignore[misc]
        let_go()
        crowd.run_all()
        crowd.run_until(lambda: not crowd.loop.timers)
        ticks.clear()
        crowd.pool.submit(sh("exit 0"))
        assert ticks == [pool._TICK_S]


@pytest.mark.needs("threads")
def test_ticks_become_rare_while_an_exec_hangs(tmp_path: Path) -> None:
    with held_copy("/bin/true", tmp_path / "held") as held, pool_of(threads=1) as crowd:
        ticks = note_ticks(crowd)
        path = held.path.encode()
        crowd.pool.submit(SpawnSpec((path,), (path,), (), PIPES))
        held.wait_until_reached()
        crowd.run_until(lambda: pool._LONGEST_TICK_S in ticks)
        held.release()
        crowd.run_all()
    rare = ticks.index(pool._LONGEST_TICK_S)
    assert ticks[:rare] == sorted(ticks[:rare])
    assert ticks[0] == pool._TICK_S


@has_pidfds
def test_ticks_become_short_again_for_those_that_had_to_wait_long(
    gate: tuple[int, Callable[[], None]],
) -> None:
    """All were submitted before; the first lives for so long that the ticks became rare."""
    theirs, let_go = gate
    with pool_of(at_once=1, threads=1) as crowd:
        ticks = note_ticks(crowd)
        crowd.pool.submit(sh("read word <&3", Redirect(3, theirs)))
        for _ in range(6):
            crowd.pool.submit(sh(FILL["whole pages"]))
        crowd.run_until(lambda: pool._LONGEST_TICK_S in ticks)
        let_go()
        crowd.run_all()
    assert min(ticks[ticks.index(pool._LONGEST_TICK_S) :]) <= pool._TICK_S


@has_pidfds
def test_no_child_is_claimed_before_it_has_lived_for_a_tick(
    gate: tuple[int, Callable[[], None]],
) -> None:
    """However long it has waited for its turn."""
    theirs, let_go = gate
    with pool_of(at_once=1, threads=1) as crowd:
        first = crowd.pool.submit(sh("read word <&3", Redirect(3, theirs)), b"fed")
        young = crowd.pool.submit(sh("exec sleep 600"))
        ticks = note_ticks(crowd)
        crowd.run_until(lambda: len(ticks) >= 3)
        assert crowd.state_of(young) is JobState.WAITING
        let_go()
        crowd.run_until(lambda: [one.number for one in crowd.ended] == [first])
        crowd.wait_until(JobState.RUNNING, young)
        seen = len(ticks)
        crowd.run_until(lambda: len(ticks) > seen)  # the first tick of its life
        assert crowd.state_of(young) is JobState.RUNNING


# --- owners who raise -----------------------------------------------------------------------------


def test_a_sink_that_raises_costs_its_bytes_and_nothing_else(
    crowd: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(list[bytes]):
        def append(self, data: bytes) -> None:
            raise RuntimeError("no room")

    crowd.pool._shared.new_sinks = pairs_of(Refusing)
    assert code_of(crowd.run(sh("echo out; exit 3"))) == 3
    assert "no room" in caplog.text


def test_where_no_sink_can_be_made_the_end_is_told_all_the_same(
    crowd: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> Pieces:
        raise RuntimeError("no sink")

    crowd.pool._shared.new_sinks = pairs_of(refuse)
    crowd.pool.submit(sh("echo out; exit 3"))
    crowd.pool.submit(sh("echo out; exec sleep 0.1"))
    crowd.pool.submit(sh("cat; exit 5"), b"data")
    assert [code_of(one) for one in crowd.run_all()] == [3, 0, 5]
    assert "no sink" in caplog.text


def test_an_owner_that_raises_at_an_end_is_logged_and_told_of_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[int] = []

    def on_end(ended: Ended[Pieces]) -> None:
        told.append(ended.number)
        raise RuntimeError("not now")

    loop = EventLoop()
    raising: ChildPool[Pieces] = ChildPool(loop, pairs_of(list), on_end, threads=1, drain_s=1)
    for number in range(20):
        raising.submit(
            sh("exit 0") if number % 2 else SpawnSpec((b"/nowhere",), (b"x",), (), PIPES)
        )
    end_s = time.monotonic() + DEADLINE_S
    while raising:
        assert time.monotonic() < end_s
        loop.run_once(1)
    raising.close()
    loop.close()
    assert sorted(told) == list(range(20))
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 20


def test_a_sink_that_has_no_room_is_no_set_that_has_none(
    crowd: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """An OSError of the owner's costs bytes, and not the child."""

    class Refusing(list[bytes]):
        def append(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "no room")

    crowd.pool._shared.new_sinks = pairs_of(Refusing)
    crowd.pool._shared.drain_s = 0.0
    crowd.pool.submit(sh("echo out; exit 3"))
    crowd.pool.submit(sh("exec sleep 0.05 & echo out; exit 4"))
    crowd.pool.submit(run_program("say", 300_000, 0, 5))
    crowd.pool.submit(sh("cat; exit 6"), MIB)
    assert [code_of(one) for one in crowd.run_all()] == [3, 4, 5, 6]
    assert "no room" in caplog.text


@pytest.mark.parametrize("data", [b"", b"data"])
def test_an_interrupt_out_of_an_end_loses_none_that_was_heard_of_with_it(data: bytes) -> None:
    with pool_of(threads=1) as crowd:
        interrupts = [True]

        def tell(ended: Ended[Pieces]) -> None:
            crowd.ended.append(ended)
            if interrupts:
                interrupts.clear()
                raise KeyboardInterrupt

        crowd.pool._on_end = tell
        missing = SpawnSpec((b"/nowhere",), (b"x",), (), PIPES)
        numbers = [crowd.pool.submit(missing, data) for _ in range(5)]
        crowd.wait_until(JobState.FINISHED, *numbers)
        with pytest.raises(KeyboardInterrupt):
            crowd.run_all()
        assert [one.number for one in crowd.run_all()] == numbers


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize(
    "script", ["echo out; exit 3", "sleep 600 & echo $!; exit 3", "echo out; sleep 0.1; exit 3"]
)
def test_whatever_a_sink_raises_the_end_is_told_and_the_next_as_well(
    script: str, kind: type[BaseException]
) -> None:
    """Of a child that is over, of one whose streams are held, and of one that lives."""
    with pool_of(threads=1, drain_s=0.0) as crowd:
        seen: Pieces = []

        class Raising(list[bytes]):
            def append(self, data: bytes) -> None:
                seen.append(data)
                if len(seen) == 1:
                    raise kind

        crowd.pool._shared.new_sinks = pairs_of(Raising)
        for _ in range(2):
            crowd.pool.submit(sh(script))
        raised = 0
        while crowd.pool:
            try:
                crowd.run_until(lambda: not crowd.pool)
            except (KeyboardInterrupt, SystemExit):
                raised += 1
        assert raised == (kind is not RuntimeError)
        assert [code_of(one) for one in sorted(crowd.ended)] == [3, 3]
        for data in seen:
            if data != b"out\n":
                kill_who_was_named(data)


@has_pidfds
@pytest.mark.needs("threads")
def test_a_sink_that_raises_in_a_tick_harms_none_of_those_that_are_not_begun(
    tmp_path: Path,
) -> None:
    """The exec of the first is under way when a tick looks; later it needs to be read."""
    with held_copy(build_program("say"), tmp_path / "held") as held, pool_of(threads=2) as crowd:

        class Raising(list[bytes]):
            def append(self, data: bytes) -> None:
                super().append(data)
                if data == b"out\n":
                    raise KeyboardInterrupt

        crowd.pool._shared.new_sinks = pairs_of(Raising)
        words = tuple(word.encode() for word in (held.path, "300000", "0", "7"))
        first = crowd.pool.submit(SpawnSpec(words[:1], words, (), PIPES))
        held.wait_until_reached()
        crowd.pool.submit(sh("echo out; exec sleep 600"))
        with pytest.raises(KeyboardInterrupt):
            crowd.run_until(lambda: False)
        assert crowd.state_of(first) is JobState.BEGUN
        held.release()
        crowd.run_until(lambda: crowd.ended)
        (ended,) = crowd.ended
        assert (code_of(ended), texts(ended)) == (7, (said(1, 300_000), b""))


# --- callbacks that come back ---------------------------------------------------------------------


def test_an_end_may_submit_the_next(crowd: Pool) -> None:
    def on_end(ended: Ended[Pieces]) -> None:
        crowd.ended.append(ended)
        if ended.number < 30:
            crowd.pool.submit(sh(f"echo {ended.number}"), b"data" * (ended.number % 2))

    crowd.pool._on_end = on_end
    crowd.pool.submit(sh("exit 0"))
    assert [one.number for one in crowd.run_all()] == list(range(31))


def test_an_end_may_run_turns(caplog: pytest.LogCaptureFixture) -> None:
    """So that the others are told in between, out of ticks and out of their results."""
    with pool_of(threads=2) as crowd:
        depth = 0

        def on_end(ended: Ended[Pieces]) -> None:
            nonlocal depth
            crowd.ended.append(ended)
            if depth < 3:
                depth += 1
                crowd.loop.run_once(0.02)
                depth -= 1

        crowd.pool._on_end = on_end
        for number in range(60):
            spec = run_program("say", 100_000, 0, number) if number % 3 else sh(f"exit {number}")
            crowd.pool.submit(spec, MIB if number % 7 == 0 else b"")
        assert [code_of(one) for one in crowd.run_all()] == list(range(60))
        crowd.run_until(lambda: not crowd.loop.timers)
    assert caplog.records == []


@has_pidfds
@pytest.mark.needs("threads")
def test_a_sink_that_runs_turns_in_a_tick_does_not_keep_others_from_being_claimed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with held_copy(build_program("say"), tmp_path / "held") as held, pool_of(threads=2) as crowd:
        ticks = note_ticks(crowd)

        class Turning(list[bytes]):
            def append(self, data: bytes) -> None:
                super().append(data)
                if data == b"out\n":
                    seen = len(ticks)
                    crowd.run_until(lambda: len(ticks) > seen or not crowd.loop.timers)

        crowd.pool._shared.new_sinks = pairs_of(Turning)
        words = tuple(word.encode() for word in (held.path, "300000", "0", "7"))
        first = crowd.pool.submit(SpawnSpec(words[:1], words, (), PIPES))
        held.wait_until_reached()
        second = crowd.pool.submit(sh("echo out; exec sleep 600"))
        crowd.run_until(lambda: crowd.state_of(second) is None)
        assert crowd.state_of(first) is JobState.BEGUN
        held.release()
        crowd.run_until(lambda: crowd.ended)
        assert code_of(crowd.ended[0]) == 7
    assert caplog.records == []


CLOSING = {
    "a result": "echo out; exit 3",
    "a tick": "echo out; exec sleep 600",
    "a stream": "sleep 0.1; echo out; exec sleep 600",
    "what others hold": "sleep 600 & echo out; exit 3",
}


@pytest.mark.parametrize("out_of", CLOSING)
def test_a_sink_may_close_the_pool(out_of: str, caplog: pytest.LogCaptureFixture) -> None:
    with pool_of(threads=1) as crowd:
        closed = []

        class Closing(list[bytes]):
            def append(self, data: bytes) -> None:
                crowd.pool.close()
                closed.append(data)

        crowd.pool._shared.new_sinks = pairs_of(Closing)
        group = sh(CLOSING[out_of])
        group.process_group = 0
        crowd.pool.submit(group)
        crowd.pool.submit(sh("exec sleep 600"))
        crowd.run_until(lambda: closed)
        for _ in range(3):
            crowd.loop.run_once(0.05)
        assert closed == [b"out\n"]
        assert (crowd.ended, len(crowd.pool), len(crowd.loop.timers)) == ([], 0, 0)
        assert not child_pids()
    assert caplog.records == []


def test_an_end_may_close_the_pool_in_a_tick(caplog: pytest.LogCaptureFixture) -> None:
    with pool_of(threads=2, drain_s=0.0) as crowd:

        def on_end(ended: Ended[Pieces]) -> None:
            crowd.ended.append(ended)
            crowd.pool.close()

        crowd.pool._on_end = on_end
        missing = SpawnSpec((b"/nowhere",), (b"x",), (), PIPES)
        crowd.pool.submit(sh("exec sleep 600"), b"data")
        crowd.run_until(lambda: crowd.pool._running)
        numbers = [crowd.pool.submit(missing) for _ in range(3)]
        crowd.pool.submit(sh("exec sleep 600"))
        crowd.wait_until(JobState.FINISHED, *numbers)
        crowd.pool._note_begun()
        crowd.pool._on_tick()
        for _ in range(3):
            crowd.loop.run_once(0.05)
        assert (len(crowd.ended), len(crowd.pool), len(crowd.loop.timers)) == (1, 0, 0)
    assert caplog.records == []


# --- when nothing more can be watched -------------------------------------------------------------

ADD = (1, 1)
"""epoll_ctl's second argument, as seccomp counts them: EPOLL_CTL_ADD."""


def run_without_room_to_watch(say: str) -> list[list[object]]:
    """The threads, which are older than the filter, may still add; this thread may not."""
    path = say.encode()
    with pool_of(drain_s=0.0) as crowd:
        theirs, ours = os.pipe()
        crowd.pool.submit(SpawnSpec((path,), (path, b"60000", b"1", b"3"), (), PIPES))
        crowd.pool.submit(sh("read word <&3", Redirect(3, theirs)))  # lives: is to be watched
        crowd.pool.submit(sh("read word <&3", Redirect(3, theirs)), MIB)  # is to be fed
        crowd.pool.submit(sh("sleep 600 & echo $!; exit 4"))  # is to be drained
        crowd.pool.submit(sh("exit 5"))
        crowd.wait_until(JobState.FINISHED, 0, 2, 3, 4)
        crowd.wait_until(JobState.RUNNING, 1)
        deny("epoll_ctl", errno.ENOSPC, ADD)
        ended = crowd.run_all()
        os.close(theirs)
        os.close(ours)
    os.kill(int(texts(ended[3])[0]), signal.SIGKILL)
    assert texts(ended[0]) == (said(1, 60000), said(2, 1))
    return [
        [
            one.status.code if one.status else None,
            one.error and one.error.errno,
            one.error and one.error.stage,
        ]
        for one in ended
    ]


@needs_seccomp
@has_pidfds
@pytest.mark.needs("threads")
def test_what_cannot_be_watched_is_killed_and_told_as_an_error_and_the_rest_ends_well() -> None:
    no_room = [None, errno.ENOSPC, "watch"]
    found = alone(run_without_room_to_watch, build_program("say"))
    assert found == [[3, None, None], no_room, no_room, [4, None, None], [5, None, None]]


def run_without_pidfds_nor_room() -> list[int | None]:
    with pool_of() as crowd:
        crowd.pool.submit(sh("exec sleep 600"))
        deny("epoll_ctl", errno.ENOSPC, ADD)
        (ended,) = crowd.run_all()
    assert ended.error is not None
    return [ended.error.errno]


@needs_seccomp
@pytest.mark.needs("threads")
def test_without_pidfds_an_end_that_cannot_be_watched_is_an_error_too() -> None:
    assert alone(run_without_pidfds_nor_room, disable="pidfd") == [errno.ENOSPC]


def open_without_room() -> list[object]:
    loop = EventLoop()
    deny("epoll_ctl", errno.ENOSPC, ADD)
    tasks = len(os.listdir(f"{PROC}/self/task"))
    told: list[Ended[Pieces]] = []
    with pytest.raises(OSError) as caught:
        ChildPool[Pieces](loop, list, told.append, threads=2, drain_s=1)
    wait_for(lambda: len(os.listdir(f"{PROC}/self/task")) == tasks)
    loop.close()
    return [caught.value.errno]


@needs_seccomp
def test_one_that_cannot_watch_its_own_threads_ends_them() -> None:
    assert alone(open_without_room) == [errno.ENOSPC]


# --- traced ---------------------------------------------------------------------------------------


def turns_beside_a_traced_zombie(end: str, tracer: str, no_room: bool) -> dict[str, Any]:
    theirs, ours = os.pipe()
    gate_in, gate = os.pipe()
    said_in, said_out = os.pipe()
    with pool_of() as crowd:
        spec = SpawnSpec((end.encode(),), (end.encode(), b"wait", b"4"), (), [Redirect(0, theirs)])
        crowd.pool.submit(spec)
        crowd.run_until(lambda: crowd.pool._running)
        (one,) = crowd.pool._running
        pid = one.pid
        words = (tracer.encode(), str(pid).encode())
        rows = [Redirect(0, gate_in), Redirect(1, said_out)]
        crowd.pool.submit(SpawnSpec((tracer.encode(),), words, (), rows))
        told = select.poll()
        told.register(said_in, select.POLLIN)
        crowd.run_until(lambda: crowd.ended or told.poll(0))
        is_traced = not crowd.ended
        if is_traced:
            crowd.run_until(lambda: len(crowd.pool._running) == 2)  # the tracer needs room, too
        os.close(ours)
        if not is_traced:
            crowd.run_all()
            for fd in (theirs, gate_in, gate, said_in, said_out):
                os.close(fd)
            return {"traced": False}
        wait_for(lambda: ") Z " in Path(f"{PROC}/{pid}/stat").read_text())
        crowd.run_until(lambda: one._exit_watch is None)  # noticed, to be looked at again later
        if no_room:
            deny("epoll_ctl", errno.ENOSPC, ADD)
        over: list[bool] = []
        crowd.loop.call_later(0.15, over.append, True)
        turns = 0
        while not over:
            crowd.loop.run_once()
            turns += 1
        early = len(crowd.ended)
        os.close(gate)
        codes = [code_of(ended) for ended in crowd.run_all()]
    for fd in (theirs, gate_in, said_in, said_out):
        os.close(fd)
    return {"traced": True, "turns": turns, "early": early, "codes": codes}


@has_pidfds
@pytest.mark.parametrize("no_room", [False, pytest.param(True, marks=needs_seccomp)])
def test_a_zombie_that_a_tracer_holds_is_no_end_and_does_not_make_the_loop_spin(
    no_room: bool,
) -> None:
    args = build_program("end"), build_program("tracer"), no_room
    found = alone(turns_beside_a_traced_zombie, *args)
    if not found.pop("traced"):
        pytest.skip("may not trace")
    assert found.pop("turns") < 150  # one that spins has tens of thousands
    assert found == {"early": 0, "codes": [4, 0]}


# --- the end --------------------------------------------------------------------------------------


def stat_of(pid: int) -> str:
    return Path(f"{PROC}/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_close_kills_what_runs_stubborn_or_stopped_and_tells_nothing(crowd: Pool) -> None:
    """Also one that was just submitted."""
    for _ in range(3):
        crowd.pool.submit(sh("trap '' TERM INT HUP; kill -STOP $$; exec sleep 600"))
        crowd.pool.submit(sh("trap '' TERM INT HUP; while :; do read word; done"), MIB)
    crowd.run_until(lambda: len(crowd.pool._running) == 6)
    wait_for(lambda: sum(stat_of(pid) == "T" for pid in child_pids()) == 3)
    for _ in range(20):
        crowd.pool.submit(sh("exec sleep 600"))
    before = watched_by_kernel(crowd.loop.epoll_fd)
    assert len(before) > 1
    crowd.pool.close()
    assert not child_pids()
    assert crowd.ended == []
    assert len(watched_by_kernel(crowd.loop.epoll_fd)) == 1  # the loop's own
    assert len(crowd.loop._watches) == 1
    assert not crowd.loop.timers


@has_pidfds
@pytest.mark.needs("threads")
def test_a_close_ends_a_child_in_every_state_and_tells_nothing(tmp_path: Path) -> None:
    with held_copy("/bin/true", tmp_path / "held") as held, pool_of(threads=2, at_once=7) as crowd:
        crowd.pool.submit(sh("echo out; exec sleep 600"))  # claimed
        crowd.pool.submit(sh("exec sleep 600"), MIB)  # fed
        crowd.pool.submit(sh("(exec sleep 1; exit 0) & exit 3"))  # reaped, its streams held
        crowd.run_until(lambda: len(crowd.pool._running) == 3)
        crowd.run_until(lambda: any(one.status for one in crowd.pool._running))
        over = crowd.pool.submit(run_program("say", 60000, 60000, 0))
        # One born meanwhile may hold its pipes up to the exec: then an end would not be all of it.
        crowd.wait_until(JobState.FINISHED, over)
        given = crowd.pool.submit(sh("exec sleep 600"), MIB)
        failed = crowd.pool.submit(SpawnSpec((b"/nowhere",), (b"x",), (), PIPES))
        stopped = crowd.pool.submit(sh("trap '' TERM; kill -STOP $$"))
        full = crowd.pool.submit(run_program("say", 300_000, 0, 0))
        crowd.wait_until(JobState.FINISHED, given, failed)
        crowd.wait_until(JobState.RUNNING, stopped, full)
        path = held.path.encode()
        begun = crowd.pool.submit(SpawnSpec((path,), (path,), (), PIPES))
        held.wait_until_reached()
        waiting = [crowd.pool.submit(sh("exit 0"), data) for data in (b"", MIB)]
        crowd.wait_until(JobState.BEGUN, begun)
        crowd.wait_until(JobState.WAITING, *waiting)
        closer = threading.Thread(target=held.release)  # a close waits for the exec
        closer.start()
        crowd.pool.close()
        closer.join()
        assert not child_pids()
        assert (crowd.ended, len(crowd.pool)) == ([], 0)
        assert len(watched_by_kernel(crowd.loop.epoll_fd)) == 1
        assert len(crowd.loop._watches) == 1
        assert not crowd.loop.timers


@pytest.mark.needs("threads")
def test_a_close_in_the_turn_of_an_end_tells_nothing_more(crowd: Pool) -> None:
    told: list[int] = []

    def on_end(ended: Ended[Pieces]) -> None:
        told.append(ended.number)
        crowd.pool.close()

    crowd.pool._on_end = on_end
    crowd.wait_until(JobState.FINISHED, *[crowd.pool.submit(sh("exit 0")) for _ in range(20)])
    while not told:
        crowd.loop.run_once(1)
    crowd.loop.run_once(0)
    assert len(told) == 1


def test_a_second_close_does_nothing_and_nothing_is_accepted_after_the_first(crowd: Pool) -> None:
    crowd.pool.submit(sh("exec sleep 600"))
    crowd.pool.close()
    crowd.pool.close()
    with pytest.raises(ValueError, match="closed"):
        crowd.pool.submit(sh("exit 0"))
    assert len(crowd.pool) == 0


def test_what_was_reaped_by_others_does_not_hinder_a_close(crowd: Pool) -> None:
    for _ in range(3):
        crowd.pool.submit(sh("exec sleep 600"))
    crowd.run_until(lambda: len(crowd.pool._running) == 3)
    for pid in child_pids():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    crowd.pool.close()
    assert len(watched_by_kernel(crowd.loop.epoll_fd)) == 1


# --- copies of the process ------------------------------------------------------------------------


def run_beside_a_copy() -> list[Any]:
    theirs, ours = os.pipe()
    with pool_of() as crowd:
        for number in range(10):
            crowd.pool.submit(
                sh(f"read word <&3; echo {number}; exit {number}", Redirect(3, theirs))
            )
        crowd.pool.submit(sh("exec sleep 600"), MIB)
        crowd.run_until(lambda: len(crowd.pool._running) == 11)
        for number in range(10, 20):  # with the threads, in any state
            crowd.pool.submit(sh(f"echo {number}; exit {number}"))
        copy = os.fork()
        if copy == 0:
            try:
                with pytest.raises(ChildProcessError):
                    crowd.pool.submit(sh("exit 0"))
                crowd.close()
                del crowd.pool
                gc.collect()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(copy, 0)[1] == 0
        os.close(ours)
        crowd.run_until(lambda: len(crowd.pool) == 1)
        ended = sorted(crowd.ended, key=lambda one: one.number)
    os.close(theirs)
    return [[code_of(one), texts(one)[0].decode()] for one in ended]


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_a_copy_of_the_process_touches_nothing_of_the_originals(disable: str) -> None:
    found = alone(run_beside_a_copy, disable=disable)
    assert found == [[number, f"{number}\n"] for number in range(20)]


# --- between two lines ----------------------------------------------------------------------------


def interrupt_everywhere() -> int:
    """The ends of children that are over, that live, are fed, held by others, and not there."""
    opened: list[Pool] = []

    def act() -> None:
        crowd = Pool(threads=1, drain_s=0.0)
        opened.append(crowd)
        crowd.pool.submit(sh("echo out; exit 1"))
        crowd.pool.submit(SpawnSpec((b"/nowhere",), (b"x",), (), PIPES))
        crowd.pool.submit(sh("exec cat"), MIB[:70000])
        crowd.pool.submit(sh("exec sleep 600"))
        crowd.pool.submit(sh("(exec sleep 1) & exit 2"))  # reaped by a thread, its streams held
        crowd.pool.submit(sh("exec head -c 200000 /dev/zero"))
        crowd.run_until(lambda: len(crowd.ended) == 5 and not crowd.loop.timers)

    def clean_up() -> None:
        while opened:
            opened.pop().close()
        if open_fds() != before:
            gc.collect()  # dear
        assert not child_pids()
        left = {fd: what for fd, what in open_fds().items() if before.get(fd) != what}
        assert not left, f"fds left: {left}"

    before = open_fds()
    # What ends may not be ended half; and an fd rather stays open than is closed twice.
    spared = {"close", "kill", "_end_input"}
    return interrupt_each_line([pool, collected], act, clean_up, spared)


def test_an_interrupt_between_any_two_lines_leaves_nothing_after_a_close() -> None:
    assert alone(interrupt_everywhere) > 100


@pytest.mark.parametrize("data", [b"", b"data"])
@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 0.05",
        "sleep 60 & echo $! >$0; exit 3",
        "exec dd if=/dev/zero bs=4096 count=70 status=none",
    ],
)
def test_a_submission_that_was_interrupted_takes_no_place_for_ever(
    script: str, data: bytes, tmp_path: Path
) -> None:
    """Nobody waits for its child; the others must not wait for it either."""
    named = tmp_path / "pid"
    spec = sh(script)
    spec.argv = (*spec.argv, bytes(named))
    try:
        with pool_of(at_once=1, threads=1) as crowd:
            with interrupted_before(ChildPool.submit, "number = self._submitted"):
                crowd.pool.submit(spec, data)
            for _ in range(3):
                crowd.pool.submit(sh("exit 3"))
            assert [code_of(one) for one in crowd.run_all()][-3:] == [3, 3, 3]
    finally:
        if named.exists() and (name := named.read_bytes()):  # empty: its shell was killed at that
            kill_who_was_named(name)


WHERE_ENDS_COME_THROUGH = [
    (SpawnerThreads._fetch, "self._batch, self._done ="),
    (SpawnerThreads._fetch, "taken.next = 1"),
    (SpawnerThreads.take, "told: int = job.told"),
    (SpawnerThreads.take, "lib.pr_job_forget_data(job)"),
    (SpawnerThreads.take, "del jobs[token]"),
    (SpawnerThreads.take, "self._done += 1"),
    (SpawnerThreads.claim, "if state == _JOB_CLAIMED"),
    (Spawner._deliver, "child, spec = self._pending[token]"),
    (Spawner._deliver, "del self._pending[token]"),
    (ChildPool._on_finish, "job = self._starting.get(finish.child)"),
    (Spawner.claim, "error = self._hand_over(child, spec)"),
    (ChildPool._begin, "self._running[one] = job"),
]


@has_pidfds
@pytest.mark.parametrize(("function", "line"), WHERE_ENDS_COME_THROUGH)
@pytest.mark.needs("threads")
def test_a_loop_that_goes_on_after_an_interrupt_tells_every_end(function: Any, line: str) -> None:
    """Of some that are over and some that are to be claimed; also when only one may live."""
    with pool_of(at_once=1, threads=1) as crowd:
        first = crowd.pool.submit(sh("echo out; echo error >&2; exit 3"))
        crowd.wait_until(JobState.FINISHED, first)
        second = crowd.pool.submit(sh("exec dd if=/dev/zero bs=4096 count=70 status=none"))
        crowd.wait_until(JobState.RUNNING, second)
        crowd.pool.submit(sh("exit 4"))
        with interrupted_before(function, line):
            crowd.run_all()
        assert [code_of(one) for one in crowd.run_all()] == [3, 0, 4]


def end_whose_forgetting_is_interrupted(line: str) -> list[int | None]:
    with pool_of(threads=1) as crowd:
        before = open_fds(), len(crowd.loop._watches)
        crowd.pool.submit(sh("cat > /dev/null; exit 3"), MIB)
        with interrupted_before(CollectedChild._forget, line):
            crowd.run_all()
        codes = [code_of(one) for one in crowd.run_all()]
        assert (open_fds(), len(crowd.loop._watches)) == before
    return codes


@pytest.mark.parametrize("line", ["if bits & GATHERED_EXIT", "watch, self._exit_watch ="])
def test_what_stands_for_a_pidfd_is_closed_although_its_forgetting_was_interrupted(
    line: str,
) -> None:
    assert alone(end_whose_forgetting_is_interrupted, line, disable="pidfd") == [3]


def test_no_number_is_given_twice_after_an_interrupt(crowd: Pool) -> None:
    with interrupted_before(ChildPool.submit, "self._starting[child] = _Job"):
        crowd.pool.submit(sh("exit 3"))
    crowd.pool.submit(sh("exit 4"))
    numbers = [one.number for one in crowd.run_all()]
    assert len(set(numbers)) == len(numbers)


@has_pidfds
@pytest.mark.parametrize(
    ("function", "line"),
    [
        (SpawnerThreads.submit, "self._jobs[token] ="),
        (SpawnerThreads.submit, "if lib.pr_spawner_submit"),
        (Spawner.submit, "child.submit(self._threads"),
        (Spawner.submit, "return token, child"),
    ],
)
def test_a_child_is_claimed_although_the_submission_before_was_interrupted(
    function: Any, line: str
) -> None:
    """Whether or not a thread has got to know of the one before, which takes no place for ever."""
    with pool_of(at_once=1, threads=1) as crowd:
        with interrupted_before(function, line):
            crowd.pool.submit(sh("exit 3"))
        ticks = note_ticks(crowd)
        for number in range(3):
            crowd.pool.submit(run_program("say", 300_000, 0, number))
            assert [code_of(one) for one in crowd.run_all()][-1] == number
        assert ticks  # so the one of before was looked at, too


def test_an_interrupt_out_of_one_end_loses_no_other() -> None:
    with pool_of(threads=1) as crowd:
        for _ in range(3):
            crowd.pool.submit(sh("exit 0"))
        crowd.pool.submit(SpawnSpec((b"/nowhere",), (b"x",), (), PIPES))
        for _ in range(3):
            crowd.pool.submit(run_program("say", 1, 1 << 20))
        interrupted = []

        def tell(ended: Ended[Pieces]) -> None:
            crowd.ended.append(ended)
            if ended.error is not None:
                interrupted.append(ended)
                raise KeyboardInterrupt

        crowd.pool._on_end = tell
        while crowd.pool:
            try:
                crowd.run_until(lambda: not crowd.pool)
            except KeyboardInterrupt:
                assert len(interrupted) == 1
        assert sorted(one.number for one in crowd.ended) == list(range(7))


def test_what_is_ignored_while_a_start_waits_its_turn_is_default_in_the_child() -> None:
    with pool_of(threads=1) as crowd:
        for _ in range(30):
            crowd.pool.submit(sh(f"exec grep SigIgn {PROC}/self/status"))
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            ended = crowd.run_all()
        finally:
            signal.signal(signal.SIGTERM, before)
        bit = 1 << (signal.SIGTERM - 1)
        assert [int(texts(one)[0].split()[1], 16) & bit for one in ended] == [0] * 30


def test_a_pool_whose_loop_is_closed_first_can_still_be_closed() -> None:
    crowd = Pool()
    crowd.pool.submit(sh("exec sleep 600"))
    crowd.loop.close()
    with pytest.raises(ValueError, match="the pool's loop is closed"):
        crowd.pool.submit(sh("exit 0"))
    crowd.pool.close()
    crowd.pool.close()
    with pytest.raises(ValueError, match="the pool is closed"):
        crowd.pool.submit(sh("exit 0"))


def test_a_sink_may_use_the_loop_and_gets_the_numbers_that_are_free() -> None:
    loop = EventLoop()
    heard: list[int] = []
    opened: list[int] = []

    class Sink:
        def append(self, data: bytes) -> None:
            ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            opened.extend((ours, theirs))
            loop.watch(ours, heard.append, READ)
            os.write(theirs, b"x")

    ended: list[Ended[Sink]] = []
    made = ChildPool(loop, pairs_of(Sink), ended.append, threads=1, drain_s=DEADLINE_S)
    made.submit(sh("echo out"))
    while not (ended and heard):
        loop.run_once(DEADLINE_S)
    made.close()
    loop.close()
    for fd in opened:
        os.close(fd)


# --- what the owner is told of those that run, and calls off ------------------------------------


def test_an_end_has_the_number_and_the_times_of_its_child(crowd: Pool) -> None:
    before_s = time.monotonic()
    crowd.pool.submit(sh("echo $$"))
    crowd.pool.submit(sh("echo $$; exec sleep 0.1"))  # which the loop takes over
    for ended in crowd.run_all():
        assert texts(ended)[0] == b"%d\n" % ended.pid
        assert before_s <= ended.begun_s <= time.monotonic()
        assert 0 < ended.duration_s <= time.monotonic() - ended.begun_s


def test_a_child_that_could_not_be_started_had_no_number(crowd: Pool) -> None:
    ended = crowd.run(SpawnSpec((b"/nowhere",), (b"x",), (), ()))
    assert (ended.pid, ended.status) == (-1, None)
    assert ended.begun_s > 0


def test_those_that_wait_are_called_off_and_others_may_follow() -> None:
    with pool_of(at_once=1, threads=1) as crowd:
        live: list[int] = []
        crowd.pool._on_live = lambda number, child, begun_s: live.append(number)
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        crowd.pool.submit(sh("read word <&3", Redirect(3, theirs)))
        numbers = [crowd.pool.submit(sh("exit 1")) for _ in range(3)]
        crowd.run_until(lambda: live == [0])
        crowd.pool.cancel_waiting()
        crowd.run_until(lambda: len(crowd.ended) == 3)
        assert [ended.number for ended in crowd.ended] == numbers
        for ended in crowd.ended:
            assert ended.error is not None
            assert ended.error.errno == errno.ECANCELED
            assert (ended.pid, ended.begun_s, ended.duration_s) == (-1, 0, 0)
        os.close(ours)
        crowd.run_until(lambda: len(crowd.ended) == 4)
        crowd.ended.clear()
        assert code_of(crowd.run(sh("exit 7"))) == 7
        os.close(theirs)


def test_those_that_live_can_all_be_had_at_once() -> None:
    with pool_of(threads=2) as crowd:
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        live: dict[int, int | None] = {}

        def on_live(number: int, child: CollectedChild[Pieces], begun_s: float) -> None:
            assert begun_s <= time.monotonic()
            live[number] = child.pid
            child.send_signal(signal.SIGTERM)

        crowd.pool._on_live = on_live
        for _ in range(5):
            crowd.pool.submit(sh("read word <&3", Redirect(3, theirs)))
        while len(live) < 5:
            crowd.pool.claim_all()
            crowd.loop.run_once(0)
        ended = crowd.run_all()
        assert {one.number: one.pid for one in ended} == live
        assert all(one.status and one.status.signal == signal.SIGTERM for one in ended)
        os.close(ours)
        os.close(theirs)
