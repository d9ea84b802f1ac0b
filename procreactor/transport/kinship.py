"""Pure: which processes of the machine belong to one tree, from what the kernel says of each.

Rules:

- A child of a member is a member.
- A session is made by one process, and had by what descends from it. So where one member is in a
  session, all of that session are members; but for sessions that are older than the tree, which are
  *foreign*, and number 0, which stands for one of another pid namespace.
- A process with the tree's token in its environment was started by a member, or is one that has
  not exec'ed since. The token is an element of a variable's value: trees in trees have several,
  the outermost first, so that each finds all that is below it.

What is read of /proc is no snapshot. So who is a member by another one says by which: if that one
is still there afterwards, it is so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from procreactor.model import ProcessRow

__all__ = ["VARIABLE", "carries", "find_kin", "inherited_tokens", "parents_first", "vouches"]

VARIABLE = b"PROCREACTOR_TREE"
"""The variable that has the tokens, with ``:`` between."""

_NO_SESSION = 0


def vouches(member: ProcessRow, row: ProcessRow, foreign: Collection[int]) -> bool:
    """Whether *row* is a member of the tree because *member* is."""
    if row.parent == member.pid:
        return True
    return row.session == member.session and not _is_foreign(row.session, foreign)


def _is_foreign(session: int, foreign: Collection[int]) -> bool:
    return session == _NO_SESSION or session in foreign


def find_kin(
    rows: Mapping[int, ProcessRow], seeds: Iterable[int], foreign: Collection[int]
) -> dict[int, int | None]:
    """Return the members of a tree, by pid, in an order in which each comes after who vouches.

    *seeds* are those of *rows* that are known to be; they have None, the others their voucher.
    """
    kin: dict[int, int | None] = {pid: None for pid in seeds if pid in rows}
    children, sessions = _index(rows)
    todo = deque(kin)
    while todo:
        member = rows[todo.popleft()]
        near = [*children.get(member.pid, ())]
        if not _is_foreign(member.session, foreign):
            near += sessions.pop(member.session, ())  # one member is enough
        for pid in near:
            if pid not in kin:
                kin[pid] = member.pid
                todo.append(pid)
    return kin


def parents_first(rows: Iterable[ProcessRow]) -> list[ProcessRow]:
    """Return them in an order in which each comes after its parent, where that is one of them.

    So a shell that is ended does not see its command end first, and goes on with the next.
    """
    by_pid = {row.pid: row for row in rows}
    children, _ = _index(by_pid)
    found = [row for row in by_pid.values() if row.parent not in by_pid]
    for row in found:  # which grows
        found += [by_pid[pid] for pid in children.get(row.pid, ())]
    return found


def _index(
    rows: Mapping[int, ProcessRow],
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    children: dict[int, list[int]] = {}
    sessions: dict[int, list[int]] = {}
    for pid, row in rows.items():
        children.setdefault(row.parent, []).append(pid)
        sessions.setdefault(row.session, []).append(pid)
    return children, sessions


def carries(environment: bytes, token: bytes) -> bool:
    """Whether *token* is one of the tokens in *environment*, as /proc/PID/environ has it."""
    if token not in environment:
        return False
    return any(token in _tokens(row) for row in environment.split(b"\0"))


def _tokens(row: bytes) -> list[bytes]:
    name, _, value = row.partition(b"=")
    return value.split(b":") if name == VARIABLE else []


def inherited_tokens(rows: Sequence[bytes]) -> tuple[tuple[bytes, ...], bytes | None]:
    """Split the rows of an environment into those that are none of ours, and the tokens' value."""
    others = tuple(row for row in rows if not row.startswith(VARIABLE + b"="))
    value = None
    for row in rows:
        if row.startswith(VARIABLE + b"="):
            value = row.partition(b"=")[2]
    return others, value
