"""Results in trees and files: GNU parallel's layouts, whole records, errors with names."""

from __future__ import annotations

import base64
import csv
import errno
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from command_line import ran
from fulldisk import fill, small_disk
from gnu_parallel import needs_parallel, parallel
from hypothesis import given
from hypothesis import strategies as st
from mounts import needs_mounts

from procreactor.apps.cli import shellwords
from procreactor.apps.cli.records import JobName, JobRecord, ResultSink
from procreactor.apps.cli.results import open_results, value_directory


def record(name: JobName, command: bytes = b"true", code: int = 0, received: int = 0) -> JobRecord:
    return JobRecord(name, ":", 1700000000.25, 0.5, 0, received, code, 0, command)


def run(sink: ResultSink, name: JobName, out: bytes = b"", err: bytes = b"", **kwargs: Any) -> None:
    out_sink, err_sink = sink.new_sinks(name)
    if out:
        out_sink.append(out)
    if err:
        err_sink.append(err)
    sink.store(record(name, **kwargs))


def files_below(where: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(where)): path.read_bytes()
        for path in sorted(where.rglob("*"))
        if path.is_file()
    }


# --- The tree -------------------------------------------------------------------------------------

WORDS = ["a", "b c", "d/e", "f\tg", "h\\i", "j\nk", "ü"]


@needs_parallel
def test_the_tree_is_that_of_gnu_parallel(tmp_path: Path) -> None:
    parallel(tmp_path, "-0", "--results", "theirs", "printf %s {}; echo err >&2", ":::", *WORDS)
    sink = open_results(str(tmp_path / "ours"))
    for seq, word in enumerate(WORDS, 1):
        run(sink, JobName(seq, (word.encode(),)), word.encode(), b"err\n")
    sink.close()
    theirs = files_below(tmp_path / "theirs")
    assert files_below(tmp_path / "ours") == theirs
    assert len(theirs) == 3 * len(WORDS)


@needs_parallel
@pytest.mark.parametrize("header", [False, True])
def test_the_tree_of_two_sources_is_that_of_gnu_parallel(tmp_path: Path, header: bool) -> None:
    names = ("x", "1b") if header else ()
    options = ["--header", ":"] if header else []
    sources = [[*names[i : i + 1], *values] for i, values in enumerate((["I", "II"], ["III"]))]
    parallel(
        tmp_path, "--results", "theirs", *options, "true", ":::", *sources[0], ":::", *sources[1]
    )
    sink = open_results(str(tmp_path / "ours"), names=[name.encode() for name in names])
    for seq, word in enumerate((b"I", b"II"), 1):
        run(sink, JobName(seq, (word, b"III")))
    assert files_below(tmp_path / "ours") == files_below(tmp_path / "theirs")


@needs_parallel
def test_the_tree_of_several_records_is_that_of_gnu_parallel(tmp_path: Path) -> None:
    parallel(tmp_path, "--results", "theirs", "-N2", "true", ":::", "a", "b")
    sink = open_results(str(tmp_path / "ours"))
    run(sink, JobName(1, (b"a", b"b"), widths=(1, 1)))
    assert files_below(tmp_path / "ours") == files_below(tmp_path / "theirs")


@needs_parallel
@pytest.mark.parametrize("template", ["my_{}", "my_{}/", "sub/my_{}"])
def test_a_name_with_replacements_is_that_of_gnu_parallel(tmp_path: Path, template: str) -> None:
    for side in ("theirs", "ours"):
        (tmp_path / side).mkdir()
    parallel(tmp_path / "theirs", "--results", template, "echo", ":::", "a")
    place = str(tmp_path / "ours" / template.replace("{}", "a")) + "/" * template.endswith("/")
    sink = open_results(str(tmp_path / "ours" / template))
    run(sink, JobName(1, (b"a",), place=place.encode()), b"a\n")
    ours = files_below(tmp_path / "ours")
    theirs = files_below(tmp_path / "theirs")
    theirs = {name: data for name, data in theirs.items() if not name.startswith(".parallel")}
    assert ours == theirs


@needs_parallel
def test_gnu_parallel_resumes_from_our_tree(tmp_path: Path) -> None:
    sink = open_results(str(tmp_path / "tree"))
    run(sink, JobName(1, (b"a",)), b"kept\n")
    parallel(tmp_path, "--resume", "--results", "tree", "echo", ":::", "a", "b")
    found = files_below(tmp_path / "tree")
    assert (found["1/a/stdout"], found["1/b/stdout"]) == (b"kept\n", b"b\n")


@needs_parallel
def test_what_gnu_parallel_stored_is_known(tmp_path: Path) -> None:
    parallel(tmp_path, "--results", "tree", "echo", ":::", "d/e")
    sink = open_results(str(tmp_path / "tree"))
    assert sink.has(JobName(1, (b"d/e",)))
    assert not sink.has(JobName(2, (b"other",)))


