"""Failure, beside Twisted's: each scenario runs on both, unless its name says what is ours."""

from __future__ import annotations

import copy
import importlib
import io
import logging
import pickle
import sys
import traceback
from collections.abc import Coroutine, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from procreactor.python import failure as our_failure
from procreactor.python.failure import Failure

HERE = __file__


@pytest.fixture(params=["procreactor", "twisted"])
def module(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(f"{request.param}.python.failure")


def raise_it(error: BaseException) -> None:
    raise error


def raised(module: Any, error: BaseException) -> Any:
    """Return the Failure of *error* after it was raised, two calls deep in this file."""
    try:
        raise_it(error)
    except BaseException:
        return module.Failure()


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


# Making one


def test_a_failure_of_an_exception_has_its_value_and_type_and_no_traceback(module: Any) -> None:
    error = ValueError("x")
    f = module.Failure(error)
    assert (f.value, f.type, f.tb, f.frames) == (error, ValueError, None, [])


def test_a_failure_of_a_raised_exception_has_its_traceback(module: Any) -> None:
    f = raised(module, KeyError("k"))
    assert f.type is KeyError
    assert [frame[0] for frame in f.frames] == ["raised", "raise_it"]
    assert f.getTracebackObject() is f.tb


def test_a_failure_made_later_of_a_raised_exception_has_its_traceback(module: Any) -> None:
    error = raised(module, ValueError()).value
    assert [frame[0] for frame in module.Failure(error).frames] == ["raised", "raise_it"]


def test_without_a_current_exception_there_is_no_failure(module: Any) -> None:
    with pytest.raises(module.NoCurrentExceptionError):
        module.Failure()


def test_a_failure_of_a_failure_is_the_same_error(module: Any) -> None:
    first = raised(module, ValueError("x"))
    second = module.Failure(first)
    assert (second.value, second.type, second.tb) == (first.value, ValueError, first.tb)


def test_a_raised_failure_is_caught_as_the_same_error(module: Any) -> None:
    first = raised(module, ValueError("x"))
    second = raised(module, first)
    assert (second.value, second.tb) == (first.value, first.tb)


def test_type_and_traceback_can_be_given(module: Any) -> None:
    tb = raised(module, KeyError()).tb
    f = module.Failure(KeyError("k"), LookupError, tb)
    assert (f.type, f.tb) == (LookupError, tb)


def test_a_failure_may_be_of_any_value(module: Any) -> None:
    f = module.Failure((b"out", b"err", 9))
    assert (f.value, f.type) == ((b"out", b"err", 9), tuple)
    assert f.check(tuple) is tuple
    assert f.check(ValueError) is None
    assert f.getErrorMessage() == "(b'out', b'err', 9)"


def test_our_failure_keeps_no_dict() -> None:
    f = Failure(ProcessDone(0))
    assert set(Failure.__slots__) == {"value", "type", "tb", "_frames"}
    assert f.__dict__ == {}


# What is it?


def test_check_finds_the_first_type_that_matches(module: Any) -> None:
    f = module.Failure(FileNotFoundError())
    assert f.check(KeyError, OSError, FileNotFoundError) is OSError
    assert f.check(KeyError, ValueError) is None
    assert f.check() is None


def test_check_knows_types_by_name(module: Any) -> None:
    f = module.Failure(FileNotFoundError())
    assert f.check("builtins.KeyError", "builtins.OSError") == "builtins.OSError"
    assert f.check("OSError") is None


def test_check_knows_exceptions_that_are_no_exception_subclass(module: Any) -> None:
    assert module.Failure(KeyboardInterrupt()).check(KeyboardInterrupt) is KeyboardInterrupt


def test_our_check_tells_two_classes_of_one_name_apart() -> None:
    first, second = (type("Odd", (Exception,), {"__module__": "m"}) for _ in range(2))
    assert Failure(first()).check(second) is None
    assert Failure(first()).check("m.Odd") == "m.Odd"


def test_trap_returns_what_it_caught(module: Any) -> None:
    assert module.Failure(KeyError()).trap(ValueError, LookupError) is LookupError


def test_trap_raises_what_it_did_not_expect(module: Any) -> None:
    error = KeyError("k")
    with pytest.raises(KeyError) as caught:
        module.Failure(error).trap(ValueError)
    assert caught.value is error


def test_the_end_of_a_process_is_told_by_check() -> None:
    done, terminated = Failure(ProcessDone(0)), Failure(ProcessTerminated(3, None, 768))
    assert done.check(ProcessTerminated, ConnectionDone) is ConnectionDone
    assert terminated.check(ProcessDone, ProcessTerminated) is ProcessTerminated
    assert terminated.value.exitCode == 3


# Back to exceptions


def test_raise_exception_raises_the_value_with_its_traceback(module: Any) -> None:
    f = raised(module, ValueError("x"))
    with pytest.raises(ValueError) as caught:
        f.raiseException()
    assert caught.value is f.value
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-2:] == ["raised", "raise_it"]


def test_raising_again_and_again_does_not_grow_the_traceback(module: Any) -> None:
    f = raised(module, ValueError("x"))
    lengths = set()
    for _ in range(3):
        with pytest.raises(ValueError) as caught:
            f.raiseException()
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(lengths) == 1


def test_an_exception_thrown_into_a_generator_is_raised_where_it_waits(module: Any) -> None:
    def generator() -> Generator[str, None, None]:
        try:
            yield "waiting"
        except ValueError as error:
            yield f"caught {error}"

    steps = generator()
    next(steps)
    assert module.Failure(ValueError("x")).throwExceptionIntoGenerator(steps) == "caught x"


