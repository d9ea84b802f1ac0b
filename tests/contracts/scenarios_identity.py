"""uid and gid. Only root can play these; ids are told by whose they are, not by their numbers."""

from __future__ import annotations

import os
import pwd
import resource
from typing import Any

from contracts.recording import CAT, attempt, describe, open_fds, outcome, recording
from contracts.scenario import Record, each, scenario, until
from contracts.world import World
from support import PROC

NOBODY = pwd.getpwnam("nobody")
NO_ENTRY = 54321
OTHER_GROUP = 54322
FURTHER_GROUP = 54323

_NAMES = {
    0: "root",
    NOBODY.pw_uid: "nobody",
    NO_ENTRY: "no entry",
    OTHER_GROUP: "other",
    FURTHER_GROUP: "further",
}

IDENTITIES: dict[str, dict[str, Any]] = {
    "uid and gid": {"uid": NOBODY.pw_uid, "gid": NOBODY.pw_gid},
    "uid and another gid": {"uid": NOBODY.pw_uid, "gid": OTHER_GROUP},
    "uid alone": {"uid": NOBODY.pw_uid},
    "gid alone": {"gid": OTHER_GROUP},
    "uid without entry": {"uid": NO_ENTRY, "gid": OTHER_GROUP},
    "uid without entry alone": {"uid": NO_ENTRY},
    "root": {"uid": 0, "gid": 0},
    "root alone": {"uid": 0},
    "on a terminal": {"uid": NOBODY.pw_uid, "gid": NOBODY.pw_gid, "usePTY": True},
}


async def identity_of_child(world: World, **options: Any) -> str:
    """Who a child says that it is, or what else came of it."""
    child = recording(world)
    try:
        world.reactor.spawnProcess(child, CAT, ["cat", f"{PROC}/self/status"], {}, **options)
    except Exception as error:
        return f"raised {describe(error)}"
    await until(child.is_over)
    if child.reason().value.exitCode != 0:
        return str(child.summary())
    lines = dict(line.split(":", 1) for line in child.text().splitlines())
    told = [f"{name} {_named(lines[name])}" for name in ("Uid", "Gid", "Groups")]
    if child.text(2):
        told.append("and a warning on stderr")
    return ", ".join(told)


def _named(numbers: str) -> str:
    names = [_NAMES.get(int(number), number) for number in numbers.split()]
    return " ".join(dict.fromkeys(names)) or "none"


@each(IDENTITIES)
async def root_starts_a_child_as(world: World, identity: dict[str, Any]) -> Record:
    os.setgroups([0, FURTHER_GROUP])
    return {"child": await identity_of_child(world, **identity)}


@each(
    {
        "its own ids": {"uid": NOBODY.pw_uid, "gid": NOBODY.pw_gid},
        "its own uid": {"uid": NOBODY.pw_uid},
        "root": {"uid": 0, "gid": 0},
        "another": {"uid": NO_ENTRY, "gid": OTHER_GROUP},
        "another gid": {"gid": OTHER_GROUP},
    }
)
async def nobody_starts_a_child_as(world: World, identity: dict[str, Any]) -> Record:
    world.reactor.seconds()  # the reactor makes its fds as root
    os.setgroups([])
    os.setresgid(*[NOBODY.pw_gid] * 3)
    os.setresuid(*[NOBODY.pw_uid] * 3)
    return {"child": await identity_of_child(world, **identity)}


@scenario
async def there_is_no_room_for_a_process(world: World) -> Record:
    """The limit of processes is that of the user, and root has none."""
    child = recording(world)
    reactor = world.reactor
    os.setgroups([])
    os.setresgid(*[NOBODY.pw_gid] * 3)
    os.setresuid(*[NOBODY.pw_uid] * 3)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    before = open_fds()
    result = outcome(reactor.spawnProcess, child, CAT, ["cat", "/dev/null"], {})
    return {"result": result, "left": [fd for fd in open_fds() if fd not in before]}


@each(
    {
        "a name": {"uid": "nobody"},
        "negative": {"uid": -1},
        "bool": {"uid": True},
        "float": {"gid": 1.5},
        "too great": {"gid": 1 << 40},
    }
)
async def a_refused_identity(world: World, identity: dict[str, Any]) -> Record:
    return await attempt(world, CAT, ["cat", "/dev/null"], {}, **identity)


@scenario
async def our_own_identity_stays_as_it_is(world: World) -> Record:
    def look() -> tuple[object, ...]:
        return os.getresuid(), os.getresgid(), os.getgroups(), os.stat(f"{PROC}/self").st_uid

    before = look()
    await identity_of_child(world, uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)
    return {"same": look() == before}
