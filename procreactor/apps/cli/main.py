"""``procreactor run``: from the command line to the exit status."""

from __future__ import annotations

import select
import sys
from collections.abc import Sequence

from procreactor.apps.cli.exits import OTHER_ERROR
from procreactor.apps.cli.inputs import InputError
from procreactor.apps.cli.jobs import JobSource
from procreactor.apps.cli.options import OptionError, Options, parse
from procreactor.apps.cli.records import JobLogError
from procreactor.apps.cli.session import Session

__all__ = ["run"]


def run(arguments: Sequence[str], version: str) -> int:
    """Do what *arguments*, without the name of the program, say; return the exit status."""
    try:
        options = parse(arguments)
        if options.show:
            print(_page(options.show, version), end="")
            return 0
        if options.dry_run:
            return _dry_run(options)
        return Session(options).run()
    except OptionError as error:
        print(f"procreactor run: {error}", file=sys.stderr)
    except (InputError, JobLogError, OSError, ImportError) as error:
        print(f"procreactor: {error}", file=sys.stderr)
    return OTHER_ERROR


def _page(show: str, version: str) -> str:
    from procreactor.apps.cli import manual

    what, _, shell = show.partition(" ")
    if what == "completion":
        return manual.completion(shell)
    if what == "man":
        return manual.man_page(version)
    return manual.help_text() if what == "help" else f"procreactor {version}\n"


def _dry_run(options: Options) -> int:
    """Print the commands; each waits for its record only."""
    source = JobSource(options, None, None, _wait_readable)
    out = sys.stdout.buffer
    try:
        while True:
            command = source.take()
            if command is not None:
                out.write(source.command_line(source.settle(command, 1)) + b"\n")
    except StopIteration:
        return 0
    finally:
        source.close()
        out.flush()


def _wait_readable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()
