"""The price of a bitcoin and those who tell it: they drift, jump, fall silent, lie and grow old."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from billing.errors import NoQuote
from billing.ports import RateQuote

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

START = 100_000.0
"""USD for one bitcoin."""
DAY_S = 86400
BAND = 0.025
"""How far from the price a quote may be: the sources' band, and what they round away."""
WINDOW_S = 200
"""How old the price of a new payment request may be: the age limit and the way to our wallet."""


@dataclass
class Source:
    """One public source, seen by every life (`billing.ports.RateSource`)."""

    market: Market
    name: str
    silent_until: int = 0
    stale_since: int | None = None
    factor: float = 1.0
    ends_at: int = 0

    async def fetch(self, currency: str) -> RateQuote:
        world, now = self.market.world, self.market.world.clock.now()
        if now >= self.ends_at:
            self.stale_since, self.factor = None, 1.0
        if now < self.silent_until:
            world.count("rate_source_silent")
            raise NoQuote(currency, f"{self.name} is silent")
        at = now if self.stale_since is None else min(now, self.stale_since)
        price = Decimal(f"{self.market.price(at) * self.factor:.2f}")
        return RateQuote(self.name, currency, str(price), at)


class Market:
    """What is true, and three who say it."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.phase = world.rng.random() * 2 * math.pi
        self.jumps: list[tuple[int, float]] = []
        self.sources = [Source(self, name) for name in ("one", "two", "three")]

    def price(self, at: int) -> float:
        """It wanders by some per cent a day, and jumps."""
        price = START * (1 + 0.08 * math.sin(2 * math.pi * at / (3 * DAY_S) + self.phase))
        for since, factor in self.jumps:
            price *= factor if at >= since else 1.0
        return price

    def may_be(self, price: float, now: int) -> bool:
        """Was this the price lately?"""
        edges = [now, now - WINDOW_S, *(t for t, _ in self.jumps if now - WINDOW_S <= t <= now)]
        edges += [t - 1 for t in edges]
        seen = [self.price(at) for at in edges]
        return min(seen) * (1 - BAND) <= price <= max(seen) * (1 + BAND)

    # --- what goes wrong ------------------------------------------------------------------------

    def jump(self, factor: float) -> None:
        now = self.world.clock.now()
        # Years of jumps stay where an invoice is worth thousands of sats.
        if START / 3 < self.price(now) * factor < START * 3:
            self.jumps.append((now, factor))

    def disagree(self, seconds: int) -> None:
        """Two are left and they say different things: no guess is right."""
        now = self.world.clock.now()
        self.sources[1].factor, self.sources[1].ends_at = 1.2, now + seconds
        self.sources[2].silent_until = now + seconds

    def lie(self, seconds: int) -> None:
        """One of three is far off: the others have the quorum."""
        now = self.world.clock.now()
        # Two that are off by the same would be a quorum: nobody could tell (seed 50200).
        off = [s for s in self.sources if s.factor != 1.0 and now < s.ends_at]
        source = off[0] if off else self.world.rng.choice(self.sources)
        source.factor, source.ends_at = 0.5, now + seconds

    def grow_old(self, seconds: int) -> None:
        now = self.world.clock.now()
        for source in self.sources:
            source.stale_since, source.ends_at = now, now + seconds

    def fall_silent(self, seconds: int) -> None:
        for source in self.sources[:2]:
            source.silent_until = self.world.clock.now() + seconds

    def calm(self) -> None:
        """Everybody tells the price again."""
        for source in self.sources:
            source.silent_until = source.ends_at = 0
