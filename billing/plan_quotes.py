"""Prices changes of plan: Stripe's preview for an offer, and again before it is carried out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from billing.errors import PurserError
from billing.model import HostedRelay, Tenant
from billing.plan_changes import count_seats
from billing.plan_model import PlanChange, PlanChangeState
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.price_book import PriceBook
from billing.store import plan_changes, tenants
from billing.subscriptions import differences, priced_quantities
from billing.unit import Runtime
from billing.views import ItemChange, SubscriptionView

DUE_UNCHANGED: Final = ("active", "trialing")
"""Only such a subscription is paid for: elsewhere a proration would credit what nobody paid."""


@dataclass(frozen=True, slots=True)
class Price:
    """Minor units of the plan's currency. `changes` are the rows of the items update; `next_at` is
    the renewal (billing time), None where the subscription does not run yet."""

    now_minor: int
    next_minor: int
    next_at: int | None
    proration_at: int | None
    changes: tuple[ItemChange, ...]


class NotNow(PurserError):
    """The subscription is not as the relays have it yet, or cannot be changed: ask later."""


@dataclass(slots=True)
class Pricer:
    """Asks Stripe; writes nothing but prices that are missing there."""

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue
    prices: PriceBook

    async def price(self, change: PlanChange, *, proration_at: int) -> Price:
        """What this change costs as of then. Raises `NotNow` and the gateway's errors."""
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, change.tenant)
            relays = await tenants.relays_of(unit.tx, change.tenant)
            live = await plan_changes.live_by_relay(unit.tx, change.tenant)
        assert tenant is not None
        if tenant.subscription_id is None:
            return self._of_first(change)
        actual = await self.stripe.subscription(tenant.subscription_id)
        if actual.status not in DUE_UNCHANGED or actual.cancel_at_period_end:
            raise NotNow(change.id, f"the subscription is {actual.status}")
        changes, is_empty = await self._changes(change, tenant, relays, live, actual)
        if is_empty:
            # The last paid relay leaves: the subscription ends with its period.
            return Price(0, 0, actual.period_end, None, changes)
        then = await self.stripe.preview_change(actual.id, changes, proration_at=None)
        if change.kind == "downgrade":
            return Price(0, then.total_minor, actual.period_end, None, changes)
        now = await self.stripe.preview_change(actual.id, changes, proration_at=proration_at)
        return Price(
            now.amount_due_minor, then.total_minor, actual.period_end, proration_at, changes
        )

    def _of_first(self, change: PlanChange) -> Price:
        """From a free plan, with no subscription: its first invoice is the plan's price."""
        amount = self.catalogue.get(change.to_plan).amount_minor
        if amount is None or not self.catalogue.get(change.from_plan).is_free:
            raise NotNow(change.id, "there is no subscription to change")
        return Price(amount, amount, None, None, ())

    async def _changes(
        self,
        change: PlanChange,
        tenant: Tenant,
        relays: list[HostedRelay],
        live: dict[str, PlanChange],
        actual: SubscriptionView,
    ) -> tuple[tuple[ItemChange, ...], bool]:
        """From the seats that stay now to those with this change; True: none would be left."""
        async with self.rt.unit() as unit:
            waiting = await tenants.uncarried(unit.tx, tenant.pubkey)
        others = {relay_id: c for relay_id, c in live.items() if c.id != change.id}
        before = count_seats(relays, others, waiting, self.catalogue).staying
        chosen = others | {change.relay_id: replace(change, state=PlanChangeState.ORDERED)}
        after = count_seats(relays, chosen, waiting, self.catalogue).staying
        prices = await self.prices.of(before.keys() | after.keys())
        seats = priced_quantities(before, current_prices=prices, actual=actual)
        if before and differences(seats, actual):
            raise NotNow(change.id, "the subscription is being brought in step")
        wanted = priced_quantities(after, current_prices=prices, actual=actual)
        return differences(wanted, actual), not wanted
