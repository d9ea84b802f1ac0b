"""Who a child is to be: the user database, asked in the parent.

Facts: looking up a user may open files, sockets and libraries (NSS), so it happens before the fork.
A uid without an entry is no error: it gets no supplementary groups. The groups of a user include
the given gid (initgroups(3)).
"""

from __future__ import annotations

import os
import pwd

from procreactor.model import Identity

__all__ = ["resolve_identity"]


def resolve_identity(uid: int | None, gid: int | None) -> Identity | None:
    """Return the complete identity for the given halves, or None when nothing would change.

    uid alone takes that user's own gid (this process's for a uid without an entry); gid alone keeps
    the uid, with the groups of its user. A process that may not change its groups and asks for
    the ids that it has keeps its groups.
    """
    if uid is None and gid is None:
        return None
    wanted_uid = os.geteuid() if uid is None else uid
    entry = _find_user(wanted_uid)
    wanted_gid = gid if gid is not None else entry.pw_gid if entry else os.getegid()
    groups = tuple(os.getgrouplist(entry.pw_name, wanted_gid)) if entry else ()
    identity = Identity(wanted_uid, wanted_gid, groups)
    return None if _is_already(identity) else identity


def _find_user(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _is_already(identity: Identity) -> bool:
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        return False
    if identity.uid != 0:
        return True  # its own ids, and no right to any group
    # With the gid itself in the list or not, the rights are the same. (A user namespace of a user's
    # own has root without groups, and forbids setgroups.)
    return {*os.getgroups(), identity.gid} == {*identity.groups, identity.gid}
