"""``import procreactor.internet.reactor`` gives the reactor too: the module replaces itself."""

from __future__ import annotations

import sys

from procreactor.internet import epollreactor

del sys.modules[__name__]
epollreactor.install()
