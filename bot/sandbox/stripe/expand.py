"""`expand[]`: ids replaced by their objects along dotted paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.world import World, view

MAX_DEPTH = 4  # docs: expanding, up to four levels
Include = Callable[[World, Obj], Any]
_includes: dict[tuple[str, str], Include] = {}


def includable(kind: str, name: str) -> Callable[[Include], Include]:
    """Registers a field shown only when it is asked for, such as `invoice.payments`."""

    def register(fn: Include) -> Include:
        _includes[kind, name] = fn
        return fn

    return register


_KINDS = {
    "account": "account",
    "balance_transactions": "customer_balance_transaction",
    "credit_notes": "credit_note",
    "customers": "customer",
    "disputes": "dispute",
    "events": "event",
    "invoice_payments": "invoice_payment",
    "invoiceitems": "invoiceitem",
    "invoices": "invoice",
    "lines": "line_item",
    "payment_intents": "payment_intent",
    "payment_methods": "payment_method",
    "prices": "price",
    "products": "product",
    "refunds": "refund",
    "sessions": "checkout.session",
    "setup_intents": "setup_intent",
    "subscription_items": "subscription_item",
    "subscriptions": "subscription",
}
# What may be expanded, by kind: dotted path to the field → kind found there ("" for a plain one).
_TARGETS: dict[str, dict[str, str]] = {
    "checkout.session": {"customer": "customer", "setup_intent": "setup_intent"},
    "credit_note": {"customer": "customer", "invoice": "invoice"}
    | {"customer_balance_transaction": "customer_balance_transaction"},
    "customer": {
        "default_source": "",
        "invoice_settings.default_payment_method": "payment_method",
        "subscriptions": "",
        "subscriptions.data": "subscription",
    },
    "customer_balance_transaction": {
        "credit_note": "credit_note",
        "customer": "customer",
        "invoice": "invoice",
    },
    "dispute": {"payment_intent": "payment_intent"},
    "invoice": {
        "confirmation_secret": "",
        "customer": "customer",
        "default_payment_method": "payment_method",
        "lines": "",
        "lines.data": "line_item",
        "parent.subscription_details.subscription": "subscription",
        "payments": "",
        "payments.data": "invoice_payment",
    },
    "invoice_payment": {"invoice": "invoice", "payment.payment_intent": "payment_intent"},
    "invoiceitem": {
        "customer": "customer",
        "invoice": "invoice",
        "pricing.price_details.price": "price",
    },
    "line_item": {"pricing.price_details.price": "price", "subscription": "subscription"},
    "payment_intent": {
        "customer": "customer",
        "latest_charge": "",
        "payment_method": "payment_method",
    },
    "payment_method": {"customer": "customer"},
    "price": {"product": "product"},
    "product": {"default_price": "price"},
    "refund": {"payment_intent": "payment_intent"},
    "setup_intent": {"customer": "customer", "payment_method": "payment_method"},
    "subscription": {
        "customer": "customer",
        "default_payment_method": "payment_method",
        "items": "",
        "items.data": "subscription_item",
        "latest_invoice": "invoice",
        "pending_setup_intent": "",
        "schedule": "",
    },
    "subscription_item": {"price": "price"},
}


def check(url: str, listing: bool, paths: list[str]) -> None:
    """Before anything is written. Errors: 400 for a path that leads nowhere or too deep."""
    known = [_KINDS[s] for s in url.split("/") if s in _KINDS]
    for path in paths:
        parts = path.split(".")
        if len(parts) - (parts[0] == "data") > MAX_DEPTH + 2:  # containers do not count
            raise invalid(
                f"You cannot expand more than {MAX_DEPTH} levels of a property.", param="expand"
            )
        kind = known[-1] if known else ""
        if listing:
            kind = kind if parts.pop(0) == "data" else ""
        if not _leads(kind, parts):
            raise invalid(
                f"This property cannot be expanded ({path[:120]}).", param="expand[0]", saved=False
            )


def _leads(kind: str, parts: list[str]) -> bool:
    if not parts:
        return bool(kind)
    for size in range(len(parts), 0, -1):
        target = _TARGETS.get(kind, {}).get(".".join(parts[:size]))
        if target is not None and (size == len(parts) or _leads(target, parts[size:])):
            return True
    return False


def expand(world: World, shown: Obj, paths: list[str]) -> Obj:
    """Expand in place, shorter paths first; `check` has refused what leads nowhere."""
    for path in sorted(set(paths), key=lambda p: p.count(".")):
        parts = path.split(".")
        _walk(world, shown, parts)
    return shown


def _walk(world: World, node: Any, parts: list[str]) -> None:
    if isinstance(node, list):
        for element in node:
            _walk(world, element, parts)
        return
    if not isinstance(node, dict) or not parts:
        return
    name, rest = parts[0], parts[1:]
    include = _includes.get((str(node.get("object")), name))
    if include and name not in node:
        node[name] = include(world, node)
    value = node.get(name)
    if isinstance(value, str):
        target = world.by_id.get(value)
        if target is None:
            return
        value = node[name] = view(world, target)
    elif isinstance(value, list):
        value[:] = [_object(world, v) for v in value]
    if rest:
        _walk(world, value, rest)


def _object(world: World, value: Any) -> Any:
    target = world.by_id.get(value) if isinstance(value, str) else None
    return view(world, target) if target is not None else value
