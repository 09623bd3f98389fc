"""What a test needs and cannot bring: skipped with a clear word, and never skipped in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

VARIABLE = "PURSER_REQUIRE_PEERS"


def missing(reason: str) -> NoReturn:
    """Skips the test; fails it where everything is required (`.ci/run`)."""
    if os.environ.get(VARIABLE) == "1":
        pytest.fail(reason)
    pytest.skip(reason)
