"""Pure: what the user says of a child's fds (childFDs) becomes rows of the spawn request.

Everything about the mapping that can be wrong without asking the kernel is found here, before any
pipe is made. Whether a parent fd is open only the kernel knows: it says EBADF, and so the start
fails.

Values are exact on purpose. ``True`` is an int to Python, and a file object has a number, but each
is more likely a mistake than an fd.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeGuard

from procreactor.model import PipeEnd, Redirect

__all__ = ["plan_redirects"]

_CHILD_FD_LIMIT = 1 << 20
"""One above the highest child fd: fs.nr_open as the kernel ships it (proc(5))."""

_PARENT_FD_LIMIT = 1 << 31
"""One above the highest number that a system call takes for an fd: it is an int of C."""

_STANDARD = (
    Redirect(0, PipeEnd.WE_WRITE),
    Redirect(1, PipeEnd.WE_READ),
    Redirect(2, PipeEnd.WE_READ),
)

_PIPES = {"r": PipeEnd.WE_READ, "w": PipeEnd.WE_WRITE}


def plan_redirects(
    child_fds: Mapping[int, str | int] | None, use_pty: bool
) -> tuple[Redirect, ...]:
    """Return the rows for *child_fds*, in its order; None means pipes for 0, 1 and 2.

    With *use_pty* there are no rows: the terminal becomes 0, 1 and 2, and a mapping, even an empty
    one, is refused.
    """
    if use_pty:
        if child_fds is not None:
            raise ValueError(
                f"childFDs must be None when usePTY is true, because the terminal is the child's"
                f" fds 0, 1 and 2; not {child_fds!r}"
            )
        return ()
    if child_fds is None:
        return _STANDARD
    if not isinstance(child_fds, Mapping):
        raise TypeError(
            "childFDs must be None or a mapping of child fds to 'r', 'w' or a parent fd,"
            f" not {child_fds!r}"
        )
    return tuple(_redirect(key, value) for key, value in child_fds.items())


def _redirect(key: object, value: object) -> Redirect:
    child_fd = _child_fd(key)
    return Redirect(child_fd, _source(child_fd, value))


def _child_fd(key: object) -> int:
    expected = f"a key of childFDs must be a child fd from 0 to {_CHILD_FD_LIMIT - 1}"
    if not _is_int(key):
        raise TypeError(f"{expected}, not {key!r}")
    if not 0 <= key < _CHILD_FD_LIMIT:
        raise ValueError(f"{expected}, not {key!r}")
    return int(key)


def _source(child_fd: int, value: object) -> int:
    expected = f"childFDs[{child_fd}] must be 'r', 'w' or a parent fd >= 0"
    if isinstance(value, str):
        if value not in _PIPES:
            raise ValueError(f"{expected}, not {value!r}")
        return _PIPES[value]
    if not _is_int(value):
        raise TypeError(f"{expected}, not {value!r}")
    if value < 0:
        raise ValueError(f"{expected}, not {value!r}")
    if value >= _PARENT_FD_LIMIT:
        raise ValueError(f"{expected} and below {_PARENT_FD_LIMIT}, not {value!r}")
    return int(value)


def _is_int(value: object) -> TypeGuard[int]:
    """Whether *value* is an int and nothing else, bool least of all; a name for an int will do."""
    return type(value) is int or isinstance(value, enum.IntEnum)
