"""What spawnProcess takes and refuses, argument by argument, and what a refusal leaves: nothing."""

from __future__ import annotations

import inspect
import os
import resource
import sys
import tempfile
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from contracts.recording import CAT, SH, attempt, describe, recording, spawn
from contracts.scenario import Record, each, happens, scenario, turns, until
from contracts.world import World

ECHO = "/bin/echo"
ENV = "/usr/bin/env"


def write_program(path: Path, script: str, mode: int = 0o755) -> Path:
    path.write_text(script)
    path.chmod(mode)
    return path


# -- the signature ---------------------------------------------------------------------------------


@scenario
async def all_arguments_may_be_positional(world: World) -> Record:
    argv = [SH, "-c", "pwd; echo $GREETING"]
    return await attempt(
        world, SH, argv, {"GREETING": "hello"}, "/", None, None, False, {1: "r", 2: "r"}
    )


@scenario
async def all_arguments_have_names(world: World) -> Record:
    return await attempt(
        world,
        executable=SH,
        args=[SH, "-c", "pwd; echo $GREETING"],
        env={"GREETING": "hello"},
        path="/",
        uid=None,
        gid=None,
        usePTY=False,
        childFDs={1: "r", 2: "r"},
    )


@scenario
def the_parameters_have_the_same_names_order_and_defaults(world: World) -> Record:
    parameters = inspect.signature(world.reactor.spawnProcess).parameters.values()
    return {
        "parameters": [(p.name, repr(p.default)) for p in parameters if p.kind != p.VAR_KEYWORD]
    }


@each({"unknown": {"colour": 1}, "umask": {"umask": 0o77}})
async def a_further_keyword(world: World, extra: dict[str, Any]) -> Record:
    return await attempt(world, SH, [SH, "-c", "umask"], {}, **extra)


# -- executable ------------------------------------------------------------------------------------


@each(
    {
        "str": ECHO,
        "bytes": b"/bin/echo",
        "path object": Path(ECHO),
        "None": None,
        "int": 7,
        "with NUL": "/bin/ec\0ho",
        "empty": "",
        "lone surrogate": "/bin/\ud800",
        "not there": "/nowhere/at/all",
        "directory": "/",
        "below a file": "/etc/passwd/sh",
        "name in no PATH": "no-such-program-anywhere",
        "name too long": "/" + "x" * 300,
    }
)
async def executable(world: World, executable: object) -> Record:
    return await attempt(world, executable, ["echo", "hi"])


@scenario
async def an_executable_name_that_is_not_utf8(world: World) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        name = os.fsencode(folder) + b"/caf\xe9"
        write_program(Path(os.fsdecode(name)), "#!/bin/sh\necho served\n")
        as_bytes = await attempt(world, name, [name])
        as_str = await attempt(world, os.fsdecode(name), [os.fsdecode(name)])
    return {"bytes": as_bytes["result"], "str": as_str["result"]}


@each(
    {
        "without x": ("#!/bin/sh\necho ran\n", 0o644),
        "no shebang": ("echo ran\n", 0o755),
        "empty file": ("", 0o755),
        "interpreter missing": ("#!/nowhere/sh\n", 0o755),
    }
)
async def a_file_that_cannot_run(world: World, case: tuple[str, int]) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        file = str(write_program(Path(folder, "program"), *case))
        return await attempt(world, file, [file])


@scenario
async def arguments_that_are_too_long_together(world: World) -> Record:
    return await attempt(world, ECHO, [ECHO, "x" * (1 << 22)])


# -- PATH ------------------------------------------------------------------------------------------


@each(
    {
        "in the PATH of both": ("parent", "parent"),
        "in the child's PATH only": ("/nowhere", "child"),
        "in the parent's PATH only": ("parent", "/nowhere"),
        "in two PATHs": ("parent", "child"),
        "with no PATH for the child": ("parent", None),
        "after a folder that has it not": ("empty:parent", "empty:parent"),
        "after a folder that has one without x": ("plain:parent", "plain:parent"),
    }
)
async def a_bare_name(world: World, case: tuple[str, str | None]) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("parent", "child", "empty", "plain"):
            Path(folder, name).mkdir()
        for name in ("parent", "child"):
            write_program(Path(folder, name, "who"), f"#!/bin/sh\necho {name}\n")
        write_program(Path(folder, "plain", "who"), "#!/bin/sh\necho plain\n", 0o644)
        parents, childs = (path and _within(folder, path) for path in case)
        os.environ["PATH"] = str(parents)
        return await attempt(world, "who", ["who"], {"PATH": childs} if childs else {})


