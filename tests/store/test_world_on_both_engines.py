"""The money path on both engines: the SQL, its constraints and its order of rows mean the same."""

from __future__ import annotations

from billing.card_model import Card
from billing.model import InboxEvent
from billing.retention import Retention
from billing.store.engine import MigratableEngine
from bot.control_events import EventControl
from tests.books import check_all
from tests.world import ALICE, World


async def a_world(engine: MigratableEngine) -> World:
    world = World(engine)
    await world.start()
    return world


async def order(world: World, name: str, plan: str = "basic") -> None:
    await world.orders.new(await world.command("new"), name, plan)
    await world.settle_down()


async def test_orders_refusal_hand_payment_addition_and_renewal(engine: MigratableEngine) -> None:
    world = await a_world(engine)
    await world.connect_wallet()
    world.payer.behaviour = "refuses"
    await order(world, "alice")
    (request,) = await world.requests()
    assert request.shown_at is not None
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    world.payer.behaviour = "pays"
    await order(world, "second", "pro")
    await world.pass_time(60, step=30)
    await world.pass_time(32 * 86400, step=2 * 86400)
    assert [i.paid_by for i in await world.invoices()] == ["manual", "nwc", "nwc"]
    assert {r.state.value for r in await world.relays()} == {"active"}
    assert await world.reconciler.plan() == []
    await check_all(world)


async def test_silence_death_late_money_and_credit(engine: MigratableEngine) -> None:
    world = await a_world(engine)
    await world.connect_wallet(methods="lookup_invoice pay_invoice")
    world.payer.behaviour = "silent"
    await order(world, "alice")
    await world.accounts.pay(await world.command("pay"))
    await world.pass_time(1800, step=120)
    first, second = await world.requests()
    assert {asked for _, asked in world.payer.lookups} == {first.payment_hash}
    assert len(world.payer.lookups) == 3
    world.payee.settle(second.payment_hash)
    await world.pass_time(120, step=60)
    world.payee.settle(first.payment_hash)
    await world.pass_time(2 * 86400, step=12 * 3600)
    states = {s.payment_hash: s.state.value for s in await world.settlements()}
    assert states == {first.payment_hash: "credited", second.payment_hash: "placed"}
    await check_all(world)


async def test_an_unpaid_order_ends_and_commands_answer(engine: MigratableEngine) -> None:
    world = await a_world(engine)
    await order(world, "alice")
    for call in (world.accounts.status, world.accounts.invoices, world.orders.relays):
        await call(await world.command("read"))
    await world.orders.stop(await world.command("stop"), "alice", confirmed=False)
    await world.pass_time(26 * 3600, step=3600)
    assert [r.is_lapsed for r in await world.relays(ALICE)] == [True]
    assert [i.status for i in await world.invoices()] == ["void"]
    await world.reconciler.run_once(world.clock.now())


async def test_the_lease_passes_on_with_a_higher_fence(engine: MigratableEngine) -> None:
    world = await a_world(engine)
    second = World(engine, world.clock, life=2)
    if engine.dialect == "postgresql":
        assert not await second.lease.take()
        assert not second.lease.is_held()
    world.clock.advance(31)
    assert not world.lease.is_held()
    assert await second.lease.take()
    assert second.lease.token > world.lease.token
    assert not await world.lease.renew()
    await second.lease.release()
    assert await world.lease.take()


async def test_cards_events_and_their_retention(engine: MigratableEngine) -> None:
    """V4: the pages, the looks, dead letters and what is forgotten mean the same on both."""
    world = await a_world(engine)
    world.stripe.has_portal = False
    await order(world, "alice")
    for _ in range(2):
        await world.card_commands.card(await world.command("card"))
    await world.settle_down()
    said = [facts for kind, facts in await world.messages() if kind == "card_page"]
    assert len(said) == 1, "asked for twice, made once"
    left = world.stripe.complete(str(said[0]["url"]).rpartition("/")[2])
    await world.pass_time(2 * 3600, step=600)
    (card,) = await world.all(Card, "cards.get", tenant=ALICE)
    assert (card.method_id, card.look_due_at, card.wanted_method_id) == (left, None, None)
    assert [i.paid_by for i in await world.invoices()] == ["card"]
    control = EventControl(world.rt)
    replayed = await control.replay([], since=0, only_failed=False)
    assert replayed["events"] > 5
    await world.settle_down()
    world.stripe.detach(left)
    await world.settle_down()
    (customer,) = world.stripe.books.customers.values()
    (sub,) = world.stripe.books.subscriptions.values()
    world.stripe.books.cancel(sub)
    customer.deleted = True
    world.stripe.books.tell("customer.deleted", customer)
    await world.settle_down()
    assert "account_closed" in [kind for kind, _ in await world.messages()]
    events = await world.all(InboxEvent, "events.newest", count=1000)
    assert {e.state for e in events} <= {"handled", "ignored"}
    retention = Retention(world.rt)
    assert await retention.run_once(world.clock.now() + 91 * 86400) == len(events)


