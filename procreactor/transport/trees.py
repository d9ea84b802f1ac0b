"""What comes of a command, all of it: the processes that it starts, and those that they start.

A `Forest` has the trees of many commands. `plant` gives a request back as it is to be started;
when the leader, which is the command itself, has ended and its owner has reaped it, the tree is
harvested. Between, and after, it can be signalled and killed, whoever left the leader's group or
session, forked twice, or goes on after the leader.

Two ways:

- **cgroup** (kernel/cgroups.py): each tree has a group of its own, which it is born into. The
  groups are used again, but for killed ones: a command that ends with nobody left gives its own
  back, which two system calls find out, so nothing is made or removed per command.
- **session** (transport/hunt.py): the command is started in a session of its own, with a token in
  its environment. Nothing is done unless the tree is to be signalled: then /proc is searched.

In both, a tree whose leader has ended by itself may go on, as it may in a shell: a daemon, a job in
the background. It is left alone: its group is set aside until nobody is in it, and at `close` those
that are go on in the group of this process. `kill` kills all, looks whether it has, and says so.

Where a group cannot be had for a moment (EMFILE, ENOSPC), and no limits are asked for, that command
goes by its session. After os.fork the copy has no trees: ChildProcessError, and `close` leaves the
original's alone. Any thread may call, each tree from one at a time.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from procreactor.errors import report_survivors, spawn_error
from procreactor.kernel import cgroups, children, processes
from procreactor.kernel.cgroups import Cgroup, CgroupId, Home
from procreactor.kernel.children import Child
from procreactor.model import SpawnSpec
from procreactor.transport.hunt import Hunt
from procreactor.transport.kinship import VARIABLE, inherited_tokens
from procreactor.transport.request import plan_int

__all__ = ["PATIENCE_S", "WAYS", "Forest", "Tree", "TreeLimits", "signal_tree"]

WAYS = ("cgroup", "session")

PATIENCE_S = 2.0
"""How long a kill waits for what is killed to end. What the kernel holds (a disk, a file system
over the network) cannot be waited for."""

_CPU_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000  # of cpu.max
_MOST = (1 << 63) - 1


class TreeLimits:
    """What one tree may use at most, all its processes together; None: what this process may.

    *memory_bytes* is memory.max: swap comes on top, and who needs more is killed. *pids* is how
    many processes and threads there may be. *cpus* is in CPUs: 0.5, or 2. TypeError, ValueError.
    """

    __slots__ = ("files",)

    def __init__(
        self,
        memory_bytes: int | None = None,
        pids: int | None = None,
        cpus: float | None = None,
    ) -> None:
        self.files: dict[str, str] = {}
        """The files of a cgroup, and what is to be in each; empty without limits."""

        if memory_bytes is not None:
            self.files["memory.max"] = str(plan_int(memory_bytes, "memory_bytes", 1, _MOST))
        if pids is not None:
            self.files["pids.max"] = str(plan_int(pids, "pids", 1, _MOST))
        if cpus is not None:
            self.files["cpu.max"] = f"{round(_plan_cpus(cpus) * _CPU_PERIOD_US)} {_CPU_PERIOD_US}"

    @property
    def controllers(self) -> list[str]:
        """The controllers that they need."""
        return [name.partition(".")[0] for name in self.files]


def _plan_cpus(cpus: object) -> float:
    least = _LEAST_QUOTA_US / _CPU_PERIOD_US
    if not isinstance(cpus, int | float) or isinstance(cpus, bool):
        raise TypeError(f"cpus must be a number of CPUs, at least {least}, not {cpus!r}")
    if not least <= cpus <= 1e6:
        raise ValueError(f"cpus must be from {least} to 1000000, not {cpus!r}")
    return cpus


class Tree:
    """The processes that come of one command. *spec* is how the command is to be started.

    *leader_pid* is everywhere the command's pid, while nobody has reaped it, and its owner does not
    meanwhile (`Child.pid_while_ours`); after that None.
    """

    __slots__ = ("_forest", "spec")

    is_cgroup = False
    """Whether it can be killed whoever its leader is, or before it has one."""

    def __init__(self, forest: Forest, spec: SpawnSpec) -> None:
        self._forest = forest
        self.spec = spec

    def members(self, leader_pid: int | None) -> list[int]:
        """Return the pids of all that are alive; no zombies. OSError where nobody can look."""
        raise NotImplementedError

    def signal(self, number: int, leader_pid: int | None) -> int:
        """Send signal *number* to all; return how many took it. OSError: EINVAL, EPERM for all."""
        raise NotImplementedError

    def kill(self, leader_pid: int | None, patience_s: float = PATIENCE_S) -> bool:
        """Kill all; return whether nobody is alive then, at the latest after *patience_s*."""
        raise NotImplementedError

    def report_survivors(self, leader_pid: int | None) -> None:
        """Log who is alive, after a `kill` that was not enough."""
        _report_those_of(partial(self.members, leader_pid))

    def _harvest(self) -> None:
        raise NotImplementedError


class _GroupTree(Tree):
    __slots__ = ("_group",)

    is_cgroup = True

    def __init__(self, forest: Forest, spec: SpawnSpec, group: Cgroup) -> None:
        self._forest = forest  # and no call of Tree's: one is made per command
        self.spec = spec
        spec.cgroup_fd = group.fd
        spec.cgroup_may_freeze = forest.may_be_frozen
        self._group: Cgroup | None = group

    def members(self, leader_pid: int | None) -> list[int]:
        self._forest.check_owner()
        return self._group.members() if self._group is not None else []

    def signal(self, number: int, leader_pid: int | None) -> int:
        self._forest.check_owner()
        return len(self._group.signal(number)) if self._group is not None else 0

    def kill(self, leader_pid: int | None, patience_s: float = PATIENCE_S) -> bool:
        self._forest.check_owner()
        return self._group.kill(patience_s) if self._group is not None else True

    def _harvest(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            self._forest._take_back(group)


class _SessionTree(Tree):
    __slots__ = ("_token",)

    def __init__(self, forest: Forest, spec: SpawnSpec, token: bytes) -> None:
        super().__init__(forest, spec)
        self._token = token

    def _hunt(self, leader_pid: int | None) -> Hunt:
        self._forest.check_owner()
        leads = self.spec.process_group is None
        return Hunt(leader_pid, self._token, since=self._forest.planted_since, leads=leads)

    def members(self, leader_pid: int | None) -> list[int]:
        return self._hunt(leader_pid).members()

    def signal(self, number: int, leader_pid: int | None) -> int:
        return self._hunt(leader_pid).signal(number)

    def kill(self, leader_pid: int | None, patience_s: float = PATIENCE_S) -> bool:
        return self._hunt(leader_pid).kill(patience_s)

    def _harvest(self) -> None:
        pass


class _Tokens:
    """Environments with a token, one per tree, made of one that mostly stays the same."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._random = os.urandom(8).hex().encode("ascii")
        self._own = os.environb.get(VARIABLE)
        self._last: tuple[Sequence[bytes], tuple[tuple[bytes, ...], bytes]] = ((), ((), b""))
        self._last = ((), self._split(()))

    def _split(self, rows: Sequence[bytes]) -> tuple[tuple[bytes, ...], bytes]:
        others, value = inherited_tokens(rows)
        outer = self._own if value is None else value  # found by who runs us, whatever env is given
        prefix = outer + b":" if outer else b""
        return others, VARIABLE + b"=" + prefix

    def next(self, rows: Sequence[bytes]) -> tuple[tuple[bytes, ...], bytes]:
        """Return *rows* with a new token, and the token."""
        last = self._last
        if last[0] is not rows:
            last = (rows, self._split(rows))
            if type(rows) is tuple:
                self._last = last
        others, begin = last[1]
        token = b"%s-%d" % (self._random, next(self._numbers))
        return (*others, begin + token), token


