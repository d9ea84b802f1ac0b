"""Closing: once, whatever the kernel says of it."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from alone import alone
from seccomp import deny, needs_seccomp

from procreactor.kernel.fds import close_fd


def test_what_was_open_is_closed() -> None:
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    assert close_fd(fd) == 0
    with pytest.raises(OSError):
        os.fstat(fd)


def test_what_was_not_open_is_told() -> None:
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    assert close_fd(fd) == -errno.EBADF


def close_with(error: int) -> list[str]:
    """What is told by a close that fails with *error*: returned, or raised."""
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    told: list[str] = []

    def close() -> None:
        deny("close", error)  # for this thread, and unlike a kernel that says so, it closes nothing
        try:
            told.append(repr(close_fd(fd)))
        except OSError as refusal:
            told.append(repr(refusal))

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    os.close(fd)
    return told


@needs_seccomp
@pytest.mark.parametrize("error", [errno.EINTR, errno.EIO], ids=errno.errorcode.get)
def test_what_a_close_says_after_it_has_closed_is_no_error(error: int) -> None:
    assert alone(close_with, error) == ["0"]
