"""Takes relays off whose subscription or order ran out, and orders them again when told.

A relay that its tenant stopped ends. One that lost its subscription otherwise goes back to
`pending_payment`: it keeps its name for a while, its tenant is told how to go on, and nothing is
ordered for it until `resume` (C9, C25).
"""

from __future__ import annotations

from typing import Final

from billing import plan_effects
from billing.model import HostedRelay
from billing.plan_model import PlanChangeState
from billing.plans import Catalogue
from billing.store import invoices, plan_changes, tenants
from billing.unit import Runtime, Unit

KEEP_PAID_S: Final = 30 * 86_400
"""A relay that was once up keeps its name so long (billing time): what it stores may be wanted."""
KEEP_UNPAID_S: Final = 3 * 86_400
"""One that never was: a name is not held for longer by who does not pay."""
ORDER_S: Final = 23 * 3600
"""An order that nobody gave a time has as long as Stripe gives a first invoice."""
LAST_HOUR_S: Final = 3600
"""Just before a period ends nothing is taken back into it: the renewal might be made without the
relay, and it would run for nothing (M12)."""


async def request_lapse(unit: Unit, relay: HostedRelay, stops_at: int | None, why: str) -> bool:
    """Not renewed, for another reason than its tenant's stop; it runs until what is paid for has
    run out (M13), or until that date is known (None)."""
    asked = await unit.tx.execute(
        "relays.request_lapse",
        id=relay.id,
        now=unit.now,
        billing_now=unit.billing_now,
        stops_at=stops_at,
    )
    if asked:
        await unit.record(
            "relay.lapse_requested", tenant=relay.tenant, subject=relay.id, because=why
        )
    return asked > 0


async def lapse(unit: Unit, relay: HostedRelay, catalogue: Catalogue, message: str) -> None:
    """Its time is over. On a free plan by now it simply goes on."""
    change = await plan_changes.live_of(unit.tx, relay.id)
    if (
        change is not None
        and change.state is PlanChangeState.SCHEDULED
        and change.next_at is not None
        and change.next_at <= unit.billing_now
    ):
        await plan_effects.apply(unit, change)
        relay = await tenants.relay(unit.tx, relay.id) or relay
    if catalogue.is_free(relay.plan):
        await unit.tx.execute("relays.keep", id=relay.id)
        return
    keep_s = KEEP_UNPAID_S if relay.activated_at is None else KEEP_PAID_S
    expires_at = unit.billing_now + keep_s
    lapsed = await unit.tx.execute(
        "relays.lapse",
        id=relay.id,
        from_state=relay.state.value,
        now=unit.now,
        billing_now=unit.billing_now,
        expires_at=expires_at,
    )
    if not lapsed:
        return
    await plan_effects.drop_all(unit, relay, "the relay lapsed")
    await unit.record("relay.lapsed", tenant=relay.tenant, subject=relay.id, because=message)
    await _look_again(unit, relay)
    if relay.resumes:
        await order_again(unit, relay, unit.billing_now + ORDER_S)
        message = "ordering_again"
    await unit.say(
        f"relay:{relay.id}:{message}:{unit.billing_now}",
        relay.tenant,
        message,
        name=relay.name,
        plan=relay.plan,
        kept_until=expires_at,
    )


async def order_again(unit: Unit, relay: HostedRelay, expires_at: int) -> bool:
    """A lapsed relay, under the same name and id, is an order like a new one (M12)."""
    ordered = await unit.tx.execute("relays.order_again", id=relay.id, expires_at=expires_at)
    if ordered:
        await unit.record("relay.ordered_again", tenant=relay.tenant, subject=relay.id)
        await _look_again(unit, relay)
    return ordered > 0


async def bill_no_more(rt: Runtime, unit: Unit, relay: HostedRelay, catalogue: Catalogue) -> None:
    """It was paid and never came up: it is not renewed (C15). What was paid for it is the
    operator's to give back, who knows why; if it comes up after all it is renewed again."""
    if catalogue.is_free(relay.plan):
        return
    tenant = await tenants.get(unit.tx, relay.tenant)
    assert tenant is not None
    stops_at = max(tenant.period_end or 0, unit.billing_now)
    if not await request_lapse(unit, relay, stops_at, "never came up"):
        return
    await tenants.want_sync(unit.tx, relay.tenant, due_at=unit.now)
    await unit.say(
        f"relay:{relay.id}:never_up:{unit.now}",
        relay.tenant,
        "never_up",
        name=relay.name,
        stops_at=stops_at,
    )
    await rt.alarm(
        unit,
        f"never_up:{relay.id}:{stops_at}",
        f"Hosted relay {relay.name} of tenant {relay.tenant[:16]}… was paid and never came up. It "
        "is not renewed unless it comes up. Give back what was paid: purser refund, or credit.",
    )


async def came_up_late(unit: Unit, relay: HostedRelay) -> None:
    """What was taken from the subscription for never coming up is in it again."""
    tenant = await tenants.get(unit.tx, relay.tenant)
    # An end that somebody else set stands (billing.subscription_watch); our own is taken back.
    ours = await unit.tx.scalar("changes.last_end", tenant=relay.tenant) == "cancel"
    ends = tenant is not None and tenant.ending_subscription_id is not None and not ours
    is_early = relay.stops_at is not None and relay.stops_at > unit.billing_now + LAST_HOUR_S
    if tenant is None or tenant.subscription_id is None or ends or not is_early:
        return
    if await unit.tx.execute("relays.keep", id=relay.id):
        await unit.record("relay.kept", tenant=relay.tenant, subject=relay.id)
        await tenants.want_sync(unit.tx, relay.tenant, due_at=unit.now)


async def _look_again(unit: Unit, relay: HostedRelay) -> None:
    """The subscription, and the invoices that carry it, are compared with what it is now."""
    await tenants.want_sync(unit.tx, relay.tenant, due_at=unit.now)
    await invoices.collect_carriers_of(unit.tx, relay.id, due_at=unit.now)
