"""Finds what webhooks missed: pages of Stripe's objects against the store, differences only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from billing import invoices as effects
from billing.errors import PurserError, StripeMissing, StripeRejected
from billing.inbox import parse_event
from billing.ingest import columns
from billing.model import HostedRelay, Invoice, RelayState, Tenant
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.store import invoices, tenants
from billing.unit import Runtime
from billing.views import InvoiceView, StripeEvent, SubscriptionView

log = structlog.stdlib.get_logger("purser")

CURSOR: Final = "stripe_events"
FIRST_LOOK_BACK_S: Final = 86400
"""Without a cursor: a day back; what is older is found by listing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing to put right: `kind` and `subject` for machines, `text` for people."""

    kind: str
    subject: str
    text: str
    tenant: str | None = None


@dataclass(slots=True)
class Reconciler:
    """Runs at start, on a timer and by command; it asks in pages, never tenant by tenant (C28)."""

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue | None = None

    async def run_once(self, now: int) -> int:
        """Catch up on events, then apply the differences; returns how many."""
        del now
        await self.catch_up()
        differences = await self.plan()
        for difference in differences:
            try:
                await self._apply(difference)
            except PurserError as error:
                # One tenant's trouble is its own (C28).
                log.warning("reconcile.failed", subject=difference.subject, error=error.what)
        return len(differences)

    # --- events that no webhook brought ---------------------------------------------------------

    async def catch_up(self) -> int:
        """Record the events since the cursor, once each; returns how many were new."""
        async with self.rt.unit() as unit:
            cursor = await unit.tx.scalar("leases.cursor", name=CURSOR)
        position = str(cursor) if cursor is not None else None
        added = 0
        while True:
            since = self.rt.clock.billing_now() - FIRST_LOOK_BACK_S
            try:
                page = await self.stripe.events_after(position, since)
            except StripeRejected as error:
                if position is None:
                    raise
                # Stripe keeps 30 days; the lists below find what the events would have said.
                log.warning("reconcile.cursor_lost", error=error.what)
                position = None
                continue
            if not page.events:
                return added
            added += await self._record(page.events)
            position = page.events[-1].id
            async with self.rt.unit() as unit:
                await unit.tx.execute("leases.set_cursor", name=CURSOR, value=position)
            if not page.more:
                return added

    async def _record(self, events: Sequence[StripeEvent]) -> int:
        added = 0
        async with self.rt.unit() as unit:
            for event in events:
                row = parse_event(json.dumps(dict(event.raw)), unit.now)
                if row is None:
                    continue
                new = await unit.tx.execute("ingest.insert_event", **columns(row))
                if new:
                    added += 1
                    await unit.record("event.caught_up", subject=event.id, type=event.type)
        return added

    # --- objects ---------------------------------------------------------------------------------

    async def plan(self) -> list[Difference]:
        """What differs, without changing anything."""
        invoices_at_stripe = await self.stripe.open_invoices()
        subscriptions = await self.stripe.all_subscriptions()
        async with self.rt.unit() as unit:
            known = await unit.tx.fetch_all(Tenant, "tenants.everyone")
            relays = await unit.tx.fetch_all(HostedRelay, "relays.everything")
            mirrored = await unit.tx.fetch_all(Invoice, "invoices.everything")
        by_customer = {t.customer_id: t for t in known if t.customer_id is not None}
        found = _lost_customers(subscriptions, known)
        found += _invoice_differences(invoices_at_stripe, mirrored, by_customer)
        paid = [relay for relay in relays if not self._is_free(relay)]
        found += _subscription_differences(subscriptions, known, paid)
        return found

    def _is_free(self, relay: HostedRelay) -> bool:
        plans = self.catalogue
        return plans is not None and relay.plan in plans and plans.get(relay.plan).is_free

    async def _apply(self, difference: Difference) -> None:
        match difference.kind:
            case "invoice":
                await self._refresh(difference)
            case "customer":
                assert difference.tenant is not None
                async with self.rt.unit() as unit:
                    await tenants.adopt_customer(unit.tx, difference.tenant, difference.subject)
                    await tenants.want_sync(unit.tx, difference.tenant, due_at=unit.now)
                    await unit.record(
                        "reconcile.customer", tenant=difference.tenant, subject=difference.subject
                    )
            case _:
                async with self.rt.unit() as unit:
                    await tenants.want_sync(unit.tx, difference.subject, due_at=unit.now)
                    await unit.record(
                        "reconcile.tenant", tenant=difference.subject, what=difference.text
                    )

    async def _refresh(self, difference: Difference) -> None:
        assert difference.tenant is not None
        try:
            view = await self.stripe.invoice(difference.subject)
        except StripeMissing:
            async with self.rt.unit() as unit:
                known = await invoices.get(unit.tx, difference.subject)
            if known is None:
                return
            view = effects.deleted_view(known)
        async with self.rt.unit() as unit:
            invoice = await effects.refresh(unit, difference.tenant, view)
            if invoice.status in ("draft", "open"):
                await invoices.want_collection(unit.tx, invoice.id, due_at=unit.now)
            await unit.record(
                "reconcile.invoice", tenant=difference.tenant, subject=difference.subject
            )


def _lost_customers(
    at_stripe: Sequence[SubscriptionView], known: Sequence[Tenant]
) -> list[Difference]:
    """Tenants of a restored backup: their subscriptions still say whose they are."""
    without = {tenant.pubkey for tenant in known if tenant.customer_id is None}
    return [
        Difference(
            "customer", view.customer_id, f"customer {view.customer_id} is unknown here", who
        )
        for view in at_stripe
        if (who := view.metadata.get("purser_tenant", "")) in without
    ]


def _invoice_differences(
    at_stripe: Sequence[InvoiceView],
    mirrored: Sequence[Invoice],
    by_customer: dict[str, Tenant],
) -> list[Difference]:
    ours = {invoice.id: invoice for invoice in mirrored}
    listed = {view.id for view in at_stripe}
    found: list[Difference] = []
    for view in at_stripe:
        tenant = by_customer.get(view.customer_id)
        if tenant is None:
            continue
        mine = ours.get(view.id)
        if mine is None:
            text = f"invoice {view.id} is {view.status} at Stripe and unknown here"
        elif mine.status != view.status:
            text = f"invoice {view.id} is {view.status} at Stripe and {mine.status} here"
        elif mine.amount_remaining_minor != view.amount_remaining_minor:
            text = f"invoice {view.id} has another amount at Stripe"
        else:
            continue
        found.append(Difference("invoice", view.id, text, tenant.pubkey))
    for invoice in mirrored:
        if invoice.status in ("draft", "open") and invoice.id not in listed:
            text = f"invoice {invoice.id} is {invoice.status} here and over at Stripe"
            found.append(Difference("invoice", invoice.id, text, invoice.tenant))
    return found


def _subscription_differences(
    at_stripe: Sequence[SubscriptionView],
    known: Sequence[Tenant],
    relays: Sequence[HostedRelay],
) -> list[Difference]:
    living = {view.id: view for view in at_stripe if not view.is_terminal}
    renewed = Counter(
        relay.tenant
        for relay in relays
        if relay.state is not RelayState.ENDED and relay.stop_requested_at is None
    )
    found: list[Difference] = []
    for tenant in known:
        wanted = renewed[tenant.pubkey]
        if tenant.subscription_id is None:
            if wanted and tenant.sync_due_at is None:
                text = f"it has no subscription for {wanted} of its relays"
                found.append(Difference("tenant", tenant.pubkey, text, tenant.pubkey))
            continue
        view = living.get(tenant.subscription_id)
        if view is None:
            text = f"subscription {tenant.subscription_id} is over at Stripe"
        elif view.status != tenant.subscription_status:
            text = (
                f"subscription {view.id} is {view.status} at Stripe and "
                f"{tenant.subscription_status} here"
            )
        elif view.period_end != tenant.period_end:
            text = f"subscription {view.id} has another period at Stripe"
        elif _is_changeable(view) and _seats(view) != wanted:
            text = f"subscription {view.id} has {_seats(view)} relays, {wanted} here"
        else:
            continue
        found.append(Difference("tenant", tenant.pubkey, text, tenant.pubkey))
    return found


def _is_changeable(view: SubscriptionView) -> bool:
    """Neither on its way out nor waiting for its first payment."""
    return not view.cancel_at_period_end and view.status != "incomplete"


def _seats(view: SubscriptionView) -> int:
    return sum(item.quantity for item in view.items)
