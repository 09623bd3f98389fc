"""What a tenant who owes something is told of what comes next, for `status` and `promise`."""

from __future__ import annotations

from billing.dunning import Policy, Window
from billing.model import RelayState
from billing.store import invoices
from billing.turns import plan_of, whose_turn
from billing.unit import Fact, Unit


async def outlook(unit: Unit, window: Window, policy: Policy) -> dict[str, Fact]:
    """`coming` [{action, at}], `relays` by name, what is left to pay, and how long it is paused."""
    invoice = await invoices.get(unit.tx, window.invoice_id)
    assert invoice is not None
    relays = await invoices.relays_of(unit.tx, window.invoice_id)
    return {
        "coming": await plan_of(unit, window, policy),
        "relays": [relay.name for relay in relays if relay.state is not RelayState.ENDED],
        "amount_minor": invoice.amount_remaining_minor,
        "currency": invoice.currency,
    }


async def next_for(unit: Unit, tenant: str, policy: Policy) -> dict[str, Fact]:
    """Of the unpaid invoice whose turn it is; empty when nothing is overdue."""
    window = await whose_turn(unit, tenant, policy)
    return {} if window is None else await outlook(unit, window, policy)
