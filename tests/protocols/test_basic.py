"""The line receivers, ours and Twisted's, through the same stories.

Each test runs on both; where ours differs on purpose, the test says so. The stories that hypothesis
makes up compare the two event by event: same chunks, same acts inside the callbacks.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import protocol as twisted_protocol
from twisted.protocols import basic as twisted_basic

from procreactor.internet import protocol as our_protocol
from procreactor.protocols import basic as our_basic

Receiver = Any
"""A receiver of either kind; only ours has types."""

Act = tuple[str, Any]
"""Something done to a receiver: its name and its argument."""

both = pytest.mark.parametrize("basic", [our_basic, twisted_basic], ids=["ours", "twisted"])


class RecordingTransport:
    """The far end of a receiver: it notes what is asked of it."""

    def __init__(self) -> None:
        self.disconnecting = False
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.calls.append(("write", data))

    def writeSequence(self, pieces: Sequence[bytes]) -> None:
        self.calls.append(("writeSequence", list(pieces)))

    def loseConnection(self) -> None:
        self.calls.append("loseConnection")
        self.disconnecting = True

    def pauseProducing(self) -> None:
        self.calls.append("pauseProducing")

    def resumeProducing(self) -> None:
        self.calls.append("resumeProducing")

    def stopProducing(self) -> None:
        self.calls.append("stopProducing")


class PipesTransport:
    """A process transport: like Twisted's and ours, it has no ``disconnecting``."""

    def loseConnection(self) -> None:
        pass


def recorder(kind: type[Any]) -> type[Any]:
    """A receiver of *kind* that notes its events and does at each the next of ``self.acts``."""

    class Recorder(kind):  # type: ignore[misc]
        delimiter = b"\n"
        MAX_LENGTH = 10

        def __init__(self) -> None:
            self.events: list[Any] = []
            self.acts: deque[Act] = deque()

        def note(self, name: str, data: bytes) -> Any:
            self.events.append((name, data))
            return perform(self, self.acts.popleft(), data) if self.acts else None

        def lineReceived(self, line: bytes) -> Any:
            return self.note("line", line)

        def rawDataReceived(self, data: bytes) -> Any:
            return self.note("raw", data)

        def lineLengthExceeded(self, line: bytes) -> Any:
            return self.note("too long", line)

    return Recorder


def connected(basic: ModuleType, kind: str = "LineReceiver") -> Receiver:
    receiver = recorder(getattr(basic, kind))()
    receiver.makeConnection(RecordingTransport())
    return receiver


def give_back(receiver: Receiver, count: int, data: bytes) -> object:
    return receiver.setLineMode(data[count:])


def pause_and_resume(receiver: Receiver, _: None, data: bytes) -> None:
    receiver.pauseProducing()
    receiver.resumeProducing()


def fail(receiver: Receiver, _: None, data: bytes) -> None:
    raise RuntimeError("a callback's own error")


DEEDS: dict[str, Callable[[Receiver, Any, bytes], object]] = {
    "nothing": lambda receiver, _, data: None,
    "return": lambda receiver, value, data: value,
    "fail": fail,
    "feed": lambda receiver, more, data: receiver.dataReceived(more),
    "set raw mode": lambda receiver, _, data: receiver.setRawMode(),
    "set line mode": lambda receiver, extra, data: receiver.setLineMode(extra),
    "set line_mode": lambda receiver, value, data: setattr(receiver, "line_mode", value),
    "give back": give_back,
    "clear": lambda receiver, _, data: receiver.events.append(receiver.clearLineBuffer()),
    "pause": lambda receiver, _, data: receiver.pauseProducing(),
    "resume": lambda receiver, _, data: receiver.resumeProducing(),
    "pause and resume": pause_and_resume,
    "stop": lambda receiver, _, data: receiver.stopProducing(),
    "set paused": lambda receiver, value, data: setattr(receiver, "paused", value),
    "set delimiter": lambda receiver, value, data: setattr(receiver, "delimiter", value),
    "set maximum": lambda receiver, value, data: setattr(receiver, "MAX_LENGTH", value),
    "lose connection": lambda receiver, _, data: receiver.transport.loseConnection(),
}

ONLY_LINE_RECEIVER = {"set raw mode", "set line mode", "set line_mode", "give back", "clear"} | {
    "pause",
    "resume",
    "pause and resume",
    "stop",
    "set paused",
}


def perform(receiver: Receiver, act: Act, data: bytes = b"") -> object:
    name, argument = act
    return DEEDS[name](receiver, argument, data)


delimiters = st.sampled_from([b"\n", b"\r\n", b"aa", b"\n\n"])
chunks = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"a", b"bc", b"12345678901", b"1234567890"]), max_size=8
).map(b"".join)

ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "return": st.sampled_from([None, 0, True, "why"]),
    "feed": chunks,
    "set line mode": chunks,
    "set line_mode": st.sampled_from([0, 1]),
    "give back": st.integers(0, 5),
    "set paused": st.booleans(),
    "set delimiter": delimiters,
    "set maximum": st.integers(0, 15),
}


