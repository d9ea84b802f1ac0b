"""Bytes to and from children: one module per library, each with the capabilities that it has.

A capability is a function of the module, described by a protocol below; a module that lacks one
has no such function, and the suite leaves the cell empty. All of them

- start the program *argv* (searched in PATH) with pipes for just the standard streams that the work
  needs, the rest inherited, so that no library pays for a pipe that another does not make;
- run one library's loop for the work, and leave no child and no fd behind when it is done;
- raise `WrongResult` when a child does not end with exit status 0, or what came is not what was
  sent. How much came is returned: the workload knows how much it must be;
- return the seconds from the start of the first child to the last exit that was told, unless they
  say otherwise.

They do the work as a program on that library would: its own reads, its own flow control, its own
lines. Only the blocking loops and the C programs of the limit choose their buffers themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

__all__ = [
    "READ_BYTES",
    "PlaysPingPong",
    "ReadsAll",
    "ReadsLines",
    "ReadsStreams",
    "WritesAll",
    "WrongResult",
    "check_count",
    "check_exit",
    "pieces_of",
    "wrong_echo",
    "wrong_exit",
]

READ_BYTES = 65536
"""One read where the program chooses: what a pipe holds unless it is grown (pipe(7))."""


class WrongResult(Exception):  # noqa: N818 - the word says more than "Error" would
    """The work was not done as it must be; its time means nothing."""


class ReadsAll(Protocol):
    """Reads one child's standard output to its end."""

    def read_all(self, argv: Sequence[str]) -> tuple[float, int]:
        """Return the seconds and the bytes that came. No byte is looked at, nor kept."""


class WritesAll(Protocol):
    """Feeds one child's standard input."""

    def write_all(self, argv: Sequence[str], total_bytes: int, chunk_bytes: int) -> float:
        """Return the seconds for *total_bytes* zeros, given in chunks, and then the end of file.

        No more than the library's own flow control allows is ever queued in this process.
        """


class ReadsLines(Protocol):
    """Splits one child's standard output into lines."""

    def read_lines(self, argv: Sequence[str]) -> tuple[float, int]:
        """Return the seconds and the lines; each has been an object in the hand of Python code."""


class PlaysPingPong(Protocol):
    """One byte to a child that echoes it, and back; then the next."""

    def ping_pong(self, argv: Sequence[str], rounds: int) -> float:
        """Return the seconds of *rounds* rounds, after a first one that is not counted.

        So neither the start nor the end of the child is in them.
        """


class ReadsStreams(Protocol):
    """Reads many children's standard output at once."""

    def read_streams(self, argv: Sequence[str], count: int) -> tuple[float, int]:
        """Return the seconds and the bytes of all *count* children.

        All are started before the first is read, so that all are alive at once if each writes more
        than a pipe holds, and more than the library reads ahead.
        """


def pieces_of(total_bytes: int, chunk_bytes: int) -> Iterator[bytes]:
    """Yield *total_bytes* zeros in chunks: one object again and again, and a shorter last one."""
    chunk = bytes(chunk_bytes)
    for _ in range(total_bytes // chunk_bytes):
        yield chunk
    if total_bytes % chunk_bytes:
        yield bytes(total_bytes % chunk_bytes)


def check_count(what: str, wanted: int, came: int) -> None:
    """Raise `WrongResult` unless as much *came* as was *wanted*."""
    if came != wanted:
        raise WrongResult(f"{came} {what} came, not {wanted}")


def check_exit(argv: Sequence[str], status: int | None) -> None:
    """Raise `WrongResult` unless *status*, of whatever form, is 0."""
    if status != 0:
        raise wrong_exit(argv, status)


def wrong_exit(argv: Sequence[str], status: int | None) -> WrongResult:
    """Return what to raise when a child ended with *status*."""
    return WrongResult(f"{argv[0]} ended with {status!r}, not with exit status 0")


def wrong_echo(sent: bytes, came: bytes) -> WrongResult:
    """Return what to raise when a child gave back something else."""
    return WrongResult(f"the child sent {came!r} back for {sent!r}")
