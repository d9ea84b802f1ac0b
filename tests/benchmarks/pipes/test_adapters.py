"""What benchmarks/adapters/pipes promises: all bytes both ways, and no figure for work not done.

Of the peers those run here that need nothing but the standard library; all use the same contract.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from leftovers import child_pids

from benchmarks import build
from benchmarks.adapters.pipes import WrongResult, check_count, pieces_of

LIBRARIES = ("procreactor", "blocking", "limit", "limit_big", "subprocess", "asyncio")
CAPABILITIES = ("read_all", "read_lines", "read_streams", "write_all", "ping_pong")

pytestmark = pytest.mark.needs("threads")  # asyncio has one for a child


def having(capability: str) -> Any:
    """Give the test each adapter that has *capability*."""
    adapters = {
        name: importlib.import_module(f"benchmarks.adapters.pipes.{name}") for name in LIBRARIES
    }
    able = {name: one for name, one in adapters.items() if hasattr(one, capability)}
    return pytest.mark.parametrize("adapter", able.values(), ids=able.keys())


def test_only_the_limit_on_grown_pipes_lacks_a_capability() -> None:
    lacking = {
        (name, capability)
        for name in LIBRARIES
        for capability in CAPABILITIES
        if not hasattr(importlib.import_module(f"benchmarks.adapters.pipes.{name}"), capability)
    }
    assert lacking == {("limit_big", "read_streams"), ("limit_big", "ping_pong")}


@pytest.mark.parametrize("total_bytes", [0, 1, 65536, 300_001])
@having("read_all")
def test_every_byte_of_one_child_is_counted(adapter: Any, total_bytes: int) -> None:
    seconds, came_bytes = adapter.read_all(["head", "-c", str(total_bytes), "/dev/zero"])
    assert came_bytes == total_bytes
    assert seconds > 0


@pytest.mark.parametrize("text", ["", "one\\n", "one\\n\\nthree\\n"])
@having("read_lines")
def test_every_line_is_counted(adapter: Any, text: str) -> None:
    _, lines = adapter.read_lines(["printf", text])
    assert lines == text.count("\\n")


@having("read_lines")
def test_lines_that_two_reads_share_are_counted_once(adapter: Any) -> None:
    _, lines = adapter.read_lines(["seq", "100000"])
    assert lines == 100_000


@having("read_streams")
def test_the_bytes_of_all_streams_are_counted(adapter: Any) -> None:
    _, came_bytes = adapter.read_streams([build.target("flood"), "70001"], 5)
    assert came_bytes == 5 * 70_001


@pytest.mark.parametrize(("total_bytes", "chunk_bytes"), [(0, 4096), (300_001, 4096), (100, 65536)])
@having("write_all")
def test_every_byte_reaches_the_child_and_then_the_end(
    adapter: Any, total_bytes: int, chunk_bytes: int, tmp_path: Path
) -> None:
    got = tmp_path / "got"
    seconds = adapter.write_all(["sh", "-c", f"exec cat >{got}"], total_bytes, chunk_bytes)
    assert got.read_bytes() == bytes(total_bytes)
    assert seconds > 0


@having("ping_pong")
def test_so_many_bytes_go_to_and_fro_and_a_first_one(adapter: Any, tmp_path: Path) -> None:
    got = tmp_path / "got"
    assert adapter.ping_pong(["tee", str(got)], 7) > 0
    assert got.read_bytes() == b"x" * 8


@having("read_all")
def test_a_child_that_fails_gives_no_figure_for_reading(adapter: Any) -> None:
    with pytest.raises(WrongResult):
        adapter.read_all(["sh", "-c", "echo much; exit 3"])


@having("read_lines")
def test_a_child_that_fails_gives_no_figure_for_lines(adapter: Any) -> None:
    with pytest.raises(WrongResult):
        adapter.read_lines(["sh", "-c", "echo much; exit 3"])


@having("read_streams")
def test_children_that_fail_give_no_figure_for_streams(adapter: Any) -> None:
    with pytest.raises(WrongResult):
        adapter.read_streams(["sh", "-c", "echo much; exit 3"], 3)


@having("read_streams")
def test_children_that_outlive_a_failed_one_are_waited_for(adapter: Any, tmp_path: Path) -> None:
    """The others live longer than the first; however long, none is left when the call is over."""
    slow_but_for_one = f"exec >&-; mkdir {tmp_path}/first 2>/dev/null && exit 3; sleep 0.2; exit 3"
    with pytest.raises(WrongResult):
        adapter.read_streams(["sh", "-c", slow_but_for_one], 3)
    assert not child_pids()


@having("write_all")
def test_a_child_that_fails_gives_no_figure_for_writing(adapter: Any) -> None:
    with pytest.raises(WrongResult):
        adapter.write_all(["sh", "-c", "cat >/dev/null; exit 3"], 1000, 100)


@having("ping_pong")
def test_a_child_that_fails_gives_no_figure_for_ping_pong(adapter: Any) -> None:
    with pytest.raises(WrongResult):
        adapter.ping_pong(["sh", "-c", "cat; exit 3"], 3)


@pytest.mark.parametrize("name", ["procreactor", "blocking", "limit", "subprocess"])
def test_a_byte_that_was_not_sent_is_noticed(name: str) -> None:
    adapter = importlib.import_module(f"benchmarks.adapters.pipes.{name}")
    with pytest.raises(WrongResult):
        adapter.ping_pong(["sh", "-c", "printf y; exec cat"], 3)


def test_pieces_make_up_the_total() -> None:
    assert [len(piece) for piece in pieces_of(10, 4)] == [4, 4, 2]
    assert [len(piece) for piece in pieces_of(8, 4)] == [4, 4]
    assert list(pieces_of(0, 4)) == []


def test_a_wrong_count_is_refused_and_says_both() -> None:
    check_count("lines", 3, 3)
    with pytest.raises(WrongResult, match="4 lines came, not 3"):
        check_count("lines", 3, 4)


def test_the_flood_writes_what_it_is_told_and_fails_without(tmp_path: Path) -> None:
    blocking = importlib.import_module("benchmarks.adapters.pipes.blocking")
    assert blocking.read_all([build.target("flood"), "65537"])[1] == 65537
    with pytest.raises(WrongResult):
        blocking.read_all([build.target("flood")])
    with pytest.raises(WrongResult):
        blocking.read_all(["sh", "-c", f"exec {build.target('flood')} 10 >/dev/full"])
