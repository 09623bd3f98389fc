"""What each Stripe event leads to, and what becomes of one that cannot be acted on (M14)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from billing.errors import StripeRejected, StripeUnavailable
from billing.events import BACK_OFF_S, OUTAGE_GIVE_UP_S, WAIT_S, next_failure_at
from billing.handlers import EVENT_TYPES
from billing.ingest import InboxRow, columns
from billing.ledger import LedgerRow
from billing.model import Activity, InboxEvent
from billing.retention import BATCH, Retention
from billing.store import ledger, tenants
from bot.control import ControlRefused
from bot.control_events import EventControl
from tests.books import check_all, check_ledger
from tests.world import ALICE, OPERATOR, World

DAY_S = 86_400
WEBHOOKS_OF_THE_ISSUE = {
    "invoice.created",
    "invoice.finalized",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.overdue",
    "invoice.voided",
    "invoice.marked_uncollectible",
    "invoice.finalization_failed",
    "invoice.upcoming",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.trial_will_end",
    "customer.deleted",
    "payment_method.attached",
    "payment_method.detached",
    "checkout.session.completed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "credit_note.created",
    "credit_note.voided",
}


async def put(world: World, kind: str, body: dict[str, Any], **changes: Any) -> str:
    """An event as the webhook would have stored it; returns its id."""
    count = len(await world.all(InboxEvent, "events.newest", count=10_000))
    event_id = f"evt_put_{count}"
    row = InboxRow(
        event_id=event_id,
        type=kind,
        object_id=body.get("id"),
        api_created=world.clock.now(),
        livemode=False,
        account=None,
        payload=json.dumps({"id": event_id, "type": kind, "data": {"object": body}}),
        received_at=world.clock.now(),
    )
    async with world.engine.transaction() as tx:
        await tx.execute("ingest.insert_event", **columns(replace(row, **changes)))
    return event_id


async def event(world: World, event_id: str) -> InboxEvent:
    (found,) = await world.all(InboxEvent, "events.get", event_id=event_id)
    assert isinstance(found, InboxEvent)
    return found


async def alarms(world: World) -> list[str]:
    return [str(facts["what"]) for _, facts in await world.messages(OPERATOR)]


async def paid_tenant(world: World) -> Any:
    """Alice with a relay that is paid; returns her customer at Stripe."""
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.pass_time(120, step=30)
    (customer,) = world.stripe.books.customers.values()
    return customer


def test_every_event_of_the_list_has_a_handler() -> None:
    assert set(EVENT_TYPES) >= WEBHOOKS_OF_THE_ISSUE


# --- failures, dead letters ----------------------------------------------------------------------


def some_event(attempts: int) -> InboxEvent:
    return InboxEvent(
        "evt", "invoice.paid", "in_1", 0, False, None, "{}", 1000, None, "new", attempts, 0, None
    )


def test_an_event_is_tried_for_three_days_and_is_then_a_dead_letter() -> None:
    error = StripeRejected("in_1", "no", status=400, code=None, request_id=None)
    at, attempts = 1000, 0
    while (following := next_failure_at(some_event(attempts), error, at)) is not None:
        assert following > at
        at, attempts = following, attempts + 1
    assert attempts == len(BACK_OFF_S)
    assert 2.5 * DAY_S < at - 1000 < 3.5 * DAY_S


def test_an_outage_of_stripe_makes_no_dead_letters() -> None:
    away, worn_out = StripeUnavailable("in_1", "no answer"), some_event(len(BACK_OFF_S) + 8)
    assert next_failure_at(worn_out, away, 1000 + 7 * DAY_S) is not None
    assert next_failure_at(worn_out, away, 1000 + OUTAGE_GIVE_UP_S) is None


async def test_a_dead_letter_is_told_once_and_can_be_replayed(world: World) -> None:
    """K1: the effect and `handled_at` commit together, so a failure loses neither."""
    await paid_tenant(world)
    (invoice,) = world.stripe.books.invoices.values()
    invoice.status = "void"  # What only this event will tell us.

    def refuse(name: str, arguments: Any) -> None:
        if name == "invoice":
            raise StripeRejected("in_1", "broken", status=400, code=None, request_id=None)

    event_id = await put(world, "invoice.voided", {"id": invoice.id, "customer": "cus"})
    world.stripe.before = refuse
    for _ in range(len(BACK_OFF_S) + 1):
        await world.events.run_once(world.clock.now())
        world.clock.advance(DAY_S)
    failed = await event(world, event_id)
    assert (failed.state, failed.next_try_at, failed.handled_at) == ("failed", None, None)
    assert failed.error == "in_1: broken"
    (told,) = [what for what in await alarms(world) if event_id in what]
    assert f"purser events replay {event_id}" in told
    assert [e.event_id for e in await world.all(InboxEvent, "events.failed_ones", count=9)] == [
        event_id
    ]
    world.stripe.before = lambda name, arguments: None
    control = EventControl(world.rt)
    assert await control.replay([event_id], since=None, only_failed=True) == {"events": 1}
    await world.events.run_once(world.clock.now())
    assert (await event(world, event_id)).state == "handled"


async def test_a_bug_in_one_handler_does_not_hold_up_the_other_events(world: World) -> None:
    await paid_tenant(world)
    (invoice,) = world.stripe.books.invoices.values()
    # A shape that no event of Stripe's has: the handler's own assertion fails.
    bad = await put(world, "invoice.upcoming", {"id": "in_x"}, payload='{"data": {"object": 7}}')
    good = await put(world, "invoice.paid", {"id": invoice.id})
    with pytest.raises(AttributeError):
        await world.events.run_once(world.clock.now())
    assert (await event(world, good)).state == "handled"
    waiting = await event(world, bad)
    assert (waiting.state, waiting.attempts, waiting.error) == ("new", 1, "bug: AttributeError")
    assert waiting.next_try_at == world.clock.now() + BACK_OFF_S[0]


# --- waiting its turn ----------------------------------------------------------------------------


async def test_an_event_whose_tenant_is_not_here_yet_waits_its_turn(world: World) -> None:
    """C16: the order of events means nothing; what comes too early is not thrown away."""
    customer = await world.stripe.create_customer("op_1", pubkey=ALICE, name="a", email=None)
    event_id = await put(world, "customer.updated", {"id": customer.id})
    await world.events.run_once(world.clock.now())
    waiting = await event(world, event_id)
    assert (waiting.state, waiting.attempts) == ("new", 1)
    assert waiting.error == "waits: its tenant is not here yet"
    async with world.rt.unit() as unit:
        await world.desk.ensure_tenant(unit, await world.command("new", ALICE, unit.tx))
    world.clock.advance(WAIT_S[0])
    await world.events.run_once(world.clock.now())
    assert (await event(world, event_id)).state == "handled"
    async with world.rt.unit() as unit:
        tenant = await tenants.get(unit.tx, ALICE)
    assert tenant is not None
    assert tenant.customer_id == customer.id


async def test_an_outage_does_not_use_up_the_turns_of_an_event_that_waits(world: World) -> None:
    """After an hour without Stripe it was ignored at its first look at what is not here yet."""
    customer = await world.stripe.create_customer("op_1", pubkey=ALICE, name="a", email=None)
    event_id = await put(world, "customer.updated", {"id": customer.id})

    def away(name: str, arguments: Any) -> None:
        raise StripeUnavailable(name, "503")

    world.stripe.before = away
    for _ in range(len(WAIT_S) + 1):
        await world.events.run_once(world.clock.now())
        world.clock.advance(BACK_OFF_S[-1])
    world.stripe.before = lambda name, arguments: None
    await world.events.run_once(world.clock.now())
    waiting = await event(world, event_id)
    assert (waiting.state, waiting.attempts) == ("new", 1)
    assert waiting.error == "waits: its tenant is not here yet"


async def test_one_that_waits_in_vain_is_ignored_with_its_reason(world: World) -> None:
    customer = await world.stripe.create_customer("op_1", pubkey="ee" * 32, name="e", email=None)
    event_id = await put(world, "customer.updated", {"id": customer.id})
    for _ in range(len(WAIT_S) + 1):
        assert (await event(world, event_id)).state == "new"
        await world.events.run_once(world.clock.now())
        world.clock.advance(3600)
    ended = await event(world, event_id)
    assert (ended.state, ended.error) == ("ignored", "its tenant is not here yet")
    assert await alarms(world) == []


# --- strangers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"livemode": True}, "of the other mode (live or test)"),
        ({"account": "acct_other"}, "of another account (acct_other)"),
    ],
)
async def test_livemode_and_account_are_checked_and_told_once(
    world: World, changes: dict[str, Any], why: str
) -> None:
    await paid_tenant(world)
    (invoice,) = world.stripe.books.invoices.values()
    await world.settle_down()
    calls = len(world.stripe.calls)
    first = await put(world, "invoice.paid", {"id": invoice.id}, **changes)
    second = await put(world, "invoice.paid", {"id": invoice.id}, **changes)
    await world.events.run_once(world.clock.now())
    for event_id in (first, second):
        ignored = await event(world, event_id)
        assert (ignored.state, ignored.error) == ("ignored", why)
    assert len(world.stripe.calls) == calls, "nothing was even looked up"
    (told,) = [what for what in await alarms(world) if why in what]
    assert first in told or second in told


async def test_an_event_of_the_account_that_is_ours_is_acted_on(world: World) -> None:
    await paid_tenant(world)
    (invoice,) = world.stripe.books.invoices.values()
    world.events.account = "acct_mine"
    event_id = await put(world, "invoice.paid", {"id": invoice.id}, account="acct_mine")
    await world.events.run_once(world.clock.now())
    assert (await event(world, event_id)).state == "handled"


async def test_an_unknown_type_is_recorded_and_ignored(world: World) -> None:
    event_id = await put(world, "radar.early_fraud_warning.created", {"id": "issfr_1"})
    await world.events.run_once(world.clock.now())
    ignored = await event(world, event_id)
    assert (ignored.state, ignored.error) == ("ignored", "no handler for this type")


# --- replay --------------------------------------------------------------------------------------


async def test_m14_replaying_everything_does_nothing_twice(world: World) -> None:
    """K3: webhook, catch-up and replay are one handler; C30: overdue after payment is nothing."""
    await paid_tenant(world)
    (invoice,) = world.stripe.books.invoices.values()
    world.stripe.books.tell("invoice.overdue", invoice)
    await world.settle_down()
    messages, calls = await world.messages(), len(world.stripe.calls)
    control = EventControl(world.rt)
    done = await control.replay([], since=0, only_failed=False)
    assert done["events"] == len(await world.all(InboxEvent, "events.newest", count=1000)) > 5
    await world.settle_down()
    assert await world.messages() == messages
    writes = {"pay_out_of_band", "create_subscription", "annotate_invoice", "credit_customer"}
    assert not writes & {name for name, _ in world.stripe.calls[calls:]}
    assert all(e.state != "new" for e in await world.all(InboxEvent, "events.newest", count=1000))
    await check_all(world)


async def test_what_cannot_be_replayed_is_refused(world: World) -> None:
    await paid_tenant(world)
    control = EventControl(world.rt)
    newest = (await world.all(InboxEvent, "events.newest", count=1))[0]
    with pytest.raises(ControlRefused, match="no event evt_nothing here"):
        await control.replay(["evt_nothing"], since=None, only_failed=False)
    with pytest.raises(ControlRefused, match="has not failed"):
        await control.replay([newest.event_id], since=None, only_failed=True)
    with pytest.raises(ControlRefused, match="name up to"):
        await control.replay([newest.event_id], since=0, only_failed=False)
    assert await control.replay([], since=0, only_failed=True) == {"events": 0}


# --- retention -----------------------------------------------------------------------------------


async def test_retention_forgets_what_is_done_and_never_what_waits_or_failed(world: World) -> None:
    await paid_tenant(world)
    await world.settle_down()
    for number in range(BATCH + 7):
        await put(world, "ping", {"id": f"x{number}"}, event_id=f"evt_ping_{number}")
    while await world.events.run_once(world.clock.now()):
        pass
    waiting = await put(world, "ping", {"id": "a"})
    failed = await put(world, "ping", {"id": "b"})
    async with world.engine.transaction() as tx:
        await tx.execute(
            "events.failed", event_id=failed, next_at=None, error="broken", state="failed"
        )
        await tx.execute(
            "ingest.insert_rejection",
            at=world.clock.now(),
            reason="no_signature",
            remote="192.0.2.1",
            headers={},
            body_bytes=2,
        )
    retention = Retention(world.rt, keep_handled_days=90, keep_rejected_days=7)
    assert await retention.run_once(world.clock.now()) == 0
    assert await retention.run_once(world.clock.now() + 8 * DAY_S) == 1
    gone = await retention.run_once(world.clock.now() + 91 * DAY_S)
    assert gone > BATCH, "in batches, yet to the end"
    left = {e.event_id for e in await world.all(InboxEvent, "events.newest", count=10_000)}
    assert left == {waiting, failed}


# --- what single events lead to ------------------------------------------------------------------


async def test_c5_a_draft_that_cannot_be_finalized_is_told_and_nothing_is_charged(
    world: World,
) -> None:
    """C5: a draft is no open invoice; nobody is asked to pay it."""
    customer = await paid_tenant(world)
    books = world.stripe.books
    (sub,) = books.subscriptions.values()
    draft = books.draft(customer, sub, [400], "manual", False)
    sent = len(world.payer.sent)

    def stuck(name: str, arguments: Any) -> None:
        if name == "finalize_invoice":
            raise StripeRejected(draft.id, "no tax", status=400, code=None, request_id=None)

    world.stripe.before = stuck
    books.tell("invoice.finalization_failed", draft)
    books.tell("invoice.finalization_failed", draft)
    await world.pass_time(3600)
    (told,) = [what for what in await alarms(world) if draft.id in what]
    assert "cannot finalize" in told
    assert "$4.00" in told
    assert len(world.payer.sent) == sent
    world.stripe.before = lambda name, arguments: None
    await world.pass_time(3600)
    assert books.invoices[draft.id].status == "paid"


async def test_an_upcoming_invoice_has_the_subscription_compared_first(world: World) -> None:
    customer = await paid_tenant(world)
    (sub,) = world.stripe.books.subscriptions.values()
    sub.items[0].quantity = 7  # By hand, in the Dashboard, and its event was lost.
    await put(world, "invoice.upcoming", {"customer": customer.id})
    await world.settle_down()
    assert sub.items[0].quantity == 1


async def test_the_end_of_a_trial_is_told_once(world: World) -> None:
    await paid_tenant(world)
    books = world.stripe.books
    (sub,) = books.subscriptions.values()
    sub.status = "trialing"
    for _ in range(2):
        books.tell("customer.subscription.trial_will_end", sub)
        await world.settle_down()
    told = [facts for kind, facts in await world.messages() if kind == "trial_ends"]
    assert told == [{"ends_at": sub.period_end}]


# --- a deleted customer --------------------------------------------------------------------------


async def test_m9_a_deleted_customer_loses_no_money_and_is_charged_no_more(world: World) -> None:
    customer = await paid_tenant(world)
    books = world.stripe.books
    async with world.rt.unit() as unit:
        relay = (await tenants.relays_of(unit.tx, ALICE))[0]
    # Credit she has: money that came twice.
    await world.stripe.credit_customer(
        "op_gift", customer_id=customer.id, amount_minor=250, currency="usd", description="x"
    )
    async with world.rt.unit() as unit:
        await ledger.post_credit(unit, "op_gift", ALICE, 250, "usd")
    (sub,) = books.subscriptions.values()
    paid_until = sub.period_end
    books.cancel(sub)
    customer.deleted = True
    books.tell("customer.deleted", customer)
    books.tell("customer.deleted", customer)
    await world.settle_down()
    async with world.rt.unit() as unit:
        tenant = await tenants.get(unit.tx, ALICE)
        after = await tenants.relay(unit.tx, relay.id)
    assert tenant is not None
    assert after is not None
    assert (tenant.customer_id, tenant.subscription_id) == (None, None)
    assert (after.state, after.stops_at) == ("active", paid_until), "M13: paid is paid"
    (told,) = [what for what in await alarms(world) if "was deleted at Stripe" in what]
    assert "$2.50" in told
    owed = await world.all(LedgerRow, "ledger.between", since=0, until=1 << 62)
    assert [(r.debit, r.credit, r.amount) for r in owed if r.kind == "customer_gone"] == [
        ("credit", "liability", 250)
    ]
    kinds = [kind for kind, _ in await world.messages()]
    assert kinds.count("account_closed") == 1
    await check_ledger(world)
    # The next order makes a new customer.
    await world.pass_time(paid_until - world.clock.billing_now() + 60, step=DAY_S)
    await world.orders.new(await world.command("new"), "again", "basic")
    await world.pass_time(300, step=60)
    assert len(books.customers) == 2
    (new_relay,) = [r for r in await world.relays() if r.name == "again"]
    assert new_relay.state == "active"


@pytest.mark.parametrize("seen", ["gone", "not yet over"])
async def test_c9_a_deleted_customers_tenant_is_not_charged_again_unasked(
    world: World, seen: str
) -> None:
    """What Stripe says of the subscription at that moment is not documented: another customer and
    another subscription were made at once, and the wallet paid for the same month again."""
    customer = await paid_tenant(world)
    books = world.stripe.books
    (sub,) = books.subscriptions.values()
    customer.deleted = True
    if seen == "gone":
        books.subscriptions.clear()
    books.tell("customer.deleted", customer)
    await world.settle_down()
    (relay,) = await world.relays()
    assert (relay.state, relay.stops_at) == ("active", sub.period_end), "M13: paid is paid"
    assert len(books.customers) == 1
    assert len(await world.invoices()) == 1


@pytest.mark.parametrize("when", ["before the money", "between money and credit"])
async def test_m9_money_for_a_deleted_customers_invoice_is_a_liability(
    world: World, when: str
) -> None:
    """It was shown to a person, who gave the order up and pays it all the same."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    books = world.stripe.books
    (customer,) = books.customers.values()
    (sub,), (invoice,) = books.subscriptions.values(), books.invoices.values()
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    books.cancel(sub)
    books.void(invoice)
    await world.settle_down()
    (request,) = await world.requests()

    def away(name: str, arguments: Any) -> None:
        if name == "credit_customer":
            raise StripeUnavailable("cus", "no answer")

    world.stripe.before = away
    if when != "before the money":
        world.payee.settle(request.payment_hash)
        await world.pass_time(120, step=60)
        assert (await world.settlements())[0].state == "credited"
    customer.deleted = True
    books.tell("customer.deleted", customer)
    await world.settle_down()
    if when == "before the money":
        world.payee.settle(request.payment_hash)
    await world.pass_time(3600, step=300)
    (money,) = await world.settlements()
    assert (money.state, money.next_try_at) == ("liability", None)
    assert any("refund them by hand" in what for what in await alarms(world))
    await check_ledger(world)