def test_no_value_leads_out_of_the_tree(tmp_path: Path) -> None:
    sink = open_results(str(tmp_path / "tree"))
    for seq, value in enumerate((b"..", b".", b"../..", b"/etc"), 1):
        run(sink, JobName(seq, (value,)), value)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    assert sorted(path.name for path in (tmp_path / "tree" / "1").iterdir()) == sorted(
        ["\\..", "\\.", "..\\_..", "\\_etc"]
    )


def test_values_longer_than_a_file_name_keep_apart(tmp_path: Path) -> None:
    sink = open_results(str(tmp_path / "tree"))
    long = b"x" * 300
    for seq, value in enumerate((long + b"1", long + b"2"), 1):
        run(sink, JobName(seq, (value,)), value)
    assert {path.read_bytes()[-1:] for path in (tmp_path / "tree").rglob("stdout")} == {b"1", b"2"}


@given(st.lists(st.binary(max_size=300).map(lambda v: v.replace(b"\0", b"")), max_size=5))
def test_the_path_of_any_values_stays_below(values: list[bytes]) -> None:
    pieces = value_directory(JobName(1, tuple(values))).split(b"/")
    assert all(piece not in (b".", b"..") and len(piece) <= 255 for piece in pieces)


def test_a_job_is_there_when_it_has_ended_and_not_before(tmp_path: Path) -> None:
    sink = open_results(str(tmp_path / "tree"))
    name = JobName(1, (b"a",))
    for _ in range(2):  # and again, when it starts again
        out, _ = sink.new_sinks(name)
        out.append(b"half")
        assert not sink.has(name)
        sink.store(record(name))
        assert sink.has(name)


def test_output_goes_to_the_tree_as_it_comes(tmp_path: Path) -> None:
    sink = open_results(str(tmp_path / "tree"))
    out, err = sink.new_sinks(JobName(1, (b"a",)))
    out.append(b"so far")
    assert (tmp_path / "tree/1/a/stdout").read_bytes() == b"so far"
    sink.discard(JobName(1, (b"a",)))
    out.append(b"nobody takes this")
    err.append(b"nor this")
    assert (tmp_path / "tree/1/a/stdout").read_bytes() == b"so far"
    sink.new_sinks(JobName(2, (b"b",)))
    sink.close()
    sink.close()


def on_a_full_disk(where: str) -> dict[str, Any]:
    disk = small_disk(where)
    sink = open_results(str(disk / "tree"))
    names = [JobName(seq, (b"%d" % seq,)) for seq in (1, 2)]
    run(sink, names[0], b"first")
    out, _ = sink.new_sinks(names[1])
    fill(disk)
    for _ in range(3):
        out.append(b"z" * 5000)
    try:
        sink.store(record(names[1]))
    except OSError as error:
        raised = error.errno, error.filename
    return {
        "raised": raised,
        "has": [sink.has(name) for name in names],
        "first": (disk / "tree/1/1/stdout").read_text(),
    }


@needs_mounts
def test_on_a_full_disk_the_file_is_named_and_the_job_is_not_there(tmp_path: Path) -> None:
    found = alone(on_a_full_disk, str(tmp_path))
    assert found == {
        "raised": [errno.ENOSPC, f"{tmp_path}/tree/1/2/stdout"],
        "has": [True, False],
        "first": "first",
    }


# --- CSV and TSV ----------------------------------------------------------------------------------


@needs_parallel
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_rows_are_those_of_gnu_parallel_but_for_the_times(tmp_path: Path, kind: str) -> None:
    words = ["a", 'say "x"', "c,d", "e\tf", ""]
    parallel(
        tmp_path, "--results", f"theirs.{kind}", "-j1", "printf %s {}; echo e >&2", ":::", *words
    )
    theirs = (tmp_path / f"theirs.{kind}").read_bytes()
    sink = open_results(str(tmp_path / f"ours.{kind}"))
    for seq, word in enumerate(map(str.encode, words), 1):
        command = b"printf %s " + shellwords.quote(word) + b"; echo e >&2"
        name = JobName(seq, (word,))
        run(sink, name, word, b"e\n", command=command, received=len(word))
    sink.close()
    times = re.compile(rb":([,\t])\d+\.\d+[,\t]\d+\.\d+[,\t]")
    ours = (tmp_path / f"ours.{kind}").read_bytes()
    assert times.sub(rb":\1", ours) == times.sub(rb":\1", theirs)


NAMES = ["a.CSV", "a.Tsv", "a.JSON", ".csv", "-.CSV", "-.a.csv", "a.csv.x"]


@needs_parallel
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_that_of_a_file_or_a_tree_as_it_is_to_gnu_parallel(
    tmp_path: Path, name: str
) -> None:
    found = {}
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
        words = ["--results", name, "echo", ":::", "a"]
        done = ran(tmp_path / side, *words) if side == "ours" else parallel(tmp_path / side, *words)
        assert (done.returncode, done.stderr) == (0, b"")
        files = files_below(tmp_path / side)
        found[side] = sorted(file for file in files if not file.startswith(".parallel"))
    assert found["ours"] == found["theirs"]


