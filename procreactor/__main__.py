"""``python -m procreactor COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys

from procreactor import __version__, doctor

__all__ = ["main"]


def main() -> int:
    """Do what the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m procreactor", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"procreactor {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "doctor",
        help="print what this machine lets us do, and what it costs where it does not",
        description=doctor.__doc__,
    )
    parser.parse_args()
    try:
        status = doctor.run()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads it has seen enough; and the interpreter would flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
