"""Invoice payments: what an invoice is (to be) paid with."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.registry import Call, operation, page, within


@operation("GET", "/v1/invoice_payments/{invoice_payment}", "InvoicePaymentRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One of them."""
    return call.world.get("invoice_payment", call.ids["invoice_payment"])


@operation(
    "GET",
    "/v1/invoice_payments",
    "InvoicePaymentListParams",
    "created invoice payment status",
    listing=True,
)
def list_all(call: Call) -> Obj:
    """By invoice, by payment intent, by status."""
    intent = (call.get("payment") or {}).get("payment_intent")
    return page(
        call,
        (
            p
            for p in call.world.newest("invoice_payment")
            if call.get("invoice") in (None, p["invoice"])
            and call.get("status") in (None, p["status"])
            and intent in (None, p["payment"]["payment_intent"])
            and within(p["created"], call.get("created"))
        ),
    )
