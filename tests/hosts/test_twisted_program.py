"""Whole Twisted programs on our reactor: the installation, the starter, the plug-in, no Twisted.

All of it is about what a process has loaded and installed, once and for good. So each test starts
programs of its own in fresh interpreters, and looks at what they say, at their exit status, and at
the files that they leave. A program says what it saw as one line of JSON.

What the starter promises is that a program finds everything as it would without: what Python itself
does is asked, not known, and the two are compared.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import shutil
import signal
import subprocess
import textwrap
import time
import venv
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import pytest
from support import DEADLINE_S, PYTHON

import procreactor

PACKAGE = Path(procreactor.__file__).parent
SCRIPTS = Path(PYTHON).parent
STARTER = "procreactor.hosts.twisted"
LONG_S = 100
"""How long a program may take that loads and runs a good part of Twisted."""

NEEDS_TWISTED = "procreactor.hosts.twisted needs Twisted: pip install 'procreactor[twisted]'"

Write = Callable[[str, str], Path]
Started = subprocess.CompletedProcess[str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of the given name and text, and return its path."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write_file


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of this process, without what moves sys.path, and with *changes*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, **changes}


def run(*command: str, cwd: Path, python: str = PYTHON, **changes: str) -> Started:
    """Run Python with the arguments *command* to its end; *changes* are to the environment."""
    return subprocess.run(
        [python, *command],
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )


def started(*command: str, cwd: Path, python: str = PYTHON, **changes: str) -> Started:
    """Run a program by the starter."""
    return run("-m", STARTER, *command, cwd=cwd, python=python, **changes)


def told(process: Started) -> Any:
    """Return what a program that ended well said in the last line of its output."""
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


# --- install ------------------------------------------------------------------------------------

INSTALLED = """
    import json
    from procreactor.hosts import twisted
    installed = twisted.install()
    from twisted.internet import reactor
    kind = type(reactor)
    print(json.dumps([reactor is installed, kind is twisted.ProcreactorReactor, kind.__name__]))
    """


def test_install_makes_twisteds_reactor_ours(write: Write, tmp_path: Path) -> None:
    program = write("program.py", INSTALLED)
    assert told(run(str(program), cwd=tmp_path)) == [True, True, "ProcreactorReactor"]


INSTALLED_TOO_LATE = """
    import json
    import os
    import sys
    from procreactor.hosts import twisted
    from twisted.internet.error import ReactorAlreadyInstalledError
    if sys.argv[1] == "ours":
        twisted.install()
    from twisted.internet import reactor
    PROC = os.environ.get("PROCREACTOR_TESTS_PROC", "/proc")
    fds = os.listdir(PROC + "/self/fd")
    try:
        twisted.install()
    except ReactorAlreadyInstalledError as error:
        left = set(os.listdir(PROC + "/self/fd")) - set(fds)
        from twisted.internet import reactor as still
        print(json.dumps([still is reactor, type(still).__name__, str(error), list(left)]))
    """


@pytest.mark.parametrize(("first", "stays"), [("ours", "ProcreactorReactor"), ("stock", "EPoll")])
def test_an_install_that_comes_too_late_raises_what_twisted_raises(
    write: Write, tmp_path: Path, first: str, stays: str
) -> None:
    program = write("program.py", INSTALLED_TOO_LATE)
    is_same, kind, message, fds_left = told(run(str(program), first, cwd=tmp_path))
    assert is_same
    assert kind.startswith(stays)
    assert message == "reactor already installed"
    assert fds_left == []


# --- what a program finds -----------------------------------------------------------------------

SHOW = """\
import json
import sys

import beside

def annotated(value: int):
    assert False, "not called"

print(json.dumps({
    "argv": sys.argv,
    "path": sys.path,
    "name": __name__,
    "file": __file__,
    "package": __package__ or None,
    "module": __spec__ and __spec__.name,
    "is main": vars(sys.modules["__main__"]) is globals(),
    "beside": beside.__file__,
    "annotation": str(annotated.__annotations__["value"]),
}))
"""

SHOW_AT_EXIT = """\
import atexit
import json
import sys

def show():
    main = sys.modules["__main__"]
    print(json.dumps([sys.argv, main.__name__, vars(main) is globals()]))

