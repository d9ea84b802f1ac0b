"""The rules of the house that a program can check, checked.

The first half reads the sources (ast, and the C header as text) and runs nothing of them. The
second half asks fresh interpreters what an import does.
"""

from __future__ import annotations

import ast
import platform
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from procreactor._core import lib
from procreactor.core import binding

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "procreactor"
HEADER = ROOT / "csrc" / "procreactor.h"

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Import:
    """That one module names another, and where."""

    module: str
    line: int
    function: str | None
    """In which function it hides."""
    for_types_only: bool
    """It is made by type checkers alone."""


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    path: Path

    @cached_property
    def name(self) -> str:
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """The directory; for the files beside the rooms, the name of the file."""
        return self.path.relative_to(PACKAGE).with_suffix("").parts[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def imports(self) -> list[Import]:
        return list(_imports(self.tree, None, False))

    @property
    def house_imports(self) -> list[Import]:
        return [one for one in self.imports if one.module.split(".")[0] == "procreactor"]


def _imports(node: ast.AST, function: str | None, for_types_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for module in _imported(child):
                yield Import(module, child.lineno, function, for_types_only)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, child.name, for_types_only)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from _imports(ast.Module(child.body, []), function, True)
            yield from _imports(ast.Module(child.orelse, []), function, for_types_only)
        else:
            yield from _imports(child, function, for_types_only)


def _imported(statement: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that a statement names; a submodule taken from its package is named as itself."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    base = "." * statement.level + (statement.module or "")
    names = [f"{base}.{alias.name}" for alias in statement.names]
    return [name if _is_module(name) else base for name in names]


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
BY_NAME = {module.name: module for module in MODULES}


def at(module: Module, line: int) -> str:
    return f"{module.path.relative_to(ROOT)}:{line}"


# --- Floors ---------------------------------------------------------------------------------------

FLOORS = {
    "__init__": 9,  # the face of the package: nobody inside may look at it
    "__main__": 9,  # and its command line
    "doctor": 9,
    "apps": 8,
    "hosts": 7,
    "internet": 6,
    "python": 6,
    "protocols": 6,
    "runner": 6,
    "streams": 5,
    "transport": 4,
    "loop": 3,
    "kernel": 2,
    "core": 1,
    "_core": 0,
    "model": 0,
    "errors": 0,
    "typed": 0,
}

CAMEL_CASE_ROOMS = {"internet", "python", "protocols", "runner"}
TWISTEDS_HOST = ["procreactor", "hosts", "twisted"]
"""Camel case too: what it makes are Twisted's reactor and transports."""

MAY_NOT_KNOW = {
    "apps": CAMEL_CASE_ROOMS | {"kernel", "core"},
    "loop": {"kernel.children", "kernel.ptys", "kernel.users", "kernel.pipes"},
    "streams": {"transport", "loop", "kernel", "core"},
}
"""What lies below and is nobody's business there: CONTRIBUTING.md, The house, the last column."""


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_every_room_has_a_floor() -> None:
    assert {module.room for module in MODULES} <= set(FLOORS)


def test_imports_point_down_the_floors() -> None:
    wrong = [
        f"{at(module, one.line)} imports {one.module}"
        for module in MODULES
        for one in module.house_imports
        if FLOORS[room_of(one.module)] > FLOORS[module.room]
    ]
    assert wrong == []


def test_a_room_does_not_know_what_is_none_of_its_business() -> None:
    wrong = [
        f"{at(module, one.line)} imports {one.module}"
        for module in MODULES
        for one in module.house_imports
        for barred in MAY_NOT_KNOW.get(module.room, ())
        if f"{one.module}.".startswith(f"procreactor.{barred}.")
    ]
    assert wrong == []


def test_the_hosts_do_not_know_each_other() -> None:
    wrong = [
        f"{at(module, one.line)} imports {one.module}"
        for module in MODULES
        if module.room == "hosts"
        for one in module.house_imports
        if room_of(one.module) == "hosts"
        and one.module.split(".")[2:3] != module.name.split(".")[2:3]
    ]
    assert wrong == []


def test_imports_make_no_circle() -> None:
    # What type checkers alone import, and the one lazy attribute, do not run with the module.
    edges = {
        module.name: {
            one.module
            for one in module.house_imports
            if not one.for_types_only and one.function is None
        }
        & set(BY_NAME)
        for module in MODULES
    }
    while leaves := {name for name, known in edges.items() if not known}:
        edges = {name: known - leaves for name, known in edges.items() if name not in leaves}
    assert edges == {}, "these modules import each other, or one that does"


LAZY = {
    ("procreactor.internet", "__getattr__"),
    ("procreactor", "__getattr__"),
    ("procreactor.apps.cli.views", "_open_line"),
    ("procreactor.apps.cli.views", "_open_live"),
    ("procreactor.__main__", "_do"),
    ("procreactor.errors", "_log"),
    ("procreactor.apps.cli.main", "_page"),
    ("procreactor.apps.cli.session", "_open_log"),
    ("procreactor.apps.cli.session", "read_logged"),
    ("procreactor.apps.cli.session", "new_results"),
    ("procreactor.__main__", "_die_of_interrupt"),
    ("procreactor.apps.cli.session", "_new_admission"),
    ("procreactor.apps.cli.session", "_new_median"),
    ("procreactor.apps.cli.session", "_most_jobs"),
    ("procreactor.apps.commands", "__str__"),
}
"""Where an import may hide: the reactor is made, and the package's names are fetched, on demand;
the live view's library is an extra, and takes longer to import than most runs take; and what most
runs of the command do not need is not to keep them waiting."""


def test_no_import_hides_in_a_function() -> None:
    hidden = {
        (module.name, one.function): at(module, one.line)
        for module in MODULES
        for one in module.imports
        if one.function is not None
    }
    assert set(hidden) == LAZY, hidden


def test_no_import_is_made_by_name() -> None:
    wrong = [
        at(module, node.lineno)
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name | ast.Attribute)
        and ast.unparse(node).split(".")[-1] in ("__import__", "import_module")
    ]
    assert wrong == []


def test_imports_are_absolute() -> None:
    wrong = [
        at(module, one.line)
        for module in MODULES
        for one in module.imports
        if one.module.startswith(".")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "allowed"), [("model", {"procreactor.typed"}), ("errors", set()), ("typed", set())]
)
def test_the_shared_vocabulary_imports_nothing_of_the_house(name: str, allowed: set[str]) -> None:
    imported = {one.module for one in BY_NAME[f"procreactor.{name}"].house_imports}
    assert imported == allowed


