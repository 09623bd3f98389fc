"""Invoice lines, from subscription items and from pending invoice items."""

from __future__ import annotations

from bot.sandbox.stripe import money
from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.world import World


def pricing(price: Obj) -> Obj:
    """The `pricing` of a line or invoice item."""
    return {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def for_item(world: World, sub: Obj, item: Obj, start: int, end: int) -> Obj:
    """A whole period of one subscription item."""
    price = world.get("price", item["_price"])
    quantity = item["quantity"]
    product = world.by_id.get(price["product"], {"name": "?"})
    return _line(
        world,
        amount=money.times(price["unit_amount_decimal"], quantity),
        currency=price["currency"],
        description=f"{quantity} × {product['name']}",
        period={"start": start, "end": end},
        quantity=quantity,
        pricing=pricing(price),
        metadata=dict(item["metadata"]),
        subscription=sub["id"],
        parent={
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "proration_details": None,
                "subscription": sub["id"],
                "subscription_item": item["id"],
            },
            "type": "subscription_item_details",
        },
    )


def for_invoice_item(world: World, item: Obj) -> Obj:
    """A pending invoice item; a proration belongs to its subscription item."""
    details = (item["parent"] or {}).get("subscription_details") or {}
    sub, si = details.get("subscription"), details.get("subscription_item")
    common: Obj = {
        "invoice_item": item["id"],
        "proration": item["proration"],
        "proration_details": {"credited_items": None} if item["proration"] else None,
        "subscription": sub,
    }
    kind = "subscription_item_details" if item["proration"] and si else "invoice_item_details"
    if kind == "subscription_item_details":
        common["subscription_item"] = si
    parent: Obj = {"invoice_item_details": None, "subscription_item_details": None, "type": kind}
    parent[kind] = common
    return _line(
        world,
        amount=item["amount"],
        currency=item["currency"],
        description=item["description"],
        period=dict(item["period"]),
        quantity=item["quantity"],
        pricing=item["pricing"],
        metadata=dict(item["metadata"]),
        subscription=sub,
        parent=parent,
        discountable=item["discountable"],
    )


def _line(
    world: World,
    *,
    amount: int,
    currency: str,
    quantity: int,
    discountable: bool = True,
    **fields: object,
) -> Obj:
    return {
        "id": world.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "discount_amounts": [],
        "discountable": discountable,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "pretax_credit_amounts": [],
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subtotal": amount,
        "taxes": [],
        **fields,
    }


def pending_items(
    world: World, customer_id: str, currency: str, subscriptions: tuple[str | None, ...]
) -> list[Obj]:
    """Pending items of the customer that belong to one of `subscriptions` (None: to none)."""
    out = []
    for item in world.table("invoiceitem").values():
        details = (item["parent"] or {}).get("subscription_details") or {}
        if (
            item["invoice"] is None
            and item["customer"] == customer_id
            and item["currency"] == currency
            and details.get("subscription") in subscriptions
        ):
            out.append(item)
    return out


def take(world: World, invoice: Obj, items: list[Obj]) -> None:
    """Move pending invoice items onto a draft as lines."""
    for item in items:
        item["invoice"] = invoice["id"]
        line = for_invoice_item(world, item)
        line["invoice"] = invoice["id"]
        invoice["_lines"].append(line)
