"""C27: operators hear once that no rate can be quoted, and once that it can again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from billing.errors import NoQuote
from billing.rate_watch import BLIP_S, RateWatch
from billing.rates import Rate
from bot.dm.texts import render
from tests.fakes.clock import FakeClock
from tests.world import OPERATOR, PRICE, World


@dataclass
class Rates:
    """A book that may be without a quorum (`down`), or hold a move (`held`)."""

    clock: FakeClock
    down: bool = False
    held: bool = False
    asked: int = 0
    last: str | None = None

    async def quote(self, currency: str) -> Rate:
        self.asked += 1
        self.last = "no quorum: 1 of 3 sources" if self.down else None
        if self.last:
            raise NoQuote(currency, self.last)
        return Rate(currency, PRICE, ("one", "two"), self.clock.now())

    def refused(self, currency: str) -> str | None:
        return self.last

    def is_held(self, currency: str) -> bool:
        return self.held


async def told(world: World) -> list[str]:
    found = await world.messages(OPERATOR)
    return [render(kind, facts) for kind, facts in found if kind == "operator_alarm"]


@pytest.fixture
def rates(world: World) -> Rates:
    return Rates(world.clock)


async def run(world: World, rates: Rates, seconds: int = 0) -> None:
    """A watch of a new process each time: what it knows is in the database."""
    world.clock.advance(seconds)
    await world.lease.renew()
    await RateWatch(world.rt, rates, "usd").run_once(world.clock.now())


async def test_c27_an_outage_is_told_once_and_its_end_once(world: World, rates: Rates) -> None:
    await run(world, rates)
    assert rates.asked == 0, "while nobody needs a rate, nobody is asked"
    rates.down, rates.last = True, "no quorum"
    await run(world, rates)
    assert await told(world) == [], "a blip"
    for _ in range(10):
        await run(world, rates, BLIP_S // 2)
    (text,) = await told(world)
    assert "no quorum" in text
    assert "USD" in text
    rates.down = False
    for _ in range(3):
        await run(world, rates, 60)
    assert len(await told(world)) == 2
    assert "are back" in (await told(world))[1]
    asked = rates.asked
    await run(world, rates, 60)
    assert rates.asked == asked


async def test_c27_a_held_move_is_told_at_once(world: World, rates: Rates) -> None:
    rates.down, rates.held, rates.last = True, True, "held"
    await run(world, rates)
    assert len(await told(world)) == 1


async def test_c27_a_blip_is_told_to_nobody(world: World, rates: Rates) -> None:
    rates.down, rates.last = True, "no quorum"
    await run(world, rates)
    rates.down = False
    await run(world, rates, 60)
    assert await told(world) == []


async def test_c27_the_next_outage_is_told_again(world: World, rates: Rates) -> None:
    for _ in range(2):
        rates.down, rates.last = True, "no quorum"
        await run(world, rates, 5)
        await run(world, rates, BLIP_S)
        rates.down = False
        await run(world, rates, 5)
    assert len(await told(world)) == 4
