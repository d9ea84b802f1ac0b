"""Placeholder while the real file is being written by a colleague."""

from __future__ import annotations

from typing import Any


class Port:
    """Placeholder."""

    def __init__(self, *args: Any) -> None: ...
    def startListening(self) -> None:
        """Placeholder."""
