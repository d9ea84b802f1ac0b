"""What processExited and processEnded are given, and the exceptions that programs name."""

from __future__ import annotations

import io
import pickle
import resource
from typing import Any

from contracts.recording import outcome, sh
from contracts.scenario import Record, each, scenario, until
from contracts.world import World


def look_at(world: World, failure: Any) -> Record:
    """All that a program may ask of the Failure of an ended child."""
    error = world.error
    value = failure.value
    kinds = (
        "ProcessDone",
        "ProcessTerminated",
        "ConnectionDone",
        "ConnectionLost",
        "ConnectionClosed",
    )
    brief, full = io.StringIO(), io.StringIO()
    failure.printBriefTraceback(brief)
    failure.printTraceback(full)
    return {
        "is a": [kind for kind in kinds if isinstance(value, getattr(error, kind))],
        "is an OSError": isinstance(value, OSError),
        "fields": [value.exitCode, value.signal, value.status],
        "text": str(value),
        "args": [str(argument) for argument in value.args],
        "check": str(failure.check(error.ProcessDone, error.ProcessTerminated).__name__),
        "check by parent": failure.check(error.ConnectionClosed, LookupError)
        is error.ConnectionClosed,
        "check of others": repr(failure.check(LookupError, error.ProcessExitedAlready)),
        "type": failure.type.__name__,
        "message": failure.getErrorMessage(),
        "traceback object": repr(failure.getTracebackObject()),
        "frames": list(failure.frames),
        "raises itself": outcome(failure.raiseException),
        "prints": [value.__class__.__name__ in text.getvalue() for text in (brief, full)],
        "is a Failure": isinstance(failure, world.Failure),
    }


@each({"0": 0, "1": 1, "3": 3, "127": 127, "255": 255})
async def the_failure_of_exit_code(world: World, code: int) -> Record:
    child = sh(world, f"exit {code}")
    await until(child.is_over)
    return look_at(world, child.reason())


@each({name: name for name in ("HUP", "KILL", "TERM", "ABRT", "SEGV", "USR2")})
async def the_failure_of_signal(world: World, name: str) -> Record:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = sh(world, f"kill -{name} $$")
    await until(child.is_over)
    return look_at(world, child.reason())


@scenario
async def both_callbacks_get_a_failure_without_traceback(world: World) -> Record:
    child = sh(world, "exit 3")
    await until(child.is_over)
    exited, ended = child.reason("processExited"), child.reason("processEnded")
    return {
        "tracebacks": [repr(reason.getTracebackObject()) for reason in (exited, ended)],
        "same value": outcome(lambda: str(exited.value) == str(ended.value)),
    }


@each(
    {
        "nothing": {},
        "code": {"exitCode": 3},
        "signal": {"signal": 9},
        "all": {"exitCode": 3, "signal": None, "status": 768},
    }
)
async def a_ProcessTerminated_made_by_hand(world: World, fields: dict[str, int]) -> Record:
    error = world.error.ProcessTerminated(**fields)
    return {"text": str(error), "fields": [error.exitCode, error.signal, error.status]}


@scenario
async def a_ProcessTerminated_takes_its_arguments_in_order(world: World) -> Record:
    error = world.error.ProcessTerminated(3, 9, 777)
    return {"text": str(error), "fields": [error.exitCode, error.signal, error.status]}


@scenario
async def a_ProcessDone_made_by_hand(world: World) -> Record:
    error = world.error.ProcessDone(0)
    return {
        "text": str(error),
        "fields": [error.exitCode, error.signal, error.status],
        "without a status": outcome(world.error.ProcessDone),
    }


@scenario
async def the_family_of_the_errors(world: World) -> Record:
    names = (
        *("ConnectionLost", "ConnectionDone", "ConnectionClosed", "ConnectionAborted"),
        *("ProcessDone", "ProcessTerminated", "ProcessExitedAlready"),
        *("AlreadyCalled", "AlreadyCancelled", "ReactorNotRunning", "ReactorNotRestartable"),
        *("ReactorAlreadyRunning", "ReactorAlreadyInstalledError"),
    )
    return {name: _public_family(getattr(world.error, name)) for name in names}


def _public_family(kind: type) -> list[str]:
    return [parent.__name__ for parent in kind.__mro__ if not parent.__name__.startswith("_")]


@scenario
async def a_failure_of_an_ended_child_can_be_passed_on(world: World) -> Record:
    child = sh(world, "exit 3")
    await until(child.is_over)
    said: list[str] = []
    deferred = world.defer.Deferred()
    deferred.addCallback(lambda _: said.append("called back"))
    deferred.addErrback(lambda reason: reason.trap(world.error.ProcessTerminated).__name__)
    deferred.addCallback(said.append)
    deferred.errback(child.reason())
    return {"said": said}


@scenario
async def a_failure_of_an_ended_child_can_be_raised_into_a_coroutine(world: World) -> Record:
    child = sh(world, "exit 3")
    await until(child.is_over)
    said: list[str] = []

    async def wait(deferred: Any) -> None:
        try:
            await deferred
        except world.error.ProcessTerminated as error:
            said.append(f"exit code {error.exitCode}")

    deferred = world.defer.Deferred()
    world.defer.ensureDeferred(wait(deferred))
    deferred.errback(child.reason())
    return {"said": said}


@scenario
async def a_failure_survives_pickling(world: World) -> Record:
    child = sh(world, "exit 3")
    await until(child.is_over)
    copy = pickle.loads(pickle.dumps(child.reason()))
    return {"type": copy.type.__name__, "exit code": copy.value.exitCode, "text": str(copy.value)}
