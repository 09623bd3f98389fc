"""Drafts that somebody else finalizes, and ones that are paid the moment they are finalized."""

from __future__ import annotations

from bot.dm.texts import render
from tests.unit.billing.dunned import days, order, renewal, state, subscription, windows
from tests.world import World

DAY_S = 86_400


async def to_the_draft(world: World) -> None:
    """To the second in which the renewal is drawn up."""
    await world.pass_time(subscription(world).period_end - world.clock.billing_now(), step=DAY_S)


async def test_a_finalize_that_loses_the_race_is_collected_all_the_same(world: World) -> None:
    """Stripe was a moment faster and answers 400 without a code; its event is lost. Taken for a
    last word, the invoice would stay open until somebody asked."""
    await world.connect_wallet()
    await order(world)
    await world.pass_time(30, step=10)
    lost: list[str] = []

    def stripe_is_first(name: str, arguments: object) -> None:
        if name == "finalize_invoice" and not lost:
            invoice = renewal(world)
            world.stripe.books.finalize(invoice)
            world.stripe.books.events.clear()
            lost.append(invoice.id)

    world.stripe.before = stripe_is_first
    await to_the_draft(world)
    await world.pass_time(1800, step=60)
    assert lost == [renewal(world).id]
    assert [i.status for i in await world.invoices()] == ["paid", "paid"]
    assert len(world.payer.sent) == 2


async def test_a_renewal_below_stripes_minimum_is_paid_by_itself_and_nobody_is_asked(
    world: World,
) -> None:
    """30 cents go onto the balance at finalization: who paid a request for them paid twice."""
    await order(world)
    (request,) = await world.requests()
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=10)
    # As a coupon would leave it.
    subscription(world).items[0].price.amount_minor = 30
    await to_the_draft(world)
    await days(world, 3)
    assert [i.status for i in await world.invoices()] == ["paid", "paid"]
    assert (renewal(world).total, renewal(world).customer.balance_minor) == (30, 30)
    assert len(await world.requests()) == 1
    assert await state(world) == "active"
    assert await windows(world) == []
    said = next(facts for kind, facts in reversed(await world.messages()) if kind == "invoice_paid")
    assert (said["carried_minor"], said["credit_minor"]) == (30, 0)
    text = render("invoice_paid", said)
    assert text.startswith("Nothing to pay now: $0.30 for ")
    assert "credit" not in text
