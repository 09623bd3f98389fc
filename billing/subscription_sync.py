"""Keeps one Stripe subscription per tenant in step with the tenant's relays, change by change.

One change at a time is planned by the pure `billing.subscriptions`, stored, and carried out by
`billing.subscription_changes`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import structlog

from billing.errors import ConfigurationWrong, PurserError, StripeMissing, StripeRejected
from billing.model import Change, HostedRelay, RelayState, Tenant
from billing.parallel import by_group
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.relays import back_off_s
from billing.store import operations, tenants
from billing.subscription_changes import Changer, dump_changes, store_subscription
from billing.subscriptions import (
    AddItems,
    CancelAtPeriodEnd,
    CreateSubscription,
    InSync,
    KeepRunning,
    ReduceItems,
    Step,
    WaitForFirstPayment,
    next_step,
    price_relays,
)
from billing.unit import Runtime
from billing.views import SubscriptionView

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
STEPS: Final = 4
"""Changes a visit: a mixed change is two updates; more would be a loop."""


@dataclass(slots=True)
class SubscriptionSync:
    """Brings Stripe in step; M12: nothing paid is free, an unknown plan is loud."""

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue
    changer: Changer
    email_domain: str | None = None
    prices: dict[str, str] = field(default_factory=dict)

    async def run_once(self, now: int) -> int:
        """Visit the tenants that are due; one's error is its own."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(Tenant, "tenants.sync_due", now=now, count=BATCH)

        async def one(tenant: Tenant) -> None:
            try:
                await self.sync(tenant)
            except PurserError as error:
                await self._failed(tenant, error)

        await by_group(due, lambda tenant: tenant.pubkey, one)
        return len(due)

    async def _failed(self, tenant: Tenant, error: PurserError) -> None:
        log.warning("subscription_sync.failed", tenant=tenant.pubkey, error=str(error))
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "tenants.sync_failed",
                pubkey=tenant.pubkey,
                next_at=unit.now + min(back_off_s(tenant.sync_attempts) // 5 + 1, 300),
            )
            if tenant.sync_attempts == 4 or isinstance(error, StripeRejected | ConfigurationWrong):
                await self.rt.alarm(
                    unit,
                    f"sync:{tenant.pubkey}:{unit.now // 86400}",
                    f"The subscription of tenant {tenant.pubkey[:16]}… cannot be brought in step: "
                    f"{error}. Purser keeps trying.",
                )

    async def sync(self, tenant: Tenant) -> None:
        """Take steps until Stripe says what the relays say."""
        seen_wishes = tenant.sync_wishes
        for _ in range(STEPS):
            async with self.rt.unit() as unit:
                current = await tenants.get(unit.tx, tenant.pubkey)
                assert current is not None
                seen_wishes = current.sync_wishes
                relays = await tenants.relays_of(unit.tx, tenant.pubkey)
                running = await unit.tx.fetch_one(Change, "changes.running", tenant=tenant.pubkey)
            if running is None:
                running = await self._plan(current, relays)
                if running is None:
                    await self._synced(tenant, seen_wishes)
                    break
            async with self.rt.unit() as unit:
                fresh = await tenants.get(unit.tx, tenant.pubkey)
                assert fresh is not None
            await self.changer.advance(fresh, running)

    async def _synced(self, tenant: Tenant, seen_wishes: int) -> None:
        async with self.rt.unit() as unit:
            await unit.tx.execute("tenants.synced", pubkey=tenant.pubkey, seen_wishes=seen_wishes)

    # --- what is to be done ---------------------------------------------------------------------

    async def _plan(self, tenant: Tenant, relays: list[HostedRelay]) -> Change | None:
        living = [r for r in relays if not _is_over(r)]
        paid = [r for r in living if not self.catalogue.get(r.plan).is_free]
        wanted = [r for r in paid if _is_wanted(r)]
        if not wanted and tenant.customer_id is None:
            return None
        tenant = await self._ensure_customer(tenant)
        actual = await self._actual(tenant)
        if actual is None or actual.is_terminal:
            # Nothing is begun for an order whose time has run out: it ends in a moment (C25).
            now = self.rt.clock.billing_now()
            wanted = [r for r in wanted if r.expires_at is None or r.expires_at > now]
        ordered = await self._ordered(tenant, wanted)
        staying = Counter(r.plan for r in wanted if r.id not in ordered)
        coming = Counter(r.plan for r in wanted if r.id in ordered)
        priced = price_relays(
            staying,
            coming,
            current_prices={p: await self._price_of(p) for p in staying.keys() | coming.keys()},
            actual=actual,
        )
        step = next_step(priced.desired, actual, ordered=priced.ordered)
        if isinstance(step, CreateSubscription) and await self._money_may_come(tenant):
            # Money for the first invoice that died may still come and pay for this; its request's
            # death asks for this comparison again.
            return None
        change = self._change_of(tenant, step, wanted, ordered)
        if change is None:
            return None
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "changes.insert",
                id=change.id,
                tenant=change.tenant,
                kind=change.kind,
                quantities=change.quantities,
                relays=change.relays,
                items_operation_id=change.items_operation_id,
                invoice_operation_id=change.invoice_operation_id,
                created_at=unit.now,
            )
            await unit.record(
                "subscription.change",
                tenant=tenant.pubkey,
                subject=change.id,
                change=change.kind,
                quantities=change.quantities,
            )
        return change

    async def _money_may_come(self, tenant: Tenant) -> bool:
        async with self.rt.unit() as unit:
            count = await unit.tx.scalar("payments.count_undecided", tenant=tenant.pubkey)
        return isinstance(count, int) and count > 0

    async def _ordered(self, tenant: Tenant, wanted: list[HostedRelay]) -> frozenset[str]:
        """Relays that wait for payment and that no living invoice carries yet (M12)."""
        async with self.rt.unit() as unit:
            found = await unit.tx.fetch_all(_RelayId, "relays.uncarried", tenant=tenant.pubkey)
        return frozenset(row.id for row in found) & {relay.id for relay in wanted}

    def _change_of(
        self, tenant: Tenant, step: Step, wanted: list[HostedRelay], ordered: frozenset[str]
    ) -> Change | None:
        match step:
            case InSync() | WaitForFirstPayment():
                return None
            case CreateSubscription(quantities=quantities):
                kind, what = "create", json.dumps(dict(quantities), sort_keys=True)
            case AddItems(changes=changes):
                kind, what = "add", dump_changes(changes)
            case ReduceItems(changes=changes):
                kind, what = "reduce", dump_changes(changes)
            case CancelAtPeriodEnd():
                kind, what = "cancel", "{}"
            case KeepRunning():
                kind, what = "keep", "{}"
        # A first invoice carries every relay; an addition only what was ordered, so that paying it
        # never brings up a relay that another invoice carries.
        carried = [r.id for r in wanted if kind == "create" or r.id in ordered]
        return Change(
            id=self.rt.ids.new("chg"),
            tenant=tenant.pubkey,
            kind=kind,
            step="items",
            quantities=what,
            relays=json.dumps(carried),
            items_operation_id=self.rt.ids.new("op"),
            invoice_operation_id=self.rt.ids.new("op"),
            invoice_id=None,
            attempts=0,
            created_at=self.rt.clock.now(),
            done_at=None,
            outcome=None,
        )

    async def _price_of(self, plan_id: str) -> str:
        """Looked up or created by lookup key; a price is never missing in silence (M12)."""
        if plan_id not in self.prices:
            plan = self.catalogue.get(plan_id)
            if plan.amount_minor is None:
                raise PurserError(plan_id, "a free plan has no price")
            async with self.rt.unit() as unit:
                operation = await operations.begin(
                    unit.tx, self.rt, "ensure_price", plan.lookup_key
                )
            price_id = await self.stripe.ensure_price(
                operation.id,
                lookup_key=plan.lookup_key,
                product_name=plan.title,
                amount_minor=plan.amount_minor,
                currency=plan.currency,
                interval=plan.interval,
            )
            async with self.rt.unit() as unit:
                await operations.finish(unit.tx, operation.id, price_id, now=unit.now)
            self.prices[plan_id] = price_id
        return self.prices[plan_id]

    async def _ensure_customer(self, tenant: Tenant) -> Tenant:
        if tenant.customer_id is not None:
            return tenant
        # Stripe is asked first: a reply may have been lost, or this database been restored from
        # before its tenant came; a second customer would mean a second subscription (M11).
        found = await self.stripe.find_customer(tenant.pubkey)
        if found is None:
            async with self.rt.unit() as unit:
                operation = await operations.begin(
                    unit.tx, self.rt, "create_customer", tenant.pubkey
                )
            email = (
                f"{tenant.pubkey[:32]}@{self.email_domain}"
                if self.email_domain is not None
                else None
            )
            found = await self.stripe.create_customer(
                operation.id, pubkey=tenant.pubkey, name=tenant.name, email=email
            )
            async with self.rt.unit() as unit:
                await operations.finish(unit.tx, operation.id, found.id, now=unit.now)
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "tenants.set_customer", pubkey=tenant.pubkey, customer_id=found.id
            )
            await unit.record(
                "tenant.customer", tenant=tenant.pubkey, subject=tenant.pubkey, customer=found.id
            )
            fresh = await tenants.get(unit.tx, tenant.pubkey)
        assert fresh is not None
        return fresh

    async def _actual(self, tenant: Tenant) -> SubscriptionView | None:
        """The one living subscription, by its id or, when none is known, by asking for all."""
        assert tenant.customer_id is not None
        view: SubscriptionView | None = None
        if tenant.subscription_id is not None:
            try:
                view = await self.stripe.subscription(tenant.subscription_id)
            except StripeMissing:
                view = None
        else:
            living = [
                s
                for s in await self.stripe.subscriptions_of(tenant.customer_id)
                if not s.is_terminal
            ]
            view = living[0] if living else None
        if view is not None:
            async with self.rt.unit() as unit:
                await store_subscription(unit, tenant.pubkey, view)
        return view


@dataclass(frozen=True, slots=True)
class _RelayId:
    id: str


def _is_over(relay: HostedRelay) -> bool:
    return relay.state is RelayState.ENDED


def _is_wanted(relay: HostedRelay) -> bool:
    """To be renewed. Delinquency does not change the subscription (C10), only a stop does."""
    return not _is_over(relay) and relay.stop_requested_at is None
