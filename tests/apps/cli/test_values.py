"""The values of options: what each may be, and what it must not."""

from __future__ import annotations

import signal

import pytest

from procreactor.apps.cli import values
from procreactor.apps.cli.values import Jobs, Load, Step, Timeout

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL


@pytest.mark.parametrize(
    ("text", "cpus", "jobs"),
    [
        ("1", 8, 1),
        ("0", 8, None),
        ("40", 8, 40),
        ("100%", 8, 8),
        ("50%", 8, 4),
        ("150%", 2, 3),
        ("12.5%", 8, 1),
        ("1%", 8, 1),
        ("+2", 8, 10),
        ("+0", 8, 8),
        ("-3", 8, 5),
        ("-8", 8, 1),
        ("-80", 8, 1),
    ],
)
def test_jobs(text: str, cpus: int, jobs: int | None) -> None:
    assert values.jobs(text).resolve(cpus) == jobs


@pytest.mark.parametrize(
    "text", ["", "x", "1.5", "0%", "-5%", "+5%", "%", "1e3", "++1", "0x1", "٣"]
)
def test_no_jobs(text: str) -> None:
    with pytest.raises(ValueError, match="percentage of the CPUs"):
        values.jobs(text)


def test_jobs_are_kept_as_they_were_written() -> None:
    assert values.jobs("150%") == Jobs(150, "%")
    assert values.jobs("-1") == Jobs(-1, "+")


@pytest.mark.parametrize(
    ("text", "load", "average"),
    [
        ("1.5", Load(1.5), 1.5),
        ("80%", Load(80, True), 6.4),
        ("0", Load(0), 0.01),
        ("0%", Load(0, True), 0.01),
    ],
)
def test_load(text: str, load: Load, average: float) -> None:
    assert values.load(text) == load
    assert load.resolve(8) == pytest.approx(average)


@pytest.mark.parametrize("text", ["", "-1", "x", "1%%", "."])
def test_no_load(text: str) -> None:
    with pytest.raises(ValueError, match="a load average"):
        values.load(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("1K", 1024),
        ("1k", 1000),
        ("1.5M", 1536 * 1024),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("1p", 10**15),
    ],
)
def test_size(text: str, size: int) -> None:
    assert values.bytes_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "1KB", "-1", "1 K", "1e3", "1X"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size in bytes"):
        values.bytes_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h30", 3630),
        ("2d", 172800),
        ("1d3h16m6.4s", 98166.4),
        ("1.5M", 90),
    ],
)
def test_time(text: str, seconds: float) -> None:
    assert values.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "5x", "m", "-1", "1m2h", "1s1s", "1 m", "nan", "inf"])
def test_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="seconds, or a time"):
        values.seconds(text)


@pytest.mark.parametrize(
    ("text", "timeout"),
    [("10", Timeout(10)), ("5m", Timeout(300)), ("200%", Timeout(200, True))],
)
def test_timeout(text: str, timeout: Timeout) -> None:
    assert values.timeout(text) == timeout


@pytest.mark.parametrize("text", ["", "0", "0%", "%", "5x", "-1", "-5%", "1m%"])
def test_no_timeout(text: str) -> None:
    with pytest.raises(ValueError, match="more than zero"):
        values.timeout(text)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("TERM,200,KILL", (Step(TERM, 200), Step(KILL, 0))),
        ("TERM,200,TERM,100,TERM,50,KILL,25", values.DEFAULT_TERMSEQ),
        ("SIGINT,0", (Step(INT, 0),)),
        ("int,5,9,1", (Step(INT, 5), Step(KILL, 1))),
        ("KILL", (Step(KILL, 0),)),
        ("34", (Step(34, 0),)),
    ],
)
def test_termseq(text: str, steps: tuple[Step, ...]) -> None:
    assert values.termseq(text) == steps


@pytest.mark.parametrize(
    "text", ["", "TERM,", "NOPE", "TERM,x", "TERM,-1", "0", "65", ",5", "200,TERM"]
)
def test_no_termseq(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as TERM,200,KILL"):
        values.termseq(text)


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        (b",", b","),
        (b"::", b"::"),
        (rb"\n", b"\n"),
        (rb"\t", b"\t"),
        (rb"\r\n", b"\r\n"),
        (rb"\0", b"\0"),
        (rb"\x2c", b","),
        (rb"\xFF", b"\xff"),
        (rb"\054", b","),
        (rb"\\", b"\\"),
        (rb"\0000", b"\x000"),
        (rb"\1a", b"\x01a"),
        (b"\xff", b"\xff"),
        ("\N{EURO SIGN}".encode(), b"\xe2\x82\xac"),
    ],
)
def test_delimiter(text: bytes, delimiter: bytes) -> None:
    assert values.delimiter(text) == delimiter


@pytest.mark.parametrize("text", [b"", b"\\", rb"\q", rb"\x", rb"\xg", rb"\8", rb"\777"])
def test_no_delimiter(text: bytes) -> None:
    with pytest.raises(ValueError, match="one or more bytes"):
        values.delimiter(text)


@pytest.mark.parametrize(("text", "number"), [("-20", -20), ("19", 19), ("+5", 5), ("0", 0)])
def test_niceness(text: str, number: int) -> None:
    assert values.niceness(text) == number


@pytest.mark.parametrize("text", ["-21", "20", "", "x", "1.0", "9" * 30])
def test_no_niceness(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number from -20 to 19"):
        values.niceness(text)
