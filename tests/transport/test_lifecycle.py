"""The life of a child: every cell of the table, and every life that is possible."""

import itertools

import pytest

from procreactor.transport.lifecycle import (
    TABLE,
    Action,
    Event,
    ImpossibleEventError,
    State,
    start,
    step,
)

TELL_PIPE, TELL_EXIT, TELL_END = Action.TELL_PIPE, Action.TELL_EXIT, Action.TELL_END

# The design, written down a second time: rows are states, columns are events.
COLUMNS = [Event.PIPE_CLOSED, Event.LAST_PIPE_CLOSED, Event.REAPED]
Cell = tuple[State, list[Action]] | None
DESIGN: dict[State, list[Cell]] = {
    State.RUNNING: [
        (State.RUNNING, [TELL_PIPE]),
        (State.DRAINED, [TELL_PIPE]),
        (State.EXITED, [TELL_EXIT]),
    ],
    State.EXITED: [
        (State.EXITED, [TELL_PIPE]),
        (State.ENDED, [TELL_PIPE, TELL_END]),
        None,
    ],
    State.DRAINED: [None, None, (State.ENDED, [TELL_EXIT, TELL_END])],
    State.ENDED: [None, None, None],
}
CELLS = [
    (state, event, cell)
    for state, row in DESIGN.items()
    for event, cell in zip(COLUMNS, row, strict=True)
]


def test_the_design_covers_every_pair_of_state_and_event() -> None:
    pairs = {(state, event) for state, event, _ in CELLS}
    assert pairs == set(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event", "cell"), CELLS)
def test_each_cell_does_what_the_design_says(state: State, event: Event, cell: Cell) -> None:
    if cell is None:
        with pytest.raises(ImpossibleEventError) as caught:
            step(state, event)
        assert state.name in str(caught.value)
        assert event.name in str(caught.value)
    else:
        after, actions = cell
        assert step(state, event) == (after, tuple(actions))


def test_the_table_has_no_row_beyond_the_design() -> None:
    assert set(TABLE) == {(state, event) for state, event, cell in CELLS if cell is not None}


def test_a_child_with_pipes_starts_running() -> None:
    assert start(1) is State.RUNNING
    assert start(3) is State.RUNNING


def test_a_child_without_pipes_starts_drained() -> None:
    assert start(0) is State.DRAINED


def test_a_count_of_pipes_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="pipe_count must be >= 0, not -1"):
        start(-1)


@pytest.mark.parametrize("pipe_count", range(5))
def test_in_every_life_the_user_hears_of_each_pipe_and_of_the_exit_once_and_of_the_end_last(
    pipe_count: int,
) -> None:
    for reaped_after in range(pipe_count + 1):
        state = start(pipe_count)
        heard: list[Action] = []
        for moment in range(pipe_count + 1):
            closed = moment - (moment > reaped_after)
            if moment == reaped_after:
                event = Event.REAPED
            elif closed == pipe_count - 1:
                event = Event.LAST_PIPE_CLOSED
            else:
                event = Event.PIPE_CLOSED
            assert TELL_END not in heard
            state, actions = step(state, event)
            heard += actions
        assert state is State.ENDED
        assert heard[-1] is TELL_END
        assert heard.count(TELL_END) == heard.count(TELL_EXIT) == 1
        assert heard.count(TELL_PIPE) == pipe_count
