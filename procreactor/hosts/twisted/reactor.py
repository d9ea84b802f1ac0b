"""The reactor class, and its installation.

On a reactor of ours Twisted's SIGCHLD handler is not installed: ends are told by pidfds, in any
thread, and with 4,000 children no signal makes Twisted walk its list of them. All other signal
handling is Twisted's; the wake-up fd is set, so that a signal that another thread was given ends
the reactor's wait. What asyncio's loop has put there for its `add_signal_handler` stays: it wakes
that reactor as well.
"""

from __future__ import annotations

import inspect
import signal
import sys
import threading
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ReactorAlreadyInstalledError
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
        self._is_asyncios = hasattr(reactor, "_asyncioEventloop")
        self._wakeup_before: int | None = None

    def install(self) -> None:
        """Install the handlers."""
        self._base.install()
        before = signal.set_wakeup_fd(self._loop.signal_fd, warn_on_full_buffer=False)
        if self._is_asyncios and before != -1:
            signal.set_wakeup_fd(before)
        else:
            self._wakeup_before = before

    def uninstall(self) -> None:
        """Put the wake-up fd back, unless it is another's by now; Twisted leaves its handlers."""
        self._base.uninstall()
        before, self._wakeup_before = self._wakeup_before, None
        if before is None or threading.current_thread() is not threading.main_thread():
            return
        now = signal.set_wakeup_fd(-1)
        try:
            signal.set_wakeup_fd(before if now == self._loop.signal_fd else now)
        except (OSError, ValueError):  # closed in between
            pass


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
        """Remove and return all selectables; children with open pipes stand for these."""
        return [*super().removeAll(), *self._procreactor_children.take_open()]


def install() -> ProcreactorReactor:
    """Make a `ProcreactorReactor` the reactor of this process, and return it.

    ReactorAlreadyInstalledError when there is one; see `patch`.
    """
    if "twisted.internet.reactor" in sys.modules:  # before anything is opened
        raise ReactorAlreadyInstalledError("reactor already installed")
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
    twisteds_remove_all = reactor.removeAll
    reactor.removeAll = lambda: [*twisteds_remove_all(), *children.take_open()]
    reactor._signalsFactory = lambda: _Signals(reactor, children.loop)
    if reactor._started and reactor._installSignalHandlers:
        # It has made its handling of signals already, and installed it if it runs.
        if reactor.running:
            _uninstall(reactor._signals)
        reactor._signals = _Signals(reactor, children.loop)
        if reactor.running:
            reactor._signals.install()


def _uninstall(signals: Any) -> None:
    """Uninstall Twisted's handling of signals, but no wake-up fd that is another's by now."""
    wakers = [
        getattr(part, "_childWaker", None) for part in getattr(signals, "_signalHandlings", ())
    ]
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd)
    is_anothers = wakeup_fd not in [waker.o for waker in wakers if waker is not None]
    signals.uninstall()
    if is_anothers:
        signal.set_wakeup_fd(wakeup_fd)
