"""A tree is found in /proc by what binds it, whole, and nobody else; stopped, signalled, killed."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import threading

import pytest
from alone import alone
from leftovers import child_pids
from support import PYTHON
from woods import Grown, grown, living, new_mark, tree_spec, wait_gone

from procreactor.kernel import processes
from procreactor.model import ProcessRow, SpawnSpec
from procreactor.transport import hunt
from procreactor.transport.hunt import Hunt
from procreactor.transport.kinship import VARIABLE

pytestmark = pytest.mark.needs("/proc")

LONG_S = 60.0
"""For kills of what does end, so that no test depends on how fast the machine is."""

TOKEN = b"a-token-of-the-tests-" + os.urandom(8).hex().encode()
"""Of this process alone: the suite may be played twice on one machine, and hunts kill."""


def with_token(spec: SpawnSpec) -> SpawnSpec:
    spec.env = (b"A=1", VARIABLE + b"=outer-1:" + TOKEN)
    return spec


# --- who is found ---------------------------------------------------------------------------------


@pytest.mark.parametrize("new_session", [False, True])
@pytest.mark.parametrize(("shape", "number", "count"), [("broad", 3, 4), ("deep", 4, 5)])
def test_descendants_are_found_and_killed(
    shape: str, number: int, count: int, new_session: bool
) -> None:
    mark = new_mark()
    spec = tree_spec(mark, shape, number)
    spec.new_session = new_session
    with grown(spec, mark, count) as tree:
        search = Hunt(tree.pid, leads=new_session)
        assert set(search.members()) == tree.living()
        assert search.kill(LONG_S)
        wait_gone(mark)
        assert search.members() == []


def test_an_orphan_is_found_by_the_session_of_one_who_has_ended_and_is_not_reaped() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "daemon"), mark, 2) as tree:
        assert set(Hunt(tree.pid).members()) == tree.living()


def test_by_the_token_all_are_found_without_the_leader() -> None:
    mark = new_mark()
    with grown(with_token(tree_spec(mark, "daemon")), mark, 2) as tree:
        assert set(Hunt(None, TOKEN).members()) == tree.living()
        assert Hunt(None, TOKEN + b"x").members() == []
        assert Hunt(None, TOKEN[:-1]).members() == []


def test_of_a_leader_that_is_gone_and_without_a_token_nobody_is_found() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 1), mark, 2) as tree:
        assert Hunt(None).members() == []
        assert len(tree.living()) == 2


def test_nobody_is_asked_who_was_made_before() -> None:
    mark = new_mark()
    with grown(with_token(tree_spec(mark, "broad", 1)), mark, 2):
        assert Hunt(None, TOKEN, since=processes.ticks_now() + 1000).members() == []


def test_a_member_that_was_seen_once_stays_one_as_an_orphan() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "deep", 2), mark, 3) as tree:
        search = Hunt(tree.pid)
        before = set(search.members())
        (middle,) = [row.pid for row in processes.read_rows().values() if row.parent == tree.pid]
        os.kill(middle, signal.SIGKILL)
        while middle in tree.living():
            os.sched_yield()
        assert set(search.members()) == before - {middle}


def test_a_child_of_one_whose_number_was_given_again_is_nobodys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table has the old owner; when it is asked again, the number is another's."""
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 1), mark, 2) as tree:
        search, really_read = Hunt(tree.pid), processes.read_row

        def read(pid: int) -> ProcessRow | None:
            row = really_read(pid)
            return row._replace(started=row.started + 9) if row and pid == tree.pid else row

        rows = {**processes.read_rows(), tree.pid: really_read(tree.pid)}
        with monkeypatch.context() as patch:
            patch.setattr(processes, "read_rows", lambda: dict(rows))
            patch.setattr(processes, "read_row", read)
            assert search.members() == [tree.pid]


def test_a_leader_that_is_no_more_leads_nowhere() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as tree:
        pid = tree.pid
        os.kill(pid, signal.SIGKILL)
        tree.reap()
        assert Hunt(pid).members() == []
        assert Hunt(pid).signal(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_that_is_no_child_of_ours_is_no_leader(number: int) -> None:
    """As who was given the number of a child that others have reaped."""
    mark = new_mark()
    with grown(tree_spec(mark, "bare"), mark, 2) as tree:
        (stranger,) = tree.living() - {tree.pid}
        assert os.getpgid(stranger) == stranger
        search = Hunt(stranger, leads=True)
        if number == signal.SIGKILL:
            assert search.kill(LONG_S)
        else:
            assert search.signal(number) == 0
        assert stranger in tree.living()


def test_this_process_is_never_found() -> None:
    """Though it has the token in its own environment, as a command of ours that runs commands."""
    code = f"from procreactor.transport.hunt import Hunt; print(Hunt(None, {TOKEN!r}).members())"
    said = subprocess.run(
        [PYTHON, "-c", code],
        env={**os.environ, VARIABLE.decode(): f"outer-1:{TOKEN.decode()}"},
        capture_output=True,
        check=True,
    )
    assert said.stdout == b"[]\n"


# --- signals and kills ----------------------------------------------------------------------------


def test_a_signal_is_for_each_of_them() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 2), mark, 3) as tree:
        assert Hunt(tree.pid).signal(signal.SIGTERM) == 3
        wait_gone(mark)


