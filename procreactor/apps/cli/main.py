"""``procreactor run``: from the command line to the exit status."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence

from procreactor.apps.cli.exits import OTHER_ERROR, XARGS_OTHER_ERROR
from procreactor.apps.cli.inputs import InputError
from procreactor.apps.cli.jobs import JobSource
from procreactor.apps.cli.options import OptionError, Options, parse
from procreactor.apps.cli.records import JobLogError, text_of
from procreactor.apps.cli.session import Session, new_results, read_logged

__all__ = ["run"]

_PRINTED_BYTES = 65536


def run(arguments: Sequence[str], version: str) -> int:
    """Do what *arguments*, without the name of the program, say; return the exit status."""
    is_printing = False
    status = OTHER_ERROR
    try:
        options = parse(arguments)
        status = XARGS_OTHER_ERROR if options.xargs_exit else OTHER_ERROR
        is_printing = bool(options.show or options.dry_run)
        if options.show:
            _print(bytearray(_page(options.show, version).encode()))
            return 0
        if options.dry_run:
            return _dry_run(options)
        return Session(options).run()
    except OptionError as error:
        print(f"procreactor run: {error}", file=sys.stderr)
        status = XARGS_OTHER_ERROR if error.is_of_xargs else OTHER_ERROR
    except (InputError, JobLogError, OSError, ImportError) as error:
        if is_printing and isinstance(error, BrokenPipeError):
            raise
        print(f"procreactor: {text_of(error)}", file=sys.stderr)
    return status


def _page(show: str, version: str) -> str:
    from procreactor.apps.cli import manual

    what, _, shell = show.partition(" ")
    if what == "completion":
        return manual.completion(shell)
    if what == "man":
        return manual.man_page(version)
    return manual.help_text() if what == "help" else f"procreactor {version}\n"


def _dry_run(options: Options) -> int:
    """Print the commands that would be run; each waits for its record only."""
    logged = results = None
    if options.joblog is not None and options.resume:
        logged = read_logged(options.joblog)
    elif options.results_kind == "directory" and options.resume:
        results = new_results(options)
    said = bytearray()

    def wait(fd: int) -> None:
        _print(said)
        _wait_readable(fd)

    source = JobSource(options, logged, results, wait)
    try:
        while True:
            command = source.take()
            if command is not None:
                said += source.command_line(source.settle(command, 1)) + b"\n"
            if command is None or len(said) >= _PRINTED_BYTES:
                _print(said)
    except StopIteration:
        return 0
    except KeyboardInterrupt:
        said.clear()  # nobody is waited for any more, not even who reads it
        raise
    finally:
        source.close()
        _print(said)


def _print(said: bytearray) -> None:
    """Write *said*, which is empty then, to standard output; past Python, which would keep it."""
    try:
        while said:
            try:
                del said[: os.write(1, said)]
            except BlockingIOError:
                _wait_for(1, select.POLLOUT)
    except OSError as error:
        said.clear()
        raise OSError(error.errno, error.strerror, "standard output") from None


def _wait_readable(fd: int) -> None:
    _wait_for(fd, select.POLLIN)


def _wait_for(fd: int, events: int) -> None:
    poll = select.poll()
    poll.register(fd, events)
    poll.poll()
