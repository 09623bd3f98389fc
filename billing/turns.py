"""Whose turn it is among a tenant's unpaid invoices, and what comes when: the oldest with steps."""

from __future__ import annotations

from collections.abc import Iterable

from billing.dunning import Action, Policy, Step, Window, forecast
from billing.model import HostedRelay
from billing.store import dunning, invoices, tenants
from billing.store.engine import Tx
from billing.unit import Unit


async def going_on(unit: Unit, windows: Iterable[Window], policy: Policy) -> list[Window]:
    """Those with steps to come. One whose timeline is over takes nothing more, and waits for ever
    where the operator's timeline has no end: it holds nobody up. Nor does one of which only the end
    is left and a later payment keeps that away: who pays each newest month does so for good."""
    found: list[Window] = []
    for window in windows:
        steps = policy.after(window.day)
        if steps and steps[0].action is Action.END:
            relays = await invoices.relays_of(unit.tx, window.invoice_id)
            if await is_paid_since(unit.tx, relays):
                continue
        if steps:
            found.append(window)
    return found


async def whose_turn(unit: Unit, tenant: str, policy: Policy) -> Window | None:
    """The first open window that has steps to come, else the first; None: nothing is overdue."""
    windows = await dunning.open_of_tenant(unit.tx, tenant)
    return next(iter(await going_on(unit, windows, policy) or windows), None)


async def coming(tx: Tx, window: Window, policy: Policy, now: int) -> list[tuple[Step, int]]:
    """The steps to come and when each is at the earliest, `now` and they in billing time. An end
    that a later payment keeps away comes when that, too, is used up; not known when: not named."""
    found = forecast(window, await dunning.clock(tx), policy, billing_now=now)
    if not await is_paid_since(tx, await invoices.relays_of(tx, window.invoice_id)):
        return found
    tenant = await tenants.get(tx, window.tenant)
    used_up_at = tenant.period_end if tenant is not None else None
    kept: list[tuple[Step, int]] = []
    for step, at in found:
        if step.action is not Action.END:
            kept.append((step, at))
        elif used_up_at is not None:
            kept.append((step, policy.quiet.morning_after(max(at, used_up_at))))
    return kept


async def plan_of(unit: Unit, window: Window, policy: Policy) -> list[dict[str, str | int | None]]:
    """The same as facts of a message: [{action, at}]."""
    found = await coming(unit.tx, window, policy, unit.billing_now)
    return [{"action": step.action.value, "at": at} for step, at in found]


async def is_paid_since(tx: Tx, relays: list[HostedRelay]) -> bool:
    """The newest invoice of one of these is paid, so that it must not end (M13)."""
    for relay in relays:
        if relay.was_brought_up:
            newest = (await invoices.of_relay(tx, relay.id))[-1]
            if newest.status == "paid":
                return True
    return False
