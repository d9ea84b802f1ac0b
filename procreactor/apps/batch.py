"""Many commands: at most so many at a time, the output and the status of each, as they end.

`run_batch` is a loop of its own, in whatever thread, lazily: of the iterable no more are taken than
may run, and a few dozen where they end many at a time, so an endless one runs in bounded memory.
The work is done by transport/pool.py. A command that could not be started is an outcome with an
``error``, in its turn.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from procreactor.errors import SpawnError
from procreactor.loop.eventloop import EventLoop
from procreactor.model import ExitStatus, SpawnSpec
from procreactor.streams.collect import Collector
from procreactor.transport import environments
from procreactor.transport.collected import pairs_of
from procreactor.transport.pool import MOST_THREADS, ChildPool, Ended, thread_count
from procreactor.transport.redirects import plan_redirects
from procreactor.transport.request import encode_argv, encode_path, find_candidates

__all__ = ["DRAIN_S", "Outcome", "plan_command", "run_batch"]

_MOST_AHEAD = 64
"""How many more than may run are taken of the iterable at most, while many end in each turn: so the
threads never wait for us. While they end one by one none is taken ahead, as an iterable may be slow
or go on only with what came out of those before."""

DRAIN_S = 1.0
"""How long after its exit a child's streams may stay open: a grandchild may hold them for ever."""


class Outcome(NamedTuple):
    """How one command went. *status* is None when it could not be started: *error* says why."""

    number: int
    """Which it was: commands are counted from 0 in the order of their submission."""

    spec: SpawnSpec
    status: ExitStatus | None
    error: SpawnError | None
    stdout: bytes
    stderr: bytes
    dropped_bytes: int
    """How much output came beyond the bound and was not kept."""

    duration_s: float
    """From the begin of its start to its end."""


def plan_command(
    argv: Sequence[str | bytes],
    *,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    cwd: str | bytes | os.PathLike[str] | None = None,
) -> SpawnSpec:
    """Return the request for *argv*, with pipes for stdin, stdout and stderr.

    *env* is the whole environment, None the parent's. A bare name is searched in the PATH of *env*,
    without one in the parent's. TypeError and ValueError name the argument.
    """
    if not argv:
        raise ValueError("argv must have at least the program")
    program = encode_path(argv[0], "argv[0]")
    child_env, rows = environments.plan(env, "env")
    candidates = tuple(find_candidates(program, child_env, os.environb))
    return SpawnSpec(
        candidates,
        tuple(encode_argv(list(argv), program, "argv")),
        rows,
        plan_redirects(None, False),
        encode_path(cwd, "cwd") if cwd is not None else None,
        searched_name=program if candidates != (program,) else None,
    )


def run_batch(
    specs: Iterable[SpawnSpec],
    *,
    at_once: int,
    threads: int | None = None,
    drain_s: float = DRAIN_S,
    limit_bytes: int | None = None,
) -> Iterator[Outcome]:
    """Run all of *specs*, at most *at_once* (>= 1) at a time, and yield their outcomes as they end.

    Nothing is started before the first outcome is asked for. Closing the iterator kills what runs,
    and leaves nothing behind. *threads* is 1 to 64, *limit_bytes* bounds what is kept of each
    stream (streams/collect.py). In a forked copy of the process there are no more outcomes:
    ChildProcessError.
    """
    if at_once < 1:
        raise ValueError(f"at_once must be >= 1, not {at_once}")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must be from 1 to {MOST_THREADS}, not {threads}")
    Collector(limit_bytes)  # says what is wrong with it, before anything is started
    return _run(iter(specs), at_once, threads, drain_s, limit_bytes)


def _run(
    specs: Iterator[SpawnSpec],
    at_once: int,
    threads: int | None,
    drain_s: float,
    limit_bytes: int | None,
) -> Iterator[Outcome]:
    loop = EventLoop()
    ended: deque[Ended[Collector]] = deque()
    try:
        pool = ChildPool(
            loop,
            pairs_of(partial(Collector, limit_bytes)),
            ended.append,
            at_once=at_once,
            threads=threads or min(at_once, thread_count()),
            drain_s=drain_s,
        )
        try:
            more = True
            ahead = 0
            while more or pool or ended:
                while more and len(pool) < at_once + ahead:
                    try:
                        spec = next(specs)
                    except StopIteration:
                        more = False
                    else:
                        pool.submit(spec)
                if pool:
                    pool.check_owner()
                    loop.run_once()
                ahead = _next_ahead(ahead, len(ended))
                while ended:
                    yield _outcome(ended.popleft())
        finally:
            pool.close()
    finally:
        loop.close()


def _next_ahead(ahead: int, ended: int) -> int:
    """How far to read ahead after a turn in which so many have *ended*."""
    wanted = 4 * ended if ended > 1 else 0
    return min(_MOST_AHEAD, max(wanted, ahead * 7 // 8))


def _outcome(ended: Ended[Collector]) -> Outcome:
    number, spec, status, error, sinks, _, _, duration_s = ended
    if sinks is None:
        return Outcome(number, spec, status, error, b"", b"", 0, duration_s)
    out, err = sinks
    dropped_bytes = out.dropped + err.dropped
    texts = out.getvalue(), err.getvalue()
    return Outcome(number, spec, status, error, *texts, dropped_bytes, duration_s)
