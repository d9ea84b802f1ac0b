"""A long life: a million children of one process, and nothing lost: ``python -m tests.soak``.

In one process, children are started, talked to, stopped, killed and refused, in random order: three
fifths of them through spawnProcess on one reactor (parts.py), with 16 to 64 alive at a time, the
others through the batch engine (orders.py). Each end must be told once and with the right status,
and each byte must come. At the start, and at twenty points, when no child is alive, this process
must hold what it held at the start: the same fds and threads, no child, and, from a fifth of the
run on, no more memory (vitals.py).

One line is printed per point, then a summary; with ``--report`` all of it is put into a file as
JSON. Exit status 1: something is wrong, and is named.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from procreactor.internet.epollreactor import EPollReactor
from procreactor.kernel import children

from .actor import build_actor
from .ledger import Ledger, State
from .orders import play_orders
from .parts import PARTS, Part
from .vitals import Point, judge, look, slope

POINTS = 20
REACTORS_SHARE = 0.6
STALLED_S = 120
"""How long no child may end before the run is given up: some hundred thousand times what one takes,
so only what hangs takes it."""

_RE_ARM = 256  # ends; an alarm for each would cost a system call for each


class Stalled(KeyboardInterrupt):
    """No child has ended for `STALLED_S`. Of the kind that no loop keeps to itself."""


class _Complaints(logging.Handler):
    """What the package logs is a callback that raised, or worse."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        self._ledger.complain(f"logged: {self.format(record)}")


class Soak:
    """A run of *spawns* spawns; *parts* are those that are played on the reactor."""

    def __init__(
        self, spawns: int, seed: int, folder: str, parts: Sequence[type[Part]], stalled_s: float
    ) -> None:
        self.spawns = spawns
        self.ledger = Ledger(spawns)
        self.actor = build_actor()
        self.missing = f"{folder}/missing"
        self.barred = f"{folder}/barred"
        self.points: list[Point] = []
        self._rng = random.Random(seed)
        self._parts = [part for part in parts if os.geteuid() == 0 or not part.needs_root]
        self._weights = [part.weight for part in self._parts]
        self._stalled_s = stalled_s
        self._reactor = EPollReactor()
        self._playing: dict[int, Part] = {}
        self._done = 0
        self._ends = 0
        self._next = self._end = self._at_once = 0
        self._started_s = time.monotonic()
        Path(self.barred).touch(0o644)

    # -- the run --------------------------------------------------------------------------------

    def play(self) -> Iterator[Point]:
        """Yield each point when it is reached."""
        children.in_use()  # what the first spawn learns, and keeps
        self._started_s = time.monotonic()
        yield self._look()
        for point in range(1, POINTS + 1):
            count = self.spawns * point // POINTS - self._done
            on_reactor = round(count * REACTORS_SHARE)
            self._play_parts(on_reactor)
            self._play_orders(count - on_reactor)
            self.ledger.check_all_over(self._done)
            yield self._look()

    def _look(self) -> Point:
        signal.setitimer(signal.ITIMER_REAL, 0)  # a look at memory is no stall
        for thread in set(threading.enumerate()) - {threading.current_thread()}:
            # Without pidfds one waits for each child, and closes an fd right after the end.
            thread.join(self._stalled_s)
        fds = self.points[0].fds if self.points else None
        point = look(self._done, time.monotonic() - self._started_s, fds)
        self.points.append(point)
        return point

    def _play_parts(self, count: int) -> None:
        self._next, self._end = self._done, self._done + count
        self._at_once = self._rng.randint(16, 64)
        self._note_progress()
        self._fill()
        while self._playing:
            self._reactor.iterate(self._stalled_s)
        self._done = self._end

    def _fill(self) -> None:
        while self._next < self._end and len(self._playing) < self._at_once:
            number, self._next = self._next, self._next + 1
            kind = self._rng.choices(self._parts, self._weights)[0]
            self.ledger.kinds[kind.__name__] += 1
            part = kind(self, number, self._rng)
            if part.start(self._reactor):
                self._playing[number] = part

    def on_over(self, part: Part) -> None:
        """A child of the reactor's has ended: the next may come."""
        self._playing.pop(part.number, None)
        self._note_end()
        self._fill()

    def _play_orders(self, count: int) -> None:
        at_once = self._rng.randint(16, 64)
        self._note_progress()
        for _ in play_orders(self, self._rng, self._done, count, at_once):
            self._note_end()
        self._done += count

    def _note_end(self) -> None:
        self._ends += 1
        if self._ends % _RE_ARM == 0:
            self._note_progress()

    def _note_progress(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._stalled_s)

    def give_up(self) -> None:
        """Say what has not ended, kill it, and wait for that."""
        self._end = self._next
        for number, part in self._playing.items():
            self.ledger.complain(f"spawn {number}, {type(part).__name__}: stalled: {part.words}")
            if part.transport.pid is not None:
                part.transport.signalProcess("KILL")
        self._note_progress()
        while self._playing:
            self._reactor.iterate(self._stalled_s)

    def close(self) -> None:
        """Close the reactor's fds."""
        self._reactor.disconnectAll()
        self._reactor._loop.close()


