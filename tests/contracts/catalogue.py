"""All scenarios there are: every module here that is called scenarios_*."""

from __future__ import annotations

import importlib
from pathlib import Path

from contracts.scenario import SCENARIOS, Scenario

__all__ = ["load"]


def load() -> dict[str, Scenario]:
    """Return all scenarios by name, in the order of files and lines."""
    for file in sorted(Path(__file__).parent.glob("scenarios_*.py")):
        importlib.import_module(f"contracts.{file.stem}")
    return SCENARIOS
