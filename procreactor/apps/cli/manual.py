"""Pure: the help, the man page and the completions, made of the table of options.

A completion offers the sub-commands, then options and their values up to the command of ``run``,
then whatever the shell completes for that command. The shells' own scripts are templates below;
what stands in them comes from `table`.

Roff: groff_man(7). Completions: bash(1), Programmable Completion; zshcompsys(1), _arguments;
fish's ``complete``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from procreactor.apps.cli.table import GROUPS, OPTIONS, Option

__all__ = ["COMMANDS", "completion", "help_text", "man_page"]

COMMANDS = {
    "run": "run a command for each item of input, many at a time",
    "doctor": "print what this machine lets us do",
    "bench": "measure how fast this machine starts children",
}
"""The sub-commands, and what is said of each."""

_USAGE = (
    "procreactor run [options] [--] command [arg ...] [::: item ...] [:::+ item ...]"
    " [:::: file ...] [::::+ file ...]"
)

_INTRODUCTION = (
    "Run the command once for each item of input, as many at a time as there are CPUs, with the"
    " item put where {} stands, or at the end. Items are the lines of standard input, unless files"
    " (-a, ::::) or words (:::) are given.",
    "The command is executed directly. No shell takes part unless --shell is given, so that an item"
    " is always one argument, whatever is in it. Options end where the command begins.",
    "Several sources of input are crossed: each item of the first is taken with each of the second,"
    " and so on. A source after :::+ or ::::+ goes along with the one before it instead, up to the"
    " end of the shorter.",
)

_REPLACEMENTS = (
    ("{}", "the item; with several of them, as a word of its own, one argument for each"),
    ("{.}", "without its extension"),
    ("{/}", "the last part of its path"),
    ("{//}", "its directory"),
    ("{/.}", "the last part of its path, without extension"),
    ("{1}", "the item of the first source, or the first column; {-1} is the last; {1.}, {1/} ..."),
    ("{#}", "the number of the job"),
    ("{%}", "the number of the slot it runs in, from 1 to as many as run at a time"),
)

_EXIT_STATUS = (
    ("0", "all jobs went well, or as many as --halt success= asks for"),
    ("1-100", "so many failed; with a percentage in --halt, so many per cent"),
    ("101", "more than 100 failed"),
    ("255", "another error, such as an option that is wrong"),
)

_MORE_ON_EXITS = (
    "With --halt fail=1 or done=1 it is the exit status of the job that decided, 128 and the number"
    " of the signal if one killed it.",
    "With --xargs-exit it is 0, 123 when a command failed, 124 when one exited with 255, 125 when"
    " one was killed by a signal, 126 when it cannot be run, 127 when it is not found, and 1 for"
    " another error. After 124 to 127 nothing more is started.",
)

_DIFFERENCES = (
    "From GNU parallel: there is no shell unless asked for; a source without items makes a product"
    " without jobs, not one with an empty value; a word with {} in it is one argument,"
    " even where {} stands for several items;"
    " a value is quoted for --shell also at the beginning of the command; options are not read from"
    " the environment or from files; regular expressions are Python's.",
    "From xargs: items are lines, in which quotes, backslashes and blanks mean nothing; a job gets"
    " one item, not as many as fit; without input nothing is run; jobs run in parallel; a command"
    " without {} gets the item at its end, also with -I.",
)

_EXAMPLES = (
    (
        "Compress all logs, four at a time:",
        "find . -name '*.log' -print0 | procreactor run -0 -j4 gzip",
    ),
    ("All combinations:", "procreactor run echo {1}-{2} ::: a b ::: 1 2 3"),
    ("Through a shell:", "procreactor run --shell 'sort {} > {.}.sorted' ::: *.txt"),
    (
        "Try each three times, a minute long, and keep a log to go on from:",
        "procreactor run --retries 3 --timeout 1m --joblog log --resume ./job :::: list",
    ),
)


# --- Help -----------------------------------------------------------------------------------------


def help_text() -> str:
    """Return what ``--help`` prints."""
    lines = textwrap.wrap(f"Usage: {_USAGE}", 79, subsequent_indent=" " * 11)
    for paragraph in _INTRODUCTION:
        lines += ["", *textwrap.wrap(paragraph, 79)]
    lines += ["", "In the command:"]
    for marker, text in _REPLACEMENTS:
        lines += _entry(marker, text, 8)
    for group in GROUPS:
        lines += ["", f"{group}:"]
        for option in _of(group):
            lines += _entry(_written(option), option.help, 26)
    lines += ["", "Exit status:"]
    for status, text in _EXIT_STATUS:
        lines += _entry(status, text, 8)
    return "\n".join([*lines, "", "procreactor run --man has more.", ""])


def _of(group: str) -> list[Option]:
    return [option for option in OPTIONS if option.group == group]


def _written(option: Option) -> str:
    names = ", ".join(option.names)
    return f"{names} {option.metavar}" if option.metavar else names


def _entry(title: str, text: str, indent: int) -> list[str]:
    """Lines with *title* before *text*, or above it where it is too long."""
    body = textwrap.wrap(text, 79 - indent)
    head = f"  {title}"
    if len(head) > indent - 2:
        return [head, *(" " * indent + line for line in body)]
    return [head.ljust(indent) + body[0], *(" " * indent + line for line in body[1:])]


# --- Man page -------------------------------------------------------------------------------------


def man_page(version: str) -> str:
    """Return the page procreactor-run(1), as roff with man(7)'s macros."""
    return "\n".join([*_man_lines(version), ""])


