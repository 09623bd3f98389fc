"""Changes of a relay's plan: typed reads and named transitions."""

from __future__ import annotations

from billing.plan_model import PlanChange, PlanChangeState
from billing.store.engine import Tx


async def get(tx: Tx, change_id: str) -> PlanChange | None:
    """By id."""
    return await tx.fetch_one(PlanChange, "plan_changes.get", id=change_id)


async def offer_of(tx: Tx, relay_id: str) -> PlanChange | None:
    """The one offer for a relay: wanted or quoted."""
    return await tx.fetch_one(PlanChange, "plan_changes.offer_of_relay", relay_id=relay_id)


async def live_of(tx: Tx, relay_id: str) -> PlanChange | None:
    """The one confirmed change of a relay: confirmed, ordered or scheduled."""
    return await tx.fetch_one(PlanChange, "plan_changes.live_of_relay", relay_id=relay_id)


async def live_of_tenant(tx: Tx, tenant: str) -> list[PlanChange]:
    """The confirmed changes of all the tenant's relays, oldest first."""
    return await tx.fetch_all(PlanChange, "plan_changes.live_of_tenant", tenant=tenant)


async def live_by_relay(tx: Tx, tenant: str) -> dict[str, PlanChange]:
    """The same by relay id: a relay has one at a time."""
    return {change.relay_id: change for change in await live_of_tenant(tx, tenant)}


async def of_invoice(tx: Tx, invoice_id: str) -> list[PlanChange]:
    """What an invoice pays for, undone ones too."""
    return await tx.fetch_all(PlanChange, "plan_changes.of_invoice", invoice_id=invoice_id)


async def insert(tx: Tx, change: PlanChange) -> None:
    """A new wish."""
    await tx.execute(
        "plan_changes.insert",
        id=change.id,
        tenant=change.tenant,
        relay_id=change.relay_id,
        kind=change.kind,
        from_plan=change.from_plan,
        to_plan=change.to_plan,
        currency=change.currency,
        now=change.created_at,
    )


async def end(
    tx: Tx, change_id: str, state: PlanChangeState, *, now: int, problem: str | None = None
) -> bool:
    """Over without being applied. False: it was over already."""
    return (
        await tx.execute(
            "plan_changes.end", id=change_id, state=state.value, now=now, problem=problem
        )
        == 1
    )
