"""From the arguments of spawnProcess to a request, and the start.

Everything that can be wrong without asking the kernel is found first, by the pure rooms
(transport/request.py, transport/redirects.py), under the names that the arguments have here. Only
then is anything opened, and the user database asked.
"""

from __future__ import annotations

import difflib
import inspect
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from procreactor.errors import SpawnError, spawn_error
from procreactor.internet.process import ChildTransport, Process, PTYProcess
from procreactor.kernel.fds import Fds
from procreactor.kernel.ptys import PtyPair, PtyRoom, open_pty
from procreactor.kernel.users import resolve_identity
from procreactor.loop.eventloop import EventLoop
from procreactor.model import Redirect, SpawnSpec
from procreactor.transport import environments
from procreactor.transport.redirects import plan_redirects
from procreactor.transport.request import (
    encode_argv,
    encode_path,
    find_candidates,
    plan_int,
    plan_rlimits,
    plan_signal,
    plan_signals,
)

__all__ = ["Keeper", "spawn_process"]

_ID_MAX = (1 << 32) - 2
_FD_MAX = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Keeper:
    """Whose children they are: the loop that watches them, and who is told of each."""

    loop: EventLoop
    on_start: Callable[[ChildTransport], object]
    """Told of a child that runs, before its connectionMade."""

    on_over: Callable[[ChildTransport], object]
    """Told of one whose end has been told, or that was let go of."""

    on_pipes: type[Process] = Process
    on_terminal: type[PTYProcess] = PTYProcess


def spawn_process(
    keeper: Keeper,
    processProtocol: Any,
    executable: Any,
    args: Any = (),
    env: Any = {},  # noqa: B006  # Twisted's default, and never written to
    path: Any = None,
    uid: int | None = None,
    gid: int | None = None,
    usePTY: Any = 0,
    childFDs: Any = None,
    **extras: Any,
) -> Process | PTYProcess:
    """Start *executable* and return its transport, after connectionMade.

    The arguments after *keeper* are those of `ReactorBase.spawnProcess`. TypeError and ValueError
    come before any system call; SpawnError leaves no child, no fd and no callback.
    """
    if extras:
        _check_extras(extras)
    redirects = plan_redirects(childFDs, bool(usePTY))
    user_pty = _check_pty(usePTY, extras.get("windowSize"))
    if processProtocol is None:
        _check_need_of_protocol(bool(usePTY) or any(row.is_pipe for row in redirects))
    _check_ids(uid, gid)
    spec = _plan_program(executable, args, env, path, redirects)
    if extras:
        spec = spec.replace(**_plan_options(extras, bool(usePTY)))
    if uid is not None or gid is not None:
        spec.identity = resolve_identity(uid, gid)
    transport: Process | PTYProcess
    if usePTY:
        transport = keeper.on_terminal(keeper.loop, processProtocol, keeper.on_over)
        start = partial(_start_on_pty, transport, spec, user_pty, extras.get("windowSize"))
    else:
        transport = keeper.on_pipes(keeper.loop, processProtocol, keeper.on_over)
        start = partial(transport.start, spec)
    try:
        if extras.get("cgroup") is None:
            start()
        else:
            with _cgroup(extras["cgroup"]) as spec.cgroup_fd:
                start()
        keeper.on_start(transport)
    except BaseException:
        if transport.pid is not None:  # it runs, and an interrupt came after the start
            keeper.on_start(transport)
        raise
    transport.connect()
    return transport


_EXTRAS = (
    "umask",
    "rlimits",
    "processGroup",
    "session",
    "nice",
    "parentDeathSignal",
    "noNewPrivileges",
    "cgroup",
    "signalMask",
    "windowSize",
)


def _check_extras(extras: Mapping[str, object]) -> None:
    for name in extras:
        if name in _EXTRAS:
            continue
        known = [*list(inspect.signature(spawn_process).parameters)[1:-1], *_EXTRAS]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
        raise TypeError(f"spawnProcess() got an unexpected keyword argument {name!r}{hint}")


