"""How it is done: ``adapters/KIND/LIBRARY.py``, which know no workload.

An adapter raises ImportError when its library or tool is not installed, and then is left out by
name. A capability that a library does not have is absent from its module. Names that begin with an
underscore are no adapters but what several share.
"""

from __future__ import annotations

__all__ = ["library_of", "module_of"]

_LIBRARIES = {"command": "procreactor run", "ungrouped": "procreactor run -u"}
"""By module, where a library's name is none that a module may have."""


def library_of(module: str) -> str:
    """Return the name of the library that *module* is the adapter of: its own, most often."""
    return _LIBRARIES.get(module, module)


def module_of(library: str) -> str:
    """Return the name of the module that is the adapter of *library*."""
    return next((module for module, name in _LIBRARIES.items() if name == library), library)
