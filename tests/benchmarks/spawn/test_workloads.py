"""Every workload of spawning, in miniature, by those adapters that need nothing installed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest
from support import PROC

from benchmarks.build import ROOT
from benchmarks.plan import workloads

LOOPS = ("procreactor", "hosted", "twisted", "asyncio")
EVERY = (*LOOPS, "subprocess", "posix_spawn", "limit1", "limit2")
HOLDERS = (*LOOPS, "subprocess")
COMMANDS = ("procreactor run", "procreactor run -u", "xargs")


def growth(what: str, size: float, way: str = "plain") -> dict[str, Any]:
    return {"what": what, "size": size, "way": way, "seconds": 0.0, "rounds": 1}


def rate(program: str = "tiny", way: str = "plain") -> dict[str, Any]:
    return {"program": program, "at_once": 2, "way": way, "seconds": 0.0}


SMALL_MEMORY = growth("memory", 1 / 64)

CASES: list[tuple[str, str, dict[str, Any]]] = [
    *(("spawn_rate", library, rate()) for library in EVERY),
    ("spawn_rate", "procreactor", rate("true")),
    *(("spawn_rate", library, rate()) for library in COMMANDS),
    ("spawn_rate", "run_many", rate()),
    ("spawn_rate", "run_many", rate(way="path")),
    ("spawn_rate", "batch", rate()),
    ("spawn_rate", "batch", rate(way="path")),
    *(("growth", library, growth("fds", 100)) for library in EVERY),
    *(("growth", library, growth("live children", 10)) for library in EVERY),
    ("growth", "procreactor", SMALL_MEMORY),
    ("growth", "limit1", SMALL_MEMORY),
    ("growth", "procreactor", growth("fds", 10, "path")),
    ("growth", "procreactor", growth("fds", 10, "pty")),
    ("growth", "hosted", SMALL_MEMORY),
    ("growth", "hosted", growth("fds", 10, "path")),
    ("growth", "hosted", growth("fds", 10, "pty")),
    ("growth", "subprocess", growth("fds", 10, "path")),
    *(("exit_storm", library, {"count": 5, "rounds": 2}) for library in HOLDERS),
    *(("idle", library, {"count": 3, "seconds": 0.1}) for library in LOOPS),
    *(("memory", library, {"count": 8}) for library in HOLDERS),
    *(("stall", library, {"delay_ms": 0, "count": 3}) for library in (*LOOPS, "batch")),
    ("import_time", "procreactor", {"what": "package", "runs": 2}),
    ("import_time", "procreactor", {"what": "reactor", "runs": 2}),
    ("import_time", "hosted", {"what": "package", "runs": 2}),
    ("import_time", "hosted", {"what": "reactor", "runs": 2}),
    ("import_time", "run_many", {"what": "package", "runs": 2}),
    ("ordered_output", "procreactor run", {"jobs": 3, "total_bytes": 600_000}),
    ("ordered_output", "procreactor run", {"jobs": 3, "total_bytes": 600_000, "work": 1000}),
    *(("command_start", library, {"runs": 2}) for library in (*COMMANDS, "python")),
]


# The C programs ask the kernel for a pidfd and a table of fds, or do not start a child.
by_limit = pytest.mark.needs("pidfd", "unshare")

by_proc = pytest.mark.needs("/proc")
pytestmark = pytest.mark.needs("threads")  # half of the peers have some


def marks_of(workload: str, library: str, params: dict[str, Any]) -> list[pytest.MarkDecorator]:
    starts = library in ("limit1", "limit2") and workload in ("spawn_rate", "growth")
    looks = workload in ("idle", "memory") or params.get("what") == "memory"
    return [by_limit] * starts + [by_proc] * looks


def ask(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("workload", "library", "params"),
    [pytest.param(*case, marks=marks_of(*case)) for case in CASES],
    ids=[f"{workload}-{library}-{place}" for place, (workload, library, _) in enumerate(CASES)],
)
def test_a_workload_gives_its_figures(workload: str, library: str, params: dict[str, Any]) -> None:
    answer = ask("spawn", library, workload, json.dumps(params))
    figures = answer["figures"]
    assert figures.keys() == workloads()[workload].UNITS.keys()
    assert all(math.isfinite(figure) for figure in figures.values())
    if workload in ("spawn_rate", "growth", "exit_storm", "stall", "ordered_output"):
        assert all(figure > 0 for figure in figures.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another user")
@pytest.mark.parametrize("library", ["procreactor", "hosted", "twisted", "subprocess"])
def test_the_way_identity_is_measured_by_root(library: str) -> None:
    answer = ask("spawn", library, "growth", json.dumps(growth("fds", 10, "identity")))
    assert answer["figures"]["empty_us"] > 0


def test_a_way_that_an_adapter_does_not_know_is_not_measured_as_another() -> None:
    answer = ask("spawn", "limit1", "growth", json.dumps(growth("fds", 10, "path")))
    assert "path" in answer["skipped"]


@by_limit
def test_more_fds_than_there_can_be_are_not_possible() -> None:
    answer = ask("spawn", "limit1", "growth", json.dumps(growth("fds", 1e9)))
    assert "RLIMIT_NOFILE" in answer["skipped"]


@by_limit
@by_proc
def test_more_memory_than_there_is_is_not_possible() -> None:
    answer = ask("spawn", "limit1", "growth", json.dumps(growth("memory", 1e6)))
    assert "memory" in answer["skipped"]


def test_a_slow_file_is_a_program_like_any_other_and_leaves_no_mount() -> None:
    code = (
        "import os, subprocess\n"
        "from benchmarks.build import target\n"
        "from benchmarks.model import NotPossible\n"
        "from benchmarks.slowfs import slow_copy\n"
        "try:\n"
        "    with slow_copy(target('tiny'), 0.01) as path:\n"
        "        assert open(path, 'rb').read() == open(target('tiny'), 'rb').read()\n"
        "        assert os.path.ismount(os.path.dirname(path))\n"
        "        subprocess.run([path], check=True)\n"
        "    assert not os.path.exists(os.path.dirname(path))\n"
        "except NotPossible as reason:\n"
        "    print(reason)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    if done.stdout:
        pytest.skip(done.stdout)


def test_a_stall_at_a_slow_file_is_measured_where_mounts_are_possible() -> None:
    answer = ask("spawn", "procreactor", "stall", json.dumps({"delay_ms": 1, "count": 2}))
    assert set(answer) in ({"figures"}, {"skipped"})


WHO_STARTED = """
import sys
import benchmarks.adapters.spawn.{library} as adapter
from benchmarks.build import target
from twisted.internet import process, protocol, reactor
with_protocols_of = adapter._spawner._base
assert with_protocols_of is protocol.ProcessProtocol, with_protocols_of
assert adapter._spawner.reactor is reactor, reactor
held = adapter.hold([target('hold')], 1)
(child,) = process.reapProcessHandlers.values()
held.end_all()
ours = [name for name in sys.modules if name.split('.')[0] == 'procreactor']
print(type(reactor).__module__, type(child).__module__, len(ours) > 0)
"""


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("twisted", "twisted.internet.epollreactor twisted.internet.process False"),
        ("hosted", "procreactor.hosts.twisted.reactor procreactor.hosts.twisted.transports True"),
    ],
)
def test_hosted_and_twisted_differ_in_the_reactor_alone(library: str, names: str) -> None:
    code = WHO_STARTED.format(library=library)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (names, "")


@pytest.mark.parametrize(
    "library",
    [
        *("procreactor", "batch", "run_many", "command", "xargs"),
        *("hosted", "twisted", "asyncio", "subprocess", "limit1"),
    ],
)
def test_a_child_that_fails_is_no_measurement(library: str) -> None:
    code = (
        "import sys\n"
        f"import benchmarks.adapters.spawn.{library} as adapter\n"
        "try:\n    adapter.spawn_many(['/bin/false'], 2, 1, 'plain')\n"
        "except Exception:\n    sys.exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr


def test_held_children_live_until_they_are_ended() -> None:
    code = (
        "import os, pathlib\n"
        "from benchmarks.adapters.spawn import _bare, hosted, procreactor, subprocess\n"
        "from benchmarks.build import target\n"
        "def children():\n"
        f"    path = pathlib.Path(f'{PROC}/self/task/{{os.getpid()}}/children')\n"
        "    return len(path.read_text().split())\n"
        "for hold in (procreactor.hold, hosted.hold, subprocess.hold, _bare.BareHeld):\n"
        "    held = hold([target('hold')], 3)\n"
        "    assert children() == 3, hold\n"
        "    held.end_all()\n"
        "    assert children() == 0, hold\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
