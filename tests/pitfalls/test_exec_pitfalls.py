"""What exec does to those who spawn: each pitfall that was met elsewhere, as a test.

An exec that fails must be told with the right errno, the right file and the right step, from a
child that is gone by then; and which file is meant is a question of its own. The pitfalls are
numbered C.1 to C.6; each test says which is its own. All of them apply, with two notes:

    part             because
    C.1, EISDIR      exec of a directory is EACCES on Linux, which is what is tested
    C.2, libc rule   where libc and os.execvpe differ, ours is csrc/become.h: the first error that
                     says more than "not there" is told, and a broken file ends the search

Children that run as another user, or on a terminal, or by fork, are made with `ways.spawn_on`.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from alone import alone
from held import held_copy
from leftovers import child_pids, open_fds
from seccomp import deny
from support import Recorder, make_reactor, run_until, spawn_and_finish
from ways import NOBODY, finish_on, on_every_way, on_way, spawn_on

from procreactor.errors import SpawnError

Build = Callable[[str], str]

Refusal = Mapping[str, Any]
"""What a SpawnError says, as JSON."""


def refusal(reactor: Any, way: str, executable: str, args: list[str], **kwargs: Any) -> Refusal:
    """Return what is said of a start that fails, of which nothing is left."""
    protocol = Recorder()
    fds, pids = open_fds(), child_pids()
    with pytest.raises(SpawnError) as caught:
        spawn_on(way, reactor, protocol, executable, args, **kwargs)
    assert open_fds() == fds
    assert child_pids() == pids
    reactor.iterate(0)
    assert protocol.calls == []
    error = caught.value
    kinds = [kind.__name__ for kind in type(error).__mro__[1:] if issubclass(kind, OSError)]
    return {
        "errno": errno.errorcode[error.errno or 0],
        "stage": error.stage,
        "filename": error.filename,
        "kinds": [kind for kind in kinds if kind not in ("SpawnError", "OSError")],
        "hint": error.hint,
    }


def executable_file(path: Path, content: bytes | str) -> str:
    """Return the name of a new file that everyone may execute."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o755)
    return str(path)


# --- C.1: what cannot be run ---------------------------------------------------------------------


def _without_loader(at: Path) -> str:
    """A dynamic program, whose loader is not there."""
    content = Path("/bin/true").read_bytes()
    start = content.index(b"/ld-") + 4
    return executable_file(at, content[:start] + b"?" + content[start + 1 :])


def _loop(at: Path) -> str:
    at.symlink_to(at)
    return str(at)


def _too_many_interpreters(at: Path) -> str:
    return executable_file(at, f"#!{at}\n")


def _interpreted_by(interpreter: str) -> Callable[[Path], str]:
    return lambda at: executable_file(at, f"#!{interpreter}\n")


def _not_executable(at: Path) -> str:
    at.write_text("#!/bin/sh\n")
    return str(at)


def _folder(at: Path) -> str:
    at.mkdir()
    return str(at)


def _below_a_file(at: Path) -> str:
    at.write_text("")
    return str(at / "program")


def _containing(content: bytes) -> Callable[[Path], str]:
    return lambda at: executable_file(at, content)


def _true(at: Path) -> str:
    return "/bin/true"


LONG_BYTES = 128 * 1024
"""MAX_ARG_STRLEN of linux/binfmts.h: one string, its NUL included, may have so many."""

CASES: Mapping[str, tuple[str, Callable[[Path], str], str]] = {
    "missing": ("ENOENT", str, ""),
    "in a missing directory": ("ENOENT", lambda at: str(at / "program"), ""),
    "not executable": ("EACCES", _not_executable, ""),
    "a directory": ("EACCES", _folder, ""),
    "below a file": ("ENOTDIR", _below_a_file, ""),
    "a loop of links": ("ELOOP", _loop, ""),
    "a name of 256 bytes": ("ENAMETOOLONG", lambda at: str(at.with_name("x" * 256)), ""),
    "a path of 4096 bytes": ("ENAMETOOLONG", lambda at: str(at) + "/." * 2048, ""),
    "text": ("ENOEXEC", _containing(b"no shebang\n"), "no #! line"),
    "empty": ("ENOEXEC", _containing(b""), "no #! line"),
    "half a program": ("ENOEXEC", _containing(b"\x7fELF\x02\x01\x01"), "no #! line"),
    "a missing interpreter": ("ENOENT", _interpreted_by("/no/such/sh"), "interpreter"),
    "a directory as interpreter": ("EACCES", _interpreted_by("/"), ""),
    "text as interpreter": ("EACCES", _interpreted_by("/etc/passwd"), ""),
    "its own interpreter": ("ELOOP", _too_many_interpreters, ""),
    "a missing loader": ("ENOENT", _without_loader, "loader"),
    "one argument too long": ("E2BIG", _true, "too long"),
    "all arguments too long": ("E2BIG", _true, "too long"),
    "one variable too long": ("E2BIG", _true, "too long"),
}


