"""Whose turn it is among a tenant's unpaid invoices: the oldest that has steps to come."""

from __future__ import annotations

from collections.abc import Iterable

from billing.dunning import Policy, Window
from billing.store import dunning
from billing.unit import Unit


def going_on(windows: Iterable[Window], policy: Policy) -> list[Window]:
    """Those with steps to come. One whose timeline is over takes nothing more, and waits for ever
    where the operator's timeline has no end: it holds nobody up."""
    return [window for window in windows if policy.after(window.day)]


async def whose_turn(unit: Unit, tenant: str, policy: Policy) -> Window | None:
    """The first open window that has steps to come, else the first; None: nothing is overdue."""
    windows = await dunning.open_of_tenant(unit.tx, tenant)
    return next(iter(going_on(windows, policy) or windows), None)
