"""The template: what stands where a marker stood, and that no byte is lost or split."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli.shellwords import join, quote
from procreactor.apps.cli.template import Template, TextTemplate

VALUES = (b"dir/one.tar.gz", b"two", b"")

EDITS = [
    # value, {.}, {/}, {//}, {/.}
    (b"a/b.c", b"a/b", b"b.c", b"a", b"b"),
    (b"b.c", b"b", b"b.c", b".", b"b"),
    (b"a.d/b", b"a.d/b", b"b", b"a.d", b"b"),
    (b"a.b.c", b"a.b", b"a.b.c", b".", b"a.b"),
    (b".rc", b"", b".rc", b".", b""),
    (b"a.", b"a", b"a.", b".", b"a"),
    (b"a..b", b"a.", b"a..b", b".", b"a."),
    (b"/", b"/", b"", b"/", b""),
    (b"/a", b"/a", b"a", b"/", b"a"),
    (b"//a", b"//a", b"a", b"/", b"a"),
    (b"a/b/", b"a/b/", b"", b"a", b""),
    (b"a//b", b"a//b", b"b", b"a", b"b"),
    (b"..", b".", b"..", b".", b"."),
    (b"", b"", b"", b".", b""),
    (b"a b/c d.e f", b"a b/c d", b"c d.e f", b"a b", b"c d"),
    (b"\xff/\xfe.\xfd", b"\xff/\xfe", b"\xfe.\xfd", b"\xff", b"\xfe"),
    (b"a\nb/c\n.d\n", b"a\nb/c\n", b"c\n.d\n", b"a\nb", b"c\n"),
]


@pytest.mark.parametrize(("value", "bare", "last", "directory", "stem"), EDITS)
def test_each_marker_stands_for_its_part_of_the_path(
    value: bytes, bare: bytes, last: bytes, directory: bytes, stem: bytes
) -> None:
    words = [b"{}", b"{.}", b"{/}", b"{//}", b"{/.}", b"{1}", b"{1.}", b"{1/}", b"{1//}", b"{1/.}"]
    parts = [value, bare, last, directory, stem]
    assert Template(words).render((value,), 1, 1) == parts * 2
    within = Template([b"<" + word + b">" for word in words])
    assert within.render((value,), 1, 1) == [b"<" + part + b">" for part in parts] * 2


CASES = [
    # words, values, argv
    ([b"echo"], (b"a",), [b"echo", b"a"]),
    ([b"echo"], (b"a", b"b"), [b"echo", b"a", b"b"]),
    ([b"echo"], (), [b"echo"]),
    ([b"echo", b"{}", b"x"], (b"a b",), [b"echo", b"a b", b"x"]),
    ([b"echo", b"{}", b"x"], (), [b"echo", b"x"]),
    ([b"echo", b"{}", b"{}"], (b"a", b"b"), [b"echo", b"a", b"b", b"a", b"b"]),
    ([b"echo", b"{}{}"], (b"a", b"b"), [b"echo", b"a ba b"]),
    ([b"echo", b"<{}>"], (b"a", b"b"), [b"echo", b"<a b>"]),
    ([b"echo", b"{.}", b"{/}"], (b"d/a.x", b"b.y"), [b"echo", b"d/a", b"b", b"a.x", b"b.y"]),
    ([b"{}", b"-v"], (b"ls",), [b"ls", b"-v"]),
    ([b"echo", b"{2}", b"{1}"], (b"a", b"b"), [b"echo", b"b", b"a"]),
    ([b"echo", b"{-1}", b"{-2.}"], (b"a.x", b"b.y"), [b"echo", b"b.y", b"a"]),
    ([b"echo", b"{3}", b"{-3}", b"<{3}>"], (b"a", b"b"), [b"echo", b"", b"", b"<>"]),
    ([b"echo", b"{1}{2}%s%%{1}"], (b"a", b"%d"), [b"echo", b"a%d%s%%a"]),
    ([b"echo", b"{#}:{%}", b"{}"], (b"a",), [b"echo", b"7:3", b"a"]),
    ([b"echo", b"{#}"], (b"a",), [b"echo", b"7"]),
    ([b"echo", b"{%}"], (b"a",), [b"echo", b"3"]),
    ([b"echo", b"{0}", b"{a}", b"{ }", b"{", b"}", b"{1", b"{}"], (b"v",), None),
    ([b"echo", b"{{}}", b"{{1}}"], (b"v",), [b"echo", b"{v}", b"{v}"]),
    ([b"echo", b"{1}"], (b"{2}", b"{}"), [b"echo", b"{2}"]),
]


@pytest.mark.parametrize(("words", "values", "argv"), CASES)
def test_argv_of_words_and_values(
    words: list[bytes], values: tuple[bytes, ...], argv: list[bytes] | None
) -> None:
    expected = argv if argv is not None else [*words[:-1], *values]
    assert Template(words).render(values, 7, 3) == expected


def test_another_marker_replaces_the_first_one_alone() -> None:
    template = Template([b"echo", b",,", b"{}", b"x,,y", b"{.}", b"{1}"], marker=b",,")
    assert template.render((b"a.b",), 1, 1) == [b"echo", b"a.b", b"{}", b"xa.by", b"a", b"a.b"]


@pytest.mark.parametrize("marker", [b".", b"[x]", b"%", b"{.}", b"a", b"\\1"])
def test_a_marker_is_no_pattern(marker: bytes) -> None:
    template = Template([b"<" + marker + b">", b"zz"], marker=marker)
    assert template.has_marker
    assert template.render((b"v.w",), 1, 1) == [b"<v.w>", b"zz"]


def test_a_command_without_marker_gets_the_one_that_was_chosen() -> None:
    template = Template([b"echo"], marker=b",,")
    assert not template.has_marker
    assert template.render((b"a", b"b"), 1, 1) == [b"echo", b"a", b"b"]


@pytest.mark.parametrize(
    ("word", "has_marker", "uses_slot"),
    [
        (b"x", False, False),
        (b"{}", True, False),
        (b"a{2/}b", True, False),
        (b"{#}", True, False),
        (b"a{%}b", True, True),
    ],
)
def test_what_a_template_says_of_itself(word: bytes, has_marker: bool, uses_slot: bool) -> None:
    for template in (Template([b"echo", word]), TextTemplate(word), Template([word], shell=True)):
        assert (template.has_marker, template.uses_slot) == (has_marker, uses_slot)


def test_rendering_leaves_the_template_as_it_was() -> None:
    template = Template([b"echo", b"{}", b"<{}>"])
    template.render((b"a", b"b"), 1, 1).append(b"more")
    assert template.render((b"c",), 2, 1) == [b"echo", b"c", b"<c>"]


def test_a_command_without_words_needs_a_shell() -> None:
    with pytest.raises(ValueError, match="at least one word"):
        Template([])


def test_a_marker_must_have_a_byte() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Template([b"echo"], marker=b"")


def test_a_text_is_rendered_as_one_word() -> None:
    text = TextTemplate(b"{#}/{%}: {} in {1//}")
    assert text.render((b"a/b", b"c"), 4, 2) == b"4/2: a/b c in a"
    assert TextTemplate(b"plain").render((b"a",), 1, 1) == b"plain"


# --- A shell --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "values", "line"),
    [
        ([b"echo {} | wc"], (b"a b",), b"echo 'a b' | wc"),
        ([b"echo"], (b"a", b"it's"), b"echo a 'it'\"'\"'s'"),
        ([b"echo", b"$HOME", b"{1}.{2}"], (b"a", b"$b"), b"echo $HOME a.'$b'"),
        ([b"echo", b"{3}"], (b"a",), b"echo ''"),
        ([b"echo {#} {%}"], (b"a",), b"echo 7 3"),
        ([b"{} -v"], (b"ls -l",), b"'ls -l' -v"),
        ([], (b"ls -l | wc",), b"ls -l | wc"),
        ([], (b"echo", b"$HOME"), b"echo $HOME"),
    ],
)
def test_a_shell_gets_one_program_with_quoted_values(
    words: list[bytes], values: tuple[bytes, ...], line: bytes
) -> None:
    argv = Template(words, shell=True).render(values, 7, 3)
    assert argv == [b"/bin/sh", b"-c", line]


texts = st.binary(max_size=12).map(lambda text: text.replace(b"\0", b""))
hostile = st.one_of(texts, st.text("'\"\\$`!*?[]{}~#&|;<>()\n\t -=", max_size=8).map(str.encode))


@given(st.lists(hostile, min_size=1, max_size=20))
def test_a_shell_reads_back_what_was_quoted(values: list[bytes]) -> None:
    program = b"printf '%s\\0' " + join(values)
    said = subprocess.run([b"/bin/sh", b"-c", program], capture_output=True, check=True)
    assert said.stdout == b"".join(value + b"\0" for value in values)
    assert said.stderr == b""


def test_plain_words_need_no_quotes() -> None:
    """Plain is what GNU parallel takes for plain: of a job log it is the text that is compared."""
    assert quote(b"/usr/bin/x-1_2.3+4") == b"/usr/bin/x-1_2.3+4"
    assert quote(b"4:5@6%7=8,9") == b"'4:5@6%7=8,9'"
    assert quote(b"") == b"''"


# --- No byte is lost or split ---------------------------------------------------------------------

literals = texts.map(lambda text: text.replace(b"{", b"").replace(b"}", b""))
fills = st.sampled_from([b"{}", b"{1}", b"{2}", b"{-1}", b"{#}", b"{%}"])
anything = st.lists(texts, min_size=2, max_size=4).map(tuple)


@given(st.lists(st.tuples(literals, fills), min_size=1, max_size=5), literals, anything)
def test_a_word_is_its_literals_and_its_values_in_order(
    pieces: list[tuple[bytes, bytes]], end: bytes, values: tuple[bytes, ...]
) -> None:
    meanings = {
        b"{}": b" ".join(values),
        b"{1}": values[0],
        b"{2}": values[1],
        b"{-1}": values[-1],
        b"{#}": b"12",
        b"{%}": b"3",
    }
    word = b"".join(literal + fill for literal, fill in pieces) + end
    expected = b"".join(literal + meanings[fill] for literal, fill in pieces) + end
    if word == b"{}":
        assert Template([b"echo", word]).render(values, 12, 3) == [b"echo", *values]
    else:
        assert Template([b"echo", word]).render(values, 12, 3) == [b"echo", expected]
    assert TextTemplate(word).render(values, 12, 3) == expected


@given(st.lists(literals, min_size=1, max_size=5), st.lists(texts, max_size=4).map(tuple))
def test_words_without_markers_and_values_pass_as_they_are(
    words: list[bytes], values: tuple[bytes, ...]
) -> None:
    template = Template(words)
    assert template.render(values, 1, 1) == [*words, *values]
    middle = Template([words[0], b"{}", *words[1:]])
    argv = middle.render(values, 1, 1)
    assert argv == [words[0], *values, *words[1:]]
    assert all(one is value for one, value in zip(argv[1:], values, strict=False))
