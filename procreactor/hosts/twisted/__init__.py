"""The processes of real Twisted programs, at our speed; the programs stay as they are.

    from procreactor.hosts import twisted
    twisted.install()             # before `from twisted.internet import reactor`

or ``twisted.patch(reactor)`` for a reactor that is installed already, or, with no change at all,
``python -m procreactor.hosts.twisted PROGRAM [ARG ...]``.

What changes: `spawnProcess` is ours (C core, pidfds, flat in memory and fds, no SIGCHLD handler).
What stays: everything else of Twisted, and what programs see of a process: Twisted's own Failure,
ProcessDone and ProcessTerminated, its interfaces, ``transport.pipes``, ``reapProcessHandlers``.
README.md, Twisted programs, lists the differences; `make proof` runs Twisted's own tests.

A package and not one file, because its parts are read one at a time: children.py (the children of
one reactor, our loop inside its), transports.py (what a program holds), reaping.py (Twisted's list
of children, and those that Twisted itself started), reactor.py (the reactor class), program.py (the
starter).
"""

from __future__ import annotations

try:
    import twisted.internet  # noqa: F401
except ImportError as error:
    raise ImportError(
        "procreactor.hosts.twisted needs Twisted: pip install 'procreactor[twisted]'"
    ) from error

from procreactor.hosts.twisted.reactor import ProcreactorReactor, install, patch

__all__ = ["ProcreactorReactor", "install", "patch"]
