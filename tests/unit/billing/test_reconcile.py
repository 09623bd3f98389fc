"""Reconcile: by pages, beside the workers, resumable, each tenant's trouble its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from billing.errors import StripeUnavailable
from billing.reconcile import Difference
from billing.reconcile_sweep import POSITION, RESUME_WITHIN_S, Failure, Progress
from tests.fakes.stripe_books import Customer, Item, Price, Subscription, add_month
from tests.unit.billing.conftest import MakeWorld
from tests.world import ALICE, World

PRICE = Price("price_x", "purser_basic_400_usd_month", 400, "usd", "month")


async def crowd(world: World, count: int) -> list[str]:
    """So many tenants with an active relay each, in step with Stripe."""
    books, begun = world.stripe.books, world.clock.billing_now() - 86400
    books.prices.append(PRICE)
    pubkeys = []
    for number in range(1, count + 1):
        pubkey = f"{number:064x}"
        pubkeys.append(pubkey)
        customer = Customer(books.new_id("cus"), {"purser_pubkey": pubkey}, currency="usd")
        books.customers[customer.id] = customer
        sub = Subscription(
            id=books.new_id("sub"),
            customer=customer,
            items=[Item(books.new_id("si"), PRICE, 1)],
            metadata={"purser_tenant": pubkey},
            created_at=begun,
            period_start=begun,
            period_end=add_month(begun, 1),
            status="active",
        )
        books.subscriptions[sub.id] = sub
        async with world.store.transaction() as tx:
            name = f"r{number}"
            await tx.execute("tenants.insert", pubkey=pubkey, name=name, legacy_dm=0, created_at=1)
            await tx.execute("tenants.set_customer", pubkey=pubkey, customer_id=customer.id)
            await tx.execute(
                "tenants.set_subscription",
                pubkey=pubkey,
                subscription_id=sub.id,
                status=sub.status,
                period_end=sub.period_end,
            )
            await tx.execute(
                "relays.insert",
                id=f"rly_{number}",
                tenant=pubkey,
                name=name,
                plan="basic",
                state="active",
                wanted_rev=0,
                sync_due_at=None,
                created_at=1,
                expires_at=None,
                activated_at=1,
            )
    return pubkeys


def subscription(world: World, number: int) -> Subscription:
    return world.stripe.books.subscriptions[f"sub_{number:04d}"]


def calls_since(world: World, before: int) -> list[str]:
    return [name for name, _ in world.stripe.calls[before:]]


async def stored_position(world: World) -> dict[str, Any] | None:
    async with world.store.transaction() as tx:
        text = await tx.scalar("leases.cursor", name=POSITION)
    return json.loads(str(text)) if text else None


async def test_c28_a_sweep_of_tenants_in_step_asks_once_for_a_hundred(world: World) -> None:
    await crowd(world, 250)
    await world.reconciler.run_once(world.clock.now())
    before = len(world.stripe.calls)
    assert await world.reconciler.plan() == []
    assert await world.reconciler.run_once(world.clock.now()) == 0
    asked = calls_since(world, before)
    assert asked.count("subscription_page") == 6
    assert set(asked) == {"subscription_page", "invoice_page", "events_after"}


async def test_the_plan_names_both_sides_and_changes_nothing(world: World) -> None:
    pubkeys = await crowd(world, 4)
    subscription(world, 1).status = "past_due"
    subscription(world, 2).items[0].quantity = 3
    world.stripe.books.cancel(subscription(world, 3))
    plan = await world.reconciler.plan()
    assert [(d.tenant, d.name, d.here, d.there) for d in plan] == [
        (pubkeys[1], "r2", "1 on basic", "active until 2027-02-14, 3 on basic ($4.00 each)"),
        (pubkeys[0], "r1", "active until 2027-02-14", "past_due until 2027-02-14"),
        (pubkeys[2], "r3", "active until 2027-02-14", "canceled"),
    ]
    assert await world.reconciler.plan() == plan
    assert await stored_position(world) is None
    async with world.store.transaction() as tx:
        assert await tx.scalar("backlog.subscriptions", now=1 << 40) == 0


async def test_what_differs_is_put_right_and_stands_in_the_audit_log(world: World) -> None:
    """C20: every change leaves a line."""
    from billing.model import Activity

    pubkeys = await crowd(world, 3)
    subscription(world, 2).items[0].quantity = 3
    assert await world.reconciler.run_once(world.clock.now()) == 1
    lines = await world.all(Activity, "activity.of_subject", subject=pubkeys[1])
    assert "reconcile.tenant" in [line.kind for line in lines]
    await world.settle_down()
    assert subscription(world, 2).items[0].quantity == 1
    assert await world.reconciler.plan() == []


async def test_an_interrupted_sweep_goes_on_at_its_page(world: World) -> None:
    await crowd(world, 350)
    subscription(world, 340).status = "past_due"
    subscription(world, 10).status = "past_due"
    broken = True

    def away(name: str, arguments: Mapping[str, Any]) -> None:
        if broken and name == "subscription_page" and arguments["after"] == "sub_0151":
            raise StripeUnavailable("list", "away")

    world.stripe.before = away
    with pytest.raises(StripeUnavailable):
        await world.reconciler.run_once(world.clock.now())
    position = await stored_position(world)
    assert position is not None
    assert (position["stage"], position["after"]) == ("subscriptions", "sub_0151")
    broken = False
    world.clock.advance(60)
    again = await world.reborn()
    # The rebuild of a start begins anew; a sweep in the same life goes on.
    assert again.reconciler.counts["differences"] == 2
    again.stripe.before = away
    broken = True
    with pytest.raises(StripeUnavailable):
        await again.reconciler.subscriptions(_nothing)
    broken = False
    before = len(again.stripe.calls)
    report = await again.reconciler.sweep()
    assert report.resumed
    assert calls_since(again, before).count("subscription_page") == 2
    # Those met before the interruption are not taken for ended ones.
    assert report.differences == 1
    assert await stored_position(again) is None


async def _nothing(views: object) -> None:
    return None


async def test_a_position_of_yesterday_is_begun_anew(world: World) -> None:
    """So is the one that stands in a restored backup."""
    await crowd(world, 150)

    def away(name: str, arguments: Mapping[str, Any]) -> None:
        if name == "subscription_page" and arguments["after"] is not None:
            raise StripeUnavailable("list", "away")

    world.stripe.before = away
    with pytest.raises(StripeUnavailable):
        await world.reconciler.sweep()
    world.stripe.before = lambda name, arguments: None
    world.clock.advance(RESUME_WITHIN_S + 1)
    await world.lease.take()
    report = await world.reconciler.sweep()
    assert (report.resumed, report.subscriptions) == (False, 150)


async def test_a_start_reads_the_long_list_once(world: World) -> None:
    await crowd(world, 250)
    before = len(world.stripe.calls)
    await world.rebuilder.run_once(world.clock.now())
    await world.reconciler.run_once(world.clock.now())
    assert calls_since(world, before).count("subscription_page") == 3


async def test_one_tenants_trouble_is_counted_and_the_others_are_compared(world: World) -> None:
    pubkeys = await crowd(world, 3)
    async with world.store.transaction() as tx:
        await tx.execute(
            "relays.insert",
            id="rly_odd",
            tenant=pubkeys[1],
            name="odd",
            plan="gone",
            state="active",
            wanted_rev=0,
            sync_due_at=None,
            created_at=1,
            expires_at=None,
            activated_at=1,
        )
    subscription(world, 1).status = "past_due"
    heard: list[object] = []
    report = await world.reconciler.sweep(hear=heard.append)
    assert (report.differences, report.errors) == (1, 1)
    (failure,) = [item for item in heard if isinstance(item, Failure)]
    assert failure.subject == pubkeys[1]
    assert "gone" in failure.error
    assert [d.tenant for d in heard if isinstance(d, Difference)] == [pubkeys[0]]
    assert [p.done for p in heard if isinstance(p, Progress) and p.stage == "subscriptions"] == [3]
    assert world.reconciler.counts == {"sweeps": 1, "differences": 1, "errors": 1}


async def test_an_invoice_that_cannot_be_read_is_counted_and_left_as_it_is(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (invoice,) = await world.invoices()
    world.stripe.books.void(world.stripe.books.invoices[invoice.id])

    def away(name: str, arguments: Mapping[str, Any]) -> None:
        if name == "invoice":
            raise StripeUnavailable(invoice.id, "away")

    world.stripe.before = away
    report = await world.reconciler.sweep()
    assert report.errors == 1
    assert [i.status for i in await world.invoices()] == ["open"]
    world.stripe.before = lambda name, arguments: None
    await world.reconciler.sweep()
    await world.events.run_once(world.clock.now())
    assert [i.status for i in await world.invoices()] == ["void"]


async def test_k2_an_invoice_of_any_age_is_looked_at(world: World) -> None:
    """K2: nothing open here is ever too old to be asked about."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (invoice,) = await world.invoices()
    world.clock.advance(200 * 86400)
    await world.lease.take()
    assert world.stripe.books.invoices[invoice.id].status == "open"
    await world.reconciler.run_once(world.clock.now())
    await world.events.run_once(world.clock.now())
    assert [i.status for i in await world.invoices()] == ["void"]


