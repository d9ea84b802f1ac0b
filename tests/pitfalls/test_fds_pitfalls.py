"""What happens to fds between parent and child: each pitfall that was met elsewhere, as a test.

A child is to get exactly the fds that it was promised, under the numbers that it was promised, and
the parent is to keep exactly what it had; whatever numbers are free, taken, closed, too high, or
used by the spawner itself, and whatever other threads do meanwhile. The pitfalls are numbered B.1
to B.16; each test says which is its own.

    does not apply   because
    B.6, in part     a limit of a billion files needs a raised fs.nr_open, and that is the whole
                     machine's; the test goes as high as it may, and as a child closes one by one

What a child got, it says itself (tests/programs/fdtable.c), and that is compared to a small model
(fdtables.expected_table). Most tests run in a process of their own: they close, limit and forbid.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alone import alone
from fdtables import (
    ChildTables,
    End,
    file_of,
    landing_slots,
    new_file,
    numbers_taken,
    open_at,
    own_table,
    room_for,
)
from fuse import needs_fuse, served
from held import held_copy
from mounts import needs_mounts, private_mounts, unmount
from seccomp import Call, deny, needs_seccomp, supervised
from support import (
    LACKS,
    PROC,
    PYTHON,
    Recorder,
    make_reactor,
    run_until,
    spawn_and_finish,
)
from ways import WAYS, finish_on, on_every_way, on_way, spawn_on

from procreactor.errors import SpawnError

Build = Callable[[str], str]
T = TypeVar("T")

ON_PIPES = (
    "plain",
    "legacy clone",
    "own fd table",
    "fork",
    "launcher",
    "fork to another user",
)
"""The ways for which childFDs mean something."""

CLOSE_RANGE_UNSHARE = 2
CUT = 64
"""From here on, nothing of the parent's table is copied for a child that shares it at first."""


@pytest.fixture
def reports(public_path: Path) -> str:
    """A file name that children of any user can write to."""
    public_path.chmod(0o777)
    return str(public_path / "report")


@contextmanager
def tables(way: str, program: str, report: str, end: int = 1024) -> Iterator[ChildTables]:
    with make_reactor() as reactor:
        yield ChildTables(reactor, program, Path(report), way, end)


@contextmanager
def crowd(count: int = 100) -> Iterator[None]:
    """For as long as this lasts, *count* fds are open, so that new ones get high numbers."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


def in_thread(function: Callable[[], T]) -> T:
    """Return or raise what *function* does, called in a thread.

    For what a thread can take upon itself and never gets rid of: filters, namespaces.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def has_ended(child: Recorder) -> Callable[[], bool]:
    return lambda: child.ended


def no_child_is_left() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


# --- B.1: standard fds that are closed in the parent ---------------------------------------------

STANDARD_MAPS: list[Mapping[int, End] | None] = [
    None,
    {},
    {0: "w", 1: "r"},
    {2: "r"},
    {1: "w", 0: "r", 7: "r"},
]


@contextmanager
def closed(fds: Iterable[int]) -> Iterator[None]:
    """For as long as this lasts, none of *fds* is open; then they are what they were."""
    aside = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 500) for fd in fds}
    inheritable = {fd for fd in aside if os.get_inheritable(fd)}
    for fd in aside:
        os.close(fd)
    try:
        yield
    finally:
        for fd, saved in aside.items():
            os.dup2(saved, fd, inheritable=fd in inheritable)
            os.close(saved)


def subsets(fds: Iterable[int]) -> Iterator[tuple[int, ...]]:
    numbers = list(fds)
    for count in range(len(numbers) + 1):
        yield from itertools.combinations(numbers, count)


def with_standard_fds_closed(way: str, program: str, report: str, reactor_first: bool) -> int:
    tried = 0
    for missing in subsets((0, 1, 2)):
        with ExitStack() as stack:
            if reactor_first:  # its own fds are elsewhere, and the pipes get the low numbers
                found = stack.enter_context(tables(way, program, report))
                stack.enter_context(closed(missing))
            else:  # its own fds get the low numbers
                stack.enter_context(closed(missing))
                found = stack.enter_context(tables(way, program, report))
            rest: dict[int, End] = {fd: fd for fd in (0, 1, 2) if fd not in missing}
            turned: dict[int, End] = {(fd + 1) % 3: fd for fd in rest}
            for child_fds in [*STANDARD_MAPS, rest, turned, {**turned, 5: "r", 6: "w"}]:
                found.spawn(child_fds)
                tried += 1
    return tried


