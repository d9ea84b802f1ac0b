"""Pure: the arguments of ``procreactor run`` become `Options`, or one line that says what is wrong.

    run [options] [--] command [arg ...] [::: item ...] [:::+ item ...] [:::: file ...]
        [::::+ file ...]

* Options end at the first word that is none, which is the command; all that follows belongs to it,
  up to the first of ``:::``, ``:::+``, ``::::`` and ``::::+``. ``--`` ends options as well, for a
  command that begins with a dash.
* Short options may stand together (``-k0``), and their value right behind them (``-j4``); long ones
  take theirs as the next word or after ``=``. Names are not abbreviated.
* An option given twice counts as given last, save ``-a``. Options that contradict each other are
  refused, not weighed.
* No environment variable and no file changes what a command line means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from procreactor.apps.cli.plan import STANDARD_INPUT, InputPlan, Source
from procreactor.apps.cli.table import BY_NAME, NOT_OFFERED, Option
from procreactor.apps.cli.values import DEFAULT_JOBS, DEFAULT_TERMSEQ, Jobs, Load, Step, Timeout
from procreactor.apps.halt import NEVER, Halt
from procreactor.typed import Any, Final, NamedTuple

__all__ = ["RESULTS_KINDS", "OptionError", "Options", "parse", "results_kind"]


RESULTS_KINDS: Final = {b".jsonl": "jsonl", b".json": "jsonl", b".csv": "csv", b".tsv": "tsv"}
"""What ``--results`` writes, by how its name ends, in letters of either case, as in GNU parallel;
anything else is a directory."""


class OptionError(ValueError):
    """The command line is wrong: which option, what it was given, and what it may be."""

    is_of_xargs = False
    """Whether it says, as far as it was read, that the exit status is to be that of xargs."""


class Options(NamedTuple):
    """All that a command line says, checked."""

    command: tuple[bytes, ...] = ()
    """May be empty with `shell`, where each item is a command, and with ``retry-failed``."""

    plan: InputPlan = InputPlan()
    marker: bytes = b"{}"
    shell: bool = False

    jobs: Jobs = DEFAULT_JOBS
    delay_s: float = 0.0
    load: Load | None = None
    memfree_bytes: int | None = None
    nice: int | None = None
    workdir: bytes | None = None
    """May have replacement strings."""

    dry_run: bool = False
    verbose: bool = False
    """Each command is printed to standard error as it starts."""

    output: str = "group"
    """``"group"``, ``"lines"`` or ``"none"``."""

    keep_order: bool = False
    tag: bytes | None = None
    """Has replacement strings, and stands before each line with a tab; None: nothing does."""

    max_output_bytes: int | None = None

    timeout: Timeout | None = None
    termseq: tuple[Step, ...] = DEFAULT_TERMSEQ
    retries: int = 1
    """How often a job is run at most until it goes well; 0 is without end."""

    halt: Halt = NEVER
    xargs_exit: bool = False

    joblog: bytes | None = None
    joblog_is_added_to: bool = False
    resume: str = ""
    """``"resume"``, ``"resume-failed"``, ``"retry-failed"``, or nothing."""

    results: bytes | None = None
    results_kind: str = ""
    """``"jsonl"``, ``"csv"``, ``"tsv"`` or ``"directory"``, where there are *results*."""

    progress: str = ""
    """``"bar"``, ``"eta"``, ``"progress"``, ``"live"``, ``"none"``; or nothing: whatever suits."""

    show: str = ""
    """``"help"``, ``"version"``, ``"man"`` or ``"completion SHELL"``: print it, and no more."""


def parse(arguments: Sequence[str]) -> Options:
    """Return what *arguments* (without the name of the program) say; `OptionError` says otherwise.

    Words are bytes from here on: what Python made of an argument that is no UTF-8 is undone.
    """
    found: dict[str, Any] = {}
    try:
        return _parse(arguments, found)
    except OptionError as error:
        error.is_of_xargs = "xargs_exit" in found
        raise


def _parse(arguments: Sequence[str], found: dict[str, Any]) -> Options:
    """As `parse`; *found* has what the options say, also where the rest is wrong."""
    rest = _read_options(arguments, found)
    if show := found.get("show"):
        return Options(show=show)
    separators = _separators(found)
    command, groups = _split(rest, separators)
    _refuse_contradictions(found)
    _refuse_perl(command, found.get("marker", b"{}"))
    sources = _sources(found.pop("arg_files", []), groups, separators)
    plan = _input_plan(found, sources)
    _finish(found)
    options = Options(command=tuple(map(os.fsencode, command)), plan=plan, **found)
    if not command and not options.shell and options.resume != "retry-failed":
        raise OptionError("no command given; with --shell each item of the input is one")
    return options


# --- Words ----------------------------------------------------------------------------------------


def _read_options(arguments: Sequence[str], found: dict[str, Any]) -> list[str]:
    """Put into *found* what the options set, by field; return the words after them."""
    words = iter(arguments)
    separators = set(_separators(found))
    for word in words:
        if word == "--":
            break
        if word in separators or not word.startswith("-") or word == "-":
            return [word, *words]
        for option, name, text in _written(word, words):
            _set(found, option, name, text)
        separators = set(_separators(found))
    return [*words]


def _written(word: str, rest: Iterator[str]) -> Iterator[tuple[Option, str, str | None]]:
    """Yield each option in *word*, with its name and its value, which may be the next of *rest*."""
    if word.startswith("--"):
        name, equals, text = word.partition("=")
        option = _find(name)
        if option.metavar:
            yield option, name, text if equals else _next(name, option, rest)
        elif equals:
            raise OptionError(f"{name} takes no value, and {text!r} was given")
        else:
            yield option, name, None
        return
    for index, letter in enumerate(word[1:], 1):
        name = f"-{letter}"
        option = _find(name)
        if option.metavar:
            yield option, name, word[index + 1 :] or _next(name, option, rest)
            return
        yield option, name, None


def _shown(text: str) -> str:
    """Return *text* as it is, where it is fit for a line."""
    return text if text.isprintable() else repr(text)


def _next(name: str, option: Option, rest: Iterator[str]) -> str:
    text = next(rest, None)
    if text is None:
        raise OptionError(f"{name}: expected {option.metavar} after it, and there is nothing")
    return text


def _set(found: dict[str, Any], option: Option, name: str, text: str | None) -> None:
    if option.read is None or text is None:
        found[option.field] = option.constant
        return
    try:
        value = option.read(text)
    except ValueError as error:
        raise OptionError(f"{name} {_shown(text)}: expected {error}") from None
    if option.many:
        found.setdefault(option.field, []).append(value)
    else:
        found[option.field] = value


def _find(name: str) -> Option:
    option = BY_NAME.get(name)
    if name in NOT_OFFERED:
        raise OptionError(f"{name} of {NOT_OFFERED[name]} is not offered; --help lists what is")
    if option is None:
        raise OptionError(f"unknown option {_shown(name)}{_hint(name)}; --help lists them")
    return option


def _hint(name: str) -> str:
    if len(name) <= 2:
        return ""
    near = min(BY_NAME, key=lambda known: _distance(name, known))
    return f", did you mean {near}?" if _distance(name, near) <= max(2, len(name) // 4) else ""


def _distance(one: str, other: str) -> int:
    """How many letters must be put in, taken out or changed to make *other* of *one*."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], number
        for index, wanted in enumerate(other, 1):
            diagonal, row[index] = (
                row[index],
                min(row[index] + 1, row[index - 1] + 1, diagonal + (letter != wanted)),
            )
    return row[-1]


