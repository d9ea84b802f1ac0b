"""Pure: words as a Bourne shell reads them, written as GNU parallel writes them.

The rules of the room:

* ``split(join(words)) == words``, for all words without a NUL. A log of ours can be run again
  without a shell.
* `split` never guesses: a text that a shell could read as more than plain words (a pipe, a
  variable, a glob, an assignment) is no list of words, and the answer is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["join", "quote", "split"]

# Compiled where they are used: most runs print no command, and to compile the two takes as long as
# a dozen small modules take to import.

_PLAIN = rb"[-_.+a-zA-Z0-9/]+"
"""What GNU parallel leaves as it is (shell_quote_scalar_default, 20221122)."""

_PIECE = rb"""(?x)
      (?P<plain>   [-_.+a-zA-Z0-9/,:@%^=\x80-\xff]+ )
    | '(?P<single> [^']* )'
    | "(?P<double> [^"\\$`]* )"
    | \\(?P<escaped> [^\n] )
    | (?P<space>   [ \t]+ )
    """


def quote(word: bytes) -> bytes:
    """Return the text that a shell reads as *word*."""
    if re.fullmatch(_PLAIN, word):
        return word
    if not word:
        return b"''"
    quoted = b"'" + word.replace(b"'", b"'\"'\"'") + b"'"
    return quoted.removeprefix(b"''").removesuffix(b"''")


def join(words: Iterable[bytes]) -> bytes:
    """Return the text that a shell reads as *words*."""
    return b" ".join(map(quote, words))


def split(text: bytes) -> list[bytes] | None:
    """Return the words of *text*, or None when it takes a shell to tell what it means."""
    words: list[bytes] = []
    word: bytes | None = None
    at = 0
    match = re.compile(_PIECE).match
    while at < len(text):
        piece = match(text, at)
        if piece is None or (not words and _assigns(piece)):
            return None
        at = piece.end()
        if piece.lastgroup == "space":
            words += () if word is None else (word,)
            word = None
        else:
            word = (word or b"") + piece[piece.lastgroup or 0]
    words += () if word is None else (word,)
    return words


def _assigns(piece: re.Match[bytes]) -> bool:
    """Whether this piece of a first word makes the word an assignment, or may."""
    return piece.lastgroup == "plain" and b"=" in piece[0]
