"""An event loop on virtual time: when nothing is ready, the clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import hashlib
import selectors
from typing import Any

BASE: int = 1_800_000_000


class _Selector(selectors.SelectSelector):
    """Never polls: nothing real is ever waited for."""

    loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "every task waits for something that nobody will do"
        if timeout > 0 and self.loop is not None:
            self.loop.virtual += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual seconds since the start."""

    def __init__(self) -> None:
        self.virtual = 0.0
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.virtual


class SimClock:
    """Implements `billing.ports.Clock`; wire and billing time move together."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return BASE + int(self._loop.virtual + 1e-6)

    def billing_now(self) -> int:
        return self.now()


class SimIds:
    """Implements `billing.ports.Ids`: in order, so that a seed names the same things again."""

    def __init__(self) -> None:
        self.count = 0

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}_{self.count:06d}"

    def token_bytes(self, count: int) -> bytes:
        self.count += 1
        return hashlib.shake_256(str(self.count).encode()).digest(count)

    def uniform(self) -> float:
        return 0.5
