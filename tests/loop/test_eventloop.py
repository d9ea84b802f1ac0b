"""One turn after the other: calls, timers, fds; errors, closes, threads, signals and hosts."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from opcode import opmap
from xml.parsers import expat

import pytest
from support import PROC
from watched import by_others, watched_by_kernel

from procreactor.kernel.poller import HANGUP, READ, WRITE
from procreactor.loop import eventloop
from procreactor.loop.eventloop import EventLoop

DEADLINE_S = 30


def test_the_instruction_that_functions_begin_with_is_known() -> None:
    assert opmap["RESUME"] == eventloop._RESUME


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise


def never(events: int) -> None:
    """For an fd of which nothing must be told."""
    pytest.fail(f"told {events}")


def run_until(loop: EventLoop, condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        loop.run_once(end - time.monotonic())


# --- calls ----------------------------------------------------------------------------------------


def test_calls_are_made_in_their_order_in_the_next_turn(loop: EventLoop) -> None:
    made: list[object] = []
    for number in range(3):
        loop.call_soon(made.append, number)
    assert made == []
    loop.run_once()
    assert made == [0, 1, 2]


def test_a_call_that_asks_for_another_does_not_keep_the_turn(loop: EventLoop) -> None:
    made = 0

    def again() -> None:
        nonlocal made
        made += 1
        loop.call_soon(again)

    loop.call_soon(again)
    loop.run_once()
    assert made == 1
    loop.run_once()
    assert made == 2


def test_a_turn_with_calls_waiting_does_not_wait(loop: EventLoop) -> None:
    made: list[str] = []
    loop.call_soon(loop.call_soon, made.append, "second")
    loop.run_once()  # has the first; would wait for ever if it did not know of the second
    loop.run_once()
    assert made == ["second"]


def test_a_call_that_raises_is_logged_by_name_and_the_next_is_made(
    loop: EventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[str] = []

    def explode() -> None:
        raise ValueError("boom")

    loop.call_soon(explode)
    loop.call_soon(made.append, "after")
    loop.run_once()
    assert made == ["after"]
    (record,) = caplog.records
    assert record.name == "procreactor"
    assert record.levelno == logging.ERROR
    assert "explode raised" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


def test_a_compiled_call_that_raises_is_made_once_and_keeps_nobody_waiting(
    loop: EventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """Such put frames of their own into a traceback, which begin where they end."""

    def refuse(name: str, attributes: object) -> None:
        started.append(name)
        raise ValueError

    started: list[str] = []
    made: list[str] = []
    parser, other = expat.ParserCreate(), expat.ParserCreate()
    parser.StartElementHandler = other.StartElementHandler = refuse
    loop.call_soon(parser.Parse, b"<a>")
    loop.call_later(0, other.Parse, b"<b>")
    loop.call_soon(made.append, "next")
    for _ in range(3):
        loop.run_once(0)
    assert (started, made) == (["a", "b"], ["next"])
    assert len(caplog.records) == 2


def test_what_is_no_exception_leaves_the_turn_and_nothing_is_lost(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    made: list[object] = []

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    os.write(pipe[1], b"x")
    watch = loop.watch(pipe[0], interrupt, READ)
    loop.call_soon(interrupt)
    loop.call_soon(made.append, "call")
    loop.call_later(0, interrupt)
    loop.call_later(0, made.append, "timer")
    interrupts = 0
    while interrupts < 3:
        with pytest.raises(KeyboardInterrupt):
            loop.run_once(DEADLINE_S)
        interrupts += 1
    watch.on_ready = made.append
    run_until(loop, lambda: READ in made)
    assert made == ["call", "timer", READ]


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit])
def test_of_what_is_no_exception_only_what_means_to_end_the_program_leaves_the_turn(
    loop: EventLoop,
    pipe: tuple[int, int],
    caplog: pytest.LogCaptureFixture,
    kind: type[BaseException],
) -> None:
    made: list[str] = []

    def explode(*args: object) -> None:
        made.append("call")
        raise kind

    def explode_once(events: int) -> None:
        loop.unwatch(watch)
        explode()

    loop.call_soon(explode)
    loop.call_later(0, explode)
    watch = loop.watch(pipe[1], explode_once, WRITE)
    run_until(loop, lambda: len(made) == 3)
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [kind] * 3


def test_a_call_may_run_a_turn_which_makes_the_calls_that_waited_behind_it(
    loop: EventLoop,
) -> None:
    made: list[str] = []
    loop.call_soon(loop.run_once, 0)
    loop.call_soon(made.append, "waited")
    loop.run_once(0)
    assert made == ["waited"]
    loop.call_soon(made.append, "later")
    loop.run_once(0)
    assert made == ["waited", "later"]


# --- timers ---------------------------------------------------------------------------------------


def test_a_timer_is_never_early(loop: EventLoop) -> None:
    made: list[float] = []
    due_s = time.monotonic() + 0.01
    loop.call_later(0.01, lambda: made.append(time.monotonic()))
    run_until(loop, lambda: made)
    assert made[0] >= due_s


def test_timers_are_called_in_the_order_of_their_deadlines(loop: EventLoop) -> None:
    made: list[str] = []
    loop.call_later(0.02, made.append, "last")
    loop.call_later(0, made.append, "first")
    loop.call_later(0.01, made.append, "second")
    run_until(loop, lambda: len(made) == 3)
    assert made == ["first", "second", "last"]


def test_a_cancelled_timer_is_not_called(loop: EventLoop) -> None:
    made: list[str] = []
    timer = loop.call_later(0, made.append, "cancelled")
    loop.timers.cancel(timer)
    loop.call_later(0, made.append, "kept")
    run_until(loop, lambda: made)
    assert made == ["kept"]


def test_a_timer_cancelled_by_an_earlier_one_of_its_turn_is_not_called(loop: EventLoop) -> None:
    made: list[str] = []
    loop.call_later(0, lambda: loop.timers.cancel(second))
    second = loop.call_later(0, made.append, "second")
    loop.call_later(0, made.append, "third")
    run_until(loop, lambda: made)
    assert made == ["third"]


def test_a_timer_that_raises_is_logged_and_the_next_is_called(
    loop: EventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[str] = []
    loop.call_later(0, lambda: made[99])
    loop.call_later(0, made.append, "next")
    run_until(loop, lambda: made)
    assert len(caplog.records) == 1


def test_a_turn_waits_no_longer_than_it_was_told(loop: EventLoop) -> None:
    loop.call_later(3600, pytest.fail)
    loop.run_once(0)
    loop.run_once(0.001)
    loop.run_once(-5)


# --- fds ------------------------------------------------------------------------------------------


def test_a_ready_fd_is_told_with_its_events(loop: EventLoop, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    loop.watch(pipe[0], told.append, READ)
    loop.run_once(0)
    assert told == []
    os.write(pipe[1], b"x")
    loop.run_once()
    assert told == [READ]
    os.close(pipe[1])
    loop.run_once()
    assert told == [READ, READ | HANGUP]


def test_interest_can_be_changed(loop: EventLoop, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    watch = loop.watch(pipe[1], told.append, 0)
    loop.run_once(0)
    assert told == []
    loop.rewatch(watch, WRITE)
    loop.rewatch(watch, WRITE)
    loop.run_once()
    assert told == [WRITE]
    loop.rewatch(watch, 0)
    loop.run_once(0)
    assert told == [WRITE]


def test_an_fd_is_watched_once_and_again_after_unwatch(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    told: list[int] = []
    watch = loop.watch(pipe[1], never, WRITE)
    with pytest.raises(FileExistsError):
        loop.watch(pipe[1], told.append, WRITE)
    loop.unwatch(watch)
    loop.unwatch(watch)
    assert not watch.active
    loop.rewatch(watch, WRITE)  # of no effect
    loop.watch(pipe[1], told.append, WRITE)
    loop.run_once()
    assert told == [WRITE]


def test_a_watch_that_raises_is_logged_and_the_others_are_told(
    loop: EventLoop, pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[int] = []
    os.write(pipe[1], b"x")
    loop.watch(pipe[0], lambda events: told[99], READ)
    loop.watch(pipe[1], told.append, WRITE)
    loop.run_once()
    assert told == [WRITE]
    assert len(caplog.records) == 1


def test_an_fd_unwatched_by_an_earlier_one_of_its_turn_is_not_told(loop: EventLoop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    told: list[int] = []

    def tell(index: int) -> Callable[[int], None]:
        def on_ready(events: int) -> None:
            told.append(index)
            loop.unwatch(watches[1 - index])

        return on_ready

    watches = [loop.watch(pipes[index][1], tell(index), WRITE) for index in range(2)]
    loop.run_once()
    assert len(told) == 1
    for ends in pipes:
        os.close(ends[0])
        os.close(ends[1])


def test_a_stale_event_does_not_reach_a_file_that_got_the_number_in_the_same_turn(
    loop: EventLoop,
) -> None:
    ready = [os.pipe() for _ in range(2)]
    read_end, write_end = os.pipe2(os.O_NONBLOCK)  # with nothing to read
    strangers: list[int] = []

    def replace_the_other(index: int) -> Callable[[int], None]:
        def on_ready(events: int) -> None:
            for watch in watches:
                loop.unwatch(watch)
            number = ready[1 - index][1]
            os.dup2(read_end, number)  # closes the file whose event is still to come
            loop.watch(number, strangers.append, READ)

        return on_ready

    watches = [loop.watch(ready[index][1], replace_the_other(index), WRITE) for index in range(2)]
    loop.run_once()
    loop.run_once(0)
    assert strangers == []
    for fd in (read_end, write_end, *ready[0], *ready[1]):
        os.close(fd)


def test_an_fd_that_its_owner_closed_while_watched_keeps_quiet(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    copy = os.dup(pipe[1])
    watch = loop.watch(pipe[1], never, 0)
    os.close(pipe[1])
    loop.unwatch(watch)
    loop.run_once(0)
    os.close(copy)


def test_a_watch_whose_fd_was_closed_unasked_does_not_take_out_the_next_of_that_number(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    told: list[int] = []
    number, other_end = os.pipe2(os.O_CLOEXEC)
    stale = loop.watch(number, never, READ)
    os.dup2(pipe[0], number, inheritable=False)  # closes what was watched
    os.close(other_end)
    watch = loop.watch(number, told.append, READ)
    loop.unwatch(stale)
    os.write(pipe[1], b"x")
    run_until(loop, lambda: told)
    loop.unwatch(watch)
    os.close(number)


# --- fds that others put into the set -------------------------------------------------------------


def is_open(fd: int) -> bool:
    return os.path.lexists(f"{PROC}/self/fd/{fd}")


def test_what_others_put_into_the_set_is_told_once_it_is_adopted(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    told: list[int] = []
    before = watched_by_kernel(loop.epoll_fd)
    with by_others(loop.epoll_fd) as others:
        others.register(pipe[0], READ)
    watch = loop.adopt(pipe[0], told.append, READ)
    assert (watch.fd, watch.events, watch.active) == (pipe[0], READ, True)
    loop.run_once(0)
    assert told == []
    os.write(pipe[1], b"x")
    loop.run_once()
    assert told == [READ]
    loop.rewatch(watch, READ)
    assert watched_by_kernel(loop.epoll_fd) == {**before, pipe[0]: READ}
    loop.rewatch(watch, 0)
    assert watched_by_kernel(loop.epoll_fd) == {**before, pipe[0]: 0}
    loop.unwatch(watch)
    assert watched_by_kernel(loop.epoll_fd) == before


def test_what_is_forgotten_stays_with_the_set_and_its_owner(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    watch = loop.watch(pipe[0], never, READ)
    loop.forget(pipe[0])
    assert not watch.active
    assert is_open(pipe[0])
    assert pipe[0] in watched_by_kernel(loop.epoll_fd)
    loop.unwatch(watch)  # does nothing any more
    assert pipe[0] in watched_by_kernel(loop.epoll_fd)


def test_forgetting_what_is_not_there_does_nothing(loop: EventLoop, pipe: tuple[int, int]) -> None:
    before = watched_by_kernel(loop.epoll_fd)
    loop.watch(pipe[0], never, READ)
    for _ in range(2):
        loop.forget(pipe[0])
        loop.forget(pipe[1])
        loop.forget(-1)
    assert is_open(pipe[0])
    assert watched_by_kernel(loop.epoll_fd) == {**before, pipe[0]: READ}


def test_one_that_is_forgotten_by_an_earlier_one_of_its_turn_is_not_told(loop: EventLoop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    told: list[int] = []

    def tell(index: int) -> Callable[[int], None]:
        def on_ready(events: int) -> None:
            told.append(index)
            loop.forget(pipes[1 - index][1])

        return on_ready

    with by_others(loop.epoll_fd) as others:
        for index, ends in enumerate(pipes):
            loop.adopt(ends[1], tell(index), WRITE)
            others.register(ends[1], WRITE)
    loop.run_once()
    assert len(told) == 1
    for ends in pipes:
        loop.drop(ends[1])
        os.close(ends[0])


def test_a_loop_that_is_closed_lets_go_of_what_was_adopted(pipe: tuple[int, int]) -> None:
    loop = EventLoop()
    with by_others(loop.epoll_fd) as others:
        others.register(pipe[0], READ)
        watch = loop.adopt(pipe[0], never, READ)
        loop.close()
        assert not watch.active
        assert is_open(pipe[0])
        assert watched_by_kernel(others.fileno()) == {}


def test_adopting_asks_the_set_for_nothing(loop: EventLoop, pipe: tuple[int, int]) -> None:
    before = watched_by_kernel(loop.epoll_fd)
    watch = loop.adopt(pipe[0], never, READ)
    assert watched_by_kernel(loop.epoll_fd) == before
    loop.unwatch(watch)


def test_a_watch_whose_fd_was_closed_unasked_does_not_take_out_what_was_adopted_under_its_number(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    told: list[int] = []
    number, other_end = os.pipe2(os.O_CLOEXEC)
    stale = loop.watch(number, never, READ)
    os.dup2(pipe[0], number, inheritable=False)  # closes what was watched
    os.close(other_end)
    with by_others(loop.epoll_fd) as others:
        others.register(number, READ)
    watch = loop.adopt(number, told.append, READ)
    assert not stale.active
    loop.unwatch(stale)
    os.write(pipe[1], b"x")
    run_until(loop, lambda: told)
    loop.unwatch(watch)
    os.close(number)


def test_the_set_of_others_is_that_of_a_host_and_makes_no_timer(loop: EventLoop) -> None:
    before = os.listdir(f"{PROC}/self/fd")
    epoll_fd = loop.epoll_fd
    assert os.listdir(f"{PROC}/self/fd") == before
    assert loop.fileno() == epoll_fd == loop.epoll_fd


def test_an_event_of_a_stranger_is_told_to_nobody_and_comes_once(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    told: list[int] = []
    known, write_end = os.pipe2(os.O_CLOEXEC)
    before = watched_by_kernel(loop.epoll_fd)
    watch = loop.watch(known, told.append, READ)
    with by_others(loop.epoll_fd) as others:
        others.register(pipe[1], WRITE)
    os.write(write_end, b"x")
    loop.run_once()
    assert told == [READ]
    assert watched_by_kernel(loop.epoll_fd) == {**before, known: READ}
    loop.unwatch(watch)
    os.close(known)
    os.close(write_end)


def test_after_strangers_the_loop_still_waits(loop: EventLoop, pipe: tuple[int, int]) -> None:
    with by_others(loop.epoll_fd) as others:
        others.register(pipe[1], WRITE)
    loop.run_once()
    assert not is_readable(loop)


def test_what_is_dropped_is_closed_and_told_no_more_though_a_copy_is_open(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    before = watched_by_kernel(loop.epoll_fd)
    copy = os.dup(pipe[1])
    watch = loop.watch(pipe[1], never, WRITE)
    loop.drop(pipe[1])
    assert (watch.active, is_open(pipe[1])) == (False, False)
    assert watched_by_kernel(loop.epoll_fd) == before
    loop.run_once(0)
    os.close(copy)


def test_what_was_adopted_is_dropped_like_what_was_watched(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    before = watched_by_kernel(loop.epoll_fd)
    with by_others(loop.epoll_fd) as others:
        others.register(pipe[1], WRITE)
    watch = loop.adopt(pipe[1], never, WRITE)
    loop.drop(pipe[1])
    assert (watch.active, is_open(pipe[1])) == (False, False)
    assert watched_by_kernel(loop.epoll_fd) == before
    loop.run_once(0)


def test_what_nobody_watches_is_closed_by_a_drop(loop: EventLoop, pipe: tuple[int, int]) -> None:
    watch = loop.watch(pipe[0], never, READ)
    loop.unwatch(watch)
    loop.drop(pipe[0])
    assert not is_open(pipe[0])
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        loop.drop(pipe[0])


def test_the_watch_of_what_was_dropped_touches_nothing_that_gets_the_number(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    told: list[int] = []
    number = os.dup(pipe[1])
    stale = loop.watch(number, never, WRITE)
    loop.drop(number)
    os.dup2(pipe[1], number, inheritable=False)
    watch = loop.watch(number, told.append, WRITE)
    loop.rewatch(stale, 0)
    loop.unwatch(stale)
    loop.run_once()
    assert told == [WRITE]
    assert watch.active
    loop.drop(number)


def test_an_fd_dropped_by_an_earlier_one_of_its_turn_is_not_told(loop: EventLoop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    told: list[int] = []

    def tell(index: int) -> Callable[[int], None]:
        def on_ready(events: int) -> None:
            told.append(index)
            loop.drop(pipes[1 - index][1])

        return on_ready

    watches = [loop.watch(pipes[index][1], tell(index), WRITE) for index in range(2)]
    loop.run_once()
    (first,) = told
    loop.unwatch(watches[first])
    for ends in pipes:
        os.close(ends[0])
    os.close(pipes[first][1])


def test_a_callback_may_drop_its_own_fd(loop: EventLoop, pipe: tuple[int, int]) -> None:
    loop.watch(pipe[1], lambda events: loop.drop(pipe[1]), WRITE)
    loop.run_once()
    assert not is_open(pipe[1])
    loop.run_once(0)


@pytest.mark.parametrize("is_hosted", [False, True])
def test_a_loop_may_be_closed_twice_and_closes_its_own_fds_once(is_hosted: bool) -> None:
    before = set(os.listdir(f"{PROC}/self/fd"))
    loop = EventLoop()
    if is_hosted:
        loop.fileno()
    own = set(os.listdir(f"{PROC}/self/fd")) - before
    loop.close()
    others = [os.dup(0) for _ in own]  # with the numbers that have become free
    loop.close()
    for fd in others:
        os.close(fd)


def test_a_loop_that_is_forgotten_leaves_no_fd() -> None:
    gc.collect()  # what earlier tests forgot
    before = set(os.listdir(f"{PROC}/self/fd"))
    loop = EventLoop()
    loop.fileno()
    del loop
    gc.collect()
    assert set(os.listdir(f"{PROC}/self/fd")) == before


def test_closing_the_loop_lets_go_of_the_fds_of_others(pipe: tuple[int, int]) -> None:
    loop = EventLoop()
    before = len(os.listdir(f"{PROC}/self/fd"))
    watch = loop.watch(pipe[0], never, READ)
    loop.fileno()
    loop.close()
    assert not watch.active
    os.fstat(pipe[0])
    assert len(os.listdir(f"{PROC}/self/fd")) == before - 3  # epoll and the wake-up pipe


# --- waking ---------------------------------------------------------------------------------------


def test_a_thread_wakes_a_loop_that_waits_for_ever(loop: EventLoop) -> None:
    made: list[threading.Thread] = []

    def ask() -> None:
        loop.call_soon_threadsafe(lambda: made.append(threading.current_thread()))

    thread = threading.Thread(target=ask)
    thread.start()
    run_until(loop, lambda: made)
    thread.join()
    assert made == [threading.current_thread()]


def test_calls_of_many_threads_all_arrive_each_in_its_threads_order(loop: EventLoop) -> None:
    made: list[tuple[int, int]] = []

    def ask(thread: int) -> None:
        for number in range(500):
            loop.call_soon_threadsafe(made.append, (thread, number))

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    run_until(loop, lambda: len(made) == 2000)
    for thread in threads:
        thread.join()
    for index in range(4):
        assert [number for who, number in made if who == index] == list(range(500))


def test_wake_ends_one_wait(loop: EventLoop) -> None:
    loop.wake()
    loop.run_once()  # would wait for ever


def test_a_signal_handler_can_ask_for_a_call(loop: EventLoop) -> None:
    made: list[str] = []
    before = signal.signal(
        signal.SIGUSR1, lambda number, frame: loop.call_soon_threadsafe(made.append, "handled")
    )
    fd_before = signal.set_wakeup_fd(loop.signal_fd, warn_on_full_buffer=False)
    try:
        threading.Timer(0, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        run_until(loop, lambda: made)
    finally:
        signal.set_wakeup_fd(fd_before)
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.needs("threads")
def test_loops_in_several_threads_share_nothing() -> None:
    def ping_pong(mine: EventLoop, other: EventLoop, count: list[int]) -> Callable[[], None]:
        def on_ping() -> None:
            count.append(1)
            other.call_soon_threadsafe(pings[id(other)])

        return on_ping

    loops = [EventLoop(), EventLoop()]
    counts: list[list[int]] = [[], []]
    pings = {
        id(loops[index]): ping_pong(loops[index], loops[1 - index], counts[index])
        for index in range(2)
    }
    other = threading.Thread(target=run_until, args=(loops[1], lambda: len(counts[1]) >= 100))
    other.start()
    loops[0].call_soon(pings[id(loops[0])])
    run_until(loops[0], lambda: len(counts[0]) >= 100)
    other.join()
    for loop in loops:
        loop.close()


# --- hosted ---------------------------------------------------------------------------------------


def is_readable(loop: EventLoop, timeout_s: float = 0) -> bool:
    return bool(select.select([loop.fileno()], [], [], timeout_s)[0])


def test_the_loops_fd_is_readable_while_a_watched_fd_is_ready(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    told: list[int] = []
    loop.watch(pipe[0], told.append, READ)
    assert not is_readable(loop)
    os.write(pipe[1], b"x")
    assert is_readable(loop)
    loop.run_once(0)
    assert told == [READ]
    os.read(pipe[0], 1)
    assert not is_readable(loop)


def test_the_loops_fd_is_readable_while_a_call_is_waiting(loop: EventLoop) -> None:
    made: list[str] = []
    loop.call_soon(made.append, "before the fd was asked for")
    assert is_readable(loop)
    loop.run_once(0)
    assert not is_readable(loop)
    loop.call_soon(made.append, "after")
    assert is_readable(loop)
    loop.run_once(0)
    assert len(made) == 2
    assert not is_readable(loop)


@pytest.mark.parametrize(
    "asked_by",
    ["call", "timer", "fd", pytest.param("thread", marks=pytest.mark.needs("threads"))],
)
def test_a_call_asked_for_within_a_turn_keeps_the_loops_fd_readable(
    loop: EventLoop, pipe: tuple[int, int], asked_by: str
) -> None:
    made: list[str] = []

    def ask(*args: object) -> None:
        loop.call_soon(made.append, "asked for")

    def ask_in_thread() -> None:
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(made.append, "asked for"))
        thread.start()
        thread.join()

    def ask_once(events: int) -> None:
        loop.unwatch(watch)
        ask()

    loop.fileno()
    if asked_by == "call":
        loop.call_soon(ask)
    elif asked_by == "timer":
        loop.call_later(0, ask)
    elif asked_by == "thread":
        loop.call_soon(ask_in_thread)
    else:
        watch = loop.watch(pipe[1], ask_once, WRITE)
    while not made:
        assert is_readable(loop, DEADLINE_S)
        loop.run_once(0)
    while is_readable(loop):
        loop.run_once(0)  # ends: there is nothing left to do
    assert made == ["asked for"]


def test_the_loops_fd_becomes_readable_when_a_timer_is_due(loop: EventLoop) -> None:
    made: list[str] = []
    loop.call_later(0.02, made.append, "before the fd was asked for")
    assert is_readable(loop, DEADLINE_S)
    while not made:
        loop.run_once(0)
    assert not is_readable(loop)
    loop.call_later(0.01, made.append, "after")
    assert is_readable(loop, DEADLINE_S)
    loop.run_once(0)
    assert len(made) == 2


def test_the_loops_fd_follows_the_earliest_timer(loop: EventLoop) -> None:
    loop.fileno()
    loop.call_later(3600, pytest.fail)
    assert not is_readable(loop)
    near = loop.call_later(0, pytest.fail)
    assert is_readable(loop, DEADLINE_S)
    loop.timers.cancel(near)
    loop.on_timers_changed()
    assert not is_readable(loop)


def test_a_timer_that_asks_for_another_is_followed(loop: EventLoop) -> None:
    made: list[int] = []

    def tick() -> None:
        made.append(1)
        if len(made) < 5:
            loop.call_later(0.001, tick)

    loop.fileno()
    loop.call_later(0.001, tick)
    while len(made) < 5:
        assert is_readable(loop, DEADLINE_S)
        loop.run_once(0)
    assert not is_readable(loop)


def test_a_loop_can_host_another(pipe: tuple[int, int]) -> None:
    host, guest = EventLoop(), EventLoop()
    told: list[object] = []
    guest.watch(pipe[0], lambda events: told.append(os.read(pipe[0], 10)), READ)
    guest.call_later(0.01, told.append, "timer")
    host.watch(guest.fileno(), lambda events: guest.run_once(0), READ)
    os.write(pipe[1], b"x")
    run_until(host, lambda: len(told) == 2)
    assert told == [b"x", "timer"]
    host.close()
    guest.close()