def test_columns_have_the_names_of_their_sources(tmp_path: Path) -> None:
    sink = open_results(str(tmp_path / "r.csv"), names=[b"fruit"])
    run(sink, JobName(1, (b"fig", b"x")))
    sink.close()
    assert b",Command,fruit,V2,Stdout,Stderr\n" in (tmp_path / "r.csv").read_bytes()


@given(st.lists(st.text(max_size=20).map(str.encode), max_size=4), st.binary(max_size=40))
def test_any_row_is_read_by_others(tmp_path_factory: Any, values: list[bytes], out: bytes) -> None:
    path = tmp_path_factory.mktemp("r") / "r.csv"
    sink = open_results(str(path))
    run(sink, JobName(1, tuple(values)), out)
    sink.close()
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    _, row = csv.reader(io.StringIO(text, newline=""), strict=True)
    fields = [field.encode("utf-8", "surrogateescape") for field in row]
    assert fields[9:] == [*values, out, b""]


def test_rows_go_on_behind_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    sink = open_results(str(path))
    run(sink, JobName(1, (b"a",)), b"one\n")
    sink.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'2,:,1,1,0,0,0,0,"ec\n')
    sink = open_results(str(path), append=True)
    run(sink, JobName(2, (b"b",)), b"two\n")
    sink.close()
    rows = list(csv.reader(io.StringIO(path.read_text(), newline="")))
    assert [row[0] for row in rows] == ["Seq", "1", "2"]


# --- JSON lines -----------------------------------------------------------------------------------


@needs_parallel
def test_objects_are_those_of_gnu_parallel_but_for_the_times(tmp_path: Path) -> None:
    words = ["a", 'say "x"', "c\td\n", "ü"]
    parallel(tmp_path, "-0", "--results", "theirs.json", "-j1", "printf %s", ":::", *words)
    sink = open_results(str(tmp_path / "ours.jsonl"))
    for seq, word in enumerate(map(str.encode, words), 1):
        command = b"printf %s " + shellwords.quote(word)
        run(sink, JobName(seq, (word,)), word, command=command, received=len(word))
    sink.close()
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / name).read_text("utf-8").splitlines()]
        for name in ("ours.jsonl", "theirs.json")
    )
    for one in (*ours, *theirs):
        assert isinstance(one.pop("Starttime"), float)
        assert isinstance(one.pop("JobRuntime"), float)
    assert ours == theirs


def text_of(field: Any) -> bytes:
    return field.encode() if isinstance(field, str) else base64.b64decode(field["base64"])


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_come_back(tmp_path_factory: Any, value: bytes, out: bytes) -> None:
    path = tmp_path_factory.mktemp("r") / "r.jsonl"
    sink = open_results(str(path))
    run(sink, JobName(1, (value,)), out, command=value)
    sink.close()
    data = path.read_bytes()
    assert data.count(b"\n") == 1
    found = json.loads(data)
    assert (text_of(found["V"][0]), text_of(found["Stdout"])) == (value, out)
    assert text_of(found["Command"]) == value
    assert "StdoutDropped" not in found


def test_what_a_limit_leaves_out_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    sink = open_results(str(path), limit_bytes=10)
    run(sink, JobName(1, ()), b"a" * 50 + b"z" * 50, b"short")
    sink.close()
    found = json.loads(path.read_bytes())
    assert (found["Stdout"], found["StdoutDropped"]) == ("aaaaazzzzz", 90)
    assert (found["Stderr"], "StderrDropped" in found) == ("short", False)


def records_on_a_full_disk(where: str, kind: str) -> dict[str, Any]:
    disk = small_disk(where)
    path = disk / f"r.{kind}"
    sink = open_results(str(path))
    run(sink, JobName(1, (b"a",)), b"one\n")
    filler = fill(disk, leave_bytes=4096)
    try:
        run(sink, JobName(2, (b"b",)), b"x" * 9000)
    except OSError as error:
        raised = error.errno, error.filename
    full = path.read_bytes()
    waiting = len(sink.unwritten)
    filler.unlink()
    run(sink, JobName(3, (b"c",)))
    sink.close()
    return {
        "raised": raised,
        "lines": full.count(b"\n") + full.endswith(b"\n"),
        "waiting": waiting,
        "seqs": re.findall(r'(?m)^(?:\{"Seq": )?(\d+)', path.read_text()),
    }


@needs_mounts
@pytest.mark.parametrize(("kind", "lines"), [("jsonl", 2), ("csv", 4)])
def test_on_a_full_disk_the_record_waits_for_room(tmp_path: Path, kind: str, lines: int) -> None:
    found = alone(records_on_a_full_disk, str(tmp_path), kind)
    assert found == {
        "raised": [errno.ENOSPC, f"{tmp_path}/r.{kind}"],
        "lines": lines,
        "waiting": 1,
        "seqs": ["1", "2", "3"],
    }


def test_a_job_that_is_forgotten_leaves_no_record(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    sink = open_results(str(path))
    out, _ = sink.new_sinks(JobName(1, (b"a",)))
    out.append(b"x")
    sink.discard(JobName(1, (b"a",)))
    assert not sink.has(JobName(1, (b"a",)))
    sink.close()
    assert path.read_bytes() == b""
