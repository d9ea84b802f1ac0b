"""The report: what was measured, what was not, and why not."""

from __future__ import annotations

import pytest
from made_up_reports import rate, report

from benchmarks.model import Report
from benchmarks.report import number, render, tables


def text_of(run: Report) -> str:
    return "\n".join(render(run))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (99.96, "100.0"), (12.34, "12.3"), (1.234, "1.23"), (2, "2")],
)
def test_a_number_has_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_a_table_has_a_row_per_library_and_a_column_per_point() -> None:
    run = report(rate("limit1", 100.0), rate("trio", 400.0, 402.0, 404.0))
    (table,) = tables(run)
    assert table.head == ["", "16 at once"]
    assert table.rows == [["limit1", "100"], ["trio", "402 ±1"]]


def test_a_library_without_a_figure_has_an_empty_cell() -> None:
    one = rate("trio", 1.0)
    other = rate("limit2", 2.0)
    other = type(other)(
        type(other.case)("spawn_rate", "spawn", "limit2", "tiny, 64 at once", {}, other.case.units),
        other.figures,
    )
    (table,) = tables(report(one, other))
    assert table.rows == [["trio", "1", ""], ["limit2", "", "2"]]


def test_what_is_missing_or_failed_is_told_by_name_and_reason() -> None:
    text = text_of(
        report(
            rate("trio", 1.0),
            missing={"rloop": "No module named 'rloop'"},
            left_out={"a case": "no right to mount"},
            failed={"another case": "it died"},
        )
    )
    assert "rloop: No module named 'rloop'" in text
    assert "a case: no right to mount" in text
    assert "another case: it died" in text


def test_a_name_that_leaves_it_open_is_explained_where_it_occurs() -> None:
    assert "hosted: Twisted, on procreactor's reactor." in render(report(rate("hosted", 1.0)))
    assert "hosted: " not in text_of(report(rate("twisted", 1.0)))


def test_a_quick_run_says_so() -> None:
    assert "QUICK" in text_of(report(rate("trio", 1.0), quick=True))
    assert "QUICK" not in text_of(report(rate("trio", 1.0)))


def test_goals_are_told_with_what_they_lack() -> None:
    text = text_of(report(rate("limit1", 95.0), rate("procreactor", 100.0)))
    assert "Goals: 1 of 1 met" in text
    assert "(nothing of spawn_rate: tiny, 16 at once: twisted)" in text


def test_a_report_of_nothing_is_a_report() -> None:
    assert "Goals: 0 of 0 met" in text_of(report())
