"""The starter: any Twisted program, unchanged, on our reactor.

The program is run in this very process, as ``__main__``, after the reactor has been installed: what
it imports as ``twisted.internet.reactor`` is ours. So a program that insists on a reactor of its
own (``trial --reactor=epoll``) fails as it does whenever two are asked for.

What it finds is what Python gives a program: argv, path, and a module ``__main__`` that is its own
and stays to the end of the process, for its threads and its functions at exit. (runpy.run_path and
run_module put the old one back when the last line has run, and so take the names away.)
"""

from __future__ import annotations

import builtins
import io
import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from procreactor.hosts.twisted.reactor import install

__all__ = ["main"]

PLUG_IN_PATH = Path(__file__).with_name("plugin_path")
"""With this directory on PYTHONPATH, Twisted's programs know ``--reactor=procreactor``."""

_USAGE = """\
usage: python -m procreactor.hosts.twisted PROGRAM [ARG ...]
       python -m procreactor.hosts.twisted -m MODULE [ARG ...]
       python -m procreactor.hosts.twisted --plugin-path

Run a Twisted program on procreactor's reactor. PROGRAM is a Python file, or a
console script (trial, twistd, buildbot-worker) that is found beside this Python
or in PATH. --plugin-path prints a directory: with that on PYTHONPATH, Twisted's
own programs have --reactor=procreactor.
"""


def main(argv: Sequence[str]) -> int | str | None:
    """Run the program that *argv* asks for; return an exit status, or what is wrong with *argv*."""
    if not argv:
        print(_USAGE, end="", file=sys.stderr)
        return 2
    if argv[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    if argv[0] == "--plugin-path":
        print(PLUG_IN_PATH)
        return 0
    if argv[0] == "-m":
        if len(argv) < 2:
            return "-m needs the name of a module"
        install()
        _run_module(argv[1:])
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
    _run_file(program, argv[1:])
    return None


def _be_main() -> ModuleType:
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main)["__builtins__"] = builtins
    return main


def _run_module(argv: Sequence[str]) -> None:
    sys.argv[:] = argv  # the first becomes the module's file
    _be_main()
    # What Python itself calls for -m; it has no public name.
    runpy._run_module_as_main(argv[0])  # type: ignore[attr-defined]


def _run_file(program: str, arguments: Sequence[str]) -> None:
    sys.argv[:] = [program, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(program))
    main = _be_main()
    file = os.path.join(os.getcwd(), program)
    main.__file__ = file
    main.__loader__ = SourceFileLoader("__main__", file)
    vars(main)["__cached__"] = None
    with io.open_code(file) as source:
        code = compile(source.read(), file, "exec", dont_inherit=True)
    exec(code, vars(main))


def _find(program: str) -> str | None:
    """The file that *program* names: as it is, beside this Python, or in PATH."""
    if os.path.isfile(program):
        return program
    return shutil.which(program, path=os.path.dirname(sys.executable)) or shutil.which(program)
