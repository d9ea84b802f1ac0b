"""procreactor: spawn, talk to and reap child processes on Linux, at the kernel's speed.

`run` and `run_many` run commands to their end. Twisted's process API lives under
``procreactor.internet``. Importing this package makes no system call that an ordinary
import would not make: the kernel is asked at the first spawn. Nor does it import what is not asked
for: the names below are fetched when they are first used, because a program pays for an import at
every start, and most want one face only.
"""

from __future__ import annotations

TYPE_CHECKING = False  # to a type checker it is true; typing is not imported for it

if TYPE_CHECKING:
    from procreactor.apps.commands import STDOUT, Command, CommandError, Limits, Result
    from procreactor.apps.run import Results, run, run_many
    from procreactor.errors import SpawnError
    from procreactor.model import ExitStatus, ResourceUsage

__all__ = [
    "STDOUT",
    "Command",
    "CommandError",
    "ExitStatus",
    "Limits",
    "ResourceUsage",
    "Result",
    "Results",
    "SpawnError",
    "__version__",
    "run",
    "run_many",
]

__version__ = "0.1.0"

if not TYPE_CHECKING:  # or every name would be an attribute to a type checker

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in ("ExitStatus", "ResourceUsage", "SpawnError"):  # without the engine
            from procreactor.errors import SpawnError
            from procreactor.model import ExitStatus, ResourceUsage

            globals().update(
                ExitStatus=ExitStatus, ResourceUsage=ResourceUsage, SpawnError=SpawnError
            )
        else:
            from procreactor.apps.commands import STDOUT, Command, CommandError, Limits, Result
            from procreactor.apps.run import Results, run, run_many

            globals().update(
                STDOUT=STDOUT,
                Command=Command,
                CommandError=CommandError,
                Limits=Limits,
                Result=Result,
                Results=Results,
                run=run,
                run_many=run_many,
            )
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
