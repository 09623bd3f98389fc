"""Changes of a subscription's items, and the prorations they cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bot.sandbox.stripe import invoiceitems, money
from bot.sandbox.stripe.errors import Obj, invalid, missing
from bot.sandbox.stripe.invoice_lines import pricing
from bot.sandbox.stripe.registry import merge_metadata
from bot.sandbox.stripe.subscription_life import period_end
from bot.sandbox.stripe.world import World

MAX_ITEMS = 20  # docs: a subscription has up to 20 items
MAX_QUANTITY = 999_999


@dataclass(frozen=True, slots=True)
class Change:
    """One item before and after; None on one side means added or removed."""

    old: Obj | None
    new: Obj | None


def recurring_price(world: World, price_id: str, currency: str | None, where: str) -> Obj:
    """Errors: 400 for a missing, archived, one-time price, or another currency."""
    price = world.get("price", price_id, where, status=400)
    if not price["active"]:
        raise invalid(
            f"The price specified is inactive. This field only accepts active prices: {price_id}",
            param=where,
        )
    if price["recurring"] is None:
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts prices "
            "with `type=recurring`.",
            param=where,
        )
    if currency not in (None, price["currency"]):
        raise invalid(
            "The price specified supports currencies of "
            f"`{price['currency']}`, but the subscription has `{currency}`.",
            param=where,
        )
    return price


def new_item(world: World, sub: Obj, given: Obj, where: str) -> Obj:
    """An item as it would be stored; its period is filled in by whoever knows the time."""
    for name in given:
        if name not in ("price", "quantity", "metadata"):
            raise invalid(f"Unsupported here: {where}[{name}]", param=f"{where}[{name}]")
    if not given.get("price"):
        raise invalid(
            f"Missing required param: {where}[price].",
            param=f"{where}[price]",
            code="parameter_missing",
        )
    price = recurring_price(world, given["price"], sub.get("currency"), f"{where}[price]")
    return {
        "id": world.new_id("si", 14),
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": world.now(),
        "current_period_end": 0,
        "current_period_start": 0,
        "discounts": [],
        "metadata": merge_metadata(None, given.get("metadata")),
        "quantity": _quantity(given.get("quantity", 1), where),
        "subscription": sub["id"],
        "tax_rates": [],
        "_price": price["id"],
    }


def _quantity(value: int, where: str) -> int:
    if not 0 <= value <= MAX_QUANTITY:
        raise invalid(
            "Invalid non-negative integer",
            param=f"{where}[quantity]",
            code="parameter_invalid_integer",
        )
    return value


def refuse_duplicates(items: list[Obj]) -> None:
    """Two items of one subscription may not share a price, and there is at least one item."""
    prices = [i["_price"] for i in items]
    if len(set(prices)) != len(prices):
        raise invalid(
            "Cannot add multiple subscription items with the same price: "
            + next(p for p in prices if prices.count(p) > 1),
            param="items",
        )
    if not items:
        raise invalid(
            "A subscription must have at least one active item. To end it, cancel it instead.",
            param="items",
        )
    if len(items) > MAX_ITEMS:
        raise invalid(f"A subscription can have at most {MAX_ITEMS} items.", param="items")


def plan(world: World, sub: Obj, given: list[Any]) -> list[Change]:
    """All changes of one update, checked together; nothing is written. Errors: 400."""
    changes: list[Change] = []
    items = {i["id"]: i for i in sub["_items"]}
    for n, entry in enumerate(given):
        where = f"items[{n}]"
        if not entry.get("id"):
            if entry.get("deleted"):
                raise invalid("Deleting an item needs its id.", param=f"{where}[id]")
            new = new_item(world, sub, entry, where)
            new["current_period_start"] = world.now()
            new["current_period_end"] = period_end(world, sub, new, world.now())
            changes.append(Change(None, new))
            continue
        old = items.get(entry["id"])
        if old is None or any(c.old is old for c in changes):
            raise missing("subscription item", entry["id"], f"{where}[id]", status=400)
        changes.append(
            Change(old, None if entry.get("deleted") else _edited(world, sub, old, entry, where))
        )
    touched = {c.old["id"] for c in changes if c.old}
    left = [i for i in sub["_items"] if i["id"] not in touched]
    refuse_duplicates(left + [c.new for c in changes if c.new])
    return changes


def _edited(world: World, sub: Obj, old: Obj, entry: Obj, where: str) -> Obj:
    for name in entry:
        if name not in ("id", "price", "quantity", "metadata", "deleted", "clear_usage"):
            raise invalid(f"Unsupported here: {where}[{name}]", param=f"{where}[{name}]")
    new = dict(old)
    if entry.get("price"):
        price = recurring_price(world, entry["price"], sub["currency"], f"{where}[price]")
        former = world.get("price", old["_price"])["recurring"]
        if price["recurring"] != former:
            raise invalid(
                "A price with another interval needs a new item here.", param=f"{where}[price]"
            )
        new["_price"] = price["id"]
        new["quantity"] = 1 if "quantity" not in entry else new["quantity"]
    if "quantity" in entry:
        new["quantity"] = _quantity(entry["quantity"], where)
    new["metadata"] = merge_metadata(old["metadata"], entry.get("metadata"))
    return new


def prorations(world: World, sub: Obj, changes: list[Change], at_s: int) -> list[Obj]:
    """Invoice items not stored: the whole old quantity credited, the new one debited."""
    out: list[Obj] = []
    begun = max((i["current_period_start"] for i in sub["_items"]), default=at_s)
    ends = min((i["current_period_end"] for i in sub["_items"]), default=at_s)
    if not begun <= at_s <= ends:
        raise invalid(
            "The proration date must be within the current period.", param="proration_date"
        )
    for change in changes:
        old, new = change.old, change.new
        if old and new and (old["_price"], old["quantity"]) == (new["_price"], new["quantity"]):
            continue
        if old:
            out.append(_part(world, sub, old, at_s, -1))
        if new:
            out.append(_part(world, sub, new, at_s, 1, is_new=old is None))
    return out


def _part(world: World, sub: Obj, item: Obj, at_s: int, sign: int, *, is_new: bool = False) -> Obj:
    price = world.get("price", item["_price"])
    start, end = item["current_period_start"], item["current_period_end"]
    recurring = price["recurring"]
    if is_new:  # the whole is the full cycle around it
        start = _cycle_start(sub, recurring, end)
    left = max(0, end - at_s)
    quantity = item["quantity"]
    product = world.by_id.get(price["product"], {"name": "?"})
    word = "Unused" if sign < 0 else "Remaining"
    return invoiceitems.build(
        world,
        customer=sub["customer"],
        currency=price["currency"],
        amount=money.share(
            price["unit_amount_decimal"], sign * quantity, left, max(1, end - start)
        ),
        description=f"{word} time on {quantity} × {product['name']}",
        period=(at_s, end),
        quantity=quantity,
        pricing=pricing(price),
        proration=True,
        parent={
            "subscription_details": {
                "subscription": sub["id"],
                "subscription_item": item["id"],
            },
            "type": "subscription_details",
        },
    )


def _cycle_start(sub: Obj, recurring: Obj, end: int) -> int:
    from bot.sandbox.stripe.periods import nth

    n = 0
    anchor, interval, count = (
        sub["billing_cycle_anchor"],
        recurring["interval"],
        recurring["interval_count"],
    )
    while nth(anchor, interval, count, n + 1) < end:
        n += 1
    return nth(anchor, interval, count, n)


def apply(sub: Obj, changes: list[Change]) -> None:
    """Write what `plan` checked."""
    for change in changes:
        if change.old is None and change.new is not None:
            sub["_items"].append(change.new)
        elif change.old is not None:
            at = next(n for n, i in enumerate(sub["_items"]) if i["id"] == change.old["id"])
            if change.new is None:
                del sub["_items"][at]
            else:
                sub["_items"][at] = change.new
