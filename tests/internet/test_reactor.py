"""The reactor's life, its threads, fds and signals, and how it hears of children.

Each reactor is one of the test's own; the installed one, and signals, have processes of their own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from leftovers import open_fds
from support import DEADLINE_S, PROC, PYTHON, Recorder, make_reactor, run_until, spawn_and_finish

from procreactor.internet.defer import Deferred
from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ReactorAlreadyRunning,
    ReactorNotRestartable,
    ReactorNotRunning,
)


@pytest.fixture
def reactor() -> Iterator[EPollReactor]:
    with make_reactor() as made:
        yield made


def run_and_stop_when(reactor: EPollReactor, *calls: Callable[[], object]) -> None:
    """Run *reactor*, make the calls in its first turns, and stop it after them."""
    for call in (*calls, reactor.stop):
        reactor.callLater(0, call)
    reactor.run(installSignalHandlers=False)


# --- run, stop, crash -----------------------------------------------------------------------------


def test_it_runs_until_it_is_stopped(reactor: EPollReactor) -> None:
    seen: list[bool] = [reactor.running]
    run_and_stop_when(reactor, lambda: seen.append(reactor.running))
    assert [*seen, reactor.running] == [False, True, False]


def test_a_stop_fires_shutdown_in_a_later_turn(reactor: EPollReactor) -> None:
    order: list[str] = []
    reactor.addSystemEventTrigger("during", "shutdown", order.append, "shutdown")

    def stop() -> None:
        reactor.stop()
        order.append("stop returned")

    reactor.callLater(0, stop)
    reactor.run(installSignalHandlers=False)
    assert order == ["stop returned", "shutdown"]


def test_a_reactor_that_does_not_run_can_not_be_stopped(reactor: EPollReactor) -> None:
    with pytest.raises(ReactorNotRunning):
        reactor.stop()


def test_it_can_not_be_stopped_twice(reactor: EPollReactor) -> None:
    refused: list[str] = []

    def stop_twice() -> None:
        reactor.stop()
        with pytest.raises(ReactorNotRunning):
            reactor.stop()
        refused.append("second")

    reactor.callLater(0, stop_twice)
    reactor.run(installSignalHandlers=False)
    with pytest.raises(ReactorNotRunning):
        reactor.stop()
    assert refused == ["second"]


def test_it_can_not_run_within_its_run(reactor: EPollReactor) -> None:
    refused: list[str] = []

    def run_again() -> None:
        with pytest.raises(ReactorAlreadyRunning):
            reactor.run(installSignalHandlers=False)
        refused.append("run")

    run_and_stop_when(reactor, run_again)
    assert refused == ["run"]


def test_after_a_stop_it_can_not_run_again(reactor: EPollReactor) -> None:
    run_and_stop_when(reactor)
    with pytest.raises(ReactorNotRestartable):
        reactor.run(installSignalHandlers=False)


def test_after_a_crash_it_runs_again_and_no_shutdown_was_fired(reactor: EPollReactor) -> None:
    order: list[object] = []
    reactor.addSystemEventTrigger("before", "shutdown", order.append, "shutdown")
    for number in range(3):
        reactor.callLater(0, order.append, number)
        reactor.callLater(0, reactor.crash)
        reactor.run(installSignalHandlers=False)
        assert not reactor.running
    assert order == [0, 1, 2]
    run_and_stop_when(reactor, lambda: order.append(reactor.running))
    assert order == [0, 1, 2, True, "shutdown"]


def test_a_crash_from_another_thread_than_its_own_ends_an_idle_run(reactor: EPollReactor) -> None:
    timer = threading.Timer(0, reactor.callFromThread, (reactor.crash,))
    timer.start()
    reactor.run(installSignalHandlers=False)
    timer.join()


def test_a_turn_can_be_made_by_hand(reactor: EPollReactor) -> None:
    made: list[str] = []
    reactor.iterate()
    reactor.callLater(0, made.append, "timer")
    reactor.callFromThread(made.append, "call")
    reactor.iterate()
    assert sorted(made) == ["call", "timer"]
    reactor.iterate(0.001)


def test_an_exception_in_a_call_is_logged_and_the_reactor_lives(
    reactor: EPollReactor, caplog: pytest.LogCaptureFixture
) -> None:
    def explode() -> None:
        raise ValueError("boom")

    run_and_stop_when(reactor, explode)
    (record,) = caplog.records
    assert "explode" in record.getMessage()


# --- system events --------------------------------------------------------------------------------


def test_call_when_running_waits_for_the_start(reactor: EPollReactor) -> None:
    made: list[object] = []
    assert reactor.callWhenRunning(made.append, "first") is not None
    reactor.callWhenRunning(lambda *, key: made.append(key), key="second")
    assert made == []
    run_and_stop_when(reactor, lambda: made.append("running"))
    assert made == ["first", "second", "running"]


def test_call_when_running_does_not_wait_once_it_runs(reactor: EPollReactor) -> None:
    made: list[object] = []

    def when_running() -> None:
        made.append(reactor.callWhenRunning(made.append, "at once"))

    run_and_stop_when(reactor, when_running)
    assert made == ["at once", None]


def test_call_when_running_can_be_taken_back(reactor: EPollReactor) -> None:
    trigger = reactor.callWhenRunning(pytest.fail, "taken back")
    assert trigger is not None
    reactor.removeSystemEventTrigger(trigger)
    run_and_stop_when(reactor)


def test_the_phases_of_an_event_come_in_their_order(reactor: EPollReactor) -> None:
    order: list[str] = []
    for phase in ("after", "during", "before"):
        for event in ("shutdown", "startup"):
            reactor.addSystemEventTrigger(phase, event, order.append, f"{phase} {event}")
    run_and_stop_when(reactor)
    assert order == [
        f"{phase} {event}"
        for event in ("startup", "shutdown")
        for phase in ("before", "during", "after")
    ]


def test_a_deferred_of_before_holds_the_shutdown_up(reactor: EPollReactor) -> None:
    order: list[object] = []
    waited_for: Deferred[None] = Deferred()
    other: Deferred[None] = Deferred()
    reactor.addSystemEventTrigger("before", "shutdown", lambda: waited_for)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: other)
    reactor.addSystemEventTrigger("during", "shutdown", order.append, "during")

    def finish() -> None:
        order.append(reactor.running)
        other.errback(RuntimeError("a failure is an end too"))
        other.addErrback(lambda failure: None)
        order.append("one of two")
        waited_for.callback(None)

    reactor.addSystemEventTrigger("before", "shutdown", reactor.callLater, 0, finish)
    run_and_stop_when(reactor)
    assert order == [True, "one of two", "during"]


def test_children_can_be_waited_for_before_the_shutdown(reactor: EPollReactor) -> None:
    child = Recorder()
    transport: Any = reactor.spawnProcess(child, "/bin/cat", ["cat"])
    gone: Deferred[None] = Deferred()
    child.processEnded = lambda reason: gone.callback(None)  # type: ignore[method-assign]

    def end_child() -> Deferred[None]:
        transport.closeStdin()
        return gone

    reactor.addSystemEventTrigger("before", "shutdown", end_child)
    run_and_stop_when(reactor)
    assert gone.called
    assert "processExited" in child.names


def test_a_trigger_that_raises_is_logged_and_the_others_run(
    reactor: EPollReactor, caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []
    for phase in ("before", "during", "after"):
        reactor.addSystemEventTrigger(phase, "shutdown", lambda: order[99])
        reactor.addSystemEventTrigger(phase, "shutdown", order.append, phase)
    run_and_stop_when(reactor)
    assert order == ["before", "during", "after"]
    assert len(caplog.records) == 3


def test_events_may_have_any_name_and_use_their_triggers_up(reactor: EPollReactor) -> None:
    made: list[str] = []
    reactor.addSystemEventTrigger("during", "sunrise", made.append, "crow")
    reactor.fireSystemEvent("sunset")
    reactor.fireSystemEvent("sunrise")
    reactor.fireSystemEvent("sunrise")
    assert made == ["crow"]


def test_what_is_no_phase_or_no_callable_or_no_trigger_is_refused(reactor: EPollReactor) -> None:
    with pytest.raises(KeyError, match="before, during, after"):
        reactor.addSystemEventTrigger("between", "shutdown", print)
    with pytest.raises(TypeError, match="callable"):
        reactor.addSystemEventTrigger("before", "shutdown", "print")  # type: ignore[arg-type]
    trigger = reactor.addSystemEventTrigger("before", "sunrise", print)
    reactor.removeSystemEventTrigger(trigger)
    with pytest.raises(ValueError, match="no such trigger"):
        reactor.removeSystemEventTrigger(trigger)


def test_a_stop_closes_the_pipes_of_children_and_leaves_them_alone(reactor: EPollReactor) -> None:
    child = Recorder()
    transport: Any = reactor.spawnProcess(
        child, "/bin/sh", ["sh", "-c", "trap '' PIPE HUP; echo ready; exec sleep 600"], None
    )
    run_until(reactor, lambda: child.out)
    pid = transport.pid
    run_and_stop_when(reactor)
    assert sorted(child.calls[2:]) == [("childConnectionLost", fd) for fd in range(3)]
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.needs("threads")
def test_call_from_thread_calls_in_the_reactors_thread_in_order(reactor: EPollReactor) -> None:
    made: list[tuple[int, threading.Thread]] = []

    def ask() -> None:
        for number in range(100):
            reactor.callFromThread(lambda n=number: made.append((n, threading.current_thread())))
        reactor.callFromThread(reactor.stop)

    reactor.callWhenRunning(reactor.callInThread, ask)
    reactor.run(installSignalHandlers=False)
    assert made == [(number, threading.current_thread()) for number in range(100)]


def test_call_from_thread_passes_arguments_and_refuses_what_is_not_callable(
    reactor: EPollReactor,
) -> None:
    made: list[object] = []
    reactor.callFromThread(lambda *args, **kw: made.append((args, kw)), 1, key=2)
    reactor.iterate()
    assert made == [((1,), {"key": 2})]
    with pytest.raises(TypeError, match="callable"):
        reactor.callFromThread("print")  # type: ignore[arg-type]


def test_call_in_thread_runs_beside_the_reactor_which_waits_for_it_at_the_end(
    reactor: EPollReactor,
) -> None:
    made: list[object] = []
    let_go = threading.Event()

    def work(text: str, *, key: str) -> None:
        let_go.wait(DEADLINE_S)
        made.append((text, key, threading.current_thread() is not threading.main_thread()))

    reactor.callInThread(work, "a", key="b")
    run_and_stop_when(reactor, let_go.set)
    assert made == [("a", "b", True)]


def test_what_raises_in_a_thread_is_logged(
    reactor: EPollReactor, caplog: pytest.LogCaptureFixture
) -> None:
    def explode() -> None:
        raise ValueError("boom")

    reactor.callInThread(explode)
    run_and_stop_when(reactor)
    (record,) = caplog.records
    assert "explode" in record.getMessage()


@pytest.mark.parametrize("size", [1, 3])
def test_no_more_threads_run_than_were_suggested(reactor: EPollReactor, size: int) -> None:
    running = threading.Semaphore(0)
    let_go = threading.Event()
    threads: set[threading.Thread] = set()

    def work() -> None:
        threads.add(threading.current_thread())
        running.release()
        let_go.wait(DEADLINE_S)

    reactor.suggestThreadPoolSize(size)
    for _ in range(10):
        reactor.callInThread(work)
    for _ in range(size):
        assert running.acquire(timeout=DEADLINE_S)
    assert not running.acquire(blocking=False)
    let_go.set()
    run_and_stop_when(reactor)
    assert len(threads) <= size


def test_the_size_may_be_changed_while_threads_work_and_all_work_is_done_at_the_end(
    reactor: EPollReactor,
) -> None:
    made: list[int] = []
    let_go = threading.Event()

    def work(number: int) -> None:
        let_go.wait(DEADLINE_S)
        made.append(number)

    for number in range(9):
        reactor.suggestThreadPoolSize(1 + number % 3)
        reactor.callInThread(work, number)
    run_and_stop_when(reactor, let_go.set)
    assert sorted(made) == list(range(9))


def test_a_pool_of_no_threads_is_refused(reactor: EPollReactor) -> None:
    with pytest.raises(ValueError, match="size must be >= 1"):
        reactor.suggestThreadPoolSize(0)


def test_two_reactors_run_in_two_threads_at_once() -> None:
    both = threading.Barrier(2)
    outputs: dict[int, bytes] = {}

    def run(index: int) -> None:
        with make_reactor() as reactor:
            child = Recorder()
            transport: Any = None

            def start() -> None:
                nonlocal transport
                both.wait(DEADLINE_S)  # both run, and neither has a child yet
                transport = reactor.spawnProcess(child, "/bin/cat", ["cat"])
                transport.write(b"%d" % index)
                reactor.callLater(0, transport.closeStdin)

            child.processEnded = lambda reason: reactor.stop()  # type: ignore[method-assign]
            reactor.callWhenRunning(start)
            reactor.run()
            outputs[index] = child.out

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {0: b"0", 1: b"1"}


# --- fds ------------------------------------------------------------------------------------------


class End:
    """One end of a socket, as addReader and addWriter take it; ends itself when told "end"."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end
        self.read = b""
        self.writable = 0
        self.lost: list[Any] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> object:
        self.read += self.socket.recv(1000)
        if self.read == b"raise":
            raise ValueError("boom")
        return ConnectionDone() if self.read == b"end" else None

    def doWrite(self) -> None:
        self.writable += 1

    def connectionLost(self, reason: Any) -> None:
        self.lost.append(reason.value)

    def logPrefix(self) -> str:
        return "end"


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    pair = socket.socketpair()
    yield End(pair[0]), End(pair[1])
    for end in pair:
        end.close()


