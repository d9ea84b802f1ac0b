"""Every field of a request reaches the child, and every refusal comes back in words."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from support import PROC
from watched import watched_by_kernel

from procreactor._core import ffi, lib
from procreactor.core import binding
from procreactor.errors import SpawnError
from procreactor.model import (
    ExitStatus,
    Identity,
    PipeEnd,
    Redirect,
    ResourceUsage,
    RlimitSetting,
    SpawnSpec,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

STDOUT = [Redirect(1, PipeEnd.WE_READ)]


def run(spec: SpawnSpec) -> tuple[bytes, ExitStatus]:
    """What the child of *spec*, whose first redirect is its fd 1, wrote, and how it ended."""
    call = binding.SpawnCall(len(spec.redirects))
    binding.spawn(spec, call)
    output = b""
    os.set_blocking(call.ours[0], True)
    while data := os.read(call.ours[0], 65536):
        output += data
    os.close(call.ours[0])
    return output, end(call)


def end(call: binding.SpawnCall) -> ExitStatus:
    """Wait for the child to end, and reap it."""
    binding.wait_exit(call.pid)
    status = call.reap(call.pidfd, call.pid)
    if call.pidfd >= 0:
        os.close(call.pidfd)
    assert status is not None
    return status


def sh(script: str, **fields: Any) -> SpawnSpec:
    fields = {"env": [b"PATH=/usr/bin:/bin"], "redirects": STDOUT, **fields}
    return SpawnSpec([b"/bin/sh"], [b"sh", b"-c", script.encode()], **fields)


def said(script: str, **fields: Any) -> str:
    """What the script wrote; it must have ended well."""
    output, status = run(sh(script, **fields))
    assert status.ok, status
    return output.decode().strip()


def refused(spec: SpawnSpec) -> SpawnError:
    call = binding.SpawnCall(len(spec.redirects))
    with pytest.raises(SpawnError) as caught:
        binding.spawn(spec, call)
    assert (call.pid, call.pidfd) == (-1, -1)
    assert call.ours == [-1] * len(spec.redirects)
    return caught.value


# --- what goes in -------------------------------------------------------------------------------


def test_a_call_that_has_not_been_made_owns_nothing() -> None:
    call = binding.SpawnCall(3)
    assert (call.pid, call.pidfd, call.ours, call.mode) == (-1, -1, [-1, -1, -1], frozenset())


def test_the_arguments_arrive_whatever_their_bytes_are() -> None:
    argv = [b"printf", b"%s|", b"", b" a b ", b"\xff\xfe", b"x" * 100_000, "ü€".encode()]
    output, _ = run(SpawnSpec([b"/usr/bin/printf"], argv, [], STDOUT))
    assert output == b"".join(argument + b"|" for argument in argv[2:])


def test_argv0_is_the_first_argument_and_not_the_file() -> None:
    output, _ = run(SpawnSpec([b"/bin/sh"], [b"another name", b"-c", b'echo "$0"'], [], STDOUT))
    assert output == b"another name\n"


@pytest.mark.parametrize("env", [[], [b"A=1"], [b"A=", b"B=x=y", b"C=\xff"]])
def test_the_environment_is_exactly_what_was_given(env: Sequence[bytes]) -> None:
    output, _ = run(SpawnSpec([b"/usr/bin/env"], [b"env"], env, STDOUT))
    assert output.splitlines() == env


def test_the_first_candidate_that_can_be_run_is_run() -> None:
    spec = SpawnSpec([b"/nonexistent/printf", b"/usr/bin/printf"], [b"printf", b"ok"], [], STDOUT)
    assert run(spec)[0] == b"ok"


def test_it_starts_in_the_given_directory(tmp_path: Path) -> None:
    assert said("pwd -P", cwd=os.fsencode(tmp_path)) == str(tmp_path.resolve())
    assert said("pwd -P") == str(Path.cwd())


def test_each_redirect_gets_its_own_end() -> None:
    call = binding.SpawnCall(4)
    spec = sh(
        "cat; echo to2 >&2; echo to5 >&5",
        redirects=[
            Redirect(2, PipeEnd.WE_READ),
            Redirect(0, PipeEnd.WE_WRITE),
            Redirect(1, 2),
            Redirect(5, PipeEnd.WE_READ),
        ],
    )
    binding.spawn(spec, call)
    err, stdin, unmapped, five = call.ours
    assert unmapped == -1
    os.close(stdin)
    assert end(call).ok
    assert os.read(err, 100) == b"to2\n"
    assert os.read(five, 100) == b"to5\n"
    os.close(err)
    os.close(five)


def test_our_ends_do_not_block_and_are_not_inherited() -> None:
    call = binding.SpawnCall(2)
    binding.spawn(
        sh("exit", redirects=[Redirect(0, PipeEnd.WE_WRITE), Redirect(1, PipeEnd.WE_READ)]), call
    )
    for fd in call.ours:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        os.close(fd)
    end(call)


@pytest.mark.needs("file limits")
def test_the_umask_and_the_limits_are_set() -> None:
    soft, hard = 100, 200
    limits = [
        RlimitSetting(resource.RLIMIT_NOFILE, soft, hard),
        RlimitSetting(resource.RLIMIT_CORE, 0, 0),
    ]
    text = said("umask; ulimit -Sn; ulimit -Hn; ulimit -c", umask=0o027, rlimits=limits)
    assert text.split() == ["0027", "100", "200", "0"]


def test_an_unlimited_limit_fits() -> None:
    infinite = (1 << 64) - 1
    if resource.getrlimit(resource.RLIMIT_CPU)[1] != resource.RLIM_INFINITY:
        pytest.skip("the limit is set and cannot be lifted")
    limits = [RlimitSetting(resource.RLIMIT_CPU, infinite, infinite)]
    assert said("ulimit -t", rlimits=limits) == "unlimited"


def test_the_niceness_is_added() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert int(said("nice", nice=3)) == min(before + 3, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


STAT = f"cut -d' ' -f5,6 {PROC}/$$/stat; echo $$"


def test_session_and_group_are_inherited_or_its_own() -> None:
    group, session, _ = map(int, said(STAT).split())
    assert (group, session) == (os.getpgrp(), os.getsid(0))
    group, session, pid = map(int, said(STAT, process_group=0).split())
    assert (group, session) == (pid, os.getsid(0))
    group, session, pid = map(int, said(STAT, new_session=True).split())
    assert (group, session) == (pid, pid)
    group, *_ = map(int, said(STAT, process_group=os.getpgrp()).split())
    assert group == os.getpgrp()


def status_of(**fields: Any) -> dict[str, str]:
    """The child's own status, as proc(5) has it; cat, because a shell changes its mask."""
    spec = SpawnSpec([b"/bin/cat"], [b"cat", f"{PROC}/self/status".encode()], [], STDOUT, **fields)
    lines = run(spec)[0].decode().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def bits(signals: Iterable[int]) -> int:
    return sum(1 << (number - 1) for number in signals)


