"""KeyboardInterrupt in the middle of things, as a signal handler may raise it.

A sweep: the same act again and again, interrupted one step later each time, until it has come
through. What was made up to then must be found by whoever cleans up.

Two kinds of step. `interrupt_each_line` raises between any two lines of some modules, in Python.
`interrupt_each_bytecode` lets SIGINT arrive at each bytecode of all that runs below the act, the
standard library's included, and the interpreter raises where it looks for signals: after a call of
a function in C, at the beginning of a function in Python, and at a jump backward. In particular
what a function in C has returned is lost then, if nobody else has it: it is in no variable yet.
Between two other bytecodes CPython never raises, so nothing has to survive that.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

__all__ = ["interrupt_each_bytecode", "interrupt_each_line", "interrupted_before"]


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


def interrupt_each_bytecode(
    library: str, act: Callable[[], object], clean_up: Callable[[], object]
) -> int:
    """Perform *act* once per place where SIGINT can strike in it, and *clean_up* after each.

    *library* is the path of the library that is made of programs/interrupter.c. Returns how often
    it struck. To be called in the main thread, with Python's own handler for SIGINT.
    """
    interrupter = ctypes.PyDLL(library)
    interrupter.interrupter_start.argtypes = [ctypes.c_long]
    interrupter.interrupter_stop.restype = ctypes.c_long
    nth = 1
    strikes = 0
    while True:
        where = ""
        struck = 0
        try:
            interrupter.interrupter_start(nth)
            try:
                act()
            finally:
                struck = interrupter.interrupter_stop()
        except KeyboardInterrupt as interrupt:
            where = _innermost(interrupt)
        try:
            clean_up()
        except BaseException as error:
            error.add_note(f"after an interrupt at bytecode {struck}, {where}")
            raise
        if not struck:
            return strikes
        strikes += 1
        nth = struck + 1


def _innermost(interrupt: BaseException) -> str:
    trace = interrupt.__traceback__
    assert trace is not None
    rows = []
    while trace is not None:
        code = trace.tb_frame.f_code
        rows.append(f"{code.co_qualname}:{trace.tb_lineno}")
        trace = trace.tb_next
    return "in " + " > ".join(rows)


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
