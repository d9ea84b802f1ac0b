"""One run of ``procreactor run``: options in, exit status out; what ties the rooms together.

    jobs -> engine -> sinks -> output, results
              |
              +-> done: results, output, log, halt, exit status

When a job is over its result is stored first, then its output is written, and only then does the
log say so. A run that is killed in between does that job again.

Decisions:

- With --results nothing is printed, as with GNU parallel: what jobs wrote is there.
- A job that we stopped, because of --halt or a signal, is in no log: --resume runs it again.
- Jobs have /dev/null as standard input, as with xargs, wherever the items come from.
- A job that cannot be started fails with 127 or 126, as in a shell, and the others go on; why, is
  said on standard error.
- An input that cannot be read, and a full disk under --joblog or --results, are errors of the run:
  nothing more is started, what runs may end, and log lines that could not be written are printed on
  standard error, so that none is lost.
- A reader of our output who goes away ends the run, as SIGPIPE would.
- While a slow reader is waited for nothing else happens. A signal ends that wait: what runs is
  stopped first, and then the reader is waited for again, until a second one. What he has not taken
  by then is lost, and its jobs are in no log.
- Where SIGCHLD is ignored when we come, it is not any more: the kernel would keep no status for us.
- The first SIGINT, SIGTERM or SIGHUP stops what runs, step by step as --termseq says; the next one
  kills it. Then we die of that signal, so that who started us sees what it was. One that is ignored
  when we come (nohup, a shell's job in the background) stays ignored.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable

from procreactor.apps.cli import exits
from procreactor.apps.cli.inputs import InputError
from procreactor.apps.cli.jobs import Job, JobSource
from procreactor.apps.cli.options import Options
from procreactor.apps.cli.output import OutputClosed, OutputWriter, StreamSink
from procreactor.apps.cli.progress import ProgressState
from procreactor.apps.cli.records import (
    LOCAL_HOST,
    JobLogError,
    JobRecord,
    ResultSink,
    Sink,
    text_of,
)
from procreactor.apps.cli.views import open_view
from procreactor.apps.commands import Command
from procreactor.apps.engine import Done, Engine, Policy, Task
from procreactor.apps.halt import NEVER, Decision, HaltPolicy
from procreactor.apps.planning import Planner
from procreactor.model import ExitStatus
from procreactor.streams.collect import Collector
from procreactor.transport.trees import Forest
from procreactor.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procreactor.apps.cli.admission import Admission
    from procreactor.apps.cli.joblog import JobLog, ResumeState
    from procreactor.apps.cli.stats import RunningMedian

__all__ = ["Session", "new_results", "read_logged"]

DRAIN_S = 1.0
"""How long after its exit a job's output may be held open by what it has left behind."""

