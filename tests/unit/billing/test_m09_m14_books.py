"""M9-M14: late money has a home, Stripe hears only of evidence, nothing paid is free or cut off."""

from __future__ import annotations

from typing import Any

import pytest

from billing.errors import StripeUnavailable
from billing.model import Activity, InboxEvent, RelayState
from billing.plans import Catalogue, Plan
from billing.store import operations
from tests.books import check_all, check_books, check_ledger
from tests.world import ALICE, OPERATOR, World


async def order(world: World, name: str = "alice", plan: str = "basic") -> None:
    await world.orders.new(await world.command("new"), name, plan)
    await world.settle_down()


async def kinds(world: World) -> list[str]:
    return [kind for kind, _ in await world.messages()]


async def states(world: World) -> dict[str, str]:
    return {relay.name: relay.state.value for relay in await world.relays()}


async def alarms(world: World) -> str:
    return "\n".join(facts["what"] for _, facts in await world.messages(OPERATOR))


def forget_customer(world: World) -> None:
    """As a backup from before the first order would."""
    raw = world.store._driver._connection  # type: ignore[attr-defined]
    raw.execute("UPDATE tenants SET customer_id = NULL")


async def pay_shown(world: World) -> None:
    """A person pays the open request."""
    (request,) = [r for r in await world.requests() if r.state == "open"]
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=30)


# --- M9 -------------------------------------------------------------------------------------------


async def test_m9_a_first_invoice_that_died_while_its_money_came_is_ordered_again(
    world: World,
) -> None:
    await order(world)
    (request,) = await world.requests()
    world.payee.mute_lookups = True
    world.clock.advance(1800)
    world.payee.settle(request.payment_hash)
    # Stripe voids it at 23 h while our wallet cannot be asked.
    await world.pass_time(24 * 3600, step=1800)
    world.payee.mute_lookups = False
    await world.pass_time(4 * 3600, step=600)
    assert [i.status for i in await world.invoices()] == ["void", "paid"]
    assert (await world.invoices())[1].paid_by == "credit"
    assert await states(world) == {"alice": "active"}
    await check_books(world)


async def test_m9_money_for_a_void_invoice_pays_the_oldest_open_one(world: World) -> None:
    await order(world)
    await pay_shown(world)
    await world.pass_time(10 * 86400, step=86400)
    await order(world, "second", "pro")
    requests = await world.requests()
    await world.pass_time(26 * 3600, step=1800)
    assert (await world.relays())[1].is_lapsed
    await world.pass_time(21 * 86400, step=6 * 3600)
    renewal = (await world.invoices())[-1]
    assert (renewal.billing_reason, renewal.status) == ("subscription_cycle", "open")
    world.payee.settle(requests[1].payment_hash)
    await world.pass_time(2 * 86400, step=6 * 3600)
    moved = {s.payment_hash: s for s in await world.settlements()}[requests[1].payment_hash]
    assert moved.value_minor > renewal.amount_remaining_minor
    assert moved.target_invoice_id == renewal.id
    assert moved.credit_minor == moved.value_minor - renewal.amount_remaining_minor
    assert "money_moved" in await kinds(world)
    await check_books(world)


async def test_m9_paid_elsewhere_meanwhile_becomes_credit(world: World) -> None:
    await order(world)
    (request,) = await world.requests()
    (invoice,) = await world.invoices()
    await world.stripe.pay_out_of_band("op_of_the_operator", invoice.id)
    world.payee.settle(request.payment_hash)
    await world.pass_time(300, step=30)
    (money,) = await world.settlements()
    assert (money.state, money.credit_minor) == ("credited", 400)
    (customer,) = world.stripe.books.customers.values()
    assert customer.balance_minor == -400
    assert "credit_added" in await kinds(world)


async def test_m9_m10_paid_elsewhere_in_the_middle_is_not_taken_for_ours(world: World) -> None:
    await order(world)
    (request,) = await world.requests()
    (invoice,) = await world.invoices()
    paid = []

    async def meanwhile(name: str, arguments: Any) -> None:
        if name == "annotate_invoice" and not paid:
            paid.append(name)
            await world.stripe.pay_out_of_band("op_of_the_operator", invoice.id)
            raise StripeUnavailable("", "lost")

    world.stripe.before = meanwhile
    world.payee.settle(request.payment_hash)
    await world.pass_time(300, step=30)
    assert paid
    (money,) = await world.settlements()
    assert (money.state, money.credit_minor) == ("credited", 400)


