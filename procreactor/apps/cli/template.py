"""Pure: the words of a command, and the values of a record, become the argv of one child.

What stands in a word for what, with "value" for one item of a record:

    {}    the values            {n}    value n; {-1} is the last one
    {.}   without extension     {n.}   likewise of value n, and so on
    {/}   the last part of the path
    {//}  the directory, as dirname(1) says it
    {/.}  the last part, without extension
    {#}   the number of the job, from 1
    {%}   the number of the slot it runs in, from 1

The rules of the room:

* No shell comes near, unless asked for: a word with nothing to replace is passed on as the very
  object it was, and a value is never split, quoted or looked at.
* A word that is ``{}`` alone (or ``{.}``, ``{/}`` ...) becomes one argument per value, as in xargs.
  Within a word the values stand joined by a space, and it stays one argument. (GNU parallel joins
  them too, but its shell splits the word there.) ``{n}`` is always one value; one that is not there
  is empty.
* A command that says none of these gets ``{}`` as its last word, whatever marker -I chose. (With
  -I, xargs appends nothing; GNU parallel does, and so do we: one rule.) ``{#}`` and ``{%}`` alone
  do count as saying something, as in GNU parallel.
* With ``shell=True`` the words, joined by spaces, are a program for /bin/sh, and each value in it
  is quoted. Without any word the values are the program, and stand as they are.
* Parsed once. A `render` of a simple command is about a microsecond: the words that stay are
  copied in one go, and a word with values in it is one ``%`` of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from procreactor.apps.cli.shellwords import quote

__all__ = ["DEFAULT_MARKER", "Template", "TextTemplate"]

DEFAULT_MARKER = b"{}"

Values = tuple[bytes, ...]
Edit = Callable[[bytes], bytes]
Fill = Callable[[Values, int, int], bytes]
"""Makes what stands for one marker, of the values, the job's number and the slot's."""


class Template:
    """The command of *words*, ready to be filled in; *marker* stands where ``{}`` would."""

    __slots__ = ("_fills", "_spreads", "_words", "has_marker", "uses_slot")

    def __init__(
        self, words: Sequence[bytes], *, marker: bytes = DEFAULT_MARKER, shell: bool = False
    ) -> None:
        markers = _pattern(marker)
        found = {match[0] for word in words for match in markers.finditer(word)}
        self.has_marker = bool(found)
        """Whether the words themselves say where the values go."""

        self.uses_slot = b"{%}" in found
        """Whether the slot's number changes what is rendered."""

        if not words and not shell:
            raise ValueError("a command must have at least one word, unless a shell is to read it")
        whole = [*words] if self.has_marker else [*words, marker]
        if shell:
            finish = quote if words else _unchanged
            self._words = [b"/bin/sh", b"-c", b""]
            self._fills = [(2, _filler(b" ".join(whole), markers, finish))]
            self._spreads: list[tuple[int, Edit]] = []
            return
        self._words = whole
        self._spreads = [
            (index, _EDITS[match["edit"] or b""])
            for index, word in enumerate(whole)
            if (match := markers.fullmatch(word)) and _is_about_all(match)
        ][::-1]  # from the end, so that an index is still right when its turn comes
        spread = {index for index, _ in self._spreads}
        self._fills = [
            (index, _filler(word, markers, _unchanged))
            for index, word in enumerate(whole)
            if index not in spread and markers.search(word)
        ]

    def render(self, values: Values, seq: int, slot: int) -> list[bytes]:
        """Return the argv for *values* as job number *seq* in slot number *slot*, each from 1."""
        argv = self._words.copy()
        for index, fill in self._fills:
            argv[index] = fill(values, seq, slot)
        for index, edit in self._spreads:
            if edit is _unchanged:
                argv[index : index + 1] = values
            else:
                argv[index : index + 1] = map(edit, values)
        return argv