atexit.register(show)
"""


def as_python_does(*command: str, cwd: Path, options: tuple[str, ...] = (), **env: str) -> Any:
    """Assert that a program sees by the starter what it sees by Python alone, and return that."""
    plain = told(run(*options, *command, cwd=cwd, **env))
    assert told(run(*options, "-m", STARTER, *command, cwd=cwd, **env)) == plain
    return plain


@pytest.fixture
def show(write: Write) -> Path:
    """A program that says what it finds: a file, ``below/show.py``, and a package, ``shown``."""
    for name in ("beside.py", "below/beside.py", "shown/beside.py"):
        write(name, "")
    write("shown/__init__.py", "")
    write("shown/__main__.py", SHOW)
    write("show.py", SHOW)
    write("below/at_exit.py", SHOW_AT_EXIT)
    return write("below/show.py", SHOW)


def test_a_file_finds_what_python_gives_it(show: Path, tmp_path: Path) -> None:
    seen = as_python_does("below/show.py", "a", "-m", "--help", "", cwd=tmp_path)
    assert seen["argv"] == ["below/show.py", "a", "-m", "--help", ""]
    assert seen["name"] == "__main__"
    assert seen["is main"]
    assert seen["beside"] == str(show.with_name("beside.py"))


def test_a_file_by_its_whole_path_finds_what_python_gives_it(show: Path, tmp_path: Path) -> None:
    assert as_python_does(str(show), cwd=Path("/"))["argv"] == [str(show)]


def test_a_file_in_the_working_directory_finds_what_python_gives_it(
    show: Path, tmp_path: Path
) -> None:
    assert as_python_does("show.py", cwd=tmp_path)["argv"] == ["show.py"]


def test_a_file_by_a_link_finds_what_lies_beside_the_file(show: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(show)
    seen = as_python_does("./link", cwd=tmp_path)
    assert seen["beside"] == str(show.with_name("beside.py"))


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_file_is_given_no_directory_where_python_is_told_to_give_none(
    show: Path, tmp_path: Path, way: str
) -> None:
    """What lies at the head of sys.path is then something else, and stays."""
    elsewhere = str(show.parent)
    options = ("-P",) if way == "option" else ()
    env = {"PYTHONSAFEPATH": "1"} if way == "environment" else {}
    seen = as_python_does("show.py", cwd=tmp_path, options=options, PYTHONPATH=elsewhere, **env)
    assert seen["path"][0] == elsewhere


@pytest.mark.parametrize("module", ["show", "below.show", "shown"])
def test_a_module_finds_what_python_gives_it(show: Path, tmp_path: Path, module: str) -> None:
    seen = as_python_does("-m", module, "a", "-m", "", cwd=tmp_path)
    assert seen["argv"][1:] == ["a", "-m", ""]
    assert os.path.isabs(seen["argv"][0])
    assert seen["name"] == "__main__"
    assert seen["module"].startswith(module)


@pytest.mark.parametrize("command", [["-m", "below.at_exit", "a"], ["below/at_exit.py", "a"]])
def test_what_a_program_finds_is_there_until_the_process_ends(
    show: Path, tmp_path: Path, command: list[str]
) -> None:
    """Threads and atexit's functions go on when the program's last line has run."""
    seen = as_python_does(*command, cwd=tmp_path)
    assert seen[0][0].endswith("at_exit.py")
    assert seen[2]


# --- how a program ends ---------------------------------------------------------------------------

ENDINGS = """
    import signal
    import sys
    from twisted.internet import reactor

    def fail():
        raise RuntimeError("it went wrong")

    def interrupt(when_running):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in a job of a shell: ignored
        if when_running:
            reactor.callWhenRunning(signal.raise_signal, signal.SIGINT)
            reactor.run()
            assert reactor._exitSignal == signal.SIGINT
        else:
            signal.raise_signal(signal.SIGINT)

    {
        "falls off its end": lambda: None,
        "exits with a number": lambda: sys.exit(3),
        "exits with a message": lambda: sys.exit("nothing to do"),
        "exits with nothing": lambda: sys.exit(),
        "raises": fail,
        "is interrupted": lambda: interrupt(False),
        "is interrupted while the reactor runs": lambda: interrupt(True),
    }[sys.argv[1]]()
    """


@pytest.mark.parametrize("as_module", [False, True])
@pytest.mark.parametrize(
    ("how", "status", "last_line"),
    [
        ("falls off its end", 0, ""),
        ("exits with a number", 3, ""),
        ("exits with a message", 1, "nothing to do"),
        ("exits with nothing", 0, ""),
        ("raises", 1, "RuntimeError: it went wrong"),
        ("is interrupted", -signal.SIGINT, "KeyboardInterrupt"),
        ("is interrupted while the reactor runs", 0, ""),
    ],
)
def test_the_starter_ends_as_the_program_does(
    write: Write, tmp_path: Path, how: str, status: int, last_line: str, as_module: bool
) -> None:
    write("endings.py", ENDINGS)
    command = ["-m", "endings"] if as_module else ["endings.py"]
    for ended in (run(*command, how, cwd=tmp_path), started(*command, how, cwd=tmp_path)):
        assert ended.returncode == status, ended.stderr
        assert ended.stdout == ""
        assert (ended.stderr.splitlines() or [""])[-1] == last_line
    if how == "raises":
        assert re.search(r'endings\.py", line \d+, in fail\n', ended.stderr)


# --- what the starter is asked for ----------------------------------------------------------------

USAGE = """\
usage: python -m procreactor.hosts.twisted PROGRAM [ARG ...]
       python -m procreactor.hosts.twisted -m MODULE [ARG ...]
       python -m procreactor.hosts.twisted --plugin-path
