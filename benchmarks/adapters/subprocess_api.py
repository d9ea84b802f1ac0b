"""subprocess.run with captured output, in as many threads as children may be alive."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.adapters import main


def run(program: str, children: int, at_once: int) -> float:
    """Return the seconds for all children."""

    def run_one(_: int) -> None:
        subprocess.run([program], input=b"", capture_output=True, check=True)

    begun_s = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(run_one, range(children)):
            pass
    return time.perf_counter() - begun_s


if __name__ == "__main__":
    main(run)