def test_after_a_bounded_number_of_looks_a_signal_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a storm of forks are new each time: it ends all the same."""
    monkeypatch.setattr(hunt, "_ROUNDS", 2)
    mark = new_mark()
    with grown(tree_spec(mark, "storm", 2), mark, 3) as tree:
        assert Hunt(tree.pid).signal(0) >= 1


@pytest.mark.parametrize(
    "shape",
    [
        *("broad", "deep", "deaf", "still", "daemon"),
        pytest.param("headless", marks=pytest.mark.needs("threads")),
    ],
)
def test_of_a_killed_tree_the_leader_alone_is_left_to_be_reaped(shape: str) -> None:
    assert alone(kill_and_look, shape) == {"killed": True, "children": 1, "alive": 0, "left": 0}


def kill_and_look(shape: str) -> dict[str, int]:
    """In a process of its own, whose orphans are its own too."""
    mark = new_mark()
    tree = Grown(with_token(tree_spec(mark, shape)), mark, 2)
    rows = [row for row in map(processes.read_row, living(mark)) if row is not None]
    search = Hunt(tree.pid, TOKEN)
    others = set(search.members()) - {tree.pid}
    found = {
        "killed": search.kill(LONG_S),
        "children": len(child_pids()),
        "alive": len(living(mark)),
        "left": sum(processes.read_row(row.pid) == row for row in rows if row.pid in others),
    }
    tree.close()
    return found


def test_what_does_not_end_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 1), mark, 2) as tree:
        with monkeypatch.context() as patch:
            patch.setattr(processes, "signal_process", lambda row, number: True)
            patch.setattr(processes, "wait_for_ends", lambda rows, timeout_s: None)
            assert not Hunt(tree.pid).kill(0.01)
        assert len(tree.living()) == 2
        assert Hunt(tree.pid).kill(LONG_S)


def test_what_may_not_be_killed_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait a minute else."""

    def refuse(row: object, number: int) -> bool:
        raise PermissionError(1, "refused")

    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as tree:
        with monkeypatch.context() as patch:
            patch.setattr(processes, "signal_process", refuse)
            assert not Hunt(tree.pid).kill(LONG_S)
            with pytest.raises(PermissionError):
                Hunt(tree.pid).signal(signal.SIGTERM)
        assert Hunt(tree.pid).kill(LONG_S)


def test_without_proc_the_leaders_group_is_killed_and_nobody_says_that_all_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> dict[int, ProcessRow]:
        raise FileNotFoundError(2, "no /proc")

    mark = new_mark()
    spec = tree_spec(mark, "broad", 2)
    spec.new_session = True
    with grown(spec, mark, 3) as tree:
        monkeypatch.setattr(processes, "read_rows", refuse)
        monkeypatch.setattr(processes, "read_row", lambda pid: None)
        with pytest.raises(FileNotFoundError):
            Hunt(tree.pid, leads=True).members()
        assert Hunt(tree.pid, leads=True).signal(0) == 1
        assert not Hunt(None, leads=True).kill(LONG_S)
        assert len(tree.living()) == 3
        assert not Hunt(tree.pid, leads=True).kill(LONG_S)
        wait_gone(mark)
        monkeypatch.undo()


# --- without an fd to look ------------------------------------------------------------------------


def take_all_fds() -> list[int]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    taken: list[int] = []
    while True:
        try:
            taken.append(os.dup(0))
        except OSError:
            return taken


def give_back(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def kill_without_an_fd(begins_with_fds: bool) -> int | None:
    mark = new_mark()
    spec = tree_spec(mark, "broad", 2)
    spec.new_session = True
    refusal = None
    with grown(spec, mark, 3) as tree:
        search = Hunt(tree.pid, leads=True) if begins_with_fds else None
        taken = take_all_fds()
        try:
            (search or Hunt(tree.pid)).kill(0.1)
        except OSError as error:
            refusal = error.errno
        give_back(taken)
        wait_gone(mark)
    return refusal


@pytest.mark.needs("file limits")
@pytest.mark.parametrize("begins_with_fds", [False, True])
def test_without_an_fd_to_look_the_leaders_group_is_killed_and_the_rest_is_told(
    begins_with_fds: bool,
) -> None:
    assert alone(kill_without_an_fd, begins_with_fds) == errno.EMFILE


def kill_with_fds_to_come(begins_with_fds: bool) -> bool:
    mark = new_mark()
    spec = tree_spec(mark, "deep", 3)
    spec.new_session = True
    with grown(spec, mark, 4) as tree:
        search = Hunt(tree.pid, leads=True) if begins_with_fds else None
        taken = take_all_fds()
        threading.Timer(0.05, give_back, [taken]).start()
        killed = (search or Hunt(tree.pid)).kill(LONG_S)
        wait_gone(mark)
    return killed


@pytest.mark.needs("file limits")
@pytest.mark.parametrize("begins_with_fds", [False, True])
def test_a_kill_waits_for_an_fd_to_look(begins_with_fds: bool) -> None:
    assert alone(kill_with_fds_to_come, begins_with_fds) is True
