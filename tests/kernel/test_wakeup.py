"""A fd that threads and signals make readable."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from procreactor.kernel.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    made = Wakeup()
    yield made
    made.close()


def is_readable(fd: int, timeout_s: float = 0) -> bool:
    return bool(select.select([fd], [], [], timeout_s)[0])


def test_it_is_readable_from_wake_until_drain(wakeup: Wakeup) -> None:
    assert not is_readable(wakeup.fileno())
    wakeup.wake()
    assert is_readable(wakeup.fileno())
    wakeup.drain()
    assert not is_readable(wakeup.fileno())


def test_many_wakes_are_one_drain(wakeup: Wakeup) -> None:
    for _ in range(10_000):
        wakeup.wake()
    wakeup.drain()
    assert not is_readable(wakeup.fileno())


def test_a_full_pipe_is_awake_already(wakeup: Wakeup) -> None:
    size = fcntl.fcntl(wakeup.write_fd, fcntl.F_GETPIPE_SZ)
    os.write(wakeup.write_fd, b"\0" * size)
    wakeup.wake()
    wakeup.drain()
    assert not is_readable(wakeup.fileno())


def test_draining_what_is_not_awake_does_not_wait(wakeup: Wakeup) -> None:
    wakeup.drain()


@pytest.mark.needs("threads")
def test_another_thread_ends_a_wait(wakeup: Wakeup) -> None:
    thread = threading.Thread(target=wakeup.wake)
    thread.start()
    assert is_readable(wakeup.fileno(), 30)
    thread.join()


def test_a_signal_makes_it_readable_through_set_wakeup_fd(wakeup: Wakeup) -> None:
    handler = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    before = signal.set_wakeup_fd(wakeup.write_fd)
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert is_readable(wakeup.fileno(), 30)
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGUSR1, handler)


def test_neither_end_is_inherited_or_blocks(wakeup: Wakeup) -> None:
    for fd in (wakeup.fileno(), wakeup.write_fd):
        assert not os.get_inheritable(fd)
        assert not os.get_blocking(fd)
