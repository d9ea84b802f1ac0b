"""One child, from start to reaping, without any loop: the caller watches `exit_fd` itself."""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from fdtables import ChildTables, room_for
from held import wait_for
from programs_build import build_program
from seccomp import Call, deny, needs_seccomp, supervised
from support import PROC, Recorder, make_reactor, run_until, spawn_and_finish
from watched import watched_by_kernel
from ways import WITHOUT_PIDFDS

from procreactor.core import binding
from procreactor.errors import SpawnError
from procreactor.internet.error import ProcessExitedAlready
from procreactor.kernel import children, processes
from procreactor.kernel.children import Child
from procreactor.model import ExitStatus, PipeEnd, Redirect, SpawnSpec

DEADLINE_S = 30

CLONE_THREAD = 0x10000

WAIT_FOR_ALL = 0x40000000  # __WALL: also for a child without an exit signal

has_pidfds = pytest.mark.skipif("pidfd" not in children.in_use(), reason="pidfds are off")


def sh(script: str, redirects: Sequence[Redirect] = ()) -> SpawnSpec:
    return SpawnSpec([b"/bin/sh"], [b"sh", b"-c", script.encode()], [], redirects)


def start(spec: SpawnSpec) -> Child:
    child = Child(spec)
    child.start(spec)
    return child


def wait_for_exit(child: Child) -> ExitStatus:
    """Wait until the exit fd is readable, and reap."""
    assert select.select([child.exit_fd], [], [], DEADLINE_S)[0], "the exit was not noticed"
    status = child.try_reap()
    assert status is not None
    return status


@contextmanager
def killed_at_the_end(child: Child) -> Iterator[Child]:
    try:
        yield child
    finally:
        child.send_signal(signal.SIGKILL)
        wait_for_exit(child)


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_the_exit_code_is_told(code: int) -> None:
    status = wait_for_exit(start(sh(f"exit {code}")))
    assert (status.code, status.signal, status.raw) == (code, None, code << 8)
    assert status.ok == (code == 0)


@pytest.mark.parametrize("name", ["TERM", "KILL", "USR1", "PIPE", "XFSZ"])
def test_the_signal_that_killed_it_is_told(name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    status = wait_for_exit(start(sh(f"ulimit -c 0; kill -{name} $$")))
    assert (status.code, status.signal, status.raw) == (None, number, number)
    assert not status.ok


def test_what_it_used_is_told() -> None:
    usage = wait_for_exit(start(sh("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"))).usage
    assert usage.user_s + usage.system_s > 0
    assert usage.max_rss_bytes >= 100 * 1024
    assert usage.minor_faults > 0


def test_a_running_child_is_not_reaped() -> None:
    with killed_at_the_end(start(sh("exec sleep 600"))) as child:
        assert child.try_reap() is None
        assert not select.select([child.exit_fd], [], [], 0)[0]
        assert child.pid > 0


def test_a_stopped_child_has_not_ended() -> None:
    with killed_at_the_end(start(sh("exec sleep 600"))) as child:
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert child.try_reap() is None
        child.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, child.pid, os.WCONTINUED)
        assert child.try_reap() is None


def test_after_the_reaping_nothing_is_left_of_it() -> None:
    child = start(sh("exit 0"))
    fd, pid = child.exit_fd, child.pid
    wait_for_exit(child)
    assert (child.pid, child.pidfd, child.exit_fd) == (-1, -1, -1)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)


def test_a_signal_after_the_reaping_reaches_nobody() -> None:
    child = start(sh("exit 0"))
    wait_for_exit(child)
    with pytest.raises(ProcessLookupError):
        child.send_signal(signal.SIGKILL)


def test_a_signal_to_a_zombie_is_no_error() -> None:
    child = start(sh("exit 3"))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.send_signal(signal.SIGKILL)
    assert wait_for_exit(child).code == 3


def test_a_number_that_is_no_signal_is_refused() -> None:
    with killed_at_the_end(start(sh("exec sleep 600"))) as child:
        for number in (-1, 65, 999):
            with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                child.send_signal(number)


