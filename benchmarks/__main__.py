"""``python -m benchmarks``: spawn rates side by side; see --help."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TARGETS = Path(__file__).resolve().parent / "targets"
ADAPTERS = {
    "procreactor": "benchmarks.adapters.procreactor_api",
    "subprocess": "benchmarks.adapters.subprocess_api",
    "asyncio": "benchmarks.adapters.asyncio_api",
    "twisted": "benchmarks.adapters.twisted_api",
}


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--children", type=int, default=1000, help="per measurement")
    parser.add_argument("--at-once", type=int, default=16, help="children alive at most")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each")
    parser.add_argument("--only", nargs="*", choices=ADAPTERS, default=list(ADAPTERS))
    return parser.parse_args(arguments)


def build_tiny(folder: str) -> str:
    """Return the path of the static target, built into *folder*."""
    program = os.path.join(folder, "tiny")
    flags = ["-O2", "-static", "-nostdlib", "-nostartfiles", "-fno-stack-protector"]
    subprocess.run(["gcc", *flags, "-o", program, str(TARGETS / "tiny.c")], check=True)
    return program


def measure(adapter: str, program: str, children: int, at_once: int) -> float:
    """Return the microseconds per child of one measurement, in a process of its own."""
    command = [sys.executable, "-m", ADAPTERS[adapter], program, str(children), str(at_once)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output) / children * 1e6


def main(arguments: Sequence[str]) -> None:
    """Measure, in turn and repeatedly, and print a table."""
    options = parse_arguments(arguments)
    adapters = list(options.only)
    if importlib.util.find_spec("twisted") is None and "twisted" in adapters:
        print("twisted is not installed and is left out (pip install 'procreactor[test]')")
        adapters.remove("twisted")
    print(f"{platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"{options.children} children, {options.at_once} at once, three pipes each;")
    print(f"microseconds per child: median of {options.repeats}, (least - most), ratio of medians")
    with tempfile.TemporaryDirectory() as folder:
        for program in (build_tiny(folder), "/bin/true"):
            results: dict[str, list[float]] = {adapter: [] for adapter in adapters}
            for _ in range(options.repeats):
                for adapter in adapters:  # interleaved: a slow moment hits all alike
                    results[adapter].append(
                        measure(adapter, program, options.children, options.at_once)
                    )
            show(os.path.basename(program), results)


def show(program: str, results: dict[str, list[float]]) -> None:
    """Print the rows of one workload."""
    print(f"\n{program}")
    first = statistics.median(next(iter(results.values())))
    for adapter, times_us in results.items():
        median = statistics.median(times_us)
        spread = f"({min(times_us):.0f} - {max(times_us):.0f})"
        print(f"  {adapter:12} {median:8.0f}  {spread:16} x{median / first:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