def _separators(found: dict[str, Any]) -> dict[str, tuple[bool, bool]]:
    """The words that end the command: whether files follow, and whether they are linked."""
    items = os.fsdecode(found.get("item_separator", b":::"))
    files = os.fsdecode(found.get("file_separator", b"::::"))
    return {
        items: (False, False),
        f"{items}+": (False, True),
        files: (True, False),
        f"{files}+": (True, True),
    }


def _split(
    words: Sequence[str], separators: dict[str, tuple[bool, bool]]
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the command, and each separator with the words up to the next."""
    command: list[str] = []
    groups: list[tuple[str, list[str]]] = []
    into = command
    for word in words:
        if word in separators:
            into = []
            groups.append((word, into))
        else:
            into.append(word)
    return command, groups


# --- What they mean together ----------------------------------------------------------------------


def _sources(
    arg_files: list[bytes],
    groups: list[tuple[str, list[str]]],
    separators: dict[str, tuple[bool, bool]],
) -> tuple[Source, ...]:
    sources = [Source(path=path) for path in arg_files]
    for separator, words in groups:
        of_files, is_linked = separators[separator]
        if is_linked and not sources:
            raise OptionError(f"{separator}: there is no input before it to be linked with")
        given = tuple(map(os.fsencode, words))
        if not of_files:
            sources.append(Source(given, linked=is_linked))
            continue
        if not given:
            raise OptionError(f"{separator}: expected the name of a file after it")
        sources += [Source(path=path, linked=is_linked) for path in given]
    if sum(source.path == STANDARD_INPUT for source in sources) > 1:
        raise OptionError("standard input (-) is named twice among the inputs")
    return tuple(sources) or InputPlan().sources


def _input_plan(found: dict[str, Any], sources: tuple[Source, ...]) -> InputPlan:
    separator = found.pop("column_separator", None)
    if separator is not None:
        _check_regex(separator)
    lines = found.pop("max_lines", None)
    batch = found.pop("max_args", 1 if lines is None else lines)
    for name in ("item_separator", "file_separator"):
        found.pop(name, None)
    names = ("delimiter", "end", "skip_blank", "link_all", "shuffle")
    return InputPlan(
        sources,
        column_separator=separator,
        trim=found.pop("trim", "n" if separator is None else "lr"),
        batch=batch,
        continue_lines=lines is not None,
        **{name: found.pop(name) for name in names if name in found},
    )


def _check_regex(pattern: bytes) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        text = os.fsdecode(pattern)
        what = f"expected a regular expression; {error}"
        raise OptionError(f"--colsep {_shown(text)}: {what}") from None


def _refuse_contradictions(found: dict[str, Any]) -> None:
    ungrouped = found.get("output") == "none"
    resume = found.get("resume", "")
    in_files = "results" in found and results_kind(found["results"]) == "directory"
    logged = "joblog" in found or (in_files and resume == "resume")
    for is_wrong, message in (
        ("max_args" in found and "max_lines" in found, "-n and -L both say how much a job gets"),
        (ungrouped and "tag" in found, "--tag needs the output, which -u does not touch"),
        (ungrouped and "keep_order" in found, "-k needs the output, which -u does not touch"),
        (ungrouped and "results" in found, "--results needs the output, which -u does not touch"),
        (
            "xargs_exit" in found and found.get("halt", NEVER) != NEVER,
            "--xargs-exit and --halt both say when to stop, and with which status",
        ),
        (
            found.pop("quote", False) and found.get("shell", False),
            "-q is for a command that no shell reads, and --shell for one that a shell does",
        ),
        (
            "shuffle" in found and resume in ("resume", "resume-failed"),
            f"--shuf gives the jobs other numbers, by which --{resume} knows what has been done",
        ),
        (resume and not logged, f"--{resume} needs --joblog, to know what has been done"),
    ):
        if is_wrong:
            raise OptionError(message)


def _refuse_perl(command: Sequence[str], marker: bytes) -> None:
    """What would be replaced elsewhere had better not be run as it stands."""
    _, _, rest = " ".join(command).partition("{=")
    if marker == b"{}" and "=}" in rest:
        raise OptionError("{= =} of GNU parallel is not offered; with another -I it is left alone")


def _finish(found: dict[str, Any]) -> None:
    """What is said in one word, and is two things."""
    if found.get("tag") is True:
        found["tag"] = found.get("marker", b"{}")
    joblog = found.get("joblog", b"")
    if joblog.startswith(b"+"):
        found["joblog"], found["joblog_is_added_to"] = joblog[1:], True
    if "results" in found:
        found["results_kind"] = results_kind(found["results"])


def results_kind(path: bytes) -> str:
    """Return what --results *path* writes: ``"directory"``, or one of `RESULTS_KINDS`."""
    _, dot, suffix = path.rpartition(b".")
    return RESULTS_KINDS.get((dot + suffix).lower(), "directory")