def _arguments(case: str) -> tuple[list[str], dict[str, str]]:
    if case == "one argument too long":
        return ["x" * LONG_BYTES], {}
    if case == "all arguments too long":
        return ["x" * (LONG_BYTES - 1)] * 64, {}  # 8 MiB; the kernel takes a quarter of the stack
    if case == "one variable too long":
        return [], {"x": "x" * LONG_BYTES}
    return [], {}


def all_refusals(way: str, public: str) -> dict[str, Refusal]:
    """What is said, case by case, on one way; and a child that runs all the same, after each."""
    found: dict[str, Refusal] = {}
    with make_reactor() as reactor:
        for number, (case, (_, prepare, _)) in enumerate(CASES.items()):
            name = prepare(Path(public, f"case-{number}"))
            more, env = _arguments(case)
            said = refusal(reactor, way, name, [name, *more], env=env)
            found[case] = {**said, "filename": said["filename"] == name or said["filename"]}
            assert finish_on(way, reactor, "/bin/true").reason.value.exitCode == 0
    return found


KINDS = {
    "ENOENT": ["FileNotFoundError"],
    "EACCES": ["PermissionError"],
    "ENOTDIR": ["NotADirectoryError"],
}


@on_every_way()
def test_what_cannot_be_run_is_told_with_its_errno_its_name_and_the_step(
    way: str, public_path: Path
) -> None:
    """C.1."""
    found = on_way(way, all_refusals, str(public_path))
    hints = {case: said.pop("hint") for case, said in found.items()}
    expected = {
        case: {"errno": code, "stage": "exec", "filename": True, "kinds": KINDS.get(code, [])}
        for case, (code, _, _) in CASES.items()
    }
    assert found == expected
    for case, (_, _, words) in CASES.items():
        assert words in hints[case], f"{case}: {hints[case]}"
        assert bool(words) == bool(hints[case]), f"{case}: {hints[case]}"


def refusal_of_a_busy_file(way: str, end: str, public: str) -> Refusal:
    path = Path(public, "busy")
    shutil.copy(end, path)
    with make_reactor() as reactor, open(path, "ab"):
        said = refusal(reactor, way, str(path), [])
    with make_reactor() as reactor:
        assert finish_on(way, reactor, path, [path, "exit", "3"]).reason.value.exitCode == 3
    return said


@on_every_way("plain", "own fd table", "fork", "launcher", "fork to another user", "terminal")
def test_a_file_that_is_being_written_is_told_to_be_busy(
    way: str, program: Build, public_path: Path
) -> None:
    """C.1, C.4: after the short wait for those who are about to close it."""
    said = on_way(way, refusal_of_a_busy_file, program("end"), str(public_path))
    assert (said["errno"], said["stage"]) == ("ETXTBSY", "exec")
    assert said["filename"] == str(public_path / "busy")
    assert "open for writing" in said["hint"]


def refusal_of_the_kernel(way: str, code: int) -> Refusal:
    deny("execve", code)
    with make_reactor() as reactor:
        return refusal(reactor, way, "/bin/true", [])


@on_every_way("plain", "fork", "launcher", "fork to another user", "terminal")
@pytest.mark.parametrize("code", ["ENOMEM", "EIO", "EPERM", "EISDIR", "EMFILE", "ENFILE", "EINVAL"])
def test_whatever_the_kernel_says_of_an_exec_is_told_as_it_is(way: str, code: str) -> None:
    """C.1: errors that no file provokes; also when not even the launcher may be run."""
    said = on_way(way, refusal_of_the_kernel, getattr(errno, code))
    assert (said["errno"], said["stage"], said["filename"]) == (code, "exec", "/bin/true")


def refusal_in_a_private_directory(way: str, end: str, public: str) -> Refusal:
    private = Path(public, "private")
    private.mkdir(0o700)
    name = str(private / "end")
    shutil.copy(end, name)
    with make_reactor() as reactor:
        return refusal(reactor, way, name, [])


@on_every_way("launcher", "fork to another user")
def test_a_program_that_the_new_user_may_not_reach_is_refused_as_to_that_user(
    way: str, program: Build, public_path: Path
) -> None:
    """C.1."""
    said = on_way(way, refusal_in_a_private_directory, program("end"), str(public_path))
    assert (said["errno"], said["stage"]) == ("EACCES", "exec")
    assert said["filename"] == str(public_path / "private" / "end")


