"""Trees of processes: killed whole, and /proc shows nobody; signalled whole; left alone when due.

Each shape of tests/programs/tree.c in both ways. The cgroup way is left out where the machine has
none; the session way where the product has no /proc to look into.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alone import alone
from held import wait_for
from leftovers import child_pids, open_fds
from support import PROC, PYTHON
from woods import Grown, grown, homes, living, new_mark, tree_spec, wait_gone

from procreactor.core import binding
from procreactor.errors import SpawnError
from procreactor.kernel import cgroups, children, processes
from procreactor.kernel.cgroups import CgroupId
from procreactor.kernel.children import Child
from procreactor.model import PipeEnd, Redirect, SpawnSpec
from procreactor.transport.kinship import VARIABLE
from procreactor.transport.trees import Forest, Tree, TreeLimits, signal_tree

by_cgroup = pytest.mark.needs("cgroup")
by_proc = pytest.mark.needs("/proc")

BOTH = [
    pytest.param("cgroup", marks=by_cgroup),
    pytest.param("session", marks=by_proc),
]

LONG_S = 60.0
"""For kills of what does end, so that no test depends on how fast the machine is."""

SHAPES = [
    ("broad", 0, 1),
    ("broad", 5, 6),
    ("deep", 4, 5),
    ("daemon", 1, 2),
    ("left", 1, 2),
    ("deaf", 3, 4),
    ("still", 1, 2),
    ("bare", 1, 2),
    ("headless", 1, 2),
]
"""Shape, its number, and how many processes it has."""

TAKES = {"headless": pytest.mark.needs("threads")}


def shapes_but(*names: str) -> list[object]:
    return [
        pytest.param(*shape, marks=TAKES.get(shape[0], ()))
        for shape in SHAPES
        if shape[0] not in names
    ]


@pytest.fixture
def forest(way: str) -> Iterator[Forest]:
    made = Forest(way=way)
    yield made
    made.close()
    assert homes() == []


@pytest.fixture(params=BOTH)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def plant(forest: Forest, shape: str, number: int = 1) -> tuple[Tree, str]:
    mark = new_mark()
    return forest.plant(tree_spec(mark, shape, number)), mark


# --- killing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "number", "count"), shapes_but())
def test_a_killed_tree_leaves_no_process(
    forest: Forest, shape: str, number: int, count: int
) -> None:
    tree, mark = plant(forest, shape, number)
    with grown(tree.spec, mark, count) as it:
        assert tree.kill(it.pid, LONG_S)
        assert living(mark) == set()
        it.reap()
        assert tree.members(None) == []
        forest.harvest(tree)


@pytest.mark.parametrize(("shape", "number", "count"), shapes_but("bare"))
def test_a_tree_is_killed_whose_leader_is_reaped(
    forest: Forest, shape: str, number: int, count: int
) -> None:
    tree, mark = plant(forest, shape, number)
    with grown(tree.spec, mark, count) as it:
        os.kill(it.pid, signal.SIGKILL)
        it.reap()
        assert tree.kill(None, LONG_S)
        assert living(mark) == set()
        forest.harvest(tree)


@by_cgroup
def test_by_cgroup_an_orphan_with_nothing_of_ours_is_killed() -> None:
    forest = Forest(way="cgroup")
    tree, mark = plant(forest, "bare")
    with grown(tree.spec, mark, 2) as it:
        os.kill(it.pid, signal.SIGKILL)
        it.reap()
        assert tree.kill(None, LONG_S)
        assert living(mark) == set()
    forest.close()


def test_a_storm_of_forks_is_killed(forest: Forest) -> None:
    tree, mark = plant(forest, "storm", 4)
    with grown(tree.spec, mark, 5) as it:
        assert tree.kill(it.pid, LONG_S)
        assert living(mark) == set()
        it.reap()
        forest.harvest(tree)


def test_an_unreaped_leader_does_not_count_as_alive(forest: Forest) -> None:
    tree, mark = plant(forest, "broad", 0)
    with grown(tree.spec, mark, 1) as it:
        os.kill(it.pid, signal.SIGKILL)
        it.child.wait_exit()
        assert Path(PROC, f"{it.pid}/stat").exists()
        assert tree.members(it.pid) == []
        assert tree.kill(it.pid, LONG_S)
        forest.harvest(tree)


def test_killing_twice_and_after_all_is_over_is_as_good(forest: Forest) -> None:
    tree, mark = plant(forest, "broad", 2)
    with grown(tree.spec, mark, 3) as it:
        assert tree.kill(it.pid, LONG_S)
        assert tree.kill(it.pid, LONG_S)
        it.reap()
        assert tree.kill(None, LONG_S)
        forest.harvest(tree)


def test_no_other_tree_is_touched(forest: Forest) -> None:
    one, mark = plant(forest, "deep", 3)
    other, other_mark = plant(forest, "daemon")
    with grown(one.spec, mark, 4) as first, grown(other.spec, other_mark, 2) as second:
        assert one.kill(first.pid, LONG_S)
        assert living(mark) == set()
        assert len(living(other_mark)) == 2
        assert other.kill(second.pid, LONG_S)
        assert living(other_mark) == set()


def test_no_zombie_of_a_killed_tree_is_left_to_us() -> None:
    assert alone(kill_a_broad_tree_and_count_children) == [1, 0]


def kill_a_broad_tree_and_count_children() -> list[int]:
    forest = Forest(way="session")
    mark = new_mark()
    tree = forest.plant(tree_spec(mark, "broad", 20))
    it = Grown(tree.spec, mark, 21)
    assert tree.kill(it.pid, LONG_S) or not os.path.exists("/proc/self")
    counts = [len(child_pids())]
    it.close()
    forest.close()
    return [*counts, len(child_pids())]


@by_proc
def test_orphans_are_inits_again_after_a_kill() -> None:
    with_forest = Forest(way="session")
    tree, mark = plant(with_forest, "broad", 1)
    with grown(tree.spec, mark, 2) as it:
        tree.kill(it.pid, LONG_S)
    with_forest.close()
    assert binding.adopt_orphans(None) is False


# --- signals and members --------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "number", "count"), shapes_but("left", "deaf"))
def test_a_signal_reaches_all(forest: Forest, shape: str, number: int, count: int) -> None:
    tree, mark = plant(forest, shape, number)
    with grown(tree.spec, mark, count) as it:
        assert set(tree.members(it.pid)) == living(mark)
        assert tree.signal(signal.SIGTERM, it.pid) == count
        tree.signal(signal.SIGCONT, it.pid)  # to the one that is stopped
        wait_gone(mark)
        it.reap()
        forest.harvest(tree)


def test_signals_may_be_refused_by_all_and_then_kill_does_it(forest: Forest) -> None:
    tree, mark = plant(forest, "deaf", 2)
    with grown(tree.spec, mark, 3) as it:
        assert tree.signal(signal.SIGTERM, it.pid) == 3
        assert tree.signal(signal.SIGHUP, it.pid) == 3
        assert len(living(mark)) == 3
        assert tree.kill(it.pid, LONG_S)
        assert living(mark) == set()


def test_a_number_that_is_no_signal_is_told(forest: Forest) -> None:
    tree, mark = plant(forest, "broad", 0)
    with grown(tree.spec, mark, 1) as it:
        with pytest.raises(OSError) as caught:
            tree.signal(99, it.pid)
        assert caught.value.errno == errno.EINVAL


def test_a_signal_to_nobody_reaches_nobody(forest: Forest) -> None:
    tree, mark = plant(forest, "broad", 0)
    with grown(tree.spec, mark, 1) as it:
        tree.kill(it.pid, LONG_S)
        it.reap()
        assert tree.signal(signal.SIGTERM, None) == 0


# --- leaders that end by themselves ---------------------------------------------------------------


def test_a_daemon_that_is_left_goes_on_and_outlives_the_forest(way: str) -> None:
    forest = Forest(way=way)
    tree, mark = plant(forest, "left")
    with grown(tree.spec, mark, 2) as it:
        it.reap()
        forest.harvest(tree)
        assert len(living(mark)) == 1
        other, other_mark = plant(forest, "broad", 0)
        with grown(other.spec, other_mark, 1):
            pass
        forest.harvest(other)
        forest.close()
        assert homes() == []
        assert len(living(mark)) == 1


def test_what_was_not_harvested_is_killed_by_the_end_of_the_forest(way: str) -> None:
    forest = Forest(way=way)
    tree, mark = plant(forest, "daemon")
    with grown(tree.spec, mark, 2) as it:
        forest.close()
        wait_gone(mark)
        it.reap()
    assert homes() == []
    forest.close()
    forest.harvest(tree)


def test_a_tree_that_was_never_started_is_harvested_too(forest: Forest) -> None:
    tree, _ = plant(forest, "broad")
    assert tree.members(None) == []
    assert tree.kill(None, LONG_S)
    forest.harvest(tree)
    forest.harvest(tree)


def test_a_closed_forest_says_so(forest: Forest) -> None:
    tree, _ = plant(forest, "broad")
    forest.close()
    with pytest.raises(ValueError, match="closed"):
        forest.plant(tree.spec)
    with pytest.raises(ValueError, match="closed"):
        tree.kill(None)


def test_one_that_nobody_closes_closes_itself(way: str) -> None:
    forest = Forest(way=way)
    tree, mark = plant(forest, "broad", 1)
    with grown(tree.spec, mark, 2) as it:
        del forest, tree
        gc.collect()
        wait_gone(mark)
        it.reap()
    assert homes() == []


# --- the requests ---------------------------------------------------------------------------------


def test_what_is_asked_for_besides_stays_asked_for(forest: Forest) -> None:
    spec = SpawnSpec((b"/bin/true",), (b"true",), (b"A=1",), nice=3, searched_name=b"true")
    tree = forest.plant(spec)
    assert tree.spec is spec
    assert (spec.argv, spec.nice, spec.searched_name) == ((b"true",), 3, b"true")
    assert spec.env[0] == b"A=1"


@by_cgroup
def test_by_cgroup_nothing_but_the_cgroup_is_another() -> None:
    spec = tree_spec("mark", "broad")
    forest = Forest(way="cgroup")
    planted = forest.plant(spec).spec
    assert planted.cgroup_fd >= 0
    planted.cgroup_fd = -1
    assert planted == spec
    forest.close()


def test_by_session_the_token_is_appended_to_what_is_inherited() -> None:
    forest = Forest(way="session")
    bare = forest.plant(SpawnSpec((b"/x",), (b"x",), ())).spec
    assert bare.new_session
    assert [row.partition(b"=")[0] for row in bare.env] == [VARIABLE]
    outer = bare.env[-1].partition(b"=")[2]
    nested = forest.plant(SpawnSpec((b"/x",), (b"x",), (VARIABLE + b"=" + outer, b"A=1"))).spec
    assert nested.env[0] == b"A=1"
    assert nested.env[1].startswith(VARIABLE + b"=" + outer + b":")
    assert len(nested.env) == 2
    grouped = forest.plant(SpawnSpec((b"/x",), (b"x",), (), process_group=0)).spec
    assert not grouped.new_session  # a leader of a session cannot change its group
    forest.close()


@by_proc
def test_a_tree_in_a_tree_is_killed_with_it() -> None:
    assert alone(kill_a_tree_with_a_forest_in_it)


NESTED = """
import sys
sys.path[:0] = {path!r}
from woods import Grown, tree_spec
from procreactor.transport.trees import Forest
forest = Forest(way="session")
tree = forest.plant(tree_spec({mark!r}, "daemon"))
it = Grown(tree.spec, {mark!r}, 2)
print("ready", flush=True)
it.child.wait_exit()
"""


def kill_a_tree_with_a_forest_in_it() -> bool:
    mark = new_mark()
    code = NESTED.format(path=sys.path, mark=mark)
    env = tuple(name + b"=" + value for name, value in os.environb.items())
    redirects = (Redirect(1, PipeEnd.WE_READ), Redirect(2, 2))
    forest = Forest(way="session")
    tree = forest.plant(
        SpawnSpec((PYTHON.encode(),), (b"python", b"-c", code.encode()), env, redirects)
    )
    child = Child(tree.spec)
    child.start(tree.spec)
    fd = child.ours[0]
    child.ours = []
    os.set_blocking(fd, True)
    assert os.read(fd, 5) == b"ready"
    assert len(living(mark)) == 2
    assert tree.kill(child.pid, LONG_S)
    assert living(mark) == set()
    child.wait_exit()
    child.try_reap()
    os.close(fd)
    forest.close()
    return True


def test_a_way_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="way must be one of cgroup, session"):
        Forest(way="freezer")


# --- groups ---------------------------------------------------------------------------------------


@by_cgroup
def test_groups_are_used_again() -> None:
    forest = Forest(way="cgroup")
    for _ in range(5):
        tree, mark = plant(forest, "broad", 0)
        with grown(tree.spec, mark, 1) as it:
            assert tree.signal(signal.SIGTERM, it.pid) == 1
            it.reap()
        forest.harvest(tree)
    (home,) = homes()
    assert groups_in(home) == ["0"]
    forest.close()
    assert homes() == []


@by_cgroup
def test_a_group_that_was_killed_is_removed_and_not_used_again() -> None:
    # The kernel may kill at once who is born into it.
    forest = Forest(way="cgroup")
    for _ in range(5):
        tree, mark = plant(forest, "broad", 2)
        with grown(tree.spec, mark, 3) as it:
            assert tree.kill(it.pid, LONG_S)
            it.reap()
        forest.harvest(tree)
    (home,) = homes()
    assert groups_in(home) == ["4"]
    forest.close()
    assert homes() == []


@by_cgroup
def test_a_group_with_somebody_in_it_is_not_used_again_until_he_has_ended() -> None:
    forest = Forest(way="cgroup")
    tree, mark = plant(forest, "left")
    with grown(tree.spec, mark, 2) as it:
        it.reap()
        forest.harvest(tree)
        (home,) = homes()
        other, _ = plant(forest, "broad")
        assert other.members(None) == []
        assert sorted(groups_in(home)) == ["0", "1"]
        os.kill(living(mark).pop(), signal.SIGKILL)
        wait_for(lambda: "populated 0" in Path(home, "0/cgroup.events").read_text())
        third, _ = plant(forest, "broad")
        assert sorted(groups_in(home)) == ["1", "2"]
        forest.harvest(other)
        forest.harvest(third)
    forest.close()


def groups_in(home: str) -> list[str]:
    return [entry.name for entry in os.scandir(home) if entry.is_dir()]


def cgroup_of(pid: int) -> str:
    text = Path(PROC, f"{pid}/cgroup").read_text()
    return next(line[3:] for line in text.splitlines() if line.startswith("0::"))


@by_cgroup
def test_in_a_forest_at_work_nothing_is_opened_per_command() -> None:
    forest = Forest(way="cgroup")
    forest.harvest(plant(forest, "broad")[0])
    before = open_fds()
    for _ in range(20):
        forest.harvest(plant(forest, "broad")[0])
    assert open_fds() == before
    forest.close()


@by_cgroup
def test_a_child_that_is_to_be_in_another_cgroup_is_kept_by_its_session() -> None:
    forest = Forest(way="cgroup")
    fd = os.open("/", os.O_RDONLY)
    spec = tree_spec("mark", "broad")
    spec.cgroup_fd = fd
    planted = forest.plant(spec).spec
    assert planted.cgroup_fd == fd
    assert planted.new_session
    os.close(fd)
    forest.close()


@by_cgroup
def test_where_no_group_is_to_be_had_for_a_moment_a_command_goes_by_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forest = Forest(way="cgroup")

    def refuse(*args: object) -> None:
        raise OSError(errno.EMFILE, "no fds")

    monkeypatch.setattr(cgroups.Home, "new_group", refuse)
    assert forest.plant(tree_spec("mark", "broad")).spec.new_session
    monkeypatch.undo()
    assert forest.plant(tree_spec("mark", "broad")).spec.cgroup_fd >= 0
    forest.close()


@by_cgroup
@pytest.mark.needs("clone3")
def test_the_best_way_is_by_cgroup() -> None:
    forest = Forest()
    assert homes() == []
    assert forest.way == "cgroup"
    forest.close()
    assert homes() == []


def best_way() -> str:
    forest = Forest()
    way = forest.way
    forest.close()
    return way


@pytest.mark.parametrize("disable", ["cgroup", "clone3"])
def test_without_cgroups_or_births_into_them_the_best_way_is_by_session(disable: str) -> None:
    assert alone(best_way, disable=disable) == "session"


def test_a_cgroup_that_is_asked_for_and_not_possible_is_told() -> None:
    assert alone(refusal_of_a_cgroup, disable="cgroup") == ["cgroup", True]


def refusal_of_a_cgroup() -> list[object]:
    try:
        Forest(way="cgroup")
    except SpawnError as error:
        return [error.stage, "PROCREACTOR_DISABLE" in str(error)]
    return []


# --- threads and forks ----------------------------------------------------------------------------


def test_forests_in_several_threads_do_not_meet(way: str) -> None:
    def play(round_: int) -> int:
        forest = Forest(way=way)
        tree, mark = plant(forest, "daemon")
        with grown(tree.spec, mark, 2) as it:
            assert tree.kill(it.pid, LONG_S)
            assert living(mark) == set()
            it.reap()
            forest.harvest(tree)
        forest.close()
        return round_

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(play, range(12))) == list(range(12))
    assert homes() == []
    assert binding.adopt_orphans(None) is False


def test_a_forked_copy_leaves_the_trees_of_the_original_alone(way: str) -> None:
    assert alone(close_in_a_copy, way) == [1, 0]


def test_a_forked_copy_whose_hook_was_interrupted_leaves_them_alone_too(way: str) -> None:
    assert alone(close_in_a_copy_that_takes_itself_for_the_original, way) == [1, 0]


def close_in_a_copy_that_takes_itself_for_the_original(way: str) -> list[int]:
    forest = Forest(way=way)
    mark = new_mark()
    tree = forest.plant(tree_spec(mark, "daemon"))
    it = Grown(tree.spec, mark, 2)
    before = children.this_process
    pid = os.fork()
    if pid == 0:
        children.this_process = before
        try:
            tree.kill(None)
        except ChildProcessError:
            forest.harvest(tree)
            forest.close()
            os._exit(0)
        os._exit(1)
    return [int(exit_code(pid) == 0 and is_whole(forest, tree, it, mark)), len(homes())]


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def is_whole(forest: Forest, tree: Tree, it: Grown, mark: str) -> bool:
    """Whether both of the tree are alive, and it can be killed; then nothing is left of it."""
    alive = len(living(mark))
    killed = tree.kill(it.pid, LONG_S)
    it.reap()
    forest.harvest(tree)
    forest.close()
    it.close()
    return alive == 2 and killed


def close_in_a_copy(way: str) -> list[int]:
    forest = Forest(way=way)
    mark = new_mark()
    tree = forest.plant(tree_spec(mark, "daemon"))
    it = Grown(tree.spec, mark, 2)
    pid = os.fork()
    if pid == 0:
        code = 0
        for act in (lambda: tree.kill(None), lambda: forest.plant(tree.spec)):
            try:
                act()
            except ChildProcessError:
                code += 1
        forest.harvest(tree)
        forest.close()
        os._exit(code)
    return [int(exit_code(pid) == 2 and is_whole(forest, tree, it, mark)), len(homes())]


def test_a_leader_of_a_batch_may_be_killed_from_its_owners_thread(forest: Forest) -> None:
    tree, mark = plant(forest, "broad", 3)
    with grown(tree.spec, mark, 4) as it:
        result: list[bool] = []
        thread = threading.Thread(target=lambda: result.append(tree.kill(it.pid, LONG_S)))
        thread.start()
        thread.join()
        assert result == [True]


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "error", "words"),
    [
        ({"memory_bytes": 0}, ValueError, "memory_bytes must be from 1"),
        ({"memory_bytes": 1.5}, TypeError, "memory_bytes must be an int"),
        ({"pids": -1}, ValueError, "pids must be from 1"),
        ({"cpus": "2"}, TypeError, "cpus must be a number"),
        ({"cpus": 0.001}, ValueError, "cpus must be from 0.01"),
        ({"cpus": float("nan")}, ValueError, "cpus must be from 0.01"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    limits: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        TreeLimits(**limits)  # type: ignore[arg-type]


def test_limits_are_said_as_the_kernel_takes_them() -> None:
    limits = TreeLimits(memory_bytes=1 << 20, pids=7, cpus=1.5)
    assert limits.files == {
        "memory.max": "1048576",
        "pids.max": "7",
        "cpu.max": "150000 100000",
    }
    assert limits.controllers == ["memory", "pids", "cpu"]
    assert TreeLimits().files == {}


def test_limits_need_the_cgroup_way() -> None:
    with pytest.raises(ValueError, match="way='session'"):
        Forest(limits=TreeLimits(pids=1), way="session")


def test_limits_where_cgroups_are_off_are_told_before_anything_starts() -> None:
    stage, text = alone(refusal_of_limits, disable="cgroup")
    assert stage == "pids limit"
    assert "PROCREACTOR_DISABLE" in text


def refusal_of_limits() -> list[str]:
    try:
        Forest(limits=TreeLimits(pids=1)).close()
    except SpawnError as error:
        return [error.stage, str(error)]
    return ["none", ""]


@by_cgroup
@pytest.mark.parametrize(
    "limits", [TreeLimits(memory_bytes=1 << 30), TreeLimits(pids=50), TreeLimits(cpus=0.5)]
)
def test_each_limit_is_set_on_the_trees_group_or_told_with_a_reason(limits: TreeLimits) -> None:
    (name, value), (controller,) = next(iter(limits.files.items())), limits.controllers
    refusal: SpawnError | None = None
    try:
        forest = Forest(limits=limits)
    except SpawnError as error:
        refusal = error
    if refusal is not None:
        assert refusal.stage == f"{controller} limit"
        assert refusal.hint
        assert homes() == []
        return
    tree, mark = plant(forest, "broad", 1)
    with grown(tree.spec, mark, 2) as it:
        (home,) = homes()
        group = Path(home, os.path.basename(cgroup_of(it.pid)))
        assert (group / name).read_text().strip() == value
        assert tree.kill(it.pid, LONG_S)
    forest.close()
    assert homes() == []


# --- trees that nobody has planted ----------------------------------------------------------------


@by_proc
@pytest.mark.parametrize(
    ("shape", "number", "count"), [("broad", 3, 4), ("deep", 3, 4), ("still", 1, 2), ("bare", 1, 2)]
)
@pytest.mark.parametrize("leads", [False, True])
def test_a_child_and_its_descendants_are_signalled(
    shape: str, number: int, count: int, leads: bool
) -> None:
    mark = new_mark()
    spec = tree_spec(mark, shape, number)
    spec.new_session = leads
    with grown(spec, mark, count) as it:
        signal_tree(it.child, signal.SIGKILL)
        assert living(mark) == set()


@by_proc
def test_in_a_session_of_its_own_a_childs_orphans_are_signalled_too() -> None:
    mark = new_mark()
    shell = f"{tree_command(mark)} & {tree_command(mark)} & exec {tree_command(mark)}"
    spec = tree_spec(mark, "broad")
    spec.candidates, spec.argv, spec.new_session = (
        (b"/bin/sh",),
        (b"sh", b"-c", shell.encode()),
        True,
    )
    with grown(spec, mark, 3) as it:
        signal_tree(it.child, signal.SIGTERM)
        wait_gone(mark)


def tree_command(mark: str) -> str:
    program = tree_spec(mark, "broad").candidates[0].decode()
    return f"{program} {mark} broad 0"


@by_proc
def test_brothers_in_the_same_session_are_left_alone() -> None:
    mark, other_mark = new_mark(), new_mark()
    with (
        grown(tree_spec(mark, "broad", 1), mark, 2) as it,
        grown(tree_spec(other_mark, "broad", 1), other_mark, 2),
    ):
        signal_tree(it.child, signal.SIGKILL)
        assert living(mark) == set()
        assert len(living(other_mark)) == 2


def reaped() -> Child:
    """One whose end has been told."""
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        it.child.send_signal(signal.SIGKILL)
        it.child.wait_exit()
        it.reap()
        return it.child


def test_nobody_left_is_told() -> None:
    one = reaped()
    with pytest.raises(ProcessLookupError):
        signal_tree(one, signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        signal_tree(one, signal.SIGTERM, CgroupId("/no/such/cgroup", 0, 0))


def test_a_zombie_takes_a_signal_as_ever() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        os.kill(it.pid, signal.SIGKILL)
        it.child.wait_exit()
        signal_tree(it.child, signal.SIGTERM)


COUNTING = """
import os, signal
counted = {signal.SIGRTMIN}
signal.pthread_sigmask(signal.SIG_BLOCK, {*counted, signal.SIGTERM})
os.write(1, b".")
signal.sigwait({signal.SIGTERM})
count = 0
while signal.sigtimedwait(counted, 0):
    count += 1
