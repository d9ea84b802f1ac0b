"""getProcessOutput and its kin, with real children; and the same programs on the real Twisted."""

from __future__ import annotations

import copy
import errno
import gc
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deferreds import WatchedReactor, error_of, outcome_of, result_of, run_program, watched_reactor
from support import PYTHON, run_until

from procreactor.errors import SpawnError
from procreactor.internet import error, utils
from procreactor.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    ensureDeferred,
    gatherResults,
)
from procreactor.internet.task import Clock

SH = "/bin/sh"
FOREVER = "exec sleep 1000"

Helper = Callable[..., Deferred[Any]]

all_helpers = pytest.mark.parametrize(
    "helper",
    [utils.getProcessOutput, utils.getProcessValue, utils.getProcessOutputAndValue],
    ids=lambda helper: helper.__name__,
)


@pytest.fixture
def reactor() -> Iterator[WatchedReactor]:
    with watched_reactor() as one:
        yield one


@pytest.fixture
def shell(reactor: WatchedReactor) -> Callable[..., Deferred[Any]]:
    """Return a function that has a helper run a shell script on the reactor of the test."""

    def run(helper: Helper, script: str, **kwargs: Any) -> Deferred[Any]:
        return helper(SH, ["-c", script], reactor=reactor, **{"env": None, **kwargs})

    return run


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged, also by what has become garbage."""
    gc.collect()
    return [record.getMessage() for record in caplog.records]


# getProcessOutput


def test_the_output_is_what_the_child_wrote(reactor: WatchedReactor, shell: Helper) -> None:
    assert result_of(reactor, shell(utils.getProcessOutput, "echo one; echo two")) == b"one\ntwo\n"


@pytest.mark.parametrize("end", ["exit 3", "kill -KILL $$"])
def test_the_output_is_the_result_however_the_child_ends(
    end: str, reactor: WatchedReactor, shell: Helper
) -> None:
    assert result_of(reactor, shell(utils.getProcessOutput, f"echo said; {end}")) == b"said\n"


def test_output_of_any_length_comes_whole(reactor: WatchedReactor) -> None:
    code = "import sys; sys.stdout.write(''.join(f'{n}\\n' for n in range(300_000)))"
    output = result_of(
        reactor, utils.getProcessOutput(PYTHON, ["-I", "-S", "-c", code], reactor=reactor)
    )
    assert output == b"".join(b"%d\n" % n for n in range(300_000))


def test_output_and_error_are_mixed_with_errortoo(reactor: WatchedReactor, shell: Helper) -> None:
    deferred = shell(utils.getProcessOutput, "echo foo; echo foo >&2", errortoo=True)
    assert result_of(reactor, deferred) == b"foo\nfoo\n"


def test_errortoo_may_be_given_by_position(reactor: WatchedReactor) -> None:
    deferred = utils.getProcessOutput(SH, ["-c", "echo bad >&2"], {}, None, reactor, 1)
    assert result_of(reactor, deferred) == b"bad\n"


def test_error_output_fails_before_the_child_has_ended(
    reactor: WatchedReactor, shell: Helper
) -> None:
    problem = error_of(reactor, shell(utils.getProcessOutput, f"echo oops >&2; {FOREVER}"))
    [child] = reactor.spawned
    assert isinstance(problem, utils.UnexpectedErrorOutput)
    assert isinstance(problem, IOError)
    assert str(problem) == "got stderr: b'oops\\n'"
    assert child.pid is not None
    child.signalProcess("KILL")
    how = error_of(reactor, problem.processEnded)
    assert isinstance(how, error.ProcessTerminated)
    assert how.signal == signal.SIGKILL


def test_processEnded_of_error_output_fails_even_if_the_child_ends_well(
    reactor: WatchedReactor, shell: Helper
) -> None:
    problem = error_of(reactor, shell(utils.getProcessOutput, "echo oops >&2"))
    assert isinstance(error_of(reactor, problem.processEnded), error.ProcessDone)


def test_processEnded_can_be_asked_for_after_the_end(
    reactor: WatchedReactor, shell: Helper
) -> None:
    problem = error_of(reactor, shell(utils.getProcessOutput, "echo oops >&2; exit 4"))
    reactor.run_out()
    assert problem.processEnded is problem.processEnded
    assert error_of(reactor, problem.processEnded).exitCode == 4


def test_processEnded_that_nobody_asks_for_logs_nothing(
    reactor: WatchedReactor, shell: Helper, caplog: pytest.LogCaptureFixture
) -> None:
    error_of(reactor, shell(utils.getProcessOutput, "echo oops >&2; exit 4"))
    reactor.run_out()
    assert messages(caplog) == []


def test_processEnded_that_is_asked_for_and_not_handled_is_logged(
    reactor: WatchedReactor, shell: Helper, caplog: pytest.LogCaptureFixture
) -> None:
    problem = error_of(reactor, shell(utils.getProcessOutput, "echo oops >&2; exit 4"))
    problem.processEnded.addCallback(print)
    reactor.run_out()
    del problem
    reactor.spawned.clear()
    assert messages(caplog) == ["Unhandled error in Deferred:"]


def test_error_output_closes_the_pipes_of_the_child(reactor: WatchedReactor, shell: Helper) -> None:
    script = "while :; do echo oops >&2; done"
    problem = error_of(reactor, shell(utils.getProcessOutput, script))
    assert error_of(reactor, problem.processEnded).signal == signal.SIGPIPE


# getProcessValue


@pytest.mark.parametrize("code", [0, 1, 255])
def test_the_value_is_the_exit_code(code: int, reactor: WatchedReactor, shell: Helper) -> None:
    assert result_of(reactor, shell(utils.getProcessValue, f"exit {code}")) == code


def test_the_value_is_None_for_a_signalled_child(reactor: WatchedReactor, shell: Helper) -> None:
    assert result_of(reactor, shell(utils.getProcessValue, "kill -TERM $$")) is None


def test_output_is_no_hindrance_to_a_value(reactor: WatchedReactor, shell: Helper) -> None:
    script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 7"
    assert result_of(reactor, shell(utils.getProcessValue, script)) == 7


# getProcessOutputAndValue


def test_everything_is_output_error_and_code(reactor: WatchedReactor, shell: Helper) -> None:
    script = "echo out; echo err >&2; exit 3"
    result = result_of(reactor, shell(utils.getProcessOutputAndValue, script))
    assert result == (b"out\n", b"err\n", 3)


def test_long_output_and_error_do_not_block_each_other(
    reactor: WatchedReactor, shell: Helper
) -> None:
    script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"
    out, err, code = result_of(reactor, shell(utils.getProcessOutputAndValue, script))
    assert (len(out), len(err), code) == (300_000, 600_000, 0)


def test_a_signalled_child_is_an_error_that_unpacks_as_the_tuple(
    reactor: WatchedReactor, shell: Helper
) -> None:
    script = "echo out; echo err >&2; kill -KILL $$"
    problem = error_of(reactor, shell(utils.getProcessOutputAndValue, script))
    out, err, number = problem
    assert (out, err, number) == (b"out\n", b"err\n", signal.SIGKILL)
    assert (problem[0], problem[1], problem[-1], len(problem)) == (out, err, number, 3)
    assert (problem.out, problem.err, problem.signal) == (out, err, number)


def test_a_signalled_child_is_caught_as_terminated(reactor: WatchedReactor, shell: Helper) -> None:
    deferred = shell(utils.getProcessOutputAndValue, "kill -TERM $$")
    problem = outcome_of(reactor, deferred).trap(error.ProcessTerminated)
    assert problem is error.ProcessTerminated


def test_a_signalled_child_can_be_awaited(reactor: WatchedReactor, shell: Helper) -> None:
    async def run() -> object:
        try:
            return await shell(utils.getProcessOutputAndValue, "echo out; kill -INT $$")
        except error.ProcessSignalled as problem:
            return tuple(problem), problem.exitCode, problem.status

    assert result_of(reactor, ensureDeferred(run())) == ((b"out\n", b"", 2), None, 2)


def test_stdinBytes_are_what_the_child_reads(reactor: WatchedReactor, shell: Helper) -> None:
    deferred = shell(utils.getProcessOutputAndValue, "cat", stdinBytes=b"some\0bytes")
    assert result_of(reactor, deferred) == (b"some\0bytes", b"", 0)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_stdinBytes_may_be_like_bytes(kind: Any, reactor: WatchedReactor, shell: Helper) -> None:
    data = bytearray(300_000)  # more than the first write takes: the rest must be a copy
    deferred = shell(utils.getProcessOutputAndValue, "cat", stdinBytes=kind(data))
    data[-4:] = b"late"
    assert result_of(reactor, deferred) == (bytes(300_000), b"", 0)


def test_stdinBytes_may_be_more_than_a_pipe_holds(reactor: WatchedReactor, shell: Helper) -> None:
    data = os.urandom(3_000_000)
    out, _, _ = result_of(reactor, shell(utils.getProcessOutputAndValue, "cat", stdinBytes=data))
    assert out == data


def test_stdinBytes_need_not_be_read(reactor: WatchedReactor, shell: Helper) -> None:
    deferred = shell(utils.getProcessOutputAndValue, "exec true", stdinBytes=bytes(3_000_000))
    assert result_of(reactor, deferred) == (b"", b"", 0)


def test_stdinBytes_of_another_type_start_nothing(reactor: WatchedReactor, shell: Helper) -> None:
    with pytest.raises(TypeError, match="stdinBytes must be bytes, not str"):
        shell(utils.getProcessOutputAndValue, "cat", stdinBytes="text")
    assert reactor.spawned == []


# All three


@all_helpers
def test_a_child_that_reads_its_input_ends(
    helper: Helper, reactor: WatchedReactor, shell: Helper
) -> None:
    assert result_of(reactor, shell(helper, "exec cat")) in (b"", 0, (b"", b"", 0))


@all_helpers
def test_a_program_that_is_not_there_raises_at_once(
    helper: Helper, reactor: WatchedReactor
) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        helper("/nowhere/to/be/found", reactor=reactor)
    assert isinstance(caught.value, SpawnError)
    assert reactor.spawned == []


@all_helpers
def test_a_directory_that_is_not_there_raises_at_once(
    helper: Helper, reactor: WatchedReactor, tmp_path: Path
) -> None:
    with pytest.raises(SpawnError) as caught:
        helper("/bin/true", path=tmp_path / "missing", reactor=reactor)
    assert caught.value.errno == errno.ENOENT
    assert reactor.spawned == []


@all_helpers
def test_args_that_are_one_text_raise(helper: Helper, reactor: WatchedReactor) -> None:
    for args in ("-l", b"-l"):
        with pytest.raises(TypeError, match="args must be a list"):
            helper("/bin/ls", args, reactor=reactor)
    assert reactor.spawned == []


def test_args_follow_the_name_of_the_program(reactor: WatchedReactor) -> None:
    script = 'printf "%s," "$0" "$@"'
    deferred = utils.getProcessOutput(SH, ["-c", script, "zero", b"one", "tw o"], reactor=reactor)
    assert result_of(reactor, deferred) == b"zero,one,tw o,"
    # Without the name after the script, $0 is what the shell itself was called by.
    deferred = utils.getProcessOutput(SH, ("-c", script), reactor=reactor)
    assert result_of(reactor, deferred) == b"/bin/sh,"


def test_args_may_be_any_iterable(reactor: WatchedReactor) -> None:
    args = (word for word in ("-c", "echo generated"))
    deferred = utils.getProcessOutput(SH, args, reactor=reactor)
    assert result_of(reactor, deferred) == b"generated\n"


@pytest.mark.parametrize("env", [{}, {"A": "1", b"B": b"2"}], ids=["empty", "given"])
def test_the_environment_is_what_is_given(env: Any, reactor: WatchedReactor) -> None:
    output = result_of(reactor, utils.getProcessOutput("/usr/bin/env", (), env, reactor=reactor))
    assert sorted(output.split()) == ([b"A=1", b"B=2"] if env else [])


def test_the_environment_is_empty_by_default(reactor: WatchedReactor) -> None:
    assert result_of(reactor, utils.getProcessOutput("/usr/bin/env", reactor=reactor)) == b""


def test_the_environment_is_ours_when_it_is_None(
    reactor: WatchedReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    deferred = utils.getProcessOutput("/usr/bin/env", env=None, reactor=reactor)
    assert b"INHERITED=yes" in result_of(reactor, deferred).split(b"\n")


@pytest.mark.parametrize("given", [True, False])
def test_the_child_runs_in_path_or_where_we_are(
    given: bool, reactor: WatchedReactor, tmp_path: Path
) -> None:
    path = tmp_path if given else None
    output = result_of(reactor, utils.getProcessOutput("/bin/pwd", path=path, reactor=reactor))
    assert output == os.fsencode(path or Path.cwd()) + b"\n"


def test_many_children_at_once_keep_their_outputs_apart(
    reactor: WatchedReactor, shell: Helper
) -> None:
    deferreds = [shell(utils.getProcessOutput, f"echo {n}") for n in range(40)]
    assert result_of(reactor, gatherResults(deferreds)) == [b"%d\n" % n for n in range(40)]


# Cancelling


@all_helpers
def test_a_cancelled_child_lives_on(
    helper: Helper, reactor: WatchedReactor, shell: Helper, caplog: pytest.LogCaptureFixture
) -> None:
    deferred = shell(helper, FOREVER)
    deferred.cancel()
    assert isinstance(error_of(reactor, deferred), CancelledError)
    [child] = reactor.spawned
    child.signalProcess("KILL")
    reactor.run_out()
    # Our own signal was the first that it got.
    assert child.status == signal.SIGKILL
    assert messages(caplog) == []


@pytest.mark.parametrize("stream", ["1", "2"])
@all_helpers
def test_a_cancelled_child_can_go_on_writing(
    helper: Helper,
    stream: str,
    reactor: WatchedReactor,
    shell: Helper,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deferred = shell(helper, f"head -c 1000000 /dev/zero >&{stream}; exit 5")
    deferred.cancel()
    assert isinstance(error_of(reactor, deferred), CancelledError)
    reactor.run_out()
    [child] = reactor.spawned
    assert os.waitstatus_to_exitcode(child.status) == 5
    assert messages(caplog) == []


@all_helpers
def test_cancelSignal_is_sent_to_a_cancelled_child(
    helper: Helper, reactor: WatchedReactor, shell: Helper, caplog: pytest.LogCaptureFixture
) -> None:
    deferred = shell(helper, FOREVER, cancelSignal="TERM")
    deferred.cancel()
    assert isinstance(error_of(reactor, deferred), CancelledError)
    reactor.run_out()
    assert reactor.spawned[0].status == signal.SIGTERM
    assert messages(caplog) == []


def test_a_timeout_with_a_cancelSignal_ends_the_child(
    reactor: WatchedReactor, shell: Helper
) -> None:
    clock = Clock()
    deferred = shell(utils.getProcessOutput, FOREVER, cancelSignal=signal.SIGKILL)
    deferred.addTimeout(5, clock)
    clock.advance(5)
    assert isinstance(error_of(reactor, deferred), TimeoutError)
    reactor.run_out()
    assert reactor.spawned[0].status == signal.SIGKILL


def test_cancelSignal_comes_too_late_for_a_child_whose_pipes_a_grandchild_holds(
    reactor: WatchedReactor,
    shell: Helper,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 1000 & echo $! > {pid_file}"
    deferred = shell(utils.getProcessOutput, script, cancelSignal="KILL")
    [child] = reactor.spawned
    run_until(reactor, lambda: child.pid is None)
    try:
        deferred.cancel()
        assert isinstance(error_of(reactor, deferred), CancelledError)
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    reactor.run_out()
    assert messages(caplog) == []


def test_a_cancelSignal_that_the_kernel_refuses_is_logged_and_the_deferred_fires(
    reactor: WatchedReactor, shell: Helper, caplog: pytest.LogCaptureFixture
) -> None:
    deferred = shell(utils.getProcessValue, FOREVER, cancelSignal="TERM")
    [child] = reactor.spawned
    child.signalProcess = refuse
    deferred.cancel()
    assert isinstance(error_of(reactor, deferred), CancelledError)
    assert messages(caplog) == ["cancelSignal raised"]
    del child.signalProcess
    child.signalProcess("KILL")


def refuse(signalID: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@all_helpers
@pytest.mark.parametrize("bad", ["NOSUCH", 0, 65, 1.5, True])
def test_a_cancelSignal_that_is_none_starts_nothing(
    bad: Any, helper: Helper, reactor: WatchedReactor, shell: Helper
) -> None:
    with pytest.raises((TypeError, ValueError), match="cancelSignal"):
        shell(helper, FOREVER, cancelSignal=bad)
    assert reactor.spawned == []


def test_cancelling_after_the_end_is_nothing(reactor: WatchedReactor, shell: Helper) -> None:
    deferred = shell(utils.getProcessValue, "exit 3", cancelSignal="KILL")
    results: list[int] = []
    deferred.addCallback(results.append)
    result_of(reactor, deferred)
    deferred.cancel()
    assert results == [3]


# ProcessSignalled


def test_a_signalled_child_prints_its_signal_and_its_last_words() -> None:
    problem = error.ProcessSignalled(b"out", b"x" * 1000 + b"\xff last words\n", 9, 9)
    assert str(problem).startswith(
        "A process has ended with a probable error condition: process ended by signal 9 (SIGKILL); "
        "its standard error ended in 'xxx"
    )
    assert str(problem).endswith("\\\\xff last words'.")
    assert len(str(problem)) < 400


def test_a_signalled_child_that_said_nothing_prints_its_signal() -> None:
    assert str(error.ProcessSignalled(b"", b"", 15)).endswith(
        "process ended by signal 15 (SIGTERM)."
    )
    assert str(error.ProcessSignalled(b"", b"\n", 40)).endswith("process ended by signal 40.")


def test_a_signalled_childs_repr_is_short() -> None:
    problem = error.ProcessSignalled(bytes(10_000), bytes(10_000), 9)
    assert repr(problem) == "ProcessSignalled('process ended by signal 9')"


@pytest.mark.parametrize("copied", [copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_signalled_child_can_be_copied(copied: Callable[[Any], Any]) -> None:
    problem = error.ProcessSignalled(b"out", b"err", 9, 137)
    twin = copied(problem)
    assert (*twin, twin.status, str(twin)) == (*problem, 137, str(problem))


# The same program, with one import changed


PROGRAM = """
import os
from LIBRARY.internet import defer, error, reactor, utils