class TextTemplate:
    """One text with markers, such as a tag or the name of a directory."""

    __slots__ = ("_fill", "has_marker", "uses_slot")

    def __init__(self, text: bytes, *, marker: bytes = DEFAULT_MARKER) -> None:
        markers = _pattern(marker)
        found = {match[0] for match in markers.finditer(text)}
        self.has_marker = bool(found)
        self.uses_slot = b"{%}" in found
        self._fill = _filler(text, markers, _unchanged)

    def render(self, values: Values, seq: int, slot: int) -> bytes:
        """Return the text for *values*, joined by spaces where several stand for one marker."""
        return self._fill(values, seq, slot)


# --- Words ----------------------------------------------------------------------------------------


def _pattern(marker: bytes) -> re.Pattern[bytes]:
    """All that is replaced in a word, with *marker* for the values as they are."""
    if not marker:
        raise ValueError("the marker of -I must have at least one byte")
    edit = rb"\.|//|/\.|/"
    return re.compile(
        rb"(?P<all>%b)" % re.escape(marker)
        + rb"|\{(?:(?P<number>-?[1-9][0-9]{0,8})(?P<edit_of_one>%b)?" % edit
        + rb"|(?P<edit>%b)|(?P<count>[#%%]))\}" % edit
    )


def _is_about_all(match: re.Match[bytes]) -> bool:
    return match["all"] is not None or match["edit"] is not None


def _filler(text: bytes, markers: re.Pattern[bytes], finish: Edit) -> Fill:
    """Return what makes *text* with its markers filled in, each value through *finish*."""
    literals: list[bytes] = []
    fills: list[Fill] = []
    end = 0
    for match in markers.finditer(text):
        literals.append(text[end : match.start()])
        fills.append(_fill_for(match, finish))
        end = match.end()
    literals.append(text[end:])
    if len(fills) == 1 and literals == [b"", b""]:
        return fills[0]
    form = b"%b".join([literal.replace(b"%", b"%%") for literal in literals])

    def fill(values: Values, seq: int, slot: int) -> bytes:
        return form % tuple([one(values, seq, slot) for one in fills])

    return fill


def _fill_for(match: re.Match[bytes], finish: Edit) -> Fill:
    if match["count"] == b"#":
        return lambda values, seq, slot: b"%d" % seq
    if match["count"] == b"%":
        return lambda values, seq, slot: b"%d" % slot
    if match["number"] is not None:
        edit = _chain(_EDITS[match["edit_of_one"] or b""], finish)
        return _fill_with_one(int(match["number"]), edit, finish(b""))
    edit = _chain(_EDITS[match["edit"] or b""], finish)
    if edit is _unchanged:
        return lambda values, seq, slot: b" ".join(values)
    return lambda values, seq, slot: b" ".join([edit(value) for value in values])


def _fill_with_one(number: int, edit: Edit, missing: bytes) -> Fill:
    index = number - 1 if number > 0 else number
    least = number if number > 0 else -number

    def fill(values: Values, seq: int, slot: int) -> bytes:
        return edit(values[index]) if len(values) >= least else missing

    return fill


def _chain(first: Edit, then: Edit) -> Edit:
    if then is _unchanged:
        return first
    if first is _unchanged:
        return then
    return lambda value: then(first(value))


# --- Values ---------------------------------------------------------------------------------------


def _unchanged(value: bytes) -> bytes:
    return value


def _without_extension(value: bytes) -> bytes:
    """Cut the last dot of the last part and what follows, be it nothing, as GNU parallel does."""
    dot = value.rfind(b".")
    if dot < 0 or value.find(b"/", dot) >= 0:
        return value
    return value[:dot]


def _last_part(value: bytes) -> bytes:
    return value[value.rfind(b"/") + 1 :]


def _directory(value: bytes) -> bytes:
    """What dirname(1) prints: slashes at the end do not count, and no directory is a dot."""
    path = value.rstrip(b"/")
    if not path:
        return b"/" if value else b"."
    cut = path.rfind(b"/")
    if cut < 0:
        return b"."
    return path[:cut].rstrip(b"/") or b"/"


def _last_part_without_extension(value: bytes) -> bytes:
    return _without_extension(_last_part(value))


_EDITS: dict[bytes, Edit] = {
    b"": _unchanged,
    b".": _without_extension,
    b"/": _last_part,
    b"//": _directory,
    b"/.": _last_part_without_extension,
}
