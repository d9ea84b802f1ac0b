"""Many commands, at most so many at a time, lazily; whatever ends the iteration leaves nothing."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alone import alone
from held import wait_for
from leftovers import child_pids, open_fds
from programs_build import build_program
from support import PROC, Recorder, make_reactor, run_until
from ways import WITHOUT_PIDFDS

from procreactor.apps import batch
from procreactor.apps.batch import Outcome, plan_command, run_batch
from procreactor.model import Redirect, SpawnSpec

AHEAD = 64
"""How many more are taken of the iterable than may run."""


def sh(script: str) -> SpawnSpec:
    return plan_command(["/bin/sh", "-c", script])


def end(*words: object) -> SpawnSpec:
    return plan_command([build_program("end"), *map(str, words)])


def code_of(outcome: Outcome) -> int | None:
    assert outcome.error is None, outcome.error
    assert outcome.status is not None
    return outcome.status.code


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


def waiting(theirs: int, code: int = 0) -> SpawnSpec:
    """A child that lives until the gate *theirs* is opened."""
    spec = end("wait", code)
    spec.redirects = (Redirect(0, theirs), *spec.redirects[1:])
    return spec


# --- commands -------------------------------------------------------------------------------------


def test_a_command_runs_with_its_arguments_environment_and_directory(tmp_path: Path) -> None:
    script = 'printf "%s|" "$0" "$1" "$WORD" "$PWD"'
    commands = [
        plan_command(["sh", "-c", script, "zero", b"\xff"], env={"WORD": "here"}, cwd=tmp_path),
        plan_command([b"sh", b"-c", script.encode()], env={b"WORD": b"there"}),
    ]
    first, second = sorted(run_batch(commands, at_once=2))
    assert first.stdout == b"zero|\xff|here|" + os.fsencode(tmp_path) + b"|"
    assert second.stdout.startswith(b"sh||there|")
    assert first.spec is commands[0]


def test_without_an_environment_it_is_the_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "ours")
    (outcome,) = run_batch([plan_command(["sh", "-c", "echo $WORD"])], at_once=1)
    assert outcome.stdout == b"ours\n"


def test_what_is_no_command_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="argv"):
        plan_command([])
    with pytest.raises(ValueError, match=r"argv\[0\]"):
        plan_command(["a\0b"])
    with pytest.raises(TypeError, match="argv"):
        plan_command([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="env"):
        plan_command(["true"], env=["WORD=x"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cwd"):
        plan_command(["true"], cwd="a\0b")


# --- outcomes -------------------------------------------------------------------------------------


def test_each_of_many_is_an_outcome_once() -> None:
    outcomes = list(run_batch((end("exit", at % 256) for at in range(500)), at_once=32))
    assert sorted(outcome.number for outcome in outcomes) == list(range(500))
    assert all(code_of(outcome) == outcome.number % 256 for outcome in outcomes)
    assert all(outcome[4:7] == (b"", b"", 0) for outcome in outcomes)


def test_what_could_not_be_started_is_an_outcome_in_its_turn() -> None:
    commands = [sh("echo one"), plan_command(["no-such-program-anywhere"]), sh("echo three >&2")]
    one, two, three = sorted(run_batch(commands, at_once=1), key=lambda one: one.number)
    assert (code_of(one), one.stdout) == (0, b"one\n")
    assert (two.status, two.stdout, two.dropped_bytes) == (None, b"", 0)
    assert two.error is not None
    assert issubclass(type(two.error), FileNotFoundError)
    assert two.error.filename == "no-such-program-anywhere"
    assert (code_of(three), three.stderr) == (0, b"three\n")


@pytest.mark.parametrize("limit_bytes", [0, 1, 10, 99_999, 100_000])
def test_beyond_the_bound_the_two_ends_of_a_stream_are_kept(limit_bytes: int) -> None:
    command = plan_command([build_program("say"), "100000", "5", "0"])
    (whole,) = run_batch([command], at_once=1)
    (outcome,) = run_batch([command], at_once=1, limit_bytes=limit_bytes)
    first = limit_bytes // 2
    last = limit_bytes - first
    assert outcome.stdout == whole.stdout[:first] + whole.stdout[len(whole.stdout) - last :]
    kept = len(outcome.stdout) + len(outcome.stderr)
    assert outcome.dropped_bytes == 100_005 - kept
    assert whole.dropped_bytes == 0


def test_nothing_to_run_is_no_outcome() -> None:
    assert list(run_batch([], at_once=3)) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"at_once": 0}, "at_once must be >= 1, not 0"),
        ({"at_once": 1, "threads": 0}, "threads must be from 1 to 64, not 0"),
        ({"at_once": 1, "threads": 65}, "threads must be from 1 to 64, not 65"),
        ({"at_once": 1, "limit_bytes": -1}, "limit_bytes must be None or >= 0, not -1"),
    ],
)
def test_arguments_are_checked_at_the_call(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        run_batch([], **arguments)


# --- at once, and lazily --------------------------------------------------------------------------


def test_nothing_happens_before_the_first_outcome_is_asked_for() -> None:
    asked: list[bool] = []

    def commands() -> Iterator[SpawnSpec]:
        asked.append(True)
        yield sh("exit 0")

    before = open_fds()
    outcomes = run_batch(commands(), at_once=3)
    assert (asked, open_fds()) == ([], before)
    del outcomes
    assert asked == []


def is_asleep(thread: threading.Thread) -> bool:
    text = Path(f"{PROC}/self/task/{thread.native_id}/stat").read_text()
    return text.rpartition(")")[2].split()[0] == "S"


@pytest.mark.needs("threads")
def alive_together() -> int:
    """How many children there are at one moment: the list of them is not read in one."""
    found = child_pids()
    while (again := child_pids()) != found:
        found = again
    return len(found)


def test_no_more_are_taken_than_may_run_and_so_many_do_run(
    gate: tuple[int, Callable[[], None]],
) -> None:
    """As long as none has ended; an iterable may need what came out of the first ones to go on."""
    theirs, let_go = gate
    taken: list[int] = []
    alive: list[int] = []

    def commands() -> Iterator[SpawnSpec]:
        for number in range(30):
            taken.append(number)
            alive.append(alive_together())
            yield waiting(theirs, number)

    outcomes: list[Outcome] = []
    runner = threading.Thread(target=lambda: outcomes.extend(run_batch(commands(), at_once=3)))
    runner.start()
    try:
        wait_for(lambda: len(child_pids()) == 3 and len(taken) == 3)
        wait_for(lambda: is_asleep(runner))  # so it takes no more
        assert (len(child_pids()), len(taken)) == (3, 3)
    finally:
        let_go()
        runner.join()
    assert sorted(outcome.number for outcome in outcomes) == list(range(30))
    assert all(code_of(outcome) == outcome.number for outcome in outcomes)
    assert max(alive) <= 3


def test_an_iterable_may_wait_for_the_outcomes_of_those_before() -> None:
    """Which holds where children end one by one, as they do when one may run at a time."""
    outcomes: list[Outcome] = []

    def commands() -> Iterator[SpawnSpec]:
        for number in range(5):
            assert len(outcomes) == number
            yield sh(f"exit {number}")

    for outcome in run_batch(commands(), at_once=1):
        outcomes.append(outcome)  # noqa: PERF402  # one by one is what is tested
    assert [code_of(outcome) for outcome in outcomes] == list(range(5))


def test_while_many_end_in_a_turn_some_are_taken_ahead_and_fewer_when_they_do_not() -> None:
    ahead = 0
    for _ in range(3):
        ahead = batch._next_ahead(ahead, 20)
    assert ahead == AHEAD
    seen = [ahead]
    while seen[-1]:
        seen.append(batch._next_ahead(seen[-1], 1))
    assert seen == sorted(seen, reverse=True)


def test_there_are_never_more_alive_than_may_be(tmp_path: Path) -> None:
    """Each takes one of three seats, and says so if there is none."""
    seats = tmp_path / "seats"
    seats.touch()
    command = plan_command([build_program("seats"), str(seats), "3"])
    outcomes = run_batch(itertools.repeat(command, 200), at_once=3, threads=4)
    assert [code_of(outcome) for outcome in outcomes] == [0] * 200


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_each_of_mixed_fates_is_an_outcome_however_few_may_run(at_once: int) -> None:
    say = build_program("say")
    fates = [
        end("exit", 3),
        plan_command(["/nowhere"]),
        plan_command([say, "100000", "70000", "4"]),
        end("signal", 15),
        sh("echo out; exec sleep 0.05"),
    ]
    outcomes = sorted(
        run_batch((fates[at % 5] for at in range(200)), at_once=at_once),
        key=lambda one: one.number,
    )
    assert [outcome.number for outcome in outcomes] == list(range(200))
    wanted = [(3, 0), (None, 0), (4, 170_000), (None, 0), (0, 4)] * 40
    assert [
        (one.status and one.status.code, len(one.stdout) + len(one.stderr)) for one in outcomes
    ] == wanted


def test_any_number_may_be_let_run_at_once() -> None:
    for at_once in (1 << 31, 1 << 32, sys.maxsize):
        (outcome,) = run_batch([sh("exit 3")], at_once=at_once, threads=1)
        assert code_of(outcome) == 3


def test_without_a_seat_a_child_says_so(tmp_path: Path) -> None:
    seats = tmp_path / "seats"
    seats.touch()
    command = plan_command([build_program("seats"), str(seats), "0"])
    assert [code_of(outcome) for outcome in run_batch([command], at_once=1)] == [99]


def test_an_endless_iterable_is_taken_as_far_as_is_asked() -> None:
    numbers = itertools.count()
    taken: list[int] = []

    def commands() -> Iterator[SpawnSpec]:
        for number in numbers:
            taken.append(number)
            yield end("exit", number % 256)

    outcomes = run_batch(commands(), at_once=4)
    found = [outcome.number for outcome in itertools.islice(outcomes, 50)]
    outcomes.close()  # type: ignore[attr-defined]
    assert len(set(found)) == 50
    assert len(taken) <= 2 * (50 + 4) + AHEAD  # a turn may tell of more than is asked for


# --- what ends it early ---------------------------------------------------------------------------


def stubborn() -> list[SpawnSpec]:
    return [
        sh("trap '' TERM INT HUP; exec sleep 600"),
        sh("trap '' TERM INT HUP; kill -STOP $$; exec sleep 600"),
        sh("while :; do echo word; done"),
    ]


def test_an_exception_of_the_iterable_passes_through_and_leaves_nothing() -> None:
    def commands() -> Iterator[SpawnSpec]:
        yield from stubborn()
        yield sh("exit 0")
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(run_batch(commands(), at_once=4))
    assert not child_pids()


def test_a_command_that_cannot_be_followed_passes_through_and_leaves_nothing() -> None:
    deadly = sh("exit 0")
    deadly.parent_death_signal = signal.SIGTERM
    outcomes = run_batch([*stubborn(), deadly], at_once=4)
    with pytest.raises(ValueError, match="death signal"):
        next(outcomes)
    assert not child_pids()
    assert list(outcomes) == []


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_an_iterator_that_is_let_go_of_kills_what_runs(how: str) -> None:
    before = open_fds()
    outcomes = run_batch([*stubborn(), sh("exit 3")], at_once=4)
    assert code_of(next(outcomes)) == 3
    wait_for(lambda: len(child_pids()) == 3)  # another thread may be at the start of one
    if how == "closed":
        outcomes.close()  # type: ignore[attr-defined]
    del outcomes
    assert not child_pids()
    assert open_fds() == before


@pytest.mark.needs("threads")
def test_an_interrupt_while_it_waits_passes_through_and_leaves_nothing() -> None:
    main = threading.main_thread().ident or 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        wait_for(lambda: len(child_pids()) == 3)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_batch(stubborn(), at_once=4))
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not child_pids()


# --- others in the same process -------------------------------------------------------------------


@pytest.mark.needs("threads")
def test_batches_in_several_threads_do_not_mix() -> None:
    found: dict[int, list[bytes]] = {}

    def run(name: int) -> None:
        commands = (sh(f"echo {name} {number}") for number in range(50))
        outcomes = sorted(run_batch(commands, at_once=5), key=lambda one: one.number)
        found[name] = [outcome.stdout for outcome in outcomes]

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in range(3):
        assert found[name] == [f"{name} {number}\n".encode() for number in range(50)]


@pytest.mark.needs("threads")
def test_a_batch_in_a_thread_and_a_reactor_in_another_do_not_mix() -> None:
    outcomes: list[Outcome] = []
    with make_reactor() as reactor:

        def run() -> None:
            outcomes.extend(run_batch((end("exit", 9) for _ in range(60)), at_once=6))
            reactor.callFromThread(over.append, True)

        over: list[bool] = []
        thread = threading.Thread(target=run)
        recorders = [Recorder() for _ in range(30)]
        thread.start()
        for number, recorder in enumerate(recorders):
            args = ["sh", "-c", f"echo {number}; exit {number}"]
            reactor.spawnProcess(recorder, "/bin/sh", args)
        run_until(reactor, lambda: over and all(recorder.ended for recorder in recorders))
        thread.join()
    assert [code_of(outcome) for outcome in outcomes] == [9] * 60
    assert [recorder.reason.value.exitCode for recorder in recorders] == list(range(30))


def go_on_in_a_copy() -> list[object]:
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    commands = [sh("exit 0"), *(waiting(theirs, number) for number in range(1, 6))]
    outcomes = run_batch(commands, at_once=6)
    first = next(outcomes)
    copy = os.fork()
    if copy == 0:
        try:
            next(outcomes)
        except ChildProcessError:
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(copy, 0)[1]
    other = os.fork()
    if other == 0:
        outcomes.close()  # type: ignore[attr-defined]
        os._exit(0)
    statuses = [status, os.waitpid(other, 0)[1]]
    os.close(ours)
    codes = [code_of(first), *sorted(code_of(one) or 0 for one in outcomes)]
    os.close(theirs)
    return [statuses, codes]


def test_a_copy_of_the_process_has_no_outcomes_and_takes_none() -> None:
    assert alone(go_on_in_a_copy) == [[0, 0], [0, 1, 2, 3, 4, 5]]


# --- too little of something ----------------------------------------------------------------------


def run_with_few_fds() -> list[list[object]]:
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 40, hard))
    outcomes = run_batch((waiting(theirs, 7) for _ in range(32)), at_once=32, threads=2)
    first = next(outcomes)  # no other has an end: they wait
    os.close(ours)
    found = [first, *outcomes]
    os.close(theirs)
    return [
        [one.status and one.status.code, one.error and one.error.errno, one.number] for one in found
    ]


@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_without_fds_for_more_children_some_are_errors_and_the_others_end_well(
    disable: str,
) -> None:
    found = alone(run_with_few_fds, disable=disable)
    assert sorted(number for _, _, number in found) == list(range(32))
    kinds = {(code, error) for code, error, _ in found}
    assert kinds == {(7, None), (None, errno.EMFILE)}


def run_without_an_fd_to_spare() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    failed = 0
    for spare in range(20):
        first_free = os.dup(0)
        os.close(first_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + spare, hard))
        try:
            for outcome in run_batch([sh("exit 0")], at_once=1):
                failed += outcome.error is not None
        except OSError as error:
            failed += error.errno == errno.EMFILE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return failed


def test_wherever_the_fds_run_out_nothing_is_left() -> None:
    """The loop takes four fds, the threads three, a child up to seven."""
    assert 4 <= alone(run_without_an_fd_to_spare) < 20
