"""Whose turn it is among a tenant's unpaid invoices: the oldest that has steps to come."""

from __future__ import annotations

from collections.abc import Iterable

from billing.dunning import Action, Policy, Window
from billing.model import HostedRelay
from billing.store import dunning, invoices
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
            if await is_paid_since(unit, relays):
                continue
        if steps:
            found.append(window)
    return found


async def whose_turn(unit: Unit, tenant: str, policy: Policy) -> Window | None:
    """The first open window that has steps to come, else the first; None: nothing is overdue."""
    windows = await dunning.open_of_tenant(unit.tx, tenant)
    return next(iter(await going_on(unit, windows, policy) or windows), None)


async def is_paid_since(unit: Unit, relays: list[HostedRelay]) -> bool:
    """The newest invoice of one of these is paid, so that it must not end (M13)."""
    for relay in relays:
        if relay.was_brought_up:
            newest = (await invoices.of_relay(unit.tx, relay.id))[-1]
            if newest.status == "paid":
                return True
    return False
