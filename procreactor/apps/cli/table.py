"""Pure: the options of ``procreactor run``, one row each.

Parser, help, man page and completions are all made of this table.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from procreactor.apps import halt
from procreactor.apps.cli import values
from procreactor.typed import Any, NamedTuple

__all__ = ["BY_NAME", "GROUPS", "NOT_OFFERED", "OPTIONS", "Option"]


class Option(NamedTuple):
    """One option: how it is written, what it sets, and what is said of it."""

    names: tuple[str, ...]
    """The first is the one that messages use."""

    field: str
    """What it sets."""

    metavar: str
    """What its value is called; ``""``: it takes none."""

    read: Callable[[str], Any] | None
    """Makes what is set of the value; ValueError says what is expected."""

    constant: Any
    """What is set where the option takes no value."""

    group: str
    help: str
    """Sentences, without a full stop at the end of the last."""

    words: tuple[str, ...] = ()
    """What the value may be or begin with, for completion; or ``<file>``, or ``<directory>``."""

    many: bool = False
    """Whether each use adds to the ones before; otherwise the last one counts."""


INPUT = "Input"
JOBS = "Jobs"
OUTPUT = "Output"
FAILURE = "Time and failure"
BOOKS = "Log and results"
PROGRESS = "Progress"
OTHER = "Other"

GROUPS = (INPUT, JOBS, OUTPUT, FAILURE, BOOKS, PROGRESS, OTHER)

FILE = ("<file>",)
DIRECTORY = ("<directory>",)


def _taking(
    names: str,
    field: str,
    metavar: str,
    read: Callable[[str], Any],
    group: str,
    text: str,
    words: tuple[str, ...] = (),
    many: bool = False,
) -> Option:
    return Option(tuple(names.split()), field, metavar, read, None, group, text, words, many)


def _flag(names: str, field: str, constant: Any, group: str, text: str) -> Option:
    return Option(tuple(names.split()), field, "", None, constant, group, text)


def _positive(text: str) -> int:
    return values.whole_number(text, 1)


def _not_empty(text: str) -> bytes:
    if not text:
        raise ValueError("at least one character")
    return os.fsencode(text)


def _path(text: str) -> bytes:
    if not text or "\0" in text:
        raise ValueError("the name of a file")
    return os.fsencode(text)


def _joblog(text: str) -> bytes:
    if text == "+":
        raise ValueError("the name of a file after the plus")
    return _path(text)


def _delimiter(text: str) -> bytes:
    return values.delimiter(os.fsencode(text))


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return read


SHELLS = ("bash", "zsh", "fish")


def _completion(text: str) -> str:
    return f"completion {_one_of(*SHELLS)(text)}"


TRIMS = ("n", "l", "r", "lr", "rl")

OPTIONS = (
    _taking(
        "-a --arg-file",
        "arg_files",
        "FILE",
        _path,
        INPUT,
        "Read items from FILE instead of standard input; - is standard input. Each further -a is a"
        " source of its own, crossed with the others",
        FILE,
        many=True,
    ),
    _flag("-0 --null", "delimiter", b"\0", INPUT, "Items end in NUL, not in newline"),
    _taking(
        "-d --delimiter",
        "delimiter",
        "DELIM",
        _delimiter,
        INPUT,
        "Items end in DELIM: one or more bytes, also as \\n, \\t, \\0, \\xHH or \\NNN",
    ),
    _taking(
        "-C --colsep",
        "column_separator",
        "REGEX",
        _not_empty,
        INPUT,
        "Split each item into columns, {1}, {2} and so on, at REGEX (of Python's re, on bytes), and"
        " trim them unless --trim says otherwise",
    ),
    _taking(
        "--trim",
        "trim",
        "n|l|r|lr",
        _one_of(*TRIMS),
        INPUT,
        "Remove white space nowhere, on the left, on the right or on both sides of each value",
        TRIMS,
    ),
    _taking(
        "-n --max-args -N --max-replace-args",
        "max_args",
        "N",
        values.whole_number,
        INPUT,
        "Give each job up to N records. With 0 a job gets one record, and nothing of it is put into"
        " the command",
    ),
    _taking(
        "-L --max-lines",
        "max_lines",
        "N",
        _positive,
        INPUT,
        "Give each job up to N lines that are not blank; a line that ends in a blank goes on in the"
        " next",
    ),
    _taking(
        "-I --replace",
        "marker",
        "MARKER",
        _not_empty,
        INPUT,
        "The value is put where MARKER stands, instead of {}",
    ),
    _taking(
        "-E --eof",
        "end",
        "WORD",
        lambda text: os.fsencode(text) or None,
        INPUT,
        "The item WORD is the end of its source; an empty WORD is none",
    ),
    _flag("-r --no-run-if-empty", "skip_blank", True, INPUT, "Leave out blank items"),
    _flag(
        "--link --xapply",
        "link_all",
        True,
        INPUT,
        "Go through all sources side by side, the shorter ones again from their beginning, instead"
        " of crossing them",
    ),
    _flag("--shuf", "shuffle", True, INPUT, "Read all input first, and run it in random order"),
    _taking(
        "--arg-sep",
        "item_separator",
        "WORD",
        _not_empty,
        INPUT,
        "Items of the command line come after WORD, instead of after :::",
    ),
    _taking(
        "--arg-file-sep",
        "file_separator",
        "WORD",
        _not_empty,
        INPUT,
        "Input files come after WORD, instead of after ::::",
    ),
    _taking(
        "-j --jobs -P --max-procs",
        "jobs",
        "N",
        values.jobs,
        JOBS,
        "Run N jobs at a time; N% is of the CPUs, +N and -N are more and fewer than CPUs, 0 is as"
        " many as possible. The default is 100%",
    ),
    _taking(
        "--delay",
        "delay_s",
        "TIME",
        values.seconds,
        JOBS,
        "Wait so long from one start to the next",
    ),
    _taking(
        "--load",
        "load",
        "MAX",
        values.load,
        JOBS,
        "Start no job while the load average is above MAX; N% is of the CPUs",
    ),
    _taking(
        "--memfree",
        "memfree_bytes",
        "SIZE",
        values.bytes_size,
        JOBS,
        "Start no job while less memory is free than SIZE (K, M, G, T, P); below half of it the"
        " youngest job is killed, and run again later",
    ),
    _taking("--nice", "nice", "N", values.niceness, JOBS, "Run jobs with niceness N, -20 to 19"),
    _taking(
        "--workdir --wd",
        "workdir",
        "DIR",
        _path,
        JOBS,
        "Run jobs in DIR, which may have replacement strings",
        DIRECTORY,
    ),
    _flag(
        "--shell",
        "shell",
        True,
        JOBS,
        "Run the command by /bin/sh -c, its words joined by spaces, its values quoted. Without a"
        " command each item is a command line",
    ),
    _flag("--no-shell", "shell", False, JOBS, "Execute the command directly: the default"),
    _flag(
        "-q --quote",
        "quote",
        True,
        JOBS,
        "Nothing: it is there for those who type it. No shell reads the command, so nothing in it"
        " needs quotes",
    ),
    _flag(
        "--dry-run", "dry_run", True, JOBS, "Print the commands, quoted for a shell, and run none"
    ),
    _flag(
        "-t --verbose", "verbose", True, JOBS, "Print each command to standard error as it starts"
    ),
    _flag(
        "--group",
        "output",
        "group",
        OUTPUT,
        "Print the output of a job when it has ended, standard output first: the default",
    ),
    _flag(
        "--line-buffer --lb", "output", "lines", OUTPUT, "Print whole lines as the jobs write them"
    ),
    _flag(
        "-u --ungroup",
        "output",
        "none",
        OUTPUT,
        "Do not come between the jobs and the output: they write to it themselves",
    ),
    _flag("-k --keep-order", "keep_order", True, OUTPUT, "Print output in the order of the input"),
    _flag("--tag", "tag", True, OUTPUT, "Begin each line of output with the values and a tab"),
    _taking(
        "--tagstring",
        "tag",
        "TEXT",
        os.fsencode,
        OUTPUT,
        "Begin each line of output with TEXT, which may have replacement strings, and a tab",
    ),
    _taking(
        "--max-output-bytes",
        "max_output_bytes",
        "SIZE",
        values.bytes_size,
        OUTPUT,
        "Keep so much of each stream of a job, its beginning and its end",
    ),
    _taking(
        "--timeout",
        "timeout",
        "TIME",
        values.timeout,
        FAILURE,
        "Kill a job that runs longer than TIME (90s, 5m, 1h30m); N% is of the median run time of"
        " the jobs that went well",
    ),
    _taking(
        "--termseq --term-seq",
        "termseq",
        "SEQUENCE",
        values.termseq,
        FAILURE,
        "How jobs are killed: signals, each with the milliseconds to wait after it. The default is"
        " TERM,200,TERM,100,TERM,50,KILL,25",
        ("TERM,200,KILL", "INT,200,TERM,200,KILL"),
    ),
    _taking(
        "--retries",
        "retries",
        "N",
        values.whole_number,
        FAILURE,
        "Run a job that fails up to N times in all; 0 is without end",
    ),
    _taking(
        "--halt --halt-on-error",
        "halt",
        "WHEN,WHY=N",
        halt.parse_halt,
        FAILURE,
        "Start no more (soon), or kill what runs as well (now), once N jobs, or N%, have failed"
        " (fail), succeeded (success) or ended (done). For N% all input is read first. The default"
        " is never",
        ("never", "now,fail=1", "now,success=1", "now,done=1", "soon,fail=1", "soon,success=1"),
    ),
    _flag(
        "--xargs-exit", "xargs_exit", True, FAILURE, "Exit with the status that xargs would have"
    ),
    _taking(
        "--joblog --jl",
        "joblog",
        "FILE",
        _joblog,
        BOOKS,
        "Write a line per job to FILE, of GNU parallel's nine columns. +FILE is added to",
        FILE,
    ),
    _flag(
        "--resume",
        "resume",
        "resume",
        BOOKS,
        "Leave out the jobs whose numbers are in the log already",
    ),
    _flag(
        "--resume-failed",
        "resume",
        "resume-failed",
        BOOKS,
        "Likewise, but run those again that failed",
    ),
    _flag(
        "--retry-failed",
        "resume",
        "retry-failed",
        BOOKS,
        "Run only those again that failed, with their commands as the log has them",
    ),
    _taking(
        "--results --res",
        "results",
        "DIR",
        _path,
        BOOKS,
        "Save the output of each job in a directory of its own in DIR, or as a row of a FILE that"
        " ends in .jsonl, .json, .csv or .tsv",
        FILE,
    ),
    _flag(
        "--bar",
        "progress",
        "bar",
        PROGRESS,
        "Read all input, and show how much of it is done",
    ),
    _flag(
        "--eta",
        "progress",
        "eta",
        PROGRESS,
        "Read all input, and show how long it will still take",
    ),
    _flag("--progress", "progress", "progress", PROGRESS, "Show how many jobs run and have run"),
    _flag(
        "--live",
        "progress",
        "live",
        PROGRESS,
        "Show the jobs that run, live; needs the extra rich: pip install 'procreactor[rich]'",
    ),
    _flag(
        "--no-progress",
        "progress",
        "none",
        PROGRESS,
        "Show nothing, also on a terminal; anywhere else that is the default",
    ),
    _flag("-h --help", "show", "help", OTHER, "Print this, and exit"),
    _flag("-V --version", "show", "version", OTHER, "Print the version, and exit"),
    _flag("--man", "show", "man", OTHER, "Print the manual page, as roff, and exit"),
    _taking(
        "--completion",
        "show",
        "SHELL",
        _completion,
        OTHER,
        "Print completions for SHELL, bash, zsh or fish, and exit",
        SHELLS,
    ),
)

NOT_OFFERED = {
    **dict.fromkeys(["-i", "-l", "-o", "-p", "-s", "-x"], "xargs"),
    **dict.fromkeys(
        ["-S", "-X", "-m", "-v", "--env", "--files", "--header", "--pipe", "--plus", "--rpl"],
        "GNU parallel",
    ),
}
"""Whose options those are that one may know and that are not here. So says the page in docs/."""

BY_NAME = {name: option for option in OPTIONS for name in option.names}
