"""The bot away for forty days: longer than Stripe keeps events, found by listing all the same."""

from __future__ import annotations

from billing.errors import StripeRejected
from billing.model import InboxEvent, Tenant
from billing.views import EventPage
from tests.books import check_all
from tests.unit.billing.test_restored_backup import empty
from tests.world import ALICE, OPERATOR, World

DAY_S = 86_400
BOB = "b0" * 32
CAROL = "ca" * 32


async def ordered(world: World, tenant: str, name: str) -> None:
    """A relay, paid by hand and up."""
    await world.orders.new(await world.command("new", tenant), name, "basic")
    await world.settle_down()
    request = (await world.requests())[-1]
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=60)


async def away(world: World, seconds: int) -> World:
    """Nobody works and no webhook arrives meanwhile, nor when the bot is back."""
    world.clock.advance(seconds)
    world.stripe.books.run_to(world.clock.billing_now())
    again = await world.reborn(rebuild=False)

    async def none() -> int:
        return 0

    again.deliver_events = none  # type: ignore[method-assign]
    return again


async def back(world: World) -> None:
    """As a start: the rebuild, then the first reconcile, then work."""
    await world.rebuilder.run_once(world.clock.now())
    await world.reconciler.run_once(world.clock.now())
    await world.settle_down()


async def alarms(world: World) -> str:
    return "\n".join(str(facts["what"]) for _, facts in await world.messages(OPERATOR))


async def test_after_forty_days_everything_that_happened_is_here(world: World) -> None:
    books, stripe = world.stripe.books, world.stripe
    await ordered(world, ALICE, "alice")
    await ordered(world, BOB, "bob")
    await ordered(world, CAROL, "carol")
    alice, bob, carol = books.subscriptions.values()
    await world.reconciler.run_once(world.clock.now())
    # Alice has a card: Stripe renews and collects by itself while nobody is there.
    stripe.set_card(alice.customer.id, "ok")
    # Carol's subscription is ended in the Dashboard.
    world.clock.advance(20 * DAY_S)
    books.run_to(world.clock.billing_now())
    books.cancel(carol)
    world.clock.advance(15 * DAY_S)
    books.run_to(world.clock.billing_now())
    renewed = books.invoices[alice.latest_invoice_id or ""]
    assert (renewed.status, renewed.card) == ("paid", "paid")
    refund = stripe.made_in_dashboard(renewed.id, 100)
    dispute = stripe.open_dispute(renewed.id)
    # Bob's renewal is paid in the Dashboard.
    books.mark_paid(books.invoices[bob.latest_invoice_id or ""], off_stripe=True)
    # And everything is older than Stripe remembers.
    again = await away(world, 31 * DAY_S)
    page = await stripe.events_after(None, 0)
    told = {str(dict(e.raw)["data"]["object"]["id"]) for e in page.events}
    assert refund.id not in told
    await back(again)
    assert [i.status for i in await again.invoices(BOB)][:2] == ["paid", "paid"], "in January"
    mirrored = {i.id: i.paid_by for i in await again.invoices(ALICE)}
    assert mirrored[renewed.id] == "card"
    (row,) = [t for t in await again.all(Tenant, "tenants.everyone") if t.pubkey == CAROL]
    assert row.subscription_id is None
    text = await alarms(again)
    assert refund.id in text
    assert dispute.id in text
    assert carol.id in text
    events = await again.all(InboxEvent, "events.newest", count=1000)
    assert all(e.state == "handled" for e in events if e.event_id.startswith("found:"))
    assert await again.reconciler.plan() == []


async def test_a_stripe_that_takes_a_forgotten_cursor_does_not_hide_the_gap(world: World) -> None:
    """Not documented: it may answer with what it still has instead of refusing. Time decides."""
    await ordered(world, ALICE, "alice")
    await world.reconciler.run_once(world.clock.now())
    again = await away(world, 40 * DAY_S)
    ask = again.stripe.events_after
    known = {event.id for event in again.stripe.books.events}

    async def lenient(cursor: str | None, since: int) -> EventPage:
        try:
            return await ask(cursor, since)
        except StripeRejected:
            assert cursor in known
            return await ask(None, 0)

    again.stripe.events_after = lenient  # type: ignore[method-assign]
    before = len(again.stripe.calls)
    await again.reconciler.run_once(again.clock.now())
    assert "traces_since" in [name for name, _ in again.stripe.calls[before:]]
    # Once it is up to date it lists no more.
    before = len(again.stripe.calls)
    await again.reconciler.run_once(again.clock.now())
    assert "traces_since" not in [name for name, _ in again.stripe.calls[before:]]


