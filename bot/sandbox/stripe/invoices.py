"""Invoices: the endpoints."""

from __future__ import annotations

from typing import Any

from bot.sandbox.stripe import card_payments, invoice_flow, invoice_lines, limits, payment_methods
from bot.sandbox.stripe.customers import check_currency, living, settle_currency
from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.expand import includable
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, unset, within
from bot.sandbox.stripe.subscription_status import subscription_of
from bot.sandbox.stripe.world import HOUR_S, World, list_of, view

_TAKES = (
    "auto_advance collection_method days_until_due default_payment_method description due_date "
    "footer metadata "
)


def _found(call: Call) -> Obj:
    return call.world.get("invoice", call.ids["invoice"], "invoice")


@operation(
    "POST",
    "/v1/invoices",
    "InvoiceCreateParams",
    _TAKES + "currency customer pending_invoice_items_behavior subscription",
)
def create(call: Call) -> Obj:
    """A draft; with `subscription` it gathers that subscription's pending items."""
    world = call.world
    sub = None
    if call.get("subscription"):
        sub = world.get("subscription", call.params["subscription"], "subscription", status=400)
    named = call.get("customer") or (sub["customer"] if sub else None)
    if not named:
        raise invalid(
            "Missing required param: customer.", param="customer", code="parameter_missing"
        )
    customer = living(world, named)
    if sub and sub["customer"] != customer["id"]:
        raise invalid("The subscription belongs to another customer.", param="subscription")
    currency = check_currency(
        call.get("currency") or (sub and sub["currency"]) or customer["currency"] or "usd"
    )
    behavior = call.get("pending_invoice_items_behavior", "include" if sub else "exclude")
    pending: list[Obj] = []
    if behavior == "include":
        owner = (sub["id"],) if sub else (None,)
        pending = invoice_lines.pending_items(world, customer["id"], currency, owner)
        if not pending and sub:
            raise invalid(
                "Nothing to invoice for subscription", code="invoice_no_subscription_line_items"
            )
    if len(pending) > invoice_flow.MAX_LINES:
        raise invalid("An invoice has at most 250 items.", code="invoice_too_many_items")
    method, days = _terms(call, customer, sub)
    metadata = merge_metadata(None, call.get("metadata"))
    default = call.get("default_payment_method")
    if default:
        payment_methods.usable(world, default, customer, "default_payment_method")
    settle_currency(customer, currency)
    if sub:
        limits.count(world, sub, "invoices", limits.INVOICES)
    invoice = invoice_flow.draft(
        world,
        customer,
        currency=currency,
        reason="manual",
        lines=[],
        pending=pending,
        subscription=sub,
        collection_method=method,
        days_until_due=days,
        auto_advance=call.get("auto_advance", False),
        metadata=metadata,
    )
    invoice["default_payment_method"] = default
    for name in ("description", "due_date", "footer"):
        invoice[name] = call.get(name)
    return invoice


def _terms(call: Call, customer: Obj, sub: Obj | None) -> tuple[str, int | None]:
    method = call.get("collection_method") or (
        sub["collection_method"] if sub else "charge_automatically"
    )
    days = call.get("days_until_due", sub["days_until_due"] if sub else None)
    if (days is not None and days < 0) or call.get("due_date", call.world.now()) < call.world.now():
        raise invalid("The due date must not be in the past.", param="due_date")
    if method == "send_invoice":
        if days is None and not call.get("due_date"):
            raise invalid(
                "If `collection_method` is `send_invoice`, pass `days_until_due` or `due_date`.",
                param="days_until_due",
            )
        if not customer["email"]:
            raise invalid(
                "Missing email. In order to create invoices that are sent to the customer, the "
                "customer must have a valid email.",
                param="customer",
            )
    elif call.get("days_until_due") is not None or call.get("due_date") is not None:
        raise invalid(
            "You can only set a due date when `collection_method=send_invoice`.", param="due_date"
        )
    return method, days


