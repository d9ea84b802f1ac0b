"""What waits: in order, in bounded memory, in few files, and lost never."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from alone import alone
from fulldisk import fill, small_disk
from hypothesis import given
from hypothesis import strategies as st
from leftovers import open_fds
from mounts import needs_mounts

from procreactor.apps.cli import held as held_module
from procreactor.apps.cli.held import Extent, Held, Spill


def content(spill: Spill, held: Held) -> list[tuple[int, bytes]]:
    """All that is held, with what is for one fd in a row joined; it is consumed."""
    found: list[tuple[int, bytes]] = []
    for fd, part in held.take():
        if isinstance(part, Extent):
            data = os.pread(part.fd, part.length, part.offset)
            spill.consume(part, part.length)
        else:
            data = bytes(part)
        if found and found[-1][0] == fd:
            data = found.pop()[1] + data
        found.append((fd, data))
    return found


def joined(parts: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for fd, data in parts:
        if found and found[-1][0] == fd:
            data = found.pop()[1] + data
        found.append((fd, data))
    return found


pieces = st.tuples(st.integers(1, 2), st.binary(min_size=1, max_size=30))
acts = st.lists(
    st.tuples(st.sampled_from(["append", "extend", "spill", "drop"]), st.integers(0, 2), pieces),
    max_size=60,
)


@given(acts, st.integers(0, 60), st.integers(0, 100), st.integers(1, 200))
def test_what_is_held_comes_back_in_order(
    some: Any, holder_bytes: int, memory_bytes: int, segment_bytes: int
) -> None:
    spill = Spill(holder_bytes=holder_bytes, memory_bytes=memory_bytes, segment_bytes=segment_bytes)
    holders = [Held(spill) for _ in range(3)]
    model: list[list[tuple[int, bytes]]] = [[], [], []]
    for act, which, (fd, data) in some:
        other = (which + 1) % 3
        if act == "append":
            holders[which].append(fd, data)
            model[which].append((fd, data))
        elif act == "extend":
            holders[which].extend(holders[other])
            model[which] += model[other]
            model[other] = []
        elif act == "spill":
            holders[which].spill()
        else:
            holders[which].drop()
            model[which] = []
        assert spill.in_memory <= memory_bytes
    assert [bool(holder) for holder in holders] == [bool(parts) for parts in model]
    assert [content(spill, holder) for holder in holders] == [joined(parts) for parts in model]
    assert spill.in_memory == 0
    assert not spill._segments, "all is consumed: no file is wanted"
    spill.close()


def test_one_that_holds_much_is_spilled_and_one_that_holds_little_is_not() -> None:
    spill = Spill(holder_bytes=1000)
    little, much = Held(spill), Held(spill)
    little.append(1, b"x" * 1000)
    much.append(1, b"y" * 1001)
    assert (spill.in_memory, spill.spilled) == (1000, 1001)
    assert content(spill, much) == [(1, b"y" * 1001)]
    spill.close()


def test_many_small_ones_cost_few_files_and_few_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: writes.append(1) or real(*args))
    spill = Spill(memory_bytes=100_000)
    before = len(open_fds())
    holders = [Held(spill) for _ in range(5000)]
    for number, holder in enumerate(holders):
        holder.append(1, b"%06d" % number * 20)
        assert spill.in_memory <= 100_000
    assert len(open_fds()) == before + 1
    assert len(writes) <= 20
    assert all(content(spill, one)[0][1][:6] == b"%06d" % n for n, one in enumerate(holders))
    spill.close()


def test_bytes_that_come_one_by_one_are_no_objects() -> None:
    spill = Spill()
    holder = Held(spill)
    for _ in range(10_000):
        holder.append(1, b"x")
    assert len(holder.take()) == 1


def test_a_segment_is_closed_when_nobody_wants_it_and_not_before() -> None:
    before = len(open_fds())
    spill = Spill(holder_bytes=10, segment_bytes=100)
    one, other = Held(spill), Held(spill)
    for _ in range(20):
        one.append(1, b"1" * 50)
        other.append(1, b"2" * 50)
    assert len(open_fds()) > before + 5
    assert content(spill, one) == [(1, b"1" * 1000)]
    assert len(open_fds()) > before + 5
    other.drop()
    assert len(open_fds()) == before
    one.append(1, b"3" * 50)
    assert content(spill, one) == [(1, b"3" * 50)]
    spill.close()


def test_where_there_are_no_nameless_files_they_lose_their_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # so old kernels read it: EISDIR
    spill = Spill(str(tmp_path), holder_bytes=1)
    holder = Held(spill)
    holder.append(1, b"abc")
    assert spill.error is None
    assert list(tmp_path.iterdir()) == []
    assert content(spill, holder) == [(1, b"abc")]
    spill.close()


def test_the_directory_is_tmpdir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    spill = Spill(holder_bytes=1)
    holder = Held(spill)
    holder.append(1, b"abc")
    holder.append(1, b"def")
    assert isinstance(spill.error, FileNotFoundError)
    assert spill.error.filename == str(tmp_path / "nowhere")
    assert content(spill, holder) == [(1, b"abcdef")], "nothing is lost"
    monkeypatch.delenv("TMPDIR")
    assert Spill().directory == "/tmp"


def on_a_full_disk(where: str) -> dict[str, Any]:
    disk = small_disk(where)
    spill = Spill(where, holder_bytes=5000)
    holder = Held(spill)
    fill(disk, leave_bytes=8192)
    data = b"".join(b"%07d\n" % number for number in range(5000))
    for start in range(0, len(data), 4000):
        holder.append(1, data[start : start + 4000])
    assert spill.error is not None
    error = spill.error.errno, spill.error.filename
    [(_, found)] = content(spill, holder)
    spill.close()
    return {"error": error, "whole": found == data, "spilled": spill.spilled > 0}


@needs_mounts
def test_on_a_full_disk_the_directory_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    found = alone(on_a_full_disk, str(tmp_path))
    assert found == {"error": [errno.ENOSPC, str(tmp_path)], "whole": True, "spilled": True}


def test_more_pieces_than_one_call_takes_are_spilled() -> None:
    assert os.sysconf("SC_IOV_MAX") == held_module._IOV_MAX
    spill = Spill()
    holder = Held(spill)
    for number in range(3000):
        holder.append(1 + number % 2, b"%d;" % number)
    holder.spill()
    assert spill.in_memory == 0
    assert [data for _, data in content(spill, holder)] == [b"%d;" % n for n in range(3000)]
    spill.close()


def test_what_is_spilled_is_not_gone_through_again_by_later_spills() -> None:
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_name == "_add_extent"

    spill = Spill()
    one, other = Held(spill), Held(spill)
    sys.setprofile(count)
    try:
        for number in range(200):  # in turn, so that no piece joins the one before it
            for held in (one, other):
                held.append(1, b"%03d" % number)
                held.spill()
    finally:
        sys.setprofile(None)
    assert calls == 400
    parts = one.take()
    assert len(parts) == 200
    assert all(isinstance(part, Extent) for _, part in parts)
    spill.close()
