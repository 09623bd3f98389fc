"""The real gateway (SDK against the embedded Stripe) and its fake keep one contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import httpx
import pytest

from billing.audit import StripeBooks
from billing.errors import CardDeclined, StripeMissing, StripeRejected, StripeUnavailable
from billing.ports import StripeGateway
from billing.stripe_gateway import StripeSdkGateway
from billing.views import InvoiceView, ItemChange, SubscriptionView
from bot.clock import SystemIds
from bot.sandbox.stripe import EmbeddedStripe
from tests.fakes.clock import FakeClock
from tests.fakes.stripe import FakeStripe

DAY_S = 86400
PUBKEY = "ab" * 32


class AuditedGateway(StripeGateway, StripeBooks, Protocol):
    """What both adapters offer."""


class Stage(Protocol):
    """A gateway, and what a person or the passing of time does at Stripe."""

    gateway: AuditedGateway

    async def advance(self, seconds: int) -> None: ...

    async def give_card(self, customer_id: str, behaviour: str) -> None: ...

    def now(self) -> int: ...


class FakeStage:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.fake = FakeStripe(self.clock)
        self.gateway: AuditedGateway = self.fake

    async def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    async def give_card(self, customer_id: str, behaviour: Any) -> None:
        self.fake.set_card(customer_id, behaviour)

    def now(self) -> int:
        return self.clock.billing_now()


class EmbeddedStage:
    def __init__(self, stripe: EmbeddedStripe, gateway: StripeSdkGateway) -> None:
        self.stripe = stripe
        self.gateway: AuditedGateway = gateway

    async def advance(self, seconds: int) -> None:
        await self.stripe.advance(seconds)

    async def give_card(self, customer_id: str, behaviour: str) -> None:
        token = "pm_card_chargeCustomerFail" if behaviour == "decline" else "pm_card_visa"
        auth = {"Authorization": f"Bearer {self.stripe.api_key}"}
        async with httpx.AsyncClient(base_url=self.stripe.base_url, headers=auth) as http:
            attached = await http.post(
                f"/v1/payment_methods/{token}/attach", data={"customer": customer_id}
            )
            card = attached.raise_for_status().json()["id"]
            if behaviour != "decline":
                await http.post(f"/sandbox/cards/{card}", json={"behaviour": behaviour})
            chosen = {"invoice_settings[default_payment_method]": card}
            (await http.post(f"/v1/customers/{customer_id}", data=chosen)).raise_for_status()

    def now(self) -> int:
        return self.stripe.world.now()


@pytest.fixture(params=["fake", "embedded"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "fake":
        yield FakeStage()
        return
    async with EmbeddedStripe() as stripe:
        gateway = StripeSdkGateway(
            stripe.api_key, SystemIds(), api_base=stripe.base_url, requests_per_s=1000
        )
        yield EmbeddedStage(stripe, gateway)
        await gateway.close()


_operations = 0


def op() -> str:
    global _operations
    _operations += 1
    return f"op_{_operations:06d}"


async def price(stage: Stage, name: str = "basic", amount: int = 400) -> str:
    return await stage.gateway.ensure_price(
        op(),
        lookup_key=f"purser_{name}_{amount}_usd_month",
        product_name=name,
        amount_minor=amount,
        currency="usd",
        interval="month",
    )


async def customer_id(stage: Stage, pubkey: str = PUBKEY) -> str:
    made = await stage.gateway.create_customer(op(), pubkey=pubkey, name="npub1", email=None)
    return made.id


async def subscribe(stage: Stage, quantity: int = 1, amount: int = 400) -> SubscriptionView:
    return await stage.gateway.create_subscription(
        op(),
        customer_id=await customer_id(stage),
        quantities={await price(stage, amount=amount): quantity},
        metadata={"purser_pubkey": PUBKEY},
    )


async def open_invoices(stage: Stage) -> list[InvoiceView]:
    found: list[InvoiceView] = []
    for status in ("draft", "open"):
        found += (await stage.gateway.invoice_page(None, status=status)).rows
    return found


async def first_invoice(stage: Stage, sub: SubscriptionView) -> InvoiceView:
    assert sub.latest_invoice_id is not None
    return await stage.gateway.invoice(sub.latest_invoice_id)


async def running(stage: Stage, quantity: int = 1, amount: int = 400) -> SubscriptionView:
    sub = await subscribe(stage, quantity, amount)
    await stage.gateway.pay_out_of_band(op(), (await first_invoice(stage, sub)).id)
    return await stage.gateway.subscription(sub.id)


async def sent_subscription(stage: Stage) -> SubscriptionView:
    """One whose invoices are sent, not charged."""
    customer = await stage.gateway.create_customer(
        op(), pubkey=PUBKEY, name="npub1", email="npub1@tenants.example.com"
    )
    return await stage.gateway.create_subscription(
        op(),
        customer_id=customer.id,
        quantities={await price(stage): 1},
        metadata={},
        days_until_due=7,
    )


async def renewal(stage: Stage, sub: SubscriptionView) -> InvoiceView:
    """The draft of the next period."""
    assert sub.period_end is not None
    await stage.advance(sub.period_end - stage.now() + 60)
    return await first_invoice(stage, await stage.gateway.subscription(sub.id))


# --- customers, prices --------------------------------------------------------------------------


async def test_the_account_is_a_test_account(stage: Stage) -> None:
    account = await stage.gateway.account()
    assert account.id.startswith("acct_")
    assert account.livemode is False


async def test_a_price_is_made_once_and_found_again(stage: Stage) -> None:
    assert await price(stage) == await price(stage)
    assert await price(stage) != await price(stage, amount=500)


async def test_a_price_that_says_something_else_is_refused(stage: Stage) -> None:
    await price(stage)
    with pytest.raises(StripeRejected):
        await stage.gateway.ensure_price(
            op(),
            lookup_key="purser_basic_400_usd_month",
            product_name="basic",
            amount_minor=1,
            currency="usd",
            interval="month",
        )


async def test_a_customer_is_found_by_pubkey(stage: Stage) -> None:
    assert await stage.gateway.find_customer(PUBKEY) is None
    made = await customer_id(stage)
    await customer_id(stage, "cd" * 32)
    await stage.advance(1)
    await customer_id(stage)
    found = await stage.gateway.find_customer(PUBKEY)
    assert found is not None
    assert found.id == made, "the oldest"
    assert found.metadata["purser_pubkey"] == PUBKEY
    assert "purser_operation" in found.metadata
    assert not found.deleted
    assert (await stage.gateway.customer(made)).balance_minor == 0


async def test_what_is_not_there_is_missing(stage: Stage) -> None:
    for call in (stage.gateway.customer, stage.gateway.invoice, stage.gateway.subscription):
        with pytest.raises(StripeMissing):
            await call("nothing_1")


# --- operations (M11) ---------------------------------------------------------------------------


async def test_the_same_operation_acts_once(stage: Stage) -> None:
    key = op()
    make: Callable[[str], Any] = lambda name: stage.gateway.create_customer(  # noqa: E731
        key, pubkey=PUBKEY, name=name, email=None
    )
    assert (await make("a")).id == (await make("a")).id
    with pytest.raises(StripeRejected) as caught:
        await make("b")
    assert caught.value.code == "idempotency_error"


async def test_an_empty_operation_is_a_bug(stage: Stage) -> None:
    with pytest.raises(ValueError):
        await stage.gateway.create_customer("", pubkey=PUBKEY, name="a", email=None)


# --- subscriptions ------------------------------------------------------------------------------


async def test_a_new_subscription_waits_for_its_first_payment(stage: Stage) -> None:
    sub = await subscribe(stage, quantity=2)
    assert sub.status == "incomplete"
    assert not sub.is_terminal
    assert [(item.quantity, item.lookup_key) for item in sub.items] == [
        (2, "purser_basic_400_usd_month")
    ]
    assert sub.collection_method == "charge_automatically"
    assert sub.metadata["purser_pubkey"] == PUBKEY
    invoice = await first_invoice(stage, sub)
    assert (invoice.status, invoice.amount_remaining_minor) == ("open", 800)
    assert invoice.subscription_id == sub.id
    assert invoice.customer_id == sub.customer_id
    assert invoice.billing_reason == "subscription_create"
    assert await stage.gateway.card_progress(invoice.id) == "none"


async def test_paid_out_of_band_it_becomes_active(stage: Stage) -> None:
    sub = await subscribe(stage)
    invoice = await first_invoice(stage, sub)
    paid = await stage.gateway.pay_out_of_band(op(), invoice.id)
    assert (paid.status, paid.amount_remaining_minor) == ("paid", 0)
    assert paid.amount_paid_minor == paid.amount_paid_off_stripe_minor == 400
    assert (await stage.gateway.subscription(sub.id)).status == "active"
    with pytest.raises(StripeRejected):
        await stage.gateway.pay_out_of_band(op(), invoice.id)
    assert await stage.gateway.card_progress(invoice.id) == "none"


async def test_unpaid_it_expires_and_takes_its_invoice_along(stage: Stage) -> None:
    sub = await subscribe(stage)
    await stage.advance(23 * 3600 + 60)
    expired = await stage.gateway.subscription(sub.id)
    assert expired.status == "incomplete_expired"
    assert expired.is_terminal
    assert (await first_invoice(stage, sub)).status == "void"
    assert (await stage.gateway.subscription_page(None)).rows == ()
    assert [view.id for view in await stage.gateway.subscriptions_of(sub.customer_id)] == [sub.id]


async def test_more_is_prorated_and_invoiced_by_itself(stage: Stage) -> None:
    sub = await running(stage, amount=3100)
    item = sub.items[0]
    changed = await stage.gateway.update_items(
        op(), sub.id, [ItemChange(item.price_id, 2, item.id)], "create_prorations"
    )
    assert [line.quantity for line in changed.items] == [2]
    key = op()
    invoice = await stage.gateway.create_pending_invoice(
        key, customer_id=sub.customer_id, subscription_id=sub.id
    )
    assert invoice is not None
    assert (invoice.status, invoice.auto_advance) == ("draft", False)
    assert 3000 <= invoice.total_minor <= 3100
    found = await stage.gateway.find_invoice(sub.customer_id, key)
    assert found is not None
    assert found.id == invoice.id
    assert await stage.gateway.find_invoice(sub.customer_id, "op_other") is None
    opened = await stage.gateway.finalize_invoice(op(), invoice.id)
    assert (opened.status, opened.auto_advance) == ("open", False)
    assert opened.number is not None


async def test_less_is_not_prorated(stage: Stage) -> None:
    sub = await running(stage, quantity=3)
    item = sub.items[0]
    await stage.gateway.update_items(op(), sub.id, [ItemChange(item.price_id, 1, item.id)], "none")
    nothing = await stage.gateway.create_pending_invoice(
        op(), customer_id=sub.customer_id, subscription_id=sub.id
    )
    assert nothing is None
    assert (await renewal(stage, sub)).total_minor == 400


async def test_one_update_adds_and_removes_prices(stage: Stage) -> None:
    sub = await running(stage)
    item, pro = sub.items[0], await price(stage, "pro", 900)
    changed = await stage.gateway.update_items(
        op(), sub.id, [ItemChange(pro, 2), ItemChange(item.price_id, 0, item.id)], "none"
    )
    assert {line.price_id: line.quantity for line in changed.items} == {pro: 2}
    with pytest.raises(StripeRejected):
        await stage.gateway.update_items(op(), sub.id, [ItemChange(pro, 1)], "none")


async def test_a_preview_writes_nothing_and_what_it_said_is_invoiced(stage: Stage) -> None:
    """K (tier change: quote, invoice): the quote's moment is kept, so an hour later it holds."""
    sub = await running(stage)
    item, pro = sub.items[0], await price(stage, "pro", 900)
    switch = [ItemChange(pro, 1), ItemChange(item.price_id, 0, item.id)]
    await stage.advance(10 * DAY_S)
    at = stage.now()
    now = await stage.gateway.preview_change(sub.id, switch, proration_at=at)
    then = await stage.gateway.preview_change(sub.id, switch, proration_at=None)
    assert 300 < now.total_minor < 400
    assert (now.amount_due_minor, now.currency) == (now.total_minor, "usd")
    assert then.total_minor == then.amount_due_minor == 900
    assert (await stage.gateway.subscription(sub.id)).items == sub.items
    assert await open_invoices(stage) == []
    await stage.advance(3600)
    await stage.gateway.update_items(op(), sub.id, switch, "create_prorations", proration_at=at)
    invoice = await stage.gateway.create_pending_invoice(
        op(), customer_id=sub.customer_id, subscription_id=sub.id
    )
    assert invoice is not None
    assert invoice.total_minor == now.total_minor


