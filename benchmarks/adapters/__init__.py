"""One module per library; each has ``run(program, children, at_once) -> seconds``.

Three pipes per child, all output read to its end, every exit status collected, at most *at_once*
children alive. Run as ``python -m benchmarks.adapters.NAME PROGRAM CHILDREN AT_ONCE``, each prints
the seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

Run = Callable[[str, int, int], float]


def main(run: Run) -> None:
    """Run the workload of the command line and print how long it took, in seconds."""
    program, children, at_once = sys.argv[1:]
    run(program, min(50, int(children)), int(at_once))  # warm-up: imports, page cache, probes
    print(run(program, int(children), int(at_once)))
