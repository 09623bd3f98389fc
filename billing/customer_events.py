"""What Stripe tells of a customer: it changed, or somebody deleted it.

The rule for a deleted customer: its subscription is over, so its relays run to the end of what was
paid (M13); open invoices are voided once nothing issued for them can be paid any more, drafts are
left alone; its credit, and money that still comes, is a liability in the books until an operator
gives it back (M9). The tenant stays, and its next order makes a new customer.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from billing.errors import StripeMissing
from billing.handling import Answer, Ignored
from billing.model import Change, InboxEvent, Tenant
from billing.money import format_fiat
from billing.store import cards, invoices, ledger, tenants
from billing.subscription_end import ended
from billing.unit import Unit

if TYPE_CHECKING:
    from billing.handlers import Handlers


async def on_customer(handlers: Handlers, event: InboxEvent) -> Answer:
    """`customer.updated`: its balance or its card may be another; what is open is looked at."""
    assert event.object_id is not None
    tenant = await handlers.owner_of(event.object_id)
    if not isinstance(tenant, Tenant):
        return tenant

    async def effect(unit: Unit) -> None:
        await cards.want_look(unit.tx, tenant.pubkey, due_at=unit.now)
        await invoices.collect_all_of(unit.tx, tenant.pubkey, due_at=unit.now)

    return effect


async def on_customer_deleted(handlers: Handlers, event: InboxEvent) -> Answer:
    """`customer.deleted`, by the rule above."""
    assert event.object_id is not None
    customer_id = event.object_id
    async with handlers.rt.unit() as unit:
        tenant = await tenants.by_customer(unit.tx, customer_id)
    if tenant is None:
        return Ignored("not a customer of ours")
    try:
        if not (await handlers.stripe.customer(customer_id)).deleted:
            return Ignored("the customer is there")
    except StripeMissing:
        pass
    subscription_id, period_end = tenant.subscription_id, tenant.period_end
    if subscription_id is not None:
        # Where Stripe does not know it any more, it ended as we last saw it.
        with suppress(StripeMissing):
            period_end = (await handlers.stripe.subscription(subscription_id)).period_end

    async def effect(unit: Unit) -> None:
        if not await tenants.forget_customer(unit.tx, tenant.pubkey, customer_id):
            return
        await unit.record("customer.deleted", tenant=tenant.pubkey, subject=customer_id)
        running = await unit.tx.fetch_one(Change, "changes.running", tenant=tenant.pubkey)
        if running is not None:
            await unit.tx.execute(
                "changes.finish", id=running.id, now=unit.now, outcome="the customer was deleted"
            )
        if subscription_id is not None:
            await ended(handlers.rt, unit, tenant, period_end, subscription_id, handlers.catalogue)
        await invoices.collect_all_of(unit.tx, tenant.pubkey, due_at=unit.now)
        credit = await ledger.post_customer_gone(unit, tenant.pubkey, customer_id)
        await tenants.want_sync(unit.tx, tenant.pubkey, due_at=unit.now)
        await _tell(handlers, unit, tenant, customer_id, credit)

    return effect


async def _tell(
    handlers: Handlers, unit: Unit, tenant: Tenant, customer_id: str, credit: dict[str, int]
) -> None:
    kept = ", ".join(format_fiat(minor, currency) for currency, minor in sorted(credit.items()))
    await handlers.rt.alarm(
        unit,
        f"customer_deleted:{customer_id}",
        f"Customer {customer_id} of tenant {tenant.pubkey[:16]}… was deleted at Stripe, and its "
        "subscription with it. Relays run to the end of what was paid, open invoices are voided."
        + (f" Its credit of {kept} is now a liability: give it back by hand." if kept else ""),
    )
    await unit.say(
        f"customer_deleted:{customer_id}",
        tenant.pubkey,
        "account_closed",
        credit=kept or None,
    )
