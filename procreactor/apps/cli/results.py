"""Where --results puts what jobs wrote: a tree of files, or one file with a record per job.

Which one the name says: ``.jsonl`` or ``.json``, ``.csv``, ``.tsv``, in letters of either case; any
other name is a directory. Just ``-.jsonl`` and the like are records on the standard output.

**The tree** is GNU parallel's: ``DIR/1/value/stdout``, ``stderr`` and ``seq``, with a directory for
the number (with --header the name) of each input source and one for the value, in which ``\\``,
tab and ``/`` are written ``\\\\``, ``\\t`` and ``\\_``. Of several records (-N2) each begins anew
with the first source: ``DIR/1/a/1/b``. Where DIR has replacement strings, the replaced name is the
directory when it ends in ``/``, else the file for stdout, beside ``.err`` and ``.seq``. We differ:

- ``seq`` is written when the job has ended, not when it starts: so it says that the others are
  whole, also after a SIGKILL, and `ResultSink.has` asks for it.
- A value of ``.`` or ``..`` is ``\\.`` or ``\\..``: it must not lead out of the tree.
- A job that gets no values (-N0) has ``DIR/job/NUMBER``. (GNU parallel has one place for all of
  them, where the last leaves what it wrote, and --resume takes all for done.)
- A value longer than a file name may be ends in a hash; cut alone, two could share one directory.

Output goes to the files as it comes, so its size does not matter.

**CSV and TSV** are GNU parallel's: its nine columns, the values (V1, V2 ..., or their names),
Stdout and Stderr, in bytes as they came.

**JSON lines** are GNU parallel's .json: an object a line, with its names. A text that is not UTF-8
is an object with its ``base64``, whatever stands there: ``{"base64": "/w=="}``. With a limit, what
was left out of the middle of an output is counted by ``StdoutDropped`` and ``StderrDropped``.

A record is one write (recordfile.py), so the output of each job that runs is in memory, all of it
unless there is a limit.

Errors: a sink raises nothing, because it is called from the loop; what went wrong is raised by
`ResultSink.store`, and names the file. A job whose result is not stored belongs in no job log, so
that it is run again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from procreactor.apps.cli.options import RESULTS_KINDS, results_kind
from procreactor.apps.cli.recordfile import RecordFile, end_of_whole_lines, end_of_whole_rows
from procreactor.apps.cli.records import JobName, JobRecord, ResultSink, Sink
from procreactor.streams.collect import Collector

__all__ = ["open_results", "value_directory"]


def open_results(
    path: str,
    *,
    append: bool = False,
    names: Sequence[bytes] = (),
    limit_bytes: int | None = None,
) -> ResultSink:
    """Return the sink that *path* means.

    *append* keeps the records that are there. *names* are those of the input sources (--header).
    *limit_bytes* bounds what is kept of each output, where it is part of a record. OSError.
    """
    kind = results_kind(os.fsencode(path))
    if kind == "jsonl":
        return _FileResults(path, _JsonFormat(), append, limit_bytes)
    if kind in ("csv", "tsv"):
        separator = b"," if kind == "csv" else b"\t"
        return _FileResults(path, _CsvFormat(separator, names), append, limit_bytes)
    return _DirectoryResults(os.fsencode(path), names)


# --- One file -------------------------------------------------------------------------------------


class _Format(Protocol):
    find_end: Callable[..., int]

    def record(self, record: JobRecord, out: Collector, err: Collector, is_first: bool) -> bytes:
        """What to write for one job."""


class _FileResults:
    """A `ResultSink` of one file, in a format."""

    def __init__(self, path: str, form: _Format, append: bool, limit_bytes: int | None) -> None:
        is_standard = path.startswith("-") and os.fsencode(path[1:]) in RESULTS_KINDS
        name = "-" if is_standard else path
        self._file = RecordFile(name, append=append, find_end=form.find_end)
        self._is_empty = self._file.is_empty
        self._form = form
        self._limit_bytes = limit_bytes
        self._open: dict[int, tuple[Collector, Collector]] = {}

    def new_sinks(self, name: JobName) -> tuple[Sink, Sink]:
        """Return new collectors."""
        sinks = Collector(self._limit_bytes), Collector(self._limit_bytes)
        self._open[name.seq] = sinks
        return sinks

    def store(self, record: JobRecord) -> None:
        """Write the record of a job; a failed one is kept, and written before the next one."""
        out, err = self._open.pop(record.name.seq)
        data = self._form.record(record, out, err, self._is_empty)
        self._is_empty = False
        self._file.write(data)

    def discard(self, name: JobName) -> None:
        """Forget what was collected."""
        self._open.pop(name.seq, None)

    def has(self, name: JobName) -> bool:
        """Return False: only the job log knows (GNU parallel does not look either)."""
        return False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def unwritten(self) -> list[bytes]:
        """The records that could not be written."""
        return self._file.unwritten


class _JsonFormat:
    find_end = staticmethod(end_of_whole_lines)

    def record(self, record: JobRecord, out: Collector, err: Collector, is_first: bool) -> bytes:
        fields = {
            "Seq": record.name.seq,
            "Host": record.host,
            "Starttime": round(record.start_s, 3),
            "JobRuntime": round(record.runtime_s, 3),
            "Send": record.sent_bytes,
            "Receive": record.received_bytes,
            "Exitval": record.exit_code,
            "Signal": record.signal,
            "Command": _json_text(record.command),
            "V": [_json_text(value) for value in record.name.values],
            "Stdout": _json_text(out.getvalue()),
            "Stderr": _json_text(err.getvalue()),
        }
        for key, collected in (("StdoutDropped", out), ("StderrDropped", err)):
            if collected.dropped:
                fields[key] = collected.dropped
        # ensure_ascii: U+2028 and a lone CR are line ends to some readers of lines.
        return json.dumps(fields, ensure_ascii=True).encode("ascii") + b"\n"


def _json_text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


class _CsvFormat:
    find_end = staticmethod(end_of_whole_rows)

    def __init__(self, separator: bytes, names: Sequence[bytes]) -> None:
        self._separator = separator
        self._names = names
        # Perl's \s, the separator and NUL, as combine_ref() of GNU parallel has it.
        self._quoted = re.compile(rb'[\s\0"' + re.escape(separator) + rb"]")

    def record(self, record: JobRecord, out: Collector, err: Collector, is_first: bool) -> bytes:
        values = record.name.values
        seconds = [b"%.3f" % record.start_s, b"%.3f" % record.runtime_s]
        counts = (record.sent_bytes, record.received_bytes, record.exit_code, record.signal)
        fields = [b"%d" % record.name.seq, os.fsencode(record.host), *seconds]
        fields += [b"%d" % count for count in counts]
        row = self._row([*fields, record.command, *values, out.getvalue(), err.getvalue()])
        return self._header(len(values)) + row if is_first else row

    def _header(self, count: int) -> bytes:
        columns = b"Seq Host Starttime JobRuntime Send Receive Exitval Signal Command".split()
        numbered = [b"V%d" % number for number in range(1, count + 1)]
        names = [*self._names, *numbered[len(self._names) :]][:count]
        return self._row([*columns, *names, b"Stdout", b"Stderr"])

    def _row(self, fields: Sequence[bytes]) -> bytes:
        return self._separator.join(map(self._field, fields)) + b"\n"

    def _field(self, data: bytes) -> bytes:
        if not self._quoted.search(data):
            return data
        return b'"' + data.replace(b'"', b'""') + b'"'


# --- A tree of files ------------------------------------------------------------------------------

_NAME_MAX = 255
_HASH_BYTES = 8
_LEADING_NUMBER = re.compile(rb"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")


def value_directory(name: JobName, names: Sequence[bytes] = ()) -> bytes:
    """Return the path below DIR for a job's values, with a directory per source and per value.

    Sources are sorted by the number at the start of their name, then by name, as in GNU parallel.
    """
    if not name.values:
        return b"job/%d" % name.seq
    pieces: list[bytes] = []
    start = 0
    for width in name.widths or (len(name.values),):
        values = name.values[start : start + width]
        start += width
        keys = [names[i] if i < len(names) else b"%d" % (i + 1) for i in range(len(values))]
        for i in sorted(range(len(values)), key=lambda i: (_number(keys[i]), keys[i])):
            pieces += (_file_name(keys[i]), _file_name(values[i]))
    return b"/".join(piece for piece in pieces if piece)


def _number(key: bytes) -> float:
    """What Perl takes *key* for, as a number."""
    found = _LEADING_NUMBER.match(key)
    return float(found[1]) if found else 0.0


def _file_name(value: bytes) -> bytes:
    name = value.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"/", b"\\_")
    if name in (b".", b".."):
        return b"\\" + name
    if len(name) > _NAME_MAX:
        digest = hashlib.blake2b(name, digest_size=_HASH_BYTES).hexdigest().encode("ascii")
        return name[: _NAME_MAX - len(digest) - 1] + b"-" + digest
    return name


@dataclass(frozen=True, slots=True)
class _Paths:
    out: bytes
    err: bytes
    seq: bytes


class _DirectoryResults:
    """A `ResultSink` of a tree of files."""

    def __init__(self, directory: bytes, names: Sequence[bytes]) -> None:
        self._directory = directory
        self._names = tuple(names)
        self._open: dict[int, tuple[_FileSink, _FileSink]] = {}

    def new_sinks(self, name: JobName) -> tuple[Sink, Sink]:
        """Open the files of a job, empty."""
        self.discard(name)
        paths = self._paths(name)
        os.makedirs(os.path.dirname(paths.out) or b".", exist_ok=True)
        try:
            os.unlink(paths.seq)  # what is there is not whole from now on
        except FileNotFoundError:
            pass
        out = _FileSink(paths.out)
        try:
            err = _FileSink(paths.err)
        except BaseException:
            out.close()
            raise
        self._open[name.seq] = out, err
        return out, err

    def store(self, record: JobRecord) -> None:
        """Close the files of a job, and write its number beside them."""
        sinks = self._open.pop(record.name.seq)
        for sink in sinks:
            sink.close()
        for sink in sinks:
            if sink.error is not None:
                raise sink.error
        seq = _FileSink(self._paths(record.name).seq)
        seq.append(b"%d" % record.name.seq)
        seq.close()
        if seq.error is not None:
            raise seq.error

    def discard(self, name: JobName) -> None:
        """Close the files; what is in them stays, without a number beside it."""
        for sink in self._open.pop(name.seq, ()):
            sink.close()

    def has(self, name: JobName) -> bool:
        """Tell whether the number of a job lies beside its output."""
        paths = self._paths(name)
        try:
            return os.stat(paths.seq).st_size > 0 and os.path.exists(paths.out)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        """Close the files of the jobs that were not stored."""
        while self._open:
            for sink in self._open.popitem()[1]:
                sink.close()

    @property
    def unwritten(self) -> list[bytes]:
        """Return nothing: there are no records."""
        return []

    def _paths(self, name: JobName) -> _Paths:
        place = name.place
        if place is None:
            place = os.path.join(self._directory, value_directory(name, self._names), b"")
        if place.endswith(b"/"):
            return _Paths(place + b"stdout", place + b"stderr", place + b"seq")
        return _Paths(place, place + b".err", place + b".seq")


class _FileSink:
    """A new file at *path* that takes what is appended; `error` is what went wrong, if anything.

    After an error nothing more is written. The constructor raises OSError.
    """

    __slots__ = ("_fd", "_path", "error")

    def __init__(self, path: bytes) -> None:
        self._path = path
        self.error: OSError | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o666)

    def append(self, data: bytes) -> None:
        """Write *data*, unless an error came before."""
        if self._fd < 0 or self.error is not None:
            return
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                written += self._write_rest(data, written)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Close the file; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:
                self._fail(error)

    def _write_rest(self, data: bytes, written: int) -> int:
        return os.write(self._fd, memoryview(data)[written:])

    def _fail(self, error: OSError) -> None:
        if self.error is None:
            self.error = OSError(error.errno, error.strerror, os.fsdecode(self._path))
