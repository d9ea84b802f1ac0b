"""procreactor: spawn, talk to and reap child processes on Linux, at the kernel's speed.

Twisted's process API lives under ``procreactor.internet``; what is here is the vocabulary that
every face of the package shares. Importing this package makes no system call that an ordinary
import would not make: the kernel is asked at the first spawn.
"""

from __future__ import annotations

from procreactor.errors import SpawnError
from procreactor.model import ExitStatus, ResourceUsage

__all__ = ["ExitStatus", "ResourceUsage", "SpawnError", "__version__"]

__version__ = "0.1.0"
