"""An invoice's life: draft → open → paid, void or uncollectible, with the customer balance."""

from __future__ import annotations

from bot.sandbox.stripe import card_payments, invoice_lines, money, subscription_status
from bot.sandbox.stripe.balance import adjust
from bot.sandbox.stripe.errors import Obj, StripeError, invalid
from bot.sandbox.stripe.world import DAY_S, HOUR_S, World, list_of, view, viewer

EMBEDDED_LINES = 10  # an invoice shows its first ten lines; the rest is paged
MAX_LINES = 250  # docs: up to 250 items on an invoice

_NOTHING = (
    "account_tax_ids application automatically_finalizes_at "
    "customer_address customer_phone customer_shipping custom_fields default_payment_method "
    "default_source description due_date effective_at ending_balance footer from_invoice "
    "hosted_invoice_url invoice_pdf last_finalization_error latest_revision "
    "next_payment_attempt number on_behalf_of receipt_number rendering shipping_cost "
    "shipping_details statement_descriptor test_clock threshold_reason webhooks_delivered_at"
)

_ZERO = (
    "amount_due amount_overpaid amount_paid amount_paid_off_stripe amount_remaining "
    "amount_shipping attempt_count post_payment_credit_notes_amount "
    "pre_payment_credit_notes_amount starting_balance subtotal subtotal_excluding_tax "
    "total total_excluding_tax"
)


def draft(
    world: World,
    customer: Obj,
    *,
    currency: str,
    reason: str,
    lines: list[Obj],
    pending: list[Obj],
    subscription: Obj | None = None,
    collection_method: str = "charge_automatically",
    days_until_due: int | None = None,
    auto_advance: bool = False,
    period: tuple[int, int] | None = None,
    metadata: Obj | None = None,
) -> Obj:
    """Store a draft and tell it; with `auto_advance` it finalizes by itself."""
    from bot.sandbox.stripe.customers import settle_currency

    settle_currency(customer, currency)
    customer["currency"] = currency
    now = world.now()
    invoice = skeleton(world, customer, currency, reason, subscription)
    invoice.update(
        auto_advance=auto_advance,
        collection_method=collection_method,
        metadata=metadata or {},
        _days_until_due=days_until_due,
    )
    invoice["period_start"], invoice["period_end"] = period or (now, now)
    world.add(invoice)
    invoice_lines.take(world, invoice, pending)
    invoice["_lines"] += [{**line, "invoice": invoice["id"]} for line in lines]
    total_up(invoice)
    if auto_advance:
        invoice["automatically_finalizes_at"] = now + world.settings.draft_s
        world.schedule(now + world.settings.draft_s, "finalize", invoice["id"])
    invoice["_created_event"] = world.emit("invoice.created", invoice)["id"]
    return invoice


def skeleton(
    world: World, customer: Obj, currency: str, reason: str, subscription: Obj | None
) -> Obj:
    """All fields of a draft without lines, not stored."""
    parent = None
    if subscription is not None:
        parent = {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        }
    return {
        "id": world.new_id("in"),
        "object": "invoice",
        "account_country": "US",
        "account_name": world.settings.account_name,
        "attempted": False,
        "automatic_tax": _no_tax(),
        "billing_reason": reason,
        "created": world.now(),
        "currency": currency,
        "customer": customer["id"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_tax_exempt": customer["tax_exempt"],
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "discounts": [],
        "issuer": {"type": "self"},
        "livemode": False,
        "parent": parent,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        **dict.fromkeys(_NOTHING.split()),
        **dict.fromkeys(_ZERO.split(), 0),
        "_lines": [],
    }


def _no_tax() -> Obj:
    return {
        "disabled_reason": None,
        "enabled": False,
        "liability": None,
        "provider": None,
        "status": None,
    }


@viewer("invoice")
def _view(world: World, stored: Obj, shown: Obj) -> None:
    lines = stored["_lines"]
    shown["lines"] = list_of(
        [dict(line) for line in lines[:EMBEDDED_LINES]],
        f"/v1/invoices/{stored['id']}/lines",
        len(lines) > EMBEDDED_LINES,
    )
    if stored["status"] == "draft":
        customer = world.table("customer").get(stored["customer"], {})
        shown["starting_balance"] = customer.get("balance", 0)


def total_up(invoice: Obj) -> None:
    """A draft's sums; the balance and the minimum charge come at finalization only."""
    total = sum(line["amount"] for line in invoice["_lines"])
    for name in ("subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax"):
        invoice[name] = total
    invoice["amount_due"] = invoice["amount_remaining"] = max(0, total)


def amounts_at_finalization(invoice: Obj, balance: int) -> tuple[int, int, int]:
    """`(amount_due, balance applied, too small)`: what finalizing would do, in minor units."""
    total = invoice["total"]
    if total <= 0:
        return 0, total, 0
    owed = total + balance
    if owed <= 0:
        return 0, total, 0
    if owed < money.minimum_charge(invoice["currency"]):
        return 0, -balance, owed
    return owed, -balance, 0


def finalize(world: World, invoice: Obj, *, tell: bool = True) -> Obj:
    """Draft → open, or straight to paid when nothing is due. Errors: 400 unless a draft."""
    if invoice["status"] != "draft":
        raise invalid(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice."
        )
    if world.settings.finalization_fails:
        raise _cannot_finalize(world, invoice)
    now = world.now()
    customer = world.get("customer", invoice["customer"])
    starting = customer["balance"]
    due, applied, small = amounts_at_finalization(invoice, starting)
    if applied:
        adjust(
            world, customer, applied, invoice["currency"], "applied_to_invoice",
            invoice=invoice["id"],
        )  # fmt: skip
    if small:
        adjust(
            world, customer, small, invoice["currency"], "invoice_too_small", invoice=invoice["id"]
        )
    invoice.update(
        amount_due=due,
        amount_remaining=due,
        automatically_finalizes_at=None,
        effective_at=now,
        ending_balance=customer["balance"],
        hosted_invoice_url=f"https://invoice.stripe.com/i/{invoice['id']}",
        last_finalization_error=None,
        invoice_pdf=f"https://pay.stripe.com/invoice/{invoice['id']}/pdf",
        number=f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}",
        starting_balance=starting,
        status="open",
    )
    customer["next_invoice_sequence"] += 1
    invoice["status_transitions"]["finalized_at"] = now
    if invoice["collection_method"] == "send_invoice":
        invoice["due_date"] = invoice["due_date"] or now + DAY_S * (
            invoice.get("_days_until_due") or 0
        )
        world.schedule(invoice["due_date"], "overdue", invoice["id"])
    if due:
        card_payments.open_for(world, invoice)
    if tell:
        world.emit("invoice.finalized", invoice)
    if not due:
        mark_paid(world, invoice)
    elif invoice["auto_advance"]:
        plan_attempt(world, invoice, now + HOUR_S)
    return invoice


