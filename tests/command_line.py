"""``procreactor run`` as a process, and what its log says: for tests of it from outside."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from support import DEADLINE_S, PYTHON

__all__ = ["RUN", "environment", "log_of", "ran", "ran_with", "received_of", "running"]

RUN = [PYTHON, "-X", "dev", "-W", "error", "-m", "procreactor", "run"]


def environment(home: Path) -> dict[str, str]:
    """One in which nothing of the user's counts.

    GNU parallel has a shell start its jobs, by itself that which it was started from, and the log
    has the job's own end where that is a shell which becomes the last command that it runs.
    """
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SHELL": "/bin/sh",
        "PARALLEL_SHELL": shutil.which("bash") or "/bin/sh",
        "LC_ALL": "C.UTF-8",
    }


@contextmanager
def running(
    where: Path, *words: str, stdout: Any = PIPE, stderr: int = PIPE, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Our command, with pipes to its streams, and *variables* in its environment."""
    env = {**environment(where), **variables}
    with subprocess.Popen(
        [*RUN, *words], cwd=where, env=env, stdin=PIPE, stdout=stdout, stderr=stderr
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ran(
    where: Path, *words: str, stdout: Any = PIPE, command: list[str] = RUN
) -> subprocess.CompletedProcess[bytes]:
    """How our command ended in *where*, without input, and what it said."""
    return subprocess.run(
        [*command, *words],
        cwd=where,
        env=environment(where),
        stdin=DEVNULL,
        stdout=stdout,
        stderr=PIPE,
        timeout=DEADLINE_S,
        check=False,
    )


def ran_with(redirections: str, where: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """As `ran`, with *redirections* as a shell has them."""
    return ran(where, f"exec {shlex.join([*RUN, *words])} {redirections}", command=["sh", "-c"])


def received_of(path: Path) -> dict[bytes, bytes]:
    """How many bytes of each job, by its sequence number, the log says that have come."""
    if not path.exists():
        return {}
    rows = [line.split(b"\t") for line in path.read_bytes().splitlines()[1:]]
    return {row[0]: row[5] for row in rows}


def log_of(path: Path) -> list[tuple[bytes, ...]]:
    """Sequence number, host, exit code, signal and the words of the command, of each line."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines()[1:]:
        seq, host, _, _, _, _, code, number, command = line.split(b"\t", 8)
        words = shlex.split(command.replace(b"\0", b"\n").decode("utf-8", "surrogateescape"))
        found.append((seq, host, code, number, *map(os.fsencode, words)))
    return sorted(found)
