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
    close_fd(fd)
    with pytest.raises(OSError):
        os.fstat(fd)


def close_with(error: int) -> bool:
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    raised: list[BaseException] = []

    def close() -> None:
        deny("close", error)  # for this thread, and unlike a kernel that says so, it closes nothing
        try:
            close_fd(fd)
        except OSError as refusal:
            raised.append(refusal)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    os.close(fd)
    return bool(raised)


@needs_seccomp
@pytest.mark.parametrize("error", [errno.EINTR, errno.EIO], ids=errno.errorcode.get)
def test_what_a_close_says_after_it_has_closed_is_no_error(error: int) -> None:
    assert not alone(close_with, error)
