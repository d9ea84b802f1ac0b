"""The shared vocabulary: what the rooms say to each other, as data.

Imports nothing of the house, so that every floor may know it. Nothing here does anything: a
request is data, a result is data, and between the two there is one function.

Units are in the names: ``_s`` seconds, ``_bytes`` bytes.

Named tuples, where one would look for dataclasses: to import those and to make the classes took a
fifth of what ``procreactor run`` needs before its first job, and a tuple is made in a quarter of
the time of a frozen dataclass, which counts where thousands are made per second.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from procreactor.typed import Any, Final, NamedTuple

__all__ = [
    "AS_STDOUT",
    "END",
    "WOULD_BLOCK",
    "ExitStatus",
    "Identity",
    "NoData",
    "PipeEnd",
    "ProcessRow",
    "Redirect",
    "ResourceUsage",
    "RlimitSetting",
    "SpawnSpec",
]


class NoData(enum.Enum):
    """Why a non-blocking read or write moved nothing: values, not exceptions."""

    WOULD_BLOCK = "would block"
    """Nothing now; the kernel will say when."""

    END = "end"
    """Nothing ever again: end of file for a reader, no reader left for a writer."""


WOULD_BLOCK: Final = NoData.WOULD_BLOCK
END: Final = NoData.END


class PipeEnd(enum.IntEnum):
    """Which end of a new pipe *we* keep. The values are those of procreactor.h."""

    WE_READ = -1
    """The child writes, we read: ``"r"`` in childFDs."""

    WE_WRITE = -2
    """We write, the child reads: ``"w"`` in childFDs."""


AS_STDOUT: Final = -3
"""In a `Redirect`: what the child has as its fd 1, by a row before. As in procreactor.h."""


class Redirect(NamedTuple):
    """One row of a child's fd table: *child_fd* is what *source* says.

    *source* is an fd of the parent (>= 0), or a `PipeEnd` for a new pipe, or `AS_STDOUT`.
    """

    child_fd: int
    source: int

    @property
    def is_pipe(self) -> bool:
        """Whether a pipe is made for this row, one end of which will be ours."""
        return AS_STDOUT < self.source < 0


class Identity(NamedTuple):
    """Who the child is to be: decided in the parent, applied in the order gid, groups, uid."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class RlimitSetting(NamedTuple):
    """One resource limit of the child: *resource* is a ``resource.RLIMIT_*`` number."""

    resource: int
    soft: int
    hard: int


class SpawnSpec:
    """A request to start one child: checked, complete, and free of policy.

    Strings are bytes without NUL, as the kernel takes them. Not to be changed once somebody else
    has it.
    """

    __slots__ = (
        "argv",
        "candidates",
        "cgroup_fd",
        "cgroup_may_freeze",
        "controlling_tty_fd",
        "cwd",
        "env",
        "identity",
        "new_session",
        "nice",
        "no_new_privileges",
        "parent_death_signal",
        "process_group",
        "redirects",
        "rlimits",
        "searched_name",
        "signal_mask",
        "umask",
    )

    def __init__(
        self,
        candidates: Sequence[bytes],
        argv: Sequence[bytes],
        env: Sequence[bytes],
        redirects: Sequence[Redirect] = (),
        cwd: bytes | None = None,
        identity: Identity | None = None,
        umask: int | None = None,
        rlimits: Sequence[RlimitSetting] = (),
        nice: int = 0,
        new_session: bool = False,
        process_group: int | None = None,
        controlling_tty_fd: int | None = None,
        parent_death_signal: int = 0,
        no_new_privileges: bool = False,
        cgroup_fd: int = -1,
        cgroup_may_freeze: bool = True,
        signal_mask: frozenset[int] | None = None,
        searched_name: bytes | None = None,
    ) -> None:
        self.candidates = candidates
        """Paths to try in this order; more than one only after a PATH search."""

        self.argv = argv
        self.env = env
        """``KEY=value`` each."""

        self.redirects = redirects
        self.cwd = cwd
        self.identity = identity
        self.umask = umask
        self.rlimits = rlimits
        self.nice = nice
        """Added to the niceness inherited from the spawning thread."""

        self.new_session = new_session
        self.process_group = process_group
        """None: inherit; 0: a group of its own; n: join group n."""

        self.controlling_tty_fd = controlling_tty_fd
        """The child fd that becomes the controlling terminal of its new session."""

        self.parent_death_signal = parent_death_signal
        self.no_new_privileges = no_new_privileges
        self.cgroup_fd = cgroup_fd
        self.cgroup_may_freeze = cgroup_may_freeze
        """Whether others may freeze that group, and not this process: then the start costs a little
        more, and does not wait for who does."""

        self.signal_mask = signal_mask
        """The signals blocked in the child; None inherits the spawning thread's mask."""

        self.searched_name = searched_name
        """The bare name that the candidates were made of by a PATH search; None without one."""

    def replace(self, **changes: Any) -> SpawnSpec:
        """Return another request, which differs in *changes*; TypeError for what it has not."""
        return SpawnSpec(**{**self._fields(), **changes})

    def _fields(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __eq__(self, other: object) -> bool:
        """Whether the same is asked for."""
        return self._fields() == other._fields() if isinstance(other, SpawnSpec) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it may be changed while it is made

    def __repr__(self) -> str:
        """As one would write it."""
        fields = self._fields().items()
        return f"SpawnSpec({', '.join(f'{name}={value!r}' for name, value in fields)})"


class ProcessRow(NamedTuple):
    """What the kernel says of one process of the machine (/proc/PID/stat)."""

    pid: int
    parent: int
    """Who it is a child of now: not who made it, where that one is gone."""

    group: int
    session: int
    started: int
    """When it was made, in clock ticks since the machine was: with the pid, it is no other's."""

    state: str
    """``R``, ``S``, ``D``, ``T``, ``Z`` ...: that of its first thread."""

    threads: int

    @property
    def is_alive(self) -> bool:
        """Whether it may still do something. Of a zombie, its first thread alone may have ended."""
        return self.state not in "ZX" or self.threads > 1


class ResourceUsage(NamedTuple):
    """What the kernel accounted to one reaped child and its own reaped children (getrusage(2))."""

    user_s: float = 0.0
    system_s: float = 0.0
    max_rss_bytes: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    block_reads: int = 0
    block_writes: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0


class ExitStatus(NamedTuple):
    """How one child ended.

    Exactly one of *code* and *signal* is set; both are None when other code in this process took
    the status first (it called wait on the pid, or SIGCHLD is ignored) and the kernel, before
    Linux 6.15, no longer tells; and where a sandbox denies waitid(2).
    """

    code: int | None = None
    signal: int | None = None
    core_dumped: bool = False
    raw: int | None = None
    """The status word of wait(2), or None when it was lost."""

    usage: ResourceUsage = ResourceUsage()

    @property
    def ok(self) -> bool:
        """Whether the child ended by itself, with code 0."""
        return self.code == 0
