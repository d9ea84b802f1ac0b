"""``procreactor doctor``: what this machine lets us do, and what it costs where not.

Exit status 0 when children can be started, also with fallbacks; 1 when they cannot.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator, Sequence

from procreactor import __version__
from procreactor.apps.batch import plan_command, run_batch
from procreactor.errors import SpawnError
from procreactor.kernel.facts import UNLIMITED, Cgroup, Facts, Limit, read_facts

__all__ = ["main", "report", "run"]

_WITHOUT = {
    "vfork": "fork: a spawn grows with the memory of this process",
    "unshare": "a spawn copies the fd table: it grows with the open files of this process",
    "pidfd": "a waiting thread per child, and signals by number",
    "clone3": "clone, and some more system calls in each child; no CLONE_INTO_CGROUP",
    "close_range": "a sweep over /proc/self/fd in each child",
    "helper": "with uid= or gid=, fork: such a spawn grows with the memory of this process",
}
"""What is done instead of each feature."""

_WITHOUT_CLOSE_RANGE_AND_PROC = "a million fd numbers asked of poll in each child: some 10 ms"

_DENIED = {
    "pidfd_open": "processes of a tree go by number, as do children of others, for each of which a"
    " thread waits",
    "pidfd_send_signal": "signals by number: a stranger's, where other code has just reaped the"
    " child",
    "waitid": "no child can be reaped: all become zombies, and how they ended is not told",
}
"""What it means that one of these is denied."""

_WITHOUT_CGROUP = "no tree kill, and no limits, by cgroup"

_WITHOUT_THREADS = (
    "batches hold the caller up at each start; without pidfds each child is looked at every 20 ms"
)

_FOR_SHARED_MEMORY = {"unshare", "clone3", "helper"}

_FDS_PER_CHILD = 4
_PAGES_PER_PIPE = 16
_OWN_FDS = 32
_SPAWNS = 20


def main(arguments: Sequence[str]) -> int:
    """Do what *arguments*, after the command's name, say; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="procreactor doctor", description=__doc__, allow_abbrev=False
    )
    parser.parse_args(arguments)
    return run()


def run() -> int:
    """Print the report, and return the exit status."""
    try:
        facts = read_facts()
    except SpawnError as error:
        print(f"procreactor {__version__}\n{error}")
        return 1
    for line in report(facts):
        print(line)
    return _try_spawns()


def report(facts: Facts) -> Iterator[str]:
    """Yield the lines that tell *facts*."""
    yield f"procreactor {__version__}, {facts.python}, Linux {facts.kernel} {facts.machine}"
    yield ""
    yield "Kernel features"
    for name in _WITHOUT:
        if name in facts.used:
            yield _line(name, "in use")
        else:
            yield _line(name, f"OFF ({_why_off(name, facts)}): {_instead_of(name, facts)}")
    for name, meaning in _DENIED.items():
        if name in facts.denied:
            yield _line(name, f"DENIED (the kernel or a sandbox refuses it): {meaning}")
    yield ""
    yield "Limits"
    yield _line("open files", f"{_limit(facts.open_files)}{_room(facts.open_files)}")
    yield _line("processes", _limit(facts.processes) + (" (not for root)" if not facts.uid else ""))
    yield _line("pids", f"{_number(facts.most_pids)}, threads {_number(facts.most_threads)}")
    yield _line("pipe pages", _pipe_pages(facts))
    yield _line("epoll watches", _number(facts.epoll_watches))
    if not facts.can_make_threads:
        yield _line("threads", f"none can be had (a limit, or a sandbox): {_WITHOUT_THREADS}")
    yield ""
    yield "cgroup v2"
    if "cgroup" in facts.disabled:
        yield _line("directory", f"OFF (PROCREACTOR_DISABLE): {_WITHOUT_CGROUP}")
    else:
        yield from _cgroup(facts.cgroup)
    yield ""


def _instead_of(name: str, facts: Facts) -> str:
    if name == "close_range" and not facts.has_proc:
        return _WITHOUT_CLOSE_RANGE_AND_PROC
    return _WITHOUT[name]


def _why_off(name: str, facts: Facts) -> str:
    if name in facts.disabled:
        return "PROCREACTOR_DISABLE"
    if name in _FOR_SHARED_MEMORY and "vfork" not in facts.used:
        return "for vfork only"
    return "the kernel or a sandbox refuses it"


def _line(name: str, value: str) -> str:
    return f"  {name:<14} {value}"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _limit(limit: Limit) -> str:
    soft, hard = (
        "unlimited" if one == UNLIMITED else f"{one:,}" for one in (limit.soft, limit.hard)
    )
    return soft if soft == hard else f"{soft}, at most {hard} (ulimit)"


def _room(limit: Limit) -> str:
    if limit.soft == UNLIMITED:
        return ""
    children = max(0, limit.soft - _OWN_FDS) // _FDS_PER_CHILD
    return f": room for about {children:,} children with three pipes"


def _pipe_pages(facts: Facts) -> str:
    now = facts.new_pipe_bytes
    note = f"; a pipe has only {now:,} bytes now, and is slow" if _is_small(now) else ""
    if facts.pipe_pages == 0:
        return f"unlimited{note}"
    if facts.pipe_pages is None:
        return f"unknown{note}"
    pipes = facts.pipe_pages // _PAGES_PER_PIPE
    if facts.uid and not note:
        note = "; more of this user's have one page, and are slow"
    return f"{facts.pipe_pages:,}: {pipes:,} pipes of full size{note}"


def _is_small(pipe_bytes: int | None) -> bool:
    return pipe_bytes is not None and pipe_bytes < _PAGES_PER_PIPE * os.sysconf("SC_PAGE_SIZE")


def _cgroup(cgroup: Cgroup | None) -> Iterator[str]:
    if cgroup is None:
        yield _line("directory", f"none to be seen: {_WITHOUT_CGROUP}")
        return
    yield _line("directory", cgroup.directory)
    writable = "yes" if cgroup.can_make_children else "no: children cannot have one of their own"
    yield _line("writable", writable)
    yield _line("cgroup.kill", "yes" if cgroup.can_kill else "no (Linux 5.14)")
    yield _line("controllers", " ".join(cgroup.controllers) or "none: no limits by cgroup")
    if cgroup.most_pids is not None:
        yield _line("pids.max", f"{cgroup.most_pids:,}")


def _try_spawns() -> int:
    """Start some children, one after the other, and say how long one took."""
    try:
        outcomes = list(run_batch([plan_command(["true"])] * _SPAWNS, at_once=1))
    except OSError as error:  # no fd, or no thread because of a limit
        print(f"No batches can be run: {error}")
        return 1
    for outcome in outcomes:
        if outcome.error is not None:
            print(outcome.error)
            return 1
        if outcome.status is None or outcome.status.code is None:
            print("How a child ended cannot be told")
            return 1
    median_ms = statistics.median(outcome.duration_s for outcome in outcomes) * 1e3
    print(
        f"{_SPAWNS} times `true`, one after the other: median {median_ms:.2f} ms from start to end"
    )
    return 0