os.write(1, b"%d" % count)
"""
"""Says how often it was sent a signal of those that are queued, once it is sent TERM."""


@by_cgroup
def test_a_child_in_a_cgroup_gets_a_signal_once() -> None:
    home = cgroups.open_home()
    group = home.new_group()
    mark = new_mark()
    spec = tree_spec(mark, "")
    spec.candidates = (PYTHON.encode(),)
    spec.argv = (b"python", b"-c", COUNTING.encode(), mark.encode())
    spec.cgroup_fd = group.fd
    with grown(spec, mark, 1) as it:
        signal_tree(it.child, signal.SIGRTMIN, cgroups.identify(group.fd))
        it.child.send_signal(signal.SIGTERM)
        it.child.wait_exit()
        assert os.read(it.fd, 9) == b"1"
    group.close()
    assert cgroups.remove(group.path)
    home.close()


@by_cgroup
def test_the_cgroup_of_this_process_is_never_signalled() -> None:
    own = cgroups.open_home()
    fd = os.open(own.own, os.O_RDONLY)
    mine = cgroups.identify(fd)
    os.close(fd)
    own.close()
    with pytest.raises(ProcessLookupError):
        signal_tree(reaped(), signal.SIGURG, mine)


@by_proc
def test_strangers_are_not_found_by_a_number_that_was_given_again() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 0), mark, 1) as it:
        row = processes.read_row(it.pid)
        assert row is not None
        stranger = row._replace(started=row.started - 1)  # who had the number before
        assert not processes.signal_process(stranger, signal.SIGKILL)
        assert living(mark) == {it.pid}
