"""The processes: one for each suite and reactor, and one for what is deselected of it.

Each has an interpreter, a session and an empty working directory of its own, reads nothing, and has
a deadline. When it is over, by itself or not, its process group is killed: no test leaves a child.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .judgement import Count, Run, outcomes
from .reachable import closed_paths
from .suites import OURS, Reactor, Route, Suite

__all__ = ["Job", "Result", "distributed_count", "run_all"]

ROOT = Path(__file__).resolve().parents[2]
_RECORDER = Path(__file__).with_name("recorder.py")

_TURN_MS = 500


@dataclass(frozen=True)
class Job:
    """A suite to be run once."""

    suite: Suite
    reactor: Reactor
    deselected: tuple[str, ...] = ()
    only_deselected: bool = False

    @property
    def label(self) -> str:
        """What is run, in a word or two."""
        return f"{self.reactor.label}, deselected" if self.only_deselected else self.reactor.label


@dataclass(frozen=True)
class Result:
    """What came of a job."""

    run: Run
    count: Count | None = None
    """The figures of a run that cannot be recorded test by test."""
    problem: str = ""
    """Why it proves nothing."""
    unreachable: str = ""
    """Why other users cannot reach the interpreter."""


def distributed_count(output: str, seconds: float) -> Count | None:
    """The figures of trial's last lines; None when it did not come so far."""
    ran = re.search(r"^Ran (\d+) tests in ", output, re.MULTILINE)
    summary = re.search(r"^(?:PASSED|FAILED) \((.*)\)$", output, re.MULTILINE)
    if ran is None or summary is None:
        return None
    figures = {word: int(number) for word, number in re.findall(r"(\w+)=(\d+)", summary[1])}
    passed = figures.get("successes", 0) + figures.get("expectedFailures", 0)
    skipped = figures.get("skips", 0)
    return Count(passed, int(ran[1]) - passed - skipped, skipped, seconds)


class _Running:
    """A job that has been started."""

    def __init__(self, job: Job, plug_in_path: str, sdist: Path | None) -> None:
        self.job = job
        # Closed to nobody: some tests give up root in it.
        self._directory = tempfile.TemporaryDirectory(prefix="proof-", ignore_cleanup_errors=True)
        home = Path(self._directory.name)
        home.chmod(0o755)
        self._events, self._output = home / "events", home / "output"
        work = home / "work"
        work.mkdir()
        self._started = time.monotonic()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self._command(),
                cwd=work,
                env=self._environment(plug_in_path, sdist),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.exit_fd = _open_exit_fd(self._process.pid)

    def _command(self) -> list[str]:
        job = self.job
        if job.suite.route is Route.DISTRIBUTED:
            options = ["-m", "twisted.trial", "-j2", f"--reactor={job.reactor.option}"]
            return [sys.executable, *options, *job.suite.names]
        built = job.suite.route is Route.BUILDER
        request = {
            "names": job.suite.names,
            "reactor": "default" if built else job.reactor.option,
            "built": job.reactor.path if built else None,
            "deselected": job.deselected,
            "only_deselected": job.only_deselected,
            "file": str(self._events),
            "identity": job.suite.identity,
            "reachable": _closed(self._directory.name),
        }
        return [sys.executable, str(_RECORDER), json.dumps(request)]

    def _environment(self, plug_in_path: str, sdist: Path | None) -> dict[str, str]:
        paths = []
        if self.job.reactor is OURS:
            paths.append(plug_in_path)
        if self.job.suite.sdist:
            paths.append(str(sdist))
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    @cached_property
    def _deadline(self) -> float:
        return self._started + self.job.suite.timeout_s

    @property
    def overdue(self) -> bool:
        """Whether it has had its time."""
        return time.monotonic() > self._deadline

    def end(self) -> Result:
        """Kill what is left of it, and return what it saw."""
        seconds = time.monotonic() - self._started
        overdue = self.overdue
        # The process has not been waited for: the number of the group is still its own.
        os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        os.close(self.exit_fd)
        output = self._output.read_text(errors="replace")
        if overdue:
            output += f"\nkilled after {seconds:.0f} s"
        try:
            return self._result(output, seconds, status)
        finally:
            self._directory.cleanup()

    def _result(self, output: str, seconds: float, status: int) -> Result:
        job = self.job
        if job.suite.route is Route.DISTRIBUTED:
            count = distributed_count(output, seconds)
            bad = count is None or (status != 0) != (count.failed > 0)
            problem = f"exit status {status}, and:\n{output[-4000:]}" if bad else ""
            return Result(Run(seconds=seconds, output=output), count, problem)
        lines = self._events.read_text().splitlines() if self._events.exists() else []
        events = [tuple(json.loads(line)) for line in lines]
        told = {event: text for test, event, text in events if not test}
        # The names of generated classes end with that of the reactor: here as on ours.
        rename = (job.reactor.built_suffix, OURS.built_suffix)
        run = Run(outcomes(events, rename), seconds, "done" in told, output[-4000:])
        problem = ""
        if job.suite.route is Route.GLOBAL and not told.get("reactor", "").endswith(
            "." + job.reactor.path.rsplit(".", 1)[1]
        ):
            problem = f"the reactor was {told.get('reactor')!r}"
        return Result(run, None, problem, told.get("unreachable", ""))


def _open_exit_fd(pid: int) -> int:
    """Return an fd that poll tells of when child *pid* has ended, still to be reaped."""
    try:
        return os.pidfd_open(pid)
    except OSError:  # a sandbox denies it: a thread waits, and lets go of a pipe
        told, tell = os.pipe()
        threading.Thread(target=_wait_and_close, args=(pid, tell)).start()
        return told


def _wait_and_close(pid: int, fd: int) -> None:
    with suppress(ChildProcessError):  # killed for being late, and reaped already
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(fd)


def _closed(directory: str) -> list[str]:
    """What root must make reachable for uid 1."""
    if os.geteuid() != 0:
        return []
    here = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    return closed_paths([*here, *filter(os.path.isabs, sys.path), str(ROOT), directory])


def run_all(
    jobs: Sequence[Job], at_once: int, plug_in_path: str, sdist: Path | None
) -> Iterator[tuple[Job, Result]]:
    """Run *jobs*, *at_once* at a time; yields as they end. Whoever stops earlier leaves nothing."""
    waiting = list(jobs)
    running: dict[int, _Running] = {}
    poll = select.poll()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                one = _Running(waiting.pop(0), plug_in_path, sdist)
                running[one.exit_fd] = one
                poll.register(one.exit_fd, select.POLLIN)
            ended = {fd for fd, _ in poll.poll(_TURN_MS)}
            for fd in [fd for fd, one in running.items() if fd in ended or one.overdue]:
                poll.unregister(fd)
                one = running.pop(fd)
                yield one.job, one.end()
    finally:
        for one in running.values():
            one.end()
