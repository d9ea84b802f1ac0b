"""What a user says of a program, as bytes: exact, or refused with the argument's name."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.model import RlimitSetting
from procreactor.transport.request import (
    encode_argv,
    encode_env,
    encode_path,
    find_candidates,
    plan_int,
    plan_rlimits,
    plan_signal,
    plan_signals,
)

# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["ä", "ä".encode(), Path("ä")])
def test_text_bytes_and_paths_become_the_same_bytes(value: object) -> None:
    assert encode_path(value, "path") == "ä".encode()


def test_undecodable_file_names_come_back_as_they_were() -> None:
    assert encode_path(os.fsdecode(b"\xff\x80"), "path") == b"\xff\x80"


@pytest.mark.parametrize("value", [None, 3, 2.5, ["x"], object()])
def test_what_is_no_text_is_refused_with_the_arguments_name(value: object) -> None:
    with pytest.raises(TypeError, match=r"executable must be str, bytes or a path"):
        encode_path(value, "executable")


def test_a_nul_is_refused_wherever_it_stands() -> None:
    with pytest.raises(ValueError, match=r"args\[1\] must not contain an embedded null byte"):
        encode_argv(["x", "a\0b"], b"x", "args")


def test_a_lone_surrogate_that_encodes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="path cannot be encoded"):
        encode_path("\ud800", "path")


# --- argv -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [(), []])
def test_no_arguments_mean_the_program_alone(args: object) -> None:
    assert encode_argv(args, b"prog", "args") == [b"prog"]


def test_arguments_may_be_of_several_kinds() -> None:
    assert encode_argv(("a", b"b", Path("c")), b"prog", "args") == [b"a", b"b", b"c"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_text_is_encoded_word_by_word(words: list[str]) -> None:
    expected = [word.encode() for word in words]
    if expected[0]:
        assert encode_argv(words, b"prog", "args") == expected
        assert encode_argv(tuple(words), b"prog", "args") == expected
    assert encode_argv(["prog", *words], b"prog", "args") == [b"prog", *expected]


@pytest.mark.parametrize(
    "args", [["a", "b\0c", "d"], ["a\0", "b"], ["\0"], ["a", b"b\0"], ["ä", "\0"]]
)
def test_a_nul_in_any_of_several_words_is_refused(args: list[object]) -> None:
    with pytest.raises(ValueError, match="embedded null byte"):
        encode_argv(args, b"prog", "args")


@pytest.mark.parametrize(
    "args", [["a", 3], ["a", None], [b"a", 3], [3, "a"], ["a", bytearray(b"b")]]
)
def test_a_word_is_text_bytes_or_a_path(args: list[object]) -> None:
    with pytest.raises(TypeError, match=re.escape(f"args[{0 if args[0] == 3 else 1}] must be str")):
        encode_argv(args, b"prog", "args")


@pytest.mark.parametrize("args", ["ls", b"ls", {"a"}, (arg for arg in "ab"), None, 3])
def test_an_argument_vector_is_a_list_or_a_tuple(args: object) -> None:
    with pytest.raises(TypeError, match="args must be a list or tuple"):
        encode_argv(args, b"prog", "args")


def test_an_empty_first_argument_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("args[0] must not be empty")):
        encode_argv([""], b"prog", "args")


# --- environment ----------------------------------------------------------------------------------


def test_no_environment_means_the_parents_and_an_empty_one_is_empty() -> None:
    assert encode_env(None, {b"A": b"1"}, "env") == {b"A": b"1"}
    assert encode_env({}, {b"A": b"1"}, "env") == {}


def test_names_and_values_may_be_text_or_bytes() -> None:
    assert encode_env({"A": b"1", b"B": "2"}, {}, "env") == {b"A": b"1", b"B": b"2"}


@pytest.mark.parametrize("name", ["A=B", "=", "", b""])
def test_a_name_that_the_environment_cannot_hold_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="illegal environment variable name in env"):
        encode_env({name: "x"}, {}, "env")


def test_a_value_may_contain_an_equals_sign() -> None:
    assert encode_env({"A": "b=c"}, {}, "env") == {b"A": b"b=c"}


@pytest.mark.parametrize("env", [[("A", "1")], 3, "A=1"])
def test_an_environment_is_a_mapping(env: object) -> None:
    with pytest.raises(TypeError, match="env must be a mapping or None"):
        encode_env(env, {}, "env")


# --- the search -----------------------------------------------------------------------------------


def test_a_bare_name_is_searched_in_the_childs_path() -> None:
    found = find_candidates(b"x", {b"PATH": b"/a:/b/:rel"}, {b"PATH": b"/parent"})
    assert found == [b"/a/x", b"/b/x", b"rel/x"]


def test_without_a_path_of_its_own_the_parents_is_searched() -> None:
    assert find_candidates(b"x", {}, {b"PATH": b"/parent"}) == [b"/parent/x"]


def test_without_any_path_the_systems_default_is_searched() -> None:
    default = [folder + b"/x" for folder in os.fsencode(os.defpath).split(b":")]
    assert find_candidates(b"x", {}, {}) == default


def test_an_empty_element_is_the_current_directory_and_root_is_root() -> None:
    assert find_candidates(b"x", {b"PATH": b":/"}, {}) == [b"x", b"/x"]


@given(st.binary(min_size=1, max_size=8).filter(lambda name: b"\0" not in name))
def test_a_name_with_a_slash_is_never_searched(name: bytes) -> None:
    program = b"./" + name
    assert find_candidates(program, {b"PATH": b"/a"}, {}) == [program]


def test_an_empty_name_stays_empty_for_the_kernel_to_refuse() -> None:
    assert find_candidates(b"", {b"PATH": b"/a"}, {}) == [b""]


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, "1", 1.0, None])
def test_a_number_is_an_int_and_no_bool(value: object) -> None:
    with pytest.raises(TypeError, match="umask must be an int from 0 to 511"):
        plan_int(value, "umask", 0, 0o777)


@pytest.mark.parametrize("value", [-1, 0o1000])
def test_a_number_is_in_its_range(value: int) -> None:
    with pytest.raises(ValueError, match=f"umask must be from 0 to 511, not {value}"):
        plan_int(value, "umask", 0, 0o777)


@pytest.mark.parametrize("value", ["TERM", "SIGTERM", signal.SIGTERM, 15])
def test_a_signal_has_many_names(value: object) -> None:
    assert plan_signal(value, "signalID") == signal.SIGTERM


def test_a_number_that_is_no_signal_is_left_to_the_kernel() -> None:
    assert plan_signal(999, "signalID") == 999


@pytest.mark.parametrize("name", ["NOPE", "term", "_BLOCK", "SIG_IGN", ""])
def test_an_unknown_signal_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="signalID must be a signal"):
        plan_signal(name, "signalID")


@pytest.mark.parametrize("value", [None, True, 1.5])
def test_a_signal_is_a_name_or_a_number(value: object) -> None:
    with pytest.raises(TypeError, match="signalID must be a signal name or number"):
        plan_signal(value, "signalID")


def test_a_mask_is_a_set_of_signals() -> None:
    assert plan_signals(["INT", 64, signal.SIGHUP], "signalMask") == {1, 2, 64}


@pytest.mark.parametrize("values", ["INT", 3, None])
def test_a_mask_is_an_iterable_of_signals_and_no_name(values: object) -> None:
    with pytest.raises(TypeError, match="signalMask must be an iterable of signals"):
        plan_signals(values, "signalMask")


@pytest.mark.parametrize("number", [0, 65])
def test_a_mask_has_signals_from_1_to_64(number: int) -> None:
    with pytest.raises(ValueError, match="an item of signalMask must be from 1 to 64"):
        plan_signals([number], "signalMask")


def test_limits_are_one_number_or_two() -> None:
    planned = plan_rlimits({resource.RLIMIT_NOFILE: 5, resource.RLIMIT_CORE: (0, 7)}, "rlimits")
    assert planned == [
        RlimitSetting(resource.RLIMIT_NOFILE, 5, 5),
        RlimitSetting(resource.RLIMIT_CORE, 0, 7),
    ]


def test_infinity_is_the_kernels_largest_number() -> None:
    (limit,) = plan_rlimits({1: resource.RLIM_INFINITY}, "rlimits")
    assert (limit.soft, limit.hard) == (2**64 - 1, 2**64 - 1)


@pytest.mark.parametrize(
    ("limits", "error", "text"),
    [
        ([(1, 2)], TypeError, "rlimits must be a mapping"),
        ({"NOFILE": 1}, TypeError, "a key of rlimits must be an int"),
        ({1: (1, 2, 3)}, ValueError, "rlimits[1] must be a limit or a pair"),
        ({1: (2, 1)}, ValueError, "the soft limit must not be above the hard"),
        ({1: -2}, ValueError, "rlimits[1] must be from -1"),
        ({1: "x"}, TypeError, "rlimits[1] must be an int"),
    ],
)
def test_bad_limits_are_refused(limits: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        plan_rlimits(limits, "rlimits")
