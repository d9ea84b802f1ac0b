"""Which signals a child has to reset: never one too few, and no handler kept."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator

import pytest
from alone import alone

from procreactor.core import binding
from procreactor.kernel import dispositions


def bit(number: int) -> int:
    return 1 << (number - 1)


@pytest.fixture
def usr1_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_what_python_ignores_from_the_start_is_always_in() -> None:
    assert dispositions.ignored_now() & bit(signal.SIGPIPE)
    assert dispositions.ignored_now() & bit(signal.SIGXFSZ)


@pytest.mark.usefixtures("usr1_ignored")
def test_what_is_ignored_since_is_in() -> None:
    assert dispositions.ignored_now() & bit(signal.SIGUSR1)


def test_what_is_no_longer_ignored_is_out_again(usr1_ignored: None) -> None:
    assert dispositions.ignored_now() & bit(signal.SIGUSR1)
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert not dispositions.ignored_now() & bit(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def masks_around_learning() -> list[bool]:
    """With a signal that the kernel knows to be ignored, and Python's table does not."""
    dispositions.learn()
    ctypes.CDLL(None).signal(signal.SIGRTMAX, ctypes.c_void_p(1))
    assert binding.ignored_signals() & bit(signal.SIGRTMAX)
    before = bool(dispositions.ignored_now() & bit(signal.SIGRTMAX))
    dispositions.learn()
    return [before, bool(dispositions.ignored_now() & bit(signal.SIGRTMAX))]


def test_what_c_code_ignores_is_in_once_it_is_learnt() -> None:
    assert alone(masks_around_learning) == [False, True]


def test_one_that_waits_resets_all_but_the_real_time_ones() -> None:
    waiting = dispositions.ignored_until_begun()
    assert waiting & dispositions.ignored_now() == dispositions.ignored_now()
    assert all(waiting & bit(number) for number in range(1, 32))
