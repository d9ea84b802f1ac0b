"""The children of one Twisted reactor: our loop, as one fd among those that the reactor watches.

- The reactor watches the loop's epoll fd, which is readable while there is something to do, and
  then gives it a turn. No thread, no timer of Twisted's, no signal.
- What a turn raises must not reach the reactor, which would disconnect the fd and with it all
  children: it is logged, as Twisted logs what its own callbacks raise.
- A program may fork and go on in the copy (twistd does, to become a daemon). There the loop starts
  afresh with an epoll fd of its own, and the reactor is asked to watch that one: at the startup,
  and at a spawn.
- What the house reports by the standard library's logging goes to Twisted's log as a Failure.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from procreactor.hosts.twisted import reaping
from procreactor.hosts.twisted.transports import HostedProcess, HostedPTYProcess, HostedTransport
from procreactor.internet.spawning import Keeper, spawn_process
from procreactor.loop.eventloop import EventLoop

__all__ = ["HostedChildren"]


class _ToTwistedsLog(logging.Handler):
    """Passes on to Twisted's log what the house reports, tracebacks as Failures."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log *record* there."""
        if record.exc_info and record.exc_info[1] is not None:
            kind, value, traceback = record.exc_info
            log.err(Failure(value, kind, traceback), record.getMessage())
        else:
            log.msg(record.getMessage(), system="procreactor")


def _log_to_twisted() -> None:
    """Let the house's reports go to Twisted's log. Idempotent."""
    logger = logging.getLogger("procreactor")
    if not any(isinstance(handler, _ToTwistedsLog) for handler in logger.handlers):
        logger.addHandler(_ToTwistedsLog())


@implementer(IReadDescriptor)
class _LoopReader:
    """Our loop, as the reactor sees it: a file descriptor to be read."""

    def __init__(self, children: HostedChildren) -> None:
        self._children = children
        self._loop = children.loop
        self._fd = children.loop.fileno()

    def fileno(self) -> int:
        """The epoll fd that this was made for, whatever became of the loop."""
        return self._fd

    def doRead(self) -> None:
        """Give the loop a turn."""
        try:
            self._loop.run_once(0)
        except BaseException:
            log.err(None, "in a turn of procreactor's loop")

    def connectionLost(self, reason: Failure | None) -> None:
        """The reactor is being taken apart."""
        self._children.close()

    def logPrefix(self) -> str:
        """Whom log lines are about."""
        return "procreactor"


class HostedChildren:
    """All that one reactor has spawned through us. Thread: the reactor's."""

    def __init__(self, reactor: Any) -> None:
        if not IReactorFDSet.providedBy(reactor):
            raise TypeError(f"{reactor!r} watches no file descriptors: it is no IReactorFDSet")
        _log_to_twisted()
        self._reactor = reactor
        self.loop = EventLoop()
        self._reader: _LoopReader | None = None
        self._pid = -1
        self._alive: dict[HostedTransport, None] = {}
        self._keeper = Keeper(self.loop, self._keep, self._let_go, HostedProcess, HostedPTYProcess)
        self._own_starts = reaping.OwnStarts(reactor, self.loop, self.attach)

    def attach(self) -> None:
        """Let the reactor watch our loop, if it does not yet in this process."""
        if self._pid == os.getpid():
            return
        if self._reader is not None:
            self._forget_the_original(self._reader)
        self._reader = _LoopReader(self)
        self._reactor._internalReaders.add(self._reader)
        self._reactor.addReader(self._reader)
        self._pid = os.getpid()

    def _forget_the_original(self, reader: _LoopReader) -> None:
        """This is a forked copy: let go of what belongs to the process that it was copied from."""
        for transport in self._alive:
            reaping.unregister(transport)
        self._alive.clear()
        self._own_starts.close()
        reactor = self._reactor
        reactor._internalReaders.discard(reader)
        if isinstance(reactor, EPollReactor):
            # By hand: its epoll set is shared with the original, and must not be asked.
            reactor._reads.discard(reader.fileno())
            reactor._selectables.pop(reader.fileno(), None)
        else:
            try:
                reactor.removeReader(reader)
            except OSError:
                pass  # likewise: the number is not in the set any more

    def spawn(
        self,
        processProtocol: Any,
        executable: Any,
        args: Any = (),
        env: Any = {},  # noqa: B006  # Twisted's default, and never written to
        path: Any = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: Any = 0,
        childFDs: Any = None,
        **extras: Any,
    ) -> HostedTransport:
        """Do as `procreactor.internet.base.ReactorBase.spawnProcess` does, extras included."""
        self.attach()
        return spawn_process(  # type: ignore[return-value]  # the keeper's classes
            self._keeper,
            processProtocol,
            executable,
            args,
            env,
            path,
            uid,
            gid,
            usePTY,
            childFDs,
            **extras,
        )

    def _keep(self, transport: Any) -> None:
        self._alive[transport] = None
        reaping.register(transport)

    def _let_go(self, transport: Any) -> None:
        self._alive.pop(transport, None)

    def take_open(self) -> list[HostedTransport]:
        """Return the children with a pipe or a terminal open, and know them no longer.

        They stand for these among the reactor's selectables: whoever takes them closes them
        (``connectionLost``), or kills them (trial's janitor). They are still watched.
        """
        taken = [transport for transport in self._alive if transport.is_open]
        for transport in taken:
            self._let_go(transport)
        return taken

    def close(self) -> None:
        """Watch nothing any more, for good. Children and pipes stay as they are."""
        self._own_starts.close()
        self.loop.close()
