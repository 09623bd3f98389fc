"""An exchange-rate source that says what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from billing.errors import NoQuote
from billing.ports import Clock, RateQuote


class FakeRateSource:
    """`prices` by lower-case currency; a missing one is refused. `down` refuses everything."""

    def __init__(
        self, name: str, clock: Clock, prices: dict[str, str] | None = None, *, age_s: int = 0
    ) -> None:
        self._name = name
        self._clock = clock
        self.prices = dict(prices or {})
        self.age_s = age_s
        self.down = False
        self.calls = 0
        self.on_fetch: Callable[[str], None] = lambda currency: None

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    async def fetch(self, currency: str) -> RateQuote:
        """What it was told, seen `age_s` ago."""
        self.calls += 1
        self.on_fetch(currency)
        await asyncio.sleep(0)
        price = self.prices.get(currency.lower())
        if self.down or price is None:
            raise NoQuote(self._name, "does not quote now")
        return RateQuote(self._name, currency.lower(), price, self._clock.now() - self.age_s)
