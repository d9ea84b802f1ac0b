"""twisted.internet.utils: one child as a Deferred."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.recording import CAT, SH, describe, outcome
from contracts.scenario import Record, each, happens, scenario, until
from contracts.world import World

HELPERS = {
    name: name for name in ("getProcessOutput", "getProcessValue", "getProcessOutputAndValue")
}

PATH = {"PATH": os.environ.get("PATH", os.defpath)}


class Result:
    """What a Deferred fired with, in words; the failure is thereby handled."""

    def __init__(self, deferred: Any) -> None:
        self.text = ""
        self.value: Any = None
        deferred.addCallbacks(self._on_value, self._on_failure)

    def _on_value(self, value: object) -> None:
        self.value = value
        self.text = repr(value)

    def _on_failure(self, failure: Any) -> None:
        self.value = failure.value
        kind = failure.value
        self.text = f"failed: {describe(kind) if isinstance(kind, BaseException) else repr(kind)}"

    def has_fired(self) -> bool:
        return bool(self.text)


async def result_of(helper: Callable[..., Any], *args: Any, **kwargs: Any) -> Record:
    """What comes of a call of *helper*: an exception, or what its Deferred fires with."""
    try:
        result = Result(helper(*args, **kwargs))
    except Exception as error:
        return {"result": f"raised {describe(error)}"}
    await until(result.has_fired)
    return {"result": result.text}


def shell(script: str, env: Any = PATH) -> tuple[object, ...]:
    return SH, ["-c", script], env


# -- all three -------------------------------------------------------------------------------------


@each(
    {
        f"{name} {label}": (name, script)
        for name in HELPERS
        for label, script in {
            "ends well": "echo out",
            "ends badly": "echo out; exit 3",
            "silent": ":",
            "ends by a signal": "echo out; kill -9 $$",
        }.items()
    }
)
async def a_child_that(world: World, case: tuple[str, str]) -> Record:
    name, script = case
    return await result_of(getattr(world.utils, name), *shell(script))


@each(HELPERS)
async def a_program_that_is_not_there(world: World, name: str) -> Record:
    return await result_of(getattr(world.utils, name), "/nowhere/at/all")


@each(HELPERS)
async def the_arguments_of(world: World, name: str) -> Record:
    """args without the program's name, then env, path and reactor, all by position."""
    helper = getattr(world.utils, name)
    script = 'echo "$0 $1 $GREETING $(pwd)"; exit 4'
    args = ["-c", script, "zero", "one"]
    return await result_of(helper, SH, args, {**PATH, "GREETING": "hello"}, "/etc", world.reactor)


@each(HELPERS)
async def env_is_empty_by_default(world: World, name: str) -> Record:
    helper = getattr(world.utils, name)
    return {
        "left out": (await result_of(helper, "/usr/bin/env"))["result"],
        "given": (await result_of(helper, "/usr/bin/env", (), {"A": "1"}))["result"],
    }


@each(
    {
        "tuple": ("a", "b"),
        "list": ["a", "b"],
        "bytes": [b"a", b"\xff"],
        "generator": None,
        "str": "ab",
        "int": 3,
    }
)
async def args(world: World, args: Any) -> Record:
    if args is None:
        args = (word for word in ("a", "b"))
    return await result_of(world.utils.getProcessOutput, "/bin/echo", args)


@each(HELPERS)
async def a_child_that_reads_its_input(world: World, name: str) -> Record:
    result = Result(getattr(world.utils, name)(CAT))
    return {"ends": await happens(result.has_fired)}