def sh(helper, script, *rest, **kw):
    return helper("/bin/sh", ["-c", script], {"PATH": os.environ["PATH"]}, *rest, **kw)

@defer.inlineCallbacks
def main():
    print((yield sh(utils.getProcessOutput, "echo out; exit 3")))
    print((yield sh(utils.getProcessOutput, "echo bad >&2", errortoo=1)))
    print((yield sh(utils.getProcessOutput, "pwd", "/")))
    print((yield utils.getProcessOutput("/usr/bin/env")))
    print((yield utils.getProcessValue("/bin/false")))
    print((yield sh(utils.getProcessValue, "kill -9 $$")))
    print((yield sh(utils.getProcessOutputAndValue, "echo out; echo err >&2; exit 3")))
    print((yield sh(utils.getProcessOutputAndValue, "cat", stdinBytes=b"in")))
    try:
        yield sh(utils.getProcessOutput, "echo bad >&2")
    except IOError as problem:
        print(problem)
        how = yield problem.processEnded.addErrback(lambda reason: reason.value)
        print(type(how).__name__, how.exitCode, how.signal, how)
    d = sh(utils.getProcessOutputAndValue, "echo out; echo err >&2; kill -9 $$")
    out, err, number = yield d.addErrback(lambda reason: reason.value)
    print(out, err, number)
    try:
        utils.getProcessOutput("/nowhere/to/be/found")
    except OSError as problem:
        print(type(problem).__mro__[-4:], problem.errno)
    d = sh(utils.getProcessOutput, "exit 0")
    d.cancel()
    try:
        yield d
    except defer.CancelledError:
        print("cancelled")
    reactor.stop()

reactor.callWhenRunning(main)
reactor.run()
"""


@pytest.mark.needs("threads")  # Twisted does
def test_a_program_written_for_twisted_prints_the_same() -> None:
    ours = run_program("procreactor", PROGRAM)
    assert ours.endswith("cancelled\n")
    assert ours == run_program("twisted", PROGRAM)
