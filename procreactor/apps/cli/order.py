"""Pure: whose turn it is, among jobs that end in any order.

The rules of the room:

* Jobs join in the order in which they start, and leave when they have ended. The first of those
  that are still there has its turn.
* Who leaves before his turn leaves what he had to the one right before him, who lives still. So
  there are never more places than jobs that run, however many have ended behind a slow one.
* Joining and leaving cost O(1), whatever the number of places.
"""

from __future__ import annotations

from procreactor.typed import Generic, TypeVar

__all__ = ["Order", "Place"]

T = TypeVar("T")


class Place(Generic[T]):
    """Where one job stands, with what its owner put there."""

    __slots__ = ("after", "before", "value")

    def __init__(self, value: T, before: Place[T] | None) -> None:
        self.value = value
        self.before = before
        """Who stands right before; None for the first."""

        self.after: Place[T] | None = None
        """Who stands right behind; None for the last."""


class Order(Generic[T]):
    """Places, one behind the other."""

    __slots__ = ("first", "last")

    def __init__(self) -> None:
        self.first: Place[T] | None = None
        """Whose turn it is; None when nobody is there."""

        self.last: Place[T] | None = None
        """Who joined last, of those that are there."""

    def join(self, value: T) -> Place[T]:
        """Return a new last place."""
        place = Place(value, self.last)
        if self.last is None:
            self.first = place
        else:
            self.last.after = place
        self.last = place
        return place

    def leave(self, place: Place[T]) -> None:
        """Take *place* out; those before and behind it are neighbours now. It keeps its own."""
        if place.before is None:
            self.first = place.after
        else:
            place.before.after = place.after
        if place.after is None:
            self.last = place.before
        else:
            place.after.before = place.before
