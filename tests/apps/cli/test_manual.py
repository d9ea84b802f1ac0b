"""The man page, the help and the completions: they name all options, their readers take them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from procreactor.apps.cli.manual import COMMANDS, completion, help_text, man_page
from procreactor.apps.cli.table import OPTIONS

NAMES = [name for option in OPTIONS for name in option.names]


def test_the_help_has_every_option_and_fits_a_terminal() -> None:
    text = help_text()
    assert [name for name in NAMES if name not in text] == []
    assert max(map(len, text.splitlines())) <= 79
    assert text.endswith("\n")


def test_the_man_page_has_every_option() -> None:
    page = man_page("1.2.3").replace(r"\-", "-")
    assert [name for name in NAMES if rf"\fB{name}\fR" not in page] == []
    assert "procreactor 1.2.3" in page


def formatted(page: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "procreactor-run.1"
    file.write_text(page, encoding="utf-8")
    command = ["man", "--warnings=w", "-E", "UTF-8", "-l", str(file)]
    environment = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "MANPAGER": "cat",
        "MANWIDTH": "80",
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_man_takes_the_page_without_a_warning(tmp_path: Path) -> None:
    said = formatted(man_page("1.2.3"), tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert "--keep-order" in said.stdout
    assert r"\n, \t, \0, \xHH or \NNN" in " ".join(said.stdout.split())
    assert "find . -name '*.log' -print0 | procreactor run -0 -j4 gzip" in said.stdout


def test_man_would_have_warned(tmp_path: Path) -> None:
    assert "warning" in formatted(man_page("1.2.3") + "\n.nosuchmacro\n", tmp_path).stderr


# --- Bash -----------------------------------------------------------------------------------------

READ = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_procreactor
printf '%s\\n' "${COMPREPLY[@]}"
"""


by_bash = pytest.mark.needs("/proc")  # its <(...) is a file of /dev/fd


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "procreactor.bash"
    file.write_text(completion("bash"), encoding="utf-8")
    return file


def complete(script: Path, *words: str, before: str = "", cwd: Path | None = None) -> list[str]:
    """What bash offers for the last of *words*, which follow the name of the program."""
    command = ["bash", "--norc", "-c", before + READ, "bash", str(script), "procreactor", *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    assert said.stderr == ""
    return said.stdout.split()


@by_bash
def test_sub_commands_are_completed(script: Path) -> None:
    assert complete(script, "") == list(COMMANDS)
    assert complete(script, "d") == ["doctor"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("--keep",), ["--keep-order"]),
        (("-k", "-j", "4", "--resume-"), ["--resume-failed"]),
        (("--halt", "now,f"), ["now,fail=1"]),
        (("--halt", "=", "now,s"), ["now,success=1"]),
        (("--trim", ""), ["n", "l", "r", "lr", "rl"]),
        (("--trim", "="), ["n", "l", "r", "lr", "rl"]),
        (("--trim", "=", "n", "--xargs-e"), ["--xargs-exit"]),
        (("--trim", "n", "--completion", "z"), ["zsh"]),
        (("-j", "--"), []),
        (("echo", "--keep"), []),
        (("--", "echo", "--keep"), []),
        (("-j", "4", "echo", ":::", "-"), []),
    ],
)
@by_bash
def test_options_and_values_are_completed_up_to_the_command(
    script: Path, words: tuple[str, ...], offered: list[str]
) -> None:
    assert complete(script, "run", *words) == offered


@by_bash
def test_all_options_are_offered(script: Path) -> None:
    assert sorted(complete(script, "run", "-")) == sorted(NAMES)


def test_other_sub_commands_have_no_such_options(script: Path) -> None:
    assert complete(script, "doctor", "--keep") == []


@by_bash
def test_the_command_is_one_in_path(script: Path) -> None:
    assert "printf" in complete(script, "run", "-k", "print")
    assert "printf" in complete(script, "run", "--", "print")


@by_bash
def test_a_directory_is_completed_as_one(script: Path, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "diary").touch()
    assert complete(script, "run", "--wd", "d", cwd=tmp_path) == ["directory"]


def test_within_the_command_its_own_completion_is_asked(script: Path) -> None:
    offset = "_command_offset() { COMPREPLY=(at-$1); }\n"
    assert complete(script, "run", "-j", "4", "git", "che", before=offset) == ["at-4"]
    assert complete(script, "run", "-k", "--", "git", "che", before=offset) == ["at-4"]


def test_bash_itself_knows_the_completion(script: Path) -> None:
    said = subprocess.run(
        ["bash", "--norc", "-c", 'source "$1"; complete -p procreactor', "bash", str(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "complete -o default -F _procreactor procreactor\n"


# --- The others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_are_told_every_option(shell: str) -> None:
    text = completion(shell)
    for name in NAMES:
        in_fish = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
        assert (f"'{name}" if shell == "zsh" else f" {in_fish} ") in text
