"""One command, or thousands: `run` and `run_many`, blocking, in any thread.

Each call has a loop of its own and no global state, so calls in several threads know nothing of
each other; no signal handler is installed, and none is needed.

Decisions:

- Standard input is /dev/null unless ``input=`` or ``stdin=`` says otherwise: a thousand commands
  that share a terminal, or eat each other's input, are nobody's wish.
- Text is decoded with ``errors="replace"``: a byte that is no UTF-8 is no reason to lose a result.
  Line ends stay as they are.
- A command that cannot be started raises out of `run`, and is a result with an ``error`` in
  `run_many`, where the others go on. Misuse (a NUL in an argument, an unknown option) is TypeError
  or ValueError in both.
- A process that a command has left behind in the background does not hold its result: that comes
  `DRAIN_S` after the exit at the latest, with what was written until then. Who ends by himself may
  leave processes behind; who is stopped (time-out, Ctrl-C, a closed iterator) leaves none, with
  ``tree=True``.
- KeyboardInterrupt: nothing more is started, what runs gets SIGTERM and ``kill_after_s`` seconds;
  a second one kills. Then it is raised.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

from procreactor.apps.commands import Argument, Command, File, Limits, Result
from procreactor.apps.engine import Done, Engine, Policy, Task
from procreactor.apps.halt import Decision, HaltPolicy, parse_halt
from procreactor.apps.planning import Planner
from procreactor.apps.settings import ManyOptions, RunOptions, Settings
from procreactor.errors import report_callback_error
from procreactor.transport.trees import Forest, TreeLimits
from procreactor.typed import new_tuple

__all__ = ["DRAIN_S", "Results", "run", "run_many"]

DRAIN_S = 1.0
"""How long after a command's exit its streams may be held open by others."""

_LEAST_WINDOW = 256
"""How far the starts may be ahead of the result whose turn it is, at least."""

_NOT_OF_RUN = frozenset({"jobs", "ordered", "retries", "retry_delay_s", "halt"})

T = TypeVar("T", str, bytes)


@overload
def run(
    argv: Sequence[Argument],
    *,
    text: Literal[True],
    check: bool = False,
    input: bytes | str | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[RunOptions],
) -> Result[str]: ...
@overload
def run(
    argv: Sequence[Argument],
    *,
    text: Literal[False] = False,
    check: bool = False,
    input: bytes | str | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[RunOptions],
) -> Result[bytes]: ...
def run(
    argv: Sequence[Argument],
    *,
    check: bool = False,
    input: bytes | str | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Any,
) -> Result[Any]:
    """Run *argv* to its end and return its `Result`. No shell is involved.

    *input* is written to its standard input; *stdin*, *stdout* and *stderr* name files, or are fds;
    *stderr* may be STDOUT: it is written where stdout is, in one stream.
    The *options* are those of `Settings` that are about one command: text, encoding, errors,
    capture, tee, on_output, max_output_bytes, timeout_s, kill_after_s, cwd, env, env_extra, limits,
    tree.

    SpawnError when it cannot be started, OSError when a file cannot be opened. With *check*,
    CommandError unless it ended with exit code 0, and in time.
    """
    settings = Settings.of("run", options, _NOT_OF_RUN)
    command = Command(argv, input, stdin=stdin, stdout=stdout, stderr=stderr)
    with Results([command], settings, most_at_once=1) as results:
        result = next(results)
    if check or result.error is not None:
        result.check()
    return result


@overload
def run_many(
    commands: Iterable[Command | Sequence[Argument]],
    *,
    text: Literal[True],
    **options: Unpack[ManyOptions],
) -> Results[str]: ...
@overload
def run_many(
    commands: Iterable[Command | Sequence[Argument]],
    *,
    text: Literal[False] = False,
    **options: Unpack[ManyOptions],
) -> Results[bytes]: ...
def run_many(commands: Iterable[Command | Sequence[Argument]], **options: Any) -> Results[Any]:
    """Return an iterator over the results of *commands*, as they end; nothing is started before.

    Of the iterable no more are taken than are about to be started, so it may be endless; while it
    makes the next one wait, nothing else happens: no result, no time-out. (With a *halt* of so many
    per cent all are taken at once: it is said of all that there are.) The *options* are those of
    `Settings`: besides those of `run`, jobs, ordered, retries, retry_delay_s, halt.

    Closing the iterator, leaving it with ``with``, or letting go of it, kills what still runs. So a
    Ctrl-C in the body of ``for result in run_many(...)``, which no `next` sees, kills at once and
    without SIGTERM; an iterator with a name lives on in the traceback, unless there is a ``with``.
    """
    return Results(commands, Settings.of("run_many", options, frozenset()))