def test_an_exception_can_be_thrown_into_a_coroutine(module: Any) -> None:
    async def coroutine() -> str:
        return "never started"

    steps: Coroutine[Any, Any, str] = coroutine()
    with pytest.raises(ValueError):
        module.Failure(ValueError("x")).throwExceptionIntoGenerator(steps)


def test_our_failure_of_a_value_that_cannot_be_raised_is_raised_itself() -> None:
    f = Failure((1, 2))
    with pytest.raises(Failure) as caught:
        f.trap(ValueError)
    assert caught.value is f


# Texts


def test_repr_names_the_class_and_the_message() -> None:
    assert repr(Failure(ValueError("x"))) == (
        "<procreactor.python.failure.Failure builtins.ValueError: x>"
    )


def test_repr_is_as_twisteds_but_for_the_package() -> None:
    twisted_failure = importlib.import_module("twisted.python.failure")
    for value in ValueError("x"), (1, 2), KeyError("k"):
        ours, theirs = repr(Failure(value)), repr(twisted_failure.Failure(value))
        assert ours == theirs.replace("<twisted", "<procreactor")


def test_str_without_frames_says_so(module: Any) -> None:
    assert str(module.Failure(ValueError("x"))) == (
        "[Failure instance: Traceback (failure with no frames): <class 'ValueError'>: x\n]"
    )


def test_str_with_frames_has_one_short_line_for_each(module: Any) -> None:
    f = raised(module, ValueError("x"))
    (_, _, first, *_), (_, _, second, *_) = f.frames
    assert str(f) == (
        "[Failure instance: Traceback: <class 'ValueError'>: x\n"
        f"{HERE}:{first}:raised\n{HERE}:{second}:raise_it\n]"
    )


def test_the_traceback_text_has_the_source_lines(module: Any) -> None:
    f = raised(module, ValueError("x"))
    (_, _, first, *_), (_, _, second, *_) = f.frames
    assert f.getTraceback() == (
        "Traceback (most recent call last):\n"
        f'  File "{HERE}", line {first}, in raised\n    raise_it(error)\n'
        f'  File "{HERE}", line {second}, in raise_it\n    raise error\n'
        "builtins.ValueError: x\n"
    )


def test_the_traceback_text_of_an_error_that_was_never_raised(module: Any) -> None:
    assert module.Failure(ValueError("x")).getTraceback() == (
        "Traceback (most recent call last):\nFailure: builtins.ValueError: x\n"
    )


def test_the_brief_traceback_is_what_str_shows(module: Any) -> None:
    f = raised(module, ValueError("x"))
    assert str(f) == f"[Failure instance: {f.getBriefTraceback()}]"
    assert f.getTraceback(detail="brief") == f.getBriefTraceback()


def test_tracebacks_are_printed_to_the_file_given(module: Any) -> None:
    f = raised(module, ValueError("x"))
    full, brief = io.StringIO(), io.StringIO()
    f.printTraceback(full)
    f.printBriefTraceback(brief)
    assert (full.getvalue(), brief.getvalue()) == (f.getTraceback(), f.getBriefTraceback())


def test_our_failure_prints_to_the_log_by_default(caplog: pytest.LogCaptureFixture) -> None:
    f = raised(our_failure, ValueError("x"))
    f.printTraceback()
    assert caplog.record_tuples == [("procreactor", logging.ERROR, f.getTraceback())]


def test_an_unknown_detail_is_refused(module: Any) -> None:
    with pytest.raises(ValueError, match=r"(?i)^detail"):
        raised(module, ValueError()).getTraceback(detail="chatty")


def test_bytes_are_shown_as_utf_8(module: Any) -> None:
    assert module.Failure("é".encode()).getErrorMessage() == "é"


def test_no_text_raises_when_the_value_has_none(module: Any) -> None:
    f = module.Failure(UnprintableError())
    for text in f.getErrorMessage(), str(f), repr(f), f.getTraceback():
        assert "UnprintableError" in text
        assert "RuntimeError" in text


@given(st.binary() | st.text() | st.integers() | st.tuples(st.binary(), st.integers()))
def test_our_texts_are_there_for_any_value(value: object) -> None:
    f = Failure(value)
    assert f.value == value
    assert f.getErrorMessage() in str(f)
    assert f.getErrorMessage() in repr(f)


# Letting go


def test_a_cleaned_failure_keeps_the_text_and_lets_the_frames_go(module: Any) -> None:
    f = raised(module, ValueError("x"))
    text = f.getTraceback()
    f.cleanFailure()
    assert f.tb is None
    assert f.value.__traceback__ is None
    assert f.getTraceback() == text


def test_a_failure_of_a_cleaned_failure_has_its_text(module: Any) -> None:
    f = raised(module, ValueError("x"))
    text = f.getTraceback()
    f.cleanFailure()
    assert module.Failure(f).getTraceback() == text


@pytest.mark.parametrize("copied", [copy.copy, lambda f: pickle.loads(pickle.dumps(f))])
def test_a_copy_has_the_same_value_and_text(module: Any, copied: Any) -> None:
    f = raised(module, ValueError("x"))
    other = copied(f)
    assert other.value.args == ("x",)
    assert (other.type, other.tb) == (ValueError, None)
    assert other.getTraceback() == f.getTraceback()


def test_making_a_failure_takes_no_reference_to_a_frame() -> None:
    frame = sys._getframe()
    before = sys.getrefcount(frame)
    f = Failure(ProcessDone(0))
    assert sys.getrefcount(frame) == before
    assert f.tb is None