@pytest.mark.parametrize("reactor_first", [True, False], ids=["reactor first", "closed first"])
@on_every_way(*ON_PIPES)
def test_any_of_the_standard_fds_may_be_closed_in_the_parent(
    way: str, reactor_first: bool, program: Build, reports: str
) -> None:
    """B.1."""
    args = (program("fdtable"), reports, reactor_first)
    assert on_way(way, with_standard_fds_closed, *args) == 8 * 8


def talk_with_standard_fds_closed(way: str) -> list[str]:
    heard = []
    with make_reactor() as reactor:
        for missing in subsets((0, 1, 2)):
            with closed(missing):
                child = Recorder()
                transport = spawn_on(way, reactor, child, "/bin/sh", ["sh", "-c", "cat; cat >&2"])
                transport.write(b"hello")
                transport.closeStdin()
                run_until(reactor, has_ended(child))
                with pytest.raises(FileNotFoundError):
                    spawn_on(way, reactor, Recorder(), "/nonexistent")
                heard.append(child.out.decode() + child.err.decode())
    return heard


@on_every_way(*ON_PIPES)
def test_with_standard_fds_closed_data_and_refusals_still_arrive(way: str) -> None:
    """B.1."""
    heard = on_way(way, talk_with_standard_fds_closed)
    assert all(text.startswith("hello") for text in heard), heard


START_WITHOUT_STANDARD_FDS = """
import os, sys
from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.protocol import ProcessProtocol

def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

assert not any(is_open(fd) for fd in (0, 1, 2))
from procreactor.core import binding
binding.reserve()
assert not any(is_open(fd) for fd in (0, 1, 2)), "a landing slot took the place of a standard fd"

class Cat(ProcessProtocol):
    data = b""
    def connectionMade(self):
        self.transport.write(b"hello")
        self.transport.closeStdin()
    def outReceived(self, data):
        self.data += data
    def processEnded(self, reason):
        reactor.stop()

reactor = EPollReactor()
cat = Cat()
reactor.spawnProcess(cat, "/bin/cat", ["cat"])
reactor.run()
os._exit(0 if cat.data == b"hello" else 1)
"""


def test_a_program_may_be_started_without_standard_fds() -> None:
    """B.1."""
    script = 'exec "$0" -c "$1" <&- >&- 2>&-'
    command = ["/bin/sh", "-c", script, sys.executable, START_WITHOUT_STANDARD_FDS]
    assert subprocess.run(command, timeout=90).returncode == 0


# --- B.2: every map ------------------------------------------------------------------------------


def every_map_of(way: str, program: str, report: str, numbers: list[int]) -> int:
    tried = 0
    with numbers_taken(numbers), tables(way, program, report) as found:
        for sources in itertools.product(numbers, repeat=len(numbers)):
            found.spawn(dict(zip(numbers, sources, strict=True)))
            tried += 1
    return tried


@pytest.mark.parametrize(
    ("way", "numbers"),
    [
        *(pytest.param(way, [0, 1, 2, 3], id=f"{way}, lowest") for way in ON_PIPES),
        *(
            pytest.param(way, [2, CUT - 1, CUT, 130], id=f"{way}, about the cut")
            for way in ("plain", "fork")
        ),
    ],
)
def test_all_maps_of_four_fds_are_right(
    way: str, numbers: list[int], program: Build, reports: str
) -> None:
    """B.2: swaps, cycles of three and four, chains, one to many; 4^4 of them."""
    args = (program("fdtable"), reports, numbers)
    assert on_way(way, every_map_of, *args) == 4**4


def any_map(way: str, program: str, report: str) -> None:
    # Here alone: to import it takes more time than most of what this file runs alone.
    from hypothesis import given, settings
    from hypothesis import strategies as st

    with (
        numbers_taken([9, 31, 40, 62, 63, 64, 65, 71, 80, 200]),
        tables(way, program, report) as found,
    ):
        unfit = landing_slots()
        sources = [fd for fd in own_table() if fd not in unfit]
        targets = st.one_of(st.integers(0, 80), st.sampled_from(sources))
        ends: st.SearchStrategy[End] = st.one_of(st.sampled_from(sources), st.sampled_from("rw"))

        @settings(max_examples=150, deadline=None, database=None)
        @given(st.dictionaries(targets, ends, max_size=12))
        def is_right(child_fds: dict[int, End]) -> None:
            found.spawn(child_fds)

        is_right()