def test_a_reader_is_told_and_listed_until_it_is_removed(
    reactor: EPollReactor, ends: tuple[End, End]
) -> None:
    ours, theirs = ends
    reactor.addReader(ours)
    reactor.addReader(ours)
    assert reactor.getReaders() == [ours]
    assert reactor.getWriters() == []
    theirs.socket.send(b"one ")
    reactor.iterate(DEADLINE_S)
    reactor.removeReader(ours)
    reactor.removeReader(ours)
    theirs.socket.send(b"two")
    reactor.iterate()
    assert ours.read == b"one "
    assert reactor.getReaders() == []


def test_a_writer_is_told_and_listed_until_it_is_removed(
    reactor: EPollReactor, ends: tuple[End, End]
) -> None:
    ours, _ = ends
    reactor.addWriter(ours)
    assert reactor.getWriters() == [ours]
    reactor.iterate(DEADLINE_S)
    reactor.removeWriter(ours)
    reactor.iterate()
    assert ours.writable == 1


def test_one_object_may_read_and_write(reactor: EPollReactor, ends: tuple[End, End]) -> None:
    ours, theirs = ends
    reactor.addReader(ours)
    reactor.addWriter(ours)
    theirs.socket.send(b"x")
    reactor.iterate(DEADLINE_S)
    assert (ours.read, ours.writable) == (b"x", 1)
    reactor.removeReader(ours)
    theirs.socket.send(b"y")
    reactor.iterate(DEADLINE_S)
    assert (ours.read, ours.writable) == (b"x", 2)
    assert reactor.removeAll() == [ours]


