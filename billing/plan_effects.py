"""What a change of plan does once it is paid, due, or given up."""

from __future__ import annotations

from billing.model import HostedRelay, Invoice, RelayState
from billing.plan_model import PlanChange, PlanChangeState
from billing.store import invoices, plan_changes, tenants
from billing.unit import Fact, Unit

_WAITING = (PlanChangeState.ORDERED, PlanChangeState.UNDONE)


async def apply_paid(unit: Unit, invoice: Invoice) -> list[PlanChange]:
    """A paid invoice applies what it pays for (M12), what was given up meanwhile too (M9)."""
    applied: list[PlanChange] = []
    for change in await plan_changes.of_invoice(unit.tx, invoice.id):
        if change.state in _WAITING and await apply(unit, change):
            await invoices.link_relays(unit.tx, invoice.id, [change.relay_id])
            applied.append(change)
    return applied


async def apply(unit: Unit, change: PlanChange) -> bool:
    """The relay gets its new plan; its host is told. False: the relay is gone or changed."""
    moved = await unit.tx.execute(
        "relays.set_plan",
        id=change.relay_id,
        from_plan=change.from_plan,
        to_plan=change.to_plan,
        now=unit.now,
    )
    relay = await tenants.relay(unit.tx, change.relay_id)
    if not moved or relay is None:
        await end(unit, change, PlanChangeState.UNDONE, "the relay is not on that plan any more")
        return False
    await unit.tx.execute("plan_changes.apply", id=change.id, rev=relay.wanted_rev, now=unit.now)
    await tenants.want_sync(unit.tx, change.tenant, due_at=unit.now)
    await unit.record(
        "plan.applied",
        tenant=change.tenant,
        subject=relay.id,
        change=change.id,
        was=change.from_plan,
        plan=change.to_plan,
    )
    return True


async def give_up(unit: Unit, change: PlanChange, why: str) -> None:
    """An upgrade that was not paid: it touches only itself (M12). The seat goes back without
    credit for time never paid, and its open invoice is closed once its requests are dead."""
    if not await end(unit, change, PlanChangeState.UNDONE, why):
        return
    relay = await tenants.relay(unit.tx, change.relay_id)
    if change.invoice_id is not None:
        await invoices.want_collection(unit.tx, change.invoice_id, due_at=unit.now)
    if relay is not None and relay.state is not RelayState.ENDED:
        await unit.say(
            f"plan:{change.id}:undone",
            change.tenant,
            "plan_undone",
            name=relay.name,
            from_plan=change.from_plan,
            to_plan=change.to_plan,
        )


async def drop_all(unit: Unit, relay: HostedRelay, why: str) -> None:
    """The relay goes: offers, and what is confirmed and not on an invoice, are cancelled."""
    for change in (
        await plan_changes.offer_of(unit.tx, relay.id),
        await plan_changes.live_of(unit.tx, relay.id),
    ):
        if change is None or change.state is PlanChangeState.ORDERED:
            continue
        await end(unit, change, PlanChangeState.CANCELLED, why)


async def end(unit: Unit, change: PlanChange, state: PlanChangeState, why: str) -> bool:
    """Over without being applied; its seat is compared again. False: it was over already."""
    if not await plan_changes.end(unit.tx, change.id, state, now=unit.now, problem=why):
        return False
    await tenants.want_sync(unit.tx, change.tenant, due_at=unit.now)
    facts: dict[str, Fact] = {"change": change.id, "plan": change.to_plan, "why": why}
    await unit.record(f"plan.{state.value}", tenant=change.tenant, subject=change.relay_id, **facts)
    return True
