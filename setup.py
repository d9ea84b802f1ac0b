"""The two things pyproject.toml cannot say: the cffi module, and the static launcher beside it."""

from __future__ import annotations

import os
import sys

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, LinkError

LAUNCHER = os.path.join("procreactor", "_launch")
LAUNCHER_SOURCES = ["csrc/launch.c", "csrc/become.h", "csrc/sys.h", "csrc/procreactor.h"]
# No libc, no start files, nothing that could emit a call to either.
LAUNCHER_COMPILE_ARGS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-Os",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-strict-aliasing",
    "-fno-tree-loop-distribute-patterns",
    "-fno-pie",
    "-fcf-protection=none" if os.uname().machine == "x86_64" else "-O2",
]
LAUNCHER_LINK_ARGS = ["-static", "-nostdlib", "-no-pie", "-Wl,--build-id=none", "-s"]


class BuildCoreAndLauncher(build_ext):
    """build_ext that also links the launcher, a program of its own, into the package.

    Where it cannot be built (a machine without start code in launch.c, a linker without static
    support), the package works without it: spawns with uid= or gid= fork instead, which costs more
    in a large parent.
    """

    def run(self) -> None:
        """Build the module, then the launcher."""
        super().run()
        try:
            self._build_launcher()
        except (CCompilerError, ExecError, LinkError) as error:
            print(f"procreactor: no launcher, uid= and gid= will fork: {error}", file=sys.stderr)

    def _launcher_path(self) -> str:
        in_source = self.inplace or getattr(self, "editable_mode", False)
        return LAUNCHER if in_source else os.path.join(self.build_lib, LAUNCHER)

    def _build_launcher(self) -> None:
        objects = self.compiler.compile(
            LAUNCHER_SOURCES[:1],
            output_dir=self.build_temp,
            include_dirs=["csrc"],
            extra_postargs=LAUNCHER_COMPILE_ARGS,
            depends=LAUNCHER_SOURCES,
        )
        # Not link_executable: that adds the flags Python itself was linked with.
        compiler = self.compiler.compiler_so[:1]
        self.compiler.spawn([*compiler, *objects, *LAUNCHER_LINK_ARGS, "-o", self._launcher_path()])

    def get_outputs(self) -> list[str]:
        """Return all that was built."""
        launcher = self._launcher_path()
        return [*super().get_outputs(), *([launcher] if os.path.exists(launcher) else [])]


setup(
    cffi_modules=["procreactor/core/_build.py:ffibuilder"],
    cmdclass={"build_ext": BuildCoreAndLauncher},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
