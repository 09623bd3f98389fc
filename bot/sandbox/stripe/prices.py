"""Prices, with lookup keys that can move from one price to another."""

from __future__ import annotations

from decimal import Decimal

from bot.sandbox.stripe import products
from bot.sandbox.stripe.customers import check_currency
from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.money import THREE_DECIMAL
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, unset, within
from bot.sandbox.stripe.world import World, view

MAX_LOOKUP_KEYS = 10  # docs: prices list, up to 10 lookup_keys
MAX_AMOUNT = 99_999_999_99  # twelve digits is where Stripe answers amount_too_large
_MAX_COUNT = {"day": 1095, "week": 156, "month": 36, "year": 3}  # docs: at most three years
_CREATE = (
    "active billing_scheme currency lookup_key metadata nickname product product_data recurring "
    "tax_behavior transfer_lookup_key unit_amount unit_amount_decimal"
)


@operation("POST", "/v1/prices", "PriceCreateParams", _CREATE)
def create(call: Call) -> Obj:
    """A per-unit price; recurring if `recurring` is given."""
    world = call.world
    currency = check_currency(call.params["currency"])
    if call.get("billing_scheme", "per_unit") != "per_unit":
        raise invalid("Tiered prices are not implemented here.", param="billing_scheme")
    amount, exact = _amounts(call, currency)
    recurring = _recurring(call.get("recurring"))
    metadata = merge_metadata(None, call.get("metadata"))
    named, data = call.get("product"), call.get("product_data")
    if bool(named) == bool(data):
        raise invalid(
            "You must specify either `product` or `product_data` when creating a price.",
            code="parameter_missing",
            param="product",
        )
    if named:
        world.get("product", named, "product", status=400)
    moved = _lookup_key(call, None)
    if data:
        fields = {k: v for k, v in data.items() if k not in ("name", "id", "metadata")}
        fields["metadata"] = merge_metadata(None, data.get("metadata"))
        named = products.make(world, data["name"], **fields)["id"]
    price: Obj = {
        "id": world.new_id("price"),
        "object": "price",
        "active": call.get("active", True),
        "billing_scheme": "per_unit",
        "created": world.now(),
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": call.get("lookup_key"),
        "metadata": metadata,
        "nickname": call.get("nickname"),
        "product": named,
        "recurring": recurring,
        "tax_behavior": call.get("tax_behavior", "unspecified"),
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if recurring else "one_time",
        "unit_amount": amount,
        "unit_amount_decimal": exact,
    }
    _take_over(world, moved)
    world.add(price)
    world.emit("price.created", price)
    return price


def _amounts(call: Call, currency: str) -> tuple[int | None, str]:
    amount, exact = call.get("unit_amount"), call.get("unit_amount_decimal")
    if (amount is None) == (exact is None):
        raise invalid(
            "You must specify exactly one of `unit_amount` and `unit_amount_decimal`.",
            param="unit_amount",
            code="parameter_missing",
        )
    value = Decimal(exact) if exact is not None else Decimal(amount)
    if value < 0:
        raise invalid(
            "Invalid non-negative integer", param="unit_amount", code="parameter_invalid_integer"
        )
    if value > MAX_AMOUNT:
        raise invalid("Amount is too large", param="unit_amount", code="amount_too_large")
    whole = int(value) if value == value.to_integral_value() else None
    if currency in THREE_DECIMAL and (whole is None or whole % 10):
        raise invalid(
            f"Invalid amount for {currency}: the last of its three decimals must be 0.",
            param="unit_amount",
        )
    return whole, format(value, "f")


def _recurring(given: Obj | None) -> Obj | None:
    if given is None:
        return None
    count = given.get("interval_count", 1)
    if not 1 <= count <= _MAX_COUNT[given["interval"]]:
        raise invalid(
            "The interval must be between one and three years at most.",
            param="recurring[interval_count]",
        )
    if given.get("usage_type", "licensed") != "licensed" or given.get("meter"):
        raise invalid("Metered prices are not implemented here.", param="recurring[usage_type]")
    return {
        "interval": given["interval"],
        "interval_count": count,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def _lookup_key(call: Call, own_id: str | None) -> Obj | None:
    """The price that now holds the wanted key, if it may be taken over."""
    key = call.get("lookup_key")
    if not key:
        return None
    if len(key) > 200:
        raise invalid("A lookup key has at most 200 characters.", param="lookup_key")
    for price in call.world.table("price").values():
        if price["lookup_key"] == key and price["id"] != own_id:
            if call.get("transfer_lookup_key"):
                return price
            raise invalid(
                f"A price (`{price['id']}`) already uses that lookup key.", param="lookup_key"
            )
    return None


def _take_over(world: World, holder: Obj | None) -> None:
    if holder is not None:
        before = view(world, holder)
        holder["lookup_key"] = None
        world.emit_change("price.updated", holder, before)


@operation("GET", "/v1/prices/{price}", "PriceRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One price."""
    return call.world.get("price", call.ids["price"], "price")


@operation(
    "POST",
    "/v1/prices/{price}",
    "PriceUpdateParams",
    "active lookup_key metadata nickname tax_behavior transfer_lookup_key",
)
def update(call: Call) -> Obj:
    """Amount and interval never change; archive and make a new price."""
    world = call.world
    price = world.get("price", call.ids["price"], "price")
    metadata = merge_metadata(price["metadata"], call.get("metadata"))
    moved = _lookup_key(call, price["id"])
    before = view(world, price)
    _take_over(world, moved)
    for name in ("active", "lookup_key", "nickname", "tax_behavior"):
        if name in call.params:
            price[name] = unset(call.params[name])
    price["metadata"] = metadata
    world.emit_change("price.updated", price, before)
    return price


@operation(
    "GET",
    "/v1/prices",
    "PriceListParams",
    "active created currency lookup_keys product recurring type",
    listing=True,
)
def list_all(call: Call) -> Obj:
    """Newest first; `lookup_keys` filters on at most ten."""
    keys = call.get("lookup_keys")
    if keys is not None and len(keys) > MAX_LOOKUP_KEYS:
        raise invalid(f"Array must have at most {MAX_LOOKUP_KEYS} elements.", param="lookup_keys")
    interval = (call.get("recurring") or {}).get("interval")
    return page(
        call,
        (
            p
            for p in call.world.newest("price")
            if call.get("active") in (None, p["active"])
            and (keys is None or p["lookup_key"] in keys)
            and call.get("product") in (None, p["product"])
            and call.get("currency") in (None, p["currency"])
            and call.get("type") in (None, p["type"])
            and (interval is None or (p["recurring"] or {}).get("interval") == interval)
            and within(p["created"], call.get("created"))
        ),
    )


def as_plan(price: Obj) -> Obj:
    """The legacy `plan` that subscription items still carry beside the price."""
    recurring = price["recurring"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": "per_unit",
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": dict(price["metadata"]),
        "meter": None,
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }
