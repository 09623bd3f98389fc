"""What seeds of the simulation found, told small; the seeds are pinned in tests/sim/test_sim.py."""

from __future__ import annotations

from tests.books import check_books
from tests.unit.billing.test_m09_m14_books import order, pay_shown, states
from tests.world import World


async def test_m12_an_order_whose_invoice_is_voided_by_hand_gets_another(world: World) -> None:
    """Seeds 10278, 10548, 10849, 10951: it waited for the next comparison, if one ever came."""
    await order(world)
    await pay_shown(world)
    await order(world, "second", "pro")
    addition = (await world.invoices())[-1]
    await world.pass_time(3 * 3600, step=600)
    assert [r.state for r in await world.requests()] == ["settled", "dead"]
    world.stripe.books.void(world.stripe.books.invoices[addition.id])
    await world.settle_down()
    await world.pass_time(600, step=60)
    (another,) = [i for i in await world.invoices() if i.status == "open"]
    request = next(r for r in await world.requests() if r.invoice_id == another.id)
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    assert await states(world) == {"alice": "active", "second": "active"}
    await check_books(world)
