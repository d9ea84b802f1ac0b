"""Control groups, version 2: processes that the kernel keeps together, whatever they do.

Facts (cgroups(7), the kernel's admin-guide/cgroup-v2):

- A fork is born into the group of its parent, and neither setsid nor a second fork gets it out:
  only a process with the right to write to another group's cgroup.procs leaves. So a group that a
  child was born into (CLONE_INTO_CGROUP) has all that ever descends from it.
- ``1`` in cgroup.kill (Linux 5.14) is SIGKILL to all, those that are being forked included. Before,
  they are frozen (5.2), killed one by one, and thawed: who is frozen forks nobody.
- A group in which cgroup.kill was written once is spent: kernels that count the kills (6.14, and
  older ones with that fix) compare the count of the group of the parent with that of the group that
  the child is born into, and kill the child at once where they differ. So it is not used again.
- cgroup.kill may pass by a process whose first thread has ended while others go on. A signal to its
  pidfd does not: who is left a moment after is signalled.
- ``populated`` in cgroup.events tells whether a process lives in the group or below. Zombies do not
  count. poll(2) tells its changes, after up to 10 ms where there are many.
- A group may be made where this process may make a directory: by root, below a group that was
  delegated (systemd's Delegate=yes, and all of a user's services), and nowhere else. And one may
  put a process into it who may write to cgroup.procs of the group that both lie in.
- cgroup2 may be mounted beside version 1; what is mounted may be a part of the whole; and a
  process may be in a group outside of that part.
- A limit needs its controller: in cgroup.controllers, so not taken by version 1, and in the
  cgroup.subtree_control of each group above. There it cannot be put while that group has processes
  of its own (EBUSY), except at the very root. So a process in a group of its own below a delegated
  one can have limits for its children beside itself, and one right in the delegated group cannot.
- mkdir, rmdir and two opens cost more than a short command does: groups are for using again.
- The kernel looks at the inode of cgroup.procs at each birth into a group, for the right to write.
  Where nobody has ever looked that file up, it makes the inode, and throws it away, each time.
- A group that was removed may be made again under its name, and is another one. An fd of its
  directory, and a path from there, never lead to that one; and it has another inode, whose number
  is not given again soon.

Where: below the group of this process, in a directory ``procreactor-PID-RANDOM`` that its owner
holds a lock of (flock(2)) for as long as it lives. One without a lock is what a killed process has
left; who makes the next one there removes it. PROCREACTOR_CGROUP names another group to make it in,
one without processes of its own.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import select
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from procreactor.core import binding
from procreactor.errors import SpawnError, spawn_error
from procreactor.kernel import processes
from procreactor.kernel.fds import Fds, is_shortage, read_file
from procreactor.model import ProcessRow
from procreactor.typed import NamedTuple

__all__ = [
    "Cgroup",
    "CgroupId",
    "Home",
    "find_directory",
    "identify",
    "is_disabled",
    "open_home",
    "remove",
]

_PREFIX = "procreactor-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 32
"""So many pidfds are open at once while a group is signalled."""

_FEW = 4
"""So many groups of one home have fds with the lowest numbers: for the first high one the kernel
makes a larger table, and waits some milliseconds."""

_ROUNDS = 16
"""How often a group is looked at for processes that were forked while it was signalled."""

_FREEZE_S = 0.1
"""How long a freeze may take: who waits for a disk holds it up, and need not be waited for."""

_MOMENT_S = 0.02
"""For those that cgroup.kill has killed to end, before who is left is signalled."""

_TRIES = 8
"""Of making a home: between mkdir and the lock another process may take it for a left one."""

_NO_GROUP = (
    "no group can be made there; `systemd-run --user --scope -p Delegate=yes` gives one where it"
    " can, and PROCREACTOR_CGROUP may name another"
)

_FOR_GOOD = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EOPNOTSUPP)
"""What will not pass: there is no mount, or no right. ENOSPC, EAGAIN and EMFILE may."""


def find_directory(mountinfo: str, cgroups: str) -> str | None:
    """Return the directory of the cgroup v2 that a process is in, or None where it has none.

    *mountinfo* and *cgroups* are the texts of /proc/PID/mountinfo and /proc/PID/cgroup.
    """
    name = next((line[3:] for line in cgroups.splitlines() if line.startswith("0::")), None)
    if name is None or name.endswith(" (deleted)"):
        return None
    for root, mounted_at in _mounts(mountinfo):
        inside = _below(name, root)
        if inside is not None:
            return os.path.normpath(f"{mounted_at}/{inside}")
    return None


def _mounts(mountinfo: str) -> Iterator[tuple[str, str]]:
    """Yield (which part, where it is mounted) of cgroup v2."""
    for line in mountinfo.splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            root, mounted_at = fields.split(" ")[3:5]
            yield _unescape(root), _unescape(mounted_at)


def _unescape(text: str) -> str:
    """Blanks and the like are octal there, as in getmntent(3)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _below(name: str, root: str) -> str | None:
    """Return *name* as seen from *root*, None for one that lies outside."""
    if ".." in name.split("/") or ".." in root.split("/"):
        return None  # outside of this process's cgroup namespace
    if root == "/":
        return name
    return name[len(root) :] if f"{name}/".startswith(f"{root}/") else None


