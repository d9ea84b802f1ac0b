"""``python -m benchmarks``: procreactor, its peers and the limit side by side; see --help."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import compare, plots, report, suite
from benchmarks.model import Report
from benchmarks.plan import MEANINGS, libraries, workloads


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    names = list(dict.fromkeys(library for _, library in libraries()))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look, in some two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="print what changed against a kept result"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(workloads()), metavar="WORKLOAD", help="not all of them"
    )
    parser.add_argument(
        "--libraries", nargs="+", choices=names, metavar="NAME", help="not all of them"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="of each measurement")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write PNGs (matplotlib)")
    parser.add_argument("--list", action="store_true", help="what there is, measuring nothing")
    options = parser.parse_args(arguments)
    if options.repeats is not None and options.repeats < 1:
        parser.error("--repeats must be 1 or more")
    return options


def _list() -> None:
    print("workloads (--only):")
    for name, module in workloads().items():
        print(f"  {name:15} {(module.__doc__ or '').splitlines()[0]}")
        for point in module.PARAMS:
            print(f"    {'      ' if point.quick is None else 'quick '} {point.name}")
    print("libraries (--libraries):")
    for (kind, library), offer in suite.describe_all().items():
        state = f"not installed: {offer.missing}" if offer.missing else MEANINGS.get(library, "")
        print(f"  {kind:6} {library:15} {state}".rstrip())


def main(arguments: Sequence[str]) -> int:
    """Measure, report, and return the exit code: 1 when a measurement failed."""
    options = _parse(arguments)
    if options.list:
        _list()
        return 0
    if options.plots is not None:
        plots.require()  # before the minutes, not after them
    old = None
    if options.against is not None:
        old = Report.from_json(json.loads(options.against.read_text(encoding="utf-8")))
    new = suite.run_suite(
        quick=options.quick,
        only=options.only,
        with_libraries=options.libraries,
        repeats=options.repeats,
        tell=lambda text: print(text, file=sys.stderr),
    )
    if options.json is not None:
        options.json.write_text(json.dumps(new.to_json(), indent=1) + "\n", encoding="utf-8")
    print("\n".join(report.render(new)))
    if old is not None:
        print("\n".join(compare.render(old, new)))
    if options.plots is not None:
        for path in plots.draw(new, options.plots):
            print(f"wrote {path}", file=sys.stderr)
    return 1 if new.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
