"""Says whether money for an invoice may still be on its way: nothing is taken before it is not."""

from __future__ import annotations

from billing.store import invoices, payments, spends
from billing.unit import Unit

RENEWAL = "subscription_cycle"
"""Stripe's billing reason of a renewal."""


async def may_be_paid(unit: Unit, invoice_id: str) -> bool:
    """Paid, or a payment is under way, being placed, or can still be made with a request (M13)."""
    invoice = await invoices.get(unit.tx, invoice_id)
    if invoice is not None and invoice.status == "paid":
        return True
    if any(attempt.is_live for attempt in await payments.attempts_of(unit.tx, invoice_id)):
        return True
    if await spends.live(unit.tx, invoice_id) is not None:
        return True
    for request in await payments.requests_of(unit.tx, invoice_id):
        money = await payments.settlement(unit.tx, request.payment_hash)
        if request.state == "open" or (money is not None and money.next_try_at is not None):
            return True
    return False


async def is_with_renewal(unit: Unit, invoice_id: str) -> bool:
    """A renewal that is not over: what was ordered on it is paid with the rest, or ends with it."""
    invoice = await invoices.get(unit.tx, invoice_id)
    return invoice is not None and invoice.billing_reason == RENEWAL and invoice.is_unpaid
