"""What an epoll set watches, as the kernel lists it.

The list is of interests, not of numbers: it shows one whose number was closed while a copy of its
file is open elsewhere, of which neither the loop's own bookkeeping nor a close knows.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import PROC

__all__ = ["by_others", "watched_by_kernel"]

ALWAYS = select.EPOLLERR | select.EPOLLHUP
"""What every interest has, asked for or not."""


def watched_by_kernel(epoll_fd: int) -> dict[int, int]:
    """Return the events, without `ALWAYS`, by the number that each fd had when it was added."""
    text = Path(f"{PROC}/self/fdinfo/{epoll_fd}").read_text()
    rows = re.findall(r"^tfd: +(\d+) events: +([0-9a-f]+) ", text, re.MULTILINE)
    if not rows:
        _skip_unless_listed()
    found = {int(fd): int(events, 16) for fd, events in rows}
    assert len(found) == len(rows), f"a number twice: {rows}"
    assert all(events & ALWAYS == ALWAYS for events in found.values()), rows
    return {fd: events & ~ALWAYS for fd, events in found.items()}


def _skip_unless_listed() -> None:
    with select.epoll() as one, select.epoll() as other:
        one.register(other)
        if "tfd:" not in Path(f"{PROC}/self/fdinfo/{one.fileno()}").read_text():
            pytest.skip("the fds of an epoll set are not listed here")


@contextmanager
def by_others(epoll_fd: int) -> Iterator[select.epoll]:
    """The same set through an fd of its own, for one who adds to it behind the owner's back."""
    with select.epoll.fromfd(os.dup(epoll_fd)) as same:
        yield same
