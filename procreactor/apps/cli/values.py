"""Pure: the values of options: numbers, sizes, times, signals, delimiters, each checked.

Each function takes what the user wrote and returns what it means. ValueError says what may stand
there, as the end of the sentence "-j 0x: expected ...".
"""

from __future__ import annotations

import re
import signal

from procreactor.typed import Final, NamedTuple

__all__ = [
    "DEFAULT_JOBS",
    "DEFAULT_TERMSEQ",
    "Jobs",
    "Load",
    "Step",
    "Timeout",
    "bytes_size",
    "delimiter",
    "jobs",
    "load",
    "niceness",
    "seconds",
    "termseq",
    "timeout",
    "whole_number",
]


class Jobs(NamedTuple):
    """How many jobs at a time: *number*, *number* more or fewer than CPUs, or per cent of them."""

    number: float
    unit: str = ""
    """``""``, ``"+"`` (a negative number is fewer) or ``"%"``."""

    def resolve(self, cpus: int) -> int | None:
        """Return how many on a machine with *cpus*, at least 1; None is as many as possible."""
        if self.unit == "":
            return int(self.number) or None
        if self.unit == "+":
            return max(cpus + int(self.number), 1)
        return max(int(cpus * self.number / 100), 1)


DEFAULT_JOBS: Final = Jobs(100, "%")


class Load(NamedTuple):
    """The load average up to which jobs are started, or per cent of the CPUs."""

    number: float
    is_percent: bool = False

    def resolve(self, cpus: int) -> float:
        """Return the load average on a machine with *cpus*; 0 stands for 0.01, an idle machine."""
        return (cpus * self.number / 100 if self.is_percent else self.number) or 0.01


class Timeout(NamedTuple):
    """How long a job may run: seconds, or per cent of the median of those that went well."""

    number: float
    is_percent: bool = False


class Step(NamedTuple):
    """One step of ``--termseq``: send the signal, then wait so long for the end."""

    signal: int
    wait_ms: int


# --- Numbers --------------------------------------------------------------------------------------


def whole_number(text: str, least: int = 0, most: int | None = None) -> int:
    """Return *text* as a whole number from *least* to *most*, where there is a most."""
    bounds = f"a whole number from {least} {'on' if most is None else f'to {most}'}"
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        raise ValueError(bounds)
    number = int(text)
    if number < least or (most is not None and number > most):
        raise ValueError(bounds)
    return number


def niceness(text: str) -> int:
    """Return *text* as a niceness, -20 to 19."""
    return whole_number(text, -20, 19)


_DECIMAL = r"[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}"


def jobs(text: str) -> Jobs:
    """Return *text*: ``N``, ``N%``, ``+N``, ``-N``, or 0 for as many as possible."""
    expected = "a number, a percentage of the CPUs (50%), +N or -N; 0 is as many as possible"
    if re.fullmatch(r"[+-]?[0-9]{1,9}", text, re.ASCII):
        return Jobs(int(text), "+" if text[0] in "+-" else "")
    if re.fullmatch(rf"(?:{_DECIMAL})%", text, re.ASCII) and (number := float(text[:-1])) > 0:
        return Jobs(number, "%")
    raise ValueError(expected)


def load(text: str) -> Load:
    """Return *text*: a load average, or a percentage of the CPUs."""
    if not re.fullmatch(rf"(?:{_DECIMAL})%?", text, re.ASCII):
        raise ValueError("a load average such as 1.5, or a percentage of the CPUs such as 80%")
    return Load(float(text.rstrip("%")), text.endswith("%"))


_UNIT_BYTES: dict[str, int] = {
    "": 1,
    **{letter: 1024 ** (power + 1) for power, letter in enumerate("KMGTP")},
    **{letter: 1000 ** (power + 1) for power, letter in enumerate("kmgtp")},
}