@on_every_way(*ON_PIPES)
def test_any_map_of_up_to_twelve_fds_and_pipes_is_right(
    way: str, program: Build, reports: str
) -> None:
    """B.2 and B.3: over numbers that the reactor, the slots and the pipes themselves use."""
    on_way(way, any_map, program("fdtable"), reports)


# --- B.3: numbers that the spawner itself uses ---------------------------------------------------


def onto_internal_fds(way: str, program: str, report: str) -> int:
    with tables(way, program, report) as found, make_reactor() as other:
        bystander = Recorder()
        transport = other.spawnProcess(bystander, "/bin/cat", ["cat"])
        source = new_file()
        taken = set(own_table())  # epoll, wake-up pipes, slots, pipes, the bystander's pidfd
        soon_taken = sorted(set(range(200)) - taken)[:12]  # report pipe, pipes, pidfd
        targets = sorted({*taken, *soon_taken} - {source})
        for number in targets:
            found.spawn({number: source})
            found.spawn({number: "r"})
        found.spawn(dict.fromkeys(targets, source))
        os.close(source)
        transport.write(b"unharmed")
        transport.closeStdin()
        run_until(other, lambda: bystander.ended)
        assert bystander.out == b"unharmed"
    return len(targets)


@on_every_way(*ON_PIPES)
def test_a_child_fd_may_have_the_number_of_an_internal_fd(
    way: str, program: Build, reports: str
) -> None:
    """B.3: report pipe, pidfd, epoll, launcher's pipe, landing slots, placeholder."""
    assert on_way(way, onto_internal_fds, program("fdtable"), reports) > 40


# --- B.4, B.12: flags ----------------------------------------------------------------------------


def map_onto_itself(way: str, program: str, report: str) -> None:
    with tables(way, program, report) as found:
        for least in (3, CUT - 1, CUT, 300):
            fd = open_at(least)
            child = found.spawn({fd: fd})
            assert not child[fd].close_on_exec
            assert not os.get_inheritable(fd)
            os.close(fd)


@on_every_way(*ON_PIPES)
def test_an_fd_mapped_onto_itself_is_inherited_and_stays_close_on_exec_in_the_parent(
    way: str, program: Build, reports: str
) -> None:
    """B.4."""
    on_way(way, map_onto_itself, program("fdtable"), reports)


def blocking_flags(way: str, program: str, report: str) -> None:
    with tables(way, program, report) as found, make_reactor() as reactor:
        patient, impatient = new_file(), new_file(os.O_RDWR | os.O_NONBLOCK)
        child = found.spawn({0: "w", 1: "r", 2: "r", 3: patient, 4: impatient})
        assert [child[fd].non_blocking for fd in range(5)] == [False, False, False, False, True]
        assert os.get_blocking(patient)
        assert not os.get_blocking(impatient)
        recorder = Recorder()
        transport = spawn_on(way, reactor, recorder, "/bin/cat", ["cat"])
        for pipe in transport.pipes.values():
            assert not os.get_blocking(pipe.fileno())
            assert not os.get_inheritable(pipe.fileno())
        transport.closeStdin()
        run_until(reactor, lambda: recorder.ended)
        os.close(patient)
        os.close(impatient)


@on_every_way(*ON_PIPES)
def test_only_our_ends_of_pipes_do_not_block_and_mapped_fds_keep_their_flags(
    way: str, program: Build, reports: str
) -> None:
    """B.12."""
    on_way(way, blocking_flags, program("fdtable"), reports)


# --- B.5, B.6, B.7: what is not mapped is closed -------------------------------------------------

MANY = 2000


@contextmanager
def inheritable_fds_with_holes(count: int = MANY) -> Iterator[list[int]]:
    """*count* numbers, of which two thirds are open and inheritable."""
    fds = [os.dup(0) for _ in range(count)]
    for fd in fds[::3]:
        os.close(fd)
    fds = [fd for index, fd in enumerate(fds) if index % 3]
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


