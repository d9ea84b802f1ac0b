"""The pages in docs/ do what they say: every snippet is run, and its output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```(python|sh)\n(.*?)```\n\n```output\n(.*?)```", re.DOTALL)
PAGES = sorted((ROOT / "docs").glob("*.md"))
SNIPPETS = [
    pytest.param(*found.groups(), id=f"{page.stem}-{number}")
    for page in PAGES
    for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("language", "text", "output"), SNIPPETS)
def test_a_snippet_prints_what_the_page_says(
    tmp_path: Path, language: str, text: str, output: str
) -> None:
    program = tmp_path / "bin" / "procreactor"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m procreactor "$@"\n')
    program.chmod(0o755)
    python = [sys.executable, "-W", "error", "-c", text]
    done = subprocess.run(
        python if language == "python" else ["/bin/sh", "-e", "-c", text],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (output, "", 0)


def test_every_snippet_has_its_output_and_every_page_is_linked() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^```(?:python|sh)$", text, re.MULTILINE)) == len(
            BLOCK.findall(text)
        )
        assert f"(docs/{page.name})" in readme
    assert len(PAGES) == 2
