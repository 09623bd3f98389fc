"""What follows when Stripe has ended a subscription, told by an event or by a look (C9, K3)."""

from __future__ import annotations

from billing.model import HostedRelay, RelayState, Tenant
from billing.standing import owed_for
from billing.store import invoices, tenants
from billing.unit import Runtime, Unit
from billing.views import SubscriptionView


async def on_ended(rt: Runtime, unit: Unit, tenant: Tenant, view: SubscriptionView) -> None:
    """Stripe ended it. Relays that were to stop end by their own date; the others lose what is
    no longer paid for, and nothing new is ordered for them behind the tenant's back (C9)."""
    if view.status != "canceled":
        return
    for relay in await tenants.relays_of(unit.tx, tenant.pubkey):
        if relay.state in (RelayState.ENDED, RelayState.PENDING_PAYMENT):
            continue
        if relay.stop_requested_at is not None:
            continue
        if await _leave_to_dunning(unit, relay):
            continue
        stops_at = await _paid_until(unit, relay, view)
        if stops_at is None:
            continue
        await unit.tx.execute("relays.request_stop", id=relay.id, now=unit.now, stops_at=stops_at)
        await unit.record(
            "relay.stop_requested", tenant=tenant.pubkey, subject=relay.id, because="canceled"
        )
        await unit.say(
            f"relay:{relay.id}:canceled:{view.id}",
            tenant.pubkey,
            "stopping",
            name=relay.name,
            stops_at=stops_at,
        )
        await rt.alarm(
            unit,
            f"canceled:{view.id}",
            f"Subscription {view.id} of tenant {tenant.pubkey[:16]}… was cancelled at Stripe; "
            "its relays stop when what is paid runs out. The tenant can order again.",
        )


async def _leave_to_dunning(unit: Unit, relay: HostedRelay) -> bool:
    """Cancelled over an unpaid renewal, as a Dashboard setting does after the last retry: the relay
    is limited, stopped and ended by its timeline, and paying still brings it back. It is not
    renewed: its next order is the tenant's own (C9)."""
    if relay.activated_at is None or not await owed_for(unit, relay, besides=""):
        return False
    await unit.tx.execute("relays.request_stop", id=relay.id, now=unit.now, stops_at=None)
    await unit.record(
        "relay.stop_requested", tenant=relay.tenant, subject=relay.id, because="canceled unpaid"
    )
    return True


async def _paid_until(unit: Unit, relay: HostedRelay, view: SubscriptionView) -> int | None:
    """When a relay of a cancelled subscription stops: not before what was paid runs out (M13).
    None: no invoice carries it, so it is free and none of this subscription's business."""
    carriers = await invoices.of_relay(unit.tx, relay.id)
    if not carriers:
        return None
    if any(invoice.status in ("draft", "open", "uncollectible") for invoice in carriers):
        return unit.billing_now
    return max(unit.billing_now, view.period_end or 0)