_DRAW_S = 0.1
_MEMORY_CHECK_S = 1.0
_TRY_AGAIN_S = 0.05
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
        self._signals = 0
        self._halt = HaltPolicy(options.halt)
        self._halted_by: int | None = None
        self._median: RunningMedian | None = None
        self._last_start_s: float | None = None
        self._unlogged: deque[tuple[Any, ...]] = deque()
        self._unprinted: dict[int, tuple[Any, ...]] = {}
        """The log lines of jobs whose output is not written."""

        self._engine: Engine[Any]

    def run(self) -> int:
        """Run all jobs, and return the exit status; OSError, InputError and JobLogError before."""
        options = self._options
        self._results: ResultSink | None = None
        self._log: JobLog | None = None
        logged = None
        if options.joblog is not None:
            logged = read_logged(options.joblog) if options.resume else None
            self._log = _open_log(options.joblog, options)
        if options.results is not None:
            self._results = new_results(options)
        self._source = JobSource(
            options,
            logged,
            self._results,
            self._wake_when_readable,
            reads_first=_needs_total(options),
        )
        self._progress = ProgressState(time.monotonic(), self._source.total)
        self._view = open_view(options.progress or "line", self._progress)
        self._is_shown = not self._view.shows_nothing
        self._writer = None
        if options.output != "none" and self._results is None:
            self._writer = OutputWriter(
                keep_order=options.keep_order,
                line_buffer=options.output == "lines",
                early=options.retries == 1 and options.memfree_bytes is None,
                before_write=self._view.clear if self._is_shown else None,
                call_later=self._call_later,
                throttles=options.timeout is None,  # a wait of ours is no time of theirs
            )
        # Of what most runs do not need, thousands of jobs are not to pay for the question.
        self._has_early_sinks = options.keep_order or self._results is not None
        self._keeps_books = self._log is not None or self._results is not None
        if options.timeout is not None and options.timeout.is_percent:
            self._median = _new_median()
        self._has_rules = options.halt != NEVER or options.xargs_exit
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
                must_wait=self._must_wait if self._writer is not None else None,
                pass_on=_Stream.pass_on if self._results is None else None,
                held_up_s=self._held_up_s,
                signals_stay=True,  # the program is ours, and what it sets it handles
            )
            before = {
                number: signal.signal(number, self._on_signal)
                for number in _STOPPING
                if signal.getsignal(number) is not signal.SIG_IGN
            }
            if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
                before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            wakeup_fd = signal.set_wakeup_fd(self._engine.loop.signal_fd, warn_on_full_buffer=False)
            try:
                self._start_clocks()
                self._epoch_s = time.time() - time.monotonic()
                for done in self._engine.run():
                    self._on_done(done)
                self._write_rest()
            except OutputClosed as reason:
                self._error = reason
                self._engine.kill()
                deque(self._engine.drain(), 0)
            finally:
                signal.set_wakeup_fd(wakeup_fd)
                for number, handler in before.items():
                    signal.signal(number, handler)
                self._engine.close()
        finally:
            forest.close()
            planner.close()

    def _policy(self) -> Policy:
        options, source = self._options, self._source
        has_files = options.results_kind == "directory"
        jobs = options.jobs.resolve(self._cpus) or _most_jobs(_FDS_OF_A_JOB + 2 * has_files)
        self._admission: Admission | None = None
        if options.delay_s or options.load is not None or options.memfree_bytes is not None:
            self._admission = _new_admission(options, self._cpus)
        timeout: float | Callable[[], float | None] | None = None
        if options.timeout is not None:
            timeout = (
                self._percent_timeout if options.timeout.is_percent else options.timeout.number
            )
        in_sequence = options.halt != NEVER or options.xargs_exit or source.uses_slot
        return Policy(
            jobs,
            timeout_s=timeout,
            stop=[(step.signal, step.wait_ms / 1000) for step in options.termseq],
            retries=options.retries - 1 if options.retries else sys.maxsize,
            reads_ahead=not in_sequence and self._admission is None,
            wait_s=None if self._admission is None else self._wait_s,
            drain_s=DRAIN_S,
        )

    def _percent_timeout(self) -> float | None:
        timeout, median = self._options.timeout, self._median
        assert timeout is not None
        assert median is not None
        return median.timeout_s(timeout.number)

    def _wait_s(self) -> float:
        return self._admission.wait_s(self._last_start_s) if self._admission is not None else 0.0

    def _start_clocks(self) -> None:
        if self._is_shown:
            self._engine.loop.call_later(_DRAW_S, self._draw)
        if self._options.memfree_bytes is not None:
            self._engine.loop.call_later(_MEMORY_CHECK_S, self._check_memory)

    def _draw(self) -> None:
        self._engine.loop.call_later(_DRAW_S, self._draw)
        self._progress.skipped = self._source.skipped
        self._progress.total = self._source.total
        self._view.draw(time.monotonic())

    def _check_memory(self) -> None:
        self._engine.loop.call_later(_MEMORY_CHECK_S, self._check_memory)
        admission = self._admission
        if admission is not None and admission.must_kill_youngest(self._engine.running):
            self._engine.put_back_youngest()

    # -- jobs -----------------------------------------------------------------------------------

    def _wake_when_readable(self, fd: int) -> None:
        self._engine.wake_when_readable(fd)

    def _take(self) -> Command | None:
        try:
            return self._source.take()
        except (InputError, JobLogError, OSError) as error:
            self._fail(error)
            raise StopIteration from None

    def _on_start(self, task: Task) -> None:
        command = task.command
        if self._source.uses_slot:
            command = task.command = self._source.settle(command, task.slot)
        job = command.tag
        assert isinstance(job, Job)
        if self._admission is not None:
            self._last_start_s = time.monotonic()
        self._progress.on_start()
        if job.sinks is not None:
            self._forget_output(job)
        if self._has_early_sinks:
            self._open_sinks(job, task)
        if self._options.verbose or self._is_shown:
            self._announce(job, command, task.attempts)

    def _announce(self, job: Job, command: Command, attempt: int) -> None:
        line = self._source.command_line(command)
        self._view.on_start(job.seq, line, time.monotonic())
        if self._options.verbose and attempt > job.announced:
            job.announced = attempt
            self._say(os.fsdecode(line))

    def _forget_output(self, job: Job) -> None:
        """What an earlier attempt has left is not this one's."""
        if self._writer is not None:
            self._writer.discard(job.seq)
        job.sinks = None
        job.received_bytes = 0

    def _open_sinks(self, job: Job, task: Task) -> None:
        """OSError where there is no room for its files (EMFILE), but may be later."""
        pairs: list[tuple[Sink, Sink]] = []
        if self._writer is not None:
            pairs.append(self._writer.new_sinks(job.seq, self._source.tag(job, task.slot)))
        if self._results is not None and job.name is not None:
            try:
                pairs.append(self._results.new_sinks(job.name))
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and task.has_company:
                    raise
                self._fail(error)
                job.name = None  # it is started all the same, and will be once more: see `_store`
        limit_bytes = self._options.max_output_bytes
        job.sinks = (
            _Stream(job, [pair[0] for pair in pairs], limit_bytes, counts=True),
            _Stream(job, [pair[1] for pair in pairs], limit_bytes, counts=False),
        )

    def _sinks_of(self, task: Task) -> tuple[Any, Any]:
        job = task.command.tag
        assert isinstance(job, Job)
        if job.sinks is None:
            self._open_sinks(job, task)
        assert job.sinks is not None
        return job.sinks

    def _must_wait(self, sinks: tuple[_Stream, _Stream], go_on: Callable[[bool], object]) -> bool:
        return self._writer is not None and self._writer.must_wait(sinks[0].job.seq, go_on)

    def _held_up_s(self) -> float:
        return self._writer.waited_s if self._writer is not None else 0.0

    def _call_later(self, delay_s: float, call: Callable[[], object]) -> None:
        self._engine.loop.call_later(delay_s, call)

    def _on_retry(self, task: Task) -> None:
        job = task.command.tag
        assert isinstance(job, Job)
        self._progress.on_put_back()
        self._view.on_end(job.seq)

    def _on_done(self, done: Done[Any]) -> None:
        task = done.task
        job = task.command.tag
        assert isinstance(job, Job)
        is_ok = done.ok
        self._done += 1
        self._failed += not is_ok
        if task.is_called_off:
            self._progress.on_start()  # which it was told to have been put back from
        self._progress.on_end(is_ok)
        if self._is_shown:
            self._view.on_end(job.seq)
        if done.error is not None:
            self._say(f"procreactor: job {job.seq}: {text_of(done.error)}")
        elif task.timed_out:
            self._say(f"procreactor: job {job.seq} took too long, and was stopped")
        sinks, job.sinks = job.sinks, None  # they know the job: no circle is to be left of it
        for sink in sinks or ():
            if isinstance(sink, _Stream):
                sink.end()
        if self._keeps_books:
            self._store(done, job)
        if self._writer is not None:
            self._writer.finish(job.seq)
        if self._median is not None and is_ok and done.ended is not None:
            self._median.add(done.ended.duration_s)
        if self._has_rules:
            self._judge(done, job, is_ok)

    def _store(self, done: Done[Any], job: Job) -> None:
        task = done.task
        if task.is_called_off or (task.is_stopping and not task.timed_out):
            return  # we stopped it: so it is not done, and --resume runs it again
        if self._results is not None and job.name is None:
            return  # what it wrote could not be stored
        ended, status = done.ended, _status_of(done)
        fields = (
            LOCAL_HOST,
            self._epoch_s + ended.begun_s if ended is not None and ended.begun_s else time.time(),
            ended.duration_s if ended is not None else 0.0,
            0,
            job.received_bytes,
            _exit_value(status),
            status.signal or 0,
            self._source.command_line(done.task.command),
        )
        try:
            if self._results is not None and job.name is not None:
                self._results.store(JobRecord(job.name, *fields))
        except OSError as error:
            self._fail(error)  # and no log says that it is done
        else:
            self._note_for_log((job.seq, *fields))

    def _note_for_log(self, fields: tuple[Any, ...]) -> None:
        if self._writer is not None:
            self._unprinted[fields[0]] = fields
        elif self._log is not None:
            self._unlogged.append(fields)

    def _judge(self, done: Done[Any], job: Job, is_ok: bool) -> None:
        """Stop where --halt or xargs's rules say so."""
        status = _status_of(done)
        if self._options.xargs_exit:
            start_errno = (done.error.errno or 0) if done.error is not None else 0
            ended = None if done.error is not None else status
            before = self._status or 0
            self._status, stop = exits.xargs_after(before, ended, start_errno)
            if stop and self._status != before:
                self._say_halt(job.seq, ended, "no more are started")
                self._engine.stop_starting()
            return
        if self._halt.decision is not Decision.GO_ON:
            return
        total = self._source.total
        over = self._done + self._source.skipped  # as GNU parallel counts
        decision = self._halt.on_result(is_ok, over, self._failed, total)
        if decision is Decision.GO_ON:
            return
        self._status = exits.halted_status(
            self._options.halt,
            failed=self._failed,
            total=total or self._done,
            last=exits.exit_value(status),
        )
        if decision is Decision.SOON:
            self._say_halt(job.seq, status, "no more are started")
            self._engine.stop_starting()
        else:
            self._say_halt(job.seq, status, "what runs is stopped")
            self._engine.terminate()

    def _say_halt(self, seq: int, status: ExitStatus | None, what: str) -> None:
        if status is None:
            how = "could not be started"
        else:
            how = "succeeded" if status.ok else f"failed ({exits.exit_value(status)})"
        self._say(f"procreactor: job {seq} {how}: {what}")

    # -- turns and ends -------------------------------------------------------------------------

    def _on_turn(self) -> None:
        if self._writer is not None:
            try:
                self._writer.flush()
            except OSError as error:
                self._fail(error)
            self._take_written(self._writer.written)
        while self._log is not None and self._unlogged:
            try:
                self._log.record(*self._unlogged.popleft())
            except OSError as error:
                self._fail(error)

    def _write_rest(self) -> None:
        """When all jobs are over: have written what is left, however slowly it is read."""
        if self._writer is None:
            self._on_turn()
            return
        self._writer.finish_all()
        self._on_turn()
        while self._writer.queued_bytes:
            self._writer.wait_again()
            if self._signals > 1:  # asked now: a signal that comes later ends the wait
                return
            self._on_turn()

    def _take_written(self, written: deque[int]) -> None:
        """What the log is to say of the jobs in *written* may be said now; empties it."""
        if self._log is not None:
            known = (self._unprinted.pop(seq, None) for seq in written)
            self._unlogged.extend(fields for fields in known if fields is not None)
        written.clear()

    def _fail(self, error: Exception) -> None:
        """Start nothing more because of *error*; what runs may end."""
        if self._error is None:
            self._error = error
            self._engine.stop_starting()

    def _on_signal(self, number: int, frame: object) -> None:
        self._signal = number
        self._signals += 1
        first = self._signals == 1
        self._engine.loop.call_soon_threadsafe(self._terminate if first else self._engine.kill)
        if self._writer is not None:
            self._writer.stop_waiting()

    def _terminate(self) -> None:
        self._engine.terminate()
        self._try_to_write()

    def _try_to_write(self) -> None:
        """See to it that there are turns, in which what is left is written if it is taken."""
        self._engine.loop.call_later(_TRY_AGAIN_S, self._try_to_write)

    def _say(self, text: str) -> None:
        data = os.fsencode(text) + b"\n"
        if self._writer is not None:
            self._writer.enqueue(2, data)
        else:
            self._view.clear()
            _write_error(data)

    def _finish(self) -> int:
        """Return the exit status, or die of the signal that ended the run."""
        self._view.close()
        if isinstance(self._error, OutputClosed):
            self._signal = signal.SIGPIPE
        elif self._error is not None:
            _write_error(os.fsencode(f"procreactor: {text_of(self._error)}\n"))
            self._print_unwritten()
        if self._signal:
            self._close()
            signal.signal(self._signal, signal.SIG_DFL)
            os.kill(os.getpid(), self._signal)
        if self._error is not None:
            return exits.XARGS_OTHER_ERROR if self._options.xargs_exit else exits.OTHER_ERROR
        if self._status is not None:
            return self._status
        return exits.status(self._options.halt, failed=self._failed, started=self._done)

    def _print_unwritten(self) -> None:
        if self._log is not None:
            try:
                self._log.retry()  # there may be room by now
            except OSError:
                pass
        for what, file in (("--joblog", self._log), ("--results", self._results)):
            for record in file.unwritten if file is not None else ():
                _write_error(b"procreactor: not in %s:\n" % what.encode() + record)

    def _close(self) -> None:
        self._source.close()
        for one in (self._view, self._writer, self._results, self._log):
            if one is not None:
                one.close()


