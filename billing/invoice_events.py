"""Invoice events that say more than "look again": one is coming, or cannot be finalized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing.handling import Answer, Effect, Ignored, customer_in
from billing.model import InboxEvent, Tenant
from billing.money import format_fiat
from billing.store import cards, invoices, tenants
from billing.unit import Unit

if TYPE_CHECKING:
    from billing.handlers import Handlers


async def on_upcoming(handlers: Handlers, event: InboxEvent) -> Answer:
    """`invoice.upcoming`: an invoice that does not exist yet, so only its customer is read. What
    it will ask for is made right before it is drawn up: the subscription against the relays."""
    customer_id = customer_in(event)
    if customer_id is None:
        return Ignored("no customer in it")
    tenant = await handlers.owner_of(customer_id)
    if not isinstance(tenant, Tenant):
        return tenant

    async def effect(unit: Unit) -> None:
        await tenants.want_sync(unit.tx, tenant.pubkey, due_at=unit.now)
        # Whether the card lives until then.
        await cards.want_look(unit.tx, tenant.pubkey, due_at=unit.now)

    return effect


async def on_finalization_failed(handlers: Handlers, event: InboxEvent) -> Answer:
    """`invoice.finalization_failed`: it stays a draft, which nobody can pay; operators hear of it
    once. Collection goes on trying to finalize what is its own."""
    answer = await handlers.on_invoice(event)
    if not callable(answer):
        return answer
    mirror: Effect = answer

    async def effect(unit: Unit) -> None:
        await mirror(unit)
        assert event.object_id is not None
        invoice = await invoices.get(unit.tx, event.object_id)
        if invoice is None or invoice.status != "draft":
            # Repaired before we looked.
            return
        await handlers.rt.alarm(
            unit,
            f"finalization:{invoice.id}",
            f"Stripe cannot finalize invoice {invoice.id} of tenant {invoice.tenant[:16]}… over "
            f"{format_fiat(invoice.total_minor, invoice.currency)}: it stays a draft, and nobody "
            "is asked to pay. Its page at Stripe says why (often tax or an address); once that is "
            "put right Purser goes on by itself.",
        )

    return effect