@each(HELPERS)
async def a_cancel(world: World, name: str) -> Record:
    """The Deferred fails at once; the child is left alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(f"{folder}/go")
        script = "echo $$ >$0/pid; read x <$0/go; echo lived >$0/said"
        deferred = getattr(world.utils, name)(SH, ["-c", script, folder], PATH)
        result = Result(deferred)
        deferred.cancel()
        at_once = result.text
        await until(lambda: _size(f"{folder}/pid"))
        Path(f"{folder}/go").write_text("go\n")
        await until(lambda: _size(f"{folder}/said"))
    return {"result": at_once, "logged": world.logged}


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


# -- getProcessOutput ------------------------------------------------------------------------------


@scenario
async def unexpected_errors_fail_the_output_at_once(world: World) -> Record:
    deferred = world.utils.getProcessOutput(*shell("echo out; echo bad >&2; exit 3"))
    result = Result(deferred)
    await until(result.has_fired)
    ended = Result(result.value.processEnded)
    await until(ended.has_fired)
    return {
        "is an OSError": isinstance(result.value, OSError),
        "text": str(result.value),
        "ended": ended.text,
    }


@each({"ends well": "echo bad >&2", "a signal": "echo bad >&2; kill -9 $$"})
async def the_end_after_unexpected_errors_is_a_failure(world: World, script: str) -> Record:
    result = Result(world.utils.getProcessOutput(*shell(script)))
    await until(result.has_fired)
    ended = Result(result.value.processEnded)
    await until(ended.has_fired)
    return {"ended": ended.text.replace("ProcessTerminated", "ended")}


@scenario
async def unexpected_errors_close_the_childs_pipes(world: World) -> Record:
    result = Result(world.utils.getProcessOutput(*shell("while :; do echo bad >&2; done")))
    await until(result.has_fired)
    ended = Result(result.value.processEnded)
    await until(ended.has_fired)
    return {"ended": ended.text, "signal": ended.value.signal}


@each({"true": True, "1": 1})
async def errors_too(world: World, errortoo: object) -> Record:
    helper = world.utils.getProcessOutput
    return await result_of(helper, *shell("echo bad >&2; exit 3"), errortoo=errortoo)


@scenario
async def errors_too_by_position(world: World) -> Record:
    helper = world.utils.getProcessOutput
    return await result_of(helper, *shell("echo bad >&2"), None, world.reactor, True)


@scenario
async def a_megabyte_of_output(world: World) -> Record:
    script = "i=0; while [ $i -lt 100000 ]; do echo 'ten bytes'; i=$((i+1)); done"
    result = Result(world.utils.getProcessOutput(*shell(script)))
    await until(result.has_fired)
    return {"size": len(result.value), "lines": len(set(result.value.splitlines()))}


# -- getProcessOutputAndValue ----------------------------------------------------------------------


@each({"text": b"some text", "empty": b"", "much": b"x" * 300_000, "none": None})
async def stdinBytes(world: World, data: Any) -> Record:
    script = "wc -c" if data is not None else ":"
    helper = world.utils.getProcessOutputAndValue
    return await result_of(helper, *shell(script), stdinBytes=data)


@scenario
async def stdinBytes_that_are_no_bytes(world: World) -> Record:
    try:
        result = Result(world.utils.getProcessOutputAndValue(*shell("wc -c"), stdinBytes="text"))
    except Exception as error:
        return {"result": f"raised {describe(error)}"}
    return {"result": "fired" if await happens(result.has_fired) else "never fires"}


@scenario
async def output_and_errors_are_apart(world: World) -> Record:
    helper = world.utils.getProcessOutputAndValue
    return await result_of(helper, *shell("echo out; echo bad >&2; exit 3"))


@scenario
async def a_signal_comes_with_what_was_said(world: World) -> Record:
    script = shell("echo out; echo bad >&2; kill -9 $$")
    result = Result(world.utils.getProcessOutputAndValue(*script))
    await until(result.has_fired)
    out, err, number = result.value
    return {"out": out.decode(), "err": err.decode(), "signal": number}


@scenario
async def a_signal_is_something_to_catch(world: World) -> Record:
    """What a coroutine sees that awaits a child which is killed."""
    said: list[str] = []

    async def wait() -> None:
        try:
            await world.utils.getProcessOutputAndValue(*shell("kill -9 $$"))
        except Exception as error:
            said.append(describe(error))

    world.defer.ensureDeferred(wait())
    await happens(lambda: said)
    return {"said": said}


@scenario
async def a_program_with_inlineCallbacks(world: World) -> Record:
    @world.defer.inlineCallbacks  # type: ignore[untyped-decorator]
    def program() -> Any:
        code = yield world.utils.getProcessValue("/bin/false")
        out = yield world.utils.getProcessOutput("/bin/echo", ["code", str(code)])
        return out

    result = Result(program())
    await until(result.has_fired)
    return {"result": result.text}


@scenario
async def several_at_once(world: World) -> Record:
    deferreds = [world.utils.getProcessValue(*shell(f"exit {number}")) for number in range(8)]
    result = Result(world.defer.gatherResults(deferreds))
    await until(result.has_fired)
    return {"result": result.text}


@scenario
async def the_helpers_take_the_same_parameters(world: World) -> Record:
    record: Record = {}
    for name in HELPERS:
        parameters = inspect.signature(getattr(world.utils, name)).parameters.values()
        record[name] = [
            f"{each.name}={each.default!r}" for each in parameters if each.kind != each.KEYWORD_ONLY
        ]
    return record


@scenario
async def a_helper_with_wrong_arguments(world: World) -> Record:
    return {"no program": outcome(world.utils.getProcessOutput)}
