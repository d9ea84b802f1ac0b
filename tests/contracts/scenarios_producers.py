"""Producers that feed a child's standard input, and a child's terminal."""

from __future__ import annotations

import os
from typing import Any

from contracts.recording import CAT, end_of, outcome, sh, spawn
from contracts.scenario import Record, each, happens, scenario, turns, until
from contracts.world import World

COUNT_LATE = "read go <&3; wc -c"
WITH_GO: dict[int, Any] = {0: "w", 1: "r", 2: "r", 3: "w"}


class Producer:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Pulled(Producer):
    """Writes one of *pieces* each time that it is asked, and unregisters itself at their end."""

    def __init__(self, transport: Any, pieces: list[bytes]) -> None:
        super().__init__()
        self.transport = transport
        self.pieces = pieces

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self.pieces:
            self.transport.write(self.pieces.pop(0))
        else:
            self.transport.unregisterProducer()
            self.transport.closeStdin()


@each({"pushes": True, "is pulled": False})
async def a_producer_that_does_nothing(world: World, streaming: bool) -> Record:
    child = spawn(world, CAT)
    producer = Producer()
    result = outcome(child.transport.registerProducer, producer, streaming)
    at_once = list(producer.told)
    await turns()
    child.transport.unregisterProducer()
    child.transport.closeStdin()
    return {"register": result, "at once": at_once, "later": producer.told, **await end_of(child)}


@scenario
async def a_second_producer_is_refused(world: World) -> Record:
    child = spawn(world, CAT)
    first, second, third = Producer(), Producer(), Producer()
    child.transport.registerProducer(first, True)
    refused = outcome(child.transport.registerProducer, second, True)
    child.transport.unregisterProducer()
    taken = outcome(child.transport.registerProducer, third, True)
    child.transport.unregisterProducer()
    child.transport.closeStdin()
    await until(child.is_over)
    told = [producer.told for producer in (first, second, third)]
    return {"second": refused, "after unregister": taken, "told": told}


@each({"pushes": True, "is pulled": False})
async def a_producer_without_a_standard_input(world: World, streaming: bool) -> Record:
    child = sh(world, "exit 5", childFDs={1: "r"})
    producer = Producer()
    result = outcome(child.transport.registerProducer, producer, streaming)
    at_once = list(producer.told)
    return {
        "register": result,
        "told": at_once,
        "unregister": outcome(child.transport.unregisterProducer),
        **await end_of(child),
    }


@each({"pushes": True, "is pulled": False})
async def a_producer_after_the_input_is_lost(world: World, streaming: bool) -> Record:
    child = sh(world, "exec <&-; read x <&3; exit 5", childFDs=WITH_GO)
    await until(lambda: child.has_lost(0))
    producer = Producer()
    result = outcome(child.transport.registerProducer, producer, streaming)
    child.transport.closeChildFD(3)
    return {"register": result, "told": producer.told, **await end_of(child)}


@each({"at the mark": 65536, "above it": 65537, "far above it": 1_000_000})
async def a_pushing_producer_and_a_clogged_pipe(world: World, queued: int) -> Record:
    """The pipe is filled first, so that what is written then stays queued in both worlds."""
    child = sh(world, COUNT_LATE, childFDs=WITH_GO)
    await _fill(child)
    producer = Producer()
    child.transport.registerProducer(producer, True)
    child.transport.write(b"x" * queued)
    await turns()
    clogged = list(producer.told)
    child.transport.closeChildFD(3)
    await until(lambda: not clogged or producer.told[-1] == "resume")
    child.transport.unregisterProducer()
    child.transport.closeStdin()
    return {"clogged": clogged, "drained": producer.told, **await end_of(child)}


async def _fill(child: Any) -> None:
    """Fill the pipe to the child's standard input to the brim, and queue nothing."""
    pipe_fd = child.transport.pipes[0].fileno()
    try:
        while True:
            os.write(pipe_fd, b"f" * 4096)
    except BlockingIOError:
        pass
    await turns()


@scenario
async def a_pushing_producer_is_paused_once(world: World) -> Record:
    child = sh(world, COUNT_LATE, childFDs=WITH_GO)
    await _fill(child)
    producer = Producer()
    child.transport.registerProducer(producer, True)
    for _ in range(5):
        child.transport.write(b"x" * 100_000)
    clogged = list(producer.told)
    child.transport.closeChildFD(3)
    await until(lambda: "resume" in producer.told)
    child.transport.unregisterProducer()
    child.transport.closeStdin()
    return {"clogged": clogged, "drained": producer.told, **await end_of(child)}