def test_our_ends_of_its_pipes_are_ours_and_in_order() -> None:
    redirects = [Redirect(0, PipeEnd.WE_WRITE), Redirect(1, PipeEnd.WE_READ), Redirect(2, 2)]
    child = start(sh("read line; echo got $line", redirects))
    stdin, stdout, none = child.ours
    assert none == -1
    os.write(stdin, b"it\n")
    os.close(stdin)
    wait_for_exit(child)
    assert os.read(stdout, 100) == b"got it\n"
    os.close(stdout)


@has_pidfds
def test_the_exit_fd_is_the_pidfd_where_there_are_pidfds() -> None:
    child = start(sh("exit 0"))
    assert child.pidfd == child.exit_fd >= 0
    assert "pidfd" in child.mode
    wait_for_exit(child)


def test_a_refused_start_leaves_nothing_and_can_be_abandoned() -> None:
    spec = SpawnSpec([b"/nonexistent"], [b"x"], [], [Redirect(1, PipeEnd.WE_READ)])
    child = Child(spec)
    with pytest.raises(FileNotFoundError):
        child.start(spec)
    assert (child.pid, child.exit_fd, child.ours) == (-1, -1, [])
    child.abandon()


def test_an_abandoned_child_is_killed_reaped_and_closed() -> None:
    child = start(
        sh("exec sleep 600", [Redirect(0, PipeEnd.WE_WRITE), Redirect(1, PipeEnd.WE_READ)])
    )
    pid = child.pid
    child.abandon()
    assert child.pid == -1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_abandoned_child_may_have_ended_by_itself() -> None:
    child = start(sh("exit 0"))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.abandon()
    assert child.pid == -1


def test_a_child_that_was_closed_runs_on() -> None:
    child = start(sh("exec sleep 600"))
    child.close()
    child.close()
    assert child.exit_fd == -1
    os.kill(child.pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == -signal.SIGKILL


@has_pidfds
def test_a_forgotten_child_closes_its_fd() -> None:
    child = start(sh("exit 0"))
    pid, fd = child.pid, child.exit_fd
    del child
    gc.collect()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)
    os.waitpid(pid, 0)


def test_a_reaping_closes_by_the_way_that_it_is_given() -> None:
    closed: list[int] = []

    def close(fd: int) -> None:
        closed.append(fd)
        os.close(fd)

    with start_until_killed(closed, close) as child:
        assert child.try_reap(close) is None
        assert closed == []
        assert child.exit_fd >= 0


@contextmanager
def start_until_killed(closed: list[int], close: Callable[[int], None]) -> Iterator[Child]:
    """A child that is killed at the end and reaped with *close*, which must close all it had."""
    child = start(sh("exec sleep 600"))
    fds = {child.pidfd, child.exit_fd} - {-1}
    yield child
    child.send_signal(signal.SIGKILL)
    assert select.select([child.exit_fd], [], [], DEADLINE_S)[0]
    status = child.try_reap(close)
    assert status is not None
    assert status.signal == signal.SIGKILL
    assert sorted(closed) == sorted(fds)
    assert (child.pid, child.pidfd, child.exit_fd) == (-1, -1, -1)
    child.close(close)
    assert len(closed) == len(fds)


def test_a_close_that_fails_does_not_close_twice() -> None:
    child = start(sh("exit 4"))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    fds = {child.pidfd, child.exit_fd} - {-1}

    def interrupt(fd: int) -> None:
        os.close(fd)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.try_reap(interrupt)
    others = [os.dup(0) for _ in fds]  # with the numbers that have become free
    child.close()
    for fd in others:
        os.close(fd)


WE_WRITE_AND_READ = (Redirect(0, PipeEnd.WE_WRITE), Redirect(1, PipeEnd.WE_READ))