# --- telling --------------------------------------------------------------------------------------


def _line(point: Point, before: Point | None, spawns: int) -> str:
    rate = ""
    if before is not None and point.seconds > before.seconds:
        rate = f"{(point.spawns - before.spawns) / (point.seconds - before.seconds):,.0f}/s"
    return (
        f"{point.spawns / spawns:4.0%} {point.spawns:11,} spawns {rate:>8}"
        f"  rss {point.rss_bytes / 1024:7,.0f} KiB  blocks {point.blocks:8,}"
        f"  fds {len(point.fds):3}  threads {point.threads}  children {len(point.children)}"
    )


def _summary(soak: Soak, seed: int, wrong: Sequence[str]) -> dict[str, Any]:
    ledger, last = soak.ledger, soak.points[-1]
    return {
        "spawns": soak.spawns,
        "seed": seed,
        "seconds": round(last.seconds, 1),
        "ended": ledger.count(State.ENDED),
        "refused": ledger.count(State.REFUSED),
        "bytes_asked": ledger.bytes_asked,
        "bytes_came": ledger.bytes_came,
        "bytes_sent": ledger.bytes_sent,
        "bytes_echoed": ledger.bytes_echoed,
        "rss_bytes_per_1000_spawns": round(slope(soak.points), 1),
        "kinds": dict(sorted(ledger.kinds.items())),
        "points": [
            {
                "spawns": point.spawns,
                "seconds": round(point.seconds, 2),
                "rss_bytes": point.rss_bytes,
                "blocks": point.blocks,
                "fds": len(point.fds),
                "threads": point.threads,
                "children": len(point.children),
            }
            for point in soak.points
        ],
        "wrong_count": len(wrong) + max(0, ledger.wrong_count - len(ledger.wrong)),
        "wrong": list(wrong),
    }


def _tell(summary: dict[str, Any]) -> None:
    print("".join(f"  {count:9,}  {kind}\n" for kind, count in summary["kinds"].items()), end="")
    print(
        f"{summary['ended']:,} ends and {summary['refused']:,} refusals told once each, "
        if not summary["wrong"]
        else f"{summary['wrong_count']:,} things are wrong, among {summary['spawns']:,} spawns, ",
        f"{summary['bytes_came']:,} of {summary['bytes_asked']:,} bytes came, ",
        f"{summary['bytes_echoed']:,} of {summary['bytes_sent']:,} echoed; ",
        f"{summary['seconds']:,} s, "
        f"{summary['rss_bytes_per_1000_spawns']:+,} bytes of memory per 1,000 spawns",
        sep="",
    )
    for text in summary["wrong"]:
        print(f"wrong: {text}")


# --- the program ----------------------------------------------------------------------------------


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A long life.")
    parser.add_argument("--spawns", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same plays the same")
    parser.add_argument("--report", metavar="FILE", help="where to put the result as JSON")
    found = parser.parse_args(words)
    if found.spawns < POINTS:
        parser.error(f"--spawns must be >= {POINTS}, not {found.spawns}")
    return found


@contextmanager
def _heard(ledger: Ledger) -> Iterator[None]:
    """What nobody would hear of otherwise is complained of; no end for long raises `Stalled`."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise Stalled("no child has ended for long")

    def on_unraisable(found: Any) -> None:
        ledger.complain(f"unraisable: {found.exc_value!r} in {found.object!r}")

    log, handler = logging.getLogger("procreactor"), _Complaints(ledger)
    before = sys.unraisablehook, signal.signal(signal.SIGALRM, on_alarm)
    sys.unraisablehook = on_unraisable
    log.addHandler(handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        log.removeHandler(handler)
        sys.unraisablehook = before[0]
        signal.signal(signal.SIGALRM, before[1])


def _play(soak: Soak) -> None:
    before = None
    try:
        for point in soak.play():
            print(_line(point, before, soak.spawns), flush=True)
            before = point
    except Stalled as stalled:
        soak.ledger.complain(str(stalled))
        try:
            soak.give_up()
        except Stalled:
            soak.ledger.complain("nor does what is killed")


def main(
    words: Sequence[str] | None = None,
    parts: Sequence[type[Part]] = PARTS,
    stalled_s: float = STALLED_S,
) -> int:
    """Run the soak that *words* ask for; return its exit status."""
    arguments = _arguments(words)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        Path(folder).chmod(0o755)
        soak = Soak(arguments.spawns, arguments.seed, folder, parts, stalled_s)
        try:
            with _heard(soak.ledger):
                _play(soak)
        finally:
            soak.close()
    wrong = [*soak.ledger.wrong, *judge(soak.points)]
    summary = _summary(soak, arguments.seed, wrong)
    _tell(summary)
    if arguments.report:
        Path(arguments.report).write_text(json.dumps(summary, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
