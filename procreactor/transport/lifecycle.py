"""Pure: the life of one child, as a table.

Two things end, in any order: the child, which is reaped once, and the pipes that we hold to it,
which close one by one. Neither waits for the other: a grandchild keeps a pipe open after the child
is gone, and a child that closed all its pipes may live on. The user is told of the end when both
are over.

Rules:

* The table below is the whole of it. A pair that it lacks is an event that cannot happen, and
  `step` raises `ImpossibleEventError`: the caller has a bug.
* The actions of a row are done in their order; the last thing that the user is told is the end.
* The caller counts its pipes. An event says whether the pipe that closed was the last.
* A child without pipes starts as if its pipes had closed already.
"""

from __future__ import annotations

import enum

__all__ = ["TABLE", "Action", "Event", "ImpossibleEventError", "State", "start", "step"]


class State(enum.Enum):
    """Which of the two, child and pipes, are over."""

    __hash__ = object.__hash__  # Enum's own is a Python function, and the table is asked often

    RUNNING = "pipes open, not reaped"
    EXITED = "pipes open, reaped"
    DRAINED = "no pipes, not reaped"
    ENDED = "no pipes, reaped"


class Event(enum.Enum):
    """What the transport saw."""

    __hash__ = object.__hash__

    PIPE_CLOSED = "a pipe closed, others remain"
    LAST_PIPE_CLOSED = "the last pipe closed"
    REAPED = "the child was reaped"


class Action(enum.Enum):
    """What the user is to be told."""

    TELL_PIPE = "this pipe is closed"
    TELL_EXIT = "the child has exited"
    TELL_END = "all is over"


class ImpossibleEventError(RuntimeError):
    """An event came that the child's state rules out: a bug of the caller, never of the child."""


TABLE: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    (State.RUNNING, Event.PIPE_CLOSED): (State.RUNNING, (Action.TELL_PIPE,)),
    (State.RUNNING, Event.LAST_PIPE_CLOSED): (State.DRAINED, (Action.TELL_PIPE,)),
    (State.RUNNING, Event.REAPED): (State.EXITED, (Action.TELL_EXIT,)),
    (State.EXITED, Event.PIPE_CLOSED): (State.EXITED, (Action.TELL_PIPE,)),
    (State.EXITED, Event.LAST_PIPE_CLOSED): (State.ENDED, (Action.TELL_PIPE, Action.TELL_END)),
    (State.DRAINED, Event.REAPED): (State.ENDED, (Action.TELL_EXIT, Action.TELL_END)),
}


def start(pipe_count: int) -> State:
    """Return the state of a child that has just started, with *pipe_count* pipes that are ours."""
    if pipe_count < 0:
        raise ValueError(f"pipe_count must be >= 0, not {pipe_count}")
    return State.RUNNING if pipe_count else State.DRAINED


def step(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """Return the state after *event*, and what to tell the user, in this order."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ImpossibleEventError(
            f"{event.name} ({event.value}) cannot come to a child that is {state.name}"
            f" ({state.value})"
        ) from None
