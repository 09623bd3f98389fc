"""Subscriptions: creation, changes, prorations, cancellation (facts/stripe.md, Subscriptions)."""

from __future__ import annotations

import pytest
import stripe

from tests.sandbox_stripe.conftest import JAN_31_2027, Sandbox

DAY = 86400
FEB_28_2027 = JAN_31_2027 + 28 * DAY


async def refused(awaitable: object) -> stripe.InvalidRequestError:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


async def test_without_a_card_the_default_behaviour_is_refused_and_nothing_written(
    sandbox: Sandbox,
) -> None:
    customer, price = await sandbox.customer(), await sandbox.price()
    error = await refused(sandbox.subscribe(customer, price, payment_behavior="allow_incomplete"))
    assert (error.http_status, error.code) == (400, "resource_missing")
    assert (await sandbox.v1.subscriptions.list_async({"status": "all"})).data == []
    assert (await sandbox.v1.invoices.list_async()).data == []


async def test_default_incomplete_finalizes_the_first_invoice(sandbox: Sandbox) -> None:
    """And Stripe will not collect it by itself: auto_advance is false."""
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price())
    invoice = sub.latest_invoice
    assert sub.status == "incomplete"
    assert (invoice.status, invoice.amount_remaining, invoice.auto_advance) == ("open", 500, False)
    assert invoice.billing_reason == "subscription_create"
    assert invoice.parent.subscription_details.subscription == sub.id
    assert sub.billing_mode.type == "flexible"
    item = sub["items"].data[0]
    assert (item.current_period_start, item.current_period_end) == (JAN_31_2027, FEB_28_2027)
    for absent in ("current_period_start", "current_period_end"):
        assert absent not in sub
    for absent in ("subscription", "paid", "charge", "payment_intent", "paid_out_of_band"):
        assert absent not in invoice


@pytest.mark.parametrize("activates", [True, False])
async def test_out_of_band_on_the_first_invoice_activates_or_not(
    sandbox: Sandbox, activates: bool
) -> None:
    sandbox.stripe.world.settings.out_of_band_activates = activates
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price())
    paid = await sandbox.v1.invoices.pay_async(sub.latest_invoice.id, {"paid_out_of_band": True})
    assert (paid.status, paid.amount_paid, paid.amount_paid_off_stripe) == ("paid", 500, 500)
    after = await sandbox.v1.subscriptions.retrieve_async(sub.id)
    assert after.status == ("active" if activates else "incomplete")


async def test_an_unpaid_first_invoice_expires_after_23_hours(sandbox: Sandbox) -> None:
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price())
    await sandbox.stripe.advance(23 * 3600 - 1)
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "incomplete"
    await sandbox.stripe.advance(1)
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "incomplete_expired"
    assert (await sandbox.v1.invoices.retrieve_async(sub.latest_invoice.id)).status == "void"
    error = await refused(sandbox.v1.invoices.pay_async(sub.latest_invoice.id))
    assert error.http_status == 400


@pytest.mark.parametrize("locked", [True, False])
async def test_while_incomplete_only_metadata_and_payment_source_change(
    sandbox: Sandbox, locked: bool
) -> None:
    sandbox.stripe.world.settings.incomplete_is_locked = locked
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price())
    update = sandbox.v1.subscriptions.update_async
    assert (await update(sub.id, {"metadata": {"op": "2"}})).metadata["op"] == "2"
    change = {"items": [{"id": sub["items"].data[0].id, "quantity": 2}]}
    if locked:
        assert (await refused(update(sub.id, change))).param == "items"
    else:
        assert (await update(sub.id, change))["items"].data[0].quantity == 2


async def test_send_invoice_needs_an_email_and_is_active_at_once(sandbox: Sandbox) -> None:
    price = await sandbox.price()
    terms = {"collection_method": "send_invoice", "days_until_due": 7}
    error = await refused(sandbox.subscribe(await sandbox.customer(), price, **terms))
    assert "email" in str(error)
    sub = await sandbox.subscribe(await sandbox.customer(email="t@relay.example"), price, **terms)
    assert (sub.status, sub.latest_invoice.status) == ("active", "draft")
    await sandbox.stripe.advance(3600)
    invoice = await sandbox.latest(sub.id)
    assert invoice.status == "open"
    assert invoice.due_date == invoice.status_transitions.finalized_at + 7 * DAY


