"""Carries out one stored change of a subscription, step by step: items -> invoice -> done.

Each step's operation id is its idempotency key (M11), so that a crash between any two steps is
taken up where it stopped; before a new key Stripe is asked for what the old one made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from billing import invoices as effects
from billing import plan_effects
from billing.errors import PurserError, StripeRejected
from billing.good_standing import is_still_due
from billing.item_changes import load_changes
from billing.model import Change, RelayState, Tenant
from billing.open_money import RENEWAL
from billing.plan_model import PlanChangeState
from billing.ports import StripeGateway
from billing.stated_relays import state_relays
from billing.store import invoices, plan_changes, tenants
from billing.store.operations import NEW_KEY_AFTER_S, NEW_KEY_AFTER_TRIES
from billing.subscription_watch import seats_text
from billing.unit import Runtime, Unit
from billing.views import TENANT_KEY, InvoiceView, Prorations, SubscriptionView

CLOCK_SLACK_S: Final = 300
"""Stripe's clock and ours may differ so far: a renewal is never missed for that."""


@dataclass(slots=True)
class Changer:
    """Does what `billing.subscription_sync` planned."""

    rt: Runtime
    stripe: StripeGateway
    days_until_due: int | None = None
    """For new subscriptions: None, they are charged automatically; else invoices are sent."""

    async def advance(self, tenant: Tenant, change: Change) -> None:
        """To the end of the change, or an error; raises the gateway's errors."""
        async with self.rt.unit() as unit:
            await unit.tx.execute("changes.tried", id=change.id, billing_now=unit.billing_now)
            change = replace(change, begun_at=change.begun_at or unit.billing_now)
            if change.kind != "create" and tenant.subscription_id is None:
                # It ended under the change: compare anew.
                await _finish(unit, change, "subscription is over")
                return
        if change.kind != "create" and change.step == "items":
            # Quantities and flags are absolute: saying them again under a new key is harmless.
            await self._renew_keys(change)
        try:
            match change.kind:
                case "create":
                    await self._create(tenant, change)
                case "add" | "upgrade":
                    await self._add(tenant, change)
                case "add_later" | "upgrade_later":
                    view = await self._update(tenant, change, "create_prorations")
                    await self._provide(tenant, change)
                    await self._done(tenant, change, view, "on the next invoice")
                case "set" | "reduce":
                    view = await self._update(tenant, change, "none")
                    await self._done(tenant, change, view, "set")
                case "cancel" | "keep":
                    view = await self.stripe.set_cancel_at_period_end(
                        change.items_operation_id,
                        _subscription_of(tenant),
                        change.kind == "cancel",
                    )
                    await self._done(tenant, change, view, change.kind)
                case "cancel_now":
                    credit = bool(json.loads(change.quantities)["credit"]) and await is_still_due(
                        self.rt, self.stripe, tenant, CLOCK_SLACK_S
                    )
                    await self.stripe.cancel_subscription(
                        change.items_operation_id, _subscription_of(tenant), credit=credit
                    )
                    view = await self.stripe.subscription(_subscription_of(tenant))
                    await self._done(tenant, change, view, change.quantities)
                case _:
                    raise AssertionError(change.kind)
        except StripeRejected as error:
            # Stripe changed under us: give this change up and compare anew. Not an addition whose
            # items are in: its proration lines still want their invoice.
            async with self.rt.unit() as unit:
                current = await unit.tx.fetch_one(Change, "changes.running", tenant=tenant.pubkey)
                if current is not None and current.step == "invoice":
                    raise
                await _finish(unit, change, f"refused: {error.what}")
                await unit.record(
                    "subscription.change_refused",
                    tenant=tenant.pubkey,
                    subject=change.id,
                    error=error.what,
                )
            raise

    async def _create(self, tenant: Tenant, change: Change) -> None:
        with _no_verdict():
            view = await self._made_before(tenant, change) if change.attempts else None
        if view is None:
            assert tenant.customer_id is not None
            quantities: dict[str, int] = json.loads(change.quantities)
            carried = frozenset(json.loads(change.relays))
            async with self.rt.unit() as unit:
                relays = await tenants.relays_of(unit.tx, tenant.pubkey)
            view = await self.stripe.create_subscription(
                change.items_operation_id,
                customer_id=tenant.customer_id,
                quantities=quantities,
                metadata={TENANT_KEY: tenant.pubkey}
                | state_relays(relay for relay in relays if relay.id in carried),
                days_until_due=self.days_until_due,
            )
        if view.latest_invoice_id is None:
            raise PurserError(view.id, "Stripe made a subscription without an invoice")
        with _no_verdict():
            invoice = await self.stripe.invoice(view.latest_invoice_id)
        await self._carry(tenant, change, invoice)
        await self._done(tenant, change, view, invoice.id)

    async def _made_before(self, tenant: Tenant, change: Change) -> SubscriptionView | None:
        """What an earlier try made, if its answer was lost; else perhaps a new key. One that lives
        is it even when it carries a key that was given up: a tenant has one subscription."""
        assert tenant.customer_id is not None
        for view in await self.stripe.subscriptions_of(tenant.customer_id):
            is_ours = view.metadata.get("purser_operation") == change.items_operation_id
            if is_ours or not view.is_terminal:
                return view
        await self._renew_keys(change)
        return None

    async def _add(self, tenant: Tenant, change: Change) -> None:
        assert tenant.customer_id is not None
        subscription_id = _subscription_of(tenant)
        if change.step == "items":
            await self._update(tenant, change, "create_prorations")
            async with self.rt.unit() as unit:
                await unit.tx.execute("changes.step", id=change.id, step="invoice", invoice_id=None)
        invoice: InvoiceView | None = None
        if change.attempts:
            invoice = await self.stripe.find_invoice(
                tenant.customer_id, change.invoice_operation_id
            )
            if invoice is None:
                await self._renew_keys(change)
        if invoice is None:
            invoice = await self.stripe.create_pending_invoice(
                change.invoice_operation_id,
                customer_id=tenant.customer_id,
                subscription_id=subscription_id,
            )
        if invoice is None:
            invoice = await self._swept_up(change, subscription_id)
        if invoice is None:
            await self._start_over(change)
            return
        await self._carry(tenant, change, invoice)
        view = await self.stripe.subscription(subscription_id)
        await self._done(tenant, change, view, invoice.id)

    async def _swept_up(self, change: Change, subscription_id: str) -> InvoiceView | None:
        """A renewal that came before our invoice took the proration lines with it: it carries what
        was ordered, else nobody would pay for it (M12)."""
        begun_at = (change.begun_at or change.created_at) - CLOCK_SLACK_S
        view = await self.stripe.subscription(subscription_id)
        found: list[InvoiceView] = []
        if view.latest_invoice_id is not None:
            found.append(await self.stripe.invoice(view.latest_invoice_id))
        async with self.rt.unit() as unit:
            known = await invoices.of_tenant(unit.tx, change.tenant)
        found += [
            await self.stripe.invoice(invoice.id)
            for invoice in known
            if invoice.subscription_id == subscription_id and invoice.created_at >= begun_at
        ]
        for invoice in sorted(found, key=lambda i: i.created_at):
            if invoice.billing_reason == RENEWAL and invoice.created_at >= begun_at:
                return invoice
        return None

    async def _start_over(self, change: Change) -> None:
        """The lines are neither pending nor on a renewal: somebody took them away. The seats were
        not paid for; the next comparison takes them back and orders them again."""
        async with self.rt.unit() as unit:
            await _finish(unit, change, "its proration lines are gone")
            # The items are as we left them: nobody is told that they were edited.
            tenant = await tenants.get(unit.tx, change.tenant)
            if tenant is not None and tenant.subscription_id is not None:
                await unit.tx.execute(
                    "tenants.set_seats",
                    pubkey=tenant.pubkey,
                    subscription_id=tenant.subscription_id,
                    seats=None,
                )
            await tenants.want_sync(unit.tx, change.tenant, due_at=unit.now, fresh=False)
            await self.rt.alarm(
                unit,
                f"lines_gone:{change.id}",
                f"The proration lines of change {change.id} of tenant {change.tenant[:16]}… are "
                "gone from Stripe without an invoice of ours. Purser orders it again; if somebody "
                "invoiced them by hand, void that invoice.",
            )

    async def _carry(self, tenant: Tenant, change: Change, invoice: InvoiceView) -> None:
        async with self.rt.unit() as unit:
            stored = await effects.refresh(unit, tenant.pubkey, invoice)
            carried: list[str] = []
            for relay_id in json.loads(change.relays):
                plan_change = await plan_changes.live_of(unit.tx, relay_id)
                if plan_change is None or plan_change.state is not PlanChangeState.ORDERED:
                    carried.append(relay_id)
                    continue
                await unit.tx.execute(
                    "plan_changes.set_invoice", id=plan_change.id, invoice_id=stored.id
                )
            await effects.carry(unit, stored, carried)

    async def _provide(self, tenant: Tenant, change: Change) -> None:
        """In good standing: at once, the price is on the next invoice."""
        async with self.rt.unit() as unit:
            for relay_id in json.loads(change.relays):
                plan_change = await plan_changes.live_of(unit.tx, relay_id)
                if plan_change is not None and plan_change.state is PlanChangeState.ORDERED:
                    await plan_effects.apply(unit, plan_change)
                relay = await tenants.relay(unit.tx, relay_id)
                if relay is None or relay.state is not RelayState.PENDING_PAYMENT:
                    continue
                was = relay.state.value
                await tenants.move(unit, relay, RelayState.ACTIVE, was=was, because="good_standing")

    async def _renew_keys(self, change: Change) -> None:
        """The new keys serve the next try: this one still uses the stored row it was given."""
        if change.attempts < NEW_KEY_AFTER_TRIES:
            return
        async with self.rt.unit() as unit:
            if unit.now - change.created_at < NEW_KEY_AFTER_S:
                return
            await unit.tx.execute(
                "changes.renew_operations",
                id=change.id,
                now=unit.now,
                items_operation_id=self.rt.ids.new("op"),
                invoice_operation_id=self.rt.ids.new("op"),
            )
            await unit.record("change.new_keys", tenant=change.tenant, subject=change.id)
        raise PurserError(change.id, "its old keys are given up; the next try has new ones")

    async def _update(
        self, tenant: Tenant, change: Change, prorations: Prorations
    ) -> SubscriptionView:
        return await self.stripe.update_items(
            change.items_operation_id,
            _subscription_of(tenant),
            load_changes(change.quantities),
            prorations,
            proration_at=change.proration_at,
        )

    async def _done(
        self, tenant: Tenant, change: Change, view: SubscriptionView, outcome: str
    ) -> None:
        async with self.rt.unit() as unit:
            await store_subscription(unit, tenant.pubkey, view)
            await unit.tx.execute(
                "tenants.set_seats",
                pubkey=tenant.pubkey,
                subscription_id=view.id,
                seats=seats_text(view),
            )
            if change.kind in ("cancel", "keep"):
                ending = view.id if view.cancel_at_period_end else None
                await unit.tx.execute(
                    "tenants.set_ending", pubkey=tenant.pubkey, subscription_id=ending
                )
            await _finish(unit, change, outcome)
            await unit.record(
                "subscription.changed",
                tenant=tenant.pubkey,
                subject=view.id,
                change=change.kind,
                status=view.status,
                outcome=outcome,
            )


