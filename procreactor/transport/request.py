"""Pure: what a user says of a program becomes the bytes of a spawn request.

Everything that can be wrong without asking the kernel is found here, before any system call, and
said with the name that the caller gave the argument (*what*), the value, and what it may be.

Decisions (CONTRIBUTING.md, Decisions):

- A bare program name is searched in the PATH of the child's environment; where that has none, in
  the parent's; where that has none either, in os.defpath. A name with a slash is taken as it is,
  and relative to the child's directory, because the child changes there first.
- Arguments left out or empty mean the program's name alone.
- An environment of None is the parent's; an empty one is empty.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence

from procreactor.model import RlimitSetting

__all__ = [
    "encode_argv",
    "encode_env",
    "encode_path",
    "find_candidates",
    "plan_int",
    "plan_rlimits",
    "plan_signal",
    "plan_signals",
]

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Text = str | bytes

# Bytes are looked for as numbers: for `b"=" in encoded` CPython raises an exception, and drops it.
_SLASH = ord("/")
_EQUALS = ord("=")

_LISTS = (list, tuple)  # and not list | tuple, which is made anew each time
_PATH_TYPES = (str, bytes, os.PathLike)

_RLIM_INFINITY = -1  # as resource has it, which is one more module to wait for
_RLIMIT_MAX = (1 << 64) - 1
_SIGNAL_MAX = 64


def encode_path(value: object, what: str) -> bytes:
    """Return *value* as the kernel takes it; TypeError, or ValueError for NUL or bad text."""
    if not isinstance(value, _PATH_TYPES):
        raise TypeError(f"{what} must be str, bytes or a path, not {value!r}")
    try:
        encoded = value if type(value) is bytes else os.fsencode(value)
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} cannot be encoded for the file system: {error}") from error
    if 0 in encoded:
        raise ValueError(f"{what} must not contain an embedded null byte: {value!r}")
    return encoded


def encode_argv(args: object, program: bytes, what: str) -> list[bytes]:
    """Return the argument vector for *args* (a list or tuple), at least ``[program]``."""
    if not isinstance(args, _LISTS):
        raise TypeError(f"{what} must be a list or tuple of str or bytes, not {args!r}")
    argv = _encode_plain(args) or _encode_each(args, what) or [program]
    if not argv[0]:
        raise ValueError(f"{what}[0] must not be empty")
    return argv


def _encode_plain(args: list[object] | tuple[object, ...]) -> list[bytes] | None:
    """Return *args* encoded, all at once; None where that cannot be done, or there are none."""
    if not args or type(args[0]) is not str:
        return None
    try:
        words = "\0".join(args)  # type: ignore[arg-type]  # which TypeError is for
    except TypeError:
        return None
    if not words.isascii() or words.count("\0") != len(args) - 1:
        return None
    return words.encode().split(b"\0")  # every file system encoding has ASCII as it is


def _encode_each(args: list[object] | tuple[object, ...], what: str) -> list[bytes]:
    return [
        arg if type(arg) is bytes and 0 not in arg else _encode_arg(arg, what, index)
        for index, arg in enumerate(args)
    ]


def _encode_arg(arg: object, what: str, index: int) -> bytes:
    if type(arg) is str and arg.isascii() and "\0" not in arg:
        return arg.encode()  # every file system encoding has ASCII as it is
    return encode_path(arg, f"{what}[{index}]")


def encode_env(env: object, parent: Mapping[bytes, bytes], what: str) -> dict[bytes, bytes]:
    """Return the whole environment of the child; *parent*'s when *env* is None."""
    if env is None:
        return dict(parent)
    if not isinstance(env, Mapping):
        raise TypeError(f"{what} must be a mapping or None, not {env!r}")
    return {
        _encode_env_name(name, what): encode_path(value, f"{what}[{name!r}]")
        for name, value in env.items()
    }


def _encode_env_name(name: object, what: str) -> bytes:
    encoded = encode_path(name, f"a name in {what}")
    if not encoded or _EQUALS in encoded:
        raise ValueError(f"illegal environment variable name in {what}: {name!r}")
    return encoded


def find_candidates(
    program: bytes, env: Mapping[bytes, bytes], parent: Mapping[bytes, bytes]
) -> list[bytes]:
    """Return the files to try for *program*, in order; at least one, be it there or not."""
    if _SLASH in program or not program:
        return [program]
    path = env.get(b"PATH", parent.get(b"PATH"))
    if path is None:
        path = os.fsencode(os.defpath)
    # An empty element means the current directory, which is the child's (environ(7)).
    return [
        folder.rstrip(b"/") + b"/" + program if folder else program for folder in path.split(b":")
    ]


def plan_int(value: object, what: str, low: int, high: int) -> int:
    """Return *value* as an int from *low* to *high*; TypeError or ValueError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be an int from {low} to {high}, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{what} must be from {low} to {high}, not {value!r}")
    return int(value)


def plan_signal(value: object, what: str) -> int:
    """Return the number of a signal given as number, `signal.Signals`, ``"TERM"`` or ``"SIGTERM"``.

    A number is passed through: what it is good for, the kernel says.
    """
    if isinstance(value, str):
        name = value if value.startswith("SIG") else f"SIG{value}"
        number = getattr(signal, name, None)
        if not isinstance(number, signal.Signals):
            raise ValueError(
                f"{what} must be a signal, like 'TERM' or signal.SIGTERM, not {value!r}"
            )
        return int(number)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be a signal name or number, not {value!r}")
    return int(value)


def plan_signals(values: object, what: str) -> frozenset[int]:
    """Return the numbers, each from 1 to 64, of an iterable of signals."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{what} must be an iterable of signals, not {values!r}")
    return frozenset(
        plan_int(plan_signal(value, f"an item of {what}"), f"an item of {what}", 1, _SIGNAL_MAX)
        for value in values
    )


def plan_rlimits(limits: object, what: str) -> list[RlimitSetting]:
    """Return the rows for a mapping from ``resource.RLIMIT_*`` to a limit or (soft, hard).

    -1 is resource.RLIM_INFINITY.
    """
    if not isinstance(limits, Mapping):
        raise TypeError(
            f"{what} must be a mapping from resource.RLIMIT_* to limits, not {limits!r}"
        )
    return [_plan_rlimit(key, value, what) for key, value in limits.items()]


def _plan_rlimit(key: object, value: object, what: str) -> RlimitSetting:
    number = plan_int(key, f"a key of {what}", 0, 255)
    pair: Sequence[object] = value if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{what}[{number}] must be a limit or a pair (soft, hard), not {value!r}")
    soft, hard = (_plan_limit(limit, f"{what}[{number}]") for limit in pair)
    if soft > hard:
        raise ValueError(f"{what}[{number}]: the soft limit must not be above the hard: {value!r}")
    return RlimitSetting(number, soft, hard)


def _plan_limit(limit: object, what: str) -> int:
    number = plan_int(limit, what, _RLIM_INFINITY, _RLIMIT_MAX)
    return _RLIMIT_MAX if number == _RLIM_INFINITY else number