def _man_lines(version: str) -> Iterator[str]:
    yield f'.TH PROCREACTOR\\-RUN 1 "" "procreactor {_roff(version)}" "User Commands"'
    yield from (".SH NAME", rf"procreactor\-run \- {_roff(COMMANDS['run'])}", ".SH SYNOPSIS")
    yield from (".nh", ".ad l", _roff(_USAGE), ".ad b", ".hy", ".SH DESCRIPTION")
    yield from _paragraphs(_INTRODUCTION)
    yield ".SH REPLACEMENT STRINGS"
    yield from _tagged(_REPLACEMENTS)
    yield ".SH OPTIONS"
    for group in GROUPS:
        yield f".SS {_roff(group)}"
        for option in _of(group):
            yield from (".TP", _man_names(option), f"{_roff(option.help)}.")
    yield ".SH EXIT STATUS"
    yield from _tagged(_EXIT_STATUS)
    yield from (".PP", *_paragraphs(_MORE_ON_EXITS), ".SH DIFFERENCES")
    yield from (*_paragraphs(_DIFFERENCES), ".SH EXAMPLES")
    for text, command in _EXAMPLES:
        yield from (".PP", _roff(text), ".PP", ".in +4n", ".nf", _roff(command), ".fi", ".in")
    yield from (".SH SEE ALSO", ".BR parallel (1),", ".BR xargs (1)")


