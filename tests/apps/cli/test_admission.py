"""When the next job may start: the decision, and the files that it is made from."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procreactor.apps.cli.admission import (
    LOOK_AGAIN_S,
    Admission,
    AdmissionPolicy,
    max_load,
    read_load,
    read_memory,
)


def test_a_policy_that_asks_nothing_never_waits() -> None:
    policy = AdmissionPolicy()
    assert policy.wait_s(5.0, 5.0, 1000.0, 0) == 0.0


def test_a_delay_lies_between_two_starts() -> None:
    policy = AdmissionPolicy(delay_s=2.0)
    assert policy.wait_s(10.0, None) == 0.0
    assert policy.wait_s(10.5, 10.0) == 1.5
    assert policy.wait_s(12.0, 10.0) == 0.0


def test_a_busy_machine_is_looked_at_again() -> None:
    policy = AdmissionPolicy(max_load=2.0)
    assert policy.wait_s(0.0, None, 2.0) == LOOK_AGAIN_S
    assert policy.wait_s(0.0, None, 1.9) == 0.0
    assert policy.wait_s(0.0, None, None) == 0.0


def test_below_the_memory_asked_for_nothing_starts() -> None:
    policy = AdmissionPolicy(memory_bytes=1000)
    assert policy.wait_s(0.0, None, None, 999) == LOOK_AGAIN_S
    assert policy.wait_s(0.0, None, None, 1000) == 0.0
    assert policy.wait_s(0.0, None, None, None) == 0.0


def test_below_half_the_memory_the_youngest_goes_but_never_the_last() -> None:
    policy = AdmissionPolicy(memory_bytes=1000)
    assert policy.must_kill_youngest(499, 2)
    assert not policy.must_kill_youngest(500, 2)
    assert not policy.must_kill_youngest(0, 1)
    assert not policy.must_kill_youngest(None, 2)
    assert not AdmissionPolicy().must_kill_youngest(0, 2)


def test_this_machine_as_it_is_now_is_asked() -> None:
    assert Admission(AdmissionPolicy()).wait_s(None) == 0.0
    too_much = Admission(AdmissionPolicy(memory_bytes=1 << 60))
    assert too_much.wait_s(None) == (0.0 if read_memory() is None else LOOK_AGAIN_S)
    assert too_much.must_kill_youngest(2) == (read_memory() is not None)
    assert not too_much.must_kill_youngest(1)
    assert Admission(AdmissionPolicy(max_load=0.0)).wait_s(None) == (
        0.0 if read_load() is None else LOOK_AGAIN_S
    )
    assert 0 < Admission(AdmissionPolicy(delay_s=3600.0)).wait_s(time.monotonic()) <= 3600


@given(
    st.builds(
        AdmissionPolicy,
        st.floats(0, 100),
        st.none() | st.floats(0, 10),
        st.none() | st.integers(0, 100),
    ),
    st.floats(0, 1e6),
    st.none() | st.floats(0, 1e3),
    st.none() | st.floats(0, 20),
    st.none() | st.integers(0, 200),
)
def test_a_wait_is_never_negative_nor_longer_than_what_asks_for_it(
    policy: AdmissionPolicy,
    now_s: float,
    since_s: float | None,
    load: float | None,
    memory: int | None,
) -> None:
    last_s = None if since_s is None else now_s - since_s
    assert (
        0 <= policy.wait_s(now_s, last_s, load, memory) <= max(policy.delay_s, LOOK_AGAIN_S) + 1e-6
    )


def test_a_limit_is_a_number_or_a_share_of_the_processors() -> None:
    assert max_load("1.5") == 1.5
    assert max_load("150%", cpus=4) == 6.0
    assert max_load("100%") >= 1
    assert max_load("0") == max_load("0%", cpus=3) == 0.01


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "5%x", "%"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="load must be"):
        max_load(text)


def test_this_machine_says_its_load_and_memory() -> None:
    load, memory = read_load(), read_memory()
    assert load is None or load >= -1
    assert memory is None or memory > 0


def test_the_load_is_the_average_or_what_runs_now_without_ourselves(tmp_path: Path) -> None:
    file = tmp_path / "loadavg"
    file.write_text("0.50 0.40 0.30 4/200 1234\n")
    assert read_load(str(file)) == 3.0
    file.write_text("7.25 0.40 0.30 1/200 1234\n")
    assert read_load(str(file)) == 7.25


def test_memory_is_what_is_available(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal: 4 kB\nMemFree: 1 kB\nMemAvailable:    3 kB\n")
    assert read_memory(str(file)) == 3072


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert read_load(str(tmp_path / "none")) is None
    assert read_memory(str(tmp_path / "none")) is None
    (tmp_path / "odd").write_text("MemAvailable:\nno numbers")
    assert read_load(str(tmp_path / "odd")) is None
    assert read_memory(str(tmp_path / "odd")) is None