async def test_an_open_invoice_of_a_deleted_customer_is_voided_once_nobody_can_pay_it(
    world: World,
) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    books = world.stripe.books
    (customer,) = books.customers.values()
    (sub,), (invoice,) = books.subscriptions.values(), books.invoices.values()
    books.cancel(sub)
    customer.deleted = True
    books.tell("customer.deleted", customer)
    await world.settle_down()
    assert invoice.status == "open", "its payment request can still be paid"
    await world.pass_time(3 * 3600)
    assert invoice.status == "void"


async def test_a_customer_that_is_there_is_not_forgotten(world: World) -> None:
    """A replayed or forged event changes nothing: the object is fetched again."""
    customer = await paid_tenant(world)
    world.stripe.books.tell("customer.deleted", customer)
    await world.settle_down()
    async with world.rt.unit() as unit:
        tenant = await tenants.get(unit.tx, ALICE)
    assert tenant is not None
    assert tenant.customer_id == customer.id
    lines = await world.all(Activity, "activity.after", seq=0, count=10_000)
    assert not [line for line in lines if line.kind == "customer.deleted"]


# --- defects of systems like this one ------------------------------------------------------------


async def test_k1_c7_effect_message_and_handled_at_commit_together_or_not_at_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K1, C7: neither is the effect lost in a crash between, nor the message, nor said twice."""
    await paid_tenant(world)
    books = world.stripe.books
    (sub,) = books.subscriptions.values()
    sub.status = "trialing"
    books.tell("customer.subscription.trial_will_end", sub)
    await world.deliver_events()
    newest = max(await world.all(InboxEvent, "events.newest", count=100), key=lambda e: e.event_id)

    async def killed(*args: Any, **kwargs: Any) -> None:
        raise StripeUnavailable("tenant", "the last write of the effect fails")

    with monkeypatch.context() as patch:
        # After the message was queued, in the same transaction.
        patch.setattr(tenants, "want_sync", killed)
        await world.events.run_once(world.clock.now())
    assert "trial_ends" not in [kind for kind, _ in await world.messages()]
    assert (await event(world, newest.event_id)).handled_at is None
    world.clock.advance(60)
    await world.settle_down()
    books.tell("customer.subscription.trial_will_end", sub)
    await world.settle_down()
    assert [kind for kind, _ in await world.messages()].count("trial_ends") == 1


async def test_c16_a_late_event_of_an_old_subscription_changes_nothing(world: World) -> None:
    """C16: ids are compared, and the state is the object's, not the payload's or the order's."""
    await paid_tenant(world)
    books = world.stripe.books
    (old,) = books.subscriptions.values()
    books.cancel(old)
    await world.pass_time(old.period_end - world.clock.billing_now() + 60, step=DAY_S)
    await world.orders.new(await world.command("new"), "again", "basic")
    await world.pass_time(300, step=60)
    async with world.rt.unit() as unit:
        before = await tenants.get(unit.tx, ALICE)
    assert before is not None
    assert before.subscription_id not in (None, old.id)
    messages = await world.messages()
    for kind in ("deleted", "updated", "created", "deleted"):
        books.tell(f"customer.subscription.{kind}", old)
    await world.settle_down()
    async with world.rt.unit() as unit:
        after = await tenants.get(unit.tx, ALICE)
    assert after is not None
    assert (after.subscription_id, after.subscription_status) == (
        before.subscription_id,
        before.subscription_status,
    )
    assert await world.messages() == messages
    (relay,) = [r for r in await world.relays() if r.name == "again"]
    assert relay.state == "active"


async def test_k3_what_polling_finds_ends_where_webhooks_end(make_world: Any) -> None:
    """K3: a payment and a cancellation, once told by events, once found by reconcile alone."""
    ends = []
    for is_told in (True, False):
        world: World = await make_world()
        await world.orders.new(await world.command("new"), "alice", "basic")
        await world.settle_down()
        books = world.stripe.books
        (invoice,), (sub,) = books.invoices.values(), books.subscriptions.values()

        async def look(world: World = world, is_told: bool = is_told) -> None:
            if not is_told:
                world.stripe.books.events.clear()
                await world.reconciler.run_once(world.clock.now())
            world.clock.advance(60)
            await world.settle_down()

        # An operator marks it paid by hand, later cancels the subscription.
        books.mark_paid(invoice, off_stripe=True)
        await look()
        (up,) = await world.relays()
        books.cancel(sub)
        await look()
        (relay,) = await world.relays()
        kinds = sorted(kind for kind, _ in await world.messages())
        paid = [(i.status, i.paid_by) for i in await world.invoices()]
        ends.append((up.state, relay.state, relay.stops_at, paid, kinds))
    assert ends[0] == ends[1]
    assert ends[0][0] == "active"
