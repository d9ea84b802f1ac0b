"""What is read of the machine is what the machine says elsewhere."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import pytest
from alone import alone

from procreactor.kernel import children, facts
from procreactor.kernel.facts import Limit, read_facts

MOUNTINFO = """\
24 30 0:22 / /proc rw,nosuid - proc proc rw
31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 25 0:28 / {directory} rw,relatime shared:9 - cgroup2 cgroup2 rw
"""


@pytest.mark.needs("/proc")
def test_facts_are_those_of_this_process() -> None:
    found = read_facts()
    assert (found.kernel, found.machine) == (platform.release(), os.uname().machine)
    assert found.uid == os.geteuid()
    assert found.used == children.in_use()
    assert found.open_files == Limit(*resource.getrlimit(resource.RLIMIT_NOFILE))
    assert found.processes == Limit(*resource.getrlimit(resource.RLIMIT_NPROC))
    assert found.most_pids == int(Path("/proc/sys/kernel/pid_max").read_text())
    assert found.pipe_pages == int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())


def disabled_and_used() -> list[list[str]]:
    found = read_facts()
    return [sorted(found.disabled), sorted(found.used)]


def test_what_is_disabled_is_told_and_not_used() -> None:
    disabled, used = alone(disabled_and_used, disable="pidfd, helper")
    assert set(disabled) == {"helper", "pidfd", *read_facts().disabled}
    assert not {"helper", "pidfd"} & set(used)


def test_a_soft_limit_is_told_apart_from_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, before[1]))
    try:
        assert read_facts().open_files == Limit(1000, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert facts._read_number(tmp_path / "missing") is None
    (tmp_path / "max").write_text("max\n")
    assert facts._read_number(tmp_path / "max") is None


@pytest.mark.parametrize("name", ["/", "/a/b"])
def test_the_cgroup_is_found_where_version_2_is_mounted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "unified" / name.lstrip("/")
    directory.mkdir(parents=True)
    (directory / "cgroup.controllers").write_text("memory pids\n")
    (directory / "pids.max").write_text("77\n")
    texts = {
        "/proc/self/mountinfo": MOUNTINFO.format(directory=tmp_path / "unified"),
        "/proc/self/cgroup": f"4:memory:/other\n0::{name}\n",
    }
    really_read = facts._read
    monkeypatch.setattr(facts, "_read", lambda path: texts.get(str(path)) or really_read(path))
    found = facts._read_cgroup()
    assert found is not None
    assert found.directory == str(directory)
    assert (found.controllers, found.most_pids) == (("memory", "pids"), 77)
    assert found.can_make_children


def test_without_version_2_there_is_no_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_read", lambda path: None)
    assert facts._read_cgroup() is None