async def test_a_preview_counts_credit_and_refuses_what_is_over(stage: Stage) -> None:
    sub = await running(stage)
    item = sub.items[0]
    await stage.gateway.credit_customer(
        op(), customer_id=sub.customer_id, amount_minor=100, currency="usd", description="x"
    )
    more = [ItemChange(item.price_id, 2, item.id)]
    then = await stage.gateway.preview_change(sub.id, more, proration_at=None)
    assert (then.total_minor, then.amount_due_minor) == (800, 700)
    with pytest.raises(StripeRejected):
        # Before its period.
        await stage.gateway.preview_change(sub.id, more, proration_at=stage.now() - 90 * DAY_S)
    await stage.gateway.cancel_subscription(op(), sub.id)
    with pytest.raises(StripeRejected):
        await stage.gateway.preview_change(sub.id, more, proration_at=None)


async def test_an_incomplete_subscription_takes_no_changes(stage: Stage) -> None:
    sub = await subscribe(stage)
    item = sub.items[0]
    with pytest.raises(StripeRejected):
        await stage.gateway.update_items(
            op(), sub.id, [ItemChange(item.price_id, 2, item.id)], "create_prorations"
        )


async def test_cancelling_at_the_periods_end(stage: Stage) -> None:
    sub = await running(stage)
    assert (await stage.gateway.set_cancel_at_period_end(op(), sub.id, True)).cancel_at_period_end
    kept = await stage.gateway.set_cancel_at_period_end(op(), sub.id, False)
    assert not kept.cancel_at_period_end
    await stage.gateway.set_cancel_at_period_end(op(), sub.id, True)
    await stage.advance(32 * DAY_S)
    assert (await stage.gateway.subscription(sub.id)).status == "canceled"
    assert await open_invoices(stage) == []


