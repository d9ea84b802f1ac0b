"""What holds for every test: it leaves the process as it found it.

What stays for good by design is made before the first test: the landing slots (csrc/slots.c), what
the first spawn learns, and the reactor of the real Twisted, which some tests compare with.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import signal
import threading
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from leftovers import child_pids, open_fds
from support import LACKS

import procreactor
from procreactor.core import binding
from procreactor.kernel import children

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what is about something that this world lacks (tests/worlds)."""
    needs = {what for mark in item.iter_markers("needs") for what in mark.args}
    if missing := needs & LACKS:
        pytest.skip(f"this world lacks {', '.join(sorted(missing))}")


PACKAGE = Path(procreactor.__file__).parent

_HAD_NO_THREAD = pytest.StashKey[str]()
_NO_THREAD = re.compile(
    r'File "([^"]+)", line .*\n(?:    .*\n)*  File ".*/threading\.py", .* in start\n'
    r"(?:    .*\n)*RuntimeError: can't start new thread"
)
"""Group 1: the file of whoever wanted one."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In the world without threads leave out a test that would have had one, and what it then left.

    Not one that fails because the product wants a thread: where it is to have none, it is marked.
    """
    report = yield
    if "threads" in LACKS and call.excinfo is not None and not report.skipped:
        found = _NO_THREAD.search(_in_full(call.excinfo.value))
        if found and not Path(found[1]).is_relative_to(PACKAGE):
            item.stash[_HAD_NO_THREAD] = "this world lacks threads"
        if reason := item.stash.get(_HAD_NO_THREAD, ""):
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, reason)
    return report


def _in_full(failure: BaseException) -> str:
    """Its traceback and its words, which may be the traceback of another process (alone.py)."""
    return "".join(traceback.format_exception(failure))


@pytest.fixture(scope="session", autouse=True)
def _warm_up() -> None:
    # A shell's job in the background has them ignored, and so would have all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    children.in_use()
    binding.reserve()
    importlib.import_module("twisted.internet.reactor")
    gc.freeze()  # thousands of tests, which stay: looking through them took a tenth of all CPU time


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves an fd, a child, a zombie or a thread."""
    fds, pids, threads = open_fds(), child_pids(), set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    if open_fds() != fds:
        gc.collect()  # dear, and what is unreachable may still hold an fd
    left_pids = child_pids() - pids
    for pid in left_pids:  # do not let one test's children fail the next one too
        os.kill(pid, 9)
    for pid in left_pids:  # all dead by now: none holds another (a tracer holds a zombie)
        os.waitpid(pid, 0)
    left_fds = {fd: what for fd, what in open_fds().items() if fds.get(fd) != what}
    left_threads = set(threading.enumerate()) - threads
    assert not left_pids, f"children left: {left_pids}"
    assert not left_fds, f"fds left: {left_fds}"
    assert not left_threads, f"threads left: {left_threads}"
    assert set(open_fds()) >= set(fds), "fds closed that were not the test's"