def _cannot_finalize(world: World, invoice: Obj) -> StripeError:
    error = invalid(
        "The customer's location isn't recognized. Set a valid customer address in order to "
        "automatically calculate tax.",
        code="customer_tax_location_invalid",
    )
    invoice["last_finalization_error"] = dict(error.error)
    world.emit("invoice.finalization_failed", invoice)
    return error


def plan_attempt(world: World, invoice: Obj, at_s: int | None) -> None:
    """Set or clear the next automatic card payment."""
    if invoice["collection_method"] != "charge_automatically":
        at_s = None
    invoice["next_payment_attempt"] = at_s
    if at_s is not None:
        world.schedule(at_s, "retry", invoice["id"])


def mark_paid(world: World, invoice: Obj, *, out_of_band: bool = False) -> None:
    """The whole remainder is paid: by a card, out of band, or because nothing was due."""
    remainder = invoice["amount_remaining"]
    invoice.update(
        amount_paid=invoice["amount_paid"] + remainder,
        amount_remaining=0,
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
        status="paid",
    )
    if out_of_band:
        invoice["amount_paid_off_stripe"] += remainder
        card_payments.cancel_for(world, invoice)
    invoice["status_transitions"]["paid_at"] = world.now()
    world.emit("invoice.updated", invoice, {"status": "open"})
    world.emit("invoice.paid", invoice)
    world.emit("invoice.payment_succeeded", invoice)
    locked = out_of_band and not world.settings.out_of_band_activates
    subscription_status.invoice_settled(world, invoice, may_activate=not locked)


def void(world: World, invoice: Obj) -> None:
    """Open or uncollectible → void; the applied balance goes back. Errors: 400 otherwise."""
    if invoice["status"] not in ("open", "uncollectible"):
        raise invalid(
            f"You can only pass in open invoices. This invoice isn't open, it is "
            f"{invoice['status']}."
        )
    before = view(world, invoice)
    invoice.update(status="void", auto_advance=False, next_payment_attempt=None)
    invoice["status_transitions"]["voided_at"] = world.now()
    card_payments.cancel_for(world, invoice)
    _return_balance(world, invoice)
    world.emit_change("invoice.updated", invoice, before)
    world.emit("invoice.voided", invoice)
    subscription_status.invoice_abandoned(world, invoice)


def _return_balance(world: World, invoice: Obj) -> None:
    customer = world.get("customer", invoice["customer"])
    applied = sum(
        t["amount"]
        for t in world.table("customer_balance_transaction").values()
        if t["invoice"] == invoice["id"] and t["type"] == "applied_to_invoice"
    )
    if applied and not customer.get("deleted"):
        adjust(
            world, customer, -applied, invoice["currency"], "unapplied_from_invoice",
            invoice=invoice["id"],
        )  # fmt: skip


def uncollectible(world: World, invoice: Obj) -> None:
    """Open → uncollectible, which can still be paid. Errors: 400 otherwise."""
    if invoice["status"] != "open":
        raise invalid(
            f"You can only mark open invoices uncollectible; this one is {invoice['status']}."
        )
    before = view(world, invoice)
    invoice.update(status="uncollectible", auto_advance=False, next_payment_attempt=None)
    invoice["status_transitions"]["marked_uncollectible_at"] = world.now()
    world.emit_change("invoice.updated", invoice, before)
    world.emit("invoice.marked_uncollectible", invoice)
    subscription_status.invoice_abandoned(world, invoice)
