"""From records to commands: numbered, filled in, and without those that an earlier run has done.

A job's number is that of its record, from 1, whether an earlier run has done it or not: so the
numbers of a log fit the same input again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache

from procreactor.apps.cli.combine import Joined
from procreactor.apps.cli.inputs import Inputs
from procreactor.apps.cli.options import Options
from procreactor.apps.cli.records import JobName, ResultSink, Sink
from procreactor.apps.cli.shellwords import join, split
from procreactor.apps.cli.template import Template, TextTemplate
from procreactor.apps.commands import Command
from procreactor.model import END, WOULD_BLOCK
from procreactor.transport.request import find_candidates
from procreactor.typed import TYPE_CHECKING, new_tuple

if TYPE_CHECKING:
    from procreactor.apps.cli.joblog import ResumeState

__all__ = ["Job", "JobSource"]


_WORD_BYTES = 131072
"""What one word may have, its NUL included (execve(2))."""

_BYTES_PER_WORD = 9
"""Its NUL, and the pointer to it."""

_SPARE_ARGV_BYTES = 4096
"""For what comes to it: a script's interpreter, a mark in the environment. (xargs leaves 2048.)"""

_MOST_ARGV_BYTES = 6 << 20
"""Whatever the stack may be: three quarters of 8 MiB (execve(2))."""

_ANY_NUMBER = 10**9


class Job:
    """One job: what tells it from the others. The tag of its `Command`."""

    __slots__ = ("announced", "name", "received_bytes", "seq", "sinks", "text", "values")

    def __init__(self, seq: int, values: tuple[bytes, ...], text: bytes | None = None) -> None:
        self.seq = seq
        self.values = values
        self.text = text
        """The whole command, as a log has it; None where it is made of the values."""

        self.name: JobName | None = None
        """Where there are --results."""

        self.sinks: tuple[Sink, Sink] | None = None
        """While it runs, unless its output is none of ours."""

        self.received_bytes = 0
        """How much of its stdout has come, as GNU parallel counts."""

        self.announced = 0
        """Of so many attempts it was said that it starts."""


