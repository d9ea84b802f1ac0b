"""Floor 6: Twisted's names over the loop and the transports.

``from procreactor.internet import reactor`` gives the reactor object, made and installed the first
time that somebody asks for it, as in Twisted: so another one may be installed before. This is the
one lazy attribute of the package; it is why the import below stands inside a function.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procreactor.internet.epollreactor import EPollReactor

    reactor: EPollReactor

__all__ = ["reactor"]

_installing = threading.RLock()


if not TYPE_CHECKING:  # or every name would be an attribute to a type checker

    def __getattr__(name: str) -> object:
        if name != "reactor":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # The import makes, installs and names it: afterwards `reactor` is an ordinary attribute.
        from procreactor.internet import epollreactor

        with _installing:  # two threads may ask at once
            if "reactor" not in globals():
                epollreactor.install()
        return globals()["reactor"]
