"""M9: Lightning money that meets an invoice paid some other way, or is seen hours after it came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from billing.model import Activity
from tests.books import check_all, check_ledger, check_one_payer_at_a_time
from tests.fakes.stripe_books import Invoice as StripeInvoice
from tests.unit.billing.dunned import HOUR_S, order
from tests.world import ALICE, World


def only_invoice(world: World) -> StripeInvoice:
    (invoice,) = world.stripe.books.invoices.values()
    return invoice


async def lines(world: World, kind: str) -> list[Activity]:
    told: list[Activity] = await world.all(Activity, "activity.of_tenant", tenant=ALICE)
    return [line for line in told if line.kind == kind]


# --- paid at Stripe while a wallet's attempt is in flight -----------------------------------------


async def by_card_on_its_page(world: World) -> None:
    """The tenant types a card into Stripe's hosted page of this invoice."""
    invoice = only_invoice(world)
    invoice.card = "paid"
    world.stripe.books.mark_paid(invoice)


async def marked_in_the_dashboard(world: World) -> None:
    await world.stripe.pay_out_of_band("op_of_the_operator", only_invoice(world).id)


async def from_the_credit_balance(world: World) -> None:
    """Credit that an operator gave; Stripe takes it for the invoice."""
    await world.refund_desk.credit(ALICE, 400, "usd", "for the outage")
    await world.settle_down()
    invoice = only_invoice(world)
    assert (invoice.status, invoice.customer.balance_minor) == ("open", -400)
    invoice.amount_due = invoice.remaining = invoice.customer.balance_minor = 0
    world.stripe.books.mark_paid(invoice)


WAYS = {
    "card": by_card_on_its_page,
    "stripe": marked_in_the_dashboard,
    "credit": from_the_credit_balance,
}


@pytest.mark.parametrize("way", WAYS)
async def test_m9_paid_at_stripe_in_mid_flight_and_the_wallet_pays_after_all(
    world: World, way: str
) -> None:
    """The wallet's money would be lost, or would be booked as a second payment of the invoice."""
    pay: Callable[[World], Awaitable[None]] = WAYS[way]
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    (request,) = await world.requests()
    await pay(world)
    await world.settle_down()
    (attempt,) = await world.attempts(request.invoice_id)
    assert attempt.state.value == "in_flight"
    world.payee.settle(request.payment_hash)
    await world.pass_time(2 * HOUR_S, step=60)
    (invoice,) = await world.invoices()
    assert (invoice.status, invoice.paid_by) == ("paid", way)
    (money,) = await world.settlements()
    assert (money.state.value, money.credit_minor) == ("credited", 400)
    (customer,) = world.stripe.books.customers.values()
    assert customer.balance_minor == -400
    assert [k for k, _ in await world.messages()].count("credit_added") == 1
    for kind in ("money.received", "money.to_credit", "money.credited"):
        (line,) = await lines(world, kind)
        assert line.subject == invoice.id
        assert money.payment_hash in line.facts
    assert not await lines(world, "money.placed")
    assert "pay_by_card" not in [name for name, _ in world.stripe.calls]
    check_one_payer_at_a_time(world)
    await check_ledger(world)


# --- paid by hand in the last second, seen two hours later ----------------------------------------


@pytest.mark.parametrize("our_wallet", ["held", "mute"])
async def test_m9_a_bolt11_paid_by_hand_in_its_last_second_and_seen_two_hours_later(
    world: World, our_wallet: str
) -> None:
    """Taken for dead, it would be shown or charged again. What the invoice no longer needs is
    credit."""
    await order(world)
    (request,) = await world.requests()
    assert request.shown_at is not None
    await world.pass_time(request.expires_at - 1 - world.clock.now(), step=600)
    if our_wallet == "held":
        world.payee.invoices[request.payment_hash].state = "accepted"
    else:
        world.payee.settle(request.payment_hash)
        world.payee.mute_lookups = True
    await world.pass_time(HOUR_S, step=60)
    await world.accounts.pay(await world.command("pay"))
    await world.settle_down()
    (customer,) = world.stripe.books.customers
    world.stripe.make_default(customer, world.stripe.attach(customer))
    # A credit note at Stripe reduces what is owed meanwhile.
    only_invoice(world).remaining = 300
    await world.pass_time(HOUR_S, step=60)
    assert [(r.id, r.state.value) for r in await world.requests()] == [(request.id, "open")]
    world.payee.mute_lookups = False
    if our_wallet == "held":
        world.payee.settle(request.payment_hash)
    await world.pass_time(8 * HOUR_S, step=300)
    (invoice,) = await world.invoices()
    assert (invoice.status, invoice.paid_by) == ("paid", "manual")
    assert len(await world.requests()) == 1
    assert "pay_by_card" not in [name for name, _ in world.stripe.calls]
    assert only_invoice(world).attempts == 0
    (money,) = await world.settlements()
    assert (money.state.value, money.credit_minor) == ("placed", 100)
    assert world.stripe.books.customers[customer].balance_minor == -100
    await check_all(world)
