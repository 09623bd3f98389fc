"""Subscriptions: create, read, change, cancel, resume, list."""

from __future__ import annotations

from typing import Any

from bot.sandbox.stripe import card_payments, invoice_flow, invoice_lines, limits, payment_methods
from bot.sandbox.stripe import subscription_change as change
from bot.sandbox.stripe.customers import living, settle_currency
from bot.sandbox.stripe.errors import Obj, StripeError, invalid, missing
from bot.sandbox.stripe.prices import as_plan
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, unset, within
from bot.sandbox.stripe.subscription_life import cancel_now, period_end, watch
from bot.sandbox.stripe.subscription_status import TERMINAL, set_status
from bot.sandbox.stripe.world import World, list_of, view, viewer

_SETTINGS = (
    "cancel_at cancel_at_period_end collection_method days_until_due default_payment_method "
    "description items metadata off_session payment_behavior payment_settings proration_behavior "
)
_NOTHING = (
    "application application_fee_percent billing_cycle_anchor_config billing_thresholds "
    "cancel_at canceled_at default_source ended_at latest_invoice "
    "next_pending_invoice_item_invoice on_behalf_of pause_collection "
    "pending_invoice_item_interval pending_setup_intent pending_update schedule test_clock "
    "transfer_data trial_end trial_settings trial_start"
)  # null at first
_ONE = "/v1/subscriptions/{subscription_exposed_id}"


@viewer("subscription")
def _view(world: World, stored: Obj, shown: Obj) -> None:
    items = [view(world, i) for i in stored["_items"]]
    shown["items"] = list_of(items, f"/v1/subscription_items?subscription={stored['id']}")


@viewer("subscription_item")
def _view_item(world: World, stored: Obj, shown: Obj) -> None:
    price = world.get("price", stored["_price"])
    shown["price"] = view(world, price)
    shown["plan"] = as_plan(price)


@operation(
    "POST",
    "/v1/subscriptions",
    "SubscriptionCreateParams",
    _SETTINGS + "billing_mode currency customer",
)
def create(call: Call) -> Obj:
    """Everything is checked before anything is written."""
    world = call.world
    if not call.get("customer"):
        raise invalid(
            "Missing required param: customer.", param="customer", code="parameter_missing"
        )
    customer = living(world, call.params["customer"])
    sub = _fresh(call, customer)
    _set_items(call, sub, customer)
    behavior = call.get("payment_behavior", "allow_incomplete")
    first = [
        invoice_lines.for_item(world, sub, i, i["current_period_start"], i["current_period_end"])
        for i in sub["_items"]
    ]
    pending = invoice_lines.pending_items(world, customer["id"], sub["currency"], (None,))
    total = sum(line["amount"] for line in first) + sum(p["amount"] for p in pending)
    automatic = sub["collection_method"] == "charge_automatically"
    if automatic and total > 0 and behavior != "default_incomplete":
        _card_or_refuse(world, sub, customer, behavior)
    sub["status"] = "incomplete" if automatic and total > 0 else "active"
    world.add(sub)
    for item in sub["_items"]:
        world.add(item)
    invoice = invoice_flow.draft(
        world,
        customer,
        currency=sub["currency"],
        reason="subscription_create",
        lines=first,
        pending=pending,
        subscription=sub,
        collection_method=sub["collection_method"],
        days_until_due=sub["days_until_due"],
        auto_advance=not automatic,
    )
    sub["latest_invoice"] = invoice["id"]
    if automatic:
        _finalize_or_leave(world, invoice)
    if sub["status"] == "incomplete":
        world.schedule(sub["created"] + world.settings.incomplete_s, "expire", sub["id"])
    world.emit("customer.subscription.created", sub)
    if invoice["status"] == "open" and automatic and behavior != "default_incomplete":
        card_payments.attempt(world, invoice, automatic=True)
    watch(world, sub)
    return sub


def _finalize_or_leave(world: World, invoice: Obj) -> None:
    """A tax or address problem leaves the draft; the call itself succeeds."""
    try:
        invoice_flow.finalize(world, invoice)
    except StripeError:
        invoice["auto_advance"] = False


