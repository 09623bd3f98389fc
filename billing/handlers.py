"""Stripe event type -> handler. A handler acts on the re-fetched object, never on the payload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from billing import invoices as effects
from billing import refund_events
from billing.errors import StripeMissing
from billing.handling import Effect, Ignored
from billing.model import HostedRelay, InboxEvent, RelayState, Tenant
from billing.ports import StripeGateway
from billing.store import invoices, tenants
from billing.subscription_changes import store_subscription
from billing.unit import Runtime, Unit
from billing.views import InvoiceView, SubscriptionView

PUBKEY_KEY: Final = "purser_pubkey"
"""Customer metadata: whose it is (the gateway writes it at creation)."""


@dataclass(slots=True)
class Handlers:
    """One method for each kind of object; the registry below says which event goes where."""

    rt: Runtime
    stripe: StripeGateway

    async def on_invoice(self, event: InboxEvent) -> Effect | Ignored:
        """Mirror it and let collection look; every invoice event is only a hint to re-fetch."""
        view = await self._invoice(event)
        if view is None:
            return Ignored("the invoice is gone")
        tenant = await self.tenant_of(view.customer_id)
        if tenant is None:
            return Ignored("not a customer of ours")
        found = tenant

        async def effect(unit: Unit) -> None:
            invoice = await effects.refresh(unit, found.pubkey, view)
            if invoice.status in ("draft", "open"):
                await invoices.want_collection(unit.tx, invoice.id, due_at=unit.now)

        return effect

    async def on_subscription(self, event: InboxEvent) -> Effect | Ignored:
        """Compare ids: a late event of an old subscription changes nothing (C16)."""
        assert event.object_id is not None
        try:
            view = await self.stripe.subscription(event.object_id)
        except StripeMissing:
            return Ignored("the subscription is gone")
        tenant = await self.tenant_of(view.customer_id)
        if tenant is None:
            return Ignored("not a customer of ours")
        if tenant.subscription_id not in (None, view.id):
            return Ignored("not the tenant's present subscription")
        if tenant.subscription_id is None and view.is_terminal:
            return Ignored("an old subscription")
        found = tenant

        async def effect(unit: Unit) -> None:
            await store_subscription(unit, found.pubkey, view)
            if view.is_terminal:
                await self._on_ended(unit, found, view)
            await tenants.want_sync(unit.tx, found.pubkey, due_at=unit.now)

        return effect

    async def on_customer(self, event: InboxEvent) -> Effect | Ignored:
        """A payment method came or went, or the customer did: what is open is looked at again."""
        assert event.object_id is not None
        customer_id = event.object_id
        tenant = await self.tenant_of(customer_id)
        if tenant is None:
            return Ignored("not a customer of ours")
        found = tenant

        async def effect(unit: Unit) -> None:
            for invoice in await invoices.open_of_tenant(unit.tx, found.pubkey):
                await invoices.want_collection(unit.tx, invoice.id, due_at=unit.now)

        return effect

    async def _invoice(self, event: InboxEvent) -> InvoiceView | None:
        assert event.object_id is not None
        try:
            return await self.stripe.invoice(event.object_id)
        except StripeMissing:
            async with self.rt.unit() as unit:
                known = await invoices.get(unit.tx, event.object_id)
            return None if known is None else effects.deleted_view(known)

    async def tenant_of(self, customer_id: str) -> Tenant | None:
        """By the stored id; else, for a customer whose answer was lost or that a restored backup
        does not know, by the pubkey in its metadata: no event of ours is ignored for that."""
        if not customer_id:
            return None
        async with self.rt.unit() as unit:
            known = await tenants.by_customer(unit.tx, customer_id)
        if known is not None:
            return known
        try:
            customer = await self.stripe.customer(customer_id)
        except StripeMissing:
            return None
        pubkey = customer.metadata.get(PUBKEY_KEY)
        if not pubkey or customer.deleted:
            return None
        async with self.rt.unit() as unit:
            return await tenants.adopt_customer(unit.tx, pubkey, customer_id)

    async def _on_ended(self, unit: Unit, tenant: Tenant, view: SubscriptionView) -> None:
        """Stripe ended it. Relays that were to stop end by their own date; the others lose what is
        no longer paid for, and nothing new is ordered for them behind the tenant's back (C9)."""
        if view.status != "canceled":
            return
        for relay in await tenants.relays_of(unit.tx, tenant.pubkey):
            if relay.state in (RelayState.ENDED, RelayState.PENDING_PAYMENT):
                continue
            if relay.stop_requested_at is not None:
                continue
            stops_at = await _paid_until(unit, relay, view)
            if stops_at is None:
                continue
            await unit.tx.execute(
                "relays.request_stop", id=relay.id, now=unit.now, stops_at=stops_at
            )
            await unit.record(
                "relay.stop_requested", tenant=tenant.pubkey, subject=relay.id, because="canceled"
            )
            await unit.say(
                f"relay:{relay.id}:canceled:{view.id}",
                tenant.pubkey,
                "stopping",
                name=relay.name,
                stops_at=stops_at,
            )
            await self.rt.alarm(
                unit,
                f"canceled:{view.id}",
                f"Subscription {view.id} of tenant {tenant.pubkey[:16]}… was cancelled at Stripe; "
                "its relays stop when what is paid runs out. The tenant can order again.",
            )


async def _paid_until(unit: Unit, relay: HostedRelay, view: SubscriptionView) -> int | None:
    """When a relay of a cancelled subscription stops: not before what was paid runs out (M13).
    None: no invoice carries it, so it is free and none of this subscription's business."""
    carriers = await invoices.of_relay(unit.tx, relay.id)
    if not carriers:
        return None
    if any(invoice.status in ("draft", "open", "uncollectible") for invoice in carriers):
        return unit.billing_now
    return max(unit.billing_now, view.period_end or 0)


Handler: TypeAlias = Callable[[Handlers, InboxEvent], Awaitable[Effect | Ignored]]

REGISTRY: Final[Mapping[str, Handler]] = {
    **{
        f"invoice.{name}": Handlers.on_invoice
        for name in (
            "created",
            "finalized",
            "finalization_failed",
            "updated",
            "paid",
            "payment_failed",
            "payment_action_required",
            "payment_succeeded",
            "overdue",
            "voided",
            "marked_uncollectible",
            "deleted",
        )
    },
    **{
        f"customer.subscription.{name}": Handlers.on_subscription
        for name in ("created", "updated", "deleted", "paused", "resumed")
    },
    "customer.updated": Handlers.on_customer,
    "charge.refunded": refund_events.on_charge_refunded,
    **{f"refund.{name}": refund_events.on_refund for name in ("created", "updated", "failed")},
    **{
        f"charge.dispute.{name}": refund_events.on_dispute
        for name in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")
    },
    **{f"credit_note.{name}": refund_events.on_credit_note for name in ("created", "voided")},
}
"""To take up another event: one method and one row here (docs/extending.md)."""
EVENT_TYPES: Final = tuple(sorted(REGISTRY))
"""What to enable at Stripe's webhook endpoint."""
