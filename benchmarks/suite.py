"""Runs the plan: point by point, and within a point repeat by repeat, all libraries in turn.

So the figures that are compared with each other are taken within seconds of each other, and a slow
moment of the machine hits all alike. The order of the libraries is turned from repeat to repeat:
none always runs after the same one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Container, Sequence
from typing import Any

from benchmarks import machine
from benchmarks.build import ROOT, build_all
from benchmarks.model import Case, Description, Point, Report, Result, Sample
from benchmarks.plan import Planned, libraries, plan, workloads

__all__ = ["describe_all", "measure", "run_plan", "run_suite"]

TIMEOUT_S = 300
"""Of one measurement: the longest takes half a minute."""


def quick_repeats(point: Point) -> int:
    """Return how often a quick run measures *point*: twice where the full run does it most."""
    return 2 if point.repeats > 5 else 1


def run_suite(
    *,
    quick: bool = False,
    only: Collection[str] | None = None,
    with_libraries: Collection[str] | None = None,
    repeats: int | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Report:
    """Measure all that was asked for; *tell* is told of the progress.

    *repeats* overrides those of the points, and of a quick run.
    """
    begun_s, stamp = time.monotonic(), machine.stamp()
    build_all()
    chosen = set(workloads() if only is None else only)
    modules = {name: module for name, module in workloads().items() if name in chosen}
    offers = describe_all({module.KIND for module in modules.values()}, with_libraries)
    planned = plan(modules, offers, quick=quick, only=with_libraries)

    def repeats_of(point: Point) -> int:
        return repeats or (quick_repeats(point) if quick else point.repeats)

    samples = run_plan(planned, repeats_of, tell)
    return _report(stamp, quick, offers, planned, samples, time.monotonic() - begun_s)


def describe_all(
    kinds: Container[str] | None = None, only: Container[str] | None = None
) -> dict[tuple[str, str], Description]:
    """Return what each adapter offers; a process each, as none may see another's library.

    Only those of *kinds*, and of the libraries in *only*, if given.
    """
    offers = {}
    for kind, library in libraries():
        if (kinds is not None and kind not in kinds) or (only is not None and library not in only):
            continue
        answer, error = _ask([kind, library], 60)
        if answer is None:
            answer = {"missing": error}
        offers[kind, library] = Description(
            frozenset(answer.get("capabilities", ())),
            frozenset(answer.get("ways", ())),
            answer.get("missing"),
        )
    return offers


def run_plan(
    planned: Sequence[Planned],
    repeats_of: Callable[[Point], int],
    tell: Callable[[str], object],
) -> list[Sample]:
    """Return all samples; a case that is not possible, or fails, is not tried again."""
    samples, begun_s = [], time.monotonic()
    for number, one in enumerate(planned):
        cases = list(one.cases)
        if cases:
            place = f"{number + 1}/{len(planned)}, {time.monotonic() - begun_s:.0f} s"
            tell(f"[{place}] {cases[0].workload}: {one.point.name}")
        for _ in range(repeats_of(one.point)):
            taken = [measure(case) for case in cases]
            samples += taken
            good = [sample.case for sample in taken if sample.figures]
            cases = good[1:] + good[:1]
    return samples


def measure(case: Case) -> Sample:
    """Return one measurement, made in a process of its own."""
    arguments = [case.kind, case.library, case.workload, json.dumps(dict(case.params))]
    answer, error = _ask(arguments, TIMEOUT_S)
    if answer is None:
        return Sample(case, {}, failed=error)
    if "skipped" in answer:
        return Sample(case, {}, skipped=answer["skipped"])
    figures = answer["figures"]
    if figures.keys() != case.units.keys():
        return Sample(case, {}, failed=f"figures {sorted(figures)}, not {sorted(case.units)}")
    return Sample(case, figures)


def _ask(arguments: Sequence[str], timeout_s: float) -> tuple[dict[str, Any] | None, str]:
    """Return a worker's answer, or None and what it said last."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = worker.communicate(timeout=timeout_s)
    except BaseException as error:
        os.killpg(worker.pid, signal.SIGKILL)  # the children too: thousands may be alive
        worker.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            return None, f"no answer within {timeout_s:.0f} s"
        raise
    if worker.returncode != 0:
        return None, (errors.strip().splitlines() or [f"exit code {worker.returncode}"])[-1]
    return json.loads(output.splitlines()[-1]), ""


def _report(
    stamp: dict[str, Any],
    quick: bool,
    offers: dict[tuple[str, str], Description],
    planned: Sequence[Planned],
    samples: Sequence[Sample],
    seconds: float,
) -> Report:
    by_case: dict[Case, list[Sample]] = {}
    for sample in samples:
        by_case.setdefault(sample.case, []).append(sample)
    left_out = {name: reason for one in planned for name, reason in one.left_out.items()}
    left_out |= {sample.case.name: sample.skipped for sample in samples if sample.skipped}
    return Report(
        machine=stamp,
        quick=quick,
        results=[
            Result.of(by_case[case])
            for one in planned
            for case in one.cases
            if any(sample.figures for sample in by_case.get(case, ()))
        ],
        missing={
            library: offer.missing
            for (_, library), offer in offers.items()
            if offer.missing is not None
        },
        left_out=left_out,
        failed={sample.case.name: sample.failed for sample in samples if sample.failed},
        seconds=seconds,
    )