class Results(Generic[T]):
    """The iterator that `run_many` returns. For one thread at a time.

    Who lets go of it has closed it, too: nothing that runs refers to it.
    """

    def __init__(
        self,
        commands: Iterable[Command | Sequence[Argument]],
        settings: Settings,
        *,
        most_at_once: int | None = None,
    ) -> None:
        self._results: Generator[Result[T], None, None] = _Run[T](
            commands, settings, most_at_once or settings.most_at_once
        ).results()

    def __iter__(self) -> Iterator[Result[T]]:
        """Itself."""
        return self

    def __next__(self) -> Result[T]:
        """Return the next result; blocks until a command is over."""
        return next(self._results)

    def __enter__(self) -> Results[T]:
        """Itself; it is closed at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Kill what still runs; no process, fd or thread of it is left. Idempotent."""
        self._results.close()


class _Run(Generic[T]):
    """What is behind one `Results`."""

    def __init__(
        self,
        commands: Iterable[Command | Sequence[Argument]],
        settings: Settings,
        most_at_once: int,
    ) -> None:
        if isinstance(commands, Command):
            raise TypeError(f"commands must be an iterable of commands, not one: {commands!r}")
        self._settings = settings
        self._most_at_once = most_at_once
        self._halt = None
        if settings.halt is not None:
            self._halt = HaltPolicy(parse_halt(settings.halt))
            if self._halt.needs_total and not isinstance(commands, Sized):
                commands = list(commands)
        self._total = len(commands) if isinstance(commands, Sized) else None
        self._commands = iter(commands)
        self._asked = self._told = self._done = self._failed = 0
        self._window = max(_LEAST_WINDOW, 4 * self._most_at_once)
        self._planner = _new_planner(settings)  # which says what is wrong, before the first result
        self._planner.close()
        self._epoch_s = 0.0

    def results(self) -> Generator[Result[T], None, None]:
        """Yield the results; to be closed in any case."""
        self._epoch_s = time.time() - time.monotonic()
        self._planner = _new_planner(self._settings)
        forest = None
        try:
            forest = _new_forest(self._settings)
            engine = self._new_engine(forest)
            try:
                yield from self._in_order(engine) if self._settings.ordered else self._all(engine)
            except KeyboardInterrupt:
                engine.wind_down()
                raise
            finally:
                engine.close()
        finally:
            if forest is not None:
                forest.close()
            self._planner.close()

    def _new_engine(self, forest: Forest | None) -> Engine[_Sink]:
        settings = self._settings
        policy = Policy(
            self._most_at_once,
            timeout_s=settings.timeout_s,
            stop=((signal.SIGTERM, settings.kill_after_s),),
            retries=settings.retries,
            retry_delay_s=settings.retry_delay_s,
            reads_ahead=self._halt is None,
            drain_s=DRAIN_S,
        )
        return Engine(self._next_command, self._planner, policy, self._new_sinks, forest=forest)

    def _next_command(self) -> Command | None:
        if self._settings.ordered and self._asked - self._told >= self._window:
            return None
        command = next(self._commands)
        self._asked += 1
        return command if isinstance(command, Command) else Command(command)

    def _new_sinks(self, task: Task) -> tuple[_Sink, _Sink]:
        return _Sink(self._settings, task.index, 1), _Sink(self._settings, task.index, 2)

    def _all(self, engine: Engine[_Sink]) -> Iterator[Result[T]]:
        for done in engine.run():
            if self._halt is not None:
                self._obey(self._halt, engine, done)
            yield self._result(done)

    def _in_order(self, engine: Engine[_Sink]) -> Iterator[Result[T]]:
        held: dict[int, Result[T]] = {}
        for result in self._all(engine):
            held[result.index] = result
            while self._told in held:
                yield held.pop(self._told)
                self._told += 1
        for index in sorted(held):  # a halt has called off some that stood between them
            yield held[index]

    def _obey(self, halt: HaltPolicy, engine: Engine[_Sink], done: Done[_Sink]) -> None:
        self._done += 1
        self._failed += not done.ok
        decision = halt.on_result(done.ok, self._done, self._failed, self._total)
        if decision is Decision.SOON:
            engine.stop_starting()
        elif decision is Decision.NOW:
            engine.terminate()

    def _result(self, done: Done[_Sink]) -> Result[T]:
        task, ended, error = done
        if ended is None:
            empty = self._output(None)
            return Result(
                task.command, task.index, None, None, None, empty, empty, False, False,
                task.attempts, 0.0, 0.0, None, error,
            )  # fmt: skip
        status = ended.status
        out, err = ended.sinks or (None, None)
        return new_tuple(
            Result,
            (
                task.command,
                task.index,
                ended.pid if ended.pid >= 0 else None,
                status.code if status is not None else None,
                status.signal if status is not None else None,
                self._output(out),
                self._output(err),
                task.timed_out,
                bool((out and out.dropped) or (err and err.dropped)),
                task.attempts,
                self._epoch_s + ended.begun_s if ended.begun_s else 0.0,
                ended.duration_s,
                status.usage if status is not None else None,
                error,
            ),
        )

    def _output(self, sink: _Sink | None) -> Any:
        settings = self._settings
        if sink is None:
            return "" if settings.text else b""
        data = sink.getvalue()
        return data.decode(settings.encoding, settings.errors) if settings.text else data


