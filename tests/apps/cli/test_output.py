"""What jobs write comes out whole, in the order of the mode, and readers who are slow or gone."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fulldisk import fill, small_disk
from hypothesis import given
from hypothesis import strategies as st
from mounts import needs_mounts
from support import DEADLINE_S

from procreactor.apps.cli.held import Spill
from procreactor.apps.cli.output import OutputClosed, OutputWriter


class Bench:
    """A writer whose two streams are files, or one."""

    def __init__(self, where: Path, one_file: bool = False, **options: Any) -> None:
        self.paths = [where / "out", where / "err"]
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        self.fds = [os.open(path, flags, 0o600) for path in self.paths]
        if one_file:
            os.dup2(self.fds[0], self.fds[1])
        self.writer = OutputWriter(fds=(self.fds[0], self.fds[1]), **options)

    def close(self) -> None:
        self.writer.close()
        for fd in self.fds:
            os.close(fd)

    def run(self, *acts: tuple[Any, ...]) -> tuple[bytes, bytes]:
        """Play *acts*, flushing after each; return what came out."""
        sinks: dict[int, Any] = {}
        for verb, seq, *rest in acts:
            if verb == "start":
                sinks[seq] = self.writer.new_sinks(seq, *rest)
            elif verb in ("out", "err"):
                sinks[seq][verb == "err"].append(*rest)
            else:
                getattr(self.writer, verb)(seq)
            self.writer.flush()
        return self.out, self.err

    @property
    def out(self) -> bytes:
        return self.paths[0].read_bytes()

    @property
    def err(self) -> bytes:
        return self.paths[1].read_bytes()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches = []

    def make(**options: Any) -> Bench:
        benches.append(Bench(tmp_path, **options))
        return benches[-1]

    yield make
    for one in benches:
        one.close()


# --- Modes ----------------------------------------------------------------------------------------

OVERLAP = (
    ("start", 1),
    ("start", 2),
    ("out", 1, b"1a\n1"),
    ("err", 2, b"2e\n"),
    ("out", 2, b"2a\n"),
    ("out", 1, b"b\n"),
    ("finish", 2),
    ("err", 1, b"1e\n"),
    ("finish", 1),
)


def test_groups_come_out_as_jobs_end(bench: Callable[..., Bench]) -> None:
    assert bench().run(*OVERLAP) == (b"2a\n1a\n1b\n", b"2e\n1e\n")


def test_in_a_group_stdout_is_before_stderr(bench: Callable[..., Bench]) -> None:
    assert bench(one_file=True).run(*OVERLAP)[0] == b"2a\n2e\n1a\n1b\n1e\n"


@pytest.mark.parametrize("one_file", [False, True])
def test_kept_order_is_that_of_the_starts(bench: Callable[..., Bench], one_file: bool) -> None:
    out, err = bench(keep_order=True, one_file=one_file).run(*OVERLAP)
    if one_file:
        assert out == b"1a\n1b\n1e\n2a\n2e\n"
    else:
        assert (out, err) == (b"1a\n1b\n2a\n", b"1e\n2e\n")


def test_who_has_the_turn_writes_while_it_runs(bench: Callable[..., Bench]) -> None:
    one = bench(keep_order=True)
    acts = (("start", 1), ("start", 2), ("out", 2, b"2"), ("err", 1, b"e"), ("out", 1, b"1"))
    assert one.run(*acts) == (b"1", b"e")
    one.writer.finish(1)
    one.writer.flush()
    assert one.out == b"12", "the next one's turn has begun"


def test_lines_come_out_whole_as_they_come(bench: Callable[..., Bench]) -> None:
    one = bench(line_buffer=True, one_file=True)
    assert one.run(*OVERLAP)[0] == b"1a\n2e\n2a\n1b\n1e\n"


def test_a_last_line_without_end_comes_out_at_the_end(bench: Callable[..., Bench]) -> None:
    one = bench(line_buffer=True)
    assert one.run(("start", 1), ("out", 1, b"a\nb"), ("out", 1, b"c"))[0] == b"a\n"
    one.writer.finish(1)
    one.writer.flush()
    assert one.out == b"a\nbc"


def test_lines_in_order_are_those_of_the_turn(bench: Callable[..., Bench]) -> None:
    one = bench(line_buffer=True, keep_order=True, one_file=True)
    acts = (*OVERLAP[:6], ("out", 2, b"half"), ("out", 1, b"x"))
    assert one.run(*acts)[0] == b"1a\n1b\n"
    one.writer.finish(1)
    one.writer.flush()
    assert one.out == b"1a\n1b\nx2a\n2e\n"
    one.writer.finish(2)
    one.writer.flush()
    assert one.out == b"1a\n1b\nx2a\n2e\nhalf"


@pytest.mark.parametrize("options", [{}, {"keep_order": True}, {"line_buffer": True}])
def test_a_tag_is_before_each_line(bench: Callable[..., Bench], options: dict[str, bool]) -> None:
    one = bench(**options)
    acts = (("start", 1, b"t"), ("out", 1, b"a\nb"), ("out", 1, b"c\n"), ("err", 1, b"e"))
    assert one.run(*acts, ("finish", 1)) == (b"t\ta\nt\tbc\n", b"t\te")


def test_an_attempt_can_be_discarded_and_the_next_keeps_the_place(
    bench: Callable[..., Bench],
) -> None:
    one = bench(keep_order=True, early=False)
    out, _ = one.run(
        ("start", 1),
        ("start", 2),
        ("out", 1, b"bad"),
        ("discard", 1),
        ("out", 2, b"2"),
        ("finish", 2),
        ("start", 1),
        ("out", 1, b"good"),
        ("finish", 1),
    )
    assert out == b"good2"


def test_a_discarded_job_may_start_no_more(bench: Callable[..., Bench]) -> None:
    acts = (("start", 1), ("out", 1, b"bad"), ("discard", 1), ("finish", 1))
    assert bench().run(*acts) == (b"", b"")


# --- Any order of events --------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Jobs that start in order, write lines on both streams in pieces, and end in any order."""
    acts: list[tuple[Any, ...]] = []
    running: list[int] = []
    started = 0
    for _ in range(draw(st.integers(0, 40))):
        verb = draw(st.sampled_from(["start", "out", "err", "finish"]))
        if verb == "start" or not running:
            started += 1
            running.append(started)
            acts.append(("start", started))
        else:
            seq = draw(st.sampled_from(running))
            if verb == "finish":
                running.remove(seq)
                acts.append(("finish", seq))
            else:
                piece = draw(st.sampled_from([b"%d%s\n", b"%d%s", b"%d%s\n%%\n"]))
                acts.append((verb, seq, piece % (seq, verb.encode())))
    return [*acts, *(("finish", seq) for seq in running)]


