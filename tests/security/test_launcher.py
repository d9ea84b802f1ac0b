"""The launcher by itself: it gives nobody a right, and the package can do without it.

It lies in the package, executable for all, and is trusted as the package's other files are: who may
write to it may as well write to the modules that root imports. So its mode is not looked at.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs_build import build_program
from security.spawned import STRANGER, needs_root, public_folder, standing_of
from support import PYTHON

import procreactor

PACKAGE = Path(procreactor.__file__).parent
LAUNCHER = PACKAGE / "_launch"

needs_launcher = pytest.mark.skipif(not LAUNCHER.exists(), reason="built without a launcher")

REFUSED, FAILED, RAN = 2, 127, 7

UNTOLD = 255
"""Of the program that is run, where the words that are left for it do not say how to end."""


@needs_launcher
def test_the_launcher_has_no_rights_of_its_own() -> None:
    facts = LAUNCHER.stat()
    assert stat.S_ISREG(facts.st_mode)
    assert not facts.st_mode & (stat.S_ISUID | stat.S_ISGID)
    with pytest.raises(OSError) as caught:
        os.getxattr(LAUNCHER, "security.capability")
    assert caught.value.errno in (errno.ENODATA, errno.ENOTSUP)


# --- run by strangers -----------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(0, 12).map(str),
    st.sampled_from([str(1 << bits) for bits in (31, 32, 63, 64, 65, 200)]),
    st.sampled_from([str((1 << bits) - 1) for bits in (31, 32, 63, 64)]),
)
# No slash: from an empty directory no such name is a program.
WORDS = st.one_of(
    NUMBERS,
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["", "-1", "+1", " 1", "0x7", "9" * 5000, "PROGRAM", "/no/such/program"]),
)
ARGUMENTS = st.one_of(
    st.lists(WORDS, max_size=30),
    st.lists(NUMBERS, min_size=9, max_size=40),
    # So that it gets further: nine numbers that may be meant, groups and a program.
    st.builds(
        lambda fixed, groups, rest: [*fixed, str(len(groups)), "1", *groups, "PROGRAM", *rest],
        st.tuples(st.sampled_from(["1", "2", "9"]), *[NUMBERS] * 2, *[st.just("0")] * 4),
        st.lists(NUMBERS, max_size=8),
        st.just(["end", "exit", str(RAN)]),
    ),
)
OPEN_FDS = st.sets(st.sampled_from([0, 1, 2]))


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A directory that any user may enter, with the launcher, a program, and an empty directory."""
    with public_folder() as path:
        shutil.copy(LAUNCHER, path / "launch")
        shutil.copy(build_program("end"), path / "end")
        (path / "empty").mkdir()
        yield path


