"""`stripe.collection_method = "send_invoice"`: active before it is paid, yet nothing is free."""

from __future__ import annotations

import pytest

from tests.books import check_all, check_ledger
from tests.world import ALICE, World

DAY_S = 86_400


@pytest.fixture
async def sending(world: World) -> World:
    """A world whose new subscriptions are sent invoices."""
    world.days_until_due, world.email_domain = 7, "tenants.example.com"
    world._build()
    return world


async def order(world: World, name: str = "alice") -> None:
    await world.orders.new(await world.command("new"), name, "basic")
    await world.settle_down()


async def states(world: World) -> dict[str, str]:
    return {relay.name: relay.state.value for relay in await world.relays()}


async def pay_shown(world: World) -> None:
    (request,) = [r for r in await world.requests() if r.state == "open"]
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=30)


async def test_m12_an_active_subscription_brings_no_relay_up_before_its_invoice_is_paid(
    sending: World,
) -> None:
    """M12: Stripe calls it active at once; the relay asks whether its invoice is paid."""
    await order(sending)
    (sub,) = sending.stripe.books.subscriptions.values()
    assert (sub.status, sub.collection_method) == ("active", "send_invoice")
    assert sub.customer.email == f"{ALICE[:32]}@tenants.example.com"
    (invoice,) = await sending.invoices()
    assert invoice.status == "open", "the draft was taken over and finalized"
    assert await states(sending) == {"alice": "pending_payment"}
    await sending.pass_time(1800, step=300)
    assert await states(sending) == {"alice": "pending_payment"}
    await pay_shown(sending)
    assert await states(sending) == {"alice": "active"}
    await check_all(sending)


async def test_a_wallet_pays_the_first_one_and_the_renewals(sending: World) -> None:
    await sending.connect_wallet()
    await order(sending)
    await sending.pass_time(120, step=30)
    assert await states(sending) == {"alice": "active"}
    await sending.pass_time(32 * DAY_S, step=DAY_S // 4)
    assert [(i.status, i.paid_by) for i in await sending.invoices()] == [("paid", "nwc")] * 2
    await check_all(sending)


async def test_c25_an_order_that_nobody_pays_ends_and_its_invoice_is_voided(sending: World) -> None:
    """C25: the subscription that stays is asked for nothing, and ends with its period."""
    await order(sending)
    await sending.pass_time(30 * 3600, step=1800)
    assert (await sending.relays())[0].is_lapsed
    (invoice,) = await sending.invoices()
    assert invoice.status == "void"
    (sub,) = sending.stripe.books.subscriptions.values()
    assert sub.cancel_at_period_end
    await sending.pass_time(32 * DAY_S, step=DAY_S // 2)
    assert sub.status == "canceled"
    assert len(await sending.invoices()) == 1, "no renewal of what nobody has"
    await check_ledger(sending)


async def test_m12_another_order_after_one_that_ended_is_paid_for_itself(sending: World) -> None:
    await order(sending)
    await sending.pass_time(30 * 3600, step=1800)
    await order(sending, "bob")
    await sending.pass_time(120, step=30)
    assert await states(sending) == {"alice": "pending_payment", "bob": "pending_payment"}
    await pay_shown(sending)
    assert await states(sending) == {"alice": "pending_payment", "bob": "active"}
    assert (await sending.relays())[0].is_lapsed
    (sub,) = sending.stripe.books.subscriptions.values()
    assert [item.quantity for item in sub.items] == [1]
    assert not sub.cancel_at_period_end
    await sending.pass_time(120, step=30)
    newest = (await sending.invoices())[-1]
    assert newest.status == "paid"
    assert newest.total_minor > 300, "nearly a whole month: nothing of it was paid before"
    await check_ledger(sending)


async def test_m4_a_card_is_asked_once_by_us_since_stripe_only_sends(sending: World) -> None:
    await order(sending)
    (customer,) = sending.stripe.books.customers.values()
    sending.stripe.attach(customer.id)
    await sending.pass_time(2 * 3600, step=300)
    assert [(i.status, i.paid_by) for i in await sending.invoices()] == [("paid", "card")]
    await sending.pass_time(32 * DAY_S, step=DAY_S // 4)
    assert [(i.status, i.paid_by) for i in await sending.invoices()] == [("paid", "card")] * 2
    calls = [name for name, _ in sending.stripe.calls if name == "pay_by_card"]
    assert len(calls) == 2
    await check_ledger(sending)