def _fresh(call: Call, customer: Obj) -> Obj:
    world, now = call.world, call.world.now()
    mode = (call.get("billing_mode") or {}).get("type", "flexible")
    method = call.get("collection_method", "charge_automatically")
    days = call.get("days_until_due")
    if days is not None and days < 0:
        raise invalid("Invalid non-negative integer", param="days_until_due")
    if method == "send_invoice":
        if days is None:
            raise invalid(
                "If `collection_method` is `send_invoice`, you must pass `days_until_due`.",
                param="days_until_due",
            )
        if not customer["email"]:
            raise invalid(
                "Missing email. In order to create invoices that are sent to the customer, the "
                "customer must have a valid email.",
                param="customer",
            )
    elif days is not None:
        raise invalid(
            "`days_until_due` is only for `collection_method=send_invoice`.",
            param="days_until_due",
        )
    default = unset(call.get("default_payment_method"))
    if default:
        payment_methods.usable(world, default, customer, "default_payment_method")
    sub: Obj = {
        "id": world.new_id("sub"),
        "object": "subscription",
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now,
        "billing_mode": {"type": mode, "flexible": None, "updated_at": None},
        "billing_schedules": [],
        "cancel_at_period_end": False,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": method,
        "created": now,
        "customer": customer["id"],
        "days_until_due": days,
        "default_payment_method": default,
        "default_tax_rates": [],
        "description": unset(call.get("description")),
        "discounts": [],
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "livemode": False,
        "metadata": merge_metadata(None, call.get("metadata")),
        "payment_settings": _payment_settings(call),
        "start_date": now,
        "status": "incomplete",
        **dict.fromkeys(_NOTHING.split()),
        "_items": [],
    }
    if mode == "flexible":
        sub["billing_mode"]["flexible"] = {"proration_discounts": "included"}
    return sub


def _payment_settings(call: Call) -> Obj:
    given = call.get("payment_settings") or {}
    return {
        "payment_method_options": None,
        "payment_method_types": unset(given.get("payment_method_types")),
        "save_default_payment_method": given.get("save_default_payment_method", "off"),
    }


def _set_items(call: Call, sub: Obj, customer: Obj) -> None:
    world = call.world
    given = call.get("items")
    if not given:
        raise invalid("Missing required param: items.", param="items", code="parameter_missing")
    for n, entry in enumerate(given):
        item = change.new_item(world, sub, entry, f"items[{n}]")
        sub.setdefault("currency", world.get("price", item["_price"])["currency"])
        item["current_period_start"] = world.now()
        item["current_period_end"] = period_end(world, sub, item, world.now())
        sub["_items"].append(item)
    if call.get("currency") not in (None, sub["currency"]):
        raise invalid("The prices have another currency.", param="currency")
    change.refuse_duplicates(sub["_items"])
    settle_currency(customer, sub["currency"])
    _cancel_at(call, sub)


