"""The environment of a child, planned once for as long as it stays the same.

Most programs give all their children one environment: none, their own, or one mapping that they
made at the start. Encoding it anew (two encodings and a join per variable) costs more than all else
that is planned for a spawn, so the last one is kept, and compared by value, because mappings
change. A comparison of two equal dicts of a hundred strings is about two microseconds.

Only plain dicts of plain str and bytes are kept: of anything else, equal does not mean the same
bytes. The parent's environment is the plain dict inside `os.environ`, where it has one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from procreactor.transport.request import encode_env
from procreactor.typed import Any

__all__ = ["plan"]

_Plan = tuple[Mapping[bytes, bytes], tuple[bytes, ...]]

_EMPTY: _Plan = ({}, ())


class _Kept:
    """The last plan of one kind, with a copy of what it was made of."""

    def __init__(self) -> None:
        self._entry: tuple[dict[object, object] | None, list[object], _Plan] = (None, [], _EMPTY)

    def get(self, source: dict[object, object]) -> _Plan | None:
        before, names, plan = self._entry
        try:
            # The order too: it is that of the rows, and the last of "A" and b"A" counts.
            same = before == source and names == list(source)
        except BytesWarning:  # python -bb: one has str where the other has bytes
            return None
        return plan if same and _PLAIN.issuperset(map(type, source.values())) else None

    def put(self, source: dict[object, object], plan: _Plan) -> None:
        """Keep *plan*, made of *source*, which nobody else has."""
        self._entry = (source, list(source), plan)  # other threads see all of it or nothing


_PLAIN = frozenset({str, bytes})

_own = _Kept()
_given = _Kept()


def plan(env: object, what: str) -> _Plan:
    """Return the environment of a child as a mapping and as ``KEY=value`` rows.

    None means the parent's. The rows are the same tuple for as long as the environment is.
    TypeError and ValueError name *what*.
    """
    if env is None or env is os.environ or env is os.environb:
        inside = getattr(os.environb, "_data", None)
        return _plan_own(inside) if type(inside) is dict else _make(None, what)
    if type(env) is not dict:
        return _make(env, what)
    return _plan_kept(_given, env, what) if env else _EMPTY


def _plan_kept(kept: _Kept, env: dict[object, object], what: str) -> _Plan:
    plan = kept.get(env)
    if plan is None:
        source = dict(env)  # in one step: another thread may change *env* at any moment
        plan = _make(source, what)
        if _PLAIN.issuperset(map(type, source)) and _PLAIN.issuperset(map(type, source.values())):
            kept.put(source, plan)
    return plan


def _plan_own(inside: dict[object, object]) -> _Plan:
    """The parent's is passed on as it is: the kernel let it have names that would be refused."""
    plan = _own.get(inside)
    if plan is None:
        source = dict(inside)
        plan = _rows(source)
        _own.put(source, plan)
    return plan


def _rows(encoded: Mapping[Any, Any]) -> _Plan:
    return encoded, tuple(name + b"=" + value for name, value in encoded.items())


def _make(env: object, what: str) -> _Plan:
    return _rows(encode_env(env, os.environb, what))