def acts(names: Sequence[str]) -> st.SearchStrategy[Act]:
    return st.sampled_from(names).flatmap(
        lambda name: st.tuples(st.just(name), ARGUMENTS.get(name, st.none()))
    )


ALL_ACTS = acts(sorted(DEEDS))
LINE_ONLY_ACTS = acts(sorted(DEEDS.keys() - ONLY_LINE_RECEIVER))
STORY_ACTS = acts(["feed"] * 20 + sorted(DEEDS.keys() - {"fail", "return"}))
LINE_ONLY_STORY_ACTS = acts(["feed"] * 20 + ["set delimiter", "set maximum"])


def told(basic: ModuleType, kind: str, story: list[Act], inside: list[Act]) -> list[Any]:
    """All that a receiver shows of itself when the acts of *story* are done to it."""
    receiver = connected(basic, kind)
    receiver.acts = deque(inside)
    for act in story:
        try:
            receiver.events.append(("returned", perform(receiver, act)))
        except RuntimeError as error:
            receiver.events.append(("raised", str(error)))
    return [receiver.events, receiver.transport.calls]


@settings(max_examples=500)
@given(st.lists(STORY_ACTS, max_size=12), st.lists(ALL_ACTS, max_size=12))
def test_a_line_receiver_does_what_twisteds_does(story: list[Act], inside: list[Act]) -> None:
    expected = told(twisted_basic, "LineReceiver", story, inside)
    assert told(our_basic, "LineReceiver", story, inside) == expected


@settings(max_examples=300)
@given(st.lists(LINE_ONLY_STORY_ACTS, max_size=12), st.lists(LINE_ONLY_ACTS, max_size=12))
def test_a_line_only_receiver_does_what_twisteds_does(story: list[Act], inside: list[Act]) -> None:
    expected = told(twisted_basic, "LineOnlyReceiver", story, inside)
    assert told(our_basic, "LineOnlyReceiver", story, inside) == expected


@pytest.mark.parametrize("kind", ["LineReceiver", "LineOnlyReceiver"])
@given(stream=chunks, cuts=st.lists(st.integers(0, 80), max_size=8), delimiter=delimiters)
def test_how_the_stream_was_chunked_does_not_show_in_the_lines(
    kind: str, stream: bytes, cuts: list[int], delimiter: bytes
) -> None:
    receiver = connected(our_basic, kind)
    receiver.delimiter, receiver.MAX_LENGTH = delimiter, 1000
    bounds = [0, *sorted(cuts), len(stream)]
    for begin, end in itertools.pairwise(bounds):
        receiver.dataReceived(stream[begin:end])
    assert [line for _, line in receiver.events] == stream.split(delimiter)[:-1]


@both
@pytest.mark.parametrize("kind", ["LineReceiver", "LineOnlyReceiver"])
def test_the_defaults_are_those_of_network_protocols(basic: ModuleType, kind: str) -> None:
    receiver = getattr(basic, kind)()
    assert receiver.delimiter == b"\r\n"
    assert receiver.MAX_LENGTH == 16384
    assert isinstance(receiver, (our_protocol.Protocol, twisted_protocol.Protocol))


@both
def test_raw_bytes_of_known_length_between_lines(basic: ModuleType) -> None:
    receiver = connected(basic)
    receiver.acts = deque([("set raw mode", None), ("give back", 4), ("nothing", None)])
    receiver.dataReceived(b"next 4\n\n\n\n\nline\n")
    assert receiver.events == [
        ("line", b"next 4"),
        ("raw", b"\n\n\n\nline\n"),
        ("line", b"line"),
    ]


@both
def test_a_pause_holds_the_lines_of_the_chunk_until_resumed(basic: ModuleType) -> None:
    receiver = connected(basic)
    receiver.acts = deque([("pause", None)])
    receiver.dataReceived(b"1\n2\n3")
    receiver.dataReceived(b"3\n")
    assert receiver.events == [("line", b"1")]
    receiver.resumeProducing()
    assert receiver.events == [("line", b"1"), ("line", b"2"), ("line", b"33")]
    assert receiver.transport.calls == ["pauseProducing", "resumeProducing"]


@both
def test_bytes_that_come_during_a_callback_wait_behind_those_that_are_held(
    basic: ModuleType,
) -> None:
    receiver = connected(basic)
    receiver.acts = deque([("feed", b"3\n")])
    receiver.dataReceived(b"1\n2\n")
    assert receiver.events == [("line", b"1"), ("line", b"2"), ("line", b"3")]


@both
def test_a_callback_that_raises_loses_its_line_alone(basic: ModuleType) -> None:
    receiver = connected(basic)
    receiver.acts = deque([("fail", None)])
    with pytest.raises(RuntimeError, match="a callback's own error"):
        receiver.dataReceived(b"1\n2\n3")
    assert receiver.events == [("line", b"1")]
    receiver.dataReceived(b"3\n")
    assert receiver.events == [("line", b"1"), ("line", b"2"), ("line", b"33")]