def test_the_signal_mask_is_inherited_or_the_given_one() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        assert int(status_of()["SigBlk"], 16) == bits({*before, signal.SIGUSR1})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for given in (frozenset({1, 15, 64}), frozenset[int]()):
        assert int(status_of(signal_mask=given)["SigBlk"], 16) == bits(given)


def test_no_signal_is_ignored_in_the_child() -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN  # Python's own doing
    assert int(status_of()["SigIgn"], 16) == 0


def test_no_new_privileges_is_set_when_asked_for() -> None:
    assert status_of()["NoNewPrivs"] == "0"
    assert status_of(no_new_privileges=True)["NoNewPrivs"] == "1"


@as_root
def test_the_identity_is_complete() -> None:
    status = status_of(identity=Identity(12345, 54321, (7, 8, 9)))
    assert status["Uid"].split() == ["12345"] * 4
    assert status["Gid"].split() == ["54321"] * 4
    assert status["Groups"].split() == ["7", "8", "9"]


@as_root
def test_the_identity_may_have_many_groups() -> None:
    groups = tuple(range(1000, 2000))
    status = status_of(identity=Identity(1, 1, groups))
    assert tuple(map(int, status["Groups"].split())) == groups


DIES_WITH_US = """
import os, sys
from procreactor.core import binding
from procreactor.model import Redirect, SpawnSpec
spec = SpawnSpec([b"/bin/sleep"], [b"sleep", b"600"], [], [Redirect(1, 1)], parent_death_signal=9)
binding.spawn(spec, binding.SpawnCall(1))
"""


