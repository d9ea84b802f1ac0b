"""System events: what is to be called before, during and after startup, shutdown and the like.

Triggers "before" an event may return Deferreds, and "during" waits for all of them; a trigger that
raises is logged and the next one runs. Firing uses the triggers up, as in Twisted: an event that is
fired again calls only what was added since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from procreactor.errors import report_callback_error
from procreactor.internet.defer import Deferred, DeferredList
from procreactor.internet.delayed import name_of

__all__ = ["SystemEvents", "TriggerID"]

TriggerID = tuple[str, "_Trigger"]

_PHASES = ("before", "during", "after")


class _Trigger:
    def __init__(
        self, phase: str, call: Callable[..., object], args: tuple[Any, ...], kw: dict[str, Any]
    ) -> None:
        self.phase = phase
        self._call = call
        self._args = args
        self._kw = kw

    def run(self) -> object:
        """Return what the callable does; None when it raises, which is logged."""
        try:
            return self._call(*self._args, **self._kw)
        except BaseException:
            report_callback_error(f"system event trigger {name_of(self._call)}")
            return None


class SystemEvents:
    """The triggers of all events, by name."""

    def __init__(self) -> None:
        self._triggers: dict[str, list[_Trigger]] = {}

    def add(
        self,
        phase: str,
        event: str,
        call: Callable[..., object],
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> TriggerID:
        """Remember *call* for *phase* of *event*; returns what `remove` takes."""
        if phase not in _PHASES:
            raise KeyError(f"phase must be one of {', '.join(_PHASES)}, not {phase!r}")
        if not callable(call):
            raise TypeError(f"a trigger must be callable, not {call!r}")
        trigger = _Trigger(phase, call, args, kw)
        self._triggers.setdefault(event, []).append(trigger)
        return event, trigger

    def remove(self, trigger_id: TriggerID) -> None:
        """Forget a trigger that has not run; ValueError when there is none such."""
        event, trigger = trigger_id
        try:
            self._triggers.get(event, []).remove(trigger)
        except ValueError:
            raise ValueError(f"no such trigger of event {event!r}, or it has run") from None

    def fire(self, event: str) -> None:
        """Run the triggers of *event*: at once, or from "during" on when Deferreds have fired."""
        waiting = [
            result for result in self._run_phase(event, "before") if isinstance(result, Deferred)
        ]
        if waiting:
            DeferredList(waiting).addCallback(lambda _: self._go_on(event))
        else:
            self._go_on(event)

    def _go_on(self, event: str) -> None:
        self._run_phase(event, "during")
        self._run_phase(event, "after")

    def _run_phase(self, event: str, phase: str) -> list[object]:
        results = []
        # One by one, since a trigger may remove another that has not run yet.
        while trigger := self._take_first(event, phase):
            results.append(trigger.run())
        return results

    def _take_first(self, event: str, phase: str) -> _Trigger | None:
        triggers = self._triggers.get(event, [])
        for trigger in triggers:
            if trigger.phase == phase:
                triggers.remove(trigger)
                return trigger
        return None
