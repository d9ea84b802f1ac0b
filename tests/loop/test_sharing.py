"""A reader and a writer on one fd, neither knowing of the other."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from procreactor.kernel.poller import ERROR, HANGUP, READ, WRITE
from procreactor.loop.eventloop import EventLoop, Watch
from procreactor.loop.sharing import SharedFd


class Ends:
    """Our end of a socket, shared by two sides that write down what they are told."""

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.shared = SharedFd(loop, self.ours.fileno())
        self.read_events: list[int] = []
        self.write_events: list[int] = []

    def read_side(self, events: int = READ) -> Watch:
        return self.shared.watch(self.ours.fileno(), self.read_events.append, events)

    def write_side(self, events: int = WRITE) -> Watch:
        return self.shared.watch(self.ours.fileno(), self.write_events.append, events)

    def turn(self) -> tuple[list[int], list[int]]:
        """What each side is told in one turn."""
        self.read_events.clear()
        self.write_events.clear()
        self.loop.run_once(0)
        return self.read_events, self.write_events

    def hang_up(self) -> None:
        self.theirs.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    loop = EventLoop()
    made = Ends(loop)
    yield made
    made.ours.close()
    made.theirs.close()
    loop.close()


def test_each_side_is_told_its_own_events(ends: Ends) -> None:
    ends.read_side()
    ends.write_side()
    assert ends.turn() == ([], [WRITE])
    ends.theirs.send(b"x")
    assert ends.turn() == ([READ], [WRITE])


def test_each_side_pauses_alone(ends: Ends) -> None:
    reader, writer = ends.read_side(), ends.write_side()
    ends.theirs.send(b"x")
    ends.shared.rewatch(writer, 0)
    assert ends.turn() == ([READ], [])
    ends.shared.rewatch(writer, WRITE)
    ends.shared.rewatch(reader, 0)
    assert ends.turn() == ([], [WRITE])


def test_a_side_that_is_gone_is_told_nothing(ends: Ends) -> None:
    reader, writer = ends.read_side(), ends.write_side()
    ends.theirs.send(b"x")
    ends.shared.unwatch(reader)
    ends.shared.unwatch(reader)
    assert ends.turn() == ([], [WRITE])
    ends.shared.rewatch(reader, READ)  # of no effect
    assert ends.turn() == ([], [WRITE])
    ends.shared.unwatch(writer)
    assert ends.turn() == ([], [])


def test_a_side_can_come_back(ends: Ends) -> None:
    ends.shared.unwatch(ends.read_side())
    ends.read_side()
    ends.theirs.send(b"x")
    assert ends.turn() == ([READ], [])


def test_a_hang_up_goes_to_the_reader_who_reads_to_the_end(ends: Ends) -> None:
    ends.read_side()
    ends.write_side(0)
    ends.theirs.send(b"last words")
    ends.hang_up()
    told, nothing = ends.turn()
    assert told == [READ]
    assert nothing == []


def test_without_data_a_hang_up_is_an_invitation_to_read(ends: Ends) -> None:
    ends.read_side()
    ends.hang_up()
    assert ends.turn() == ([READ], [])


def test_with_the_reader_paused_a_hang_up_goes_to_the_writer(ends: Ends) -> None:
    ends.read_side(0)
    ends.write_side()
    ends.hang_up()
    assert ends.turn() == ([], [WRITE])


def test_with_both_silent_a_hang_up_does_not_keep_the_loop_busy(ends: Ends) -> None:
    reader, _ = ends.read_side(0), ends.write_side(0)
    ends.hang_up()
    assert ends.turn() == ([], [])
    assert not ends.loop._poller.wait(0)
    ends.shared.rewatch(reader, READ)
    assert ends.turn() == ([READ], [])


def test_a_side_stopped_by_the_other_in_the_same_turn_is_not_told(ends: Ends) -> None:
    told: list[str] = []

    def on_read(events: int) -> None:
        told.append("reader")
        ends.shared.unwatch(writer)

    ends.shared.watch(ends.ours.fileno(), on_read, READ)
    writer = ends.shared.watch(ends.ours.fileno(), lambda events: told.append("writer"), WRITE)
    ends.theirs.send(b"x")
    ends.loop.run_once(0)
    assert told == ["reader"]


@pytest.mark.parametrize("gone", [HANGUP, ERROR])
@pytest.mark.parametrize("data", [0, READ])
def test_whatever_the_kernel_adds_the_reader_is_told_only_to_read(
    ends: Ends, gone: int, data: int
) -> None:
    ends.read_side()
    ends.write_side(0)
    ends.shared._on_ready(gone | data)
    assert ends.read_events == [READ]
    assert ends.write_events == []


def test_calls_and_timers_are_the_loops(ends: Ends) -> None:
    made: list[str] = []
    ends.shared.call_soon(made.append, "soon")
    ends.shared.call_later(0, made.append, "later")
    ends.loop.run_once(0)
    ends.loop.run_once(0)
    assert made == ["soon", "later"]
