"""Twisted's list of children, and the children that Twisted itself starts beside ours.

Twisted keeps ``twisted.internet.process.reapProcessHandlers`` (pid -> transport), and walks all of
it on each SIGCHLD. Programs look into it, and may call ``reapAllProcesses``. So our children are in
it, from their start to their reaping. Nobody walks it for them: their ends are told by pidfds, and
on a reactor of ours Twisted's SIGCHLD handler is not installed.

A program may still start children past `spawnProcess`: a subclass of Twisted's own Process, made
directly, for its ``_setupChild`` (Buildbot's worker). Twisted registers each with
``registerReapProcessHandler``. That one function is wrapped here: what it has put into the list,
for a reactor of ours, is watched through a pidfd too. So such children need no SIGCHLD either, and
are seen to end in any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.internet import process  # by its name: tests and programs replace its attributes

from procreactor.errors import SpawnError
from procreactor.kernel.children import open_exit_fd
from procreactor.kernel.fds import close_fd
from procreactor.kernel.poller import READ
from procreactor.loop.eventloop import EventLoop

__all__ = ["OwnStarts", "register", "unregister"]

_LOOK_AGAIN_S = 0.02

_HOME = "_procreactor_own_starts"
"""The attribute of a reactor of ours that has its `OwnStarts`."""


def _handlers() -> dict[int, Any]:
    """Twisted's list, as it is now. Typed loosely: ours have what is called, not the base class."""
    return cast("dict[int, Any]", process.reapProcessHandlers)


def _is_listed(pid: int, handler: object) -> bool:
    return _handlers().get(pid) is handler


class _Ours(Protocol):
    """A transport of ours: see transports.HostedTransport."""

    registered_pid: int | None

    @property
    def pid(self) -> int | None:
        """Its number, None once it is reaped."""


def register(transport: _Ours) -> None:
    """Put a child of ours into the list, unless it is reaped already."""
    pid = transport.pid
    if pid is not None:
        transport.registered_pid = pid
        _handlers()[pid] = transport


def unregister(transport: _Ours) -> None:
    """Take a child of ours out of the list. Idempotent."""
    pid, transport.registered_pid = transport.registered_pid, None
    if pid is not None and _is_listed(pid, transport):
        del _handlers()[pid]


class OwnStarts:
    """The children on one reactor that Twisted's own classes started: told of their ends here.

    *attach* sees to it that the reactor watches the loop, also in a forked copy.
    """

    def __init__(self, reactor: Any, loop: EventLoop, attach: Callable[[], object]) -> None:
        self._loop = loop
        self._attach = attach
        self._fds: set[int] = set()
        setattr(reactor, _HOME, self)
        _wrap_registration()
        for pid, handler in list(_handlers().items()):
            if _reactor_of(handler) is reactor:
                self.watch(pid, handler)

    def watch(self, pid: int, handler: Any) -> None:
        """Let *handler* reap its child, *pid*, when that has ended."""
        if not _is_listed(pid, handler):
            return
        self._attach()
        try:
            fd = open_exit_fd(pid)
        except ProcessLookupError:
            return  # other code has reaped it, and Twisted is never told
        except SpawnError:  # no fd to be had at the moment
            self._loop.call_later(_LOOK_AGAIN_S, self._reap, pid, handler)
            return
        self._fds.add(fd)

        def on_ready(events: int) -> None:
            self._fds.discard(fd)
            self._loop.drop(fd)
            self._reap(pid, handler)

        try:
            self._loop.watch(fd, on_ready, READ)
        except OSError:  # this user's loops watch as many fds as they may
            self._fds.discard(fd)
            close_fd(fd)
            self._loop.call_later(_LOOK_AGAIN_S, self._reap, pid, handler)

    def _reap(self, pid: int, handler: Any) -> None:
        if not _is_listed(pid, handler):
            return
        handler.reapProcess()
        if not _is_listed(pid, handler):
            return
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return  # as above
        # It runs (no fd was to be had), or it is a zombie that its tracer holds.
        self._loop.call_later(_LOOK_AGAIN_S, self._reap, pid, handler)

    def close(self) -> None:
        """Watch none of them any more; those that end are in the list still."""
        while self._fds:
            self._loop.drop(self._fds.pop())


def _reactor_of(handler: Any) -> Any:
    """The reactor of one of Twisted's own transports: on pipes, or on a terminal."""
    return getattr(handler, "_reactor", None) or getattr(handler, "reactor", None)


_twisteds_register = process.registerReapProcessHandler


def _register_and_watch(pid: int, handler: Any) -> None:
    _twisteds_register(pid, handler)
    home: OwnStarts | None = getattr(_reactor_of(handler), _HOME, None)
    if home is not None:
        home.watch(pid, handler)


def _wrap_registration() -> None:
    """From now on, notice what Twisted registers. Idempotent."""
    process.registerReapProcessHandler = _register_and_watch
