"""What stands in for typing at run time makes what typing makes, as far as a user can tell."""

from __future__ import annotations

import pickle
import typing

import pytest

from procreactor import typed
from procreactor.apps.commands import Command, Limits, Result
from procreactor.model import ExitStatus
from procreactor.transport.collected import Sink

T = typed.TypeVar("T")


class Light(typed.NamedTuple):
    """Says so."""

    first: int
    second: str = "two"

    @property
    def both(self) -> str:
        return f"{self.first} {self.second}"

    def more(self, by: int) -> Light:
        return self._replace(first=self.first + by)


class Heavy(typing.NamedTuple):
    """Says so."""

    first: int
    second: str = "two"

    @property
    def both(self) -> str:
        return f"{self.first} {self.second}"

    def more(self, by: int) -> Heavy:
        return self._replace(first=self.first + by)


@pytest.mark.parametrize(
    "name", ["_fields", "_field_defaults", "__doc__", "__module__", "__bases__"]
)
def test_a_named_tuple_is_what_typing_makes(name: str) -> None:
    assert getattr(Light, name) == getattr(Heavy, name)


@pytest.mark.parametrize("kind", [Light, Heavy])
def test_a_named_tuple_does_what_typings_does(kind: type[Light]) -> None:
    one = kind(1)
    assert one == (1, "two") == kind(second="two", first=1)
    assert one.more(by=2).both == "3 two"
    assert repr(one) == f"{kind.__name__}(first=1, second='two')"
    assert pickle.loads(pickle.dumps(one)) == one
    assert type(pickle.loads(pickle.dumps(one))) is kind
    assert list(kind.__annotations__) == ["first", "second"]
    assert typing.get_type_hints(kind) == {"first": int, "second": str}
    assert kind.__slots__ == ()
    with pytest.raises(TypeError, match="first"):
        kind()  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        one.first = 3  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Command, Limits, Result, ExitStatus])
def test_those_of_the_house_have_their_names_their_words_and_their_annotations(kind: type) -> None:
    assert issubclass(kind, tuple)
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # as that of a plain namedtuple does
    assert tuple(kind.__annotations__) == kind._fields  # type: ignore[attr-defined]


def test_what_is_generic_can_be_subscripted_and_is_the_class() -> None:
    of_text = Result[str]
    assert typing.get_origin(of_text) is Result
    assert typing.get_args(of_text) == (str,)

    class Box(typed.Generic[T]):
        pass

    assert type(Box[int]()) is Box


def test_a_protocol_is_a_class_to_derive_from() -> None:
    class Mine(Sink):
        def append(self, piece: bytes) -> None:
            pass

    assert isinstance(Mine(), Sink)
