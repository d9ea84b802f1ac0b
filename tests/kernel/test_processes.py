"""What is read of processes is theirs, and a signal reaches the one that is meant or nobody."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from alone import alone
from held import wait_for
from seccomp import deny, needs_seccomp
from woods import Grown, grown, living, new_mark, tree_spec

from procreactor.core import binding
from procreactor.kernel import processes
from procreactor.kernel.processes import (
    Adoption,
    note_stray,
    read_environment,
    read_row,
    read_rows,
    reap,
    reap_strays,
    signal_process,
    ticks_now,
    wait_for_ends,
)
from procreactor.model import ProcessRow

pytestmark = pytest.mark.needs("/proc")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

DEADLINE_S = 30.0


def row_of(pid: int) -> ProcessRow:
    row = read_row(pid)
    assert row is not None
    return row


# --- reading --------------------------------------------------------------------------------------


def test_a_row_says_what_the_kernel_says() -> None:
    own = row_of(os.getpid())
    assert (own.pid, own.parent) == (os.getpid(), os.getppid())
    assert (own.group, own.session) == (os.getpgrp(), os.getsid(0))
    assert own.is_alive
    assert own.threads == len(os.listdir("/proc/self/task"))
    assert own.started <= ticks_now()


def test_who_is_made_later_has_started_later() -> None:
    before = ticks_now()
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        assert before <= row_of(it.pid).started <= ticks_now()


def test_all_processes_are_in_the_table_children_with_their_parents() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "deep", 3), mark, 4) as it:
        rows = read_rows()
        assert os.getpid() in rows
        assert living(mark) <= set(rows)
        assert rows[it.pid].parent == os.getpid()
        below = {pid for pid in living(mark) if rows[pid].session == pid}
        assert len(below) == 3


def test_a_name_with_blanks_and_parentheses_is_no_field(tmp_path: Path) -> None:
    name = tmp_path / "a) R 1 2 3 ("
    mark = new_mark()
    spec = tree_spec(mark, "broad", 0)
    os.symlink(spec.candidates[0], name)
    spec.candidates = (bytes(name),)
    with grown(spec, mark, 1) as it:
        assert row_of(it.pid).parent == os.getpid()


def test_of_one_that_is_gone_there_is_nothing() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        pid = it.pid
        os.kill(pid, signal.SIGKILL)
        it.child.wait_exit()
        assert not row_of(pid).is_alive
        assert read_environment(pid) == b""
        it.reap()
        assert read_row(pid) is None
        assert read_environment(pid) == b""


def test_while_processes_come_and_go_the_table_is_read_whole() -> None:
    mark = new_mark()
    spec = tree_spec(mark, "whirl", 4)
    spec.process_group = 0
    with grown(spec, mark, 5) as it:
        for _ in range(20):
            rows = read_rows()
            assert {os.getpid(), it.pid} <= set(rows)


def test_an_environment_is_that_of_the_start() -> None:
    mark = new_mark()
    spec = tree_spec(mark, "broad", 1)
    spec.env = (b"A=1", b"B=" + b"x" * 100_000, b"C=3")
    with grown(spec, mark, 2):
        for pid in living(mark):
            assert read_environment(pid) == b"".join(row + b"\0" for row in spec.env)


@pytest.mark.needs("threads")
def test_where_the_first_thread_has_ended_the_process_lives_and_has_its_environment() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "headless"), mark, 2) as it:
        (child,) = [row for row in read_rows().values() if row.parent == it.pid]
        wait_for(lambda: row_of(child.pid).state == "Z")
        assert row_of(child.pid).is_alive
        assert read_environment(child.pid) == b"HOME=/nowhere\0"


@as_root
def test_an_environment_that_is_not_ours_to_read_is_told_apart_from_an_empty_one() -> None:
    assert alone(read_as_nobody, os.getpid()) is True


def read_as_nobody(pid: int) -> bool:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    return read_environment(pid) is None


def test_the_proc_of_others_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.os, "readlink", lambda path: "1")
    with pytest.raises(FileNotFoundError):
        read_rows()


# --- signals --------------------------------------------------------------------------------------


def test_a_signal_reaches_the_process() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        row = row_of(it.pid)
        assert signal_process(row, 0)
        assert signal_process(row, signal.SIGKILL)
        it.reap()
        assert not signal_process(row, signal.SIGKILL)


def test_a_number_that_was_given_again_gets_no_signal() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        row = row_of(it.pid)
        assert not signal_process(row._replace(started=row.started - 1), signal.SIGKILL)
        assert living(mark) == {it.pid}


def test_a_number_that_is_no_signal_is_told() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it, pytest.raises(OSError) as caught:
        signal_process(row_of(it.pid), 99)
    assert caught.value.errno == errno.EINVAL


@as_root
def test_anothers_process_is_not_signalled_by_who_may_not() -> None:
    assert alone(signal_as_nobody, os.getpid()) == errno.EPERM


def signal_as_nobody(pid: int) -> int:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    try:
        signal_process(row_of(pid), 0)
    except PermissionError as error:
        return error.errno or 0
    return 0


@needs_seccomp
def test_where_a_sandbox_has_no_pidfds_the_number_is_used() -> None:
    assert alone(kill_without_pidfds)


def kill_without_pidfds() -> bool:
    deny("pidfd_open", errno.EPERM)
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        row = row_of(it.pid)
        wait_for_ends([row], 0.001)
        assert signal_process(row, signal.SIGKILL)
        it.reap()
        assert not signal_process(row, signal.SIGKILL)
    return True


def test_an_end_is_waited_for_and_no_longer_than_told() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 2), mark, 3) as it:
        rows = [row_of(pid) for pid in living(mark)]
        wait_for_ends(rows, 0.01)
        assert len(living(mark)) == 3
        for row in rows:
            signal_process(row, signal.SIGKILL)
        begun_s = time.monotonic()
        wait_for_ends(rows, DEADLINE_S)
        assert time.monotonic() - begun_s < DEADLINE_S
        assert living(mark) == set()
        it.reap()
        wait_for_ends(rows, DEADLINE_S)


# --- orphans --------------------------------------------------------------------------------------


def test_orphans_come_to_who_adopts_them_and_are_reaped_by_number() -> None:
    assert alone(adopt_and_reap)


def adopt_and_reap() -> bool:
    mark = new_mark()
    it = Grown(tree_spec(mark, "broad", 1), mark, 2)
    (orphan,) = [row for row in read_rows().values() if row.parent == it.pid]
    with Adoption():
        os.kill(it.pid, signal.SIGKILL)
        it.reap()
        assert row_of(orphan.pid).parent == os.getpid()
        reap(orphan)  # which has not ended: nothing
        assert living(mark) == {orphan.pid}
        signal_process(orphan, signal.SIGKILL)
        wait_for_ends([orphan], DEADLINE_S)
        reap(orphan._replace(started=orphan.started - 1))  # another
        assert row_of(orphan.pid).state == "Z"
        reap(orphan)
        assert read_row(orphan.pid) is None
        reap(orphan)
    assert not binding.adopt_orphans(None)
    it.close()
    return True


def test_who_came_besides_is_reaped_later() -> None:
    assert alone(reap_a_stray)


def reap_a_stray() -> bool:
    mark = new_mark()
    it = Grown(tree_spec(mark, "broad", 1), mark, 2)
    (orphan,) = [row for row in read_rows().values() if row.parent == it.pid]
    with Adoption():
        os.kill(it.pid, signal.SIGKILL)
        it.reap()
    reap_strays()  # it lives
    signal_process(orphan, signal.SIGKILL)
    wait_for_ends([orphan], DEADLINE_S)
    assert row_of(orphan.pid).state == "Z"
    reap_strays()
    assert read_row(orphan.pid) is None
    reap_strays()
    it.close()
    return True


def test_a_stray_that_others_have_reaped_is_forgotten() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        note_stray(row_of(it.pid))
        os.kill(it.pid, signal.SIGKILL)
        it.reap()
        reap_strays()
        assert not processes._adopting.strays


def test_adoptions_may_overlap_and_leave_things_as_they_were() -> None:
    assert alone(overlap) == [True, True, False, True, True]


def overlap() -> list[bool]:
    first, second = Adoption(), Adoption()
    said = []
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    said.append(binding.adopt_orphans(None))
    pid = os.fork()
    if pid == 0:
        with Adoption():  # the copy has its own count
            inside = binding.adopt_orphans(None)
        os._exit(int(inside and not binding.adopt_orphans(None)))
    said.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1)
    second.__exit__(None, None, None)
    said.append(binding.adopt_orphans(None))
    binding.adopt_orphans(True)
    with Adoption():
        said.append(binding.adopt_orphans(None))
    said.append(binding.adopt_orphans(False))
    return said
