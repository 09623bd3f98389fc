"""A subscription in time: renewals counted from the anchor, expiry, cancellation."""

from __future__ import annotations

from bot.sandbox.stripe import card_payments, invoice_flow, invoice_lines, periods
from bot.sandbox.stripe.errors import Obj, StripeError
from bot.sandbox.stripe.subscription_status import LIVE, TERMINAL, set_status, subscription_of
from bot.sandbox.stripe.world import DAY_S, HOUR_S, World, view

__all__ = ["LIVE", "cancel_now", "finalize_due", "overdue", "period_end", "renew", "retry"]
MAX_ACK_WAIT_S = 72 * HOUR_S  # an unacknowledged invoice.created delays finalization this long


def period_end(world: World, sub: Obj, item: Obj, at_s: int) -> int:
    """The next boundary after `at_s`, from the subscription's anchor (no drift)."""
    recurring = world.get("price", item["_price"])["recurring"]
    return periods.next_after(
        sub["billing_cycle_anchor"], recurring["interval"], recurring["interval_count"], at_s
    )


def watch(world: World, sub: Obj) -> None:
    """Schedule the next boundary of every item, and a wanted end."""
    for item in sub["_items"]:
        world.schedule(item["current_period_end"], "renew", sub["id"])
    if sub["cancel_at"]:
        world.schedule(sub["cancel_at"], "renew", sub["id"])


def renew(world: World, sub: Obj) -> None:
    """At a boundary: end it if so asked, else new periods and a draft invoice."""
    now = world.now()
    if sub["status"] in (*TERMINAL, "incomplete"):
        return
    ended = [i for i in sub["_items"] if i["current_period_end"] <= now]
    if sub["cancel_at"] is not None and sub["cancel_at"] <= now:
        cancel_now(world, sub, "cancellation_requested", invoice_pending=True)
        return
    if not ended:
        return
    before = view(world, sub)
    old_period = (ended[0]["current_period_start"], ended[0]["current_period_end"])
    lines = []
    for item in ended:
        start = item["current_period_end"]
        item["current_period_start"] = start
        item["current_period_end"] = period_end(world, sub, item, start)
        lines.append(invoice_lines.for_item(world, sub, item, start, item["current_period_end"]))
    watch(world, sub)
    customer = world.get("customer", sub["customer"])
    pending = invoice_lines.pending_items(world, customer["id"], sub["currency"], (sub["id"], None))
    invoice = invoice_flow.draft(
        world,
        customer,
        currency=sub["currency"],
        reason="subscription_cycle",
        lines=lines,
        pending=pending,
        subscription=sub,
        collection_method=sub["collection_method"],
        days_until_due=sub["days_until_due"],
        auto_advance=sub["status"] != "unpaid",
        period=old_period,
    )
    sub["latest_invoice"] = invoice["id"]
    world.emit_change("customer.subscription.updated", sub, before)


def finalize_due(world: World, invoice: Obj) -> None:
    """About an hour after the webhooks were delivered: finalize, then charge."""
    if invoice["status"] != "draft" or not invoice["auto_advance"]:
        return
    now = world.now()
    due = invoice["automatically_finalizes_at"]
    if due is None or due > now:
        return
    told = world.table("event").get(invoice.get("_created_event") or "")
    if told and told["pending_webhooks"] and now < invoice["created"] + MAX_ACK_WAIT_S:
        later = min(now + world.settings.draft_s, invoice["created"] + MAX_ACK_WAIT_S)
        invoice["automatically_finalizes_at"] = later
        world.schedule(later, "finalize", invoice["id"])
        return
    try:
        invoice_flow.finalize(world, invoice)
    except StripeError:  # told as invoice.finalization_failed; tried again later
        world.schedule(now + DAY_S, "finalize", invoice["id"])
        invoice["automatically_finalizes_at"] = now + DAY_S
        return
    if invoice["status"] == "open" and invoice["collection_method"] == "charge_automatically":
        card_payments.attempt(world, invoice, automatic=True)


def retry(world: World, invoice: Obj) -> None:
    """The automatic charge that was planned, if it is still wanted."""
    planned = invoice["next_payment_attempt"]
    if invoice["status"] != "open" or not invoice["auto_advance"] or planned is None:
        return
    if planned <= world.now() and not card_payments.in_progress(world, invoice):
        card_payments.attempt(world, invoice, automatic=True)


def overdue(world: World, invoice: Obj) -> None:
    """A sent invoice passed its due date: past due, and later what the settings say."""
    from bot.sandbox.stripe.subscription_status import gave_up

    if invoice["status"] != "open" or invoice["due_date"] is None:
        return
    sub = subscription_of(world, invoice)
    last = invoice["due_date"] + world.settings.send_invoice_grace_days * DAY_S
    if world.now() >= last:
        gave_up(world, invoice)
        return
    if world.settings.overdue_automation:
        world.emit("invoice.overdue", invoice)
    if sub and sub["latest_invoice"] == invoice["id"] and sub["status"] == "active":
        set_status(world, sub, "past_due")
    world.schedule(last, "overdue", invoice["id"])


def cancel_now(
    world: World,
    sub: Obj,
    reason: str,
    *,
    invoice_pending: bool = False,
    details: Obj | None = None,
) -> None:
    """Terminal. Drafts and open invoices are not collected any further by themselves."""
    now = world.now()
    was_incomplete = sub["status"] == "incomplete"
    sub.update(
        status="incomplete_expired" if was_incomplete else "canceled",
        canceled_at=sub["canceled_at"] or now,
        ended_at=now,
        cancellation_details={"comment": None, "feedback": None, "reason": reason}
        | (details or {}),
    )
    if invoice_pending:
        _last_invoice(world, sub)
    for invoice in list(world.table("invoice").values()):
        if subscription_of(world, invoice) is not sub:
            continue
        if was_incomplete and invoice["status"] == "open":
            invoice_flow.void(world, invoice)
        elif invoice["status"] in ("draft", "open") and invoice["auto_advance"]:
            if invoice["billing_reason"] == "subscription_update":
                continue  # the last invoice of pending prorations is still collected
            before = view(world, invoice)
            invoice.update(
                auto_advance=False, automatically_finalizes_at=None, next_payment_attempt=None
            )
            world.emit_change("invoice.updated", invoice, before)
    world.emit("customer.subscription.deleted", sub)


def _last_invoice(world: World, sub: Obj) -> None:
    pending = invoice_lines.pending_items(world, sub["customer"], sub["currency"], (sub["id"],))
    if not pending:
        return
    invoice = invoice_flow.draft(
        world,
        world.get("customer", sub["customer"]),
        currency=sub["currency"],
        reason="subscription_update",
        lines=[],
        pending=pending,
        subscription=sub,
        collection_method=sub["collection_method"],
        days_until_due=sub["days_until_due"],
        auto_advance=True,
    )
    sub["latest_invoice"] = invoice["id"]