@contextmanager
def file_limit(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(soft, before[1])))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def hide_proc() -> None:
    """For the calling thread and the children that it makes, /proc is an empty directory."""
    if PROC == "/proc":  # else it is hidden from all of us
        private_mounts()
        unmount("/proc")
    assert os.listdir("/proc") == []


def among_many(way: str, program: str, report: str, proc: bool) -> None:
    def check() -> None:
        if not proc:
            hide_proc()
        with tables(way, program, report, MANY + 200) as found:
            maps: list[Mapping[int, End] | None]
            maps = [{}, None, {5: fds[0], fds[1]: 0, fds[-1]: "r"}]
            for child_fds in maps:
                found.spawn(child_fds)
            with file_limit(200):  # most of what is open lies above it, and can still be a source
                assert fds[-1] > 1000
                found.spawn({0: "w", 7: fds[-1], 100: fds[100]})

    with inheritable_fds_with_holes() as fds:
        in_thread(check)


@on_every_way(*ON_PIPES)
def test_of_thousands_of_open_fds_a_child_sees_the_mapped_ones_only(
    way: str, program: Build, reports: str
) -> None:
    """B.5: with holes, and with most of them above a limit that was lowered later."""
    on_way(way, among_many, program("fdtable"), reports, True)


WITHOUT_CLOSE_RANGE = pytest.mark.parametrize(
    ("way", "disable"),
    [("plain", "close_range,unshare"), ("fork", "close_range,unshare,vfork")],
    ids=["plain", "fork"],
)


@WITHOUT_CLOSE_RANGE
def test_without_close_range_a_child_sees_the_mapped_ones_only(
    way: str, disable: str, program: Build, reports: str
) -> None:
    """B.6: found in /proc."""
    alone(among_many, way, program("fdtable"), reports, True, disable=disable)


@needs_mounts
@WITHOUT_CLOSE_RANGE
def test_without_close_range_and_proc_a_child_sees_the_mapped_ones_only(
    way: str, disable: str, program: Build, reports: str
) -> None:
    """B.6: tried out, one by one."""
    alone(among_many, way, program("fdtable"), reports, False, disable=disable)


SWEPT = 1 << 20
"""What is closed one by one without close_range and /proc: the numbers below (csrc/child.c)."""


