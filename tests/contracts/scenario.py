"""What a scenario is, and how one is performed.

A scenario is a function of a `World` that returns a `Record`: what a program would have seen. It
has no assertion of its own; the record of one world is compared with that of the other.

    @scenario
    async def a_child_that_fails_tells_its_code(world: World) -> Record:
        child = spawn(world, "/bin/sh", "-c", "exit 3")
        await until(child.is_over)
        return child.story()

Rules:

- An ``async`` scenario runs inside ``reactor.run()`` and may wait, but only for a condition
  (`until`). It does not await the Deferreds of the world: those are under test, not to be relied
  upon. A plain one is called with the reactor not running, and runs it itself if it likes.
- Each runs in a process of its own (driver.py), so it may do what it wants to its fds, signals, ids
  and to the reactor, which neither library can start twice.
- What is not guaranteed does not belong into a record: see `recording.LAWS` for what is.
- A record is a flat dict. Its keys are what differences.py speaks of.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from contracts.world import World

__all__ = [
    "SCENARIOS",
    "Record",
    "Scenario",
    "each",
    "happens",
    "perform",
    "scenario",
    "turns",
    "until",
]

Record = dict[str, object]
Condition = Callable[[], object]
Performance = Coroutine[Condition, None, Record]
Play = Callable[[World], Record | Performance]
Written = TypeVar("Written", bound=Callable[..., Record | Performance])

NEVER_S = 5.0
"""How long `happens` waits for what, in one of the worlds, does not happen."""

_LOOK_S = 0.004
"""Between two looks at a condition; each look is in a turn of its own."""


@dataclass(frozen=True)
class Scenario:
    """One scenario under its full name, ``topic/what happens``."""

    name: str
    play: Play

    @property
    def needs_root(self) -> bool:
        """Whether only root can play it: whoever changes its identity."""
        return self.name.startswith("identity/")


SCENARIOS: dict[str, Scenario] = {}
"""All scenarios of the modules that have been imported, in their order."""


def scenario(play: Written) -> Written:
    """Enter the decorated function into `SCENARIOS`, by its own name."""
    _enter(play, _title(play), play)
    return play


def each(cases: Mapping[str, object]) -> Callable[[Written], Written]:
    """Enter the decorated function once per case, which is its second argument."""

    def enter(play: Written) -> Written:
        for label, case in cases.items():
            _enter(play, f"{_title(play)} [{label}]", partial(_play_case, play, case))
        return play

    return enter


def _play_case(play: Callable[[World, object], Any], case: object, world: World) -> Any:
    return play(world, case)


def _title(written: Any) -> str:
    return str(written.__name__).replace("_", " ")


def _enter(written: Any, title: str, play: Play) -> None:
    topic = written.__module__.rpartition(".")[2].removeprefix("scenarios_")
    name = f"{topic}/{title}"
    assert name not in SCENARIOS, f"two scenarios are called {name}"
    SCENARIOS[name] = Scenario(name, play)


# -- waiting -------------------------------------------------------------------------------------


@types.coroutine
def until(condition: Condition) -> Generator[Condition, None, None]:
    """Wait, while the reactor runs, until *condition* holds."""
    yield condition


async def happens(condition: Condition, within_s: float = NEVER_S) -> bool:
    """Wait for *condition*, which may never hold; return whether it did."""
    end_s = time.monotonic() + within_s
    await until(lambda: condition() or time.monotonic() > end_s)
    return bool(condition())


async def turns(count: int = 10) -> None:
    """Let the reactor run *count* turns, so that what it has ready is told."""
    left = iter(range(count))
    await until(lambda: next(left, None) is None)


# -- performing ----------------------------------------------------------------------------------


def perform(one: Scenario, world: World, timeout_s: float) -> Record:
    """Play *one* in *world* and return its record, ``{"timed out": where}`` if it does not end.

    Only an ``async`` one can be timed out from within; of a plain one the driver takes care.
    """
    played = one.play(world)
    if isinstance(played, dict):
        return played
    stage = _Stage(world, played, timeout_s)
    world.reactor.callWhenRunning(stage.look)
    world.reactor.run()
    return stage.record()


class _Stage:
    """Drives one coroutine from the reactor's turns."""

    def __init__(self, world: World, performance: Performance, timeout_s: float) -> None:
        self._reactor = world.reactor
        self._performance = performance
        self._condition: Condition = lambda: True
        self._end_s = time.monotonic() + timeout_s
        self._record: Record | None = None
        self._error: BaseException | None = None

    def look(self) -> None:
        """Go on as far as the conditions allow, then look again in a later turn."""
        try:
            while self._condition():
                self._condition = self._performance.send(None)
        except StopIteration as end:
            self._finish(end.value)
        except BaseException as error:
            self._error = error
            self._finish({})
        else:
            if time.monotonic() > self._end_s:
                self._finish({"timed out": _where(self._performance)})
            else:
                self._reactor.callLater(_LOOK_S, self.look)

    def _finish(self, record: Record) -> None:
        self._record = record
        if self._reactor.running:
            self._reactor.stop()

    def record(self) -> Record:
        if self._error is not None:
            raise self._error
        if self._record is None:
            return {"broken off": "the reactor was stopped"}
        return self._record


def _where(performance: Any) -> str:
    """The lines that *performance* waits in, outermost first."""
    lines = []
    while performance is not None and getattr(performance, "cr_frame", None):
        lines.append(f"{performance.cr_code.co_name}:{performance.cr_frame.f_lineno}")
        performance = performance.cr_await
    return " > ".join(lines)