def test_a_start_puts_its_fds_into_a_set() -> None:
    with select.epoll() as epoll:
        spec = sh("exec sleep 600", WE_WRITE_AND_READ)
        child = Child(spec, epoll.fileno())
        child.start(spec)
        wanted = {child.ours[0]: 0, child.ours[1]: select.EPOLLIN}
        if child.exit_is_watched:
            wanted[child.exit_fd] = select.EPOLLIN
        assert child.exit_is_watched == (child.pidfd >= 0)
        assert watched_by_kernel(epoll.fileno()) == wanted
        copies = [os.dup(fd) for fd in wanted]  # like those that a child holds until its exec
        child.abandon()
        assert watched_by_kernel(epoll.fileno()) == {}
        for fd in copies:
            os.close(fd)


def test_without_a_set_the_exit_is_for_the_caller_to_watch() -> None:
    with killed_at_the_end(start(sh("exec sleep 600"))) as child:
        assert not child.exit_is_watched


def test_a_refused_start_leaves_nothing_in_the_set() -> None:
    spec = SpawnSpec([b"/nonexistent"], [b"x"], [], WE_WRITE_AND_READ)
    with select.epoll() as epoll:
        child = Child(spec, epoll.fileno())
        with pytest.raises(FileNotFoundError):
            child.start(spec)
        assert watched_by_kernel(epoll.fileno()) == {}
        child.abandon()


def test_a_set_that_is_none_is_refused_and_leaves_no_child() -> None:
    ends = os.pipe2(os.O_CLOEXEC)
    for redirects in (WE_WRITE_AND_READ, ()):
        spec = sh("exec sleep 600", redirects)
        if not redirects and "pidfd" not in children.in_use():
            continue
        with pytest.raises(SpawnError) as caught:
            Child(spec, ends[0]).start(spec)
        assert (caught.value.stage, caught.value.errno) == ("watch", errno.EINVAL)
    os.close(ends[0])
    os.close(ends[1])


def in_a_copy(act: Callable[[], int]) -> int:
    """Return the exit code of a forked copy of this process that does *act* and ends."""
    copy = os.fork()
    if copy == 0:
        try:
            os._exit(act())
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


def test_a_copy_of_this_process_that_forgets_a_child_leaves_its_fds_alone() -> None:
    children_of_ours = [start(sh("exec sleep 600"))]
    fd = children_of_ours[0].exit_fd

    def forget() -> int:
        children_of_ours.clear()
        gc.collect()
        os.fstat(fd)
        return 7

    with killed_at_the_end(children_of_ours[0]):
        assert in_a_copy(forget) == 7


def test_a_copy_of_this_process_and_its_copy_have_children_of_their_own() -> None:
    def end_one_and_a_copy() -> int:
        child = start(sh("exit 3"))
        code = in_a_copy(lambda: end_one() + refuses(child))
        return code + (wait_for_exit(child).code or 0)

    def end_one() -> int:
        return wait_for_exit(start(sh("exit 3"))).code or 0

    def refuses(child: Child) -> int:
        try:
            child.try_reap()
        except ChildProcessError as error:
            return 1 if f"of process {os.getppid()}, not" in str(error) else 100
        return 200

    assert in_a_copy(end_one_and_a_copy) == 3 + 1 + 3


def test_a_copy_of_this_process_touches_none_of_its_children() -> None:
    with killed_at_the_end(start(sh("exec sleep 600"))) as child:
        copy = os.fork()
        if copy == 0:
            refused = 0
            for act in (child.try_reap, lambda: child.send_signal(signal.SIGKILL)):
                try:
                    act()
                except ChildProcessError as error:
                    refused += "is a child of process" in str(error)
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 2
        assert child.try_reap() is None


def test_a_status_that_other_code_took_is_asked_of_the_pidfd_or_empty() -> None:
    child = start(sh("exit 9"))
    os.waitpid(child.pid, 0)
    status = wait_for_exit(child)
    assert status in (ExitStatus(), ExitStatus(code=9, raw=9 << 8))
    assert child.pid == -1


