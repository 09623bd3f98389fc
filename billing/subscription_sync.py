"""Keeps one Stripe subscription per tenant in step with the tenant's relays, change by change.

One change at a time is planned by the pure `billing.subscriptions`, stored, and carried out by
`billing.subscription_changes`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

import structlog

from billing.customers import CustomerBook
from billing.errors import ConfigurationWrong, PurserError, StripeMissing, StripeRejected
from billing.good_standing import StopPolicy, credit_is_due, owes_nothing
from billing.item_changes import dump_changes
from billing.model import Change, HostedRelay, RelayState, Tenant
from billing.parallel import by_group
from billing.plan_changes import Provision, Seats, count_seats
from billing.plan_model import PlanChange
from billing.plan_orders import PlanOrders
from billing.plan_quotes import Pricer
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.price_book import PriceBook
from billing.relays import back_off_s
from billing.store import plan_changes, tenants
from billing.subscription_changes import (
    CLOCK_SLACK_S,
    Changer,
    new_change,
    store_change,
    store_subscription,
)
from billing.subscription_end import ended, on_ended
from billing.subscription_watch import notice
from billing.subscriptions import (
    AddItems,
    CancelAtPeriodEnd,
    CreateSubscription,
    InSync,
    KeepRunning,
    SetItems,
    Step,
    WaitForFirstPayment,
    next_step,
    price_relays,
)
from billing.unit import Runtime, Unit
from billing.views import SubscriptionView

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
STEPS: Final = 4
"""Changes a visit: a mixed change is two updates; more would be a loop."""


class _Ended(Exception):
    """Its subscription turned out to be over: what the relays want is to be read again (C9)."""


@dataclass(slots=True)
class SubscriptionSync:
    """Brings Stripe in step; M12: nothing paid is free, an unknown plan is loud."""

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue
    changer: Changer
    email_domain: str | None = None
    provision: Provision = "paid"
    stop: StopPolicy = "period_end"
    prices: PriceBook = field(init=False)
    plan_orders: PlanOrders = field(init=False)

    def __post_init__(self) -> None:
        self.prices = PriceBook(self.rt, self.stripe, self.catalogue)
        pricer = Pricer(self.rt, self.stripe, self.catalogue, self.prices)
        self.plan_orders = PlanOrders(self.rt, pricer, self.provision)

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
                running = await unit.tx.fetch_one(Change, "changes.running", tenant=tenant.pubkey)
            if running is None:
                try:
                    running = await self._plan(current)
                except _Ended:
                    continue
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

    async def _plan(self, tenant: Tenant) -> Change | None:
        wishes = await self._wishes(tenant)
        if not wishes.seats.all_ids and tenant.customer_id is None:
            return None
        tenant = await CustomerBook(self.rt, self.stripe, self.email_domain).ensure(tenant)
        actual = await self._actual(tenant)
        if actual is not None:
            # What is seen there may change what is wished: an end is everybody's to set.
            async with self.rt.unit() as unit:
                fresh = await tenants.get(unit.tx, tenant.pubkey)
                assert fresh is not None
                in_it = [r for r in wishes.relays if r.id in wishes.seats.all_ids]
                await notice(self.rt, unit, fresh, actual, in_it, wishes.relays)
        is_running = actual is not None and not actual.is_terminal
        # Nothing is begun for an order whose time has run out: it ends in a moment (C25).
        wishes = await self._wishes(tenant, living_only=not is_running)
        seats = wishes.seats
        priced = price_relays(
            seats.staying,
            seats.ordered,
            current_prices=await self.prices.of(seats.staying.keys() | seats.ordered.keys()),
            actual=actual,
        )
        step = next_step(priced.desired, actual, ordered=priced.ordered)
        if isinstance(step, CreateSubscription) and await self._money_may_come(tenant):
            # Money for the first invoice that died may still come and pay for this; its request's
            # death asks for this comparison again.
            return None
        if isinstance(step, InSync) and is_running:
            return await self.plan_orders.next_upgrade(tenant, wishes.live.values())
        async with self.rt.unit() as unit:
            change = await self._change_of(unit, tenant, step, wishes, actual)
            if change is not None:
                live = wishes.live
                await _begin(unit, change, [live[r] for r in seats.ordered_ids if r in live])
        return change

    async def _wishes(self, tenant: Tenant, *, living_only: bool = False) -> _Wishes:
        async with self.rt.unit() as unit:
            relays = await tenants.relays_of(unit.tx, tenant.pubkey)
            live = await plan_changes.live_by_relay(unit.tx, tenant.pubkey)
            uncarried = await tenants.uncarried(unit.tx, tenant.pubkey)
            now = unit.billing_now
        if living_only:
            relays = [r for r in relays if r.expires_at is None or r.expires_at > now]
        return _Wishes(relays, live, count_seats(relays, live, uncarried, self.catalogue))

    async def _money_may_come(self, tenant: Tenant) -> bool:
        async with self.rt.unit() as unit:
            count = await unit.tx.scalar("payments.count_undecided", tenant=tenant.pubkey)
        return isinstance(count, int) and count > 0

    async def _change_of(
        self,
        unit: Unit,
        tenant: Tenant,
        step: Step,
        wishes: _Wishes,
        actual: SubscriptionView | None,
    ) -> Change | None:
        seats = wishes.seats
        # A first invoice carries every relay; an addition only what was ordered, so that paying it
        # never brings up a relay that another invoice carries.
        relays = seats.ordered_ids
        match step:
            case InSync() | WaitForFirstPayment():
                return None
            case CreateSubscription(quantities=quantities):
                kind, what = "create", json.dumps(dict(quantities), sort_keys=True)
                relays = seats.all_ids
            case AddItems(changes=changes):
                is_later = await owes_nothing(unit, tenant.pubkey, self.provision)
                kind, what = "add_later" if is_later else "add", dump_changes(changes)
            case SetItems(changes=changes):
                kind, what = "set", dump_changes(changes)
            case CancelAtPeriodEnd():
                kind, what = "cancel", "{}"
                if self.stop == "now_with_credit" and not self._runs_on(wishes.relays, unit):
                    began_at = actual.period_start if actual is not None else None
                    is_due = began_at is not None and await credit_is_due(
                        unit, tenant, began_at - CLOCK_SLACK_S
                    )
                    kind, what = "cancel_now", json.dumps({"credit": is_due})
            case KeepRunning():
                kind, what = "keep", "{}"
        return new_change(self.rt, tenant.pubkey, kind, what, relays)

    def _runs_on(self, relays: list[HostedRelay], unit: Unit) -> bool:
        """Whether something that was paid for runs beyond now."""
        return any(
            relay.state in (RelayState.ACTIVE, RelayState.LIMITED, RelayState.STOPPED)
            and not self.catalogue.get(relay.plan).is_free
            and (relay.stops_at is None or relay.stops_at > unit.billing_now)
            for relay in relays
        )

    async def _actual(self, tenant: Tenant) -> SubscriptionView | None:
        """The one living subscription, by its id or, where that is over or unknown, by asking for
        all: a restored backup names one that was followed by another (M11)."""
        assert tenant.customer_id is not None
        view: SubscriptionView | None = None
        if tenant.subscription_id is not None:
            try:
                view = await self.stripe.subscription(tenant.subscription_id)
            except StripeMissing:
                view = None
        follower: SubscriptionView | None = None
        if view is None or view.is_terminal:
            listed = await self.stripe.subscriptions_of(tenant.customer_id)
            follower = next((other for other in listed if not other.is_terminal), None)
        known = tenant.subscription_id
        is_over = known is not None and follower is None and (view is None or view.is_terminal)
        async with self.rt.unit() as unit:
            if known is not None and view is None:
                await unit.tx.execute(
                    "tenants.clear_subscription",
                    pubkey=tenant.pubkey,
                    subscription_id=known,
                    status="canceled",
                )
            for seen in (view, follower):
                if seen is not None:
                    await store_subscription(unit, tenant.pubkey, seen)
            if view is not None and is_over:
                # The event that would have told is lost or late (K3).
                await on_ended(self.rt, unit, tenant, view, self.catalogue)
            elif known is not None and is_over:
                # Stripe does not know it any more: as if it had been cancelled.
                end = tenant.period_end
                await ended(self.rt, unit, tenant, end, known, self.catalogue)
        if is_over:
            raise _Ended
        return follower or view


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the relays ask for, as read at one moment; `live` by relay id."""

    relays: list[HostedRelay]
    live: dict[str, PlanChange]
    seats: Seats


async def _begin(unit: Unit, change: Change, ordered: list[PlanChange]) -> None:
    """Intent first (M1). Changes from a free plan are ordered with it, like new relays."""
    await store_change(unit, change)
    if change.kind in ("create", "add", "add_later"):
        for plan_change in ordered:
            await unit.tx.execute("plan_changes.order", id=plan_change.id)