def _check_pty(usePTY: Any, windowSize: Any) -> PtyPair | None:
    if windowSize is not None:
        if not usePTY or isinstance(usePTY, tuple | list):
            raise ValueError("windowSize needs usePTY=True, whose terminal is made here")
        if not isinstance(windowSize, tuple | list) or len(windowSize) != 2:
            raise ValueError(f"windowSize must be (rows, columns), not {windowSize!r}")
        for size in windowSize:
            plan_int(size, "an item of windowSize", 0, 65535)
    if not isinstance(usePTY, tuple | list):
        return None
    if len(usePTY) != 3:
        raise ValueError(f"usePTY must be true, or (master, slave, name), not {usePTY!r}")
    master, slave, _ = usePTY
    return PtyPair(
        plan_int(master, "usePTY[0]", 0, _FD_MAX), plan_int(slave, "usePTY[1]", 0, _FD_MAX)
    )


def _check_need_of_protocol(has_pipes: bool) -> None:
    if has_pipes:
        raise TypeError(
            "processProtocol may be None only when childFDs maps no pipe and there is no terminal"
        )


def _check_ids(uid: object, gid: object) -> None:
    for value, what in ((uid, "uid"), (gid, "gid")):
        if value is not None:
            plan_int(value, what, 0, _ID_MAX)


def _plan_program(
    executable: object, args: object, env: object, path: object, redirects: Sequence[Redirect]
) -> SpawnSpec:
    program = encode_path(executable, "executable")
    argv = encode_argv(args, program, "args")
    child_env, block = environments.plan(env, "env")
    cwd = encode_path(path, "path") if path is not None else b""
    candidates = find_candidates(program, child_env, os.environb)
    spec = SpawnSpec(candidates, argv, block, redirects, cwd or None)
    if candidates != [program]:
        spec.searched_name = program
    return spec


def _plan_options(extras: Mapping[str, Any], on_terminal: bool) -> dict[str, Any]:
    given = {name: value for name, value in extras.items() if value is not None}
    options: dict[str, Any] = {}
    if "umask" in given:
        options["umask"] = plan_int(given["umask"], "umask", 0, 0o777)
    if "rlimits" in given:
        options["rlimits"] = plan_rlimits(given["rlimits"], "rlimits")
    if "processGroup" in given:
        options["process_group"] = plan_int(given["processGroup"], "processGroup", 0, _FD_MAX)
        if on_terminal or given.get("session"):
            raise ValueError("a new session has a process group of its own: leave out processGroup")
    options["new_session"] = bool(given.get("session"))
    if "nice" in given:
        options["nice"] = plan_int(given["nice"], "nice", -40, 40)
    if "parentDeathSignal" in given:
        number = plan_signal(given["parentDeathSignal"], "parentDeathSignal")
        options["parent_death_signal"] = plan_int(number, "parentDeathSignal", 1, signal.NSIG - 1)
    if "noNewPrivileges" in given:
        options["no_new_privileges"] = bool(given["noNewPrivileges"])
    if "signalMask" in given:
        options["signal_mask"] = plan_signals(given["signalMask"], "signalMask")
    return options


@contextmanager
def _cgroup(cgroup: Any) -> Iterator[int]:
    """The fd of a cgroup's directory, given as fd or path; one that is opened here is closed."""
    if cgroup is None:
        yield -1
    elif isinstance(cgroup, int):
        yield plan_int(cgroup, "cgroup", 0, _FD_MAX)
    else:
        name = encode_path(cgroup, "cgroup")
        fds = Fds()
        try:
            yield _open_folder(name, fds)
        except SpawnError as error:
            if error.stage in ("cgroup", "frozen before exec"):
                error.filename = os.fsdecode(name)
            raise
        finally:
            fds.close()


def _open_folder(name: bytes, fds: Fds) -> int:
    try:
        return fds.open(os.open, name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise spawn_error(error.errno or 0, "cgroup", name) from None


def _start_on_pty(
    transport: PTYProcess, spec: SpawnSpec, user_pty: PtyPair | None, windowSize: Any
) -> None:
    if user_pty is not None:
        transport.start(spec, user_pty)
        return
    room = PtyRoom()
    rows, columns = windowSize or (0, 0)
    try:
        transport.start(spec, open_pty(rows, columns, room))
    except BaseException:
        if transport.fileno() < 0:  # else it was taken over, and the interrupt came after that
            room.close()
        raise
