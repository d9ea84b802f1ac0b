"""All processes of one tree, found in /proc, to be signalled or killed: where there is no cgroup.

How (transport/kinship.py says who is a member, kernel/processes.py what /proc is worth):

- To kill, all is stopped first, look after look, until a look shows nobody new: what is stopped
  neither forks nor ends, so no member loses the parent by which it is found. Then all is killed,
  until a look shows nobody alive. A process that was seen once as a member stays one.
- The leader, a child of ours that we do not reap meanwhile, keeps its number. So its group, if it
  leads one, is signalled as a whole, which in the kernel is one step, forks under way included:
  that is what ends a storm of forks. Other code may reap it all the same: so it is looked at again
  each time, and without it the group is signalled one by one.
- A look needs an fd. A kill waits for one; where none is to be had, the group is killed by its
  number, for which it is enough that the leader is still our child: so at least that much ends.
- While it lasts, orphans of our descendants come to us (processes.Adoption), so the killed ones are
  reaped here, and nothing is left to an init that may not care to.

What this cannot do, and a cgroup can: find a process that is an orphan, has left the sessions of
all other members, and has none of our environment; catch one that forks, has its child enter a new
session, and ends, faster than we look. The latter is told: `Hunt.kill` returns False.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from procreactor.kernel import processes
from procreactor.kernel.fds import is_shortage
from procreactor.model import ProcessRow
from procreactor.transport.kinship import carries, find_kin, parents_first, vouches
from procreactor.typed import TypeVar

__all__ = ["Hunt"]

_T = TypeVar("_T")

_ROUNDS = 16
"""How often is looked for those that were forked while others were signalled."""

_LONGEST_WAIT_S = 0.05
"""For the end of those that were killed, before the next look."""

_PAUSE_S = 0.005
"""Before another try where no fd was to be had to look."""


class Hunt:
    """A search for the tree of *leader_pid*, a child of this process that nobody reaps meanwhile.

    None for a leader that is reaped: then its tree is found by *token* alone, the one that it was
    started with, or not at all. No process is asked for it that was made before *since*, in ticks
    (processes.ticks_now). *leads*: the leader was started as that of a new session.
    """

    def __init__(
        self,
        leader_pid: int | None,
        token: bytes | None = None,
        *,
        since: int = 0,
        leads: bool = False,
    ) -> None:
        self._own_pid = os.getpid()
        self._leader_pid = leader_pid
        self._token = token
        self._since = since
        self._known: dict[int, int] = {}  # pid and start
        self._barren: dict[int, int] = {}  # those without the token
        self._foreign = {os.getsid(0)}
        self._leads = leads
        self._leader: ProcessRow | None = None  # where there is a /proc
        self._is_unseen = leader_pid is not None
        try:
            self._find_leader()
        except OSError:
            pass  # no fd is to be had: it is found by the first look that there is one for

    def _find_leader(self) -> None:
        """Once there was an fd to look, it is known who the leader is, or that it is no more."""
        if not self._is_unseen or self._leader_pid is None:
            return
        row = processes.read_row(self._leader_pid)
        self._is_unseen = False
        if row is None or row.parent != self._own_pid:
            return
        self._leader = row
        self._known[row.pid] = row.started
        self._leads = row.session == row.group == row.pid
        if row.session != row.pid:
            self._foreign.add(row.session)

    def members(self) -> list[int]:
        """Return the pids of all that are alive. OSError without /proc, or an fd to look."""
        return [row.pid for row in self._look() if row.is_alive]

    def signal(self, number: int, reached: Mapping[int, int] | None = None) -> int:
        """Send signal *number* to each once, parents first; return to how many.

        Not to those whom it has *reached* before, pid and start. OSError: EINVAL, EPERM when it is
        so for all of them. Without /proc, it goes to the leader and its group.
        """
        reached = reached or {}
        sent: set[tuple[int, int]] = set()
        refused: PermissionError | None = None
        seen = set(reached.items())
        for _ in range(_ROUNDS):
            try:
                new = [row for row in self._look() if row.is_alive and _key(row) not in seen]
            except FileNotFoundError:
                return 0 if self._leader_pid in reached else self._signal_leader(number)
            if not new:
                break
            for row in parents_first(new):
                seen.add(_key(row))
                try:
                    if processes.signal_process(row, number):
                        sent.add(_key(row))
                except PermissionError as error:
                    refused = error
        if refused is not None and not sent and not reached:
            raise refused
        return len(sent)

    def kill(self, patience_s: float) -> bool:
        """Kill all; return whether a look shows nobody alive, at the latest after *patience_s*.

        False also without /proc, where nobody can look. OSError where in all that time no fd was to
        be had to look: then the leader's group is killed, if it leads one; others may be stopped.
        """
        end_s = time.monotonic() + patience_s
        processes.reap_strays()
        try:
            with processes.Adoption():
                self._stop_all(end_s - patience_s / 2)
                return self._kill_all(end_s)
        except FileNotFoundError:
            # No longer adopting: orphans that nobody can find could not be reaped either.
            self._signal_leader(signal.SIGKILL)
            return False
        except OSError as error:
            if is_shortage(error):
                self._kill_unseen()  # no longer adopting either
            raise
        finally:
            processes.reap_strays()  # those of this kill, or of one before, that have ended by now

    def _stop_all(self, end_s: float) -> None:
        """As far as that can be done until *end_s*: whatever it comes to, all is to be killed."""
        stopped: set[tuple[int, int]] = set()
        try:
            _with_patience(partial(self._signal_group, signal.SIGSTOP), end_s)
            while time.monotonic() < end_s:
                rows = _with_patience(self._look, end_s)
                new = [row for row in rows if row.is_alive and _key(row) not in stopped]
                if not new:
                    return
                _with_patience(partial(_send, new, signal.SIGSTOP), end_s)
                stopped.update(map(_key, new))
        except OSError as error:
            if not is_shortage(error):
                raise

    def _kill_all(self, end_s: float) -> bool:
        while True:
            _with_patience(partial(self._signal_group, signal.SIGKILL), end_s)
            alive = _with_patience(self._reap_dead, end_s)
            if not alive:
                return True
            left_s = end_s - time.monotonic()
            sent = _with_patience(partial(_send, alive, signal.SIGKILL), end_s)
            if sent == 0 or left_s <= 0:
                self._note(alive)
                return False
            processes.wait_for_ends(alive, min(left_s, _LONGEST_WAIT_S))

    def _reap_dead(self) -> list[ProcessRow]:
        """Reap those that have ended, but for the leader; return those that are alive."""
        rows = self._look()
        for row in rows:
            if not row.is_alive and row.pid != self._leader_pid:
                processes.reap(row)
        return [row for row in rows if row.is_alive]

    def _note(self, alive: Iterable[ProcessRow]) -> None:
        """They may be ours by now, and end later."""
        for row in alive:
            if row.parent == self._own_pid and row.pid != self._leader_pid:
                processes.note_stray(row)

    # -- the look -------------------------------------------------------------------------------

    def _look(self) -> list[ProcessRow]:
        """Return all members that are to be seen, zombies included. OSError without /proc."""
        self._find_leader()
        rows = processes.read_rows()
        rows.pop(self._own_pid, None)
        seeds = [row.pid for row in rows.values() if self._is_known(row) or self._has_token(row)]
        found: dict[int, ProcessRow] = {}
        for pid, voucher in find_kin(rows, seeds, self._foreign).items():
            row = rows[pid]
            if (
                voucher is None
                or self._is_known(row)
                or (voucher in found and self._is_vouched(row, found[voucher]))
            ):
                found[pid] = row
        self._known.update((row.pid, row.started) for row in found.values())
        return list(found.values())

    def _is_known(self, row: ProcessRow) -> bool:
        return self._known.get(row.pid) == row.started

    def _has_token(self, row: ProcessRow) -> bool:
        if self._token is None or row.started < self._since:
            return False
        if self._barren.get(row.pid) == row.started or not row.is_alive:
            return False
        environment = processes.read_environment(row.pid)
        if environment is not None and carries(environment, self._token):
            return True
        if environment:  # else in the middle of an exec, perhaps
            self._barren[row.pid] = row.started
        return False

    def _is_vouched(self, row: ProcessRow, voucher: ProcessRow) -> bool:
        """Whether it is so still, and the voucher there after it: so its number was his."""
        now = processes.read_row(row.pid)
        then = processes.read_row(voucher.pid)
        return (
            now is not None
            and then is not None
            and now.started == row.started
            and then.started == voucher.started
            and vouches(then, now, self._foreign)
        )

    # -- the leader -----------------------------------------------------------------------------

    def _signal_group(self, number: int) -> None:
        """Nothing unless the leader leads one, and is there, reaped by nobody."""
        self._find_leader()
        if self._leads and self._leader is not None:
            try:
                processes.signal_group(self._leader, number)
            except PermissionError:
                pass

    def _kill_unseen(self) -> None:
        """Kill the leader's group, without an fd to look whose number that is.

        Not a leader without one: as orphans, those below could be found no more.
        """
        pid = self._leader_pid
        if pid is None or not processes.is_child(pid):
            return
        try:
            if os.getsid(pid) == pid:  # and so leads its group, for ever
                os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def _signal_leader(self, number: int) -> int:
        """By its number, without a /proc to look whose that is: but whether it is a child's."""
        if self._leader_pid is None or not processes.is_child(self._leader_pid):
            return 0
        send = os.killpg if self._leads else os.kill
        try:
            send(self._leader_pid, number)
        except ProcessLookupError:
            return 0
        return 1


def _key(row: ProcessRow) -> tuple[int, int]:
    return row.pid, row.started


def _send(rows: Iterable[ProcessRow], number: int) -> int:
    """Return how many took the signal, or were gone: not those of another user.

    Who is passed by as no fd is to be had, or no memory, the next look comes to; OSError when it is
    so for all of them.
    """
    taken = 0
    shortage: OSError | None = None
    for row in rows:
        try:
            processes.signal_process(row, number)
        except PermissionError:
            continue
        except OSError as error:
            if not is_shortage(error):
                raise
            shortage = error
            continue
        taken += 1
    if shortage is not None and not taken:
        raise shortage
    return taken


def _with_patience(function: Callable[[], _T], end_s: float) -> _T:
    """Return what *function* does, which is tried until *end_s* while no fd is to be had for it."""
    while True:
        try:
            return function()
        except OSError as error:
            if not is_shortage(error) or time.monotonic() >= end_s:
                raise
        time.sleep(_PAUSE_S)
