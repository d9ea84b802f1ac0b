"""The tests that a document names, and whether they are there: ``room/test_file.py::test_name``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

__all__ = ["NAME", "TESTS", "missing", "named_in", "names_in"]

TESTS = Path(__file__).resolve().parent

NAME = re.compile(r"`([\w/]+\.(?:py|c))::(\w+)`")
"""How a document names a test: the file, below tests/, and the name."""


def names_in(path: Path) -> set[str]:
    """The names of the functions and machines in a file of Python, or of the cases in one of C."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".c":
        return set(re.findall(r"^TEST\w*\((\w+)", text, re.MULTILINE))
    machines = set(re.findall(r"^(Test\w+) = \w+\.TestCase$", text, re.MULTILINE))
    nodes = ast.walk(ast.parse(text))
    return machines | {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def named_in(text: str) -> list[tuple[str, str]]:
    """File and name of each test that *text* names, each once."""
    return sorted(set(NAME.findall(text)))


def missing(named: list[tuple[str, str]]) -> list[str]:
    """Those of *named* that are not there."""
    there = {path: names_in(TESTS / path) for path, _ in named if (TESTS / path).exists()}
    return [f"{path}::{name}" for path, name in named if name not in there.get(path, ())]
