"""The command line becomes options, or one line that says what is wrong with it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from procreactor.apps.cli.options import OptionError, Options, parse
from procreactor.apps.cli.plan import InputPlan, Source
from procreactor.apps.cli.table import BY_NAME, GROUPS, NOT_OFFERED, OPTIONS
from procreactor.apps.cli.values import DEFAULT_TERMSEQ, Jobs, Load, Step, Timeout
from procreactor.apps.halt import parse_halt

STDIN = Source(path=b"-")


def read(line: str) -> Options:
    return parse(shlex.split(line))


def test_a_command_alone() -> None:
    assert read("echo a -k b") == Options(command=(b"echo", b"a", b"-k", b"b"))


CASES: list[tuple[str, dict[str, Any]]] = [
    ("-j4 c", {"jobs": Jobs(4)}),
    ("-j 4 c", {"jobs": Jobs(4)}),
    ("--jobs 4 c", {"jobs": Jobs(4)}),
    ("--jobs=+4 c", {"jobs": Jobs(4, "+")}),
    ("-P -2 c", {"jobs": Jobs(-2, "+")}),
    ("--max-procs 50% c", {"jobs": Jobs(50, "%")}),
    ("-j4 -j5 c", {"jobs": Jobs(5)}),
    ("-k c", {"keep_order": True}),
    ("-kt c", {"keep_order": True, "verbose": True}),
    ("-ktj3 c", {"keep_order": True, "verbose": True, "jobs": Jobs(3)}),
    ("-ktj 3 c", {"keep_order": True, "verbose": True, "jobs": Jobs(3)}),
    ("--dry-run c", {"dry_run": True}),
    ("-I ,, c", {"marker": b",,"}),
    ("-I{} c", {"marker": b"{}"}),
    ("--shell c", {"shell": True}),
    ("--shell --no-shell c", {}),
    ("--delay 1m c", {"delay_s": 60.0}),
    ("--load 80% c", {"load": Load(80, True)}),
    ("--memfree 1G c", {"memfree_bytes": 1 << 30}),
    ("--nice -5 c", {"nice": -5}),
    ("--wd /tmp/{#} c", {"workdir": b"/tmp/{#}"}),
    ("-u c", {"output": "none"}),
    ("--lb c", {"output": "lines"}),
    ("-u --group c", {}),
    ("--tag c", {"tag": b"{}"}),
    ("--tag -I ,, c", {"tag": b",,", "marker": b",,"}),
    ("--tagstring '{#} {1}' c", {"tag": b"{#} {1}"}),
    ("--max-output-bytes 1k c", {"max_output_bytes": 1000}),
    ("--timeout 1.5 c", {"timeout": Timeout(1.5)}),
    ("--timeout 200% c", {"timeout": Timeout(200, True)}),
    ("--termseq INT,5,KILL c", {"termseq": (Step(2, 5), Step(9, 0))}),
    ("--retries 0 c", {"retries": 0}),
    ("--halt now,fail=1 c", {"halt": parse_halt("now,fail=1")}),
    ("--halt -1 c", {"halt": parse_halt("-1")}),
    ("--xargs-exit c", {"xargs_exit": True}),
    ("--joblog log c", {"joblog": b"log"}),
    ("--joblog +log c", {"joblog": b"log", "joblog_is_added_to": True}),
    ("--joblog log --resume c", {"joblog": b"log", "resume": "resume"}),
    ("--results d --resume c", {"results": b"d", "results_kind": "directory", "resume": "resume"}),
    ("--jl log --resume-failed c", {"joblog": b"log", "resume": "resume-failed"}),
    ("--results d.x c", {"results": b"d.x", "results_kind": "directory"}),
    ("--results jsonl c", {"results": b"jsonl", "results_kind": "directory"}),
    ("--results a.csv/d c", {"results": b"a.csv/d", "results_kind": "directory"}),
    ("--results o/a.jsonl c", {"results": b"o/a.jsonl", "results_kind": "jsonl"}),
    ("--results a.json c", {"results": b"a.json", "results_kind": "jsonl"}),
    ("--results a.csv c", {"results": b"a.csv", "results_kind": "csv"}),
    ("--results a.tsv c", {"results": b"a.tsv", "results_kind": "tsv"}),
    ("--results a.CSV c", {"results": b"a.CSV", "results_kind": "csv"}),
    ("--results .Json c", {"results": b".Json", "results_kind": "jsonl"}),
    ("--bar c", {"progress": "bar"}),
    ("--eta c", {"progress": "eta"}),
    ("--progress c", {"progress": "progress"}),
    ("--live c", {"progress": "live"}),
    ("--bar --no-progress c", {"progress": "none"}),
    ("-- c", {}),
]


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_an_option_sets_what_it_says(line: str, expected: dict[str, Any]) -> None:
    assert read(line) == Options(command=(b"c",), **expected)


INPUTS: list[tuple[str, dict[str, Any]]] = [
    ("c", {}),
    ("-0 c", {"delimiter": b"\0"}),
    (r"-d '\n\n' c", {"delimiter": b"\n\n"}),
    ("-d, c", {"delimiter": b","}),
    ("-n3 c", {"batch": 3}),
    ("-N 0 c", {"batch": 0}),
    ("-L 2 c", {"batch": 2, "continue_lines": True}),
    ("-r c", {"skip_blank": True}),
    ("-E end c", {"end": b"end"}),
    ("-E '' c", {}),
    ("--shuf c", {"shuffle": True}),
    ("--link c", {"link_all": True}),
    ("--trim r c", {"trim": "r"}),
    ("--colsep , c", {"column_separator": b",", "trim": "lr"}),
    ("-C , --trim n c", {"column_separator": b",", "trim": "n"}),
    ("-a f -a - c", {"sources": (Source(path=b"f"), STDIN)}),
    ("c ::: a b", {"sources": (Source((b"a", b"b")),)}),
    ("c :::", {"sources": (Source(()),)}),
    ("c ::: -k --", {"sources": (Source((b"-k", b"--")),)}),
    ("c ::: a :::+ b", {"sources": (Source((b"a",)), Source((b"b",), linked=True))}),
    ("c :::: f g", {"sources": (Source(path=b"f"), Source(path=b"g"))}),
    ("c :::: f ::::+ g", {"sources": (Source(path=b"f"), Source(path=b"g", linked=True))}),
    ("-a f c ::: a", {"sources": (Source(path=b"f"), Source((b"a",)))}),
    ("c ::: a :::: - ::: b", {"sources": (Source((b"a",)), STDIN, Source((b"b",)))}),
    ("-d ::: c", {"delimiter": b":::"}),
    ("--arg-sep ,, c ,, a", {"sources": (Source((b"a",)),)}),
    (
        "--arg-file-sep ,, c ,, f ,,+ g",
        {"sources": (Source(path=b"f"), Source(path=b"g", linked=True))},
    ),
]


@pytest.mark.parametrize(("line", "expected"), INPUTS)
def test_where_the_input_comes_from(line: str, expected: dict[str, Any]) -> None:
    options = read(line)
    assert options == Options(command=(b"c",), plan=InputPlan(**expected))
    assert options.plan.reads_standard_input == (STDIN in options.plan.sources)


def test_the_separators_of_others_belong_to_the_command() -> None:
    options = read("--arg-sep ,, c ::: a ,, b")
    assert options.command == (b"c", b":::", b"a")


def test_a_command_may_begin_with_a_dash_after_two_of_them() -> None:
    assert read("-k -- -k -- ::: a").command == (b"-k", b"--")


def test_a_dash_alone_is_no_option() -> None:
    assert read("- ::: a").command == (b"-",)


def test_with_a_shell_the_input_may_be_the_commands() -> None:
    assert read("--shell ::: true").command == ()
    assert read("--jl log --retry-failed").resume == "retry-failed"


def test_bytes_that_are_no_text_are_kept() -> None:
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    options = parse(["-d", raw, "-I", raw, "c", raw, ":::", raw])
    assert options.command == (b"c", b"\xff\xfe")
    assert options.marker == options.plan.delimiter == b"\xff\xfe"
    assert options.plan.sources == (Source((b"\xff\xfe",)),)


@pytest.mark.parametrize(
    ("line", "show"),
    [
        ("--help", "help"),
        ("-h", "help"),
        ("-kh", "help"),
        ("--version", "version"),
        ("--man", "man"),
        ("--completion zsh", "completion zsh"),
        ("-k --resume --help c", "help"),
    ],
)
def test_what_is_only_to_be_shown(line: str, show: str) -> None:
    assert read(line) == Options(show=show)


WRONG = [
    ("", "no command given; with --shell each item of the input is one"),
    ("::: a", "no command given"),
    ("--jbos 4 c", "unknown option --jbos, did you mean --jobs?; --help lists them"),
    ("--keep-ordr c", "unknown option --keep-ordr, did you mean --keep-order?"),
    ("--timout=5 c", "unknown option --timout, did you mean --timeout?"),
    ("--wibblewobble c", "unknown option --wibblewobble; --help"),
    ("-y c", "unknown option -y; --help"),
    ("--pipe c", "--pipe of GNU parallel is not offered; --help"),
    ("-kp c", "-p of xargs is not offered; --help"),
    ("c x{= $_=lc =}", "{= =} of GNU parallel is not offered"),
    ("-q --shell c", "-q is for a command that no shell reads"),
    ("-ky c", "unknown option -y;"),
    ("-j", "-j: expected N after it, and there is nothing"),
    ("--halt", "--halt: expected WHEN,WHY=N after it"),
    ("-jx c", "-j x: expected a number, a percentage"),
    ("--jobs= c", "--jobs : expected a number"),
    ("--keep-order=yes c", "--keep-order takes no value, and 'yes' was given"),
    ("--timeout 5x c", "--timeout 5x: expected seconds, or a time such as 90s"),
    ("--memfree lots c", "--memfree lots: expected a size in bytes"),
    ("--halt sooner c", "--halt sooner: expected never, or now or soon"),
    ("--termseq NOPE,1 c", "--termseq NOPE,1: expected signals"),
    ("--nice 40 c", "--nice 40: expected a whole number from -20 to 19"),
    ("--retries -1 c", "--retries -1: expected a whole number from 0 on"),
    ("-L 0 c", "-L 0: expected a whole number from 1 on"),
    ("-d '' c", "-d : expected one or more bytes"),
    ("-I '' c", "-I : expected at least one character"),
    ("-C '(' c", "--colsep (: expected a regular expression; "),
    ("--trim x c", "--trim x: expected one of n, l, r, lr, rl"),
    ("--completion csh", "--completion csh: expected one of bash, zsh, fish"),
    ("--joblog '' c", "--joblog : expected the name of a file"),
    ("--joblog + c", "--joblog +: expected the name of a file after the plus"),
    ("-n2 -L2 c", "-n and -L both"),
    ("-u --tag c", "--tag needs the output, which -u does not touch"),
    ("-k -u c", "-k needs the output"),
    ("-u --results d c", "--results needs the output"),
    ("--xargs-exit --halt 1 c", "--xargs-exit and --halt both"),
    ("--resume c", "--resume needs --joblog, to know what has been done"),
    ("--results d --resume-failed c", "--resume-failed needs --joblog"),
    ("--retry-failed", "--retry-failed needs --joblog"),
    ("c :::+ a", ":::+: there is no input before it to be linked with"),
    ("c ::::", "::::: expected the name of a file after it"),
    ("-a - c :::: -", "standard input (-) is named twice among the inputs"),
    ("--arg-sep '' c", "--arg-sep : expected at least one character"),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_what_is_wrong_is_said_in_one_line(line: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(line)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_value_with_a_newline_is_still_told_in_one_line() -> None:
    with pytest.raises(OptionError) as caught:
        parse(["--jobs", "a\nb", "c"])
    assert "\n" not in str(caught.value)


# --- The table ------------------------------------------------------------------------------------


def test_each_name_belongs_to_one_option() -> None:
    names = [name for option in OPTIONS for name in option.names]
    assert len(names) == len(set(names)) == len(BY_NAME)


def test_each_option_has_a_group_a_help_and_a_long_name() -> None:
    for option in OPTIONS:
        assert option.group in GROUPS
        assert option.help
        assert not option.help.endswith(".")
        assert option.names[0] == "-L" or any(name.startswith("--") for name in option.names)
        assert bool(option.metavar) == (option.read is not None)


def test_each_field_of_the_options_is_set_by_an_option() -> None:
    made = {"command", "plan", "joblog_is_added_to", "results_kind"}
    known = {name for kind in (Options, InputPlan) for name in kind._fields} - made
    set_otherwise = {"sources", "batch", "continue_lines"}
    put_together = {"arg_files", "max_args", "max_lines", "item_separator", "file_separator"}
    put_together.add("quote")  # which means nothing
    assert {option.field for option in OPTIONS} - put_together == known - set_otherwise


def test_no_option_is_both_offered_and_not() -> None:
    assert set(BY_NAME) & set(NOT_OFFERED) == set()


@pytest.mark.parametrize("line", ["-q c a", "--quote c a", "-kq c a"])
def test_a_command_need_not_be_quoted_and_may(line: str) -> None:
    assert read(line)._replace(keep_order=False) == read("c a")


def test_what_looks_like_perl_may_be_said_with_another_marker() -> None:
    assert parse(["-I", ",,", "c", "{= =}"]).command == (b"c", b"{= =}")


def test_the_default_sequence_of_signals_is_what_the_help_says() -> None:
    assert read("--termseq TERM,200,TERM,100,TERM,50,KILL,25 c").termseq == DEFAULT_TERMSEQ
