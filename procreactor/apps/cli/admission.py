"""When the next job may start: --delay, --load, --memfree. The policy is pure, readers are small.

Decisions:

- **Load.** A machine is busy when either the load average of the last minute or the number of
  threads that want to run this moment (ourselves left out) reaches the limit. The average alone
  lets a burst of jobs start before it moves; the moment alone is zero between two short jobs. (GNU
  parallel counts the running processes with ps, GNU make takes the same numbers as we do.)
- **Memory.** Free is what the kernel says a new program could have without swapping, MemAvailable.
  Below the limit nothing starts. Below half of it the youngest job is to be killed and put back in
  the queue, as GNU parallel does, with two differences: it counts as no attempt and no failure, for
  it did nothing wrong, and so needs no --retries; and the last running job is never killed, because
  a run of which no job may finish would never end.
- **The first job** is under no delay, but waits for load and memory as any other.
- A file of /proc that cannot be read (a sandbox) is no reason to stop for ever: its limit is not
  applied. `read_load` and `read_memory` give None then, and who parses the options may warn.

Sources: proc_loadavg(5), proc_meminfo(5), parallel(1).
"""

import os
import time
from typing import NamedTuple

__all__ = ["LOOK_AGAIN_S", "Admission", "AdmissionPolicy", "max_load", "read_load", "read_memory"]

LOOK_AGAIN_S = 0.5
"""How soon a machine that is too busy is looked at again: often enough for jobs of a second."""

_KILL_BELOW = 0.5


class AdmissionPolicy(NamedTuple):
    """What must hold before another job starts; None and 0 ask for nothing."""

    delay_s: float = 0.0
    """Between the starts of two jobs."""

    max_load: float | None = None
    memory_bytes: int | None = None

    def wait_s(
        self,
        now_s: float,
        last_start_s: float | None,
        load: float | None = None,
        memory_available: int | None = None,
    ) -> float:
        """Return in how many seconds to ask again; 0 means that the next job may start now.

        *last_start_s* is None before the first job; *load* and *memory_available* where unknown.
        """
        delay_s = 0.0 if last_start_s is None else last_start_s + self.delay_s - now_s
        is_busy = self._is_too_loaded(load) or self._is_short(memory_available, 1.0)
        return max(delay_s, LOOK_AGAIN_S if is_busy else 0.0, 0.0)

    def must_kill_youngest(self, memory_available: int | None, running: int) -> bool:
        """Tell whether the job that started last is to be killed and put back in the queue."""
        return running > 1 and self._is_short(memory_available, _KILL_BELOW)

    def _is_too_loaded(self, load: float | None) -> bool:
        return self.max_load is not None and load is not None and load >= self.max_load

    def _is_short(self, available: int | None, share: float) -> bool:
        wanted = self.memory_bytes
        return wanted is not None and available is not None and available < wanted * share


class Admission:
    """A policy, asked about this machine as it is now."""

    def __init__(self, policy: AdmissionPolicy) -> None:
        self._policy = policy

    def wait_s(self, last_start_s: float | None) -> float:
        """Return in how many seconds to ask again; 0 means that the next job may start now.

        *last_start_s*, on the clock of time.monotonic, is None before the first job.
        """
        policy = self._policy
        return policy.wait_s(
            time.monotonic(),
            last_start_s,
            read_load() if policy.max_load is not None else None,
            read_memory() if policy.memory_bytes is not None else None,
        )

    def must_kill_youngest(self, running: int) -> bool:
        """Tell whether the youngest of *running* jobs is to be killed and put back in the queue."""
        return self._policy.must_kill_youngest(read_memory(), running)


def max_load(text: str, cpus: int | None = None) -> float:
    """Return the limit that *text* means: a number, or with % so much of all processors.

    0 means 0.01, as in GNU parallel: only on a machine that does nothing else. ValueError.
    """
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if rest or not 0 <= value < float("inf"):
        raise ValueError(f"load must be a number >= 0, or one with %, not {text!r}")
    if percent:
        value *= (cpus or len(os.sched_getaffinity(0))) / 100
    return value or 0.01


def read_load(path: str = "/proc/loadavg") -> float | None:
    """Return the load of this machine: the larger of the last minute's average and of now.

    None where it cannot be read.
    """
    try:
        with open(path, encoding="ascii") as file:
            average, _, _, tasks, *_ = file.read().split()
        running, _, _ = tasks.partition("/")
        return max(float(average), int(running) - 1.0)
    except (OSError, ValueError):
        return None


def read_memory(path: str = "/proc/meminfo") -> int | None:
    """Return how many bytes are available to a new program; None where it cannot be read."""
    try:
        with open(path, encoding="ascii") as lines:
            found = next(line.split() for line in lines if line.startswith("MemAvailable:"))
        return int(found[1]) * 1024
    except (OSError, ValueError, IndexError, StopIteration):
        return None
