"""M13: who pays a later invoice that still has an ended relay on it gets it back, or its share."""

from __future__ import annotations

import pytest

from billing.dunning import DAY_S
from billing.errors import StripeUnavailable
from billing.model import HostedRelay, RelayState
from tests.fakes.stripe_books import Invoice as StripeInvoice
from tests.unit.billing.dunned import (
    HOUR_S,
    days,
    order,
    renewal,
    subscription,
    text_of,
    to_renewal,
    told,
    unpaid,
)
from tests.world import ALICE, World


async def relay_named(world: World, name: str) -> HostedRelay:
    return next(relay for relay in await world.relays() if relay.name == name)


async def alice_ended_on_an_invoice_that_berta_keeps_open(world: World) -> StripeInvoice:
    """The first renewal is never paid; berta is ordered and paid meanwhile, and the next renewal
    carries both when the timeline ends alice."""
    await unpaid(world)
    first = renewal(world)
    await days(world, 12)
    await order(world, "berta")
    books = world.stripe.books
    addition = list(books.invoices.values())[-1]
    assert addition is not first
    books.mark_paid(addition, off_stripe=True)
    await days(world, 21)
    assert (await relay_named(world, "alice")).state is RelayState.ENDED
    assert (await relay_named(world, "berta")).state is not RelayState.ENDED
    later = list(books.invoices.values())[-1]
    assert (later.status, first.status) == ("open", "void")
    async with world.rt.unit() as unit:
        carried = await unit.tx.fetch_all(HostedRelay, "relays.of_invoice", invoice_id=later.id)
    assert {relay.name for relay in carried} == {"alice", "berta"}
    return later


async def pay(world: World, invoice: StripeInvoice) -> None:
    world.stripe.books.mark_paid(invoice, off_stripe=True)
    await world.pass_time(5 * HOUR_S, step=600)


async def test_m13_an_ended_relay_comes_back_for_what_a_later_invoice_paid(world: World) -> None:
    later = await alice_ended_on_an_invoice_that_berta_keeps_open(world)
    await pay(world, later)
    alice = await relay_named(world, "alice")
    assert alice.state is RelayState.ACTIVE
    assert world.host.is_up(alice.id)
    assert alice.stops_at == later.covers[1]
    assert not alice.is_renewed
    assert "alice" in await text_of(world, "stopping")
    assert "alice" in await text_of(world, "invoice_paid")
    assert later.customer.balance_minor == 0
    assert [kind for kind, _ in await told(world)].count("paid_for_ended") == 0
    await days(world, 30)
    alice = await relay_named(world, "alice")
    assert alice.is_lapsed, (
        "it waits for `resume`, and nothing was ordered behind its tenant's back"
    )


async def test_m13_its_share_is_credit_where_its_name_is_taken(world: World) -> None:
    later = await alice_ended_on_an_invoice_that_berta_keeps_open(world)
    await world.orders.new(await world.command("new"), "alice", "free")
    await world.settle_down()
    await pay(world, later)
    assert [r.state.value for r in await world.relays() if r.name == "alice"] == ["ended", "active"]
    assert later.customer.balance_minor == -400
    assert "$4.00, becomes your credit" in await text_of(world, "paid_for_ended")
    assert [kind for kind, _ in await told(world)].count("credit_given") == 1


async def test_m13_a_credit_under_way_does_not_keep_a_payment_from_being_seen(
    world: World,
) -> None:
    """An operator's credit that Stripe answers with errors for hours is one thing; the share of a
    paid invoice, which is stored with the payment itself, another."""
    later = await alice_ended_on_an_invoice_that_berta_keeps_open(world)
    await world.orders.new(await world.command("new"), "alice", "free")
    await world.settle_down()

    def down(name: str, arguments: object) -> None:
        if name == "credit_customer":
            raise StripeUnavailable("", "a cached 500")

    world.stripe.before = down
    await world.refund_desk.credit(ALICE, 250, "usd", "for the outage")
    await world.settle_down()
    world.stripe.books.mark_paid(later, off_stripe=True)
    await world.settle_down()
    (invoice,) = [known for known in await world.invoices() if known.id == later.id]
    assert invoice.paid_at is not None, "it was paid, whatever becomes of the other credit"
    world.stripe.before = lambda name, arguments: None
    await world.pass_time(5 * HOUR_S, step=600)
    assert later.customer.balance_minor == -650
    assert [kind for kind, _ in await told(world)].count("credit_given") == 2


async def test_m13_its_share_is_credit_where_the_time_that_was_paid_is_over(world: World) -> None:
    later = await alice_ended_on_an_invoice_that_berta_keeps_open(world)
    later.covers = (later.covers[0], world.clock.billing_now() + 600)
    await pay(world, later)
    assert (await relay_named(world, "alice")).state is RelayState.ENDED
    assert later.customer.balance_minor == -400


@pytest.mark.parametrize("away_s", [2, 5 * HOUR_S])
async def test_a_seat_that_was_stopped_as_the_renewal_was_made_is_given_back(
    world: World, away_s: int
) -> None:
    """Another relay goes on, so the renewal stands; it has the stopped one's seat too."""
    await world.connect_wallet()
    for name in ("alice", "berta"):
        await order(world, name)
    await world.pass_time(30, step=10)
    left = subscription(world).period_end - world.clock.billing_now() - 1
    await world.pass_time(left, step=DAY_S)
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    world.clock.advance(away_s)
    await world.lease.take()
    await world.settle_down()
    await world.pass_time(DAY_S, step=HOUR_S)
    assert (await relay_named(world, "alice")).state is RelayState.ENDED
    paid = list(world.stripe.books.invoices.values())[-1]
    assert (paid.status, paid.total, paid.seats) == ("paid", 800, 2)
    assert paid.customer.balance_minor == -400
    assert "alice" in await text_of(world, "paid_for_ended")


async def test_a_stop_in_time_gives_nothing_back(world: World) -> None:
    await world.connect_wallet()
    for name in ("alice", "berta"):
        await order(world, name)
    await world.pass_time(30, step=10)
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await to_renewal(world)
    await days(world, 1)
    paid = list(world.stripe.books.invoices.values())[-1]
    assert (paid.status, paid.total) == ("paid", 400)
    assert paid.customer.balance_minor == 0