def bytes_size(text: str) -> int:
    """Return *text* in bytes: K, M, G, T and P are powers of 1024, the small letters of 1000."""
    match = re.fullmatch(rf"({_DECIMAL})([KMGTPkmgtp]?)", text, re.ASCII)
    if match is None:
        raise ValueError("a size in bytes, also with K, M, G, T or P (k, m ... are of 1000)")
    return round(float(match[1]) * _UNIT_BYTES[match[2]])


_UNIT_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_TIME = "".join(rf"(?:({_DECIMAL}){unit})?" for unit in "dhm") + rf"(?:({_DECIMAL})s?)?"


def seconds(text: str) -> float:
    """Return *text* in seconds: a number, or such as ``1d3h16m6.4s``."""
    match = re.fullmatch(_TIME, text.lower())
    if match is None or not text:
        raise ValueError("seconds, or a time such as 90s, 5m, 1h30m or 2d")
    return sum(
        float(number) * unit_s
        for number, unit_s in zip(match.groups(), _UNIT_S.values(), strict=True)
        if number is not None
    )


def timeout(text: str) -> Timeout:
    """Return *text*: a time above zero, or a percentage of the median."""
    try:
        if text.endswith("%"):
            limit = Timeout(float(_checked_decimal(text[:-1])), True)
        else:
            limit = Timeout(seconds(text))
    except ValueError:
        limit = Timeout(0)
    if limit.number <= 0:
        raise ValueError(
            "seconds, or a time such as 90s, 5m or 1h30m, or a percentage of the median run time"
            " such as 200%; more than zero"
        )
    return limit


def _checked_decimal(text: str) -> str:
    if not re.fullmatch(_DECIMAL, text, re.ASCII):
        raise ValueError
    return text


# --- Signals --------------------------------------------------------------------------------------

DEFAULT_TERMSEQ: Final = (
    Step(signal.Signals.SIGTERM, 200),
    Step(signal.Signals.SIGTERM, 100),
    Step(signal.Signals.SIGTERM, 50),
    Step(signal.Signals.SIGKILL, 25),
)
"""GNU parallel's."""


def termseq(text: str) -> tuple[Step, ...]:
    """Return *text*, ``SIGNAL,MS,SIGNAL,MS...``, as steps; the last wait may be left out."""
    words = text.split(",")
    if len(words) % 2:
        words.append("0")
    try:
        return tuple(
            Step(_signal_number(name), whole_number(wait_ms))
            for name, wait_ms in zip(words[::2], words[1::2], strict=True)
        )
    except (KeyError, ValueError):
        raise ValueError(
            "signals, each with the milliseconds to wait after it, such as TERM,200,KILL"
        ) from None


def _signal_number(name: str) -> int:
    if name.isdecimal():
        return whole_number(name, 1, 64)
    upper = name.upper()
    return signal.Signals[upper if upper.startswith("SIG") else f"SIG{upper}"].value


# --- Delimiters -----------------------------------------------------------------------------------

_ESCAPES = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11, b"\\": 92, b"e": 27}
_ESCAPE = rb"\\(?:([abfnrtve\\])|x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|(.?))"


def delimiter(text: bytes) -> bytes:
    r"""Return *text* with its escapes read: ``\n``, ``\t``, ``\0``, ``\xHH``, ``\NNN`` ..."""
    expected = r"one or more bytes, also as \n, \t, \0, \xHH or \NNN; -0 is short for \0"

    def byte(match: re.Match[bytes]) -> bytes:
        name, hexadecimal, octal, _ = match.groups()
        if name is not None:
            return bytes((_ESCAPES[name],))
        if hexadecimal is not None:
            return bytes((int(hexadecimal, 16),))
        if octal is not None and int(octal, 8) < 256:
            return bytes((int(octal, 8),))
        raise ValueError(expected)

    if not text:
        raise ValueError(expected)
    return re.sub(_ESCAPE, byte, text, flags=re.DOTALL)
