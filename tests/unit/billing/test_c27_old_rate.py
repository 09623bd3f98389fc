"""C27: a rate that grew old between the quote and the payment request stands in no request."""

from __future__ import annotations

import pytest

from billing.rails.issue import MAKE_WITHIN_S
from billing.rates import Rate
from tests.unit.billing.conftest import MakeWorld


@pytest.mark.parametrize("where", ["at the quote", "at the wallet"])
@pytest.mark.parametrize(("slept_s", "requests"), [(MAKE_WITHIN_S, 1), (9 * 3600, 0)])
async def test_c27_a_laptop_that_slept_after_the_quote_shows_nobody_the_old_rate(
    make_world: MakeWorld, slept_s: int, requests: int, where: str
) -> None:
    """Simulation seeds 110, frozen for nine hours at `make_invoice`, and 4337, right before it."""
    world = await make_world()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.sync.run_once(world.clock.now())
    (invoice,) = await world.invoices()
    make, quote = world.payee.make_invoice, world.issuer.quoter.quote

    async def slow_make(amount_msat: int, description: str, expiry_s: int) -> object:
        world.clock.advance(slept_s)
        return await make(amount_msat, description, expiry_s)

    async def slow_quote(currency: str) -> Rate:
        rate = await quote(currency)
        world.clock.advance(slept_s)
        return rate

    if where == "at the quote":
        world.issuer.quoter.quote = slow_quote  # type: ignore[method-assign]
    else:
        world.payee.make_invoice = slow_make  # type: ignore[assignment,method-assign]
    await world.lease.take()
    await world.collector.run_once(world.clock.now())
    assert len(await world.requests()) == requests
    shown = [kind for kind, _ in await world.messages() if kind == "pay_by_hand"]
    assert len(shown) == requests
    assert (await world.invoices())[0].id == invoice.id
