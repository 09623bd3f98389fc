"""Puts a confirmed upgrade into the subscription, at the price that was confirmed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from billing.errors import StripeRejected
from billing.good_standing import owes_nothing
from billing.item_changes import dump_changes
from billing.model import Change, HostedRelay, RelayState, Tenant
from billing.plan_changes import Provision
from billing.plan_model import PlanChange, PlanChangeState
from billing.plan_quotes import NotNow, Price, Pricer
from billing.standing import is_owing
from billing.store import invoices, tenants
from billing.subscription_changes import new_change, store_change
from billing.unit import Runtime, Unit


@dataclass(slots=True)
class PlanOrders:
    """One upgrade at a time, each with an invoice of its own: unpaid it touches only itself (M12).

    Called once the subscription says what the relays say, so that the change is theirs alone.
    """

    rt: Runtime
    pricer: Pricer
    provision: Provision

    async def next_upgrade(self, tenant: Tenant, live: Iterable[PlanChange]) -> Change | None:
        """The stored change to carry out, if one can be now. Raises the gateway's errors."""
        for plan_change in live:
            if plan_change.state is not PlanChangeState.CONFIRMED:
                continue
            async with self.rt.unit() as unit:
                relay = await tenants.relay(unit.tx, plan_change.relay_id)
                is_ready = relay is not None and await _is_ready(unit, relay)
            if is_ready and (change := await self._begin(tenant, plan_change)) is not None:
                return change
        return None

    async def _begin(self, tenant: Tenant, plan_change: PlanChange) -> Change | None:
        """Priced again as of the offer's moment: what is done costs what was confirmed, or the
        tenant is asked anew."""
        price: Price | None
        assert plan_change.proration_at is not None
        try:
            price = await self.pricer.price(plan_change, proration_at=plan_change.proration_at)
        except NotNow:
            return None
        except StripeRejected:
            # A renewal came between: its moment lies in the period before.
            price = None
        async with self.rt.unit() as unit:
            is_later = await owes_nothing(unit, tenant.pubkey, self.provision)
            if price is None or not _is_as_offered(plan_change, price, is_later=is_later):
                await unit.tx.execute("plan_changes.quote_again", id=plan_change.id, now=unit.now)
                await unit.record(
                    "plan.quote_again", tenant=tenant.pubkey, subject=plan_change.relay_id
                )
                return None
            change = new_change(
                self.rt,
                tenant.pubkey,
                "upgrade_later" if is_later else "upgrade",
                dump_changes(price.changes),
                [plan_change.relay_id],
                proration_at=plan_change.proration_at,
            )
            if not await unit.tx.execute("plan_changes.order", id=plan_change.id):
                return None
            await store_change(unit, change)
        return change


def _is_as_offered(plan_change: PlanChange, price: Price, *, is_later: bool) -> bool:
    """The same moment gives the same proration: another amount means other seats, another price,
    another period, or credit that is spent."""
    now_minor = 0 if is_later else price.now_minor
    return now_minor == plan_change.now_minor and price.next_at == plan_change.next_at


async def _is_ready(unit: Unit, relay: HostedRelay) -> bool:
    """Up and paid for: a proration never credits time that was not paid."""
    carriers = await invoices.of_relay(unit.tx, relay.id)
    owed = is_owing(carriers)
    return relay.state is RelayState.ACTIVE and relay.is_renewed and not owed