@contextmanager
def _no_verdict() -> Iterator[None]:
    """A look that is refused says nothing of what was made. Were the creation given up for it, its
    first invoice would carry no relay, and be paid for nothing (M12)."""
    try:
        yield
    except StripeRejected as error:
        raise PurserError(error.subject, error.what) from error


def new_change(
    rt: Runtime,
    tenant: str,
    kind: str,
    quantities: str,
    relays: list[str],
    *,
    proration_at: int | None = None,
) -> Change:
    """With fresh operation ids; `quantities` is JSON as `item_changes` makes it."""
    return Change(
        id=rt.ids.new("chg"),
        tenant=tenant,
        kind=kind,
        step="items",
        quantities=quantities,
        relays=json.dumps(relays),
        items_operation_id=rt.ids.new("op"),
        invoice_operation_id=rt.ids.new("op"),
        invoice_id=None,
        attempts=0,
        created_at=rt.clock.now(),
        done_at=None,
        outcome=None,
        proration_at=proration_at,
        begun_at=None,
    )


async def store_change(unit: Unit, change: Change) -> None:
    """The intent, with all that recovery needs (M1)."""
    await unit.tx.execute(
        "changes.insert",
        id=change.id,
        tenant=change.tenant,
        kind=change.kind,
        quantities=change.quantities,
        relays=change.relays,
        items_operation_id=change.items_operation_id,
        invoice_operation_id=change.invoice_operation_id,
        created_at=change.created_at,
        proration_at=change.proration_at,
    )
    await unit.record(
        "subscription.change",
        tenant=change.tenant,
        subject=change.id,
        change=change.kind,
        quantities=change.quantities,
    )