async def test_m9_what_exceeds_the_invoice_becomes_credit(world: World) -> None:
    await order(world)
    (request,) = await world.requests()
    (invoice,) = await world.invoices()
    # A credit note at Stripe reduces what remains after the request was shown.
    world.stripe.books.invoices[invoice.id].remaining = 300
    world.payee.settle(request.payment_hash)
    await world.pass_time(300, step=30)
    (money,) = await world.settlements()
    assert (money.state, money.credit_minor) == ("placed", 100)
    await check_books(world)


async def test_m9_an_uncollectible_invoice_still_takes_its_money(world: World) -> None:
    await order(world)
    (request,) = await world.requests()
    (invoice,) = await world.invoices()
    world.stripe.books.invoices[invoice.id].status = "uncollectible"
    world.payee.settle(request.payment_hash)
    await world.pass_time(300, step=30)
    assert (await world.invoices())[0].status == "paid"
    assert await states(world) == {"alice": "active"}


async def test_m9_operators_hear_of_money_that_stripe_does_not_take(world: World) -> None:
    await order(world)

    def refuse(name: str, arguments: Any) -> None:
        if name == "pay_out_of_band":
            raise StripeUnavailable("in_1", "down")

    world.stripe.before = refuse
    world.payee.settle((await world.requests())[0].payment_hash)
    await world.pass_time(3600, step=60)
    assert (await alarms(world)).count("cannot be booked") == 1
    assert await states(world) == {"alice": "pending_payment"}
    world.stripe.before = lambda name, arguments: None
    await world.pass_time(600, step=60)
    assert await states(world) == {"alice": "active"}


# --- M10, M11 -------------------------------------------------------------------------------------