async def test_cancelling_at_once_with_credit_gives_back_what_is_left(stage: Stage) -> None:
    sub = await running(stage)
    await stage.advance(10 * DAY_S)
    await stage.gateway.cancel_subscription(op(), sub.id, credit=True)
    assert (await stage.gateway.subscription(sub.id)).status == "canceled"
    (last,) = await open_invoices(stage)
    assert -280 < last.total_minor < -240
    await stage.gateway.finalize_invoice(op(), last.id)
    assert (await stage.gateway.invoice(last.id)).status == "paid"
    customer = await stage.gateway.customer(sub.customer_id)
    assert customer.balance_minor == last.total_minor


async def test_cancelling_at_once_twice_is_fine(stage: Stage) -> None:
    sub = await running(stage)
    for _ in range(2):
        await stage.gateway.cancel_subscription(op(), sub.id)
    assert (await stage.gateway.subscription(sub.id)).status == "canceled"
    with pytest.raises(StripeMissing):
        await stage.gateway.cancel_subscription(op(), "sub_nothing")


# --- invoices -----------------------------------------------------------------------------------


async def test_a_renewal_is_a_draft_for_an_hour_and_ours_once_finalized(stage: Stage) -> None:
    sub = await running(stage)
    draft = await renewal(stage, sub)
    assert (draft.status, draft.auto_advance) == ("draft", True)
    assert draft.billing_reason == "subscription_cycle"
    assert [view.id for view in await open_invoices(stage)] == [draft.id]
    opened = await stage.gateway.finalize_invoice(op(), draft.id)
    assert (opened.status, opened.amount_remaining_minor) == ("open", 400)
    assert not opened.auto_advance
    with pytest.raises(StripeRejected):
        await stage.gateway.finalize_invoice(op(), draft.id)
    assert [view.id for view in await open_invoices(stage)] == [draft.id]
    await stage.advance(DAY_S)
    assert not (await stage.gateway.invoice(draft.id)).attempted
    moved = await stage.gateway.subscription(sub.id)
    assert moved.items[0].period_start == sub.items[0].period_end