class _Stream:
    """One stream of a job: counted, and passed on to the output and the results, as it comes.

    With a limit its two ends are, when all has come.
    """

    __slots__ = ("_collector", "_counts", "_sinks", "job")

    def __init__(
        self, job: Job, sinks: list[Sink], limit_bytes: int | None, *, counts: bool
    ) -> None:
        self.job = job
        self._counts = counts
        self._sinks = sinks
        self._collector = Collector(limit_bytes) if limit_bytes is not None else None

    def append(self, data: bytes) -> None:
        """Take *data* as the next bytes of the stream."""
        if self._counts:
            self.job.received_bytes += len(data)
        if self._collector is not None:
            self._collector.append(data)
        else:
            for sink in self._sinks:
                sink.append(data)

    def pass_on(self, fd: int) -> int:
        """Move what is in the pipe *fd* to the output, if it would go there as it is: how much."""
        sink = self._sinks[0]
        if self._collector is not None or not isinstance(sink, StreamSink):
            return 0
        moved_bytes = sink.pass_on(fd)
        if self._counts:
            self.job.received_bytes += moved_bytes
        return moved_bytes

    def end(self) -> None:
        """Pass on what was kept, where there is a limit."""
        if self._collector is None or not self._collector.total:
            return
        dropped = self._collector.dropped
        gap = b"\n... %d bytes dropped ...\n" % dropped if dropped else b""
        data = self._collector.getvalue(gap)
        for sink in self._sinks:
            sink.append(data)


