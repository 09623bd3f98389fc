"""Invoices: our mirror of Stripe's objects and collection's own columns."""

from __future__ import annotations

from billing.model import HostedRelay, Invoice
from billing.store.engine import Tx
from billing.views import InvoiceView


async def upsert(tx: Tx, tenant: str, view: InvoiceView, *, now: int) -> Invoice:
    """Store what Stripe said; collection's columns are not touched."""
    await tx.execute(
        "invoices.upsert",
        id=view.id,
        tenant=tenant,
        customer_id=view.customer_id,
        subscription_id=view.subscription_id,
        status=view.status,
        currency=view.currency,
        total_minor=view.total_minor,
        amount_due_minor=view.amount_due_minor,
        amount_remaining_minor=view.amount_remaining_minor,
        billing_reason=view.billing_reason,
        number=view.number,
        created_at=view.created_at,
        period_start=view.period_start,
        period_end=view.period_end,
        fetched_at=now,
    )
    invoice = await get(tx, view.id)
    assert invoice is not None
    return invoice


async def get(tx: Tx, invoice_id: str) -> Invoice | None:
    """By id."""
    return await tx.fetch_one(Invoice, "invoices.get", id=invoice_id)


async def open_of_tenant(tx: Tx, tenant: str) -> list[Invoice]:
    """Drafts and open ones, oldest first."""
    return await tx.fetch_all(Invoice, "invoices.open_of_tenant", tenant=tenant)


async def of_tenant(tx: Tx, tenant: str) -> list[Invoice]:
    """All, oldest first."""
    return await tx.fetch_all(Invoice, "invoices.of_tenant", tenant=tenant)


async def want_collection(tx: Tx, invoice_id: str, *, due_at: int) -> None:
    """Have collection look at it at this time or earlier."""
    await tx.execute("invoices.want_collection", id=invoice_id, due_at=due_at)


async def collect_all_of(tx: Tx, tenant: str, *, due_at: int) -> list[Invoice]:
    """Have collection look at whatever the tenant has open; returns that, oldest first."""
    found = await open_of_tenant(tx, tenant)
    for invoice in found:
        await want_collection(tx, invoice.id, due_at=due_at)
    return found


async def collect_carriers_of(tx: Tx, relay_id: str, *, due_at: int) -> None:
    """Have collection look at every invoice that carries this relay."""
    for invoice in await of_relay(tx, relay_id):
        await want_collection(tx, invoice.id, due_at=due_at)


async def relays_of(tx: Tx, invoice_id: str) -> list[HostedRelay]:
    """The relays it carries."""
    return await tx.fetch_all(HostedRelay, "relays.of_invoice", invoice_id=invoice_id)


async def of_relay(tx: Tx, relay_id: str) -> list[Invoice]:
    """The invoices that carry it, oldest first."""
    return await tx.fetch_all(Invoice, "invoices.of_relay", relay_id=relay_id)


async def payable_by(tx: Tx, tenant: str) -> list[Invoice]:
    """What is open, and what was written off while its relays are dunned for it; oldest first."""
    return await tx.fetch_all(Invoice, "invoices.payable_by_tenant", tenant=tenant)


async def link_relays(tx: Tx, invoice_id: str, relay_ids: list[str]) -> None:
    """It carries these relays; repeats change nothing."""
    for relay_id in relay_ids:
        await tx.execute("relays.link_invoice", invoice_id=invoice_id, relay_id=relay_id)


async def named_relays(tx: Tx, invoice_id: str) -> list[HostedRelay]:
    """The relays it is about, for people: carried ones, and those whose new plan it pays for."""
    return await tx.fetch_all(HostedRelay, "relays.on_invoice", invoice_id=invoice_id)
