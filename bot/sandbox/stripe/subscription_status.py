"""What an invoice's fate does to its subscription's status."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.world import World, view

TERMINAL = ("canceled", "incomplete_expired")
LIVE = ("incomplete", "active", "past_due", "unpaid", "trialing", "paused")


def subscription_of(world: World, invoice: Obj) -> Obj | None:
    """The subscription an invoice belongs to, by its parent."""
    details = (invoice["parent"] or {}).get("subscription_details")
    return world.table("subscription").get(details["subscription"]) if details else None


def set_status(world: World, sub: Obj, status: str) -> None:
    """Change and tell it, unless terminal or already so."""
    if sub["status"] in TERMINAL or sub["status"] == status:
        return
    before = view(world, sub)
    sub["status"] = status
    world.emit_change("customer.subscription.updated", sub, before)


def _delinquent(world: World, invoice: Obj, value: bool) -> None:
    customer = world.get("customer", invoice["customer"])
    if customer.get("deleted") or customer["delinquent"] == value:
        return
    before = view(world, customer)
    customer["delinquent"] = value
    world.emit_change("customer.updated", customer, before)


def invoice_settled(world: World, invoice: Obj, *, may_activate: bool) -> None:
    """Paying the latest invoice activates or revives; paying an older one changes nothing."""
    _delinquent(world, invoice, False)
    sub = subscription_of(world, invoice)
    if sub is None or sub["latest_invoice"] != invoice["id"]:
        return
    if sub["status"] in ("past_due", "unpaid") or (sub["status"] == "incomplete" and may_activate):
        set_status(world, sub, "active")


def invoice_abandoned(world: World, invoice: Obj) -> None:
    """Voided or written off: a first invoice ends its subscription, a late one frees it."""
    sub = subscription_of(world, invoice)
    if sub is None or sub["latest_invoice"] != invoice["id"]:
        return
    if sub["status"] == "incomplete" and invoice["status"] == "void":
        _expire(world, sub)
    elif sub["status"] in ("past_due", "unpaid"):
        set_status(world, sub, "active")


def payment_failed(world: World, invoice: Obj) -> None:
    """A failed charge makes an active subscription past due; an incomplete one stays."""
    _delinquent(world, invoice, True)
    sub = subscription_of(world, invoice)
    if sub is not None and sub["status"] == "active" and sub["latest_invoice"] == invoice["id"]:
        set_status(world, sub, "past_due")


def gave_up(world: World, invoice: Obj) -> None:
    """After the last retry the Dashboard setting decides: cancel, unpaid, or stay past due."""
    from bot.sandbox.stripe.subscription_life import cancel_now

    sub = subscription_of(world, invoice)
    if sub is None or sub["latest_invoice"] != invoice["id"] or sub["status"] not in LIVE:
        return
    match world.settings.after_last_retry:
        case "cancel":
            cancel_now(world, sub, "payment_failed")
        case "unpaid":
            set_status(world, sub, "unpaid")
        case "past_due":
            pass


def _expire(world: World, sub: Obj) -> None:
    before = view(world, sub)
    sub["status"] = "incomplete_expired"
    sub["ended_at"] = world.now()
    world.emit_change("customer.subscription.updated", sub, before)


def expire_incomplete(world: World, sub: Obj) -> None:
    """23 h passed: terminal, and the first invoice is voided."""
    from bot.sandbox.stripe.invoice_flow import void

    if sub["status"] != "incomplete":
        return
    invoice = world.table("invoice").get(sub["latest_invoice"] or "")
    _expire(world, sub)
    if invoice and invoice["status"] in ("open", "uncollectible"):
        void(world, invoice)