class _Sink:
    """One stream of a command: kept, copied, told of, as the settings say."""

    __slots__ = ("_collector", "_fd", "_index", "_settings", "append")

    def __init__(self, settings: Settings, index: int, fd: int) -> None:
        self._settings = settings
        self._index = index
        self._fd = fd
        self._collector = settings.new_collector()
        is_plain = not settings.tee and settings.on_output is None
        self.append = (
            self._collector.append if self._collector is not None and is_plain else self._take
        )

    def _take(self, data: bytes) -> None:
        if self._collector is not None:
            self._collector.append(data)
        if self._settings.tee:
            try:
                _copy(data, self._fd)
            except BaseException:
                report_callback_error("sys.stdout or sys.stderr, to which output is copied,")
        on_output = self._settings.on_output
        if on_output is not None:
            try:
                on_output(self._index, self._fd, data)
            except BaseException:
                report_callback_error(repr(on_output))

    @property
    def dropped(self) -> int:
        """How many bytes were not kept."""
        return self._collector.dropped if self._collector is not None else 0

    def getvalue(self) -> bytes:
        """Return what was kept, and said of the rest."""
        if self._collector is None:
            return b""
        dropped = self._collector.dropped
        gap = b"\n... %d bytes dropped ...\n" % dropped if dropped else b""
        return self._collector.getvalue(gap)


def _copy(data: bytes, fd: int) -> None:
    """To this process's own stdout or stderr, behind what is buffered there."""
    stream = sys.stdout if fd == 1 else sys.stderr
    if stream is None:  # python -m with a closed fd
        return
    binary = getattr(stream, "buffer", None)
    if binary is None:  # somebody has put a text stream of their own there
        stream.write(data.decode("utf-8", "replace"))
    else:
        stream.flush()
        binary.write(data)
    stream.flush()


def _new_planner(settings: Settings) -> Planner:
    return Planner(
        capture=settings.has_pipes,
        cwd=settings.cwd,
        env=settings.env,
        env_extra=settings.env_extra,
        limits=settings.limits,
        encoding=settings.encoding,
    )


def _new_forest(settings: Settings) -> Forest | None:
    limits = settings.limits or Limits()
    tree_limits = TreeLimits(limits.memory_bytes, limits.pids, limits.cpus)
    if tree_limits.files:
        return Forest(limits=tree_limits)
    return Forest() if settings.tree else None