def code_of(public: Path, words: list[str], fds: set[int], uid: int | None) -> int:
    """Run the launcher with *words*, as *uid* if it is given; its exit code, or minus a signal."""
    path = str(public / "launch")
    argv = ["launch", *(str(public / "end") if word == "PROGRAM" else word for word in words)]
    null = os.open("/dev/null", os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(public / "empty")
            for fd in range(3):
                os.close(fd) if fd not in fds else os.dup2(null, fd)
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os.execve(path, argv, {})
        finally:
            os._exit(99)
    os.close(null)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_launcher
@pytest.mark.parametrize(
    "uid", [None, pytest.param(STRANGER, marks=needs_root)], ids=["as we are", "as a stranger"]
)
def test_whatever_it_is_run_with_the_launcher_ends_by_itself(uid: int | None, public: Path) -> None:
    """150 times for each user, with an empty environment and some of the standard fds closed."""
    codes = set()
    by_the_program = {RAN, UNTOLD}

    @settings(max_examples=150, deadline=None, database=None)
    @given(ARGUMENTS, OPEN_FDS)
    @example(["0"] * 8 + ["1", "PROGRAM", "0"], {0})
    def check(words: list[str], fds: set[int]) -> None:
        code = code_of(public, words, fds, uid)
        assert code in {REFUSED, FAILED} | by_the_program, code
        codes.add(code)

    check()
    assert {REFUSED, FAILED} <= codes
    if os.geteuid() != 0 or uid is not None:
        assert not codes & by_the_program, "who may not change groups gets no further"


@needs_launcher
def test_a_huge_number_of_arguments_ends_it_by_itself(public: Path) -> None:
    for count in (1000, 50_000):
        groups = [str(count)] * count
        words = [
            "2",
            "1",
            "1",
            "0",
            "0",
            "0",
            "0",
            str(count),
            "1",
            *groups,
            "/no/such/program",
            "x",
        ]
        assert code_of(public, words, {2}, None) == FAILED
        assert code_of(public, words[:-2], {2}, None) == REFUSED


@needs_launcher
@needs_root
def test_a_stranger_who_runs_the_launcher_becomes_nobody_else(public: Path) -> None:
    """Neither root, nor another, nor himself: he may not even set his groups."""
    for uid in (0, STRANGER, STRANGER + 1):
        words = [
            "2",
            str(uid),
            str(uid),
            "0",
            "0",
            "0",
            "0",
            "0",
            "1",
            "PROGRAM",
            "end",
            "exit",
            "7",
        ]
        assert code_of(public, words, {2}, STRANGER) == FAILED
        assert code_of(public, words, {2}, None) == RAN, "the same words, by root"


# --- a package without it -------------------------------------------------------------------------

SPAWN_TWICE = """
import json, os, pathlib, sys
import procreactor
from procreactor.internet import reactor, protocol

_, program, uid, launcher, delete = sys.argv
assert pathlib.Path(launcher).parent == pathlib.Path(procreactor.__file__).parent
if delete:
    os.unlink(launcher)
said = []

class Reader(protocol.ProcessProtocol):
    data = b""

    def outReceived(self, data):
        self.data += data

    def processEnded(self, reason):
        said.append([sorted(self.transport._child.mode), self.data.decode()])
        reactor.stop() if len(said) == 2 else start()

def start():
    reactor.spawnProcess(Reader(), program, uid=int(uid), gid=int(uid))

start()
reactor.run()
print(json.dumps(said))
"""


def leave(launcher: Path) -> None:
    pass


def delete(launcher: Path) -> None:
    launcher.unlink()


def forbid(launcher: Path) -> None:
    launcher.chmod(0o644)


def truncate(launcher: Path) -> None:
    os.truncate(launcher, 100)


def make_it_a_text(launcher: Path) -> None:
    launcher.write_text("exit 0\n")


def open_to_all(launcher: Path) -> None:
    launcher.chmod(0o777)


SPOILED: dict[str, tuple[Callable[[Path], None], bool]] = {
    "as it is": (leave, True),
    "deleted": (delete, False),
    "deleted after the import": (leave, False),
    "not executable": (forbid, False),
    "cut off": (truncate, False),
    "a text": (make_it_a_text, False),
    "open to all": (open_to_all, True),
}


@needs_launcher
@needs_root
@pytest.mark.parametrize("how", SPOILED)
def test_a_package_without_its_launcher_forks_and_one_that_is_open_to_all_is_used(
    how: str, tmp_path: Path
) -> None:
    spoil, is_used = SPOILED[how]
    copy = tmp_path / "procreactor"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    spoil(copy / "_launch")
    words = [build_program("standing"), str(STRANGER), str(copy / "_launch")]
    words.append("x" if how == "deleted after the import" else "")
    done = subprocess.run(
        [PYTHON, "-B", "-P", "-c", SPAWN_TWICE, *words],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    for mode, text in json.loads(done.stdout):
        assert ("helper" in mode) == is_used
        assert standing_of(text.encode())["Uid"].split() == [str(STRANGER)] * 4
