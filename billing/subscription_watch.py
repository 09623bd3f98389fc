"""Notices what somebody else changed about a subscription, in the Dashboard or the portal.

The rule: who may use it and whether it is paid is Purser's, whether it goes on is also theirs.
Quantities and prices are set back to what the relays say, without proration, and operators are
told. An end that was set stands until the tenant says `resume`, or whoever set it takes it back.
A date of its own, or paused collection, is an operator's to set: it stands, and operators hear what
follows from it.
"""

from __future__ import annotations

import json

from billing import subscription_end
from billing.model import HostedRelay, Tenant
from billing.reconcile_rules import day
from billing.unit import Runtime, Unit
from billing.views import SubscriptionView


def seats_text(view: SubscriptionView) -> str:
    """The quantities by price id, as they are stored and compared."""
    return json.dumps({item.price_id: item.quantity for item in view.items}, sort_keys=True)


async def notice(
    rt: Runtime,
    unit: Unit,
    tenant: Tenant,
    actual: SubscriptionView,
    in_it: list[HostedRelay],
    relays: list[HostedRelay],
) -> None:
    """`in_it`: relays that are to be renewed and cost something; `relays`: all of the tenant."""
    if actual.is_terminal or tenant.subscription_id != actual.id:
        return
    is_known = tenant.ending_subscription_id == actual.id
    if actual.cancel_at_period_end and not is_known and in_it:
        await subscription_end.set_to_end(rt, unit, tenant, actual, in_it)
    elif not actual.cancel_at_period_end and is_known:
        await subscription_end.set_to_run(unit, tenant, relays)
    await _tell_what_stands(rt, unit, tenant, actual)
    seats = seats_text(actual)
    if tenant.seats == seats:
        return
    await unit.tx.execute(
        "tenants.set_seats", pubkey=tenant.pubkey, subscription_id=actual.id, seats=seats
    )
    if tenant.seats is not None:
        await rt.alarm(
            unit,
            f"edited:{actual.id}:{unit.now}",
            f"The items of subscription {actual.id} of tenant {tenant.pubkey[:16]}… were changed "
            "at Stripe. Purser sets them to what the tenant's relays say, without proration. To "
            "change a relay's plan or stop it, let the tenant say so.",
        )
        await unit.record(
            "subscription.edited", tenant=tenant.pubkey, subject=actual.id, seats=seats
        )


async def _tell_what_stands(
    rt: Runtime, unit: Unit, tenant: Tenant, actual: SubscriptionView
) -> None:
    """Once for each: a second alarm under the same key is the same message."""
    which = f"Subscription {actual.id} of tenant {tenant.pubkey[:16]}…"
    if actual.cancel_at is not None and not actual.cancel_at_period_end:
        await rt.alarm(
            unit,
            f"cancel_at:{actual.id}:{actual.cancel_at}",
            f"{which} was set at Stripe to end on {day(actual.cancel_at)}. That stands: its "
            "relays run to the end of what is paid and then wait for resume. To go on, take the "
            "date back in the Dashboard.",
        )
    if actual.pause_behavior is not None:
        await rt.alarm(
            unit,
            f"collection_paused:{actual.id}:{actual.pause_behavior}:{actual.period_end}",
            f"{which} has its collection paused at Stripe ({actual.pause_behavior}): this period's "
            "renewal is not collected, and its relays run on for nothing. To be paid, resume "
            "collection in the Dashboard; to end it, cancel it.",
        )