def expected(acts: list[tuple[Any, ...]], keep_order: bool) -> tuple[bytes, bytes]:
    ended = [seq for verb, seq, *_ in acts if verb == "finish"]
    streams = []
    for which in ("out", "err"):
        said = dict.fromkeys(ended, b"")
        for verb, seq, *rest in acts:
            if verb == which:
                said[seq] += rest[0]
        streams.append(b"".join(said[seq] for seq in (sorted(ended) if keep_order else ended)))
    return streams[0], streams[1]


@given(histories(), st.booleans(), st.booleans(), st.integers(0, 50), st.integers(0, 100))
def test_all_comes_out_in_the_order_of_the_mode_however_little_memory_there_is(
    tmp_path_factory: Any,
    acts: list[tuple[Any, ...]],
    keep_order: bool,
    early: bool,
    holder_bytes: int,
    memory_bytes: int,
) -> None:
    spill = Spill(holder_bytes=holder_bytes, memory_bytes=memory_bytes, segment_bytes=200)
    one = Bench(tmp_path_factory.mktemp("b"), keep_order=keep_order, early=early, spill=spill)
    assert one.run(*acts) == expected(acts, keep_order)
    assert one.writer.queued_bytes == spill.in_memory == 0
    assert not spill._segments
    one.close()


@given(histories(), st.booleans(), st.integers(0, 50))
def test_lines_are_never_torn_nor_lost(
    tmp_path_factory: Any, acts: list[tuple[Any, ...]], keep_order: bool, holder_bytes: int
) -> None:
    spill = Spill(holder_bytes=holder_bytes, segment_bytes=200)
    one = Bench(tmp_path_factory.mktemp("b"), line_buffer=True, keep_order=keep_order, spill=spill)
    # All that is left at the end is a whole line too, so that the last ones do not run together.
    acts = [
        a for act in acts for a in ((("out", act[1], b"\n"), act) if act[0] == "finish" else (act,))
    ]
    got = one.run(*acts)[0]
    want = expected(acts, keep_order)[0]
    one.close()
    if keep_order:
        assert got == want
    else:
        assert sorted(got.split(b"\n")) == sorted(want.split(b"\n"))


# --- Writing --------------------------------------------------------------------------------------


