"""Where a program sees something else here than on the real Twisted, on purpose: all of it.

One `Because` per reason: the decision of the house (CONTRIBUTING.md, Decisions, or another part) or
"-" for what follows from another rule, the reason in words, and the rows: scenario, key of its
record, what Twisted's says, what ours says. A row that is not true any more fails its scenario, and
so does a difference without a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.judgement import Difference

__all__ = ["AS_TWISTED_WHEN_HOSTED", "DIFFERENCES", "TABLE"]


@dataclass(frozen=True)
class Because:
    """Differences with one reason: scenario -> key -> (Twisted's value, ours)."""

    decision: str
    reason: str
    rows: Mapping[str, Mapping[str, tuple[object, object]]]


FAKED = "a child that is none, and a traceback on fd 2"
FAKED_ON_TERMINAL = "a child that is none, and a traceback on fd 1"


def becomes(theirs: object, ours: object) -> dict[str, tuple[object, object]]:
    """The cells of a scenario whose record is one line about a start."""
    return {"result": (theirs, ours)}


def is_told(theirs: str, ours: str) -> dict[str, tuple[object, object]]:
    """The cells of a child whose end is another."""
    return {"exited": (theirs, ours), "ended": (theirs, ours)}


TOLD = ("connectionMade", "childDataReceived", "childConnectionLost", "processEnded")

NEVER_TOLD = {"over": (False, True), **is_told("", "ProcessTerminated")}

TABLE = [
    Because(
        "decision 1",
        "A start that fails raises from spawnProcess on every path, and nothing is called back."
        " Twisted raises when it has used posix_spawn; when it has forked (path, uid, gid, a"
        " terminal), it fakes a child that writes a traceback and ends.",
        {
            "arguments/path [NUL]": becomes(FAKED, "raised ValueError"),
            "arguments/path [not there]": becomes(FAKED, "raised FileNotFoundError ENOENT"),
            "arguments/path [no directory]": becomes(FAKED, "raised NotADirectoryError ENOTDIR"),
            "arguments/what is refused without path is refused with it [executable]": becomes(
                FAKED, "raised FileNotFoundError ENOENT"
            ),
            "arguments/what is refused without path is refused with it [NUL]": becomes(
                FAKED, "raised ValueError"
            ),
            "arguments/what is refused without path is refused with it [int]": becomes(
                FAKED, "raised TypeError"
            ),
            "arguments/what is refused without path is refused with it [str]": becomes(
                FAKED, "raised TypeError"
            ),
            "identity/a refused identity [a name]": becomes(FAKED, "raised TypeError"),
            "identity/a refused identity [negative]": becomes(FAKED, "raised ValueError"),
            "identity/a refused identity [float]": becomes(FAKED, "raised TypeError"),
            "identity/a refused identity [too great]": becomes(FAKED, "raised ValueError"),
            "identity/nobody starts a child as [root]": {
                "child": (FAKED, "raised PermissionError EPERM")
            },
            "identity/nobody starts a child as [another]": {
                "child": (FAKED, "raised PermissionError EPERM")
            },
            "identity/nobody starts a child as [another gid]": {
                "child": (FAKED, "raised PermissionError EPERM")
            },
            "pty/a start that fails [not there]": becomes(
                FAKED_ON_TERMINAL, "raised FileNotFoundError ENOENT"
            ),
            "pty/a start that fails [no directory]": becomes(
                FAKED_ON_TERMINAL, "raised FileNotFoundError ENOENT"
            ),
            "pty/a start that fails [args with NUL]": becomes(
                FAKED_ON_TERMINAL, "raised ValueError"
            ),
            "pty/a start that fails [int in args]": becomes(FAKED_ON_TERMINAL, "raised TypeError"),
            "pty/a start that fails [env]": becomes(FAKED_ON_TERMINAL, "raised ValueError"),
            "pty/a given terminal in a start that fails": {
                **becomes(FAKED_ON_TERMINAL, "raised FileNotFoundError ENOENT"),
                "still ours": (False, True),
            },
        },
    ),
    Because(
        "decision 2",
        "A bare name is searched in the PATH of the child's env, and only without one there in the"
        " parent's. Twisted's posix_spawnp searches the parent's.",
        {
            "arguments/a bare name [in the child's PATH only]": becomes(
                "raised FileNotFoundError ENOENT", r"ProcessDone(0, None, 0); 1: 'child\n'"
            ),
            "arguments/a bare name [in the parent's PATH only]": becomes(
                r"ProcessDone(0, None, 0); 1: 'parent\n'", "raised FileNotFoundError ENOENT"
            ),
            "arguments/a bare name [in two PATHs]": becomes(
                r"ProcessDone(0, None, 0); 1: 'parent\n'", r"ProcessDone(0, None, 0); 1: 'child\n'"
            ),
        },
    ),
    Because(
        "decision 3",
        "A new identity is whole: uid alone takes the user's own gid, and the groups are those of"
        " the user. Twisted keeps root's gid, or root's groups, or both.",
        {
            "identity/root starts a child as [uid alone]": {
                "child": (
                    "Uid nobody, Gid root, Groups root",
                    "Uid nobody, Gid nobody, Groups nobody",
                )
            },
            "identity/root starts a child as [gid alone]": {
                "child": (
                    "Uid root, Gid other, Groups root further, and a warning on stderr",
                    "Uid root, Gid other, Groups other",
                )
            },
            "identity/root starts a child as [root]": {
                "child": (
                    "Uid root, Gid root, Groups root further, and a warning on stderr",
                    "Uid root, Gid root, Groups root",
                )
            },
            "identity/root starts a child as [root alone]": {
                "child": (
                    "Uid root, Gid root, Groups root further, and a warning on stderr",
                    "Uid root, Gid root, Groups root",
                )
            },
        },
    ),
    Because(
        "decision 3",
        "A uid needs no entry in the user database, and nobody needs to be root to ask for what"
        " they are. Twisted looks the user up, and calls setuid(0) first in any case.",
        {
            "identity/root starts a child as [uid without entry]": {
                "child": (FAKED, "Uid no entry, Gid other, Groups none")
            },
            "identity/root starts a child as [uid without entry alone]": {
                "child": (FAKED, "Uid no entry, Gid root, Groups none")
            },
            "identity/nobody starts a child as [its own ids]": {
                "child": (FAKED, "Uid nobody, Gid nobody, Groups none")
            },
            "identity/nobody starts a child as [its own uid]": {
                "child": (FAKED, "Uid nobody, Gid nobody, Groups none")
            },
        },
    ),
    Because(
        "decision 4",
        "What takes bytes takes any bytes-like object.",
        {
            "transport/write [bytearray]": {
                "write": ("raised TypeError", "returned None"),
                "data": ({}, {"1": "abc"}),
            },
            "transport/write [memoryview]": {
                "write": ("raised TypeError", "returned None"),
                "data": ({}, {"1": "abc"}),
            },
            "transport/writeSequence [a bytearray among them]": {
                "writeSequence": ("raised TypeError", "returned None"),
                "data": ({}, {"1": "ab"}),
            },
            "transport/writeToChild [bytearray]": {
                "writeToChild": ("raised TypeError", "returned None"),
            },
        },
    ),
    Because(
        "decision 5",
        "writeSequence writes what a generator yields. Twisted uses it up looking at the types.",
        {"transport/writeSequence [generator]": {"data": ({}, {"1": "ab"})}},
    ),
    Because(
        "decision 5",
        "processExited is never called inside spawnProcess, so a program has its transport, with"
        " its pid, before it hears of the end.",
        {
            "order/a child that has ended before spawnProcess returns [pipes]": {
                "told inside": (["processExited"], []),
                "pid is there": (False, True),
            },
            "order/a child that has ended before spawnProcess returns [no pipes]": {
                "told inside": (["processExited", "processEnded"], []),
                "pid is there": (False, True),
            },
            "order/a child that has ended before spawnProcess returns [terminal]": {
                "told inside": (["processExited"], []),
                "pid is there": (False, True),
            },
        },
    ),
    Because(
        "decision 5",
        "A write to a pipe that we read can never arrive, so it is a KeyError like any other fd"
        " that is no pipe into the child. Twisted queues it for ever.",
        {
            "transport/writeToChild [one that we read]": {
                "writeToChild": ("returned None", "raised KeyError")
            }
        },
    ),
    Because(
        "decision 5",
        "The helpers close the child's standard input. On Twisted a child that reads it never"
        " ends.",
        {
            f"utils/a child that reads its input [{helper}]": {"ends": (False, True)}
            for helper in ("getProcessOutput", "getProcessValue", "getProcessOutputAndValue")
        },
    ),
    Because(
        "decision 5",
        "A child that is ended by a signal fails the Deferred with an exception, which unpacks as"
        " the tuple that Twisted fails it with. A tuple cannot be raised into a coroutine: there,"
        " Twisted's program never hears of it.",
        {
            "utils/a child that [getProcessOutputAndValue ends by a signal]": becomes(
                r"failed: (b'out\n', b'', 9)", "failed: ProcessSignalled"
            ),
            "utils/a signal is something to catch": {"said": ([], ["ProcessSignalled"])},
        },
    ),
    Because(
        "decision 6",
        "spawnProcess has keyword arguments of its own.",
        {
            "arguments/a further keyword [umask]": becomes(
                "raised TypeError", r"ProcessDone(0, None, 0); 1: '0077\n'"
            )
        },
    ),
    Because(
        "decision 7",
        "args left out or empty mean [executable], as the guide allows.",
        {
            "arguments/args [empty list]": becomes(
                "raised ValueError", r"ProcessDone(0, None, 0); 1: '\n'"
            ),
            "arguments/args may be left out": becomes(
                "raised ValueError", r"ProcessDone(0, None, 0); 1: '\n'"
            ),
        },
    ),
    Because(
        "6",
        "Misuse is a TypeError for a wrong type and a ValueError for a wrong value, before any"
        " system call, with the argument's name. Twisted's assertions vanish under python -O.",
        {
            "arguments/executable [lone surrogate]": becomes(
                "raised UnicodeEncodeError", "raised ValueError"
            ),
            "arguments/args [lone surrogate]": becomes(
                "raised UnicodeEncodeError", "raised ValueError"
            ),
            "arguments/env [list of pairs]": becomes("raised AttributeError", "raised TypeError"),
            "arguments/refused childFDs [True]": becomes(
                "raised AssertionError", "raised TypeError"
            ),
            "arguments/refused childFDs [bytes]": becomes(
                "raised AssertionError", "raised TypeError"
            ),
            "arguments/refused childFDs [capital]": becomes(
                "raised AssertionError", "raised ValueError"
            ),
            "arguments/refused childFDs [rw]": becomes(
                "raised AssertionError", "raised ValueError"
            ),
            "arguments/refused childFDs [None]": becomes(
                "raised AssertionError", "raised TypeError"
            ),
            "arguments/refused childFDs [float]": becomes(
                "raised AssertionError", "raised TypeError"
            ),
            "arguments/refused childFDs [negative]": becomes(
                "raised OSError EBADF", "raised ValueError"
            ),
            "arguments/refused childFDs [negative key]": becomes(
                "raised OSError EBADF", "raised ValueError"
            ),
            "arguments/refused childFDs [the same fd, not open]": becomes(
                "raised KeyError", "raised OSError EBADF"
            ),
            "arguments/refused childFDs [a huge fd]": becomes(
                "raised OverflowError", "raised ValueError"
            ),
            "arguments/refused childFDs [a list]": becomes(
                "raised AttributeError", "raised TypeError"
            ),
            "arguments/refused childFDs [a set]": becomes(
                "raised AttributeError", "raised TypeError"
            ),
            "arguments/a file object is no fd": becomes(
                "raised AssertionError", "raised TypeError"
            ),
            "arguments/no protocol [pipes]": becomes("raised AssertionError", "raised TypeError"),
            "arguments/no protocol [default]": becomes("raised AttributeError", "raised TypeError"),
            "identity/a refused identity [bool]": becomes(
                "ProcessDone(0, None, 0)", "raised TypeError"
            ),
            "pty/a terminal without a protocol": {
                **becomes("started", "raised TypeError"),
                "logged": (["AttributeError"], []),
            },
            "transport/signalProcess [no such name]": {
                "signalProcess": ("raised TypeError", "raised ValueError")
            },
            "transport/signalProcess [lower case]": {
                "signalProcess": ("raised TypeError", "raised ValueError")
            },
            "transport/signalProcess [empty]": {
                "signalProcess": ("raised TypeError", "raised ValueError")
            },
            "transport/signalProcess [SIG]": {
                "signalProcess": ("raised TypeError", "raised ValueError")
            },
            "transport/signalProcess after the exit [no such name]": {
                "in processExited, in processEnded, after it": (
                    ["raised ProcessExitedAlready"] * 3,
                    ["raised ValueError"] * 3,
                )
            },
            "utils/args [str]": becomes(r"b'a b\n'", "raised TypeError"),
            "utils/stdinBytes that are no bytes": becomes("never fires", "raised TypeError"),
        },
    ),
    Because(
        "-",
        "A signal may be given by any name that it has. Twisted knows HUP, STOP, INT, KILL, TERM.",
        {
            "transport/signalProcess [USR1]": {
                "signalProcess": ("raised TypeError", "returned None"),
                **is_told("ProcessTerminated(5, None, 1280)", "ProcessTerminated(None, 10, 10)"),
            },
            "transport/signalProcess [SIGTERM]": {
                "signalProcess": ("raised TypeError", "returned None"),
                **is_told("ProcessTerminated(5, None, 1280)", "ProcessTerminated(None, 15, 15)"),
            },
        },
    ),
    Because(
        "4c",
        "What the pipe takes is written at once. Twisted waits for the next turn, for each write.",
        {
            "transport/write does not wait for the next turn": {
                "in the pipe when write returns": (0, len("at once"))
            }
        },
    ),
    Because(
        "4b",
        "A read takes what a pipe of the default size holds: fewer turns, system calls and"
        " callbacks for the same data. The guide says to be prepared for any size.",
        {"transport/the largest piece of data": {"largest": (8192, 65536)}},
    ),
    Because(
        "3",
        "Children are pidfds. So the end of a child is noticed in any thread, with or without"
        " signal handlers, and also when other code ignores SIGCHLD or takes the status; Twisted's"
        " program then waits for ever.",
        {
            "reaping/a reactor in another thread [its pipes end long before]": {
                "over": (False, True),
                "ended": ("", "ProcessTerminated(5, None, 1280)"),
            },
            "reaping/a reactor without signal handlers [its pipes end long before]": {
                "over": (False, True),
                "ended": ("", "ProcessTerminated(5, None, 1280)"),
            },
            "reaping/SIGCHLD ignored by the program": NEVER_TOLD,
            "reaping/a child whose status other code takes": NEVER_TOLD,
        },
    ),
    Because(
        "3",
        "SIGCHLD belongs to the program. Twisted replaces a handler that was there when the"
        " reactor starts to run, and takes away any when it stops.",
        {
            "reaping/the handler of SIGCHLD": {"while it runs": ("somebody's", "SIG_DFL")},
            "reaping/a handler of the programs own [before the reactor runs]": {
                "told": (False, True),
                "still the handler": (False, True),
            },
            "reaping/a handler of the programs own [while it runs]": {
                "still the handler": (False, True),
            },
        },
    ),
    Because(
        "6",
        "The loop outlives what a user's callback raises. In Twisted a stopProducing that raises"
        " breaks the close of the pipe off in the middle, and the end is never told.",
        {"producers/an exception in stopProducing": {"over": (False, True)}},
    ),
    Because(
        "6",
        "SystemExit and KeyboardInterrupt are no errors of a callback: they mean to end the"
        " program, and do. Twisted logs them and goes on, as both do with any other BaseException.",
        {
            f"order/what is no Exception [{kind} in {callback}]": {
                "leaves": ("nothing", "the program"),
                "logged": ([f"{kind}: on purpose"], []),
            }
            for kind in ("SystemExit", "KeyboardInterrupt")
            for callback in TOLD
        },
    ),
    Because(
        "-",
        "A LineReceiver can be mixed into a ProcessProtocol, as the guide suggests. Twisted's asks"
        " its transport whether it is `disconnecting`, which its process transports do not know.",
        {
            "lines/mixed in as the guide suggests": {
                "told": (
                    [["line", "one"], ["ended"]],
                    [["line", "one"], ["line", "two"], ["ended"]],
                ),
                "logged": (["AttributeError"], []),
            }
        },
    ),
]


DIFFERENCES: Mapping[str, Mapping[str, Difference]] = {
    scenario: {key: Difference(*values) for key, values in cells.items()}
    for because in TABLE
    for scenario, cells in because.rows.items()
}
"""The rows of `TABLE` by scenario and key."""

assert len(DIFFERENCES) == sum(len(because.rows) for because in TABLE), "a scenario has two reasons"


AS_TWISTED_WHEN_HOSTED = {
    # The helpers of utils are Twisted's own.
    *(
        f"utils/a child that reads its input [{helper}]"
        for helper in ("getProcessOutput", "getProcessValue", "getProcessOutputAndValue")
    ),
    "utils/a child that [getProcessOutputAndValue ends by a signal]",
    "utils/a signal is something to catch",
    "utils/args [str]",
    "utils/stdinBytes that are no bytes",
    # So is LineReceiver.
    "lines/mixed in as the guide suggests",
    # On Twisted's reactor whatever a callback raises is logged, and nothing ends by it.
    *(
        f"order/what is no Exception [{kind} in {callback}]"
        for kind in ("SystemExit", "KeyboardInterrupt")
        for callback in TOLD
    ),
}
"""The scenarios that say on our reactor for Twisted what they say on Twisted; others as ours."""
