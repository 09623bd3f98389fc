"""What a receipt says of a paid invoice: amount, rate with its sources, period, payment hash."""

from __future__ import annotations

import json
from typing import Any

from billing.model import Invoice
from billing.store import payments
from billing.unit import Unit
from billing.views import InvoiceView


async def receipt(
    unit: Unit, invoice: Invoice, view: InvoiceView, payment_hash: str | None
) -> dict[str, Any]:
    """Facts for the message `invoice_paid`. `payment_hash`: of the money that paid it, if any.

    `amount_msat` is what our own wallet received, not what was asked for.
    """
    carried_minor = 0
    if invoice.amount_due_minor == 0:
        # Below Stripe's minimum charge: it went onto the balance, and comes with the next invoice.
        carried_minor = min(invoice.total_minor, max(0, view.balance_after_minor or 0))
    covered_minor = invoice.total_minor - invoice.amount_due_minor - carried_minor
    facts: dict[str, Any] = {
        "number": view.number,
        "covers_from": view.covers_from,
        "covers_until": view.covers_until,
        "credit_minor": max(0, covered_minor),
        "carried_minor": carried_minor,
    }
    request = payment_hash and await payments.request_by_hash(unit.tx, payment_hash)
    money = payment_hash and await payments.settlement(unit.tx, payment_hash)
    if not request or not money:
        return facts
    sources: list[str] = json.loads(request.rate_sources)
    return facts | {
        "amount_msat": money.amount_msat,
        "rate": request.rate,
        "rate_sources": sources,
        "rate_at": request.rate_at,
        "payment_hash": request.payment_hash,
    }
