"""What seeds of the simulation found, told small; the seeds are pinned in tests/sim/test_sim.py."""

from __future__ import annotations

from typing import Any

from billing.errors import StripeUnavailable
from billing.model import RelayState
from tests.books import check_books
from tests.unit.billing.dunned import days, renewal, said, state, unpaid
from tests.unit.billing.test_credit_rail import balance, give, owed, spends_of
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


async def test_m9_credit_whose_spending_was_overtaken_goes_back(world: World) -> None:
    """Seed 70090: the answer of the debit was lost, the Dashboard paid the invoice, and nobody
    looked at an invoice that was paid: the credit was gone."""
    await owed(world)

    def lose(name: str, arguments: Any) -> None:
        if name == "debit_customer":
            raise StripeUnavailable("", "lost")

    world.stripe.after = lose
    await give(world)
    await world.pass_time(6 * 3600, step=3600)
    assert balance(world) == 0
    (invoice,) = world.stripe.books.invoices.values()
    world.stripe.books.mark_paid(invoice, off_stripe=True)
    await world.settle_down()
    world.stripe.after = lambda name, arguments: None
    await world.pass_time(6 * 3600, step=3600)
    assert [i.status for i in await world.invoices()] == ["paid"]
    assert balance(world) == -400
    assert [spend.ended_at is not None for spend in await spends_of(world)] == [True]


async def test_m13_a_step_that_finds_nothing_left_to_pay_is_not_taken(world: World) -> None:
    """Seed 70318: paid at Stripe and not heard of yet, a step of dunning asked how many sats
    nothing is."""
    await unpaid(world)
    await days(world, 6)
    invoice = renewal(world)
    invoice.status, invoice.paid, invoice.remaining = "paid", invoice.remaining, 0
    for _ in range(8):
        # Nobody else looks before it.
        world.clock.advance(6 * 3600)
        await world.lease.renew()
        await world.dunner.run_once(world.clock.now())
    assert "dunning_limit" not in await said(world)
    assert await state(world) is RelayState.ACTIVE


async def test_k5_a_card_is_not_charged_for_what_dunning_has_ended(world: World) -> None:
    """Seed 173: the invoice of a tenant who pays by card only stayed with Stripe, whose last retry
    went through after the relay had ended."""
    await unpaid(world, card=True)
    await days(world, 32)
    assert await state(world) is RelayState.ENDED
    (customer,) = world.stripe.books.customers.values()
    world.stripe.set_card(customer.id, "ok")
    await days(world, 30)
    assert {i.status for i in (await world.invoices())[1:]} == {"void"}
    assert not any(i.paid for i in list(world.stripe.books.invoices.values())[1:])
