"""The log of jobs, in the format of GNU parallel (20221122), and what it tells a later run.

The file: a header, then a line for each job that has ended, nine columns with tabs between:

    Seq  Host  Starttime  JobRuntime  Send  Receive  Exitval  Signal  Command

Facts about GNU parallel's, which reads ours and whose ours reads:

- The host is ``:`` for this machine. The start is in seconds since 1970 with three decimals, the
  run time has three decimals too and is padded to ten columns (``%10.3f``). A job that a signal
  killed has Exitval 0 and the number in Signal.
- The command is a shell's text. A line feed in it is written as a NUL (an argument has none of its
  own), a tab stays: the column is the last.
- Its --resume takes the digits at the start of a line for a job that is done, whatever follows. So
  half a line would mislead it, and none may be there (recordfile.py).

A job may stand there more than once (--resume-failed, --retry-failed); its last line counts.

When to write: after the job's output is where it belongs, on the disk or written to the standard
output. A run that is killed in between does that job again, which is the lesser evil.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from procreactor.apps.cli.recordfile import RecordFile
from procreactor.apps.cli.records import JobLogError

__all__ = [
    "HEADER",
    "JobLog",
    "ResumeState",
    "format_line",
    "read_log",
]

HEADER = b"Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"

_LINE = rb"(\d{1,18})\t[^\t]+(?:\t *-?[\d.]+){2}(?:\t *-?\d+){2}\t *(-?\d+)\t *(-?\d+)\t([^\n]*)\n"
_ZERO = rb"-?0+"


def format_line(
    seq: int,
    host: str,
    start_s: float,
    runtime_s: float,
    sent_bytes: int,
    received_bytes: int,
    exit_code: int,
    signal: int,
    command: bytes,
) -> bytes:
    """Return the line of a job; *start_s* counts from 1970."""
    numbers = f"{seq}\t{host}\t{start_s:.3f}\t{runtime_s:10.3f}\t{sent_bytes}\t{received_bytes}"
    line = f"{numbers}\t{exit_code}\t{signal}\t".encode("utf-8", "surrogateescape")
    return line + command.replace(b"\n", b"\0") + b"\n"


class JobLog:
    """Writes the log at *path*: a new one, or with *append* what is there goes on.

    A log that is empty gets its header. Half a line at the end, of a run that died, is cut off.
    OSError names the file; so do the later ones.
    """

    def __init__(self, path: str, *, append: bool) -> None:
        self._file = RecordFile(path, append=append)
        if self._file.is_empty:
            try:
                self._file.write(HEADER)
            except BaseException:
                self._file.close()
                raise

    def record(
        self,
        seq: int,
        host: str,
        start_s: float,
        runtime_s: float,
        sent_bytes: int,
        received_bytes: int,
        exit_code: int,
        signal: int,
        command: bytes,
    ) -> None:
        """Add the line of a job that has ended, whole, in one write.

        OSError names the file: the line is kept, and written before the next one, by `retry`, or
        shown by who asks for `unwritten`. Nothing of it is in the file.
        """
        self._file.write(
            format_line(
                seq,
                host,
                start_s,
                runtime_s,
                sent_bytes,
                received_bytes,
                exit_code,
                signal,
                command,
            )
        )

    def retry(self) -> None:
        """Write what could not be written before; OSError as `record`."""
        self._file.retry()

    @property
    def unwritten(self) -> list[bytes]:
        """The lines that could not be written, oldest first."""
        return self._file.unwritten

    def close(self) -> None:
        """Let go of the file; OSError names it. Idempotent."""
        self._file.close()


_PAGE_BITS = 12
_PAGE_MASK = (1 << _PAGE_BITS) - 1
_SUCCEEDED, _FAILED = 1, 2


class ResumeState:
    """What a log tells: for each job its last line, where it is, and whether it was a success.

    Eight bytes per job: a million of them take 8 MB. They are kept in pages, so a line with an
    absurd number costs a page, not all the numbers before it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pages: dict[int, array[int]] = {}
        self.succeeded = 0
        """How many jobs have succeeded."""

        self.failed = 0
        """How many jobs have failed."""

    def note(self, seq: int, at: int, ok: bool) -> None:
        """Take a line into account: that of job *seq*, *at* so many bytes from the file's start."""
        page = self._pages.get(seq >> _PAGE_BITS)
        if page is None:
            page = self._pages[seq >> _PAGE_BITS] = array("Q", bytes(8 << _PAGE_BITS))
        self._count(page[seq & _PAGE_MASK] & 3, -1)
        mark = _SUCCEEDED if ok else _FAILED
        page[seq & _PAGE_MASK] = at << 2 | mark
        self._count(mark, 1)

    def is_recorded(self, seq: int) -> bool:
        """Tell whether job *seq* has ended, well or badly."""
        return self._entry(seq) != 0

    def has_failed(self, seq: int) -> bool:
        """Tell whether job *seq* has ended badly."""
        return self._entry(seq) & 3 == _FAILED

    def should_run(self, seq: int, *, failed_again: bool) -> bool:
        """Tell whether --resume (with *failed_again*: --resume-failed) runs job *seq*."""
        entry = self._entry(seq) & 3
        return not entry or (failed_again and entry == _FAILED)

    def failed_commands(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and command of each job that has failed, by number: for --retry-failed.

        Read from the file as they are asked for; it may grow meanwhile.
        """
        if not self.failed:
            return
        with open(self._path, "rb") as file:
            for seq, at in self._failures():
                file.seek(at)
                yield seq, _command(file.readline())

    def _failures(self) -> Iterator[tuple[int, int]]:
        for number in sorted(self._pages):
            for index, entry in enumerate(self._pages[number]):
                if entry & 3 == _FAILED:
                    yield number << _PAGE_BITS | index, entry >> 2

    def _entry(self, seq: int) -> int:
        page = self._pages.get(seq >> _PAGE_BITS)
        return 0 if page is None else page[seq & _PAGE_MASK]

    def _count(self, mark: int, by: int) -> None:
        if mark == _SUCCEEDED:
            self.succeeded += by
        elif mark == _FAILED:
            self.failed += by


def read_log(path: str) -> ResumeState:
    """Return what the log at *path*, ours or GNU parallel's, tells; of none: that nothing was done.

    Half a line at the end is no line. JobLogError: some other line is not one of a log, and to
    guess would be to run wrong commands. OSError.
    """
    state = ResumeState(path)
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return state
    with file:
        _note_lines(state, file, path)
    return state


def _note_lines(state: ResumeState, file: BinaryIO, path: str) -> None:
    first = file.readline()
    at = 0
    lines: Iterator[bytes] = file
    if first.startswith(b"Seq\t"):
        at = len(first)
    else:
        lines = chain([first] if first else [], file)
    for number, line in enumerate(lines, 2 if at else 1):
        found = re.fullmatch(_LINE, line)
        if found is not None:
            ok = _is_zero(found[2]) and _is_zero(found[3])
            state.note(int(found[1]), at, ok)
        elif line.endswith(b"\n"):
            raise JobLogError(
                f"{path}, line {number}: not nine columns of a job log: {line[:80]!r}"
            )
        at += len(line)


def _is_zero(number: bytes) -> bool:
    return re.fullmatch(_ZERO, number) is not None


def _command(line: bytes) -> bytes:
    found = re.fullmatch(_LINE, line)
    if found is None:
        raise JobLogError(f"the job log has changed while it was read: {line[:80]!r}")
    return found[4].replace(b"\0", b"\n")
