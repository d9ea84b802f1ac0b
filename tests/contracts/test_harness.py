"""The suite itself: it must fail when the worlds differ, and when a scenario comes to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from contracts.judgement import Difference, complaints
from contracts.recording import LAWS
from contracts.scenario import Record
from contracts.world import OURS, THEIRS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from procreactor.internet.error import ProcessTerminated
from procreactor.python.failure import Failure

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy."""

values = st.one_of(st.none(), st.booleans(), st.text(max_size=5), st.lists(st.integers()))
records = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


# -- the judgement ---------------------------------------------------------------------------------


@unhurried
@given(records)
def test_nothing_is_wrong_about_equal_records(record: Record) -> None:
    assert complaints(record, dict(record), {}) == []


@unhurried
@given(records, records)
def test_a_difference_without_a_row_is_wrong(theirs: Record, ours: Record) -> None:
    assume(theirs != ours)
    assert complaints(theirs, ours, {})


@unhurried
@given(records, records)
def test_rows_for_all_that_differs_excuse_it(theirs: Record, ours: Record) -> None:
    common = [key for key in theirs if key in ours]
    theirs, ours = ({key: record[key] for key in common} for record in (theirs, ours))
    assert complaints(theirs, ours, rows_for(theirs, ours)) == []


@unhurried
@given(records, records, st.data())
def test_one_row_less_is_wrong(theirs: Record, ours: Record, data: st.DataObject) -> None:
    rows = rows_for(theirs, ours)
    assume(rows)
    left_out = data.draw(st.sampled_from(sorted(rows)))
    assert complaints(theirs, ours, {key: rows[key] for key in rows if key != left_out})


@unhurried
@given(records.filter(bool), values, st.data())
def test_a_row_that_does_not_hold_any_more_is_wrong(
    record: Record, value: object, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(record)))
    assume(value != record[key])
    assert complaints(record, record, {key: Difference(value, record[key])})
    assert complaints(record, record, {key: Difference(record[key], record[key])})


@unhurried
@given(values, values, values)
def test_a_row_that_says_something_else_is_wrong(
    theirs: object, ours: object, written: object
) -> None:
    assume(written != ours and theirs != ours)
    assert complaints({"a": theirs}, {"a": ours}, {"a": Difference(theirs, written)})


@pytest.mark.parametrize("mishap", ["crashed", "timed out", "broken off"])
def test_no_row_excuses_a_record_that_is_none(mishap: str) -> None:
    nothing: Record = {mishap: "somehow"}
    rows = {mishap: Difference("somehow", "somehow")}
    assert complaints(nothing, nothing, {})
    assert complaints(nothing, nothing, rows)


def rows_for(theirs: Record, ours: Record) -> Mapping[str, Difference]:
    keys = (key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    return {key: Difference(theirs.get(key), ours.get(key)) for key in keys}


# -- the laws --------------------------------------------------------------------------------------

MADE, LOST = ("connectionMade",), ("childConnectionLost", 1)
DATA = ("childDataReceived", 1, b"x")
EXITED, ENDED = ("processExited", None), ("processEnded", None)


@pytest.mark.parametrize(
    ("law", "calls"),
    [
        ("connectionMade comes first", [DATA, MADE]),
        ("connectionMade comes once", [MADE, MADE]),
        ("processExited comes once", [MADE, EXITED, EXITED]),
        ("processEnded comes once", [MADE, EXITED, ENDED, ENDED]),
        ("nothing comes after processEnded", [MADE, EXITED, ENDED, LOST]),
        ("processExited comes before processEnded", [MADE, ENDED, EXITED]),
        ("both are told the same reason", None),
        ("each pipe is lost once", [MADE, LOST, LOST]),
        ("data comes before the loss of its pipe", [MADE, LOST, DATA]),
        ("data is never empty", [MADE, ("childDataReceived", 1, b"")]),
    ],
)
def test_a_law_can_be_broken(law: str, calls: list[tuple[object, ...]] | None) -> None:
    if calls is None:
        calls = [("processExited", ended_with(1)), ("processEnded", ended_with(2))]
    assert not LAWS[law](calls)


def test_every_law_holds_of_a_usual_story() -> None:
    calls: list[tuple[object, ...]] = [MADE, DATA, LOST, EXITED, ENDED]
    assert [law for law, holds in LAWS.items() if not holds(calls)] == []


def ended_with(code: int) -> Failure:
    return Failure(ProcessTerminated(code, None, code << 8))


# -- the driver ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[THEIRS, OURS])
def rehearsed(request: pytest.FixtureRequest) -> Mapping[str, Record]:
    """The records of rehearsal.py in one world."""
    return rehearse(request.param)


def rehearse(world: str) -> Mapping[str, Record]:
    driver = [sys.executable, "-m", "contracts.driver", "--modules", "rehearsal"]
    ended = subprocess.run(
        [*driver, "--timeout-s", "3", world],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(line) for line in ended.stdout.splitlines())


@pytest.mark.needs("threads")
def test_a_scenario_that_goes_well_has_a_record(rehearsed: Mapping[str, Record]) -> None:
    assert rehearsed["rehearsal/the same in both"] == {
        "broken laws": [],
        "data": {"1": "out\n"},
        "lost": [0, 1, 2],
        "exited": "ProcessTerminated(3, None, 768)",
        "ended": "ProcessTerminated(3, None, 768)",
    }


@pytest.mark.parametrize(
    ("name", "mishap", "words"),
    [
        ("a child that never ends", "timed out", "a_child_that_never_ends:"),
        ("a reactor that never stops", "timed out", "killed"),
        ("an exception", "crashed", "LookupError: on purpose"),
        ("an exit", "crashed", "SystemExit: early"),
        ("a process that dies", "crashed", "wait status 9"),
        ("a reactor that is stopped too early", "broken off", "stopped"),
    ],
)
@pytest.mark.needs("threads")
def test_a_scenario_that_comes_to_nothing_says_so(
    rehearsed: Mapping[str, Record], name: str, mishap: str, words: str
) -> None:
    record = rehearsed[f"rehearsal/{name}"]
    assert words in str(record[mishap])
    assert complaints(record, record, {})


@pytest.mark.needs("threads")
def test_a_story_names_the_promises_that_were_broken(rehearsed: Mapping[str, Record]) -> None:
    broken = rehearsed["rehearsal/a promise that is broken"]["broken laws"]
    assert broken == ["processEnded comes once"]


@pytest.mark.needs("threads")
def test_a_difference_of_the_worlds_is_found() -> None:
    theirs, ours = rehearse(THEIRS), rehearse(OURS)
    name = "rehearsal/another exit code"
    found = complaints(theirs[name], ours[name], {})
    assert [complaint.partition(":")[0] for complaint in found] == ["ended", "exited"]
    name = "rehearsal/the same in both"
    assert complaints(theirs[name], ours[name], {}) == []