def highest_limit() -> int:
    """The highest limit of files that this process may have, or as far as numbers are swept."""
    most = min(SWEPT, int(Path(PROC, "sys/fs/nr_open").read_text()))
    try:
        with file_limit(most):
            return most
    except ValueError:
        return min(SWEPT, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def at_the_highest_number(program: str, report: str) -> None:
    end = highest_limit()

    def check() -> None:
        hide_proc()
        with tables("plain", program, report, end) as found:
            assert found.spawn_among_others({}, {}) == {}
            found.spawn_among_others({9: end - 1}, {end - 1: own_table()[0]})

    with file_limit(end):
        os.dup2(0, end - 1, inheritable=True)
        try:
            in_thread(check)
        finally:
            os.close(end - 1)


@needs_mounts
def test_the_highest_number_that_there_can_be_is_closed_without_close_range_and_proc(
    program: Build, reports: str
) -> None:
    """B.6: the limit of files is as high as it can be set, and the sweep comes to its end."""
    alone(at_the_highest_number, program("fdtable"), reports, disable="close_range,unshare")


def with_close_range_denied(
    program: str, report: str, error: int, flags: list[int], entered_late: bool
) -> str:
    with inheritable_fds_with_holes(300), tables("plain", program, report) as found:
        if entered_late:
            found.spawn(None)

        def check() -> None:
            for value in flags or [-1]:
                deny("close_range", error, *[(2, value)] if flags else [])
            maps: list[Mapping[int, End] | None] = [None, {}, {3: 0, 80: "r"}]
            for child_fds in maps:
                found.spawn(child_fds)

        in_thread(check)
        with make_reactor() as reactor:
            child = finish_on("plain", reactor, "/bin/true", ["true"])
            return str(child.reason.value.exitCode)


@needs_seccomp
@pytest.mark.parametrize("entered_late", [False, True], ids=["from the start", "later"])
@pytest.mark.parametrize("flags", [[], [CLOSE_RANGE_UNSHARE], [0]], ids=["all", "unshare", "plain"])
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
def test_a_close_range_that_a_sandbox_denies_is_replaced(
    error: int, flags: list[int], entered_late: bool, program: Build, reports: str
) -> None:
    """B.7."""
    args = (program("fdtable"), reports, int(error), flags, entered_late)
    assert alone(with_close_range_denied, *args) == "0"


# --- B.8: no more fds ----------------------------------------------------------------------------


def spawn_if_there_is_room(
    way: str, reactor: Any, child: Recorder, room: int, **kwargs: Any
) -> str:
    """Return "" for a child that was started, or the stage at which there was not room enough."""
    with room_for(room):
        try:
            reactor.spawnProcess(child, "/bin/true", **{**WAYS[way].arguments, **kwargs})
        except SpawnError as error:
            if error.errno != errno.EMFILE or "ulimit -n" not in error.hint:
                raise
            return error.stage
    return ""


def without_room(way: str, childFDs: Mapping[int, int] | None = None) -> list[str]:
    """The stages at which a spawn was refused, with room for no fd, for one, for two ..."""
    kwargs = {} if childFDs is None else {"childFDs": childFDs}
    stages: list[str] = []
    with make_reactor() as reactor:
        while not stages or stages[-1]:
            before, child = own_table(), Recorder()
            stages.append(spawn_if_there_is_room(way, reactor, child, len(stages), **kwargs))
            if stages[-1]:
                assert child.calls == []
            else:
                run_until(reactor, has_ended(child))
                assert child.reason.value.exitCode == 0
            assert own_table() == before
            assert no_child_is_left()
        # Want of room teaches nothing: the way that is taken now is the best one still.
        finish_on(way, reactor, "/bin/true", ["true"])
    return stages[:-1]


def substitutes_without_room() -> list[str]:
    return without_room("plain", {0: 0})


@on_every_way()
def test_without_room_for_an_fd_a_spawn_fails_and_leaves_nothing(way: str) -> None:
    """B.8: at every step that makes one; the first spawn of the process included."""
    stages = on_way(way, without_room)
    by_thread = "pidfd" in LACKS  # an eventfd for the exit, of which the thread has a copy
    assert len(stages) >= (3 if "terminal" in way else 6 if by_thread else 7), stages
    if WAYS[way].needs_root:
        # Its files are read one at a time: with room for none, the user's groups are not known.
        assert stages.pop(0) == "user database"
    known = {"pipe", "clone", "report pipe", "open pty", "open pty slave"}
    assert set(stages) <= (known | {"exit watch"} if by_thread else known), stages


@pytest.mark.needs("vfork")
def test_without_room_for_what_stands_for_a_pidfd_a_spawn_fails_and_leaves_nothing() -> None:
    """B.8: the child is there already, and must be gone again."""
    assert alone(substitutes_without_room, disable="pidfd") == ["exit watch", "exit watch"]


# --- B.9: other threads --------------------------------------------------------------------------

SPAWNERS, SPAWNS, CHURNERS = 8, 20, 8


def among_threads(way: str, program: str, folder: str, crowded: bool) -> int:
    """Spawn in some threads while others open and close; the number of children."""
    failures: list[BaseException] = []
    ended = threading.Event()
    children = itertools.count()

    def guarded(function: Callable[[int], None], index: int) -> None:
        try:
            function(index)
        except BaseException as error:
            failures.append(error)

    def spawn(index: int) -> None:
        with tables(way, program, f"{folder}/report-{index}") as found:
            for _ in range(SPAWNS):
                found.spawn_among_others({0: "w", 1: "r", 2: "r", 70: "r", 7: canary}, parent)
                next(children)

    def churn(index: int) -> None:
        while not ended.is_set():
            fds = [new_file(), *os.pipe(), os.dup(canary)]
            files = [file_of(fd) for fd in fds]
            fds.append(os.open("/dev/null", os.O_RDONLY))
            os.close(fds.pop())
            assert [file_of(fd) for fd in fds] == files, "an fd was taken from its owner"
            for fd in fds:
                os.close(fd)  # OSError when somebody else has closed it

    canary = new_file()
    with crowd(100 if crowded else 0):
        parent = own_table()
        spawners = [
            threading.Thread(target=guarded, args=(spawn, index)) for index in range(SPAWNERS)
        ]
        churners = [
            threading.Thread(target=guarded, args=(churn, index)) for index in range(CHURNERS)
        ]
        for thread in [*spawners, *churners]:
            thread.start()
        for thread in spawners:
            thread.join()
        ended.set()
        for thread in churners:
            thread.join()
        assert not failures, failures
        assert own_table() == parent, "an fd was left, closed or replaced"
    os.close(canary)
    return next(children)


@pytest.mark.parametrize("crowded", [False, True], ids=["low numbers", "high numbers"])
@pytest.mark.parametrize("way", ["plain", "own fd table", "fork"])
def test_threads_that_spawn_and_threads_that_open_and_close_do_not_meet(
    way: str, crowded: bool, program: Build, reports: str
) -> None:
    """B.9: no fd is taken from its owner, none is left, and none slips into another's child."""
    args = (program("fdtable"), str(Path(reports).parent), crowded)
    assert on_way(way, among_threads, *args) == SPAWNERS * SPAWNS


# --- B.10, B.11: interrupted and busy ------------------------------------------------------------


def with_close_interrupted(end: str) -> int:
    with make_reactor() as reactor:
        child = Recorder()
        before = set(own_table())

        def spawn() -> Any:
            deny("close", errno.EINTR)
            return reactor.spawnProcess(child, end, [end, "exit", "0"])

        transport = in_thread(spawn)
        expected = {*before, transport.pidfd, *(pipe.fileno() for pipe in transport.pipes.values())}
        for fd in set(own_table()) - expected:
            os.close(fd)  # which the filter, unlike a kernel that says EINTR, did not do
        run_until(reactor, lambda: child.ended)
        return int(child.reason.value.exitCode)


@needs_seccomp
@pytest.mark.needs("pidfd")  # a thread that waits would have the filter as well, to its end
def test_a_close_that_was_interrupted_is_not_tried_again(program: Build) -> None:
    """B.10: by then the number may be another thread's; a spawner that insists hangs here."""
    assert alone(with_close_interrupted, program("end")) == 0


def with_dup_busy(way: str, program: str, report: str) -> int:
    refusals = iter([errno.EBUSY] * 7)

    def check() -> None:
        with supervised("dup3", lambda call: next(refusals, None)):
            found.spawn({0: "w", 1: "r", 2: "r", 80: "r"})

    with crowd(), tables(way, program, report) as found:
        in_thread(check)
    return len(list(refusals))


@needs_seccomp
@pytest.mark.parametrize("way", ["plain", "own fd table", "fork"])
def test_a_dup_that_is_busy_is_tried_again(way: str, program: Build, reports: str) -> None:
    """B.11: in the parent, onto a landing slot, and in the child."""
    assert on_way(way, with_dup_busy, program("fdtable"), reports) == 0


# --- B.13: code that forks on its own ------------------------------------------------------------


def test_the_end_of_output_is_seen_though_a_copy_of_the_parent_lives_on() -> None:
    """B.13: the copy has our ends; the child's ends were closed before it was made."""
    with make_reactor() as reactor:
        child = Recorder()
        transport = reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", "read x; echo $x"])
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        try:
            transport.write(b"words\n")
            run_until(reactor, lambda: child.ended)
            assert child.out == b"words\n"
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.needs("threads")
def test_a_program_that_other_code_starts_inherits_nothing_of_ours(
    program: Build, tmp_path: Path
) -> None:
    """B.13: every fd of ours is close-on-exec, for as long as it is open."""
    with make_reactor() as reactor:
        child = Recorder()
        transport: Any = reactor.spawnProcess(child, "/bin/cat", ["cat"])
        on_terminal = Recorder()
        terminal: Any = reactor.spawnProcess(on_terminal, "/bin/cat", ["cat"], usePTY=True)
        report = tmp_path / "report"
        inheritable = {fd for fd, entry in own_table().items() if not entry.close_on_exec}
        subprocess.run([program("fdtable"), report, "1024"], close_fds=False, check=True)
        assert set(ChildTables(reactor, "", report, "plain").read()) <= inheritable
        assert not inheritable & {transport.pidfd, reactor.fileno(), terminal.fileno()}
        assert not inheritable & {pipe.fileno() for pipe in transport.pipes.values()}
        assert not inheritable & landing_slots()
        transport.loseConnection()
        terminal.loseConnection()
        run_until(reactor, lambda: child.ended and on_terminal.ended)


def threads_that_spawn_for_others(program: str, folder: str) -> list[int]:
    """While a thread spawns, what children of the standard library's see beyond 0, 1 and 2."""
    seen: set[int] = set()
    ended = threading.Event()

    def spawn() -> None:
        with make_reactor() as reactor:
            while not ended.is_set():
                spawn_and_finish(reactor, "/bin/true", ["true"])

    inheritable = {fd for fd, entry in own_table().items() if not entry.close_on_exec}
    thread = threading.Thread(target=spawn)
    thread.start()
    report = Path(folder) / "report"
    reader = ChildTables(None, "", report, "plain")
    for _ in range(100):
        subprocess.run([program, report, "1024"], close_fds=False, check=True)
        seen |= set(reader.read())
    ended.set()
    thread.join()
    return sorted(seen - inheritable)


def test_our_fds_are_close_on_exec_from_birth(program: Build, tmp_path: Path) -> None:
    """B.13: no window in which another thread's program could inherit one."""
    assert alone(threads_that_spawn_for_others, program("fdtable"), str(tmp_path)) == []


# --- B.14: record locks --------------------------------------------------------------------------

TRY_LOCK = "import fcntl; f = open({!r}, 'r+'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"


def is_locked(path: Path) -> bool:
    command = [PYTHON, "-I", "-S", "-c", TRY_LOCK.format(str(path))]
    return subprocess.run(command, capture_output=True).returncode != 0


def spawn_under_lock(way: str, folder: str) -> list[bool]:
    path = Path(folder) / "locked"
    with make_reactor() as reactor, crowd(), path.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        held = [is_locked(path)]
        maps: list[dict[int, End]] = [{1: "r"}, {5: file.fileno()}]
        for child_fds in maps:
            finish_on(way, reactor, "/bin/true", ["true"], childFDs=child_fds)
            held.append(is_locked(path))
        with pytest.raises(FileNotFoundError):
            spawn_on(way, reactor, Recorder(), "/nonexistent")
        held.append(is_locked(path))
    return held


@on_every_way(*ON_PIPES)
def test_record_locks_of_the_parent_survive(way: str, public_path: Path) -> None:
    """B.14: they belong to the fd table, and go when any fd of the file is closed through it."""
    public_path.chmod(0o777)
    assert on_way(way, spawn_under_lock, str(public_path)) == [True] * 4


# --- B.15: files that this process serves itself -------------------------------------------------


def spawn_with_own_files_open(way: str, folder: str) -> list[int]:
    private_mounts()
    with served(folder) as (server, path), make_reactor() as reactor:
        fds = [os.open(path, os.O_RDWR)]
        fds += [fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, least) for least in (CUT - 1, CUT, 300)]
        flushes = []
        maps: list[Mapping[int, End]] = [{1: "r"}, {7: fds[0]}, {7: fds[-1]}, dict(enumerate(fds))]
        for child_fds in maps:
            finish_on(way, reactor, "/bin/true", ["true"], childFDs=child_fds)
            flushes.append(server.flushes)
        for fd in fds:
            os.close(fd)
    return flushes