async def test_a_sweep_finds_marks_and_takes_up_on_both(engine: MigratableEngine) -> None:
    """Every statement that takes a page of ids, with rows behind it (V4)."""
    world = await a_world(engine)
    await world.connect_wallet()
    await order(world, "alice")
    await order(world, "second", "pro")
    await world.pass_time(60, step=30)
    (sub,) = world.stripe.books.subscriptions.values()
    sub.items[0].quantity += 1
    world.stripe.books.tell = lambda *args: None  # type: ignore[method-assign]
    (first, *_) = world.stripe.books.invoices.values()
    differences = await world.reconciler.plan()
    assert [d.kind for d in differences] == ["tenant"]
    await world.rebuilder.run_once(world.clock.now())
    report = await world.reconciler.sweep()
    assert (report.resumed, report.errors) == (True, 0)
    await world.settle_down()
    assert await world.reconciler.plan() == []
    # One that is over, found by its mark; an invoice that is open here and not there.
    world.stripe.books.cancel(sub)
    async with engine.transaction() as tx:
        await tx.execute("reconcile.collect_all_open", now=world.clock.now())
        assert await tx.scalar("reconcile.count_subscribed") == 1
    assert [d.kind for d in await world.reconciler.plan()] == ["subscription"]
    await world.reconciler.run_once(world.clock.now())
    await world.settle_down()
    assert await world.reconciler.plan() == []
    assert first.status == "paid"


async def test_a_long_absence_and_what_is_stuck_on_both(engine: MigratableEngine) -> None:
    world = await a_world(engine)
    await world.connect_wallet()
    await order(world, "alice")
    await world.reconciler.run_once(world.clock.now())
    (sub,) = world.stripe.books.subscriptions.values()
    world.stripe.set_card(sub.customer.id, "ok")
    world.clock.advance(40 * 86400)
    world.stripe.books.run_to(world.clock.billing_now())
    await world.lease.take()
    await world.reconciler.run_once(world.clock.now())
    await world.settle_down()
    assert [i.status for i in await world.invoices()] == ["paid", "paid"]
    assert await world.reconciler.plan() == []
    counts = await world.reconciler.stuck.count()
    assert {name for name, count in counts.items() if count} <= {"events"}


async def test_a_change_of_plan_a_stop_and_a_resume(engine: MigratableEngine) -> None:
    """V4: what is offered, confirmed, applied, undone, lapsed and resumed works on both."""
    world = await a_world(engine)
    await world.connect_wallet()
    await order(world, "alice")
    await world.pass_time(10 * 86400, step=5 * 86400)
    for plan in ("pro", "basic"):
        await world.plan_desk.ask(await world.command("plan"), "alice", plan)
        await world.settle_down()
        code = str((await world.messages())[-1][1]["code"])
        await world.plan_desk.confirm(await world.command("confirm"), code)
        await world.settle_down()
        await world.pass_time(120, step=30)
    assert [r.plan for r in await world.relays(ALICE)] == ["pro"]
    (sub,) = world.stripe.books.subscriptions.values()
    sub.cancel_at_period_end = True
    world.stripe.books.tell("customer.subscription.updated", sub)
    await world.settle_down()
    await world.pass_time(25 * 86400, step=86400)
    (relay,) = await world.relays(ALICE)
    assert relay.is_lapsed
    assert relay.plan == "basic"
    await world.resumes.resume(await world.command("resume"), "alice")
    await world.pass_time(120, step=30)
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.resumes.resume(await world.command("resume"), "alice")
    await world.settle_down()
    assert [r.state.value for r in await world.relays(ALICE)] == ["active"]
    await check_all(world)
