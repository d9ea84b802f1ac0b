"""One run of Twisted's own tests, in an interpreter of its own; it writes what became of each test.

Started by running.py as a script, with a request (JSON) as the only argument. The tests are not
touched: trial loads and runs them; this only chooses which, on what reactor, and listens.

Every event is a line of the file, written as it comes, by a fd that is closed again: a run that is
killed leaves what it saw, and the tests find no fd in the process that is not trial's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import reachable  # beside this script, which is how it is found

HOPELESS_TIMEOUT_S = 5.0
"""What a test that is expected to fail may take for it; trial would wait for 120 s."""

Write = Callable[[str, str, str], None]


def writer(file: str) -> Write:
    """Return what writes an event, with functions that no test can replace any more."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    open_fd, append, close, dump = os.open, os.write, os.close, json.dumps

    def write(test: str, event: str, text: str = "") -> None:
        fd = open_fd(file, flags, 0o644)
        try:
            append(fd, dump([test, event, text]).encode() + b"\n")
        finally:
            close(fd)

    return write


def recording_result(write: Write) -> type:
    """Return a class of trial's test results that writes each event."""
    from twisted.trial.reporter import TestResult

    class Recording(TestResult):
        def __init__(self, *_: Any) -> None:
            super().__init__()

        def startTest(self, test: Any) -> None:
            super().startTest(test)
            write(test.id(), "started", "")

        def addSuccess(self, test: Any) -> None:
            super().addSuccess(test)
            write(test.id(), "passed", "")

        def addSkip(self, test: Any, reason: Any) -> None:
            super().addSkip(test, reason)
            write(test.id(), "skipped", str(reason))

        def addFailure(self, test: Any, fail: Any) -> None:
            super().addFailure(test, fail)
            write(test.id(), "failed", self.failures[-1][1].getTraceback())

        def addError(self, test: Any, error: Any) -> None:
            super().addError(test, error)
            write(test.id(), "error", self.errors[-1][1].getTraceback())

        def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
            super().addExpectedFailure(test, error, todo)
            write(test.id(), "expected failure", "")

        def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
            super().addUnexpectedSuccess(test, todo)
            write(test.id(), "unexpected success", "")

    return Recording


def chosen(cases: Iterator[Any], request: dict[str, Any], kinds: tuple[type, ...]) -> Iterator[Any]:
    """The tests of the request: all but those left out, or those alone; of *kinds*, if there are.

    With a builder the other tests of its modules run on no reactor, and would prove nothing.
    """
    for case in cases:
        if kinds and not isinstance(case, kinds):
            continue
        left_out = case.id() in request["deselected"]
        if left_out == request["only_deselected"]:
            if left_out or case.id().rsplit(".", 1)[-1] in request["hopeless"]:
                case.timeout = HOPELESS_TIMEOUT_S
            yield case


def run(request: dict[str, Any], write: Write) -> None:
    """Run what the request asks for."""
    from twisted.scripts import trial

    config = trial.Options()
    # Installs the reactor, as trial does.
    config.parseOptions([f"--reactor={request['reactor']}", *request["names"]])
    config["reporter"] = recording_result(write)

    # All that imports the reactor comes after that.
    from twisted.internet import reactor
    from twisted.python.reflect import qual
    from twisted.trial.runner import ErrorHolder, TestSuite, _iterateTests

    write("", "reactor", qual(type(reactor)))
    kinds: tuple[type, ...] = ()
    if request["built"]:
        from twisted.internet.test.reactormixins import ReactorBuilder

        ReactorBuilder._reactors = [request["built"]]
        kinds = (ReactorBuilder, ErrorHolder)  # the latter stands for what could not be imported
    cases = chosen(_iterateTests(trial._getSuite(config)), request, kinds)
    trial._makeRunner(config).run(TestSuite(list(cases)))


def main() -> None:
    """Run; the last event says that nothing is missing."""
    request = json.loads(sys.argv[1])
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(__file__)]
    sys.argv[:] = ["trial"]
    # A shell's background job ignores it, and Python then installs no handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    write = writer(request["file"])
    request["hopeless"] = []
    if request["reachable"]:
        try:
            reachable.make_reachable(request["reachable"])
        except OSError as error:
            write("", "unreachable", str(error))
            request["hopeless"] = request["identity"]
    run(request, write)
    write("", "done", "")
    sys.stdout.flush()
    # Tests may leave threads, for which the end of an interpreter would wait.
    os._exit(0)


if __name__ == "__main__":
    main()