def _paragraphs(texts: tuple[str, ...]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield ".PP"
        yield _roff(text)


def _tagged(rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for title, text in rows:
        yield from (".TP", rf"\fB{_roff(title)}\fR", _roff(text))


def _man_names(option: Option) -> str:
    names = ", ".join(rf"\fB{_roff(name)}\fR" for name in option.names)
    return rf"{names} \fI{_roff(option.metavar)}\fR" if option.metavar else names


def _roff(text: str) -> str:
    r"""Return *text* so that roff prints just it: no escape, no request, a minus for each dash."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


# --- Completions ----------------------------------------------------------------------------------


def completion(shell: str) -> str:
    """Return the script that *shell* (bash, zsh or fish) reads to complete ``procreactor``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _plain_words(option: Option) -> str:
    return " ".join(word for word in option.words if not word.startswith("<"))


_BASH = """\
# bash completion for procreactor: source this, or put it where bash-completion looks.
_procreactor() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} index
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W '@COMMANDS@' -- "$current")
        return
    fi
    [[ ${COMP_WORDS[1]} == run ]] || return
    # Go over the options and their values to where the command begins.
    for ((index = 2; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            --) ((index++)); break ;;
            @VALUED@)
                # Bash makes three words of --name=value.
                [[ ${COMP_WORDS[index+1]} == = ]] && ((index++))
                ((index++)) ;;
            -?*) ;;
            *) break ;;
        esac
    done
    if ((index < COMP_CWORD)); then
        # Within the command, whose own completion knows more, where there is one.
        declare -F _command_offset >/dev/null && _command_offset "$index"
        return
    fi
    if ((index > COMP_CWORD)); then
        [[ $before == = ]] && before=${COMP_WORDS[COMP_CWORD-2]}
        [[ $current == = ]] && current=
        case $before in
@CASES@
        esac
        return
    fi
    case $current in
        -*) mapfile -t COMPREPLY < <(compgen -W '@OPTIONS@' -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -c -- "$current") ;;
    esac
}
complete -o default -F _procreactor procreactor
"""


def _bash() -> str:
    valued = "|".join(name for option in OPTIONS if option.metavar for name in option.names)
    cases = []
    for option in OPTIONS:
        if words := _plain_words(option):
            how = f"-W '{words}'"
        elif "<directory>" in option.words:
            how = "-d"
        else:
            continue  # for files, bash's own completion is the default
        reply = f'mapfile -t COMPREPLY < <(compgen {how} -- "$current")'
        cases.append(f"            {'|'.join(option.names)}) {reply} ;;")
    names = " ".join(name for option in OPTIONS for name in option.names)
    return _filled(
        _BASH, COMMANDS=" ".join(COMMANDS), VALUED=valued, CASES="\n".join(cases), OPTIONS=names
    )


_ZSH = """\
#compdef procreactor
# zsh completion for procreactor: put this into a file _procreactor in your fpath, or eval it.
_procreactor_run() {
    _arguments -s -S -A '-*' \\
@SPECS@
        '(-):command:_command_names -e' \\
        '*::argument:_normal'
}
_procreactor() {
    local -a commands=(
@COMMANDS@
    )
    if ((CURRENT == 2)); then
        _describe command commands
    elif [[ $words[2] == run ]]; then
        shift words
        ((CURRENT--))
        _procreactor_run
    fi
}
if [[ $funcstack[1] == _procreactor ]]; then
    _procreactor "$@"
else
    compdef _procreactor procreactor
fi
"""


def _zsh() -> str:
    specs = [f"        {_zsh_spec(option, name)} \\" for option in OPTIONS for name in option.names]
    commands = [f"        {_quoted(f'{name}:{text}')}" for name, text in COMMANDS.items()]
    return _filled(_ZSH, SPECS="\n".join(specs), COMMANDS="\n".join(commands))


def _zsh_spec(option: Option, name: str) -> str:
    about = re.sub(r"([][:\\])", r"\\\1", _brief(option))
    if not option.metavar:
        return _quoted(f"{name}[{about}]")
    takes = "=" if name.startswith("--") else "+"
    metavar = option.metavar.replace(":", r"\:")
    return _quoted(f"{name}{takes}[{about}]:{metavar}:{_zsh_action(option)}")


def _zsh_action(option: Option) -> str:
    if words := _plain_words(option):
        return f"({words})"
    return {"<file>": "_files", "<directory>": "_directories"}.get("".join(option.words), " ")


def _fish() -> str:
    lines = ["# fish completion for procreactor: put this into completions/procreactor.fish."]
    for name, text in COMMANDS.items():
        about = _quoted(text)
        lines.append(f"complete -c procreactor -n __fish_use_subcommand -f -a {name} -d {about}")
    for option in OPTIONS:
        names = " ".join(
            f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
        )
        seen = "-n '__fish_seen_subcommand_from run'"
        about = _quoted(_brief(option))
        lines.append(f"complete -c procreactor {seen} {names}{_fish_value(option)} -d {about}")
    return "\n".join([*lines, ""])


def _fish_value(option: Option) -> str:
    if not option.metavar:
        return ""
    if words := _plain_words(option):
        return f" -x -a '{words}'"
    if "<directory>" in option.words:
        return " -x -a '(__fish_complete_directories)'"
    return " -r" if option.words else " -x"


def _brief(option: Option) -> str:
    """The first sentence, or what of it stands before a semicolon or a colon."""
    return re.split(r"[.;:] ", option.help)[0]


def _quoted(text: str) -> str:
    r"""Return *text* in single quotes; one within is ``'\''`` to all three shells."""
    return "'" + text.replace("'", "'\\''") + "'"


def _filled(template: str, **texts: str) -> str:
    for name, text in texts.items():
        template = template.replace(f"@{name}@", text)
    return template
