"""Stops, resumes and subscriptions that end otherwise, played through all of billing in memory."""

from __future__ import annotations

from typing import Any

import pytest

from billing.errors import StripeUnavailable
from billing.model import HostedRelay, InboxEvent, RelayState
from billing.plans import Catalogue
from billing.ports import RelayUnreachable
from billing.store import invoices, sweeps, tenants
from bot.dm.texts import render
from tests.books import check_all
from tests.fakes.stripe_books import Item, Subscription
from tests.unit.billing.conftest import MakeWorld
from tests.world import ALICE, OPERATOR, World

DAY_S = 86400


async def have_relays(world: World, *names: str) -> None:
    """Paid and up, ten days into their period."""
    await world.connect_wallet()
    for name in names:
        await world.orders.new(await world.command("new"), name, "basic")
    await world.settle_down()
    await world.pass_time(10 * DAY_S, step=DAY_S)
    assert {r.state for r in await world.relays()} == {RelayState.ACTIVE}


async def say(world: World, verb: str, name: str = "alice", **more: bool) -> dict[str, Any]:
    before = len(await world.messages())
    call = world.resumes.resume if verb == "resume" else world.orders.stop
    await call(await world.command(verb), name, **more)
    kind, facts = (await world.messages())[before]
    assert render(kind, facts)
    await world.settle_down()
    return {"kind": kind, **facts}


def subscriptions(world: World) -> list[Subscription]:
    return list(world.stripe.books.subscriptions.values())


async def relay(world: World, name: str = "alice") -> HostedRelay:
    return next(r for r in await world.relays() if r.name == name)


async def kinds(world: World) -> list[str]:
    return [kind for kind, _ in await world.messages()]


async def alarms(world: World) -> list[str]:
    return [str(facts["what"]) for _, facts in await world.messages(OPERATOR)]


async def test_a_stop_is_taken_back_and_nothing_was_paid_twice(world: World) -> None:
    await have_relays(world, "alice")
    await say(world, "stop", confirmed=True)
    (sub,) = subscriptions(world)
    assert sub.cancel_at_period_end
    assert (await say(world, "resume"))["kind"] == "resumed"
    assert not sub.cancel_at_period_end
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [400, 400]
    assert (await relay(world)).state is RelayState.ACTIVE


async def test_one_of_two_stopped_and_resumed_gets_its_paid_seat_back_free(world: World) -> None:
    await have_relays(world, "alice", "berta")
    await say(world, "stop", confirmed=True)
    (sub,) = subscriptions(world)
    assert [i.quantity for i in sub.items] == [1]
    await say(world, "resume")
    assert [i.quantity for i in sub.items] == [2]
    assert not sub.pending
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [800, 800]


async def test_m12_in_the_last_hour_a_stop_is_not_taken_back_but_ordered_again(
    world: World,
) -> None:
    await have_relays(world, "alice", "berta")
    await say(world, "stop", confirmed=True)
    stops_at = (await relay(world)).stops_at
    assert stops_at is not None
    await world.pass_time(stops_at - 1800 - world.clock.billing_now(), step=DAY_S)
    assert (await say(world, "resume"))["kind"] == "resumes_later"
    await world.pass_time(7200, step=600)
    assert (await relay(world)).state is RelayState.ACTIVE
    amounts = [i.total_minor for i in await world.invoices()]
    assert amounts[:2] == [800, 400]
    assert 395 <= amounts[2] <= 400


async def test_c9_cancelled_at_stripe_it_runs_out_lapses_and_resume_orders_it_again(
    world: World,
) -> None:
    """C9: relays stayed on and the next sync made a new subscription. M13: paid is paid."""
    await have_relays(world, "alice")
    before = await relay(world)
    (sub,) = subscriptions(world)
    world.stripe.books.cancel(sub)
    await world.settle_down()
    assert (await relay(world)).stops_at == sub.period_end
    assert "lapsing" in await kinds(world)
    await world.pass_time(15 * DAY_S, step=DAY_S)
    assert world.host.is_up(before.id)
    await world.pass_time(10 * DAY_S, step=DAY_S)
    lapsed = await relay(world)
    assert lapsed.is_lapsed
    assert not world.host.is_up(before.id)
    assert (await kinds(world))[-1] == "lapsed"
    assert len(subscriptions(world)) == 1
    assert (await say(world, "resume"))["kind"] == "ordered"
    await world.pass_time(120, step=30)
    after = await relay(world)
    assert (after.id, after.state) == (before.id, RelayState.ACTIVE)
    assert len(subscriptions(world)) == 2
    assert any("cancelled at Stripe" in what for what in await alarms(world))