async def test_left_alone_stripe_collects_a_renewal_by_itself(stage: Stage) -> None:
    sub = await running(stage)
    await stage.give_card(sub.customer_id, "ok")
    draft = await renewal(stage, sub)
    await stage.advance(3 * 3600)
    paid = await stage.gateway.invoice(draft.id)
    assert (paid.status, paid.amount_paid_off_stripe_minor) == ("paid", 0)
    assert await stage.gateway.card_progress(draft.id) == "paid"


async def test_once_told_to_stop_stripe_leaves_it_to_us(stage: Stage) -> None:
    sub = await running(stage)
    await stage.give_card(sub.customer_id, "ok")
    draft = await renewal(stage, sub)
    stopped = await stage.gateway.stop_auto_advance(op(), draft.id)
    assert (stopped.status, stopped.auto_advance) == ("draft", False)
    await stage.advance(DAY_S)
    left = await stage.gateway.invoice(draft.id)
    assert (left.status, left.attempted) == ("draft", False)


async def test_a_refused_renewal_is_past_due_until_we_stop_the_retries(stage: Stage) -> None:
    sub = await running(stage)
    await stage.give_card(sub.customer_id, "decline")
    draft = await renewal(stage, sub)
    await stage.advance(2 * 3600)
    tried = await stage.gateway.invoice(draft.id)
    assert (tried.status, tried.attempted) == ("open", True)
    assert tried.next_payment_attempt_at is not None
    assert (await stage.gateway.subscription(sub.id)).status == "past_due"
    stopped = await stage.gateway.stop_auto_advance(op(), draft.id)
    assert (stopped.status, stopped.auto_advance) == ("open", False)
    await stage.give_card(sub.customer_id, "ok")
    await stage.advance(10 * DAY_S)
    assert (await stage.gateway.invoice(draft.id)).status == "open"
    await stage.gateway.pay_out_of_band(op(), draft.id)
    assert (await stage.gateway.subscription(sub.id)).status == "active"


