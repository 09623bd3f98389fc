"""Says whether a tenant is in good standing: pays, and owes nothing."""

from __future__ import annotations

from billing.model import RelayState
from billing.plan_changes import Provision
from billing.store import invoices, tenants
from billing.unit import Unit


async def owes_nothing(unit: Unit, pubkey: str, provision: Provision) -> bool:
    """With `provision = "good_standing"`: a running subscription, an invoice that was paid, none
    that is open, and no relay that was taken for not paying. What such a tenant orders comes up at
    once, and its price is on the next invoice."""
    if provision != "good_standing":
        return False
    tenant = await tenants.get(unit.tx, pubkey)
    if tenant is None or tenant.subscription_status != "active":
        return False
    statuses = [invoice.status for invoice in await invoices.of_tenant(unit.tx, pubkey)]
    if "paid" not in statuses or {"draft", "open", "uncollectible"} & set(statuses):
        return False
    relays = await tenants.relays_of(unit.tx, pubkey)
    return all(r.state not in (RelayState.LIMITED, RelayState.STOPPED) for r in relays)