"""


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_output(tmp_path: Path, option: str) -> None:
    asked = started(option, cwd=tmp_path)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith(USAGE)


def test_no_argument_is_a_mistake_and_gets_the_usage(tmp_path: Path) -> None:
    asked = started(cwd=tmp_path)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith(USAGE)


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    asked = started("--reactor=epoll", "trial", cwd=tmp_path)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr.startswith("unknown option --reactor=epoll\n" + USAGE)


def test_an_option_without_its_module_is_a_mistake(tmp_path: Path) -> None:
    asked = started("-m", cwd=tmp_path)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == "-m needs the name of a module\n"


def test_an_unknown_module_is_named(tmp_path: Path) -> None:
    asked = started("-m", "no_such_module", cwd=tmp_path)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr.splitlines()[-1].endswith("No module named no_such_module")


@pytest.mark.parametrize("name", ["no-such-program", "./no-such-program", "folder", ""])
def test_an_unknown_program_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    asked = started(name, cwd=tmp_path)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == (
        f"{name!r} is no file here, and no program in PATH or beside {PYTHON}\n"
    )


@pytest.mark.parametrize("by_name", [False, True])
def test_a_binary_is_refused_by_its_path(tmp_path: Path, by_name: bool) -> None:
    path = shutil.which("true")
    assert path is not None
    asked = started("true" if by_name else path, cwd=tmp_path)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == f"{path!r} is no Python program\n"


# --- console scripts ------------------------------------------------------------------------------

CASES = """
    import json
    import os
    import signal

    from twisted.internet import defer, protocol, reactor
    from twisted.trial import unittest

    with open(f"loaded-{os.getpid()}", "w") as file:
        file.write(type(reactor).__name__)

    class Ended(protocol.ProcessProtocol):
        said = b""

        def __init__(self):
            self.end = defer.Deferred()

        def outReceived(self, data):
            self.said += data

        def processEnded(self, reason):
            self.end.callback((self.said, reason.value.exitCode))

    class SpawnTests(unittest.TestCase):
        def spawn(self):
            child = Ended()
            reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", "echo hello; exit 3"])
            return child.end.addCallback(self.assertEqual, (b"hello\\n", 3))

        def test_reactor(self):
            self.assertEqual(type(reactor).__name__, "ProcreactorReactor")
            self.assertEqual(signal.getsignal(signal.SIGCHLD), signal.SIG_DFL)
            return self.spawn()

        def test_parent(self):
            proc = os.environ.get("PROCREACTOR_TESTS_PROC", "/proc")
            with open(f"{proc}/{os.getppid()}/status") as file:
                [caught] = [line.split()[1] for line in file if line.startswith("SigCgt:")]
            self.assertFalse(int(caught, 16) & 1 << signal.SIGCHLD - 1)
            return self.spawn()
    """
"""Tests of one's own, for trial: each process that loads them says on which reactor it runs.