def test_only_the_binding_imports_the_compiled_module() -> None:
    importers = {
        module.name
        for module in MODULES
        for one in module.imports
        if one.module == "procreactor._core"
    }
    assert importers == {"procreactor.core.binding"}


def test_only_hosts_name_other_event_loops() -> None:
    wrong = [
        f"{at(module, one.line)} imports {one.module}"
        for module in MODULES
        for one in module.imports
        if module.room != "hosts" and one.module.split(".")[0] in ("asyncio", "twisted")
    ]
    assert wrong == []


# --- Pure rooms -----------------------------------------------------------------------------------

PURE = [
    "transport.redirects",
    "transport.outbox",
    "transport.lifecycle",
    "transport.request",
    "transport.kinship",
    "streams.lines",
    "streams.collect",
    "loop.timers",
    "apps.halt",
    "apps.cli.combine",
    "apps.cli.exits",
    "apps.cli.manual",
    "apps.cli.options",
    "apps.cli.plan",
    "apps.cli.table",
    "apps.cli.template",
    "apps.cli.values",
    "apps.cli.order",
    "apps.cli.progress",
    "apps.cli.rendering",
    "apps.cli.shellwords",
    "apps.cli.stats",
    "apps.cli.tagging",
]

INNOCENT = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "errno",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "struct",
    "textwrap",
    "typing",
}
"""Modules of the standard library that can not touch an fd, a clock or another thread."""

