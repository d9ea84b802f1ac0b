"""The reactor (twisted.internet.base): Twisted's names over one `EventLoop`.

A facade: time is the loop's timers, threads are the standard library's executor, processes and
ports are the transports of their own files; here is only what ties them to a life cycle:

    not started --run--> running --stop--> shutting down --(triggers done)--> stopped, for good
                            '----crash----> not started

Rules:

- All but `callFromThread` (and `wakeUp`) belongs to the thread that runs the reactor. Several
  reactors may run in several threads; only one is installed.
- No SIGCHLD handler: children are pidfds. SIGINT and SIGTERM stop a reactor that runs in the main
  thread, unless told otherwise; handlers and wake-up fd are put back when `run` returns.
- Stopping closes the pipes of children that still run and tells so; it neither signals nor
  reaps them (as in Twisted).
- `seconds` is time.monotonic, which never jumps; Twisted's is the wall clock.
"""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

from procreactor.errors import report_callback_error
from procreactor.internet.delayed import DelayedCall, delayed_calls, name_of
from procreactor.internet.error import (
    ReactorAlreadyRunning,
    ReactorNotRestartable,
    ReactorNotRunning,
)
from procreactor.internet.process import Process, PTYProcess
from procreactor.internet.selectables import Selectables
from procreactor.internet.spawning import Keeper, spawn_process
from procreactor.internet.tcp import Port
from procreactor.internet.triggers import SystemEvents, TriggerID
from procreactor.loop.eventloop import EventLoop

__all__ = ["ReactorBase"]

_DEFAULT_THREADS = 10


