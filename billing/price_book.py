"""Finds or makes Stripe's price for each plan, once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from billing.errors import PurserError
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.store import operations
from billing.unit import Runtime


@dataclass(slots=True)
class PriceBook:
    """Looked up or created by lookup key; a price is never missing in silence (M12)."""

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue
    known: dict[str, str] = field(default_factory=dict)

    async def of(self, plan_ids: Iterable[str]) -> dict[str, str]:
        """Price ids by plan id. Raises the gateway's errors, and `PurserError` for a free plan."""
        # In one order always: a seed of the simulation is the same life in every process.
        return {plan_id: await self._of(plan_id) for plan_id in sorted(set(plan_ids))}

    async def _of(self, plan_id: str) -> str:
        if plan_id not in self.known:
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
            self.known[plan_id] = price_id
        return self.known[plan_id]