async def test_an_invoice_is_voided(stage: Stage) -> None:
    sub = await running(stage)
    opened = await stage.gateway.finalize_invoice(op(), (await renewal(stage, sub)).id)
    voided = await stage.gateway.void_invoice(op(), opened.id)
    assert voided.status == "void"
    for call in (stage.gateway.pay_out_of_band, stage.gateway.void_invoice):
        with pytest.raises(StripeRejected):
            await call(op(), opened.id)


async def test_annotations_merge(stage: Stage) -> None:
    invoice = await first_invoice(stage, await subscribe(stage))
    await stage.gateway.annotate_invoice(op(), invoice.id, {"purser_hash_1": "a"})
    await stage.gateway.annotate_invoice(op(), invoice.id, {"purser_hash_2": "b"})
    metadata = (await stage.gateway.invoice(invoice.id)).metadata
    assert metadata["purser_hash_1"] == "a"
    assert metadata["purser_hash_2"] == "b"


async def test_m10_credit_is_taken_once_and_the_balance_after_it_is_told(stage: Stage) -> None:
    sub = await running(stage)
    gateway, who = stage.gateway, sub.customer_id
    await gateway.credit_customer(
        op(), customer_id=who, amount_minor=700, currency="usd", description="given"
    )
    key = op()
    for _ in range(2):
        after = await gateway.debit_customer(
            key, customer_id=who, amount_minor=500, currency="usd", description="spent"
        )
        assert after == -200
    assert (await gateway.customer(who)).balance_minor == -200
    overdrawn = await gateway.debit_customer(
        op(), customer_id=who, amount_minor=500, currency="usd", description="too much"
    )
    assert overdrawn == 300


async def test_credit_is_given_once_and_spent_at_finalization(stage: Stage) -> None:
    sub = await running(stage)
    key = op()
    for _ in range(2):
        await stage.gateway.credit_customer(
            key,
            customer_id=sub.customer_id,
            amount_minor=150,
            currency="usd",
            description="paid late",
        )
    assert (await stage.gateway.customer(sub.customer_id)).balance_minor == -150
    assert await stage.gateway.is_credited(sub.customer_id, key)
    assert not await stage.gateway.is_credited(sub.customer_id, "op_other")
    draft = await renewal(stage, sub)
    assert draft.amount_due_minor == 400
    opened = await stage.gateway.finalize_invoice(op(), draft.id)
    assert opened.amount_remaining_minor == 250
    listed = await stage.gateway.invoices_of(sub.customer_id)
    assert listed[0].id == opened.id
    assert {view.status for view in listed} == {"open", "paid"}
    assert (await stage.gateway.customer(sub.customer_id)).balance_minor == 0


