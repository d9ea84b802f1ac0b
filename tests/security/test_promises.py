"""SECURITY.md names a test for each promise, and each test that it names is there."""

from __future__ import annotations

from named import NAME, TESTS, missing, named_in

TEXT = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")

PROMISES = [
    line
    for line in TEXT.split("## What is promised")[1]
    .split("## What is not promised")[0]
    .splitlines()
    if line.startswith("| ") and line != "| promise | shown by |"
]


def test_the_file_is_read_at_all() -> None:
    assert len(PROMISES) > 20
    assert len(named_in(TEXT)) > 30


def test_each_test_that_is_named_is_there() -> None:
    assert missing(named_in(TEXT)) == []


def test_no_promise_is_without_a_test() -> None:
    assert [line for line in PROMISES if not named_in(line)] == []


def test_nothing_is_named_that_looks_like_a_test_and_is_none() -> None:
    assert TEXT.count("::") == len(NAME.findall(TEXT))
