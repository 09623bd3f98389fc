"""Parses Stripe's raw objects into billing's views, at the API version named here.

Objects of others in the same account pass through sweeps too, so what only ours have (a quantity, a
customer) has a default; what Stripe always sends is required. KeyError, TypeError and ValueError
mean an answer that is not Stripe's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast, get_args

from billing.views import (
    TENANT_KEY,
    CardProgress,
    CustomerView,
    InvoiceStatus,
    InvoiceView,
    PreviewView,
    StripeEvent,
    SubscriptionItemView,
    SubscriptionView,
)

API_VERSION: Final = "2026-10-28.endive"
"""Shapes below are of this version; a test compares it with the SDK's own."""

Raw = Mapping[str, Any]


def id_of(value: object) -> str | None:
    """An expandable field's id, expanded or not."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, Mapping):
        return _text(value, "id")
    raise TypeError("neither an id nor an object")


def customer_view(raw: Raw) -> CustomerView:
    """https://docs.stripe.com/api/customers/object"""
    if raw.get("deleted"):
        return CustomerView(_text(raw, "id"), True, 0, None, None)
    settings = raw.get("invoice_settings") or {}
    return CustomerView(
        id=_text(raw, "id"),
        deleted=False,
        balance_minor=_int(raw, "balance"),
        currency=raw.get("currency"),
        default_payment_method=id_of(settings.get("default_payment_method"))
        or id_of(raw.get("default_source")),
        metadata=_metadata(raw),
    )


def subscription_view(raw: Raw, items: Iterable[Raw] | None = None) -> SubscriptionView:
    """https://docs.stripe.com/api/subscriptions/object; `items` when they had to be paged."""
    rows = raw["items"]["data"] if items is None else items
    return SubscriptionView(
        id=_text(raw, "id"),
        customer_id=id_of(raw["customer"]) or "",
        status=_text(raw, "status"),
        items=tuple(_item_view(row) for row in rows),
        cancel_at_period_end=_bool(raw, "cancel_at_period_end"),
        latest_invoice_id=id_of(raw.get("latest_invoice")),
        collection_method=_text(raw, "collection_method"),
        created_at=_int(raw, "created"),
        metadata=_metadata(raw),
        cancel_at=_optional_int(raw, "cancel_at"),
        pause_behavior=(raw.get("pause_collection") or {}).get("behavior"),
    )


def _item_view(raw: Raw) -> SubscriptionItemView:
    return SubscriptionItemView(
        id=_text(raw, "id"),
        price_id=_text(raw["price"], "id"),
        quantity=_optional_int(raw, "quantity") or 0,
        period_start=_int(raw, "current_period_start"),
        period_end=_int(raw, "current_period_end"),
        lookup_key=raw["price"].get("lookup_key"),
    )


def invoice_view(raw: Raw) -> InvoiceView:
    """https://docs.stripe.com/api/invoices/object

    The subscription stands in `parent.subscription_details`; there is no `paid` and no `charge`.
    """
    status = raw.get("status")
    if status not in get_args(InvoiceStatus) or status == "deleted":
        raise ValueError("an invoice's status is unknown")
    parent = raw.get("parent") or {}
    details = parent.get("subscription_details") or {}
    covers_from, covers_until = _covered(raw)
    return InvoiceView(
        id=_text(raw, "id"),
        customer_id=id_of(raw.get("customer")) or "",
        subscription_id=id_of(details.get("subscription")),
        status=cast(InvoiceStatus, status),
        currency=_text(raw, "currency"),
        total_minor=_int(raw, "total"),
        amount_due_minor=_int(raw, "amount_due"),
        amount_remaining_minor=_int(raw, "amount_remaining"),
        amount_paid_minor=_int(raw, "amount_paid"),
        amount_paid_off_stripe_minor=_optional_int(raw, "amount_paid_off_stripe") or 0,
        auto_advance=bool(raw.get("auto_advance")),
        billing_reason=raw.get("billing_reason"),
        created_at=_int(raw, "created"),
        due_at=_optional_int(raw, "due_date"),
        period_start=_int(raw, "period_start"),
        period_end=_int(raw, "period_end"),
        number=raw.get("number"),
        hosted_invoice_url=raw.get("hosted_invoice_url"),
        attempted=bool(raw.get("attempted")),
        next_payment_attempt_at=_optional_int(raw, "next_payment_attempt"),
        metadata=_metadata(raw),
        covers_from=covers_from,
        covers_until=covers_until,
        collection_method=str(raw.get("collection_method") or "charge_automatically"),
        balance_after_minor=_optional_int(raw, "ending_balance"),
        made_for=(details.get("metadata") or {}).get(TENANT_KEY),
        seats=_seats(raw),
    )


