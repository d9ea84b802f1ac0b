"""subprocess.run with captured output, in as many threads as children may be alive."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.adapters.spawn import ENVIRONMENT, NOBODY, PATH, identity_way

__all__ = ["IMPORTS", "WAYS", "hold", "spawn_many"]

WAYS = frozenset({"plain", "path"}) | identity_way()
IMPORTS = {"package": "import subprocess"}

_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "path": {"cwd": PATH},
    "identity": {"user": NOBODY, "group": NOBODY, "extra_groups": []},
}


def spawn_many(argv: Sequence[str], count: int, at_once: int, way: str) -> float:
    """See `benchmarks.adapters.spawn`."""
    options = _OPTIONS[way]

    def run_one(_: int) -> None:
        subprocess.run(argv, input=b"", capture_output=True, check=True, env=ENVIRONMENT, **options)

    begun_s = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(run_one, range(count)):
            pass
    return time.perf_counter() - begun_s


class hold:  # noqa: N801  # a capability, named as the others
    """Popen objects."""

    def __init__(self, argv: Sequence[str], count: int) -> None:
        pipe = subprocess.PIPE
        self._children = [
            subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT)
            for _ in range(count)
        ]

    def end_all(self) -> float:
        """See `benchmarks.adapters.spawn.Held`."""
        begun_s = time.perf_counter()
        for child in self._children:
            if child.stdin:
                child.stdin.close()
        for child in self._children:
            for stream in (child.stdout, child.stderr):
                if stream:
                    stream.read()
                    stream.close()
            if child.wait() != 0:
                raise RuntimeError(f"a child ended with {child.returncode}")
        self._children.clear()
        return time.perf_counter() - begun_s