@both
def test_a_line_only_callback_that_raises_loses_the_other_lines_of_its_chunk(
    basic: ModuleType,
) -> None:
    receiver = connected(basic, "LineOnlyReceiver")
    receiver.acts = deque([("fail", None)])
    with pytest.raises(RuntimeError, match="a callback's own error"):
        receiver.dataReceived(b"1\n2\n3")
    receiver.dataReceived(b"3\n")
    assert receiver.events == [("line", b"1"), ("line", b"33")]


@both
def test_a_delimiter_that_a_line_sets_holds_for_the_rest_of_its_chunk(basic: ModuleType) -> None:
    receiver = connected(basic)
    receiver.acts = deque([("set delimiter", b"\r\n"), ("set delimiter", b";")])
    receiver.dataReceived(b"1\n2\n2\r\n3;4")
    assert receiver.events == [("line", b"1"), ("line", b"2\n2"), ("line", b"3")]
    assert receiver.clearLineBuffer() == b"4"


@pytest.mark.parametrize("kind", ["LineReceiver", "LineOnlyReceiver"])
def test_an_empty_delimiter_is_refused_and_loses_nothing(kind: str) -> None:
    receiver = connected(our_basic, kind)
    receiver.dataReceived(b"on")
    receiver.delimiter = b""
    with pytest.raises(ValueError, match="delimiter must be at least one byte"):
        receiver.dataReceived(b"")
    receiver.delimiter = b"\n"
    receiver.dataReceived(b"e\n")
    assert receiver.events == [("line", b"one")]


@both
def test_no_line_follows_one_that_hung_up(basic: ModuleType) -> None:
    for kind in ["LineReceiver", "LineOnlyReceiver"]:
        receiver = connected(basic, kind)
        receiver.acts = deque([("lose connection", None)])
        receiver.dataReceived(b"bye\nmore\n")
        assert receiver.events == [("line", b"bye")]


@both
def test_the_last_line_without_an_end_is_in_the_buffer(basic: ModuleType) -> None:
    receiver = connected(basic)
    receiver.dataReceived(b"one\ntw")
    receiver.dataReceived(b"o")
    assert receiver.clearLineBuffer() == b"two"
    assert receiver.clearLineBuffer() == b""
    assert receiver.events == [("line", b"one")]


@both
@pytest.mark.parametrize("kind", ["LineReceiver", "LineOnlyReceiver"])
def test_a_line_that_is_too_long_hangs_up_unless_overridden(basic: ModuleType, kind: str) -> None:
    receiver = getattr(basic, kind)()
    receiver.makeConnection(RecordingTransport())
    receiver.dataReceived(b"x" * 16400)
    assert receiver.transport.calls == ["loseConnection"]


@both
def test_lines_are_sent_with_their_delimiter(basic: ModuleType) -> None:
    receiver = connected(basic)
    receiver.sendLine(b"hello")
    assert receiver.transport.calls == [("write", b"hello\n")]
    receiver = connected(basic, "LineOnlyReceiver")
    receiver.sendLine(b"hello")
    assert receiver.transport.calls == [("writeSequence", [b"hello", b"\n"])]


@both
@pytest.mark.parametrize("kind", ["LineReceiver", "LineOnlyReceiver"])
def test_what_a_program_must_override_says_so(basic: ModuleType, kind: str) -> None:
    receiver = getattr(basic, kind)()
    with pytest.raises(NotImplementedError):
        receiver.lineReceived(b"")
    if kind == "LineReceiver":
        with pytest.raises(NotImplementedError):
            receiver.rawDataReceived(b"")


@pytest.mark.parametrize("kind", [our_basic.LineReceiver, our_basic.LineOnlyReceiver])
def test_as_a_mix_in_it_gives_the_lines_of_a_childs_output(kind: type[Any]) -> None:
    class Lines(kind, our_protocol.ProcessProtocol):  # type: ignore[misc]
        delimiter = b"\n"

        def __init__(self) -> None:
            self.lines: list[bytes] = []

        def outReceived(self, data: bytes) -> None:
            self.dataReceived(data)

        def lineReceived(self, line: bytes) -> None:
            self.lines.append(line)

    # Twisted's receivers stop at the first line here: its process transports lack the attribute
    # ``disconnecting``. Ours take that for False.
    receiver = Lines()
    receiver.makeConnection(PipesTransport())
    receiver.childDataReceived(1, b"one\ntwo\nthr")
    receiver.childDataReceived(1, b"ee\n")
    assert receiver.lines == [b"one", b"two", b"three"]


def test_two_receivers_share_nothing() -> None:
    first, second = connected(our_basic), connected(our_basic)
    first.dataReceived(b"one")
    second.dataReceived(b"two\n")
    assert second.events == [("line", b"two")]
    assert first.clearLineBuffer() == b"one"


@pytest.mark.timeout(30)
def test_a_huge_chunk_of_lines_takes_linear_time_even_when_each_line_pauses() -> None:
    # Were the rest copied for each line, as in Twisted, this would move 200 gigabytes.
    receiver = connected(our_basic)
    count = 200_000
    receiver.acts = deque([("pause", None)] * count)
    receiver.dataReceived(b"123456789\n" * count)
    while receiver.paused:
        receiver.resumeProducing()
    assert len(receiver.events) == count
