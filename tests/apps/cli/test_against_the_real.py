"""The same command lines, given to GNU parallel, to xargs and to us, make the same arguments.

Each case is a command line of all of them. The command is a script that writes down the arguments
it got, byte for byte; ours is not run, its argv is looked at. GNU parallel's shell is kept out by
-q, as far as it goes. Where we mean to differ is in the table at the end, with what each does.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from procreactor.apps.cli.inputs import records
from procreactor.apps.cli.options import parse
from procreactor.apps.cli.template import Template

SCRIPT = """#!/bin/sh
printf '%s\\0' "$#" "$@"
"""

Argvs = list[list[bytes]]


@pytest.fixture(scope="session")
def show(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that writes down how many arguments it has, and each of them."""
    script = tmp_path_factory.mktemp("show") / "show"
    script.write_text(SCRIPT, encoding="ascii")
    script.chmod(0o755)
    return script


@pytest.fixture(scope="session")
def parallel() -> list[str]:
    """GNU parallel, one job at a time, without its thanks and without a shell's reading."""
    found = shutil.which("parallel")
    if found is None or b"GNU parallel" not in run([found, "--version"], b""):
        pytest.fail("GNU parallel is not installed; on Debian: apt-get install parallel")
    return [found, "--will-cite", "--plain", "-k", "-j1", "-q"]


@pytest.fixture(scope="session")
def xargs() -> list[str]:
    """The xargs of GNU."""
    found = shutil.which("xargs")
    if found is None or b"GNU findutils" not in run([found, "--version"], b""):
        pytest.fail("GNU xargs is not installed; on Debian: apt-get install findutils")
    return [found]


def run(command: Sequence[str | bytes], stdin: bytes) -> bytes:
    said = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)
    assert said.stderr == b""
    return said.stdout


def read_back(written: bytes) -> Argvs:
    """The arguments of each run of the script, from what it wrote."""
    words = iter(written.split(b"\0")[:-1])
    return [[next(words) for _ in range(int(count))] for count in words]


def words_of(line: str, show: Path) -> list[str]:
    return [str(show) if word == "show" else word for word in shlex.split(line)]


def theirs(tool: list[str], line: str, stdin: bytes, show: Path) -> Argvs:
    return read_back(run([*tool, *words_of(line, show)], stdin))


def ours(line: str, stdin: bytes, show: Path) -> Argvs:
    options = parse(words_of(line, show))
    template = Template(options.command, marker=options.marker, shell=options.shell)
    fd = os.memfd_create("input")
    try:
        os.write(fd, stdin)
        os.lseek(fd, 0, os.SEEK_SET)
        found = records(options.plan, stdin_fd=fd)
        return [template.render(values, seq, 1)[1:] for seq, values in enumerate(found, 1)]
    finally:
        os.close(fd)


LINES = b"a\nb b\n\nd.e\n"

PARALLEL = [
    # Where the item goes.
    ("show", LINES),
    ("show x", LINES),
    ("show {} x", LINES),
    ("show {} {}", LINES),
    ("show x{}y{}z", LINES),
    ("show {.} {/} {//} {/.} ::: a/b.c /d .e f. g/ h//i a.b/c", b""),
    ("show x{.}y{/}z ::: a/b.c", b""),
    ("show {#} {}", LINES),
    ("show {#}-{%}-{}", LINES),
    ("show {#}", LINES),
    ("show {%}", LINES),
    ("show {1} {1.} {1/} {1//} {1/.} ::: a/b.c", b""),
    ("-I ,, show ,, {} x,,y", LINES),
    ("-I ,, show {/} ::: a/b", b""),
    ("-I ,, show", LINES),
    # Several sources.
    ("show ::: 1 2 ::: a b c", b""),
    ("show {} ::: 1 2 ::: a b c", b""),
    ("show x{}y ::: 1 2", b""),
    ("show {2} {1} ::: 1 2 ::: a b c", b""),
    ("show {-1} {-2} ::: 1 2 ::: a b c", b""),
    ("show {.} {/} ::: p/1.x ::: q/a.y", b""),
    ("show {1}{2}{3} ::: 1 2 ::: a b ::: x y", b""),
    ("show ::: 1 2 3 :::+ a b", b""),
    ("show ::: a b c :::+ 1 2 3 ::: X Y :::+ 11 22", b""),
    ("show ::: X Y ::: a b :::+ 1 2", b""),
    ("--link show ::: 1 2 ::: I II III ::: a b c d e f g", b""),
    ("show {1} {2} ::: 1 2 :::: -", b"a\nb\n"),
    ("-a - show {1} {2} ::: 1 2", b"a\nb\n"),
    # How items are cut.
    ("-0 show", b"a\nb\0c\0"),
    ("-0 show", b"a\0b"),
    ("-d , show", b"a,b,,c"),
    ("-d '\\t' show", b"a\tb\t"),
    ("-d '\\054' show", b"a,b"),
    ("show", b"no newline"),
    ("show", b" a  b \n\tc\t\n"),
    ("show", b"'quo\"ted' \\back$lash`*\n"),
    ("show", b"\xff\xfe\n"),
    ("show", b""),
    ("-r show", b""),
    ("-r show", LINES),
    ("-E b show", b"a\nb\nc\n"),
    ("--trim lr show", b"  a b \n"),
    ("--trim l show", b"  a b \n"),
    # Columns.
    ("--colsep , show {2} {1}", b"a,b\nc,d\n"),
    ("--colsep , show", b"a,b\nc, d \n"),
    ("--colsep , show {}", b"a,b\n"),
    ("--colsep , --trim n show {2}", b"a, b \n"),
    ("--colsep '[-+]' show {3}{1}", b"a-b+c\n"),
    ("--colsep - show {4} {3} {2} {1} ::: A-B C-D ::: e-f g-h", b""),
    # Several records for a job.
    ("-n 2 show", b"a\nb\nc\n"),
    ("-N 2 show", b"a\nb\nc\n"),
    ("-N 2 show {2} {1}", b"a\nb\nc\nd\n"),
    ("-N 2 show {} x", b"a\nb\nc\n"),
    ("-N 2 show ::: 1 2 ::: a b", b""),
    ("-N 0 show x", b"a\nb\n"),
    ("-n 0 show x", b"a\nb\n"),
    ("-L 2 show", b"a\nb\nc\n"),
    ("-N 2 --colsep , show", b"a,b\nc,d\n"),
]