async def _finish(unit: Unit, change: Change, outcome: str) -> None:
    """Whatever it left without an invoice is only confirmed again, not ordered."""
    await unit.tx.execute("changes.finish", id=change.id, now=unit.now, outcome=outcome)
    for plan_change in await plan_changes.live_of_tenant(unit.tx, change.tenant):
        if plan_change.relay_id in json.loads(change.relays):
            await unit.tx.execute("plan_changes.unorder", id=plan_change.id)


async def store_subscription(unit: Unit, pubkey: str, view: SubscriptionView) -> None:
    """What Stripe says of the tenant's subscription; an old one's late event changes nothing."""
    before = await tenants.get(unit.tx, pubkey)
    assert before is not None
    if before.subscription_id not in (None, view.id):
        return
    if view.is_terminal:
        if before.subscription_id is None:
            return
        await unit.tx.execute(
            "tenants.clear_subscription",
            pubkey=pubkey,
            subscription_id=view.id,
            status=view.status,
        )
    else:
        await unit.tx.execute(
            "tenants.set_subscription",
            pubkey=pubkey,
            subscription_id=view.id,
            status=view.status,
            period_end=view.period_end,
        )
        await unit.tx.execute("relays.date_open_stops", tenant=pubkey, stops_at=view.period_end)
    if before.subscription_status != view.status or before.subscription_id != view.id:
        await unit.record(
            f"subscription.{view.status}",
            tenant=pubkey,
            subject=view.id,
            was=before.subscription_status,
        )


def _subscription_of(tenant: Tenant) -> str:
    if tenant.subscription_id is None:
        raise PurserError(tenant.pubkey, "has no subscription any more")
    return tenant.subscription_id
