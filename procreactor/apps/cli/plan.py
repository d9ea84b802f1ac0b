"""Pure: what is read, and how it becomes records, as data; `inputs` does it."""

from __future__ import annotations

import itertools
import math

from procreactor.typed import NamedTuple

__all__ = ["STANDARD_INPUT", "InputPlan", "Source"]

STANDARD_INPUT = b"-"
"""The path that stands for standard input."""


class Source(NamedTuple):
    """One source of items: those given, or those of the file at *path*."""

    items: tuple[bytes, ...] = ()
    path: bytes | None = None
    """None: the *items* are it."""

    linked: bool = False
    """Whether it goes along with the source before it (``:::+``), instead of being crossed."""


class InputPlan(NamedTuple):
    """The sources, how they are cut into items, and how those become the values of jobs."""

    sources: tuple[Source, ...] = (Source(path=STANDARD_INPUT),)
    """At least one."""

    delimiter: bytes = b"\n"
    end: bytes | None = None
    """The item that ends its source (-E)."""

    column_separator: bytes | None = None
    """A regular expression of Python's re, on bytes (--colsep)."""

    trim: str = "n"
    """Where white space goes: ``"n"`` nowhere, ``"l"``, ``"r"``, or both letters for both."""

    batch: int = 1
    """How many records a job gets (-n, -N, -L); with 0, one record that gives no values."""

    continue_lines: bool = False
    """Lines are joined as -L has it: blank ones do not count, one that ends in a blank goes on."""

    skip_blank: bool = False
    """Items that are nothing but white space are left out (-r)."""

    link_all: bool = False
    """All sources go along with each other; the shorter ones begin anew (--link)."""

    shuffle: bool = False
    """Everything is read first, and handed out in a random order (--shuf)."""

    @property
    def reads_standard_input(self) -> bool:
        """Whether standard input is one of the sources, so that no job can have it."""
        return any(source.path == STANDARD_INPUT for source in self.sources)

    @property
    def groups(self) -> list[list[Source]]:
        """The sources, those that go along with each other together."""
        if self.link_all:
            return [[*self.sources]]
        groups: list[list[Source]] = []
        for source in self.sources:
            if source.linked and groups:
                groups[-1].append(source)
            else:
                groups.append([source])
        return groups

    @property
    def gone_through_again(self) -> list[bool]:
        """For each group, whether those before it may have more than one record together."""
        single = [
            any(source.path is None and len(source.items) == 1 for source in group)
            for group in self.groups
        ]
        return [not alone for alone in itertools.accumulate([True, *single[:-1]], min)]

    @property
    def known_total(self) -> int | None:
        """How many jobs there will be, where that can be told without reading."""
        if self.end is not None or self.skip_blank or self.continue_lines:
            return None
        if any(source.path is not None for source in self.sources):
            return None
        counts = [[len(source.items) for source in group] for group in self.groups]
        lengths = [max(one) if self.link_all and all(one) else min(one) for one in counts]
        return -(-math.prod(lengths) // max(self.batch, 1))