def test_many_small_pieces_are_one_write(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda *args: calls.append(1) or real(*args))
    writer = bench().writer
    for seq in range(1000):
        writer.new_sinks(seq)[0].append(b"%d\n" % seq)
        writer.finish(seq)
    assert writer.queued_bytes == sum(len(b"%d\n" % seq) for seq in range(1000))
    writer.flush()
    assert len(calls) == 1
    writer.flush()
    assert len(calls) == 1


def test_much_is_written_before_it_is_asked_for(bench: Callable[..., Bench]) -> None:
    one = bench(keep_order=True)
    out, _ = one.writer.new_sinks(1)
    for _ in range(20):
        out.append(bytes(1 << 20))
    assert one.writer.queued_bytes < 6 << 20
    one.writer.flush()
    assert len(one.out) == 20 << 20


class Later:
    """Stands for the loop's timers: keeps the calls until it is told that it is time."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def __call__(self, delay_s: float, call: Callable[[], object]) -> None:
        assert delay_s < 1
        self.calls.append(call)

    def is_time(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Waiting:
    """The jobs of *writer* that were made to wait, and how often each was told to go on."""

    def __init__(self, writer: OutputWriter) -> None:
        self._writer = writer
        self.told: list[int] = []
        self.due: list[int] = []

    def must(self, seq: int) -> bool:
        return self._writer.must_wait(seq, lambda is_due: self._tell(seq, is_due))

    def _tell(self, seq: int, is_due: bool) -> None:
        self.told.append(seq)
        if is_due:
            self.due.append(seq)


def test_who_is_not_due_waits_while_much_is_written(bench: Callable[..., Bench]) -> None:
    later = Later()
    writer = bench(keep_order=True, call_later=later).writer
    first, *_ = (writer.new_sinks(seq)[0] for seq in (1, 2, 3))
    waiting = Waiting(writer)
    assert not waiting.must(2)
    until(lambda: feed(writer, first, bytes(200_000)) or waiting.must(2))
    assert not waiting.must(1), "it has the turn"
    assert not waiting.must(7), "it is over, or not known"
    assert waiting.told == []
    until(lambda: later.is_time() or waiting.told)  # nothing more is written
    assert (waiting.told, waiting.due, later.calls) == ([2], [], [])
    assert not waiting.must(2)
    until(lambda: feed(writer, first, bytes(200_000)) or (waiting.must(2) and waiting.must(3)))
    waiting.told.clear()
    writer.finish(3)  # it ended while it waited: nobody is left to be told
    writer.finish(1)
    assert waiting.told == waiting.due == [2], "it has the turn"
    assert not waiting.must(2)
    until(lambda: later.is_time() or not later.calls)
    assert waiting.told == [2]


def test_who_is_started_again_is_not_the_one_that_waited(bench: Callable[..., Bench]) -> None:
    later = Later()
    writer = bench(keep_order=True, call_later=later).writer
    first, *_ = (writer.new_sinks(seq)[0] for seq in (1, 2))
    waiting = Waiting(writer)
    until(lambda: feed(writer, first, bytes(200_000)) or waiting.must(2))
    writer.discard(2)
    until(lambda: later.is_time() or not later.calls)
    assert waiting.told == []


def test_whatever_one_of_those_raises_who_go_on_the_others_are_told(
    bench: Callable[..., Bench],
) -> None:
    later = Later()
    writer = bench(keep_order=True, call_later=later).writer
    first, *_ = (writer.new_sinks(seq)[0] for seq in (1, 2, 3))
    waiting = Waiting(writer)
    raised = []

    def fail_once(is_due: bool) -> None:
        if not raised:
            raised.append(1)
            raise MemoryError

    until(lambda: feed(writer, first, bytes(200_000)) or writer.must_wait(2, fail_once))
    until(lambda: feed(writer, first, bytes(200_000)) or waiting.must(3))

    def look() -> bool:
        later.is_time()
        return not later.calls

    with pytest.raises(MemoryError):
        until(look)
    until(look)
    assert waiting.told == [3]


def test_all_go_on_now_and_then_while_one_writes_without_end() -> None:
    with open(os.devnull, "wb") as null:
        writer = OutputWriter(keep_order=True, call_later=Later(), fds=(null.fileno(),) * 2)
        first, *_ = (writer.new_sinks(seq)[0] for seq in (1, 2))
        waiting = Waiting(writer)
        for _ in range(3):
            waiting.told.clear()
            until(lambda: feed(writer, first, bytes(1 << 20)) or waiting.must(2))
            until(lambda: feed(writer, first, bytes(1 << 20)) or waiting.told == [2])
        writer.close()


@pytest.mark.parametrize("options", [{"keep_order": True, "throttles": False}, {}])
def test_nobody_waits_where_that_is_not_wanted(
    bench: Callable[..., Bench], options: dict[str, Any]
) -> None:
    writer = bench(call_later=Later(), **options).writer
    first, *_ = (writer.new_sinks(seq)[0] for seq in (1, 2))
    for _ in range(50):
        feed(writer, first, bytes(1 << 20))
        assert not writer.must_wait(2, bool)


def feed(writer: OutputWriter, sink: Any, data: bytes) -> bool:
    sink.append(data)
    writer.flush()
    return False


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end


def test_a_job_is_written_when_its_turn_was(bench: Callable[..., Bench]) -> None:
    one = bench(keep_order=True)
    writer = one.writer
    one.run(("start", 1), ("start", 2), ("start", 3), ("out", 3, b"3"), ("finish", 3))
    one.run(("start", 4), ("finish", 2), ("finish", 9))
    assert list(writer.written) == [9], "it never had anything to say"
    one.run(("finish", 1))
    assert (list(writer.written), one.out) == ([9, 1, 2, 3], b"3")
    one.run(("start", 5), ("out", 5, b"5"), ("finish", 5))
    writer.finish_all()
    writer.flush()
    assert (list(writer.written)[4:], one.out) == ([4, 5], b"35")


def test_what_could_not_be_written_is_not_told_as_written() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        writer = OutputWriter(fds=(full.fileno(), full.fileno()))
        sinks = writer.new_sinks(1)
        sinks[0].append(b"lost")
        writer.finish(1)
        writer.finish(2)
        with pytest.raises(OSError, match="No space"):
            writer.flush()
        assert not writer.written
        writer.close()


def test_who_draws_is_told_before_anything_is_written(bench: Callable[..., Bench]) -> None:
    told: list[bytes] = []
    one = bench(before_write=lambda: told.append(one.out))
    one.writer.flush()
    assert told == []
    one.run(("start", 1), ("out", 1, b"x"), ("finish", 1))
    assert told == [b""]


@contextmanager
def pipe_reader(fd: int) -> Iterator[bytearray]:
    """A thread that reads *fd* to its end; the bytes are there after the block."""
    got = bytearray()

    def read() -> None:
        while data := os.read(fd, 65536):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    yield got
    reader.join()


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.needs("threads")
def test_a_pipe_gets_all_whether_it_blocks_or_not(spilled: bool, blocking: bool) -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, blocking)
    spill = Spill(holder_bytes=1 if spilled else 1 << 30, memory_bytes=1 << 30)
    writer = OutputWriter(fds=(write_fd, 2), spill=spill)
    data = b"".join(b"%09d\n" % number for number in range(500_000))
    with pipe_reader(read_fd) as got:
        out, _ = writer.new_sinks(1)
        for start in range(0, len(data), 99_999):
            out.append(data[start : start + 99_999])
        writer.finish(1)
        writer.flush()
        writer.close()
        os.close(write_fd)
    os.close(read_fd)
    assert (spill.spilled > 0) == spilled
    assert bytes(got) == data


def spilled_to(fd: int, data: bytes) -> None:
    writer = OutputWriter(fds=(fd, fd), spill=Spill(holder_bytes=1))
    writer.new_sinks(1)[0].append(data)
    writer.finish(1)
    writer.flush()
    writer.close()


def test_what_was_spilled_goes_to_a_file_opened_to_append(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    spilled_to(fd, b"x" * 3_000_000)
    os.close(fd)
    assert path.read_bytes() == b"before\n" + b"x" * 3_000_000


def test_what_was_spilled_goes_to_a_terminal() -> None:
    ours, theirs = pty.openpty()
    spilled_to(theirs, b"words\n")
    assert os.read(ours, 100) == b"words\r\n"
    os.close(theirs)
    os.close(ours)


@pytest.mark.parametrize("spilled", [False, True])
def test_a_reader_who_has_gone_ends_the_output(spilled: bool) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    writer = OutputWriter(fds=(write_fd, 2), spill=Spill(holder_bytes=0 if spilled else 99))
    out, _ = writer.new_sinks(1)
    out.append(b"x")
    writer.finish(1)
    for _ in range(2):
        with pytest.raises(OutputClosed, match=f"fd {write_fd}") as caught:
            writer.flush()
        assert caught.value.fd == write_fd
    writer.close()
    os.close(write_fd)


@pytest.mark.needs("threads")
def test_a_reader_who_leaves_while_we_wait_ends_the_output() -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    writer = OutputWriter(keep_order=True, fds=(write_fd, 2))
    out, _ = writer.new_sinks(1)

    def read_a_little_and_go() -> None:
        os.read(read_fd, 10)
        os.close(read_fd)

    reader = threading.Thread(target=read_a_little_and_go)
    reader.start()
    out.append(bytes(1 << 20))
    with pytest.raises(OutputClosed):
        writer.flush()
    reader.join()
    writer.close()
    os.close(write_fd)


@pytest.mark.needs("threads")
def test_a_wait_that_is_ended_by_a_signal_loses_nothing() -> None:
    """What is not taken stays, and its job is not told as written, until it is waited for again."""
    read_fd, write_fd = os.pipe()
    writer = OutputWriter(keep_order=True, fds=(write_fd, 2), call_later=Later())
    out, _ = writer.new_sinks(1)
    data = b"".join(b"%09d\n" % number for number in range(500_000))
    before = signal.signal(signal.SIGUSR1, lambda number, frame: writer.stop_waiting())
    main = threading.get_ident()

    def interrupt() -> None:
        until(lambda: writer._is_waiting)
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    out.append(data)
    writer.finish(1)
    writer.flush()
    thread.join()
    signal.signal(signal.SIGUSR1, before)
    assert writer.queued_bytes == len(data) - 65536
    assert writer.must_wait(1, bool)
    writer.flush()
    assert not writer.written
    writer.wait_again()
    with pipe_reader(read_fd) as got:
        writer.flush()
        writer.close()
        os.close(write_fd)
    os.close(read_fd)
    assert (bytes(got) == data, list(writer.written)) == (True, [1])


def test_an_error_of_the_stream_comes_from_flush_and_never_from_a_sink() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = OutputWriter(keep_order=True, fds=(fd, fd))
    out, _ = writer.new_sinks(1)
    for _ in range(10):
        out.append(bytes(1 << 20))
    assert writer.queued_bytes <= 10 << 20
    with pytest.raises(OSError, match=f"fd {fd}") as caught:
        writer.flush()
    assert caught.value.errno == errno.ENOSPC
    writer.close()
    os.close(fd)


def closed_stdout() -> str:
    os.close(1)
    writer = OutputWriter()
    writer.new_sinks(1)[0].append(b"x")
    writer.finish(1)
    try:
        writer.flush()
    except OSError as error:
        return f"{error.errno} {error.filename}"
    finally:
        os.dup2(2, 1)
    return "no error"


def test_a_standard_output_that_is_closed_is_named() -> None:
    assert alone(closed_stdout) == f"{errno.EBADF} standard output"


def on_a_full_disk(where: str) -> dict[str, Any]:
    disk = small_disk(where)
    fill(disk, leave_bytes=4096)
    read_fd, write_fd = os.pipe()
    spill = Spill(where, holder_bytes=100)
    writer = OutputWriter(keep_order=True, fds=(write_fd, 2), spill=spill)
    writer.new_sinks(1)
    out, _ = writer.new_sinks(2)
    for _ in range(10):
        out.append(b"2" * 4000)
    errors = []
    for end in (2, 1):
        writer.finish(end)
        try:
            writer.flush()
        except OSError as error:
            errors.append([error.errno, error.filename])
    got = os.read(read_fd, 65536)
    writer.close()
    os.close(read_fd)
    os.close(write_fd)
    return {"errors": errors, "whole": got == b"2" * 40_000}


@needs_mounts
def test_without_room_for_what_waits_the_directory_is_named_and_all_comes_out(
    tmp_path: Path,
) -> None:
    found = alone(on_a_full_disk, str(tmp_path))
    assert found == {"errors": [[errno.ENOSPC, str(tmp_path)]] * 2, "whole": True}


def test_behind_a_slow_job_there_are_few_objects_and_little_memory(
    bench: Callable[..., Bench],
) -> None:
    spill = Spill(memory_bytes=1 << 20)
    one = bench(keep_order=True, spill=spill)
    count = 20_000
    one.writer.new_sinks(0)
    for seq in range(1, count):
        one.writer.new_sinks(seq)[0].append(b"%0100d\n" % seq)
        one.writer.finish(seq)
        assert spill.in_memory <= 1 << 20
    parts = one.writer._jobs[0].followers._parts
    assert len(parts) < 100
    one.writer.finish(0)
    one.writer.flush()
    assert one.out == b"".join(b"%0100d\n" % seq for seq in range(1, count))
