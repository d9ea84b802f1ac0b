"""Places against a plain list: whoever leaves, the first and the neighbours are right."""

from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli.order import Order, Place


def forward(order: Order[int]) -> list[int]:
    found, place = [], order.first
    while place is not None:
        found.append(place.value)
        place = place.after
    return found


def backward(order: Order[int]) -> list[int]:
    found, place = [], order.last
    while place is not None:
        found.append(place.value)
        place = place.before
    return found


@given(st.lists(st.none() | st.integers(0, 10), max_size=40))
def test_places_are_those_of_a_list(acts: list[int | None]) -> None:
    order: Order[int] = Order()
    places: list[Place[int]] = []
    for number, act in enumerate(acts):
        if act is None or not places:
            places.append(order.join(number))
        else:
            leaving = places.pop(act % len(places))
            order.leave(leaving)
        values = [place.value for place in places]
        assert forward(order) == values
        assert backward(order) == values[::-1]


def test_who_leaves_knows_who_stood_before() -> None:
    order: Order[int] = Order()
    first, second = order.join(1), order.join(2)
    order.leave(second)
    assert second.before is first
    order.leave(first)
    assert first.before is None
    assert order.first is None