@operation("GET", "/v1/invoices/{invoice}", "InvoiceRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One invoice."""
    return _found(call)


@operation("POST", "/v1/invoices/{invoice}", "InvoiceUpdateParams", _TAKES)
def update(call: Call) -> Obj:
    """A finalized invoice takes metadata, auto_advance, default_payment_method, due_date only."""
    world, invoice = call.world, _found(call)
    metadata = merge_metadata(invoice["metadata"], call.get("metadata"))
    if invoice["status"] != "draft":
        for name in ("collection_method", "days_until_due", "description", "footer"):
            if name in call.params:
                raise invalid(
                    f"Finalized invoices can't be updated in this way: {name}", param=name
                )
    if "auto_advance" in call.params and invoice["status"] in ("paid", "void"):
        raise invalid(f"This invoice is {invoice['status']}.", param="auto_advance")
    customer = world.get("customer", invoice["customer"])
    default: Any = unset(call.get("default_payment_method"))
    if default:
        payment_methods.usable(world, default, customer, "default_payment_method")
    before = view(world, invoice)
    invoice["metadata"] = metadata
    if "default_payment_method" in call.params:
        invoice["default_payment_method"] = default
    for name in ("collection_method", "description", "due_date", "footer"):
        if name in call.params:
            invoice[name] = unset(call.params[name])
    if "days_until_due" in call.params:
        invoice["_days_until_due"] = call.params["days_until_due"]
    if "auto_advance" in call.params:
        _advance(world, invoice, call.params["auto_advance"])
    world.emit_change("invoice.updated", invoice, before)
    return invoice


def _advance(world: World, invoice: Obj, on: bool) -> None:
    if invoice["auto_advance"] == on:
        return
    invoice["auto_advance"] = on
    now = world.now()
    if invoice["status"] == "draft":
        invoice["automatically_finalizes_at"] = now + HOUR_S if on else None
        if on:
            world.schedule(now + HOUR_S, "finalize", invoice["id"])
    else:
        invoice_flow.plan_attempt(world, invoice, now + HOUR_S if on else None)


@operation("DELETE", "/v1/invoices/{invoice}", "InvoiceDeleteParams")
def delete(call: Call) -> Obj:
    """Only a draft that no subscription made by itself; its items become pending again."""
    world, invoice = call.world, _found(call)
    if invoice["status"] != "draft":
        raise invalid("You can only delete draft invoices.")
    if subscription_of(world, invoice) and invoice["billing_reason"] != "manual":
        raise invalid("You can't delete invoices created by subscriptions.")
    for item in world.table("invoiceitem").values():
        if item["invoice"] == invoice["id"]:
            item["invoice"] = None
    world.remove(invoice)
    world.emit("invoice.deleted", invoice)
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


@operation(
    "POST", "/v1/invoices/{invoice}/finalize", "InvoiceFinalizeInvoiceParams", "auto_advance"
)
def finalize(call: Call) -> Obj:
    """Draft → open (or paid). A second time is 400 without a code."""
    invoice = _found(call)
    if invoice["status"] == "draft" and "auto_advance" in call.params:
        invoice["auto_advance"] = call.params["auto_advance"]
    return invoice_flow.finalize(call.world, invoice)


@operation(
    "POST",
    "/v1/invoices/{invoice}/pay",
    "InvoicePayParams",
    "forgive off_session paid_out_of_band payment_method",
)
def pay(call: Call) -> Obj:
    """By card, or `paid_out_of_band` for the whole remainder. Errors: 400 no code, 402."""
    world, invoice = call.world, _found(call)
    if invoice["status"] == "paid":
        raise invalid("Invoice is already paid")
    if invoice["status"] == "void":
        raise invalid("This invoice is void and can no longer be paid.")
    if call.get("paid_out_of_band") and call.get("payment_method"):
        raise invalid("You may only specify one of paid_out_of_band and payment_method.")
    method = None
    if call.get("payment_method"):
        customer = world.get("customer", invoice["customer"])
        method = payment_methods.usable(world, call.params["payment_method"], customer)
    if invoice["status"] == "draft":
        invoice_flow.finalize(world, invoice)
        if invoice["status"] == "paid":
            return invoice
    if card_payments.in_progress(world, invoice):
        raise invalid(
            "This invoice has a payment in progress and cannot be paid until it ends.",
            code="payment_intent_unexpected_state",
        )
    if call.get("paid_out_of_band"):
        invoice_flow.mark_paid(world, invoice, out_of_band=True)
        return invoice
    error = card_payments.attempt(world, invoice, method, automatic=False)
    if error is not None:
        raise error
    return invoice


@operation("POST", "/v1/invoices/{invoice}/void", "InvoiceVoidInvoiceParams")
def void(call: Call) -> Obj:
    """Final; cannot be paid any more."""
    invoice = _found(call)
    invoice_flow.void(call.world, invoice)
    return invoice


@operation("POST", "/v1/invoices/{invoice}/mark_uncollectible", "InvoiceMarkUncollectibleParams")
def mark_uncollectible(call: Call) -> Obj:
    """Written off; can still be paid."""
    invoice = _found(call)
    invoice_flow.uncollectible(call.world, invoice)
    return invoice


@operation("POST", "/v1/invoices/{invoice}/send", "InvoiceSendInvoiceParams")
def send(call: Call) -> Obj:
    """Finalizes a draft and says it was sent; no mail leaves the sandbox."""
    invoice = _found(call)
    if invoice["collection_method"] != "send_invoice":
        raise invalid("You can only manually send an invoice with collection_method=send_invoice.")
    if invoice["status"] == "draft":
        invoice_flow.finalize(call.world, invoice)
    call.world.emit("invoice.sent", invoice)
    return invoice


@operation("GET", "/v1/invoices/{invoice}/lines", "InvoiceLineItemListParams", listing=True)
def lines(call: Call) -> Obj:
    """All lines, in their order."""
    return page(call, _found(call)["_lines"])


@operation(
    "GET",
    "/v1/invoices",
    "InvoiceListParams",
    "collection_method created customer due_date status subscription",
    listing=True,
)
def list_all(call: Call) -> Obj:
    """Newest first."""

    def matches(invoice: Obj) -> bool:
        details = (invoice["parent"] or {}).get("subscription_details") or {}
        return (
            call.get("customer") in (None, invoice["customer"])
            and call.get("status") in (None, invoice["status"])
            and call.get("collection_method") in (None, invoice["collection_method"])
            and call.get("subscription") in (None, details.get("subscription"))
            and within(invoice["created"], call.get("created"))
            and (
                "due_date" not in call.params
                or within(invoice["due_date"] or 0, call.get("due_date"))
            )
        )

    return page(call, (i for i in call.world.newest("invoice") if matches(i)))


@includable("invoice", "payments")
def _payments(world: World, shown: Obj) -> Obj:
    own = [view(world, p) for p in world.newest("invoice_payment") if p["invoice"] == shown["id"]]
    return list_of(own, f"/v1/invoice_payments?invoice={shown['id']}")


@includable("invoice", "confirmation_secret")
def _secret(world: World, shown: Obj) -> Obj | None:
    invoice = world.table("invoice").get(shown["id"])
    intent = card_payments.intent_of(world, invoice) if invoice else None
    if intent is None:
        return None
    return {"client_secret": intent["client_secret"], "type": "payment_intent"}
