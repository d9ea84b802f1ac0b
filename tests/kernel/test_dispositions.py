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


CANNOT_BE_IGNORED = {signal.SIGKILL, signal.SIGSTOP}
RAISED_BY_A_FAULT = {
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGSEGV,
    signal.SIGSYS,
}


def test_one_that_waits_resets_all_standard_signals_that_can_be_ignored_to_some_effect() -> None:
    dispositions.ignored_now()
    waiting = dispositions.ignored_until_begun()
    assert waiting & dispositions.ignored_now() == dispositions.ignored_now()
    standard = set(range(1, 32)) - CANNOT_BE_IGNORED - RAISED_BY_A_FAULT
    assert all(waiting & bit(number) for number in standard)
    assert not any(waiting & bit(number) for number in CANNOT_BE_IGNORED)


def masks_of_one_that_waits() -> list[list[bool]]:
    """Of signals that are ignored by Python, and by C code, before and after it is learnt."""
    others = (signal.SIGSEGV, signal.SIGRTMIN + 3, signal.SIGRTMAX)

    def found() -> list[bool]:
        waiting = dispositions.ignored_until_begun()
        return [bool(waiting & bit(number)) for number in others]

    rows = [found()]
    signal.signal(signal.SIGSEGV, signal.SIG_IGN)
    signal.signal(signal.SIGRTMIN + 3, signal.SIG_IGN)
    dispositions.ignored_now()  # as a child that is started at once does
    rows.append(found())
    ctypes.CDLL(None).signal(signal.SIGRTMAX, ctypes.c_void_p(1))
    dispositions.learn()  # as a new loop does
    rows.append(found())
    return rows


def test_of_the_others_one_that_waits_resets_what_is_known_to_be_ignored() -> None:
    assert alone(masks_of_one_that_waits) == [
        [False, False, False],
        [True, True, False],
        [True, True, True],
    ]