class CgroupId(NamedTuple):
    """A group and no other, without an fd that holds it."""

    path: str
    device: int
    inode: int

    def open(self) -> Cgroup:
        """Return the group, to be closed by the caller; OSError (ENOENT: it is no more)."""
        group = Cgroup(self.path)
        facts = os.fstat(group.fd)
        if (facts.st_dev, facts.st_ino) != (self.device, self.inode):
            group.close()
            raise FileNotFoundError(errno.ENOENT, "another cgroup has its name", self.path)
        return group


def identify(fd: int) -> CgroupId | None:
    """Return which group the directory *fd* is; None where that cannot be told: no /proc, say."""
    try:
        facts = os.fstat(fd)
        return CgroupId(os.readlink(f"/proc/self/fd/{fd}"), facts.st_dev, facts.st_ino)
    except OSError:
        return None


class Cgroup:
    """The group whose directory is *path*; owns two fds until `close`.

    *at_once* False: kill without cgroup.kill, as before Linux 5.14. *is_one_of_many*: its fds get
    high numbers (`Fds.open_high`).
    """

    __slots__ = ("_at_once", "_events_fd", "_fds", "fd", "is_spent", "path")

    def __init__(self, path: str, *, at_once: bool = True, is_one_of_many: bool = False) -> None:
        self._fds = Fds()
        open_fd = self._fds.open_high if is_one_of_many else self._fds.open
        self.path = path
        self._at_once = at_once
        self.is_spent = False
        """Whether who is born into it may be killed at once, see above."""

        try:
            self.fd = open_fd(os.open, path, _DIRECTORY)
            inside = partial(os.open, dir_fd=self.fd)
            self._events_fd = open_fd(inside, "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self._fds.close()
            raise

    def is_populated(self) -> bool:
        """Whether a process lives in it or below; one system call."""
        return b"populated 1" in self._events()

    def is_as_new(self) -> bool:
        """Whether another may be born into it: nobody is there, nor what who was has left.

        Who has the right to may freeze it, make groups below it, or remove it.
        """
        return not self.is_spent and binding.cgroup_is_as_new(self.fd, self._events_fd)

    def _events(self) -> bytes:
        try:
            return os.pread(self._events_fd, 256, 0)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return b""  # somebody has removed it, which can be done to an empty one only

    def wait_empty(self, timeout_s: float) -> bool:
        """Return whether no process lives in it or below, at the latest after *timeout_s*."""
        poller = select.poll()
        poller.register(self._events_fd, select.POLLPRI)
        end_s = time.monotonic() + timeout_s
        pause_ms = 1
        while self.is_populated():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            poller.poll(min(left_s * 1000 + 1, pause_ms))  # it may be told late, see above
            pause_ms = min(2 * pause_ms, 10)
        return True

    def members(self) -> list[int]:
        """Return the processes in it and below; of another pid namespace's, none.

        OSError where there is no fd to be had to look, or no memory.
        """
        try:
            return _read_all_members(".", self.fd)
        except RecursionError:  # a child that means harm has made a thousand in each other
            raise OSError(errno.ENOMEM, "too many groups in each other", self.path) from None

    def signal(self, number: int) -> dict[int, int]:
        """Send signal *number* to every process in it and below; return whom it reached.

        By pid, when each was started, in ticks; 0 where there is no /proc to tell. In the order of
        `members`, which is the kernel's: a parent before its children, so a shell that is ended
        does not see its command end first, and goes on with the next. Also to those that are forked
        meanwhile, as long as they do not outrun us. OSError: EINVAL, EPERM when it is so for all of
        them, and as for `members`.
        """
        sent: dict[int, int] = {}
        refused: OSError | None = None
        seen: set[int] = set()
        for _ in range(_ROUNDS):
            new = [pid for pid in self.members() if pid not in seen]
            seen.update(new)
            if not new:
                break
            for at in range(0, len(new), _CHUNK):
                try:
                    sent.update(self._signal_some(new[at : at + _CHUNK], number))
                except PermissionError as error:
                    refused = error
        if refused is not None and not sent:
            raise refused
        return sent

    def _signal_some(self, pids: Sequence[int], number: int) -> dict[int, int]:
        """A pidfd first, then a look whether the number is still in the group, then the signal."""
        sent = {}
        refused: OSError | None = None
        fds = Fds()
        pidfds: dict[int, int] = {}
        rows: dict[int, ProcessRow | None] = {}
        try:
            for pid in pids:
                try:
                    pidfds[pid] = fds.open(os.pidfd_open, pid)
                except ProcessLookupError:
                    continue
                except OSError:  # a sandbox: by number, if it is still that of who was in the group
                    pidfds[pid] = -1
                rows[pid] = processes.read_row(pid)
            here = set(self.members())
            for pid in pidfds:
                if pid not in here:
                    continue
                row = rows[pid]
                try:
                    if row is not None and pidfds[pid] < 0:
                        processes.check_row(row)
                    binding.send_signal(pidfds[pid], pid, number)
                    sent[pid] = row.started if row is not None else 0
                except ProcessLookupError:
                    pass
                except PermissionError as error:
                    refused = error
        finally:
            fds.close()
        if refused is not None and not sent:
            raise refused
        return sent

    def kill(self, timeout_s: float) -> bool:
        """Kill all in it and below; return whether they have ended within *timeout_s*."""
        end_s = time.monotonic() + timeout_s
        at_once = self._at_once and self._kill_at_once()
        if at_once and self.wait_empty(min(timeout_s, _MOMENT_S)):
            return True
        self._kill_each(end_s)
        return self.wait_empty(end_s - time.monotonic())

    def _kill_at_once(self) -> bool:
        if not self.is_populated():
            return True  # and is as good as new
        self.is_spent = True
        try:
            _write("cgroup.kill", "1", self.fd)
        except OSError:
            return False
        return True

    def _kill_each(self, end_s: float) -> None:
        try:
            self._freeze()
            while self.is_populated() and time.monotonic() < end_s:
                try:
                    self.signal(signal.SIGKILL)
                except OSError as error:
                    if not is_shortage(error):
                        break
                self.wait_empty(0.01)
        finally:
            self._thaw()

    def _freeze(self) -> None:
        """Have nobody in it run; return when nobody does, or when it takes too long."""
        try:
            _write("cgroup.freeze", "1", self.fd)
        except OSError:
            return  # before Linux 5.2
        end_s = time.monotonic() + _FREEZE_S
        poller = select.poll()
        poller.register(self._events_fd, select.POLLPRI)
        while b"frozen 0" in self._events() and time.monotonic() < end_s:
            poller.poll(1)

    def _thaw(self) -> None:
        try:
            _write("cgroup.freeze", "0", self.fd)
        except OSError:
            pass

    def set_limits(self, values: Mapping[str, str]) -> None:
        """Write each value to its file (``memory.max`` ...). OSError."""
        for name, value in values.items():
            _write(name, value, self.fd)

    def evacuate(self, into: str, timeout_s: float) -> bool:
        """Move all that live in it and below to the group at *into*; return whether it is empty."""
        end_s = time.monotonic() + timeout_s
        while self.is_populated():
            try:
                self._move_all(into)
            except OSError:
                return False
            if time.monotonic() > end_s:
                return False
        return True

    def _move_all(self, into: str) -> None:
        for pid in self.members():
            try:
                _write(f"{into}/cgroup.procs", str(pid))
            except ProcessLookupError:
                pass

    def close(self) -> None:
        """Close the fds. Idempotent."""
        self.fd = self._events_fd = -1
        self._fds.close()

    def __del__(self) -> None:
        if hasattr(self, "_fds"):
            self._fds.close_forgotten()


def _raise(error: OSError) -> None:
    """For os.walk, which would leave out what it cannot open."""
    raise error


def _read_all_members(name: str, folder_fd: int) -> list[int]:
    """Return who is in a group, and in those that a child with the right to has made below."""
    fds = Fds()
    try:
        fd = fds.open(partial(os.open, dir_fd=folder_fd), name, _DIRECTORY)
        found = _read_members(fd)
        with os.scandir(fd) as entries:
            below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for one in below:
            found += _read_all_members(one, fd)
        return found
    except OSError as error:
        if is_shortage(error):
            raise
        return []  # removed by now
    finally:
        fds.close()


def _read_members(folder_fd: int) -> list[int]:
    try:
        text = read_file("cgroup.procs", folder_fd)
    except OSError as error:
        if is_shortage(error):
            raise
        return []  # removed by now, or for threads alone
    return [int(pid) for pid in text.split() if pid != b"0"]


def _write(path: str, text: str, folder_fd: int | None = None) -> None:
    fds = Fds()
    try:
        fd = fds.open(partial(os.open, dir_fd=folder_fd), path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, text.encode("ascii"))
    finally:
        fds.close()


def remove(path: str) -> bool:
    """Remove a group and what is below, if nobody lives there; return whether it is gone."""
    try:
        for folder, _, _ in os.walk(path, topdown=False, onerror=_raise):
            os.rmdir(folder)
    except OSError:
        return not os.path.exists(path)
    return True


class Home:
    """A directory of this process's own, *path*, for groups; `close` it. *own* is its own group.

    *lock* is the fd that holds the lock of it.
    """

    def __init__(self, path: str, own: str, lock: Fds) -> None:
        self.path = path
        self.own = own
        self._fds = lock
        self._numbers = itertools.count()

    def freezes_with_us(self) -> bool:
        """Whether who freezes one of the groups could as well freeze, or stop, this process.

        The groups are this user's, so it takes him, root, or who may freeze a group above; and each
        group above is one of this process's, too, unless PROCREACTOR_CGROUP says where.
        """
        return f"{self.own}/".startswith(f"{os.path.dirname(self.path)}/")

    def new_group(self, limits: Mapping[str, str] | None = None) -> Cgroup:
        """Return a new, empty group with *limits*, as for `Cgroup.set_limits`; OSError."""
        number = next(self._numbers)
        path = f"{self.path}/{number}"
        os.mkdir(path)
        group = None
        try:
            group = Cgroup(path, is_one_of_many=number >= _FEW)
            os.path.exists(f"{path}/cgroup.procs")  # births are some 4 us faster, see above
            group.set_limits(limits or {})
        except BaseException:
            if group is not None:
                group.close()
            remove(path)
            raise
        return group

    def groups(self) -> list[str]:
        """Return the paths of all groups there; of none where there is no fd to be had to look."""
        try:
            with os.scandir(self.path) as entries:
                return [entry.path for entry in entries if entry.is_dir()]
        except OSError:
            return []

    def close(self) -> bool:
        """Remove the directory and all groups that nobody lives in; return whether it is gone.

        Idempotent.
        """
        for path in self.groups():
            remove(path)
        gone = remove(self.path)
        self.abandon()
        return gone

    def abandon(self) -> None:
        """Close the fd, and leave the directory to whose it is: in a forked copy. Idempotent."""
        self._fds.close()

    def __del__(self) -> None:
        if hasattr(self, "_fds"):
            self._fds.close_forgotten()


# --- where a home can be --------------------------------------------------------------------------


class _Refused:
    """Under which circumstances a home was refused for good, and how: it is not tried again."""

    last: tuple[tuple[object, ...], tuple[int, str | None, str]] | None = None


def is_disabled() -> bool:
    """Whether PROCREACTOR_DISABLE has ``cgroup``."""
    names = os.environ.get("PROCREACTOR_DISABLE", "").split(",")
    return "cgroup" in (name.strip() for name in names)


def open_home(controllers: Collection[str] = ()) -> Home:
    """Return a new home, whose groups can be limited by each of *controllers*.

    SpawnError, with what it was that is not possible, why, and what to do.
    """
    if is_disabled():
        raise _refusal(errno.EOPNOTSUPP, controllers, None, "PROCREACTOR_DISABLE has cgroup")
    cgroups = _read("/proc/self/cgroup")
    now = (os.geteuid(), cgroups, os.environ.get("PROCREACTOR_CGROUP"))
    last = _Refused.last
    if last is not None and last[0] == now and not controllers:
        number, path, hint = last[1]
        raise _refusal(number, (), path, hint)
    try:
        return _find_home(cgroups, controllers)
    except SpawnError as error:
        if not controllers and error.errno in _FOR_GOOD:
            _Refused.last = now, (error.errno, error.filename, error.hint)
        raise


def _find_home(cgroups: str, controllers: Collection[str]) -> Home:
    own = find_directory(_read("/proc/self/mountinfo"), cgroups)
    if own is None:
        raise _refusal(errno.ENOENT, controllers, None, "there is no cgroup v2 to be seen here")
    parent, *others = _parents(own, bool(controllers))
    try:
        return _make_home(parent, own, cgroups, controllers)
    except SpawnError:
        for other in others:
            try:
                return _make_home(other, own, cgroups, controllers)
            except SpawnError:
                pass  # the first one has the better reason
        raise


def _refusal(number: int, controllers: Collection[str], path: str | None, hint: str) -> SpawnError:
    what = f"{', '.join(sorted(controllers))} limit" if controllers else "cgroup"
    return spawn_error(number, what, path, hint)


def _read(path: str) -> str:
    """Return what the file says, or nothing for one that is not to be read; SpawnError (EMFILE)."""
    try:
        return os.fsdecode(read_file(path))
    except OSError as error:
        if is_shortage(error):
            raise spawn_error(error.errno or 0, "cgroup", path) from None
        return ""


def _parents(own: str, for_limits: bool) -> list[str]:
    """Where to try, in this order."""
    given = os.environ.get("PROCREACTOR_CGROUP")
    if given:
        return [given]
    above = os.path.dirname(own)
    # Another's group may be writable too, for root: but what is put there leaves ours, and with it
    # the reach of who stops the service. Where the one above was given to us, it does not.
    return [own, above] if for_limits and _was_delegated(above) else [own]


def _was_delegated(path: str) -> bool:
    """Whether systemd has marked the group as one that its unit may do with as it likes."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            pass
    return False


def _make_home(parent: str, own: str, cgroups: str, controllers: Collection[str]) -> Home:
    _check_controllers(parent, cgroups, controllers)
    _tidy(parent)
    path, lock = _make_locked(parent, controllers)
    try:
        _enable(path, controllers)
        _check_use(path, own, controllers)
        return Home(path, own, lock)
    except BaseException:
        lock.close()
        remove(path)
        raise


def _make_locked(parent: str, controllers: Collection[str]) -> tuple[str, Fds]:
    """Return a new directory below *parent*, and its lock; SpawnError."""
    for _ in range(_TRIES):
        path = f"{parent}/{_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
        lock = Fds()
        try:
            _make_directory(path, parent, controllers)
            if _lock(path, lock) and os.path.exists(path):
                return path, lock
        except SpawnError:
            raise  # there is no directory
        except OSError as error:  # EMFILE, say
            lock.close()
            remove(path)
            raise _refusal(error.errno or 0, controllers, path, "") from None
        except BaseException:
            lock.close()
            remove(path)
            raise
        lock.close()
    raise _refusal(errno.EAGAIN, controllers, parent, "others remove it as soon as it is made")


def _make_directory(path: str, parent: str, controllers: Collection[str]) -> None:
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        raise _refusal(error.errno or 0, controllers, parent, _NO_GROUP) from None


def _lock(path: str, fds: Fds) -> bool:
    """Have *fds* hold the lock of a directory; return False where another does, or it is gone."""
    try:
        fd = fds.open(os.open, path, _DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_controllers(parent: str, cgroups: str, controllers: Collection[str]) -> None:
    """Each is there, and is on for the groups below *parent*; SpawnError."""
    there = _read(f"{parent}/cgroup.controllers").split()
    for controller in controllers:
        if controller in there:
            continue
        if controller in _first_version(cgroups):
            why = (
                f"this machine has the {controller} controller in cgroup version 1; it is in"
                f" version 2 when booted with systemd.unified_cgroup_hierarchy=1, or"
                f" cgroup_no_v1={controller}"
            )
        else:
            why = (
                f"the {controller} controller is not given to this group; systemd's Delegate="
                f"{controller} gives it"
            )
        raise _refusal(errno.EOPNOTSUPP, [controller], parent, why)
    _enable(parent, controllers)


def _first_version(cgroups: str) -> set[str]:
    """The controllers of version 1, by the text of /proc/self/cgroup."""
    found: set[str] = set()
    for line in cgroups.splitlines():
        number, _, rest = line.partition(":")
        if number != "0":
            found.update(rest.partition(":")[0].split(","))
    return found


def _enable(path: str, controllers: Collection[str]) -> None:
    """Have *controllers* on for the groups below *path*; SpawnError."""
    file = f"{path}/cgroup.subtree_control"
    for controller in controllers:
        if controller in _read(file).split():
            continue
        try:
            _write(file, f"+{controller}")
        except OSError as error:
            number = error.errno or 0
            raise _refusal(number, [controller], path, _why_not_on(number)) from None


def _why_not_on(number: int) -> str:
    if number == errno.EBUSY:
        return (
            "a group with processes of its own, as this one, cannot share out what it has; start"
            " this process in a group below a delegated one (systemd's Delegate=yes with"
            " DelegateSubgroup=main), or name one without processes in PROCREACTOR_CGROUP"
        )
    return "it cannot be shared out to groups below; systemd's Delegate=yes gives the right to"


def _check_use(path: str, own: str, controllers: Collection[str]) -> None:
    """A process of ours may be born into the groups below *path*; SpawnError."""
    if "invalid" in _read(f"{path}/cgroup.type"):
        raise _refusal(
            errno.EOPNOTSUPP, controllers, path, "groups below a threaded one are for threads alone"
        )
    common = os.path.commonpath([path, own])
    if not os.access(f"{common}/cgroup.procs", os.W_OK, effective_ids=True):
        raise _refusal(
            errno.EACCES,
            controllers,
            common,
            "no process may be moved within it: cgroup.procs is not this user's",
        )


def _tidy(parent: str) -> None:
    """Remove what killed processes have left there: a home that is locked by nobody."""
    try:
        with os.scandir(parent) as entries:
            for entry in entries:
                if entry.name.startswith(_PREFIX):
                    _remove_unlocked(entry.path)
    except OSError:
        pass  # it is for tidiness only


def _remove_unlocked(path: str) -> None:
    fds = Fds()
    try:
        if not _lock(path, fds):
            return  # its owner lives
        with os.scandir(path) as folders:
            for folder in folders:
                if folder.is_dir():
                    remove(folder.path)  # unless somebody lives in it
        remove(path)
    except OSError:
        pass  # removed by its owner meanwhile, or not this user's; it keeps nobody from the others
    finally:
        fds.close()