async def test_m13_an_order_written_off_long_ago_takes_nothing_that_was_paid_since(
    world: World,
) -> None:
    """Its first order was marked uncollectible, the second was paid, and so were renewals: when the
    subscription ended, the relay was cut off on that day (two simulated years, seed 1)."""
    await have_relays(world, "berta")
    world.payer.behaviour = "refuses"
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    written_off = (await world.invoices())[-1]
    world.stripe.books.invoices[written_off.id].status = "uncollectible"
    world.stripe.books.tell(
        "invoice.marked_uncollectible", world.stripe.books.invoices[written_off.id]
    )
    await world.pass_time(26 * 3600, step=1800)
    world.payer.behaviour = "pays"
    await say(world, "resume")
    await world.pass_time(120, step=30)
    paid = await relay(world)
    assert (paid.state, paid.is_renewed) == (RelayState.ACTIVE, True)
    await world.plan_desk.ask(await world.command("plan"), "alice", "pro")
    await world.settle_down()
    assert (await kinds(world))[-1] == "plan_quote"
    (sub,) = subscriptions(world)
    world.stripe.books.cancel(sub)
    await world.settle_down()
    assert {r.stops_at for r in await world.relays()} == {sub.period_end}
    assert world.host.is_up(paid.id)


async def test_m13_an_upgrade_not_paid_yet_takes_nothing_when_its_subscription_ends(
    world: World,
) -> None:
    await have_relays(world, "alice")
    world.payer.behaviour = "refuses"
    await world.plan_desk.ask(await world.command("plan"), "alice", "pro")
    await world.settle_down()
    quote = (await world.messages())[-1][1]
    await world.plan_desk.confirm(await world.command("confirm"), quote["code"])
    await world.settle_down()
    assert (await world.invoices())[-1].status == "open"
    (sub,) = subscriptions(world)
    world.stripe.books.cancel(sub)
    await world.settle_down()
    after = await relay(world)
    assert (after.state, after.stops_at) == (RelayState.ACTIVE, sub.period_end)


