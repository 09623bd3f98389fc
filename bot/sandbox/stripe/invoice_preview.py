"""`create_preview`: the next invoice, or the quote of a change, without writing anything."""

from __future__ import annotations

from bot.sandbox.stripe import invoice_flow, invoice_lines
from bot.sandbox.stripe import subscription_change as change
from bot.sandbox.stripe.customers import living
from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, operation
from bot.sandbox.stripe.subscription_life import period_end
from bot.sandbox.stripe.subscription_status import TERMINAL
from bot.sandbox.stripe.world import view

_DETAILS = frozenset(["items", "proration_behavior", "proration_date", "billing_mode"])


@operation(
    "POST",
    "/v1/invoices/create_preview",
    "InvoiceCreatePreviewParams",
    "customer subscription subscription_details",
)
def create(call: Call) -> Obj:
    """`always_invoice` shows the prorations alone; otherwise the renewal that will carry them."""
    world = call.world
    details = call.get("subscription_details") or {}
    for name in details:
        if name not in _DETAILS:
            raise invalid(f"Unsupported here: {name}", param=f"subscription_details[{name}]")
    if not call.get("subscription"):
        return _of_new(call, details)
    sub = world.get("subscription", call.params["subscription"], "subscription", status=400)
    if sub["status"] in TERMINAL:
        raise invalid("No upcoming invoices for this subscription", code="invoice_upcoming_none")
    customer = living(world, sub["customer"])
    behavior = details.get("proration_behavior", "create_prorations")
    at = details.get("proration_date") or world.now()
    changes = change.plan(world, sub, details.get("items") or [])
    prorated = [] if behavior == "none" else change.prorations(world, sub, changes, at)
    lines = [invoice_lines.for_invoice_item(world, i) for i in prorated]
    alone = behavior == "always_invoice" and bool(changes)
    if not alone:
        pending = invoice_lines.pending_items(
            world, customer["id"], sub["currency"], (sub["id"], None)
        )
        lines = [invoice_lines.for_invoice_item(world, i) for i in pending] + lines
        lines += _renewal(call, sub, changes)
    if not lines:
        raise invalid("No upcoming invoices for this subscription", code="invoice_upcoming_none")
    reason = "subscription_update" if alone else "upcoming"
    return _shown(call, customer, sub["currency"], reason, sub, lines)


def _renewal(call: Call, sub: Obj, changes: list[change.Change]) -> list[Obj]:
    after = dict(sub, _items=list(sub["_items"]))
    change.apply(after, changes)
    if sub["cancel_at_period_end"]:
        return []
    end = min(i["current_period_end"] for i in after["_items"])
    return [
        invoice_lines.for_item(call.world, sub, item, end, period_end(call.world, sub, item, end))
        for item in after["_items"]
        if item["current_period_end"] == end
    ]


def _of_new(call: Call, details: Obj) -> Obj:
    """The first invoice of a subscription that does not exist yet."""
    world = call.world
    if not call.get("customer") or not details.get("items"):
        raise invalid("Pass a subscription, or a customer with subscription_details[items].")
    customer = living(world, call.params["customer"])
    sub: Obj = {"id": "sub_preview", "billing_cycle_anchor": world.now(), "metadata": {}}
    items = []
    for n, given in enumerate(details["items"]):
        item = change.new_item(world, sub, given, f"subscription_details[items][{n}]")
        sub.setdefault("currency", world.get("price", item["_price"])["currency"])
        items.append(item)
    change.refuse_duplicates(items)
    now = world.now()
    lines = [
        invoice_lines.for_item(world, sub, i, now, period_end(world, sub, i, now)) for i in items
    ]
    return _shown(call, customer, sub["currency"], "upcoming", None, lines)


def _shown(
    call: Call, customer: Obj, currency: str, reason: str, sub: Obj | None, lines: list[Obj]
) -> Obj:
    invoice = invoice_flow.skeleton(call.world, customer, currency, reason, sub)
    invoice["id"] = call.world.new_id("upcoming_in")
    invoice.update(
        auto_advance=False,
        collection_method=sub["collection_method"] if sub else "charge_automatically",
        metadata={},
        period_start=call.world.now(),
        period_end=call.world.now(),
        _lines=lines,
    )
    invoice_flow.total_up(invoice)
    balance = customer["balance"]
    due, _, _ = invoice_flow.amounts_at_finalization(invoice, balance)
    shown = view(call.world, invoice)
    shown["amount_due"] = shown["amount_remaining"] = due
    shown["starting_balance"] = balance
    shown["ending_balance"] = min(0, balance + invoice["total"])
    return shown
