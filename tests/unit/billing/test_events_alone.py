"""Each event alone brings what changed at Stripe here: no other event, sweep or look helps it."""

from __future__ import annotations

import pytest

from billing.model import Invoice
from billing.store import tenants
from tests.fakes.stripe_books import Books
from tests.fakes.stripe_books import Invoice as StripeInvoice
from tests.unit.billing.test_stuck import tamper
from tests.unit.billing.test_webhook_events import event, paid_tenant, put
from tests.world import ALICE, World


async def only_this(world: World, kind: str, subject: str) -> None:
    """Everything else that Stripe would have told is lost."""
    world.stripe.books.events.clear()
    event_id = await put(world, kind, {"id": subject})
    await world.events.run_once(world.clock.now())
    assert (await event(world, event_id)).state == "handled"


def becomes(books: Books, invoice: StripeInvoice, status: str) -> None:
    if status == "deleted":
        del books.invoices[invoice.id]
        return
    books.finalize(invoice)
    if status == "paid":
        books.mark_paid(invoice)
    elif status == "void":
        books.void(invoice)
    elif status == "uncollectible":
        invoice.status = "uncollectible"
    else:
        assert not books.charge(invoice), "nobody has left a card"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("finalized", "open"),
        ("updated", "open"),
        ("payment_failed", "open"),
        ("payment_action_required", "open"),
        ("overdue", "open"),
        ("paid", "paid"),
        ("payment_succeeded", "paid"),
        ("voided", "void"),
        ("marked_uncollectible", "uncollectible"),
        ("deleted", "deleted"),
    ],
)
async def test_k2_an_invoice_event_alone_mirrors_it_and_has_it_collected(
    world: World, name: str, status: str
) -> None:
    """A dead handler would go unseen while others of the same invoice arrive: open money waits."""
    customer = await paid_tenant(world)
    books = world.stripe.books
    (sub,) = books.subscriptions.values()
    invoice = books.draft(customer, sub, [400], "manual", False)
    await only_this(world, "invoice.created", invoice.id)
    mirror = await mirrored(world, invoice.id)
    assert (mirror.status, mirror.collect_due_at) == ("draft", world.clock.now())
    tamper(world, "UPDATE invoices SET collect_due_at = NULL WHERE status = 'draft'")
    becomes(books, invoice, status)
    world.clock.advance(60)
    await only_this(world, f"invoice.{name}", invoice.id)
    mirror = await mirrored(world, invoice.id)
    due_at = world.clock.now() if status == "open" else None
    assert (mirror.status, mirror.collect_due_at) == (status, due_at)


async def mirrored(world: World, invoice_id: str) -> Invoice:
    (found,) = [i for i in await world.invoices() if i.id == invoice_id]
    return found


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("created", "past_due"),
        ("updated", "past_due"),
        ("paused", "paused"),
        ("resumed", "past_due"),
        ("trial_will_end", "trialing"),
        ("deleted", "canceled"),
    ],
)
async def test_c9_a_subscription_event_alone_mirrors_it_and_has_it_compared(
    world: World, name: str, status: str
) -> None:
    """A dead handler would go unseen while others of the same subscription arrive."""
    await paid_tenant(world)
    await world.settle_down()
    (sub,) = world.stripe.books.subscriptions.values()
    async with world.rt.unit() as unit:
        before = await tenants.get(unit.tx, ALICE)
    assert before is not None
    assert (before.subscription_status, before.sync_due_at) == ("active", None)
    sub.status = status
    await only_this(world, f"customer.subscription.{name}", sub.id)
    async with world.rt.unit() as unit:
        after = await tenants.get(unit.tx, ALICE)
    assert after is not None
    assert (after.subscription_status, after.sync_due_at) == (status, world.clock.now())
