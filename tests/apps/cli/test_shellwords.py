"""Words and the shell's text for them: against the shell itself, and there and back."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli.shellwords import join, quote, split

words = st.binary(max_size=12).map(lambda word: word.replace(b"\0", b""))
shellish = st.text("ab'\"\\ $\n\t=*~", max_size=8).map(str.encode)


@given(st.lists(words | shellish))
def test_what_is_joined_splits_into_the_same_words(some: list[bytes]) -> None:
    assert split(join(some)) == some


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (b"plain-_.+/09", b"plain-_.+/09"),
        (b"", b"''"),
        (b"a b", b"'a b'"),
        (b"a,b", b"'a,b'"),
        (b"it's", b"'it'\"'\"'s'"),
        (b"'", b'"\'"'),
        (b"'a'", b"\"'\"'a'\"'\""),
        (b"\xff", b"'\xff'"),
    ],
)
def test_a_word_is_quoted_as_gnu_parallel_quotes(word: bytes, text: bytes) -> None:
    assert quote(word) == text


def test_a_shell_reads_the_words_that_were_meant() -> None:
    some = [
        b"a b",
        b"it's",
        b"$HOME",
        b"`x`",
        b"*",
        b"",
        b"\n",
        b"\\",
        b"a\tb",
        b"\xff",
        b"~",
        b"a=b",
    ]
    script = b"printf '%s\\0' " + join(some)
    out = subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout
    assert out == b"".join(word + b"\0" for word in some)


@pytest.mark.parametrize(
    "text",
    [
        b"a | b", b"a; b", b"a && b", b"a > b", b"$x", b"`x`", b"a *", b"a ?", b"[a]", b"a # b",
        b"~", b"A=1 b", b"(a)", b"{ a; }", b'"$x"', b'"a', b"'a", b"a\nb", b"a\\", b"!a", b'"a\\n"',
    ],
)  # fmt: skip
def test_what_takes_a_shell_is_no_list_of_words(text: bytes) -> None:
    assert split(text) is None


def test_plain_texts_of_others_split_as_a_shell_does() -> None:
    assert split(b"  dd if=a of='b c'\t\\$x \"y z\"w ") == [
        b"dd",
        b"if=a",
        b"of=b c",
        b"$x",
        b"y zw",
    ]
    assert split(b"") == []