class Forest:
    """The trees of many commands; `close` it in any case.

    *limits* are each tree's own: SpawnError where they are not possible. *way* None is the best
    that can be had, for which nothing is asked before the first tree; "cgroup": SpawnError without.
    """

    def __init__(self, *, limits: TreeLimits | None = None, way: str | None = None) -> None:
        if way is not None and way not in WAYS:
            raise ValueError(f"way must be one of {', '.join(WAYS)} or None, not {way!r}")
        self._limits = limits.files if limits is not None else {}
        if self._limits and way == "session":
            raise ValueError("limits need a cgroup for each tree: leave out way='session'")
        self._pid = os.getpid()
        self._owner = children.this_process
        self._is_open = True
        self._lock = threading.Lock()
        self._growing: set[Tree] = set()
        self._free: deque[Cgroup] = deque()
        self._aside: deque[str] = deque()  # groups that are not used again, until they are empty
        self._tokens = _Tokens()
        self.planted_since = processes.ticks_now() - 1
        """No process of these trees was made before, in ticks."""

        self._home: Home | None = None
        self.may_be_frozen = False
        """Whether others may freeze the groups, and not this process with them."""

        self._way = way
        if way == "cgroup" or self._limits:
            self._settle(cgroups.open_home(limits.controllers if limits is not None else []))
            self._way = "cgroup"

    @property
    def way(self) -> str:
        """How trees are kept together: one of `WAYS`. Makes the directory of the groups."""
        way = self._way
        if way is None:
            with self._lock:
                self._way = way = self._way or self._choose_way()
        return way

    def _choose_way(self) -> str:
        if "clone3" not in children.in_use():
            return "session"  # to enter a group by hand costs more than a short command does
        try:
            self._settle(cgroups.open_home())
        except OSError as refusal:
            # Of what passes, one command more is not worth to ask again: it is asked per forest.
            del refusal
            return "session"
        return "cgroup"

    def _settle(self, home: Home) -> None:
        self._home = home
        self.may_be_frozen = not home.freezes_with_us()

    def check_owner(self) -> None:
        """Raise ValueError once closed, ChildProcessError in a forked copy of the process."""
        if self._pid != os.getpid():
            raise ChildProcessError(errno.ECHILD, "the trees are those of another process")
        if not self._is_open:
            raise ValueError("the forest is closed")

    def plant(self, spec: SpawnSpec) -> Tree:
        """Return a tree whose leader is to be started by *spec*, which is the tree's, and changed.

        SpawnError (EMFILE, ENOSPC ...) where limits are asked for and no group is to be had.
        """
        if not self._is_open or self._owner is not children.this_process:  # and no system call
            self.check_owner()
        way = self._way or self.way
        by_group = way == "cgroup" and spec.cgroup_fd < 0  # else it is to be in another
        group = self._take_group() if by_group else None
        tree: Tree
        if group is not None:
            tree = _GroupTree(self, spec, group)
        else:
            spec.env, token = self._tokens.next(spec.env)
            if spec.process_group is None:
                spec.new_session = True
            tree = _SessionTree(self, spec, token)
        self._growing.add(tree)
        return tree

    def harvest(self, tree: Tree) -> None:
        """Tell that the leader of *tree* is reaped, or was never started. Idempotent.

        Who is left goes on, and can be reached no more; unless it was killed before.
        """
        if self._owner is children.this_process:
            self._growing.discard(tree)
            tree._harvest()

    # -- the groups -----------------------------------------------------------------------------

    def _take_group(self) -> Cgroup | None:
        try:
            return self._free.pop()
        except IndexError:
            pass
        self._sweep()
        assert self._home is not None
        try:
            return self._home.new_group(self._limits)
        except OSError as error:
            if self._limits:
                raise spawn_error(error.errno or 0, "cgroup", self._home.path) from None
            return None

    def _take_back(self, group: Cgroup) -> None:
        if not self._is_open or not group.is_as_new():
            group.close()
            self._aside.append(group.path)
        else:
            self._free.append(group)

    def shed(self) -> None:
        """Let go of the fds of groups that are ready to be used again."""
        while True:
            try:
                group = self._free.pop()
            except IndexError:  # in one step with the question: any thread may take the last one
                return
            group.close()
            self._aside.append(group.path)

    def _sweep(self) -> None:
        """Remove the groups set aside in which nobody is left; look at a few."""
        for _ in range(min(4, len(self._aside))):
            try:
                path = self._aside.popleft()
            except IndexError:
                return
            if not cgroups.remove(path):
                self._aside.append(path)

    def close(self) -> None:
        """Kill the trees that were not harvested; leave no group and no fd. Idempotent.

        Who went on after a leader that was reaped goes on, in the group of this process. Blocks for
        as long as what is killed takes to end, and not much longer than `PATIENCE_S`.
        """
        if self._pid != os.getpid():  # asked of the kernel: a hook may have failed, and it kills
            self._abandon()
            return
        end_s = time.monotonic() + PATIENCE_S
        while self._growing:
            tree = next(iter(self._growing))
            if self._is_open:
                tree.kill(None, max(0.1, end_s - time.monotonic()))
            self._growing.discard(tree)
            tree._harvest()
        self._is_open = False
        self._remove_groups(end_s)
        processes.reap_strays()

    def _remove_groups(self, end_s: float) -> None:
        while self._free:
            self._free[-1].close()
            self._free.pop()
        home = self._home
        if home is None:
            return
        for path in home.groups():
            if not cgroups.remove(path):
                _let_go(path, home.own, max(0.1, end_s - time.monotonic()))
        home.close()
        self._home = None
        self._aside.clear()

    def _abandon(self) -> None:
        """Close the fds of a forked copy."""
        self._is_open = False
        while self._free:
            self._free.pop().close()
        for tree in self._growing:
            if isinstance(tree, _GroupTree) and tree._group is not None:
                tree._group.close()
        self._growing.clear()
        if self._home is not None:
            self._home.abandon()

    def __del__(self) -> None:
        if hasattr(self, "_home") and self._is_open:
            self.close()


