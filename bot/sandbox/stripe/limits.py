"""Stripe's limits per subscription: new invoices a minute and a day, quantity updates an hour."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj, rate_limit
from bot.sandbox.stripe.world import DAY_S, HOUR_S, World

MINUTE_S = 60
# docs: rate limits, subscriptions.
INVOICES = ((10, MINUTE_S), (20, DAY_S))
QUANTITY_UPDATES = ((200, HOUR_S),)


def count(world: World, sub: Obj, what: str, limits: tuple[tuple[int, int], ...]) -> None:
    """Count one more. Errors: 429 when it exceeds one of `(number, seconds)`."""
    now = world.now()
    longest = max(seconds for _, seconds in limits)
    recent: list[int] = [t for t in sub.get(f"_{what}", []) if t > now - longest]
    for number, seconds in limits:
        if sum(1 for t in recent if t > now - seconds) >= number:
            raise rate_limit(
                "rate_limit", f"Too many {what} for this subscription. Please try again later."
            )
    sub[f"_{what}"] = [*recent, now]
