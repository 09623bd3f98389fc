"""K7, M13: nobody is cut off for what is our fault, who paid, or who was never told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

import pytest

from billing.collection import Collector
from billing.dunning import DAY_S, Policy, Quiet
from billing.errors import StripeRejected, StripeUnavailable
from billing.model import ConnectionRole, OutboxMessage, RelayState
from billing.store import dunning
from tests.unit.billing.dunned import (
    HOUR_S,
    alarms,
    days,
    order,
    renewal,
    said,
    state,
    subscription,
    text_of,
    unpaid,
    windows,
)
from tests.world import ALICE, World
from wallet.ports import Unreachable


async def elapsed(world: World) -> int:
    async with world.rt.unit() as unit:
        return (await dunning.clock(unit.tx)).elapsed_s


async def test_k7_a_bot_that_was_away_for_40_days_skips_nothing_and_cuts_nobody_off(
    world: World,
) -> None:
    await unpaid(world)
    await days(world, 4)
    before = await said(world)
    assert before == ["dunning_due", "dunning_remind", "dunning_remind"]
    world.clock.advance(40 * DAY_S)
    await world.lease.take()
    await world.settle_down()
    seen = [await state(world)]
    assert await said(world) == before
    for _ in range(30):
        await days(world, 1)
        seen.append(await state(world))
    assert await said(world) == [*before, "dunning_limit", "dunning_stop", "dunning_end"]
    assert 3 <= seen.index(RelayState.LIMITED) <= 4, "what had passed before counts, 40 days not"
    assert seen.index(RelayState.STOPPED) - seen.index(RelayState.LIMITED) == 3
    assert seen.index(RelayState.ENDED) - seen.index(RelayState.STOPPED) == 20


def stripe_is_away(world: World) -> Callable[[], None]:
    def refuse(name: str, arguments: Mapping[str, Any]) -> None:
        raise StripeUnavailable(name, "503")

    world.stripe.before = refuse

    def back() -> None:
        world.stripe.before = lambda name, arguments: None

    return back


def rates_are_away(world: World) -> Callable[[], None]:
    world.quoter.down = True
    return lambda: setattr(world.quoter, "down", False)


def payee_is_away(world: World) -> Callable[[], None]:
    world.payee.down = True
    return lambda: setattr(world.payee, "down", False)


@pytest.mark.parametrize("away", [stripe_is_away, rates_are_away, payee_is_away])
async def test_k7_while_something_of_ours_is_away_no_time_counts(
    world: World, away: Callable[[World], Callable[[], None]]
) -> None:
    await unpaid(world)
    await days(world, 6)
    before, count = await said(world), await elapsed(world)
    back = away(world)
    # Away: Stripe's webhooks do not come either.
    deliver, world.deliver_events = world.deliver_events, nothing  # type: ignore[method-assign]
    await world.pass_time(20 * DAY_S, step=12 * HOUR_S)
    assert await state(world) is RelayState.ACTIVE
    assert await said(world) == before
    assert await elapsed(world) <= count + DAY_S
    assert [text for text in await alarms(world) if "Dunning stands still" in text]
    back()
    world.deliver_events = deliver  # type: ignore[method-assign]
    await days(world, 1)
    assert await state(world) is RelayState.ACTIVE
    await days(world, 3)
    assert await state(world) is RelayState.LIMITED


async def nothing() -> int:
    return 0


async def test_who_was_never_told_is_not_cut_off_and_operators_are_shown(world: World) -> None:
    await unpaid(world)
    await days(world, 1)
    world.courier.down = True
    await days(world, 30)
    assert await state(world) is RelayState.ACTIVE
    found = (await windows(world))[0]
    assert found.day == 1
    assert found.told_clock is None
    assert found.waits_for == "the message before has reached no relay"
    assert [text for text in await alarms(world) if "reach no relay" in text]
    world.courier.down = False
    await days(world, 1)
    assert await state(world) is RelayState.ACTIVE
    await days(world, 7)
    assert await state(world) is RelayState.LIMITED


async def test_m6_a_preimage_claim_forbids_every_step(world: World) -> None:
    await unpaid(world)
    await days(world, 1)
    (request, *_) = [r for r in await world.requests() if r.invoice_id == renewal(world).id]
    async with world.engine.transaction() as tx:
        await tx.execute("payments.claim_request", id=request.id, now=world.clock.now())
    await days(world, 40)
    assert await state(world) is RelayState.ACTIVE
    assert await said(world) == ["dunning_due"]
    assert [text for text in await alarms(world) if "Dunning of invoice" in text]


async def test_m13_money_that_arrives_at_the_last_moment_is_found_before_the_cut(
    world: World,
) -> None:
    await unpaid(world)
    await days(world, 6)
    old = next(r for r in await world.requests() if r.invoice_id == renewal(world).id)
    assert old.state == "dead"
    asked: list[str] = []
    lookup = world.lookup

    async def watched(connection: Any, payment_hash: str) -> Any:
        asked.append(payment_hash)
        return await lookup(connection, payment_hash)

    world.lookup = watched  # type: ignore[method-assign]
    async with world.engine.transaction() as tx:
        await tx.execute(
            "payments.store_silence", id=old.id, next_lookup_at=None, now=world.clock.now()
        )
    world.payee.settle(old.payment_hash)
    await days(world, 4)
    assert old.payment_hash in asked
    assert await state(world) is RelayState.ACTIVE
    assert renewal(world).status == "paid"
    assert "dunning_limit" not in await said(world)


async def test_m13_a_payment_request_that_cannot_be_asked_about_postpones(world: World) -> None:
    await unpaid(world)
    await days(world, 6)
    world.payee.mute_lookups = True
    await days(world, 6)
    assert await state(world) is RelayState.ACTIVE
    assert [text for text in await alarms(world) if "Dunning of invoice" in text]
    world.payee.mute_lookups = False
    await days(world, 1)
    assert await state(world) is RelayState.LIMITED


async def test_a_step_that_is_held_up_for_days_is_told_with_quiet_hours_too(world: World) -> None:
    """Each night was another reason to wait, and with it the days were counted anew."""
    world.dunner.policy = Policy(quiet=Quiet(20, 9, UTC))
    await unpaid(world)
    await days(world, 6)
    world.payee.mute_lookups = True
    await days(world, 7)
    assert await state(world) is RelayState.ACTIVE
    assert [text for text in await alarms(world) if "Dunning of invoice" in text]


async def test_a_step_that_an_error_holds_up_for_days_is_told(world: World) -> None:
    """A question that Stripe refuses, as to a key that may not ask it, is no outage: the clock goes
    on, and nobody heard that the step never came."""
    await unpaid(world)
    await days(world, 6)

    async def refused(invoice_id: str) -> Any:
        why = "the key may not read payments"
        raise StripeRejected(invoice_id, why, status=403, code=None, request_id=None)

    world.dunner.investigator.stripe.card_progress = refused  # type: ignore[method-assign]
    await days(world, 2.5)
    assert not [text for text in await alarms(world) if "Dunning of invoice" in text]
    await days(world, 3)
    assert await state(world) is RelayState.ACTIVE
    (told, *_) = [text for text in await alarms(world) if "Dunning of invoice" in text]
    assert "the key may not read payments" in told


async def test_m13_credit_that_covers_it_is_spent_on_it_before_anything_is_taken(
    world: World,
) -> None:
    await unpaid(world)
    await days(world, 6)
    renewal(world).customer.balance_minor = -400
    await days(world, 6)
    assert await state(world) is RelayState.ACTIVE
    assert renewal(world).status == "paid"
    assert renewal(world).customer.balance_minor == 0
    assert "dunning_limit" not in await said(world)


async def test_m13_too_little_credit_helps_nobody(world: World) -> None:
    await unpaid(world)
    await days(world, 6)
    renewal(world).customer.balance_minor = -100
    await days(world, 2)
    assert await state(world) is RelayState.LIMITED


async def nothing_to_collect(collector: Collector, now: int) -> int:
    return 0


async def test_m13_credit_on_its_way_to_it_postpones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await unpaid(world)
    await days(world, 6)
    async with world.engine.transaction() as tx:
        await tx.execute(
            "spends.insert",
            id="spend_of_another_life",
            invoice_id=renewal(world).id,
            tenant=ALICE,
            customer_id=renewal(world).customer.id,
            amount_minor=400,
            currency="usd",
            created_at=world.clock.now(),
        )
    monkeypatch.setattr(Collector, "run_once", nothing_to_collect)
    await days(world, 3)
    assert await state(world) is RelayState.ACTIVE
    assert (await windows(world))[0].waits_for == "money for it is being placed"


async def test_m13_a_card_payment_in_progress_postpones(world: World) -> None:
    await unpaid(world)
    await days(world, 6)
    renewal(world).card = "in_progress"
    await days(world, 4)
    assert await state(world) is RelayState.ACTIVE
    renewal(world).card = "failed"
    await days(world, 1)
    assert await state(world) is RelayState.LIMITED


async def test_m13_a_wallet_that_was_replaced_cannot_hold_it_up_for_ever(world: World) -> None:
    await unpaid(world)
    await days(world, 6)
    lookup = world.lookup
    first = next(r for r in await world.requests() if r.invoice_id == renewal(world).id)

    async def gone(connection: Any, payment_hash: str) -> Any:
        if payment_hash == first.payment_hash:
            return Unreachable("gone for good")
        return await lookup(connection, payment_hash)

    world.lookup = gone  # type: ignore[method-assign]
    await days(world, 3)
    assert await state(world) is RelayState.ACTIVE
    async with world.engine.transaction() as tx:
        await tx.execute("connections.end_payee", now=world.clock.now())
    await world._connection("conn_payee2", ConnectionRole.PAYEE, None)
    await days(world, 1)
    assert await state(world) is RelayState.LIMITED


# --- time that is asked for -----------------------------------------------------------------------


async def test_one_promise_an_invoice_and_it_is_kept(world: World) -> None:
    await unpaid(world)
    await days(world, 5)
    await world.promises.promise(await world.command("promise"), "9")
    assert "from 1 to 7" in await text_of(world, "promise_too_long")
    await world.promises.promise(await world.command("promise"), "5")
    text = await text_of(world, "promised")
    assert "5 days more for $4.00" in text
    assert "alice is limited on" in text
    await world.promises.promise(await world.command("promise"), "5")
    assert "operator's to give" in await text_of(world, "promise_again")
    await days(world, 7)
    assert await state(world) is RelayState.ACTIVE
    await days(world, 1.5)
    assert await state(world) is RelayState.LIMITED


async def test_a_promise_without_a_debt(world: World) -> None:
    await order(world)
    await world.promises.promise(await world.command("promise"), "5")
    assert "Nothing is overdue" in await text_of(world, "promise_needless")


@pytest.mark.parametrize(("quiet_after", "steps"), [(0, 6), (5, 3)])
async def test_messages_and_cuts_wait_for_the_morning(
    world: World, quiet_after: int, steps: int
) -> None:
    """Its first message falls due at night, and without quiet hours until then its first cut."""
    await world.pass_time(10 * HOUR_S, step=HOUR_S)
    await unpaid(world)
    assert world.clock.billing_now() // HOUR_S % 24 == 20
    await world.pass_time(quiet_after * DAY_S, step=3 * HOUR_S)
    since = world.clock.now()
    world.dunner.policy = Policy(quiet=Quiet(20, 9, UTC))
    cuts: list[int] = []
    before = await state(world)
    for _ in range(8 * 32):
        await world.pass_time(3 * HOUR_S, step=3 * HOUR_S)
        now = await state(world)
        if now is not before:
            cuts.append(world.clock.billing_now() // HOUR_S % 24)
        before = now
    assert len(cuts) == 3
    rows = await world.all(OutboxMessage, "outbox.to_recipient", recipient=ALICE)
    said_at = [r.created_at for r in rows if r.kind.startswith("dunning_") and r.created_at > since]
    assert len(said_at) == steps
    assert all(9 <= hour < 20 for hour in [*cuts, *(at // HOUR_S % 24 for at in said_at)])


# --- the process dies -----------------------------------------------------------------------------


async def test_a_restart_changes_nothing_and_says_nothing_twice(world: World) -> None:
    await unpaid(world)
    for _ in range(34):
        await days(world, 1)
        world = await world.reborn()
    kinds = await said(world)
    assert sorted(set(kinds), key=kinds.index) == [
        "dunning_due",
        "dunning_remind",
        "dunning_limit",
        "dunning_stop",
        "dunning_end",
    ]
    assert len(kinds) == 6
    assert subscription(world).status == "canceled"
