"""Files of records: each whole or not there, also on a full disk and after a death."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fulldisk import fill, small_disk
from hypothesis import given
from hypothesis import strategies as st
from mounts import needs_mounts

from procreactor.apps.cli.recordfile import RecordFile, end_of_whole_lines, end_of_whole_rows


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "records")


def test_records_stand_one_after_the_other(path: str) -> None:
    file = RecordFile(path, append=False)
    assert file.is_empty
    file.write(b"one\n")
    file.write(b"two\n")
    assert Path(path).read_bytes() == b"one\ntwo\n"
    assert file.unwritten == []
    file.close()
    file.close()


def test_what_was_there_is_gone_or_goes_on(path: str) -> None:
    Path(path).write_bytes(b"old\n")
    file = RecordFile(path, append=True)
    assert not file.is_empty
    file.write(b"new\n")
    file.close()
    assert Path(path).read_bytes() == b"old\nnew\n"
    RecordFile(path, append=False).close()
    assert Path(path).read_bytes() == b""


def test_half_a_record_is_cut_off(path: str) -> None:
    Path(path).write_bytes(b"one\ntw")
    file = RecordFile(path, append=True)
    file.write(b"two\n")
    file.close()
    assert Path(path).read_bytes() == b"one\ntwo\n"


def test_a_file_of_half_a_record_is_empty(path: str) -> None:
    Path(path).write_bytes(b"on")
    file = RecordFile(path, append=True)
    assert file.is_empty
    file.close()
    assert Path(path).read_bytes() == b""


@given(st.lists(st.sampled_from([b"a", b"\n", b"bcd"]), max_size=20), st.integers(1, 5))
def test_whole_lines_end_at_the_last_line_feed(pieces: list[bytes], step: int) -> None:
    data = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procreactor.apps.cli.recordfile._LOOK_BACK_BYTES", step)
        assert end_of_whole_lines(io.BytesIO(data)) == data.rfind(b"\n") + 1


def test_whole_rows_end_at_a_line_feed_outside_of_quotes() -> None:
    whole = b'a,"b\nc"\nd,"e""\n"\n'
    for torn in (b"", b"x", b'f,"g\n', b'f,"g""\n', b'f,"g"'):
        assert end_of_whole_rows(io.BytesIO(whole + torn)) == len(whole)


def test_two_that_append_do_not_overwrite_each_other(path: str) -> None:
    one, other = RecordFile(path, append=True), RecordFile(path, append=True)
    for number in range(50):
        one.write(b"one %d\n" % number)
        other.write(b"other %d\n" % number)
    one.close()
    other.close()
    assert len(Path(path).read_bytes().splitlines()) == 100


def test_an_error_names_the_file_and_the_record_is_kept() -> None:
    file = RecordFile("/dev/full", append=True)
    for count in (1, 2):
        with pytest.raises(OSError, match="/dev/full") as caught:
            file.write(b"record %d\n" % count)
        assert caught.value.errno == errno.ENOSPC
    assert file.unwritten == [b"record 1\n", b"record 2\n"]
    file.close()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        RecordFile(str(tmp_path / "nowhere" / "records"), append=False)


def on_a_full_disk(where: str) -> dict[str, Any]:
    disk = small_disk(where)
    path = disk / "records"
    file = RecordFile(str(path), append=False)
    record = b"x" * 999 + b"\n"
    file.write(record)
    filler = fill(disk, leave_bytes=4096)
    raised = []
    for _ in range(8):
        try:
            file.write(record)
        except OSError as error:
            raised.append((error.errno, error.filename))
    full = path.read_bytes()
    filler.unlink()
    file.retry()
    left = file.unwritten
    file.close()
    return {
        "raised": raised,
        "whole": full == record * (len(full) // len(record)),
        "all": path.read_bytes() == record * 9,
        "left": len(left),
        "path": str(path),
    }


@needs_mounts
def test_on_a_full_disk_records_are_whole_and_none_is_lost(tmp_path: Path) -> None:
    found = alone(on_a_full_disk, str(tmp_path))
    assert found["raised"], "the disk was never full"
    assert {tuple(one) for one in found["raised"]} == {(errno.ENOSPC, found["path"])}
    assert (found["whole"], found["all"], found["left"]) == (True, True, 0)


def beyond_a_limit(path: str) -> dict[str, Any]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
    file = RecordFile(path, append=False)
    record = b"y" * 999 + b"\n"
    file.write(record)
    try:
        file.write(record)
    except OSError as error:
        raised = error.errno, error.filename
    torn = Path(path).read_bytes() != record
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    file.retry()
    file.close()
    return {"raised": raised, "torn": torn, "all": Path(path).read_bytes() == record * 2}


def test_what_was_written_of_a_record_is_taken_back(path: str) -> None:
    # At the limit the kernel writes 500 bytes of the record, and refuses the rest.
    found = alone(beyond_a_limit, path)
    assert found == {"raised": [errno.EFBIG, path], "torn": False, "all": True}


def with_a_pipe_for_stdout(count: int) -> bool:
    read_fd, write_fd = os.pipe()
    kept = os.dup(1)
    os.dup2(write_fd, 1)
    os.close(write_fd)
    os.set_blocking(1, False)
    got = bytearray()

    def read() -> None:
        while data := os.read(read_fd, 65536):
            got.extend(data)

    file = RecordFile("-", append=False)
    os.dup2(kept, 1)
    os.close(kept)
    reader = threading.Thread(target=read)
    reader.start()
    record = b"z" * 99_999 + b"\n"
    for _ in range(count):
        file.write(record)
    file.close()
    reader.join()
    os.close(read_fd)
    return bytes(got) == record * count


@pytest.mark.needs("threads")
def test_records_may_go_to_the_standard_output_that_does_not_block() -> None:
    assert alone(with_a_pipe_for_stdout, 20)
