"""Who a child is to be: the user database, asked in the parent.

Facts: looking up a user may open files, sockets and libraries (NSS), so it happens before the fork.
A uid without an entry is no error: it gets no supplementary groups. The groups of a user include
the given gid (initgroups(3)).

"No entry" is what libc says, too, when it could not look: out of fds, an error of the disk, a file
that may not be read. Python hears nothing of the reason, and another service of nsswitch.conf may
have had the last word. To start a child with the parent's gid then, or without the groups that are
meant to bar it, would be worse than not to start it. So such an answer counts only when the file
can be read, and when it is given twice.

What was found is found again for a second, while nothing has changed in the files that libc reads:
to ask costs as much as half a spawn (90 us of 190), and more where a directory service answers,
whose own caches keep an answer for an hour (nscd) or longer (sssd). That there is no such user is
not kept: who has just been made is there.
"""

from __future__ import annotations

import os
import pwd
import time

from procreactor.errors import spawn_error
from procreactor.model import Identity

__all__ = ["resolve_identity"]

_KEPT_S = 1.0
_MOST_KEPT = 64
_FILES = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")

_Stamp = tuple[tuple[int, int, int] | None, ...]

_kept: dict[tuple[int, int | None], tuple[float, _Stamp, Identity]] = {}
"""By uid and gid as they were asked for: until when, for which files, and the answer."""


def resolve_identity(uid: int | None, gid: int | None) -> Identity | None:
    """Return the complete identity for the given halves, or None when nothing would change.

    uid alone takes that user's own gid (this process's for a uid without an entry); gid alone keeps
    the uid, with the groups of its user. A process that may not change its groups and asks for
    the ids that it has keeps its groups. SpawnError when the user database cannot be read.
    """
    if uid is None and gid is None:
        return None
    identity = _find(os.geteuid() if uid is None else uid, gid)
    return None if _is_already(identity) else identity


def _find(uid: int, gid: int | None) -> Identity:
    stamp = tuple(map(_stamp, _FILES))  # before it is asked, so that no change goes unseen
    kept = _kept.get((uid, gid))
    if kept is not None and kept[0] > time.monotonic() and kept[1] == stamp:
        return kept[2]
    entry = _find_user(uid)
    if entry is None:
        return Identity(uid, os.getegid() if gid is None else gid, ())
    wanted_gid = entry.pw_gid if gid is None else gid
    identity = Identity(uid, wanted_gid, _find_groups(entry.pw_name, wanted_gid))
    if len(_kept) >= _MOST_KEPT:
        _kept.clear()
    _kept[uid, gid] = (time.monotonic() + _KEPT_S, stamp, identity)
    return identity


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What is another after any change of a file; None where there is none."""
    try:
        now = os.stat(path)
    except OSError:
        return None
    return now.st_dev, now.st_ino, now.st_ctime_ns


def _find_user(uid: int) -> pwd.struct_passwd | None:
    entry = _ask_for(uid)
    if entry is None:
        _check_readable("/etc/passwd")
        entry = _ask_for(uid)
    return entry


def _ask_for(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _find_groups(name: str, gid: int) -> tuple[int, ...]:
    groups = os.getgrouplist(name, gid)
    if len(groups) < 2:
        _check_readable("/etc/group")
        groups = os.getgrouplist(name, gid)
    return tuple(groups)


def _check_readable(path: str) -> None:
    """SpawnError when the file is there and cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.read(1)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise spawn_error(error.errno or 0, "user database", path) from error


def _is_already(identity: Identity) -> bool:
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        return False
    if identity.uid != 0:
        return True  # its own ids, and no right to any group
    # With the gid itself in the list or not, the rights are the same. (A user namespace of a user's
    # own has root without groups, and forbids setgroups.)
    return {*os.getgroups(), identity.gid} == {*identity.groups, identity.gid}