async def test_c28_ten_thousand_tenants_are_swept_while_the_workers_go_on(
    make_world: MakeWorld,
) -> None:
    """C28: no livelock. An order that comes while the sweep is at its first page is served before
    the sweep ends; the sweep asks in pages, and ends."""
    world = await make_world()
    await crowd(world, 10_000)
    world.stripe.books.run_to = lambda now: None  # type: ignore[method-assign]
    pages = 0
    served_at_page: list[int] = []
    sweeping = True

    async def slowly(name: str, arguments: Mapping[str, Any]) -> None:
        nonlocal pages
        pages += name == "subscription_page"
        for _ in range(5):
            await asyncio.sleep(0)

    async def work() -> None:
        while sweeping:
            for worker in (world.sync, world.collector, world.outbox):
                await worker.run_once(world.clock.now())
            if world.courier.said and not served_at_page:
                served_at_page.append(pages)
            await asyncio.sleep(0)

    world.stripe.before = slowly
    working = asyncio.create_task(work())
    sweep = asyncio.create_task(world.reconciler.sweep())
    await world.orders.new(await world.command("new"), "alice", "basic")
    report = await sweep
    sweeping = False
    await working
    assert report.subscriptions >= 10_000
    assert pages <= 102
    asked = [name for name, _ in world.stripe.calls]
    assert asked.count("subscription") + asked.count("customer") < 20, "tenant by tenant"
    assert served_at_page
    assert served_at_page[0] < 50
    assert [relay.name for relay in await world.relays(ALICE)] == ["alice"]
