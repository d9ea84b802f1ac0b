"""A file of records that is only ever added to, each record whole.

Facts:

- A write(2) to a file with O_APPEND goes to its end, whoever else writes to it. It is whole unless
  the disk is full, a limit is reached (RLIMIT_FSIZE), or SIGKILL comes between two pages of it:
  the kernel looks for a fatal signal at each (generic_perform_write). So a record is one write,
  and still the last one of a file may be torn.
- A torn record is worse than none: ``12`` may be all that is left of ``1234``, and half a command
  is another command. So it is cut off: at once when the write fails, and where we died ourselves,
  before the next run adds to the file. Its job is then one that was not recorded, and runs again.
- Nothing is synced: a record survives the death of this process, not that of the machine.

A record that could not be written is kept, and goes first next time: when there is room again
nothing is missing. What is left at the end the owner can still show (`RecordFile.unwritten`).
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from typing import BinaryIO

__all__ = ["RecordFile", "end_of_whole_lines", "end_of_whole_rows"]

_LOOK_BACK_BYTES = 65536


def end_of_whole_lines(file: BinaryIO) -> int:
    """Return where the last line of *file* that has a line feed ends."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        start = max(at - _LOOK_BACK_BYTES, 0)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def end_of_whole_rows(file: BinaryIO) -> int:
    """Return where the last whole row of *file* ends, in which quoted fields hold line feeds.

    Reads all of it: whether a line feed is inside of quotes shows only from the start.
    """
    file.seek(0)
    at = end = 0
    is_quoted = False
    for line in file:
        at += len(line)
        is_quoted ^= line.count(b'"') % 2 == 1
        if not is_quoted and line.endswith(b"\n"):
            end = at
    return end


class RecordFile:
    """Opens *path* to add records; all that was there is gone unless *append*.

    With *append*, *find_end* says where the whole records of what is there end; what follows them
    is cut off. The path ``-`` is the standard output. OSError names the file, here and later.
    """

    def __init__(
        self,
        path: str,
        *,
        append: bool,
        find_end: Callable[[BinaryIO], int] = end_of_whole_lines,
    ) -> None:
        self.name = path
        self._waiting: list[bytes] = []
        self._fd = _open(path, append)
        try:
            status = os.fstat(self._fd)
            self._can_cut = path != "-" and stat.S_ISREG(status.st_mode)
            self.is_empty = not (self._can_cut and status.st_size)
            if not self.is_empty:
                self._cut_torn(find_end)
        except BaseException:
            self.close()
            raise

    def write(self, record: bytes) -> None:
        """Add *record* in one write, after those that could not be written before.

        OSError (ENOSPC, EFBIG, EIO ...): it is kept for the next call, and nothing of it is there.
        """
        self._waiting.append(record)
        self.retry()

    def retry(self) -> None:
        """Write the records that could not be written before; OSError as `write`."""
        while self._waiting:
            self._write(self._waiting[0])
            del self._waiting[0]

    @property
    def unwritten(self) -> list[bytes]:
        """The records that could not be written, oldest first."""
        return list(self._waiting)

    def close(self) -> None:
        """Let go of the file; idempotent. OSError (NFS: EIO, ENOSPC); it is closed all the same."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:
                raise self._named(error) from error

    def _write(self, record: bytes) -> None:
        written = 0
        try:
            while written < len(record):
                written += self._write_some(record[written:] if written else record)
        except OSError as error:
            self._take_back(written)
            raise self._named(error) from error

    def _write_some(self, data: bytes) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                _wait_writable(self._fd)

    def _take_back(self, written: int) -> None:
        """Cut off the *written* bytes of a record, the last of the file; or end their line.

        What others have added behind them in the meantime is theirs and stays.
        """
        if not written:
            return
        end = os.lseek(self._fd, 0, os.SEEK_CUR) if self._can_cut else -1
        if self._can_cut and end == os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, end - written)
        else:
            self._waiting[0] = b"\n" + self._waiting[0].removeprefix(b"\n")

    def _cut_torn(self, find_end: Callable[[BinaryIO], int]) -> None:
        with open(self.name, "rb") as file:
            end = find_end(file)
            size = file.seek(0, os.SEEK_END)
        if end < size:
            os.ftruncate(self._fd, end)
        self.is_empty = end == 0

    def _named(self, error: OSError) -> OSError:
        name = "standard output" if self.name == "-" else self.name
        return OSError(error.errno, error.strerror, name)


def _open(path: str, append: bool) -> int:
    if path == "-":
        return os.dup(1)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.open(path, flags if append else flags | os.O_TRUNC, 0o666)


def _wait_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