def preview_view(raw: Raw) -> PreviewView:
    """https://docs.stripe.com/api/invoices/create_preview"""
    return PreviewView(
        total_minor=_int(raw, "total"),
        amount_due_minor=_int(raw, "amount_due"),
        currency=_text(raw, "currency"),
    )


def _covered(raw: Raw) -> tuple[int | None, int | None]:
    """From the start of the first charged line to the end of the last. Only for people: lines
    beyond the first ten, which Stripe leaves out, are not asked for."""
    lines = (raw.get("lines") or {}).get("data") or []
    periods = [line["period"] for line in lines if line["amount"] > 0 and line.get("period")]
    if not periods:
        return None, None
    starts = [_int(period, "start") for period in periods]
    return min(starts), max(_int(period, "end") for period in periods)


def _seats(raw: Raw) -> int | None:
    """Of the lines of subscription items; https://docs.stripe.com/api/invoice-line-item/object"""
    lines = raw.get("lines") or {}
    if lines.get("has_more", True):
        return None
    count = 0
    for line in lines.get("data") or []:
        details = (line.get("parent") or {}).get("subscription_item_details")
        if details is not None and not details.get("proration") and line["amount"] > 0:
            count += line.get("quantity") or 0
    return count


def event_view(raw: Raw) -> StripeEvent:
    """https://docs.stripe.com/api/events/object; kept whole, handlers re-fetch what it is about."""
    return StripeEvent(
        id=_text(raw, "id"),
        type=_text(raw, "type"),
        created_at=_int(raw, "created"),
        livemode=_bool(raw, "livemode"),
        raw=raw,
    )


_INTENT_PROGRESS: Final[Mapping[str, CardProgress]] = {
    "processing": "in_progress",
    # Authorised, not captured: money may still be taken.
    "requires_capture": "in_progress",
    "requires_action": "waiting_for_customer",
    "requires_confirmation": "waiting_for_customer",
    "succeeded": "paid",
    "canceled": "none",
}
"""https://docs.stripe.com/payments/paymentintents/lifecycle"""

_STRONGEST_FIRST: Final[tuple[CardProgress, ...]] = (
    "in_progress",
    "paid",
    "waiting_for_customer",
    "failed",
    "none",
)


def intent_progress(raw: Raw) -> CardProgress:
    """One payment intent; an unknown status is in progress, so that nothing else starts (M4)."""
    status = _text(raw, "status")
    if status == "requires_payment_method":
        return "failed" if raw.get("last_payment_error") else "none"
    return _INTENT_PROGRESS.get(status, "in_progress")


def strongest(progress: Iterable[CardProgress]) -> CardProgress:
    """Of several payments of one invoice, the one that forbids most."""
    seen = set(progress)
    return next((value for value in _STRONGEST_FIRST if value in seen), "none")


def _text(raw: Raw, name: str) -> str:
    value = raw[name]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} is not text")
    return value


def _int(raw: Raw, name: str) -> int:
    value = raw[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is not a whole number")
    return value


def _optional_int(raw: Raw, name: str) -> int | None:
    return None if raw.get(name) is None else _int(raw, name)


def _bool(raw: Raw, name: str) -> bool:
    value = raw[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} is not true or false")
    return value


def _metadata(raw: Raw) -> dict[str, str]:
    return {str(key): str(value) for key, value in (raw.get("metadata") or {}).items()}