class ReactorBase:
    """One reactor. Thread: that which runs it."""

    running = False
    """True from startup to the end of shutdown."""

    def __init__(self) -> None:
        self._loop = EventLoop()
        self._events = SystemEvents()
        self._selectables = Selectables(self._loop)
        self._disconnectable: dict[Any, None] = {}
        self._keeper = Keeper(self._loop, self._keep, self._let_go)
        self._threads: ThreadPoolExecutor | None = None
        self._retired_threads: list[ThreadPoolExecutor] = []
        self._thread_count = _DEFAULT_THREADS
        self._started = False
        self._stopped = True
        self._started_before = False
        self._prepare_startup()
        self.addSystemEventTrigger("during", "shutdown", self.crash)
        self.addSystemEventTrigger("during", "shutdown", self.disconnectAll)

    # -- life -----------------------------------------------------------------------------------

    def run(self, installSignalHandlers: bool = True) -> None:
        """Run until `stop` or `crash`.

        ReactorAlreadyRunning, or ReactorNotRestartable after a stop.
        """
        with self._signal_handlers(installSignalHandlers):
            self.startRunning()
            self.mainLoop()

    def startRunning(self, installSignalHandlers: bool = False) -> None:
        """Fire startup; for a host loop, which then calls `iterate` whenever `fileno` is readable.

        *installSignalHandlers* is accepted for Twisted's sake: handlers belong to `run`.
        """
        if self._started:
            raise ReactorAlreadyRunning
        if self._started_before:
            raise ReactorNotRestartable
        self._started = True
        self._stopped = False
        self.fireSystemEvent("startup")

    def mainLoop(self) -> None:
        """Run turns until the reactor is stopped or crashed."""
        while self._started:
            self._loop.run_once()

    def iterate(self, delay: float = 0) -> None:
        """Run one turn, waiting at most *delay* seconds for something to do."""
        self._loop.run_once(delay)

    def stop(self) -> None:
        """Fire shutdown in the next turn; `run` returns after it. ReactorNotRunning."""
        if self._stopped:
            raise ReactorNotRunning("Can't stop reactor that isn't running.")
        self._stopped = True
        self._started_before = True
        self._loop.call_soon(self.fireSystemEvent, "shutdown")

    def crash(self) -> None:
        """Make `run` return after this turn, with no shutdown; it may run again."""
        self._started = False
        self.running = False
        self._prepare_startup()
        self._loop.wake()

    def _prepare_startup(self) -> None:
        self.addSystemEventTrigger("during", "startup", self._note_running)

    def _note_running(self) -> None:
        self.running = True

    def disconnectAll(self) -> None:
        """Close all pipes, terminals, ports and connections; let go of all readers and writers."""
        for one in list(self._disconnectable):
            try:
                one.disconnectAll()
            except BaseException:
                report_callback_error(f"{type(one).__name__}.disconnectAll")
        self._selectables.disconnect_all()

    @contextmanager
    def _signal_handlers(self, wanted: bool) -> Iterator[None]:
        if not wanted or threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {}
        # As in Twisted, a handler that the program set for SIGINT before is left in place.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_signal)
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_signal)
        wakeup_before = signal.set_wakeup_fd(self._loop.signal_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.callFromThread(self._stop_unless_stopping)

    def _stop_unless_stopping(self) -> None:
        if not self._stopped:
            self.stop()

    # -- system events --------------------------------------------------------------------------

    def callWhenRunning(
        self, callable: Callable[..., object], *args: Any, **kwargs: Any
    ) -> TriggerID | None:
        """Call *callable* at once when the reactor runs, else after startup."""
        if self.running:
            callable(*args, **kwargs)
            return None
        return self.addSystemEventTrigger("after", "startup", callable, *args, **kwargs)

    def addSystemEventTrigger(
        self,
        phase: str,
        eventType: str,
        callable: Callable[..., object],
        *args: Any,
        **kwargs: Any,
    ) -> TriggerID:
        """Call *callable* in *phase* ("before", "during", "after") of *eventType*."""
        return self._events.add(phase, eventType, callable, args, kwargs)

    def removeSystemEventTrigger(self, triggerID: TriggerID) -> None:
        """Undo `addSystemEventTrigger`; ValueError when the trigger has run or is gone."""
        self._events.remove(triggerID)

    def fireSystemEvent(self, eventType: str) -> None:
        """Run the triggers of *eventType*."""
        self._events.fire(eventType)

    # -- time -----------------------------------------------------------------------------------

    def seconds(self) -> float:
        """Return the time of the clock that callLater uses, which never jumps."""
        return time.monotonic()

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any
    ) -> DelayedCall:
        """Call *callable* after *delay* seconds (>= 0), unless it is cancelled before."""
        if not _is_callable(callable):
            raise TypeError(f"callLater needs a callable, not {callable!r}")
        if not delay >= 0:
            raise ValueError(f"delay must be a number of seconds >= 0, not {delay!r}")
        return DelayedCall(
            self.seconds() + delay,
            callable,
            args,
            kw,
            self._loop.timers,
            self.seconds,
            self._loop.on_timers_changed,
        )

    def getDelayedCalls(self) -> Sequence[DelayedCall]:
        """Return the calls that are still to be made."""
        return delayed_calls(self._loop.timers)

    # -- threads --------------------------------------------------------------------------------

    def callFromThread(self, callable: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call *callable* in the reactor's thread, soon; from any thread or signal handler."""
        if not _is_callable(callable):
            raise TypeError(f"callFromThread needs a callable, not {callable!r}")
        self._loop.call_soon_threadsafe(functools.partial(callable, *args, **kw))

    def callInThread(self, callable: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call *callable* in a thread of the pool; what it raises is logged."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._thread_count, "procreactor-pool")
            self.addSystemEventTrigger("during", "shutdown", self._stop_threads)
        self._threads.submit(_call_logged, callable, args, kw)

    def suggestThreadPoolSize(self, size: int) -> None:
        """Run at most *size* threads for `callInThread` from now on."""
        if size < 1:
            raise ValueError(f"size must be >= 1, not {size!r}")
        self._thread_count = size
        if self._threads is not None:
            # An executor cannot be resized: the old one ends its work, new work goes to another.
            self._threads.shutdown(wait=False)
            self._retired_threads.append(self._threads)
            self._threads = ThreadPoolExecutor(size, "procreactor-pool")

    def _stop_threads(self) -> None:
        while self._retired_threads:
            self._retired_threads.pop().shutdown(wait=True)
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True)

    def wakeUp(self) -> None:
        """End the wait of the reactor's thread; from any thread."""
        self._loop.wake()

    # -- fds ------------------------------------------------------------------------------------

    def addReader(self, reader: Any) -> None:
        """Call ``reader.doRead`` whenever ``reader.fileno()`` is readable."""
        self._selectables.add_reader(reader)

    def addWriter(self, writer: Any) -> None:
        """Call ``writer.doWrite`` whenever ``writer.fileno()`` is writable."""
        self._selectables.add_writer(writer)

    def removeReader(self, reader: Any) -> None:
        """Undo `addReader`. Idempotent."""
        self._selectables.remove_reader(reader)

    def removeWriter(self, writer: Any) -> None:
        """Undo `addWriter`. Idempotent."""
        self._selectables.remove_writer(writer)

    def removeAll(self) -> list[Any]:
        """Undo all `addReader` and `addWriter`, and return whom they were called for."""
        return self._selectables.remove_all()

    def getReaders(self) -> list[Any]:
        """Return the readers added with `addReader`."""
        return self._selectables.readers()

    def getWriters(self) -> list[Any]:
        """Return the writers added with `addWriter`."""
        return self._selectables.writers()

    def fileno(self) -> int:
        """Return an fd that is readable while ``iterate(0)`` has something to do.

        So any other loop can host this one: it watches the fd and calls ``iterate(0)``.
        """
        return self._loop.fileno()

    # -- processes and ports --------------------------------------------------------------------

    def spawnProcess(
        self,
        processProtocol: Any,
        executable: Any,
        args: Any = (),
        env: Mapping[Any, Any] | None = {},  # Twisted's default, never written to
        path: Any = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: Any = 0,
        childFDs: Mapping[int, Any] | None = None,
        **extras: Any,
    ) -> Process | PTYProcess:
        """Start *executable* and return its transport; connectionMade has been called.

        - *executable*: str, bytes or path. A bare name is searched in the PATH of *env*, without
          one there in this process's. A relative one with a slash is resolved after *path*.
        - *args*: the whole argument vector (list or tuple), ``[executable]`` when empty.
        - *env*: the whole environment; ``{}`` is empty, None is this process's.
        - *path*: the directory to start in.
        - *uid*, *gid*: whom to run as; gid, then the user's groups, then uid. uid alone takes that
          user's gid.
        - *usePTY*: a pseudo terminal instead of pipes: true, or (master, slave, name).
        - *childFDs*: child fd -> "r" (a pipe that we read), "w" (one that we write) or an fd of
          ours. All other fds are closed in the child. Default: 0 "w", 1 "r", 2 "r".

        Keyword arguments beyond Twisted: *umask*; *rlimits* ({resource.RLIMIT_*: limit or (soft,
        hard)}); *processGroup* (0: its own; n: that one); *session* (true: a new one); *nice*
        (added); *parentDeathSignal* (sent when the spawning thread ends); *noNewPrivileges*;
        *cgroup* (path or fd of a cgroup v2 directory); *signalMask* (signals blocked in the child;
        default: those of this thread); *windowSize* ((rows, columns) of the terminal).

        Raises TypeError or ValueError before any system call, and SpawnError (an OSError, also
        FileNotFoundError, PermissionError ...) when the kernel refuses; then no callback is made,
        and no fd and no child is left. Blocks until the child has exec'ed.
        """
        return spawn_process(
            self._keeper,
            processProtocol,
            executable,
            args,
            env,
            path,
            uid,
            gid,
            usePTY,
            childFDs,
            **extras,
        )

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        """Listen on TCP *port* (0: a free one) of *interface* and return the listening port.

        Each connection gets a protocol from *factory*. CannotListenError.
        """
        listening = Port(self._loop, port, factory, backlog, interface, self._keep, self._let_go)
        listening.startListening()
        return listening

    def _keep(self, one: Any) -> None:
        self._disconnectable[one] = None

    def _let_go(self, one: Any) -> None:
        self._disconnectable.pop(one, None)


def _is_callable(call: object) -> bool:
    return callable(call)


def _call_logged(call: Callable[..., object], args: tuple[Any, ...], kw: dict[str, Any]) -> None:
    try:
        call(*args, **kw)
    except BaseException:
        report_callback_error(name_of(call))
