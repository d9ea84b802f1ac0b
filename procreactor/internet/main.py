"""Which reactor is the reactor (twisted.internet.main).

There is one installed reactor per process, because programs import it by name. More reactors may be
made and run, each in its own thread, without being installed.
"""

from __future__ import annotations

import sys
from typing import Any

from procreactor import internet
from procreactor.internet.error import ReactorAlreadyInstalledError

__all__ = ["installReactor"]

_MODULE = "procreactor.internet.reactor"


def installReactor(reactor: Any) -> None:
    """Make *reactor* what ``from procreactor.internet import reactor`` gives.

    ReactorAlreadyInstalledError when one is installed, be it by a mere import of it.
    """
    if _MODULE in sys.modules:
        raise ReactorAlreadyInstalledError("reactor already installed")
    sys.modules[_MODULE] = reactor
    vars(internet)["reactor"] = reactor
