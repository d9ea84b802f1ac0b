"""The cache of environments: it must not be seen, except by the identity of what it returns."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procreactor.transport import environments
from procreactor.transport.request import encode_env

Given = dict[Any, Any]


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_own", environments._Kept())
    monkeypatch.setattr(environments, "_given", environments._Kept())


def rows_of(env: object) -> tuple[bytes, ...]:
    """The rows without any cache."""
    encoded = encode_env(env, os.environb, "env")
    return tuple(name + b"=" + value for name, value in encoded.items())


def check(env: object) -> tuple[bytes, ...]:
    """Plan *env*, compare with no cache, and return the rows."""
    mapping, rows = environments.plan(env, "env")
    assert rows == rows_of(env)
    assert list(mapping.items()) == list(encode_env(env, os.environb, "env").items())
    return rows


@pytest.fixture
def own_environment() -> Iterator[None]:
    before = dict(os.environb)
    yield
    os.environb.clear()
    os.environb.update(before)


# --- the same as without --------------------------------------------------------------------------

NAMES = st.sampled_from(["A", "B", "ü", b"A", b"B", "ü".encode(), "\udcff", b"\xff"])
VALUES = st.sampled_from(["", "1", "ü", b"", b"1", "ü".encode(), "\udcff", b"\xff", "a=b"])


@settings(deadline=None)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=6))
def test_a_series_of_mappings_gives_what_each_alone_gives(series: list[Given]) -> None:
    for env in series:
        check(env)


@settings(deadline=None)
@given(
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.lists(st.tuples(NAMES, st.none() | VALUES), max_size=8),
)
def test_a_mapping_that_changes_between_two_calls_is_read_anew(
    env: Given, changes: list[tuple[Any, Any]]
) -> None:
    check(env)
    for name, value in changes:
        env.pop(name, None)
        if value is not None:
            env[name] = value
        check(env)


@settings(deadline=None)
@given(st.permutations([("A", "1"), ("B", "2"), (b"A", "3"), ("C", b"4")]))
def test_the_order_of_a_mapping_is_the_order_of_the_rows(items: list[tuple[Any, Any]]) -> None:
    # Equal dicts may have another order, and of two names for one variable the last one counts.
    check(dict(sorted(items, key=repr)))
    check(dict(items))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["PR_A", "PR_B"]), st.none() | st.text("xü"))))
def test_every_change_of_our_own_environment_is_seen(
    changes: list[tuple[str, str | None]],
) -> None:
    check(None)
    try:
        for name, value in changes:
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
            assert (os.fsencode(f"{name}={value}") in check(None)) == (value is not None)
    finally:
        for name in ("PR_A", "PR_B"):
            os.environ.pop(name, None)


def test_our_own_environment_changed_as_bytes_is_seen(own_environment: None) -> None:
    check(None)
    os.environb[b"PR_BYTES"] = b"\xff"
    assert b"PR_BYTES=\xff" in check(None)
    os.environ["PR_BYTES"] = "text"
    assert b"PR_BYTES=text" in check(None)
    del os.environb[b"PR_BYTES"]
    assert not [row for row in check(None) if row.startswith(b"PR_BYTES")]


def test_an_environment_that_was_put_in_the_place_of_ours_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(None)
    monkeypatch.setattr(os, "environb", {b"ANOTHER": b"1"})  # no `_data` inside
    assert check(None) == (b"ANOTHER=1",)


def test_none_an_empty_mapping_and_our_own_environment_are_three_things(
    own_environment: None,
) -> None:
    os.environ["PR_OWN"] = "1"
    assert b"PR_OWN=1" in check(None)
    assert check({}) == ()
    assert b"PR_OWN=1" in check(os.environ)
    assert b"PR_OWN=1" in check(dict(os.environ))
    assert check({"PR_OWN": "2"}) == (b"PR_OWN=2",)
    assert b"PR_OWN=1" in check(None)


def test_what_is_returned_does_not_follow_the_mapping_that_it_was_made_of() -> None:
    env = {"A": "1"}
    mapping, rows = environments.plan(env, "env")
    env["A"] = "2"
    assert (dict(mapping), rows) == ({b"A": b"1"}, (b"A=1",))


def test_one_who_changes_the_environment_while_it_is_planned_does_not_spoil_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another thread may, at any moment, with `os.environ`."""
    env = {"A": "1"}

    def encode_and_change(*args: Any) -> dict[bytes, bytes]:
        encoded = encode_env(*args)
        env["A"] = "2"
        return encoded

    monkeypatch.setattr(environments, "encode_env", encode_and_change)
    environments.plan(env, "env")
    monkeypatch.setattr(environments, "encode_env", encode_env)
    assert check(env) == (b"A=2",)