def _let_go(path: str, into: str, patience_s: float) -> None:
    """Move who is in the group at *path* to that at *into*."""
    try:
        group = Cgroup(path)
    except OSError:
        return  # gone, or there is no fd to be had: it is left to the next one who tidies up
    try:
        group.evacuate(into, patience_s)
    finally:
        group.close()


# --- trees that nobody has planted ----------------------------------------------------------------


def _report_those_of(members: Callable[[], list[int]]) -> None:
    """Log *members* as survivors; nothing where nobody can look (no /proc, no fd)."""
    try:
        alive = members()
    except OSError:
        return
    report_survivors(alive)


def signal_tree(child: Child, number: int, cgroup: CgroupId | None = None) -> None:
    """Send signal *number* to *child* and to all that descends from it, once to each.

    With the *cgroup* that it was started in, to all that are in there, if it is there still, and
    unless it is this process's own. With SIGKILL, return when all have ended, or after
    `PATIENCE_S`; who is alive then is logged. ProcessLookupError when there is nobody; OSError
    (EINVAL, EPERM).
    """
    reached = _signal_group(cgroup, number) if cgroup is not None else {}
    pid = child.pid_while_ours
    if pid is not None:
        hunt = Hunt(pid)
        if number == signal.SIGKILL:
            if not hunt.kill(PATIENCE_S):
                _report_those_of(hunt.members)
        elif not hunt.signal(number, reached) and not reached:
            child.send_signal(number)  # a zombie that is not reaped, or there is no /proc
    elif not reached:
        raise ProcessLookupError(errno.ESRCH, "there is nobody left")


def _signal_group(identity: CgroupId, number: int) -> dict[int, int]:
    """Return who took it, as `Cgroup.signal`; of those who are killed it is not told since when."""
    try:
        group = identity.open()
    except OSError:
        return {}
    try:
        members = group.members()
        if os.getpid() in members:
            return {}
        if number == signal.SIGKILL:
            if not group.kill(PATIENCE_S):
                _report_those_of(group.members)
            return dict.fromkeys(members, 0)
        return group.signal(number)
    finally:
        group.close()
