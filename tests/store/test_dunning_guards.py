"""The database keeps a dunning window's history straight, on both engines, and counts one clock."""

from __future__ import annotations

import pytest

from billing.dunning import NEW_CLOCK, Window
from billing.model import Invoice
from billing.store import dunning
from billing.store.engine import ConstraintViolated, MigratableEngine
from tests.world import World


async def a_window(engine: MigratableEngine) -> Window:
    world = World(engine)
    await world.start()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    async with engine.transaction() as tx:
        (invoice,) = await tx.fetch_all(Invoice, "invoices.everything")
        assert await dunning.open_window(tx, invoice, now=10, billing_now=20)
        assert not await dunning.open_window(tx, invoice, now=11, billing_now=21), "one an invoice"
        found = await dunning.get(tx, invoice.id)
    assert found is not None
    return found


async def test_a_step_is_taken_once_and_by_whoever_saw_the_one_before(
    engine: MigratableEngine,
) -> None:
    window = await a_window(engine)
    async with engine.transaction() as tx:
        first = {"billing_now": 30, "next_look_at": 40}
        assert await dunning.take(tx, window, 0, "key:0", **first)
        assert not await dunning.take(tx, window, 0, "key:0", **first), "it saw an older one"
        after = await dunning.get(tx, window.invoice_id)
        assert after is not None
        assert (after.day, after.told_clock, after.message_key) == (0, None, "key:0")
        assert await dunning.take(tx, after, 1, "key:1", **first)


async def test_steps_do_not_go_back(engine: MigratableEngine) -> None:
    window = await a_window(engine)
    async with engine.transaction() as tx:
        assert await dunning.take(tx, window, 3, "key:3", billing_now=30, next_look_at=40)
        after = await dunning.get(tx, window.invoice_id)
    assert after is not None
    with pytest.raises(ConstraintViolated):
        async with engine.transaction() as tx:
            await dunning.take(tx, after, 1, "key:1", billing_now=31, next_look_at=41)


async def test_what_is_closed_stays_closed_and_takes_no_step(engine: MigratableEngine) -> None:
    window = await a_window(engine)
    async with engine.transaction() as tx:
        assert await dunning.close(tx, window.invoice_id, "paid", now=50)
        assert not await dunning.close(tx, window.invoice_id, "ended", now=51)
        assert not await dunning.take(tx, window, 0, "key", billing_now=52, next_look_at=52)
        assert not await dunning.has_ended(tx, window.invoice_id)
        assert await dunning.everything_open(tx) == []
        assert await tx.fetch_all(Window, "dunning.due", now=10**9, count=5) == []


async def test_the_end_waits_for_stripe(engine: MigratableEngine) -> None:
    window = await a_window(engine)
    async with engine.transaction() as tx:
        await dunning.close(tx, window.invoice_id, "ended", now=50, end_subscription_id="sub_1")
        assert await dunning.has_ended(tx, window.invoice_id)
        (due,) = await tx.fetch_all(Window, "dunning.subscriptions_to_end", now=50, count=5)
        assert due.end_subscription_id == "sub_1"
        await tx.execute("dunning.subscription_ended", invoice_id=window.invoice_id)
        assert await tx.fetch_all(Window, "dunning.subscriptions_to_end", now=99, count=5) == []


async def test_there_is_one_clock(engine: MigratableEngine) -> None:
    async with engine.transaction() as tx:
        assert await dunning.clock(tx) == NEW_CLOCK
        for elapsed_s in (5, 7):
            reading = type(NEW_CLOCK)(elapsed_s, 1, 2, "Stripe", 1, None, None, 0)
            await dunning.set_clock(tx, reading)
            assert await dunning.clock(tx) == reading
