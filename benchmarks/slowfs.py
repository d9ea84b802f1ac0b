"""A file system with one file that takes its time to open: a disk that has to spin up, a network.

It is served over /dev/fuse (fuse(4), linux/fuse.h) by a process of its own: a thread of the process
that spawns could not answer while another waits in vfork and holds the interpreter's lock.
It is mounted in a mount namespace of the measuring process, so that nothing is left behind however
that ends. Needs the right to mount; `NotPossible` without.

The kernel asks OPEN at every exec; the answer is delayed, and lets the pages be read again.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.build import ROOT
from benchmarks.model import NotPossible

__all__ = ["slow_copy"]

# linux/fuse.h, enum fuse_opcode
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ = 1, 2, 3, 14, 15
_RELEASE, _FLUSH, _INIT, _INTERRUPT, _BATCH_FORGET = 18, 25, 26, 36, 42
_UNANSWERED = {_FORGET, _INTERRUPT, _BATCH_FORGET}
_ENOSYS = 38
_ROOT_NODE, _FILE_NODE = 1, 2
_REQUEST_BYTES = 1 << 17
_HOUR_S = 3600
"""For how long the kernel need not ask for names and attributes again."""

# sched.h, sys/mount.h
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_MNT_DETACH = 2


@contextmanager
def slow_copy(program: str, delay_s: float) -> Iterator[str]:
    """The path of a copy of *program* that takes *delay_s* seconds to open, each time.

    From then on this process has mounts of its own.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NotPossible(f"no FUSE for this user: {error.strerror}") from error
    with tempfile.TemporaryDirectory(prefix="slow-") as folder:
        try:
            _mount(libc, fuse, folder)
            server = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.slowfs", str(fuse), program, str(delay_s)],
                cwd=ROOT,
                pass_fds=[fuse],
            )
        finally:
            os.close(fuse)
        try:
            yield str(Path(folder) / Path(program).name)
        finally:
            libc.umount2(folder.encode(), _MNT_DETACH)
            server.wait(10)


def _mount(libc: ctypes.CDLL, fuse: int, folder: str) -> None:
    options = f"fd={fuse},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    if (
        libc.unshare(_CLONE_NEWNS) != 0
        or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0
        or libc.mount(b"slow", folder.encode(), b"fuse", 0, options.encode()) != 0
    ):
        raise NotPossible(f"this user may not mount: {os.strerror(ctypes.get_errno())}")


class _Server:
    """Answers for a file of given content, whatever its name."""

    def __init__(self, content: bytes, delay_s: float) -> None:
        self._content = content
        self._delay_s = delay_s
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            _INIT: lambda node, body: struct.pack(
                "4I2H2I2H8I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, *[0] * 8
            ),
            _LOOKUP: lambda node, body: (
                struct.pack("4Q2I", _FILE_NODE, 0, _HOUR_S, _HOUR_S, 0, 0)
                + self._attributes(_FILE_NODE)
            ),
            _GETATTR: lambda node, body: struct.pack("Q2I", _HOUR_S, 0, 0) + self._attributes(node),
            _OPEN: self._open,
            _READ: self._read,
            _FLUSH: lambda node, body: b"",
            _RELEASE: lambda node, body: b"",
        }

    def _attributes(self, node: int) -> bytes:
        mode, links = (0o040755, 2) if node == _ROOT_NODE else (0o100755, 1)
        size = len(self._content)
        head = struct.pack("3Q", node, size, (size + 511) // 512)
        return head + struct.pack("3Q10I", *[0] * 6, mode, links, 0, 0, 0, 4096, 0)

    def _open(self, node: int, body: bytes) -> bytes:
        time.sleep(self._delay_s)
        return struct.pack("Q2I", 1, 0, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, length = struct.unpack_from("2QI", body)
        return self._content[offset : offset + length]

    def serve(self, fuse: int) -> None:
        """Answer until the file system is unmounted."""
        while True:
            try:
                request = os.read(fuse, _REQUEST_BYTES)
            except OSError:
                return  # ENODEV: unmounted
            _, opcode, unique, node = struct.unpack_from("2I2Q", request)
            if opcode in _UNANSWERED:
                continue
            answer = self._answers.get(opcode)
            body = b"" if answer is None else answer(node, request[40:])
            error = -_ENOSYS if answer is None else 0
            os.write(fuse, struct.pack("IiQ", 16 + len(body), error, unique) + body)


if __name__ == "__main__":
    _Server(Path(sys.argv[2]).read_bytes(), float(sys.argv[3])).serve(int(sys.argv[1]))