def _card_or_refuse(world: World, sub: Obj, customer: Obj, behavior: str) -> None:
    named = sub["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    if not named:
        raise invalid(card_payments.NO_SOURCE, code="resource_missing")
    held = world.get("payment_method", named)["_behaviour"]
    if behavior == "error_if_incomplete" and held in payment_methods.DECLINES:
        raise payment_methods.declined(held)
    if behavior == "error_if_incomplete" and held == payment_methods.ACTION:
        raise invalid(
            "Payment for this subscription requires additional user action before it can be "
            "completed successfully.",
            code="subscription_payment_intent_requires_action",
            status=402,
        )


@operation("GET", _ONE, "SubscriptionRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One subscription, ended ones too."""
    return call.world.get("subscription", call.ids["subscription_exposed_id"])


@operation(
    "POST",
    _ONE,
    "SubscriptionUpdateParams",
    _SETTINGS + "billing_cycle_anchor cancellation_details proration_date",
)
def update(call: Call) -> Obj:
    """Items change together: all or nothing, one event."""
    world, sub = call.world, retrieve(call)
    _refuse_locked(world, sub, call.params)
    metadata = merge_metadata(sub["metadata"], call.get("metadata"))
    customer = living(world, sub["customer"])
    default = unset(call.get("default_payment_method"))
    if default:
        payment_methods.usable(world, default, customer, "default_payment_method")
    anchor = call.get("billing_cycle_anchor")
    if anchor not in (None, "unchanged") and (anchor or {}).get("type") != "unchanged":
        raise invalid("Only the unchanged anchor exists here.", param="billing_cycle_anchor")
    behavior = call.get("proration_behavior", "create_prorations")
    at = call.get("proration_date") or world.now()
    changes = change.plan(world, sub, call.get("items") or [])
    prorated = [] if behavior == "none" else change.prorations(world, sub, changes, at)
    before = view(world, sub)
    if any(c.old and c.new and c.old["quantity"] != c.new["quantity"] for c in changes):
        limits.count(world, sub, "quantity_updates", limits.QUANTITY_UPDATES)
    if behavior == "always_invoice" and prorated:
        limits.count(world, sub, "invoices", limits.INVOICES)
    _cancel_at(call, sub)
    _simple(call, sub, metadata, default)
    change.apply(sub, changes)
    for edit in changes:
        if edit.new is not None:
            world.add(edit.new)
        elif edit.old is not None:
            world.remove(edit.old)
    _bill(call, sub, customer, prorated, behavior)
    watch(world, sub)
    world.emit_change("customer.subscription.updated", sub, before)
    return sub


def _refuse_locked(world: World, sub: Obj, params: Obj) -> None:
    wanted = set(params) - {"expand", "metadata", "cancellation_details"}
    if sub["status"] in TERMINAL and wanted:
        raise invalid(
            "A canceled subscription can only update its cancellation_details and metadata.",
            param=sorted(wanted)[0],
        )
    wanted -= {"default_payment_method", "payment_settings", "off_session"}
    if sub["status"] == "incomplete" and world.settings.incomplete_is_locked and wanted:
        raise invalid(
            "When a subscription is incomplete, only metadata and its payment source can be "
            "updated.",
            param=sorted(wanted)[0],
        )


def _simple(call: Call, sub: Obj, metadata: Obj, default: str | None) -> None:
    sub["metadata"] = metadata
    if "default_payment_method" in call.params:
        sub["default_payment_method"] = default
    if "description" in call.params:
        sub["description"] = unset(call.params["description"])
    for name in ("collection_method", "days_until_due"):
        if name in call.params:
            sub[name] = call.params[name]
    if "payment_settings" in call.params:
        sub["payment_settings"] = _payment_settings(call)
    if isinstance(call.get("cancellation_details"), dict):
        sub["cancellation_details"].update(
            {k: unset(v) for k, v in call.params["cancellation_details"].items()}
        )


def _cancel_at(call: Call, sub: Obj) -> None:
    ends = [i["current_period_end"] for i in sub["_items"]]
    end = min(ends)
    wanted: Any = unset(call.get("cancel_at"))
    if isinstance(wanted, str):  # min_period_end, max_period_end
        wanted = max(ends) if wanted.startswith("max") else end
    if wanted is not None and (wanted <= call.world.now() or call.get("cancel_at_period_end")):
        raise invalid("`cancel_at` must be in the future and stand alone.", param="cancel_at")
    if "cancel_at_period_end" in call.params:
        ending = call.params["cancel_at_period_end"]
        sub["cancel_at_period_end"] = ending
        sub["cancel_at"] = end if ending else None
        sub["canceled_at"] = call.world.now() if ending else None
        sub["cancellation_details"]["reason"] = "cancellation_requested" if ending else None
    if "cancel_at" in call.params:
        sub["cancel_at"] = wanted
        sub["canceled_at"] = call.world.now() if wanted else None
        sub["cancel_at_period_end"] = False


def _bill(call: Call, sub: Obj, customer: Obj, prorated: list[Obj], behavior: str) -> None:
    """Pending lines; with `always_invoice` an invoice now, charged to the card at once [unv]."""
    from bot.sandbox.stripe.invoiceitems import store

    world = call.world
    items = [store(world, i) for i in prorated]
    if behavior != "always_invoice" or not items:
        return
    invoice = invoice_flow.draft(
        world,
        customer,
        currency=sub["currency"],
        reason="subscription_update",
        lines=[],
        pending=items,
        subscription=sub,
        collection_method=sub["collection_method"],
        days_until_due=sub["days_until_due"],
    )
    sub["latest_invoice"] = invoice["id"]
    _finalize_or_leave(world, invoice)
    if invoice["status"] != "open" or sub["collection_method"] != "charge_automatically":
        return
    if call.get("payment_behavior") == "default_incomplete":
        set_status(world, sub, "past_due")
    else:
        card_payments.attempt(world, invoice, automatic=True)


@operation("DELETE", _ONE, "SubscriptionCancelParams", "cancellation_details invoice_now prorate")
def cancel(call: Call) -> Obj:
    """At once. `prorate` and `invoice_now` default to false; a second cancel is a 404."""
    from bot.sandbox.stripe.invoiceitems import store

    world, sub = call.world, retrieve(call)
    if sub["status"] in TERMINAL:
        raise missing("subscription", sub["id"], "id")
    if call.get("prorate") and sub["status"] != "incomplete":
        everything = [change.Change(i, None) for i in sub["_items"]]
        for item in change.prorations(world, sub, everything, world.now()):
            store(world, item)
    given = call.get("cancellation_details")
    details = {k: unset(v) for k, v in given.items()} if isinstance(given, dict) else None
    cancel_now(
        world,
        sub,
        "cancellation_requested",
        invoice_pending=call.get("invoice_now", False),
        details=details,
    )
    return sub


@operation(
    "GET",
    "/v1/subscriptions",
    "SubscriptionListParams",
    "collection_method created customer price status",
    listing=True,
)
def list_all(call: Call) -> Obj:
    """Without `status` the canceled ones are left out; `all` and `ended` as Stripe has them."""
    status = call.get("status")

    def wanted(sub: Obj) -> bool:
        if status is None:
            return bool(sub["status"] != "canceled")
        if status == "ended":
            return sub["status"] in TERMINAL
        return status in ("all", sub["status"])

    price = call.get("price")
    return page(
        call,
        (
            s
            for s in call.world.newest("subscription")
            if wanted(s)
            and call.get("customer") in (None, s["customer"])
            and call.get("collection_method") in (None, s["collection_method"])
            and (price is None or any(i["_price"] == price for i in s["_items"]))
            and within(s["created"], call.get("created"))
        ),
    )