@pytest.mark.parametrize(("line", "stdin"), PARALLEL)
@pytest.mark.needs("/proc")  # for GNU parallel
def test_as_gnu_parallel(line: str, stdin: bytes, parallel: list[str], show: Path) -> None:
    assert ours(line, stdin, show) == theirs(parallel, line, stdin, show)


XARGS = [
    ("-0 -n 1 show", b"a\0b b\0\0c\n"),
    ("-0 -n 2 show x", b"a\0b\0c\0"),
    ("-0 -n 3 show", b"a\0b\0c"),
    ("-d '\\n' -n 1 show", LINES),
    ("-d '\\n' -n 2 show x", LINES),
    ("-d , -n 2 show", b"a,b,c"),
    ("-d '\\x2c' -n 2 show", b"a,b,c"),
    ("-d '\\054' -n 2 show", b"a,b,c"),
    ("-d '\\0' -n 2 show", b"a\0b"),
    ("-I {} show {}", b"a b\nc\n"),
    ("-I ,, show ,, x,,y,, {}", b"a\nb\n"),
    ("-I {} show x{}y {}", b"a\nb\n"),
    ("-0 -I {} show {} {} x", b"a b\0c\nd\0"),
    ("-d '\\n' -I {} show {}", LINES),
    ("-0 -r -n 1 show", b""),
    ("-0 -n 1 show x -k", b"a\0"),
    ("-0 -L 2 show", b"a\0b\0c\0"),
    ("-0 -n 1 -P 1 show", b"\xff\xfe\0\x01 \x02\0"),
]


@pytest.mark.parametrize(("line", "stdin"), XARGS)
def test_as_xargs(line: str, stdin: bytes, xargs: list[str], show: Path) -> None:
    assert ours(line, stdin, show) == theirs(xargs, line, stdin, show)


# --- Where we mean to differ ----------------------------------------------------------------------

DIFFERENCES = [
    # tool, line, standard input, what it does, what we do
    # A word stays one argument, whatever stands in it.
    ("parallel", "show x{}y ::: 1 ::: a", b"", [[b"x1", b"ay"]], [[b"x1 ay"]]),
    ("parallel", "show x{/}y ::: p/1 ::: q/a", b"", [[b"x1", b"ay"]], [[b"x1 ay"]]),
    # A product with nothing is nothing.
    ("parallel", "show {2} ::: 1 :::: /dev/null", b"", [[b""]], []),
    # {} is a marker without -I too.
    ("xargs", "-0 -n 1 show {}x -k", b"a\0", [[b"{}x", b"-k", b"a"]], [[b"ax", b"-k"]]),
    # The item goes to the end also with -I, where no word has the marker.
    ("xargs", "-I {} show x", b"a\n", [[b"x"]], [[b"x", b"a"]]),
    # Lines are items: no quotes, no backslashes, no blanks.
    ("xargs", "-n 1 show", b"a b\n'c d'\n", [[b"a"], [b"b"], [b"c d"]], [[b"a b"], [b"'c d'"]]),
    # No input, no job.
    ("xargs", "-n 1 show x", b"", [[b"x"]], []),
]


def marks_of(tool: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.needs("/proc")] if tool == "parallel" else []


@pytest.mark.parametrize(
    ("tool", "line", "stdin", "its", "ours_is"),
    [pytest.param(*case, marks=marks_of(case[0])) for case in DIFFERENCES],
)
def test_what_each_does_where_we_differ(
    tool: str,
    line: str,
    stdin: bytes,
    its: Argvs,
    ours_is: Argvs,
    show: Path,
    request: pytest.FixtureRequest,
) -> None:
    assert theirs(request.getfixturevalue(tool), line, stdin, show) == its
    assert ours(line, stdin, show) == ours_is
