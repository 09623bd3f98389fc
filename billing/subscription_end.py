"""What follows when a subscription ends, or is set to end, without its tenant's relays saying so.

One rule for events, sync and reconcile: relays run to the end of what was paid for them (M13), then
they lapse; nothing new is ordered behind their tenant's back (C9), and `resume` undoes it.
"""

from __future__ import annotations

from collections.abc import Iterable

from billing import lapses
from billing.model import HostedRelay, Invoice, RelayState, Tenant
from billing.plan_model import PlanChangeState
from billing.plans import Catalogue
from billing.standing import is_behind
from billing.store import invoices, plan_changes, tenants
from billing.unit import Runtime, Unit
from billing.views import SubscriptionView

_NEVER_UP = (RelayState.ENDED, RelayState.PENDING_PAYMENT)


async def on_ended(
    rt: Runtime,
    unit: Unit,
    tenant: Tenant,
    view: SubscriptionView,
    catalogue: Catalogue | None = None,
) -> None:
    """Told by an event or by a look. One that expired before its first payment has nothing that
    runs: its orders run out by their own time (billing.lapses)."""
    if view.status == "canceled":
        await ended(rt, unit, tenant, view.period_end, view.id, catalogue)


async def ended(
    rt: Runtime,
    unit: Unit,
    tenant: Tenant,
    period_end: int | None,
    subscription_id: str,
    catalogue: Catalogue | None,
) -> None:
    """It is `canceled`. Relays that were to stop end by their own date; orders that wait for their
    first payment stay orders. `period_end`: of what its last invoice was for."""
    lapsing: list[str] = []
    for relay in await tenants.relays_of(unit.tx, tenant.pubkey):
        if relay.state in _NEVER_UP or not relay.is_renewed:
            continue
        carriers = await invoices.of_relay(unit.tx, relay.id)
        if relay.activated_at is not None and is_behind(carriers):
            # Cancelled over an unpaid renewal, as a Dashboard setting does after the last retry:
            # it is limited, stopped and ended by its timeline, and paying still brings it back.
            # Not where a later one is paid: that keeps the end away, and no newer one will come.
            await lapses.request_lapse(unit, relay, None, "canceled unpaid")
            continue
        stops_at = await _paid_until(unit, relay, carriers, period_end, catalogue)
        if stops_at is None or not await lapses.request_lapse(unit, relay, stops_at, "canceled"):
            continue
        lapsing.append(relay.name)
        await _tell(unit, relay, subscription_id, stops_at)
    if lapsing:
        await rt.alarm(
            unit,
            f"canceled:{subscription_id}",
            f"Subscription {subscription_id} of tenant {tenant.pubkey[:16]}… was cancelled at "
            f"Stripe; {', '.join(lapsing)} stop when what is paid runs out. The tenant was told, "
            "and can resume them.",
        )


async def set_to_end(
    rt: Runtime, unit: Unit, tenant: Tenant, view: SubscriptionView, relays: Iterable[HostedRelay]
) -> int:
    """Somebody, in the Dashboard or the portal, had it end with its period: that stands, and is
    noticed once. `relays`: those in it. Returns how many of them lapse."""
    await unit.tx.execute("tenants.set_ending", pubkey=tenant.pubkey, subscription_id=view.id)
    stops_at = max(view.period_end or 0, unit.billing_now)
    lapsing: list[str] = []
    for relay in relays:
        if relay.state not in _NEVER_UP and await lapses.request_lapse(
            unit, relay, stops_at, "set to end at Stripe"
        ):
            lapsing.append(relay.name)
            await _tell(unit, relay, view.id, stops_at)
    if lapsing:
        await rt.alarm(
            unit,
            f"set_to_end:{view.id}:{stops_at}",
            f"Subscription {view.id} of tenant {tenant.pubkey[:16]}… was set to end at Stripe; "
            f"{', '.join(lapsing)} stop with it. The tenant was told, and can resume them.",
        )
    return len(lapsing)


async def set_to_run(unit: Unit, tenant: Tenant, relays: Iterable[HostedRelay]) -> int:
    """Whoever set it to end took that back: so do its relays."""
    await unit.tx.execute("tenants.set_ending", pubkey=tenant.pubkey, subscription_id=None)
    count = 0
    for relay in relays:
        if relay.lapses_at is not None and relay.state not in _NEVER_UP:
            count += await unit.tx.execute("relays.keep", id=relay.id)
            await unit.record("relay.kept", tenant=relay.tenant, subject=relay.id)
    return count


async def _tell(unit: Unit, relay: HostedRelay, subscription_id: str, stops_at: int) -> None:
    await unit.say(
        f"relay:{relay.id}:lapsing:{subscription_id}:{stops_at}",
        relay.tenant,
        "lapsing",
        name=relay.name,
        stops_at=stops_at,
    )


async def _paid_until(
    unit: Unit,
    relay: HostedRelay,
    carriers: list[Invoice],
    period_end: int | None,
    catalogue: Catalogue | None,
) -> int | None:
    """When a relay of a cancelled subscription stops: not before what was paid runs out (M13), and
    at once where nothing was. None: it is free and none of this subscription's business."""
    if catalogue is not None and catalogue.is_free(relay.plan):
        return None
    if not carriers:
        return None if catalogue is None else unit.billing_now
    if not any(invoice.status == "paid" for invoice in carriers):
        return unit.billing_now
    change = await plan_changes.live_of(unit.tx, relay.id)
    if change is not None and change.state is PlanChangeState.SCHEDULED and change.next_at:
        if catalogue is not None and catalogue.is_free(change.to_plan):
            # Our own end, as its tenant chose: it does not stop, it goes on for nothing.
            return None
        return max(unit.billing_now, change.next_at)
    return max(unit.billing_now, period_end or 0)