def test_a_death_signal_ends_it_with_its_parent() -> None:
    # The child holds the pipe that is read here: the end of file is its death.
    subprocess.run([sys.executable, "-c", DIES_WITH_US], check=True, capture_output=True)


# --- what comes back ----------------------------------------------------------------------------


def test_a_missing_file_is_named() -> None:
    error = refused(SpawnSpec([b"/nonexistent/x"], [b"x"], []))
    assert isinstance(error, FileNotFoundError)
    assert (error.stage, error.filename) == ("exec", "/nonexistent/x")


def test_of_several_candidates_the_one_that_decided_is_named(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.write_text("")
    candidates = [b"/nonexistent/locked", os.fsencode(locked), b"/nonexistent/2/locked"]
    error = refused(SpawnSpec(candidates, [b"locked"], []))
    assert isinstance(error, PermissionError)
    assert error.filename == str(locked)


def test_a_missing_directory_is_named() -> None:
    error = refused(sh("exit", cwd=b"/nonexistent/dir"))
    assert isinstance(error, FileNotFoundError)
    assert (error.stage, error.filename) == ("chdir", "/nonexistent/dir")


def test_a_source_that_is_not_open_is_named() -> None:
    error = refused(sh("exit", redirects=[Redirect(1, PipeEnd.WE_READ), Redirect(7, 987)]))
    assert (error.errno, error.stage) == (errno.EBADF, "dup")
    assert "child fd 7" in error.hint
    assert "parent fd 987" in error.hint


def test_a_target_beyond_the_limit_is_refused() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    error = refused(sh("exit", redirects=[Redirect(soft, 2)]))
    assert (error.errno, error.stage) == (errno.EBADF, "dup")


def test_a_limit_that_may_not_be_set_is_named() -> None:
    limits = [
        RlimitSetting(resource.RLIMIT_CORE, 0, 0),
        RlimitSetting(resource.RLIMIT_NOFILE, 1 << 40, 1 << 40),
    ]
    error = refused(sh("exit", rlimits=limits))
    assert (error.errno, error.stage) == (errno.EPERM, "rlimit")
    assert str(1 << 40) in error.hint


def test_a_group_that_does_not_exist_is_refused() -> None:
    error = refused(sh("exit", process_group=2**30))
    assert (error.stage, error.errno) == ("setpgid", errno.EPERM)


def test_a_terminal_that_is_none_is_refused() -> None:
    spec = sh("exit", new_session=True, controlling_tty_fd=1)
    assert refused(spec).stage == "controlling terminal"


def test_a_request_that_contradicts_itself_is_refused() -> None:
    assert refused(SpawnSpec([], [b"x"], [])).stage == "request"
    assert refused(SpawnSpec([b"/bin/true"], [], [])).stage == "request"
    twice = [Redirect(1, PipeEnd.WE_READ), Redirect(1, 2)]
    assert refused(sh("exit", redirects=twice)).stage == "request"


def test_strings_with_an_embedded_nul_do_not_become_two() -> None:
    assert refused(SpawnSpec([b"/bin/true"], [b"a\0b"], [])).stage == "request"


def test_the_status_of_somebody_elses_child_is_empty() -> None:
    assert binding.SpawnCall(0).reap(-1, os.getppid()) == ExitStatus()


def test_a_core_dump_is_told_apart_from_the_signal() -> None:
    limits = [RlimitSetting(resource.RLIMIT_CORE, 0, 0)]
    _, status = run(sh("kill -SEGV $$", rlimits=limits))
    assert status.signal == signal.SIGSEGV
    assert status.raw is not None
    assert status.core_dumped == os.WCOREDUMP(status.raw)


# The fields of struct pr_exit, in the kernel's units, by what they become.
COUNTS = {
    "user_s": "user_us",
    "system_s": "system_us",
    "max_rss_bytes": "max_rss_kib",
    **{name: name for name in ResourceUsage._fields[3:]},
}


def test_the_end_of_a_child_is_read_as_it_is_laid_out_in_c() -> None:
    c: Any = ffi  # its introspection has no types here
    fields = c.typeof("struct pr_exit").fields
    layout = {name: (field.offset, field.type.cname) for name, field in fields}
    wanted = {"code": (0, "int"), "status": (4, "int")}
    for at, name in enumerate(ResourceUsage._fields):
        wanted[COUNTS[name]] = (8 + 8 * at, "int64_t")
    assert layout == wanted
    assert c.sizeof("struct pr_exit") == 8 + 8 * len(ResourceUsage._fields)


def test_each_number_of_an_end_comes_in_its_unit_and_at_its_place() -> None:
    exit_ = ffi.new("struct pr_exit *")
    exit_.code, exit_.status = 1, 9
    for at, name in enumerate(COUNTS.values(), 1):
        setattr(exit_, name, (1 << 40) + at)
    status = binding._translate_exit(*binding._EXIT.unpack(ffi.buffer(exit_)))
    assert (status.code, status.raw) == (9, 9 << 8)
    usage = status.usage._asdict()
    assert usage.pop("user_s") == ((1 << 40) + 1) / 1e6
    assert usage.pop("system_s") == ((1 << 40) + 2) / 1e6
    assert usage.pop("max_rss_bytes") == ((1 << 40) + 3) * 1024
    assert usage == {
        name: (1 << 40) + at for at, name in enumerate(ResourceUsage._fields, 1) if at > 3
    }


SPENDS = """
import os, time
room = bytearray(64 << 20)
end = time.process_time() + 0.02
while time.process_time() < end: sum(range(1000))
fd = os.open("/dev/zero", os.O_RDONLY)
for _ in range(3): os.readv(fd, [room])
for _ in range(20): time.sleep(0)
for _ in range(7): os.read(0, 1)
"""


def spend_and_compare() -> dict[str, list[float]]:
    """What a child used, as it was told, beside what the kernel added to our children's use."""
    binding.features()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [os.fsencode(word) for word in (sys.executable, "-I", "-S", "-c", SPENDS)]
    call = binding.SpawnCall(1)
    binding.spawn(SpawnSpec([argv[0]], argv, [], [Redirect(0, PipeEnd.WE_WRITE)]), call)
    os.write(call.ours[0], b"7 bytes")
    os.close(call.ours[0])
    usage = end(call).usage
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    added = {
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "max_rss_bytes": after.ru_maxrss * 1024,  # the largest child's
        "minor_faults": after.ru_minflt - before.ru_minflt,
        "major_faults": after.ru_majflt - before.ru_majflt,
        "block_reads": after.ru_inblock - before.ru_inblock,
        "block_writes": after.ru_oublock - before.ru_oublock,
        "voluntary_switches": after.ru_nvcsw - before.ru_nvcsw,
        "involuntary_switches": after.ru_nivcsw - before.ru_nivcsw,
    }
    return {name: [value, added[name]] for name, value in usage._asdict().items()}


def test_what_a_child_used_is_what_the_kernel_added_to_the_use_of_our_children() -> None:
    compared = alone(spend_and_compare)
    for name in ("user_s", "system_s"):
        told, added = compared.pop(name)
        assert told == pytest.approx(added, abs=5e-6)  # each is rounded to microseconds
        assert told > 0
    for name, (told, added) in compared.items():
        assert told == added, name
    assert compared["max_rss_bytes"][0] > 64 << 20
    assert compared["minor_faults"][0] > 0


def test_an_end_is_a_tuple_that_nobody_can_change() -> None:
    usage = ResourceUsage(0.5, 0.25, 4096, 1, 2, 3, 4, 5, 6)
    status = ExitStatus(None, 11, True, 139, usage)
    assert tuple(status) == (None, 11, True, 139, usage)
    assert (status.signal, status.core_dumped, status.ok) == (11, True, False)
    assert tuple(usage) == (0.5, 0.25, 4096, 1, 2, 3, 4, 5, 6)
    assert ExitStatus(0).ok
    assert not ExitStatus().ok
    assert tuple(ExitStatus()) == (None, None, False, None, ResourceUsage())
    assert tuple(ResourceUsage()) == (0.0, 0.0, 0, 0, 0, 0, 0, 0, 0)
    for thing, name in ((status, "code"), (status, "other"), (usage, "user_s")):
        with pytest.raises(AttributeError):
            setattr(thing, name, 1)
    assert len({status, ExitStatus(None, 11, True, 139, usage), ExitStatus()}) == 2


def test_a_signal_to_nobody_is_refused_in_the_kernels_words() -> None:
    with pytest.raises(ProcessLookupError, match=os.strerror(errno.ESRCH)):
        binding.send_signal(-1, 2**22 + 1, signal.SIGTERM)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        binding.send_signal(-1, os.getpid(), 99)


def test_waiting_for_a_child_leaves_it_to_be_reaped() -> None:
    call = binding.SpawnCall(0)
    binding.spawn(SpawnSpec([b"/bin/true"], [b"true"], []), call)
    binding.wait_exit(call.pid)
    binding.wait_exit(call.pid)
    assert end(call).ok
    binding.wait_exit(call.pid)  # reaped: it has ended


@pytest.mark.needs("threads")
def test_other_threads_run_while_one_waits() -> None:
    call = binding.SpawnCall(1)
    binding.spawn(sh("read x", redirects=[Redirect(0, PipeEnd.WE_WRITE)]), call)
    waiting = threading.Thread(target=binding.wait_exit, args=(call.pid,))
    waiting.start()
    os.close(call.ours[0])
    waiting.join(30)
    assert not waiting.is_alive()
    end(call)


# --- watching -----------------------------------------------------------------------------------


THREE = [
    Redirect(0, PipeEnd.WE_WRITE),
    Redirect(2, 2),
    Redirect(1, PipeEnd.WE_READ),
    Redirect(5, PipeEnd.WE_READ),
]


def test_a_set_watches_our_ends_and_the_end_of_the_child() -> None:
    with select.epoll() as epoll:
        call = binding.SpawnCall(len(THREE), epoll.fileno())
        binding.spawn(sh("read x", redirects=THREE), call)
        stdin, _, stdout, five = call.ours
        wanted = {stdin: 0, stdout: select.EPOLLIN, five: select.EPOLLIN}
        if call.pidfd >= 0:
            wanted[call.pidfd] = select.EPOLLIN
        assert watched_by_kernel(epoll.fileno()) == wanted
        assert epoll.poll(0) == []
        binding.drop(epoll.fileno(), stdin)
        binding.wait_exit(call.pid)
        assert epoll.poll(30)
        for fd in (stdout, five):
            binding.drop(epoll.fileno(), fd)
        end(call)
        assert watched_by_kernel(epoll.fileno()) == {}


def test_without_a_set_nothing_is_watched_and_none_is_needed() -> None:
    call = binding.SpawnCall(0)
    assert call.epoll_fd == -1
    binding.spawn(SpawnSpec([b"/bin/true"], [b"true"], []), call)
    assert end(call).ok


def test_a_set_that_is_none_is_refused_at_its_own_stage() -> None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    for epoll_fd, number in ((read_end, errno.EINVAL), (1 << 20, errno.EBADF)):
        call = binding.SpawnCall(1, epoll_fd)
        with pytest.raises(SpawnError) as caught:
            binding.spawn(sh("exec sleep 600"), call)
        assert (caught.value.stage, caught.value.errno) == ("watch", number)
        assert (call.pid, call.pidfd, call.ours) == (-1, -1, [-1])
    os.close(read_end)
    os.close(write_end)


def test_a_set_that_is_full_says_which_limit_it_is() -> None:
    call = binding.SpawnCall(1)
    call._result.stage, call._result.error, call._result.index = lib.PR_STAGE_WATCH, errno.ENOSPC, 0
    error = call.error(sh("exit"))
    assert error is not None
    assert (error.errno, error.stage) == (errno.ENOSPC, "watch")
    assert "fs.epoll.max_user_watches" in error.hint


def test_a_drop_takes_out_and_closes_and_asks_for_neither() -> None:
    with select.epoll() as epoll:
        watched, unwatched = os.pipe2(os.O_CLOEXEC)
        copy = os.dup(watched)
        epoll.register(watched, select.EPOLLIN)
        for fd in (watched, unwatched):
            binding.drop(epoll.fileno(), fd)
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                os.fstat(fd)
        assert watched_by_kernel(epoll.fileno()) == {}
        binding.drop(-1, copy)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(copy)


# --- what is packed once ------------------------------------------------------------------------


def test_a_list_that_changes_between_two_spawns_is_read_anew() -> None:
    env, redirects = [b"A=1"], [Redirect(1, PipeEnd.WE_READ)]
    spec = SpawnSpec([b"/bin/sh"], [b"sh", b"-c", b'echo "$A"; echo three >&3'], env, redirects)
    assert run(spec)[0] == b"1\n"
    env[0] = b"A=2"
    redirects.append(Redirect(3, PipeEnd.WE_READ))
    call = binding.SpawnCall(2)
    binding.spawn(spec, call)
    assert end(call).ok
    assert [os.read(fd, 100) for fd in call.ours] == [b"2\n", b"three\n"]
    for fd in call.ours:
        os.close(fd)


def test_tuples_that_alternate_each_reach_their_child() -> None:
    envs = [(b"A=%d" % number,) for number in range(3)]
    for number in (0, 0, 1, 0, 2, 2, 1):
        redirects = (Redirect(1, PipeEnd.WE_READ), *[Redirect(2, 2)] * (number % 2))
        spec = SpawnSpec([b"/usr/bin/env"], [b"env"], envs[number], redirects)
        assert run(spec)[0] == b"A=%d\n" % number


@pytest.mark.needs("threads")
def test_threads_that_spawn_at_once_each_give_their_own_environment() -> None:
    wrong: list[bytes] = []

    def spawn_some(number: int) -> None:
        env = (b"A=%d" % number,)
        for _ in range(10):
            output, _ = run(SpawnSpec([b"/usr/bin/env"], [b"env"], env, tuple(STDOUT)))
            if output != b"A=%d\n" % number:
                wrong.append(output)

    threads = [threading.Thread(target=spawn_some, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- the rest -----------------------------------------------------------------------------------


def test_a_pty_is_a_terminal_with_the_given_size() -> None:
    master, slave = binding.open_pty(30, 90)
    assert os.isatty(slave)
    assert tuple(os.get_terminal_size(slave)) == (90, 30)
    os.close(master)
    os.close(slave)


def test_a_timer_is_readable_from_its_deadline_on() -> None:
    fd = binding.open_timer()
    assert not select.select([fd], [], [], 0)[0]
    deadline_ns = time.monotonic_ns() + 10_000_000
    binding.set_timer(fd, deadline_ns)
    assert select.select([fd], [], [], 30)[0]
    assert time.monotonic_ns() >= deadline_ns
    binding.set_timer(fd, 0)
    assert not select.select([fd], [], [], 0)[0]
    os.close(fd)


def test_setting_what_is_no_timer_is_refused() -> None:
    read_end, write_end = os.pipe()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        binding.set_timer(read_end, 1)
    os.close(read_end)
    os.close(write_end)


def test_reserving_again_opens_nothing() -> None:
    before = os.listdir(f"{PROC}/self/fd")
    binding.reserve()
    assert os.listdir(f"{PROC}/self/fd") == before


def test_features_have_names_and_unknown_ones_are_refused() -> None:
    assert binding.feature_names(0) == frozenset()
    everything = binding.feature_names(0xFFFF)
    assert everything == {"clone3", "pidfd", "unshare", "close_range", "vfork", "helper"}
    assert binding.features() <= everything
    with pytest.raises(ValueError, match="unknown feature 'teleport'; known are clone3"):
        binding.disable(["clone3", "teleport"])
    binding.disable([])


def test_the_mode_names_the_features_of_one_spawn() -> None:
    call = binding.SpawnCall(0)
    binding.spawn(SpawnSpec([b"/bin/true"], [b"true"], []), call)
    assert call.mode <= binding.features()
    end(call)


def test_every_stage_has_words_of_its_own() -> None:
    texts = [binding.stage_text(stage) for stage in range(lib.PR_STAGE_COUNT)]
    assert len(set(texts)) == len(texts)
    assert "unknown stage" not in texts
    assert binding.stage_text(-1) == binding.stage_text(lib.PR_STAGE_COUNT) == "unknown stage"