@needs_fuse
@needs_mounts
@on_every_way(*ON_PIPES)
def test_a_process_that_serves_a_file_system_can_spawn_with_files_of_it_open(
    way: str, public_path: Path
) -> None:
    """B.15: the child's closing asks the server, a thread of the parent, and it can answer."""
    flushes = on_way(way, spawn_with_own_files_open, str(public_path))
    assert flushes[-1] > 0


# --- B.16: a child that still shares the fd table ------------------------------------------------


@contextmanager
def unharmed() -> Iterator[None]:
    """Files of others, inheritable and not, low and high; they are as they were in the end."""
    fds = [open_at(least) for least in (3, 20, CUT - 1, CUT, 100, 101)]
    before = own_table()
    yield
    assert own_table() == before
    for fd in fds:
        os.close(fd)


def killed_before_unshare(end: str) -> list[int | None]:
    def kill(call: Call) -> None:
        os.kill(call[0], signal.SIGKILL)

    def spawn() -> Any:
        with supervised("close_range", kill, (2, CLOSE_RANGE_UNSHARE)):
            return reactor.spawnProcess(child, end, [end, "exit", "0"], childFDs={0: "w", 1: "r"})

    with make_reactor() as reactor, crowd():
        finish_on("plain", reactor, end, [end, "exit", "0"])
        child = Recorder()
        with unharmed():
            in_thread(spawn)
            run_until(reactor, lambda: child.ended)
        finish_on("plain", reactor, end, [end, "exit", "0"])
        return [child.reason.value.exitCode, child.reason.value.signal]


