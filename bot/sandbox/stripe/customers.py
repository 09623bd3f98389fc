"""Customers: create, read, change, list, delete."""

from __future__ import annotations

from bot.sandbox.stripe import money
from bot.sandbox.stripe.balance import adjust
from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.expand import includable
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, unset, within
from bot.sandbox.stripe.world import World, list_of, view

_PLAIN = ("address", "description", "email", "name", "phone", "shipping", "tax_exempt")
_TAKES = "balance invoice_settings metadata preferred_locales " + " ".join(_PLAIN)


@operation("POST", "/v1/customers", "CustomerCreateParams", _TAKES + " payment_method")
def create(call: Call) -> Obj:
    """A customer; with `payment_method`, attached."""
    from bot.sandbox.stripe.payment_methods import attach_to, attachable

    world = call.world
    metadata = merge_metadata(None, call.get("metadata"))
    _check_email(call)
    method = call.get("payment_method")
    default = (call.get("invoice_settings") or {}).get("default_payment_method")
    if default and default != method:
        raise invalid(
            "The default payment method must be attached: pass it as payment_method too.",
            param="invoice_settings[default_payment_method]",
            code="resource_missing",
        )
    if method:
        attachable(world, method)
    customer: Obj = {
        "id": world.new_id("cus", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": world.now(),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": world.new_id("x", 8)[2:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": metadata,
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }
    _apply(call, customer)
    world.add(customer)
    if method:
        attached = attach_to(world, method, customer)
        if default:
            customer["invoice_settings"]["default_payment_method"] = attached["id"]
    world.emit("customer.created", customer)
    if call.get("balance"):
        adjust(world, customer, call.get("balance"), "usd", "initial")
    return customer


def living(world: World, customer_id: str, param: str = "customer", status: int = 400) -> Obj:
    """A customer that exists and is not deleted. Errors: `resource_missing`."""
    customer = world.get("customer", customer_id, param, status=status)
    if customer.get("deleted"):
        raise invalid(
            f"No such customer: '{customer_id}'",
            param=param,
            code="resource_missing",
            status=status,
        )
    return customer


def settle_currency(customer: Obj, currency: str) -> None:
    """The first money fixes a customer's currency. Errors: 400 when another comes later."""
    if customer["currency"] not in (None, currency):
        raise invalid(
            "You cannot combine currencies on a single customer. This customer has an active "
            f"subscription, balance or invoice with currency {customer['currency']}.",
            param="currency",
        )


def _check_email(call: Call) -> None:
    email = call.get("email")
    if email and ("@" not in email.strip("@") or " " in email or len(email) > 512):
        raise invalid(f"Invalid email address: {email[:80]}", param="email", code="email_invalid")


def _apply(call: Call, customer: Obj) -> None:
    for name in _PLAIN:
        if name in call.params:
            value = unset(call.params[name])
            customer[name] = "none" if name == "tax_exempt" and value is None else value
    if "preferred_locales" in call.params:
        customer["preferred_locales"] = call.params["preferred_locales"]
    settings = call.get("invoice_settings")
    if isinstance(settings, dict):
        for name, value in settings.items():
            if name != "default_payment_method":
                customer["invoice_settings"][name] = unset(value)


@operation("GET", "/v1/customers/{customer}", "CustomerRetrieveParams")
def retrieve(call: Call) -> Obj:
    """A deleted customer answers with `deleted: true`, not 404."""
    return call.world.get("customer", call.ids["customer"])


@operation("POST", "/v1/customers/{customer}", "CustomerUpdateParams", _TAKES)
def update(call: Call) -> Obj:
    """Metadata merges; a new `balance` is recorded as an adjustment."""
    from bot.sandbox.stripe.payment_methods import usable

    world = call.world
    customer = living(world, call.ids["customer"], "id", 404)
    metadata = merge_metadata(customer["metadata"], call.get("metadata"))
    _check_email(call)
    before = view(world, customer)
    settings = call.get("invoice_settings")
    if isinstance(settings, dict) and "default_payment_method" in settings:
        named = unset(settings["default_payment_method"])
        if named:
            pm = usable(world, named, customer)
            named = pm["id"]
        customer["invoice_settings"]["default_payment_method"] = named
    _apply(call, customer)
    customer["metadata"] = metadata
    wanted = call.get("balance")
    if wanted is not None and wanted != customer["balance"]:
        currency = customer["currency"] or "usd"
        adjust(world, customer, wanted - customer["balance"], currency, "adjustment")
    world.emit_change("customer.updated", customer, before)
    return customer


@operation("GET", "/v1/customers", "CustomerListParams", "created email", listing=True)
def list_all(call: Call) -> Obj:
    """Newest first, without the deleted."""
    email = call.get("email")
    return page(
        call,
        (
            c
            for c in call.world.newest("customer")
            if not c.get("deleted")
            and (email is None or c["email"] == email)
            and within(c["created"], call.get("created"))
        ),
    )


@operation("DELETE", "/v1/customers/{customer}", "CustomerDeleteParams")
def delete(call: Call) -> Obj:
    """Cancels the subscriptions at once; what remains is `{id, object, deleted}`."""
    from bot.sandbox.stripe.subscription_life import LIVE, cancel_now

    world = call.world
    customer = living(world, call.ids["customer"], "id", 404)
    for sub in list(world.table("subscription").values()):
        if sub["customer"] == customer["id"] and sub["status"] in LIVE:
            cancel_now(world, sub, "cancellation_requested")
    for item in list(world.table("invoiceitem").values()):
        if item["customer"] == customer["id"] and item["invoice"] is None:
            world.remove(item)
    world.emit("customer.deleted", customer)
    gone: Obj = {"id": customer["id"], "object": "customer", "deleted": True}
    customer.clear()
    customer.update(gone)
    return customer


@includable("customer", "subscriptions")
def _subscriptions(world: World, shown: Obj) -> Obj:
    own = [
        view(world, s)
        for s in world.newest("subscription")
        if s["customer"] == shown["id"] and s["status"] not in ("canceled", "incomplete_expired")
    ]
    return list_of(own, f"/v1/customers/{shown['id']}/subscriptions")


def check_currency(code: str, param: str = "currency") -> str:
    """Lower case. Errors: 400 for a currency Stripe does not know."""
    lower = code.lower()
    if lower not in money.KNOWN:
        raise invalid(
            f"Invalid currency: {code[:12]}. Stripe currently supports these currencies: "
            + ", ".join(sorted(money.KNOWN)),
            param=param,
        )
    return lower
