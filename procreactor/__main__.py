"""``procreactor COMMAND``, or ``python -m procreactor COMMAND``."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from procreactor import __version__
from procreactor.typed import NoReturn

__all__ = ["entry", "main"]

_USAGE = """\
Usage: procreactor COMMAND [ARG ...]

  run       run a command for each item of input, many at a time
  doctor    print what this machine lets us do, and what it costs where it does not
  bench     measure this machine against the limit and the peers (in a checkout)

procreactor COMMAND --help says more of each; procreactor --version prints the version.
"""


_OBJECTS_OF_A_RUN = 100_000
"""The jobs that run hold thousands of objects, none in a circle: to look through them each time
that 700 have come is a tenth of the work per job."""


_OF_SIGPIPE = 128 + 13
"""What a shell says of one whose reader has gone."""


def entry() -> NoReturn:
    """`main`, and the end of the process, which is left for the kernel to clean up.

    Of a run of one short command, a sixth would go for looking through all that was imported, and
    for taking it apart at the end.
    """
    gc.set_threshold(_OBJECTS_OF_A_RUN)
    _fill_standard_fds()
    try:
        status = main()
    except KeyboardInterrupt:
        _die_of_interrupt()
        raise
    if sys.stderr is not None:
        sys.stderr.flush()
    os._exit(status)


def _fill_standard_fds() -> None:
    """Have nothing else become standard input, output or error where one of them was closed.

    What stands there can be neither read nor written, each the other way round: as if it were
    still closed.
    """
    for fd, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)  # which gets the lowest number that is free: this one


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (words[0], words[1:]) if words else ("", [])
    try:
        status = _do(command, rest)
        if sys.stdout is not None:  # as it is where fd 1 was closed when we were started
            sys.stdout.flush()
    except BrokenPipeError:  # who reads it has seen enough; and the interpreter would flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _OF_SIGPIPE
    return status


def _die_of_interrupt() -> None:
    """So that who started us sees what it was; there is nothing to be said of it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _do(command: str, arguments: Sequence[str]) -> int:
    if command == "run":
        from procreactor.apps.cli.main import run

        return run(arguments, __version__)
    if command == "doctor":
        from procreactor import doctor

        return doctor.main(arguments)
    if command == "bench":
        return _bench(arguments)
    if command in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    if command in ("-V", "--version"):
        print(f"procreactor {__version__}")
        return 0
    what = f"unknown command {command!r}" if command else "no command given"
    print(f"procreactor: {what}\n\n{_USAGE}", file=sys.stderr, end="")
    return 2


def _bench(arguments: Sequence[str]) -> int:
    """Become the suite, which is part of a checkout and not of the package."""
    if not os.path.exists(os.path.join("benchmarks", "__main__.py")):
        print("procreactor bench: run it in a checkout, which has benchmarks/", file=sys.stderr)
        return 2
    return os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *arguments])


if __name__ == "__main__":
    entry()