# --- C.2: which file is meant --------------------------------------------------------------------


class Folders:
    """Directories for PATH, in one that any user may enter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for number, name in enumerate(("one", "two"), 1):
            executable_file(self._made(name) / "tool", f"#!/bin/sh\nexit {number}\n")
        executable_file(self._made("here") / "tool", "#!/bin/sh\nexit 3\n")
        executable_file(self._made("here/bin") / "tool", "#!/bin/sh\nexit 4\n")
        _not_executable(self._made("closed") / "tool")
        _not_executable(self._made("closed too") / "tool")
        executable_file(self._made("broken") / "tool", "neither script nor program\n")
        self._made("empty")
        (root / "file").write_text("")
        (root / "loop").symlink_to(root / "loop")

    def _made(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        return path

    def path(self, *names: str) -> str:
        """Return a PATH of the named directories; a name with ``=`` before it is literal."""
        return ":".join(
            name[1:] if name.startswith("=") else str(self.root / name) for name in names
        )


FOUND: Mapping[str, tuple[tuple[str, ...], int]] = {
    "the first of two": (("one", "two"), 1),
    "the second, when the first has none": (("empty", "two"), 2),
    "after a missing directory": (("missing", "one"), 1),
    "after a file": (("file", "one"), 1),
    "after a loop of links": (("loop", "one"), 1),
    "after a name that is too long": (("x" * 256, "one"), 1),
    "after one that may not be run": (("closed", "two"), 2),
    "an empty element is the child's directory": (("=", "one"), 3),
    "an empty element at the end": (("empty", "="), 3),
    "a dot": (("=.", "one"), 3),
    "a relative element starts at the child's directory": (("=bin", "one"), 4),
    "a slash at the end": (("=" + "/nowhere/", "=bin///", "one"), 4),
}

NOT_FOUND: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "nowhere": (("empty", "missing"), "ENOENT", "tool"),
    "one directory only": (("empty",), "ENOENT", "tool"),
    "below files only": (("file", "file"), "ENOTDIR", "tool"),
    "nowhere, for all that is not to be entered": (("file", "loop", "empty"), "ELOOP", "loop/tool"),
    "not to be run": (("empty", "closed", "missing"), "EACCES", "closed/tool"),
    "the first that may not be run is named": (("closed", "closed too"), "EACCES", "closed/tool"),
    "one that is broken ends the search": (("closed", "broken", "one"), "ENOEXEC", "broken/tool"),
}


def all_searches(way: str, public: str) -> dict[str, Any]:
    folders = Folders(Path(public))
    here = str(folders.root / "here")
    found: dict[str, Any] = {}
    with make_reactor() as reactor:
        for case, (names, _) in FOUND.items():
            env = {"PATH": folders.path(*names)}
            child = finish_on(way, reactor, "tool", ["tool"], env=env, path=here)
            found[case] = child.reason.value.exitCode
        for case, (names, _, _) in NOT_FOUND.items():
            env = {"PATH": folders.path(*names)}
            said = refusal(reactor, way, "tool", [], env=env, path=here)
            found[case] = [said["errno"], said["filename"].removeprefix(f"{public}/")]
    return found


@on_every_way("plain", "fork", "launcher", "fork to another user", "terminal")
def test_a_bare_name_is_searched_in_the_path_of_the_child(way: str, public_path: Path) -> None:
    """C.2."""
    found = on_way(way, all_searches, str(public_path))
    for case, (_, exit_code) in FOUND.items():
        assert found.pop(case) == exit_code, case
    for case, (_, code, name) in NOT_FOUND.items():
        assert found.pop(case) == [code, name], case
    assert not found


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def code_of_tool(name: str = "tool", **kwargs: Any) -> int:
    with make_reactor() as reactor:
        return int(spawn_and_finish(reactor, name, [name], **kwargs).reason.value.exitCode)


def test_a_path_in_the_childs_environment_wins_over_that_of_the_parent(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C.2."""
    monkeypatch.setenv("PATH", folders.path("one"))
    assert code_of_tool(env={"PATH": folders.path("two")}) == 2
    assert code_of_tool(env=None) == 1