SEARCHED = SpawnSpec([b"/usr/bin/nope", b"/bin/nope"], [b"nope"], [], searched_name=b"nope")


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        (SEARCHED, "in no directory of PATH"),
        pytest.param(
            SpawnSpec([b"/bin/true"], [b"x" * (1 << 18)], []),
            "too long",
            marks=pytest.mark.needs("refusals of execve"),
        ),
        (SpawnSpec([b"/nonexistent"], [b"x"], []), ""),
    ],
)
def test_a_refusal_says_what_to_do(spec: SpawnSpec, hint: str) -> None:
    with pytest.raises(SpawnError) as caught:
        Child(spec).start(spec)
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


@pytest.mark.needs("refusals of execve")
def test_a_missing_interpreter_is_not_called_a_missing_file(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    spec = SpawnSpec([os.fsencode(script)], [b"script"], [])
    with pytest.raises(FileNotFoundError, match="its interpreter"):
        Child(spec).start(spec)
    relative = SpawnSpec([b"./script"], [b"script"], [], cwd=os.fsencode(tmp_path))
    with pytest.raises(FileNotFoundError, match="its interpreter"):
        Child(relative).start(relative)


def test_a_name_in_no_directory_is_named_as_it_was_given() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Child(SEARCHED).start(SEARCHED)
    assert caught.value.filename == "nope"


def python(code: str, disabled: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PROCREACTOR_DISABLE": disabled}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100
    )


def test_features_are_disabled_by_the_environment_at_the_first_spawn_not_at_import() -> None:
    code = (
        "import os\n"
        "from procreactor.kernel import children\n"
        "os.environ['PROCREACTOR_DISABLE'] = ' clone3 , close_range,'\n"
        "print(*sorted(children.in_use()))"
    )
    assert not {"clone3", "close_range"} & set(python(code, "pidfd").stdout.split())


def test_an_unknown_feature_is_named_and_so_are_the_known_ones() -> None:
    answer = python("from procreactor.kernel import children; children.in_use()", "clone3,warp")
    assert answer.returncode == 1
    assert "unknown feature 'warp'" in answer.stderr
    assert "close_range" in answer.stderr


def test_the_names_of_the_features_are_those_of_the_binding() -> None:
    assert children.in_use() <= binding.feature_names(0xFFFF)


WITHOUT_PIDFD = """
import os, select, signal, threading
from procreactor.kernel.children import Child
from procreactor.model import SpawnSpec

def start(script):
    spec = SpawnSpec([b"/bin/sh"], [b"sh", b"-c", script], [])
    child = Child(spec)
    child.start(spec)
    assert child.pidfd == -1 and child.exit_fd >= 0 and "pidfd" not in child.mode
    return child

def end(child):
    closed = []
    exit_fd = child.exit_fd
    assert not child.exit_is_watched
    assert select.select([exit_fd], [], [], 30)[0]
    status = child.try_reap(lambda fd: [closed.append(fd), os.close(fd)])
    assert closed == [exit_fd]
    return status

assert end(start(b"exit 7")).code == 7
child = start(b"exec sleep 600")
assert child.try_reap() is None
child.send_signal(signal.SIGTERM)
assert end(child).signal == signal.SIGTERM
try:
    child.send_signal(signal.SIGTERM)
except ProcessLookupError:
    pass
else:
    raise AssertionError
child = start(b"exec sleep 600")
child.abandon()
assert (child.pid, child.exit_fd) == (-1, -1)
child = start(b"exit 1")
os.waitpid(child.pid, 0)
assert end(child).code is None
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(30)
print(len(os.listdir(os.environ.get("PROCREACTOR_TESTS_PROC", "/proc") + "/self/fd")))
"""


COUNT_FDS = """
import os
from procreactor.core import binding
from procreactor.kernel import children
children.in_use()
binding.reserve()
print(len(os.listdir(os.environ.get("PROCREACTOR_TESTS_PROC", "/proc") + "/self/fd")))
"""


@pytest.mark.needs("threads")
def test_without_pidfds_a_thread_notices_the_exit_and_leaves_no_fd() -> None:
    baseline = python(COUNT_FDS, "pidfd")
    answer = python(WITHOUT_PIDFD, "pidfd")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == baseline.stdout


NO_ROOM_TO_WATCH = """
import errno, os, resource, sys, threading
from fdtables import own_table, room_for
from procreactor.errors import SpawnError
from procreactor.kernel.children import Child, in_use
from procreactor.core import binding
from procreactor.model import SpawnSpec

in_use()
binding.reserve()
spec = SpawnSpec([b"/bin/sleep"], [b"sleep", b"600"], [])
for room in (0, 1):
    before = own_table()
    with room_for(room):
        child = Child(spec)
        try:
            child.start(spec)
        except SpawnError as error:
            assert error.errno == errno.EMFILE and error.stage, error
            child.abandon()
        else:
            raise AssertionError
    assert own_table() == before, room
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass
    else:
        raise AssertionError("a child is left")
assert threading.active_count() == 1
"""


def test_without_pidfds_and_without_room_for_their_substitute_nothing_is_left() -> None:
    env = {
        **os.environ,
        "PROCREACTOR_DISABLE": "pidfd",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    answer = subprocess.run(
        [sys.executable, "-c", NO_ROOM_TO_WATCH], env=env, capture_output=True, timeout=100
    )
    assert answer.returncode == 0, answer.stderr.decode()


def ends_in_a_sandbox_that_is_entered_later(error: int) -> None:
    one, other = start(sh("exit 3")), start(sh("exec sleep 600"))
    deny("waitid", error, (0, os.P_PIDFD))
    assert wait_for_exit(one).code == 3
    one = start(sh("exit 4"))
    one.wait_exit()
    assert wait_for_exit(one).code == 4
    other.abandon()


@needs_seccomp
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_of_a_sandbox_that_denies_a_wait_by_pidfd_later_no_end_is_lost(error: int) -> None:
    alone(ends_in_a_sandbox_that_is_entered_later, error)


# --- no pidfds, and no wait is allowed: /proc alone tells ----------------------------------------

by_looks = pytest.mark.needs("threads", "/proc")


def end_among_looks_that_fail(failing: list[int]) -> list[Any]:
    deny("waitid", errno.EPERM)
    with ThreadPoolExecutor(1) as threads:  # whose filter is not ours
        return threads.submit(_end_among_looks_that_fail, failing).result()


def _end_among_looks_that_fail(failing: list[int]) -> list[Any]:
    own, looks = threading.get_native_id(), [0]

    def have_no_fd(call: Call) -> int | None:
        if call[0] == own or not os.path.exists(f"{PROC}/self/task/{call[0]}"):
            return None
        looks[0] += 1
        return errno.EMFILE if looks[0] in failing else None

    with supervised("openat", have_no_fd):
        child = start(sh("exec sleep 600"))
        pid = child.pid
        wait_for(lambda: looks[0] >= failing[-1] + 3)
        early = child.try_reap()
        os.kill(pid, signal.SIGKILL)
        status = wait_for_exit(child)
        wait_for(lambda: threading.active_count() == 3)  # we, who started us, who answers
    os.waitpid(pid, 0)
    return [early, status.raw]


@needs_seccomp
@by_looks
@pytest.mark.parametrize("failing", [[1], [2], [3], [4, 5, 6, 7]])
def test_a_passing_lack_of_fds_is_not_taken_for_the_end(failing: list[int]) -> None:
    assert alone(end_among_looks_that_fail, failing, disable="pidfd") == [None, None]


def start_and_ask_without_an_fd_to_look() -> list[Any]:
    deny("waitid", errno.EPERM)
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_start_and_ask_without_an_fd_to_look).result()


def _start_and_ask_without_an_fd_to_look() -> list[Any]:
    own, short = threading.get_native_id(), [True]

    def have_no_fd(call: Call) -> int | None:
        return errno.EMFILE if short[0] and call[0] == own else None

    with supervised("openat", have_no_fd):
        unknown = start(sh("exec sleep 600"))
        short[0] = False
        known = start(sh("exec sleep 600"))
        short[0] = True
        found = [unknown.try_reap(), known.try_reap(), known.pid_while_ours == known.pid]
        for child in (unknown, known):
            with pytest.raises(PermissionError):
                child.send_signal(signal.SIGKILL)
        for pid, child in ((unknown.pid, unknown), (known.pid, known)):
            os.kill(pid, signal.SIGKILL)
            wait_for_exit(child)
            os.waitpid(pid, 0)
        wait_for(lambda: threading.active_count() == 3)
    return found


@needs_seccomp
@by_looks
def test_without_an_fd_to_look_whose_the_number_is_is_unknown() -> None:
    assert alone(start_and_ask_without_an_fd_to_look, disable="pidfd") == [None, None, True]


def state_after_a_start_that_cannot_be_watched(lack: str) -> list[Any]:
    children.in_use()
    binding.reserve()
    deny("waitid", errno.EPERM)
    if lack == "threads":
        deny("clone3", errno.EAGAIN)  # libc's; ours is another
        deny("clone", errno.EAGAIN, (0, CLONE_THREAD, CLONE_THREAD))
        number = _errno_of_a_refused_start()
    else:
        with room_for(1):
            number = _errno_of_a_refused_start()
    left = [row for row in processes.read_rows().values() if row.parent == os.getpid()]
    assert not [row for row in left if row.is_alive], "it runs on"
    for row in left:
        os.waitpid(row.pid, WAIT_FOR_ALL)
    return [number]


def _errno_of_a_refused_start() -> int:
    spec = sh("exec sleep 600")
    child = Child(spec)
    with pytest.raises(SpawnError, match="exit watch") as caught:
        child.start(spec)
    assert (child.pid, child.exit_fd) == (-1, -1)
    return caught.value.errno or 0


@needs_seccomp
@by_looks
@pytest.mark.parametrize(
    ("lack", "error"),
    [
        ("threads", errno.EAGAIN),
        # A fork is refused before: its report pipe needs more fds than the watch of its end.
        pytest.param("fds", errno.EMFILE, marks=pytest.mark.needs("vfork")),
    ],
)
def test_a_start_whose_end_cannot_be_watched_leaves_nobody_running(lack: str, error: int) -> None:
    found = alone(state_after_a_start_that_cannot_be_watched, lack, disable="pidfd,clone3")
    assert found == [error]


def deny_threads() -> None:
    children.in_use()
    binding.reserve()
    deny("clone3", errno.EAGAIN)  # libc's; ours is another
    deny("clone", errno.EAGAIN, (0, CLONE_THREAD, CLONE_THREAD))
    with pytest.raises(RuntimeError):
        threading.Thread(target=int).start()


def codes_without_threads(program: str, no_room: bool) -> list[Any]:
    """Of a child that has ended when it is looked for, and one that has not, by a loop."""
    deny_threads()
    with make_reactor() as reactor:
        soon = spawn_and_finish(reactor, program, [program, "exit", "3"])
        later = Recorder()
        transport = reactor.spawnProcess(later, program, [program, "wait", "4"])
        for _ in range(3):
            reactor.iterate(0.05)
        names = list(later.names)
        if no_room:  # to watch anything again
            deny("epoll_ctl", errno.ENOSPC, (1, 1))
        transport.closeStdin()
        run_until(reactor, lambda: later.ended)
    return [soon.reason.value.exitCode, names, later.reason.value.exitCode]


@needs_seccomp
@pytest.mark.parametrize("no_room", [False, True])
def test_with_neither_pidfds_nor_threads_a_child_is_looked_at_again_and_again(
    no_room: bool,
) -> None:
    found = alone(codes_without_threads, build_program("end"), no_room, disable="pidfd,clone3")
    assert found == [3, ["connectionMade"], 4]


def end_of_one_let_go_without_threads(program: str) -> list[Any]:
    deny_threads()
    with make_reactor() as reactor:
        protocol = Recorder()
        transport = reactor.spawnProcess(protocol, program, [program, "wait", "4"])
        pid = transport.pid
        for _ in range(3):
            reactor.iterate(0.05)  # it has been looked at, and will be again
        transport.disconnectAll()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        for _ in range(3):
            reactor.iterate(0.05)
        return [sorted(set(protocol.names)), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


@needs_seccomp
def test_with_neither_pidfds_nor_threads_a_child_that_is_let_go_is_left_to_others() -> None:
    found = alone(end_of_one_let_go_without_threads, build_program("end"), disable="pidfd,clone3")
    assert found == [["childConnectionLost", "connectionMade"], 4]


def signal_where_no_wait_is_allowed(error: int) -> int:
    deny("waitid", error)
    child = start(sh("exec sleep 600"))
    pid = child.pid
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        child.send_signal(999)
    child.send_signal(signal.SIGTERM)
    wait_for_exit(child)
    with pytest.raises(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    return os.waitpid(pid, 0)[1]


@needs_seccomp
@by_looks
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_a_child_that_is_seen_in_proc_is_signalled_though_no_wait_is_allowed(error: int) -> None:
    assert alone(signal_where_no_wait_is_allowed, error, disable="pidfd") == signal.SIGTERM


def signal_where_nobody_can_know() -> None:
    deny("waitid", errno.EPERM)
    with ThreadPoolExecutor(1) as threads:  # whose filter is not ours
        threads.submit(_signal_where_nobody_can_know).result()


def _signal_where_nobody_can_know() -> None:
    children.in_use()
    deny("readlink", errno.EACCES)  # of /proc/self: whose /proc it is
    child = start(sh("exec sleep 600"))
    with pytest.raises(PermissionError):
        child.send_signal(signal.SIGKILL)
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    child.close()
    wait_for(lambda: threading.active_count() == 2)


@needs_seccomp
@by_looks
def test_without_proc_too_no_signal_is_sent() -> None:
    alone(signal_where_nobody_can_know, disable="pidfd")


def ask_a_child_that_was_closed() -> None:
    deny("waitid", errno.EPERM)
    child = start(sh("exec sleep 600"))
    child.close()
    assert child.try_reap() is None
    assert child.lost_error is None
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    wait_for(lambda: threading.active_count() == 1)


@needs_seccomp
@pytest.mark.parametrize("disable", ["", pytest.param("pidfd", marks=by_looks)])
def test_of_a_child_that_was_closed_nothing_has_been_told(disable: str) -> None:
    alone(ask_a_child_that_was_closed, disable=disable)


# --- children that others started -----------------------------------------------------------------


def exit_fd_of_another_s_child() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read word; exit 3"], stdin=subprocess.PIPE) as process:
        fd = children.open_exit_fd(process.pid)
        assert not select.select([fd], [], [], 0)[0]
        assert process.stdin is not None
        process.stdin.close()
        assert select.select([fd], [], [], DEADLINE_S)[0], "the exit was not noticed"
        assert process.wait() == 3  # which nobody else has taken
        os.close(fd)


def exit_fd_without_room() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read word"], stdin=subprocess.PIPE) as process:
        children.in_use()  # what asks the kernel itself has no part in this
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(SpawnError) as caught:
                children.open_exit_fd(process.pid)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (caught.value.errno, caught.value.stage) == (errno.EMFILE, "exit watch")


def has_pidfd_open() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def exit_fd_of_nobody() -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    try:
        fd = children.open_exit_fd(process.pid)
    except ProcessLookupError:
        return
    assert "pidfd" not in children.in_use() or not has_pidfd_open()
    assert select.select([fd], [], [], DEADLINE_S)[0], "the exit was not noticed"
    os.close(fd)


@pytest.mark.parametrize(
    "function", [exit_fd_of_another_s_child, exit_fd_of_nobody, exit_fd_without_room]
)
@pytest.mark.parametrize("disable", ["", WITHOUT_PIDFDS])
def test_the_exit_of_a_child_that_others_started(
    function: Callable[[], None], disable: str
) -> None:
    alone(function, disable=disable)


# --- the same scenario on every rung of the ladder ------------------------------------------------

FEATURES = ("clone3", "pidfd", "unshare", "close_range", "vfork", "helper")


def echo_much(reactor: Any) -> Any:
    """Return the transport of a child that sent back all of 300,000 bytes."""
    child, data = Recorder(), bytes(range(250)) * 1200
    transport = reactor.spawnProcess(child, "/bin/cat", ["cat"])
    transport.write(data)
    transport.closeStdin()
    run_until(reactor, lambda: child.ended)
    assert child.out == data
    assert child.reason.value.exitCode == 0
    return transport


def end_in_every_way(reactor: Any) -> None:
    for code in (0, 1, 255):
        child = spawn_and_finish(reactor, "/bin/sh", ["sh", "-c", f"exit {code}"])
        assert child.reason.value.exitCode == code
    child = Recorder()
    transport = reactor.spawnProcess(child, "/bin/sleep", ["sleep", "600"])
    transport.signalProcess("TERM")
    run_until(reactor, lambda: child.ended)
    assert child.reason.value.signal == signal.SIGTERM
    with pytest.raises(ProcessExitedAlready):
        transport.signalProcess("TERM")


def be_refused(reactor: Any) -> None:
    for kwargs, stage in (
        ({"executable": "/nonexistent"}, "exec"),
        ({"executable": "/bin/true", "path": "/nonexistent"}, "chdir"),
        ({"executable": "/bin/true", "childFDs": {1: 9999}}, "dup"),
        ({"executable": "/nonexistent", "usePTY": True}, "exec"),
    ):
        with pytest.raises(SpawnError) as caught:
            reactor.spawnProcess(Recorder(), **kwargs)
        assert caught.value.stage == stage


def notice_the_exit_of_an_idle_child(reactor: Any) -> None:
    child = Recorder()
    reactor.spawnProcess(child, "/bin/sleep", ["sleep", "0.2"], childFDs={})
    turns = 0
    while not child.ended:
        reactor.iterate(DEADLINE_S)
        turns += 1
    assert turns <= 2


def live_on_a_terminal(reactor: Any) -> None:
    child = spawn_and_finish(reactor, "/bin/sh", ["sh", "-c", "tty; exit 4"], None, usePTY=True)
    assert child.out.startswith(b"/dev/pts/")
    assert child.reason.value.exitCode == 4


def be_another_user(reactor: Any) -> Any:
    child = Recorder()
    transport = reactor.spawnProcess(child, "/usr/bin/id", ["id", "-u"], uid=12345, gid=54321)
    run_until(reactor, lambda: child.ended)
    assert child.out == b"12345\n"
    return transport


def smoke(fdtable: str, report: str) -> list[str]:
    """A bit of everything; the features that were used."""
    fds = [os.dup(0) for _ in range(100)]
    for fd in fds:
        os.set_inheritable(fd, True)
    with make_reactor() as reactor:
        used = set(echo_much(reactor)._child.mode)
        end_in_every_way(reactor)
        be_refused(reactor)
        notice_the_exit_of_an_idle_child(reactor)
        live_on_a_terminal(reactor)
        tables = ChildTables(reactor, fdtable, Path(report), None)
        tables.spawn(None)
        tables.spawn({0: "w", 1: fds[90], 2: 1, 70: "r"})
        if os.geteuid() == 0:
            used |= be_another_user(reactor)._child.mode
    for fd in fds:
        os.close(fd)
    return sorted(used)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    "disable",
    [
        "",
        *(feature for feature in FEATURES if feature != "pidfd"),
        WITHOUT_PIDFDS,
        pytest.param(",".join(FEATURES), marks=pytest.mark.needs("threads")),
    ],
)
def test_whatever_feature_is_missing_children_are_made_talked_to_and_noticed(
    disable: str, tmp_path: Path
) -> None:
    used = alone(smoke, build_program("fdtable"), str(tmp_path / "report"), disable=disable)
    assert not set(used) & set(disable.split(","))
