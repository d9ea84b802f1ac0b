"""Who belongs to a tree is decided by what the kernel says, and by nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from procreactor.model import ProcessRow
from procreactor.transport.kinship import (
    VARIABLE,
    carries,
    find_kin,
    inherited_tokens,
    parents_first,
    vouches,
)


def row(pid: int, parent: int, session: int = 1, state: str = "S", threads: int = 1) -> ProcessRow:
    return ProcessRow(pid, parent, session, session, pid, state, threads)


def rows(*made: ProcessRow) -> dict[int, ProcessRow]:
    return {one.pid: one for one in made}


def test_children_and_theirs_are_kin() -> None:
    machine = rows(row(10, 1), row(11, 10), row(12, 11), row(20, 1), row(21, 20))
    assert find_kin(machine, [10], {1}) == {10: None, 11: 10, 12: 11}


def test_all_of_a_members_session_are_kin_orphans_too() -> None:
    machine = rows(row(10, 1, 10), row(11, 1, 10), row(12, 11, 10), row(20, 1, 20))
    assert set(find_kin(machine, [10], {1})) == {10, 11, 12}


def test_a_session_that_is_older_than_the_tree_makes_nobody_kin() -> None:
    machine = rows(row(10, 1, 5), row(11, 10, 5), row(12, 1, 5))
    assert set(find_kin(machine, [10], {5})) == {10, 11}


def test_session_0_is_none() -> None:
    machine = rows(row(10, 1, 0), row(11, 1, 0))
    assert set(find_kin(machine, [10], ())) == {10}


def test_a_seed_that_is_gone_is_left_out() -> None:
    assert find_kin(rows(row(10, 1)), [11], ()) == {}


def test_a_voucher_is_a_parent_or_one_in_the_same_session() -> None:
    assert vouches(row(10, 1, 10), row(11, 10, 11), ())
    assert vouches(row(10, 1, 10), row(11, 1, 10), ())
    assert not vouches(row(10, 1, 10), row(11, 1, 10), {10})
    assert not vouches(row(10, 1, 10), row(11, 1, 11), ())


machines = st.lists(
    st.builds(row, st.integers(2, 30), st.integers(1, 30), st.integers(0, 8)), max_size=20
).map(lambda made: rows(*made))


def test_parents_come_first_whatever_their_numbers() -> None:
    """As after the last pid comes the first one again."""
    grandchild, child, leader, other = row(2, 3), row(3, 30), row(30, 1), row(4, 1)
    assert parents_first([grandchild, child, other, leader]) == [other, leader, child, grandchild]


@given(machines)
def test_parents_come_first(machine: dict[int, ProcessRow]) -> None:
    """All rows of a machine have a line of parents that ends, with one that is not among them."""
    tree = {pid: one for pid, one in machine.items() if one.parent < pid}
    found = parents_first(tree.values())
    assert sorted(found) == sorted(tree.values())
    at = {one.pid: place for place, one in enumerate(found)}
    assert all(at.get(one.parent, -1) < at[one.pid] for one in found)


@given(machines, st.sets(st.integers(2, 30)), st.sets(st.integers(1, 8)))
def test_each_is_vouched_for_by_one_before_it(
    machine: dict[int, ProcessRow], seeds: set[int], foreign: set[int]
) -> None:
    kin = find_kin(machine, seeds, foreign)
    before: set[int] = set()
    for pid, voucher in kin.items():
        if voucher is None:
            assert pid in seeds
        else:
            assert voucher in before
            assert vouches(machine[voucher], machine[pid], foreign)
        before.add(pid)


@given(machines, st.sets(st.integers(2, 30)), st.sets(st.integers(1, 8)))
def test_nobody_who_could_be_vouched_for_is_left(
    machine: dict[int, ProcessRow], seeds: set[int], foreign: set[int]
) -> None:
    kin = find_kin(machine, seeds, foreign)
    left = [machine[pid] for pid in machine if pid not in kin]
    assert not any(vouches(machine[pid], one, foreign) for pid in kin for one in left)
    assert not any(one.pid in seeds for one in left)


def test_a_zombie_with_threads_is_alive() -> None:
    assert not row(10, 1, state="Z").is_alive
    assert not row(10, 1, state="X").is_alive
    assert row(10, 1, state="Z", threads=2).is_alive
    assert row(10, 1, state="T").is_alive


def test_a_token_is_an_element_of_the_variable_and_of_no_other() -> None:
    environment = b"A=1\0" + VARIABLE + b"=one-1:two-12\0B=three\0"
    assert carries(environment, b"one-1")
    assert carries(environment, b"two-12")
    assert not carries(environment, b"two-1")
    assert not carries(environment, b"three")
    assert not carries(b"X" + VARIABLE + b"=one-1\0", b"one-1")
    assert not carries(b"", b"one-1")


def test_the_tokens_are_told_from_the_rest_of_an_environment() -> None:
    assert inherited_tokens((b"A=1", b"B=2")) == ((b"A=1", b"B=2"), None)
    assert inherited_tokens((b"A=1", VARIABLE + b"=x:y", b"B=2")) == ((b"A=1", b"B=2"), b"x:y")
    assert inherited_tokens((VARIABLE + b"S=1",)) == ((VARIABLE + b"S=1",), None)
