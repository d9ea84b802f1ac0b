"""What is planned once is planned for the command that it is for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from procreactor.apps.commands import Command
from procreactor.apps.planning import Planner


@pytest.fixture
def planner() -> Iterator[Planner]:
    planner = Planner()
    yield planner
    planner.close()


class Changing(os.PathLike[str]):
    """A path that is another one each time."""

    def __init__(self) -> None:
        self.asked = 0

    def __fspath__(self) -> str:
        self.asked += 1
        return f"/bin/{self.asked}"


def test_each_command_has_its_own_program(planner: Planner) -> None:
    words = ["/bin/a", b"/bin/b", "/bin/a", "/bin/c", b"/bin/b", "/bin/b"]
    planned = [planner.plan(Command([word, "x"])).spec for word in words]
    programs = [os.fsencode(word) for word in words]
    assert [spec.candidates for spec in planned] == [(program,) for program in programs]
    assert [spec.argv for spec in planned] == [[program, b"x"] for program in programs]


def test_a_name_is_looked_for_in_the_path_of_its_own_command(planner: Planner) -> None:
    def candidates(path: str | None) -> tuple[bytes, ...]:
        env = None if path is None else {"PATH": path}
        return tuple(planner.plan(Command(["tool"], env=env)).spec.candidates)

    assert candidates("/a:/b") == (b"/a/tool", b"/b/tool")
    assert candidates("/c") == (b"/c/tool",)
    assert candidates("/a:/b") == (b"/a/tool", b"/b/tool")
    assert candidates(None) != (b"/c/tool",)


def test_a_path_that_may_change_is_asked_each_time(planner: Planner) -> None:
    path = Changing()
    first, second = (planner.plan(Command([path])).spec.candidates for _ in range(2))
    assert first != second


@pytest.mark.parametrize("word", [None, 3, bytearray(b"/bin/a")])
def test_a_program_is_text_bytes_or_a_path(planner: Planner, word: object) -> None:
    with pytest.raises(TypeError, match=r"argv\[0\] must be str, bytes or a path"):
        planner.plan(Command([word], env={1: 2}))  # type: ignore[list-item,dict-item]


@pytest.mark.parametrize("argv", ["ls", b"ls", Command(["ls"]), {"ls"}, None, 3])
def test_an_argv_is_a_sequence_of_words(planner: Planner, argv: object) -> None:
    with pytest.raises(TypeError, match="argv must be a list or tuple"):
        planner.plan(Command(argv))  # type: ignore[arg-type]


def test_an_argv_has_the_program(planner: Planner) -> None:
    with pytest.raises(ValueError, match="at least the program"):
        planner.plan(Command([]))
