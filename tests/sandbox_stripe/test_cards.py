"""Card payments: default card, declines, retries, payments in progress, hand-over."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import stripe

from tests.sandbox_stripe.conftest import Sandbox
from tests.sandbox_stripe.test_subscriptions import DAY, FEB_28_2027, refused


async def card_sub(sandbox: Sandbox) -> tuple[Any, str]:
    customer = await sandbox.with_card()
    sub = await sandbox.subscribe(
        customer, await sandbox.price(500), payment_behavior="allow_incomplete"
    )
    assert sub.status == "active"
    return sub, customer.invoice_settings.default_payment_method


async def behave(sandbox: Sandbox, card: str, behaviour: str) -> None:
    async with httpx.AsyncClient(base_url=sandbox.stripe.base_url) as http:
        answer = await http.post(f"/sandbox/cards/{card}", json={"behaviour": behaviour})
        assert answer.status_code == 200


async def test_a_renewal_charges_the_card(sandbox: Sandbox) -> None:
    sub, _ = await card_sub(sandbox)
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 3600)
    invoice = await sandbox.latest(sub.id)
    assert (invoice.status, invoice.amount_paid, invoice.amount_paid_off_stripe) == (
        "paid",
        500,
        0,
    )
    assert (invoice.auto_advance, invoice.next_payment_attempt) == (False, None)
    payment = (await sandbox.v1.invoice_payments.list_async({"invoice": invoice.id})).data[0]
    assert (payment.status, payment.amount_paid) == ("paid", 500)
    intent = await sandbox.v1.payment_intents.retrieve_async(payment.payment.payment_intent)
    assert (intent.status, intent.amount_received) == ("succeeded", 500)
    refund = await sandbox.v1.refunds.create_async({"payment_intent": intent.id, "amount": 200})
    assert refund.status == "succeeded"
    error = await refused(
        sandbox.v1.refunds.create_async({"payment_intent": intent.id, "amount": 301})
    )
    assert error.param == "amount"


@pytest.mark.parametrize(
    ("setting", "status"),
    [("cancel", "canceled"), ("unpaid", "unpaid"), ("past_due", "past_due")],
)
async def test_after_the_last_retry_the_setting_decides(
    sandbox: Sandbox, setting: Any, status: str
) -> None:
    sandbox.stripe.world.settings.after_last_retry = setting
    sub, card = await card_sub(sandbox)
    await behave(sandbox, card, "insufficient_funds")
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 3600)
    invoice = await sandbox.latest(sub.id)
    assert (invoice.status, invoice.attempt_count) == ("open", 1)
    assert invoice.next_payment_attempt == FEB_28_2027 + 3600 + 3 * DAY
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "past_due"
    await sandbox.stripe.advance(15 * DAY)
    after = await sandbox.v1.invoices.retrieve_async(invoice.id)
    assert (after.status, after.attempt_count, after.next_payment_attempt) == ("open", 4, None)
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == status
    types = await sandbox.event_types()
    assert types.count("invoice.payment_failed") == 4


async def test_unpaid_keeps_making_drafts_and_paying_the_latest_revives_it(
    sandbox: Sandbox,
) -> None:
    sandbox.stripe.world.settings.after_last_retry = "unpaid"
    sub, card = await card_sub(sandbox)
    await behave(sandbox, card, "decline")
    await sandbox.stripe.advance(60 * DAY)
    stuck = await sandbox.v1.subscriptions.retrieve_async(sub.id)
    assert stuck.status == "unpaid"
    draft = await sandbox.latest(sub.id)
    assert (draft.status, draft.auto_advance) == ("draft", False)
    older = (await sandbox.v1.invoices.list_async({"subscription": sub.id, "status": "open"})).data
    pay = sandbox.v1.invoices.pay_async
    await pay(older[0].id, {"paid_out_of_band": True})
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "unpaid"
    await pay(draft.id, {"paid_out_of_band": True})
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "active"


async def test_a_declined_pay_is_a_402_with_the_reason(sandbox: Sandbox) -> None:
    customer = await sandbox.with_card("pm_card_chargeCustomerFail")
    sub = await sandbox.subscribe(customer, await sandbox.price(500))
    with pytest.raises(stripe.CardError) as caught:
        await sandbox.v1.invoices.pay_async(sub.latest_invoice.id)
    assert (caught.value.http_status, caught.value.code) == (402, "card_declined")
    assert caught.value.error is not None
    assert caught.value.error.decline_code == "generic_decline"
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "incomplete"
    with pytest.raises(stripe.CardError):
        await sandbox.v1.invoices.pay_async(sub.latest_invoice.id)
    tried = await sandbox.v1.invoices.retrieve_async(sub.latest_invoice.id)
    assert (tried.attempted, tried.attempt_count) == (True, 1)  # later manual tries do not count
    good = await sandbox.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer.id})
    paid = await sandbox.v1.invoices.pay_async(sub.latest_invoice.id, {"payment_method": good.id})
    assert paid.status == "paid"
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "active"


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("pm_card_chargeCustomerFail", stripe.CardError),
        ("pm_card_authenticationRequired", stripe.StripeError),
    ],
)
async def test_error_if_incomplete_writes_nothing(
    sandbox: Sandbox, token: str, error: type[Exception]
) -> None:
    customer = await sandbox.with_card(token)
    with pytest.raises(error):
        await sandbox.subscribe(
            customer, await sandbox.price(), payment_behavior="error_if_incomplete"
        )
    assert (await sandbox.v1.subscriptions.list_async({"status": "all"})).data == []


async def test_a_card_payment_in_progress_shows_and_blocks(sandbox: Sandbox) -> None:
    """M4: before Lightning starts, the intent must say whether a card is at work."""
    sub, card = await card_sub(sandbox)
    await behave(sandbox, card, "processing")
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 3600)
    invoice = await sandbox.latest(sub.id)
    assert invoice.status == "open"
    payments = await sandbox.v1.invoice_payments.list_async(
        {"invoice": invoice.id, "expand": ["data.payment.payment_intent"]}
    )
    intent = payments.data[0].payment.payment_intent
    assert (payments.data[0].status, intent.status) == ("open", "processing")
    error = await refused(sandbox.v1.invoices.pay_async(invoice.id, {"paid_out_of_band": True}))
    assert error.http_status == 400
    async with httpx.AsyncClient(base_url=sandbox.stripe.base_url) as http:
        await http.post(f"/sandbox/payment_intents/{intent.id}", json={"outcome": "succeed"})
    assert (await sandbox.latest(sub.id)).status == "paid"


async def test_paying_out_of_band_cancels_the_intent(sandbox: Sandbox) -> None:
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price())
    await sandbox.v1.invoices.pay_async(sub.latest_invoice.id, {"paid_out_of_band": True})
    found = await sandbox.v1.invoice_payments.list_async({"invoice": sub.latest_invoice.id})
    assert found.data[0].status == "canceled"


async def test_handing_back_with_auto_advance_charges_the_card_later(sandbox: Sandbox) -> None:
    sub, _ = await card_sub(sandbox)
    await sandbox.stripe.schedule.advance(FEB_28_2027)
    draft = await sandbox.latest(sub.id)
    invoices = sandbox.v1.invoices
    await invoices.finalize_invoice_async(draft.id, {"auto_advance": False})
    await sandbox.stripe.advance(3 * DAY)
    assert (await invoices.retrieve_async(draft.id)).status == "open"
    back = await invoices.update_async(draft.id, {"auto_advance": True})
    assert back.next_payment_attempt is not None
    await sandbox.stripe.advance(3600)
    assert (await invoices.retrieve_async(draft.id)).status == "paid"
    later = await refused(invoices.update_async(draft.id, {"auto_advance": True}))
    assert later.http_status == 400


async def test_taking_an_open_invoice_back_from_the_card_stops_its_retries(
    sandbox: Sandbox,
) -> None:
    sub, card = await card_sub(sandbox)
    await behave(sandbox, card, "decline")
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 3600)
    invoice = await sandbox.latest(sub.id)
    await behave(sandbox, card, "ok")
    ours = await sandbox.v1.invoices.update_async(invoice.id, {"auto_advance": False})
    assert (ours.auto_advance, ours.next_payment_attempt) == (False, None)
    await sandbox.stripe.advance(10 * DAY)
    assert (await sandbox.v1.invoices.retrieve_async(invoice.id)).status == "open"


async def test_a_sent_invoice_becomes_past_due_and_overdue_is_an_automation(
    sandbox: Sandbox,
) -> None:
    customer = await sandbox.customer(email="t@relay.example")
    sub = await sandbox.subscribe(
        customer, await sandbox.price(), collection_method="send_invoice", days_until_due=7
    )
    await sandbox.stripe.advance(8 * DAY)
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "past_due"
    assert "invoice.overdue" not in await sandbox.event_types()
    invoice = await sandbox.latest(sub.id)
    assert invoice.next_payment_attempt is None
