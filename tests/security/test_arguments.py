"""What is passed on to a child: what was given, all of it, and nothing else.

That a NUL, an empty name and a "=" in one are refused before any system call, that arguments arrive
byte for byte, and what a search of PATH finds, is shown in tests/pitfalls/test_exec_pitfalls.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from programs_build import build_program
from security.spawned import STRANGER, batch_spec, needs_root
from support import LACKS, make_reactor, run_until, spawn_and_finish

from procreactor.apps.batch import plan_command, run_batch
from procreactor.errors import SpawnError
from procreactor.internet import utils

PRELOADS = {"LD_PRELOAD": "/no/such.so", "LD_LIBRARY_PATH": "/no/such", "IFS": "x", "ENV": "/x"}


def words_of(said: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the arguments and the environment that the program words was given."""
    count, *words = said.split(b"\0")[:-1]
    return words[: int(count)], words[int(count) :]


def outputs(env: Any, uid: int | None) -> Iterator[bytes]:
    """What the program words says, started by each engine and by a helper of utils."""
    program = build_program("words")
    with make_reactor() as reactor:
        yield spawn_and_finish(reactor, program, ["zero"], env=env, uid=uid, gid=uid).out
        found: list[bytes] = []
        utils.getProcessOutput(program, env=env, reactor=reactor).addCallback(found.append)
        run_until(reactor, lambda: found)
        yield from found
    (outcome,) = run_batch([plan_command([program], env=env)], at_once=1)
    yield outcome.stdout


@pytest.mark.parametrize("uid", [None, pytest.param(STRANGER, marks=needs_root)])
def test_an_empty_environment_is_empty(uid: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the parent's, and nothing that is added."""
    monkeypatch.setenv("SECRET", "of the parent")
    for said in outputs({}, uid):
        assert words_of(said)[1] == []


@pytest.mark.parametrize("uid", [None, pytest.param(STRANGER, marks=needs_root)])
def test_no_variable_is_treated_specially(uid: int | None) -> None:
    """Whoever passes on LD_PRELOAD, even to another user, has passed it on."""
    for said in outputs(PRELOADS, uid):
        assert words_of(said)[1] == [os.fsencode(f"{name}={PRELOADS[name]}") for name in PRELOADS]


def test_an_environment_that_is_not_given_is_the_parents_in_a_batch_and_with_None() -> None:
    def told(rows: list[bytes]) -> list[bytes]:
        if "LD_PRELOAD" in LACKS:
            return [row for row in rows if not row.startswith(b"LD_PRELOAD=")]
        return rows

    ours = [b"=".join(row) for row in os.environb.items()]
    for said in outputs(None, None):
        assert told(words_of(said)[1]) == told(ours)


# --- too much -------------------------------------------------------------------------------------

ONE_TOO_LONG = "x" * (1 << 17)
"""MAX_ARG_STRLEN of the kernel, without the NUL."""


def refusals_of(too_much: str, uid: int | None) -> list[Any]:
    program, found = build_program("words"), []
    argument = {"argument": ["zero", ONE_TOO_LONG], "all": ["zero", *["x" * 1000] * 9000]}
    args = argument.get(too_much, ["zero"])
    env = {"variable": {"x": ONE_TOO_LONG}, "name": {ONE_TOO_LONG: "x"}}.get(too_much, {})
    with make_reactor() as reactor:
        try:
            reactor.spawnProcess(None, program, args, env=env, childFDs={}, uid=uid, gid=uid)
        except SpawnError as error:
            found.append([error.stage, error.errno, error.filename])
    command = plan_command([program, *args[1:]], env=env)
    (outcome,) = run_batch([command], at_once=1)
    if outcome.error is not None:
        found.append([outcome.error.stage, outcome.error.errno, outcome.error.filename])
    return [program, found]


@pytest.mark.needs("refusals of execve")
@pytest.mark.parametrize("uid", [None, pytest.param(STRANGER, marks=needs_root)])
@pytest.mark.parametrize("too_much", ["argument", "all", "variable", "name"])
def test_more_than_the_kernel_takes_is_told_as_such_and_starts_nothing(
    too_much: str, uid: int | None
) -> None:
    program, found = refusals_of(too_much, uid)
    assert found == [["exec", errno.E2BIG, program]] * 2


def arguments_of(size: int) -> list[str]:
    """So many bytes of arguments, none of which is too long by itself."""
    return ["zero", *["x" * 99_999] * (size // 100_000), "x" * (size % 100_000)]


def what_comes_of_the_most(program: str, uid: int) -> list[Any]:
    """What comes of the most that a child of ours can have, and of a little less and more."""
    fits, too_much = 100_000, os.sysconf("SC_ARG_MAX")
    with make_reactor() as reactor:

        def come_of(size: int, **ids: int) -> int:
            args = arguments_of(size)
            try:
                child = spawn_and_finish(reactor, program, args, **ids)
            except SpawnError as error:
                return -(error.errno or 0)
            return len(words_of(child.out)[0]) - len(args)

        while too_much - fits > 1:
            size = (fits + too_much) // 2
            fits, too_much = (size, too_much) if come_of(size) == 0 else (fits, size)
        sizes = (fits - 1000, fits - 50, fits, too_much)
        return [come_of(size, uid=uid, gid=uid) for size in sizes]


@needs_root
def test_what_just_fits_fits_for_another_user_too() -> None:
    """The launcher has some words more than the program, and gives way to a fork."""
    found = alone(what_comes_of_the_most, build_program("words"), STRANGER)
    assert found == [0, 0, 0, -errno.E2BIG]


# --- names ----------------------------------------------------------------------------------------


def test_the_first_argument_need_not_be_the_name_of_the_program() -> None:
    program = build_program("words")
    with make_reactor() as reactor:
        child = spawn_and_finish(reactor, program, ["/bin/another", "one"])
    assert words_of(child.out)[0] == [b"/bin/another", b"one"]


def test_a_path_with_an_empty_element_finds_what_lies_in_the_childs_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As execvp(3) does; who does not want that passes on a PATH without one."""
    (tmp_path / "tool").symlink_to(build_program("words"))
    monkeypatch.chdir("/")
    with make_reactor() as reactor:
        for path in ("", ":/no/such", "/no/such:", "/no/such::/nor/this"):
            child = spawn_and_finish(reactor, "tool", env={"PATH": path}, path=str(tmp_path))
            assert words_of(child.out)[0] == [b"tool"], path
            with pytest.raises(SpawnError):
                reactor.spawnProcess(None, "tool", env={"PATH": path}, childFDs={})
        env = {"PATH": "/no/such"}
        with pytest.raises(SpawnError):
            reactor.spawnProcess(None, "tool", env=env, path=str(tmp_path), childFDs={})
    spec = batch_spec(["tool"], None, cwd=os.fsencode(tmp_path))
    (outcome,) = run_batch([spec], at_once=1)
    assert outcome.error is not None, "no empty element in the PATH of the parent"
