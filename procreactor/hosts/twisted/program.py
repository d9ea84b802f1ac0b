"""The starter: any Twisted program, unchanged, on our reactor.

The program is run in this very process, as ``__main__``, after the reactor has been installed: what
it imports as ``twisted.internet.reactor`` is ours. So a program that insists on a reactor of its
own (``trial --reactor=epoll``) fails as it does whenever two are asked for.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from procreactor.hosts.twisted.reactor import install

__all__ = ["main"]

PLUG_IN_PATH = Path(__file__).with_name("plugin_path")
"""With this directory on PYTHONPATH, Twisted's programs know ``--reactor=procreactor``."""

_USAGE = """\
usage: python -m procreactor.hosts.twisted PROGRAM [ARG ...]
       python -m procreactor.hosts.twisted -m MODULE [ARG ...]
       python -m procreactor.hosts.twisted --plugin-path

Run a Twisted program on procreactor's reactor. PROGRAM is a Python file, or a
console script (trial, twistd, buildbot-worker) that is found in PATH or beside
this Python. --plugin-path prints a directory: with that on PYTHONPATH, Twisted's
own programs have --reactor=procreactor.
"""


def main(argv: Sequence[str]) -> int | str | None:
    """Run the program that *argv* asks for; return an exit status, or what is wrong with *argv*."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0 if argv else 2
    if argv[0] == "--plugin-path":
        print(PLUG_IN_PATH)
        return 0
    if argv[0] == "-m":
        if len(argv) < 2:
            return "-m needs the name of a module"
        install()
        sys.argv[:] = argv[1:]  # runpy puts the module's file there
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        return None
    if argv[0].startswith("-"):
        return f"unknown option {argv[0]}\n{_USAGE}"
    program = _find(argv[0])
    if program is None:
        return f"{argv[0]!r} is no file here, and no program in PATH or beside {sys.executable}"
    with open(program, "rb") as file:
        if b"\0" in file.read(4096):
            return f"{program!r} is no Python program"
    install()
    sys.argv[:] = [program, *argv[1:]]
    sys.path[0] = os.path.dirname(os.path.realpath(program))  # what Python does for a script
    runpy.run_path(program, run_name="__main__")
    return None


def _find(program: str) -> str | None:
    """The file that *program* names: as it is, in PATH, or beside this Python."""
    if os.path.isfile(program):
        return program
    return shutil.which(program) or shutil.which(program, path=os.path.dirname(sys.executable))