@pytest.mark.parametrize(("word", "reason"), [(b"end", ConnectionDone), (b"raise", ValueError)])
def test_what_ends_itself_or_raises_is_let_go_and_told(
    reactor: EPollReactor, ends: tuple[End, End], word: bytes, reason: type
) -> None:
    ours, theirs = ends
    reactor.addReader(ours)
    theirs.socket.send(word)
    reactor.iterate(DEADLINE_S)
    assert reactor.getReaders() == []
    assert [type(value) for value in ours.lost] == [reason]


def test_what_was_sent_before_a_hang_up_is_read(
    reactor: EPollReactor, ends: tuple[End, End]
) -> None:
    ours, theirs = ends
    reactor.addReader(ours)
    theirs.socket.send(b"last words")
    theirs.socket.close()
    reactor.iterate(DEADLINE_S)
    assert ours.read == b"last words"


def test_all_can_be_removed_at_once(reactor: EPollReactor, ends: tuple[End, End]) -> None:
    reactor.addReader(ends[0])
    reactor.addWriter(ends[1])
    assert set(reactor.removeAll()) == set(ends)
    assert reactor.getReaders() == reactor.getWriters() == []
    reactor.iterate()
    assert ends[1].writable == 0


def test_a_stop_lets_go_of_all_and_tells_them(reactor: EPollReactor, ends: tuple[End, End]) -> None:
    reactor.addReader(ends[0])
    reactor.addWriter(ends[1])
    run_and_stop_when(reactor)
    for end in ends:
        assert [type(value) for value in end.lost] == [ConnectionLost]


