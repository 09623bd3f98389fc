"""Subscriptions edited by hand, stopped, unpaid or incomplete: played until all is right again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from billing.model import RelayState
from tests.fakes.stripe_books import Item, Subscription
from tests.unit.billing.dunned import days, order, renewal, state, subscription, unpaid, windows
from tests.unit.billing.test_dunning_timeline import give_time
from tests.world import World


async def on_two_plans(world: World) -> Subscription:
    """Two paid relays, one item each, ten days into their period."""
    await world.connect_wallet()
    await order(world)
    await order(world, "pro1", "pro")
    await days(world, 10)
    assert seats(subscription(world)) == [(400, 1), (900, 1)]
    return subscription(world)


def seats(sub: Subscription) -> list[tuple[int, int]]:
    return sorted((item.price.amount_minor, item.quantity) for item in sub.items)


async def edited(world: World, sub: Subscription) -> None:
    world.stripe.books.tell("customer.subscription.updated", sub)
    await world.pass_time(600, step=60)


def swapped(sub: Subscription) -> None:
    first, second = sub.items
    first.price, second.price = second.price, first.price
    second.quantity = 4


def removed(sub: Subscription) -> None:
    sub.items.pop()


def moved(sub: Subscription) -> None:
    """Both seats put on the cheaper plan."""
    cheaper = min(sub.items, key=lambda item: item.price.amount_minor)
    sub.items[:] = [Item(cheaper.id, cheaper.price, 2)]


@pytest.mark.parametrize("edit", [swapped, removed, moved])
async def test_m12_items_edited_in_the_dashboard_are_set_back(
    world: World, edit: Callable[[Subscription], None]
) -> None:
    """A plan swapped or taken off by hand would be had for another price, or for none."""
    sub = await on_two_plans(world)
    invoiced = list(world.stripe.books.invoices)
    edit(sub)
    await edited(world, sub)
    assert seats(sub) == [(400, 1), (900, 1)]
    assert not sub.pending
    assert list(world.stripe.books.invoices) == invoiced, "without proration"
    assert {r.state for r in await world.relays()} == {RelayState.ACTIVE}


async def test_the_last_relay_stopped_runs_out_and_nothing_is_invoiced_again(world: World) -> None:
    """It would run on for nothing, or its tenant would pay for a month after the stop."""
    await world.connect_wallet()
    await order(world)
    await days(world, 10)
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.settle_down()
    await days(world, 15)
    assert await state(world) is RelayState.ACTIVE, "M13: paid is paid"
    await days(world, 10)
    (relay,) = await world.relays()
    assert relay.state is RelayState.ENDED
    assert not world.host.is_up(relay.id)
    assert subscription(world).status == "canceled"
    await days(world, 40)
    assert len(world.stripe.books.invoices) == len(await world.invoices()) == 1


async def test_c9_two_months_under_unpaid_and_then_paid_all_is_well(world: World) -> None:
    """C9: while it is `unpaid` Stripe leaves each renewal a draft; paying must bring all back."""
    books = world.stripe.books
    books.after_last_retry = "unpaid"
    await unpaid(world, card=True)
    await days(world, 20)
    assert subscription(world).status == "unpaid"
    await give_time(world, 60)
    await days(world, 15)
    assert subscription(world).status == "unpaid"
    assert await state(world) is RelayState.STOPPED
    world.stripe.set_card(renewal(world).customer.id, "ok")
    owed = [i for i in books.invoices.values() if i.status == "open"]
    assert len(owed) == 2
    assert all(books.charge(invoice) for invoice in owed)
    await days(world, 3)
    assert await state(world) is RelayState.ACTIVE
    assert subscription(world).status == "active"
    assert {i.status for i in books.invoices.values()} == {"paid"}
    assert await windows(world) == []


async def test_k5_a_subscription_that_is_incomplete_is_neither_changed_nor_doubled(
    world: World,
) -> None:
    """K5: what is ordered while the first payment is awaited waits for it, in the same one."""
    await order(world)
    sub = subscription(world)
    assert sub.status == "incomplete"
    before = seats(sub)
    await order(world, "berta", "pro")
    await world.pass_time(3600, step=600)
    assert list(world.stripe.books.subscriptions.values()) == [sub]
    assert (sub.status, seats(sub)) == ("incomplete", before)
    assert "update_items" not in {name for name, _ in world.stripe.calls}
    world.payee.settle((await world.requests())[-1].payment_hash)
    await world.pass_time(600, step=60)
    assert list(world.stripe.books.subscriptions.values()) == [sub]
    assert (sub.status, seats(sub)) == ("active", [(400, 1), (900, 1)])
