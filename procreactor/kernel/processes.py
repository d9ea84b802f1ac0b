"""The processes of this machine, whoever made them: who is whose, and a signal to one of them.

Facts (proc(5), pidfd_open(2), prctl(2), credentials(7)):

- /proc is read process by process, while others come and go: it is no snapshot. One that ends on
  the way is left out; one that is made may be missed.
- A number is given to another process only once nobody needs it: the process is reaped, and no
  process has it as its group's or its session's number. A pid with its start time is one process
  and no other: starts are counted in ticks of 10 ms, and no number comes again so soon.
- So a signal is sent in three steps: open a pidfd by number, look whether the number is still that
  of the process that is meant, send by the pidfd. If it was reaped on the way, the last step fails.
  Without pidfds (a sandbox) the signal goes to the number, right after the look.
- So does one to a group, before Linux 6.9: there a pidfd stands for the group of its process, too.
  A group's number is given to nobody else while one of it lives, or is a zombie; but it may be left
  by its leader, reaped, and the last of it be gone. Who signals a group by its number looks at the
  leader right before.
- A process is a zombie, by its first thread, also while other threads of it go on.
- The environment that /proc shows is that of the last exec, in the process's memory: forks have it,
  whatever they set since. To read it one needs the rights of a tracer (ptrace(2)): the same user
  and a process that is dumpable, or root.
- An orphan is given to the nearest ancestor that has asked for such (PR_SET_CHILD_SUBREAPER), else
  to init. Who asks reaps them, and they go on being his when he asks no more. Hence `Adoption`
  keeps to the time of a kill, and what came to us in that time without being meant is noted, and
  reaped later by its number: no wait(2) for any child, which would take the host's own.
- /proc may be that of another pid namespace, whose numbers mean nothing here: then we have none.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from procreactor.core import binding
from procreactor.kernel.fds import Fds, is_shortage, read_file
from procreactor.model import ProcessRow

__all__ = [
    "Adoption",
    "birth_of",
    "check_row",
    "is_child",
    "note_stray",
    "read_environment",
    "read_row",
    "read_rows",
    "reap",
    "reap_strays",
    "row_if_any",
    "signal_group",
    "signal_process",
    "ticks_now",
    "wait_for_ends",
]

_PAUSE_S = 0.002
_TO_THE_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP
_STAT_FIELDS = 20  # as far as they are of use here, of those after the name

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

_GONE = (errno.ENOENT, errno.ESRCH)


def ticks_now() -> int:
    """Return what `ProcessRow.started` is of a process that is made now."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_S)


def _check_proc() -> None:
    """OSError where there is no /proc of ours."""
    if os.readlink("/proc/self") != str(os.getpid()):
        raise FileNotFoundError(errno.ENOENT, "the /proc of another pid namespace", "/proc")


def birth_of(pid: int) -> int | None:
    """Return when *pid* was started, in ticks; None where it is gone, or nobody can look.

    OSError as for `read_row`: where there is no fd to be had to look, nothing is known.
    """
    row = row_if_any(pid)
    return row.started if row is not None else None


def row_if_any(pid: int) -> ProcessRow | None:
    """Return what `read_row` does; None also where there is no /proc of ours."""
    try:
        _check_proc()
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    return read_row(pid)


def read_rows() -> dict[int, ProcessRow]:
    """Return all processes that are to be seen, by pid. OSError where there is no /proc of ours.

    Also where there is no fd to be had, or no memory: who would be left out then is there.
    """
    _check_proc()
    rows = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            row = read_row(int(name))
            if row is not None:
                rows[row.pid] = row
    return rows


def read_row(pid: int) -> ProcessRow | None:
    """Return what is so of *pid* now, zombies included; None where there is no such process.

    OSError where there is no fd to be had to look, or no memory.
    """
    try:
        text = read_file(f"/proc/{pid}/stat")
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    # The name of the program is in parentheses, and may have anything in it.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < _STAT_FIELDS:
        return None
    parent, group, session, threads, started = (int(fields[i]) for i in (1, 2, 3, 17, 19))
    return ProcessRow(pid, parent, group, session, started, fields[0].decode("ascii"), threads)


def read_environment(pid: int) -> bytes | None:
    """Return the environment that *pid* was started with, ``K=V`` rows, each ended by NUL.

    Empty for a zombie, for one that is gone, and for a thread of the kernel; None where it is not
    for us to be read. OSError as for `read_row`.
    """
    try:
        return _read_or_nothing(f"/proc/{pid}/environ") or _read_of_other_threads(pid)
    except OSError as error:
        if is_shortage(error):
            raise
        return b"" if error.errno in _GONE else None