# --- hosted by another loop -----------------------------------------------------------------------


def test_asyncio_can_host_it() -> None:
    async def main() -> None:
        with make_reactor() as reactor:
            loop = asyncio.get_running_loop()
            loop.add_reader(reactor.fileno(), reactor.iterate)
            reactor.startRunning()
            ended = asyncio.Event()
            ticks: list[str] = []
            child = Recorder()
            child.processEnded = lambda reason: ended.set()  # type: ignore[method-assign]
            transport: Any = reactor.spawnProcess(child, "/bin/cat", ["cat"])
            reactor.callLater(0.01, ticks.append, "timer")
            reactor.callLater(0.02, transport.write, b"hosted")
            reactor.callLater(0.03, transport.closeStdin)
            async with asyncio.timeout(DEADLINE_S):
                await ended.wait()
            assert child.out == b"hosted"
            assert ticks == ["timer"]
            reactor.callFromThread(ended.clear)
            async with asyncio.timeout(DEADLINE_S):
                while ended.is_set():
                    await asyncio.sleep(0)
            loop.remove_reader(reactor.fileno())

    asyncio.run(main())


def test_the_standard_librarys_selectors_can_host_it(reactor: EPollReactor) -> None:
    child = Recorder()
    reactor.spawnProcess(child, "/bin/echo", ["echo", "hosted"])
    with selectors.DefaultSelector() as selector:
        selector.register(reactor.fileno(), selectors.EVENT_READ)
        while not child.ended:
            assert selector.select(DEADLINE_S)
            reactor.iterate()
        reactor.iterate()
        assert not selector.select(0)  # nothing left to do, and not readable any more
    assert child.out == b"hosted\n"


