"""What of a customer's credit can pay an invoice: one rule for collection, which spends it, and for
dunning, which waits for nothing that is never spent."""

from __future__ import annotations

from typing import Final

from billing.unit import Unit
from billing.views import CustomerView, InvoiceView

MAX_SPENDS: Final = 3
"""Tries to pay an invoice from credit: a renewal can be faster once, not again and again."""
TAKES_CREDIT: Final = ("draft", "open")
"""What was written off at Stripe is charged by nothing that goes by itself, credit included."""


async def spendable(unit: Unit, view: InvoiceView, customer: CustomerView) -> int:
    """Credit in the invoice's currency; none after it was refused too often to be a coincidence."""
    credit_minor = -customer.balance_minor
    if view.status not in TAKES_CREDIT or credit_minor <= 0:
        return 0
    if customer.currency not in (None, view.currency):
        return 0
    tried = await unit.tx.scalar("spends.count", invoice_id=view.id)
    return 0 if isinstance(tried, int) and tried >= MAX_SPENDS else credit_minor
