"""The suites: what is run, by which route, and how many tests must pass at least.

Two routes lead Twisted's tests to another reactor. GLOBAL: the process has that reactor, as with
``trial --reactor``. BUILDER: the tests that make a reactor of each known class know one class only.
DISTRIBUTED is ``trial -j2``: the reactor spawns the workers, which run on it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["OURS", "STOCK", "SUITES", "Reactor", "Route", "Suite"]


class Route(Enum):
    """How a reactor comes to the tests."""

    GLOBAL = "global reactor"
    BUILDER = "ReactorBuilder"
    DISTRIBUTED = "trial -j2"


@dataclass(frozen=True)
class Reactor:
    """A reactor under test."""

    label: str
    option: str
    """Its name for trial's ``--reactor``."""
    path: str
    """Its class."""

    @property
    def built_suffix(self) -> str:
        """What the builder puts after the name of a test class."""
        return f"_{self.path.rsplit('.', 1)[1]}Tests"


STOCK = Reactor("stock", "epoll", "twisted.internet.epollreactor.EPollReactor")
OURS = Reactor("ours", "procreactor", "procreactor.hosts.twisted.ProcreactorReactor")


@dataclass(frozen=True)
class Suite:
    """Tests that are run in one process, and judged together."""

    title: str
    route: Route
    names: tuple[str, ...]
    """What trial is given."""
    passes: int
    """How many must pass on ours at least, so that nothing collected cannot pass."""
    timeout_s: float = 300.0
    long: bool = False
    """`--quick` leaves it out."""
    identity: tuple[str, ...] = ()
    """Tests among `passes` that only root runs, and that need an interpreter that all can read."""
    sdist: bool = False
    """It is in the source distribution of Buildbot's worker; see sdist.py."""

    def has(self, test: str) -> bool:
        """Whether *test*, an id, can be one of these."""
        if self.route is Route.DISTRIBUTED:
            return False
        return any(test.startswith(name + ".") for name in self.names)


def _builder(*modules: str) -> tuple[str, ...]:
    return tuple(f"twisted.internet.test.test_{module}" for module in modules)


_ENDPOINTS = "twisted.internet.test.test_endpoints"

SUITES: Sequence[Suite] = (
    Suite("`twisted.test.test_process`", Route.GLOBAL, ("twisted.test.test_process",), 46),
    Suite(
        "`twisted.internet.test.test_process`",
        Route.BUILDER,
        _builder("process"),
        39,
        identity=("test_changeUID", "test_changeGID"),
    ),
    Suite("`twisted.test.test_iutils`", Route.GLOBAL, ("twisted.test.test_iutils",), 24),
    Suite("`twisted.test.test_stdio`", Route.GLOBAL, ("twisted.test.test_stdio",), 11, long=True),
    Suite("`twisted.web.test.test_cgi`", Route.GLOBAL, ("twisted.web.test.test_cgi",), 16),
    Suite(
        "`twisted.python.test.test_sendmsg`",
        Route.GLOBAL,
        ("twisted.python.test.test_sendmsg",),
        12,
    ),
    Suite(
        "`twisted.runner.test.test_procmon`",
        Route.GLOBAL,
        ("twisted.runner.test.test_procmon",),
        36,
    ),
    Suite(
        "`twisted.internet.test.test_endpoints`, processes",
        Route.GLOBAL,
        (
            f"{_ENDPOINTS}.ProcessEndpointsTests",
            f"{_ENDPOINTS}.ProcessEndpointTransportTests",
            f"{_ENDPOINTS}.WrappedIProtocolTests",
        ),
        29,
    ),
    Suite(
        "`twisted.internet.test`: core, threads, time, fdset, tcp, socket, unix, udp, stdio",
        Route.BUILDER,
        _builder("core", "threads", "time", "fdset", "tcp", "socket", "unix", "udp", "stdio"),
        229,
    ),
    Suite("`twisted.trial._dist`", Route.GLOBAL, ("twisted.trial._dist",), 100, long=True),
    Suite(
        "`trial -j2`: test_iutils, test_tcp, test_endpoints",
        Route.DISTRIBUTED,
        ("twisted.test.test_iutils", "twisted.test.test_tcp", _ENDPOINTS),
        249,
        long=True,
    ),
    Suite(
        "`buildbot_worker.test.unit.test_runprocess`",
        Route.GLOBAL,
        ("buildbot_worker.test.unit.test_runprocess",),
        45,
        long=True,
        sdist=True,
    ),
)
