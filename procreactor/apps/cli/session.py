"""One run of ``procreactor run``: options in, exit status out; what ties the rooms together.

    jobs -> engine -> sinks -> output, results
              |
              +-> done: results, output, log, halt, exit status

When a job is over its result is stored first, then its output is written, and only then does the log
say so. A run that is killed in between does that job again.

Decisions:

- Jobs have /dev/null as standard input, as with xargs, wherever the items come from.
- A job that cannot be started fails with 127 or 126, as in a shell, and the others go on; why, is
  said on standard error.
- An input that cannot be read, and a full disk under --joblog or --results, are errors of the run:
  nothing more is started, what runs may end, and log lines that could not be written are printed on
  standard error, so that none is lost.
- A reader of our output who goes away ends the run, as SIGPIPE would.
- The first SIGINT, SIGTERM or SIGHUP stops what runs, step by step as --termseq says; the next one
  kills it. Then we die of that signal, so that who started us sees what it was.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from procreactor.apps.cli import exits
from procreactor.apps.cli.admission import AdmissionPolicy, read_load, read_memory
from procreactor.apps.cli.inputs import InputError
from procreactor.apps.cli.jobs import Job, JobSource, Sink
from procreactor.apps.cli.joblog import LOCAL_HOST, JobLog, JobLogError, read_log
from procreactor.apps.cli.options import Options
from procreactor.apps.cli.output import OutputClosed, OutputWriter
from procreactor.apps.cli.progress import ProgressState
from procreactor.apps.cli.results import JobRecord, ResultSink, open_results
from procreactor.apps.cli.stats import RunningMedian, timeout_s
from procreactor.apps.cli.views import ViewKind, open_view
from procreactor.apps.commands import Command
from procreactor.apps.engine import Done, Engine, Policy, Task
from procreactor.apps.halt import NEVER, Decision, HaltPolicy
from procreactor.apps.planning import Planner
from procreactor.model import ExitStatus
from procreactor.streams.collect import Collector
from procreactor.transport.trees import Forest

__all__ = ["Session"]

DRAIN_S = 1.0
"""How long after its exit a job's output may be held open by what it has left behind."""

_DRAW_S = 0.1
_MEMORY_CHECK_S = 1.0
_FDS_OF_A_JOB = 5
_FDS_OF_OURS = 64
_MOST_JOBS = 4096

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """One run. `run` it once, in the main thread, whose signals it handles meanwhile."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._cpus = len(os.sched_getaffinity(0))
        self._failed = self._done = 0
        self._status: int | None = None
        """The exit status, once something has decided it before the end."""

        self._error: Exception | None = None
        self._signal = 0
        self._halt = HaltPolicy(options.halt)
        self._halted_by: int | None = None
        self._median = RunningMedian()
        self._last_start_s: float | None = None
        self._unlogged: deque[tuple[Any, ...]] = deque()
        self._engine: Engine[Any]

    def run(self) -> int:
        """Run all jobs, and return the exit status; OSError, InputError and JobLogError before."""
        options = self._options
        append = options.joblog_is_added_to or bool(options.resume)
        self._results: ResultSink | None = None
        self._log: JobLog | None = None
        logged = None
        if options.joblog is not None:
            path = os.fsdecode(options.joblog)
            logged = read_log(path) if options.resume else None
            self._log = JobLog(path, append=append)
        if options.results is not None:
            self._results = open_results(
                os.fsdecode(options.results),
                append=bool(options.resume),
                limit_bytes=options.max_output_bytes,
            )
        self._source = JobSource(options, logged, self._results, self._wake_when_readable)
        self._progress = ProgressState(time.monotonic(), self._total())
        self._view = open_view(self._view_kind(), self._progress)
        self._writer = None
        if options.output != "none":
            self._writer = OutputWriter(
                keep_order=options.keep_order,
                line_buffer=options.output == "lines",
                early=options.retries == 1,
                before_write=self._view.clear,
            )
        try:
            self._run_engine()
            return self._finish()
        finally:
            self._close()

    # -- the run --------------------------------------------------------------------------------

    def _run_engine(self) -> None:
        planner = Planner(
            capture=self._writer is not None or self._results is not None,
            nice=self._options.nice or 0,
        )
        forest = Forest()
        try:
            self._engine = Engine(
                self._take,
                planner,
                self._policy(),
                self._sinks_of,
                forest=forest,
                on_start=self._on_start,
                on_retry=self._on_retry,
                on_turn=self._on_turn,
            )
            before = {number: signal.signal(number, self._on_signal) for number in _STOPPING}
            wakeup_fd = signal.set_wakeup_fd(self._engine.loop.signal_fd, warn_on_full_buffer=False)
            try:
                self._start_clocks()
                self._epoch_s = time.time() - time.monotonic()
                for done in self._engine.run():
                    self._on_done(done)
                self._on_turn()
            except OutputClosed as closed:
                self._error = closed
                self._engine.kill()
                deque(self._engine.run_silently(), 0)
            finally:
                signal.set_wakeup_fd(wakeup_fd)
                for number, handler in before.items():
                    signal.signal(number, handler)
                self._engine.close()
        finally:
            forest.close()
            planner.close()
