"""When a run stops before its input ends."""

from __future__ import annotations

import pytest

from procreactor.apps.halt import NEVER, Decision, Halt, HaltPolicy, parse_halt

GO_ON, SOON, NOW = Decision.GO_ON, Decision.SOON, Decision.NOW


@pytest.mark.parametrize(
    ("text", "halt"),
    [
        ("never", NEVER),
        ("0", NEVER),
        ("1", Halt(SOON, "fail", 1)),
        ("2", Halt(NOW, "fail", 1)),
        ("-1", Halt(SOON, "success", 1)),
        ("-2", Halt(NOW, "success", 1)),
        ("5%", Halt(SOON, "fail", 5, True)),
        ("now,fail=1", Halt(NOW, "fail", 1)),
        ("soon,fail=3%", Halt(SOON, "fail", 3, True)),
        ("now,success=12", Halt(NOW, "success", 12)),
        ("soon,done=0.5%", Halt(SOON, "done", 0.5, True)),
        ("now,done=100%", Halt(NOW, "done", 100, True)),
    ],
)
def test_what_a_word_means(text: str, halt: Halt) -> None:
    assert parse_halt(text) == halt


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "soon",
        "3",
        "-3",
        "now,fail",
        "now,fail=",
        "now,fail=0",
        "now,fail=-1",
        "now,fail=1.5",
        "now,fail=0%",
        "now,fail=101%",
        "now,fails=1",
        "later,fail=1",
        "now, fail=1",
        "now,fail=1 ",
        "now,fail=\N{ARABIC-INDIC DIGIT ONE}",
        "now,fail=1%%",
        "0%",
        "%",
        ".%",
    ],
)
def test_what_a_word_must_not_be(text: str) -> None:
    with pytest.raises(ValueError, match="never, or now or soon"):
        parse_halt(text)


def play(text: str, results: str, total: int | None) -> list[Decision]:
    """The decisions after *results*, a letter each: ``.`` went well, ``x`` did not."""
    policy = HaltPolicy(parse_halt(text))
    return [
        policy.on_result(letter == ".", done, results[:done].count("x"), total)
        for done, letter in enumerate(results, 1)
    ]


@pytest.mark.parametrize(
    ("text", "results", "total", "decisions"),
    [
        ("never", "xxx", 3, [GO_ON] * 3),
        ("now,fail=1", ".x.", None, [GO_ON, NOW, NOW]),
        ("soon,fail=2", "x.x.x", None, [GO_ON, GO_ON, SOON, SOON, SOON]),
        ("now,success=2", "x.x.", None, [GO_ON, GO_ON, GO_ON, NOW]),
        ("soon,done=2", "x.x", None, [GO_ON, SOON, SOON]),
        # A share is one of all jobs, of which none is known before all are.
        ("soon,fail=50%", "xx", None, [GO_ON, GO_ON]),
        ("soon,fail=50%", "x.xx", 5, [GO_ON, GO_ON, GO_ON, SOON]),
        ("now,success=50%", "x..", 4, [GO_ON, GO_ON, NOW]),
        ("now,done=1%", ".", 100, [NOW]),
        ("now,done=1%", "..", 101, [GO_ON, NOW]),
        ("now,done=100%", "x.", 2, [GO_ON, NOW]),
        # What is not looked at does not decide, though the count is reached already.
        ("soon,fail=1%", "..", 2, [GO_ON, GO_ON]),
        ("now,success=1", "xx", 2, [GO_ON, GO_ON]),
    ],
)
def test_when_it_stops(
    text: str, results: str, total: int | None, decisions: list[Decision]
) -> None:
    assert play(text, results, total) == decisions


@pytest.mark.parametrize(("text", "needs"), [("now,fail=1", False), ("never", False), ("3%", True)])
def test_only_a_share_needs_the_whole_input(text: str, needs: bool) -> None:
    assert HaltPolicy(parse_halt(text)).needs_total is needs