async def test_two_items_may_not_share_a_price_and_one_must_remain(sandbox: Sandbox) -> None:
    price = await sandbox.price()
    assert (await refused(sandbox.subscribe(await sandbox.customer(), price, price))).param
    sub = await sandbox.active(price)
    update = sandbox.v1.subscriptions.update_async
    assert (await refused(update(sub.id, {"items": [{"price": price.id}]}))).param == "items"
    gone = {"items": [{"id": sub["items"].data[0].id, "deleted": True}]}
    assert (await refused(update(sub.id, gone))).param == "items"


async def test_one_update_changes_adds_and_removes_or_does_nothing(sandbox: Sandbox) -> None:
    small, large, huge = [await sandbox.price(n * 100) for n in (5, 10, 20)]
    sub = await sandbox.active(small, large)
    by_price = {i.price.id: i.id for i in sub["items"].data}
    items = [
        {"id": by_price[small.id], "quantity": 3},
        {"price": huge.id, "quantity": 1},
        {"id": by_price[large.id], "deleted": True},
    ]
    before = len(await sandbox.event_types(type="customer.subscription.updated"))
    broken = [*items, {"id": "si_nobody", "quantity": 1}]
    assert (await refused(sandbox.v1.subscriptions.update_async(sub.id, {"items": broken}))).param
    same = await sandbox.v1.subscriptions.retrieve_async(sub.id)
    assert {i.price.id: i.quantity for i in same["items"].data} == {small.id: 1, large.id: 1}
    after = await sandbox.v1.subscriptions.update_async(sub.id, {"items": items})
    assert {i.price.id: i.quantity for i in after["items"].data} == {small.id: 3, huge.id: 1}
    assert len(await sandbox.event_types(type="customer.subscription.updated")) == before + 1
    listed = await sandbox.v1.subscription_items.list_async({"subscription": sub.id})
    assert {i.id for i in listed.data} == {i.id for i in after["items"].data}


async def test_a_quantity_change_credits_the_old_and_debits_the_new_floored(
    sandbox: Sandbox,
) -> None:
    """A third of the 28-day period is gone: 2/3 of 500 is 333.3, credited whole, debited double."""
    sub = await sandbox.active(await sandbox.price(500))
    await sandbox.stripe.advance(28 * DAY // 3)
    change = {"items": [{"id": sub["items"].data[0].id, "quantity": 2}]}
    await sandbox.v1.subscriptions.update_async(sub.id, change)
    items = (await sandbox.v1.invoice_items.list_async({"pending": True})).data
    assert [i.amount for i in items] == [666, -334]
    assert all(i.proration for i in items)
    assert (await sandbox.latest(sub.id)).status == "paid"  # nothing is billed yet
    invoice = await sandbox.v1.invoices.create_async(
        {"subscription": sub.id, "auto_advance": False, "metadata": {"op": "o"}}
    )
    assert (invoice.status, invoice.total, len(invoice.lines.data)) == ("draft", 332, 2)
    assert invoice.parent.subscription_details.subscription == sub.id
    assert (await sandbox.v1.invoice_items.list_async({"pending": True})).data == []
    error = await refused(sandbox.v1.invoices.create_async({"subscription": sub.id}))
    assert error.code == "invoice_no_subscription_line_items"


async def test_pending_prorations_are_billed_at_renewal(sandbox: Sandbox) -> None:
    sub = await sandbox.active(await sandbox.price(500))
    await sandbox.stripe.advance(14 * DAY)
    change = {"items": [{"id": sub["items"].data[0].id, "quantity": 2}]}
    await sandbox.v1.subscriptions.update_async(sub.id, change)
    await sandbox.stripe.advance(14 * DAY)
    invoice = await sandbox.latest(sub.id)
    assert [line.amount for line in invoice.lines.data] == [-250, 500, 1000]
    assert invoice.billing_reason == "subscription_cycle"


async def test_no_proration_when_none_is_asked(sandbox: Sandbox) -> None:
    price = await sandbox.price(500)
    sub = await sandbox.active(price)
    await sandbox.stripe.advance(DAY)
    await sandbox.v1.subscriptions.update_async(
        sub.id,
        {
            "items": [{"id": sub["items"].data[0].id, "quantity": 5}],
            "proration_behavior": "none",
        },
    )
    assert (await sandbox.v1.invoice_items.list_async({"pending": True})).data == []


async def test_always_invoice_charges_the_card_at_once(sandbox: Sandbox) -> None:
    customer = await sandbox.with_card()
    sub = await sandbox.subscribe(
        customer, await sandbox.price(500), payment_behavior="allow_incomplete"
    )
    assert (sub.status, sub.latest_invoice.status) == ("active", "paid")
    await sandbox.v1.subscriptions.update_async(
        sub.id,
        {
            "items": [{"id": sub["items"].data[0].id, "quantity": 2}],
            "proration_behavior": "always_invoice",
        },
    )
    invoice = await sandbox.latest(sub.id)
    assert (invoice.billing_reason, invoice.status) == ("subscription_update", "paid")
    assert (invoice.amount_paid, invoice.amount_paid_off_stripe) == (500, 0)


async def test_a_preview_quotes_and_writes_nothing(sandbox: Sandbox) -> None:
    sub = await sandbox.active(await sandbox.price(500))
    await sandbox.stripe.advance(14 * DAY)
    details = {
        "items": [{"id": sub["items"].data[0].id, "quantity": 3}],
        "proration_behavior": "always_invoice",
    }
    preview = sandbox.v1.invoices.create_preview_async
    quote = await preview({"subscription": sub.id, "subscription_details": details})
    assert [line.amount for line in quote.lines.data] == [-250, 750]
    assert quote.amount_due == 500
    details["proration_behavior"] = "create_prorations"
    renewal = await preview({"subscription": sub.id, "subscription_details": details})
    assert renewal.total == 500 + 1500
    assert (await sandbox.v1.invoice_items.list_async()).data == []
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id))["items"].data[0].quantity == 1


