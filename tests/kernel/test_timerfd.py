"""A deadline as an fd. Waiting is for the fd, never for a length of time."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Iterator

import pytest

from procreactor.kernel.timerfd import TimerFd


@pytest.fixture
def timer() -> Iterator[TimerFd]:
    made = TimerFd()
    yield made
    made.close()


def is_readable(timer: TimerFd, timeout_s: float = 0) -> bool:
    return bool(select.select([timer.fileno()], [], [], timeout_s)[0])


def test_a_new_timer_is_not_readable(timer: TimerFd) -> None:
    assert not is_readable(timer)


def test_it_becomes_readable_and_not_before_the_deadline(timer: TimerFd) -> None:
    deadline_s = time.monotonic() + 0.02
    timer.set(deadline_s)
    assert is_readable(timer, 30)
    assert time.monotonic() >= deadline_s


@pytest.mark.parametrize("deadline_s", [0.0, -5.0, 1e-12])
def test_a_deadline_in_the_past_is_readable_at_once(timer: TimerFd, deadline_s: float) -> None:
    timer.set(deadline_s)
    assert is_readable(timer, 30)


def test_none_is_never(timer: TimerFd) -> None:
    timer.set(0.0)
    assert is_readable(timer, 30)
    timer.set(None)
    assert not is_readable(timer)


def test_it_stays_readable_until_it_is_set_anew(timer: TimerFd) -> None:
    timer.set(0.0)
    assert is_readable(timer, 30)
    assert is_readable(timer)
    timer.set(time.monotonic() + 3600)
    assert not is_readable(timer)


@pytest.mark.parametrize("deadline_s", [2.0**40, 1e300, math.inf])
def test_a_deadline_beyond_the_kernels_clock_is_no_error(timer: TimerFd, deadline_s: float) -> None:
    timer.set(deadline_s)
    assert not is_readable(timer)


def test_it_is_not_inherited(timer: TimerFd) -> None:
    assert not os.get_inheritable(timer.fileno())