def _within(folder: str, path: str) -> str:
    return ":".join(f"{folder}/{name}" for name in path.split(":"))


# -- args ------------------------------------------------------------------------------------------


@each(
    {
        "list": ["echo", "a", "b"],
        "tuple": ("echo", "a", "b"),
        "bytes": [b"echo", b"a"],
        "path object": [Path("echo"), Path("a")],
        "mixed": ["echo", b"a", Path("b")],
        "not utf8": [b"echo", b"\xff\xfe"],
        "an empty argument": ["echo", "", "b"],
        "str": "echo",
        "generator": (word for word in ("echo", "a")),
        "None": None,
        "int item": ["echo", 1],
        "None item": ["echo", None],
        "NUL": ["echo", "a\0b"],
        "lone surrogate": ["echo", "\ud800"],
        "empty list": [],
        "empty first": ["", "a"],
    }
)
async def args(world: World, args: object) -> Record:
    return await attempt(world, ECHO, args)


@scenario
async def args_may_be_left_out(world: World) -> Record:
    return await attempt(world, ECHO)


@scenario
async def the_first_of_args_is_the_name_and_not_the_program(world: World) -> Record:
    return await attempt(world, SH, ["another name", "-c", "echo $0 $1", "zero", "one"])


# -- env -------------------------------------------------------------------------------------------


@each(
    {
        "empty": {},
        "None": None,
        "str": {"A": "1"},
        "bytes": {b"A": b"1"},
        "mixed": {"A": b"1", b"B": "2"},
        "not utf8": {b"A": b"\xff"},
        "empty value": {"A": ""},
        "path value": {"A": Path("/tmp")},
        "mapping proxy": MappingProxyType({"A": "1"}),
        "ChainMap": ChainMap({"A": "1"}, {"A": "2", "B": "3"}),
        "list of pairs": [("A", "1")],
        "int": 7,
        "int value": {"A": 1},
        "int name": {1: "A"},
        "NUL in a name": {"A\0B": "1"},
        "NUL in a value": {"A": "1\0"},
        "= in a name": {"A=B": "1"},
        "empty name": {"": "1"},
    }
)
async def env(world: World, env: Mapping[Any, Any] | None) -> Record:
    os.environ.clear()
    os.environ["INHERITED"] = "yes"
    return await attempt(world, ENV, [ENV], env)


@scenario
async def env_left_out_is_empty(world: World) -> Record:
    return await attempt(world, ENV, [ENV])


@scenario
async def an_inherited_env_is_that_of_the_moment(world: World) -> Record:
    os.environ.clear()
    os.environ["SET_LATE"] = "yes"
    return await attempt(world, ENV, [ENV], None)


# -- path ------------------------------------------------------------------------------------------


@each(
    {
        "None": None,
        "empty": "",
        "dot": ".",
        "the same": "/usr",
        "str": "/etc",
        "bytes": b"/etc",
        "path object": Path("/etc"),
        "relative": "../etc",
        "int": 7,
        "NUL": "/etc\0",
        "not there": "/nowhere",
        "no directory": "/etc/passwd",
    }
)
async def path(world: World, path: object) -> Record:
    os.chdir("/usr")
    return await attempt(world, SH, [SH, "-c", "pwd -P"], {}, path)


@scenario
async def a_relative_executable_with_a_slash_is_resolved_after_path(world: World) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        write_program(Path(folder, "here"), "#!/bin/sh\necho found\n")
        return await attempt(world, "./here", ["here"], {}, folder)


@scenario
async def path_does_not_change_our_own_directory(world: World) -> Record:
    os.chdir("/usr")
    await attempt(world, SH, [SH, "-c", ":"], {}, "/etc")
    return {"ours": os.getcwd()}


@each(
    {
        "executable": ("/nowhere/at/all", ["x"]),
        "NUL": (ECHO, ["a\0b"]),
        "int": (ECHO, ["a", 1]),
        "str": (ECHO, "echo"),
    }
)
async def what_is_refused_without_path_is_refused_with_it(
    world: World, case: tuple[str, object]
) -> Record:
    return await attempt(world, *case, {}, "/etc")


