"""What the command keeps of its jobs: their names, how they ended, and who stores what they wrote.

The vocabulary alone: how --results and --joblog store it, results.py and joblog.py know, which
most runs never load.
"""

from __future__ import annotations

import os

from procreactor.typed import NamedTuple, Protocol

__all__ = ["LOCAL_HOST", "JobLogError", "JobName", "JobRecord", "ResultSink", "Sink", "text_of"]

LOCAL_HOST = ":"
"""What logs and records call this machine."""


class JobLogError(ValueError):
    """A log that is none: the message names the file, the line and what was expected there."""


def text_of(error: Exception) -> str:
    """Return what *error* says, the names of files in it as text, as they were given."""
    if isinstance(error, OSError) and isinstance(error.filename, bytes):
        return f"[Errno {error.errno}] {error.strerror}: {os.fsdecode(error.filename)!r}"
    return str(error)


class JobName(NamedTuple):
    """What tells one job from another."""

    seq: int
    values: tuple[bytes, ...]
    """Those of all input sources, in order; of several records, one after the other."""

    widths: tuple[int, ...] = ()
    """How many of the values each record has, where there may be several; else nothing."""

    place: bytes | None = None
    """The name given to --results, replaced, where it has replacement strings."""


class JobRecord(NamedTuple):
    """A job that has ended; the fields are those of the job log."""

    name: JobName
    host: str
    start_s: float
    runtime_s: float
    sent_bytes: int
    received_bytes: int
    exit_code: int
    signal: int
    command: bytes


class Sink(Protocol):
    """Where the bytes of one stream go."""

    def append(self, data: bytes, /) -> object:
        """Take *data* as the next bytes of the stream."""


class ResultSink(Protocol):
    """Stores what jobs wrote, and how they ended."""

    def new_sinks(self, name: JobName) -> tuple[Sink, Sink]:
        """Return sinks for stdout and stderr of a job that starts, or starts again.

        OSError names the file.
        """

    def store(self, record: JobRecord) -> None:
        """Have the result of a job, whose sinks have all there is, where it belongs.

        OSError names the file.
        """

    def discard(self, name: JobName) -> None:
        """Forget a job that was started and will not be stored, as far as it is not on the disk."""

    def has(self, name: JobName) -> bool:
        """Tell whether an earlier run has stored this job; where nobody can know, False."""

    def close(self) -> None:
        """Let go of all files; OSError names one. Idempotent."""

    @property
    def unwritten(self) -> list[bytes]:
        """Records that could not be written, oldest first."""