class JobSource:
    """The jobs of *options*, one after the other; those of *done* that need no run left out.

    *wake_when_readable* is told of the fd on which the next one waits. With *reads_first* there is
    none before the `total` is certain, for which the whole input may have to be read.
    """

    def __init__(
        self,
        options: Options,
        done: ResumeState | None,
        results: ResultSink | None,
        wake_when_readable: Callable[[int], object],
        *,
        reads_first: bool = False,
    ) -> None:
        self._options = options
        self._done = done
        self._results = results
        self._wake_when_readable = wake_when_readable
        self._inputs: Inputs | None = None
        self._again: Iterator[tuple[int, bytes]] = iter(())
        self._total: int | None
        plan = options.plan
        if options.resume == "retry-failed":
            self._again = done.failed_commands() if done is not None else iter(())
            self._total = done.failed if done is not None else 0
        else:
            self._total = plan.known_total  # of batches there may be more, where not all fits
            is_known = self._total is not None and plan.batch <= 1
            self._inputs = Inputs(plan, fits=self._fits, reads_first=reads_first and not is_known)
        self._template = None
        if options.command or options.shell:
            self._template = Template(options.command, marker=options.marker, shell=options.shell)
        self._workdir = self._text(options.workdir)
        self._tag = self._text(options.tag)
        is_tree = options.results_kind == "directory"
        place = self._text(options.results if is_tree else None)
        self._place = place if place is not None and place.has_marker else None
        self.skipped = 0
        """How many jobs an earlier run has done."""

        self._seq = 0
        self.uses_slot = any(
            one is not None and one.uses_slot
            for one in (self._template, self._workdir, self._tag, self._place)
        )
        """Whether a job is not known before it is known where it runs: see `settle`."""

    @property
    def total(self) -> int | None:
        """How many jobs there are, with those that an earlier run has done; None while unknown."""
        read = self._inputs.total if self._inputs is not None else None
        return self._total if read is None else read

    def take(self) -> Command | None:
        """Return the next command; None while there is none yet. StopIteration at the end.

        InputError, and OSError of a log.
        """
        if self._inputs is None:
            return self._take_again()
        while True:
            record = self._inputs.try_next()
            if record is WOULD_BLOCK:
                fd = self._inputs.waits_for_fd
                if fd is not None:
                    self._wake_when_readable(fd)
                return None
            if record is END:
                self._total = self._seq
                raise StopIteration
            self._seq += 1
            job = Job(self._seq, record)
            if not self._options.resume or not self._is_done(job):
                return self._command(job, 0)
            self.skipped += 1

    def settle(self, command: Command, slot: int) -> Command:
        """Return *command* as it is in the slot that it got: where it `uses_slot`, another."""
        assert isinstance(command.tag, Job)
        return self._command(command.tag, slot)

    def tag(self, job: Job, slot: int) -> bytes | None:
        """Return what stands before each line of its output."""
        return None if self._tag is None else self._tag.render(job.values, job.seq, slot)

    def command_line(self, command: Command) -> bytes:
        """Return *command* as a shell would have it, or as it was given to one."""
        job = command.tag
        assert isinstance(job, Job)
        if job.text is not None:
            return job.text
        argv = [os.fsencode(word) for word in command.argv]
        return argv[2] if self._options.shell else join(argv)

    def close(self) -> None:
        """Close the inputs. Idempotent."""
        if self._inputs is not None:
            self._inputs.close()

    def _text(self, text: bytes | None) -> TextTemplate | None:
        return None if text is None else TextTemplate(text, marker=self._options.marker)

    def _take_again(self) -> Command:
        seq, text = next(self._again)
        return self._command(Job(seq, (text,), text), 0)

    def _command(self, job: Job, slot: int) -> Command:
        values, seq = job.values, job.seq
        cwd = None if self._workdir is None else self._workdir.render(values, seq, slot)
        if self._results is not None:
            place = self._place.render(values, seq, slot) if self._place is not None else None
            widths = values.widths if isinstance(values, Joined) else ()
            job.name = JobName(seq, values, widths, place)
        if job.text is not None:
            return Command(self._argv_of(job.text), cwd=cwd, tag=job)
        assert self._template is not None  # which only --retry-failed may lack
        argv = self._template.render(values, seq, slot)
        return new_tuple(Command, (argv, None, cwd, None, None, None, None, None, None, job))

    def _argv_of(self, text: bytes) -> list[bytes]:
        """Return the argv for a command of a log: a shell's, unless it is plainly a program's."""
        words = None if self._options.shell else split(text)
        return words if words and _is_program(words[0]) else [b"/bin/sh", b"-c", text]

    def _fits(self, values: tuple[bytes, ...]) -> bool:
        """Whether a program can be given what the command is with *values*."""
        assert self._template is not None
        argv = self._template.render(values, _ANY_NUMBER, _ANY_NUMBER)
        total_bytes = sum(map(len, argv)) + _BYTES_PER_WORD * len(argv)
        return total_bytes <= _most_argv_bytes() and max(map(len, argv)) < _WORD_BYTES

    def _is_done(self, job: Job) -> bool:
        """With --resume: whether an earlier run has done it."""
        if self._done is not None:
            again = self._options.resume == "resume-failed"
            return not self._done.should_run(job.seq, failed_again=again)
        if self._results is None:
            return False
        self._command(job, 0)
        return job.name is not None and self._results.has(job.name)


def _is_program(name: bytes) -> bool:
    """Whether *name* is that of a program, and not something that a shell alone can do."""
    places = find_candidates(name, os.environb, os.environb)
    return b"/" in name or any(os.path.isfile(one) and os.access(one, os.X_OK) for one in places)


@cache
def _most_argv_bytes() -> int:
    """What the words of a program may have together, beside its environment, which is ours."""
    environment_bytes = sum(
        len(name) + len(value) + 1 + _BYTES_PER_WORD for name, value in os.environb.items()
    )
    most_bytes = min(os.sysconf("SC_ARG_MAX"), _MOST_ARGV_BYTES)
    return most_bytes - environment_bytes - _SPARE_ARGV_BYTES