async def test_a_bot_that_never_read_an_event_reads_back_to_where_it_was_last_whole(
    world: World,
) -> None:
    """Its start found nothing to read, so it has no cursor; a day back would not be enough
    (simulation seeds 1745 and 2434)."""
    await world.reconciler.run_once(world.clock.now())
    await ordered(world, ALICE, "alice")
    again = await away(world, 3 * DAY_S)
    customer = next(iter(again.stripe.books.customers.values()))
    again.stripe.make_default(customer.id, again.stripe.attach(customer.id, "ok"))
    missed = {event.id for event in again.stripe.books.events[-2:]}
    again = await away(again, 5 * DAY_S)
    await again.reconciler.run_once(again.clock.now())
    known = {e.event_id for e in await again.all(InboxEvent, "events.newest", count=1000)}
    assert missed <= known


async def test_a_short_absence_reads_events_and_lists_nothing(world: World) -> None:
    await ordered(world, ALICE, "alice")
    await world.reconciler.run_once(world.clock.now())
    again = await away(world, 20 * DAY_S)
    before = len(again.stripe.calls)
    await again.reconciler.run_once(again.clock.now())
    assert "traces_since" not in [name for name, _ in again.stripe.calls[before:]]


async def test_what_was_found_once_is_not_handled_again(world: World) -> None:
    await ordered(world, ALICE, "alice")
    await world.reconciler.run_once(world.clock.now())
    (invoice,) = await world.invoices()
    sub = next(iter(world.stripe.books.subscriptions.values()))
    world.stripe.set_card(sub.customer.id, "ok")
    again = await away(world, 40 * DAY_S)
    renewed = sub.latest_invoice_id or ""
    world.stripe.made_in_dashboard(renewed, 100)
    await back(again)
    first = await again.all(InboxEvent, "events.newest", count=1000)
    # A second instance that was away as long, on the same database: nothing is told twice.
    async with again.store.transaction() as tx:
        await tx.execute("leases.set_cursor", name="whole_up_to", value=str(invoice.created_at))
    await again.reconciler.run_once(again.clock.now())
    await again.settle_down()
    second = await again.all(InboxEvent, "events.newest", count=1000)
    assert len(first) == len(second)
    assert (await alarms(again)).count("went back by card") == 1
    await check_all(again)


async def test_a_new_bot_on_a_busy_account_says_nothing_of_what_is_not_its_own(
    world: World,
) -> None:
    """Each refund and dispute of another business, of months, would be an alarm at the start."""
    await ordered(world, ALICE, "alice")
    (sub,) = world.stripe.books.subscriptions.values()
    world.stripe.set_card(sub.customer.id, "ok")
    await world.pass_time(32 * DAY_S, step=DAY_S)
    renewed = world.stripe.books.invoices[sub.latest_invoice_id or ""]
    for _ in range(5):
        world.stripe.made_in_dashboard(renewed.id, 10)
    world.stripe.open_dispute(renewed.id)
    world.clock.advance(40 * DAY_S)
    # From here on it is a shop that has nothing to do with us.
    world.stripe.books.cancel(sub)
    for each in (sub, sub.customer, *world.stripe.books.invoices.values()):
        each.metadata = {}
    world.clock.advance(DAY_S)
    engine = await empty(world)
    again = await world.reborn(engine, rebuild=False)
    await again.start()
    again.deliver_events = _no_webhooks  # type: ignore[method-assign]
    before = len(again.stripe.calls)
    await back(again)
    assert "traces_since" in [name for name, _ in again.stripe.calls[before:]]
    assert await alarms(again) == ""
    await engine.close()


async def test_k3_what_a_sweep_finds_goes_to_the_handler_of_the_webhook(world: World) -> None:
    """K3: a cancellation in the Dashboard, seen by the sweep only, is told and ends relays at the
    end of what was paid, as its event would have; and no other subscription is made (C9)."""
    await ordered(world, ALICE, "alice")
    (sub,) = world.stripe.books.subscriptions.values()
    world.stripe.books.cancel(sub)
    world.deliver_events = _no_webhooks  # type: ignore[method-assign]
    assert await world.reconciler.sweep()
    await world.settle_down()
    assert len(world.stripe.books.subscriptions) == 1
    assert "cancelled at Stripe" in await alarms(world)
    (relay,) = await world.relays()
    assert relay.state.value == "active"
    (found,) = [
        e
        for e in await world.all(InboxEvent, "events.newest", count=100)
        if e.event_id.startswith("found:")
    ]
    assert (found.type, found.object_id, found.state) == (
        "customer.subscription.updated",
        sub.id,
        "handled",
    )


async def _no_webhooks() -> int:
    return 0