# --- children -------------------------------------------------------------------------------------


def test_an_exit_wakes_an_idle_reactor_and_nothing_else_does(reactor: EPollReactor) -> None:
    child = Recorder()
    reactor.spawnProcess(child, "/bin/sleep", ["sleep", "0.5"], childFDs={})
    turns = 0
    while not child.ended:
        reactor.iterate(DEADLINE_S)
        turns += 1
    assert turns <= 2
    assert reactor.getDelayedCalls() == []


def switches_while_idle() -> int:
    """How often this thread went to sleep while a child, and nothing else, was waited for."""

    def switches() -> int:
        status = Path(f"{PROC}/thread-self/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("voluntary_ctxt")]
        return int(line.split()[1])

    with make_reactor() as reactor:
        child = Recorder()
        child.processEnded = lambda reason: reactor.stop()  # type: ignore[method-assign]
        reactor.spawnProcess(child, "/bin/sleep", ["sleep", "2"])
        before = switches()
        reactor.run()
        return switches() - before


def test_waiting_for_a_child_is_not_polling() -> None:
    assert alone(switches_while_idle) <= 10


def test_no_handler_for_children_is_installed_and_the_signal_is_not_blocked(
    reactor: EPollReactor,
) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(signal.getsignal(signal.SIGCHLD))
        seen.append(signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, []))

    child = Recorder()
    child.processEnded = lambda reason: reactor.stop()  # type: ignore[method-assign]
    reactor.callWhenRunning(look)
    reactor.callWhenRunning(reactor.spawnProcess, child, "/bin/true", ["true"])
    reactor.run()
    assert seen == [signal.SIG_DFL, False]


