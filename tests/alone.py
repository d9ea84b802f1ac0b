"""Runs one function of a test file in a process of its own.

For tests whose subject is the state of the whole process: SIGCHLD ignored, signals sent to the
process group, limits, namespaces, another kernel feature taken away. The function stands in the
test file, beside the test that calls it; it is run in a fresh interpreter that leads a session of
its own, its arguments and its result go through JSON, and what it leaves behind (fds, children,
threads) fails the test as it would in any other.

    def exit_code_with_sigchld_ignored(program: str) -> int: ...

    def test_...() -> None:
        assert alone(exit_code_with_sigchld_ignored, program) == 3
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import IO, Any

from support import PYTHON

__all__ = ["alone"]

DEADLINE_S = 90

_DISABLED = os.environ.get("PROCREACTOR_DISABLE", "")


def alone(
    function: Callable[..., Any], *args: object, disable: str = "", deadline_s: float = DEADLINE_S
) -> Any:
    """Return what ``function(*args)`` returns in a process of its own; fail the test as it does.

    *disable* names kernel features, as PROCREACTOR_DISABLE takes them; to those that are off here.
    """
    read_fd, write_fd = os.pipe()
    with open(read_fd, "rb") as result, tempfile.TemporaryFile() as said:
        command = [PYTHON, "-X", "faulthandler", "-W", "error", __file__]
        command += [function.__code__.co_filename, function.__name__, json.dumps(args)]
        process = subprocess.Popen(
            [*command, str(write_fd)],
            env={**os.environ, "PROCREACTOR_DISABLE": f"{_DISABLED},{disable}"},
            pass_fds=[write_fd],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        os.close(write_fd)
        _wait(process, said, deadline_s)
        return json.loads(result.read())


def _wait(process: subprocess.Popen[bytes], said: IO[bytes], deadline_s: float) -> None:
    try:
        code: int | str = process.wait(deadline_s)
    except subprocess.TimeoutExpired:
        code = f"none within {deadline_s} s"
    finally:
        _kill_session(process.pid)
        process.wait()
    said.seek(0)
    assert code == 0, f"exit code {code}\n{said.read().decode(errors='replace')}"


def _kill_session(pid: int) -> None:
    """Kill what is left of the group that *pid* leads; nothing is, when all is well."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class _Said:
    """All that is said of tests: whatever the name and the arguments, a test stays as it is."""

    def __getattr__(self, name: str) -> _Said:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args and isinstance(args[0], FunctionType | type) else self

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class _Pytest(ModuleType):
    """Stands in for pytest until more is asked of it, since that takes 0.15 s to import.

    A function that is run alone hardly ever does; its file has marks and fixtures for the others.
    """

    mark = fixture = param = _Said()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)

    def load(self) -> ModuleType:
        if sys.modules["pytest"] is self:
            del sys.modules["pytest"]
        return import_module("pytest")


def _import(path: str, name: str) -> Any:
    """Return the function *name* of a test file, imported from its cache where there is one."""
    sys.modules["pytest"] = pytest = _Pytest("pytest")
    spec = spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name)
    if _asks_more(function, set()):
        pytest.load()  # later there may be no fd for it
    return function


def _asks_more(function: object, seen: set[object]) -> bool:
    """Whether it, or a function that it names, uses of pytest what has no stand-in."""
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or function in seen:
        return False
    seen.add(function)
    names = set(_names_in(function.__code__))
    if "pytest" in names and names & {"MonkeyPatch", "approx", "fail", "raises", "skip", "warns"}:
        return True
    return any(_asks_more(function.__globals__.get(name), seen) for name in names)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names_in(inner)


def _main(path: str, name: str, args: str, result_fd: str) -> None:
    from leftovers import child_pids, open_fds

    from procreactor.core import binding

    fd = int(result_fd)
    os.set_inheritable(fd, False)
    function = _import(path, name)
    binding.reserve()
    fds = open_fds()
    result = function(*json.loads(args))
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(5)
    gc.collect()
    left = {number: what for number, what in open_fds().items() if fds.get(number) != what}
    assert not left, f"fds left: {left}"
    assert set(open_fds()) >= set(fds), "fds closed that were not the function's"
    assert not child_pids(), f"children left: {child_pids()}"
    assert threading.active_count() == 1, f"threads left: {threading.enumerate()}"
    os.write(fd, json.dumps(result).encode())


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell's background job
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _main(*sys.argv[1:])
