"""Invoices: life, balance, minimum, errors, credit (facts/stripe.md, Invoices)."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.sandbox_stripe.conftest import JAN_31_2027, Sandbox
from tests.sandbox_stripe.test_subscriptions import DAY, FEB_28_2027, refused


async def open_renewal(sandbox: Sandbox, amount: int = 500) -> tuple[Any, Any]:
    sub = await sandbox.active(await sandbox.price(amount))
    await sandbox.stripe.schedule.advance(FEB_28_2027)
    return sub, await sandbox.latest(sub.id)


async def test_a_renewal_is_a_draft_for_an_hour_then_charged(sandbox: Sandbox) -> None:
    sub, draft = await open_renewal(sandbox)
    assert (draft.status, draft.auto_advance, draft.number) == ("draft", True, None)
    assert draft.automatically_finalizes_at == FEB_28_2027 + 3600
    assert (draft.period_start, draft.period_end) == (JAN_31_2027, FEB_28_2027)
    await sandbox.stripe.advance(3599)
    assert (await sandbox.latest(sub.id)).status == "draft"
    await sandbox.stripe.advance(1)
    invoice = await sandbox.latest(sub.id)
    assert (invoice.status, invoice.automatically_finalizes_at) == ("open", None)
    assert invoice.attempted  # no card: refused, and the subscription is past due
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "past_due"
    assert invoice.due_date is None


async def test_purser_takes_a_draft_over_and_is_paid_out_of_band(sandbox: Sandbox) -> None:
    sub, draft = await open_renewal(sandbox)
    invoices = sandbox.v1.invoices
    opened = await invoices.finalize_invoice_async(draft.id, {"auto_advance": False})
    assert (opened.status, opened.auto_advance, opened.next_payment_attempt) == (
        "open",
        False,
        None,
    )
    await sandbox.stripe.advance(20 * DAY)  # nothing is collected behind our back
    assert (await invoices.retrieve_async(draft.id)).attempt_count == 0
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "active"
    paid = await invoices.pay_async(draft.id, {"paid_out_of_band": True})
    assert (paid.status, paid.amount_remaining, paid.amount_paid_off_stripe) == ("paid", 0, 500)


async def test_already_finalized_and_already_paid_are_400_without_a_code(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    invoice = await sandbox.latest(sub.id)
    for call in (
        sandbox.v1.invoices.finalize_invoice_async(invoice.id),
        sandbox.v1.invoices.pay_async(invoice.id, {"paid_out_of_band": True}),
        sandbox.v1.invoices.pay_async(invoice.id),
    ):
        error = await refused(call)
        assert (error.http_status, error.code) == (400, None)


async def test_balance_is_applied_at_finalization_only(sandbox: Sandbox) -> None:
    sub = await sandbox.active(await sandbox.price(500))
    txns = sandbox.v1.customers.balance_transactions
    await txns.create_async(sub.customer, {"amount": -120, "currency": "usd"})
    await sandbox.stripe.schedule.advance(FEB_28_2027)
    draft = await sandbox.latest(sub.id)
    assert (draft.amount_due, draft.starting_balance, draft.ending_balance) == (500, -120, None)
    opened = await sandbox.v1.invoices.finalize_invoice_async(draft.id)
    assert (opened.total, opened.amount_due, opened.amount_remaining) == (500, 380, 380)
    assert (opened.starting_balance, opened.ending_balance) == (-120, 0)
    applied = (await txns.list_async(sub.customer)).data[0]
    assert (applied.type, applied.amount, applied.invoice) == ("applied_to_invoice", 120, draft.id)
    await sandbox.v1.invoices.void_invoice_async(draft.id)
    assert (await sandbox.v1.customers.retrieve_async(sub.customer)).balance == -120


@pytest.mark.parametrize(
    ("credit", "balance_after"),
    [(-500, 0), (-800, -300), (-460, 40)],  # covered; covered with a rest; 40 cents: too small
)
async def test_nothing_or_too_little_due_turns_paid_by_itself(
    sandbox: Sandbox, credit: int, balance_after: int
) -> None:
    sub = await sandbox.active(await sandbox.price(500))
    await sandbox.v1.customers.balance_transactions.create_async(
        sub.customer, {"amount": credit, "currency": "usd"}
    )
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 3600)
    invoice = await sandbox.latest(sub.id)
    assert (invoice.status, invoice.amount_due, invoice.amount_paid) == ("paid", 0, 0)
    assert (await sandbox.v1.customers.retrieve_async(sub.customer)).balance == balance_after
    assert (await sandbox.v1.invoice_payments.list_async({"invoice": invoice.id})).data == []


async def test_an_amount_below_the_minimum_moves_to_the_balance(sandbox: Sandbox) -> None:
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price(49))
    assert (sub.status, sub.latest_invoice.status) == ("active", "paid")
    assert (await sandbox.v1.customers.retrieve_async(sub.customer)).balance == 49
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 3600)
    invoice = await sandbox.latest(sub.id)  # 49 carried over and 49 now can be charged
    assert (invoice.total, invoice.starting_balance, invoice.amount_due) == (49, 49, 98)


async def test_a_free_subscription_is_active_without_any_payment(sandbox: Sandbox) -> None:
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price(0))
    assert (sub.status, sub.latest_invoice.status) == ("active", "paid")


async def test_uncollectible_can_still_be_paid_and_void_cannot(sandbox: Sandbox) -> None:
    sub, draft = await open_renewal(sandbox)
    invoices = sandbox.v1.invoices
    assert (await refused(invoices.void_invoice_async(draft.id))).http_status == 400
    await invoices.finalize_invoice_async(draft.id)
    assert (await invoices.mark_uncollectible_async(draft.id)).status == "uncollectible"
    assert (await invoices.pay_async(draft.id, {"paid_out_of_band": True})).status == "paid"
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 40 * DAY)
    second = await sandbox.latest(sub.id)
    assert (await invoices.void_invoice_async(second.id)).status == "void"
    assert (await refused(invoices.pay_async(second.id, {"paid_out_of_band": True}))).code is None


async def test_voiding_the_first_invoice_expires_the_subscription(sandbox: Sandbox) -> None:
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price())
    await sandbox.v1.invoices.void_invoice_async(sub.latest_invoice.id)
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "incomplete_expired"


async def test_drafts_can_be_edited_and_deleted_finalized_ones_take_metadata(
    sandbox: Sandbox,
) -> None:
    customer = await sandbox.customer()
    invoices, items = sandbox.v1.invoices, sandbox.v1.invoice_items
    draft = await invoices.create_async({"customer": customer.id, "currency": "usd"})
    assert (draft.billing_reason, draft.auto_advance, draft.total) == ("manual", False, 0)
    item = await items.create_async(
        {"customer": customer.id, "currency": "usd", "amount": 700, "invoice": draft.id}
    )
    changed = await invoices.update_async(draft.id, {"description": "d", "auto_advance": True})
    assert (changed.total, changed.description) == (700, "d")
    assert changed.automatically_finalizes_at is not None
    lines = await invoices.line_items.list_async(draft.id)
    assert lines.data[0].parent.invoice_item_details.invoice_item == item.id
    await items.delete_async(item.id)
    assert (await invoices.retrieve_async(draft.id)).total == 0
    assert (await invoices.delete_async(draft.id)).deleted is True
    assert (await refused(invoices.retrieve_async(draft.id))).http_status == 404
    sub = await sandbox.subscribe(customer, await sandbox.price())
    first = sub.latest_invoice.id
    marked = await invoices.update_async(first, {"metadata": {"purser_hash_1": "ab"}})
    assert marked.metadata["purser_hash_1"] == "ab"
    assert (await refused(invoices.update_async(first, {"description": "x"}))).param
    assert (await refused(invoices.delete_async(first))).http_status == 400


async def test_lists_filter_by_customer_subscription_status_and_time(sandbox: Sandbox) -> None:
    sub, draft = await open_renewal(sandbox)
    await sandbox.active()
    listing = sandbox.v1.invoices.list_async

    async def ids(**params: Any) -> list[str]:
        return [i.id for i in (await listing(params)).data]

    assert len(await ids(customer=sub.customer)) == 2
    assert len(await ids(subscription=sub.id)) == 2
    assert await ids(status="draft") == [draft.id]
    assert draft.id in await ids(created={"gte": FEB_28_2027})
    assert len(await ids(created={"lt": FEB_28_2027})) == 1


async def test_numbers_count_within_the_customer(sandbox: Sandbox) -> None:
    sub, _ = await open_renewal(sandbox)
    await sandbox.stripe.advance(3600)
    numbers = [i.number for i in (await sandbox.v1.invoices.list_async()).data]
    prefix = (await sandbox.v1.customers.retrieve_async(sub.customer)).invoice_prefix
    assert numbers == [f"{prefix}-0002", f"{prefix}-0001"]


async def test_a_credit_note_for_sats_sent_back_must_sum_exactly(sandbox: Sandbox) -> None:
    sub = await sandbox.active(await sandbox.price(500))
    invoice = await sandbox.latest(sub.id)
    notes = sandbox.v1.credit_notes
    given = {"invoice": invoice.id, "amount": 300, "out_of_band_amount": 100}
    assert (await refused(notes.create_async(given))).http_status == 400
    note = await notes.create_async(given | {"credit_amount": 200})
    assert (note.type, note.post_payment_amount) == ("post_payment", 300)
    assert (await sandbox.v1.customers.retrieve_async(sub.customer)).balance == -200
    after = await sandbox.v1.invoices.retrieve_async(invoice.id)
    assert after.post_payment_credit_notes_amount == 300
    assert (await refused(notes.create_async(given))).param == "amount"
    assert (await notes.list_async({"invoice": invoice.id})).data[0].id == note.id


async def test_more_lines_than_an_invoice_shows_are_paged(sandbox: Sandbox) -> None:
    prices = [await sandbox.price(100 + n) for n in range(12)]
    sub = await sandbox.subscribe(await sandbox.customer(), *prices)
    invoice = sub.latest_invoice
    assert (len(invoice.lines.data), invoice.lines.has_more) == (10, True)
    everything = await sandbox.v1.invoices.line_items.list_async(invoice.id, {"limit": 100})
    assert len(everything.data) == 12


async def test_currencies_do_not_mix_on_a_customer(sandbox: Sandbox) -> None:
    customer = await sandbox.customer()
    await sandbox.subscribe(customer, await sandbox.price(500))
    with pytest.raises(stripe.InvalidRequestError, match="currenc"):
        await sandbox.subscribe(customer, await sandbox.price(500, currency="eur"))