@needs_seccomp
@pytest.mark.needs("unshare")
def test_a_child_killed_while_it_shares_the_fd_table_changes_nothing_in_it(
    program: Build,
) -> None:
    """B.16: the spawn succeeds, and the child's end says the rest."""
    assert alone(killed_before_unshare, program("end")) == [None, signal.SIGKILL]


def refused_unshare(error: int, end: str) -> list[Any]:
    said: list[Any] = []

    def spawn() -> None:
        with supervised("close_range", lambda call: error, (2, CLOSE_RANGE_UNSHARE)):
            child = Recorder()
            try:
                transport = reactor.spawnProcess(child, end, [end, "exit", "0"], childFDs={1: "r"})
            except SpawnError as refused:
                said.extend([refused.stage, refused.errno])
                return
            run_until(reactor, lambda: child.ended)
            said.extend([sorted(transport._child.mode), child.reason.value.exitCode])

    with make_reactor() as reactor, crowd():
        finish_on("plain", reactor, end, [end, "exit", "0"])
        with unharmed():
            in_thread(spawn)
            assert no_child_is_left()
    return said


@needs_seccomp
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
@pytest.mark.needs("vfork")
def test_a_table_that_may_not_be_unshared_any_more_is_copied(error: int, program: Build) -> None:
    """B.16: a sandbox that is entered after the first spawn."""
    mode, code = alone(refused_unshare, int(error), program("end"))
    assert "unshare" not in mode
    assert "vfork" in mode
    assert code == 0


