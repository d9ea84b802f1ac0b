"""Groups of processes: found, made, killed, looked at, and removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from held import wait_for
from support import DEADLINE_S, PROC
from woods import Grown, grown, homes, new_mark, tree_spec, wait_gone

from procreactor.kernel import cgroups, processes
from procreactor.kernel.cgroups import Cgroup, Home, find_directory

needs_cgroup = pytest.mark.needs("cgroup")

MOUNTS = (
    "30 25 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n"
    "31 25 0:27 /a /mnt/with\\040blank rw - cgroup2 none rw\n"
)


@pytest.mark.parametrize(
    ("mounts", "own", "found"),
    [
        (MOUNTS, "4:memory:/x\n0::/b/c\n", "/sys/fs/cgroup/unified/b/c"),
        (MOUNTS.splitlines()[1], "0::/a/b\n", "/mnt/with blank/b"),
        (MOUNTS.splitlines()[1], "0::/elsewhere\n", None),
        ("22 1 0:20 / /proc rw - proc proc rw\n", "0::/\n", None),
        (MOUNTS, "4:memory:/x\n", None),
    ],
)
def test_the_own_group_is_found_where_it_is_mounted(
    mounts: str, own: str, found: str | None
) -> None:
    assert find_directory(mounts, own) == found


@pytest.fixture
def home() -> Iterator[Home]:
    made = cgroups.open_home()
    try:
        yield made
    finally:
        for path in made.groups():
            assert cgroups.remove(path)
        assert made.close()
        assert homes() == []


@pytest.fixture
def group(home: Home) -> Iterator[Cgroup]:
    made = home.new_group()
    yield made
    made.close()


@needs_cgroup
def test_what_has_the_name_of_a_group_that_was_removed_is_not_looked_at(home: Home) -> None:
    group = home.new_group()
    assert cgroups.remove(group.path)
    assert (group.members(), group.signal(signal.SIGTERM)) == ([], {})
    os.mkdir(group.path)
    mark = new_mark()
    spec = tree_spec(mark, "broad", 1)
    other = Cgroup(group.path)
    spec.cgroup_fd = other.fd
    with grown(spec, mark, 2) as it:
        assert set(other.members()) == it.living()
        assert group.members() == []
        assert group.kill(0.1)
        assert len(it.living()) == 2
    group.close()
    other.close()


def born_into(group: Cgroup, mark: str, shape: str, processes: int) -> Iterator[Grown]:
    spec = tree_spec(mark, shape)
    spec.cgroup_fd = group.fd
    with grown(spec, mark, processes) as tree:
        yield tree


def test_what_cannot_be_tidied_up_keeps_nothing_else_from_it(tmp_path: Path) -> None:
    left = [tmp_path / f"{cgroups._PREFIX}{name}" for name in ("first", "second")]
    for home in left:
        (home / "1").mkdir(parents=True)
    other = tmp_path / f"{cgroups._PREFIX}no-directory"
    other.touch()
    cgroups._tidy(os.fspath(tmp_path))  # warns of no listing that was left open
    assert list(tmp_path.iterdir()) == [other]


@needs_cgroup
def test_a_new_group_is_empty(group: Cgroup) -> None:
    assert not group.is_populated()
    assert group.members() == []
    assert group.wait_empty(0)
    assert Path(group.path).is_dir()


@needs_cgroup
def test_who_is_born_into_a_group_is_in_it_until_he_is_killed(group: Cgroup) -> None:
    mark = new_mark()
    for tree in born_into(group, mark, "broad", 2):
        assert group.is_populated()
        assert set(group.members()) == tree.living()
        assert not group.wait_empty(0)
        assert not cgroups.remove(group.path)
        assert group.kill(DEADLINE_S)
        wait_gone(mark)
        assert not group.is_populated()  # though nobody has reaped the leader


@needs_cgroup
def test_a_signal_for_a_group_is_for_each_of_it(group: Cgroup) -> None:
    mark = new_mark()
    for tree in born_into(group, mark, "broad", 2):
        before = tree.living()
        rows = [row for row in map(processes.read_row, before) if row is not None]
        assert len(rows) == 2
        assert group.signal(signal.SIGKILL) == {row.pid: row.started for row in rows}
        assert group.wait_empty(DEADLINE_S)


@needs_cgroup
def test_a_parent_is_signalled_before_its_children(home: Home) -> None:
    """Whatever their numbers are: a set has small ones in an order that depends on them."""
    for _ in range(16):
        group = home.new_group()
        mark = new_mark()
        spec = tree_spec(mark, "broad", 2)
        spec.cgroup_fd = group.fd
        with grown(spec, mark, 3) as tree:
            assert next(iter(group.signal(signal.SIGKILL))) == tree.pid
            assert group.wait_empty(DEADLINE_S)
        group.close()


@needs_cgroup
def test_a_group_in_which_something_was_left_is_not_as_new(home: Home, group: Cgroup) -> None:
    assert group.is_as_new()
    Path(group.path, "cgroup.freeze").write_text("1")
    wait_for(lambda: not group.is_as_new())
    Path(group.path, "cgroup.freeze").write_text("0")
    wait_for(group.is_as_new)
    Path(group.path, "below").mkdir()
    assert not group.is_as_new()
    Path(group.path, "below").rmdir()
    assert group.is_as_new()
    Path(group.path).rmdir()
    assert not group.is_as_new()
    assert not group.is_populated()


@needs_cgroup
def test_who_is_moved_out_of_a_group_lives_on(home: Home, group: Cgroup) -> None:
    for tree in born_into(group, new_mark(), "broad", 2):
        living = tree.living()
        assert group.evacuate(home.own, DEADLINE_S)
        assert group.members() == []
        assert tree.living() == living


@needs_cgroup
def test_a_group_that_is_closed_keeps_no_fd(home: Home) -> None:
    before = set(os.listdir(f"{PROC}/self/fd"))
    made = home.new_group()
    made.close()
    made.close()
    assert set(os.listdir(f"{PROC}/self/fd")) == before


@needs_cgroup
def test_those_who_live_deeper_than_a_path_can_say_are_found(group: Cgroup) -> None:
    """20 groups in each other, with long names, each made from where the last one is."""
    name = "n" * 250
    folders = [group.fd]
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        try:
            for _ in range(20):
                os.mkdir(name, dir_fd=folders[-1])
                folders.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folders[-1]))
            with open("cgroup.procs", "w", opener=partial(os.open, dir_fd=folders[-1])) as procs:
                procs.write(str(sleeper.pid))
            assert group.members() == [sleeper.pid]
            assert group.signal(signal.SIGKILL).keys() == {sleeper.pid}
        finally:
            sleeper.kill()
            sleeper.wait()
            while len(folders) > 1:
                os.close(folders.pop())
                os.rmdir(name, dir_fd=folders[-1])


@needs_cgroup
def test_groups_too_deep_to_look_into_are_refused_and_no_fd_is_left(group: Cgroup) -> None:
    depth, limit = 220, sys.getrecursionlimit()
    for level in range(1, depth + 1):
        os.mkdir(group.path + "/n" * level)
    before = set(os.listdir(f"{PROC}/self/fd"))
    sys.setrecursionlimit(200)
    try:
        with pytest.raises(OSError, match="too many groups in each other"):
            group.members()
    finally:
        sys.setrecursionlimit(limit)
        for level in range(depth, 0, -1):
            os.rmdir(group.path + "/n" * level)
    assert set(os.listdir(f"{PROC}/self/fd")) == before
