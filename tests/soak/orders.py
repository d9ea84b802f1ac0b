"""What commands do in the batch engine, and what must come of each."""

from __future__ import annotations

import errno
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from procreactor.apps.batch import Outcome, plan_command, run_batch
from procreactor.model import SpawnSpec

from .actor import SEEDS, said
from .ledger import State
from .parts import DEADLY, Scene, pick_size

__all__ = ["Order", "draw_order", "play_orders"]


@dataclass(slots=True)
class Order:
    """A command, and its right outcome."""

    kind: str
    spec: SpawnSpec
    code: int | None = None
    signal: int | None = None
    refusal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""


def draw_order(scene: Scene, rng: random.Random) -> Order:
    """Return one of the commands, as often as each is to be."""
    actor, code, draw = scene.actor, rng.randrange(99), rng.random()
    if draw < 0.4:
        return Order("exit", plan_command([actor, "exit", str(code)]), code)
    if draw < 0.8:
        seed, out, err = rng.randrange(SEEDS), pick_size(rng), pick_size(rng)
        cwd = rng.choice([None, "/"])
        spec = plan_command([actor, "say", *map(str, (out, err, seed, code))], cwd=cwd)
        return Order("say", spec, code, stdout=said(out, seed), stderr=said(err, seed + 1))
    if draw < 0.88:
        number = rng.choice(DEADLY)
        return Order("signal", plan_command([actor, "signal", str(number)]), signal=number)
    if draw < 0.93:  # its stdin is at its end from the start
        checksum = b"%08x" % zlib.adler32(b"")
        return Order("echo", plan_command([actor, "echo", str(code)]), code, stderr=checksum)
    if draw < 0.95:
        return Order("shut", plan_command([actor, "shut", str(code)]), code)
    if draw < 0.97:
        return Order("missing", plan_command([scene.missing]), refusal=errno.ENOENT)
    if draw < 0.98:
        return Order("barred", plan_command([scene.barred]), refusal=errno.EACCES)
    spec = plan_command([actor, "exit", "0"], cwd=scene.missing)
    return Order("nowhere", spec, refusal=errno.ENOENT)


def play_orders(
    scene: Scene, rng: random.Random, first: int, count: int, at_once: int
) -> Iterator[Outcome]:
    """Run *count* commands, the spawns from *first* on, and yield the outcomes, accounted for."""
    ledger = scene.ledger
    waiting: dict[int, Order] = {}

    def specs() -> Iterator[SpawnSpec]:
        for number in range(count):
            order = waiting[number] = draw_order(scene, rng)
            ledger.kinds[f"batch: {order.kind}"] += 1
            ledger.move(first + number, State.NEW, State.RUNNING)
            yield order.spec

    for outcome in run_batch(specs(), at_once=at_once, threads=rng.randint(1, 4)):
        ledger.move(first + outcome.number, State.RUNNING, State.ENDED)
        wanted = waiting.pop(outcome.number, None)
        if wanted is None:
            ledger.complain(f"spawn {first + outcome.number}: an outcome that nobody waits for")
        else:
            for text in _faults(outcome, wanted):
                ledger.complain(f"spawn {first + outcome.number}, {wanted.kind}: {text}")
            ledger.bytes_asked += len(wanted.stdout) + len(wanted.stderr)
            ledger.bytes_came += len(outcome.stdout) + len(outcome.stderr)
        yield outcome


def _faults(outcome: Outcome, wanted: Order) -> Iterator[str]:
    status, error = outcome.status, outcome.error
    end = (status.code, status.signal) if status else (None, None)
    if end != (wanted.code, wanted.signal):
        yield f"ended with {end}, not {(wanted.code, wanted.signal)}"
    if (error.errno if error else None) != wanted.refusal:
        yield f"{error}"
    if (outcome.stdout, outcome.stderr) != (wanted.stdout, wanted.stderr):
        yield f"{len(outcome.stdout)} and {len(outcome.stderr)} bytes came, not those expected"
    if outcome.dropped_bytes:
        yield f"{outcome.dropped_bytes} bytes dropped"
