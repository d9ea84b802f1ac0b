"""The one reactor there is (twisted.internet.epollreactor): Linux has epoll."""

from __future__ import annotations

from procreactor.internet.base import ReactorBase
from procreactor.internet.main import installReactor

__all__ = ["EPollReactor", "install"]


class EPollReactor(ReactorBase):
    """A reactor on epoll(7), for one thread."""


def install() -> None:
    """Make and install a reactor; ReactorAlreadyInstalledError when there is one."""
    installReactor(EPollReactor())
