"""childFDs: what is taken, what is refused, and in which words."""

import enum
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.model import PipeEnd, Redirect
from procreactor.transport.redirects import plan_redirects


class Fd(enum.IntEnum):
    LOG = 7


def test_none_means_pipes_for_the_three_standard_fds() -> None:
    assert plan_redirects(None, use_pty=False) == plan_redirects({0: "w", 1: "r", 2: "r"}, False)


def test_the_letters_say_what_we_do_with_our_end() -> None:
    assert plan_redirects({0: "w", 1: "r"}, use_pty=False) == (
        Redirect(0, PipeEnd.WE_WRITE),
        Redirect(1, PipeEnd.WE_READ),
    )


def test_an_empty_mapping_gives_the_child_no_fds() -> None:
    assert plan_redirects({}, use_pty=False) == ()


@given(
    st.dictionaries(
        st.integers(0, 2**20 - 1), st.one_of(st.sampled_from("rw"), st.integers(0, 2**31 - 1))
    )
)
def test_every_good_mapping_becomes_its_rows_in_its_order(child_fds: dict[int, str | int]) -> None:
    rows = plan_redirects(child_fds, use_pty=False)
    letters = {PipeEnd.WE_READ: "r", PipeEnd.WE_WRITE: "w"}
    again = [
        (row.child_fd, letters[PipeEnd(row.source)] if row.is_pipe else row.source) for row in rows
    ]
    assert again == list(child_fds.items())


def test_a_parent_fd_may_serve_several_child_fds_and_itself() -> None:
    rows = plan_redirects({5: 5, 1: 5, 2: 5}, use_pty=False)
    assert rows == (Redirect(5, 5), Redirect(1, 5), Redirect(2, 5))


def test_a_named_number_is_a_number() -> None:
    rows = plan_redirects({Fd.LOG: Fd.LOG}, use_pty=False)
    assert rows == (Redirect(7, 7),)
    assert type(rows[0].child_fd) is int
    assert type(rows[0].source) is int


def test_any_mapping_will_do() -> None:
    assert plan_redirects(MappingProxyType({1: 3}), use_pty=False) == (Redirect(1, 3),)


@pytest.mark.parametrize("value", ["rw", "", "R", "r ", -1, PipeEnd.WE_READ])
def test_a_value_out_of_range_is_a_value_error(value: str | int) -> None:
    with pytest.raises(ValueError) as caught:
        plan_redirects({3: value}, use_pty=False)
    expected = f"childFDs[3] must be 'r', 'w' or a parent fd >= 0, not {value!r}"
    assert str(caught.value) == expected


@pytest.mark.parametrize("value", [b"r", True, False, None, 1.0, ("r",)])
def test_a_value_of_another_kind_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        plan_redirects({3: value}, use_pty=False)  # type: ignore[dict-item]
    expected = f"childFDs[3] must be 'r', 'w' or a parent fd >= 0, not {value!r}"
    assert str(caught.value) == expected


def test_a_parent_fd_that_no_system_call_can_take_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"childFDs\[3\] .* below 2147483648, not 2147483648"):
        plan_redirects({3: 2**31}, use_pty=False)


@pytest.mark.parametrize("key", [-1, 2**20, 2**70])
def test_a_key_out_of_range_is_a_value_error(key: int) -> None:
    with pytest.raises(ValueError) as caught:
        plan_redirects({key: "r"}, use_pty=False)
    expected = f"a key of childFDs must be a child fd from 0 to 1048575, not {key}"
    assert str(caught.value) == expected


@pytest.mark.parametrize("key", [True, "1", None, 1.0, b"1"])
def test_a_key_of_another_kind_is_a_type_error(key: object) -> None:
    with pytest.raises(TypeError, match="a key of childFDs must be a child fd from 0 to 1048575"):
        plan_redirects({key: "r"}, use_pty=False)  # type: ignore[dict-item]


@pytest.mark.parametrize("child_fds", [[(0, "w")], "rw", 3])
def test_what_is_not_a_mapping_is_a_type_error(child_fds: object) -> None:
    with pytest.raises(TypeError, match="childFDs must be None or a mapping"):
        plan_redirects(child_fds, use_pty=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("child_fds", [{}, {0: "w"}])
def test_a_terminal_leaves_nothing_to_map(child_fds: dict[int, str | int]) -> None:
    with pytest.raises(ValueError, match="childFDs must be None when usePTY is true"):
        plan_redirects(child_fds, use_pty=True)


def test_with_a_terminal_there_are_no_rows() -> None:
    assert plan_redirects(None, use_pty=True) == ()
