"""What an adapter leaves unclosed is told by its own test, not by one that happens to run later."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_is_left_unclosed() -> Iterator[None]:
    """Let what is unreachable complain now: a warning is an error here."""
    yield
    gc.collect()
