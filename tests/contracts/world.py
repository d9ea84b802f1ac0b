"""The libraries under one roof: the same names, out of either package.

A scenario gets a `World` and takes from it all that it uses of the library under test, so that it
runs unchanged on all: on ours, on Twisted, and on Twisted with our reactor under it. One process
knows one world: reactors are global, and install themselves.
"""

from __future__ import annotations

import importlib
import logging
from functools import cached_property
from typing import Any

__all__ = ["HOSTED", "OURS", "THEIRS", "World"]

OURS = "procreactor"
THEIRS = "twisted"
HOSTED = "procreactor.hosts.twisted"
"""Twisted's names, and its reactor with our children."""


class World:
    """The namespace of one world. The modules are Any: to the type checker they are strangers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.package = OURS if name == OURS else THEIRS
        self.defer = self._module("internet.defer")
        self.error = self._module("internet.error")
        self.interfaces = self._module("internet.interfaces")
        self.protocol = self._module("internet.protocol")
        self.basic = self._module("protocols.basic")
        self.utils = self._module("internet.utils")
        self.Failure = self._module("python.failure").Failure
        self._module("internet.epollreactor")  # made ready before the fork; installed by `reactor`
        self._module("internet.process")
        self._host = importlib.import_module(HOSTED) if name == HOSTED else None
        self.logged: list[str] = []
        """What the library logged of exceptions: class and text of each."""

    @cached_property
    def reactor(self) -> Any:
        """The reactor, installed on first use; from then on `logged` is kept."""
        if self.package == THEIRS:
            self._listen_to_twisted()
        else:
            logging.getLogger("procreactor").addHandler(_ErrorHandler(self.logged))
        return self._module("internet.reactor")

    def enter(self) -> None:
        """To be called in the fork, before a scenario is played."""
        if self._host is not None:
            self._host.install()

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name}")

    def _listen_to_twisted(self) -> None:
        def note(event: dict[str, Any]) -> None:
            failure = event.get("log_failure") or event.get("failure")
            if failure is not None:
                self.logged.append(_said(failure.value))

        self._publisher.addObserver(note)

    @cached_property
    def _publisher(self) -> Any:
        return importlib.import_module("twisted.logger").globalLogPublisher


class _ErrorHandler(logging.Handler):
    def __init__(self, logged: list[str]) -> None:
        super().__init__()
        self._logged = logged

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self._logged.append(_said(record.exc_info[1]))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
