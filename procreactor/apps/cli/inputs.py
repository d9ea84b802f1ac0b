"""From a plan of sources to the values of each job, read as they are asked for.

Facts (read(2), pipe(7)): a read from a pipe gives what is there, down to a byte, and waits only
when there is nothing; 64 KiB is what a pipe holds. So a record is handed out as soon as its
delimiter has come, and a fast producer costs one read and one split per 64 KiB.

* Items are lines, without their newline; the newline of the last may be missing. Nothing else is
  special: no quotes, no backslashes, no blanks (xargs takes those apart, unless -0 or -d is given;
  GNU parallel does not). Every other byte is kept. An empty line is an empty item.
* Of an endless source only a chunk is in memory, and what an unfinished item has so far.
* An item with a NUL cannot be an argument of a program: InputError names it in its turn, after all
  items before it have been handed out.
* No input means no job, as in GNU parallel. (xargs runs its command once.)
* Files are opened when their first item is asked for, and closed at their end, or by `close`.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Iterator

from procreactor.apps.cli import combine
from procreactor.apps.cli.combine import Item, Record, Step
from procreactor.apps.cli.plan import STANDARD_INPUT, InputPlan, Source
from procreactor.model import END, WOULD_BLOCK, NoData
from procreactor.streams.lines import LineSplitter

__all__ = ["InputError", "Inputs", "records"]

_CHUNK_BYTES = 1 << 16


class InputError(Exception):
    """An input cannot be read, or holds what cannot be an argument; says which, and why."""


class Inputs:
    """The records of *plan*. Iterate over them, which may block, or ask with `try_next`.

    *fits* is asked whether a job may get so many values (combine.py). With *reads_first* there is
    no record before all have been read. *stdin_fd* is what stands for standard input; it is never
    closed.
    """

    def __init__(
        self,
        plan: InputPlan,
        *,
        fits: Callable[[Record], bool] | None = None,
        reads_first: bool = False,
        stdin_fd: int = 0,
    ) -> None:
        stdin_count = sum(source.path == STANDARD_INPUT for source in plan.sources)
        if stdin_count > 1:
            raise InputError("standard input is named twice among the inputs")
        self._patience = _Patience()
        self._readers: list[_Reader] = []
        self._stdin_fd = stdin_fd
        self.total: int | None = None
        """How many records there are, once all that come first have been read."""

        self._steps = self._open(plan, fits)
        if reads_first:
            self._steps = _after_the_last(self._steps, self._count)

    @property
    def waits_for_fd(self) -> int | None:
        """The fd whose readiness `try_next` waited for when it last returned WOULD_BLOCK."""
        return self._patience.fd

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        self._patience.may_block = True
        step = next(self._steps)
        while step is WOULD_BLOCK:
            step = next(self._steps)
        return step

    def try_next(self) -> Record | NoData:
        """Return the next record, or WOULD_BLOCK where it has not come yet, or END. Never blocks.

        What has been read of a record that is not complete is kept.
        """
        self._patience.may_block = False
        return next(self._steps, END)

    def close(self) -> None:
        """Close the files that are open; there are no more records. A second call does nothing."""
        self._steps = iter(())
        for reader in self._readers:
            reader.close()

    def _open(self, plan: InputPlan, fits: Callable[[Record], bool] | None) -> Iterator[Step]:
        groups = [self._group(plan, group) for group in plan.groups]
        steps: Iterator[Step] = groups[0]
        if len(groups) > 1:
            again = map(combine.Replayed, groups[1:], plan.gone_through_again[1:])
            steps = combine.crossed([steps, *again])
        if plan.column_separator is not None:
            steps = combine.split_columns(steps, re.compile(plan.column_separator))
        if plan.trim != "n":
            steps = combine.trimmed(steps, "l" in plan.trim, "r" in plan.trim)
        if plan.shuffle:
            steps = _after_the_last(steps, _shuffle)
        return steps if plan.batch == 1 else combine.batched(steps, plan.batch, fits)

    def _count(self, found: list[Record]) -> None:
        self.total = len(found)

    def _group(self, plan: InputPlan, group: list[Source]) -> Iterator[Step]:
        items = [self._items(plan, source) for source in group]
        if len(items) == 1:
            return combine.singles(items[0])
        return combine.linked_round(items) if plan.link_all else combine.linked(items)

    def _items(self, plan: InputPlan, source: Source) -> Iterator[Item]:
        items: Iterator[Item]
        if source.path is None:
            items = iter(source.items)
        else:
            is_stdin = source.path == STANDARD_INPUT
            reader = _Reader(source.path, self._stdin_fd if is_stdin else None, self._patience)
            self._readers.append(reader)
            items = reader.items(plan.delimiter)
        if plan.end is not None:
            items = combine.until(items, plan.end)
        if plan.skip_blank or plan.continue_lines:
            items = combine.not_blank(items)
        return combine.continued(items) if plan.continue_lines else items


def records(plan: InputPlan, *, stdin_fd: int = 0) -> Iterator[Record]:
    """Yield the values of each job; waits for what is not there yet."""
    inputs = Inputs(plan, stdin_fd=stdin_fd)
    try:
        yield from inputs
    finally:
        inputs.close()


def _after_the_last(steps: Iterator[Step], see: Callable[[list[Record]], object]) -> Iterator[Step]:
    """Yield all records once the last has come, and *see* has had them, which may change them."""
    found: list[Record] = []
    for step in steps:
        if step is WOULD_BLOCK:
            yield step
        else:
            found.append(step)
    see(found)
    yield from found


def _shuffle(found: list[Record]) -> None:
    # Sorted by as many random bytes each: a fair shuffle, and the module random, which takes
    # longer to import than the rest of the program, is not needed.
    found.sort(key=lambda _: os.urandom(16))


# --- Files ----------------------------------------------------------------------------------------


class _Patience:
    """Whether readers may wait; and the fd of the one that would have to."""

    def __init__(self) -> None:
        self.may_block = True
        self.fd: int | None = None


class _Reader:
    """Reads one file; *fd* is given where it is open already, and then not ours to close."""

    def __init__(self, path: bytes, fd: int | None, patience: _Patience) -> None:
        self._name = "standard input" if fd is not None else os.fsdecode(path)
        self._path = path
        self._fd = fd
        self._ours: int | None = None
        self._is_closed = False
        self._patience = patience

    def close(self) -> None:
        """No byte is read from here on, whoever still holds an iterator."""
        self._is_closed = True
        ours, self._ours = self._ours, None
        if ours is not None:
            os.close(ours)

    def items(self, delimiter: bytes) -> Iterator[Item]:
        splitter = LineSplitter(delimiter)
        suspect = False  # a NUL has come, perhaps in an item that is not yet complete
        count = 0
        for chunk in self._chunks():
            if chunk is WOULD_BLOCK:
                yield chunk
                continue
            suspect = suspect or (delimiter != b"\0" and b"\0" in chunk)
            lines = splitter.feed(chunk)
            yield from self._checked(lines, count) if suspect else lines
            count += len(lines)
        if tail := splitter.tail:
            yield from self._checked([tail], count)

    def _checked(self, items: list[bytes], count: int) -> Iterator[bytes]:
        for number, item in enumerate(items, count + 1):
            if b"\0" in item:
                raise InputError(
                    f"record {number} of {self._name} holds a NUL byte, which no argument of a"
                    " program can; -0 reads records that end in NUL"
                )
            yield item

    def _chunks(self) -> Iterator[Item]:
        try:
            fd = self._fd if self._fd is not None else self._open()
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            while not self._is_closed:
                if not self._patience.may_block and not poll.poll(0):
                    self._patience.fd = fd
                    yield WOULD_BLOCK
                    continue
                try:
                    chunk = os.read(fd, _CHUNK_BYTES)
                except BlockingIOError:  # someone has made it non-blocking for us
                    if self._patience.may_block:
                        poll.poll()
                    continue
                if not chunk:
                    break
                yield chunk
        except OSError as error:
            raise InputError(f"cannot read {self._name}: {error.strerror}") from error
        finally:
            self.close()

    def _open(self) -> int:
        self._ours = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._ours