def _write_error(data: bytes) -> None:
    """Write *data* to standard error, if there is one: sys.stderr is None where it was closed."""
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass  # there is nowhere to say it


def _needs_total(options: Options) -> bool:
    """Whether it matters, from the beginning on, how many jobs there will be."""
    is_shown = options.progress in ("bar", "eta") and os.isatty(2)
    return options.halt.is_percent or is_shown


def _most_jobs(fds_of_each: int) -> int:
    """How many at once, for -j0: what our open files allow."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(max((soft - _FDS_OF_OURS) // fds_of_each, 1), _MOST_JOBS)


def _new_median() -> RunningMedian:
    from procreactor.apps.cli.stats import RunningMedian

    return RunningMedian()


def _new_admission(options: Options, cpus: int) -> Admission:
    from procreactor.apps.cli.admission import Admission, AdmissionPolicy

    load = None if options.load is None else options.load.resolve(cpus)
    return Admission(AdmissionPolicy(options.delay_s, load, options.memfree_bytes))


def read_logged(path: bytes) -> ResumeState:
    """Return what the log at *path* says; JobLogError, OSError."""
    from procreactor.apps.cli.joblog import read_log

    return read_log(os.fsdecode(path))


def _open_log(path: bytes, options: Options) -> JobLog:
    from procreactor.apps.cli.joblog import JobLog

    append = options.joblog_is_added_to or bool(options.resume)
    return JobLog(os.fsdecode(path), append=append)


def new_results(options: Options) -> ResultSink:
    """Return what --results says; OSError where that is a file, and cannot be opened."""
    from procreactor.apps.cli.results import open_results

    assert options.results is not None
    return open_results(
        os.fsdecode(options.results),
        append=bool(options.resume),
        limit_bytes=options.max_output_bytes,
    )


def _exit_value(status: ExitStatus) -> int:
    """What a log says: 0 of one that a signal has ended, and 255 where nobody knows."""
    if status.code is None and status.signal is None:
        return exits.OTHER_ERROR
    return status.code or 0


def _status_of(done: Done[Any]) -> ExitStatus:
    """How it ended; for one that could not be started, as a shell says it."""
    if done.error is not None:
        return ExitStatus(code=exits.start_failure_value(done.error.errno or 0))
    assert done.ended is not None
    status = done.ended.status or ExitStatus()
    return exits.out_of_time(status) if done.task.timed_out else status
