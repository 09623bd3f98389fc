"""The events list: thirty days, by type, time and delivery."""

from __future__ import annotations

from fnmatch import fnmatchcase

from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, operation, page, within
from bot.sandbox.stripe.world import DAY_S

KEPT_S = 30 * DAY_S  # docs: the list goes back up to 30 days
MAX_TYPES = 20  # docs: types, up to 20 strings


@operation("GET", "/v1/events/{id}", "EventRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One event."""
    return call.world.get("event", call.ids["id"])


@operation(
    "GET", "/v1/events", "EventListParams", "created delivery_success type types", listing=True
)
def list_all(call: Call) -> Obj:
    """Newest first; the ids are those of the webhooks."""
    one, several = call.get("type"), call.get("types")
    if one and several:
        raise invalid("You may only specify one of these parameters: type, types.")
    if several is not None and len(several) > MAX_TYPES:
        raise invalid(f"Array must have at most {MAX_TYPES} elements.", param="types")
    patterns = [one] if one else several
    oldest = call.world.now() - KEPT_S
    success = call.get("delivery_success")

    def matches(event: Obj) -> bool:
        if event["created"] < oldest or not within(event["created"], call.get("created")):
            return False
        if patterns and not any(fnmatchcase(event["type"], p) for p in patterns):
            return False
        undelivered = event["_failed"] or event["pending_webhooks"] > 0
        return success is None or success == (not undelivered)

    return page(call, (e for e in call.world.newest("event") if matches(e)))