NAMES_ONLY = {
    "transport.request": {
        "os": {"PathLike", "defpath", "fsencode"},
        "resource": {"RLIM_INFINITY"},
        "signal": {"Signals"},
    },
    "apps.cli.options": {"os": {"fsdecode", "fsencode"}},
    "apps.cli.table": {"os": {"fsencode"}},
    "apps.cli.values": {"signal": {"Signals"}},
}
"""Modules that could do harm, where only their names and numbers are used."""


@pytest.mark.parametrize("name", PURE)
def test_a_pure_room_imports_only_what_is_pure(name: str) -> None:
    shared = {"procreactor.model", "procreactor.typed"}
    pure_house = {*shared, *(f"procreactor.{room}" for room in PURE)}
    wrong = {
        one.module
        for one in BY_NAME[f"procreactor.{name}"].imports
        if one.module not in pure_house
        and one.module.split(".")[0] not in INNOCENT | set(NAMES_ONLY.get(name, ()))
    }
    assert wrong == set()


@pytest.mark.parametrize("name", PURE)
def test_a_pure_room_uses_only_the_names_of_modules_that_can_do_more(name: str) -> None:
    used: dict[str, set[str]] = {}
    for node in ast.walk(BY_NAME[f"procreactor.{name}"].tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.setdefault(node.value.id, set()).add(node.attr)
    for module, allowed in NAMES_ONLY.get(name, {}).items():
        assert used.get(module, set()) <= allowed


@pytest.mark.parametrize("name", PURE)
def test_a_pure_room_opens_and_prints_nothing(name: str) -> None:
    wrong = [
        node.lineno
        for node in ast.walk(BY_NAME[f"procreactor.{name}"].tree)
        if isinstance(node, ast.Name) and node.id in ("open", "print", "input", "exec", "eval")
    ]
    assert wrong == []


# --- Names and docstrings -------------------------------------------------------------------------

CAMEL_CASE = re.compile(r"_*[a-z][a-z0-9]*[A-Z]")


def _defined_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The names that a module gives to functions, parameters, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_camel_case_lives_only_in_the_rooms_with_twisteds_names() -> None:
    wrong = [
        f"{at(module, line)} defines {name}"
        for module in MODULES
        if module.room not in CAMEL_CASE_ROOMS and module.name.split(".")[:3] != TWISTEDS_HOST
        for name, line in _defined_names(module.tree)
        if CAMEL_CASE.match(name)
    ]
    assert wrong == []


def _public_definitions(node: ast.AST) -> Iterator[Definition]:
    """The classes, functions and methods that users see; not what stands inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            if child.name.startswith("_") or _needs_no_docstring(child):
                continue
            yield child
            if isinstance(child, ast.ClassDef):
                yield from _public_definitions(child)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _public_definitions(child)


def _needs_no_docstring(definition: Definition) -> bool:
    """Overloads and setters are said once, by what they belong to."""
    names = [ast.unparse(decorator) for decorator in definition.decorator_list]
    return any(name == "overload" or name.endswith(".setter") for name in names)


def test_every_module_and_every_public_class_and_function_has_a_docstring() -> None:
    silent = [at(module, 1) for module in MODULES if not ast.get_docstring(module.tree)]
    silent += [
        f"{at(module, definition.lineno)} {definition.name}"
        for module in MODULES
        for definition in _public_definitions(module.tree)
        if not ast.get_docstring(definition)
    ]
    assert silent == []


# --- What belongs together ------------------------------------------------------------------------

MIRRORED_ROOMS = ("kernel", "loop", "transport", "streams")

MIRRORED = [
    module.path.relative_to(PACKAGE)
    for module in MODULES
    if module.room in MIRRORED_ROOMS and module.path.name != "__init__.py"
]


@pytest.mark.parametrize("path", MIRRORED, ids=str)
def test_every_module_of_the_engine_has_its_test(path: Path) -> None:
    test = ROOT / "tests" / path.parent / f"test_{path.name}"
    assert test.exists(), f"{test.relative_to(ROOT)} is missing"


def test_what_is_made_without_its_constructor_has_all_its_fields() -> None:
    fields = {
        node.name: sum(isinstance(field, ast.AnnAssign) for field in node.body)
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and any("NamedTuple" in ast.unparse(b) for b in node.bases)
    }
    made = [
        (at(module, call.lineno), call.args)
        for module in MODULES
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "new_tuple"
    ]
    assert len(made) > 5
    for where, (kind, values) in made:
        assert isinstance(values, ast.Tuple), f"{where}: the fields stand elsewhere"
        if not isinstance(values.elts[-1], ast.Starred):  # that one is held against struct pr_exit
            assert len(values.elts) == fields[ast.unparse(kind)], where


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {module.name for module in MODULES if module.path.name == "__init__.py"}
    assert set(settings["tool"]["setuptools"]["packages"]) == packages


# --- The C contract -------------------------------------------------------------------------------


def _declarations() -> str:
    """The part of the header that cffi reads, without comments."""
    text = HEADER.read_text(encoding="utf-8").split("/* <cdef> */")[1].split("/* </cdef> */")[0]
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


FUNCTIONS = {
    name: 0 if parameters == "void" else parameters.count(",") + 1
    for name, parameters in re.findall(r"\b(pr_\w+)\(([^)]*)\);", _declarations())
}
"""The functions of procreactor.h, with how many parameters each has."""

STAGES = re.findall(r"\bPR_STAGE_(?!COUNT\b)\w+", _declarations())


def _typed_functions() -> dict[str, int]:
    """The functions of _core.pyi, with how many parameters each has beside self."""
    tree = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    return {
        node.name: len(node.args.args) - 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("pr_")
    }


def test_the_header_is_read_at_all() -> None:
    assert {"pr_spawn", "pr_reap", "pr_stage_text"} <= set(FUNCTIONS)
    assert {"PR_STAGE_NONE", "PR_STAGE_EXEC", "PR_STAGE_PTY_SIZE"} <= set(STAGES)


def test_every_c_function_has_a_type() -> None:
    assert _typed_functions() == FUNCTIONS


def test_every_c_function_has_a_user_in_the_binding() -> None:
    used = {
        node.attr
        for node in ast.walk(BY_NAME["procreactor.core.binding"].tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "lib"
    }
    assert {name for name in used if name.startswith("pr_")} == set(FUNCTIONS)


def test_every_constant_with_a_type_is_in_the_header() -> None:
    typed = set(re.findall(r"\bPR_\w+", (PACKAGE / "_core.pyi").read_text(encoding="utf-8")))
    assert typed <= set(re.findall(r"\bPR_\w+", _declarations()))


def test_every_stage_has_a_text_of_its_own() -> None:
    assert len(STAGES) == lib.PR_STAGE_COUNT
    texts = {stage: binding.stage_text(getattr(lib, stage)) for stage in STAGES}
    assert all(texts.values())
    assert "unknown stage" not in texts.values()
    assert len(set(texts.values())) == len(texts)


def test_a_number_that_is_no_stage_has_a_text_too() -> None:
    assert binding.stage_text(-1) == binding.stage_text(lib.PR_STAGE_COUNT) == "unknown stage"


# --- What an import does --------------------------------------------------------------------------


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


IMPORTS = ["import procreactor", "from procreactor.internet import reactor"]

EVERYTHING = "; ".join(
    f"import {module.name}"
    for module in MODULES
    if module.room != "hosts" and module.name != "procreactor.core._build"
)


@pytest.mark.parametrize("statement", [*IMPORTS, EVERYTHING], ids=[*IMPORTS, "everything"])
def test_an_import_brings_no_other_event_loop(statement: str) -> None:
    done = run(f"""
{statement}
import sys
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"asyncio", "twisted"}}))
""")
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_command_starts_without_what_costs_most_to_import() -> None:
    """typed.py and model.py say what that is."""
    done = run("""