@pytest.mark.parametrize("env", [{}, {"OTHER": "x"}])
def test_without_a_path_in_the_childs_environment_that_of_the_parent_serves(
    env: dict[str, str], folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C.2."""
    monkeypatch.setenv("PATH", folders.path("empty", "two"))
    assert code_of_tool(env=env) == 2


def test_without_any_path_the_default_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """C.2."""
    monkeypatch.delenv("PATH")
    assert code_of_tool("true", env={}) == 0
    assert code_of_tool("true", env=None) == 0


def test_an_empty_path_is_the_childs_directory(folders: Folders) -> None:
    """C.2."""
    assert code_of_tool(env={"PATH": ""}, path=folders.root / "here") == 3


def test_a_name_with_a_slash_is_not_searched_but_starts_at_the_childs_directory(
    folders: Folders,
) -> None:
    """C.2."""
    here = folders.root / "here"
    env = {"PATH": folders.path("one")}
    assert code_of_tool("./tool", env=env, path=here) == 3
    assert code_of_tool("bin/tool", env=env, path=here) == 4
    with make_reactor() as reactor:
        said = refusal(reactor, "plain", "no/tool", [], env=env, path=here)
    assert (said["errno"], said["filename"]) == ("ENOENT", "no/tool")


def test_a_file_in_path_does_not_hide_that_the_program_is_missing(folders: Folders) -> None:
    """C.2: who catches FileNotFoundError would miss it; libc and os.execvpe say ENOENT."""
    env = {"PATH": folders.path("file", "empty")}
    with make_reactor() as reactor:
        said = refusal(reactor, "plain", "tool", [], env=env)
    assert (said["errno"], said["filename"]) == ("ENOENT", "tool")


def test_what_is_in_no_directory_of_path_is_named_as_it_was_given(folders: Folders) -> None:
    """C.2."""
    env = {"PATH": folders.path("empty", "missing")}
    with make_reactor() as reactor:
        said = refusal(reactor, "plain", "tool", [], env=env)
    assert said["filename"] == "tool"
    assert "PATH" in said["hint"]


# --- C.3: arguments and environment --------------------------------------------------------------


def words_of(recorder: Any) -> tuple[list[bytes], list[bytes]]:
    """Return the arguments and the environment that the program words was given."""
    count, *words = recorder.out.replace(b"\r", b"").split(b"\0")[:-1]
    return words[: int(count)], words[int(count) :]


@pytest.mark.parametrize("args", [(), []])
def test_without_arguments_a_program_is_given_its_own_name(args: Any, program: Build) -> None:
    """C.3: the kernel would run it with none at all, and programs are not made for that."""
    words = program("words")
    with make_reactor() as reactor:
        given, env = words_of(spawn_and_finish(reactor, words, args))
    assert (given, env) == ([os.fsencode(words)], [])


def words_of_all_kinds(way: str, words: str) -> list[list[str]]:
    args = ["another name", "", "ä", os.fsdecode(b"\xff\xfe"), b"\xff raw", " a b ", "-"]
    env = {"ä": "ü", b"raw": b"\xff=\xfe", "empty": "", os.fsdecode(b"\xff"): "x=y"}
    with make_reactor() as reactor:
        given = words_of(finish_on(way, reactor, words, args, env=env))
    return [[os.fsdecode(word) for word in group] for group in given]


@on_every_way()
def test_arguments_and_environment_arrive_byte_for_byte(way: str, program: Build) -> None:
    """C.3: with another argv[0], empty ones, and bytes that are no UTF-8."""
    args, env = on_way(way, words_of_all_kinds, program("words"))
    assert args == ["another name", "", "ä", "\udcff\udcfe", "\udcff raw", " a b ", "-"]
    assert env == ["ä=ü", "raw=\udcff=\udcfe", "empty=", "\udcff=x=y"]


@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        ("executable", {"executable": "/bin/tr\0ue"}),
        ("executable", {"executable": b"/bin/tr\0ue"}),
        ("args[1]", {"args": ["true", "\0"]}),
        ("args[0]", {"args": [""]}),
        ("args[1]", {"args": ["true", "\ud800"]}),
        ("env['x']", {"env": {"x": "\0"}}),
        ("env", {"env": {"x\0": "y"}}),
        ("env", {"env": {"x=y": "z"}}),
        ("env", {"env": {"": "z"}}),
        ("path", {"path": "/\0"}),
    ],
)
def test_strings_that_the_kernel_would_cut_or_confuse_are_refused_before_it_sees_them(
    argument: str, bad: dict[str, Any]
) -> None:
    """C.3: a NUL ends a string, a `=` ends a name."""
    protocol = Recorder()
    with make_reactor() as reactor, pytest.raises(ValueError) as caught:
        reactor.spawnProcess(protocol, **{"executable": "/bin/true", **bad})
    assert argument in str(caught.value)
    assert protocol.calls == []


# --- C.4: text file busy -------------------------------------------------------------------------

WRITERS, ROUNDS = 4, 40


def busy_in_a_storm(way: str, end: str, public: str, high: bool) -> int:
    """Write and run programs in threads; return how often one was busy, and none was worse."""
    content = Path(end).read_bytes()
    fillers: list[int] = []
    while high and (not fillers or fillers[-1] < 128):  # to above the cut of csrc/slots.c
        fillers.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    busy: list[str] = []
    failures: list[str] = []

    def write_and_run(writer: int) -> None:
        try:
            with make_reactor() as reactor:
                for number in range(ROUNDS):
                    name = executable_file(Path(public, f"{writer}-{number}"), content)
                    try:
                        done = finish_on(way, reactor, name, [name, "exit", "3"])
                    except SpawnError as error:
                        if error.errno != errno.ETXTBSY:
                            raise
                        busy.append(name)
                    else:
                        assert done.reason.value.exitCode == 3
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=write_and_run, args=[index]) for index in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for fd in fillers:
        os.close(fd)
    assert failures == []
    return len(busy)


@pytest.mark.needs("unshare")
def test_threads_that_write_programs_and_run_them_do_not_make_them_busy(
    program: Build, public_path: Path
) -> None:
    """C.4: no child of ours ever holds a copy of an fd that is above the cut."""
    args = (program("end"), str(public_path), True)
    assert on_way("plain", busy_in_a_storm, *args) == 0


@on_every_way("own fd table", "fork", "launcher")
def test_a_program_is_waited_for_a_moment_and_then_told_to_be_busy(
    way: str, program: Build, public_path: Path
) -> None:
    """C.4: children that hold copies for a moment; what is refused is so with ETXTBSY."""
    busy = on_way(way, busy_in_a_storm, program("end"), str(public_path), False)
    assert busy < WRITERS * ROUNDS


# --- C.5: an exec that hangs ---------------------------------------------------------------------


def live_beside_a_hung_exec(way: str, end: str, public: str) -> list[int]:
    """While one thread's exec hangs, spawn and run a loop in another; return the exit codes."""
    hung, codes = Recorder(), []
    with (
        make_reactor() as stuck,
        make_reactor() as reactor,
        held_copy(end, Path(public, "held")) as held,
    ):
        args = [held.path, "exit", "7"]
        thread = threading.Thread(target=lambda: spawn_on(way, stuck, hung, held.path, args))
        thread.start()
        held.wait_until_reached()
        for number in range(3):
            done = finish_on(way, reactor, end, [end, "exit", str(number)])
            codes.append(done.reason.value.exitCode)
        assert thread.is_alive()
        assert held.is_reached()
        held.release()
        thread.join()
        run_until(stuck, lambda: hung.ended)
    return [*codes, hung.reason.value.exitCode]


@on_every_way("plain", "legacy clone", "fork", "launcher", "fork to another user", "terminal")
def test_an_exec_that_hangs_holds_up_its_own_thread_only(
    way: str, program: Build, public_path: Path
) -> None:
    """C.5: other threads run Python, their loops turn, and their spawns succeed."""
    codes = on_way(way, live_beside_a_hung_exec, program("end"), str(public_path))
    assert codes == [0, 1, 2, 7]


# --- C.6: the directory --------------------------------------------------------------------------


def all_directories(way: str, public: str) -> dict[str, list[str]]:
    folders = Folders(Path(public))
    found = {}
    with make_reactor() as reactor:
        for name in ("missing", "file", "loop", "x" * 256):
            said = refusal(reactor, way, "true", [], path=str(folders.root / name))
            found[name[:7]] = [said["errno"], said["stage"], Path(said["filename"]).name[:7]]
    return found


@on_every_way()
def test_a_directory_that_cannot_be_entered_is_named_and_not_the_program(
    way: str, public_path: Path
) -> None:
    """C.6."""
    assert on_way(way, all_directories, str(public_path)) == {
        "missing": ["ENOENT", "chdir", "missing"],
        "file": ["ENOTDIR", "chdir", "file"],
        "loop": ["ELOOP", "chdir", "loop"],
        "x" * 7: ["ENAMETOOLONG", "chdir", "x" * 7],
    }


def refusal_of_a_directory_to_a_user(public: str) -> list[str]:
    private = Path(public, "private")
    private.mkdir(0o700)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    with make_reactor() as reactor:
        said = refusal(reactor, "plain", "/bin/true", [], path=private)
    return [said["errno"], said["stage"], *said["kinds"], said["filename"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_directory_that_may_not_be_entered_is_named(public_path: Path) -> None:
    """C.6."""
    said = alone(refusal_of_a_directory_to_a_user, str(public_path))
    assert said == ["EACCES", "chdir", "PermissionError", str(public_path / "private")]
