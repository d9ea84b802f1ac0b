"""KeyboardInterrupt between any two lines, as a signal handler may raise it.

A sweep: the same act again and again, interrupted one line later each time, until it has come
through. What was made up to then must be found by whoever cleans up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

__all__ = ["interrupt_each_line", "interrupted_before"]


class _Interrupt:
    def __init__(self, files: set[str], spared: set[str], nth: int) -> None:
        self._files = files
        self._spared = spared
        self._left = nth
        self.where = ""

    @property
    def has_struck(self) -> bool:
        return self._left <= 0

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if code.co_filename not in self._files or code.co_name in self._spared:
            return None
        if event == "line":
            self._left -= 1
            if self.has_struck:
                sys.settrace(None)
                self.where = f"{code.co_qualname}, line {frame.f_lineno}"
                raise KeyboardInterrupt
        return self


def interrupt_each_line(
    modules: list[ModuleType],
    act: Callable[[], object],
    clean_up: Callable[[], object],
    spared: set[str],
) -> int:
    """Perform *act* once per line of *modules* that it runs, but in *spared* functions.

    After each, *clean_up* is called. Returns how many lines there were.
    """
    files = {str(module.__file__) for module in modules}
    nth = 0
    while True:
        nth += 1
        interrupt = _Interrupt(files, spared, nth)
        sys.settrace(interrupt)
        try:
            act()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        try:
            clean_up()
        except Exception as error:
            error.add_note(f"after an interrupt in {interrupt.where}")
            raise
        if not interrupt.has_struck:
            return nth - 1


@contextmanager
def interrupted_before(function: Any, line: str) -> Iterator[None]:
    """KeyboardInterrupt before the line of *function* that has *line* in it."""
    lines = Path(function.__code__.co_filename).read_text().splitlines()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is not function.__code__:
            return None
        if event == "line" and line in lines[frame.f_lineno - 1]:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        sys.settrace(None)
