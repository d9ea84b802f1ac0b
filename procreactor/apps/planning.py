"""From a command to the request of a child: what is checked and what is opened for it.

What is the same for all commands of a run is planned once. Files that a command names are opened
here, before its start, and belong to the `Plan`, whose owner closes them when the command is over.
TypeError and ValueError name the argument; OSError is of a file that could not be opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import FileIO

from procreactor.apps.commands import Argument, Command, File, Limits, check_seconds
from procreactor.model import AS_STDOUT, PipeEnd, Redirect, RlimitSetting, SpawnSpec
from procreactor.transport import environments
from procreactor.transport.request import (
    encode_argv,
    encode_path,
    find_candidates,
    plan_int,
    plan_rlimits,
)

__all__ = ["Plan", "Planner"]

_READ = os.O_RDONLY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class Plan:
    """A request, what is to be written to its stdin, and the fds that were opened for it."""

    __slots__ = ("data", "fds", "spec")

    def __init__(self, spec: SpawnSpec, data: bytes, fds: Sequence[int] = ()) -> None:
        self.spec = spec
        self.data = data
        self.fds = fds

    def close(self) -> None:
        """Close the fds. Idempotent."""
        fds, self.fds = self.fds, ()
        for fd in fds:
            os.close(fd)


class Planner:
    """Plans the commands of one run. `close` it: it holds /dev/null open.

    *capture*: stdout and stderr that go to no file come through pipes; else they are this
    process's. *cwd*, *env*, *env_extra*, *limits* and *nice* are those of commands that do not
    say; without *env* it is this process's, as it is now.
    """

    def __init__(
        self,
        *,
        capture: bool = True,
        cwd: Argument | None = None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        env_extra: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        nice: int = 0,
        encoding: str = "utf-8",
    ) -> None:
        self._cwd = encode_path(cwd, "cwd") if cwd is not None else None
        self._env = _with_extra(env, env_extra)
        self._encoding = encoding
        self._nice = plan_int(nice, "nice", -40, 40)
        rlimits = limits.rlimits if limits is not None else None
        self._rlimits: Sequence[RlimitSetting] = plan_rlimits(rlimits or {}, "limits.rlimits")
        self._own_env = environments.plan(self._env, "env")  # or what is wrong with it
        self._program: tuple[object, bytes] = (object(), b"")
        """The program of the last command, and what it is in bytes: mostly it is the next one's."""

        self._searched: tuple[bytes, object, tuple[bytes, ...]] = (b"", None, ())
        self._null = FileIO(os.devnull, "r+b")  # and no number, which an interrupt might lose
        out, err = (PipeEnd.WE_READ, PipeEnd.WE_READ) if capture else (1, 2)
        self._rows = {
            (has_input, is_merged): (
                Redirect(0, PipeEnd.WE_WRITE if has_input else self._null.fileno()),
                Redirect(1, out),
                Redirect(2, AS_STDOUT if is_merged else err),
            )
            for has_input in (False, True)
            for is_merged in (False, True)
        }

    def close(self) -> None:
        """Let go of /dev/null. Idempotent."""
        self._null.close()

    def plan(self, command: Command) -> Plan:
        """Return the plan of one start of *command*; the caller closes it."""
        argv = command.argv
        if type(argv) is not list and type(argv) is not tuple:
            _refuse_argv(argv)
        if command.timeout_s is not None:
            check_seconds("timeout_s", command.timeout_s)
        if not argv:
            raise ValueError("argv must have at least the program")
        name = argv[0]
        last_name, program = self._program
        if name is not last_name:
            program = encode_path(name, "argv[0]")
            if type(name) is str or type(name) is bytes:  # a path may be another next time
                self._program = name, program
        child_env, rows = self._own_env
        if command.env is not None or command.env_extra is not None:
            env = _with_extra(self._env if command.env is None else command.env, command.env_extra)
            child_env, rows = environments.plan(env, "env")
        candidates = self._candidates(program, child_env, rows)
        cwd = encode_path(command.cwd, "cwd") if command.cwd is not None else self._cwd
        data = self._encode(command.input)
        spec = SpawnSpec(
            candidates,
            encode_argv(argv if type(argv) is list else list(argv), program, "argv"),
            rows,
            self._rows[command.input is not None, command.is_merged],
            cwd,
            rlimits=self._rlimits,
            nice=self._nice,
            searched_name=program if candidates != (program,) else None,
        )
        fds: list[int] = []
        if not (command.stdin is command.stdout is command.stderr is None):
            self._open_files(command, spec, fds)
        return Plan(spec, data, fds)

    def _candidates(
        self, program: bytes, env: Mapping[bytes, bytes], rows: object
    ) -> tuple[bytes, ...]:
        """Where to look for *program*: where it was for the last one, if that is the same."""
        before, its_rows, candidates = self._searched
        if program != before or rows is not its_rows:
            candidates = tuple(find_candidates(program, env, os.environb))
            self._searched = program, rows, candidates
        return candidates

    def _encode(self, data: object) -> bytes:
        if data is None:
            return b""
        if isinstance(data, str):
            return data.encode(self._encoding)
        if isinstance(data, bytes | bytearray | memoryview):
            return bytes(data)
        raise TypeError(f"input must be bytes, str or None, not {data!r}")

    def _open_files(self, command: Command, spec: SpawnSpec, fds: list[int]) -> None:
        if command.stdin is not None and command.input is not None:
            raise ValueError("a command has either input or stdin")
        files = (command.stdin, command.stdout, None if command.is_merged else command.stderr)
        try:
            spec.redirects = tuple(
                row if file is None else Redirect(row.child_fd, _open(file, row.child_fd, fds))
                for row, file in zip(spec.redirects, files, strict=True)
            )
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise


def _refuse_argv(argv: object) -> None:
    """Raise TypeError, unless *argv* is some other sequence of words."""
    if isinstance(argv, str | bytes | Command) or not isinstance(argv, Sequence):
        raise TypeError(f"argv must be a list or tuple of str or bytes, not {argv!r}")


def _open(file: File, child_fd: int, fds: list[int]) -> int:
    what = ("stdin", "stdout", "stderr")[child_fd]
    if isinstance(file, int):
        return plan_int(file, what, 0, (1 << 31) - 1)
    name = os.fsdecode(encode_path(file, what))  # as text, for the message of an error
    # One call of C each, from the system call to the list: an interrupt after it loses no fd.
    fds.extend(map(os.open, (name,), (_WRITE if child_fd else _READ,), (0o666,)))
    return fds[-1]


def _with_extra(env: object, extra: Mapping[str, str] | None) -> object:
    """Return *env* with *extra*, as text; *env* itself without any."""
    if not extra:
        return env
    if env is not None and not isinstance(env, Mapping):
        raise TypeError(f"env must be a mapping or None, not {env!r}")
    if not isinstance(extra, Mapping):
        raise TypeError(f"env_extra must be a mapping or None, not {extra!r}")
    whole: dict[object, object] = {
        os.fsdecode(name) if isinstance(name, bytes) else name: value
        for name, value in (os.environ if env is None else env).items()
    }
    whole.update(extra)
    return whole
