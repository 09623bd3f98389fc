"""The operator's word on a timeline, what `status` says, and many tenants that fail at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from billing.dunning import DAY_S, Action
from billing.mass_failure import is_mass_failure
from billing.model import Invoice, Rail, RelayState
from billing.store import dunning
from bot import queries_dunning
from bot.build import Core
from bot.control import ControlRefused
from bot.control_local import LocalOperator
from bot.dm.texts import render
from tests.unit.billing.dunned import (
    alarms,
    days,
    order,
    renewal,
    said,
    state,
    subscription,
    text_of,
    told,
    unpaid,
    windows,
)
from tests.world import ALICE, World


def operator_of(world: World) -> LocalOperator:
    core = SimpleNamespace(rt=world.rt, clock=world.clock)
    return LocalOperator(cast(Core, core), world.reconciler)


async def change(world: World, what: str, **more: Any) -> dict[str, Any]:
    given = {"invoice": renewal(world).id, "days": None, "reason": "asked on the phone"} | more
    return await operator_of(world).dunning(what, **given)


async def listed(world: World) -> list[dict[str, Any]]:
    async with world.engine.transaction() as tx:
        return await queries_dunning.windows(tx, world.timeline, world.clock.now())


async def test_an_operator_pauses_and_resumes_and_nothing_comes_sooner_than_was_said(
    world: World,
) -> None:
    await unpaid(world)
    await days(world, 5)
    await change(world, "pause", days=10)
    (row,) = await listed(world)
    assert row["paused_days"] == 10
    assert row["next"] == "limit"
    await days(world, 8)
    assert await state(world) is RelayState.ACTIVE
    await change(world, "resume")
    await days(world, 2)
    assert await state(world) is RelayState.ACTIVE
    await days(world, 2)
    assert await state(world) is RelayState.LIMITED
    with pytest.raises(ControlRefused, match="not paused"):
        await change(world, "resume")


async def test_a_promise_takes_nothing_from_what_an_operator_gave(world: World) -> None:
    """Three promised days took the place of thirty given ones: it was limited weeks too soon."""
    await unpaid(world)
    await days(world, 5)
    await change(world, "pause", days=30)
    await world.promises.promise(await world.command("promise"), "3")
    (row,) = await listed(world)
    assert row["paused_days"] == 33
    await days(world, 32)
    assert await state(world) is RelayState.ACTIVE
    await days(world, 5)
    assert await state(world) is RelayState.LIMITED


async def test_a_promise_and_status_are_of_the_invoice_whose_turn_it_is(world: World) -> None:
    """Without an end the oldest stays open when it is over for good: its pause answered "promised"
    while the younger one went on, and its one promise was the tenant's last."""
    steps = tuple(s for s in world.timeline.steps if s.action is not Action.END)
    policy = type(world.timeline)(steps=steps)
    world.dunner.policy = world.accounts.policy = world.promises.policy = policy
    await unpaid(world)
    await world.promises.promise(await world.command("promise"), "1")
    await days(world, 20)
    assert await state(world) is RelayState.STOPPED
    world.payer.behaviour = "pays"
    await order(world, "berta")
    await world.pass_time(60, step=10)
    world.payer.behaviour = "refuses"
    await days(world, 15)
    assert [w.day for w in await windows(world)] == [10, 3]
    await world.promises.promise(await world.command("promise"), "5")
    await world.accounts.status(await world.command("status"))
    assert [w.pause_s // DAY_S for w in await windows(world)] == [0, 5]
    (*_, promised, status) = await world.messages(ALICE)
    assert promised[0] == "promised"
    assert [row["action"] for row in status[1]["coming"]] == ["limit", "stop"]
    await days(world, 5)
    assert await state(world, 1) is RelayState.ACTIVE
    await days(world, 6)
    assert await state(world, 1) is RelayState.STOPPED


async def test_an_end_that_a_later_payment_keeps_away_is_told_for_when_that_is_used_up(
    world: World,
) -> None:
    """Its day was long past: `status` and `purser dunning` said that it ends at this moment."""
    await unpaid(world)
    await days(world, 12)
    await change(world, "pause", days=15)
    await days(world, 18)
    newest = list(world.stripe.books.invoices.values())[-1]
    assert newest.id != renewal(world).id
    world.stripe.books.mark_paid(newest, off_stripe=True)
    await days(world, 20)
    (row,) = await listed(world)
    assert row["waits_for"] == "a later invoice for it is paid"
    used_up_at = subscription(world).period_end
    assert (row["next"], row["next_at"]) == ("end", used_up_at)
    await world.accounts.status(await world.command("status"))
    assert (await told(world))[-1][1]["coming"] == [{"action": "end", "at": used_up_at}]


async def test_an_operator_may_count_a_message_as_delivered(world: World) -> None:
    await unpaid(world)
    await days(world, 6)
    with pytest.raises(ControlRefused, match="was delivered"):
        await change(world, "proceed")
    world.courier.down = True
    await days(world, 8)
    assert (await listed(world))[0]["told"] is False
    await change(world, "proceed")
    await days(world, 3.5)
    assert await state(world) is RelayState.STOPPED


@pytest.mark.parametrize(
    ("what", "more", "why"),
    [
        ("pause", {"days": None}, "--days"),
        ("pause", {"days": 400}, "--days"),
        ("pause", {"invoice": "in_nothing", "days": 3}, "not dunned"),
        ("pause", {"invoice": None, "days": 3}, "name an invoice"),
        ("resume", {"invoice": None}, "nothing is paused"),
        ("resume", {"reason": "  "}, "a reason"),
        ("hurry", {}, "say pause"),
    ],
)
async def test_what_an_operator_may_not(
    world: World, what: str, more: dict[str, Any], why: str
) -> None:
    await unpaid(world)
    with pytest.raises(ControlRefused, match=why):
        await change(world, what, **more)


async def test_what_is_over_takes_no_word(world: World) -> None:
    await unpaid(world)
    await days(world, 1)
    world.stripe.books.mark_paid(renewal(world), off_stripe=True)
    await days(world, 1)
    with pytest.raises(ControlRefused, match="is over: paid"):
        await change(world, "pause", days=3)
    assert await listed(world) == []


async def test_status_says_what_comes_next_and_when(world: World) -> None:
    await unpaid(world)
    await days(world, 6)
    await world.accounts.status(await world.command("status"))
    text = await text_of(world, "status")
    assert "If nothing is paid: alice is limited on" in text
    (row,) = await listed(world)
    facts = [facts for kind, facts in await told(world) if kind == "status"][-1]
    assert facts["coming"][0] == {"action": "limit", "at": row["next_at"]}
    world.stripe.books.mark_paid(renewal(world), off_stripe=True)
    await days(world, 1)
    await world.accounts.status(await world.command("status"))
    assert "If nothing" not in await text_of(world, "status")


# --- many at once ---------------------------------------------------------------------------------


def test_many_and_half_of_those_tried() -> None:
    assert is_mass_failure(5, 10, 5)
    assert not is_mass_failure(4, 4, 5)
    assert not is_mass_failure(5, 11, 5)


async def many(world: World, count: int = 6) -> list[str]:
    """Tenants with a wallet and a paid relay each, whose renewals come on one day."""
    found = [f"{index:02d}" * 32 for index in range(1, count + 1)]
    for index, tenant in enumerate(found):
        await world.connect_wallet(tenant)
        await world.orders.new(await world.command("new", tenant), f"relay{index}", "basic")
    await world.settle_down()
    await world.pass_time(60, step=10)
    return found


async def to_the_turn(world: World) -> None:
    left = subscription(world).period_end - world.clock.billing_now()
    await world.pass_time(left - 600, step=6 * 3600)
    await world.pass_time(1800, step=300)


async def test_failures_of_many_within_an_hour_pause_wallets_and_dunning_and_page_once(
    world: World,
) -> None:
    tenants = await many(world)
    world.payer.answers = False
    await to_the_turn(world)
    async with world.rt.unit() as unit:
        clock = await dunning.clock(unit.tx)
    assert clock.paused_why == "6 of 6 tenants failed within an hour"
    assert len([text for text in await alarms(world) if "6 of 6 tenants" in text]) == 1
    elapsed, probes = clock.elapsed_s, world.payer.probes
    await world.pass_time(1200, step=300)
    async with world.rt.unit() as unit:
        assert (await dunning.clock(unit.tx)).elapsed_s == elapsed
    assert world.payer.probes == probes
    # By itself, an hour after it began; and then they are tried anew.
    world.payer.answers = True
    await world.pass_time(3 * 3600, step=300)
    async with world.rt.unit() as unit:
        assert (await dunning.clock(unit.tx)).paused_at is None
    paid = [
        invoice.status
        for tenant in tenants
        for invoice in await world.all(Invoice, "invoices.of_tenant", tenant=tenant)
    ]
    assert paid == ["paid"] * 12
    assert [text for text in await alarms(world) if "go on by themselves" in text]


async def test_an_operator_may_end_the_pause_for_all(world: World) -> None:
    await many(world)
    world.payer.answers = False
    await to_the_turn(world)
    world.payer.answers = True
    done = await change(world, "resume", invoice=None)
    assert done["tenants_tried_anew"] == 6
    await world.pass_time(2 * 3600, step=300)
    assert all(i.status == "paid" for i in world.stripe.books.invoices.values())


async def test_an_operators_word_that_it_is_them_holds_for_a_day(world: World) -> None:
    """Else the same dead wallets pause everybody again a minute later, for ever."""
    await many(world)
    world.payer.answers = False
    await to_the_turn(world)
    await change(world, "resume", invoice=None)
    probes = world.payer.probes
    # What they were shown meanwhile dies first, then they are tried anew, and fail again.
    for _ in range(18):
        await world.pass_time(600, step=300)
        async with world.rt.unit() as unit:
            assert (await dunning.clock(unit.tx)).paused_at is None
    assert world.payer.probes > probes


async def test_wallets_that_hold_too_little_are_no_failure_of_ours(world: World) -> None:
    await many(world)
    world.payer.behaviour = "refuses"
    await to_the_turn(world)
    async with world.rt.unit() as unit:
        assert (await dunning.clock(unit.tx)).paused_at is None
    await days(world, 9)
    assert [render("operator_alarm", {"what": text}) for text in await alarms(world)] == []
    assert await windows(world)
    assert await said(world) == []


async def test_a_message_offers_the_ways_there_are(world: World) -> None:
    await unpaid(world)
    await days(world, 1)
    text = await text_of(world, "dunning_due")
    assert "To pay now: say pay for a Lightning invoice, or say card to leave a card." in text
    assert "wallet <nwc uri>" not in text, "one is connected"
    world.dunner.rails = (Rail.CARD,)
    await days(world, 1)
    assert "To pay now: say card to leave a card." in await text_of(world, "dunning_remind")
    world.dunner.rails = tuple(Rail)
    renewal(world).status = "uncollectible"
    world.stripe.books.tell("invoice.marked_uncollectible", renewal(world))
    await days(world, 2)
    assert "ask the operator how" in await text_of(world, "dunning_remind")