@pytest.mark.parametrize(("credit", "balance"), [(400, 0), (1000, -600), (360, 40)])
async def test_an_invoice_that_credit_covers_is_paid_by_itself(
    stage: Stage, credit: int, balance: int
) -> None:
    sub = await running(stage)
    await stage.gateway.credit_customer(
        op(),
        customer_id=sub.customer_id,
        amount_minor=credit,
        currency="usd",
        description="paid late",
    )
    paid = await stage.gateway.finalize_invoice(op(), (await renewal(stage, sub)).id)
    assert (paid.status, paid.amount_due_minor) == ("paid", 0)
    assert paid.balance_after_minor == balance
    assert (await stage.gateway.customer(sub.customer_id)).balance_minor == balance


# --- the card rail ------------------------------------------------------------------------------


async def open_renewal(stage: Stage, card: str) -> InvoiceView:
    sub = await running(stage)
    if card != "none":
        await stage.give_card(sub.customer_id, card)
    return await stage.gateway.finalize_invoice(op(), (await renewal(stage, sub)).id)


async def test_a_good_card_pays(stage: Stage) -> None:
    invoice = await open_renewal(stage, "ok")
    paid = await stage.gateway.pay_by_card(op(), invoice.id, permit=lambda: True)
    assert (paid.status, paid.amount_paid_off_stripe_minor) == ("paid", 0)
    assert await stage.gateway.card_progress(invoice.id) == "paid"


async def test_m4_a_card_payment_that_comes_too_late_is_not_sent(stage: Stage) -> None:
    invoice = await open_renewal(stage, "ok")
    before = await stage.gateway.card_progress(invoice.id)
    with pytest.raises(StripeUnavailable):
        await stage.gateway.pay_by_card(op(), invoice.id, permit=lambda: False)
    assert await stage.gateway.card_progress(invoice.id) == before
    assert (await stage.gateway.invoice(invoice.id)).status == "open"


async def test_a_declined_card_is_known_to_have_failed(stage: Stage) -> None:
    invoice = await open_renewal(stage, "decline")
    with pytest.raises(CardDeclined):
        await stage.gateway.pay_by_card(op(), invoice.id, permit=lambda: True)
    assert await stage.gateway.card_progress(invoice.id) == "failed"
    assert (await stage.gateway.invoice(invoice.id)).status == "open"


async def test_a_card_that_asks_its_owner_waits(stage: Stage) -> None:
    invoice = await open_renewal(stage, "requires_action")
    with pytest.raises(CardDeclined):
        await stage.gateway.pay_by_card(op(), invoice.id, permit=lambda: True)
    assert await stage.gateway.card_progress(invoice.id) == "waiting_for_customer"


async def test_a_card_in_progress_forbids_everything_else(stage: Stage) -> None:
    invoice = await open_renewal(stage, "processing")
    assert (await stage.gateway.pay_by_card(op(), invoice.id, permit=lambda: True)).status == "open"
    assert await stage.gateway.card_progress(invoice.id) == "in_progress"


async def test_without_a_card_nothing_is_tried(stage: Stage) -> None:
    invoice = await open_renewal(stage, "none")
    with pytest.raises(StripeRejected):
        await stage.gateway.pay_by_card(op(), invoice.id, permit=lambda: True)
    assert await stage.gateway.card_progress(invoice.id) == "none"


# --- events -------------------------------------------------------------------------------------


