"""SECURITY.md names a test for each promise, and each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
TEXT = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")

NAMED = sorted(set(re.findall(r"([\w/]+\.(?:py|c))::(\w+)", TEXT)))
PROMISES = [
    line
    for line in TEXT.split("## What is promised")[1]
    .split("## What is not promised")[0]
    .splitlines()
    if line.startswith("| ") and line != "| promise | shown by |"
]


def names_in(path: Path) -> set[str]:
    """The names of the tests in a file of Python or C."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".c":
        return set(re.findall(r"^TEST\w*\((\w+)", text, re.MULTILINE))
    nodes = ast.walk(ast.parse(text))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_the_file_is_read_at_all() -> None:
    assert len(PROMISES) > 20
    assert len(NAMED) > 30


def test_each_test_that_is_named_is_there() -> None:
    there = {path: names_in(TESTS / path) for path, _ in NAMED}
    assert [f"{path}::{name}" for path, name in NAMED if name not in there[path]] == []


def test_no_promise_is_without_a_test() -> None:
    assert [line for line in PROMISES if "::" not in line] == []


def test_nothing_is_named_that_looks_like_a_test_and_is_none() -> None:
    assert TEXT.count("::") == len(re.findall(r"`[\w/]+\.(?:py|c)::\w+`", TEXT))