import procreactor.apps.cli.main
import sys
print(sorted(sys.modules.keys() & {"typing", "dataclasses", "logging", "argparse", "inspect"}))
""")
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


FIRST_NEW_CALL = 424
"""pidfd_send_signal, of Linux 5.1: from here on the numbers are the same on all machines.

CPython and libc need none of these for an import, so all can be deadly: io_uring_setup and its
like, pidfd_open, clone3, close_range, openat2, faccessat2, and what is still to come.
"""

CHILD_MAKING_CALLS = {
    "x86_64": {"clone": 56, "fork": 57, "vfork": 58, "wait4": 61, "waitid": 247},
    "aarch64": {"clone": 220, "wait4": 260, "waitid": 95},
}

# seccomp(2): a classic BPF program that looks at the call's number. Returning KILL_PROCESS ends the
# process with SIGSYS.
FORBID = """
import ctypes, struct

def forbid(first_new, numbers):
    load, equal, at_least, give_back = 0x20, 0x15, 0x35, 0x06
    kill, allow = 0x80000000, 0x7FFF0000
    code = struct.pack("HBBI", load, 0, 0, 0)
    code += struct.pack("HBBI", at_least, 0, 1, first_new)
    code += struct.pack("HBBI", give_back, 0, 0, kill)
    for number in numbers:
        code += struct.pack("HBBI", equal, 0, 1, number)
        code += struct.pack("HBBI", give_back, 0, 0, kill)
    code += struct.pack("HBBI", give_back, 0, 0, allow)
    text = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    holder = ctypes.create_string_buffer(program, len(program))
    no_new_privileges = prctl(38, 1, 0, 0, 0)
    filtered = prctl(22, 2, ctypes.addressof(holder), 0, 0)
    print("ready" if no_new_privileges == filtered == 0 else "no seccomp", flush=True)
