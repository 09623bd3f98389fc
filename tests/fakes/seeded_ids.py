"""Randomness that a seed reproduces."""

from __future__ import annotations

import random


class SeededIds:
    """Implements `billing.ports.Ids`."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def new(self, prefix: str) -> str:
        """`<prefix>_<24 hex>`."""
        return f"{prefix}_{self.token_bytes(12).hex()}"

    def token_bytes(self, count: int) -> bytes:
        """Not secret."""
        return self._random.randbytes(count)

    def uniform(self) -> float:
        """In [0, 1)."""
        return self._random.random()
