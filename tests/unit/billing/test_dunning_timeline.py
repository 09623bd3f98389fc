"""The timeline of an unpaid renewal, on the real billing code: what it takes, and the way back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from billing.credit import MAX_SPENDS
from billing.dunning import DAY_S, Action
from billing.errors import StripeUnavailable
from billing.model import RelayState
from billing.money import format_sats
from billing.promises import pause
from billing.store import dunning, operations, spends
from billing.store.spends import CreditSpend
from tests.fakes import stripe_books
from tests.fakes.stripe_books import Invoice as StripeInvoice
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
    to_renewal,
    told,
    unpaid,
    windows,
)
from tests.world import ALICE, World

WHOLE = [
    "dunning_due",
    "dunning_remind",
    "dunning_remind",
    "dunning_limit",
    "dunning_stop",
    "dunning_end",
]


async def test_k5_the_whole_timeline_and_then_nothing_is_owed_or_invoiced_any_more(
    world: World,
) -> None:
    await unpaid(world)
    states = [await state(world)]
    for _ in range(40):
        await days(world, 1)
        states.append(await state(world))
    assert await said(world) == WHOLE
    changes = [day for day in range(1, 41) if states[day] != states[day - 1]]
    assert [states[day].value for day in changes] == ["limited", "stopped", "ended"]
    assert changes == [8, 11, 31], "a full day after each that was said"
    assert subscription(world).status == "canceled"
    found = await world.invoices()
    assert found[0].status == "paid"
    assert {i.status for i in found[1:]} == {"void"}
    await days(world, 100)
    assert len(await world.invoices()) == len(found)
    assert not world.host.is_up((await world.relays())[0].id)
    assert await windows(world) == []


async def test_c19_every_message_says_what_comes_and_when_and_how_to_pay(world: World) -> None:
    await unpaid(world)
    await days(world, 1)
    text = await text_of(world, "dunning_due")
    assert f"$4.00 = about {format_sats(4_000_000)} for alice" in text
    assert "alice is limited on" in text
    assert "stopped on" in text
    assert "To pay now: " in text
    assert "promise <days>" in text
    await days(world, 1)
    facts = [facts for kind, facts in await told(world) if kind == "dunning_remind"][-1]
    said_at = next(row["at"] for row in facts["coming"] if row["action"] == "limit")
    while await state(world) is RelayState.ACTIVE:
        await world.pass_time(HOUR_S, step=HOUR_S)
    assert said_at <= world.clock.billing_now() <= said_at + DAY_S
    assert world.host.is_up((await world.relays())[0].id), "limited answers still"
    assert "Paying brings everything back" in await text_of(world, "dunning_limit")


async def test_c10_delinquency_does_not_change_the_subscription(world: World) -> None:
    await unpaid(world)
    await days(world, 20)
    assert await state(world) is RelayState.STOPPED
    sub = subscription(world)
    assert not sub.is_terminal
    assert not sub.cancel_at_period_end
    assert [item.quantity for item in sub.items] == [1]


@pytest.mark.parametrize("after_days", [2, 8, 12, 20])
@pytest.mark.parametrize("how", ["by hand", "wallet", "dashboard", "credit", "card"])
async def test_c8_paying_any_way_at_any_moment_ends_it_and_brings_back_what_it_took(
    world: World, how: str, after_days: int
) -> None:
    await unpaid(world)
    await days(world, after_days)
    before = await said(world)
    invoice = renewal(world)
    books = world.stripe.books
    match how:
        case "by hand":
            await world.accounts.pay(await world.command("pay"))
            await world.settle_down()
            request = [r for r in await world.requests() if r.state == "open"][-1]
            world.payee.settle(request.payment_hash)
        case "wallet":
            world.payer.behaviour = "pays"
            async with world.rt.unit() as unit:
                await unit.tx.execute("invoices.reset_nwc_tries", tenant=ALICE, now=unit.now)
        case "dashboard":
            books.mark_paid(invoice, off_stripe=True)
        case "credit":
            # Spent by hand in the Dashboard.
            invoice.remaining = 0
            books.mark_paid(invoice)
        case "card":
            world.stripe.set_card(invoice.customer.id, "ok")
            assert books.charge(invoice)
    await world.pass_time(5 * HOUR_S, step=600)
    assert invoice.status == "paid"
    assert await state(world) is RelayState.ACTIVE
    assert world.host.is_up((await world.relays())[0].id)
    await days(world, 3)
    assert await said(world) == before
    assert await windows(world) == []


@pytest.mark.parametrize("setting", ["cancel", "unpaid", "past_due"])
async def test_c9_the_timeline_holds_under_each_setting_for_the_last_retry(
    world: World, setting: str
) -> None:
    world.stripe.books.after_last_retry = setting  # type: ignore[assignment]
    await unpaid(world, card=True)
    states = []
    for _ in range(45):
        await days(world, 1)
        states.append((await state(world)).value)
    assert await said(world) == WHOLE
    assert [s for i, s in enumerate(states) if i == 0 or s != states[i - 1]] == [
        "active",
        "limited",
        "stopped",
        "ended",
    ]
    assert len(world.stripe.books.subscriptions) == 1
    assert subscription(world).status == "canceled"
    assert {i.status for i in (await world.invoices())[1:]} == {"void"}
    await days(world, 60)
    assert len(world.stripe.books.subscriptions) == 1


@pytest.mark.parametrize("setting", ["cancel", "unpaid", "past_due"])
async def test_c9_paying_after_the_last_retry_brings_it_back_under_each_setting(
    world: World, setting: str
) -> None:
    world.stripe.books.after_last_retry = setting  # type: ignore[assignment]
    await unpaid(world, card=True)
    await days(world, 20)
    assert await state(world) is RelayState.STOPPED
    invoice = renewal(world)
    assert subscription(world).status == {"cancel": "canceled"}.get(setting, setting)
    world.stripe.set_card(invoice.customer.id, "ok")
    assert world.stripe.books.charge(invoice)
    await world.pass_time(HOUR_S, step=600)
    assert await state(world) is RelayState.ACTIVE
    assert len(world.stripe.books.subscriptions) == 1, "nobody ordered another"
    await days(world, 35)
    if setting == "cancel":
        # Paid to the end of its period, not renewed, and told so.
        assert (await world.relays())[0].is_lapsed
        assert "is not renewed" in await text_of(world, "stopping")
        assert len(world.stripe.books.subscriptions) == 1
    else:
        assert await state(world) is RelayState.ACTIVE
        assert subscription(world).status == "active"


async def test_m13_another_order_does_not_date_what_is_owed_of_the_subscription_before(
    world: World,
) -> None:
    """The new subscription's period became the end of the old relay: it ran beyond what was paid,
    and its owner was not told when."""
    world.stripe.books.after_last_retry = "cancel"
    await unpaid(world, card=True)
    await days(world, 15)
    old, invoice = subscription(world), renewal(world)
    world.stripe.set_card(invoice.customer.id, "none")
    await order(world, "berta")
    await world.pass_time(3 * HOUR_S, step=600)
    assert len(world.stripe.books.subscriptions) == 2
    world.stripe.set_card(invoice.customer.id, "ok")
    assert world.stripe.books.charge(invoice)
    await world.pass_time(HOUR_S, step=600)
    relay = (await world.relays())[0]
    assert (relay.state, relay.stops_at) == (RelayState.ACTIVE, old.period_end)
    assert "is not renewed" in await text_of(world, "stopping")


async def test_an_invoice_that_was_sent_is_due_on_its_own_day(world: World) -> None:
    await unpaid(world)
    invoice = renewal(world)
    invoice.due_at = invoice.created_at + 14 * DAY_S
    await days(world, 13)
    assert await said(world) == []
    await days(world, 1.5)
    assert await said(world) == ["dunning_due"]
    await days(world, 5)
    assert await state(world) is RelayState.ACTIVE
    await days(world, 4)
    assert await state(world) is RelayState.LIMITED


async def test_m13_it_does_not_end_while_somebody_holds_a_request_for_it(world: World) -> None:
    await unpaid(world)
    await days(world, 30)
    while await state(world) is RelayState.STOPPED:
        (request, *_) = [r for r in await world.requests() if r.state == "open"] or [None]
        if request is None or request.expires_at - world.clock.now() < 1200:
            await world.accounts.pay(await world.command("pay"))
        await world.pass_time(600, step=600)
        if world.clock.billing_now() - renewal(world).created_at > 33 * DAY_S:
            break
    assert await state(world) is RelayState.STOPPED
    request = next(r for r in await world.requests() if r.state == "open")
    world.payee.settle(request.payment_hash)
    await world.pass_time(600, step=60)
    assert renewal(world).status == "paid"
    assert await state(world) is RelayState.STOPPED, "the next month is owed too"
    world.stripe.books.mark_paid(renewal(world, 2), off_stripe=True)
    await world.pass_time(600, step=60)
    assert await state(world) is RelayState.ACTIVE


async def test_m12_a_renewal_drawn_up_before_stripe_heard_of_the_end_is_not_collected(
    world: World,
) -> None:
    await unpaid(world)
    await days(world, 26)
    deliver, world.deliver_events = world.deliver_events, no_events  # type: ignore[method-assign]
    cancel, world.stripe.cancel_subscription = world.stripe.cancel_subscription, away  # type: ignore[method-assign]
    await days(world, 6)
    assert await state(world) is RelayState.ENDED
    assert len(await world.invoices()) == 2, "nobody has told of the third"
    world.payer.behaviour = "pays"
    sent = len(world.payer.sent)
    async with world.rt.unit() as unit:
        await unit.tx.execute("invoices.reset_nwc_tries", tenant=ALICE, now=unit.now)
    world.deliver_events = deliver  # type: ignore[method-assign]
    await days(world, 1)
    world.stripe.cancel_subscription = cancel  # type: ignore[method-assign]
    await days(world, 1)
    assert len(world.payer.sent) == sent
    assert {i.status for i in list(world.stripe.books.invoices.values())[1:]} == {"void"}
    assert subscription(world).status == "canceled"


async def test_m12_what_ended_is_taken_from_stripes_own_retries(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_books, "RETRY_DAYS", (3, 5, 7, 14, 14, 14))
    await unpaid(world, card=True)
    await days(world, 32)
    assert await state(world) is RelayState.ENDED
    world.stripe.set_card(renewal(world).customer.id, "ok")
    await days(world, 40)
    assert {i.status for i in list(world.stripe.books.invoices.values())[1:]} == {"void"}
    assert subscription(world).status == "canceled"


async def no_events() -> int:
    return 0


async def away(*args: object, **more: object) -> None:
    raise StripeUnavailable("cancel_subscription", "503")


# --- several invoices ---------------------------------------------------------------------------


async def give_time(world: World, count: int) -> None:
    """So many days more for the oldest."""
    oldest = (await windows(world))[0]
    async with world.rt.unit() as unit:
        await pause(unit, oldest, await dunning.clock(unit.tx), count * DAY_S)


async def two_unpaid(world: World) -> None:
    """Two months unpaid, since the operator gave time in the first."""
    await unpaid(world)
    await days(world, 12)
    await give_time(world, 40)
    await days(world, 22)
    assert [w.day for w in await windows(world)] == [10, None]
    await days(world, 4)
    assert await alarms(world) == [], "that the younger one waits is nobody's trouble"


async def test_c29_one_of_two_paid_does_not_clear_the_debt_of_the_other(world: World) -> None:
    await two_unpaid(world)
    books = world.stripe.books
    books.mark_paid(renewal(world, 1), off_stripe=True)
    await world.pass_time(HOUR_S, step=600)
    assert await state(world) is RelayState.STOPPED
    assert "$4.00 is still open" in await text_of(world, "dunning_rest")
    assert (await windows(world))[0].invoice_id == renewal(world, 2).id
    books.mark_paid(renewal(world, 2), off_stripe=True)
    await world.pass_time(HOUR_S, step=600)
    assert await state(world) is RelayState.ACTIVE


async def test_c29_the_newer_one_paid_first_keeps_what_the_older_took(world: World) -> None:
    await two_unpaid(world)
    books = world.stripe.books
    books.mark_paid(renewal(world, 2), off_stripe=True)
    await world.pass_time(HOUR_S, step=600)
    assert await state(world) is RelayState.STOPPED
    books.mark_paid(renewal(world, 1), off_stripe=True)
    await world.pass_time(HOUR_S, step=600)
    assert await state(world) is RelayState.ACTIVE


async def test_the_operator_may_let_relays_back_invoice_by_invoice(world: World) -> None:
    world.dunner.policy = type(world.timeline)(restore="each")
    await two_unpaid(world)
    world.stripe.books.mark_paid(renewal(world, 1), off_stripe=True)
    await world.pass_time(HOUR_S, step=600)
    assert await state(world) is RelayState.ACTIVE
    await days(world, 12)
    assert await state(world) is RelayState.STOPPED, "the other has its own timeline"


async def test_the_younger_invoice_waits_and_then_gets_its_whole_time(world: World) -> None:
    await two_unpaid(world)
    count = len(await said(world))
    world.stripe.books.mark_paid(renewal(world, 1), off_stripe=True)
    await days(world, 1)
    kinds = (await said(world))[count:]
    assert kinds == ["dunning_rest", "dunning_due"]


async def test_the_last_message_does_not_deny_what_is_owed_and_goes_on(world: World) -> None:
    """Nothing was said to be owed any more while another invoice was open."""
    await unpaid(world)
    await days(world, 5)
    world.payer.behaviour = "pays"
    await order(world, "berta")
    await world.pass_time(60, step=10)
    world.payer.behaviour = "refuses"
    await days(world, 27)
    assert [r.state.value for r in await world.relays()] == ["ended", "active"]
    text = await text_of(world, "dunning_end")
    assert "alice has ended" in text
    assert "Nothing is owed any more" not in text
    assert "Another invoice is still open" in text


async def test_m12_a_timeline_without_an_end_holds_up_no_younger_invoice(world: World) -> None:
    """The older one waited for ever, and a relay that only the younger ones carry ran for free."""
    steps = tuple(s for s in world.timeline.steps if s.action is not Action.END)
    world.dunner.policy = type(world.timeline)(steps=steps)
    await unpaid(world)
    await days(world, 15)
    assert await state(world) is RelayState.STOPPED
    world.payer.behaviour = "pays"
    await order(world, "berta")
    await world.pass_time(60, step=10)
    assert await state(world, 1) is RelayState.ACTIVE
    world.payer.behaviour = "refuses"
    await days(world, 45)
    assert await state(world, 1) is RelayState.STOPPED


async def test_m12_an_end_that_a_later_payment_keeps_away_holds_up_no_younger_invoice(
    world: World,
) -> None:
    """Who paid each newest month was never dunned for the one between, whatever else it carries."""
    await unpaid(world)
    await days(world, 12)
    await give_time(world, 40)
    world.payer.behaviour = "pays"
    await order(world, "berta")
    await world.pass_time(60, step=10)
    world.payer.behaviour = "refuses"
    await days(world, 50)
    assert [w.day for w in await windows(world)] == [10, None, None]
    newest = list(world.stripe.books.invoices.values())[-1]
    world.stripe.books.mark_paid(newest, off_stripe=True)
    await days(world, 15)
    assert [w.day for w in await windows(world)] == [10, 10]
    assert [await state(world, index) for index in range(2)] == [RelayState.STOPPED] * 2
    await days(world, 9)
    assert [w.day for w in await windows(world)] == [10, 10]


async def test_m13_cancelled_while_a_later_invoice_is_paid_it_ends_when_that_is_used_up(
    world: World,
) -> None:
    """Nothing newer ever came, so the end was kept away for good: it stayed stopped for ever, and
    its invoice open."""
    await unpaid(world)
    await days(world, 12)
    await give_time(world, 20)
    await days(world, 18)
    newest = list(world.stripe.books.invoices.values())[-1]
    assert newest.id != renewal(world).id
    world.stripe.books.mark_paid(newest, off_stripe=True)
    await days(world, 5)
    sub = subscription(world)
    world.stripe.books.cancel(sub)
    await days(world, 5)
    assert await state(world) is RelayState.STOPPED
    assert (await world.relays())[0].stops_at == sub.period_end
    assert "lapsing" in await said(world, all_of_it=True)
    await days(world, 30)
    assert await windows(world) == []
    assert (await world.relays())[0].is_lapsed
    assert renewal(world).status == "void"


# --- what it must not touch -----------------------------------------------------------------------


async def test_m12_an_unpaid_addition_touches_only_itself(world: World) -> None:
    await world.connect_wallet()
    await order(world)
    await world.pass_time(30, step=10)
    world.payer.behaviour = "refuses"
    await order(world, "second")
    await days(world, 15)
    first, second = await world.relays()
    assert first.state is RelayState.ACTIVE
    assert second.state is RelayState.ENDED
    assert await said(world) == []


async def test_c25_a_first_invoice_that_nobody_pays_expires_and_is_not_dunned(
    world: World,
) -> None:
    await order(world)
    await days(world, 10)
    assert await state(world) is RelayState.ENDED
    assert await said(world) == []
    assert await windows(world) == []
    assert not world.host.is_up((await world.relays())[0].id)


async def test_it_touches_only_the_relays_of_its_invoice(world: World) -> None:
    await unpaid(world)
    world.payer.behaviour = "pays"
    await order(world, "second")
    await world.pass_time(60, step=10)
    world.payer.behaviour = "refuses"
    await days(world, 15)
    assert await state(world, 0) is RelayState.STOPPED
    assert await state(world, 1) is RelayState.ACTIVE
    await days(world, 17)
    assert await state(world, 0) is RelayState.ENDED
    assert not subscription(world).is_terminal, "another relay is on it"


async def test_k8_nothing_is_taken_a_second_before_its_time(world: World) -> None:
    """All times are whole seconds since the epoch, in the decider and in both schemas."""
    await unpaid(world)
    await days(world, 4)
    (found,) = await windows(world)
    assert found.day == 3
    assert found.told_at is not None
    limit_at = found.told_at + 4 * DAY_S
    await world.pass_time(limit_at - world.clock.billing_now() - 1, step=HOUR_S)
    assert await state(world) is RelayState.ACTIVE
    await world.pass_time(600, step=60)
    assert await state(world) is RelayState.LIMITED


async def test_c30_an_overdue_event_after_the_payment_changes_nothing(world: World) -> None:
    await unpaid(world)
    invoice = renewal(world)
    world.stripe.books.mark_paid(invoice, off_stripe=True)
    world.stripe.books.tell("invoice.overdue", invoice)
    await days(world, 20)
    assert await state(world) is RelayState.ACTIVE
    assert await said(world) == []
    world.stripe.books.tell("invoice.overdue", invoice)
    await days(world, 1)
    assert await state(world) is RelayState.ACTIVE


async def test_c30_an_overdue_event_hastens_nothing(world: World) -> None:
    await unpaid(world)
    for _ in range(4):
        world.stripe.books.tell("invoice.overdue", renewal(world))
        await days(world, 0.25)
    assert await state(world) is RelayState.ACTIVE
    assert await said(world) == ["dunning_due"]


async def test_c14_a_failed_month_is_tried_again_by_itself(world: World) -> None:
    await unpaid(world)
    assert len(world.payer.sent) == 2
    world.payer.behaviour = "pays"
    await days(world, 2)
    assert renewal(world).status == "paid"
    assert len(world.payer.sent) == 3
    assert "dunning_limit" not in await said(world)


async def test_an_invoice_voided_by_the_operator_forgives_and_brings_back(world: World) -> None:
    await unpaid(world)
    await days(world, 12)
    assert await state(world) is RelayState.STOPPED
    for request in await world.requests():
        assert request.state != "open"
    world.stripe.books.void(renewal(world))
    await world.pass_time(HOUR_S, step=600)
    assert await state(world) is RelayState.ACTIVE
    assert await windows(world) == []


async def test_written_off_at_stripe_it_still_lapses(world: World) -> None:
    await unpaid(world)
    renewal(world).status = "uncollectible"
    world.stripe.books.tell("invoice.marked_uncollectible", renewal(world))
    await days(world, 12)
    assert await state(world) is RelayState.STOPPED


async def test_the_next_month_of_a_payer_is_a_story_of_its_own(world: World) -> None:
    await unpaid(world)
    await days(world, 8)
    world.stripe.books.mark_paid(renewal(world), off_stripe=True)
    await world.pass_time(HOUR_S, step=600)
    await to_renewal(world)
    await days(world, 1)
    assert await state(world) is RelayState.ACTIVE
    assert (await said(world))[-1] == "dunning_due"
    assert not [text for text in await alarms(world) if "dunning" in text.lower()]


@pytest.mark.parametrize("why", ["other currency", "refused too often", "written off"])
async def test_credit_that_collection_never_spends_holds_nothing_up(world: World, why: str) -> None:
    """Else it is waited for for ever, and operators hear of it after three days."""
    await unpaid(world)
    invoice = renewal(world)
    invoice.customer.balance_minor = -400
    match why:
        case "other currency":
            invoice.customer.currency = "eur"
        case "written off":
            invoice.status = "uncollectible"
        case "refused too often":
            for _ in range(MAX_SPENDS):
                await _refused_spend(world, invoice)
    await days(world, 9)
    assert await state(world) is RelayState.LIMITED
    assert invoice.remaining == 400
    assert await alarms(world) == []


async def test_m13_credit_that_covers_it_holds_the_timeline_up(world: World) -> None:
    await unpaid(world)
    await days(world, 2)
    renewal(world).customer.balance_minor = -400
    (owed,) = await windows(world)
    evidence = await world.dunner.investigator.ask(owed)
    assert evidence.credit_minor == 400


async def _refused_spend(world: World, invoice: StripeInvoice) -> None:
    async with world.rt.unit() as unit:
        spend = CreditSpend(
            await spends.new_id(unit.tx, invoice.id),
            invoice.id,
            ALICE,
            invoice.customer.id,
            400,
            "usd",
            0,
            "prepared",
            unit.now,
            None,
        )
        await spends.intend(unit, spend)
        await operations.finish(unit.tx, spend.id, "returned", now=unit.now)
        await spends.move(unit.tx, spend, "returning", return_minor=0)
        await spends.move(unit.tx, replace(spend, state="returning"), "returned", ended_at=unit.now)
