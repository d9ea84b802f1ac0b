"""How commands are run: the options of `run` and `run_many`, with their defaults and their bounds.

`Settings` is what holds at run time; the typed dictionaries say the same to type checkers, so that
the options need not be written down for every overload. A test holds the two together.
"""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict

from procreactor.apps.commands import Argument, Limits, check_seconds
from procreactor.apps.halt import parse_halt
from procreactor.streams.collect import Collector

__all__ = ["Env", "ManyOptions", "OnOutput", "RunOptions", "Settings"]

Env = Mapping[str, str] | Mapping[bytes, bytes]

OnOutput = Callable[[int, int, bytes], object]
"""Told the index of a command, the fd (1 or 2) and what it has written to it."""


class RunOptions(TypedDict, total=False):
    """The options of `run`, but for ``text`` and those of the command itself; see `Settings`."""

    encoding: str
    errors: str
    capture: bool
    tee: bool
    on_output: OnOutput | None
    max_output_bytes: int | None
    timeout_s: float | None
    kill_after_s: float
    cwd: Argument | None
    env: Env | None
    env_extra: Mapping[str, str] | None
    limits: Limits | None
    tree: bool


class ManyOptions(RunOptions, total=False):
    """The options of `run_many`, but for ``text``."""

    jobs: int | None
    ordered: bool
    retries: int
    retry_delay_s: float
    halt: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """All options, checked: TypeError and ValueError name the one that is wrong."""

    text: bool = False
    """Whether output is str, not bytes."""

    encoding: str = "utf-8"
    errors: str = "replace"
    """Of the decoding, as for bytes.decode: by default no byte is a reason to lose a result."""

    capture: bool = True
    """Whether output is in the results; else it goes where this process's goes."""

    tee: bool = False
    """Whether captured output goes there as well, as it comes."""

    on_output: OnOutput | None = None
    """Told of output as it comes. What it raises is logged, and changes nothing else."""

    max_output_bytes: int | None = None
    """How much is kept of each stream: its begin and its end, and between them a line that says how
    many bytes were dropped."""

    timeout_s: float | None = None
    """After this time a command gets SIGTERM, and `kill_after_s` later SIGKILL."""

    kill_after_s: float = 5.0
    cwd: Argument | None = None
    env: Env | None = None
    """The whole environment of the commands; None is this process's, as it is at the beginning.
    With `tree`, where no cgroup can be made, PROCREACTOR_TREE is added, to find them by."""

    env_extra: Mapping[str, str] | None = None
    """Variables besides those."""

    limits: Limits | None = None
    tree: bool = True
    """Whether all descendants of a command are stopped with it."""

    jobs: int | None = None
    """How many may run at once; None is as many as there are CPUs."""

    ordered: bool = False
    """Whether results come in the order of the commands, not in that of their ends."""

    retries: int = 0
    """How often a command that failed is started again, `retry_delay_s` later."""

    retry_delay_s: float = 0.0
    halt: str | None = None
    """When to stop: ``"WHEN,WHAT=N"``, as GNU parallel's --halt."""

    def __post_init__(self) -> None:
        """Check all that can be checked before anything is opened."""
        if self.jobs is not None:
            _check_count("jobs", self.jobs, 1)
        _check_count("retries", self.retries, 0)
        if self.timeout_s is not None:
            check_seconds("timeout_s", self.timeout_s)
        check_seconds("kill_after_s", self.kill_after_s)
        check_seconds("retry_delay_s", self.retry_delay_s)
        if self.max_output_bytes is not None:
            _check_count("max_output_bytes", self.max_output_bytes, 0)
        if self.on_output is not None and not callable(self.on_output):
            raise TypeError(f"on_output must be callable or None, not {self.on_output!r}")
        if self.limits is not None and not isinstance(self.limits, Limits):
            raise TypeError(f"limits must be Limits or None, not {self.limits!r}")
        if self.halt is not None:
            _check_halt(self.halt)
        codecs.lookup(self.encoding)
        codecs.lookup_error(self.errors)

    @classmethod
    def of(cls, function: str, options: Mapping[str, object], barred: frozenset[str]) -> Settings:
        """Return the settings of *options*; TypeError for one that *function* does not have."""
        known = [field.name for field in dataclasses.fields(cls) if field.name not in barred]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")
        return cls(**options)  # type: ignore[arg-type]

    @property
    def most_at_once(self) -> int:
        """How many commands may run at once."""
        return len(os.sched_getaffinity(0)) if self.jobs is None else self.jobs

    @property
    def has_pipes(self) -> bool:
        """Whether output comes through this process."""
        return self.capture or self.tee or self.on_output is not None

    def new_collector(self) -> Collector | None:
        """Return the place for what is kept of a stream."""
        return Collector(self.max_output_bytes) if self.capture else None


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int >= {least}, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, not {value}")


def _check_halt(value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"halt must be str or None, not {value!r}")
    try:
        parse_halt(value)
    except ValueError as error:
        raise ValueError(f"halt {value!r}: expected {error}") from None
