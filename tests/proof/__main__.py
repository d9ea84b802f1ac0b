"""Twisted's own tests, unmodified, on Twisted's reactor and on ours: ``python -m tests.proof``.

The tests are those of the installed Twisted, and those of Buildbot's worker, a program that knows
Twisted's processes from inside. Each suite is run in a process of its own, on both reactors;
judgement.py says what is required. Exit status 1: something is wrong; 2: nothing could be run.

The result is put below .venv/proof/, and with ``--keep`` in tests/proof/results.json, of which the
table in README.md is made (``--readme``).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import report, sdist
from .judgement import (
    Count,
    Deselected,
    Run,
    Verdict,
    counted,
    judge,
    judge_distributed,
    parse_deselected,
    stale,
)
from .running import ROOT, Job, Result, run_all
from .suites import OURS, STOCK, SUITES, Route, Suite

DESELECTED = Path(__file__).with_name("deselected.txt")
CACHE = ROOT / ".venv" / "proof"

_NEEDED = {
    "twisted": "Twisted itself",
    "hamcrest": "Twisted's tests import it",
    "psutil": "the tests of Buildbot's worker import it",
}


def _jobs(suites: Sequence[Suite], entries: Sequence[Deselected]) -> list[Job]:
    jobs = []
    for suite in suites:
        names = tuple(entry.test for entry in entries if suite.has(entry.test))
        jobs += [Job(suite, STOCK), Job(suite, OURS, names)]
        if names:
            jobs.append(Job(suite, OURS, names, only_deselected=True))
    return jobs


class Proof:
    """A run of several suites, and what it comes to."""

    def __init__(self, entries: Sequence[Deselected]) -> None:
        self._entries = entries
        self._results: dict[tuple[Suite, str], Result] = {}
        self.kept: list[dict[str, Any]] = []
        self.failures = 0

    def add(self, job: Job, result: Result) -> None:
        """Take in what came of *job*, and say so."""
        self._results[job.suite, job.label] = result
        count = self._count(result)
        figures = f"{count.passed} passed, {count.failed} failed, {count.skipped} skipped"
        print(f"{count.seconds:6.1f} s  {job.label:<16}  {job.suite.title}: {figures}", flush=True)

    def _count(self, result: Result) -> Count:
        return result.count or counted(result.run)

    def judge(self, suite: Suite) -> None:
        """Say what is wrong with *suite*, all of whose jobs are in."""
        stock, ours = (self._results[suite, reactor.label] for reactor in (STOCK, OURS))
        left_out = self._results.get((suite, Job(suite, OURS, (), True).label), Result(Run()))
        entries = [entry for entry in self._entries if suite.has(entry.test)]
        if suite.route is Route.DISTRIBUTED:
            verdict = judge_distributed(suite, self._count(stock), self._count(ours))
        else:
            verdict = judge(suite, stock.run, ours.run, left_out.run, entries)
        self._say(suite, verdict, (stock, ours, left_out))
        figures = report.entry(suite, self._count(stock), self._count(ours), len(entries))
        self.kept.append(figures)

    def _say(self, suite: Suite, verdict: Verdict, results: Sequence[Result]) -> None:
        problems = [("the run", result.problem) for result in results if result.problem]
        for note in verdict.notes:
            print(f"{suite.title}: {note}")
        for why in sorted({result.unreachable for result in results if result.unreachable}):
            if suite.identity:
                print(f"{suite.title}: other users cannot reach this interpreter: {why}")
        self.fail(suite.title, [*problems, *verdict.failures])
        if suite.route is Route.DISTRIBUTED and verdict.failures:
            print(results[1].run.output[-4000:])

    def fail(self, title: str, failures: Sequence[tuple[str, str]]) -> None:
        """Say what is wrong, and remember that something is."""
        for test, text in failures:
            print(f"\nFAILED {title}: {test}: {text}")
        self.failures += len(failures)


def _plug_in_path() -> str:
    """Where the installed package, which is the one that the suites import, has its plug-in."""
    command = [sys.executable, "-P", "-m", "procreactor.hosts.twisted", "--plugin-path"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _missing() -> list[str]:
    return [
        f"{name} is not installed: {why}"
        for name, why in _NEEDED.items()
        if importlib.util.find_spec(name) is None
    ]


def _run(options: argparse.Namespace) -> int:
    suites = [suite for suite in SUITES if not (options.quick and suite.long)]
    suites = [suite for suite in suites if options.only in suite.title]
    if not suites:
        raise ValueError(f"no suite has {options.only!r} in its title")
    missing = _missing()
    if missing:
        print(*missing, "pip install 'procreactor[proof]' has all of it.", sep="\n")
        return 2
    entries = parse_deselected(DESELECTED.read_text(encoding="utf-8"))
    source = sdist.unpacked(CACHE) if any(suite.sdist for suite in suites) else None
    proof = Proof(entries)
    proof.fail(DESELECTED.name, stale(SUITES, entries))
    started = time.monotonic()
    for job, result in run_all(_jobs(suites, entries), options.jobs, _plug_in_path(), source):
        proof.add(job, result)
    print()
    for suite in suites:
        proof.judge(suite)
    _keep(proof, options)
    seconds = time.monotonic() - started
    wrong = f"{proof.failures} wrong" if proof.failures else "all as required"
    print(f"{len(suites)} suites in {seconds:.0f} s: {wrong}")
    return int(proof.failures > 0)


def _keep(proof: Proof, options: argparse.Namespace) -> None:
    """A run of all suites in which nothing failed is worth keeping, no other."""
    if proof.failures or len(proof.kept) < len(SUITES):
        return
    kept = report.result(importlib.metadata.version("twisted"), proof.kept)
    report.save(CACHE / report.KEPT.name, kept)
    if options.keep:
        report.save(report.KEPT, kept)


def _readme(path: Path) -> int:
    old = path.read_text(encoding="utf-8")
    try:
        new = report.replaced(old, report.table(report.load(report.KEPT)))
    except ValueError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    if new != old:
        path.write_text(new, encoding="utf-8")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Do what *arguments* ask for, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="leave out what takes long, or the network")
    add("--only", default="", metavar="TEXT", help="run the suites that have TEXT in their title")
    add("--jobs", type=int, default=2, metavar="N", help="run N processes at a time (2)")
    add("--keep", action="store_true", help=f"keep the result as {report.KEPT.name}")
    add("--table", action="store_true", help="run nothing; print the table of what is kept")
    add("--readme", action="store_true", help="run nothing; put that table into README.md")
    options = parser.parse_args(arguments)
    if options.table:
        print(report.table(report.load(report.KEPT)))
        return 0
    if options.readme:
        return _readme(ROOT / "README.md")
    try:
        return _run(options)
    except (subprocess.CalledProcessError, ValueError) as error:
        print(f"nothing could be run: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
