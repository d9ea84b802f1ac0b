"""What the modules that every start of the command imports take from typing, without typing.

``typing`` costs such a start several ms of CPU: it builds a hundred objects for names that nobody
asks for, and its NamedTuple looks at each annotation, of which one that is text is compiled. A type
checker reads the names from typing all the same; at run time they are the least that does:
`NamedTuple` makes the same classes, `Generic` and `Protocol` can be subscripted as the standard
library's own classes can (``queue.Queue[int]``), and what is for annotations alone is but a name,
which is what typing.get_type_hints finds there. A file that takes them from here has annotations
from ``__future__``. Where no start of the command comes by, typing itself is imported.
"""

from __future__ import annotations

from collections import namedtuple
from types import GenericAlias

__all__ = [
    "TYPE_CHECKING",
    "Any",
    "Final",
    "Generic",
    "Literal",
    "NamedTuple",
    "NoReturn",
    "Protocol",
    "TypeAlias",
    "TypeVar",
    "new_tuple",
]

new_tuple = tuple.__new__
"""``new_tuple(Point, (x, y))`` is what ``Point(x, y)`` is, without the call of a function,
which a named tuple's constructor is. For what is made once per command; all fields are given."""

TYPE_CHECKING = False
"""To a type checker it is true."""

if TYPE_CHECKING:
    from typing import (
        Any,
        Final,
        Generic,
        Literal,
        NamedTuple,
        NoReturn,
        Protocol,
        TypeAlias,
        TypeVar,
    )
else:

    class _Maker(type):
        """Makes a tuple's class of the fields and the methods that the body of a class has."""

        def __new__(cls, name, bases, body):
            if not bases:  # NamedTuple itself
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]  # text: the file has annotations from __future__
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for key in body.keys() - fields.keys():
                setattr(made, key, body[key])
            if Generic in bases:
                made.__class_getitem__ = classmethod(GenericAlias)
            return made

    class NamedTuple(metaclass=_Maker):
        """As typing.NamedTuple: the fields are the annotations, in order."""

    class Generic:
        """As typing.Generic, as far as a subscript of it is the class itself."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)

    class Protocol(Generic):
        """As typing.Protocol, for checkers; who is derived from it is no different for that."""

        __slots__ = ()

    class _Name:
        """Stands in an annotation."""

        def __init__(self, name, **bound):
            self.__name__ = name

        def __repr__(self):
            return self.__name__

        def __getitem__(self, _):
            return self

        def __or__(self, other):
            return self

        __ror__ = __or__

    TypeVar = _Name
    Any, Final, Literal, NoReturn, TypeAlias = map(
        _Name, ("Any", "Final", "Literal", "NoReturn", "TypeAlias")
    )