"""


def run_forbidding_children(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* where a system call that is new, or makes or awaits a child, is deadly."""
    calls = sorted(CHILD_MAKING_CALLS.get(platform.machine(), {}).values())
    done = run(f"{FORBID}\nforbid({FIRST_NEW_CALL}, {calls})\n{code}")
    if done.stdout.startswith("no seccomp"):
        pytest.skip("this kernel, or what we run in, has no seccomp filters")
    return done


WALK = """
import importlib, pkgutil, procreactor
for module in pkgutil.walk_packages(procreactor.__path__, "procreactor."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
"""
"""Each module that is no program: also what the host loops bring, and the build script."""


@pytest.mark.parametrize("statement", [*IMPORTS, WALK], ids=[*IMPORTS, "each module"])
def test_an_import_makes_no_child_and_asks_the_kernel_nothing_about_children(
    statement: str,
) -> None:
    done = run_forbidding_children(f"{statement}\nprint('alive')")
    assert (done.returncode, done.stdout) == (0, "ready\nalive\n"), done.stderr


def test_each_module_is_imported_there() -> None:
    done = run(f"{WALK}\nimport sys\nprint(*sys.modules)")
    missing = {module.name for module in MODULES} - set(done.stdout.split())
    assert {name.rpartition(".")[2] for name in missing if "plugin_path" not in name} == {
        "__main__"
    }, done.stderr


@pytest.mark.parametrize(
    "deed",
    [
        "from procreactor.core import binding; binding.features()",
        "import os; os.pidfd_open(os.getpid())",
        "import os; os.access('/', os.R_OK, effective_ids=True)",  # faccessat2, of Linux 5.8
        "import os; os.fork()",
    ],
)
def test_the_filter_of_the_test_above_is_deadly(deed: str) -> None:
    assert run_forbidding_children(deed).returncode == -signal.SIGSYS