async def test_cancel_neither_prorates_nor_invoices_and_a_second_is_404(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    await sandbox.stripe.advance(DAY)
    gone = await sandbox.v1.subscriptions.cancel_async(sub.id)
    assert (gone.status, gone.ended_at) == ("canceled", JAN_31_2027 + DAY)
    assert (await sandbox.v1.invoice_items.list_async()).data == []
    assert len((await sandbox.v1.invoices.list_async()).data) == 1
    error = await refused(sandbox.v1.subscriptions.cancel_async(sub.id))
    assert (error.http_status, error.code) == (404, "resource_missing")
    update = sandbox.v1.subscriptions.update_async
    assert (await update(sub.id, {"metadata": {"a": "b"}})).metadata["a"] == "b"
    assert (await refused(update(sub.id, {"cancel_at_period_end": False}))).http_status == 400
    assert (await sandbox.v1.subscriptions.list_async({"status": "canceled"})).data[0].id == sub.id


async def test_cancel_with_prorate_and_invoice_now_gives_the_rest_as_credit(
    sandbox: Sandbox,
) -> None:
    sub = await sandbox.active(await sandbox.price(500))
    await sandbox.stripe.advance(14 * DAY)
    await sandbox.v1.subscriptions.cancel_async(sub.id, {"prorate": True, "invoice_now": True})
    await sandbox.stripe.advance(3600)
    customer = await sandbox.v1.customers.retrieve_async(sub.customer)
    assert customer.balance == -250


async def test_cancel_at_period_end_can_be_taken_back(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    update = sandbox.v1.subscriptions.update_async
    ending = await update(sub.id, {"cancel_at_period_end": True})
    assert (ending.status, ending.cancel_at) == ("active", FEB_28_2027)
    back = await update(sub.id, {"cancel_at_period_end": False})
    assert (back.cancel_at, back.canceled_at) == (None, None)
    await update(sub.id, {"cancel_at_period_end": True})
    await sandbox.stripe.advance(28 * DAY)
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "canceled"
    assert len((await sandbox.v1.invoices.list_async()).data) == 1


async def test_renewals_are_counted_from_the_anchor(sandbox: Sandbox) -> None:
    """K6: Jan 31 → Feb 28 → Mar 31 → Apr 30, never later each time."""
    sub = await sandbox.active()
    ends = []
    for _ in range(4):
        now = await sandbox.v1.subscriptions.retrieve_async(sub.id)
        end = now["items"].data[0].current_period_end
        ends.append((end - JAN_31_2027) // DAY)
        await sandbox.stripe.schedule.advance(end + 7)
        assert (await sandbox.latest(sub.id)).created == end
    assert ends == [28, 59, 89, 120]