test_parent is for a worker of ``trial -j``: its parent has no handler for SIGCHLD.
"""

REACTOR_CASE = "cases.SpawnTests.test_reactor"
PARENT_CASE = "cases.SpawnTests.test_parent"


def assert_passed(process: Started, count: int) -> None:
    """Assert that *count* tests have run by trial, and passed."""
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"PASSED (successes={count})" in process.stdout


def test_trial_from_beside_the_interpreter_runs_on_our_reactor(
    write: Write, tmp_path: Path
) -> None:
    write("cases.py", CASES)
    assert (SCRIPTS / "trial").exists()
    env = {"PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    assert_passed(started("trial", REACTOR_CASE, cwd=tmp_path, **env), 1)


def test_a_script_from_path_runs_on_our_reactor(write: Write, tmp_path: Path) -> None:
    """One that is there under its own name alone: no file here, none beside the interpreter."""
    script = write(
        "bin/only-in-path",
        f"""\
        #!{PYTHON}
        import json
        import sys
        from twisted.internet import reactor
        print(json.dumps([type(reactor).__name__, sys.argv, sys.path[0]]))
        """,
    )
    script.chmod(0o755)
    path = f"{script.parent}:{os.environ['PATH']}"
    assert told(started("only-in-path", "-x", cwd=tmp_path, PATH=path)) == [
        "ProcreactorReactor",
        [str(script), "-x"],
        str(script.parent),
    ]


def test_trial_as_a_module_runs_on_our_reactor(write: Write, tmp_path: Path) -> None:
    write("cases.py", CASES)
    assert_passed(started("-m", "twisted.trial", REACTOR_CASE, cwd=tmp_path), 1)


def test_a_failed_test_is_trials_exit_status(write: Write, tmp_path: Path) -> None:
    """And the plain program's reactor is no other name of ours."""
    write("cases.py", CASES)
    plain = run("-m", "twisted.trial", REACTOR_CASE, cwd=tmp_path)
    assert plain.returncode == 1
    assert "'EPollReactor' != 'ProcreactorReactor'" in plain.stdout
    write("cases.py", CASES.replace('"ProcreactorReactor"', '"another"'))
    ours = started("trial", REACTOR_CASE, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert ours.returncode == 1
    assert "'ProcreactorReactor' != 'another'" in ours.stdout


@pytest.mark.needs("threads")
def test_trials_workers_are_children_of_our_reactor(write: Write, tmp_path: Path) -> None:
    """They speak over pipes 3 and 4; what they run on themselves is trial's choice."""
    write("cases.py", CASES)
    command = [PYTHON, "-m", STARTER, "trial", "-j2", PARENT_CASE]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as manager:
        out, err = manager.communicate(timeout=LONG_S)
    assert_passed(subprocess.CompletedProcess(command, manager.returncode, out, err), 1)
    loaded = {path.name: path.read_text() for path in tmp_path.rglob("loaded-*")}
    assert loaded.pop(f"loaded-{manager.pid}") == "ProcreactorReactor"
    assert list(loaded.values()) == ["EPollReactor"]


def test_a_program_that_insists_on_another_reactor_fails(write: Write, tmp_path: Path) -> None:
    write("cases.py", CASES)
    command = ["trial", "--reactor=epoll", REACTOR_CASE]
    refused = started(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 1
    assert "reactor already installed" in refused.stdout + refused.stderr


# --- twistd ---------------------------------------------------------------------------------------

SERVICE = """
    import json
    import os

    from twisted.application import service
    from twisted.internet import protocol, reactor
    from twisted.python import log

    loaded_by = os.getpid()

    class Child(protocol.ProcessProtocol):
        said = b""

        def outReceived(self, data):
            self.said += data

        def processEnded(self, reason):
            log.msg("the child has ended")
            tell = {
                "pid": os.getpid(),
                "is a copy": os.getpid() != loaded_by,
                "reactor": type(reactor).__name__,
                "said": self.said.decode(),
                "exit code": reason.value.exitCode,
            }
            os.write(int(os.environ["TELL_FD"]), json.dumps(tell).encode() + b"\\n")

    class Spawner(service.Service):
        def startService(self):
            service.Service.startService(self)
            reactor.callWhenRunning(
                reactor.spawnProcess, Child(), "/bin/sh", ["sh", "-c", "echo hello; exit 3"]
            )

    application = service.Application("spawner")
    Spawner().setServiceParent(application)
    """
"""A program for twistd: it spawns a child, tells of its end, and goes on until it is stopped."""


def next_line(fd: int) -> bytes:
    """Return the next line from a pipe, waiting for it; what there is when the pipe ends."""
    deadline_s = time.monotonic() + DEADLINE_S
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([fd], [], [], max(0, deadline_s - time.monotonic()))
        assert ready, f"no more than {line!r} within {DEADLINE_S} s"
        byte = os.read(fd, 1)
        if not byte:
            break
        line += byte
    return line


@contextmanager
def tell_pipe() -> Iterator[tuple[int, IO[bytes]]]:
    """A pipe for what a program tells, and for its end: reading ends with the last copy of it."""
    read_fd, write_fd = os.pipe()
    try:
        with open(write_fd, "wb") as write_end:
            yield read_fd, write_end
    finally:
        os.close(read_fd)


def run_service(*command: str, cwd: Path, **changes: str) -> tuple[dict[str, Any], int]:
    """Run twistd in the foreground; return what it told, and its exit status once stopped."""
    with tell_pipe() as (read_fd, write_end):
        process = subprocess.Popen(
            [PYTHON, *command],
            cwd=cwd,
            env=environment(TELL_FD=str(write_end.fileno()), **changes),
            pass_fds=[write_end.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            tell = json.loads(next_line(read_fd))
            process.terminate()
            return tell, process.wait(DEADLINE_S)
        finally:
            process.kill()
            process.wait()


def assert_service_ran(tell: Mapping[str, Any], is_a_copy: bool) -> None:
    """Assert that a service told what it should: of its child, on our reactor."""
    assert tell["reactor"] == "ProcreactorReactor"
    assert (tell["said"], tell["exit code"]) == ("hello\n", 3)
    assert tell["is a copy"] is is_a_copy


def test_twistd_in_the_foreground_runs_on_our_reactor(write: Write, tmp_path: Path) -> None:
    write("service.tac", SERVICE)
    command = ["-m", STARTER, "twistd", "-n", "-y", "service.tac"]
    tell, status = run_service(*command, cwd=tmp_path)
    assert_service_ran(tell, is_a_copy=False)
    assert status == -signal.SIGTERM  # twistd passes on what it was stopped by
    assert not (tmp_path / "twistd.pid").exists()


def stop_daemon(pid_file: Path) -> None:
    """Kill the daemon of *pid_file* when it lives still: its test has failed."""
    try:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        pass


def test_a_daemon_of_twistd_hears_of_its_children_after_the_fork(
    write: Write, tmp_path: Path
) -> None:
    """The reactor is installed, the program loaded, and only then the process forks, twice."""
    write("service.tac", SERVICE)
    pid_file, log_file = tmp_path / "spawner.pid", tmp_path / "spawner.log"
    command = ["-m", STARTER, "twistd", "-y", "service.tac"]
    command += ["--pidfile", pid_file.name, "--logfile", log_file.name]
    with tell_pipe() as (read_fd, write_end):
        try:
            starter = subprocess.run(
                [PYTHON, *command],
                cwd=tmp_path,
                env=environment(TELL_FD=str(write_end.fileno())),
                pass_fds=[write_end.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LONG_S,
            )
            assert starter.returncode == 0, starter.stderr
            tell = json.loads(next_line(read_fd))
            assert tell["pid"] == int(pid_file.read_text())
            os.kill(tell["pid"], signal.SIGTERM)
            write_end.close()
            assert next_line(read_fd) == b""  # the daemon had the last copy, and is gone
        finally:
            stop_daemon(pid_file)
    assert_service_ran(tell, is_a_copy=True)
    assert not pid_file.exists()
    log = log_file.read_text()
    assert "the child has ended" in log
    assert "Server Shut Down." in log
    assert "Traceback" not in log
    assert "Unhandled" not in log


# --- the plug-in ----------------------------------------------------------------------------------

PLUG_IN = Path("twisted", "plugins", "procreactor_reactor.py")


def printed_plug_in_path(cwd: Path) -> Path:
    """Return the directory that the starter prints."""
    asked = started("--plugin-path", cwd=cwd)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.count("\n") == 1
    return Path(asked.stdout.rstrip("\n"))


@pytest.fixture
def plug_in_path(tmp_path: Path) -> str:
    """A copy of that directory: Twisted writes a cache beside the plug-ins that it finds."""
    copy = tmp_path / "plug-ins"
    unasked = shutil.ignore_patterns("dropin.cache", "__pycache__")
    shutil.copytree(printed_plug_in_path(tmp_path), copy, ignore=unasked)
    return str(copy)


def test_the_plug_in_path_is_a_directory_with_the_plug_in_alone(tmp_path: Path) -> None:
    """No ``__init__.py``: with one it would take the place of Twisted."""
    path = printed_plug_in_path(tmp_path)
    assert path.is_absolute()
    sources = [found.relative_to(path) for found in path.rglob("*.py")]
    assert sources == [PLUG_IN]
    assert path.parent == PACKAGE / "hosts" / "twisted"


FOUND = """
    import importlib.util
    import json
    import twisted
    import twisted.plugins
    spec = importlib.util.find_spec("twisted.plugins.procreactor_reactor")
    print(json.dumps([twisted.__file__, spec and spec.origin]))
    """


def test_the_plug_in_is_found_where_it_is_asked_for_alone(
    write: Write, tmp_path: Path, plug_in_path: str
) -> None:
    program = write("program.py", FOUND)
    unasked = told(run(str(program), cwd=tmp_path))
    asked = told(run(str(program), cwd=tmp_path, PYTHONPATH=plug_in_path))
    assert unasked[1] is None
    assert asked == [unasked[0], str(Path(plug_in_path) / PLUG_IN)]


def test_trial_lists_the_reactor(tmp_path: Path, plug_in_path: str) -> None:
    command = ["-m", "twisted.trial", "--help-reactors"]
    with_it = run(*command, cwd=tmp_path, PYTHONPATH=plug_in_path)
    assert with_it.returncode == 0
    [line] = [line for line in with_it.stdout.splitlines() if "procreactor" in line]
    assert line.split()[0] == "procreactor"
    without = run(*command, cwd=tmp_path)
    assert without.returncode == 0
    assert "epoll" in without.stdout
    assert "procreactor" not in without.stdout


def test_trial_takes_the_reactor_by_name(write: Write, tmp_path: Path, plug_in_path: str) -> None:
    write("cases.py", CASES)
    command = ["-m", "twisted.trial", "--reactor=procreactor", REACTOR_CASE]
    assert_passed(run(*command, cwd=tmp_path, PYTHONPATH=f"{plug_in_path}:{tmp_path}"), 1)


def test_trials_workers_take_the_reactor_by_name(
    write: Write, tmp_path: Path, plug_in_path: str
) -> None:
    """The manager hands its own options on to them."""
    write("cases.py", CASES)
    command = ["-m", "twisted.trial", "-j2", "--reactor=procreactor", "cases"]
    assert_passed(run(*command, cwd=tmp_path, PYTHONPATH=f"{plug_in_path}:{tmp_path}"), 2)


def test_twistd_takes_the_reactor_by_name(write: Write, tmp_path: Path, plug_in_path: str) -> None:
    write("service.tac", SERVICE)
    command = [str(SCRIPTS / "twistd"), "--reactor=procreactor", "-n", "-y", "service.tac"]
    tell, status = run_service(*command, cwd=tmp_path, PYTHONPATH=plug_in_path)
    assert_service_ran(tell, is_a_copy=False)
    assert status == -signal.SIGTERM


# --- without Twisted ------------------------------------------------------------------------------


def modules() -> list[str]:
    """The modules of procreactor, but for the host of Twisted, and what only its build imports."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[:3] != ("procreactor", "hosts", "twisted") and parts[-1] != "_build":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has procreactor, what that needs at run time, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    backend = importlib.util.find_spec("_cffi_backend")
    assert backend is not None
    assert backend.origin is not None
    for needed in (PACKAGE, Path(backend.origin)):
        (packages / needed.name).symlink_to(needed)
    return str(folder / "bin" / "python")


IMPORT_ALL = """
    import importlib
    import json
    import sys
    for name in sys.argv[1:]:
        importlib.import_module(name)
    print(json.dumps(sorted({"twisted", "zope", "attr", "incremental"} & set(sys.modules))))
    """


def test_no_module_but_the_host_loads_twisted(write: Write, tmp_path: Path) -> None:
    """Where it is there to be loaded."""
    program = write("program.py", IMPORT_ALL)
    assert told(run(str(program), "twisted.internet", cwd=tmp_path)) != []
    assert told(run(str(program), *modules(), cwd=tmp_path)) == []


def test_every_module_but_the_host_imports_without_twisted(
    write: Write, tmp_path: Path, bare_python: str
) -> None:
    program = write("program.py", IMPORT_ALL)
    assert "procreactor.runner.procmon" in modules()
    # The live view is the one module that an extra is for, and imported on demand (views.py).
    without_extras = [name for name in modules() if name != "procreactor.apps.cli.live"]
    assert len(without_extras) == len(modules()) - 1
    assert told(run(str(program), *without_extras, cwd=tmp_path, python=bare_python)) == []


def test_without_twisted_there_is_none_by_that_name(tmp_path: Path, bare_python: str) -> None:
    """The directory of the plug-in must not be taken for it."""
    missing = run("-c", "import procreactor, twisted", cwd=tmp_path, python=bare_python)
    assert missing.returncode == 1
    assert missing.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'twisted'"


SPAWN = """
    import json
    from procreactor.internet import protocol, reactor

    class Child(protocol.ProcessProtocol):
        said = b""

        def outReceived(self, data):
            self.said += data

        def processEnded(self, reason):
            self.code = reason.value.exitCode
            reactor.stop()

    child = Child()
    reactor.spawnProcess(child, "/bin/sh", ["sh", "-c", "echo hello; exit 3"])
    reactor.run()
    print(json.dumps([child.said.decode(), child.code]))
    """


def test_children_are_spawned_without_twisted(
    write: Write, tmp_path: Path, bare_python: str
) -> None:
    program = write("program.py", SPAWN)
    assert told(run(str(program), cwd=tmp_path, python=bare_python)) == ["hello\n", 3]


IMPORT_HOST = """
    import json
    try:
        import procreactor.hosts.twisted
    except ImportError as error:
        print(json.dumps([type(error).__name__, str(error), type(error.__cause__).__name__]))
    """


@pytest.mark.parametrize("plug_in_is_asked_for", [False, True])
def test_the_host_says_what_it_needs(
    write: Write, tmp_path: Path, bare_python: str, plug_in_is_asked_for: bool
) -> None:
    """With the plug-in's directory on sys.path too, where ``import twisted`` does succeed."""
    program = write("program.py", IMPORT_HOST)
    path = str(printed_plug_in_path(tmp_path)) if plug_in_is_asked_for else ""
    assert told(run(str(program), cwd=tmp_path, python=bare_python, PYTHONPATH=path)) == [
        "ImportError",
        NEEDS_TWISTED,
        "ModuleNotFoundError",
    ]


def test_the_starter_says_what_it_needs(tmp_path: Path, bare_python: str) -> None:
    asked = started("trial", cwd=tmp_path, python=bare_python)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr.splitlines()[-1] == f"ImportError: {NEEDS_TWISTED}"


# --- what is shipped ------------------------------------------------------------------------------

ROOT = PACKAGE.parent
SETUPTOOLS_NEEDED = 77
SOURCES = ("csrc", "procreactor", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def build_is_possible() -> bool:
    """Whether the sources are here, and what turns them into a wheel."""
    has_sources = all((ROOT / name).exists() for name in SOURCES)
    return has_sources and importlib.util.find_spec("pip") is not None and bool(shutil.which("cc"))


def how_to_build() -> list[str]:
    """With the tools that are installed; where those are too old, pip fetches what it needs."""
    try:
        is_new = int(metadata.version("setuptools").split(".")[0]) >= SETUPTOOLS_NEEDED
    except metadata.PackageNotFoundError:
        is_new = False
    return ["--no-index", "--no-build-isolation"] if is_new else []


@pytest.mark.skipif(not build_is_possible(), reason="needs the sources, pip and a C compiler")
@pytest.mark.needs("threads")
def test_a_wheel_holds_the_plug_in_and_no_package_called_twisted(tmp_path: Path) -> None:
    """Built from a copy of the sources, which a build writes into; then used, as it is."""
    tree = tmp_path / "tree"
    built = shutil.ignore_patterns("*.so", "__pycache__", "_launch", "build", "dropin.cache")
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=built)
        else:
            shutil.copy(ROOT / name, tree)
    build = ["-m", "pip", "wheel", "--no-deps", *how_to_build(), "-w", "..", "."]
    made = run(*build, cwd=tree, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert made.returncode == 0, made.stderr
    [wheel] = tmp_path.glob("procreactor-*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        content.extractall(tmp_path / "installed")
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"procreactor"}
    assert "procreactor/hosts/twisted/plugin_path/twisted/plugins/procreactor_reactor.py" in names
    sources = {str(path.relative_to(tree)) for path in (tree / "procreactor").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    look = "import sys; sys.path.insert(0, sys.argv[1]); import procreactor; import twisted"
    missing = run("-I", "-S", "-c", look, str(tmp_path / "installed"), cwd=tmp_path)
    assert missing.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'twisted'"
