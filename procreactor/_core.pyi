"""Types of the compiled module, so that strict checking has no hole where C begins.

cffi's own objects are opaque here: only core/binding.py may touch them.
"""

from collections.abc import Buffer
from typing import Any, Protocol

class _CData(Protocol):
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...
    def __getitem__(self, index: int | slice) -> Any: ...
    def __setitem__(self, index: int | slice, value: Any) -> None: ...

class _FFI:
    NULL: _CData
    def new(self, ctype: str, init: object = ...) -> _CData: ...
    def from_buffer(self, ctype: str, buffer: Buffer) -> _CData: ...
    def string(self, cdata: _CData) -> bytes: ...
    def unpack(self, cdata: _CData, length: int) -> list[int]: ...

class _Lib:
    PR_WE_READ: int
    PR_WE_WRITE: int
    PR_FLAG_IDENTITY: int
    PR_FLAG_UMASK: int
    PR_FLAG_SESSION: int
    PR_FLAG_GROUP: int
    PR_FLAG_SIGMASK: int
    PR_FLAG_NO_NEW_PRIVS: int
    PR_FEATURE_CLONE3: int
    PR_FEATURE_PIDFD: int
    PR_FEATURE_UNSHARE: int
    PR_FEATURE_CLOSE_RANGE: int
    PR_FEATURE_VFORK: int
    PR_FEATURE_HELPER: int
    PR_STAGE_NONE: int
    PR_STAGE_COUNT: int
    PR_STAGE_PIPE: int
    PR_STAGE_DUP: int
    PR_STAGE_CHDIR: int
    PR_STAGE_EXEC: int
    PR_STAGE_CLONE: int
    PR_STAGE_RLIMIT: int
    PR_STAGE_SETUID: int
    PR_STAGE_SETGID: int
    PR_STAGE_SETGROUPS: int
    PR_STAGE_STOPPED: int
    def pr_spawn(self, request: _CData, result: _CData, ours: _CData) -> int: ...
    def pr_reap(self, pidfd: int, pid: int, exit: _CData) -> int: ...
    def pr_wait_exit(self, pid: int) -> int: ...
    def pr_signal(self, pidfd: int, pid: int, number: int) -> int: ...
    def pr_open_pty(self, rows: int, columns: int, fds: _CData, stage: _CData) -> int: ...
    def pr_reserve(self) -> int: ...
    def pr_disable(self, features: int) -> None: ...
    def pr_features(self) -> int: ...
    def pr_stage_text(self, stage: int) -> _CData: ...

ffi: _FFI
lib: _Lib
