"""Subscription items, for reading; changes go through the subscription as one update."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.registry import Call, operation, page


@operation(
    "GET", "/v1/subscription_items", "SubscriptionItemListParams", "subscription", listing=True
)
def list_all(call: Call) -> Obj:
    """Those of one subscription."""
    world = call.world
    sub = world.get("subscription", call.params["subscription"], "subscription")
    return page(call, reversed(sub["_items"]))


@operation("GET", "/v1/subscription_items/{item}", "SubscriptionItemRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One item."""
    return call.world.get("subscription_item", call.ids["item"], "id")
