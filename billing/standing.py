"""Says what is still owed for a relay, and brings back what non-payment took of it (C8, C29)."""

from __future__ import annotations

from collections.abc import Sequence

from billing.dunning import RESTORED, Policy, Window, allows_relay
from billing.model import HostedRelay, Invoice, RelayState
from billing.open_money import RENEWAL
from billing.store import dunning, invoices, tenants
from billing.unit import Unit


def is_behind(carriers: Sequence[Invoice]) -> bool:
    """A renewal is not paid, and nothing was paid for the relay since. `carriers`: the invoices
    that carry it, oldest first."""
    for invoice in reversed(carriers):
        if invoice.status == "paid":
            return False
        if invoice.billing_reason == RENEWAL and invoice.status in ("open", "uncollectible"):
            return True
    return False


def is_owing(carriers: Sequence[Invoice]) -> bool:
    """Something can still be paid for the relay. What was written off is over once a later one was
    paid, and an order that was written off gave nothing and is owed by nobody."""
    return any(i.status in ("draft", "open") for i in carriers) or is_behind(carriers)


async def owed_for(unit: Unit, relay: HostedRelay, *, besides: str) -> list[Invoice]:
    """Other renewals that carry this relay and are not paid, oldest first."""
    return [
        invoice
        for invoice in await invoices.of_relay(unit.tx, relay.id)
        if invoice.id != besides
        and invoice.status in ("open", "uncollectible")
        and invoice.billing_reason == RENEWAL
    ]


async def restore(unit: Unit, invoice_id: str, policy: Policy) -> list[HostedRelay]:
    """Bring back what non-payment of this invoice took and nothing else owed keeps; it is settled,
    or nothing is owed on it any more. Returns the relays that come back."""
    back: list[HostedRelay] = []
    for relay in await invoices.relays_of(unit.tx, invoice_id):
        if relay.state not in RESTORED:
            continue
        others = await owed_for(unit, relay, besides=invoice_id)
        windows = [await _window_of(unit, invoice) for invoice in others]
        if not allows_relay(windows, policy):
            continue
        was = relay.state.value
        if await tenants.move(unit, relay, RelayState.ACTIVE, was=was, invoice=invoice_id):
            back.append(relay)
    return back


async def _window_of(unit: Unit, invoice: Invoice) -> Window:
    """Of an invoice that nobody has looked at yet: one before its first step."""
    found = await dunning.get(unit.tx, invoice.id)
    return found or Window(
        invoice_id=invoice.id,
        tenant=invoice.tenant,
        due_at=invoice.created_at,
        opened_at=unit.now,
    )