# -- usePTY and childFDs ---------------------------------------------------------------------------


@each(
    {
        "with childFDs": (True, {0: "w", 1: "r"}),
        "with empty childFDs": (True, {}),
        "a pair": ((5, 6), None),
        "four": ([5, 6, 7, 8], None),
    }
)
async def a_refused_usePTY(world: World, case: tuple[object, object]) -> Record:
    use_pty, child_fds = case
    return await attempt(world, ECHO, ["echo"], {}, None, None, None, use_pty, child_fds)


@each(
    {
        "True": {1: True},
        "bytes": {1: b"r"},
        "capital": {1: "R"},
        "rw": {1: "rw"},
        "None": {1: None},
        "float": {1: 1.0},
        "negative": {1: -1},
        "negative key": {-1: "r"},
        "str key": {"1": "r"},
        "None key": {None: "r"},
        "an fd that is not open": {1: 999},
        "the same fd, not open": {999: 999},
        "a huge fd": {1: 1 << 40},
        "a list": ["w", "r", "r"],
        "a set": {0, 1},
    }
)
async def refused_childFDs(world: World, child_fds: object) -> Record:
    return await attempt(world, ECHO, ["echo"], {}, childFDs=child_fds)


@scenario
async def a_file_object_is_no_fd(world: World) -> Record:
    with open(os.devnull, "wb") as file:
        return await attempt(world, ECHO, ["echo"], {}, childFDs={1: file})


@scenario
async def childFDs_are_not_changed(world: World) -> Record:
    child_fds: dict[int, object] = {0: "w", 1: "r", 2: 2}
    await attempt(world, ECHO, ["echo"], {}, childFDs=child_fds)
    return {"childFDs": repr(child_fds)}


@scenario
async def the_same_childFDs_serve_twice(world: World) -> Record:
    child_fds = {1: "r"}
    for _ in range(2):
        record = await attempt(world, ECHO, ["echo", "hi"], {}, childFDs=child_fds)
    return record


# -- processProtocol -------------------------------------------------------------------------------


@each(
    {
        "no fds": {"childFDs": {}},
        "our fds": {"childFDs": {0: 0, 1: 1, 2: 2}},
        "pipes": {"childFDs": {1: "r"}},
        "default": {},
    }
)
async def no_protocol(world: World, options: dict[str, Any]) -> Record:
    try:
        transport = world.reactor.spawnProcess(None, CAT, ["cat", "/dev/null"], {}, **options)
    except Exception as error:
        return {"result": f"raised {describe(error)}"}
    reaped = await happens(lambda: transport.pid is None)
    await turns()
    return {"result": "started", "reaped": reaped, "logged": world.logged}


@scenario
async def a_protocol_needs_no_base_class(world: World) -> Record:
    class Plain:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *args: self.calls.append(name)

    plain = Plain()
    world.reactor.spawnProcess(plain, ECHO, ["echo", "hi"], {})
    await until(lambda: "processEnded" in plain.calls)
    return {"calls": sorted(plain.calls), "first": plain.calls[0], "last": plain.calls[-1]}


# -- the kernel refuses ----------------------------------------------------------------------------


@scenario
async def too_many_open_files(world: World) -> Record:
    child = recording(world)
    reactor = world.reactor
    first_free = os.dup(0)
    os.close(first_free)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    results = []
    for room in range(6):
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + room, hard))
        try:
            reactor.spawnProcess(child, ECHO, ["echo"], {})
        except OSError as error:
            results.append(describe(error))
    again = os.dup(0)
    os.close(again)
    return {"results": results, "called": child.names, "leak": again - first_free}


@scenario
async def a_start_after_a_failed_one_works(world: World) -> Record:
    failed = await attempt(world, "/nowhere/at/all", ["x"])
    started = await attempt(world, ECHO, ["echo", "hi"])
    return {"failed": failed["result"], "started": started["result"]}


@scenario
async def many_failed_starts_leave_nothing(world: World) -> Record:
    results = {
        str((await attempt(world, "/nowhere/at/all", [sys.executable]))["result"])
        for _ in range(50)
    }
    child = spawn(world, ECHO, "hi")
    await until(child.is_over)
    return {"results": sorted(results), "after": child.summary()}