async def test_m10_stripe_hears_paid_from_evidence_only(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "refuses"
    await order(world)
    await world.pass_time(12 * 3600, step=1800)
    assert "pay_out_of_band" not in [name for name, _ in world.stripe.calls]


@pytest.mark.parametrize("call", ["pay_out_of_band", "annotate_invoice", "credit_customer"])
async def test_m10_m11_a_lost_answer_neither_repeats_nor_loses_the_effect(
    world: World, call: str
) -> None:
    await order(world)
    (request,) = await world.requests()
    lost = []

    def lose(name: str, arguments: Any) -> None:
        if name == call and len(lost) < 2:
            lost.append(name)
            raise StripeUnavailable("", "the answer was lost")

    world.stripe.after = lose
    if call == "credit_customer":
        (invoice,) = await world.invoices()
        await world.stripe.pay_out_of_band("op_of_the_operator", invoice.id)
    world.payee.settle(request.payment_hash)
    await world.pass_time(1200, step=60)
    assert lost
    (customer,) = world.stripe.books.customers.values()
    assert customer.balance_minor == (-400 if call == "credit_customer" else 0)
    assert [i.status for i in await world.invoices()] == ["paid"]


CALLS = (
    "create_customer",
    "ensure_price",
    "create_subscription",
    "annotate_invoice",
    "pay_out_of_band",
    "update_items",
    "create_pending_invoice",
    "finalize_invoice",
    "set_cancel_at_period_end",
)


@pytest.mark.parametrize("call", CALLS)
async def test_m11_a_key_that_replays_a_500_is_given_up_for_a_new_one(
    world: World, call: str
) -> None:
    cursed: set[str] = set()

    def curse(name: str, arguments: Any) -> None:
        key = str(arguments.get("operation_id", arguments.get("lookup_key")))
        if name == call and (key in cursed or not cursed):
            cursed.add(key)
            raise StripeUnavailable("", "a cached 500")

    seen: list[str] = []
    world.stripe.before = curse if call != "ensure_price" else lambda name, arguments: None
    await world.connect_wallet()
    await order(world)
    await world.pass_time(1200, step=60)
    await order(world, "second", "pro")
    await world.pass_time(1800, step=60)
    assert await states(world) == {"alice": "active", "second": "active"}
    if call == "finalize_invoice":
        await world.pass_time(33 * 86400, step=6 * 3600)
        assert (await world.invoices())[-1].status == "paid"
    if call == "set_cancel_at_period_end":
        for name in ("alice", "second"):
            await world.orders.stop(await world.command("stop"), name, confirmed=True)
        await world.pass_time(1800, step=60)
        (sub,) = world.stripe.books.subscriptions.values()
        assert sub.cancel_at_period_end
    assert cursed or call == "ensure_price"
    assert len(world.stripe.books.customers) == 1
    assert len(world.stripe.books.subscriptions) == 1
    assert not seen
    await check_all(world)


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("call", ["late money", "purser credit", "spent"])
async def test_m11_credit_is_not_kept_back_for_a_day_by_a_key_that_replays_a_500(
    world: World, call: str, is_lost: bool
) -> None:
    """Both ways of one balance; `is_lost`: it was booked, and the 500 is the answer to that."""
    cursed: set[str] = set()

    def curse(name: str, arguments: Any) -> None:
        is_meant = name == ("debit_customer" if call == "spent" else "credit_customer")
        if is_meant and (arguments["key"] in cursed or not cursed):
            cursed.add(arguments["key"])
            raise StripeUnavailable("", "a cached 500")

    await order(world)
    (request,) = await world.requests()
    (invoice,) = await world.invoices()
    stripes = world.stripe.books.invoices[invoice.id]
    if call == "late money":
        stripes.remaining = 300
        world.payee.settle(request.payment_hash)
    if is_lost:
        world.stripe.after = curse
    else:
        world.stripe.before = curse
    if call == "purser credit":
        await world.refund_desk.credit(ALICE, 100, "usd", "for the outage")
    if call == "spent":
        await world.refund_desk.credit(ALICE, 400, "usd", "a month")
        # What was shown has to die first.
        await world.pass_time(6 * 3600, step=60)
    await world.pass_time(3600, step=30)
    assert len(cursed) == 1
    assert stripes.customer.balance_minor == (0 if call == "spent" else -100)
    assert stripes.status == ("open" if call == "purser credit" else "paid")
    await check_ledger(world)


@pytest.mark.parametrize(
    "call", ["create_customer", "create_subscription", "create_pending_invoice"]
)
async def test_m11_what_was_made_though_its_answer_is_always_lost_is_found(
    world: World, call: str
) -> None:
    cursed: set[str] = set()

    def lose(name: str, arguments: Any) -> None:
        key = str(arguments.get("operation_id"))
        if name == call and (key in cursed or not cursed):
            cursed.add(key)
            raise StripeUnavailable("", "the answer is lost")

    world.stripe.after = lose
    await world.connect_wallet()
    await order(world)
    await world.pass_time(1200, step=60)
    await order(world, "second")
    await world.pass_time(1200, step=60)
    assert cursed
    assert await states(world) == {"alice": "active", "second": "active"}
    assert len(world.stripe.books.customers) == 1
    assert len(world.stripe.books.subscriptions) == 1
    assert len(world.stripe.books.invoices) == 2
    await check_all(world)


async def test_m11_an_operation_is_one_until_it_ends_or_its_key_is_past_use(world: World) -> None:
    async with world.rt.unit() as unit:
        first = await operations.begin(unit.tx, world.rt, "finalize", "in_1")
        again = await operations.begin(unit.tx, world.rt, "finalize", "in_1")
        other = await operations.begin(unit.tx, world.rt, "void", "in_1")
    assert first.id == again.id != other.id
    world.clock.advance(operations.REUSE_S)
    async with world.rt.unit() as unit:
        late = await operations.begin(unit.tx, world.rt, "finalize", "in_1")
        await operations.finish(unit.tx, late.id, "done", now=unit.now)
        after = await operations.begin(unit.tx, world.rt, "finalize", "in_1")
    assert len({first.id, late.id, after.id}) == 3


async def test_m11_an_empty_operation_id_is_an_error(world: World) -> None:
    with pytest.raises(ValueError, match="M11"):
        await world.stripe.pay_out_of_band(" ", "in_1")


# --- M12, M13 -------------------------------------------------------------------------------------


async def test_m12_an_unknown_plan_is_loud_and_never_free(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    smaller = Catalogue([Plan("pro", "Pro", 900, "usd")])
    world.sync.catalogue = world.keeper.catalogue = smaller
    await world.settle_down()
    assert "is not configured" in await alarms(world)
    assert await states(world) == {"alice": "pending_payment"}
    assert world.host.calls == []


async def test_m12_a_relay_comes_up_only_when_the_invoice_that_carries_it_is_paid(
    world: World,
) -> None:
    await order(world)
    assert await states(world) == {"alice": "pending_payment"}
    await pay_shown(world)
    await order(world, "second")
    await order(world, "third", "pro")
    assert await states(world) == {
        "alice": "active",
        "second": "pending_payment",
        "third": "pending_payment",
    }
    third = next(i for i in await world.invoices() if i.amount_remaining_minor > 400)
    (request,) = [r for r in await world.requests() if r.invoice_id == third.id]
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    assert await states(world) == {
        "alice": "active",
        "second": "pending_payment",
        "third": "active",
    }
    # The unpaid addition ends and touches only itself.
    await world.pass_time(26 * 3600, step=1800)
    assert await states(world) == {
        "alice": "active",
        "second": "pending_payment",
        "third": "active",
    }
    assert (await world.relays())[1].is_lapsed
    (sub,) = world.stripe.books.subscriptions.values()
    assert sorted((i.price.amount_minor, i.quantity) for i in sub.items) == [(400, 1), (900, 1)]
    assert sub.status == "active"
    await check_books(world)


async def test_m12_two_orders_within_a_second_are_two_payments(world: World) -> None:
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.sync.run_once(world.clock.now())
    await world.orders.new(await world.command("new"), "second", "basic")
    await world.settle_down()
    await world.pass_time(60, step=5)
    assert await states(world) == {"alice": "active", "second": "active"}
    assert [i.status for i in await world.invoices()] == ["paid", "paid"]
    assert len(world.payer.sent) == 2
    await check_all(world)


async def test_an_order_that_comes_while_stripe_is_asked_is_not_lost(world: World) -> None:
    await order(world)
    await pay_shown(world)
    await world.sync.run_once(world.clock.now())
    ordered = []

    async def meanwhile(name: str, arguments: Any) -> None:
        if name == "subscription" and not ordered:
            ordered.append(name)
            await world.orders.new(await world.command("new"), "second", "basic")

    world.stripe.after = meanwhile
    async with world.rt.unit() as unit:
        await unit.tx.execute("tenants.want_sync", pubkey=ALICE, due_at=unit.now, fresh=1)
    await world.sync.run_once(world.clock.now())
    await world.settle_down()
    assert ordered
    assert len(await world.invoices()) == 2


async def test_a_free_plan_comes_up_at_once_and_survives_the_end_of_what_is_paid(
    world: World,
) -> None:
    await order(world, "gratis", "free")
    assert await states(world) == {"gratis": "active"}
    assert world.stripe.books.customers == {}
    await order(world)
    await pay_shown(world)
    (sub,) = world.stripe.books.subscriptions.values()
    world.stripe.books.cancel(sub)
    await world.settle_down()
    assert await states(world) == {"gratis": "active", "alice": "active"}
    # M13: what is paid runs on to its end, and only that ends.
    await world.pass_time(20 * 86400, step=86400)
    assert await states(world) == {"gratis": "active", "alice": "active"}
    await world.pass_time(15 * 86400, step=86400)
    assert await states(world) == {"gratis": "active", "alice": "pending_payment"}
    assert (await world.relays())[1].is_lapsed
    await world.pass_time(31 * 86400, step=86400)
    assert await states(world) == {"gratis": "active", "alice": "ended"}
    assert len(world.stripe.books.subscriptions) == 1
    assert await world.reconciler.plan() == []


async def test_m13_an_order_does_not_expire_while_its_money_is_under_way(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "pays_silently"
    world.payee.mute_lookups = True
    await order(world)
    await world.pass_time(30 * 3600, step=1800)
    assert await states(world) == {"alice": "pending_payment"}
    world.payee.mute_lookups = False
    await world.pass_time(3 * 3600, step=600)
    assert await states(world) == {"alice": "active"}
    await check_books(world)


@pytest.mark.parametrize("state", [RelayState.LIMITED, RelayState.STOPPED])
async def test_m13_paying_brings_back_what_non_payment_took(
    world: World, state: RelayState
) -> None:
    await order(world)
    await pay_shown(world)
    await world.pass_time(31 * 86400, step=6 * 3600)
    async with world.rt.unit() as unit:
        from billing.store import tenants

        (relay,) = await tenants.relays_of(unit.tx, ALICE)
        await tenants.move_relay(unit.tx, relay, state, now=unit.now)
    await world.accounts.pay(await world.command("pay"))
    await world.pass_time(7200, step=600)
    await world.accounts.pay(await world.command("pay"))
    await world.settle_down()
    await pay_shown(world)
    assert await states(world) == {"alice": "active"}
    assert world.host.is_up(relay.id)


# --- M14 ------------------------------------------------------------------------------------------


async def test_m14_events_come_twice_late_and_in_any_order(world: World) -> None:
    await world.connect_wallet()
    await order(world)
    await world.pass_time(60, step=10)
    before = (await world.messages(), list(world.stripe.calls))
    books = world.stripe.books
    (sub,), (invoice,) = books.subscriptions.values(), books.invoices.values()
    for kind in ("paid", "finalized", "created", "overdue", "payment_failed", "updated"):
        books.tell(f"invoice.{kind}", invoice)
    for kind in ("updated", "created", "updated"):
        books.tell(f"customer.subscription.{kind}", sub)
    await world.settle_down()
    # And each row once more, as two deliveries that were read together would have it.
    for event in await world.all(InboxEvent, "events.newest", count=100):
        await world.events._handle(event)
        lines = await world.all(Activity, "activity.of_subject", subject=event.event_id)
        assert len(lines) == 1, "its effects are committed once"
    await world.settle_down()
    assert (await world.messages()) == before[0]
    writes = {"pay_out_of_band", "create_subscription", "annotate_invoice", "credit_customer"}
    again = [name for name, _ in world.stripe.calls[len(before[1]) :]]
    assert not writes & set(again)


async def test_m14_one_rumor_in_two_wraps_is_one_order(world: World) -> None:
    first = await world.command("new")
    second = await world.command("new")
    twin = type(first)(second.event_id, first.rumor_id, first.sender, first.verb)
    await world.orders.new(first, "alice", "basic")
    await world.orders.new(twin, "another", "basic")
    await world.orders.new(first, "again", "basic")
    assert [relay.name for relay in await world.relays()] == ["alice"]
    assert await kinds(world) == ["ordered"]


async def test_an_event_of_a_customer_we_do_not_know_yet_is_not_lost(world: World) -> None:
    await order(world)
    await pay_shown(world)
    forget_customer(world)
    invoice = next(iter(world.stripe.books.invoices.values()))
    world.stripe.books.tell("invoice.updated", invoice)
    await world.settle_down()
    async with world.store.transaction() as tx:
        from billing.store import tenants

        tenant = await tenants.get(tx, ALICE)
    assert tenant is not None
    assert tenant.customer_id == invoice.customer.id


async def test_reconcile_finds_a_lost_customer_and_what_no_webhook_brought(world: World) -> None:
    await order(world)
    await pay_shown(world)
    forget_customer(world)
    assert [d.kind for d in await world.reconciler.plan()] == ["customer"]
    await world.reconciler.run_once(world.clock.now())
    await world.settle_down()
    assert await world.reconciler.plan() == []


async def test_a_payment_request_that_never_arrived_is_replaced_by_another(world: World) -> None:
    world.courier.down = True
    await order(world)
    await world.pass_time(3 * 3600, step=300)
    assert "reach no relay" in await alarms(world)
    world.courier.down = False
    await world.pass_time(900, step=100)
    told = [facts for _, kind, facts in world.courier.said if kind == "pay_by_hand"]
    assert len(told) == 1
    world.payee.settle(str(told[0]["bolt11"]).removeprefix("lnbcrt1"))
    await world.pass_time(300, step=60)
    assert (await world.invoices())[0].status == "paid"