@needs_seccomp
@pytest.mark.needs("unshare")
@pytest.mark.parametrize("error", [errno.ENOMEM, errno.EMFILE])
def test_want_of_memory_for_a_table_is_reported(error: int, program: Build) -> None:
    """B.16."""
    assert alone(refused_unshare, int(error), program("end")) == ["unshare", error]


def slots_lost_to_others(program: str, report: str, taken: bool) -> None:
    slots = sorted(landing_slots())
    assert len(slots) > 8
    lost = numbers_taken(slots) if taken else closed(slots)
    maps: list[Mapping[int, End] | None] = [None, {0: "w", 1: "r", slots[0]: "r", slots[1]: 0}]
    with crowd(), tables("plain", program, report) as found, lost:
        for child_fds in maps:
            found.spawn(child_fds)


@pytest.mark.parametrize("taken", [True, False], ids=["and took", ""])
def test_landing_slots_that_others_closed_are_left_to_them(
    taken: bool, program: Build, reports: str
) -> None:
    """B.16: as a daemon does that closes all that it was given. A number is ours while our file is
    there, and no longer; what others have under it is theirs.
    """
    alone(slots_lost_to_others, program("fdtable"), reports, taken)


def slots_taken_during_a_spawn(end: str, folder: str) -> list[bool]:
    """Whether each file that took the number of a slot in use is still there after the spawn."""
    slots = landing_slots()
    placeholder = file_of(min(slots))
    with make_reactor() as reactor, crowd(), held_copy(end, Path(folder) / "held") as held:
        child = Recorder()
        spawning = threading.Thread(
            target=reactor.spawnProcess, args=(child, held.path, ["held", "exit", "0"])
        )
        spawning.start()
        held.wait_until_reached()
        in_use = [fd for fd in slots if file_of(fd) != placeholder]
        taken = {}
        for number in in_use:
            fd = new_file()
            taken[number] = file_of(fd)
            os.dup2(fd, number, inheritable=False)
            os.close(fd)
        held.release()
        spawning.join()
        run_until(reactor, lambda: child.ended)
        kept = [file_of(number) == taken[number] for number in in_use]
        assert child.reason.value.exitCode == 0
        finish_on("plain", reactor, "/bin/true", ["true"])
    for number in in_use:
        os.dup2(max(slots), number, inheritable=False)  # as it was at the beginning
    return kept


@pytest.mark.needs("unshare")  # a child with a table of its own from the start needs no slots
def test_a_landing_slot_that_others_took_while_it_was_in_use_is_left_to_them(
    program: Build, tmp_path: Path
) -> None:
    """B.16: a spawn may last as long as a slow file system lets it."""
    kept = alone(slots_taken_during_a_spawn, program("end"), str(tmp_path))
    assert kept == [True] * 3
