"""M7: our wallet is asked at the times that docs/payments.md publishes."""

from __future__ import annotations

import pytest

from billing.payments import AUTOMATIC_EXPIRY_S, DEATH_GAP_S, MARGIN_S
from tests.stateful.payment_doc import looks
from tests.unit.billing.conftest import MakeWorld
from tests.unit.billing.dunned import order
from wallet.ports import LookupAnswer


@pytest.mark.parametrize("kind", ["lnd", "unknown"])
async def test_m7_the_resolver_asks_at_the_published_times_until_death(
    make_world: MakeWorld, kind: str
) -> None:
    """The table is made by the pure decider; a worker that stored another time, or that was not
    asked at its time, would make it untrue."""
    world = await make_world(kind)
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    lookup, asked = world.payee.lookup_invoice, [0]

    async def seen(payment_hash: str) -> LookupAnswer:
        asked.append(world.clock.now() - request.created_at)
        return await lookup(payment_hash)

    await order(world)
    (request,) = await world.requests()
    assert (request.created_at, request.lookups) == (world.clock.now(), 0)
    world.payee.lookup_invoice = seen  # type: ignore[method-assign]
    while request.state.value == "open":
        world.clock.advance(1)
        if await world.resolver.run_once(world.clock.now()):
            (request,) = await world.requests()
    published = looks(MARGIN_S[kind])
    assert asked == published[: len(asked)]
    assert asked[-1] == AUTOMATIC_EXPIRY_S + MARGIN_S[kind] + DEATH_GAP_S