async def test_events_are_read_on_from_the_cursor_oldest_first(stage: Stage) -> None:
    start = stage.now()
    await customer_id(stage)
    page = await stage.gateway.events_after(None, start)
    assert [event.type for event in page.events] == ["customer.created"]
    assert not page.more
    cursor = page.events[-1].id
    sub = await running(stage)
    page = await stage.gateway.events_after(cursor, 0)
    types = [event.type for event in page.events]
    assert cursor not in [event.id for event in page.events]
    assert types.index("customer.subscription.created") < types.index("invoice.paid")
    paid = next(event for event in page.events if event.type == "invoice.paid")
    assert paid.raw["data"]["object"]["id"] == sub.latest_invoice_id
    last = await stage.gateway.events_after(page.events[-1].id, 0)
    assert (last.events, last.more) == ((), False)


async def test_long_lists_come_in_pages_of_a_hundred_newest_first(stage: Stage) -> None:
    """C28: a sweep asks once for every hundred, and what ended meanwhile is no stumbling block."""
    basic = await price(stage)
    customer = await customer_id(stage)
    made = []
    for _ in range(103):
        sub = await stage.gateway.create_subscription(
            op(), customer_id=customer, quantities={basic: 1}, metadata={}
        )
        made.append(sub.id)
    invoices = await stage.gateway.invoice_page(None, status="open")
    assert len(invoices.rows) == 100
    rest_invoices = await stage.gateway.invoice_page(invoices.after, status="open")
    assert (len(rest_invoices.rows), rest_invoices.after) == (3, None)
    first = await stage.gateway.subscription_page(None)
    assert [view.id for view in first.rows] == made[:2:-1]
    assert first.after == made[3]
    await stage.gateway.cancel_subscription(op(), made[3])
    rest = await stage.gateway.subscription_page(first.after)
    assert ([view.id for view in rest.rows], rest.after) == (made[2::-1], None)
    await stage.advance(DAY_S)
    none = await stage.gateway.invoice_page(None, since=stage.now() - 60)
    assert (none.rows, none.after) == ((), None)


async def test_many_events_come_in_pages(stage: Stage) -> None:
    start = stage.now()
    made = [await customer_id(stage) for _ in range(130)]
    first = await stage.gateway.events_after(None, start)
    assert len(first.events) == 100
    assert first.more
    second = await stage.gateway.events_after(first.events[-1].id, start)
    assert not second.more
    seen = [event.raw["data"]["object"]["id"] for event in (*first.events, *second.events)]
    assert seen == made


# --- lost replies, over the real transport --------------------------------------------------------


@pytest.fixture
async def embedded() -> AsyncIterator[tuple[EmbeddedStripe, StripeSdkGateway]]:
    async with EmbeddedStripe() as stripe:

        async def no_sleep(seconds: float) -> None:
            return None

        gateway = StripeSdkGateway(
            stripe.api_key,
            SystemIds(),
            api_base=stripe.base_url,
            requests_per_s=1000,
            sleep=no_sleep,
        )
        yield stripe, gateway
        await gateway.close()


async def test_a_lost_reply_is_repeated_under_the_same_key(
    embedded: tuple[EmbeddedStripe, StripeSdkGateway],
) -> None:
    stripe, gateway = embedded
    stripe.faults.add(kind="reset_after_commit", method="POST")
    made = await gateway.create_customer("op_lost", pubkey=PUBKEY, name="a", email=None)
    assert list(stripe.world.table("customer")) == [made.id]


async def test_a_server_error_after_the_commit_is_unknown_and_findable(
    embedded: tuple[EmbeddedStripe, StripeSdkGateway],
) -> None:
    stripe, gateway = embedded
    stripe.faults.add(kind="server_error_after_commit", method="POST")
    with pytest.raises(StripeUnavailable):
        await gateway.create_customer("op_1", pubkey=PUBKEY, name="a", email=None)
    found = await gateway.find_customer(PUBKEY)
    assert found is not None
    assert found.metadata["purser_operation"] == "op_1"


@pytest.mark.parametrize("kind", ["rate_limit", "lock_timeout", "reset"])
async def test_a_busy_stripe_is_asked_again(
    embedded: tuple[EmbeddedStripe, StripeSdkGateway], kind: Any
) -> None:
    stripe, gateway = embedded
    stripe.faults.add(kind=kind)
    assert (await gateway.account()).id


