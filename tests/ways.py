"""The ways in which a child can be made, to run the same test on each of them.

Which way a spawn takes depends on its arguments and on what the kernel lets us do; what the kernel
would let us do is taken away with PROCREACTOR_DISABLE, which holds for the life of a process. So a
test that goes through the ways runs its children with `alone.alone`, and there with `spawn_on`,
which checks that the way was really taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from alone import alone
from support import LACKS, Recorder, run_until

__all__ = [
    "NOBODY",
    "WAYS",
    "WITHOUT_PIDFDS",
    "Way",
    "finish_on",
    "on_every_way",
    "on_way",
    "spawn_on",
]

NOBODY = 65534
"""A uid and gid without rights, which need not be in the user database."""

WITHOUT_PIDFDS = pytest.param("pidfd", marks=pytest.mark.needs("threads"))
"""For tests with *disable*: a thread waits for each child then."""


@dataclass(frozen=True, slots=True)
class Way:
    """Arguments for spawnProcess, the features to take away, and those that are used then."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    disable: str = ""
    uses: frozenset[str] = frozenset()
    avoids: frozenset[str] = frozenset()

    @property
    def needs_root(self) -> bool:
        """Whether only root may go this way."""
        return "uid" in self.arguments


_VFORK = frozenset({"vfork"})
_HELPER = frozenset({"vfork", "helper"})
_IDENTITY = {"uid": NOBODY, "gid": NOBODY}

WAYS: Mapping[str, Way] = {
    "plain": Way(uses=_VFORK),
    "legacy clone": Way(disable="clone3", uses=_VFORK, avoids=frozenset({"clone3"})),
    "own fd table": Way(disable="unshare", uses=_VFORK, avoids=frozenset({"unshare"})),
    "fork": Way(disable="vfork", avoids=_VFORK),
    "path": Way({"path": "/"}, uses=_VFORK),
    # In a world without it (tests/worlds), the child of another user is forked.
    "launcher": Way(_IDENTITY, uses=frozenset() if "helper" in LACKS else _HELPER),
    "fork to another user": Way(_IDENTITY, disable="helper", avoids=_HELPER),
    "terminal": Way({"usePTY": True}, uses=_VFORK),
    "terminal by fork": Way({"usePTY": True}, disable="vfork", avoids=_VFORK),
    "without pidfds": Way(disable="pidfd", uses=_VFORK, avoids=frozenset({"pidfd"})),
}


_UNTIDY = "without pidfds"


def on_every_way(*names: str) -> pytest.MarkDecorator:
    """Run a test with *way* being each of *names*; with none, each way to make a child.

    Without pidfds a child is made as ever; what differs is how its end is noticed, by a thread,
    which lets go of an fd a moment later. So that is for tests that name it.
    """
    return pytest.mark.parametrize("way", names or [way for way in WAYS if way != _UNTIDY])


def on_way(way: str, function: Callable[..., Any], *args: object) -> Any:
    """Return ``function(way, *args)`` of a process in which this way is the one to be taken."""
    if WAYS[way].needs_root and os.geteuid() != 0:
        pytest.skip("needs root")
    if "pidfd" in WAYS[way].disable and "threads" in LACKS:
        pytest.skip("this world lacks threads")
    return alone(function, way, *args, disable=WAYS[way].disable)


def spawn_on(way: str, reactor: Any, protocol: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the transport of a child that was made in the named way."""
    transport = reactor.spawnProcess(protocol, *args, **{**WAYS[way].arguments, **kwargs})
    used = transport._child.mode
    assert used >= WAYS[way].uses - LACKS, f"{way}: only {sorted(used)} used"
    assert not used & WAYS[way].avoids, f"{way}: {sorted(used)} used"
    return transport


def finish_on(way: str, reactor: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the `Recorder` of a child that was made in the named way and has ended."""
    protocol = Recorder()
    spawn_on(way, reactor, protocol, *args, **kwargs)
    run_until(reactor, lambda: protocol.ended)
    return protocol
