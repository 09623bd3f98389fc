"""A toy Lightning network that does the same thing every time: a clock and a seed make it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

from bot.sandbox.lightning import LightningNetwork

NETWORK = "bcrt"


def fake_lightning(now: Callable[[], int], seed: int = 0) -> LightningNetwork:
    """Keys, preimages and secrets follow from the seed, times from `now` (`FakeClock.now`)."""
    numbers = itertools.count()

    def token_bytes(count: int) -> bytes:
        return hashlib.shake_256(f"lightning {seed} {next(numbers)}".encode()).digest(count)

    return LightningNetwork(network=NETWORK, clock=now, token_bytes=token_bytes)
