"""Spawning: what an adapter of this kind may offer.

All children get an empty environment (those of GNU parallel its own), so that all do the same work;
`argv` begins with an absolute path. A child that ends with another code than 0 raises.

    spawn_many(argv, count, at_once, way) -> seconds from the first spawn to the last end
        exactly `at_once` alive while enough are left; three pipes each, outputs read to the end,
        every status collected, every callback made. `WAYS` says which of these it knows:
            plain      nothing else
            path       the child's directory is /tmp
            identity   the child is uid and gid 65534, without groups; for root alone
            pty        a terminal in place of the pipes
        What has no pipes (posix_spawn, xargs, procreactor run -u, parallel), or none for standard
        input (run_many, procreactor run), does less, and its tables say so.
    STARTS_ANEW    True of a program that each spawn_many starts: its own start is in the seconds,
        and only many children make it count for little
    command_line(at_once, *options) -> what starts that program; a child's argv is to be added
    run_ordered(argv, lines, at_once) -> (seconds, bytes)
        one child for each of *lines*, its last argument; the outputs through a pipe, read and
        counted here, each in one piece and in the order of the lines
    hold(argv, count) -> `Held`: so many live children, of a program that ends at the end of its
        stdin
    stall(argv, count) -> [seconds]: children one after the other, and for each how long at most
        the loop was blocked, from before its spawn to after its end. Found by a call that the loop
        makes in every turn: a turn's length is how long any other event would have waited.
    IMPORTS    {"package": statement, "reactor": statement}, for the import time

Also documented by `Adapter`, whose members may all be absent but WAYS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = ["ENVIRONMENT", "NOBODY", "PATH", "Adapter", "Held", "identity_way"]

ENVIRONMENT: dict[str, str] = {}
PATH = "/tmp"
NOBODY = 65534
"""The uid and gid of the way "identity": of no right, with or without an entry in the database."""


def identity_way() -> frozenset[str]:
    """Return the way "identity", if this process may change its ids."""
    return frozenset({"identity"} if os.geteuid() == 0 else ())


class Held(Protocol):
    """Live children with three pipes each."""

    def idle(self, seconds: float) -> None:
        """The loop has run so long; there was nothing to do."""

    def end_all(self) -> float:
        """Seconds from closing the first stdin until all ends have been told."""


class Adapter(Protocol):
    """The module of a library."""

    WAYS: frozenset[str]
    IMPORTS: Mapping[str, str]

    def spawn_many(self, argv: Sequence[str], count: int, at_once: int, way: str) -> float:
        """See the module."""

    def command_line(self, at_once: int, *options: str) -> list[str]:
        """See the module."""

    def run_ordered(self, argv: Sequence[str], lines: bytes, at_once: int) -> tuple[float, int]:
        """See the module."""

    def hold(self, argv: Sequence[str], count: int) -> Held:
        """See the module."""

    def stall(self, argv: Sequence[str], count: int) -> list[float]:
        """See the module."""