@scenario
async def a_pushing_producer_is_paused_by_writeSequence_too(world: World) -> Record:
    child = sh(world, COUNT_LATE, childFDs=WITH_GO)
    await _fill(child)
    producer = Producer()
    child.transport.registerProducer(producer, True)
    child.transport.writeSequence([b"x" * 50_000, b"y" * 50_000])
    clogged = list(producer.told)
    child.transport.unregisterProducer()
    child.transport.closeChildFD(3)
    child.transport.closeStdin()
    return {"clogged": clogged, **await end_of(child)}


@scenario
async def a_pulled_producer_is_asked_until_it_has_no_more(world: World) -> Record:
    child = spawn(world, CAT)
    producer = Pulled(child.transport, [b"one ", b"two ", b"three"])
    child.transport.registerProducer(producer, False)
    story = await end_of(child)
    return {"told": producer.told, **story}


@scenario
async def a_pulled_producer_of_large_pieces(world: World) -> Record:
    child = sh(world, "wc -c")
    producer = Pulled(child.transport, [b"x" * 200_000] * 5)
    child.transport.registerProducer(producer, False)
    story = await end_of(child)
    return {"told": producer.told, **story}


@each({"pushes": True, "is pulled": False})
async def a_producer_whose_child_ends(world: World, streaming: bool) -> Record:
    child = sh(world, "read x; exit 5")
    producer = Producer()
    child.transport.registerProducer(producer, streaming)
    child.transport.write(b"\n")
    await until(child.is_over)
    await turns()
    return {"stopped": producer.told.count("stop"), **child.story()}


@scenario
async def closeStdin_does_not_wait_for_a_pushing_producer(world: World) -> Record:
    child = spawn(world, CAT)
    producer = Producer()
    child.transport.registerProducer(producer, True)
    child.transport.write(b"data")
    child.transport.closeStdin()
    return {**await end_of(child), "told": producer.told}


@scenario
async def closeStdin_waits_for_a_paused_producer(world: World) -> Record:
    child = sh(world, COUNT_LATE, childFDs=WITH_GO)
    await _fill(child)
    producer = Producer()
    child.transport.registerProducer(producer, True)
    child.transport.write(b"x" * 100_000)
    child.transport.closeStdin()
    child.transport.closeChildFD(3)
    await until(lambda: "resume" in producer.told)
    await turns()
    lost_early = child.has_lost(0)
    child.transport.write(b"more")
    child.transport.unregisterProducer()
    return {"lost early": lost_early, **await end_of(child), "told": producer.told}


@scenario
async def closeStdin_waits_for_a_pulled_producer(world: World) -> Record:
    child = spawn(world, CAT)
    producer = Pulled(child.transport, [b"one ", b"two ", b"three"])
    child.transport.registerProducer(producer, False)
    child.transport.closeStdin()
    story = await end_of(child)
    return {**story, "told": producer.told}


@scenario
async def unregisterProducer_without_a_producer(world: World) -> Record:
    child = spawn(world, CAT)
    result = outcome(child.transport.unregisterProducer)
    child.transport.closeStdin()
    return {"unregister": result, **await end_of(child)}


@scenario
async def loseConnection_stops_a_pushing_producer(world: World) -> Record:
    child = sh(world, "cat >/dev/null; exit 5")
    producer = Producer()
    child.transport.registerProducer(producer, True)
    child.transport.loseConnection()
    return {**await end_of(child), "told": producer.told}


@scenario
async def an_exception_in_stopProducing(world: World) -> Record:
    class Sulking(Producer):
        def stopProducing(self) -> None:
            raise LookupError("not now")

    child = sh(world, "read x; exit 5")
    child.transport.registerProducer(Sulking(), True)
    child.transport.write(b"\n")
    over = await happens(child.is_over)
    return {"over": over, "logged": world.logged}


@each({"pushes": True, "is pulled": False})
async def a_producer_for_a_terminal(world: World, streaming: bool) -> Record:
    child = sh(world, "stty -echo; echo ready; read x; echo got $x; exit 5", usePTY=True)
    await until(lambda: "ready" in child.text())
    pulled = Pulled(child.transport, [b"one ", b"two\n"])
    producer = Producer() if streaming else pulled
    child.transport.registerProducer(producer, streaming)
    if streaming:
        child.transport.write(b"one two\n")
    await until(child.is_over)
    return {"stopped": producer.told.count("stop"), **child.story()}
