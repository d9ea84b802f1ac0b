"""The earliest deadline as an fd, for a loop that is watched by another loop.

Facts: csrc/timer.c. A timerfd stays readable until it is read or set anew; ours is only ever set
anew, because the loop that it stands for looks at its own clock.
"""

from __future__ import annotations

from procreactor.core import binding
from procreactor.kernel.fds import close_fd

__all__ = ["TimerFd"]

_LATEST_S = 2.0**33
"""No clock of ours gets there, and in nanoseconds it fits the kernel's 64 bits."""


class TimerFd:
    """An fd that is readable from a deadline of time.monotonic on."""

    _fd = -1

    def __init__(self) -> None:
        self._fd = binding.open_timer()
        self._deadline_s: float | None = None

    def fileno(self) -> int:
        """The fd to watch for reading."""
        return self._fd

    def set(self, deadline_s: float | None) -> None:
        """Move the deadline; None means never. Costs nothing when it is where it was."""
        if deadline_s != self._deadline_s:
            self._deadline_s = deadline_s
            binding.set_timer(self._fd, 0 if deadline_s is None else _in_ns(deadline_s))

    def close(self) -> None:
        """Close the fd. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close_fd(fd)

    def __del__(self) -> None:
        self.close()


def _in_ns(deadline_s: float) -> int:
    # Rounded up, or the loop would look at its clock too early; never 0, which would mean never.
    return int(min(max(deadline_s, 0.0), _LATEST_S) * 1e9) + 1
