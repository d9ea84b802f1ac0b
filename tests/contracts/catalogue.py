"""All scenarios there are: those of every module here that is called scenarios_*."""

from __future__ import annotations

import importlib
from pathlib import Path

from contracts.scenario import SCENARIOS, Scenario

__all__ = ["OF_THE_CONTRACT", "load"]

OF_THE_CONTRACT = "scenarios_*"


def load(modules: str = OF_THE_CONTRACT) -> dict[str, Scenario]:
    """Return the scenarios of *modules* (a pattern) by name, in the order of files and lines."""
    for file in sorted(Path(__file__).parent.glob(f"{modules}.py")):
        importlib.import_module(f"contracts.{file.stem}")
    return SCENARIOS
