"""C21: what is stuck is counted, and what nobody would look at again is taken up."""

from __future__ import annotations

import pytest

from billing import stuck
from billing.model import Activity, InboxEvent
from billing.ports import RelayUnreachable
from billing.stuck import CLASSES
from tests.world import ALICE, OPERATOR, World

DAY_S = 86_400


def tamper(world: World, sql: str) -> None:
    """What no code of ours does: a timer is lost."""
    raw = world.store._driver._connection  # type: ignore[attr-defined]
    assert raw.execute(sql).rowcount > 0
    raw.commit()


async def order(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()


async def paid(world: World) -> None:
    await order(world)
    world.payee.settle((await world.requests())[-1].payment_hash)
    await world.pass_time(120, step=60)


async def alarms(world: World) -> list[str]:
    return [str(facts["what"]) for _, facts in await world.messages(OPERATOR)]


async def counts(world: World) -> dict[str, int]:
    return {name: n for name, n in (await world.reconciler.stuck.count()).items() if n}


async def run(world: World) -> int:
    await world.lease.renew() or await world.lease.take()
    return await world.reconciler.stuck.run_once(world.clock.now())


async def test_c21_in_a_healthy_world_nothing_is_stuck(world: World) -> None:
    """C21: every class is counted, also where the count is zero."""
    await paid(world)
    await world.pass_time(40 * DAY_S, step=DAY_S)
    assert await run(world) == 0
    assert set(await counts(world)) <= {"invoices"}
    assert set(world.reconciler.stuck.counts) == {kind.name for kind in CLASSES}


LOST = (
    ("relays", "UPDATE hosted_relays SET wanted_rev = wanted_rev + 1, sync_due_at = NULL"),
    (
        "messages",
        "UPDATE outbox_messages SET state = 'due', next_try_at = NULL WHERE kind = 'invoice_paid'",
    ),
    ("settlements", "UPDATE settlements SET state = 'received', next_try_at = NULL"),
    (
        "events",
        "UPDATE inbox_events SET state = 'new', handled_at = NULL, next_try_at = NULL"
        " WHERE type = 'invoice.paid'",
    ),
    ("changes", "UPDATE changes SET done_at = NULL, outcome = NULL"),
)


@pytest.mark.parametrize(("name", "sql"), LOST)
async def test_what_lost_its_timer_is_taken_up_told_once_and_ends(
    world: World, name: str, sql: str
) -> None:
    await paid(world)
    tamper(world, sql)
    world.clock.advance(2 * 3600)
    assert (await counts(world))[name] == 1
    assert await run(world) == 1
    assert await run(world) == 0
    (line,) = [
        line
        for line in await world.all(Activity, "activity.after", seq=0, count=10_000)
        if line.kind == f"stuck.{name}"
    ]
    assert [what for what in await alarms(world) if line.subject and line.subject in what]
    await world.settle_down()
    assert await counts(world) == {}


async def test_a_sweep_takes_a_batch_and_the_next_one_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a disaster all rows at once would hold everything else up; none is left out."""
    monkeypatch.setattr(stuck, "BATCH", 2)
    await world.connect_wallet()
    for name in ("alice", "berta", "carla", "dora", "edda"):
        await world.orders.new(await world.command("new"), name, "basic")
        await world.pass_time(120, step=60)
    tamper(world, "UPDATE hosted_relays SET wanted_rev = wanted_rev + 1, sync_due_at = NULL")
    world.clock.advance(2 * 3600)
    assert (await counts(world))["relays"] == 5
    assert [await run(world) for _ in range(4)] == [2, 2, 1, 0]
    await world.settle_down()
    assert await counts(world) == {}


async def test_m7_a_request_without_a_look_up_is_asked_about(world: World) -> None:
    await order(world)
    tamper(world, "UPDATE payment_requests SET next_lookup_at = NULL")
    world.clock.advance(6 * 3600)
    assert (await counts(world))["requests"] == 1
    assert await run(world) == 1
    await world.pass_time(1800, step=300)
    assert "requests" not in await counts(world)


async def test_v1_a_forgotten_refund_is_looked_up_before_it_is_decided(world: World) -> None:
    """V1: Stripe has it, its answer was lost, and so was our timer: it is found there and done,
    neither failed nor made again."""
    await order(world)
    (sub,) = world.stripe.books.subscriptions.values()
    world.stripe.set_card(sub.customer.id, "ok")
    (invoice,) = await world.invoices()
    await world.pass_time(4 * 3600, step=600)
    world.stripe.books.charge(world.stripe.books.invoices[invoice.id])
    await world.settle_down()
    refund = await world.refund_desk.refund(invoice.id, 100, None, "two weeks down")
    world.stripe.after = _lose("create_refund")
    await world.refunds.run_once(world.clock.now())
    world.stripe.after = lambda name, arguments: None
    tamper(world, "UPDATE refunds SET next_try_at = NULL")
    world.clock.advance(2 * 3600)
    assert (await counts(world))["refunds"] == 1
    assert await run(world) == 1
    await world.settle_down()
    assert [view.operation_id for view in world.stripe.refunds.values()] == [refund.operation_id]
    assert "refunds" not in await counts(world)


def _lose(name: str):  # type: ignore[no-untyped-def]
    from billing.errors import StripeUnavailable

    def hook(called: str, arguments: object) -> None:
        if called == name:
            raise StripeUnavailable("x", "lost")

    return hook


async def test_k2_an_invoice_nobody_read_for_three_days_is_read_again(world: World) -> None:
    """K2: not forgotten after 72 hours, nor ever; and once a day at most."""
    await paid(world)
    await world.pass_time(32 * DAY_S, step=DAY_S)
    (_, renewal) = await world.invoices()
    assert renewal.status == "open"
    tamper(world, "UPDATE invoices SET collect_due_at = NULL, nwc_retry_at = NULL")
    world.stripe.books.mark_paid(world.stripe.books.invoices[renewal.id], off_stripe=True)
    world.stripe.books.events.clear()
    world.clock.advance(4 * DAY_S)
    assert (await counts(world))["invoices"] == 1
    assert await run(world) == 1
    assert await run(world) == 0
    await world.events.run_once(world.clock.now())
    assert [i.status for i in await world.invoices()] == ["paid", "paid"]


async def test_a_first_payment_that_never_closed_is_read_again(world: World) -> None:
    await order(world)
    (sub,) = world.stripe.books.subscriptions.values()
    world.clock.advance(26 * 3600)
    world.stripe.books.run_to(world.clock.billing_now())
    assert sub.status == "incomplete_expired"
    world.stripe.books.events.clear()
    assert (await counts(world))["first_payments"] == 1
    assert await run(world) == 1
    await world.settle_down()
    assert "first_payments" not in await counts(world)
    assert [relay.is_lapsed for relay in await world.relays(ALICE)] == [True]


async def test_an_error_leaves_the_row_as_it_is(world: World) -> None:
    await paid(world)
    tamper(world, "UPDATE hosted_relays SET wanted_rev = wanted_rev + 1, sync_due_at = NULL")
    world.host.script.extend([RelayUnreachable("no answer")] * 5)
    world.clock.advance(2 * 3600)
    await run(world)
    await world.keeper.run_once(world.clock.now())
    (relay,) = await world.relays()
    assert relay.wanted_rev > relay.applied_rev
    assert relay.sync_due_at is not None
    assert not [
        e for e in await world.all(InboxEvent, "events.newest", count=100) if e.state == "failed"
    ]
