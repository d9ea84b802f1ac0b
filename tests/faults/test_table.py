"""The README's table of faults names a test for each promise, and each of those tests is there."""

from __future__ import annotations

from named import NAME, TESTS, missing, named_in

TABLE = (
    (TESTS.parent / "README.md")
    .read_text(encoding="utf-8")
    .split("<!-- faults -->")[1]
    .split("<!-- /faults -->")[0]
)
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and "shown by" not in line]


def test_the_table_is_read_at_all() -> None:
    assert len(ROWS) > 25
    assert len(named_in(TABLE)) > 50


def test_each_test_that_the_table_names_is_there() -> None:
    assert missing(named_in(TABLE)) == []


def test_no_row_is_without_a_promise_and_a_test() -> None:
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in ROWS]
    assert [row for row in cells if len(row) != 3 or not all(row) or not named_in(row[2])] == []


def test_nothing_in_the_table_looks_like_a_test_and_is_none() -> None:
    assert TABLE.count("::") == len(NAME.findall(TABLE))
