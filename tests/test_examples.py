"""The examples, and the program in README, do what they say; run as a user would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def run(*command: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, **kwargs
    )


def run_example(name: str, *arguments: str) -> str:
    done = run(sys.executable, "-X", "dev", "-W", "error", str(EXAMPLES / name), *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_wordcount_counts_the_guides_sentence() -> None:
    assert run_example("wordcount.py").splitlines() == [
        "Received counts from wc.",
        "Lines: 1",
        "Words: 6",
        "Characters: 44",
    ]


def test_verbose_sees_all_forty_lines_although_stdin_was_closed_in_the_loop() -> None:
    lines = run_example("verbose.py").splitlines()
    assert lines[0] == "connectionMade!"
    assert "I saw 40 lines" in lines
    assert lines[-3:] == ["processEnded, status 0", "quitting", "Main loop terminated."]
    lost = ["inConnectionLost!", "outConnectionLost!", "errConnectionLost!"]
    assert sorted(line.split()[0] for line in lines if "Lost!" in line) == sorted(lost)


def test_trueandfalse_tells_both_exit_codes() -> None:
    assert run_example("trueandfalse.py").splitlines() == [
        "/bin/true exits with rc=0",
        "/bin/false exits with rc=1",
    ]


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed (Debian: gnupg)")
@pytest.mark.needs("threads")
def test_gpg_decrypts_what_it_encrypted() -> None:
    output = run_example("gpg_decrypt.py")
    assert "decrypted: b'the eagle has landed\\n'" in output
    assert "DECRYPTION_OKAY" in output


def test_burst_counts_its_children() -> None:
    output = run_example("burst.py", "200", "16")
    assert re.fullmatch(
        r"200 children of /bin/true: \d+ per second, life time median [\d.]+ ms,"
        r" p99 [\d.]+ ms, 0 failures\n",
        output,
    )


@pytest.mark.needs("threads")
def test_the_demo_goes_on_without_gpg_and_fortune_and_names_their_packages(tmp_path: Path) -> None:
    for name in ("wc", "sh", "true", "echo"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    env = {**os.environ, "PATH": str(tmp_path)}
    done = run(sys.executable, str(EXAMPLES / "demo.py"), env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Debian has it in gnupg" in done.stdout
    if not os.access("/usr/games/fortune", os.X_OK):
        assert "Debian has it in fortune-mod" in done.stdout
    assert "was told:" in done.stdout
    assert done.stdout.endswith("All went well.\n")


def test_the_programs_in_readme_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    said = []
    for block in blocks:
        done = run(sys.executable, "-W", "error", "-c", block)
        assert (done.returncode, done.stderr) == (0, "")
        said.append(done.stdout)
    assert "sorted: [b'apple', b'fig', b'pear']" in said[0]


@pytest.mark.parametrize(
    ("tools", "package"),
    [
        ((), "python3"),
        (("python3",), "gcc"),
    ],
)
def test_what_the_build_misses_is_named_in_the_first_line(
    tmp_path: Path, tools: tuple[str, ...], package: str
) -> None:
    for name in ("sh", *tools):
        found = os.path.realpath(sys.executable) if name == "python3" else shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    env = {"PATH": str(tmp_path)}
    done = run("/bin/sh", str(ROOT / ".ci" / "preflight"), "python3", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].endswith(f"apt-get install {package}")