def test_children_are_noticed_without_signal_handlers(reactor: EPollReactor) -> None:
    child = Recorder()
    child.processEnded = lambda reason: reactor.stop()  # type: ignore[method-assign]
    script = "exec 0<&- 1>&- 2>&-; sleep 0.2; exit 3"
    reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", script], None)
    reactor.run(installSignalHandlers=False)
    assert child.names[-1] == "processExited"


def test_a_child_started_before_the_run_is_told_of_in_the_run(reactor: EPollReactor) -> None:
    child = Recorder()
    reactor.spawnProcess(child, "/bin/echo", ["echo", "early"])
    assert child.names == ["connectionMade"]
    ended = Recorder.processEnded

    def stop_too(reason: Any) -> None:
        ended(child, reason)
        reactor.stop()

    child.processEnded = stop_too  # type: ignore[method-assign]
    reactor.run(installSignalHandlers=False)
    assert child.out == b"early\n"
    assert child.names[-1] == "processEnded"


# --- signals and the installed reactor ------------------------------------------------------------


def run_until_signal(number: int) -> list[object]:
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    wakeup_before = signal.set_wakeup_fd(-1)
    order: list[object] = []
    with make_reactor() as reactor:
        reactor.addSystemEventTrigger("during", "shutdown", order.append, "shutdown")
        # From outside, so that it hits a reactor that waits.
        script = f"sleep 0.2; kill -{number} {os.getpid()}"
        with subprocess.Popen(["/bin/sh", "-c", script]):
            reactor.run()
            order.append(reactor.running)
    order.append(signal.set_wakeup_fd(-1) == wakeup_before)
    order.append({name: signal.getsignal(name) for name in before} == before)
    return order


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_an_idle_reactor_and_the_handlers_are_put_back(number: int) -> None:
    assert alone(run_until_signal, int(number)) == ["shutdown", False, True, True]


def run_until_own_handler() -> list[object]:
    order: list[object] = []
    signal.signal(signal.SIGINT, lambda number, frame: order.append("own handler"))
    with make_reactor() as reactor:
        reactor.callLater(0, signal.raise_signal, signal.SIGINT)
        reactor.callLater(0, signal.raise_signal, signal.SIGTERM)
        reactor.run()
    return order


def test_a_handler_that_the_program_had_is_left_in_place() -> None:
    assert alone(run_until_own_handler) == ["own handler"]


def run_without_handlers() -> list[object]:
    order: list[object] = []
    with make_reactor() as reactor:
        reactor.callLater(0, signal.raise_signal, signal.SIGINT)
        try:
            reactor.run(installSignalHandlers=False)
        except KeyboardInterrupt:
            order.append("interrupted")
    return order


def test_without_its_handlers_an_interrupt_leaves_the_run() -> None:
    assert alone(run_without_handlers) == ["interrupted"]