async def test_a_proxys_page_is_unavailable(
    embedded: tuple[EmbeddedStripe, StripeSdkGateway],
) -> None:
    stripe, gateway = embedded
    stripe.faults.add(kind="html_error")
    with pytest.raises(StripeUnavailable):
        await gateway.account()


# --- everything, for an audit -------------------------------------------------------------------


async def test_all_invoices_and_customers_are_listed_whatever_their_state(stage: Stage) -> None:
    sub = await running(stage)
    drafted = await renewal(stage, sub)
    await customer_id(stage, "cd" * 32)
    invoices = await stage.gateway.all_invoices()
    assert [(i.id, i.status) for i in invoices] == [
        (drafted.id, "draft"),
        (invoices[-1].id, "paid"),
    ]
    assert invoices[-1].amount_paid_off_stripe_minor == 400
    since = (await stage.gateway.invoice_page(None, since=drafted.created_at)).rows
    assert [view.id for view in since] == [drafted.id]
    assert list((await stage.gateway.invoice_page(None)).rows) == list(invoices)
    customers = await stage.gateway.all_customers()
    assert [c.metadata["purser_pubkey"] for c in customers] == ["cd" * 32, PUBKEY]
    assert customers[-1].id == sub.customer_id


async def test_an_invoice_says_which_time_it_pays_for(stage: Stage) -> None:
    """A renewal's own period is the time before it; its lines are what a receipt names."""
    sub = await running(stage)
    first = await first_invoice(stage, sub)
    item = sub.items[0]
    assert (first.covers_from, first.covers_until) == (item.period_start, item.period_end)
    second = await renewal(stage, sub)
    assert second.covers_from == item.period_end
    assert second.covers_until is not None
    assert second.covers_until > item.period_end


# --- send_invoice --------------------------------------------------------------------------------


async def test_a_sent_invoice_is_a_draft_of_a_subscription_that_is_active(stage: Stage) -> None:
    sub = await sent_subscription(stage)
    assert (sub.status, sub.collection_method) == ("active", "send_invoice")
    invoice = await first_invoice(stage, sub)
    assert (invoice.status, invoice.collection_method) == ("draft", "send_invoice")
    assert (invoice.billing_reason, invoice.total_minor) == ("subscription_create", 400)
    ours = await stage.gateway.finalize_invoice(op(), invoice.id)
    assert (ours.status, ours.auto_advance, ours.amount_remaining_minor) == ("open", False, 400)
    assert ours.due_at is not None
    assert abs(ours.due_at - stage.now() - 7 * DAY_S) <= 60
    paid = await stage.gateway.pay_out_of_band(op(), invoice.id)
    assert paid.status == "paid"
    assert (await stage.gateway.subscription(sub.id)).status == "active"


async def test_a_sent_invoice_that_is_left_alone_finalizes_and_is_charged_to_no_card(
    stage: Stage,
) -> None:
    sub = await sent_subscription(stage)
    await stage.give_card(sub.customer_id, "ok")
    await stage.advance(2 * 3600)
    invoice = await first_invoice(stage, sub)
    assert (invoice.status, invoice.attempted) == ("open", False)
    paid = await stage.gateway.pay_by_card(op(), invoice.id, permit=lambda: True)
    assert paid.status == "paid"


async def test_a_sent_invoice_needs_an_address(stage: Stage) -> None:
    with pytest.raises(StripeRejected):
        await stage.gateway.create_subscription(
            op(),
            customer_id=await customer_id(stage),
            quantities={await price(stage): 1},
            metadata={},
            days_until_due=7,
        )


@pytest.mark.parametrize("metadata", [{"purser_tenant": PUBKEY}, {}])
async def test_an_invoice_says_for_whom_its_subscription_was_made(
    stage: Stage, metadata: dict[str, str]
) -> None:
    """By which one that somebody made by hand is told from ours, over at Stripe or not."""
    sub = await stage.gateway.create_subscription(
        op(),
        customer_id=await customer_id(stage),
        quantities={await price(stage): 1},
        metadata=metadata,
    )
    made_for = metadata.get("purser_tenant")
    invoice = await first_invoice(stage, sub)
    assert invoice.made_for == made_for
    assert invoice.is_beside("sub_other") is (made_for is None)
    assert not invoice.is_beside(sub.id)
    assert not invoice.is_beside(None)
