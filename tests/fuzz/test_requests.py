"""Any arguments at all for spawnProcess: refused, or a child that ends; nothing between.

What is drawn is mostly sound, so that most calls come further than the first check, and here and
there anything that Python has. No program is run but three that end at once: nothing drawn can name
another.
"""

from __future__ import annotations

import os
import pathlib
import resource
import signal
from typing import Any

from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from leftovers import open_fds
from support import Recorder, make_reactor, run_until

from procreactor.errors import SpawnError

anything: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.integers(), st.text(max_size=2), max_size=2),
    st.just(object()),
)
words = st.one_of(st.text(max_size=8), st.binary(max_size=8), st.just("\udcff"), st.just("a\0b"))
"""NUL, bytes that are no text, and text that is no bytes are among them."""

programs = st.sampled_from(
    ["/bin/true", b"/bin/false", pathlib.Path("/bin/true"), "true", "/nowhere", "", "/bin/true\0x"]
)
numbers = st.one_of(
    st.integers(0, 3),
    st.sampled_from([-1, 64, 65, 255, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64]),
)
fds = st.dictionaries(
    st.one_of(st.integers(0, 9), numbers),
    st.one_of(st.sampled_from(["r", "w"]), st.integers(0, 12), numbers, words),
    max_size=6,
)
limits = st.dictionaries(
    st.one_of(st.sampled_from([resource.RLIMIT_CORE, resource.RLIMIT_NPROC]), numbers),
    st.one_of(numbers, st.tuples(numbers, numbers)),
    max_size=2,
)


def mostly(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """*strategy*, or one time in some anything else."""
    return st.integers(0, 15).flatmap(lambda n: anything if n == 15 else strategy)


arguments = st.fixed_dictionaries(
    {"executable": mostly(programs)},
    optional={
        "args": mostly(st.lists(words, max_size=4)),
        "env": mostly(st.dictionaries(words, words, max_size=3)),
        "path": mostly(st.sampled_from([None, "/", b"/", "/nowhere", "/\0", pathlib.Path("/")])),
        "uid": mostly(st.sampled_from([None, os.getuid(), 2**32 - 1, 2**32, -1])),
        "gid": mostly(st.sampled_from([None, os.getgid(), 2**32 - 1, 2**32, -1])),
        "usePTY": mostly(st.sampled_from([0, 0, 0, 1, (1, 2), (2**31, 2**31, "")])),
        "childFDs": mostly(fds),
        "umask": mostly(numbers),
        "rlimits": mostly(limits),
        "processGroup": mostly(st.sampled_from([None, 0, 0, 1, 2**31])),
        "session": mostly(st.booleans()),
        "nice": mostly(st.integers(-41, 41)),
        "parentDeathSignal": mostly(st.sampled_from(["TERM", "NONE", signal.SIGKILL, 0, 65])),
        "noNewPrivileges": mostly(st.booleans()),
        "cgroup": mostly(st.sampled_from([None, None, "/nowhere", 2**31, -1])),
        "signalMask": mostly(st.lists(numbers, max_size=3)),
        "windowSize": mostly(st.sampled_from([None, (24, 80), (1,), (2**16, 1)])),
    },
)


def try_to_spawn(
    reactor: Any, recorder: Recorder, given_arguments: dict[str, Any]
) -> Exception | None:
    """Why there is no child; None where there is one. Any other exception fails the test."""
    try:
        reactor.spawnProcess(recorder, **given_arguments)
    except (TypeError, ValueError, SpawnError) as error:
        event(f"refused: {getattr(error, 'stage', 'by Python')}")
        return error
    return None


@settings(
    max_examples=250,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@example({"executable": "/bin/true"})
@example({"executable": "/bin/true", "args": ["true", "a\0b"]})
@example({"executable": "/bin/true", "env": {"A": "b\0C=d"}})
@example({"executable": "/bin/true", "uid": 2**32 - 1})
@example({"executable": "/bin/true", "childFDs": {0: 2**31}})
@given(arguments)
def test_any_arguments_are_refused_or_start_a_child_that_ends(given_arguments: Any) -> None:
    recorder = Recorder()
    before = open_fds().keys()
    with make_reactor() as reactor:
        idle = open_fds().keys()
        refusal = try_to_spawn(reactor, recorder, given_arguments)
        if refusal is None:
            event("ran")
            run_until(reactor, lambda: recorder.ended)
        else:
            assert str(refusal)
            assert not recorder.calls
            assert open_fds().keys() == idle
    assert open_fds().keys() == before
    # The core finds fault with a request only where Python's checks have let one by.
    assert getattr(refusal, "stage", None) != "request"
