"""A file system with one file, served by a thread of this process (fuse(4)).

For programs that serve a file system and start children: closing an fd of such a file asks the
server (FLUSH), so whoever closes one while the server waits for him waits for ever.
"""

from __future__ import annotations

import os
import select
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mounts import mount, unmount

__all__ = ["FileServer", "needs_fuse", "served"]

needs_fuse = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="no FUSE")

_LOOKUP, _FORGET, _GETATTR, _OPEN, _RELEASE, _FLUSH, _INIT = 1, 2, 3, 14, 18, 25, 26
_INTERRUPT, _BATCH_FORGET = 36, 42
_UNANSWERED = {_FORGET, _INTERRUPT, _BATCH_FORGET}
_ENOSYS = 38
_ROOT, _FILE = 1, 2


def _attributes(node: int) -> bytes:
    mode, links = (0o040755, 2) if node == _ROOT else (0o100666, 1)
    return struct.pack("6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)


class FileServer:
    """Answers what the kernel asks of *fd*, and counts it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.asked: Counter[int] = Counter()

    @property
    def flushes(self) -> int:
        """How many fds of the file have been closed."""
        return self.asked[_FLUSH]

    def serve(self, ending: int) -> None:
        """Answer until *ending* is readable."""
        while ending not in select.select([self._fd, ending], [], [])[0]:
            request = os.read(self._fd, 1 << 17)
            _, opcode, unique, node = struct.unpack_from("IIQQ", request)
            self.asked[opcode] += 1
            if opcode not in _UNANSWERED:
                error, body = self._answer(opcode, node)
                os.write(self._fd, struct.pack("IiQ", 16 + len(body), -error, unique) + body)

    def _answer(self, opcode: int, node: int) -> tuple[int, bytes]:
        if opcode == _INIT:
            return 0, struct.pack("IIIIHHIIHHII6I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0, *[0] * 7)
        if opcode == _LOOKUP:
            return 0, struct.pack("4QII", _FILE, 0, 1, 1, 0, 0) + _attributes(_FILE)
        if opcode == _GETATTR:
            return 0, struct.pack("QII", 1, 0, 0) + _attributes(node)
        if opcode == _OPEN:
            return 0, struct.pack("QII", 1, 0, 0)
        return (0, b"") if opcode in (_FLUSH, _RELEASE) else (_ENOSYS, b"")


@contextmanager
def served(folder: str) -> Iterator[tuple[FileServer, Path]]:
    """The server of a file system at *folder*, and the path of its file; needs private mounts."""
    fd, ending = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC), os.eventfd(0, os.EFD_CLOEXEC)
    mount("fuse", folder, f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other")
    server = FileServer(fd)
    thread = threading.Thread(target=server.serve, args=(ending,))
    thread.start()
    try:
        yield server, Path(folder) / "file"
    finally:
        unmount(folder)
        os.eventfd_write(ending, 1)
        thread.join()
        os.close(ending)
        os.close(fd)
