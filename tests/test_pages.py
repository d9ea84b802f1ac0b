"""The pages in docs/ and the README do what they say: every snippet is run, and what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from procreactor.apps.cli.table import NOT_OFFERED

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```(python|sh)\n(.*?)```\n\n```output\n(.*?)```", re.DOTALL)
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
SNIPPETS = [
    pytest.param(*found.groups(), id=f"{page.stem}-{number}")
    for page in PAGES
    for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
]


def run_there(
    command: list[str], where: Path, tools: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """How *command* ended in *where*, with ``procreactor`` and *tools*, shell scripts, in PATH."""
    scripts = {"procreactor": f'exec "{sys.executable}" -W error -m procreactor "$@"', **tools}
    programs = where / "bin"
    programs.mkdir()
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return subprocess.run(
        command,
        cwd=where,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("language", "text", "output"), SNIPPETS)
def test_a_snippet_prints_what_the_page_says(
    tmp_path: Path, language: str, text: str, output: str
) -> None:
    python = [sys.executable, "-W", "error", "-c", text]
    done = run_there(python if language == "python" else ["/bin/sh", "-e", "-c", text], tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (output, "", 0)


COMMANDS = re.findall(r"(?m)^    (.*\bprocreactor run .*)$", README.read_text(encoding="utf-8"))
"""Those of the README's snippets for a shell that are about it."""

MAN = {} if shutil.which("man") else {"man": 'test "$*" = "-l -" && cat'}
"""Where there is no man(1), a reader of the same words."""

SAYS = {
    "seq 4 |": "item 1\nitem 2\nitem 3\nitem 4\n",
    "procreactor run --man |": "--keep-order",
    "procreactor run --completion ": "complete -o default -F _procreactor procreactor",
}
"""What each prints, among other things, by how it begins."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_does_what_it_says(tmp_path: Path, command: str) -> None:
    done = run_there(["/bin/bash", "-o", "pipefail", "-c", command], tmp_path, MAN)
    assert (done.stderr, done.returncode) == ("", 0)
    said = [words for start, words in SAYS.items() if command.startswith(start)]
    assert len(said) == 1
    assert said[0] in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_the_completion_that_the_readme_names(tmp_path: Path, shell: str) -> None:
    command = f"procreactor run --completion {shell}"
    done = run_there(["/bin/sh", "-c", command], tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "--keep-order" in done.stdout or "-l keep-order" in done.stdout
    if shutil.which(shell):  # they read it without running it
        read = subprocess.run([shell, "-n"], input=done.stdout, capture_output=True, text=True)
        assert (read.stderr, read.returncode) == ("", 0)


NONE = [
    (page.stem, words)
    for page in PAGES
    for row in re.findall(r"(?m)^\| (.*) \| none \| each is an error", page.read_text("utf-8"))
    for words in re.findall(r"`([^`]+)`", row)
]
"""What those pages say is not there."""


@pytest.mark.parametrize(("page", "words"), NONE)
def test_what_a_page_says_is_not_there_is_refused_by_its_name(
    tmp_path: Path, page: str, words: str
) -> None:
    before = "" if words.startswith("-") else "echo"
    command = f"procreactor run {before} '{words}' echo ::: a"
    done = run_there(["/bin/sh", "-c", command], tmp_path)
    assert (done.stdout, done.returncode) == ("", 255)
    assert re.fullmatch(f"procreactor run: {re.escape(words)} of .* not offered; .*\n", done.stderr)


def test_the_page_and_the_command_know_the_same_that_is_not_there() -> None:
    assert {words for _, words in NONE} == {*NOT_OFFERED, "{= =}"}


def test_every_snippet_has_its_output_and_every_page_is_linked() -> None:
    readme = README.read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^```(?:python|sh)$", text, re.MULTILINE)) == len(
            BLOCK.findall(text)
        )
        assert f"(docs/{page.name})" in readme
    assert len(PAGES) == 2
