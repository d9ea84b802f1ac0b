"""Twisted's plug-in for ``--reactor=procreactor``.

It lies in no directory of sys.path, but in one that ``python -m procreactor.hosts.twisted
--plugin-path`` prints, for PYTHONPATH. In site-packages it would make ``import twisted`` succeed
where there is no Twisted: a directory without ``__init__.py`` is a namespace package.
"""

from twisted.application.reactors import Reactor

procreactor = Reactor(
    "procreactor",
    "procreactor.hosts.twisted",
    "epoll, with child processes by procreactor: fast, flat, no SIGCHLD",
)
