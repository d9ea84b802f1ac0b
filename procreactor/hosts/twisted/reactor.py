"""The reactor class, and its installation.

On a reactor of ours Twisted's SIGCHLD handler is not installed: ends are told by pidfds, in any
thread, and with 4,000 children no signal makes Twisted walk its list of them. All other signal
handling is Twisted's; the wake-up fd is set, so that a signal that another thread was given ends
the reactor's wait.
"""

from __future__ import annotations

import inspect
import signal
import threading
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from procreactor.hosts.twisted.children import HostedChildren
from procreactor.loop.eventloop import EventLoop

__all__ = ["ProcreactorReactor", "install", "patch"]

_ATTRIBUTE = "_procreactor_children"


class _Signals:
    """Twisted's handling of INT and TERM, and our loop's wake-up fd; nothing about SIGCHLD.

    As for all of Twisted's: `uninstall` may come twice, or without `install`.
    """

    def __init__(self, reactor: ReactorBase, loop: EventLoop) -> None:
        self._base = ReactorBase._signalsFactory(reactor)
        self._loop = loop
        self._wakeup_before: int | None = None

    def install(self) -> None:
        """Install the handlers."""
        self._base.install()
        self._wakeup_before = signal.set_wakeup_fd(self._loop.signal_fd, warn_on_full_buffer=False)

    def uninstall(self) -> None:
        """Put the wake-up fd back; Twisted leaves its handlers."""
        self._base.uninstall()
        before, self._wakeup_before = self._wakeup_before, None
        if before is not None and threading.current_thread() is threading.main_thread():
            try:
                signal.set_wakeup_fd(before)
            except (OSError, ValueError):  # closed in between
                signal.set_wakeup_fd(-1)


class ProcreactorReactor(EPollReactor):
    """Twisted's epoll reactor, whose children are ours."""

    def __init__(self) -> None:
        super().__init__()
        self._procreactor_children = HostedChildren(self)
        self._procreactor_children.attach()

    def _signalsFactory(self) -> Any:
        return _Signals(self, self._procreactor_children.loop)

    def startRunning(self, *args: Any, **kwargs: Any) -> None:
        """Do as Twisted's does; in a forked copy of the process, with a loop that starts afresh."""
        self._procreactor_children.attach()
        super().startRunning(*args, **kwargs)

    def spawnProcess(self, *args: Any, **kwargs: Any) -> Any:
        """Start a child (`HostedChildren.spawn`): Twisted's arguments, and the house's more."""
        return self._procreactor_children.spawn(*args, **kwargs)

    spawnProcess.__signature__ = inspect.signature(HostedChildren.spawn)  # type: ignore[attr-defined]

    def removeAll(self) -> list[Any]:
        """Remove and return all selectables, and the children, which are among them in Twisted."""
        return [*super().removeAll(), *self._procreactor_children.take_all()]


def install() -> ProcreactorReactor:
    """Make a `ProcreactorReactor` the reactor of this process, and return it.

    ReactorAlreadyInstalledError when there is one; see `patch`.
    """
    reactor = ProcreactorReactor()
    installReactor(reactor)
    return reactor


def patch(reactor: Any) -> None:
    """Let *reactor* (select, poll, epoll, asyncio ...), running or not, spawn as ours does.

    Idempotent. TypeError when it is none that watches file descriptors. Thread: the reactor's.
    """
    if getattr(reactor, _ATTRIBUTE, None) is not None:
        return
    children = HostedChildren(reactor)
    children.attach()
    setattr(reactor, _ATTRIBUTE, children)
    reactor.spawnProcess = children.spawn
    reactor.addSystemEventTrigger("before", "startup", children.attach)
    reactor.addSystemEventTrigger("during", "shutdown", children.disconnect_all)
    reactor._signalsFactory = lambda: _Signals(reactor, children.loop)
    if reactor._started and reactor._installSignalHandlers:
        # It has made its handling of signals already, and installed it if it runs.
        if reactor.running:
            reactor._signals.uninstall()
        reactor._signals = _Signals(reactor, children.loop)
        if reactor.running:
            reactor._signals.install()