# --- refusals -------------------------------------------------------------------------------------

REFUSED: list[tuple[object, type[Exception]]] = [
    ({"A": 1}, TypeError),
    ({"A": None}, TypeError),
    ({1: "A"}, TypeError),
    ({"": "x"}, ValueError),
    ({"A=B": "x"}, ValueError),
    ({"A": "x\0"}, ValueError),
    ({"A\0": "x"}, ValueError),
    ({"A": "\ud800"}, ValueError),
    ([("A", "1")], TypeError),
    ("A=1", TypeError),
]


@pytest.mark.parametrize(("env", "error"), REFUSED, ids=repr)
def test_what_is_refused_is_refused_each_time(env: object, error: type[Exception]) -> None:
    for _ in range(2):
        with pytest.raises(error, match="the environment"):
            environments.plan(env, "the environment")
        check({"A": "1"})


class EqualToAll(str):
    """Says that it is equal to any text, as only a test's own helper would."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Shout(str):
    """A str whose text, as it is encoded, is not the one that it is compared by."""

    def encode(self, *args: Any) -> bytes:
        return self.upper().encode()


@pytest.mark.parametrize("value", [EqualToAll("2"), Shout("1"), Path("1")], ids=["==", "str", "/"])
def test_a_value_of_another_type_is_encoded_by_its_own_rules(value: Any) -> None:
    check({"A": "1"})
    check({"A": value})
    check({"A": "1"})


def test_what_is_equal_to_anything_is_refused_all_the_same() -> None:
    check({"A": "1"})
    with pytest.raises(TypeError, match="env"):
        environments.plan({"A": ANY}, "env")


# --- what is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env", [None, {"A": "1"}, {b"A": b"1"}, {"A": b"1", b"B": "2"}, {}], ids=repr
)
def test_the_rows_are_the_same_tuple_while_the_environment_is_the_same(env: Given | None) -> None:
    rows = check(env)
    assert check(env) is rows
    if env is not None:
        assert check(dict(env)) is rows


def test_our_own_and_a_given_environment_are_kept_side_by_side() -> None:
    own, given_rows = check(None), check({"A": "1"})
    assert check(None) is own
    assert check({"A": "1"}) is given_rows


class Kind(dict[Any, Any]):
    """A dict that may have its own idea of its items."""

    def items(self) -> Any:
        return [("A", "from items")]


@pytest.mark.parametrize(
    "env",
    [
        MappingProxyType({"A": "1"}),
        Kind({"A": "1"}),
        {"A": Path("1")},
        {"A": Shout("1")},
        {Shout("a"): "1"},
        {"B": "1", "A": EqualToAll("1")},
    ],
    ids=["proxy", "subclass", "path", "str subclass", "name", "equal to all"],
)
def test_odd_mappings_and_odd_types_are_not_kept(env: Mapping[Any, Any]) -> None:
    rows = check(env)
    again = check(env)
    assert again == rows
    assert again is not rows
    plain = {"A": "1"}
    kept = check(plain)
    check(env)
    assert check(plain) is kept


UNDER_BB = """
import os
from procreactor.transport import environments
from procreactor.transport.request import encode_env

for env in (
    {"A": "1"}, {b"A": "1"}, {"A": b"1"}, {b"A": b"1"}, {"A": "1", "B": b"2"},
    {b"A": "1", "B": b"2"}, {"A": b"1"}, {"A": "1"}, None, dict(os.environb), dict(os.environ),
):
    for _ in range(2):
        mapping, rows = environments.plan(env, "env")
        wanted = encode_env(env, os.environb, "env")
        assert mapping == wanted
        assert list(rows) == [name + b"=" + value for name, value in wanted.items()]
try:
    {"A": 1} == {b"A": 1}
except BytesWarning:
    print("compared")
"""


@pytest.mark.parametrize("option", ["-b", "-bb"])
def test_under_bb_text_and_bytes_are_not_taken_for_a_mistake(option: str) -> None:
    done = subprocess.run(
        [sys.executable, option, "-c", UNDER_BB], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert ("compared" in done.stdout) == (option == "-bb")
    if option == "-bb":
        assert done.stderr == ""


ODD = """
import os
from procreactor.transport import environments
assert b"=a=b" in environments.plan(None, "env")[1], os.environb
assert b"=a=b" in environments.plan(os.environ, "env")[1]
assert environments.plan(None, "env")[1] is environments.plan(os.environ, "env")[1]
"""


def test_the_parents_own_is_passed_on_however_odd_its_names() -> None:
    """The kernel lets a program be started with what nobody could pass by name."""
    subprocess.run(["env", "=a=b", sys.executable, "-c", ODD], check=True)
