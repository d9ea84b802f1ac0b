"""Builds ``procreactor._core``: cffi, API mode, one abi3 module for every CPython from 3.11 on.

The declarations are not repeated here: cffi reads the marked region of csrc/procreactor.h, so the
contract exists once.
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parents[2] / "csrc"
SOURCES = (
    "spawn.c",
    "spawner.c",
    "child.c",
    "fdplan.c",
    "ladder.c",
    "slots.c",
    "reap.c",
    "gather.c",
    "hangup.c",
    "pty.c",
    "timer.c",
    "cgroup.c",
    "text.c",
)

# What the C core needs whatever flags Python itself was built with. A stack protector would read
# the parent's thread-local canary in a vfork child; harmless, but it is not the child's business.
COMPILE_ARGS = (
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-fvisibility=hidden",
    "-fno-stack-protector",
    "-fno-strict-aliasing",
    "-pthread",
)
# The threads of spawner.c; until glibc 2.34 they were in a library of their own.
LINK_ARGS = ("-pthread",)


def read_declarations() -> str:
    """Return the part of the header that cffi is to parse."""
    header = (CSRC / "procreactor.h").read_text(encoding="utf-8")
    return header.split("/* <cdef> */")[1].split("/* </cdef> */")[0]


ffibuilder = FFI()
ffibuilder.cdef(read_declarations())
ffibuilder.set_source(
    "procreactor._core",
    '#include "procreactor.h"',
    # setuptools wants paths relative to setup.py, where it always stands.
    sources=[os.path.join("csrc", name) for name in SOURCES],
    include_dirs=["csrc"],
    depends=[os.path.join("csrc", path.name) for path in sorted(CSRC.glob("*.h"))],
    extra_compile_args=[*COMPILE_ARGS, *os.environ.get("PROCREACTOR_CFLAGS", "").split()],
    extra_link_args=list(LINK_ARGS),
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