def _read_of_other_threads(pid: int) -> bytes:
    """Where the first thread has ended, the memory is to be reached by the others."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        environment = _read_or_nothing(f"/proc/{pid}/task/{thread}/environ")
        if environment:
            return environment
    return b""


def _read_or_nothing(path: str) -> bytes:
    """Of a thread without memory, as it has ended, newer kernels do not even open the file."""
    try:
        return read_file(path)
    except OSError as error:
        if error.errno in _GONE:
            return b""
        raise


# --- signals --------------------------------------------------------------------------------------


def _open(row: ProcessRow, fds: Fds) -> int:
    """Return a pidfd of the process of *row*, one of *fds*; -1 where there are none to be had.

    ProcessLookupError when it is gone.
    """
    try:
        pidfd = fds.open(os.pidfd_open, row.pid)
    except ProcessLookupError:
        raise
    except OSError:
        pidfd = -1
    check_row(row)
    return pidfd


def check_row(row: ProcessRow) -> None:
    """ProcessLookupError unless the process of *row* has its number still; a zombie has."""
    now = read_row(row.pid)
    if now is None or now.started != row.started:
        raise ProcessLookupError(errno.ESRCH, "it has ended")


def signal_process(row: ProcessRow, number: int) -> bool:
    """Send signal *number* to the process of *row*; return whether it was there to take it.

    OSError: EPERM (another user's), EINVAL (no such signal), and as for `read_row`.
    """
    return _send(row, number, binding.send_signal)


def signal_group(row: ProcessRow, number: int) -> bool:
    """Send signal *number* to the group that the process of *row* leads; as `signal_process`.

    One that has ended and is not reaped leads it still.
    """
    return _send(row, number, _send_to_group)


def _send(row: ProcessRow, number: int, send: Callable[[int, int, int], object]) -> bool:
    fds = Fds()
    try:
        send(_open(row, fds), row.pid, number)
    except ProcessLookupError:
        return False
    finally:
        fds.close()
    return True


def _send_to_group(pidfd: int, pid: int, number: int) -> None:
    if pidfd >= 0:
        try:
            return signal.pidfd_send_signal(pidfd, number, None, _TO_THE_GROUP)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
                raise
    return os.killpg(pid, number)


def is_child(pid: int) -> bool:
    """Whether *pid* is a child of this process, reaped by nobody; False where nobody may ask."""
    try:
        return binding.is_child(-1, pid)
    except OSError:
        return False


def wait_for_ends(rows: Iterable[ProcessRow], timeout_s: float) -> None:
    """Return once all of *rows* have ended, zombies or gone, or after *timeout_s*.

    Where there are no pidfds to be had, after a short while.
    """
    poller = select.poll()
    fds = Fds()
    count = 0
    try:
        for row in rows:
            try:
                pidfd = _open(row, fds)
            except ProcessLookupError:
                continue
            except OSError:
                pidfd = -1
            if pidfd < 0:
                time.sleep(min(timeout_s, _PAUSE_S))
                return
            poller.register(pidfd, select.POLLIN)
            count += 1
        _wait_for_all(poller, count, timeout_s)
    finally:
        fds.close()


def _wait_for_all(poller: select.poll, count: int, timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while count and (left_s := end_s - time.monotonic()) > 0:
        for pidfd, _ in poller.poll(left_s * 1000 + 1):
            poller.unregister(pidfd)
            count -= 1


# --- orphans --------------------------------------------------------------------------------------


class _Adopting:
    """How many ask for orphans now; whether this process did before the first; who came besides."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.did_before = False
        self.strays: dict[int, ProcessRow] = {}


_adopting = _Adopting()


def _adopt_nobody() -> None:
    """In a forked copy: its children are its own, and it has not asked for any (prctl(2))."""
    global _adopting
    _adopting = _Adopting()


os.register_at_fork(after_in_child=_adopt_nobody)


class Adoption:
    """While it is entered, orphans among the descendants of this process become its children.

    Any number of threads may be in one at once. Those that were meant are reaped by `reap`; who
    else came, of other trees, is noted, and reaped by `reap_strays` once it has ended.
    """

    def __init__(self) -> None:
        self._before: dict[int, ProcessRow] = {}

    def __enter__(self) -> None:
        self._before = _rows_if_any()
        with _adopting.lock:
            if _adopting.count == 0:
                self._begin()
            _adopting.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _adopting.lock:
            _adopting.count -= 1
            if _adopting.count == 0 and not _adopting.did_before:
                self._end()
        own = os.getpid()
        for row in _rows_if_any().values():
            before = self._before.get(row.pid)
            if (
                row.parent == own
                and before is not None
                and before.started == row.started
                and before.parent != own
            ):
                note_stray(row)

    def _begin(self) -> None:
        """Where a sandbox denies it, orphans are init's, and are killed all the same."""
        try:
            _adopting.did_before = binding.adopt_orphans(True)
        except OSError:
            _adopting.did_before = True  # there is nothing to be ended

    def _end(self) -> None:
        for _ in range(2):  # who stays one has all orphans to reap, and does not
            try:
                binding.adopt_orphans(False)
            except OSError:
                continue
            return


def _rows_if_any() -> dict[int, ProcessRow]:
    try:
        return read_rows()
    except OSError:
        return {}


def note_stray(row: ProcessRow) -> None:
    """Have `reap_strays` reap the process of *row*, which has become a child of this one."""
    _adopting.strays[row.pid] = row


def reap_strays() -> None:
    """Reap those that came to us besides, and have ended."""
    for row in list(_adopting.strays.values()):
        try:
            now = read_row(row.pid)
            if now is None or now.started != row.started or not now.is_alive:
                reap(row)
                _adopting.strays.pop(row.pid, None)
        except OSError:
            return  # next time


def reap(row: ProcessRow) -> None:
    """Reap the process of *row*, which is a child of this one and has ended. Never blocks.

    Nothing when it is not, or was reaped by others. Never the child of another than *row*. OSError
    as for `read_row`.
    """
    now = read_row(row.pid)
    if now is None or now.started != row.started or now.parent != os.getpid():
        return
    try:
        os.waitid(os.P_PID, row.pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        pass