async def test_m12_a_renewal_written_off_before_a_paid_one_leaves_no_relay_without_an_end(
    world: World,
) -> None:
    """Its end is kept away for good by who paid the month after. Cancelled then, the relay had no
    date on which to stop: it held its name for ever, and ran where the operator lets it."""
    await have_relays(world, "alice")
    world.payer.behaviour = "refuses"
    await world.pass_time(25 * DAY_S, step=DAY_S)
    (sub,) = subscriptions(world)
    renewal = world.stripe.books.invoices[(await world.invoices())[-1].id]
    renewal.status = "uncollectible"
    world.stripe.books.tell("invoice.marked_uncollectible", renewal)
    await world.settle_down()
    world.payer.behaviour = "pays"
    await world.pass_time(sub.period_end - world.clock.billing_now() + DAY_S // 2, step=DAY_S // 4)
    assert [i.status for i in await world.invoices()] == ["paid", "uncollectible", "paid"]
    world.stripe.books.cancel(sub)
    await world.settle_down()
    assert (await relay(world)).stops_at == sub.period_end
    await world.pass_time(35 * DAY_S, step=DAY_S)
    assert (await relay(world)).is_lapsed


async def test_m13_a_late_renewal_of_an_old_subscription_is_not_the_debt_of_a_newer_relay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was drawn up before that relay was ever up, and its event came after."""
    await have_relays(world, "alice")
    (old,) = subscriptions(world)
    books = world.stripe.books
    with monkeypatch.context() as unheard:
        unheard.setattr(books, "tell", lambda *args, **more: None)
        renewal = books.draft(old.customer, old, [400], "subscription_cycle", False)
        renewal.status = "open"
    books.cancel(old)
    await world.pass_time(DAY_S, step=3600)
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.pass_time(600, step=60)
    assert (await relay(world, "berta")).state is RelayState.ACTIVE
    books.tell("invoice.finalized", renewal)
    await world.settle_down()
    async with world.rt.unit() as unit:
        assert not await invoices.relays_of(unit.tx, renewal.id)
    await world.pass_time(20 * DAY_S, step=DAY_S)
    assert (await relay(world, "berta")).state is RelayState.ACTIVE


async def test_a_subscription_made_by_hand_beside_the_own_one_is_left_alone_and_told(
    world: World,
) -> None:
    """Its renewal was paid from the tenant's wallet, for relays that nobody has."""
    await have_relays(world, "alice")
    (own,) = subscriptions(world)
    books = world.stripe.books
    by_hand = Subscription(
        id=books.new_id("sub"),
        customer=own.customer,
        items=[Item(books.new_id("si"), own.items[0].price, 3)],
        metadata={},
        created_at=books.now,
        period_start=books.now,
        period_end=books.now + 3 * DAY_S,
        status="active",
    )
    books.subscriptions[by_hand.id] = by_hand
    books.tell("customer.subscription.created", by_hand)
    await world.pass_time(5 * DAY_S, step=DAY_S // 2)
    await world.reconciler.run_once(world.clock.now())
    await world.settle_down()
    (renewal,) = [i for i in books.invoices.values() if i.subscription is by_hand]
    assert (renewal.status, renewal.auto_advance) == ("open", True)
    assert [i.status for i in await world.invoices()] == ["paid"]
    assert sum("beside Purser's own" in what for what in await alarms(world)) == 1
    assert [i.quantity for i in by_hand.items] == [3]
    await check_all(world)


async def test_k3_without_its_event_the_end_has_the_same_effect(world: World) -> None:
    """K3: webhook and reconciler had different code. Here the sync sees the end first."""
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    sub.status = "canceled"
    await world.reconciler.run_once(world.clock.now())
    await world.settle_down()
    assert (await relay(world)).stops_at == sub.period_end
    assert len(subscriptions(world)) == 1
    await world.pass_time(40 * DAY_S, step=DAY_S)
    assert (await relay(world)).is_lapsed
    assert len(subscriptions(world)) == 1


async def test_resumed_while_it_is_paid_it_is_ordered_when_that_has_run_out(world: World) -> None:
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    world.stripe.books.cancel(sub)
    await world.settle_down()
    assert (await say(world, "resume"))["kind"] == "resumes_later"
    assert len(subscriptions(world)) == 1
    await world.pass_time(25 * DAY_S, step=DAY_S // 2)
    assert (await relay(world)).state is RelayState.ACTIVE
    assert [i.total_minor for i in await world.invoices()] == [400, 400]
    first, second = await world.invoices()
    assert second.created_at >= sub.period_end
    assert first.subscription_id != second.subscription_id


async def test_m12_a_stop_taken_back_under_another_subscription_is_ordered_when_it_runs_out(
    world: World,
) -> None:
    """It was paid to the end of the period before, and ran on to the end of the new one free."""
    await have_relays(world, "alice")
    await say(world, "stop", confirmed=True)
    (old,) = subscriptions(world)
    world.stripe.books.cancel(old)
    await world.settle_down()
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.pass_time(120, step=30)
    assert (await say(world, "resume"))["kind"] == "resumes_later"
    new = subscriptions(world)[-1]
    assert [i.quantity for i in new.items] == [1]
    await world.pass_time(old.period_end - world.clock.billing_now() + 3600, step=600)
    assert (await relay(world)).state is RelayState.ACTIVE
    first, second, addition = await world.invoices()
    assert (first.total_minor, second.total_minor) == (400, 400)
    assert addition.status == "paid"
    assert 0 < addition.total_minor < 400


async def test_k3_reconcile_counts_a_relay_that_is_ordered_again_as_the_sync_does(
    world: World,
) -> None:
    """An invoice of a time before that was paid made it one that is carried already."""
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    world.stripe.books.cancel(sub)
    await world.pass_time(25 * DAY_S, step=DAY_S)
    await world.resumes.resume(await world.command("resume"), "alice")
    async with world.rt.unit() as unit:
        by_sync = await tenants.uncarried(unit.tx, ALICE)
        by_sweep = (await sweeps.seats_of(unit.tx, [ALICE]))[ALICE].uncarried
    assert by_sync == {(await relay(world)).id}
    assert set(by_sweep) == by_sync


async def test_an_order_that_expired_is_resumed_under_its_name(world: World) -> None:
    """`incomplete_expired`: the relay waits in pending_payment, and `resume` orders it again."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(26 * 3600, step=1800)
    before = await relay(world)
    assert before.is_lapsed
    assert "order_expired" in await kinds(world)
    for call in (world.accounts.status, world.orders.relays):
        await call(await world.command("read"))
    status, relays = (render(*said) for said in (await world.messages())[-2:])
    assert "1 off (say relays for how to go on)" in status
    assert "to order it again: resume alice" in relays
    assert [s.status for s in subscriptions(world)] == ["incomplete_expired"]
    await world.connect_wallet()
    assert (await say(world, "resume"))["kind"] == "ordered"
    await world.pass_time(120, step=30)
    after = await relay(world)
    assert (after.id, after.state, after.lapses_at) == (before.id, RelayState.ACTIVE, None)
    assert [i.status for i in await world.invoices()] == ["void", "paid"]


async def test_nobody_resumes_and_the_name_is_free_again(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(5 * DAY_S, step=3600)
    assert (await relay(world)).state is RelayState.ENDED
    assert (await kinds(world))[-1] == "name_released"
    assert len(subscriptions(world)) == 1


async def test_a_lapsed_relay_can_be_stopped_for_good(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(26 * 3600, step=1800)
    await say(world, "stop", confirmed=True)
    assert (await relay(world)).state is RelayState.ENDED
    assert (await say(world, "resume"))["kind"] == "no_such_relay"


async def test_an_end_set_in_the_dashboard_stands_and_the_tenant_may_take_it_back(
    world: World,
) -> None:
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    sub.cancel_at_period_end = True
    world.stripe.books.tell("customer.subscription.updated", sub)
    await world.settle_down()
    assert sub.cancel_at_period_end
    assert (await relay(world)).stops_at == sub.period_end
    assert any("was set to end at Stripe" in what for what in await alarms(world))
    assert (await say(world, "resume"))["kind"] == "resumed"
    assert not sub.cancel_at_period_end
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [400, 400]


async def test_an_end_taken_back_in_the_dashboard_is_taken_back_here(world: World) -> None:
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    for ends in (True, False):
        sub.cancel_at_period_end = ends
        world.stripe.books.tell("customer.subscription.updated", sub)
        await world.settle_down()
    assert (await relay(world)).is_renewed
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert (await relay(world)).state is RelayState.ACTIVE
    assert not sub.cancel_at_period_end


async def test_quantities_edited_in_the_dashboard_are_set_back_and_told(world: World) -> None:
    """M13: a seat taken away was paid for; putting it back costs nothing."""
    await have_relays(world, "alice", "berta")
    (sub,) = subscriptions(world)
    sub.items[0].quantity = 5
    world.stripe.books.tell("customer.subscription.updated", sub)
    await world.settle_down()
    assert [i.quantity for i in sub.items] == [2]
    assert not sub.pending
    assert sum("were changed at Stripe" in what for what in await alarms(world)) == 1
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [800, 800]


@pytest.mark.parametrize("status", ["past_due", "unpaid", "paused"])
async def test_k5_c9_what_is_not_terminal_is_never_orphaned(world: World, status: str) -> None:
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    sub.status = status
    world.stripe.books.tell("customer.subscription.updated", sub)
    await world.settle_down()
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.settle_down()
    assert len(subscriptions(world)) == 1
    assert [i.quantity for i in sub.items] == [2]


async def with_credit(make_world: MakeWorld) -> World:
    """The operator's `stop = "now_with_credit"`, and one paid relay."""
    world = await make_world()
    world.stop_policy = "now_with_credit"
    world._build()
    await have_relays(world, "alice")
    return world


async def test_with_credit_the_last_relay_ends_now_and_what_is_left_is_credit(
    make_world: MakeWorld,
) -> None:
    world = await with_credit(make_world)
    assert (await say(world, "stop", confirmed=True))["credited"]
    (sub,) = subscriptions(world)
    assert sub.status == "canceled"
    assert (await relay(world)).state is RelayState.ENDED
    await world.pass_time(2 * 3600, step=600)
    kind, facts = (await world.messages())[-1]
    assert kind == "stop_credit"
    assert -280 < sub.customer.balance_minor < -240
    assert facts["credit_minor"] == -sub.customer.balance_minor
    # The next order is paid from it first.
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.settle_down()
    await world.pass_time(120, step=30)
    last = (await world.invoices())[-1]
    assert last.amount_due_minor == 400 - facts["credit_minor"]


async def test_a_relay_can_be_stopped_whose_plan_is_configured_no_more(
    make_world: MakeWorld,
) -> None:
    world = await with_credit(make_world)
    left = [plan for plan in world.catalogue.paid if plan.id != "basic"]
    world.orders.catalogue = Catalogue(left)
    told = await say(world, "stop", confirmed=True)
    assert not told.get("credited")
    assert (await relay(world)).stops_at is not None


async def test_never_credit_for_time_never_paid(make_world: MakeWorld) -> None:
    world = await with_credit(make_world)
    world.payer.behaviour = "refuses"
    await world.pass_time(22 * DAY_S, step=DAY_S)
    assert (await world.invoices())[-1].status == "open"
    assert not (await say(world, "stop", confirmed=False)).get("credited")
    assert (await say(world, "resume"))["kind"] in ("nothing_to_resume", "resume_by_paying")
    await say(world, "stop", confirmed=True)
    await world.pass_time(2 * DAY_S, step=3600)
    (sub,) = subscriptions(world)
    assert sub.customer.balance_minor == 0


async def renew_unheard(world: World) -> None:
    """The next period begins; the subscription tells of it, no webhook of the invoice comes."""
    (sub,) = subscriptions(world)
    world.clock.advance(sub.period_end + 60 - world.clock.billing_now())
    known = len(world.stripe.books.events)
    world.stripe.books.run_to(world.clock.billing_now())
    events = world.stripe.books.events
    events[known:] = [event for event in events[known:] if not event.type.startswith("invoice.")]
    await world.lease.take()


async def test_m10_no_credit_for_a_period_whose_invoice_is_not_known_yet(
    make_world: MakeWorld,
) -> None:
    """The newest invoice that is known is paid, and pays for the period before (seed 7113)."""
    world = await with_credit(make_world)
    await renew_unheard(world)
    await world.settle_down()
    assert not (await say(world, "stop", confirmed=True))["credited"]
    (sub,) = subscriptions(world)
    assert sub.cancel_at_period_end
    assert not sub.is_terminal


async def test_m10_nor_where_the_renewal_came_between_the_stop_and_its_end(
    make_world: MakeWorld,
) -> None:
    world = await with_credit(make_world)
    (sub,) = subscriptions(world)
    await world.pass_time(sub.period_end - 7200 - world.clock.billing_now(), step=DAY_S)
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await renew_unheard(world)
    await world.settle_down()
    await world.pass_time(7200, step=600)
    assert sub.is_terminal
    assert sub.customer.balance_minor == 0


async def test_m10_nor_where_the_renewal_came_while_stripe_did_not_answer_the_end(
    make_world: MakeWorld,
) -> None:
    """The stop was stored with its credit, and tried again in the next period: that was given back
    whole, and never paid."""
    world = await with_credit(make_world)
    (sub,) = subscriptions(world)
    await world.pass_time(sub.period_end - 7200 - world.clock.billing_now(), step=DAY_S)
    cancel = world.stripe.cancel_subscription

    async def away(operation_id: str, subscription_id: str, *, credit: bool = False) -> None:
        raise StripeUnavailable(subscription_id, "503")

    world.stripe.cancel_subscription = away  # type: ignore[method-assign]
    assert (await say(world, "stop", confirmed=True))["credited"]
    world.payer.behaviour = "refuses"
    await world.pass_time(3 * 3600, step=600)
    world.stripe.cancel_subscription = cancel  # type: ignore[method-assign]
    await world.pass_time(2 * 3600, step=600)
    assert sub.is_terminal
    assert sub.customer.balance_minor == 0
    assert [i.status for i in await world.invoices()] == ["paid", "void"]


async def test_c16_a_late_event_of_an_old_subscription_changes_nothing(world: World) -> None:
    await have_relays(world, "alice")
    (old,) = subscriptions(world)
    world.stripe.books.cancel(old)
    await world.pass_time(25 * DAY_S, step=DAY_S)
    await say(world, "resume")
    await world.pass_time(120, step=30)
    world.stripe.books.tell("customer.subscription.deleted", old)
    world.stripe.books.tell("customer.subscription.updated", old)
    await world.settle_down()
    assert (await relay(world)).is_renewed
    assert [s.status for s in subscriptions(world)] == ["canceled", "active"]


async def test_a_subscription_that_stripe_does_not_know_is_over(world: World) -> None:
    """K4: a new one beside an id that is still stored here could never be stored."""
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    del world.stripe.books.subscriptions[sub.id]
    await world.reconciler.run_once(world.clock.now())
    await world.settle_down()
    assert (await relay(world)).stops_at == sub.period_end
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert (await relay(world)).is_lapsed
    await say(world, "resume")
    await world.pass_time(120, step=30)
    assert (await relay(world)).state is RelayState.ACTIVE
    assert len(subscriptions(world)) == 1


async def test_an_end_by_date_in_the_dashboard_is_told_once(world: World) -> None:
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    sub.cancel_at = sub.period_end + 5 * DAY_S
    for _ in range(2):
        world.stripe.books.tell("customer.subscription.updated", sub)
        await world.pass_time(120, step=30)
    (told,) = [what for what in await alarms(world) if "set at Stripe to end on" in what]
    assert sub.id in told
    assert (await relay(world)).is_renewed


@pytest.mark.parametrize("behavior", ["void", "keep_as_draft", "mark_uncollectible"])
async def test_paused_collection_is_told_in_each_period(world: World, behavior: str) -> None:
    """Renewals would be void for ever, and nobody would hear that the relays run for nothing."""
    await have_relays(world, "alice")
    (sub,) = subscriptions(world)
    sub.pause_behavior = behavior
    for _ in range(2):
        world.stripe.books.tell("customer.subscription.updated", sub)
        await world.pass_time(120, step=30)
    assert len([what for what in await alarms(world) if "collection paused at Stripe" in what]) == 1
    await world.pass_time(32 * DAY_S, step=DAY_S)
    told = [what for what in await alarms(world) if "collection paused at Stripe" in what]
    assert len(told) == 2
    assert all(behavior in what for what in told)


async def never_up(world: World) -> None:
    world.host.script.extend([RelayUnreachable("no answer")] * 5000)
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(4 * DAY_S, step=3600)


async def test_c15_a_relay_that_never_came_up_is_not_billed_on(world: World) -> None:
    """C15: relays that never came up were billed."""
    await never_up(world)
    (kind, facts) = (await world.messages())[-1]
    assert kind == "never_up"
    assert render(kind, facts)
    assert any("never came up" in what for what in await alarms(world))
    (sub,) = subscriptions(world)
    assert sub.cancel_at_period_end
    await world.pass_time(30 * DAY_S, step=DAY_S)
    assert len(await world.invoices()) == 1
    assert (await relay(world)).is_lapsed


async def test_c15_days_in_which_the_bot_was_away_are_no_try(world: World) -> None:
    """Simulation seed 339: back after days, one failed try was taken for a relay that never comes
    up, and what its tenant had paid for was not renewed."""
    world.host.script.extend([RelayUnreachable("no answer")] * 2)
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    assert (await relay(world)).state is RelayState.ACTIVE
    world.clock.advance(4 * DAY_S)
    await world.lease.take()
    await world.keeper.run_once(world.clock.now())
    assert not world.host.script
    assert (await relay(world)).is_renewed
    await world.pass_time(3600, step=600)
    assert world.host.is_up((await relay(world)).id)
    assert not [kind for kind, _ in await world.messages() if kind == "never_up"]


async def test_c15_one_that_comes_up_after_all_is_renewed(world: World) -> None:
    await never_up(world)
    world.host.script.clear()
    await world.pass_time(3600, step=600)
    (sub,) = subscriptions(world)
    assert not sub.cancel_at_period_end
    assert (await relay(world)).is_renewed
    await world.pass_time(30 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [400, 400]


async def test_c16_an_end_that_is_overtaken_while_it_is_fetched_changes_nothing(
    world: World,
) -> None:
    """C16: the sync saw the end too, and what was ordered meanwhile has its own subscription."""
    await have_relays(world, "alice")
    (old,) = subscriptions(world)
    world.stripe.books.cancel(old)
    await world.deliver_events()
    due = await world.all(InboxEvent, "events.due", now=world.clock.now(), count=9)
    (row,) = [event for event in due if event.type == "customer.subscription.deleted"]
    effect = await world.events.handlers.on_subscription(row)
    assert callable(effect)
    world.clock.advance(40 * DAY_S)
    await world.lease.take()
    await world.settle_down()
    await say(world, "resume")
    await world.pass_time(60, step=10)
    assert (await relay(world)).state is RelayState.ACTIVE
    async with world.rt.unit() as unit:
        await effect(unit)
    await world.pass_time(DAY_S, step=3600)
    after = await relay(world)
    assert (after.state, after.stop_requested_at) == (RelayState.ACTIVE, None)
