"""Stripe event type -> handler. A handler acts on the re-fetched object, never on the payload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from billing import card_events, customer_events, invoice_events, refund_events
from billing import invoices as effects
from billing.errors import StripeMissing
from billing.handling import Answer, Ignored, NotYet
from billing.model import InboxEvent, Tenant
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.store import invoices, tenants
from billing.subscription_changes import store_subscription
from billing.subscription_end import on_ended
from billing.unit import Runtime, Unit
from billing.views import PUBKEY_KEY, TENANT_KEY, InvoiceView, SubscriptionView


@dataclass(slots=True)
class Handlers:
    """One method for each kind of object; the registry below says which event goes where."""

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue | None = None

    async def on_invoice(self, event: InboxEvent) -> Answer:
        """Mirror it and let collection look; every invoice event is only a hint to re-fetch."""
        view = await self._invoice(event)
        if view is None:
            return Ignored("the invoice is gone")
        tenant = await self.owner_of(view.customer_id)
        if not isinstance(tenant, Tenant):
            return tenant

        async def effect(unit: Unit) -> None:
            known = await invoices.get(unit.tx, view.id)
            if known is None and view.is_beside(tenant.subscription_id):
                await self._tell_of_another(unit, tenant, view.subscription_id or "")
                return
            invoice = await effects.refresh(unit, tenant.pubkey, view)
            if invoice.status in ("draft", "open"):
                await invoices.want_collection(unit.tx, invoice.id, due_at=unit.now)

        return effect

    async def on_subscription(self, event: InboxEvent) -> Answer:
        """Compare ids: a late event of an old subscription changes nothing (C16)."""
        assert event.object_id is not None
        try:
            view = await self.stripe.subscription(event.object_id)
        except StripeMissing:
            return Ignored("the subscription is gone")
        tenant = await self.owner_of(view.customer_id)
        if not isinstance(tenant, Tenant):
            return tenant
        if tenant.subscription_id not in (None, view.id):
            if TENANT_KEY in view.metadata or view.is_terminal:
                return Ignored("not the tenant's present subscription")
            return lambda unit: self._tell_of_another(unit, tenant, view.id)
        if tenant.subscription_id is None and view.is_terminal:
            return Ignored("an old subscription")

        async def effect(unit: Unit) -> None:
            present = await tenants.get(unit.tx, tenant.pubkey)
            if present is None or present.subscription_id not in (tenant.subscription_id, view.id):
                # Another took its place while this one was fetched.
                return
            await store_subscription(unit, tenant.pubkey, view)
            if view.is_terminal:
                await on_ended(self.rt, unit, tenant, view, self.catalogue)
            if event.type == "customer.subscription.trial_will_end":
                await _tell_of_trial(unit, tenant, view)
            await tenants.want_sync(unit.tx, tenant.pubkey, due_at=unit.now)

        return effect

    async def _tell_of_another(self, unit: Unit, tenant: Tenant, subscription_id: str) -> None:
        """Somebody made it in the Dashboard for this customer, for what reason ever: a wallet that
        was connected to pay for relays does not pay for it, and nothing is changed about it."""
        await self.rt.alarm(
            unit,
            f"another_subscription:{subscription_id}",
            f"Subscription {subscription_id} was made at Stripe for the customer of tenant "
            f"{tenant.pubkey[:16]}…, beside Purser's own, {tenant.subscription_id}. It is left "
            "alone: no relay is billed by it, and its invoices are not collected here. If it is a "
            "mistake, cancel it at Stripe.",
        )

    async def _invoice(self, event: InboxEvent) -> InvoiceView | None:
        assert event.object_id is not None
        try:
            return await self.stripe.invoice(event.object_id)
        except StripeMissing:
            async with self.rt.unit() as unit:
                known = await invoices.get(unit.tx, event.object_id)
            return None if known is None else effects.deleted_view(known)

    async def owner_of(self, customer_id: str) -> Tenant | Ignored | NotYet:
        """By the stored id; else, for a customer whose answer was lost or that a restored backup
        does not know, by the pubkey in its metadata: no event of ours is ignored for that."""
        if not customer_id:
            return Ignored("without a customer")
        async with self.rt.unit() as unit:
            known = await tenants.by_customer(unit.tx, customer_id)
        if known is not None:
            return known
        try:
            customer = await self.stripe.customer(customer_id)
        except StripeMissing:
            return Ignored("the customer is gone")
        pubkey = customer.metadata.get(PUBKEY_KEY)
        if not pubkey or customer.deleted:
            return Ignored("not a customer of ours")
        async with self.rt.unit() as unit:
            adopted = await tenants.adopt_customer(unit.tx, pubkey, customer_id)
            if adopted is not None:
                return adopted
            if await tenants.get(unit.tx, pubkey) is None:
                return NotYet("its tenant is not here yet")
        return Ignored("the tenant has another customer")

    async def tenant_of(self, customer_id: str) -> Tenant | None:
        """`owner_of`, where money that moved is told to operators whoever it belongs to."""
        found = await self.owner_of(customer_id)
        return found if isinstance(found, Tenant) else None


async def _tell_of_trial(unit: Unit, tenant: Tenant, view: SubscriptionView) -> None:
    """Purser starts no trials; an operator can, at Stripe. Its end is the end of the period."""
    if view.status == "trialing" and view.period_end is not None:
        await unit.say(
            f"trial:{view.id}:{view.period_end}",
            tenant.pubkey,
            "trial_ends",
            ends_at=view.period_end,
        )


Handler: TypeAlias = Callable[[Handlers, InboxEvent], Awaitable[Answer]]

REGISTRY: Final[Mapping[str, Handler]] = {
    **{
        f"invoice.{name}": Handlers.on_invoice
        for name in (
            "created",
            "finalized",
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
        for name in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end")
    },
    "invoice.finalization_failed": invoice_events.on_finalization_failed,
    "invoice.upcoming": invoice_events.on_upcoming,
    "customer.updated": customer_events.on_customer,
    "customer.deleted": customer_events.on_customer_deleted,
    **{
        f"payment_method.{name}": card_events.on_payment_method
        for name in ("attached", "updated", "automatically_updated")
    },
    "payment_method.detached": card_events.on_detached,
    "checkout.session.completed": card_events.on_checkout,
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
NAMELESS: Final = frozenset({"invoice.upcoming"})
"""Events about something that has no id: their handlers find it by its customer."""