def test_signals_of_one_kind_more_than_once_are_one_stop() -> None:
    assert alone(run_under_many_signals) == "stopped"


def run_under_many_signals() -> str:
    with make_reactor() as reactor:
        for _ in range(3):
            reactor.callLater(0, signal.raise_signal, signal.SIGTERM)
            reactor.callLater(0, signal.raise_signal, signal.SIGINT)
        reactor.run()
    return "stopped"


INSTALLED = """
import sys
from procreactor.internet import reactor
import procreactor.internet.reactor as module
from procreactor.internet import epollreactor
from procreactor.internet.error import ReactorAlreadyInstalledError
assert module is reactor is sys.modules["procreactor.internet.reactor"]
assert isinstance(reactor, epollreactor.EPollReactor)
try:
    epollreactor.install()
except ReactorAlreadyInstalledError:
    pass
else:
    raise AssertionError
reactor.callLater(0, reactor.stop)
reactor.run()
"""

INSTALLED_BEFORE = """
from procreactor.internet import epollreactor
from procreactor.internet.main import installReactor
class Mine(epollreactor.EPollReactor):
    pass
mine = Mine()
installReactor(mine)
from procreactor.internet import reactor
assert reactor is mine
"""

ONLY_A_NAME = """
import sys
import procreactor.internet, procreactor.internet.protocol, procreactor.internet.error
assert "procreactor.internet.reactor" not in sys.modules
try:
    procreactor.internet.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""


@pytest.mark.parametrize("program", [INSTALLED, INSTALLED_BEFORE, ONLY_A_NAME])
def test_the_reactor_is_installed_once_and_not_before_it_is_asked_for(program: str) -> None:
    subprocess.run([PYTHON, "-W", "error", "-c", program], check=True, timeout=DEADLINE_S)


def test_what_is_no_delay_or_no_callable_is_refused(reactor: EPollReactor) -> None:
    with pytest.raises(ValueError, match="delay must be"):
        reactor.callLater(-1, print)
    with pytest.raises(ValueError, match="delay must be"):
        reactor.callLater(float("nan"), print)
    with pytest.raises(TypeError, match="callable"):
        reactor.callLater(0, "print")  # type: ignore[arg-type]


def test_a_reactor_that_was_never_run_can_make_children(reactor: EPollReactor) -> None:
    assert spawn_and_finish(reactor, "/bin/echo", ["echo", "hello"]).out == b"hello\n"


ASKED_FOR_TWICE_AT_ONCE = """
import threading
from procreactor.internet import epollreactor

both = threading.Barrier(2)
errors = []

class Slow(epollreactor.EPollReactor):
    def __init__(self):
        try:
            both.wait(0.5)  # for the other thread, which must not come
        except threading.BrokenBarrierError:
            pass
        super().__init__()

def ask():
    try:
        from procreactor.internet import reactor
        assert isinstance(reactor, Slow)
    except BaseException as error:
        errors.append(error)

epollreactor.EPollReactor = Slow
threads = [threading.Thread(target=ask) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
"""


@pytest.mark.needs("threads")
def test_two_threads_may_ask_for_the_reactor_at_once() -> None:
    program = ASKED_FOR_TWICE_AT_ONCE
    subprocess.run([PYTHON, "-W", "error", "-c", program], check=True, timeout=DEADLINE_S)


def test_reactors_that_are_forgotten_leave_no_fd() -> None:
    outs: list[bytes] = []

    def live() -> None:
        reactor = EPollReactor()
        reactor.fileno()
        outs.append(spawn_and_finish(reactor, "/bin/echo", ["echo", "hello"]).out)
        run_and_stop_when(reactor)

    gc.collect()  # what earlier tests forgot
    before = open_fds()
    threads = [threading.Thread(target=live) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert open_fds() == before
    assert outs == [b"hello\n"] * 4
