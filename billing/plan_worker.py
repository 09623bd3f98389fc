"""Takes changes of plan on: makes offers, lets them run out, applies or gives up what is due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from billing import plan_effects
from billing.errors import PurserError
from billing.good_standing import owes_nothing
from billing.model import Change
from billing.open_money import is_with_renewal, may_be_paid
from billing.plan_changes import QUOTE_LIFE_S, Provision, code_of
from billing.plan_model import PlanChange, PlanChangeState
from billing.plan_quotes import Price, Pricer
from billing.plans import Catalogue
from billing.store import plan_changes, tenants
from billing.unit import Runtime, Unit

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
RETRY_S: Final = (3, 5, 10, 30, 60)
"""Until Stripe answers or the subscription is in step; then the tenant is told to ask again."""


@dataclass(slots=True)
class PlanWorker:
    """One transaction or one call to Stripe at a time; one change's trouble is its own."""

    rt: Runtime
    pricer: Pricer
    catalogue: Catalogue
    provision: Provision = "paid"

    async def run_once(self, now: int) -> int:
        """Offers asked for, offers run out and changes due; returns how many were worked on."""
        async with self.rt.unit() as unit:
            wanted = await unit.tx.fetch_all(
                PlanChange, "plan_changes.quotes_due", now=now, count=BATCH
            )
            over = await unit.tx.fetch_all(PlanChange, "plan_changes.offers_over", now=now)
            for change in over:
                await plan_changes.end(unit.tx, change.id, PlanChangeState.EXPIRED, now=unit.now)
            due = await self._due(unit)
        for change in wanted:
            await self._quote(change)
        return len(wanted) + len(over) + due

    # --- offers ----------------------------------------------------------------------------------

    async def _quote(self, change: PlanChange) -> None:
        try:
            price = await self.pricer.price(change, proration_at=self.rt.clock.billing_now())
        except PurserError as error:
            log.info("plan.no_price", subject=change.id, error=error.what)
            await self._failed(change)
            return
        async with self.rt.unit() as unit:
            is_later = change.kind == "upgrade" and await owes_nothing(
                unit, change.tenant, self.provision
            )
            await self._offer(unit, change, price, is_later=is_later)

    async def _failed(self, change: PlanChange) -> None:
        async with self.rt.unit() as unit:
            if change.attempts < len(RETRY_S):
                await unit.tx.execute(
                    "plan_changes.quote_failed",
                    id=change.id,
                    next_at=unit.now + RETRY_S[change.attempts],
                )
                return
            relay = await tenants.relay(unit.tx, change.relay_id)
            assert relay is not None
            if await plan_effects.end(unit, change, PlanChangeState.CANCELLED, "no price"):
                await unit.say(
                    f"plan:{change.id}:no_price:{unit.now}",
                    change.tenant,
                    "plan_no_price",
                    name=relay.name,
                    plan=change.to_plan,
                )

    async def _offer(self, unit: Unit, change: PlanChange, price: Price, *, is_later: bool) -> None:
        relay = await tenants.relay(unit.tx, change.relay_id)
        assert relay is not None
        code = code_of(self.rt.ids.token_bytes(16))
        now_minor = 0 if is_later else price.now_minor
        # The difference is then on the renewal, beside its own price.
        next_minor = price.next_minor + (price.now_minor if is_later else 0)
        expires_at = unit.now + QUOTE_LIFE_S
        offered = await unit.tx.execute(
            "plan_changes.quote",
            id=change.id,
            code=code,
            now_minor=now_minor,
            next_minor=next_minor,
            next_at=price.next_at,
            proration_at=price.proration_at,
            expires_at=expires_at,
        )
        if not offered:
            return
        await unit.record(
            "plan.quoted",
            tenant=change.tenant,
            subject=relay.id,
            change=change.id,
            plan=change.to_plan,
            now_minor=now_minor,
            next_minor=next_minor,
        )
        await unit.say(
            f"plan:{change.id}:quote:{code}",
            change.tenant,
            "plan_quote",
            name=relay.name,
            change=change.kind,
            from_plan=self.catalogue.get(relay.plan).title,
            to_plan=self.catalogue.get(change.to_plan).title,
            now_minor=now_minor,
            next_minor=next_minor,
            currency=change.currency,
            next_at=price.next_at,
            later=is_later,
            code=code,
            minutes=QUOTE_LIFE_S // 60,
        )

    # --- what is due -----------------------------------------------------------------------------

    async def _due(self, unit: Unit) -> int:
        count = 0
        for change in await unit.tx.fetch_all(
            PlanChange, "plan_changes.due", billing_now=unit.billing_now
        ):
            if change.state is PlanChangeState.SCHEDULED:
                count += await plan_effects.apply(unit, change)
            elif await _is_lost(unit, change):
                await plan_effects.give_up(unit, change, "it was not paid in time")
                count += 1
        return count


async def _is_lost(unit: Unit, change: PlanChange) -> bool:
    """Nothing can pay for it any more (M13)."""
    if change.invoice_id is not None:
        return not (
            await may_be_paid(unit, change.invoice_id)
            or await is_with_renewal(unit, change.invoice_id)
        )
    # Between two steps of the subscription's change: the invoice that carries it is on its way.
    running = await unit.tx.fetch_one(Change, "changes.running", tenant=change.tenant)
    return running is None or change.relay_id not in running.relays
