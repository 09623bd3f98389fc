"""The subscription converges to what the relays say, whatever is said, lost, repeated or raced."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from billing.desk import GATHER_S
from billing.errors import StripeRejected, StripeUnavailable
from billing.model import Change, RelayState
from tests.fakes.stripe_books import Subscription
from tests.world import ALICE, OPERATOR, World

DAY_S = 86400


async def order(world: World, *names: str, plan: str = "basic") -> None:
    for name in names:
        await world.orders.new(await world.command("new"), name, plan)
    await world.settle_down()


async def stop(world: World, name: str) -> None:
    await world.orders.stop(await world.command("stop"), name, confirmed=True)
    await world.settle_down()


async def want_sync(world: World) -> None:
    async with world.rt.unit() as unit:
        await unit.tx.execute("tenants.want_sync", pubkey=ALICE, due_at=unit.now, fresh=1)


def subscriptions(world: World) -> list[Subscription]:
    return list(world.stripe.books.subscriptions.values())


def quantities(world: World) -> list[int]:
    (sub,) = [s for s in subscriptions(world) if not s.is_terminal]
    return [item.quantity for item in sub.items]


def calls(world: World, name: str) -> int:
    return sum(called == name for called, _ in world.stripe.calls)


async def test_several_orders_within_seconds_become_one_update(world: World) -> None:
    """Stripe: 10 new invoices a minute, 20 a day, 200 changes of quantity an hour."""
    await world.connect_wallet()
    await order(world, "alice")
    await world.pass_time(60, step=10)
    world.desk.policy = replace(world.desk.policy, gather_s=GATHER_S)
    updates, invoices = calls(world, "update_items"), len(await world.invoices())
    for name in ("berta", "carla", "doris"):
        await world.orders.new(await world.command("new"), name, "basic")
        await world.sync.run_once(world.clock.now())
    assert calls(world, "update_items") == updates
    await world.pass_time(GATHER_S + 1, step=1)
    assert calls(world, "update_items") == updates + 1
    assert len(await world.invoices()) == invoices + 1
    assert quantities(world) == [4]


async def test_m11_c11_two_one_two_one_within_an_hour_converges(world: World) -> None:
    """C11: keys made from the arguments replayed the answer to the first 2."""
    await world.connect_wallet()
    await order(world, "alice")
    for turn in range(3):
        await world.pass_time(300, step=60)
        await order(world, f"other-{turn}")
        await world.pass_time(300, step=60)
        assert quantities(world) == [2]
        await stop(world, f"other-{turn}")
        assert quantities(world) == [1]
    keys = [
        arguments["operation_id"]
        for name, arguments in world.stripe.calls
        if name == "update_items"
    ]
    assert len(keys) == len(set(keys)) == 6


async def test_m11_c11_off_and_on_within_a_day_converges(world: World) -> None:
    """C11: the cached answer of the day before was a cancelled subscription."""
    await world.connect_wallet()
    await order(world, "alice")
    await world.pass_time(60, step=10)
    for _ in range(3):
        await stop(world, "alice")
        (sub,) = subscriptions(world)
        assert sub.cancel_at_period_end
        await world.pass_time(1800, step=600)
        await world.resumes.resume(await world.command("resume"), "alice")
        await world.settle_down()
        assert not sub.cancel_at_period_end
    assert quantities(world) == [1]
    assert len(await world.invoices()) == 1


async def test_m11_a_cached_500_is_outlived_by_a_new_key(world: World) -> None:
    """A key replays its first answer for a day, a 500 included."""
    await world.connect_wallet()
    await order(world, "alice")
    await world.pass_time(60, step=10)
    poisoned: set[str] = set()

    def fails(name: str, arguments: Mapping[str, Any]) -> None:
        if name == "update_items" and (not poisoned or arguments["operation_id"] in poisoned):
            poisoned.add(arguments["operation_id"])
            raise StripeUnavailable("sub", "Stripe answered 500, again")

    world.stripe.before = fails
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.pass_time(1800, step=30)
    assert len(poisoned) == 1
    assert quantities(world) == [2]
    assert {r.state for r in await world.relays()} == {RelayState.ACTIVE}
    assert (await world.invoices())[0].total_minor == 400


@pytest.mark.parametrize("lost", ["create_customer", "create_subscription", "update_items"])
async def test_a_lost_answer_makes_nothing_twice(world: World, lost: str) -> None:
    await world.connect_wallet()
    seen: list[str] = []

    def loses(name: str, arguments: Mapping[str, Any]) -> None:
        if name == lost and not seen:
            seen.append(name)
            raise StripeUnavailable("it", "the answer was lost")

    world.stripe.after = loses
    for name in ("alice", "berta"):
        await world.orders.new(await world.command("new"), name, "basic")
        await world.pass_time(600, step=30)
    assert seen == [lost]
    assert len(world.stripe.books.customers) == 1
    assert len(subscriptions(world)) == 1
    assert quantities(world) == [2]
    assert sum(i.total_minor for i in await world.invoices()) in (799, 800)


@pytest.mark.parametrize("look", ["invoice", "subscriptions_of"])
async def test_m12_a_refused_look_at_what_was_created_makes_nobody_pay_twice(
    world: World, look: str
) -> None:
    """A 4xx after the creation (a key that may not, a 404 too soon) gave it up: the first
    invoice carried nothing, was paid, and the relay was ordered and paid again."""
    await world.connect_wallet()
    seen: list[str] = []

    def refuses(name: str, arguments: Mapping[str, Any]) -> None:
        if name == look and "create_subscription" in seen and look not in seen:
            seen.append(name)
            raise StripeRejected("it", "not permitted", status=403, code=None, request_id=None)

    def made(name: str, arguments: Mapping[str, Any]) -> None:
        if name == "create_subscription" and name not in seen:
            seen.append(name)
            if look == "subscriptions_of":
                raise StripeUnavailable("it", "the answer was lost")

    world.stripe.before, world.stripe.after = refuses, made
    world.deliver_events, deliver = nothing, world.deliver_events  # type: ignore[method-assign]
    await order(world, "alice")
    await world.pass_time(600, step=30)
    world.deliver_events = deliver  # type: ignore[method-assign]
    await world.pass_time(600, step=30)
    assert seen == ["create_subscription", look]
    assert [(i.status, i.total_minor) for i in await world.invoices()] == [("paid", 400)]
    assert {r.state for r in await world.relays()} == {RelayState.ACTIVE}


async def nothing() -> int:
    return 0


async def test_two_syncs_at_once_make_one_customer_and_one_subscription(world: World) -> None:
    """Two tasks of one bot; the second of two bots is refused by the lease (tests/store)."""

    async def slowly(name: str, arguments: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)

    world.stripe.before = slowly
    world.stripe.after = slowly
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    now = world.clock.now()
    results = await asyncio.gather(
        *(world.sync.run_once(now) for _ in range(3)), return_exceptions=True
    )
    assert results
    await want_sync(world)
    await world.pass_time(600, step=30)
    assert len(world.stripe.books.customers) == 1
    assert len(subscriptions(world)) == 1
    assert quantities(world) == [1]
    assert [i.total_minor for i in await world.invoices()] == [400]


async def test_c17_an_empty_customer_is_never_looked_up(world: World) -> None:
    await order(world, "alice")
    await world.pass_time(26 * 3600, step=3600)
    asked = [
        arguments[key]
        for _, arguments in world.stripe.calls
        for key in ("customer_id", "subscription_id", "invoice_id")
        if key in arguments
    ]
    assert asked
    assert all(asked)


async def test_k4_a_settled_renewal_is_no_new_sale(world: World) -> None:
    """K4: it fell through to "new sale" and made a second subscription."""
    await world.connect_wallet()
    await order(world, "alice")
    await world.pass_time(100 * DAY_S, step=DAY_S)
    assert len(subscriptions(world)) == 1
    assert [i.total_minor for i in await world.invoices()] == [400] * 4


async def test_k6_cycles_stay_anchored_however_late_they_are_paid(world: World) -> None:
    """K6: cycles anchored at "now" made each renewal later than the last."""
    await world.connect_wallet()
    await order(world, "alice")
    await world.pass_time(60, step=10)
    (sub,) = subscriptions(world)
    anchor = sub.period_end
    world.payer.behaviour = "refuses"
    await world.pass_time(anchor + 5 * DAY_S - world.clock.billing_now(), step=DAY_S)
    await world.accounts.pay(await world.command("pay"))
    await world.settle_down()
    (request,) = [r for r in await world.requests() if r.state.value == "open"]
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=30)
    assert sub.period_start == anchor
    assert len(await world.invoices()) == 2


async def test_a_renewal_between_an_additions_items_and_its_invoice_carries_what_was_ordered(
    world: World,
) -> None:
    """Simulation seeds 1070 and 5286: the lines went with the renewal, the order was lost."""
    await world.connect_wallet()
    await order(world, "alice")
    await world.pass_time(60, step=10)
    (sub,) = subscriptions(world)
    await world.pass_time(sub.period_end - 600 - world.clock.billing_now(), step=DAY_S)

    def fails(name: str, arguments: Mapping[str, Any]) -> None:
        if name in ("create_pending_invoice", "find_invoice"):
            raise StripeUnavailable("in", "away")

    world.stripe.before = fails
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.pass_time(3600, step=60)
    assert [i.quantity for i in sub.items] == [2]
    world.stripe.before = lambda name, arguments: None
    await world.pass_time(1800, step=60)
    (_, renewal) = await world.invoices()
    assert renewal.billing_reason == "subscription_cycle"
    assert renewal.status == "paid"
    assert renewal.total_minor == 800
    assert {r.name: r.state.value for r in await world.relays()} == {
        "alice": "active",
        "berta": "active",
    }
    assert all(c.done_at for c in await world.all(Change, "changes.of_tenant", tenant=ALICE))


async def test_lines_that_somebody_took_away_are_ordered_again_by_themselves(
    world: World,
) -> None:
    await world.connect_wallet()
    await order(world, "alice")
    await world.pass_time(60, step=10)
    (sub,) = subscriptions(world)

    def takes(name: str, arguments: Mapping[str, Any]) -> None:
        if name == "create_pending_invoice" and len(sub.pending) == 2:
            sub.pending = []
            world.stripe.before = lambda name, arguments: None

    world.stripe.before = takes
    await order(world, "berta")
    await world.pass_time(600, step=30)
    assert {r.state for r in await world.relays()} == {RelayState.ACTIVE}
    assert [i.quantity for i in sub.items] == [2]
    told = [str(facts["what"]) for _, facts in await world.messages(OPERATOR)]
    assert ["are gone" in what for what in told] == [True]
    paid = [i.total_minor for i in await world.invoices()]
    assert len(paid) == 2
    assert 395 <= paid[1] <= 400
